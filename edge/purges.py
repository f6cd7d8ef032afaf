"""Purges: what was made before one is not served as fresh after it, by any tier.

Each purge is an event of the feed, which every process of the node hears of, and every node of the site. ``subject`` of
such an event is JSON: what is purged, whether softly, when (s since 1970, by the clock of who asked), and a random name.

What is in memory is thrown out, or marked, when a purge is applied (:mod:`edge.clearing`). What lies elsewhere is asked
for each time it is found there, for as long as the purge is kept: an object of the disk tier by the *number* of the last
purge that the process had heard of when it began to make it, which needs no clock; one of another node by the time it
was made at.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from edge import routes, tags
from edge.paths import split_token
from streamgate.core.logging import get_logger
from streamgate.errors import StreamGateError
from streamgate.storage.discovery import preview_id
from streamgate.storage.kv.events import Event

Kind = Literal["url", "prefix", "asset", "tag"]
Verdict = Literal["", "soft", "hard"]

SLACK_S = 10
"""How far clocks of a site's nodes may be apart: so much longer what other nodes made counts as made before a purge."""

_KINDS = frozenset(get_args(Kind))
_ROOT = "/v/"
_MOST_BYTES = 2048
_log = get_logger("edge.purges")


@dataclass(frozen=True, slots=True)
class Purge:
    """Everything at one address, below a prefix of addresses, of an asset, or with a tag; ``at``: s since 1970."""

    kind: Kind
    subject: str
    soft: bool
    at: int
    name: str

    def encode(self) -> bytes:
        """The subject of its event."""
        told = {self.kind: self.subject, "soft": self.soft, "at": self.at, "name": self.name}
        return json.dumps(told, separators=(",", ":")).encode()


def decode(subject: bytes) -> Purge:
    """The purge of an event; raises ``request_malformed`` for what is none."""
    try:
        told = json.loads(subject) if len(subject) <= _MOST_BYTES else {}
        soft, at, name = told.pop("soft"), told.pop("at"), told.pop("name")
        ((kind, what),) = told.items()
        if (
            kind in _KINDS
            and type(soft) is bool
            and type(at) is int
            and isinstance(what, str)
            and isinstance(name, str)
        ):
            return Purge(kind, what, soft, at, name)
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        pass
    raise StreamGateError("request_malformed", "this is no purge")


def everything(now: float) -> Purge:
    """A purge of all there is, which says all that earlier ones said."""
    return Purge("prefix", _ROOT, False, int(now), secrets.token_hex(8))


def superseded(event: Event, held: Iterable[Event]) -> list[Event]:
    """The purges among those ``held`` that ``event`` makes needless: it is one of everything, and they were asked for before.

    By any node's clock: another node may not have heard yet of what was asked for since, though it has of this one.
    """
    whole = _decoded(event)
    if whole is None or (whole.kind, whole.subject, whole.soft) != ("prefix", _ROOT, False):
        return []
    before = whole.at - SLACK_S
    return [each for each in held if (purge := _decoded(each)) is not None and purge.at <= before]


def _decoded(event: Event) -> Purge | None:
    try:
        return decode(event.subject) if event.type == "purge" else None
    except StreamGateError:
        return None


