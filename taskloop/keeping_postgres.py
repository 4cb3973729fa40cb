"""The rooms around the runs, in PostgreSQL: workers, switches, incidents, schedules, and other names.

Level 5. Plain functions of a connection, like those of `statements_postgres`, which has the way of a run. Those that
change something are parts of a transaction that somebody else began and, but for beats, holds the lock `KEEPING` of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.rows import WORKER_COLUMNS, instant, moment, read_worker, told, worker_values
from taskloop.rows_postgres import RUN, SCHEDULE, Db, arrays, changed, heard, kept, read_runs, read_schedules
from taskloop.runs import Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.statements_postgres import Known, count_days, put_schedules
from taskloop.store import Merge, Rewind
from taskloop.store_data import Definition, Incident, Renamed, Wish, Worker
from taskloop.switches import Switch, Switches, kinds_of

FOR_EVER: Final = 2**62
"""An instant after all others."""
FACTS_SINCE: Final = "facts_since"
"""Under this key the store says how old what it still has of workers, switches, incidents and former schedules is."""

SOONEST: Final = 5_000
"""Schedules, the soonest of all, that are looked through for those of some jobs."""


# -- workers

_WORKER: Final = ",".join(WORKER_COLUMNS)
_PLACES: Final = ",".join(f"${place}" for place, _ in enumerate(WORKER_COLUMNS, 1))
_CHANGES: Final = ",".join(f"{name} = excluded.{name}" for name in WORKER_COLUMNS[1:])
_INSERT: Final = (
    f"INSERT INTO taskloop.workers ({_WORKER}) VALUES ({_PLACES}) ON CONFLICT (id) DO UPDATE SET {_CHANGES}"
)


async def enlist(db: Db, worker: Worker) -> list[Worker]:
    """Record a worker; gives the others not known to have stopped. One statement, for all who start wait for their turn."""
    columns = ", ".join(f"w.{name}" for name in WORKER_COLUMNS)
    rows = await db.fetch(
        f"WITH ours AS ({_INSERT} RETURNING id) SELECT {columns} FROM ours LEFT JOIN taskloop.workers w "
        "ON w.stopped_at IS NULL AND w.id <> ours.id ORDER BY w.started_at, w.id LIMIT 10000",
        *worker_values(worker),
    )
    return [read_worker(row) for row in rows if row[0] is not None]


async def beat(db: Db, worker: Worker, now: int, tick: float, health: str | None) -> bool:
    """Say that a worker lives; False: it was taken for dead meanwhile."""
    row = await db.fetchrow("SELECT stopped_at, ended FROM taskloop.workers WHERE id = $1 FOR UPDATE", worker.id)
    if row is None:  # buried so long ago that its row is pruned
        await db.execute(_INSERT, *worker_values(worker))
    elif row[1] == "stopped":  # it has left, and this beat was under way
        return True
    await db.execute(
        "UPDATE taskloop.workers SET beat_at = $1, beat_tick = $2, health = $3, stopped_at = NULL, ended = NULL WHERE id = $4",
        now, tick, health, worker.id,
    )  # fmt: skip
    return row is not None and row[0] is None


async def has_jobs(db: Db, worker: str, jobs: Sequence[str]) -> None:
    await db.execute("UPDATE taskloop.workers SET jobs = $1 WHERE id = $2", json.dumps(sorted(jobs)), worker)


async def leave(db: Db, worker: str, at: int) -> None:
    await db.execute("UPDATE taskloop.workers SET stopped_at = $1, ended = 'stopped' WHERE id = $2", at, worker)


async def bury(db: Db, worker: Worker) -> bool:
    """Record the death of a worker, at its last beat; whoever has beaten since it was read, or does just now, lives.

    Where another is at it, that one will have done it: of two hundred workers all see the silence at one moment.
    """
    status = await db.execute(
        "UPDATE taskloop.workers SET stopped_at = $1, ended = 'died' WHERE id = (SELECT id FROM taskloop.workers "
        "WHERE id = $2 AND stopped_at IS NULL AND beat_at = $1 AND beat_tick IS NOT DISTINCT FROM $3 "
        "FOR UPDATE SKIP LOCKED)",
        microseconds(worker.beat_at), worker.id, worker.beat_tick,
    )  # fmt: skip
    return changed(status) > 0


async def workers(db: Db, rest: str, *values: Any) -> list[Worker]:
    return [read_worker(row) for row in await db.fetch(f"SELECT {_WORKER} FROM taskloop.workers {rest}", *values)]


async def take_wishes(db: Db, worker: str) -> list[Wish]:
    rows = await db.fetch(
        "DELETE FROM taskloop.wishes WHERE id IN (SELECT w.id FROM taskloop.wishes w WHERE coalesce((SELECT "
        "coalesce(r.worker = $1, false) OR r.state <> 'running' FROM taskloop.runs r WHERE r.id = w.run), true) "
        "ORDER BY w.id LIMIT 1000 FOR UPDATE OF w SKIP LOCKED) RETURNING id, run, actor, reason",
        worker,
    )
    return [Wish(RunId(row[1]), heard(row[2]), heard(row[3])) for row in sorted(rows, key=lambda row: row[0])]


async def wish_again(db: Db, wishes: Sequence[Wish]) -> None:
    """Put wishes back that were taken, and reached nobody."""
    await db.execute(
        "INSERT INTO taskloop.wishes (run, kind, actor, reason, at) "
        "SELECT run, 'cancel', actor, reason, 0 FROM unnest($1::bigint[], $2::text[], $3::text[]) v(run, actor, reason)",
        *arrays([(one.run, kept(one.actor), kept(one.reason)) for one in wishes], 3),
    )


async def note(db: Db, incidents: Sequence[Incident]) -> None:
    rows = [
        (one.worker, one.kind, microseconds(one.since), microseconds(one.until), told(dict(one.data)))
        for one in incidents
    ]
    await db.execute(
        "INSERT INTO taskloop.incidents (worker, kind, since, until, data) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])",
        *arrays(rows, 5),
    )


async def incidents(db: Db, since: int, until: int, limit: int = 1000) -> list[Incident]:
    """What disturbed any worker between two instants, newest first."""
    rows = await db.fetch(
        "SELECT worker, kind, since, until, data FROM taskloop.incidents WHERE until >= $1 AND since <= $2 "
        "ORDER BY until DESC, id DESC LIMIT $3",
        since, until, limit,
    )  # fmt: skip
    return [
        Incident(row[0], row[1], from_microseconds(row[2]), from_microseconds(row[3]), json.loads(row[4] or "{}"))
        for row in rows
    ]


# -- jobs and schedules


async def are_defined(db: Db, definitions: Sequence[Definition]) -> bool:
    """Whether all of these stand there already, as at nearly every start: who sees so need not wait for its turn."""
    wanted = {one.name: json.dumps(one.facts) for one in definitions}
    rows = await db.fetch("SELECT name, definition FROM taskloop.jobs WHERE name = ANY($1::text[])", list(wanted))
    return {row[0]: row[1] for row in rows} == wanted


async def define(db: Db, definitions: Sequence[Definition]) -> None:
    last = {one.name: one for one in definitions}
    rows = [(one.name, json.dumps(one.facts), one.origin, microseconds(one.seen_at)) for one in last.values()]
    await db.execute(
        "INSERT INTO taskloop.jobs AS j (name, definition, origin, seen_at) "
        "SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) ON CONFLICT (name) "
        "DO UPDATE SET definition = excluded.definition, origin = excluded.origin, seen_at = excluded.seen_at "
        "WHERE j.definition <> excluded.definition",
        *arrays(rows, 4),
    )


async def definitions(db: Db, without: Sequence[str]) -> list[Definition]:
    rows = await db.fetch(
        "SELECT name, definition, origin, seen_at FROM taskloop.jobs WHERE NOT name = ANY($1::text[]) ORDER BY name",
        without,
    )
    return [Definition(row[0], json.loads(row[1]), row[2], from_microseconds(row[3])) for row in rows]


async def aliases(db: Db) -> dict[str, str]:
    """Every alias that a stored definition names, and the job that has it."""
    return dict(await named_twice(db))


async def named_twice(db: Db) -> list[tuple[str, str]]:
    """Each alias of each job, and the job. They are read here, not by the server: it refuses the whole of a JSON text in
    which any text has a NUL, as the default of a parameter may.
    """
    rows = await db.fetch(
        'SELECT name, definition FROM taskloop.jobs WHERE definition LIKE \'%"aliases": ["%\' ORDER BY name DESC'
    )
    found = [(json.loads(definition).get("aliases"), job) for job, definition in rows]
    return [(str(alias), job) for names, job in found if isinstance(names, list) for alias in names]


_TAKEN: Final = (
    "(SELECT 1 FROM taskloop.runs n WHERE n.job = $2 AND n.key = r.key AND n.key IS NOT NULL "
    "AND n.state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped'))"
)


async def rename(db: Db, names: Mapping[str, str], now: int, limit: int) -> Renamed:
    """Give what stands under old job names to the new ones: all that is to come, and `limit` records of each history.

    A declared schedule goes on under its new id, cursor and all, unless that id has one already. The newest records go
    first, since a clock that is set back asks what was decided of late.
    """
    moved: list[str] = []
    ended: list[Run] = []
    active = more = False
    for old, new in names.items():
        if await _rename_schedules(db, old, new, now):
            moved.append(old)
        known = changed(await db.execute("DELETE FROM taskloop.jobs WHERE name = $1", old))
        ended += await _supersede(db, old, new, now)
        runs = await _runs_of(db, old, "= 'waiting'", FOR_EVER) + await _runs_of(db, old, "= 'running'", FOR_EVER)
        past = await _runs_of(db, old, "NOT IN ('waiting', 'running')", limit + 1)
        await _rename_runs(db, old, new, [*runs, *past[:limit]])
        await relabel(db, {old: new}, now)
        active |= bool(runs)
        if len(past) > limit:
            more = True
        elif known or runs or past:
            await db.execute(
                "INSERT INTO taskloop.counters AS c (day, job, state, shard, runs, took) "
                "SELECT day, $1::text, state, shard, runs, took FROM taskloop.counters WHERE job = $2 "
                "ON CONFLICT (day, job, state, shard) "
                "DO UPDATE SET runs = c.runs + excluded.runs, took = c.took + excluded.took",
                new, old,
            )  # fmt: skip
            await db.execute("DELETE FROM taskloop.counters WHERE job = $1", old)
    return Renamed(moved, active, ended, more)


async def _rename_schedules(db: Db, old: str, new: str, now: int) -> bool:
    """Give schedules, former ones and switches to a new name; gives whether the declared one goes on under it."""
    here = "WHERE id = $1 AND job = $1 AND origin <> 'stored'"
    status = await db.execute(
        f"UPDATE taskloop.schedules SET id = $2, job = $2 {here} "
        "AND NOT EXISTS (SELECT 1 FROM taskloop.schedules WHERE id = $2)",
        old, new,
    )  # fmt: skip
    await db.execute(  # where both have fired, as in a roll-out that was taken back for a while, the later cursor counts
        "UPDATE taskloop.schedules n SET next_due = o.next_due, last_due = o.last_due, anchor = o.anchor "
        "FROM taskloop.schedules o WHERE n.id = $2 AND o.id = $1 AND o.job = $1 AND o.origin <> 'stored' "
        "AND n.trigger = o.trigger AND coalesce(n.last_due, 0) < coalesce(o.last_due, 0)",
        old, new,
    )  # fmt: skip
    await drop(db, [row[0] for row in await db.fetch(f"SELECT id FROM taskloop.schedules {here}", old)], now)
    await db.execute("UPDATE taskloop.schedules SET job = $2 WHERE job = $1 AND origin = 'stored'", old, new)
    await db.execute("UPDATE taskloop.switches SET job = $2 WHERE job = $1", old, new)
    await db.execute(
        "UPDATE taskloop.former f SET id = CASE id WHEN $1 THEN $2 ELSE id END, job = $2 WHERE job = $1 AND (id <> $1 "
        "OR NOT EXISTS (SELECT 1 FROM taskloop.former t WHERE t.id = $2 AND t.until = f.until))",
        old, new,
    )  # fmt: skip
    return changed(status) > 0


RELABELLED: Final = 86_400_000_000
"""How far back records go over with a schedule's id: as long as a clock that is set back may ask for them."""


