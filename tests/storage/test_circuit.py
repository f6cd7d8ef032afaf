"""The circuit breaker, by a clock that the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamgate.errors import StreamGateError
from streamgate.storage.circuit import Circuit


class World:
    """A circuit, its clock, and calls that end as wanted."""

    def __init__(self, **given: Any) -> None:
        self.now = 100.0
        self.dice = 0.0
        self.states: list[str] = []
        self.asked = 0
        settings: dict[str, Any] = {
            "failures": 3, "slow": 0.1, "share": 0.5, "window": 10, "probe": 1.0, "probe_max": 8.0,
        }  # fmt: skip
        self.circuit = Circuit(
            **{**settings, **given}, clock=lambda: self.now, dice=lambda: self.dice, on_change=self.states.append
        )

    @property
    def state(self) -> str:
        return self.circuit.state

    def work(self, error: Exception | None = None, took: float = 0.0) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            self.asked += 1
            self.now += took
            if error:
                raise error
            return self.asked

        return work

    async def good(self, took: float = 0.0) -> None:
        before = self.asked
        assert await self.circuit.call(self.work(took=took)) == before + 1

    async def bad(self) -> None:
        before = self.asked
        with pytest.raises(StreamGateError) as caught:
            await self.circuit.call(self.work(StreamGateError("store_unavailable", "refused")))
        assert caught.value.detail == "refused" and self.asked == before + 1

    async def left_alone(self) -> None:
        before = self.asked
        with pytest.raises(StreamGateError) as caught:
            await self.circuit.call(self.work())
        assert caught.value.code == "store_unavailable" and self.asked == before

    async def break_it(self) -> None:
        for _ in range(3):
            await self.bad()
        assert self.state == "open"


async def test_failures_in_a_row_open_it() -> None:
    world = World()
    for _ in range(2):
        await world.bad()
        await world.bad()
        await world.good()
    assert world.state == "closed" and world.states == []
    await world.break_it()
    await world.left_alone()
    assert world.states == ["open"]


async def test_one_call_tries_and_closes_it() -> None:
    world = World()
    await world.break_it()
    world.now += 0.99
    await world.left_alone()
    world.now += 0.01
    await world.good()
    await world.good()
    assert world.states == ["open", "half-open", "closed"]
    # What was before it opened no longer counts.
    await world.bad()
    await world.bad()
    assert world.state == "closed"


async def test_while_one_tries_the_others_are_refused() -> None:
    world = World()
    await world.break_it()
    world.now += 1
    answer = asyncio.Event()

    async def slowly() -> str:
        await answer.wait()
        return "back"

    trying = asyncio.create_task(world.circuit.call(slowly))
    await asyncio.sleep(0)
    assert world.state == "half-open"
    for _ in range(5):
        await world.left_alone()
    answer.set()
    assert await trying == "back"
    assert world.state == "closed"


async def test_each_failed_try_doubles_the_wait_up_to_its_limit() -> None:
    world = World()
    await world.break_it()
    for wait in (1.0, 2.0, 4.0, 8.0, 8.0, 8.0):
        world.now += wait - 0.01
        await world.left_alone()
        world.now += 0.01
        await world.bad()
    assert world.state == "open"
    # One that closes and opens again at once goes on with the long waits, one that was healthy does not.
    for healthy, wait in ((5, 8.0), (10, 1.0)):
        world.now += 8
        await world.good()
        for _ in range(healthy):
            await world.good()
        world.circuit._in_a_row = 0
        await world.break_it()
        world.now += wait - 0.01
        await world.left_alone()
        world.now += 0.01
        await world.bad()


async def test_many_do_not_try_at_once() -> None:
    waits = []
    for dice in (0.0, 0.5, 0.999):
        world = World()
        world.dice = dice
        await world.break_it()
        begun = world.now
        while world.state == "open":
            world.now += 0.001
            try:
                await world.circuit.call(world.work())
            except StreamGateError:
                continue
        waits.append(world.now - begun)
    assert waits == pytest.approx([1.0, 0.75, 0.5], abs=0.01)


async def test_slow_calls_open_it() -> None:
    world = World()
    for _ in range(4):
        await world.good(took=0.2)
        await world.good()
    await world.good()
    assert world.state == "closed"
    await world.good(took=0.2)
    assert world.state == "open"
    # A try that is slow is not good enough.
    world.now += 1
    await world.good(took=0.2)
    assert world.state == "open"
    await world.left_alone()


async def test_every_second_call_failing_opens_it() -> None:
    """As where there is no room: what is read is answered, what is written is not."""
    world = World()
    for _ in range(5):
        await world.good()
        await world.bad()
    assert world.state == "open"


async def test_an_error_that_is_an_answer_counts_as_one() -> None:
    world = World()
    for error in (StreamGateError("source_not_found"), KeyError("x")):
        for _ in range(5):
            with pytest.raises(type(error)):
                await world.circuit.call(world.work(error))
    assert world.state == "closed"
    await world.break_it()
    world.now += 1
    with pytest.raises(KeyError):
        await world.circuit.call(world.work(KeyError("x")))
    assert world.state == "closed"


async def test_a_call_that_was_given_up_says_nothing() -> None:
    world = World()
    await world.break_it()
    world.now += 1
    trying = asyncio.create_task(world.circuit.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    assert world.state == "half-open"
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)
    assert world.state == "open"
    # The next may try at once.
    await world.good()
    assert world.state == "closed"


async def test_a_call_from_before_no_longer_counts() -> None:
    world = World()
    late = asyncio.Event()

    async def fails_late() -> None:
        await late.wait()
        raise StreamGateError("store_unavailable")

    old = [asyncio.create_task(world.circuit.call(fails_late)) for _ in range(5)]
    await asyncio.sleep(0)
    await world.break_it()
    world.now += 1
    await world.good()
    late.set()
    told = await asyncio.gather(*old, return_exceptions=True)
    assert all(isinstance(error, StreamGateError) for error in told)
    assert world.state == "closed"


async def test_another_code() -> None:
    world = World(code="source_unreadable", failures=1)
    with pytest.raises(StreamGateError):
        await world.circuit.call(world.work(StreamGateError("store_unavailable")))
    assert world.state == "closed"
    for _ in range(2):
        with pytest.raises(StreamGateError) as caught:
            await world.circuit.call(world.work(StreamGateError("source_unreadable")))
        assert caught.value.code == "source_unreadable"
    assert world.state == "open" and world.asked == 2


async def test_it_heals_though_nobody_calls() -> None:
    """Probes keep to the waits of the circuit, and end with its trouble; there are none while it is closed."""
    asked: list[str] = []
    broken = True

    async def work() -> None:
        asked.append(circuit.state)
        if broken:
            raise StreamGateError("store_unavailable")

    circuit = Circuit(failures=1, slow=60.0, share=0.5, window=10, probe=0.005, probe_max=0.02)
    healing = asyncio.ensure_future(circuit.heal(lambda: circuit.call(work)))
    try:
        await asyncio.sleep(0)
        with pytest.raises(StreamGateError):
            await circuit.call(work)
        async with asyncio.timeout(10):
            while len(asked) < 6:
                await asyncio.sleep(0.001)
            broken = False
            while circuit.state != "closed":
                await asyncio.sleep(0.001)
        assert asked[0] == "closed" and set(asked[1:]) == {"half-open"}
        tried = len(asked)
        await circuit.call(work)
        assert len(asked) == tried + 1
    finally:
        healing.cancel()
        await asyncio.gather(healing, return_exceptions=True)
