"""What holds for every test: time limits, hypothesis profiles, and an honest account of what did not run.

* ``@pytest.mark.needs("chromium")``: where a program is missing the test is left out (not skipped), and the end says so.
* A skip for any reason but "no GPU" fails the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.services.seaweed", "tests.services.redis"]

ROOT = Path(__file__).resolve().parent.parent
# Servers are started by the hundred: their modules are compiled once, and not by each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
SLOW_TIMEOUT_S = 600
ALLOWED_SKIP = "no GPU"
EMPTY = "nothing to run on, such as real footage (STREAMGATE_MEDIA)"

# Shared machines stall now and then: a deadline per example would make tests flaky; pytest-timeout bounds the whole.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_left_out = pytest.StashKey[dict[str, list[str]]]()
_skips = pytest.StashKey[list[tuple[str, str]]]()


def find_program(name: str) -> str | None:
    """Where ``name`` is: on the PATH, or in the folder of the interpreter that runs the tests."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def missing(name: str) -> str | None:
    """Why a test that needs ``name`` cannot run here, or None."""
    if name == "web":
        return None if (ROOT / "streamgate/web").is_dir() else "the pages are not built"
    if name.startswith("gst:"):
        return None if _gst_has(name.removeprefix("gst:")) else f"GStreamer has no {name.removeprefix('gst:')}"
    if name == "containers":  # found out by making one, so this is asked only where a test that needs it is selected
        from tests.scenarios.containers import why_not

        return why_not()
    if name == "other-user":
        from tests.scenarios import other_user

        return other_user.why_not()
    return None if find_program(name) else f"{name} is not installed"


def _gst_has(element: str) -> bool:
    inspect = shutil.which("gst-inspect-1.0")
    return inspect is not None and subprocess.run([inspect, "--exists", element], check=False).returncode == 0


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """A test that leaves this process in a real-time class would starve all that come after it."""
    before = os.sched_getscheduler(0)
    yield
    after = os.sched_getscheduler(0)
    if after != before:
        os.sched_setscheduler(0, before, os.sched_param(0))
    assert after == before, "the scheduling class was changed and not restored"


def pytest_configure(config: pytest.Config) -> None:
    left_out: dict[str, list[str]] = defaultdict(list)
    config.stash[_left_out] = left_out
    config.stash[_skips] = []


@pytest.hookimpl(trylast=True)  # what -m and -k leave out is not asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known: dict[str, str | None] = {}
    kept, left = [], []
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
        tools = [tool for marker in item.iter_markers("needs") for tool in marker.args]
        for tool in tools:
            known.setdefault(tool, missing(tool))
        reasons = [reason for tool in tools if (reason := known[tool])]
        reasons += [EMPTY for marker in item.iter_markers("skip") if "empty parameter set" in str(marker.kwargs)]
        if reasons:
            left.append(item)
            config.stash[_left_out]["; ".join(reasons)].append(item.nodeid)
        else:
            kept.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of processes that share a run (pytest-xdist) each finds the same tests left out: what one says is told."""
    left_out: dict[str, list[str]] = getattr(node, "workeroutput", {}).get("left_out", {})
    node.config.stash[_left_out].update(left_out)


class _SkipPolicy:
    """Collects every skip with its reason."""

    def __init__(self, config: pytest.Config) -> None:
        self.skips = config.stash[_skips]

    def _record(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._record(report)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_SkipPolicy(session.config), "skip-policy")


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if hasattr(session.config, "workeroutput"):
        left_out: dict[str, list[str]] = session.config.stash[_left_out]
        session.config.workeroutput["left_out"] = dict(left_out)
    # Before the terminal reporter prints its summary: what is set here decides the exit status.
    if session.exitstatus == pytest.ExitCode.OK and _forbidden(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def _forbidden(config: pytest.Config) -> list[tuple[str, str]]:
    return [(test, reason) for test, reason in config.stash[_skips] if reason != ALLOWED_SKIP]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_left_out]:
        terminalreporter.section("not run")
        for reason, tests in sorted(config.stash[_left_out].items()):
            terminalreporter.line(f"{len(tests)} tests: {reason}")
            for test in tests:
                terminalreporter.line(f"    {test}")
    if config.stash[_skips]:
        terminalreporter.section("skipped")
        for test, reason in config.stash[_skips]:
            verdict = "" if reason == ALLOWED_SKIP else f"  FORBIDDEN: the only reason allowed is {ALLOWED_SKIP!r}"
            terminalreporter.line(f"{test}: {reason}{verdict}")
