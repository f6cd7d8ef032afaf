"""Where a network address is, and whose network it belongs to: MaxMind databases (MaxMind DB file format 2.0).

A database is copied into memory of our own before it is opened: one that is overwritten in place, or cut short, while it is
read would end the process, were it mapped from its file.
"""

from __future__ import annotations

import ipaddress
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgate.access.geography import NOWHERE, Place, Point
from streamgate.core.logging import get_logger
from streamgate.core.settings.geoip import GeoipSettings
from streamgate.errors import StreamGateError

if TYPE_CHECKING:
    import maxminddb

_MAPPED = bytes(10) + b"\xff\xff"
_log = get_logger("storage.geo")


class Geo:
    """The databases that the settings name.

    Raises ``config_invalid`` where one of them is missing, too large, or none; unless it is not ``required``: it is told of
    then, and nothing is known until it is right. Making one, and :meth:`look`, block.
    """

    def __init__(self, settings: GeoipSettings, *, required: bool = True) -> None:
        self._country = _Database(settings.country, settings.max_size, required)
        self._asn = _Database(settings.asn, settings.max_size, required)

    @property
    def configured(self) -> bool:
        """Whether there is any database."""
        return bool(self._country.path or self._asn.path)

    def look(self) -> None:
        """Read what was replaced. A file that is gone or wrong is told of once, and what was read before counts on."""
        self._country.look()
        self._asn.look()

    def number(self, address: bytes) -> int | None:
        """The number of the autonomous system of a packed address (4 or 16 bytes); None where it is not known."""
        found = self._asn.get(address).get("autonomous_system_number")
        return found if type(found) is int and 0 <= found < 1 << 32 else None

    def place(self, address: bytes) -> Place:
        """Where a packed address is, as far as it is known."""
        found = self._country.get(address)
        if not found:
            return NOWHERE
        divisions = found.get("subdivisions")
        codes = {_code(one) for one in divisions} - {None} if isinstance(divisions, list) else None
        return Place(
            _code(found.get("country")),
            frozenset(code for code in codes if code is not None) if codes else None,
            _point(found.get("location")),
        )


class _Database:
    def __init__(self, path: str, max_size: int, required: bool) -> None:
        self.path = path
        self._max_size = max_size
        self._reader: maxminddb.Reader | None = None
        self._state: tuple[int, ...] | None = ()  # of the file; None: there is none
        if path and required:
            self._state = _state(path)
            self._reader = self._read()
        elif path:
            self.look()

    def look(self) -> None:
        if not self.path or (now := _state(self.path)) == self._state:
            return
        self._state = now
        try:
            self._reader = self._read()  # who asks the old one at this moment keeps it alive
        except StreamGateError as error:
            _log.error("a GeoIP database is not taken, the one before counts on", reason=error.detail)
        else:
            _log.info("a GeoIP database was replaced", file=self.path)

    def get(self, address: bytes) -> dict[str, Any]:
        """The record of an address; empty where there is none."""
        reader = self._reader
        if reader is None or not address:
            return {}
        if len(address) == 16 and address.startswith(_MAPPED):
            address = address[12:]
        try:
            found = reader.get(ipaddress.ip_address(address))
        except (RuntimeError, ValueError):  # a damaged part (InvalidDatabaseError), or IPv6 in a database of IPv4
            return {}
        return found if isinstance(found, dict) else {}

    def _read(self) -> maxminddb.Reader:
        try:
            import maxminddb
        except ImportError:
            raise StreamGateError("config_invalid", "geoip needs the extra: pip install 'streamgate[geo]'") from None
        try:
            with Path(self.path).open("rb") as file:
                data = file.read(self._max_size + 1)
            if len(data) > self._max_size:
                raise StreamGateError("config_invalid", f"{self.path} is larger than geoip.max_size")
            held = os.memfd_create("geoip", os.MFD_CLOEXEC)
            with open(held, "wb") as copy:
                copy.write(data)
                copy.flush()
                return maxminddb.open_database(f"/proc/self/fd/{held}")
        except OSError as error:
            raise StreamGateError("config_invalid", f"{self.path}: {os.strerror(error.errno or 0)}") from error
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            raise StreamGateError("config_invalid", f"{self.path} is no MaxMind database") from error


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _code(record: object) -> str | None:
    code = record.get("iso_code") if isinstance(record, dict) else None
    return code.upper() if isinstance(code, str) and code else None


def _point(record: object) -> Point | None:
    if not isinstance(record, dict):
        return None
    # Without an accuracy how far away the address may be is not known.
    values = [record.get(name) for name in ("latitude", "longitude", "accuracy_radius")]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):  # type: ignore[arg-type]
        return None
    latitude, longitude, kilometres = (float(value) for value in values)  # type: ignore[arg-type]
    if abs(latitude) > 90 or abs(longitude) > 180 or kilometres < 0:
        return None
    return Point(latitude, longitude, 1000 * kilometres)
