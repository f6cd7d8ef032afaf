"""Preconditions in RFC 9110's order, with strong ETags and no dates."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from edge.conditional import evaluate, range_applies
from tests.edge.harness import Edge

TAG = '"v540/3.m4s"'
SOME_DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, "go on"),
        ({"If-Match": TAG}, "go on"),
        ({"If-Match": f'"x", {TAG}'}, "go on"),
        ({"If-Match": "*"}, "go on"),
        ({"If-Match": '"x"'}, "failed"),
        ({"If-Match": f"W/{TAG}"}, "failed"),
        ({"If-None-Match": TAG}, "not modified"),
        ({"If-None-Match": f"W/{TAG}"}, "not modified"),
        ({"If-None-Match": f'"a,b",{TAG}'}, "not modified"),
        ({"If-None-Match": "*"}, "not modified"),
        ({"If-None-Match": '"x"'}, "go on"),
        ({"If-None-Match": "v540/3.m4s"}, "go on"),
        ({"If-Match": '"x"', "If-None-Match": TAG}, "failed"),
        ({"If-Match": TAG, "If-None-Match": TAG}, "not modified"),
        ({"If-Modified-Since": SOME_DATE}, "go on"),
        ({"If-Unmodified-Since": SOME_DATE}, "go on"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_order(headers: dict[str, str], verdict: str, method: str) -> None:
    assert evaluate(CIMultiDict(headers), method, TAG) == verdict


def test_other_methods_fail_where_get_is_not_modified() -> None:
    assert evaluate(CIMultiDict({"If-None-Match": TAG}), "PUT", TAG) == "failed"


@pytest.mark.parametrize(
    ("condition", "applies"),
    [(None, True), (TAG, True), (f" {TAG} ", True), (f"W/{TAG}", False), ('"x"', False), (SOME_DATE, False)],
)
def test_if_range(condition: str | None, applies: bool) -> None:
    assert range_applies(CIMultiDict({"If-Range": condition} if condition else {}), TAG) is applies


async def test_conditions_in_several_lines(edge: Edge) -> None:
    etag = (await edge.ask("/v/film/main.m3u8")).headers["ETag"]
    for field, status in (("If-None-Match", 304), ("If-Match", 200)):
        head = (
            f'GET /v/film/main.m3u8 HTTP/1.1\r\nHost: a\r\n{field}: "x"\r\n{field}: {etag}\r\nConnection: close\r\n\r\n'
        )
        assert (await edge.raw(head.encode())).status == status


async def test_dates_are_not_given_and_not_looked_at(edge: Edge) -> None:
    whole = await edge.ask("/v/film/main.m3u8")
    assert "Last-Modified" not in whole.headers
    later = {"If-Modified-Since": "Fri, 31 Dec 2100 23:59:59 GMT", "If-Unmodified-Since": SOME_DATE}
    assert (await edge.ask("/v/film/main.m3u8", later)).body == whole.body
