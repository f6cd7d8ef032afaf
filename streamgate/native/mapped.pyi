"""Bodies that are cut from a file in memory: the kernel copies them from a mapping straight to a socket."""

from typing import Self, final

from streamgate.native.gather import Plan

@final
class Mapped:
    """An open file in the address space, as it is now. ``fd`` must stay open as long as this lives.

    Only the kernel reads there. Raises ``source_unreadable`` where the file is empty or can't be mapped.
    """

    def __new__(cls, fd: int) -> Self: ...
    @property
    def unchanged(self) -> bool:
        """Whether the file has the size and the modification time that it was mapped with."""
    def resident(self, plan: Plan) -> bool:
        """Whether all that ``plan`` takes from the file is in memory, so that sending it waits for no disk.

        False too where the file has changed, the plan goes beyond it or is spread over more than 64 MiB, or the kernel
        does not tell (``mincore(2)``: to those who neither own the file nor may write to it).
        """

@final
class Cut:
    """The output of ``plan``, as the body of a :class:`streamgate.native.stored.Stored`.

    Raises ``source_truncated`` where the plan goes beyond the file.
    """

    def __new__(cls, plan: Plan, source: Mapped) -> Self: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def source(self) -> Mapped: ...
    @property
    def size(self) -> int:
        """Bytes of the body."""
