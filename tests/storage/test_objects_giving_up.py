"""Who gives up while others are told so leaves nothing behind: no connection, no memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from streamgate.core.settings import S3Settings
from streamgate.storage.objects.s3.answers import Answer
from streamgate.storage.objects.s3.memory import MemoryBudget
from streamgate.storage.objects.s3.reading import OneBucket, RangeReading
from streamgate.storage.objects.s3.retries import Patience, RetryBudget
from streamgate.storage.objects.store import ObjectInfo


async def test_the_answer_that_won_while_the_other_is_given_up() -> None:
    answers: list[Answer] = []
    leaving, leave, taken = asyncio.Event(), asyncio.Event(), 0

    class Both:
        """The second request answers; the first takes its time to go, and has an answer at last."""

        settings, budget, count = S3Settings(hedge_after=0.001), RetryBudget(1.0), Mock()

        async def get(self, *given: Any) -> Answer:
            nonlocal taken
            taken += 1
            if taken == 1:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    leaving.set()
                    while not leave.is_set():
                        try:
                            await leave.wait()
                        except asyncio.CancelledError:
                            continue
            answer = Answer(ObjectInfo("film", 10, "v1", 0.0), 0, 10)
            answer.closed = given_back
            answers.append(answer)
            return answer

    def given_back() -> None:
        nonlocal taken
        taken -= 1

    both: Any = Both()
    reading = RangeReading(OneBucket(both, None), "film", 0, 10, Patience(both.settings))
    opening = asyncio.ensure_future(reading.open())
    async with asyncio.timeout(10):
        await leaving.wait()
    opening.cancel()
    await asyncio.sleep(0)
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert len(answers) == 2 and taken == 0


async def test_who_is_passed_over_while_leaving_leaves_in_peace() -> None:
    budget = MemoryBudget(1)

    async def hold(told: SimpleNamespace) -> None:
        async with budget.hold(1):
            told.got = True

    told = SimpleNamespace(got=False)
    async with budget.hold(1):
        waiting = asyncio.ensure_future(hold(told))
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await hold(told)
    assert told.got
