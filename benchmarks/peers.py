"""The peers, made ready to run as their own documentation has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKERS = 4
"""Threads of a huey consumer."""

_called: Callable[..., None] | None = None


async def call(*given: Any) -> None:
    """What APScheduler runs: it finds jobs by module and name, so it cannot be given a function of a measurement."""
    if _called is not None:
        _called(*given)


def listen(called: Callable[..., None]) -> None:
    """From now on `call` calls this."""
    global _called
    _called = called


def apscheduler(file: Path | None) -> Any:
    """An AsyncIOScheduler of APScheduler 3 in memory, or on an SQLite file by its SQLAlchemy store."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None, "max_instances": 1}, timezone="UTC")
    if file is not None:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{file}"))
    return scheduler


@contextmanager
def huey(file: Path) -> Iterator[Any]:
    """A SqliteHuey that writes through to the disk; `consume` it inside."""
    from huey import SqliteHuey

    yield SqliteHuey(filename=str(file), fsync=True)


@contextmanager
def consuming(queue: Any) -> Iterator[None]:
    """A consumer of threads in this process, for as long as the block lasts."""
    consumer = queue.create_consumer(workers=WORKERS, periodic=False)
    consumer._set_signal_handlers = lambda: None  # they belong to the process, which is ours
    consumer.start()
    try:
        yield
    finally:
        consumer.stop(graceful=False)


class Count:
    """Counts calls from any thread, up to a number that can be waited for."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._lock = threading.Lock()
        self._done = threading.Event()

    def one(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._done.set()

    def wait(self, seconds: float) -> None:
        if not self._done.wait(seconds):
            raise TimeoutError(f"{self._left} were not done within {seconds:g} s")
