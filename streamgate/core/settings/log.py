"""Settings of logs."""

from __future__ import annotations

from typing import Literal

from streamgate.core.settings.section import Section, setting


class LogSettings(Section):
    """What is logged, and how it looks. Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least important level that is logged.")
    format: Literal["auto", "console", "json"] = setting(
        "auto", "json: one object a line, for machines. console: for people. auto: console on a terminal, else json."
    )
    access: bool = setting(True, "Log each request: method, path without query and token, status, bytes, time.")
    access_file: str = setting(
        "", "File for the lines about requests, opened anew on SIGUSR1. Empty: they go where the other logs go."
    )
    access_format: Literal["auto", "json", "combined"] = setting(
        "auto", "json, or the combined format of nginx and Apache. auto: combined on a terminal, else json."
    )
    access_sample: float = setting(1.0, "Part of the requests that is logged.", unit="of all", ge=0, le=1)
    cmcd_file: str = setting(
        "",
        "File for what players report with requests for media (CMCD), a line of JSON each, opened anew on SIGUSR1. Empty: none.",
    )
    cmcd_sample: float = setting(1.0, "Part of those reports that is kept.", unit="of all", ge=0, le=1)
    whole_addresses: bool = setting(
        False, "Log clients' addresses whole; else IPv4 is cut to /24 and IPv6 to /48, as privacy laws want."
    )
