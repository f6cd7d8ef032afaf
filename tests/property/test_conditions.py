"""The composition of claims against a truth table, and the slow way against the fast one."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.access import conditions
from streamgate.access.conditions import Issuer
from streamgate.access.kleene import Logic, every, negated, some
from tests.edge.judging import Judge
from tests.property.test_cat import addresses, hosts, items, matchers, networks, paths, tagged
from tests.property.test_cat import parts as uri_parts
from tests.token_factory import NOW, VECTORS, Request, signed, verdict

JUDGE = Judge()
ISSUER = Issuer(VECTORS["issuer"], (VECTORS["audience"],))

# A claim of each answer, fast and slow ones.
LEAVES: dict[Logic, list[dict[int | str, Any]]] = {
    True: [{313: ["GET"]}, {312: {3: {4: ["/v/.*"]}}}, {315: {"user-agent": {3: "Moz"}}}, {4: NOW}, {308: 0}],
    False: [{313: ["POST"]}, {312: {3: {4: ["/w/.*"]}}}, {315: {"x-none": {0: ""}}}, {4: NOW - 30}, {1: "other"}],
    None: [{319: b""}, {312: {3: {4: ["("]}}}, {315: {"user-agent": {9: ""}}}, {316: ["DE"]}, {308: 1}],
}
KEYS = {"or": 41, "nor": 42, "and": 43}

# A tree: a leaf by its number, or a node and what is below it.
Tree = int | tuple[str, list[Any]]


@st.composite
def trees(draw: st.DrawFn, leaves: Iterator[int], depth: int = 3) -> Tree:
    """Trees whose leaves are numbered as they come."""
    if depth == 0 or (depth < 3 and draw(st.booleans())):
        return next(leaves)
    below = draw(st.integers(1, 3))
    return draw(st.sampled_from(sorted(KEYS))), [draw(trees(leaves, depth - 1)) for _ in range(below)]


def claims(tree: Tree, answers: Mapping[int, Logic], variant: int, depth: int = 0) -> dict[int | str, Any]:
    if isinstance(tree, int):
        # So far down a map would be nested too deeply for a token.
        found = [leaf for leaf in LEAVES[answers[tree]] if depth < 3 or not any(map(_is_map, leaf.values()))]
        return found[(tree + variant) % len(found)]
    return {KEYS[tree[0]]: [claims(one, answers, variant, depth + 1) for one in tree[1]]}


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def truth(tree: Tree, answers: Mapping[int, bool]) -> bool:
    """Two-valued logic."""
    if isinstance(tree, int):
        return answers[tree]
    below = [truth(one, answers) for one in tree[1]]
    return {"or": any(below), "nor": not any(below), "and": all(below)}[tree[0]]


def table(tree: Tree, answers: Mapping[int, Logic]) -> Logic:
    """What all rows agree on, in which each unknown leaf is yes or no; None where they don't."""
    unknown = [leaf for leaf, answer in answers.items() if answer is None]
    rows = {
        truth(tree, {**{k: bool(v) for k, v in answers.items()}, **dict(zip(unknown, row, strict=True))})
        for row in itertools.product((True, False), repeat=len(unknown))
    }
    return rows.pop() if len(rows) == 1 else None


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(0, 4))
def test_every_composition_is_what_its_truth_table_says_with_unknown_at_each_leaf(
    data: st.DataObject, variant: int
) -> None:
    """Each leaf stands for itself, so three-valued logic is what the rows agree on."""
    numbers = itertools.count()
    tree = data.draw(trees(numbers))
    leaves = next(numbers)
    if leaves > 8:
        return
    answers: dict[int, Logic] = {n: data.draw(st.sampled_from((True, False, None))) for n in range(leaves)}
    told = {True: "accept", False: "token_condition", None: "token_unsupported"}
    for unknown in (None, *range(leaves)):
        given_ = answers if unknown is None else {**answers, unknown: None}
        token = signed(claims(tree, given_, variant))
        if len(token) <= 1024:
            assert JUDGE.verdict(token) == told[table(tree, given_)], (tree, given_)


def test_the_three_connectives_are_kleenes() -> None:
    values = (True, False, None)
    order = {False: 0, None: 1, True: 2}
    back = {number: value for value, number in order.items()}
    for a, b in itertools.product(values, values):
        assert every((a, b)) is back[min(order[a], order[b])]
        assert some((a, b)) is back[max(order[a], order[b])]
    assert [negated(a) for a in values] == [False, True, None]
    assert every(()) is True and some(()) is False


@settings(max_examples=300, deadline=None)
@given(
    request=st.builds(
        Request,
        method=st.sampled_from(("GET", "HEAD", "get")),
        scheme=st.sampled_from(("http", "https")),
        host=hosts,
        path=paths,
        address=addresses.map(lambda address: ipaddress.ip_address(address).packed),
        now=st.integers(NOW - 100, NOW + 100),
    ),
    ends=st.integers(NOW - 150, NOW + 150) | st.floats(NOW - 150, NOW + 150),
    starts=st.none() | st.integers(NOW - 150, NOW + 150) | st.floats(NOW - 150, NOW + 150),
    methods=st.none() | st.lists(st.sampled_from(("GET", "HEAD", "POST")), max_size=2),
    uri=st.none() | uri_parts,
    nets=st.none() | st.lists(networks | st.integers(1, 2**32), max_size=3),
    short=st.booleans(),
)
def test_the_slow_way_says_what_the_fast_way_says(
    request: Request, ends: float, starts: float | None, methods: Any, uri: Any, nets: Any, short: bool
) -> None:
    given_: dict[int | str, Any] = {4: ends, 5: starts, 313: methods, 312: uri or None}
    given_[311] = None if nets is None else [net if isinstance(net, int) else tagged(net, short) for net in nets]
    token = signed(given_)
    fast = verdict(token, request)
    if fast in ("token_unsupported", "token_network"):  # an earlier no may be one that only the slow way finds
        assert JUDGE.verdict(token, request) != "accept" or fast == "token_unsupported"
        return
    read = JUDGE.gate.verifier.read(token)
    asked = conditions.Request(request.method, request.scheme, request.host, request.path, request.address, request.now)
    found = conditions.judge(read.payload_claims(), asked, JUDGE.conditions.world(), ISSUER)
    assert (found.code or "accept") == fast


@settings(deadline=None)
@given(st.sampled_from([*range(40, 46), 282, *range(308, 325)]), items, matchers)
def test_a_claim_of_any_value_has_an_answer_and_opens_nothing(key: int, value: Any, other: Any) -> None:
    elsewhere = Request(path="/v/other/main.mpd")
    beside: dict[int | str, Any] = {312: {3: {1: "/v/abc123/"}}} if key != 312 else {313: []}
    for given_ in ({**beside, key: value}, {**beside, 41: [{key: value, 315: {"a": other}}]}):
        error = asyncio.run(JUDGE.refusal(signed(given_), elsewhere)) if len(signed(given_)) <= 1024 else None
        assert error is not None or len(signed(given_)) > 1024
