"""docs/phases.md tells what edge/phases.py does, in its order and words."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from edge.phases import PHASES

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "phases.md"


def test_the_table_is_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert rows == [(phase.__name__, inspect.getdoc(phase)) for phase in PHASES]


def test_the_order_is_the_design() -> None:
    names = ["parse", "authorize", "key", "lookup", "resolve", "store", "deliver", "log"]
    assert [phase.__name__ for phase in PHASES] == names


def test_settings_that_it_names_exist() -> None:
    from streamgate.core.config import table

    known = {f"{row.section}.{row.name}" for row in table()}
    named = set(re.findall(r"`(edge\.\w+)`", DOCUMENT.read_text("utf-8")))
    assert named and named <= known | {"edge.context"}
