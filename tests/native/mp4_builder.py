"""MP4 files built box by box, for the tests of the parser (ISO/IEC 14496-12 clause 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from streamgate.native.isobmff import Index, Parser

IDENTITY = (65536, 0, 0, 0, 65536, 0, 0, 0, 1073741824)
HEADER = 32  # where the first sample of progressive() lies: after ftyp (24 bytes) and the header of mdat


def box(kind: str, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind.encode("latin-1")) + body


def wide_box(kind: str, *content: bytes) -> bytes:
    """A box with a 64-bit size."""
    body = b"".join(content)
    return struct.pack(">I4sQ", 1, kind.encode(), 16 + len(body)) + body


def full(kind: str, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def u64(*values: int) -> bytes:
    return struct.pack(f">{len(values)}Q", *(value & 0xFFFFFFFFFFFFFFFF for value in values))


def table(kind: str, rows: Sequence[Sequence[int]], *, version: int = 0) -> bytes:
    return full(kind, u32(len(rows)), *(u32(*row) for row in rows), version=version)


def runs(values: Iterable[int]) -> list[tuple[int, int]]:
    """Run-length pairs (count, value)."""
    pairs: list[tuple[int, int]] = []
    for value in values:
        if pairs and pairs[-1][1] == value:
            pairs[-1] = (pairs[-1][0] + 1, value)
        else:
            pairs.append((1, value))
    return pairs


def ftyp(*brands: str) -> bytes:
    major, *others = brands or ("isom", "isom", "mp42")
    return box("ftyp", major.encode(), u32(512), *(brand.encode() for brand in others))


def entry(kind: str = "avc1", content: bytes = bytes(8)) -> bytes:
    return box(kind, content)


def stsz(sizes: Sequence[int]) -> bytes:
    return full("stsz", u32(0, len(sizes)), u32(*sizes))


def stz2(sizes: Sequence[int], bits: int) -> bytes:
    if bits == 4:
        padded = [*sizes, 0]
        data = bytes(padded[i] << 4 | padded[i + 1] for i in range(0, len(sizes), 2))
    else:
        data = b"".join(size.to_bytes(bits // 8, "big") for size in sizes)
    return full("stz2", u32(bits, len(sizes)), data)


def stbl(
    sizes: Sequence[int] = (),
    deltas: Sequence[int] = (),
    chunks: Sequence[tuple[int, ...]] = (),
    *,
    offsets: Sequence[int] | None = None,
    ctts_version: int = 0,
    syncs: Sequence[int] | None = None,
    co64: bool = False,
    entries: Sequence[bytes] = (entry(),),
    size_box: bytes | None = None,
    others: bytes = b"",
) -> bytes:
    """A sample table; ``chunks``: (position, samples[, description from 1]); ``syncs``: from 0, None: no stss."""
    spans: list[tuple[int, int, int]] = []
    for number, (_, count, *description) in enumerate(chunks, 1):
        span = (number, count, description[0] if description else 1)
        if not spans or spans[-1][1:] != span[1:]:
            spans.append(span)
    positions = [chunk[0] for chunk in chunks]
    return box(
        "stbl",
        full("stsd", u32(len(entries)), *entries),
        table("stts", runs(deltas)),
        b"" if offsets is None else table("ctts", runs(offsets), version=ctts_version),
        b"" if syncs is None else full("stss", u32(len(syncs)), u32(*(number + 1 for number in syncs))),
        table("stsc", spans),
        size_box or stsz(sizes),
        full("co64", u32(len(positions)), u64(*positions))
        if co64
        else full("stco", u32(len(positions)), u32(*positions)),
        others,
    )


def trak(
    samples: bytes,
    *,
    id: int = 1,
    handler: str = "vide",
    timescale: int = 1000,
    version: int = 0,
    language: int = 0x55C4,
    name: bytes = b"Video\0",
    component: bytes = bytes(4),
    matrix: Sequence[int] = IDENTITY,
    size: tuple[float, float] = (0, 0),
    enabled: bool = True,
    edits: bytes = b"",
) -> bytes:
    place = u32(*matrix) + u32(int(size[0] * 65536), int(size[1] * 65536))
    if version:
        header = u64(0, 0) + u32(id, 0) + u64(0) + bytes(16) + place
        media = u64(0, 0) + u32(timescale) + u64(0) + struct.pack(">HH", language, 0)
    else:
        header = u32(0, 0, id, 0, 0) + bytes(16) + place
        media = u32(0, 0, timescale, 0) + struct.pack(">HH", language, 0)
    return box(
        "trak",
        full("tkhd", header, version=version, flags=int(enabled)),
        edits,
        box(
            "mdia",
            full("mdhd", media, version=version),
            full("hdlr", component, handler.encode(), bytes(12), name),
            box("minf", full("hdlr", b"dhlr", b"alis", bytes(12)), samples),
        ),
    )


def elst(*edits: tuple[int, int, int], version: int = 0) -> bytes:
    rows = (struct.pack(">Qqi" if version else ">Iii", *edit) for edit in edits)
    return box("edts", full("elst", u32(len(edits)), *rows, version=version))


def mvhd(timescale: int = 1000, duration: int = 0, version: int = 0) -> bytes:
    times = u64(0, 0) + u32(timescale) + u64(duration) if version else u32(0, 0, timescale, duration)
    return full("mvhd", times, bytes(80), version=version)


def moov(*traks: bytes, header: bytes = mvhd()) -> bytes:
    return box("moov", header, *traks)


def progressive(payload: int, *traks: bytes, last: bool = True, head: bytes = ftyp()) -> bytes:
    """A file whose samples start at HEADER when the moov is last; otherwise it is in front."""
    mdat = box("mdat", bytes(payload))
    return head + mdat + moov(*traks) if last else head + moov(*traks) + mdat


def trex(id: int = 1, description: int = 1, duration: int = 0, size: int = 0, flags: int = 0) -> bytes:
    return full("trex", u32(id, description, duration, size, flags))


def init(*traks: bytes, defaults: bytes | None = None, header: bytes = mvhd()) -> bytes:
    return ftyp("iso6", "dash") + moov(*traks, box("mvex", trex() if defaults is None else defaults), header=header)


def tfhd(id: int = 1, *fields: int, flags: int = 0x20000, base: int | None = None) -> bytes:
    """Fields in the order of their flags: description, duration, size, sample flags."""
    flags |= 0 if base is None else 1
    return full("tfhd", u32(id), b"" if base is None else u64(base), u32(*fields), flags=flags)


def tfdt(time: int, version: int = 1) -> bytes:
    return full("tfdt", u64(time) if version else u32(time), version=version)


def trun(
    count: int,
    *columns: Sequence[int],
    flags: int = 0,
    offset: int | None = None,
    first_flags: int | None = None,
    version: int = 0,
) -> bytes:
    """``columns``: those that ``flags`` names (0x100 durations, 0x200 sizes, 0x400 flags, 0x800 offsets), in order."""
    flags |= (0 if offset is None else 1) | (0 if first_flags is None else 4)
    head = u32(count) + (b"" if offset is None else u32(offset)) + (b"" if first_flags is None else u32(first_flags))
    return full("trun", head, *(u32(*row) for row in zip(*columns, strict=True)), version=version, flags=flags)


def moof(*trafs: bytes, sequence: int = 1) -> bytes:
    return box("moof", full("mfhd", u32(sequence)), *trafs)


def fragment(payload: int, *parts: bytes) -> bytes:
    """A moof with one traf of the given boxes, and its mdat."""
    return moof(box("traf", *parts)) + box("mdat", bytes(payload))


def parse(data: bytes, **limits: int) -> Index:
    return parse_counting(data, **limits)[0]


def parse_counting(data: bytes, **limits: int) -> tuple[Index, list[tuple[int, int]]]:
    """The index of a file, and the reads that it took."""
    parser = Parser(len(data), **limits)
    reads: list[tuple[int, int]] = []
    while parser.want is not None:
        offset, length = parser.want
        assert length > 0 and offset + length <= len(data)
        reads.append((offset, length))
        parser.feed(data[offset : offset + length])
    return parser.index(), reads
