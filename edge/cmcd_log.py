"""What players report with their requests (CMCD), as lines of JSON for analytics: collected as it came, parsed in a thread."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from edge.access_log import File
from edge.paths import without_secrets
from streamgate.core.settings import LogSettings
from streamgate.core.telemetry import Telemetry
from streamgate.media import cmcd
from streamgate.native.cmcd import COLUMNS, CmcdLog

_PATH = re.compile(r"/v/([^/]+)(?:/([^/]+))?/([^/]+)")
_FIELDS = ("object", "request", "session_field", "status_field")
_NS = 1_000_000_000


def open_cmcd_log(
    settings: LogSettings, telemetry: Telemetry, *, replacing: bool = False
) -> tuple[CmcdLog | None, Callable[[], None]]:
    """The log of the settings, if there is to be one, and what writes the last of it at the end; raises as the access log."""
    if not settings.cmcd_file:
        return None, lambda: None

    def render(block: bytes) -> bytes:
        return rendered(block, telemetry)

    file = File(settings.cmcd_file, telemetry, required=not replacing, name="cmcd", render=render)
    log = CmcdLog(file.write, sample=settings.cmcd_sample)

    def close() -> None:
        log.flush()
        file.close()

    return log, close


def rendered(block: bytes, telemetry: Telemetry) -> bytes:
    """Lines of JSON for a block of entries as :class:`CmcdLog` hands them on; what is unknown or invalid is counted. Blocking."""
    counted: Counter[str] = Counter()
    lines = []
    for entry in filter(None, block.decode("utf-8", "replace").split("\n")):
        lines.append(_line(entry, counted))
        # The event loop should not wait for the interpreter longer than for a line.
        time.sleep(0)
    for result, number in counted.items():
        telemetry.count("cmcd_keys", number, result=result)
    return "".join(lines).encode()


def _shown(value: Any) -> Any:
    """A value as the log has it: what is as long as a token is left out, for a player may tell the URL that it asks for next."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return {key: _shown(each) for key, each in value.items()} if isinstance(value, dict) else value


def _line(entry: str, counted: Counter[str]) -> str:
    told = dict(zip(COLUMNS, entry.split("\t"), strict=True))
    fields = {name: told[column] for name, column in zip(cmcd.FIELDS, _FIELDS, strict=True)}
    report = cmcd.of_request(f"{cmcd.PARAMETER}={told['query']}", fields)
    counted.update(kept=len(report.keys), unknown=report.unknown, invalid=report.invalid)
    seconds, rest = divmod(int(told["now"]), _NS)
    when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    found = _PATH.fullmatch(told["path"])
    asset, rendition, name = found.groups() if found else ("", None, told["path"])
    line = {
        "timestamp": f"{when}.{rest // 1_000_000:03}Z",
        "asset": asset,
        "rendition": rendition,
        "object": name,
        "session": told["session"] or None,
        "status": int(told["status"]),
        "bytes": int(told["bytes"]),
        "seconds": int(told["duration"]) / 1_000_000,
        "tier": told["tier"] or None,
        "version": report.version,
        "cmcd": {key: _shown(value) for key, value in report.keys.items()},
        "unknown": report.unknown or None,
        "invalid": report.invalid or None,
    }
    return json.dumps({key: value for key, value in line.items() if value is not None}, separators=(",", ":")) + "\n"