async def relabel(db: Db, names: Mapping[str, str], now: int) -> None:
    """Give declared schedules, and what was decided of them of late, or of what is to come, to new ids (old: new): what is
    on record under one name is not fired under the other.
    """
    for old, new in names.items():
        await db.execute(
            "UPDATE taskloop.schedules SET id = $2, job = $2 WHERE id = $1 AND job = $1 AND origin <> 'stored' "
            "AND NOT EXISTS (SELECT 1 FROM taskloop.schedules WHERE id = $2)",
            old, new,
        )  # fmt: skip
        await db.execute(
            "UPDATE taskloop.runs r SET schedule = $2 WHERE schedule = $1 AND due_at >= $3 "
            "AND NOT EXISTS (SELECT 1 FROM taskloop.runs t WHERE t.schedule = $2 AND t.due_at = r.due_at)",
            old, new, now - RELABELLED,
        )  # fmt: skip


async def _supersede(db: Db, old: str, new: str, now: int) -> list[Run]:
    """A run that waits under the old name gives way to one of the same key under the new: it was asked for once."""
    twice = await db.fetch(
        f"SELECT {RUN} FROM taskloop.runs r WHERE job = $1 AND state = 'waiting' AND EXISTS {_TAKEN} ORDER BY id FOR UPDATE",
        old, new,
    )  # fmt: skip
    ended = [
        run.changed(state=State.CANCELLED, reason="superseded", ended_at=from_microseconds(now))
        for run in read_runs(twice)
    ]
    await db.execute(
        "UPDATE taskloop.runs SET state = 'cancelled', reason = 'superseded', ended_at = $1 WHERE id = ANY($2::bigint[])",
        now, [run.id for run in ended],
    )  # fmt: skip
    await count_days(db, ended)
    return [run.changed(job=new) for run in ended]


