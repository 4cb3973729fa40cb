"""Where processor time goes: which room of the code each thread is in, looked at a thousand times a second.

A thread of its own looks at the stacks of the others (`sys._current_frames`), and counts each that is busy for a room: that of the
innermost frame which a rule below knows. Busy is who is amid Python; in sqlite3, who does not wait for the disk; and where a thread waits
for something to do, only who is just on a processor. The processor time of a thread is then shared out as it was seen. Calls of sqlite3 go through a
Python function of this file, to be seen; other calls of C count for the line that makes them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any

INTERVAL_SECONDS = 0.001

SQL, GC, OTHER = "SQL, in sqlite3", "garbage collection", "the rest"
TRIGGERS, VALUES, STORE = "trigger maths", "record values", "the store's own Python"
ENGINE, EVENTS, SWITCHING = "engine and ledger", "events, context, logs", "event loop, tasks, hops of threads"
WORKLOAD = "the measured program itself"
ROOMS = (SQL, STORE, VALUES, ENGINE, SWITCHING, EVENTS, TRIGGERS, GC, WORKLOAD, OTHER)

_OURS = {
    TRIGGERS: "triggers cron durations schedules moments punctuality clock",
    VALUES: "runs rows rows_sqlite records outcomes fates steps masking parameters",
    EVENTS: "events context audience journal injecting inject stepping capture runlog logs tracing pings",
    STORE: "store gathering",
    SWITCHING: "threads_sqlite",
}
_ROOM_OF = {module: room for room, modules in _OURS.items() for module in modules.split()}
_FOREIGN = {
    "asyncio": SWITCHING, "anyio": SWITCHING, "concurrent": SWITCHING,
    "aiosqlite": SWITCHING, "loguru": EVENTS, "cronsim": TRIGGERS, "zoneinfo": TRIGGERS, "json": VALUES,
}  # fmt: skip
_FILES = {
    "selectors": SWITCHING, "queue": SWITCHING, "threading": SWITCHING, "dataclasses": VALUES, "enum": VALUES,
    "<string>": VALUES,  # of what dataclass and namedtuple make
}  # fmt: skip


_WAITS = {
    ("selectors", "select"),
    ("threading", "wait"),
    ("queue", "get"),
    ("thread", "_worker"),
    ("core", "_connection_worker_thread"),  # of aiosqlite
}
_TIMER_SLACK = 29  # PR_SET_TIMERSLACK


def room(file: str) -> str | None:
    """The room of a file of code; None: it is whatever called it."""
    path = PurePath(file)
    if path == PurePath(__file__):
        return SQL
    for part in reversed(
        path.parts[:-1]
    ):  # the nearest: a checkout, with all that is installed, may lie in a folder "taskloop"
        if part == "site-packages" or part.startswith("python3"):
            break
        if part == "taskloop":
            return _ROOM_OF.get(path.stem, STORE if path.stem.endswith("_sqlite") else ENGINE)
        if part == "benchmarks":
            return WORKLOAD
        if part in _FOREIGN:
            return _FOREIGN[part]
    return _FILES.get(path.stem if path.suffix else path.name)


class Sampler(threading.Thread):
    """Looks from `start` until `over` is called."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.looks = 0
        self._rooms: dict[str, str | None] = {}
        self._seen: dict[threading.Thread, dict[str, float]] = {}
        """The weight of the looks at which a thread was busy, by room."""
        self._before: dict[threading.Thread, float] = {}
        """Processor time when a thread was first seen."""
        self._used: dict[threading.Thread, float] = {}
        """The same at the last look at which it was busy, and in the end."""
        self._was_busy: set[threading.Thread] = set()
        self._states: dict[threading.Thread, int | None] = {}
        self._collected: Counter[int] = Counter()
        """Nanoseconds of collections, by thread: nobody can look meanwhile."""
        self._collection_began = 0
        self._is_over = threading.Event()

    def run(self) -> None:
        sys.setswitchinterval(1e-6)  # or a thread is seen when it chooses to wait, and not amid its work
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_TIMER_SLACK, 1, 0, 0, 0)  # of this thread: wake when told, not 50 µs later
        gc.callbacks.append(self._collecting)
        self._look(threads())
        while not self._is_over.wait(INTERVAL_SECONDS):
            self._look(threads())

    def over(self) -> None:
        for thread in threads():
            self._used[thread] = processor_seconds(thread) or 0
        self._is_over.set()
        self.join()
        gc.callbacks.remove(self._collecting)

    def seconds(self) -> dict[str, float]:
        """Processor time by room: what each thread used, by where it was seen busy."""
        found: dict[str, float] = defaultdict(float)
        for thread, rooms in self._seen.items():
            used = self._used.get(thread, 0) - self._before.get(thread, 0)
            collected = min(used, self._collected.get(thread.ident or 0, 0) / 1e9)
            found[GC] += collected
            busy = sum(rooms.values())
            for name, weight in rooms.items():
                found[name] += (used - collected) * weight / busy
        return found

    def _look(self, alive: Iterable[threading.Thread]) -> None:
        frames = sys._current_frames()
        self.looks += 1
        for thread in alive:
            frame = frames.get(thread.ident or 0)
            if frame is None:
                continue
            if thread not in self._before:
                self._before[thread] = processor_seconds(thread) or 0
                self._seen[thread] = defaultdict(float)
            where = self._where(frame)
            if (where == SQL and not self._can_run(thread)) or (_waits(frame.f_code) and not _runs(thread)):
                self._was_busy.discard(thread)  # it waits: for the disk, for the interpreter, for something to do
                continue
            used = processor_seconds(thread) or 0
            # Amid Python the looks are late, as each has to wait for the interpreter: so one counts for what has been used since
            # the last. After a wait that would be work that was over before this began.
            is_on = thread in self._was_busy
            self._seen[thread][where] += max(used - self._used[thread], 1e-6) if is_on else INTERVAL_SECONDS
            self._used[thread] = used
            self._was_busy.add(thread)

    def _where(self, frame: FrameType | None) -> str:
        while frame is not None:
            file = frame.f_code.co_filename
            if file not in self._rooms:
                self._rooms[file] = room(file)
            found = self._rooms[file]
            if found is not None:
                return found
            frame = frame.f_back
        return OTHER

    def _can_run(self, thread: threading.Thread) -> bool:
        """Whether it is on a processor or wants to be on one; yes where the system does not tell."""
        if thread not in self._states:
            self._states[thread] = None
            with suppress(OSError):
                self._states[thread] = os.open(f"/proc/self/task/{thread.native_id}/stat", os.O_RDONLY)
        file = self._states[thread]
        if file is None:
            return True
        with suppress(OSError):
            return os.pread(file, 200, 0).rpartition(b") ")[2].startswith(b"R")
        return False

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began = time.thread_time_ns()
        else:
            self._collected[threading.get_ident()] += time.thread_time_ns() - self._collection_began


