"""Memory for bodies on their way has its bounds."""

from __future__ import annotations

import pytest

from edge.budget import Budget
from streamgate.errors import StreamGateError


def test_budget() -> None:
    budget = Budget(100)
    with budget.hold(60), budget.hold(40):
        assert budget.held == 100
        with pytest.raises(StreamGateError) as caught, budget.hold(1):
            pass
        assert caught.value.code == "overloaded"
    assert budget.held == 0


def test_a_single_large_body_passes() -> None:
    budget = Budget(100)
    with budget.hold(1000):
        assert budget.held == 1000
    assert budget.held == 0