def asked(text: str, now: float) -> Purge:
    """The purge that an operator asks for: ``{"url"|"prefix"|"asset"|"tag": …, "soft": bool}``.

    Addresses may be whole URLs, and may have a token in their path; both go. Raises ``request_malformed``, ``path_malformed``.
    """
    try:
        told = json.loads(text)
        soft = told.pop("soft", False)
        ((kind, what),) = told.items()
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise StreamGateError("request_malformed", "wanted: one of url, prefix, asset and tag, and soft") from None
    if kind not in _KINDS or type(soft) is not bool or not isinstance(what, str):
        raise StreamGateError("request_malformed", "wanted: url, prefix, asset or tag as a text, soft as true or false")
    if kind in ("url", "prefix"):
        what = split_token(what)[1]
        if not what.startswith(_ROOT):
            raise StreamGateError("request_malformed", f"what can be purged lies below {_ROOT}")
    elif kind == "asset" and (not what or routes.asset_of(f"/v/{what}/") != what):
        raise StreamGateError("request_malformed", "this cannot be an asset's id")
    elif kind == "tag" and not tags.is_tag(what):
        raise StreamGateError("request_malformed", "this cannot be a tag")
    return Purge(cast(Kind, kind), what, soft, int(now), secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Mark:
    """A purge in force ``until`` (s since 1970; None: for ever). ``number`` is its event's; ``before``: s since 1970, what is
    older was made before it; ``applied``: when this process heard of it, by its performance counter."""

    purge: Purge
    until: int | None
    number: int
    before: int
    applied: float


def _no_tags(_: str) -> Sequence[str]:
    return ()


class Purges:
    """The purges in force in this process, at most ``most``: where there are more, the oldest become one of everything.

    ``tags`` tells those of an asset's description, by its id. Nothing here blocks or waits. To be changed in one thread;
    others may ask.
    """

    def __init__(
        self,
        most: int = 10_000,
        tags: Callable[[str], Sequence[str]] = _no_tags,
        clock: Callable[[], float] = time.time,
        counter: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.number = 0
        """Of the last purge that was applied: what is begun now is newer than that."""
        self.tags = tags
        self._most = most
        self._clock = clock
        self._counter = counter
        self._marks: dict[tuple[Kind, str, bool], Mark] = {}
        self._seen: dict[str, None] = {}
        # How long the prefixes are that are purged, and whether any tag is.
        self._lengths: tuple[int, ...] = ()
        self._tagged = False

    def __len__(self) -> int:
        return len(self._marks)

    def apply(self, event: Event, *, live: bool = True) -> Purge | None:
        """Take an event of the feed into force. The purge, if it is one that was not in force before.

        ``live``: it happens now; else it was written down before this process began. Other kinds of events change nothing.
        """
        if event.type != "purge":
            return None
        try:
            purge = decode(event.subject)
        except StreamGateError as error:
            _log.warning("an entry of the feed is passed over", reason=error.detail)
            return None
        self.number = event.id
        again = purge.name in self._seen
        self._seen[purge.name] = None
        if len(self._seen) > 2 * self._most:
            del self._seen[next(iter(self._seen))]
        what = (purge.kind, purge.subject, purge.soft)
        known = self._marks.get(what)
        if not again:
            now = int(self._clock())
            before, applied = (now, self._counter()) if live else (min(purge.at, now), float("-inf"))
            before = max(before, known.before) if known is not None else before
            mark = Mark(purge, event.until, event.id, before, applied)
        elif known is not None and known.purge.name == purge.name:
            # The store began anew, or is read anew.
            mark = replace(known, number=event.id)
        else:
            return None
        # The newest comes last. Another thread may ask meanwhile.
        marks = self._marks if known is None else {key: each for key, each in self._marks.items() if key != what}
        marks[what] = mark
        self._marks = marks
        if len(marks) > self._most:
            self._gather()
        self._renew()
        return None if again else purge

    def forget(self) -> None:
        """Drop what has ended."""
        now = self._clock()
        over = {what for what, mark in self._marks.items() if mark.until is not None and mark.until <= now}
        if over:
            self._marks = {what: mark for what, mark in self._marks.items() if what not in over}
            self._renew()

    def of(self, key: str, number: int, made: int) -> Verdict:
        """What became of an object of this node's disk that was begun when ``number`` was the last purge's, and ``made``
        then (s since 1970).

        The number is right whatever the clock does: those of a feed that began anew are higher than all before. Where the
        clock was set back in between they are not; then an object has one that is yet to come, and its time is asked.
        """
        ahead = number > self.number
        return self._verdict(key, lambda mark: number < mark.number or (ahead and made < mark.before))

    def after(self, key: str, made: int) -> bool:
        """Whether ``key`` was purged, hard or softly, after ``made`` (s since 1970, by any node's clock)."""
        return self._verdict(key, lambda mark: made <= max(mark.before, mark.purge.at) + SLACK_S) != ""

    def since(self, key: str, born: float, number: int | None = None) -> Verdict:
        """What has become of ``key`` since ``born``, by this process's performance counter, or since purge ``number``."""
        return self._verdict(key, lambda mark: born <= mark.applied or (number is not None and number < mark.number))

    def _verdict(self, key: str, older: Callable[[Mark], bool]) -> Verdict:
        if not self._marks:
            return ""
        # Coded forms go with theirs; what nodes share says behind the address of what it tells.
        path = key.partition(";")[0].partition("#")[0]
        names = list(self._names(path))
        for soft in (False, True):
            for kind, subject in names:
                mark = self._marks.get((kind, subject, soft))
                if mark is not None and older(mark):
                    return "soft" if soft else "hard"
        return ""

    def _names(self, path: str) -> Iterator[tuple[Kind, str]]:
        """By what an object may have been purged."""
        yield "url", path
        asset = routes.asset_of(path)
        yield "asset", asset
        if of := routes.previewed(asset):
            yield "asset", of
        for length in self._lengths:
            if len(path) >= length:
                yield "prefix", path[:length]
        if self._tagged:
            for tag in (*tags.of_path(path), *self.tags(asset)):
                yield "tag", tag

    def _gather(self) -> None:
        """Let the older half be two: of everything, hard and softly; nothing that was purged comes back by that."""
        oldest = list(self._marks.items())[: len(self._marks) // 2 + 1]
        marks: dict[tuple[Kind, str, bool], Mark] = {}
        for soft in (False, True):
            gone = [mark for what, mark in oldest if what[2] == soft]
            if gone:
                whole = Purge("prefix", _ROOT, soft, max(mark.purge.at for mark in gone), "")
                ends = [mark.until for mark in gone if mark.until is not None]
                marks["prefix", _ROOT, soft] = Mark(
                    whole,
                    max(ends) if len(ends) == len(gone) else None,
                    gone[-1].number,
                    max(mark.before for mark in gone),
                    max(mark.applied for mark in gone),
                )
        passed = {what for what, _ in oldest}
        self._marks = marks | {what: mark for what, mark in self._marks.items() if what not in passed}
        _log.warning("too many purges are in force; the oldest are one of everything now", gathered=len(oldest))

    def _renew(self) -> None:
        self._lengths = tuple({len(subject) for kind, subject, _ in self._marks if kind == "prefix"})
        self._tagged = any(kind == "tag" for kind, _, _ in self._marks)


def matcher(purge: Purge, tags_of: Callable[[str], Sequence[str]]) -> Callable[[str], bool]:
    """Whether a key is meant by a purge; coded forms (``path;br``) go with theirs."""
    subject = purge.subject
    if purge.kind == "url":
        return lambda key: key.partition(";")[0] == subject
    if purge.kind == "prefix":
        return lambda key: key.startswith(subject)
    if purge.kind == "asset":
        return lambda key: key.startswith((f"/v/{subject}/", f"/v/{preview_id(subject)}/"))
    if ":" in subject:
        return lambda key: subject in tags.of_path(key.partition(";")[0])
    return lambda key: subject in tags_of(routes.asset_of(key))


def assets_of(purge: Purge, known: Iterator[str] | Sequence[str], tags_of: Callable[[str], Sequence[str]]) -> list[str]:
    """Which of the ``known`` assets a purge means as a whole, or by a manifest: their files are to be looked at anew."""
    subject = purge.subject
    if purge.kind == "asset":
        return [subject, *(name for name in known if routes.previewed(name) == subject)]
    if purge.kind == "url":
        try:
            target = routes.match(subject)
        except StreamGateError:
            return []
        return [] if target.route.immutable else [target.asset]
    if purge.kind == "prefix":
        return [name for name in known if f"/v/{name}/".startswith(subject)]
    return [name for name in known if subject in tags.of_asset(name) or subject in tags_of(name)]
