"""Debian's nginx: ``secure_link`` on files, or on ``proxy_cache`` in front of an origin.

``default`` keeps Debian's settings: sendfile, ``tcp_nopush``, a log line written for each request. ``tuned`` is for small
files: ``open_file_cache``, no sendfile, a buffered log. Both have a log file, one worker, and connections that are not
closed after 1000 requests, as ours are not either.
"""

from __future__ import annotations

import contextlib
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from benchmarks.peers.certificate import Certificate
from benchmarks.peers.process import Server, folder, free_port, stopped

SECRET = "benchmark"
# What nginx tells by itself, so that it need not be added to its answers.
OWN = frozenset(
    ("server", "date", "connection", "content-type", "content-length", "content-range", "etag", "last-modified",
     "accept-ranges")
)  # fmt: skip

_CONFIG = """\
{user}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    types {{ video/mp4 mp4 m4s; }}
    access_log {folder}/access.log{buffered};
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    {files}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {cache}
    server {{
        listen 127.0.0.1:{port}{ssl};
        {tls}
        root {root};
        {headers}
        location / {{
            {check}
            {serve}
        }}
    }}
}}
"""
_FILES = {
    False: "sendfile on; tcp_nopush on;",
    True: "sendfile off; output_buffers 2 64k; open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;",
}
_CHECK = """secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {secret}";
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 410; }}"""
_CACHE = "proxy_cache_path {folder}/cache levels=1:2 keys_zone=segments:16m max_size=4g inactive=1h use_temp_path=off;"
# Not with Debian's tcp_nopush: what comes out of the cache would then wait 40 ms for an acknowledgement.
_CACHED = "sendfile on;"
_PROXY = """proxy_pass http://127.0.0.1:{origin};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache segments;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1h;"""


@dataclass
class Nginx(Server):
    """Links are signed where it checks them."""

    checks: bool = True

    def pids(self) -> list[int]:
        """Master, worker and cache manager. Not the cache loader, which ends after a minute without having had work."""
        return [pid for pid in super().pids() if b"cache loader" not in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def path(self, path: str) -> str:
        """``path`` with its expiry and MD5, as ngx_http_secure_link_module wants them."""
        if not self.checks:
            return path
        expires = int(time.time()) // 86400 * 86400 + 2 * 86400
        mark = urlsafe_b64encode(md5(f"{expires}{path} {SECRET}".encode()).digest()).rstrip(b"=").decode()
        return f"{path}?md5={mark}&expires={expires}"


@contextlib.contextmanager
def nginx(
    root: Path,
    core: int | None,
    *,
    name: str = "nginx secure_link",
    tuned: bool = False,
    checks: bool = True,
    headers: Mapping[str, str] | None = None,
    tls: Certificate | None = None,
    ssl_buffer: str = "16k",
    origin: int | None = None,
) -> Iterator[Nginx]:
    """nginx on ``root``, or with ``proxy_cache`` in front of the port ``origin``; ``headers`` are added to its answers."""
    with folder() as own:
        port = free_port()
        added = (f'add_header {field} "{_quoted(value)}";' for field, value in (headers or {}).items())
        config = _CONFIG.format(
            # As root its workers would be another user, who may not read the titles.
            user="user root;\n" if os.geteuid() == 0 else "",
            folder=own,
            buffered=" combined buffer=64k flush=1s" if tuned else "",
            files=_CACHED if origin else _FILES[tuned],
            cache=_CACHE.format(folder=own) if origin else "",
            port=port,
            ssl=" ssl" if tls else "",
            tls=_tls(tls, ssl_buffer) if tls else "",
            root=root,
            headers="\n        ".join(added),
            check=_CHECK.format(secret=SECRET) if checks else "",
            serve=_PROXY.format(origin=origin) if origin else "",
        )
        (own / "nginx.conf").write_text(config)
        with stopped(Nginx(name, port, own, checks=checks)) as server:
            server.run(["/usr/sbin/nginx", "-e", own / "error.log", "-p", own, "-c", own / "nginx.conf"], core)
            server.wait()
            yield server


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _tls(certificate: Certificate, buffer: str) -> str:
    return (
        f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};\n"
        f"        ssl_protocols TLSv1.3; ssl_buffer_size {buffer};"
    )