def _runs(thread: threading.Thread) -> bool:
    """Whether it is on a processor at this moment: its clock moves."""
    return processor_seconds(thread) != processor_seconds(thread)


@cache
def _waits(code: CodeType) -> bool:
    """Whether it is where a thread waits for something to do."""
    return (PurePath(code.co_filename).stem, code.co_name) in _WAITS


def threads() -> list[threading.Thread]:
    """All but the sampler."""
    return [one for one in threading.enumerate() if not isinstance(one, Sampler)]


def processor_seconds(thread: threading.Thread) -> float | None:
    """What a thread has used. None: it has ended, or the system does not tell.

    By Linux's number of its clock, which is safe to ask for a thread that has just ended; `pthread_getcpuclockid` is not.
    """
    if not sys.platform.startswith("linux") or thread.native_id is None:
        return None
    try:
        return time.clock_gettime((~thread.native_id << 3) | 6)
    except OSError:
        return None


class Counted:
    """What went through sqlite3."""

    def __init__(self) -> None:
        self.statements = 0
        self.transactions = 0
        self.seconds = 0.0
        """By the clock, waiting for the disk included."""


COUNTED = Counted()


def seen() -> None:
    """From now on, calls of sqlite3 by taskloop go through this file."""
    from taskloop import file_sqlite

    file_sqlite.Connection = type("Connection", (_Calls, file_sqlite.Connection), {})  # type: ignore[misc]


class _Calls:
    """Before a connection in its bases."""

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_Cursor)  # type: ignore[misc]

    def execute(self, statement: str, *given: Any) -> Any:
        return self.cursor().execute(statement, *given)

    def executemany(self, statement: str, *given: Any) -> Any:
        return self.cursor().executemany(statement, *given)


class _Cursor(sqlite3.Cursor):
    def execute(self, statement: str, *given: Any) -> Any:
        began = time.perf_counter()
        try:
            return super().execute(statement, *given)
        finally:
            COUNTED.seconds += time.perf_counter() - began
            COUNTED.statements += 1
            COUNTED.transactions += statement.startswith("COMMIT")

    def executemany(self, statement: str, *given: Any) -> Any:
        began = time.perf_counter()
        try:
            return super().executemany(statement, *given)
        finally:
            COUNTED.seconds += time.perf_counter() - began
            COUNTED.statements += 1

    def fetchone(self) -> Any:
        return super().fetchone()

    def fetchmany(self, *given: Any) -> Any:
        return super().fetchmany(*given)

    def fetchall(self) -> Any:
        return super().fetchall()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return super().__next__()
        finally:
            COUNTED.seconds += time.perf_counter() - began