async def _runs_of(db: Db, job: str, states: str, limit: int) -> list[int]:
    rows = await db.fetch(
        f"SELECT id FROM taskloop.runs WHERE job = $1 AND state {states} ORDER BY id DESC LIMIT $2", job, limit
    )
    return [row[0] for row in rows]


async def _rename_runs(db: Db, old: str, new: str, ids: Sequence[int]) -> None:
    """Give records a new job; a due instant or a key that the new one has used already stays with that."""
    if not ids:
        return
    these = "id = ANY($1::bigint[])"
    await db.execute(f"UPDATE taskloop.runs r SET key = NULL WHERE {these} AND EXISTS {_TAKEN}", ids, new)
    await db.execute(
        f"UPDATE taskloop.runs r SET schedule = $2 WHERE {these} AND schedule = $3 "
        "AND NOT EXISTS (SELECT 1 FROM taskloop.runs t WHERE t.schedule = $2 AND t.due_at = r.due_at)",
        ids, new, old,
    )  # fmt: skip
    await db.execute(f"UPDATE taskloop.runs SET job = $2 WHERE {these}", ids, new)


_FORMER: Final = "id, until, job, trigger, anchor, seen_at, origin"
_AS_FORMER: Final = (
    "ON CONFLICT (id, until) DO UPDATE SET job = excluded.job, trigger = excluded.trigger, anchor = excluded.anchor, "
    "seen_at = excluded.seen_at, origin = excluded.origin"
)


