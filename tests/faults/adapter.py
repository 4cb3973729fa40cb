"""Everything that differs between schedulers under fire: how to start and ask one, and how to read what it claims.

A harness knows a scheduler by this alone. `Taskloop` is the product on SQLite, `adapter_postgres.TaskloopOnPostgres` the
same on PostgreSQL, which says where its store is and how rows are fetched; `naive.Naive` is one that must be caught.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import witness
from facts import Attempt, Books, Run, Said, Schedule, Worker, now_us

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NOT_OURS = ("TASKLOOP_", "TASK_SCHEDULER_", "COVERAGE", "COV_CORE", "LC_", "PYTEST")
"""Variables that would configure a process of the product, or have it write what no kill point is meant for."""


class Scheduler(Protocol):
    """What a harness asks of an implementation. Words of commands are argument lists for the folder of a round."""

    name: str
    stopped: Sequence[int]
    """Exit codes of an orderly end after SIGTERM."""
    refused: Sequence[int]
    """Exit codes that say: the store could not be opened."""
    files: frozenset[str]
    """Files that may stand in the folder of the store."""
    passing: frozenset[str]
    """Files that may stand there after a kill, before the next start."""
    writing: Sequence[str]
    """The system calls that change what is kept, or what somebody reads."""
    recovery: Sequence[tuple[str, int]]
    """Those of a start at which a second kill may come, and how many of each there are, about."""

    def prepare(self, folder: Path, cast: str, **settings: Any) -> None: ...
    def environment(self, folder: Path) -> dict[str, str]: ...
    def start(self, *, version: str | None = None) -> list[str]: ...
    def submit(self, job: str, key: str | None = None) -> list[str]: ...
    def switch(self, word: str, job: str) -> list[str]: ...
    def health(self) -> list[str]: ...
    def store(self, folder: Path) -> Path: ...
    def copied(self, store: Path, to: Path) -> Path: ...
    def flaws(self, copy: Path) -> list[str]: ...
    def network(self, folder: Path, places: int) -> Network | None: ...
    def is_ready(self, log: str) -> bool: ...
    def said(self, log: str) -> list[Said]: ...
    def submitted(self, out: str) -> Said: ...
    def troubles(self, log: str) -> list[str]: ...
    def fenced(self, log: str) -> set[str]: ...
    def holding(self, log: str) -> set[int]: ...
    def books(self, file: Path, *, live: bool = False) -> Books: ...


class Network(Protocol):
    """What lies between the processes of a company and the server of their store, and the server itself."""

    def environment(self, place: int) -> dict[str, str]: ...
    def set_apart(self, place: int, *, answers_only: bool) -> None: ...
    def join(self, place: int, how: str) -> None: ...
    def cut(self, place: int, *, unheard: int | None = None) -> None: ...
    def slow(self, place: int, seconds: float) -> None: ...
    def restart(self) -> None: ...
    def terminate(self) -> int: ...
    def heal(self) -> None: ...
    def close(self) -> None: ...


def plain_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a process of a round: ours, without what would configure it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    places = os.pathsep.join(str(one) for one in (HERE, ROOT))
    quiet = {"PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "TZ": "UTC", "NO_COLOR": "1"}
    return {**plain, **quiet, witness.FOLDER: str(folder), **more}


class OnFile:
    """What all have in common whose store is one file of SQLite."""

    writing: Sequence[str] = ("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
    recovery: Sequence[tuple[str, int]] = (("pwrite64", 60), ("fdatasync", 8), ("write", 6))

    def copied(self, store: Path, to: Path) -> Path:
        """A copy of a store that no process has open, as another program would find it; without its shared memory."""
        to.mkdir(parents=True, exist_ok=True)
        for ending in ("", "-wal", "-journal"):
            file = store.with_name(store.name + ending)
            if file.exists():
                shutil.copy2(file, to / file.name)
        return to / store.name

    def flaws(self, copy: Path) -> list[str]:
        """What SQLite's own check finds wrong in a copy; empty: nothing."""
        if not copy.exists() or not copy.stat().st_size:
            return []
        try:
            with closing(sqlite3.connect(copy)) as db:
                return [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        except sqlite3.DatabaseError as error:
            return [str(error)]

    def network(self, folder: Path, places: int) -> Network | None:
        """There is none."""


class Taskloop(OnFile):
    """The product, by its command line and its tables."""

    name = "taskloop"
    stopped: Sequence[int] = (143,)
    refused: Sequence[int] = (8,)
    files = frozenset({"jobs.db", "jobs.db-wal", "jobs.db-shm"})
    passing = frozenset({"jobs.db-journal"})

    def prepare(self, folder: Path, cast: str, **settings: Any) -> None:
        """Write the configuration. `settings`: `synchronous`, `lease`, `heartbeat`, `grace` (seconds), `places`."""
        given = {"synchronous": "full", "lease": 1.0, "heartbeat": 0.2, "grace": 2.0, "places": {}} | settings
        places = "".join(f"{name} = {number}\n" for name, number in given["places"].items())
        (folder / "store").mkdir(exist_ok=True)
        (folder / "config.toml").write_text(
            f'[scheduler]\napp = "jobs_under_fire:{cast}"\nthreads = 4\n'
            f'heartbeat = "{given["heartbeat"]}s"\nlease = "{given["lease"]}s"\n'
            f'grace = "{given["grace"]}s"\nkill_grace = "1s"\n'
            f"[store]\n{self.address(folder, given['synchronous'])}\n[groups]\n{places}"
            "[jobs.git_metrics]\nenabled = false\nat = 2099-01-01T00:00:00Z\n"
        )

    def address(self, folder: Path, synchronous: str) -> str:
        """Where the store is, as the configuration has it."""
        return f'url = "sqlite:///store/jobs.db"\nsynchronous = "{synchronous}"'

    def environment(self, folder: Path) -> dict[str, str]:
        return plain_environment(folder)

    def start(self, *, version: str | None = None) -> list[str]:
        app = ["--app", f"jobs_under_fire:{version}"] if version else []
        return [*self._command(*app), "run", "--log-format", "json"]

    def submit(self, job: str, key: str | None = None) -> list[str]:
        return [*self._command(), "submit", job, *(["--key", key] if key else []), "--format", "json"]

    def switch(self, word: str, job: str) -> list[str]:
        verb = {"disabled": "disable", "enabled": "enable", "paused": "pause", "resumed": "resume"}[word]
        return [*self._command(), verb, job, "--format", "json"]

    def health(self) -> list[str]:
        return [*self._command(), "status", "--format", "json"]

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "taskloop", *words]

    def store(self, folder: Path) -> Path:
        return folder / "store" / "jobs.db"

    def is_ready(self, log: str) -> bool:
        return '"event": "scheduler.ready"' in log

    def said(self, log: str) -> list[Said]:
        """The states that whole lines of a log told of runs."""
        told = []
        for line in _lines(log):
            word = str(line.get("event", "")).removeprefix("run.")
            if line.get("event", "").startswith("run.") and "run" in line and word != "recovered":
                told.append(Said(word, str(line["run"]), line["job"], line.get("attempt", 0)))
        return told

    def submitted(self, out: str) -> Said:
        record = json.loads(out)
        return Said("submitted", str(record["id"]), record["job"], key=record["key"], where="command")

    def troubles(self, log: str) -> list[str]:
        """Lines in which it says that its store fails."""
        words = ("store", "tending")
        return [
            str(line) for line in _lines(log)
            if line.get("level") in ("warning", "error") and str(line.get("event", "")).startswith(words)
        ]  # fmt: skip

    def fenced(self, log: str) -> set[str]:
        """Runs of which it says that they had become another worker's."""
        return {str(line["run"]) for line in _lines(log) if line.get("event") == "run.fenced"}

    def holding(self, log: str) -> set[int]:
        """Pids of which it says that they were stopped in a transaction, and let nobody else write."""
        told = (str(line.get("error")) for line in _lines(log) if line.get("event") == "store.lost")
        return {int(found[1]) for one in told if (found := re.search(r"held by pid (\d+) .*which is stopped", one))}

    def books(self, file: Path, *, live: bool = False) -> Books:
        """What the tables claim: of a file nobody has open, or `live`, by a reader beside its owners."""
        taken = now_us()
        if not file.exists() or not file.stat().st_size:
            return Books(taken=taken)
        mode = "ro" if live else "rw"
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)) as db:
            db.execute("BEGIN")
            if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'taskloop_meta'").fetchone()[0]:
                return Books(taken=taken)
            return read([db.execute(one.format("taskloop_")).fetchall() for one in QUESTIONS], taken)


