"""Reading the disk tier again, slowly: damage is found before a viewer meets it. One worker of the node does it."""

from __future__ import annotations

import asyncio
import os

from edge.threads import Pool
from edge.tiers import objects
from edge.tiers.disk import DiskTier
from edge.tiers.objects import Corrupt, FileBody
from streamgate.errors import StreamGateError

# Between two rounds, and between two attempts to be the one who does it.
PAUSE_S = 60.0


async def scrub(disk: DiskTier, pool: Pool, rate: int) -> None:
    """Read all objects over and over, ``rate`` bytes a second on average (0: none), and remove leftovers; for ever."""
    while True:
        try:
            if await pool.run(disk.keeper):
                for path in await pool.run(disk.files) if rate else ():
                    await asyncio.sleep(await pool.run(check, disk, path) / rate)
        except StreamGateError:  # overloaded: there are better things to do
            pass
        await asyncio.sleep(PAUSE_S)


def check(disk: DiskTier, path: str) -> int:
    """Read one object and throw it out if it is damaged; its bytes. Blocking."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        try:
            body = objects.read(fd)[1].body
        except Corrupt:
            os.close(fd)
            raise
        assert isinstance(body, FileBody)
        body.verify()
        # What was read only to be checked should not push out what viewers want.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except Corrupt as corrupt:
        disk.corrupt(os.path.basename(path), str(corrupt))
        return objects.HEADER
    return body.size
