"""Settings of what is fetched before anybody asks for it."""

from __future__ import annotations

from typing import Literal

from streamgate.core.settings.section import Section, setting


class PrefetchSettings(Section):
    """Segments that a viewer will probably ask for next are put into the disk tier, as far as these limits go."""

    sources: Literal["none", "remote", "all"] = setting(
        "remote",
        "Whose segments are fetched ahead: of remote sources (S3), or of all; in a local folder the kernel reads ahead.",
    )
    ahead: int = setting(
        2, "Segments fetched ahead of the one that was asked for, in its own rendition.", unit="segments", ge=1, le=32
    )
    neighbours: int = setting(
        1,
        "Bitrates on each side whose next segment is fetched too, for a player that changes.",
        unit="renditions",
        ge=0,
        le=8,
    )
    jobs: int = setting(4, "Segments fetched ahead at once.", unit="segments", ge=1, le=64)
    bytes_in_flight: int = setting(
        64 * 2**20, "Bytes that are being fetched ahead at once.", unit="bytes", ge=2**20, le=2**36
    )
    bytes_per_second: int = setting(
        128 * 2**20, "Speed of fetching ahead, on average.", unit="bytes a second", ge=2**16, le=2**40
    )
    patience: float = setting(
        4.0, "Time a segment may wait for its turn; then it is not fetched ahead.", unit="seconds", ge=0.1, le=60
    )
    remembered: int = setting(
        16_384, "Segments fetched ahead of which is known whether anybody used them.", unit="segments", ge=16, le=2**20
    )
    warm_jobs: int = setting(
        4, "Objects made at once by `streamgate cache warm`, while no viewer waits.", unit="objects", ge=1, le=64
    )
