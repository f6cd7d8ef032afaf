"""A strict checker of transport streams (ISO/IEC 13818-1) that are HLS segments (RFC 8216 section 3.2).

It takes segments in the order of play, asserts every rule, and gives back what they carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PACKET = 188
WRAP = 1 << 33
MAX_PCR_GAP = 9000  # 100 ms (2.7.2) at 90 kHz
RAMP = 18000  # of a presentation that starts at 0: there the clock is nearer to the DTS
PARAMETERS = (7, 8, 13)
DELIMITER = 9


@dataclass
class Pes:
    """One PES packet: times at 90 kHz, unwrapped; ``data`` is its elementary stream."""

    pid: int
    pts: int
    dts: int
    key: bool
    data: bytes


@dataclass
class Segment:
    """What one segment carries."""

    video: list[Pes] = field(default_factory=list)
    audio: list[Pes] = field(default_factory=list)
    pcrs: list[int] = field(default_factory=list)
    lone_pcrs: int = 0


def crc32(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(7, -1, -1):
            feedback = crc >> 31 ^ byte >> bit & 1
            crc = (crc << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if feedback else 0)
    return crc


def unwrap(value: int, near: int) -> int:
    """The time that is ``value`` modulo 2**33 and lies nearest to ``near``."""
    return near + (value - near + WRAP // 2) % WRAP - WRAP // 2


def timestamp(data: bytes, prefix: int) -> int:
    assert data[0] >> 4 == prefix and data[0] & data[2] & data[4] & 1, "prefix or marker bits of a timestamp"
    return (data[0] >> 1 & 7) << 30 | data[1] << 22 | data[2] >> 1 << 15 | data[3] << 7 | data[4] >> 1


def section(packet: bytes, table: int) -> bytes:
    """The body of the one section in a packet's payload; its CRC and its framing hold."""
    assert packet[4] == 0, "pointer_field"
    length = (packet[6] & 0x0F) << 8 | packet[7]
    whole = packet[5 : 8 + length]
    assert whole[0] == table and packet[6] >> 4 == 0xB
    assert whole[3:8] == b"\x00\x01\xc1\x00\x00", "number 1, version 0, current, section 0 of 0"
    assert crc32(whole) == 0
    assert set(packet[8 + length :]) <= {0xFF}
    return whole[8:-4]


