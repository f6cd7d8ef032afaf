"""The command line: what it prints, its exit codes, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streamgate.cli import main
from tests.media_factory import Audio, Video, ladder, make


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cli") / "clip.mp4", Video(), [Audio(), Audio(language="fra")])


@pytest.mark.parametrize("command", [(), ("serve",), ("inspect",), ("package",), ("config",)])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_version() -> None:
    assert run("--version").output.startswith("streamgate ")


def test_inspect_as_json(clip: Path) -> None:
    told = json.loads(run("inspect", clip, "--json").output)
    assert told["findings"] == []
    [source] = told["sources"]
    video, english, french = source["tracks"]
    assert (video["handler"], video["width"], video["height"], video["samples"]) == ("vide", 160, 90, 150)
    assert video["keyframes"] == {"count": 6, "longest_gap": 1.0}
    assert (english["codec"], english["language"], french["language"]) == ("mp4a.40.2", "eng", "fra")
    assert [r["kind"] for r in told["renditions"]] == ["video", "audio", "audio"]
    assert sum(told["renditions"][0]["durations"]) == pytest.approx(6.0)


def test_inspect_as_tables(clip: Path) -> None:
    out = run("inspect", clip).output
    for expected in ("clip.mp4", "160x90", "avc1.", "mp4a.40.2", "fra", "Rendition"):
        assert expected in out


def test_package_writes_what_the_playlists_name(tmp_path: Path) -> None:
    folder = ladder(tmp_path / "ladder", seconds=5)
    out = tmp_path / "out"
    done = run("package", folder, out, "--ts")
    assert done.exit_code == 0, done.output
    named = set()
    for playlist in out.rglob("*.m3u8"):
        for line in playlist.read_text().splitlines():
            if line and not line.startswith("#"):
                named.add((playlist.parent / line).resolve())
    assert len(named) > 20
    assert all(path.is_file() and path.stat().st_size for path in named)
    assert (out / "main.mpd").is_file()
    assert (out / "main-ts.m3u8").is_file()


@pytest.fixture(scope="module")
def matroska(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("cli") / "clip.mkv", Video(), [Audio()])


def test_inspect_of_another_container(matroska: Path) -> None:
    """It is converted aside; what is told is about the file that the user named."""
    before = os.listdir(matroska.parent)
    told = json.loads(run("inspect", matroska, "--json").output)
    [source] = told["sources"]
    assert [(t["handler"], t["samples"]) for t in source["tracks"]][0] == ("vide", 150)
    assert [r["kind"] for r in told["renditions"]] == ["video", "audio"]
    assert os.listdir(matroska.parent) == before


def test_package_of_another_container(matroska: Path, tmp_path: Path) -> None:
    done = run("package", matroska, tmp_path / "out")
    assert done.exit_code == 0, done.output
    segments = sum(p.read_text().count(".m4s") for p in (tmp_path / "out").glob("*/index.m3u8"))
    assert segments == len(list((tmp_path / "out").glob("*/*.m4s"))) > 2
    assert all(p.stat().st_size for p in (tmp_path / "out").glob("*/*.m4s"))


def test_a_container_that_cannot_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "broken.mkv"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(4096))
    done = run("package", path, tmp_path / "out")
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_progress_is_shown_on_a_terminal(clip: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamgate.cli", "package", str(clip), str(tmp_path / "out")]
    surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=surroundings) as package:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # EIO: nobody has the other end any more
            pass
        finally:
            os.close(ours)
        assert package.stdout is not None
        assert b"main.m3u8" in package.stdout.read()
    assert package.returncode == 0
    assert b"Packaging" in shown
    assert b"100%" in shown


def test_ctrl_c_is_130(clip: Path, tmp_path: Path) -> None:
    """The signal comes while the first segment is written."""
    script = (
        "import signal; from streamgate.cli import main; from streamgate.storage import static;"
        " signal.signal(signal.SIGINT, signal.default_int_handler);"
        " static._cut = lambda *_: signal.raise_signal(signal.SIGINT);"
        f" main(['package', {str(clip)!r}, {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "out/main.m3u8").exists()


def test_package_does_not_write_into_a_full_folder(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    done = run("package", clip, tmp_path)
    assert done.exit_code == 1
    assert "[output_exists]" in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("inspect", "/nonexistent.mp4"), "source_not_found"),
        (("package", "/nonexistent.mp4", "/tmp/x"), "source_not_found"),
        (("serve", "/nonexistent"), "source_not_found"),
        (("config", "--config", "/nonexistent.toml"), "config_invalid"),
    ],
)
def test_a_users_mistake_is_one_line(command: tuple[str, ...], code: str) -> None:
    done = run(*command)
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert f"[{code}]" in done.output
    assert "Traceback" not in done.output
    assert len(done.output.splitlines()) == 1


def test_wrong_usage_is_two() -> None:
    assert CliRunner().invoke(main, ["inspect"]).exit_code == 2
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def test_random_bytes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(bytes(range(256)) * 64)
    done = run("inspect", path)
    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_config_says_that_nodes_need_one_root(tmp_path: Path) -> None:
    path = tmp_path / "streamgate.toml"
    path.write_text('[redis]\nurl = "redis://127.0.0.1"\n')
    assert "# nodes that share redis.url need one root of keys" in run("config", "--config", path).output
    path.write_text(f'{path.read_text()}[tokens]\nroot = "{tmp_path}/root"\n')
    assert "one root of keys" not in run("config", "--config", path).output


def test_config_prints_every_setting() -> None:
    done = run("config", "--default")
    assert done.exit_code == 0
    assert "[server]" in done.output
