"""Runs Python on kernels built another way: ``python tools/variant.py asan|trace|fuzz ARGUMENTS…``.

The variant lies in ``build/NAME`` with a copy of the Python sources, found through PYTHONPATH. Never in place: an import of a
sanitized kernel without its runtime ends the interpreter, and an ordinary rebuild would not notice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWITCHES = {
    "asan": {"STREAMGATE_SANITIZE": "1"},
    "trace": {"STREAMGATE_TRACE": "1"},
    # The coverage that libFuzzer reads is made by clang alone.
    "fuzz": {"CC": "clang", "LDSHARED": "clang -shared", "CFLAGS": "-fsanitize=address,fuzzer-no-link"},
}


def build(name: str) -> Path:
    """The folder with variant ``name``, brought up to date."""
    home = ROOT / "build" / name
    source, library = home / "source", home / "lib"
    for part in ("native", "streamgate", "edge", "tests", "benchmarks"):
        shutil.rmtree(library / part, ignore_errors=True)
        ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "web")
        shutil.copytree(ROOT / part, source / part, dirs_exist_ok=True, ignore=ignore)
        if part != "native":
            shutil.copytree(ROOT / part, library / part, ignore=ignore)
    for file in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy2(ROOT / file, source / file)
        shutil.copy2(ROOT / file, library / file)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(library)]
    command += ["--build-temp", str(home / "temp")]
    environment = {**os.environ, **SWITCHES[name]}
    subprocess.run(command, cwd=source, env=environment, check=True)
    return home


def runtime(name: str) -> str:
    """Where gcc has the sanitizer's runtime ``name``."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(found.stdout.strip()).resolve())


def main(name: str, arguments: list[str]) -> int:
    """Build the variant and run Python in it."""
    home = build(name)
    environment = {**os.environ, "PYTHONPATH": str(home / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    if name == "asan":
        environment |= {
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        }
    elif name == "fuzz":
        import atheris

        preload = Path(atheris.path(), "asan_with_fuzzer.so")
        environment |= {"PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": str(preload)}
    # From the copy: at the root of the project the editable install's own kernels would come first.
    arguments = [str(ROOT / part) if part.startswith("tools/") else part for part in arguments]
    return subprocess.run([sys.executable, *arguments], cwd=home / "lib", env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
