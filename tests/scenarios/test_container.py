"""The Dockerfile, built by buildah from a fresh clone on a Debian of debootstrap's making, and the image at work.

No registry of images is needed: ``BASE`` is made here. The image is run without an engine, in a chroot.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgate.transcode.clip import write_video
from tests.scenarios import tree
from tests.scenarios.bounded import doing, family, run, started
from tests.scenarios.containers import Store, stop

pytestmark = [pytest.mark.slow, pytest.mark.needs("debootstrap", "containers"), pytest.mark.timeout(840)]

CERTIFICATES = (
    "/etc/ssl/certs:/etc/ssl/certs:ro"  # a machine's own authorities are needed where its registries are its own
)
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=30).read().decode())"


def mirror() -> str:
    """The archive from which this machine's own packages come."""
    targets = run("apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)", "Created-By: Packages", seconds=20)
    return next(line.split()[-1] for line in targets.splitlines() if "security" not in line and line.split()[1:])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("containers") / "store")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def base(store: Store) -> str:
    """A minimal Debian with Python, installed into the container's own folder: nothing large is packed and added."""
    container = store("from", "scratch", seconds=20)
    root = Path(store("mount", container, seconds=20))
    run(
        "debootstrap", "--variant=minbase", "--include=python3,ca-certificates", "bookworm", root, mirror(), seconds=240
    )
    for waste in ("var/cache/apt/archives", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / waste)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    store("commit", "--quiet", "--rm", container, "base", seconds=90)
    return "localhost/base"


@pytest.fixture(scope="module")
def image(store: Store, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The project's image."""
    clone = tree.copy(tmp_path_factory.mktemp("clone") / "streamgate")
    store.build(clone, "streamgate", "--volume", CERTIFICATES, "--build-arg", f"BASE={base}", seconds=420)
    return "localhost/streamgate"


def test_image(store: Store, image: str, tmp_path: Path) -> None:
    told = json.loads(store("inspect", "--type", "image", image, seconds=20))["OCIv1"]["config"]
    assert told["User"] == "streamgate"
    assert told["Entrypoint"] == ["streamgate"]
    assert "8080/tcp" in told["ExposedPorts"]

    media = tmp_path / "media"
    media.mkdir()
    write_video(media / "clip.mp4", 128, 72, crf=35, seconds=6)
    container = store("from", image, seconds=60)
    shared = f"{media}:/media:ro"

    assert store.run(container, "id", "-un", seconds=20).strip() == "streamgate"
    said = store.run(container, "streamgate", "inspect", "--json", "/media/clip.mp4", seconds=30, volume=shared)
    assert "avc1" in said
    assert not store.run(
        container, "sh", "-c", "ls -d /src /usr/share/streamgate 2>/dev/null || true", seconds=20
    ).strip()

    serve = ("streamgate", "serve", "/media", "--host", "127.0.0.1", "--port", "0")
    with store.start(container, *serve, volume=shared) as server:
        address = server.line("HLS", 60).split()[1]
        assert re.search(r"CODECS=\"avc1", run("python3", "-c", FETCH, address, seconds=40))
        home = address.partition("/v/")[0] + "/"
        script = re.search(r'src="(static/[^"]+\.js)"', run("python3", "-c", FETCH, home, seconds=40))
        assert script is not None
        assert run("python3", "-c", FETCH, home + script[1], seconds=40)
        assert stop(server) == 0, server.told("did not end cleanly")


def test_what_overruns_ends_with_all_that_it_started() -> None:
    with started("sh", "-c", "setsid sleep 1000 & echo begun; wait") as running:
        running.line("begun", 10)
        before = family(running.process.pid)
        with pytest.raises(AssertionError, match=r"not done in 0\.2 s(?s:.*): comm sleep"):
            running.wait(0.2)
    assert len(before) == 3
    assert running.process.returncode is not None
    deadline = time.monotonic() + 20
    while alive := [pid for pid in before if Path(f"/proc/{pid}/exe").exists()]:  # the kernel ends them one by one
        assert time.monotonic() < deadline, [doing(pid) for pid in alive]
