"""The jobs of an SQLite store as JSON records, read without an event loop.

`taskloop list` has 0.15 s for the whole process, and asyncio with the engine's classes costs more than that to import.
So this file reads the tables itself and writes the records of `taskloop.records` by hand; a test holds the two against
each other. A schema it does not know it leaves to the `Ledger`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

__all__ = ["jobs"]

SCHEMA: Final = 2
BUSY_SECONDS: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_JOBS: Final = "SELECT name, definition FROM taskloop_jobs"
_DUE: Final = "SELECT job, min(next_due) FROM taskloop_schedules WHERE next_due IS NOT NULL GROUP BY job"
_SWITCHES: Final = (
    "SELECT kind, job, actor, reason, since, until FROM taskloop_switches WHERE ended_at IS NULL ORDER BY id"
)
# Of each job its newest run that is no skip, its last success, and its failures since, counted to 100.
_STANDING: Final = """
SELECT r.*, (SELECT ended_at FROM taskloop_runs WHERE job = j.name AND state = 'succeeded' ORDER BY id DESC LIMIT 1)
    AS last_success,
  CASE WHEN r.state IN ('failed', 'interrupted') THEN (SELECT count(*) FROM (SELECT id FROM taskloop_runs
    WHERE job = j.name AND state IN ('failed', 'interrupted') AND id > coalesce((SELECT max(id) FROM taskloop_runs
    WHERE job = j.name AND state = 'succeeded'), 0) LIMIT 100)) ELSE 0 END AS failures
FROM taskloop_jobs j JOIN taskloop_runs r ON r.id = (SELECT id FROM taskloop_runs
    WHERE job = j.name AND state <> 'skipped' ORDER BY id DESC LIMIT 1)
"""
_STATUS: Final = {
    "waiting": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCESS",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "interrupted": "FAILED",
    "skipped": "SKIPPED",
}


def jobs(path: str, now: datetime) -> list[dict[str, Any]] | None:
    """A record of each job some worker declared, by name; None: read it another way.

    Creates no store and waits at most BUSY_SECONDS for another process's write.
    """
    try:
        from pathlib import Path

        # Not read-only: such a connection cannot clean up the side files that reading a WAL makes.
        db = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    except sqlite3.Error:
        return None
    try:
        return _read(db, round((now - _EPOCH) / timedelta(microseconds=1)))
    except (sqlite3.Error, ValueError, KeyError):
        return None
    finally:
        db.close()


def _read(db: sqlite3.Connection, now: int) -> list[dict[str, Any]] | None:
    db.row_factory = sqlite3.Row
    db.execute("BEGIN")
    known = db.execute("SELECT value FROM taskloop_meta WHERE key = 'schema'").fetchone()
    if known is None or known["value"] != str(SCHEMA):
        return None
    switches = [one for one in db.execute(_SWITCHES) if one["until"] is None or now < one["until"]]
    dues = dict(db.execute(_DUE).fetchall())
    standing = {one["job"]: one for one in db.execute(_STANDING)}
    found = sorted(db.execute(_JOBS).fetchall(), key=lambda one: str(one["name"]))
    return [
        _record(one["name"], json.loads(one["definition"]), dues.get(one["name"]), standing.get(one["name"]), switches)
        for one in found
    ]


def _record(
    name: str, facts: Mapping[str, Any], due: int | None, last: sqlite3.Row | None, switches: list[sqlite3.Row]
) -> dict[str, Any]:
    thrown = [one for one in switches if one["kind"] != "paused" and one["job"] == name]
    switch = thrown[-1] if thrown else None
    enabled = bool(facts["policy"]["enabled"]) if switch is None else switch["kind"] == "enabled"
    held = any(one["kind"] == "paused" and one["job"] in (None, name) for one in switches)
    return {
        "name": name,
        "title": facts["title"],
        "description": facts["description"],
        "kind": facts["kind"],
        "trigger": facts["trigger"],
        "trigger_text": facts["trigger_text"],
        "policy": facts["policy"],
        "enabled": enabled,
        "switch": None if switch is None else _switch(switch),
        "condition": _condition(enabled, held, last["state"] if last else None),
        "next_due": _text(due),
        "last_run": None if last is None else _run(last),
        "last_success": None if last is None else _text(last["last_success"]),
        "consecutive_failures": 0 if last is None else last["failures"],
        "params_schema": facts["params_schema"],
    }


def _condition(enabled: bool, held: bool, state: str | None) -> str:
    if not enabled:
        return "disabled"
    if held:
        return "paused"
    words = {
        None: "never_ran",
        "waiting": "running",
        "running": "running",
        "failed": "failing",
        "interrupted": "failing",
    }
    return words.get(state, "ok")


def _switch(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "kind": row["kind"],
        "by": row["actor"],
        "at": _text(row["since"]),
        "reason": row["reason"],
        "until": _text(row["until"]),
    }


def _run(row: sqlite3.Row) -> dict[str, Any]:
    progress = json.loads(row["progress"]) if row["progress"] else None
    error = json.loads(row["error"]) if row["error"] else None
    between = row["state"] == "waiting" and row["attempt"] > 0
    return {
        "id": row["id"],
        "job": row["job"],
        "schedule": row["schedule"],
        "state": row["state"],
        "status": "RUNNING" if between else _STATUS[row["state"]],
        "reason": row["reason"],
        "cause": row["cause"],
        "actor": row["actor"],
        "key": row["key"],
        "params": json.loads(row["params"] or "{}"),
        "attempt": row["attempt"],
        "attempts": row["attempts"],
        "due_at": _text(row["due_at"]),
        "until_at": _text(row["until_at"]),
        "ready_at": _text(row["ready_at"]),
        "created_at": _text(row["created_at"]),
        "started_at": _text(row["started_at"]),
        "ended_at": _text(row["ended_at"]),
        "worker": row["worker"],
        "priority": row["priority"],
        "progress": None if progress is None else _progress(*progress),
        "summary": row["summary"],
        "result": json.loads(row["result"]) if row["result"] else None,
        "error": dict(zip(("type", "message", "traceback", "fingerprint"), error, strict=False)) if error else None,
        "rerun_of": row["rerun_of"],
        "count": row["count"],
        "data": json.loads(row["data"] or "{}"),
        "existed": False,
    }


def _progress(done: float, total: float, message: str, rate: float | None, eta: float | None) -> dict[str, Any]:
    fraction = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    return {
        "fraction": fraction,
        "done": done,
        "total": total,
        "message": message,
        "rate": rate,
        "eta_seconds": eta,
    }


def _text(moment: int | None) -> str | None:
    if moment is None:
        return None
    return (_EPOCH + timedelta(microseconds=moment)).isoformat().replace("+00:00", "Z")
