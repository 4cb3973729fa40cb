"""A scheduler as one writes it in an afternoon, and as the checks must never let pass.

Timers in memory; the job is called, then the log line, then an INSERT, committed twice a second; no unique key, no lease,
no cursor, switches in memory. Started by itself it is that program; imported, it gives the adapter `Naive`.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import rules
from adapter import OnFile, plain_environment
from facts import SECOND, Books, Rule, Run, Said, now_us
from witness import Witness

STORE, MAIL = Path("store/naive.db"), Path("mail")
TABLE = (
    "CREATE TABLE IF NOT EXISTS runs (id TEXT, job TEXT, due INTEGER, state TEXT, ended INTEGER, key TEXT);"
    "CREATE TABLE IF NOT EXISTS switches (job TEXT PRIMARY KEY, word TEXT)"
)


class Program:
    """The whole scheduler."""

    def __init__(self, cast: dict[str, Rule]) -> None:
        self._cast = cast
        self._off: set[str] = set()
        self._rows: list[tuple[Any, ...]] = []
        self._witness = Witness()
        self._ends = threading.Event()

    def run(self) -> None:
        with closing(sqlite3.connect(STORE, timeout=10)) as db:
            db.executescript(TABLE)
            for rule in self._cast.values():
                if rule.period:
                    self._begin(self._tick, rule)
            signal.signal(signal.SIGTERM, lambda *_: self._ends.set())
            print("naive.ready", file=sys.stderr, flush=True)
            while not self._ends.wait(0.5):
                self._read_mail()
                self._write(db)
            self._write(db)
        sys.exit(143)

    def _begin(self, function: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()

    def _tick(self, rule: Rule) -> None:
        """What fell due while nobody was there is forgotten; what falls due is called at once, whoever else does."""
        period = round(rule.period * SECOND)
        while True:
            due = (now_us() // period + 1) * period
            time.sleep((due - now_us()) / SECOND)
            if rule.name not in self._off:
                self._begin(self._call, rule, due, None)

    def _call(self, rule: Rule, due: int, key: str | None) -> None:
        run = uuid.uuid4().hex[:12]
        self._witness.begin(job=rule.name, schedule=rule.name, due=due, run=run, key=key or run, attempt=1)
        time.sleep(rule.takes)
        self._witness.end(run=run, attempt=1, token=None, outcome="returned")
        print("done", run, rule.name, file=sys.stderr, flush=True)
        self._rows.append((run, rule.name, due, "succeeded", now_us(), key))

    def _write(self, db: sqlite3.Connection) -> None:
        rows, self._rows = self._rows, []
        with db:
            db.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.execute("DELETE FROM switches")
            db.executemany("INSERT OR REPLACE INTO switches VALUES (?, 'disabled')", [(job,) for job in self._off])

    def _read_mail(self) -> None:
        for file in sorted(MAIL.iterdir()):
            word, _, name = file.read_text().partition(" ")
            file.unlink(missing_ok=True)
            if word == "submit":
                self._begin(self._call, self._cast[rules.ASKED], now_us(), name)
            elif word in ("disabled", "paused"):
                self._off.add(name)
            else:
                self._off.discard(name)


class Naive(OnFile):
    """How the harness sees it."""

    name = "naive"
    stopped = (143,)
    refused = (1,)
    files = frozenset({"naive.db"})
    passing = frozenset({"naive.db-journal"})

    def prepare(self, folder: Path, cast: str, **settings: Any) -> None:
        (folder / "store").mkdir(exist_ok=True)
        (folder / "mail").mkdir(exist_ok=True)
        (folder / "cast").write_text("ALONE" if cast == "alone" else "COMPANY")

    def environment(self, folder: Path) -> dict[str, str]:
        return plain_environment(folder)

    def start(self, *, version: str | None = None) -> list[str]:
        return [sys.executable, str(Path(__file__)), "run"]

    def submit(self, job: str, key: str | None = None) -> list[str]:
        return [sys.executable, str(Path(__file__)), "submit", key or uuid.uuid4().hex[:8]]

    def switch(self, word: str, job: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), word, job]

    def health(self) -> list[str]:
        return [sys.executable, "-c", ""]

    def store(self, folder: Path) -> Path:
        return folder / STORE

    def is_ready(self, log: str) -> bool:
        return "naive.ready" in log

    def said(self, log: str) -> list[Said]:
        words = [line.split() for line in log.splitlines() if line.startswith("done ")]
        return [Said("succeeded", one[1], one[2]) for one in words if len(one) == 3]

    def submitted(self, out: str) -> Said:
        return Said("submitted", out.strip(), rules.ASKED, key=out.strip(), where="command")

    def troubles(self, log: str) -> list[str]:
        return []

    def fenced(self, log: str) -> set[str]:
        return set()

    def holding(self, log: str) -> set[int]:
        return set()

    def books(self, file: Path, *, live: bool = False) -> Books:
        taken = now_us()
        if not file.exists():
            return Books(taken=taken)
        with closing(sqlite3.connect(file, timeout=10)) as db:
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return Books(taken=taken)
            rows = db.execute("SELECT id, job, due, state, ended, key FROM runs").fetchall()
            switched = {(job, "enabled"): word for job, word in db.execute("SELECT job, word FROM switches")}
        runs = [
            Run(row[0], row[1], None if row[5] else row[1], row[3], row[2], key=row[5], ended=row[4]) for row in rows
        ]
        return Books(runs, switched=switched, taken=taken)


def main(word: str, name: str = "") -> None:
    if word == "run":
        Program(getattr(rules, Path("cast").read_text())).run()
    else:
        (MAIL / f"{time.time_ns()}").write_text(f"{word} {name}")
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