class Checker:
    """Checks segments one after the other; keeps what must continue between them."""

    def __init__(self) -> None:
        self.counters: dict[int, int] = {}
        self.clock: int | None = None
        self.last_dts: dict[int, int] = {}
        self.program: int | None = None
        self.pcr_pid = 0
        self.types: dict[int, int] = {}

    def segment(self, data: bytes) -> Segment:
        assert data and len(data) % PACKET == 0
        packets = [data[at : at + PACKET] for at in range(0, len(data), PACKET)]
        self._tables(packets[0], packets[1])
        found = Segment()
        order: list[Pes] = []
        arrived = 0
        for packet in packets[2:]:
            pid = (packet[1] & 0x1F) << 8 | packet[2]
            assert pid in self.types, f"PID {pid:#x} is not in the PMT"
            payload, pcr, key = self._packet(packet, pid)
            if pcr is not None:
                now = self._pcr(pcr, found)
                assert all(now <= pes.dts or pes.dts < RAMP for pes in order[arrived:]), "arrives too late"
                arrived = len(order)
            if payload is None:
                found.lone_pcrs += 1
            elif packet[1] & 0x40:
                order.append(self._start(pid, payload, key))
            else:
                assert order and order[-1].pid == pid, "a PES packet begins within another, or in another segment"
                assert not key, "random_access_indicator in the middle of a PES packet"
                order[-1].data += payload
        assert [pes.dts for pes in order] == sorted(pes.dts for pes in order), "not interleaved by DTS"
        for pes in order:
            self._finish(pes)
            (found.video if self.types[pes.pid] == 0x1B else found.audio).append(pes)
        return found

    def _tables(self, pat: bytes, pmt: bytes) -> None:
        assert pat[:3] == b"\x47\x40\x00" and pat[3] >> 4 == pmt[3] >> 4 == 1
        body = section(pat, 0)
        assert len(body) == 4 and body[:2] == b"\x00\x01"
        program = (body[2] & 0x1F) << 8 | body[3]
        assert pmt[0] == 0x47 and pmt[1] >> 5 == 2 and (pmt[1] & 0x1F) << 8 | pmt[2] == program
        self._count(0, pat[3])
        self._count(program, pmt[3])
        body = section(pmt, 2)
        pcr_pid = (body[0] & 0x1F) << 8 | body[1]
        assert body[2:4] == b"\xf0\x00"
        types = {}
        for at in range(4, len(body), 5):
            types[(body[at + 1] & 0x1F) << 8 | body[at + 2]] = body[at]
            assert body[at + 3 : at + 5] == b"\xf0\x00"
        assert pcr_pid in types and set(types.values()) <= {0x1B, 0x0F}
        assert self.program in (None, program) and self.types in ({}, types)
        self.program, self.pcr_pid, self.types = program, pcr_pid, types

    def _count(self, pid: int, control: int) -> None:
        counter, has_payload = control & 15, control >> 4 & 1
        if pid in self.counters:
            assert counter == (self.counters[pid] + has_payload) % 16, f"continuity counter of PID {pid:#x}"
        self.counters[pid] = counter

    def _packet(self, packet: bytes, pid: int) -> tuple[bytes | None, int | None, bool]:
        """Payload, PCR and random_access_indicator of a packet; None where it has none."""
        assert packet[0] == 0x47 and packet[1] & 0xA0 == 0 and packet[3] & 0xC0 == 0 and packet[3] & 0x30
        self._count(pid, packet[3])
        at, pcr, key = 4, None, False
        if packet[3] & 0x20:
            length = packet[4]
            at = 5 + length
            assert length <= 182 if packet[3] & 0x10 else length == 183
            if length:
                flags = packet[5]
                assert flags & ~0x50 == 0
                key = bool(flags & 0x40)
                used = 6
                if flags & 0x10:
                    assert pid == self.pcr_pid and length >= 7
                    assert packet[10] & 0x7E == 0x7E and (packet[10] & 1) << 8 | packet[11] == 0
                    pcr = int.from_bytes(packet[6:10], "big") << 1 | packet[10] >> 7
                    used = 12
                assert set(packet[used:at]) <= {0xFF}
        if not packet[3] & 0x10:
            assert pcr is not None, "a packet with nothing in it"
            assert not packet[1] & 0x40
            return None, pcr, key
        return packet[at:], pcr, key

    def _pcr(self, value: int, found: Segment) -> int:
        if self.clock is None:
            self.clock = unwrap(value, 0)
        else:
            now = unwrap(value, self.clock)
            assert 0 < now - self.clock <= MAX_PCR_GAP, f"PCR goes from {self.clock} to {now}"
            self.clock = now
        found.pcrs.append(self.clock)
        return self.clock

    def _start(self, pid: int, payload: bytes, key: bool) -> Pes:
        assert self.clock is not None, "no PCR before the first PES packet"
        assert payload[:3] == b"\x00\x00\x01"
        video = self.types[pid] == 0x1B
        assert payload[3] == (0xE0 if video else 0xC0)
        assert payload[6] == (0x84 if video else 0x80)
        with_dts = payload[7] == 0xC0
        assert with_dts or payload[7] == 0x80
        assert payload[8] == (10 if with_dts else 5)
        pts = dts = unwrap(timestamp(payload[9:14], 3 if with_dts else 2), self.clock)
        if with_dts:
            dts = unwrap(timestamp(payload[14:19], 1), self.clock)
            assert dts < pts
        assert self.clock <= dts, f"PCR {self.clock} is beyond DTS {dts}"
        assert self.last_dts.get(pid, dts - 1) < dts, "DTS goes back"
        self.last_dts[pid] = dts
        return Pes(pid, pts, dts, key, payload)

    def _finish(self, pes: Pes) -> None:
        """Take the PES header off and check the elementary stream's own framing."""
        length = int.from_bytes(pes.data[4:6], "big")
        assert length == (0 if self.types[pes.pid] == 0x1B else len(pes.data) - 6), "PES_packet_length"
        pes.data = pes.data[9 + pes.data[8] :]
        if self.types[pes.pid] == 0x1B:
            units = nal_units(pes.data)
            kinds = [nal[0] & 31 for nal in units]
            assert units[0] == b"\x09\xf0" and kinds.count(DELIMITER) == 1
            assert not pes.key or kinds[1] == 7 and 8 in kinds, "no parameter sets where a decoder may start"
        else:
            assert list(adts_frames(pes.data))


def check(segments: Sequence[bytes]) -> list[Segment]:
    """Check consecutive segments, the first one first."""
    checker = Checker()
    return [checker.segment(data) for data in segments]


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (ISO/IEC 14496-10 annex B), which must begin with a start code of 4 bytes."""
    assert data.startswith(b"\x00\x00\x00\x01")
    return [nal.rstrip(b"\x00") for nal in re.split(b"\x00\x00\x01", data)[1:]]


def pictures(units: Sequence[bytes]) -> list[bytes]:
    """NAL units without delimiters and parameter sets."""
    return [nal for nal in units if nal and nal[0] & 31 not in (*PARAMETERS, DELIMITER)]


def adts_frames(data: bytes) -> Iterator[bytes]:
    """The raw AAC frames of ADTS (ISO/IEC 14496-3 section 1.A.2.2)."""
    at = 0
    while at < len(data):
        assert data[at : at + 2] == b"\xff\xf1" and data[at + 5] & 0x1F == 0x1F and data[at + 6] == 0xFC
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        assert length > 7 and at + length <= len(data)
        assert data[at + 2] == data[2] and data[at + 3] >> 2 == data[3] >> 2, "all frames have one configuration"
        yield data[at + 7 : at + length]
        at += length
