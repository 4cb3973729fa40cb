"""APScheduler 3 with two processes on one store: the peer that the check of several processes must catch.

Its documentation says that a store is not to be shared; doubled jobs are what people report of it most. Only the whole
harness uses this, where the package is installed. A job of it does not know the instant it was due at: as all its
intervals lie on the grid of 1970 and it starts them within their second, that is the last point of the grid.
"""

from __future__ import annotations

import signal
import sys
import threading
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rules
from adapter import OnFile, plain_environment
from facts import SECOND, Books, Said, now_us
from witness import Witness

witness: Witness | None = None


def call(name: str) -> None:
    """The job of each rule."""
    assert witness is not None
    period = round(rules.COMPANY[name].period * SECOND)
    due = now_us() // period * period
    run = f"{name}-{threading.get_ident()}-{now_us()}"
    witness.begin(job=name, schedule=name, due=due, run=run, key=run, attempt=1)
    witness.end(run=run, attempt=1, token=None, outcome="returned")


def main() -> None:
    """The program: eight jobs, every second, in a store that is shared."""
    import peer  # under this name, not as __main__, the store finds the job again
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    peer.witness = Witness()
    scheduler = BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore("sqlite:///store/peer.db")}, timezone="UTC"
    )
    scheduler.start()
    for rule in rules.COMPANY.values():
        if rule.name.startswith("tick-"):
            scheduler.add_job(
                peer.call, "interval", args=[rule.name], id=rule.name, replace_existing=True,
                seconds=int(rule.period), start_date=datetime(2026, 1, 1, tzinfo=UTC)
            )  # fmt: skip
    print("peer.ready", file=sys.stderr, flush=True)
    signal.sigwait({signal.SIGTERM})
    sys.exit(143)


class Peer(OnFile):
    """How the harness sees it: processes and a witness, no tables of its runs."""

    name = "apscheduler"
    stopped = (143,)
    refused = (1,)
    files = frozenset({"peer.db"})
    passing = frozenset({"peer.db-journal"})

    @staticmethod
    def is_there() -> bool:
        """Whether APScheduler 3 and what its store needs are installed."""
        if not (find_spec("apscheduler") and find_spec("sqlalchemy")):
            return False
        from importlib.metadata import version

        return version("apscheduler").startswith("3.")

    def prepare(self, folder: Path, cast: str, **settings: Any) -> None:
        (folder / "store").mkdir(exist_ok=True)

    def environment(self, folder: Path) -> dict[str, str]:
        return plain_environment(folder)

    def start(self, *, version: str | None = None) -> list[str]:
        block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); import peer; peer.main()"
        return [sys.executable, "-c", block]

    def submit(self, job: str, key: str | None = None) -> list[str]:
        raise NotImplementedError("nobody asks this one for a run")

    def switch(self, word: str, job: str) -> list[str]:
        raise NotImplementedError("nobody switches this one")

    def health(self) -> list[str]:
        raise NotImplementedError("nobody asks how this one is")

    def store(self, folder: Path) -> Path:
        return folder / "store" / "peer.db"

    def is_ready(self, log: str) -> bool:
        return "peer.ready" in log

    def said(self, log: str) -> list[Said]:
        return []

    def submitted(self, out: str) -> Said:
        raise NotImplementedError("nobody asks this one for a run")

    def troubles(self, log: str) -> list[str]:
        return []

    def fenced(self, log: str) -> set[str]:
        return set()

    def holding(self, log: str) -> set[int]:
        return set()

    def books(self, file: Path, *, live: bool = False) -> Books:
        return Books(taken=now_us())