QUESTIONS = (
    "SELECT id, job, schedule, state, due_at, reason, cause, key, attempt, attempts, until_at, count, ready_at, "
    "created_at, attempt_started_at, ended_at, worker, token FROM {}runs ORDER BY id",
    "SELECT run, attempt, token, started_at, outcome, ended_at, worker FROM {}attempts ORDER BY run, token",
    "SELECT id, pid, started_at, stopped_at FROM {}workers ORDER BY started_at",
    "SELECT id, job, next_due FROM {}schedules ORDER BY id",
    "SELECT job, kind FROM {}switches WHERE ended_at IS NULL AND job IS NOT NULL ORDER BY id",
)
"""What is asked of the tables, all of one moment; `{}` is what stands before their names."""


def read(answers: Sequence[Sequence[Sequence[Any]]], taken: int) -> Books:
    """The books, by the answers to all questions."""
    runs, attempts, workers, schedules, switches = answers
    return Books(
        [Run(str(row[0]), *row[1:]) for row in runs],
        [Attempt(str(row[0]), *row[1:]) for row in attempts],
        [Worker(*row) for row in workers],
        [Schedule(*row) for row in schedules],
        {(job, "paused" if kind == "paused" else "enabled"): kind for job, kind in switches},
        taken,
    )


def _lines(log: str) -> list[dict[str, Any]]:
    """The lines of a log that were written whole."""
    found = []
    for line in log.split("\n")[:-1]:
        if line.startswith("{"):
            found.append(json.loads(line))
    return found
