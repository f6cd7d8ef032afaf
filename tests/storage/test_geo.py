"""Databases of where networks are: what is known, what is not, and files that are wrong, gone or replaced."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from streamgate.access.geography import NOWHERE, Place, Point
from streamgate.core.settings.geoip import GeoipSettings
from streamgate.errors import StreamGateError
from streamgate.storage.geo import Geo
from tests.geoip_factory import number, place, write

NETWORKS = {
    "203.0.113.0/24": place("DE", "BE", at=(52.5, 13.4, 20)),
    "198.51.100.0/24": place("US"),
    "2001:db8:1::/48": place("GB", "ENG", "LND"),
    "192.0.2.0/25": {"country": {"iso_code": ["DE"]}, "subdivisions": "BE", "location": {"latitude": 91.0}},
}


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


@pytest.fixture
def files(tmp_path: Path) -> GeoipSettings:
    write(tmp_path / "city.mmdb", NETWORKS)
    write(tmp_path / "asn.mmdb", {"203.0.113.0/24": number(64500), "2001:db8::/32": number(4_200_000_000)})
    return GeoipSettings(country=str(tmp_path / "city.mmdb"), asn=str(tmp_path / "asn.mmdb"))


def test_what_is_known_of_an_address(files: GeoipSettings) -> None:
    geo = Geo(files)
    assert geo.configured
    assert geo.place(packed("203.0.113.7")) == Place("DE", frozenset({"BE"}), Point(52.5, 13.4, 20_000))
    assert geo.place(packed("::ffff:203.0.113.7")).country == "DE"
    assert geo.place(packed("198.51.100.9")) == Place("US")
    assert geo.place(packed("2001:db8:1::9")).subdivisions == frozenset({"ENG", "LND"})
    assert [geo.number(packed(a)) for a in ("203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1")] == [
        64500,
        64500,
        4_200_000_000,
    ]


@pytest.mark.parametrize("address", [b"", packed("192.0.2.1"), packed("192.0.2.200"), packed("2001:db8:2::1")])
def test_what_is_not_known_or_has_another_form_is_nothing(files: GeoipSettings, address: bytes) -> None:
    assert Geo(files).place(address) == NOWHERE
    assert Geo(GeoipSettings()).place(address) == NOWHERE
    assert Geo(GeoipSettings()).number(address) is None
    assert not Geo(GeoipSettings()).configured


def test_a_database_of_ipv4_knows_no_ipv6(tmp_path: Path) -> None:
    write(tmp_path / "asn.mmdb", {"203.0.113.0/24": number(1)}, version=4)
    geo = Geo(GeoipSettings(asn=str(tmp_path / "asn.mmdb")))
    assert (geo.number(packed("203.0.113.1")), geo.number(packed("2001:db8::1"))) == (1, None)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "large"])
def test_at_the_start_a_file_that_is_wrong_is_told_of(files: GeoipSettings, damage: str) -> None:
    path, settings = Path(files.country), files
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "large":
        settings = files.model_copy(update={"max_size": len(whole) - 1})
    else:
        path.write_bytes({"empty": b"", "text": b"DE\n" * 1000, "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(StreamGateError) as caught:
        Geo(settings)
    assert caught.value.code == "config_invalid" and files.country in caught.value.detail


def test_a_database_that_is_replaced_is_read_and_a_wrong_one_is_not(
    files: GeoipSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    geo, path, seen = Geo(files), Path(files.country), packed("203.0.113.7")
    write(path, {"203.0.113.0/24": place("FR")})
    assert geo.place(seen).country == "DE"
    geo.look()
    assert geo.place(seen).country == "FR"
    # In place: whoever had it mapped would read what is not there any more.
    with path.open("r+b") as file:
        file.truncate(100)
    assert geo.place(seen).country == "FR"
    geo.look()
    geo.look()
    assert geo.place(seen).country == "FR"
    path.unlink()
    geo.look()
    assert geo.place(seen).country == "FR"
    write(path, {"203.0.113.0/24": place("AT")})
    geo.look()
    assert geo.place(seen).country == "AT"


def test_no_file_stays_open(files: GeoipSettings) -> None:
    geo = Geo(files)
    before = set(os.listdir("/proc/self/fd"))
    for country in ("FR", "IT", "ES"):
        write(Path(files.country), {"203.0.113.0/24": place(country)})
        geo.look()
    assert len(set(os.listdir("/proc/self/fd"))) <= len(before)
    assert geo.place(packed("203.0.113.7")).country == "ES"
