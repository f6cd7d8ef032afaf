"""What is cold: segments and titles that only S3 has."""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.answers import ask
from benchmarks.load import Report, Target
from benchmarks.measure import Row, compare, interleave
from benchmarks.origin import bucket
from benchmarks.origin.bench import NAME, UNASKED, Store, rested
from benchmarks.origin.bucket import Title
from benchmarks.peers import ours as edge
from benchmarks.peers import passthrough
from benchmarks.peers.process import Server
from benchmarks.peers.reader import Reader
from benchmarks.rounds import Contestant, Goals, Quantity, contest

SEGMENTS = 10  # cold segments of a run, one after the other; their median counts
TITLES = 3  # cold titles of a run, likewise
IN_FLIGHT = 32
# Bytes of other titles that ours serves first: more than it holds of sources and has under way, so that from then on it
# uses memory again, as each peer does, which runs on from run to run.
WARM = 200_000_000
HEAD = 64 * 1024  # bytes of the first look at a file that nobody knows
PLAYLIST = re.compile(r"^([^#\s]+)/index\.m3u8$", re.MULTILINE)
THROUGHPUT = Quantity("throughput", "MB/s", lambda report: report.bytes / report.seconds / 1e6)
COST = Quantity("CPU", "s/GB", lambda report: report.server_cpu / report.bytes * 1e9)


def segment(store: Store) -> Iterator[Row]:
    """A cold segment, from the request to its last byte, against one GET of the span that holds its bytes."""
    title = store.put(bucket.long(store.bench.minutes))
    others = _others(store, title)
    reports: list[Report] = []

    def ours() -> float:
        with store.ours() as server:
            _warm(store, server, others)
            targets = segments(server, title)[-SEGMENTS:]
            reports.append(store.bench.load(server, targets, 1).run())
            complete(reports[-1], len(targets))
            if len(reports) == 1:  # the run that does not count
                _checked(server, title)
        return 1e3 * reports[-1].latency["p50"]

    with Reader(store.s3) as reader:
        _same(title, reader.read)

        def theirs() -> float:
            return 1e3 * statistics.median(reader.whole(title.key, title.spans[-SEGMENTS:]))

        pairs = interleave(ours, theirs, store.bench.runs)
    size = statistics.median(title.sizes[-SEGMENTS:])
    note = f"{SEGMENTS} segments a run, {size / 1e6:.1f} MB each; {_law(reports[1:])}"
    peer = "aioboto3, one range GET"
    yield compare(NAME, "cold segment from S3", "wall", "ms", peer, pairs, goal=1 / 1.15, aim=1 / 1.05, note=note)


def title(store: Store) -> Iterator[Row]:
    """A title nobody has opened, as a player does it, against three GETs: look, index, and the segment's first byte."""
    titles = [store.put(bucket.cold(number)) for number in range(TITLES + 1)]

    def ours() -> float:
        with store.ours() as server, _talking(server) as connection:
            _first_byte(connection, titles[0])  # the process is warm, the others' titles are cold
            return 1e3 * statistics.median(_first_byte(connection, title) for title in titles[1:])

    with Reader(store.s3) as reader:

        def theirs() -> float:
            took = [
                reader.first_byte(title.key, [(0, HEAD), bucket.moov(title.file), title.spans[0]])
                for title in titles[1:]
            ]
            return 1e3 * statistics.median(took)

        pairs = interleave(ours, theirs, store.bench.runs)
    note = f"{TITLES} titles a run, index last; ours by multivariant playlist, playlist, init and segment of one connection"
    peer = "aioboto3, three range GETs"
    yield compare(NAME, "cold title to first segment byte", "wall", "ms", peer, pairs, goal=1 / 1.1, note=note)


def throughput(store: Store) -> Iterator[Row]:
    """Distinct cold segments, 32 at once."""
    title = store.put(bucket.long(store.bench.minutes))
    others = _others(store, title)
    many = len(title.sizes)

    def ours() -> Report:
        with store.ours() as server:
            _warm(store, server, others)
            return complete(store.bench.load(server, segments(server, title), IN_FLIGHT).run(), many)

    with contextlib.ExitStack() as stack:
        with store.ours() as server:
            told = _checked(server, title)
            headers = {name: value for name, value in told.items() if name.lower() not in UNASKED}
            proxy = stack.enter_context(passthrough.passthrough(store.s3, store.bench.server, headers=headers))
            rested(proxy)
        _same(title, lambda key, *span: ask(proxy.port, passthrough.path(key, *span)).body)
        targets = [Target(passthrough.path(title.key, *span), span[1]) for span in title.spans]
        load = store.bench.load(proxy, targets, IN_FLIGHT)
        theirs = Contestant(proxy.name, lambda: complete(load.run(), many), rival=True)
        case = f"distinct cold segments, {IN_FLIGHT} in flight"
        yield from contest(
            case, ours, [theirs], Goals(1.0), store.bench.runs, benchmark=NAME, rate=THROUGHPUT, cost=COST
        )  # fmt: skip


