"""Extensions and four switches only; everything else is in pyproject.toml.

STREAMGATE_DEBUG=1     annotate, bounds checks
STREAMGATE_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (use ``make sanitize``)
STREAMGATE_BUILT=1     nothing: they are built in place; an editable install would build them all once more aside
STREAMGATE_TRACE=1     line coverage of the .pyx files (``python tools/variant.py trace``)
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("STREAMGATE_DEBUG") == "1"
SANITIZE = os.environ.get("STREAMGATE_SANITIZE") == "1"
TRACE = os.environ.get("STREAMGATE_TRACE") == "1"
BUILT = os.environ.get("STREAMGATE_BUILT") == "1"

compile_args = ["-O3", "-g0", "-fno-strict-aliasing", "-Wno-sign-compare"]
link_args: list[str] = []
macros = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
if SANITIZE:
    compile_args = [
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ]
    link_args = ["-fsanitize=address,undefined"]
if TRACE:
    macros.append(("CYTHON_TRACE_NOGIL", "1"))

headers = sorted(str(path) for path in Path("native").glob("*.h"))
declarations = sorted(Path("streamgate/native").glob("*.pxd"))

extensions = [
    Extension(
        f"streamgate.native.{source.stem}",
        [str(source)],
        depends=[*headers, *map(str, declarations)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
        libraries=["crypto"] if source.stem == "cat" else [],
    )
    for source in sorted(Path("native").glob("*.pyx"))
]
# What Cython would put into each kernel, memoryviews above all: once for all halves the build and the kernels' size.
SHARED = "streamgate.native._cython"
Path("build").mkdir(exist_ok=True)
extensions.append(
    Extension(
        SHARED,
        ["build/_cython.c"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
    )
)


def stale(source: Path) -> bool:
    """Whether a declaration, or this file, is newer than the C made from ``source``; cythonize looks beside the .pyx only."""
    made = source.with_suffix(".c")
    return made.exists() and any(p.stat().st_mtime > made.stat().st_mtime for p in (Path(__file__), *declarations))


setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},  # pip too
    ext_modules=[]
    if BUILT
    else cythonize(
        extensions,
        language_level=3,
        include_path=["."],
        shared_utility_qualified_name=SHARED,
        annotate=DEBUG,
        quiet=not DEBUG,
        nthreads=os.cpu_count() or 1,
        force=any(stale(Path(str(e.sources[0]))) for e in extensions),
        compiler_directives={
            "boundscheck": DEBUG or SANITIZE,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG or SANITIZE,
            "linetrace": TRACE,
        },
    ),
)
