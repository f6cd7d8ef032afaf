"""Makes ``.venv`` and all that lives in it; each step only when its inputs changed since it last succeeded.

``python3 tools/prepare.py [--web] [EXTRA…]``: the project with these extras, editable, its kernels built in place; with
``--web`` also the pages. Needs nothing but the standard library and what ``tools/apt.py build`` checks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMPS = VENV / "prepared"
PAGES = ROOT / "streamgate" / "web"


def digest(paths: Iterable[Path], *more: str) -> str:
    """A hash of the files' names and bytes, and of ``more``."""
    out = hashlib.sha256(repr((sys.version, str(ROOT), more)).encode())
    for path in sorted(paths):
        out.update(repr((str(path.relative_to(ROOT)), path.stat().st_size)).encode())
        out.update(path.read_bytes())
    return out.hexdigest()


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run ``command``, with ``variables`` in its environment; its failure ends this program with its status."""
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    status = subprocess.run([str(part) for part in command], cwd=cwd, env=environment).returncode
    if status:
        print(f"failed: {' '.join(map(str, command))}", file=sys.stderr)
        sys.exit(status)


def step(name: str, key: str, what: str) -> bool:
    """Whether step ``name`` has to run; says so."""
    stamp = STAMPS / name
    if stamp.exists() and stamp.read_text() == key:
        return False
    stamp.unlink(missing_ok=True)
    print(what, flush=True)
    return True


def done(name: str, key: str) -> None:
    """Note that step ``name`` has succeeded on these inputs."""
    STAMPS.mkdir(exist_ok=True)
    (STAMPS / name).write_text(key)


def environment() -> None:
    """The virtual environment itself, made anew where its interpreter is gone."""
    python = BIN / "python"
    if python.exists() and subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
        return
    print("Making .venv", flush=True)
    run(sys.executable, "-m", "venv", "--clear", VENV)


def packages(extras: Iterable[str]) -> None:
    """The project and what it needs; extras add up over time, so that `make demo` does not undo `make test`."""
    known = STAMPS / "extras"
    wanted = sorted({"native", *extras, *(known.read_text().split() if known.exists() else ())})
    constraints = ROOT / "constraints.txt"
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())  # what tools are told in it does not matter here
    matters = repr((told["build-system"], told["project"], told["tool"]["setuptools"]))
    key = digest([constraints], matters, *wanted)
    if not step("packages", key, f"Installing the Python packages ({', '.join(wanted)})"):
        return
    pip = (BIN / "python", "-m", "pip", "install", "--quiet", "--quiet", "--constraint", constraints)
    tools = [
        line for line in constraints.read_text().splitlines() if line.lower().startswith(("cython==", "setuptools=="))
    ]
    run(*pip, *tools)
    build()  # pip would do it aside, where `make native` does not find what is up to date
    run(*pip, "--no-build-isolation", "--editable", f"{ROOT}[{','.join(wanted)}]", STREAMGATE_BUILT="1")
    STAMPS.mkdir(exist_ok=True)
    known.write_text(" ".join(wanted))
    done("native", native_key())
    done("packages", key)


def native_key() -> str:
    """What the kernels are built from."""
    sources = [path for path in (ROOT / "native").iterdir() if path.suffix in (".pyx", ".pxd", ".pxi", ".h")]
    return digest([*sources, *(ROOT / "streamgate/native").glob("*.pxd"), ROOT / "setup.py"])


def native() -> None:
    """The kernels, in place."""
    built = {path.name.partition(".")[0] for path in (ROOT / "streamgate/native").glob("*.so")}
    wanted = {path.stem for path in (ROOT / "native").glob("*.pyx")}
    if wanted <= built and not step("native", native_key(), "Building the kernels"):
        return
    build()
    done("native", native_key())


def build() -> None:
    """Compile what is not up to date."""
    run(BIN / "python", "setup.py", "--quiet", "build_ext", "--inplace")


def web() -> None:
    """The pages, into the Python package."""
    if not (ROOT / "web/package.json").exists():
        return
    sources = [p for p in (ROOT / "web").rglob("*") if p.is_file() and "node_modules" not in p.parts]
    lock = digest([ROOT / "web/package.json", ROOT / "web/package-lock.json"])
    if not (ROOT / "web/node_modules").exists():
        (STAMPS / "npm").unlink(missing_ok=True)
    if step("npm", lock, "Installing the players"):
        run(BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", cwd=ROOT / "web")
        done("npm", lock)
    key = digest(sources, lock)
    if not PAGES.exists():
        (STAMPS / "web").unlink(missing_ok=True)
    if step("web", key, "Building the pages"):
        shutil.rmtree(PAGES, ignore_errors=True)
        run(BIN / "node", "web/build.mjs")
        done("web", key)


def main(arguments: list[str]) -> None:
    """Prepare for what ``arguments`` name."""
    began = time.monotonic()
    extras = [argument for argument in arguments if not argument.startswith("-")]
    if subprocess.run([sys.executable, str(ROOT / "tools/apt.py"), "build"]).returncode:
        sys.exit("These packages are needed to install StreamGate.")
    environment()
    packages([*extras, *(["web"] if "--web" in arguments else [])])
    native()
    if "--web" in arguments:
        web()
    if (took := time.monotonic() - began) > 5:
        print(f"Prepared in {took:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
