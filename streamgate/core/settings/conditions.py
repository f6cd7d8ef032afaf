"""Settings of what tokens may restrict beyond path, method, network and time."""

from __future__ import annotations

from typing import Literal

from streamgate.core.settings.section import Section, setting


class ConditionSettings(Section):
    """Regular expressions, single use, and answers of a token's own choice. What goes beyond the limits is unknown: refused."""

    pattern_length: int = setting(
        256, "Longest regular expression of a token that is looked at.", unit="characters", ge=1, le=1024
    )
    pattern_memory: int = setting(
        65_536,
        "Memory of one regular expression, its automaton included; one that needs more is not looked at.",
        unit="bytes",
        ge=16_384,
        le=8_388_608,
    )
    patterns_per_token: int = setting(
        8,
        "Regular expressions that are looked at for one request; each takes some milliseconds at worst.",
        unit="patterns",
        ge=1,
        le=64,
    )
    patterns: int = setting(
        64, "Regular expressions that are kept compiled in each worker.", unit="patterns", ge=1, le=4096
    )
    text_length: int = setting(
        1024, "Longest path or header field that a regular expression is tried on.", unit="bytes", ge=64, le=65_536
    )
    bootstrap: tuple[Literal["main.m3u8", "main-ts.m3u8", "main.mpd"], ...] = setting(
        ("main.m3u8", "main-ts.m3u8", "main.mpd"),
        "What a token that may be used once (catreplay 1) opens: names of what begins a playback. Empty: nothing.",
    )
    once_life: int = setting(
        86_400,
        "Longest time until a token that may be used once ends; it is remembered until then, and a longer one is refused.",
        unit="seconds",
        ge=60,
        le=2_592_000,
    )
    redirect_hosts: tuple[str, ...] = setting(
        (), "Hosts that a token's own answer (catif) may redirect to over https, with their port where it is another."
    )
