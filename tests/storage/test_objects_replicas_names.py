"""Copies whose ETags differ: what they agree in is read once, remembered by the machine, and names what is made of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from streamgate.core.settings import S3Settings
from streamgate.errors import StreamGateError
from streamgate.storage.objects.s3 import digests, open_s3
from streamgate.storage.objects.s3.digests import Digests
from streamgate.storage.objects.s3.fingerprint import fingerprint
from tests.media_factory import Video, make
from tests.storage.test_objects_replicas import BYTES, MIB, OTHER, Site, fails, proxies, site  # noqa: F401

needs_weed = pytest.mark.needs("weed")


async def differ(site: Site) -> list[str]:  # noqa: F811
    """The same bytes in both, uploaded in parts of different sizes: the two ETags."""
    a, _ = await site.each()
    b = await open_s3(site.addresses[1].partition("?")[0], S3Settings(endpoint=site.direct, part_size=16 * MIB))
    etags = [(await each.put("film", BYTES)).etag for each in (a, b)]
    await b.close()
    assert etags[0] != etags[1]
    return etags


def reads(site: Site) -> int:  # noqa: F811
    """Requests for more than the byte that only tries whether there is an answer."""
    return sum(each is not None and each[0] != each[1] for each in site.a.ranges() + site.b.ranges())


@needs_weed
async def test_a_comparison_outlives_the_process_and_is_shared(site: Site, tmp_path: Path) -> None:  # noqa: F811
    """Copies are read once; names are the same while only one bucket can be asked, and from the first listing on."""
    etags = await differ(site)
    one, beside = await site.open(tmp_path), await site.open(tmp_path)
    name = (await one.stat("film")).etag
    assert name not in etags
    before = reads(site)
    assert before >= 20
    assert (await beside.stat("film")).etag == name, "a process that runs already"
    for up, down in ((site.a, site.b), (site.b, site.a)):
        up.accept()
        down.refuse()
        again = await site.open(tmp_path)
        assert [info.etag async for info in again.list()] == [name]
        assert (await again.stat("film")).etag == name
    assert reads(site) == before
    assert await again.read("film", 5, 10, etag=name) == BYTES[5:15]


@needs_weed
async def test_what_was_listed_has_the_name_that_is_agreed_on(site: Site) -> None:  # noqa: F811
    """Before anything is made of it, so that renditions are not called twice."""
    etags = await differ(site)
    store = await site.open()
    (listed,) = [info async for info in store.list()]
    assert listed.etag == etags[0]
    agreed = await store.agreed(listed)
    assert agreed.etag not in etags and agreed.size == listed.size
    assert [info.etag async for info in store.list()] == [agreed.etag]
    await site.put("film", OTHER)
    store = await site.open()
    with fails("source_changed"):
        await store.agreed(listed)


@needs_weed
@pytest.mark.parametrize("damage", ["no database", "a folder"])
async def test_where_nothing_can_be_remembered(site: Site, tmp_path: Path, damage: str) -> None:  # noqa: F811
    file = tmp_path / "replicas.sqlite"
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(b"x" * 5000)
    etags = await differ(site)
    with structlog.testing.capture_logs() as logs:
        store = await site.open(tmp_path)
        assert (await store.stat("film")).etag not in etags
    assert [line["event"] for line in logs] == ["digests of copies cannot be kept"]


async def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory as in the file; what was found out last stays."""
    monkeypatch.setattr(digests, "_REMEMBERED", 10)
    monkeypatch.setattr(digests, "_TRIM", digests._TRIM.replace("50000", "10"))
    made = await Digests.open(tmp_path / "digests")
    for number in range(25):
        await made.keep(("bucket", "film", f"{number}", 5), f"digest{number}", number % 2 == 0)
    assert (tmp_path / "digests").stat().st_mode & 0o777 == 0o600
    await made.close()
    again = await Digests.open(tmp_path / "digests")
    for opened in (made, again):
        kept = [number for number in range(25) if opened.known(("bucket", "film", f"{number}", 5))]
        assert kept == list(range(15, 25))
    assert again.known(("bucket", "film", "24", 5)) == ("digest24", True)
    assert again.known(("bucket", "film", "24", 6)) is None, "of another size"
    await again.close()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A film whose moov ends in 8000 bytes of user data, with much behind it."""
    path = make(tmp_path_factory.mktemp("film") / "film.mp4", Video(gop=25, size=(64, 36)), seconds=4, flags="")
    data = path.read_bytes()
    movie = data.rindex(b"moov") - 4
    size = int.from_bytes(data[movie : movie + 4], "big")
    assert movie + size == len(data)
    title = (8016).to_bytes(4, "big") + b"udta" + (8008).to_bytes(4, "big") + b"free" + bytes(8000)
    return (
        data[:movie]
        + (size + len(title)).to_bytes(4, "big")
        + data[movie + 4 :]
        + title
        + (400_008).to_bytes(4, "big")
        + b"free"
        + bytes(400_000)
    )


@pytest.mark.parametrize("where", ["user data", "samples", "a block"])
async def test_the_index_is_compared_and_not_its_box(film: bytes, where: str) -> None:
    """A title in the moov may differ where no block lies; the table of samples may not, nor a block."""
    looked: list[int] = []

    async def digest(content: bytes) -> str:
        async def read(offset: int, length: int) -> bytes:
            looked.append(offset)
            return content[offset : offset + length]

        return await fingerprint(len(content), read)

    first = await digest(film)
    step = -(-len(film) // 16)
    blocks = [at for start in range(0, len(film), step) for at in range(start, start + 4096)]
    if where == "user data":
        at = next(at for at in range(film.index(b"udta") + 16, len(film)) if at not in blocks)
        assert at < film.index(b"udta") + 8000
    else:
        at = film.index(b"stsz") + 19 if where == "samples" else blocks[-1] - 10
    other = film[:at] + bytes([film[at] ^ 1]) + film[at + 1 :]
    assert (await digest(other) == first) is (where == "user data")
    assert len(looked) < 2 * 24


async def test_what_is_no_film_is_compared_by_its_blocks() -> None:
    async def digest(content: bytes) -> str:
        async def read(offset: int, length: int) -> bytes:
            return content[offset : offset + length]

        return await fingerprint(len(content), read)

    text = b"title = 'film'\n" * 100
    assert await digest(text) == await digest(text)
    assert len({await digest(each) for each in (text, text[:-1] + b" ", text[:-1], b"")}) == 4


async def test_a_copy_that_changes_meanwhile_gives_no_digest() -> None:
    """What cannot be read is not taken for a file without an index."""

    async def read(offset: int, length: int) -> bytes:
        raise StreamGateError("source_changed", "film")

    with fails("source_changed"):
        await asyncio.wait_for(fingerprint(100_000, read), 10)
