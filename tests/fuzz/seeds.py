"""What the fuzzers begin with: ``python tests/fuzz/seeds.py FOLDER`` writes a folder of small files for each target."""

from __future__ import annotations

import json
import struct
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

from streamgate.access.cbor import Item, Tagged, encode
from tests.media_factory import Audio, Video, make, write_vtt

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def sample_entries(data: bytes) -> list[bytes]:
    """Every sample entry box of a file."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            break
        if kind in _CONTAINERS:
            found += sample_entries(data[at + 8 : at + size])
        elif kind == b"stsd":
            found.append(data[at + 16 : at + size])
        at += size
    return found


def write(folder: Path) -> None:
    """One folder a target; those without one begin with nothing."""
    video, audio = Video(size=(64, 36), gop=5), Audio(rate=16000, layout="mono", bitrate=16000)
    films = folder / "isobmff"
    films.mkdir(parents=True)
    make(films / "progressive.mp4", video, audio, seconds=0.6)
    make(films / "last.mp4", video, audio, seconds=0.6, flags="")
    make(films / "fragmented.mp4", video, audio, seconds=0.6, flags="+frag_keyframe+empty_moov+default_base_moof")
    make(films / "sidx.mp4", video, audio, seconds=0.6, flags="+dash+frag_keyframe+empty_moov+global_sidx")
    way, entries = folder / "whole_way", folder / "sample_entry"
    way.mkdir()
    entries.mkdir()
    for film in films.iterdir():
        (way / film.name).write_bytes(film.read_bytes())
    for codec in ("libopus", "flac", "ac3", "eac3", "libmp3lame"):
        sound = Audio(codec=codec, bitrate=128_000)
        (entries / codec).write_bytes(
            sample_entries(make(folder / f"{codec}.mp4", None, sound, seconds=0.3).read_bytes())[0]
        )
    for n, entry in enumerate(sample_entries((films / "progressive.mp4").read_bytes())):
        (entries / str(n)).write_bytes(entry)
    texts = folder / "webvtt"
    texts.mkdir()
    write_vtt(texts / "a.vtt", "eng", 3)
    lines = {
        "srt": "1\n00:00:01,000 --> 00:00:02,000\n<i>One</i> {\\an8}two\n\n",
        "asset_toml": 'title = "A"\n[[source]]\nfile = "a.mp4"\ntracks = [1]\nlanguage = "en"\n[[subtitle]]\nfile = "a.vtt"\n',
        "request_head": 'GET /t/a/v/a/1.m4s?b HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nIf-None-Match: W/"a", "b"\r\n\r\n',
        "client_data": 'br%3D1%2Cot%3Dv\nv=2,br=(1;v 2;a),nor=("a" "b";r="0-9"),pr=1.08,sid="\\"",su,x-a=?0',
        "request_target": "/v/a/v540-0123456789abcdef/1.m4s",
    }
    for name, text in lines.items():
        (folder / name).mkdir()
        (folder / name / "a").write_text(text)


def write_tokens(folder: Path) -> None:
    """Each published vector: the token's characters, its bytes, and its claims. Without the kernels, which are the fuzzer's here."""
    folder.mkdir()
    vectors = json.loads((Path(__file__).parent.parent / "data/cat-vectors.json").read_text())["vectors"]
    usual = bytes.fromhex("d83dd18443a10105a104426b31")
    for vector in vectors:
        token = vector["token"]
        (folder / vector["name"]).write_text(token)
        if vector["expect"] != "token_malformed":
            message = urlsafe_b64decode(token + "=" * (-len(token) % 4))
            (folder / f"{vector['name']}.bytes").write_bytes(message)
            if message.startswith(usual):
                head = 2 if message[len(usual)] == 0x58 else 1
                (folder / f"{vector['name']}.claims").write_bytes(message[len(usual) + head : -34])


def write_claims(folder: Path) -> None:
    """Claims of which the vectors hold few: places, answers, single use, compositions inside each other."""
    enough: dict[int | str, Item] = {1: "streamgate", 3: "site-eu-1", 4: 4_102_444_800, 7: bytes(16)}
    begin: dict[int | str, Item] = {312: {3: {4: ["/v/.*"], 3: "a", -1: bytes(32)}, 6: {0: "main.mpd"}}}
    seeds: dict[str, dict[int | str, Item]] = {
        "countries": {316: ["DE-BE", "US"]},
        "circles": {317: [[52.5, 13.4, 50_000], [0, 0, 1]]},
        "cells": {282: ["u33", "9q"]},
        "number": {311: [203, Tagged(52, [8, b"\xcb"])]},
        "answer": {308: 1, 322: {308: [302, {"Location": "https://example.com/", "Retry-After": "5"}, b"k1"]}},
        "composed": {41: [{42: [begin, {43: [{315: {"user-agent": {4: [".*"], 2: "mpd"}}}]}]}, {45: [312, 315]}]},
    }
    for name, claims in seeds.items():
        (folder / f"{name}.claims").write_bytes(encode({**enough, **claims}))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_tokens(Path(sys.argv[1]) / "token")
    write_claims(Path(sys.argv[1]) / "token")
