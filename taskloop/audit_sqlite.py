"""The audit in SQLite: the verbs by which people change something, each with the entry it leaves, and the list of entries.

Level 5. Plain functions of a connection, parts of a transaction that somebody else began. Each takes what the verb itself
takes in `keeping_sqlite`, `statements_sqlite` or `tokens_sqlite`, and last the entry to complete: None costs nothing, for
nobody is named. Start at `switch`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from taskloop import audit
from taskloop import keeping_sqlite as keeping
from taskloop import statements_sqlite as statements
from taskloop import tokens_sqlite as tokens
from taskloop.audit import Entry
from taskloop.clock import from_microseconds, microseconds
from taskloop.rows import SCHEDULE_COLUMNS, read_schedule
from taskloop.runs import ACTIVE, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.store_data import Cancelling
from taskloop.switches import Switch, kinds_of
from taskloop.tokens import Token

__all__ = ["add_token", "cancel", "drop", "entries", "put", "record", "revoke_tokens", "submit", "switch", "unswitch"]

_COLUMNS: Final = "at, actor, channel, action, object, job, before, after, reason, request_id"


# -- the entries


def record(db: sqlite3.Connection, new: Sequence[Entry]) -> None:
    """Write entries."""
    rows = [
        (
            microseconds(one.at), one.actor, one.channel, one.action, one.object, one.job, audit.written(one.before),
            audit.written(one.after), one.reason, one.request_id,
        )
        for one in new
    ]  # fmt: skip
    db.executemany(f"INSERT INTO taskloop_audit ({_COLUMNS}) VALUES ({','.join('?' * 10)})", rows)


def entries(
    db: sqlite3.Connection, actor: str | None, jobs: Sequence[str] | None, before: int | None, limit: int
) -> list[Entry]:
    """Entries, newest first. None: no such condition."""
    if jobs is not None and not jobs:
        return []
    conditions: list[tuple[str, Any]] = []
    if actor is not None:
        conditions.append(("actor = ?", actor))
    if before is not None:
        conditions.append(("id < ?", before))
    further = "".join(f" AND {text}" for text, _ in conditions)
    values = [value for _, value in conditions]
    if jobs is None:
        rest, given = f"FROM taskloop_audit WHERE 1{further} ORDER BY id DESC LIMIT ?", values
    else:  # by the index of jobs, a name at a time: each is in the order of the ids
        one = f"SELECT id FROM taskloop_audit INDEXED BY taskloop_audit_job WHERE job = ? AND job IS NOT NULL{further}"
        parts = " UNION ALL ".join([one] * len(jobs))
        rest = f"FROM taskloop_audit WHERE id IN (SELECT id FROM ({parts} ORDER BY id DESC LIMIT ?)) ORDER BY id DESC"
        given = [value for job in jobs for value in (job, *values)]
    rows = db.execute(f"SELECT {_COLUMNS}, id {rest}", (*given, limit)).fetchall()
    return [_entry(row) for row in rows]


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(
        at=from_microseconds(row[0]), actor=row[1], channel=row[2], action=row[3], object=row[4], job=row[5],
        before=audit.read(row[6]), after=audit.read(row[7]), reason=row[8], request_id=row[9], id=row[10],
    )  # fmt: skip


# -- the verbs


def switch(db: sqlite3.Connection, new: Switch, entry: Entry | None) -> None:
    before = None if entry is None else _open(db, new.job, kinds_of(new.kind))
    keeping.switch(db, new)
    if entry is not None:
        record(db, [audit.switched(entry, new.job, before, new, None)])


def unswitch(
    db: sqlite3.Connection, job: str | None, kinds: Sequence[str], now: datetime, actor: str | None,
    reason: str | None, missed: str | None, entry: Entry | None,
) -> int:  # fmt: skip
    before = None if entry is None else _open(db, job, kinds)
    ended = keeping.unswitch(db, job, kinds, now, actor, reason, missed)
    if entry is not None and ended:
        record(db, [audit.switched(entry, job, before, None, missed)])
    return ended


def _open(db: sqlite3.Connection, job: str | None, kinds: Sequence[str]) -> Switch | None:
    """The newest open switch of a job, or of all, of these kinds."""
    rest = "WHERE job IS ? AND ended_at IS NULL AND kind IN (SELECT value FROM json_each(?)) ORDER BY id DESC LIMIT 1"
    return next(iter(keeping.switches(db, rest, (job, json.dumps(list(kinds))))), None)


def put(
    db: sqlite3.Connection, schedules: Sequence[Schedule], merge: Any, now: int, entry: Entry | None
) -> list[Schedule]:
    if entry is None:
        return keeping.put(db, schedules, merge, now)
    old = _schedules(db, [one.id for one in schedules])
    stored = keeping.put(db, schedules, merge, now)
    changed = [one for one in stored if audit.is_changed(old.get(one.id), one)]
    record(db, [audit.scheduled(entry, old.get(one.id), one) for one in changed])
    return stored


def drop(db: sqlite3.Connection, ids: Sequence[str], now: int, entry: Entry | None) -> int:
    old = {} if entry is None else _schedules(db, ids)
    dropped = keeping.drop(db, ids, now)
    if entry is not None:
        record(db, [audit.scheduled(entry, one, None) for one in old.values()])
    return dropped


def _schedules(db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Schedule]:
    rows = db.execute(
        f"SELECT {','.join(SCHEDULE_COLUMNS)} FROM taskloop_schedules WHERE id IN (SELECT value FROM json_each(?)) "
        "ORDER BY id",
        (json.dumps(list(ids)),),
    )
    return {row[0]: read_schedule(row) for row in rows.fetchall()}


def submit(db: sqlite3.Connection, runs: tuple[Run, ...], entry: Entry | None) -> list[Run]:
    (answer,) = statements.submit(db, [runs])
    if isinstance(answer, Exception):
        raise answer
    written: list[Run] = answer
    if entry is not None:
        record(db, audit.submitted(entry, written))
    return written


def cancel(
    db: sqlite3.Connection, run: RunId, actor: str | None, reason: str | None, now: datetime, waiting_only: bool,
    entry: Entry | None,
) -> Cancelling | None:  # fmt: skip
    before = None
    if entry is not None:
        before = db.execute("SELECT state FROM taskloop_runs WHERE id = ?", (run,)).fetchone()
    done = statements.cancel(db, run, actor, reason, now, waiting_only)
    if entry is not None and before is not None and done is not None:
        state = State(before[0])
        if state in ACTIVE and (done.wished or done.run.state is not state):
            record(db, [audit.cancelled(entry, done.run.changed(state=state), done.run)])
    return done


def add_token(db: sqlite3.Connection, token: Token, entry: Entry | None) -> None:
    tokens.add(db, token)
    if entry is not None:
        record(db, [audit.tokened(entry, token)])


def revoke_tokens(
    db: sqlite3.Connection, which: str, now: int, actor: str | None, reason: str | None, entry: Entry | None
) -> list[Token]:
    revoked = tokens.revoke(db, which, now, actor, reason)
    if entry is not None:
        record(db, [audit.tokened(entry, one) for one in revoked])
    return revoked
