"""Whole calls on the threads of aiosqlite's connections.

Level 5. aiosqlite offers a hop to its thread for each statement, within the task that asks. Here one hop is a whole
transaction, and its answer a future that no task owns: the end of the task does not lose it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import aiosqlite

from taskloop.file_sqlite import connect

__all__ = ["CLOSE_SECONDS", "Connection", "connected", "hop", "let_go"]

Connection = aiosqlite.Connection
CLOSE_SECONDS: Final = 10.0
"""How long a connection that ends may take for what it has in hand."""


async def connected(path: str, create: bool) -> Connection:
    """A connection with a thread of its own. Raises what `connect` raises, once that thread has ended."""
    connection = aiosqlite.Connection(partial(connect, path, create), iter_chunk_size=64)
    # Otherwise a host that forgets stop() hangs at exit in a join of this thread; SQLite survives its end.
    connection._thread.daemon = True
    try:
        return await connection
    except Exception:
        # aiosqlite has told its thread to end; it must have, before a host may close its loop.
        await asyncio.to_thread(connection._thread.join, CLOSE_SECONDS)
        raise


def hop(connection: Connection, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Begin a call of `function(sqlite3 connection, …)` on the connection's thread.

    By the thread's own queue, `_tx`; and the answer is delivered here, for aiosqlite's thread would end if the loop were
    closed meanwhile.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def work() -> None:
        result = error = None
        try:
            result = function(connection._conn, *args)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_deliver, answer, result, error)

    connection._tx.put_nowait((None, work))
    return answer


async def let_go(connection: Connection, within: float) -> None:
    """Close a connection and end its thread; one that is busy for longer does so when it has ended."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[Any] = loop.create_future()

    def close() -> object:
        if connection._connection is not None:
            with suppress(sqlite3.Error):
                connection._connection.close()
            connection._connection = None
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, gone, None, None)
        return aiosqlite.core._STOP_RUNNING_SENTINEL

    connection._running = False
    connection._tx.put_nowait((None, close))
    await asyncio.wait({gone}, timeout=within)


def _deliver(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
