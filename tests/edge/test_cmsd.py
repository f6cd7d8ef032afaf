"""What the server tells of objects and of their delivery (CTA-5006), where a setting has it."""

from __future__ import annotations

from pathlib import Path

from edge import cmsd
from streamgate.media.structured import Item, dictionary
from tests.edge.harness import Edge, Folder, running, settings

NAME = 'edge-1 "a"'


def static(answer_field: str) -> dict[str, object]:
    """The members of CMSD-Static."""
    members, wrong = dictionary(answer_field, 32)
    assert not wrong and list(members) == sorted(members)
    return {key: member.value for key, member in members.items() if isinstance(member, Item)}


async def test_what_an_object_is(folder: Path) -> None:
    """The same on both paths, cut natively or not, and in a 304."""
    async with running(Folder(folder), settings(cmsd=NAME)) as edge:
        made = (await edge.node.assets.open("film")).asset.presentation
        [video], [audio] = made.video, made.audio
        usual = {"n": NAME, "st": "v"}

        async def told(path: str) -> dict[str, object]:
            first = await edge.ask(f"/v/film/{path}")
            again = await edge.ask(f"/v/film/{path}")
            unchanged = await edge.ask(f"/v/film/{path}", {"If-None-Match": first.headers["ETag"]})
            fields = {answer.headers[cmsd.STATIC] for answer in (first, again, unchanged)}
            assert len(fields) == 1 and unchanged.status == 304
            assert "CMSD-Static" in first.headers["Access-Control-Expose-Headers"]
            return static(fields.pop())

        assert await told("main.m3u8") == {**usual, "ot": "m", "sf": "h"}
        assert await told("main.mpd") == {**usual, "ot": "m", "sf": "d"}
        assert await told(f"{video.name}/index.m3u8") == {**usual, "ot": "m", "sf": "h"}
        assert await told(f"{video.name}/init.mp4") == {**usual, "ot": "i"}
        assert await told(f"{video.name}/k0.m4s") == {**usual, "ot": "v"}
        assert await told(f"{video.name}+{audio.name}/0.ts") == {**usual, "ot": "av", "sf": "h"}
        for rendition, kind in ((video, "v"), (audio, "a")):
            for number in range(rendition.segments):
                size = len((await edge.ask(f"/v/film/{rendition.name}/{number}.m4s")).body)
                seconds = int(rendition.durations[number]) / rendition.timescale
                last = number + 1 == rendition.segments
                assert await told(f"{rendition.name}/{number}.m4s") == {
                    **usual,
                    "ot": kind,
                    "d": round(seconds * 1000),
                    "br": round(size * 8 / seconds / 1000),
                    **({} if last else {"nor": f"{number + 1}.m4s"}),
                }


async def test_subtitles(folder: Path) -> None:
    async with running(Folder(folder), settings(cmsd="x")) as edge:
        text = (await edge.node.assets.open("ladder")).asset.presentation.text[0]
        answer = await edge.ask(f"/v/ladder/{text.name}/all.vtt")
        assert answer.headers[cmsd.STATIC] == 'n="x",ot=c,st=v'


async def test_how_it_is_delivered(folder: Path) -> None:
    """Beside its delay only what the kernel has measured of the connection; and that the node is short of memory."""
    async with running(Folder(folder), settings(cmsd="x")) as edge:
        fields = [(await edge.ask("/v/film/nothing.m4s")).headers[cmsd.DYNAMIC] for _ in range(2)]
        for field in fields:
            name, *told = field.split(";")
            assert name == '"x"' and {each.partition("=")[0] for each in told} <= {"rd", "rtt", "etp"}
            values = dict(each.split("=") for each in told)
            assert 0 <= int(values["rd"]) < 10_000
            assert all(int(value) > 0 for key, value in values.items() if key != "rd")
        edge.node.budget.held = edge.node.settings.edge.buffered_bytes
        assert ";du;" in (await edge.ask("/v/film/nothing.m4s")).headers[cmsd.DYNAMIC]
        edge.node.budget.held = 0
        assert cmsd.DYNAMIC not in (await edge.ask("/health/live")).headers


async def test_nothing_is_told_unasked(edge: Edge) -> None:
    answer = await edge.ask("/v/film/main.mpd")
    assert cmsd.STATIC not in answer.headers and cmsd.DYNAMIC not in answer.headers


class Connected:
    """A transport whose kernel has measured something."""

    def __init__(self, told: bytes) -> None:
        self.told = told

    def get_extra_info(self, name: str) -> Connected:
        assert name == "socket"
        return self

    def getsockopt(self, *_: int) -> bytes:
        return self.told


def test_what_the_kernel_measured() -> None:
    info = bytearray(200)
    info[68:72] = (25_400).to_bytes(4, "little")
    info[160:168] = (1_250_000).to_bytes(8, "little")
    assert cmsd.measured(Connected(bytes(info))) == (25, 10_000)
    assert cmsd.dynamic("a\r\n\xe9b", Connected(bytes(info)), 0.1234, duress=True) == '"ab";du;etp=10000;rd=123;rtt=25'
    info[7] = 1  # there was not enough to send
    assert cmsd.measured(Connected(bytes(info))) == (25, 0)
    assert cmsd.measured(Connected(bytes(100))) == (0, 0) == cmsd.measured(None)
