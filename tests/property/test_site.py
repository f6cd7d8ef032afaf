"""Whatever happens to the nodes of a site and to what they share: in the end all know all that any of them knows, each once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.storage.kv.sqlite import SqliteStore
from tests.edge.machines import Machine

NODES = 3
Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "announce",
                "announce",
                "turn",
                "turn",
                "cut off",
                "connect",
                "restart",
                "lose",
                "back up",
                "put back",
                "copy",
            ]
            + ["flush", "load old", "save"]
        ),
        st.integers(0, NODES - 1),
    ),
    min_size=5,
    max_size=30,
)
LOSSES = {"lose", "put back", "copy"}
"""What may take the only copy of an event with it."""


class World:
    """Nodes in folders of their own below ``root``, and what they share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[Machine] = []
        self.announced: list[bytes] = []

    async def start(self, number: int) -> Machine:
        folder = self.root / f"node {number}"
        local = await SqliteStore.open(folder / "state.sqlite")
        machine = Machine(folder, local, await SqliteStore.open(self.root / "site.sqlite"))
        # As a worker does before it serves, and its parent before that.
        await machine.feed.catch_up()
        return machine

    async def announce(self, number: int) -> None:
        """An event of its own, which is in force here when this returns."""
        node = self.nodes[number]
        self.announced.append(b"%d" % len(self.announced))
        await node.feed.announce("revoke.session", self.announced[-1], None)
        assert self.announced[-1] in node.applied

    async def turn(self, number: int) -> None:
        await self.nodes[number].turn()

    async def cut_off(self, number: int) -> None:
        self.nodes[number].shared.away = True

    async def connect(self, number: int) -> None:
        self.nodes[number].shared.away = False

    async def restart(self, number: int, between: Callable[[Path], None] = lambda _: None) -> None:
        old = self.nodes[number]
        await old.end()
        between(old.folder)
        self.nodes[number] = await self.start(number)

    async def lose(self, number: int) -> None:
        """Its file is removed while it runs."""
        remove(self.nodes[number].folder / "state.sqlite")

    async def back_up(self, number: int) -> None:
        copied(self.nodes[number].folder / "state.sqlite", self.root / f"backup {number}")

    async def put_back(self, number: int) -> None:
        """Into the file that is in use."""
        if (backup := self.root / f"backup {number}").exists():
            copied(backup, self.nodes[number].folder / "state.sqlite")

    async def copy(self, number: int) -> None:
        """Its neighbour goes on with its file."""
        copied(self.nodes[number].folder / "state.sqlite", self.root / "copy")

        def replace(folder: Path) -> None:
            remove(folder / "state.sqlite")
            shutil.move(self.root / "copy", folder / "state.sqlite")

        await self.restart((number + 1) % NODES, replace)

    async def flush(self, _: int) -> None:
        remove(self.root / "site.sqlite")

    async def save(self, _: int) -> None:
        copied(self.root / "site.sqlite", self.root / "site saved")

    async def load_old(self, _: int) -> None:
        if (saved := self.root / "site saved").exists():
            copied(saved, self.root / "site.sqlite")

    async def known(self) -> set[bytes]:
        """The uids of all that is left anywhere."""
        found = {event.uid for node in self.nodes for event in node.feed.held.events()}
        for path in (self.root / "site.sqlite", *(node.folder / "state.sqlite" for node in self.nodes)):
            store = await SqliteStore.open(path)
            found |= {event.uid for event in (await store.events())[0]}
            await store.close()
        return found


def copied(source: Path, target: Path) -> None:
    """Through SQLite, so that both may be in use."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


def remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


async def live(steps: list[Step], root: Path) -> None:
    world = World(root)
    for number in range(NODES):
        world.nodes.append(await world.start(number))
    try:
        for what, number in steps:
            step: Callable[[int], Awaitable[None]] = getattr(world, what.replace(" ", "_"))
            await step(number)
        left = await world.known()
        if not LOSSES & {what for what, _ in steps}:
            assert len(left) == len(world.announced)
        for _ in range(3):
            for number, node in enumerate(world.nodes):
                node.shared.away = False
                await world.turn(number)
        for node in world.nodes:
            stored, _position = await node.local.events()
            assert {event.uid for event in stored} == left and len(stored) == len(left)
            assert {event.uid for event in node.feed.held.events()} == left
            assert set(node.applied) == {event.subject for event in stored}
        shared, _position = await world.nodes[0].shared.store.events()
        assert {event.uid for event in shared} == left and len(shared) == len(left)
    finally:
        for node in world.nodes:
            await node.end()


@given(STEPS)
@settings(max_examples=40)
def test_all_know_all_in_the_end(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory(prefix="streamgate-site-") as root:
        asyncio.run(live(steps, Path(root)))
