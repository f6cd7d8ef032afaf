"""From a policy to a token: grants, sessions, and what is minted for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from streamgate.access import embedding, tokens
from streamgate.access.policies import Policy, decide
from streamgate.access.sessions import ID_BYTES, Carriage, Grant, Session, judge, network_of, opaque
from streamgate.control.auth import browsers
from streamgate.control.auth.activity import Activity
from streamgate.control.auth.catalogue import Catalogue
from streamgate.control.auth.hashing import Hashing
from streamgate.control.auth.keys import SiteKeys
from streamgate.control.auth.ledger import Ledger
from streamgate.control.auth.places import Places
from streamgate.control.auth.rates import Rates
from streamgate.control.auth.revoked import Revoked
from streamgate.core.settings import Settings
from streamgate.errors import StreamGateError
from streamgate.native import cat


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, its session, and when (s since 1970) it expires and is best renewed; ``browser``: a cookie that is new."""

    session: Session
    token: str
    expires: int
    renew_at: int
    now: int
    browser: str | None = None


class Grants:
    """Everything that ends in a token, or ends one. Times in s since 1970, by ``clock``."""

    def __init__(
        self,
        settings: Settings,
        keys: SiteKeys,
        catalogue: Catalogue,
        ledger: Ledger,
        revoked: Revoked,
        activity: Activity,
        places: Places,
        rates: Rates,
        hashing: Hashing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._catalogue = catalogue
        self._ledger = ledger
        self._revoked = revoked
        self._activity = activity
        self._places = places
        self._rates = rates
        self._hashing = hashing
        self._clock = clock

    async def start(
        self,
        asset: str,
        *,
        account: str | None,
        browser: str | None,
        client: str,
        source: str,
        password: str | None,
        carriage: Carriage,
        grant: bytes | None = None,
        page: str | None = None,
        own: str = "",
    ) -> Issued:
        """A session of ``asset`` for an account, or for the browser of that cookie, from the address ``client``, in text.

        Without an account its rate counts for ``source``, too. ``grant``: one that the same has already, which may cover
        ``asset``, too, for it is of the same collection. ``page``: the origin of the page that asks; ``own``: the server's.

        Raises ``rate_limited``, ``asset_not_found``, ``embed_denied``, ``binding_unavailable``, ``playback_denied``,
        ``sign_in_required``, ``password_wrong``, ``too_many_streams``, ``store_unavailable``, and what keeps the policy from
        being read.
        """
        subjects, fresh = self._keys.subjects, None
        if account is None and not browsers.is_ours(browser, subjects):
            fresh = browser = browsers.fresh(subjects)
        holder = opaque(subjects, "browser", browser or "") if account is None else opaque(subjects, "account", account)
        # Browsers are made by asking: where nobody is signed in the address counts, too.
        if account is None:
            self._rates.starts.ask(f"address {source}")
        if fresh is None:
            self._rates.starts.ask(holder)
        if password is not None:
            self._rates.logins.ask(source)
        policy = await self._catalogue.policy(asset)
        if not embedding.allows(policy.embed_origins, page, own=own):
            raise StreamGateError("embed_denied")
        network, now = network_of(client), int(self._clock())
        place = self._places.needed(policy.binding, network)
        cap = now + min(policy.session or self._settings.tokens.lifetime, self._settings.tokens.lifetime)
        known = None if grant is None else await self._ledger.covering(grant)
        if known is not None and known.covers(holder, policy.kind or "", policy.collection, now):
            if self._revoked.holds("revoke.grant", known.id):
                raise StreamGateError("playback_denied", "it was revoked")
            if policy.kind == "allow":  # a name may be missing in this asset's list
                await self._decide(policy, account, None)
            session = self._session(known, policy, asset, place, carriage, now, min(cap, known.cap))
            await self._let_in(session)
            await self._ledger.add(session)
            return self._issue(session, b"", now, fresh)
        pending = Grant(
            self._ledger.fresh_id(), holder, (asset,), policy.kind or "", now, cap, collection=policy.collection
        )
        await self._ledger.open(pending)
        try:
            live = pending.live(await self._decide(policy, account, password))
            session = self._session(live, policy, asset, place, carriage, now, cap)
            await self._let_in(session)
        except StreamGateError:
            await self._ledger.refuse(pending)
            raise
        await self._ledger.grant(pending, live.entitlements, session)
        return self._issue(session, b"", now, fresh)

    async def renew(self, text: str, client: str) -> Issued:
        """The next token of a session; raises ``token_*``, ``session_*`` and ``rate_limited``."""
        now = int(self._clock())
        token = self._keys.read(text)
        if now >= token.deadline:
            raise StreamGateError("token_expired")
        self._rates.renewals.ask(token.session)
        session = await self._current(token.session)
        if await self._activity.shared(session):
            raise StreamGateError("session_shared")
        if session.binding != "none":
            place = self._places.needed(session.binding, network_of(client))
            session = await self._ledger.rebind(session, place)
        return self._issue(session, _next(text), now)

    async def session(self, text: str) -> Session:
        """The session of a token, while it goes on; raises ``token_*`` and ``session_*``."""
        token = self._keys.read(text)
        if self._clock() >= token.deadline:
            raise StreamGateError("token_expired")
        return await self._current(token.session)

    async def end(self, text: str, source: str) -> Session | None:
        """End the session of a token, though that may have expired, for who counts as ``source``; None where there is none.

        Raises ``token_*`` and ``rate_limited``: an address may end as many as it may start.
        """
        self._rates.starts.ask(f"end {source}")
        try:
            id = self._keys.read(text).session
        except StreamGateError as error:
            if error.code != "token_revoked":
                raise
            return None
        self._rates.renewals.ask(b"end" + id)
        found = await self._ledger.find([id], fresh=True)
        if id not in found:
            return None
        session, _ = found[id]
        await self._ledger.end_session(session)
        await self._activity.end(session)
        return session

    async def _let_in(self, session: Session) -> None:
        """Raises ``playback_denied`` for what is revoked, and ``too_many_streams``."""
        if self._revoked.bars(session.account, session.asset, session.entitlements):
            raise StreamGateError("playback_denied", "it was revoked")
        await self._activity.room(session)

    async def _current(self, id: bytes) -> Session:
        found = await self._ledger.find([id])
        if id not in found:
            raise StreamGateError("session_unknown")
        session, epoch = found[id]
        if self._revoked.ends(session):
            raise StreamGateError("session_ended")
        judge(session, epoch, session.asset, None, self._clock())
        return session

    async def _decide(self, policy: Policy, account: str | None, password: str | None) -> tuple[str, ...]:
        if policy.kind == "password" and password:
            decision = await self._hashing.run(lambda: decide(policy, account, password))
        else:
            decision = decide(policy, account, password)
        if not decision.granted:
            raise StreamGateError(decision.reason)
        return tuple(opaque(self._keys.subjects, "entitlement", each) for each in decision.entitlements)

    def _session(
        self, grant: Grant, policy: Policy, asset: str, place: str, carriage: Carriage, start: int, cap: int
    ) -> Session:
        auth = self._settings.auth
        return Session(
            id=self._ledger.fresh_id(),
            grant=grant.id,
            epoch=grant.epoch,
            asset=asset,
            account=grant.account,
            start=start,
            cap=cap,
            carriage=carriage,
            entitlements=grant.entitlements,
            networks=(place,) if place else (),
            binding=policy.binding,
            max_streams=auth.max_streams if policy.max_streams is None else policy.max_streams,
            max_networks=auth.max_networks if policy.max_networks is None else policy.max_networks,
            when_full=policy.when_full or auth.too_many_streams,
        )

    def _issue(self, session: Session, counter: bytes, now: int, browser: str | None = None) -> Issued:
        life = self._settings.tokens.short_life
        expires = session.cap if session.carriage == "path" else min(now + life, session.cap)
        text = tokens.mint(
            self._keys.signing,
            asset=session.asset,
            session=session.id,
            expires=expires,
            counter=counter,
            subject=session.account or None,
            renewal=tokens.Renewal.by(session.carriage, life),
        )
        return Issued(session, text, expires, now + int(tokens.RENEW_AT * (expires - now)), now, browser)


def _next(text: str) -> bytes:
    """The counter that follows the one in a token's cti."""
    cti = cat.decode(text)[3][cat.CLAIMS["cti"]]
    assert isinstance(cti, bytes)
    counter = int.from_bytes(cti[ID_BYTES:]) + 1
    return counter.to_bytes(max(1, -(-counter.bit_length() // 8)))
