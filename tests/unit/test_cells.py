"""Numbers in memory that processes share: what is counted is never lost, and a half-made entry is never seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edge.shared import Page
from streamgate.core.cells import Cells
from streamgate.core.telemetry import METRICS, Metric, Telemetry


def test_entries_are_found_again() -> None:
    buffer = memoryview(bytearray(1024))
    cells = Cells(buffer)
    first = cells.find("d\x1frequests", 3)
    assert first is not None and cells.find("d\x1frequests", 3) == first
    cells.doubles[first + 1] = 2.5
    other = Cells(buffer)
    assert other.find("d\x1frequests", 3) == first
    assert list(other.read()) == [("d\x1frequests", [0.0, 2.5, 0.0])]


def test_a_full_buffer_says_so() -> None:
    cells = Cells(memoryview(bytearray(128)))
    found = [cells.find(f"d\x1f{number}") for number in range(10)]
    assert None not in found[:5] and None in found
    assert len(list(cells.read())) == sum(place is not None for place in found)


def test_what_a_killed_writer_left_behind_is_no_count() -> None:
    buffer = memoryview(bytearray(b"\xff" * 256))
    buffer[:8] = bytes(8)  # nothing in use
    cells = Cells(buffer)
    assert cells.find("d\x1fx", 2) is not None
    assert list(cells.read()) == [("d\x1fx", [0.0, 0.0])]


def test_more_series_than_there_is_room_for_are_still_counted() -> None:
    telemetry = Telemetry(
        [Metric("things", "counter", "", "Things.", ("kind",))], cells=Cells(memoryview(bytearray(64)))
    )
    for number in range(20):
        telemetry.count("things", kind=f"kind {number}")
    assert telemetry.value("things", kind="kind 19") == 1
    telemetry.count("things", kind="kind 19")
    assert telemetry.value("things", kind="kind 19") == 2


def test_the_counts_of_native_code_are_added() -> None:
    telemetry = Telemetry()
    names = ("requests/segment/200", "request_seconds/segment/0.001", "request_seconds/segment/+Inf", "request_ns/segment",
             "requests/segment/304", "native")  # fmt: skip
    block = telemetry.block(names)
    block[0], block[1], block[2], block[3], block[5] = 5, 3, 2, 4_000_000_000, 7
    telemetry.count("requests", route="segment", status="200")
    telemetry.observe("request_seconds", 0.0004, route="segment")
    text = telemetry.exposition("")[0].decode()
    assert 'streamgate_requests_total{route="segment",status="200"} 6.0' in text
    assert 'streamgate_request_seconds_bucket{le="0.0005",route="segment"} 1.0' in text
    assert 'streamgate_request_seconds_bucket{le="0.001",route="segment"} 4.0' in text
    assert 'streamgate_request_seconds_bucket{le="30.0",route="segment"} 4.0' in text
    assert 'streamgate_request_seconds_bucket{le="+Inf",route="segment"} 6.0' in text
    assert 'streamgate_request_seconds_sum{route="segment"} 4.0004' in text
    assert "streamgate_native_total 7.0" in text
    assert 'status="304"' not in text
    assert telemetry.value("requests", route="segment", status="200") == 6


def test_labels_must_be_the_declared_ones() -> None:
    telemetry = Telemetry()
    with pytest.raises(ValueError, match="requests"):
        telemetry.count("requests", route="segment")
    with pytest.raises(KeyError):
        telemetry.count("requests", route="segment", code="200")


WRITER = """
import os, signal, sys
from edge.shared import Page
from streamgate.core.telemetry import Telemetry
page = Page(int(sys.argv[1]))
telemetry = Telemetry(cells=page.cells(int(sys.argv[2])), node=page)
telemetry.count("connections_refused", 3)
telemetry.gauge("requests_in_flight", 2)
telemetry.block(("requests/segment/200",))[0] += 10
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_page_outlives_its_writers() -> None:
    page = Page.create()
    telemetry = Telemetry(cells=page.cells(page.take()), node=page)
    telemetry.count("connections_refused")
    try:
        for turn in range(1, 4):
            slot = page.take()
            assert slot == 1  # the one that the dead gave back
            done = subprocess.run(
                [sys.executable, "-c", WRITER, str(page.fd), str(slot)], pass_fds=[page.fd], check=False
            )
            assert done.returncode == -signal.SIGKILL
            page.free(slot)
            text = telemetry.exposition("")[0].decode()
            assert f"streamgate_connections_refused_total {1 + 3 * turn}.0" in text
            assert f'streamgate_requests_total{{route="segment",status="200"}} {10 * turn}.0' in text
            assert "streamgate_requests_in_flight 0.0" in text
    finally:
        os.close(page.fd)


def test_slots_are_given_once() -> None:
    page = Page.create()
    try:
        assert [page.take() for _ in range(5)] == [0, 1, 2, 3, 4]
        page.own(2, os.getpid())
        page.free(2)
        assert (page.take(), page.take()) == (2, 5)
    finally:
        os.close(page.fd)


def test_every_metric_is_told_once() -> None:
    text = Telemetry().exposition("")[0].decode()
    for metric in METRICS:
        assert (
            text.count(f"# HELP streamgate_{metric.name} ") + text.count(f"# HELP streamgate_{metric.name}_total ") == 1
        )
