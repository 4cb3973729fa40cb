"""Hints between processes: NOTIFY when something was written that others may act on at once, and LISTEN for theirs.

Level 5. A hint is no more than that: whoever misses one finds the same by looking again a little later, as always. A
process that listens sends its own apart from its transactions, a crowd of them as one: a NOTIFY within one makes all
commits of the database wait for each other. Behind a transaction pooler, where nobody can listen, there is only the
looking.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from taskloop.server_postgres import Server, closed, let_go

__all__ = ["CHANNEL", "NOTIFY", "Hints"]

CHANNEL: Final = "taskloop"
NOTIFY: Final = "SELECT pg_notify($1, $2)"
TOGETHER_SECONDS: Final = 0.02
"""What is to be told within this is told once."""
APART_SECONDS: Final = 0.05
"""Between two looks that hints cause."""
AGAIN_SECONDS: Final = 5.0
"""Until a connection that was lost, or could not be made, is tried again."""


class Hints:
    """One connection that listens, and tells; made when somebody first waits for a hint."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._connection: Any = None
        self._heard = asyncio.Event()
        self._to_tell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    def tell(self) -> None:
        """Something was written that others may act on. Does not wait."""
        self._to_tell.set()

    @property
    def listening(self) -> bool:
        """Whether `tell` would be heard; else a hint is to be sent another way."""
        return not closed(self._connection)

    async def wait(self, seconds: float) -> None:
        """Wait for a hint of another process, at most so long."""
        if self._task is None and self._server.statement_cache_size:
            self._task = asyncio.create_task(self._carry_on(), name="taskloop store hints")
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
                await asyncio.sleep(self._looked_at + APART_SECONDS - loop.time())
        self._heard.clear()
        self._looked_at = loop.time()

    async def close(self, within: float) -> None:
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            if self._to_tell.is_set():
                await asyncio.wait({task}, timeout=min(within, 2 * TOGETHER_SECONDS))
            task.cancel()
            await asyncio.wait({task}, timeout=within)
        connection, self._connection = self._connection, None
        if connection is not None:
            await let_go(connection, within)

    async def _carry_on(self) -> None:
        while True:
            try:
                if closed(self._connection):
                    self._connection = await self._server.connect()
                    await self._connection.add_listener(CHANNEL, self._hear)
                await self._to_tell.wait()
                await asyncio.sleep(TOGETHER_SECONDS)
                self._to_tell.clear()
                await self._connection.execute(NOTIFY, CHANNEL, self._name)
            except Exception:  # a hint that is lost costs half a second
                await asyncio.sleep(AGAIN_SECONDS)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload != self._name:
            self._heard.set()
