"""Pages, the list of assets, health, version, metrics."""

from __future__ import annotations

import json
import platform
import ssl
from importlib.resources import files
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge import pages
from streamgate.core.telemetry import METRICS
from tests.edge.harness import Edge, Folder, running


async def test_assets(edge: Edge) -> None:
    answer = await edge.ask("/assets.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    film, ladder = answer.json()["assets"]
    assert (film["id"], film["state"], ladder["title"]) == ("film", "ready", "A ladder")
    assert film["duration"] == pytest.approx(9, abs=0.1)
    assert ladder["findings"] == []
    for kind, path in film["urls"].items():
        assert (await edge.ask(f"/{path}")).status == 200, kind
    again = await edge.ask("/assets.json", {"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


async def test_a_broken_file_is_listed_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(12) + b"\x00\x00\x00\x08moov")
    async with running(Folder(tmp_path)) as edge:
        (asset,) = (await edge.ask("/assets.json")).json()["assets"]
        assert asset["state"] == "failed"
        assert asset["findings"][0]["code"].startswith("source_")
        answer = await edge.ask("/v/broken/main.m3u8")
        assert (answer.status, answer.code) == (422, asset["findings"][0]["code"])


async def test_health(edge: Edge) -> None:
    assert (await edge.ask("/health/live")).json() == {"status": "live"}
    ready = await edge.ask("/health/ready")
    assert (ready.status, ready.json()) == (200, {"status": "ready"})
    assert ready.headers["Cache-Control"] == "no-store"
    edge.node.health.add("disk", lambda: "it is full")
    answer = await edge.ask("/health/ready")
    assert (answer.status, answer.code) == (503, "not_ready")
    assert answer.json()["detail"] == "disk: it is full"
    assert "Retry-After" in answer.headers
    assert (await edge.ask("/health/live")).status == 200


async def test_version(edge: Edge) -> None:
    about = (await edge.ask("/version")).json()
    assert about["python"] == platform.python_version()
    assert about["openssl"] == ssl.OPENSSL_VERSION
    assert {"isobmff", "gather", "cmaf", "mpegts"} <= set(about["kernels"])
    assert about["aiohttp"].startswith("3.")
    assert "streamgate" in about


async def test_metrics(edge: Edge, folder: Path) -> None:
    for path in ("/v/film/main.m3u8", "/v/film/main.m3u8", "/v/none/main.m3u8", "/v/secret-asset-name/x"):
        await edge.ask(path)
    answer = await edge.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in METRICS:
        family = families[f"streamgate_{metric.name}"]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
    samples = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["streamgate_requests"].samples
    }
    assert samples["multivariant", "200"] == 2
    assert samples["multivariant", "401"] == 1
    assert samples["other", "401"] == 1
    assert families["streamgate_requests_in_flight"].samples[0].value == 1
    # Nothing that a stranger can multiply: no asset, no path, no rendition.
    assert "film" not in text and "secret" not in text
    assert {key for f in families.values() if f.name.startswith("streamgate") for s in f.samples for key in s.labels} <= {
        "route", "status", "code", "cause", "kind", "result", "pool", "le"
    }  # fmt: skip
    opened = await edge.ask("/metrics", {"Accept": "application/openmetrics-text"})
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")


def build(folder: Path) -> None:
    """What the build of the pages leaves behind."""
    web = folder / "web"
    (web / "static").mkdir(parents=True)
    listed = []
    for path, media_type, immutable, text in (
        ("index.html", "text/html; charset=utf-8", False, "<!doctype html>" + "x" * 600),
        ("static/app-0123abcd.js", "text/javascript; charset=utf-8", True, "console.log(1)"),
    ):
        (web / path).write_text(text)
        listed.append(
            {"path": path, "type": media_type, "size": len(text), "sha256": "ab" * 32, "immutable": immutable}
        )
    (web / "unlisted.txt").write_text("secret")
    (web / "manifest.json").write_text(json.dumps({"files": listed}))


async def test_pages(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    monkeypatch.setattr(pages, "files", lambda _: tmp_path)
    async with running(Folder(folder)) as edge:
        page = await edge.ask("/")
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["Cache-Control"] == "no-cache"
        policy = dict(part.partition(" ")[::2] for part in page.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert "blob:" in policy["worker-src"] and "blob:" in policy["media-src"]
        assert (await edge.ask("/", {"If-None-Match": page.headers["ETag"]})).status == 304
        assert (await edge.ask("/", {"Accept-Encoding": "br"})).headers["Content-Encoding"] == "br"
        script = await edge.ask("/static/app-0123abcd.js")
        assert (script.status, script.body) == (200, b"console.log(1)")
        assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Content-Security-Policy" not in script.headers
        for path in ("/index.html", "/unlisted.txt", "/manifest.json", "/static/", "/static", "/web/index.html"):
            assert (await edge.ask(path)).status == 404


async def test_pages_that_are_not_built(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "files", lambda _: tmp_path)
    async with running(Folder(folder)) as edge:
        page = await edge.ask("/")
        assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert b"make setup" in page.body
        assert (await edge.ask("/v/film/main.m3u8")).status == 200


@pytest.mark.needs("web")
async def test_the_built_pages(edge: Edge) -> None:
    listed = json.loads((files("streamgate") / "web" / "manifest.json").read_text())["files"]
    for item in listed:
        answer = await edge.ask("/" if item["path"] == "index.html" else f"/{item['path']}")
        assert (answer.status, len(answer.body)) == (200, item["size"])
        assert answer.headers["Content-Type"] == item["type"]


async def test_what_must_not_be_stored_is_not_kept(edge: Edge) -> None:
    for _ in range(3):
        answer = await edge.ask("/metrics", {"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Encoding"] == "gzip"
    assert edge.node.tiers.memory.index.bytes == edge.node.tiers.pages.bytes == 0
