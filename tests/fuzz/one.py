"""Fuzzes one target: ``python tests/fuzz/one.py NAME [libFuzzer's options] CORPUS``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["streamgate", "edge"]):
    from streamgate.errors import StreamGateError
    from tests.fuzz.targets import TARGETS


def main(name: str, options: list[str]) -> None:
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target(data)
        except StreamGateError:
            pass

    atheris.Setup([name, *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
