"""What ``package`` writes, behind a server that knows nothing but files."""

from __future__ import annotations

import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest

from streamgate.storage import static
from streamgate.storage.assets import discover, open_asset
from tests.conftest import find_program
from tests.media_factory import ladder

SECONDS = 8
FPS = 25
MPD = {"": "urn:mpeg:dash:schema:mpd:2011"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not told."""


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("packaged")
    asset = open_asset(discover(ladder(home / "ladder", seconds=SECONDS))[0])
    static.write(asset, home / "out", ts=True, trick_play=True)
    return home / "out"


@pytest.fixture(scope="module")
def origin(packaged: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(packaged))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def get(url: str) -> bytes:
    with urlopen(url, timeout=10) as response:
        assert response.status == 200
        return bytes(response.read())


def hls_urls(url: str) -> set[str]:
    """All that the playlist at ``url`` names, in lines of their own and in attributes, and all that those name."""
    named = set()
    for line in get(url).decode().splitlines():
        if line.startswith("#"):
            named |= {urljoin(url, part.partition('"')[0]) for part in line.split('URI="')[1:]}
        elif line:
            named.add(urljoin(url, line))
    return named.union(*(hls_urls(n) for n in named if n.endswith(".m3u8")))


def dash_urls(url: str) -> set[str]:
    """All that the MPD at ``url`` names, its templates written out (ISO/IEC 23009-1 section 5.3.9.4.4)."""
    named = set()
    for adaptation in ET.fromstring(get(url)).iterfind(".//AdaptationSet", MPD):
        for representation in adaptation.iterfind("Representation", MPD):
            named |= {base.text or "" for base in representation.iterfind("BaseURL", MPD)}
            for template in (
                *adaptation.iterfind("SegmentTemplate", MPD),
                *representation.iterfind("SegmentTemplate", MPD),
            ):
                count = sum(1 + int(s.get("r", "0")) for s in template.iterfind("SegmentTimeline/S", MPD))
                media = template.attrib["media"]
                first = int(template.get("startNumber", "1"))
                names = [media.replace("$Number$", str(n)) for n in range(first, first + count)]
                names.append(template.attrib["initialization"])
                named |= {name.replace("$RepresentationID$", representation.attrib["id"]) for name in names}
    assert not any("$" in name for name in named)
    return {urljoin(url, name) for name in named}


def test_every_file_is_named_and_every_name_is_a_file(packaged: Path, origin: str) -> None:
    manifests = {f"{origin}{name}" for name in ("main.m3u8", "main-ts.m3u8", "main.mpd")}
    by_hls, by_ts, by_dash = (
        hls_urls(origin + "main.m3u8"),
        hls_urls(origin + "main-ts.m3u8"),
        dash_urls(origin + "main.mpd"),
    )
    files = {origin + str(p.relative_to(packaged)) for p in packaged.rglob("*") if p.is_file()}
    assert manifests | by_hls | by_ts | by_dash == files
    media = {name for name in by_hls if name.endswith((".m4s", ".mp4"))}
    assert {name for name in by_dash if not name.endswith(".vtt")} == media
    assert all(get(name) for name in files)


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("number", range(3))
def test_ffmpeg_plays_every_frame(origin: str, number: int) -> None:
    program = find_program("ffmpeg")
    assert program
    # Of each subtitle playlist ffmpeg's HLS demuxer says that it has no WebVTT; nothing else may be said.
    command = [program, "-nostdin", "-xerror", "-v", "warning", "-i", origin + "main.m3u8", "-map", f"0:v:{number}"]
    done = subprocess.run([*command, "-f", "framemd5", "-"], capture_output=True, text=True, timeout=50, check=True)
    assert [line for line in done.stderr.splitlines() if "Can't support the subtitle" not in line] == []
    frames = [line.split(",")[-1].strip() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(frames) == len(set(frames)) == SECONDS * FPS
