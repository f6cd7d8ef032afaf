"""The Dockerfile, built by buildah on a Debian of debootstrap's making, and the image at work.

No registry of images is needed: ``BASE`` is made here. The image is run without an engine, in a chroot.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.pages import NOT_BUILT
from streamgate.transcode.clip import write_video
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.needs("buildah", "debootstrap", "chroot"), pytest.mark.timeout(1200)]

INCLUDE = "python3,python3-venv,python3-dev,gcc,libc6-dev,ca-certificates"
CERTIFICATES = (
    "/etc/ssl/certs:/etc/ssl/certs:ro"  # a machine's own authorities are needed where its registries are its own
)


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What ``command`` prints; it must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def mirror() -> str:
    """The archive from which this machine's own packages come."""
    targets = run("apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)", "Created-By: Packages")
    return next(line.split()[-1] for line in targets.splitlines() if "security" not in line and line.split()[1:])


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command, with a store of its own."""
    home = tmp_path_factory.mktemp("buildah")
    command = ["buildah", "--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
    yield command
    subprocess.run([*command, "rm", "--all"], capture_output=True, check=False)
    subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def image(buildah: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The project's image."""
    home = tmp_path_factory.mktemp("base")
    run("debootstrap", "--variant=minbase", f"--include={INCLUDE}", "bookworm", home / "root", mirror())
    run("tar", "-C", home / "root", "-cf", home / "base.tar", ".")
    (home / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    run(*buildah, "build", "--isolation", "chroot", "--tag", "base", home)
    run(
        *buildah, "build", "--isolation", "chroot", "--volume", CERTIFICATES,
        "--build-arg", "BASE=localhost/base", "--tag", "streamgate", ROOT,
    )  # fmt: skip
    return "localhost/streamgate"


def test_image(buildah: list[str], image: str, tmp_path: Path) -> None:
    told = json.loads(run(*buildah, "inspect", "--type", "image", image))["OCIv1"]["config"]
    assert told["User"] == "streamgate"
    assert told["Entrypoint"] == ["streamgate"]
    assert "8080/tcp" in told["ExposedPorts"]

    media = tmp_path / "media"
    media.mkdir()
    write_video(media / "clip.mp4", 128, 72, crf=35, seconds=6)
    for folder in (tmp_path, *tmp_path.parents):  # the image's user is not the owner of pytest's folders
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    container = run(*buildah, "from", image).strip()
    inside = [*buildah, "run", "--isolation", "chroot", "--volume", f"{media}:/media:ro", container, "--"]
    assert run(*inside, "id", "-un").strip() == "streamgate"
    assert "avc1" in run(*inside, "streamgate", "inspect", "--json", "/media/clip.mp4")
    assert not run(*inside, "sh", "-c", "ls -d /src /usr/share/streamgate 2>/dev/null || true").strip()

    command = [*inside, "streamgate", "serve", "/media", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as server:
        assert server.stdout is not None
        try:
            address = next(line.split()[1] for line in server.stdout if line.startswith("HLS"))
            assert re.search(r"CODECS=\"avc1", run("python3", "-c", FETCH, address))
            # The pages are not built in the image, but taken along.
            page = run("python3", "-c", FETCH, address.partition("/v/")[0] + "/")
            assert ("<html" if (ROOT / "streamgate/web").is_dir() else NOT_BUILT) in page
        finally:
            os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)


FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=30).read().decode())"
