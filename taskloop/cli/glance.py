"""The jobs of an SQLite store as JSON records, read without an event loop.

`taskloop list` has 0.15 s for the whole process, and asyncio with the engine's classes costs more than that to import.
So this file reads the tables itself and writes the records of `taskloop.records` by hand; a test holds the two against
each other. A schema it does not know it leaves to the `Ledger`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

from taskloop import history_sqlite as history
from taskloop.processes import is_dead, lease_seconds, silent_seconds
from taskloop.punctuality import Usual, condition, overdue, stuck

__all__ = ["jobs"]

SCHEMA: Final = 6
BUSY_SECONDS: Final = 5.0
LEASE: Final = timedelta(seconds=15)
"""As `scheduler.lease` is unless somebody says otherwise: what a command that only reads goes by."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_JOBS: Final = "SELECT name, definition FROM taskloop_jobs"
_DUE: Final = "SELECT job, min(next_due) FROM taskloop_schedules WHERE next_due IS NOT NULL GROUP BY job"
_SWITCHES: Final = (
    "SELECT kind, job, actor, reason, since, until FROM taskloop_switches WHERE ended_at IS NULL ORDER BY id"
)
_RUNNING: Final = "SELECT job, attempt_started_at FROM taskloop_runs WHERE state = 'running' LIMIT 1000"
_WORKERS: Final = (
    "SELECT host, pid, process, beat_at, beat_tick, jobs, health FROM taskloop_workers WHERE stopped_at IS NULL"
)
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
    found = sorted(db.execute(_JOBS).fetchall(), key=lambda one: str(one["name"]))
    standing = {one["job"]: one for one in history.standing(db, "r.*", [one["name"] for one in found])}
    facts = {one["name"]: json.loads(one["definition"]) for one in found}
    running = db.execute(_RUNNING).fetchall()
    troubles = _troubles(db, now, facts, dues, switches, running)
    in_hand = {row["job"] for row in running}
    orphans = _orphans(db, now, facts)
    return [
        _record(
            name,
            said,
            dues.get(name),
            standing.get(name),
            switches,
            trouble=troubles.get(name),
            orphan=name in orphans,
            running=name in in_hand,
        )
        for name, said in facts.items()
    ]


def _troubles(
    db: sqlite3.Connection,
    now: int,
    facts: Mapping[str, Any],
    dues: Mapping[str, int],
    switches: Sequence[sqlite3.Row],
    running: Sequence[sqlite3.Row],
) -> dict[str, str]:
    """Jobs with a run that is stuck, or with something that is overdue; the former outweighs the latter."""
    at, found = _instant(now), {}
    for name, due in dues.items():
        if name in facts and overdue(_instant(due), at) and _is_on(name, facts[name], switches):
            found[name] = "overdue"
    for row in history.late(db, "job, ready_at", now, each=1):
        if overdue(_instant(row["ready_at"]), at):
            found.setdefault(row["job"], "overdue")
    for row in running:
        began, expect = row["attempt_started_at"], facts.get(row["job"], {}).get("policy", {}).get("expect")
        if began is None or not overdue(_instant(began), at):
            continue
        took = history.usual(db, [row["job"]]).get(row["job"])
        if stuck(_instant(began), at, Usual.of(took) if took else None, _span(expect)):
            found[row["job"]] = "stuck"
    return found


def _span(text: str | None) -> timedelta | None:
    if text is None:
        return None
    from taskloop.durations import parse

    return parse(text)


def _orphans(db: sqlite3.Connection, now: int, facts: Mapping[str, Any]) -> set[str]:
    """Jobs that no live worker knows, where one is there to tell."""
    living = [one for one in db.execute(_WORKERS) if _lives(one, now)]
    if not living or any(one["jobs"] is None for one in living):
        return set()
    return set(facts) - {name for one in living for name in json.loads(one["jobs"])}


def _lives(row: sqlite3.Row, now: int) -> bool:
    worker: Any = SimpleNamespace(**{**dict(row), "health": json.loads(row["health"] or "{}")})
    if is_dead(worker):
        return False
    silent, lease = silent_seconds(worker, time.monotonic()), lease_seconds(worker, LEASE)
    return silent <= lease if silent is not None else now - worker.beat_at <= lease * 1_000_000


def _is_on(name: str, facts: Mapping[str, Any], switches: Sequence[sqlite3.Row]) -> bool:
    thrown = _thrown(name, facts, switches)
    return bool(facts["policy"]["enabled"]) if thrown is None else thrown["kind"] == "enabled"


def _thrown(name: str, facts: Mapping[str, Any], switches: Sequence[sqlite3.Row]) -> sqlite3.Row | None:
    names = {name, *facts.get("aliases", ())}
    return next((one for one in reversed(switches) if one["kind"] != "paused" and one["job"] in names), None)


def _instant(moment: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment)


def _record(
    name: str,
    facts: Mapping[str, Any],
    due: int | None,
    last: sqlite3.Row | None,
    switches: list[sqlite3.Row],
    *,
    trouble: str | None,
    orphan: bool,
    running: bool,
) -> dict[str, Any]:
    switch, enabled = _thrown(name, facts, switches), _is_on(name, facts, switches)
    paused = {one["job"]: one for one in switches if one["kind"] == "paused"}
    pause = paused.get(name) or paused.get(None)
    if enabled and pause is not None:
        switch = pause
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
        "condition": condition(
            state=last["state"] if last else None,
            enabled=enabled,
            paused=pause is not None,
            orphan=orphan,
            stuck=trouble == "stuck",
            overdue=trouble is not None,
            running=running,
            begun=last is not None and last["attempt"] > 0,
            failures=last["failures"] if last else 0,
            succeeded=last is not None and last["last_success"] is not None,
        ),
        "next_due": _text(due),
        "last_run": None if last is None else _run(last),
        "last_success": None if last is None else _text(last["last_success"]),
        "consecutive_failures": 0 if last is None else last["failures"],
        "params_schema": facts["params_schema"],
        **({"steps": facts["steps"]} if "steps" in facts else {}),
    }


def _switch(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "kind": row["kind"],
        "by": row["actor"],
        "at": _text(row["since"]),
        "reason": row["reason"],
        "until": _text(row["until"]),
    }


def _params(text: str | None) -> dict[str, Any]:
    if text and '"$secret"' in text:
        from taskloop.masking import read_params, shown

        return shown(read_params(text))
    return json.loads(text) if text else {}


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
        "params": _params(row["params"]),
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


def _progress(
    done: float, total: float, message: str, rate: float | None, eta: float | None, ahead: float = 0.0, *_: Any
) -> dict[str, Any]:
    fraction = min(1.0, max(0.0, done / total + ahead)) if total > 0 else 0.0
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
