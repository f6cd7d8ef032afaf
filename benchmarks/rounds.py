"""Servers in turn under the same load: ratios of requests per second, and of CPU per request."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load import BUSY, Report
from benchmarks.measure import Row, compare

NAME = "delivery"
Run = Callable[[], Report]
_ATTEMPTS = 4


@dataclass(frozen=True)
class Contestant:
    """A server as it is measured. ``note`` goes to its rows; only one that is a ``rival`` decides whether a goal is met."""

    name: str
    run: Run
    note: str = ""
    rival: bool = False


@dataclass(frozen=True)
class Goals:
    """Least ratios, with what is aimed at; of CPU per request alone where ``rate`` is false."""

    goal: float | None = None
    aim: float | None = None
    rate: bool = True


@dataclass(frozen=True)
class Quantity:
    """What is taken of a run, and how it is told."""

    metric: str
    unit: str
    of: Callable[[Report], float]


RATE = Quantity("requests", "1/s", lambda report: report.rate)
COST = Quantity("CPU a request", "µs", lambda report: 1e6 * cpu_per_request(report))


def contest(
    case: str,
    ours: Run,
    peers: Sequence[Contestant],
    goals: Goals,
    runs: int,
    *,
    benchmark: str = NAME,
    rate: Quantity = RATE,
    cost: Quantity = COST,
) -> Iterator[Row]:
    """Two rows for each peer: ``rate``, of which more is better, and ``cost``.

    Every round measures all, each round beginning with the next of them.

    The goal is held against the rival that is best at what the row counts. Raises RuntimeError where requests fail.
    """
    entries: list[tuple[str, Run]] = [("ours", ours), *((peer.name, peer.run) for peer in peers)]
    rounds: list[dict[str, Report]] = []
    for n in range(runs):
        turn = n % len(entries)
        rounds.append({name: _measured(case, name, run) for name, run in entries[turn:] + entries[:turn]})
    best_rate = _best(rounds, peers, lambda report: -rate.of(report))
    best_cost = _best(rounds, peers, cost.of)
    for peer in peers:
        pairs = [(done["ours"], done[peer.name]) for done in rounds]
        doubts = [] if goals == Goals() else _doubts(pairs)
        note = "; ".join(filter(None, (*doubts, peer.note, describe(pairs))))
        void = bool(doubts)
        for quantity, more, decides in (
            (rate, True, peer.name == best_rate and goals.rate),
            (cost, False, peer.name == best_cost),
        ):
            wanted = goals if decides else Goals()
            yield compare(
                benchmark,
                case,
                quantity.metric,
                quantity.unit,
                peer.name,
                [(quantity.of(ours), quantity.of(theirs)) for ours, theirs in pairs],
                goal=wanted.goal,
                aim=wanted.aim,
                more=more,
                void=void,
                note=note if more else "",
            )


def cpu_per_request(report: Report) -> float:
    """CPU seconds of the server's processes for each request that was counted."""
    return report.server_cpu / report.requests


def describe(pairs: Sequence[tuple[Report, Report]]) -> str:
    """How busy the client was, and what its connections got: ours, then theirs."""
    return told(*zip(*pairs, strict=True))


def told(*sides: Sequence[Report]) -> str:
    """The same of any number of servers."""
    busy = " and ".join(f"{100 * statistics.median(report.busy for report in side):.0f} %" for side in sides)
    served = " and ".join(_completions(side) for side in sides)
    law = " and ".join(f"{statistics.median(r.in_flight / r.connections for r in side):.2f}" for side in sides)
    p99 = " and ".join(f"{1e3 * statistics.median(r.latency['p99'] for r in side):.2g} ms" for side in sides)
    return f"client {busy} busy; completions a connection {served}; Little's law {law}; p99 {p99}"


def _doubts(pairs: Sequence[tuple[Report, Report]]) -> list[str]:
    """Why these runs do not tell how fast the servers are."""
    found = []
    for who, side in zip(("ours", "theirs"), zip(*pairs, strict=True), strict=True):
        if statistics.median(report.busy for report in side) > BUSY:
            found.append(f"VOID: the client was the limit ({who})")
        if sum(not report.fair for report in side) * 2 > len(side):
            found.append(f"VOID: connections starved ({who})")
    return found


def _completions(side: Sequence[Report]) -> str:
    least, most = (pick(report.completions[key] for report in side) for pick, key in ((min, "min"), (max, "max")))
    return f"{least} to {most}"


def _measured(case: str, name: str, run: Run) -> Report:
    """One run; again where nothing was through at its end, as with large bodies on a busy machine."""
    for _ in range(_ATTEMPTS):
        report = run()
        if report.failed:
            raise RuntimeError(f"{case}: {name}: {report.failed} requests failed; {report.first_error}")
        if report.requests:
            return report
    raise RuntimeError(f"{case}: {name}: no request was answered in {_ATTEMPTS} runs")


def _best(rounds: Sequence[dict[str, Report]], peers: Sequence[Contestant], cost: Callable[[Report], float]) -> str:
    """The name of the rival with the lowest cost, by the median."""
    rivals = [peer.name for peer in peers if peer.rival]
    return min(rivals, key=lambda name: statistics.median(cost(done[name]) for done in rounds), default="")
