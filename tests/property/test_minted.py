"""Tokens that are minted for an asset open it and nothing else, however its name, or a path, is like another's."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge.paths import canonical_path
from streamgate.access import tokens
from streamgate.access.foreign import load
from streamgate.access.keyring import site_key
from streamgate.access.keys import Defaults
from streamgate.errors import StreamGateError
from tests.signers import es256
from tests.token_factory import NOW, SESSION, Request, verdict, verifier

KEY = site_key(bytes(range(32)), "here", 1, Defaults("streamgate", ("here",)))
JUDGE = verifier(KEY.verifying())
ISSUER = es256()
SIGNED = ISSUER.token()

assets = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
near = st.sampled_from(["a", "A", "a.", "a-", "a_", "aa", "a.b", "a-b", "ab", "b", "a..", "a~preview", "v", "t"])
leaves = st.sampled_from(["main.m3u8", "main.mpd", "v540-00112233/7.m4s", ""]) | st.text("abv/.t~", max_size=12)


def minted(asset: str) -> str:
    return tokens.mint(KEY, asset=asset, session=SESSION, expires=NOW + 60)


@given(near.filter(lambda name: "~" not in name) | assets, near | assets, leaves)
@example("a", "ab", "main.m3u8")
@example("a", "A", "main.m3u8")
def test_no_token_of_one_asset_opens_another(asset: str, other: str, leaf: str) -> None:
    token = minted(asset)
    assert verdict(token, Request(path=f"/v/{asset}/{leaf}"), JUDGE) == "accept"
    assume(other != asset)
    for path in (
        f"/v/{other}/{leaf}",
        f"/v/{asset}",
        f"/v/{asset}~preview/{leaf}",
        f"/v//{asset}/{leaf}",
        f"/{asset}/{leaf}",
    ):
        assert verdict(token, Request(path=path), JUDGE) == "token_path"


@given(near.filter(lambda name: "~" not in name), st.text(st.sampled_from("abv/.%2Ee5Cc\\~;:@t"), max_size=24))
@example("a", "../b/main.m3u8")
@example("a", "%2e%2e/b/main.m3u8")
@example("a", "..%2Fb/main.m3u8")
@example("a", "//b/main.m3u8")
def test_a_path_that_is_let_in_is_below_the_asset(asset: str, rest: str) -> None:
    """Whatever is asked for: the path that scope, cache and lookup see begins with the asset, and climbs nowhere."""
    token = minted(asset)
    for asked in (f"/v/{asset}/{rest}", f"/v/{rest}", f"/{rest}"):
        try:
            path = canonical_path(asked)
        except StreamGateError as error:
            assert error.code == "path_malformed"
            continue
        if verdict(token, Request(path=path), JUDGE) == "accept":
            assert path.startswith(f"/v/{asset}/")
            assert not {"", ".", ".."} & set(path.split("/")[1:-1]) and "%2" not in path.upper().replace("%25", "")


@given(st.integers(0, len(SIGNED) - 1), st.sampled_from("AZaz09-_"))
def test_a_changed_token_of_another_issuer_is_refused(at: int, character: str) -> None:
    """Whatever is changed: either it cannot be read, or its signature is wrong, or it is the same token written in another way."""
    changed = SIGNED[:at] + character + SIGNED[at + 1 :]
    by = verifier(ISSUER.key.verifying())
    by.remember(SIGNED, NOW + 60)
    if changed == SIGNED:
        return
    assert verdict(changed, by=by) in {"token_malformed", "token_algorithm", "token_key", "token_signature"}
    try:
        _, covered, signature, _, identity = by.covered(changed)
    except StreamGateError:
        return
    if load(ISSUER.pem, ISSUER.algorithm).right(covered, signature):
        assert identity == by.covered(SIGNED)[4]
