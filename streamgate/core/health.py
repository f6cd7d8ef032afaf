"""Whether the process lives, and whether it should get requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

# draining: no longer ready, but serving as ever. stopping: every answer is its connection's last.
State = Literal["starting", "ready", "draining", "stopping"]


class Health:
    """The process's state and the checks that roles hand in.

    A check returns None while all is well, else a sentence that says what is not.
    """

    def __init__(self) -> None:
        self.state: State = "starting"
        self.degraded = ""
        """What is not as it should be, although the process is ready; empty where nothing is."""
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._notes: list[Callable[[], str | None]] = []

    def add(self, name: str, check: Callable[[], str | None]) -> None:
        """Make readiness depend on ``check``."""
        self._checks[name] = check

    def note(self, check: Callable[[], str | None]) -> None:
        """Have what ``check`` finds told, although readiness does not depend on it."""
        self._notes.append(check)

    def notes(self) -> list[str]:
        """All that is not as it should be, although the process is ready."""
        found = [self.degraded or None, *(check() for check in self._notes)]
        return [note for note in found if note is not None]

    def problems(self) -> dict[str, str]:
        """What keeps the process from being ready, by the name of the check; empty when it is ready."""
        found = {} if self.state == "ready" else {"process": f"the process is {self.state}"}
        for name, check in self._checks.items():
            problem = check()
            if problem is not None:
                found[name] = problem
        return found
