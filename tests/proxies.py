"""What may stand between a store and its server: a line that is cut where we say, and a transaction pooler."""

from __future__ import annotations

import asyncio
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

__all__ = ["Line", "Pooler"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """A line to the server of an address: `url` is the same address through it."""

    def __init__(self, address: str) -> None:
        if (found := re.search(r"host=(/[^&]+)", address)) is None:
            pytest.skip("the server is not reached by a socket of this machine")
        folder = found[1]
        self._server = f"{folder}/.s.PGSQL.5432"
        self._folder = tempfile.TemporaryDirectory(prefix="taskloop-line-")
        self.url = address.replace(folder, self._folder.name)
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut: str | None = None
        """Cut the line as something passes: `before` the server has it, or `after` it has done it and nobody hears. `silent`:
        neither end hears anything any more, not even that.
        """
        self.passes = 0
        """How many times something passes before that."""
        self.parted = False
        """Whether nothing comes through at all; a connection that has met with it stays silent."""

    async def __aenter__(self) -> Self:
        place = str(Path(self._folder.name) / ".s.PGSQL.5432")
        self._listener = await asyncio.start_unix_server(self._take, place)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for _ in range(3):  # for whom it has just taken to be among the tasks
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    async def hang_up(self) -> None:
        """Take nobody any more, and cut those there are, as a server that has gone."""
        self._listener.close()
        Path(self._folder.name, ".s.PGSQL.5432").unlink(missing_ok=True)
        for task in [*self._tasks]:
            task.cancel()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.carry((reader, writer))
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def reach(self) -> Streams:
        return await asyncio.open_unix_connection(self._server)

    async def carry(self, client: Streams) -> None:
        """Carry what is said both ways until one end hangs up, or the line is cut."""
        if self.parted:
            await asyncio.Event().wait()
        server = await self.reach()
        back = asyncio.create_task(self._back(server, client))
        try:
            while data := await client[0].read(65536):
                cut = self._cuts()
                if cut == "silent" or self.parted:
                    back.cancel()
                    await asyncio.Event().wait()
                if cut == "after":
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                if cut != "before":
                    server[1].write(data)
                    await server[1].drain()
                if cut == "after":
                    await server[0].read(65536)  # the server has done it, and nobody hears of it
                if cut:
                    return
        finally:
            server[1].close()
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    def _cuts(self) -> str | None:
        """Where the line is to be cut now; None: it is not."""
        if self.cut is None or self.passes > 0:
            self.passes -= 1
            return None
        cut, self.cut = self.cut, None
        return cut

    async def _back(self, server: Streams, client: Streams) -> None:
        with suppress(OSError):
            while data := await server[0].read(65536):
                client[1].write(data)
            client[1].close()


class Pooler(Line):
    """Gives each transaction a session of its own, as a pooler may that shares few among many."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.sessions = 0

    async def carry(self, client: Streams) -> None:
        reader, writer = client
        size = await reader.readexactly(4)
        hello = size + await reader.readexactly(int.from_bytes(size, "big") - 4)
        server, said = await self._session(hello)
        writer.write(said)
        answering = asyncio.create_task(self._answers(server, writer))
        try:
            while True:
                head, body = await _message(reader)
                if head[:1] == b"X":
                    return
                if answering.done():  # the transaction before is over, and its session is another client's now
                    server[1].close()
                    server, _ = await self._session(hello)
                    answering = asyncio.create_task(self._answers(server, writer))
                server[1].write(head + body)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            server[1].close()

    async def _session(self, hello: bytes) -> tuple[Streams, bytes]:
        """A new session, and what the server said to it."""
        self.sessions += 1
        server = await self.reach()
        server[1].write(hello)
        said = b""
        while True:
            head, body = await _message(server[0])
            said += head + body
            if head[:1] == b"Z":
                return server, said

    async def _answers(self, server: Streams, writer: asyncio.StreamWriter) -> None:
        """Pass on what the server says until a transaction is over."""
        while True:
            head, body = await _message(server[0])
            if head[:1] == b"Z" and body == b"I":
                asyncio.get_running_loop().call_soon(writer.write, head + body)  # once this is seen to have ended
                return
            writer.write(head + body)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head, await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
