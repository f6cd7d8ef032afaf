"""traceparent: taken over by what a request begins, and by nothing else."""

from __future__ import annotations

import asyncio

import pytest

from streamgate.core import trace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_what_a_request_begins_belongs_to_its_trace() -> None:
    async def request(parent: str) -> str:
        trace.follow(parent)
        begun = asyncio.create_task(later())
        return await begun

    async def later() -> str:
        await asyncio.sleep(0)
        return trace.current()

    other = PARENT.replace("01", "00")
    assert tuple(await asyncio.gather(request(PARENT), request(""), request(other))) == (PARENT, "", other)
    assert trace.current() == ""


@pytest.mark.parametrize(
    "wrong",
    (
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT.upper(),
        PARENT + "\r\nHost: elsewhere",
        "x",
    ),
)
async def test_what_is_no_traceparent_is_not_passed_on(wrong: str) -> None:
    trace.follow(wrong)
    assert trace.current() == ""
