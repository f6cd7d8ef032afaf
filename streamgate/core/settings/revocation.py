"""Settings of what is revoked, and of how fast a site's nodes hear of it."""

from __future__ import annotations

from streamgate.core.settings.section import Section, setting


class RevocationSettings(Section):
    """How fast revocations and purges spread in a site, and when a node says that it may have missed some."""

    max_age: float = setting(
        30.0,
        "Age of the site's feed (time since it was last read) beyond which the node says that it may not know all that is"
        " revoked. Only where nodes share a feed (redis.url).",
        unit="seconds",
        ge=1,
        le=86_400,
    )
    keep: int = setting(
        31_536_000,
        "How long a session stays revoked where no end is given: no token that is believed may live longer. Keys stay"
        " revoked for ever.",
        unit="seconds",
        ge=86_400,
        le=315_360_000,
    )
    most: int = setting(
        100_000,
        "Revocations in force beyond which the node takes no more from its operator; what other nodes revoke it always takes.",
        unit="revocations",
        ge=100,
        le=10_000_000,
    )
    poll: float = setting(
        0.2,
        "Time between two looks at the site's feed: so long it takes at most until other nodes' events are known here.",
        unit="seconds",
        ge=0.02,
        le=60,
    )
