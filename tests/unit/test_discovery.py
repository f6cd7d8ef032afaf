"""Which assets a folder holds, and what they are called."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.errors import StreamGateError
from streamgate.storage.discovery import Gates, asset_id, discover, sidecars


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("bbb-1604k", "bbb-1604k"),
        ("Été à Paris (2024)", "Ete-a-Paris-2024"),
        ("../../etc/passwd", "etc-passwd"),
        ("movie~preview", "movie-preview"),
        ("a+b", "a-b"),
        ("...hidden", "hidden"),
        ("x" * 100, "x" * 64),
    ],
)
def test_ids_follow_the_rule(name: str, made: str) -> None:
    assert asset_id(name) == made


def test_a_name_of_which_nothing_stays_gets_a_digest() -> None:
    assert asset_id("日本") != asset_id("東京")
    assert asset_id("日本").startswith("asset-")


@given(st.text(min_size=1))
def test_every_name_makes_a_valid_id(name: str) -> None:
    import re

    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", asset_id(name))


def test_a_folder_of_files_and_asset_folders(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mkv", ".hidden.mp4", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / "asset.toml").touch()
    (tmp_path / "other").mkdir()
    assert [ref.id for ref in discover(tmp_path)] == ["a", "b", "ladder"]


def test_two_that_collide_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").touch()
    (tmp_path / "film.mp4").touch()
    [ref] = discover(tmp_path)
    assert ref.path.name == "film.mkv"
    [finding] = ref.findings
    assert (finding.code, finding.subject) == ("asset_id_collision", "film.mp4")


def test_a_lone_file_and_a_lone_asset_folder(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").touch()
    assert [ref.id for ref in discover(tmp_path / "one.mp4")] == ["one"]
    (tmp_path / "asset.toml").touch()
    assert [ref.path for ref in discover(tmp_path)] == [tmp_path.resolve()]


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(StreamGateError) as e:
        discover(tmp_path / "absent")
    assert e.value.code == "source_not_found"


def test_sidecars_and_their_languages(tmp_path: Path) -> None:
    for name in ("film.mp4", "film.vtt", "film.pt-BR.srt", "film.not a language.vtt", "filmography.vtt"):
        (tmp_path / name).touch()
    assert [(p.name, language) for p, language in sidecars(tmp_path / "film.mp4")] == [
        ("film.pt-BR.srt", "pt-BR"),
        ("film.vtt", "und"),
    ]


def test_a_folder_may_be_gated_and_a_lone_file_is_open(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    for name, text in (("open", ""), ("gated", "gated = true"), ("wrong", "gated = "), ("odd", "gated = 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "asset.toml").write_text(text)
    told = {ref.id: ref.gated for ref in discover(tmp_path)}
    assert told == {"film": False, "open": False, "gated": True, "wrong": True, "odd": True}
    assert [ref.gated for ref in discover(tmp_path / "gated")] == [True]


def test_gates_are_read_again_when_they_change_and_keep_what_is_broken(tmp_path: Path) -> None:
    folder, gates = tmp_path / "film", Gates()
    folder.mkdir()

    def told(text: str) -> bool:
        (folder / "asset.toml").write_text(text)
        [ref] = discover(tmp_path, gates)
        return ref.gated

    assert told("") is False
    assert told("title = ") is False
    assert told("gated = true") is True
    assert told("gated = ") is True
    assert told("gated = false") is False
    folder.rename(tmp_path / "other")
    (tmp_path / "other/asset.toml").write_text("gated = ")
    assert [ref.gated for ref in discover(tmp_path, gates)] == [True]