async def next_dues(db: Db, jobs: Sequence[str]) -> dict[str, int]:
    """When each of these jobs is due next, those that are.

    The soonest of all schedules are looked through first: a job with a million of them is nearly always among these. Of a
    job that is not all of its own are.
    """
    soonest = await db.fetch(
        "SELECT job, min(next_due), count(*) FROM (SELECT job, next_due FROM taskloop.schedules "
        "WHERE next_due IS NOT NULL ORDER BY next_due LIMIT $1) s GROUP BY job",
        SOONEST,
    )
    found = {row[0]: row[1] for row in soonest}
    left = [job for job in jobs if job not in found]
    if left and sum(row[2] for row in soonest) == SOONEST:
        rows = await db.fetch(
            "SELECT job, min(next_due) FROM taskloop.schedules WHERE next_due IS NOT NULL AND job = ANY($1::text[]) "
            "GROUP BY job",
            left,
        )
        found |= {row[0]: row[1] for row in rows}
    return {job: found[job] for job in jobs if job in found}


async def unchanged(db: Db, schedules: Sequence[Schedule], merge: Merge) -> list[Schedule] | None:
    """The schedules as they would be stored, if that changes nothing; None: it would, or may."""
    rows = await db.fetch(
        f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE id = ANY($1::text[])", [one.id for one in schedules]
    )
    old = {one.id: one for one in read_schedules(rows)}
    if not all(one.id in old and old[one.id].trigger == one.trigger for one in schedules):
        return None
    merged = [merge(old[one.id], one) for one in schedules]
    return merged if all(one == old[one.id] for one in merged) else None


async def put(db: Db, schedules: Sequence[Schedule], merge: Merge, now: int) -> list[Schedule]:
    """Store schedules, and keep those that they replace among the former ones."""
    merged, replaced = await put_schedules(db, schedules, merge)
    await _note_former(db, [(one, now) for one in replaced])
    return merged


