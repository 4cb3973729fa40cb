"""House-keeping of a program that has no event loop: what its crons do stands in code, how often in a config.toml.

    python examples/crons.py

The program is a server of its own kind (here: one that reads commands from its standard input). Its crons run beside it
on a thread of their own, and nothing that goes wrong in them can end it: every `safe_` call gives a number or a job, and
says in the log what was wrong. See `CONFIGURATION` for what can be set.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import tomllib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from taskloop import BackgroundTasks, Retry, TaskloopError

CONFIGURATION = """
[crons]
database = "backend.db"
clean_tokens = true
clean_tokens_interval = 1800            # seconds, as all intervals here
clean_verification = true
clean_verification_interval = 900
renew_oauth_tokens = true
renew_oauth_tokens_interval = 600
check_actions_interval = 5
enable_test_crons = false
test_crons_interval = 200

[oauth]
token_url = "http://127.0.0.1:8081/token"
client_id = "backend"
client_secret = "not-so-secret"
"""
SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (token PRIMARY KEY, user, expires_at REAL);
CREATE TABLE IF NOT EXISTS verification (email PRIMARY KEY, code, expires_at REAL);
CREATE TABLE IF NOT EXISTS oauth (service PRIMARY KEY, access_token, refresh_token, expires_at REAL);
CREATE TABLE IF NOT EXISTS actions (id INTEGER PRIMARY KEY, due_at REAL, text, done_at REAL);
"""
RETRY = Retry(3, first="1s", on=URLError)
log = logging.getLogger("crons")


class Crons:
    """The program's crons over its database; `settings` is the content of a config.toml such as `CONFIGURATION`."""

    def __init__(self, settings: dict[str, Any], *, success: int = 0, error: int = 84, debug: bool = False) -> None:
        self.settings, self.oauth = settings["crons"], settings["oauth"]
        self.background = BackgroundTasks(success=success, error=error, debug=debug, store="sqlite:///crons.db")
        with closing(self._database()) as db:
            db.executescript(SCHEMA)

    def inject_crons(self) -> int:
        """Add every cron that the configuration switches on, and start; `success`, or `error` when one was refused."""
        tasks, switched = self.background, self.settings
        crons: list[tuple[str, Any, bool, dict[str, Any]]] = [
            ("check_actions", check_actions, True, {}),
            ("clean_tokens", clean_expired_tokens, switched["clean_tokens"], {}),
            ("clean_verification", clean_expired_verifications, switched["clean_verification"], {}),
            ("renew_oauth_tokens", renew_oauth_tokens, switched["renew_oauth_tokens"], {"retry": RETRY}),
        ]
        added = [
            tasks.safe_add_task(
                self._make(cron), name=name, seconds=switched[f"{name}_interval"], max_running=1, **options
            )
            for name, cron, on, options in crons
            if on
        ]
        if self.settings["enable_test_crons"]:
            often = self.settings["test_crons_interval"]
            added += [tasks.safe_add_task(test, seconds=often) for test in (hello_world, current_date)]
        return tasks.error if tasks.error in added else tasks.safe_start()

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.settings["database"], timeout=10)

    def _make(self, function: Any) -> Any:
        """The cron as a job of its own: it opens a connection in the thread it runs in, and closes it."""

        def cron() -> str:
            with closing(self._database()) as db, db:
                return str(function(db, self.oauth))

        cron.__doc__ = function.__doc__
        return cron


def check_actions(db: sqlite3.Connection, _: dict[str, str]) -> str:
    """Do what is due by now."""
    now = datetime.now(UTC).timestamp()
    due = db.execute("SELECT id, text FROM actions WHERE done_at IS NULL AND due_at <= ?", (now,)).fetchall()
    for number, text in due:
        log.info("action %d: %s", number, text)
        db.execute("UPDATE actions SET done_at = ? WHERE id = ?", (now, number))
    return f"{len(due)} actions done"


def clean_expired_tokens(db: sqlite3.Connection, _: dict[str, str]) -> str:
    """Forget sign-ins that have expired."""
    gone = db.execute("DELETE FROM tokens WHERE expires_at <= ?", (datetime.now(UTC).timestamp(),)).rowcount
    return f"{gone} expired tokens removed"


def clean_expired_verifications(db: sqlite3.Connection, _: dict[str, str]) -> str:
    """Forget verification codes that nobody used in time."""
    gone = db.execute("DELETE FROM verification WHERE expires_at <= ?", (datetime.now(UTC).timestamp(),)).rowcount
    return f"{gone} expired codes removed"


def renew_oauth_tokens(db: sqlite3.Connection, oauth: dict[str, str]) -> str:
    """Renew what expires within ten minutes (RFC 6749, section 6); each is stored before the next is asked for."""
    soon = datetime.now(UTC).timestamp() + 600
    found = db.execute("SELECT service, refresh_token FROM oauth WHERE expires_at <= ?", (soon,)).fetchall()
    client = {"client_id": oauth["client_id"], "client_secret": oauth["client_secret"]}
    for service, refresh_token in found:
        asked = urlencode({"grant_type": "refresh_token", "refresh_token": refresh_token, **client}).encode()
        with urlopen(oauth["token_url"], data=asked, timeout=20) as answer:
            told = json.load(answer)
        db.execute(
            "UPDATE oauth SET access_token = ?, refresh_token = ?, expires_at = ? WHERE service = ?",
            (
                told["access_token"],
                told.get("refresh_token", refresh_token),  # a server may give a new one; then the old is void
                datetime.now(UTC).timestamp() + told["expires_in"],
                service,
            ),
        )
        db.commit()
    return f"{len(found)} tokens renewed"


def hello_world() -> str:
    """For trying out."""
    return "hello world"


def current_date() -> str:
    """For trying out."""
    return f"{datetime.now().astimezone():%A, %d %B %Y, %H:%M:%S}"


def main() -> int:
    file = Path("config.toml")
    crons = Crons(tomllib.loads(file.read_text("utf-8") if file.exists() else CONFIGURATION))
    tasks = crons.background
    if crons.inject_crons() == tasks.error:
        return tasks.error
    for line in sys.stdin:  # the program's own work; the crons go on beside it
        match line.split():
            case ["pause"]:
                print("paused" if tasks.safe_pause() == tasks.success else "not paused", flush=True)
            case ["resume"]:
                print("goes on" if tasks.safe_resume() == tasks.success else "does not go on", flush=True)
            case ["run", name]:
                try:
                    run = tasks.call(tasks.call(tasks.scheduler.submit, name).wait)
                    print(f"{name} {run.state}: {run.summary}", flush=True)
                except TaskloopError as refused:
                    print(refused, flush=True)
            case ["runs"]:
                for run in tasks.call(tasks.scheduler.runs):
                    print(f"{run.id} {run.job} {run.state}: {run.summary}", flush=True)
            case _:
                print("pause, resume, run NAME or runs", flush=True)
    return int(tasks.safe_stop())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
