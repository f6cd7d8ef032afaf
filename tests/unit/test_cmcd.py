"""What players say of themselves (CTA-5004), read leniently: nothing raises, and what is wrong is counted."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.media import cmcd
from streamgate.media.cmcd import KEYS, MAX_TEXT, Report, of_request, parse
from streamgate.media.structured import MAX_ITEMS, MAX_KEY


def one(text: str) -> Report:
    return parse([text])


def test_a_request_of_version_1() -> None:
    """Every key of it, in the query."""
    told = (
        'bl=21300,br=3200,bs,cid="faec5fc2-ac30-11ea-bb37-0242ac130002",d=4004,dl=18500,mtp=48100,'
        'nor="..%2F300kbps%2Ftrack.m4v",nrr="12323-48763",ot=v,pr=1.08,rtp=12000,'
        'sf=d,sid="6e2fb550-c457-11e9-bb97-0800200c9a66",st=v,su,tb=6000'
    )
    report = of_request(f"a=b&CMCD={quote(told)}&CMCD=br%3D1", {})
    assert (report.version, report.unknown, report.invalid) == (1, 0, 0)
    assert report.keys == {
        "bl": 21300,
        "br": 3200,
        "bs": True,
        "cid": "faec5fc2-ac30-11ea-bb37-0242ac130002",
        "d": 4004,
        "dl": 18500,
        "mtp": 48100,
        "nor": "..%2F300kbps%2Ftrack.m4v",
        "nrr": "12323-48763",
        "ot": "v",
        "pr": 1.08,
        "rtp": 12000,
        "sf": "d",
        "sid": "6e2fb550-c457-11e9-bb97-0800200c9a66",
        "st": "v",
        "su": True,
        "tb": 6000,
    }


def test_a_request_of_version_2() -> None:
    """Its version is in one field, its keys in all four."""
    fields = {
        "CMCD-Session": 'v=2,sid="s",cid="c",sf=h,st=ll,msd=312',
        "CMCD-Object": "br=(3200;v 128;a),d=4000,ot=av,tb=(6000;v),tpb=(5000)",
        "CMCD-Request": 'bl=(2100;v 1800;a),mtp=(21300),nor=("2.m4s" "3.m4s";r="0-99"),sn=7,sta=p,pt=-20,ltc=900,su',
        "CMCD-Status": "bs,bsa=(3;v),bsd=(200;v 310;v),dfa=12,bg,nr,com.example-build=7",
    }
    report = of_request("", fields)
    assert (report.version, report.unknown, report.invalid) == (2, 0, 0)
    assert report.keys["br"] == [{"v": 3200}, {"a": 128}]
    assert report.keys["bsd"] == [{"v": 200}, {"v": 310}]
    assert (report.keys["tpb"], report.keys["mtp"]) == ([5000], [21300])
    assert report.keys["nor"] == ["2.m4s", {"nor": "3.m4s", "r": "0-99"}]
    assert (report.keys["sta"], report.keys["pt"], report.keys["com.example-build"]) == ("p", -20, 7)
    assert report.keys.keys() >= {"msd", "ltc", "bg", "nr", "su", "dfa", "sn"}


def test_the_version_decides_what_a_key_is() -> None:
    assert one("br=(1;v),sta=p,nrr=3").keys == {}
    assert one("v=2,br=(1;v),sta=p").keys == {"v": 2, "br": [{"v": 1}], "sta": "p"}
    # A number stays one in version 2, and what comes after version 2 is read as that.
    assert one("v=2,br=5").keys["br"] == 5
    assert one("v=3,br=(5;a)") == Report(3, {"v": 3, "br": [{"a": 5}]})
    first, second = one('nrr="0-9"'), one('v=2,nrr="0-9"')
    assert (first.keys, second.keys, second.unknown) == ({"nrr": "0-9"}, {"v": 2}, 1)
    assert one("v=two,br=1") == Report(1, {"br": 1}, invalid=1)
    assert len(one(f'v=2,cid="{"c" * 128}"').keys) == 2
    assert one(f'cid="{"c" * 65}"').invalid == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "br=fast", 'br="3"', "br=-1", "br=1.5", "br", "br=1.2345", "br=1234567890123456", "br=(1)", "br=1 2", "br= 1",
        "bs=1", "bs=yes", "su=?2", "ot=x", 'ot="v"', "pr=?1", "sid=abc", 'sid="a', 'sid="\x01"', 'sid="\\a"',
        f'sid="{"s" * 65}"', "nor=a", "com.example-x=(", f'com.example-x="{"x" * 257}"', "=1", "1=1", f"{'k' * 65}=1",
        f"com.example-x=({'1 ' * (MAX_ITEMS + 1)})", "com.example-x=()", "br;a;b;c;d;e=1",
    ],
)  # fmt: skip
def test_what_is_wrong_is_left_out_alone(wrong: str) -> None:
    report = one(f"d=4000,{wrong}")
    assert (report.keys, report.invalid) == ({"d": 4000}, 1)
    if wrong.count('"') != 1 and not wrong.endswith("("):  # what never ends takes all behind it along
        report = one(f"{wrong},d=4000")
        assert (report.keys, report.invalid) == ({"d": 4000}, 1)


def test_unknown_keys_are_counted_and_custom_ones_kept() -> None:
    report = one('zz=1,com.example-a="b",Com.Example-C=?0,x-d=(1 "2")')
    assert report.unknown == 1
    assert report.keys == {"com.example-a": "b", "Com.Example-C": False, "x-d": [1, "2"]}


def test_what_comes_twice_counts_once() -> None:
    assert one("br=1,br=2").keys == {"br": 2}
    assert parse(["br=1,d=5", "br=3"]).keys == {"br": 3, "d": 5}


def test_bounds() -> None:
    """A text is cut where a member ends, and further keys count as invalid."""
    many = ",".join(f"x-{n}={n}" for n in range(100))
    report = one(many)
    assert (len(report.keys), report.invalid) == (cmcd.MAX_KEYS, 100 - cmcd.MAX_KEYS)
    assert parse([many, "y-1=1"]).invalid == 101 - cmcd.MAX_KEYS
    text = "x-a=1," + "d=4000," * 1000
    assert of_request("", {"CMCD-Object": text}).keys == {"x-a": 1, "d": 4000}
    cut = "d=1," + " " * (MAX_TEXT - 7) + "br=3200"
    assert of_request("", {"CMCD-Object": cut}).keys == {"d": 1}
    assert of_request(f"CMCD={quote(cut)}", {}).keys == {"d": 1}
    assert of_request("CMCD=" + "d" * 5000, {}).empty


def test_what_is_no_report() -> None:
    for query in ("", "CMCD", "cmcd=br%3D1", "a=CMCD=1", "XCMCD=br%3D1"):
        assert of_request(query, {"User-Agent": "br=1"}).empty
    assert of_request("CMCD=%FF%FE%3D", {}).invalid == 1
    assert of_request("CMCD=%zz", {}).invalid == 1


_text = st.text(st.characters(codec="utf-8"), max_size=300) | st.text('abv=2,;() "\\?.-1%2C', max_size=300)


@given(_text, st.dictionaries(st.sampled_from(cmcd.FIELDS), _text))
def test_anything_gives_a_report(query: str, fields: dict[str, str]) -> None:
    report = of_request(f"CMCD={query}", fields)
    json.dumps(report.keys)
    for key, value in report.keys.items():
        assert len(key) <= MAX_KEY and ("-" in key or key in KEYS), key
        assert value is not None and value != []


_NUMBERS = st.integers(0, 10**15 - 1)
_STRINGS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
_OTHERS: dict[str, Any] = {
    "integer": _NUMBERS,
    "integers": _NUMBERS,
    "boolean": st.just(True),
    "decimal": st.integers(-1000, 1000).map(lambda n: n / 8),
    "string": _STRINGS,
    "strings": _STRINGS,
}


@given(st.data())
def test_what_is_written_by_the_rules_is_read(data: st.DataObject) -> None:
    """Any choice of version 1's keys, written as section 3.2 says, by query and by fields."""
    names = [name for name, key in KEYS.items() if 1 in key.versions and name != "v"]
    chosen: dict[str, Any] = {}
    written = []
    for name in data.draw(st.lists(st.sampled_from(names), unique=True)):
        key = KEYS[name]
        value = data.draw(st.sampled_from(sorted(key.choices)) if key.kind == "token" else _OTHERS[key.kind])
        chosen[name] = value
        quoted = str(value).replace("\\", "\\\\").replace('"', '\\"')
        written.append(
            name
            if value is True
            else f'{name}="{quoted}"'
            if isinstance(value, str) and key.kind != "token"
            else f"{name}={value}"
        )
    text = ",".join(written)
    assert of_request(f"CMCD={quote(text, safe='')}", {}) == Report(1, chosen)
    assert of_request("", {"CMCD-Request": text}).keys == chosen