async def _note_former(db: Db, schedules: Iterable[tuple[Schedule, int]]) -> None:
    """Keep schedules that stood so until an instant."""
    rows = {
        one.id: (one.id, until, one.job, str(one.trigger), moment(one.anchor), microseconds(one.seen_at), one.origin)
        for one, until in schedules
    }
    if rows:
        await db.execute(
            f"INSERT INTO taskloop.former ({_FORMER}) SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], "
            f"$4::text[], $5::bigint[], $6::bigint[], $7::text[]) {_AS_FORMER}",
            *arrays(rows.values(), 7),
        )


async def drop(db: Db, ids: Sequence[str], now: int) -> int:
    await db.execute(
        f"INSERT INTO taskloop.former ({_FORMER}) SELECT id, $2, job, trigger, anchor, seen_at, origin "
        f"FROM taskloop.schedules WHERE id = ANY($1::text[]) {_AS_FORMER}",
        ids, now,
    )  # fmt: skip
    return changed(await db.execute("DELETE FROM taskloop.schedules WHERE id = ANY($1::text[])", ids))


async def rewind(
    db: Db, known: Known, decide: Rewind, now: int, back: int | None, boot: str, since: float, tick: float
) -> int:
    """Move the cursors of known jobs for a step of this machine's clock; gives how many. All in one transaction.

    Those that were moved for this step already, by the first of this machine that knew the job, stay. Every machine has
    a key of its own.
    """
    key = f"clock_step {boot}"
    value = await db.fetchval("SELECT value FROM taskloop.meta WHERE key = $1", key)
    until, moved = json.loads(value) if value else (0.0, [])
    if until <= since:
        until, moved = tick, []
        await _hasten(db, now, back)
    ours = set(known.terms) - set(moved)
    if not ours:
        return 0
    await _write_meta(db, key, json.dumps([until, sorted({*moved, *ours})]))

    def ours_alone(schedule: Schedule, decided: Sequence[tuple[datetime, datetime]]) -> Schedule:
        return decide(schedule, decided) if schedule.job in ours else schedule

    return (await move_cursors(db, known, ours_alone, now, "", FOR_EVER))[0]


_ELAPSED: Final = "(attempt > 0 OR created_at >= ready_at OR ready_at <> due_at)"
"""Waits for a retry, a place or a slot; a run that was asked for at an instant is ready when it is due, and not before."""
_LATER: Final = "(SELECT max(a.ended_at) FROM taskloop.attempts a WHERE a.run = taskloop.runs.id)"
"""When an attempt of a run ended last: of one that was asked for before the clock went ahead this tells that it did."""


async def _hasten(db: Db, now: int, back: int | None) -> None:
    """Let what waits since, or until, an instant that a clock set back by `back` has still to come to wait no longer,
    and what is switched since such an instant be switched since now.

    `back` None: nobody knows by how much; what was written in the future is ready now, or tripped since now. A run that was asked for at an
    instant of the wall clock keeps it.
    """
    waits = "UPDATE taskloop.runs SET ready_at = {} WHERE state = 'waiting' AND ready_at > $1 AND {}"
    if back is None:
        await db.execute(waits.format("$1", f"(created_at > $1 OR {_LATER} > $1) AND {_ELAPSED}"), now)
        await db.execute(
            "UPDATE taskloop.switches SET until = $1 + until - since WHERE kind = 'tripped' AND ended_at IS NULL AND since > $1",
            now,
        )
    else:
        await db.execute(waits.format("greatest($1, ready_at - $2)", _ELAPSED), now, back)
        await db.execute(
            "UPDATE taskloop.switches SET until = greatest($1, until - $2) WHERE kind = 'tripped' AND ended_at IS NULL AND until > $1",
            now, back,
        )  # fmt: skip
    await db.execute("UPDATE taskloop.switches SET since = $1 WHERE ended_at IS NULL AND since > $1", now)


async def rules_of(db: Db, key: str) -> str | None:
    """By which rules of the time zones the cursors were set; None: nothing is noted."""
    value: str | None = await db.fetchval("SELECT value FROM taskloop.meta WHERE key = $1", key)
    return value


async def rules_changed(db: Db, rules: str, key: str) -> bool:
    """Whether the cursors were set by other rules of the time zones than these; where nothing is noted, by these."""
    value = await rules_of(db, key)
    if value is None:
        await note_rules(db, rules, key)
    return value is not None and value != rules


async def note_rules(db: Db, rules: str, key: str) -> None:
    await _write_meta(db, key, rules)


async def _write_meta(db: Db, key: str, value: str) -> None:
    await db.execute(
        "INSERT INTO taskloop.meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
    )


