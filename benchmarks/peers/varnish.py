"""Debian's Varnish: objects in memory, requests logged to a file by ``varnishncsa``. It checks no token.

Debian has no module for MACs, and a program that Varnish would ask for each request is not what anybody runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.peers.process import Server, folder, free_port, stopped

_VCL = """\
vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "%d"; }
sub vcl_recv { set req.url = regsub(req.url, "[?].*", ""); }
sub vcl_backend_response { set beresp.ttl = 1h; }
sub vcl_deliver { unset resp.http.X-Varnish; unset resp.http.Via; }
"""


@contextlib.contextmanager
def varnish(origin: int, core: int | None, *, vcl: str = _VCL, log: bool = True) -> Iterator[Server]:
    """Varnish in front of the port ``origin``; ``%d`` in ``vcl`` is that port."""
    with folder() as own:
        port = free_port()
        (own / "default.vcl").write_text(vcl % origin)
        with stopped(Server("Varnish, no token", port, own)) as server:
            # -F: a process of ours; without a jail, for its folder is ours too
            options = f"-F -j none -n {own}/work -a 127.0.0.1:{port} -T none -s malloc,2g -f {own}/default.vcl"
            server.run(["/usr/sbin/varnishd", *options.split()], core)
            server.wait()
            if log:
                server.run(["/usr/bin/varnishncsa", "-n", own / "work", "-w", own / "access.log"], core)
            yield server
