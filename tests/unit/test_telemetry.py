"""Metrics come from one table; logs are events; health and roles."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog

from streamgate.core.health import Health
from streamgate.core.lifecycle import Lifecycle, Role
from streamgate.core.logging import configure, get_logger
from streamgate.core.settings import LogSettings
from streamgate.core.telemetry import METRICS, Metric, Telemetry


def test_the_table() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.help.endswith(".")
        # Prometheus' naming: the unit is the name's end.
        assert not metric.unit or metric.name.endswith(f"_{metric.unit}")
        assert metric.kind != "histogram" or metric.unit


def test_collectors() -> None:
    telemetry = Telemetry()
    telemetry.count("requests", route="segment", status="200")
    telemetry.count("requests", 2, route="segment", status="200")
    telemetry.gauge("requests_in_flight", 1)
    telemetry.gauge("requests_in_flight", -1)
    telemetry.observe("request_seconds", 0.003, route="segment")
    telemetry.watch("connections", lambda: 7)
    assert telemetry.value("requests", route="segment", status="200") == 3
    assert telemetry.value("requests", route="segment", status="404") == 0
    assert telemetry.value("connections") == 7
    body, media_type = telemetry.exposition("")
    text = body.decode()
    assert media_type.startswith("text/plain")
    assert 'streamgate_requests_total{route="segment",status="200"} 3.0' in text
    assert 'streamgate_request_seconds_bucket{le="0.005",route="segment"} 1.0' in text
    assert "streamgate_requests_in_flight 0.0" in text
    assert "process_resident_memory_bytes" in text and "python_info" in text
    assert "_created" not in text


def test_two_do_not_share() -> None:
    first, second = Telemetry(), Telemetry()
    first.count("connections_refused")
    assert second.value("connections_refused") == 0


def test_others_may_register() -> None:
    telemetry = Telemetry()
    telemetry.register(Metric("thing_bytes", "counter", "bytes", "Things.", ()))
    telemetry.count("thing_bytes", 5)
    assert telemetry.value("thing_bytes") == 5
    with pytest.raises(ValueError, match="thing_bytes"):
        telemetry.register(Metric("thing_bytes", "counter", "bytes", "Things.", ()))


@pytest.fixture
def restored() -> Iterator[None]:
    """The logging of the test run, put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(settings: LogSettings) -> str:
    out = io.StringIO()
    stop = configure(settings, out)
    log = get_logger("edge.test")
    log.debug("too small")
    log.info("served", status=200)
    logging.getLogger("aiohttp.server").warning("strange %s", "thing")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    stop()
    return out.getvalue()


@pytest.mark.usefixtures("restored")
def test_logs_for_machines() -> None:
    events = [json.loads(line) for line in logged(LogSettings(format="auto")).splitlines()]
    assert [event["event"] for event in events] == ["served", "strange thing", "failed"]
    assert events[0]["status"] == 200 and events[0]["level"] == "info" and events[0]["logger"] == "edge.test"
    assert events[1]["logger"] == "aiohttp.server"
    assert "ValueError: broken" in events[2]["exception"]
    assert all(event["timestamp"].endswith("Z") for event in events)


@pytest.mark.usefixtures("restored")
def test_logs_for_people() -> None:
    text = logged(LogSettings(format="console", level="debug"))
    assert "too small" in text and "status=200" in text and "ValueError: broken" in text
    assert not text.startswith("{")


class Stuck(io.StringIO):
    """A pipe that nobody reads, until somebody does."""

    def __init__(self) -> None:
        super().__init__()
        self.read_by = threading.Event()
        self.begun = threading.Event()

    def write(self, text: str) -> int:
        self.begun.set()
        assert self.read_by.wait(10)
        return super().write(text)


@pytest.mark.usefixtures("restored")
def test_a_reader_that_does_not_read_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgate.core.logging._MAX_WAITING", 5)
    pipe = Stuck()
    stop = configure(LogSettings(), pipe)
    log = get_logger("edge.test")
    log.info("first")
    assert pipe.begun.wait(10)
    for n in range(20):
        log.info("more", n=n)
    pipe.read_by.set()
    stop()
    events = [json.loads(line) for line in pipe.getvalue().splitlines()]
    assert [e["event"] for e in events] == ["first", "more", "log lines dropped", *["more"] * 4]
    assert events[2]["lines"] == 15


def test_health() -> None:
    health = Health()
    assert health.problems() == {"process": "the process is starting"}
    health.state = "ready"
    assert health.problems() == {}
    problem: list[str | None] = [None]
    health.add("store", lambda: problem[0])
    assert health.problems() == {}
    problem[0] = "it is away"
    assert health.problems() == {"store": "it is away"}


def role(name: str, told: list[str], *, fails: bool = False) -> Role:
    async def start() -> None:
        told.append(f"start {name}")
        if fails:
            raise RuntimeError(name)

    async def drain() -> None:
        told.append(f"drain {name}")

    async def stop() -> None:
        told.append(f"stop {name}")

    return Role(name, start=start, drain=drain, stop=stop)


async def test_roles_stop_in_reverse() -> None:
    told: list[str] = []
    lifecycle = Lifecycle([role("a", told), role("b", told)], Health())
    await lifecycle.start()
    await lifecycle.drain()
    await lifecycle.stop()
    await lifecycle.stop()
    assert told == ["start a", "start b", "drain a", "drain b", "stop b", "stop a"]


async def test_a_failed_start_stops_what_had_started() -> None:
    told: list[str] = []
    lifecycle = Lifecycle([role("a", told), role("b", told, fails=True), role("c", told)], Health())
    with pytest.raises(RuntimeError, match="b"):
        await lifecycle.start()
    assert told == ["start a", "start b", "stop a"]


async def test_a_role_that_is_not_ready_keeps_the_process_from_being_ready() -> None:
    health = Health()
    await Lifecycle([Role("store", ready=lambda: "it is away"), Role("idle")], health).start()
    health.state = "ready"
    assert health.problems() == {"store": "it is away"}
