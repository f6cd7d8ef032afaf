"""Settings of what is known of where viewers are."""

from __future__ import annotations

from streamgate.core.settings.section import Section, setting


class GeoipSettings(Section):
    """MaxMind databases of networks. What none of them tells is unknown, and a token that restricts it is refused."""

    country: str = setting(
        "", "Database of countries, or of cities: GeoLite2-City.mmdb. Empty: where viewers are is not known."
    )
    asn: str = setting("", "Database of the numbers of networks: GeoLite2-ASN.mmdb. Empty: they are not known.")
    interval: float = setting(
        60.0,
        "Time between two looks whether a database was replaced; it is then read without a restart.",
        unit="seconds",
        ge=0.1,
        le=86_400,
    )
    max_size: int = setting(
        268_435_456,
        "Greatest database; it is held in memory by every process that asks it.",
        unit="bytes",
        ge=1024,
        le=4_294_967_296,
    )
