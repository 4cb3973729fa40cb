"""The audit in PostgreSQL: the verbs by which people change something, each with the entry it leaves, and the entries.

Level 5. Plain functions of a connection, parts of a transaction that somebody else began. Each takes what the verb itself
takes in `keeping_postgres`, `statements_postgres` or `tokens_postgres`, and last the entry to complete: None costs nothing,
for nobody is named. What stood there before is read under the lock of its row, so that nobody changes it meanwhile.
Start at `switch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from taskloop import audit
from taskloop import keeping_postgres as keeping
from taskloop import statements_postgres as statements
from taskloop import tokens_postgres as tokens
from taskloop.audit import Entry
from taskloop.clock import from_microseconds, microseconds
from taskloop.rows_postgres import SCHEDULE, Db, arrays, heard, kept, read_schedules
from taskloop.runs import ACTIVE, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.store import Merge
from taskloop.store_data import Cancelling
from taskloop.switches import Switch, kinds_of
from taskloop.tokens import Token

__all__ = ["add_token", "ask", "cancel", "drop", "entries", "put", "record", "revoke_tokens", "switch", "unswitch"]

_COLUMNS: Final = "at, actor, channel, action, object, job, before, after, reason, request_id"


# -- the entries


async def record(db: Db, new: Sequence[Entry]) -> None:
    """Write entries."""
    if not new:
        return
    rows = [
        (
            microseconds(one.at), kept(one.actor), one.channel, one.action, one.object, one.job, audit.written(one.before),
            audit.written(one.after), kept(one.reason), one.request_id,
        )
        for one in new
    ]  # fmt: skip
    await db.execute(
        f"INSERT INTO taskloop.audit ({_COLUMNS}) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], "
        "$5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])",
        *arrays(rows, 10),
    )


async def entries(db: Db, actor: str | None, jobs: Sequence[str] | None, before: int | None, limit: int) -> list[Entry]:
    """Entries, newest first. None: no such condition."""
    values: list[Any] = [limit]

    def given(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    further = "" if actor is None else f" AND actor = {given(kept(actor))}"
    further += "" if before is None else f" AND id < {given(before)}"
    order = "ORDER BY id DESC LIMIT $1"
    if jobs is None:
        rest = f"FROM taskloop.audit WHERE true{further} {order}"
    else:  # by the index of jobs, a name at a time: each is in the order of the ids
        rest = (
            f"FROM (SELECT DISTINCT name FROM unnest({given(list(jobs))}::text[]) u(name)) j CROSS JOIN LATERAL (SELECT * "
            f"FROM taskloop.audit WHERE job = j.name AND job IS NOT NULL{further} {order}) a {order}"
        )
    return [_entry(row) for row in await db.fetch(f"SELECT {_COLUMNS}, id {rest}", *values)]


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(
        at=from_microseconds(row[0]), actor=heard(row[1]) or "", channel=row[2], action=row[3], object=row[4], job=row[5],
        before=audit.read(row[6]), after=audit.read(row[7]), reason=heard(row[8]), request_id=row[9], id=row[10],
    )  # fmt: skip


# -- the verbs


async def switch(db: Db, new: Switch, entry: Entry | None) -> None:
    before = None if entry is None else await _open(db, new.job, kinds_of(new.kind))
    await keeping.switch(db, new)
    if entry is not None:
        await record(db, [audit.switched(entry, new.job, before, new, None)])


async def unswitch(
    db: Db, job: str | None, kinds: Sequence[str], now: datetime, actor: str | None, reason: str | None,
    missed: str | None, entry: Entry | None,
) -> int:  # fmt: skip
    before = None if entry is None else await _open(db, job, kinds)
    ended = await keeping.unswitch(db, job, kinds, now, actor, reason, missed)
    if entry is not None and ended:
        await record(db, [audit.switched(entry, job, before, None, missed)])
    return ended


async def _open(db: Db, job: str | None, kinds: Sequence[str]) -> Switch | None:
    """The newest open switch of a job, or of all, of these kinds."""
    rest = "WHERE job IS NOT DISTINCT FROM $1 AND ended_at IS NULL AND kind = ANY($2::text[]) ORDER BY id DESC LIMIT 1"
    return next(iter(await keeping.switches(db, rest, job, list(kinds))), None)


async def put(db: Db, schedules: Sequence[Schedule], merge: Merge, now: int, entry: Entry | None) -> list[Schedule]:
    if entry is None:
        return await keeping.put(db, schedules, merge, now)
    old = await _schedules(db, [one.id for one in schedules])
    stored = await keeping.put(db, schedules, merge, now)
    changed = [one for one in stored if audit.is_changed(old.get(one.id), one)]
    await record(db, [audit.scheduled(entry, old.get(one.id), one) for one in changed])
    return stored


async def drop(db: Db, ids: Sequence[str], now: int, entry: Entry | None) -> int:
    old = {} if entry is None else await _schedules(db, ids)
    dropped = await keeping.drop(db, ids, now)
    if entry is not None:
        await record(db, [audit.scheduled(entry, one, None) for one in old.values()])
    return dropped


async def _schedules(db: Db, ids: Sequence[str]) -> dict[str, Schedule]:
    rows = await db.fetch(
        f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE", list(ids)
    )
    return {one.id: one for one in read_schedules(rows)}


async def ask(db: Db, calls: Sequence[tuple[tuple[Run, ...], Entry]], *, patient: bool = False) -> list[Any]:
    """`statements.submit` of calls that somebody is named for."""
    answers = await statements.submit(db, [runs for runs, _ in calls], patient=patient)
    done = [
        one
        for (_, entry), answer in zip(calls, answers, strict=True)
        if not isinstance(answer, Exception)
        for one in audit.submitted(entry, answer)
    ]
    await record(db, done)
    return answers


async def cancel(
    db: Db, run: RunId, actor: str | None, reason: str | None, now: datetime, waiting_only: bool, entry: Entry | None
) -> Cancelling | None:
    before = None
    if entry is not None:
        before = await db.fetchval("SELECT state FROM taskloop.runs WHERE id = $1 FOR UPDATE", run)
    done = await statements.cancel(db, run, actor, reason, now, waiting_only)
    if entry is not None and before is not None and done is not None:
        state = State(before)
        if state in ACTIVE and (done.wished or done.run.state is not state):
            await record(db, [audit.cancelled(entry, done.run.changed(state=state), done.run)])
    return done


async def add_token(db: Db, token: Token, entry: Entry | None) -> None:
    await tokens.add(db, token)
    if entry is not None:
        await record(db, [audit.tokened(entry, token)])


async def revoke_tokens(
    db: Db, which: str, now: int, actor: str | None, reason: str | None, entry: Entry | None
) -> list[Token]:
    revoked = await tokens.revoke(db, which, now, actor, reason)
    if entry is not None:
        await record(db, [audit.tokened(entry, one) for one in revoked])
    return revoked
