"""Whole calls on the threads of aiosqlite's connections.

Level 5. aiosqlite offers a hop to its thread for each statement, within the task that asks. Here one hop is a whole
transaction, and its answer a future that no task owns: the end of the task does not lose it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiosqlite

from taskloop.errors import StoreUnavailable
from taskloop.file_sqlite import connect

__all__ = ["CLOSE_SECONDS", "Connection", "call", "connected", "hop", "let_go", "under_way"]

Connection = aiosqlite.Connection
_under_way: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, int]] = WeakKeyDictionary()
CLOSE_SECONDS: Final = 10.0
"""How long a connection that ends may take for what it has in hand."""


async def connected(path: str, create: bool) -> Connection:
    """A connection with a thread of its own. Raises what `connect` raises, once that thread has ended."""
    connection = aiosqlite.Connection(partial(_connect, path, create), iter_chunk_size=64)
    # Otherwise a host that forgets stop() hangs at exit in a join of this thread; SQLite survives its end.
    connection._thread.daemon = True
    try:
        return await connection
    except Exception:
        # aiosqlite has told its thread to end; it must have, before a host may close its loop.
        await asyncio.to_thread(connection._thread.join, CLOSE_SECONDS)
        raise


def _connect(path: str, create: bool) -> sqlite3.Connection:
    _stand_back()
    return connect(path, create)


def _stand_back() -> None:
    """Have this thread take no processor away from others when it wakes: it begins where one is free, or in its turn.

    It wakes at each answer of the disk, two hundred times a second, and the host's loop would be put aside each time: where
    both processors are busy, the 99th of a hundred requests took 1.15 to 1.37 times as long, and takes 1.0 to 1.1 times (P7,
    jobs alone). Linux only, and not where the program has chosen how its threads share the processors.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def call(
    connection: Connection,
    function: Callable[[sqlite3.Connection], Any],
    landed: Callable[[Any, BaseException | None], object],
) -> None:
    """Begin a call of `function(sqlite3 connection)` on the connection's thread; the loop calls `landed(result, error)`.

    By the thread's own queue, `_tx`; and the loop is told here, for aiosqlite's thread would end if it were closed.
    Raises `StoreUnavailable` for a connection that is closed.
    """
    if not connection._running:
        raise StoreUnavailable("the store is closed")
    loop = asyncio.get_running_loop()
    _under_way[loop] = under_way(loop) + 1

    def told(result: Any, error: BaseException | None) -> None:
        _under_way[loop] -= 1
        landed(result, error)

    def work() -> None:
        result = error = None
        try:
            result = function(connection._conn)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(told, result, error)

    connection._tx.put_nowait((None, work))


def under_way(loop: asyncio.AbstractEventLoop) -> int:
    """Calls of any store that this loop has begun and has not heard of yet: in the time of a test it waits for them."""
    return _under_way.get(loop, 0)


def hop(connection: Connection, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """What `function(sqlite3 connection, …)` gives on the connection's thread, once it is awaited; begun at once."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    call(connection, lambda db: function(db, *args), deliver)
    return answer


async def let_go(connections: Iterable[Connection], within: float) -> None:
    """Close connections and end their threads; one that is busy for longer does so when it has ended.

    All are told before any is waited for: whoever closes may be cancelled at each await, by a scope of anyio.
    """
    await asyncio.wait([_told_to_end(one) for one in connections], timeout=within)


def _told_to_end(connection: Connection) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()

    def close() -> object:
        if connection._connection is not None:
            with suppress(sqlite3.Error):
                connection._connection.close()
            connection._connection = None
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_done, gone)
        return aiosqlite.core._STOP_RUNNING_SENTINEL

    connection._running = False
    connection._tx.put_nowait((None, close))
    return gone


def _done(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)