def segments(server: edge.Ours, title: Title) -> list[Target]:
    """The segments of ``title``, which is then open: playlists and init segment have been made, no segment has."""
    base = f"/v/{title.asset}"
    name = rendition(ask(server.port, f"{base}/main.m3u8").body)
    for file in ("index.m3u8", "init.mp4"):
        if ask(server.port, f"{base}/{name}/{file}").status != 200:
            raise RuntimeError(f"no {file} of {title.asset}")
    return [Target(f"{base}/{name}/{n}.m4s", size) for n, size in enumerate(title.sizes)]


def rendition(playlist: bytes) -> str:
    """The first rendition that a multivariant playlist names by itself: the best video."""
    found = PLAYLIST.search(playlist.decode())
    if found is None:
        raise RuntimeError(f"no playlist of a rendition in {playlist[:500].decode()}")
    return found[1]


def _others(store: Store, title: Title) -> list[Title]:
    """Titles like this one, WARM bytes of them or more."""
    count = -(-WARM // sum(title.sizes))
    return [store.put(bucket.again(title, number)) for number in range(count)]


def _warm(store: Store, server: edge.Ours, others: Sequence[Title]) -> None:
    """Have ``server`` serve all of the ``others``, and be done with it."""
    for other in others:
        complete(store.bench.load(server, segments(server, other), IN_FLIGHT).run(), len(other.sizes))
    rested(server)


@contextlib.contextmanager
def _talking(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.connect()
        yield connection


def _first_byte(connection: http.client.HTTPConnection, title: Title) -> float:
    """Seconds from the first request of a player to the first byte of the first segment; the rest is read after that."""
    base = f"/v/{title.asset}"
    began = time.perf_counter()
    base = f"{base}/{rendition(_got(connection, f'{base}/main.m3u8'))}"
    _got(connection, f"{base}/index.m3u8")
    _got(connection, f"{base}/init.mp4")
    connection.request("GET", f"{base}/0.m4s")
    answer = connection.getresponse()
    begin = answer.read(1)
    took = time.perf_counter() - began
    if answer.status != 200 or begin + answer.read() != title.segment(0):
        raise RuntimeError(f"{answer.status} or other bytes for the first segment of {title.asset}")
    return took


def _got(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} for {path}")
    return body


def _checked(server: edge.Ours, title: Title) -> Mapping[str, str]:
    """Ours has the right bytes of the first and the last segment; the fields of the first's answer. Raises RuntimeError."""
    targets = segments(server, title)
    answers = {n: ask(server.port, targets[n].path) for n in (0, len(targets) - 1)}
    for n, answer in answers.items():
        if answer.body != title.segment(n):
            raise RuntimeError(f"ours has other bytes of segment {n}")
    return answers[0].fields


def _same(title: Title, read: Callable[[str, int, int], bytes]) -> None:
    """A peer has the right bytes of both; raises RuntimeError where not."""
    for span in (title.spans[0], title.spans[-1]):
        if read(title.key, *span) != title.read(*span):
            raise RuntimeError(f"the peer has other bytes than {span} of {title.key}")


def complete(report: Report, requests: int) -> Report:
    """The report of a run in which all went well; raises RuntimeError where not."""
    if report.failed or report.requests != requests:
        raise RuntimeError(f"{report.requests} of {requests} requests; {report.failed} failed: {report.first_error}")
    return report


def _law(reports: Sequence[Report]) -> str:
    """What one connection got, whether its times agree with its rate, and how busy the client was."""
    completions = sorted({report.completions["min"] for report in reports})
    law = statistics.median(report.in_flight / report.connections for report in reports)
    busy = statistics.median(report.busy for report in reports)
    return f"client {100 * busy:.0f} % busy; completions of its one connection {completions}; Little's law {law:.2f}"
