"""The guard of the other tests works: a blocking call in the event loop is an error."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from edge.pages import load
from edge.threads import Pool
from streamgate.core.telemetry import Telemetry
from tests.edge.conftest import BlockingCall


async def test_a_blocking_call_in_the_loop_is_an_error(no_blocking_calls: list[str]) -> None:
    with pytest.raises(BlockingCall):
        load()
    assert "edge/pages.py" in no_blocking_calls[0]
    no_blocking_calls.clear()


async def test_it_may_block_in_a_thread() -> None:
    pool = Pool("test", 1, 1, await asyncio.to_thread(Telemetry))
    assert "/" in await pool.run(load)
    pool.close()


async def test_what_is_not_ours_may_block(tmp_path: Path) -> None:
    time.sleep(0)
    assert list(tmp_path.iterdir()) == []
