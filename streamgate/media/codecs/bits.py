"""Reading bits, most significant first, never beyond the end."""

from __future__ import annotations

from streamgate.errors import StreamGateError


def malformed(detail: str) -> StreamGateError:
    """The error of every parser here: ``source_malformed`` with what was wrong."""
    return StreamGateError("source_malformed", detail)


class Bits:
    """A cursor over ``data``; reading beyond the end raises ``source_malformed``."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = 8 * len(data)
        self.position = 0  # in bits

    @property
    def left(self) -> int:
        """Bits not yet read."""
        return self._end - self.position

    def skip(self, count: int) -> None:
        """Pass over ``count`` bits."""
        if count > self.left:
            raise malformed("a configuration record ends too early")
        self.position += count

    def read(self, count: int) -> int:
        """The next ``count`` bits as an unsigned number."""
        start = self.position
        self.skip(count)
        first, last = start >> 3, (self.position + 7) >> 3
        whole = int.from_bytes(self._data[first:last])
        return whole >> (8 * last - self.position) & ((1 << count) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.read(1) == 1

    def ue(self) -> int:
        """Unsigned Exp-Golomb code (ISO/IEC 14496-10 section 9.1), at most 32 leading zeros."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > 32:
                raise malformed("an Exp-Golomb code is too long")
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb code (ISO/IEC 14496-10 section 9.1.1)."""
        code = self.ue()
        return (code + 1) >> 1 if code & 1 else -(code >> 1)

    def count(self, most: int, what: str) -> int:
        """An Exp-Golomb count that the standard bounds by ``most``."""
        value = self.ue()
        if value > most:
            raise malformed(f"{what}: {value} is more than {most}")
        return value
