from typing import Self, final

from typing_extensions import Buffer

def room(entries: int) -> int: ...

@final
class Limiter:
    interval: int
    tolerance: int
    def __new__(cls, memory: Buffer, rate: float, burst: int) -> Self: ...
    def ask(self, key: bytes, now: int) -> int: ...
