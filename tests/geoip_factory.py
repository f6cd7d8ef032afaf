"""Tiny MaxMind databases: networks, and what is said of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPNetwork, IPSet


def write(path: Path, networks: Mapping[str, Mapping[str, Any]], *, version: int = 6) -> Path:
    """A database at ``path``, replaced as updates are; ``version`` 4 holds no IPv6."""
    made = MMDBWriter(ip_version=version, ipv4_compatible=version == 6, database_type="Test")
    for network, record in networks.items():
        made.insert_network(IPSet([IPNetwork(network)]), dict(record))
    fresh = path.with_name(f"{path.name}.new")
    made.to_db_file(str(fresh))
    return fresh.replace(path)


def place(country: str, *subdivisions: str, at: tuple[float, float, int] | None = None) -> dict[str, Any]:
    """A record of a city's database; ``at``: degrees north, degrees east, and the accuracy in km."""
    record: dict[str, Any] = {"country": {"iso_code": country}}
    if subdivisions:
        record["subdivisions"] = [{"iso_code": code} for code in subdivisions]
    if at is not None:
        record["location"] = dict(zip(("latitude", "longitude", "accuracy_radius"), at, strict=True))
    return record


def number(value: int) -> dict[str, Any]:
    """A record of a database of networks' numbers."""
    return {"autonomous_system_number": value, "autonomous_system_organization": "Example"}