async def move_cursors(
    db: Db, known: Known, decide: Rewind, now: int | None, after: str, limit: int
) -> tuple[int, str | None]:
    """Move cursors of known jobs, `limit` schedules by id; gives how many moved, and the id to go on with.

    `now` None: what is decided already does not matter. An interval whose grid moves stays as it stood among the former
    ones: what was due before is asked of that.
    """
    rows = await db.fetch(
        f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE job = ANY($1::text[]) AND id > $2 ORDER BY id LIMIT $3 FOR UPDATE",
        list(known.terms), after, limit,
    )  # fmt: skip
    moved, shifted = [], []
    for old in read_schedules(rows):
        new = decide(old, () if now is None else await _decided(db, old.id, now))
        if new != old:
            moved.append((old.id, moment(new.next_due), moment(new.last_due), moment(new.anchor)))
        if now is not None and new.anchor != old.anchor:
            shifted.append((old, max(now, 1 + (moment(new.last_due) or 0))))
    await _note_former(db, shifted)
    if moved:
        await db.execute(
            "UPDATE taskloop.schedules s SET next_due = v.next_due, last_due = v.last_due, anchor = v.anchor "
            "FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) v(id, next_due, last_due, anchor) "
            "WHERE s.id = v.id",
            *arrays(moved, 4),
        )
    return len(moved), rows[-1][0] if len(rows) == limit else None


async def _decided(db: Db, schedule: str, now: int) -> list[tuple[datetime, datetime]]:
    """Spans of later due instants of a schedule that have a record. What was missed was never lived through."""
    rows = await db.fetch(
        "SELECT due_at, coalesce(until_at, due_at) FROM taskloop.runs WHERE schedule = $1 "
        "AND due_at >= coalesce((SELECT max(due_at) FROM taskloop.runs WHERE schedule = $1 AND due_at <= $2), 0) "
        "AND coalesce(until_at, due_at) > $2 AND reason IS DISTINCT FROM 'missed' ORDER BY due_at LIMIT 10000",
        schedule, now,
    )  # fmt: skip
    return [(from_microseconds(first), from_microseconds(last)) for first, last in rows]


# -- switches

_SWITCH: Final = "kind, job, since, actor, reason, until, ended_at, ended_by, missed, ended_because"


async def switches(db: Db, rest: str, *values: Any) -> Switches:
    rows = await db.fetch(f"SELECT {_SWITCH} FROM taskloop.switches {rest}", *values)
    return Switches(
        Switch(
            row[0],
            row[1],
            from_microseconds(row[2]),
            heard(row[3]),
            heard(row[4]),
            instant(row[5]),
            instant(row[6]),
            heard(row[7]),
            row[8],
            heard(row[9]),
        )
        for row in rows
    )


async def switch(db: Db, new: Switch) -> None:
    """Begin an interval; one of the same subject that is open ends."""
    since = microseconds(new.since)
    if new.kind == "paused":  # a pause laid over one in force goes on from its beginning: it holds its fires too
        earlier = await db.fetchval(
            "SELECT min(since) FROM taskloop.switches WHERE kind = 'paused' AND job IS NOT DISTINCT FROM $1 "
            "AND ended_at IS NULL AND coalesce(until, $2) >= $2",
            new.job, since,
        )  # fmt: skip
        since = since if earlier is None else earlier
    await unswitch(db, new.job, kinds_of(new.kind), new.since, new.actor, new.reason, None)
    await db.execute(
        "INSERT INTO taskloop.switches (job, kind, actor, reason, since, until) VALUES ($1, $2, $3, $4, $5, $6)",
        new.job, new.kind, kept(new.actor), kept(new.reason), since, moment(new.until),
    )  # fmt: skip


async def unswitch(
    db: Db,
    job: str | None,
    kinds: Sequence[str],
    now: datetime,
    actor: str | None,
    reason: str | None,
    missed: str | None,
) -> int:
    status = await db.execute(
        "UPDATE taskloop.switches SET ended_at = CASE kind WHEN 'tripped' THEN $1 ELSE least($1, coalesce(until, $1)) END, "
        "ended_by = $2, ended_because = $3, missed = $4 "
        "WHERE job IS NOT DISTINCT FROM $5 AND ended_at IS NULL AND kind = ANY($6::text[])",
        microseconds(now), kept(actor), kept(reason), missed, job, list(kinds),
    )  # fmt: skip
    return changed(status)
