"""A stored file that ends too early: whoever keeps it is told, once a cut, and every way of sending cuts alike."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.native.hot import PLAIN, Node, get, until

BODY = bytes(range(256)) * 4


class Owner:
    """Notes that it is told, and that it may block."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def failed(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.told.append(True)
        else:
            self.told.append(False)


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("plain", [PLAIN, ()], ids=["to the socket", "through the transport"])
@pytest.mark.parametrize("left", [0, 1000])
def test_its_owner_is_told(loop: Any, plain: tuple[type, ...], left: int, tmp_path: Path) -> None:
    async def work() -> list[dict[str, Any]]:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        node, owner = Node(plain=plain), Owner()
        (tmp_path / "short").write_bytes(BODY[:left])
        with (tmp_path / "short").open("rb") as file:
            node.put("/v/a/0", (file.fileno(), 0, 2000), owner=owner)
            node.put("/v/a/1", (file.fileno(), 0, 2000), owner="nobody who could be told")
            async with node.listening() as port:
                for number, path in enumerate(("/v/a/0", "/v/a/1")):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(get(path))
                    received = b""
                    try:
                        while piece := await reader.read(10_000):
                            received += piece
                    except ConnectionResetError:
                        pass
                    assert len(received.partition(b"\r\n\r\n")[2]) <= left
                    assert node.count("requests_aborted/source") == number + 1
                    writer.close()
                await until(lambda: owner.told)
        assert owner.told == [True], "in a thread"
        return failures

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(work()) == []
