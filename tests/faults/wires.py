"""Lines of TCP on loopback between processes and a server, each of which can be silent, cut or slow.

A silent line is as a network that lost its way: it takes what is sent and hands nothing on, not even a farewell; a new
connection is taken and leads nowhere. All lines are carried by one loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
CARRIED = 65536
"""Bytes that are taken from one end before they are handed to the other."""
RESET = struct.pack("ii", 1, 0)
"""Linger for no second: the other end is not told farewell, but that the line is dead."""


class LoopThread:
    """A loop in a thread of its own, for those who have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        """What a coroutine gives there. Raises `TimeoutError`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def close(self) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Wire:
    """The line of one process; its `port` on loopback leads to that of the server. Called on its loop only."""

    def __init__(self, server: int) -> None:
        self._server = server
        self.port = 0
        self._there, self._back = asyncio.Event(), asyncio.Event()
        """Set while what the process says comes through, and what the server says."""
        self.delay = 0.0
        """Seconds that each message takes, each way."""
        self._unheard: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.join()

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._listener.close()
        self.cut()

    def part(self, *, answers_only: bool) -> None:
        """Hand nothing on; `answers_only`: what the process says still reaches the server."""
        self._back.clear()
        if not answers_only:
            self._there.clear()

    def join(self) -> None:
        """Hand on again, also what was held back."""
        self._there.set()
        self._back.set()

    def forget(self) -> None:
        """Hand on again what comes by new connections; those there are stay silent, as behind a router that forgot them."""
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.join()

    def cut(self) -> None:
        """Kill every connection there is; both ends hear of it."""
        for writer in [*self._writers]:
            _kill(writer)

    def cut_unheard(self, passes: int) -> None:
        """Let so many messages of the process pass; cut the line after one more, which the server hears, and does, and whose
        answer nobody hears.
        """
        self._unheard = passes

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        server = None
        there, back = self._there, self._back
        try:
            await there.wait()
            answers, server = await asyncio.open_connection("127.0.0.1", self._server)
            self._writers.add(server)
            heard = asyncio.Event()
            heard.set()
            ways = [
                asyncio.create_task(self._carry_there(reader, server, there, heard)),
                asyncio.create_task(self._carry_back(answers, writer, back, heard)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:  # all lines end; asyncio would complain of one that did not end by itself
            pass
        except OSError:  # the server is away: so is the line
            _kill(writer)
        finally:
            self._tasks.discard(task)
            for one in (writer, server):
                if one is not None:
                    self._writers.discard(one)
                    one.close()

    async def _carry_there(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event, heard: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CARRIED):
                await open_.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self._unheard is not None:
                    self._unheard -= 1
                    if self._unheard < 0:
                        self._unheard = None
                        heard.clear()
                writer.write(data)
                await writer.drain()
                if not heard.is_set():
                    await asyncio.sleep(0.1)  # for the server to do it
                    return
            await open_.wait()  # nor does a farewell come through

    async def _carry_back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event, heard: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CARRIED):
                await open_.wait()
                await heard.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
            await open_.wait()


def _kill(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
