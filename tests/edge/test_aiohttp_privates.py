"""The private attributes of aiohttp's protocol that the edge reads, each by name: a new minor version must prove them again."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version

from aiohttp import web

from edge import connections

PRIVATE = {
    "_close",
    "_force_close",
    "_messages",
    "_request_count",
    "_request_in_progress",
    "_task_handler",
    "_upgraded",
    "_waiter",
}


def test_the_version_is_the_one_they_were_read_in() -> None:
    assert version("aiohttp").startswith("3.14.")


def test_aiohttp_still_has_them() -> None:
    attributes = {name for kind in web.RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    assert attributes >= PRIVATE


def test_no_others_are_used() -> None:
    source = inspect.getsource(connections)
    [ours] = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Handler"]
    own = {*connections.Handler.__slots__, *(n.name for n in ours.body if isinstance(n, ast.FunctionDef))}
    used = {
        n.attr
        for n in ast.walk(ours)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }
    assert {name for name in used - own if name.startswith("_")} == PRIVATE
