"""Settings of assets whose sources are objects of a store."""

from __future__ import annotations

from streamgate.core.settings.section import Section, setting


class OriginSettings(Section):
    """Assets in a bucket: how often it is looked at, and how much of it is in memory for a moment."""

    list_interval: float = setting(
        10.0, "The bucket is listed at most this often: by then a new asset is known.", unit="seconds", ge=0.1, le=3600
    )
    revalidate: float = setting(
        5.0,
        "An open asset's objects are asked for their ETags at most this often: by then one that was replaced is noticed.",
        unit="seconds",
        ge=0.1,
        le=3600,
    )
    stale: float = setting(
        30.0,
        "So much longer an open asset's manifests are served while its objects are looked at; the longer of this and edge.stale_while_revalidate.",
        unit="seconds",
        ge=0,
        le=86_400,
    )
    held_bytes: int = setting(
        128 * 1024 * 1024,
        "Memory of the node for what was read of sources: what one segment's request brought of its neighbours is there for them.",
        unit="bytes",
        ge=2**20,
        le=2**40,
    )
    open_timeout: float = setting(
        30.0, "Time for one step of opening an asset, such as reading its index.", unit="seconds", ge=0.1, le=600
    )
    open_threads: int = setting(
        16,
        "Threads that open assets, instead of edge.open_threads: they wait for the store.",
        unit="threads",
        ge=1,
        le=256,
    )
