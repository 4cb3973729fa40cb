"""The statements of the PostgreSQL store on the way of a run: asked for, fired, settled, cancelled.

Level 5. Each function is a part of a transaction that somebody else began and will commit; several callers' worth of work
come as one list, and go as one statement with an array a column. What becomes of each stands in `fates`.

Processes meet in these places, in the mode READ COMMITTED, where each statement sees what was committed before it:
a cursor is moved by who locks its row first, and who comes second passes it by. How a waiting run is claimed stands in
`claims_postgres`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from taskloop import steps_postgres as steps
from taskloop.clock import from_microseconds, later, microseconds
from taskloop.fates import (
    SETTLED_COLUMNS,
    Made,
    admitted,
    attempted,
    cancelled,
    counted,
    lengthens,
    numbered,
    outcome,
    plainly_settled,
    settled,
    too_many,
    tried,
)
from taskloop.history_postgres import failed_in_a_row, newest_active
from taskloop.keys_postgres import KeyHeld
from taskloop.rows import Column, Row, encode, instant, is_new, moment, schedule_columns, write_progress
from taskloop.rows_postgres import (
    NEW_TYPES,
    ONE_BY_ONE,
    RUN,
    RUN_TYPES,
    SCHEDULE,
    SCHEDULE_TYPES,
    STILL_OWNED,
    Db,
    arrays,
    heard,
    kept,
    kept_column,
    new_arrays,
    read_runs,
    read_schedules,
    run_of,
    run_row,
    unnested,
)
from taskloop.runs import ACTIVE, Progress, Reason, Run, RunId, State, cancelled_by, given_up
from taskloop.schedules import Schedule, cut
from taskloop.store import Merge
from taskloop.store_data import Cancelling, Fired, Firing, Settling, Terms

__all__ = [
    "COUNT",
    "FORGET_WISHES",
    "KEEPING",
    "SETTLED_TYPES",
    "Known",
    "cancel",
    "count_days",
    "due",
    "fire",
    "lock",
    "numbers",
    "plainly_settled_rows",
    "progress",
    "put_schedules",
    "settle",
    "settled_row",
    "stands",
    "submit",
]

KEEPING: Final = 0x7461_736B_6C6F_6F01
"""The lock of everything that is rare: switches, schedules, workers, names."""
OTHERS_SECONDS: Final = 0.25
"""When to ask again for what is due, and somebody else is firing just now."""
_TAKEN: Final = "state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped')"
_STARTED: Final = "state = 'running'"
_ACTIVE_OF: Final = "schedule IS NOT NULL AND state IN ('waiting', 'running') AND schedule = ANY($1::text[])"


async def lock(db: Db, which: int) -> None:
    """Wait for a lock that is let go with the transaction: a pooler may give the next one another session."""
    await db.execute("SELECT pg_advisory_xact_lock($1)", which)


class Known(NamedTuple):
    """The jobs whose fires and runs a worker is handed out."""

    terms: Mapping[str, Terms] = {}
    jobs: Sequence[str] = ()
    """Those that are not held."""
    free: frozenset[str] = frozenset()
    """Of these whose runs start whatever else runs of their schedules."""
    limited: bool = False
    """Whether any has a group or a limit of its own."""
    expires: bool = False

    @classmethod
    def of(cls, terms: Iterable[Terms]) -> Known:
        by_name = {one.job: one for one in terms}
        return cls(
            by_name,
            [one.job for one in by_name.values() if not one.held],
            frozenset(one.job for one in by_name.values() if not one.gated),
            any(one.group or one.max_running for one in by_name.values()),
            any(one.expires for one in by_name.values()),
        )

    def depends(self, row: Any) -> bool:
        """Whether the start of a run depends on what else runs."""
        one = self.terms[row["job"]]
        return bool(one.group or one.max_running) or (row["schedule"] is not None and one.gated)


async def numbers(db: Db, number: int) -> list[int]:
    """Ids for so many runs, growing."""
    rows = await db.fetch("SELECT nextval('taskloop.run_ids') FROM generate_series(1, $1::int)", number)
    return [row[0] for row in rows]


def _insert_of(types: Mapping[str, str]) -> str:
    return f"INSERT INTO taskloop.runs ({','.join(types)}) SELECT * FROM {unnested(types)}"


_INSERT_RUNS: Final = _insert_of(RUN_TYPES)
_INSERT_NEW_RUNS: Final = _insert_of(NEW_TYPES)
_COUNT: Final = (
    "ON CONFLICT (day, job, state, shard) DO UPDATE SET runs = c.runs + excluded.runs, took = c.took + excluded.took"
)


async def count_days(db: Db, ended: Iterable[Run]) -> None:
    """Add final runs to the counters of their day."""
    rows = sorted(counted(ended))  # everybody's in one order, so that no two wait for each other
    if rows:
        await db.execute(
            "INSERT INTO taskloop.counters AS c (day, job, state, shard, runs, took) "
            "SELECT day, job, state, pg_backend_pid() % 16, runs, took FROM "
            f"unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS v(day, job, state, runs, took) {_COUNT}",
            *arrays(rows, 5),
        )


# -- runs asked for


async def submit(db: Db, calls: Sequence[tuple[Run, ...]], *, patient: bool = False) -> list[Any]:
    """Write the runs of each call; gives per call its runs with their ids (an earlier one, with `existed`, where a key
    is taken), or the error that refuses the whole call.

    Where another transaction has a key and is not committed, `patient` waits for that one, as long as it takes; else
    the call is answered with `KeyHeld`.
    """
    keyed = sorted({(run.job, str(kept(run.key))) for runs in calls for run in runs if run.key is not None})
    if keyed and (held := await _held_keys(db, keyed, patient=patient)):
        refused = {place: one for place, runs in enumerate(calls) if (one := _first_of(runs, held)) is not None}
        rest = iter(await submit(db, [runs for place, runs in enumerate(calls) if place not in refused]))
        return [
            KeyHeld(refused[place].job, str(refused[place].key)) if place in refused else next(rest)
            for place in range(len(calls))
        ]
    earlier = await _earlier(db, keyed) if keyed else {}
    if repeats := [run for runs in calls for run in runs if run.is_only_repeat]:
        earlier |= await _repeats(db, repeats)
    number = sum(map(len, calls)) if not keyed else len(admitted(calls, earlier, lambda place: place)[1])
    ids = await numbers(db, number) if number else []
    answers, fresh = admitted(calls, earlier, lambda place: ids[place] if place < len(ids) else 0)  # 0: refused
    if fresh:
        text, columns = _inserting(fresh)
        await db.execute(text, *columns)
    await steps.copy_kept(db, fresh)
    return list(answers)


def _inserting(runs: Sequence[Run]) -> tuple[str, Sequence[Column]]:
    """The statement that inserts one run or more, the short one where that says all of each, and its parameters."""
    if all(map(is_new, runs)):
        return _INSERT_NEW_RUNS, new_arrays(runs)
    return _INSERT_RUNS, arrays(map(run_row, runs), len(RUN_TYPES))


async def _held_keys(db: Db, keyed: Sequence[tuple[str, str]], *, patient: bool) -> set[tuple[str, str]]:
    """Have it that nobody else asks with one of these keys until we have committed; gives those that others have."""
    if patient:
        await db.execute(
            "SELECT pg_advisory_xact_lock(which) FROM (SELECT DISTINCT hashtextextended(job || ' ' || key, 1) AS which "
            "FROM unnest($1::text[], $2::text[]) AS v(job, key) ORDER BY 1) w",
            *arrays(keyed, 2),
        )
        return set()
    rows = await db.fetch(
        "SELECT job, key FROM unnest($1::text[], $2::text[]) AS v(job, key) "
        "WHERE NOT pg_try_advisory_xact_lock(hashtextextended(job || ' ' || key, 1))",
        *arrays(keyed, 2),
    )
    return {(row[0], row[1]) for row in rows}


def _first_of(runs: Sequence[Run], keys: Collection[tuple[str, str]]) -> Run | None:
    return next((run for run in runs if run.key is not None and (run.job, kept(run.key)) in keys), None)


async def _earlier(db: Db, keyed: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Run]:
    """The runs that have these keys."""
    rows = await db.fetch(
        f"SELECT {','.join('r.' + name for name in RUN_TYPES)} FROM unnest($1::text[], $2::text[]) AS v(job, key) "
        f"JOIN taskloop.runs r ON r.job = v.job AND r.key = v.key WHERE r.key IS NOT NULL AND r.{_TAKEN}",
        *arrays(keyed, 2),
    )
    return {(run.job, str(run.key)): run for run in read_runs(rows)}


async def _repeats(db: Db, wanted: Sequence[Run]) -> dict[tuple[str, str], Run]:
    """The first runs that repeat those which these are to repeat, by job and key of these; asked when the keys are held."""
    rows = await db.fetch(
        f"SELECT DISTINCT ON (rerun_of) {','.join(RUN_TYPES)} FROM taskloop.runs "
        "WHERE rerun_of = ANY($1::bigint[]) AND rerun_of IS NOT NULL ORDER BY rerun_of, id",
        [run.rerun_of for run in wanted],
    )
    found = {run.rerun_of: run for run in read_runs(rows)}
    return {(run.job, str(run.key)): found[run.rerun_of] for run in wanted if run.rerun_of in found}


# -- fires


async def due(
    db: Db, known: Known, now: datetime, limit: int, without: Collection[str]
) -> tuple[list[Schedule], datetime | None]:
    """The schedules due of jobs this worker knows and may fire, and the next instant after them.

    Those that another worker is firing just now are passed by.
    """
    at, held = microseconds(now), list(without)
    rows = await db.fetch(
        f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE next_due <= $1 AND next_due IS NOT NULL "
        "AND job = ANY($2::text[]) AND id <> ALL($3::text[]) ORDER BY next_due LIMIT $4 FOR UPDATE SKIP LOCKED",
        at, known.jobs, held, limit,
    )  # fmt: skip
    if rows or limit < 1:
        return read_schedules(sorted(rows, key=lambda row: row["next_due"])), None
    soonest = await db.fetchval(
        "SELECT next_due FROM taskloop.schedules WHERE next_due IS NOT NULL AND job = ANY($1::text[]) "
        "AND (next_due > $2 OR id <> ALL($3::text[])) ORDER BY next_due LIMIT 1",
        known.jobs, at, held,
    )  # fmt: skip
    if soonest is not None and soonest <= at:
        return [], later(now, timedelta(seconds=OTHERS_SECONDS))
    return [], instant(soonest)


async def fire(db: Db, firings: Sequence[Firing], worker: str, now: datetime) -> Fired:
    """Move the cursors and write what the fires became."""
    won = [await _cut(db, one) for one in await _won(db, firings)]
    replacing = [one.plan.schedule.id for one in won if one.policy.overlap == "replace"]
    if replacing:  # none of them is claimed, or waits again, before it has been asked to end
        await db.execute(f"SELECT 1 FROM taskloop.runs WHERE {_ACTIVE_OF} ORDER BY id FOR UPDATE", replacing)
    active = await _active(db, [one.plan.schedule.id for one in won if one.policy.overlap != "allow"])
    trials: dict[str, int | None] = {}
    for job in sorted({one.plan.schedule.job for one in won if one.trial}):
        # Another schedule of it may be due, and be fired elsewhere.
        await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 2))", job)
        trials[job] = await newest_active(db, job, microseconds(now))
    ids = await numbers(db, sum(len(one.plan.fires) for one in won)) if won else []
    runs: list[Run] = []
    made_before: Made = {}
    replaced: list[RunId] = []
    gave_way: list[Run] = []
    number = 0
    for firing in won:
        standing = active.get(firing.plan.schedule.id, [])
        made, gone, asked = outcome(
            tried(firing, trials) if firing.trial else firing, standing, worker, now, made_before
        )
        replaced += asked
        gave_way += gone
        begun = len(runs)
        for run in made:
            if run.reason == Reason.DISABLED and len(runs) == begun and await _lengthened(db, run):
                continue
            runs.append(numbered(run, ids[number]))
            number += 1
        if firing.trial and made and made[-1].state in ACTIVE:
            trials[firing.plan.schedule.job] = runs[-1].id
    await _end_waiting(db, gave_way)
    if replaced:  # our own too, though they are asked by what this returns: their end may be on its way to us
        await db.execute(
            "INSERT INTO taskloop.wishes (run, kind, reason, at) SELECT run, 'cancel', $1, $2 FROM unnest($3::bigint[]) v(run)",
            Reason.SUPERSEDED.value, microseconds(now), replaced,
        )  # fmt: skip
    runs = await _written(db, runs)
    skipped = [run for run in runs if run.state is State.SKIPPED]
    await count_days(db, [*skipped, *gave_way])
    return Fired(
        started=[run for run in runs if run.state is State.RUNNING],
        waiting=sum(run.state is State.WAITING for run in runs),
        skipped=skipped,
        gave_way=gave_way,
        replaced=replaced,
        lost=len(firings) - len(won),
    )


async def _won(db: Db, firings: Sequence[Firing]) -> list[Firing]:
    """Move each cursor that still stands where the plan saw it; gives the firings this worker thereby owns."""
    moves: dict[str, Row] = {}
    first: list[Firing] = []
    for one in firings:
        plan = one.plan
        if plan.schedule.id not in moves:
            first.append(one)
            moves[plan.schedule.id] = (
                plan.schedule.id, moment(plan.schedule.next_due), moment(plan.next_due), microseconds(plan.last_due)
            )  # fmt: skip
    if not moves:
        return []
    rows = await db.fetch(
        "WITH v AS (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS v(id, seen, next, last)), "
        "mine AS MATERIALIZED (SELECT s.id FROM taskloop.schedules s JOIN v ON v.id = s.id AND v.seen = s.next_due "
        "FOR UPDATE OF s SKIP LOCKED) "
        "UPDATE taskloop.schedules s SET next_due = v.next, last_due = v.last FROM v JOIN mine ON mine.id = v.id "
        "WHERE s.id = v.id AND s.next_due = v.seen RETURNING s.id",
        *arrays(moves.values(), 4),
    )
    mine = {row[0] for row in rows}
    owned = [one for one in first if one.plan.schedule.id in mine]
    ended = [
        one.plan.schedule.id
        for one in owned
        # One that recurs comes to its end only by a clock that stands in the year 9999, and will be set back.
        if one.plan.next_due is None
        and one.plan.schedule.origin == "stored"
        and not one.plan.schedule.trigger.recurring
    ]
    if ended:
        await db.execute("DELETE FROM taskloop.schedules WHERE id = ANY($1::text[])", ended)
    return owned


async def _cut(db: Db, firing: Firing) -> Firing:
    """The firing without those of its counted instants that have a record already."""
    fires = [one for one in firing.plan.fires if one.until_at is not None]
    if not fires:
        return firing
    rows = await db.fetch(
        "SELECT due_at, coalesce(until_at, due_at) FROM taskloop.runs WHERE schedule = $1 "
        "AND due_at >= coalesce((SELECT max(due_at) FROM taskloop.runs WHERE schedule = $1 AND due_at <= $2), 0) "
        "AND due_at <= $3 AND coalesce(until_at, due_at) >= $2 ORDER BY due_at LIMIT 10000",
        firing.plan.schedule.id, microseconds(fires[0].due_at), moment(fires[-1].until_at),
    )  # fmt: skip
    if not rows:
        return firing
    decided = [(from_microseconds(one), from_microseconds(until)) for one, until in rows]
    return firing._replace(plan=cut(firing.plan, firing.policy, decided))


async def _active(db: Db, schedules: Sequence[str]) -> dict[str, list[Run]]:
    """The active runs of these schedules."""
    found: dict[str, list[Run]] = {}
    if schedules:
        rows = await db.fetch(
            f"SELECT {RUN} FROM taskloop.runs WHERE {_ACTIVE_OF} ORDER BY id",
            schedules,
        )
        for run in read_runs(rows):
            found.setdefault(str(run.schedule), []).append(run)
    return found


async def _lengthened(db: Db, run: Run) -> bool:
    """Count a disabled fire into the row before it, where it goes on with that."""
    last = await db.fetchrow(
        "SELECT id, reason, state, coalesce(until_at, due_at), data FROM taskloop.runs WHERE schedule = $1 "
        "ORDER BY due_at DESC LIMIT 1 FOR UPDATE",  # the pruning may be at it
        run.schedule,
    )
    if last is None or not lengthens(run, tuple(last)[1:]):
        return False
    await db.execute(
        "UPDATE taskloop.runs SET count = count + $1, until_at = $2, ended_at = $3 WHERE id = $4",
        run.count, moment(run.until_at or run.due_at), moment(run.ended_at), last[0],
    )  # fmt: skip
    await count_days(db, [run])
    return True


async def _written(db: Db, runs: Sequence[Run]) -> list[Run]:
    """Insert the rows of fires; gives those written. A due instant that has its record already gets no other."""
    if not runs:
        return []
    text, columns = _inserting(runs)
    rows = await db.fetch(
        f"{text} ON CONFLICT (schedule, due_at) WHERE schedule IS NOT NULL DO NOTHING RETURNING id", *columns
    )
    written = {row[0] for row in rows}
    return [run for run in runs if run.id in written]


async def _end_waiting(db: Db, runs: Sequence[Run]) -> None:
    if runs:
        ends = [(one.id, one.state.value, kept(one.reason), encode(one.data), moment(one.ended_at)) for one in runs]
        await db.execute(
            "UPDATE taskloop.runs r SET state = v.state, reason = v.reason, data = v.data, ended_at = v.ended_at "
            "FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS v(id, state, reason, data, ended_at) "
            f"WHERE r.id = v.id AND r.state = 'waiting' AND {ONE_BY_ONE}",
            *arrays(ends, 5),
        )


# -- ends

SETTLED_TYPES: Final = {name: RUN_TYPES[name] for name in SETTLED_COLUMNS} | {"owner": "text"}
"""`owner`: the worker whose attempt it was."""
COUNT: Final = (
    "INSERT INTO taskloop.counters AS c (day, job, state, shard, runs, took) "
    "SELECT ended_at / 86400000000, job, state, pg_backend_pid() % 16, sum(count), "
    "sum(greatest(0, ended_at - coalesce(started_at, ended_at))) "
    f"FROM done WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 {_COUNT}"
)
"""What the ends of runs, named `done`, add to the counters of their days."""
FORGET_WISHES: Final = "DELETE FROM taskloop.wishes w USING done WHERE w.run = done.id"
"""What was wished of attempts that have ended, named `done`, is granted, or came too late."""
_SETTLE: Final = (
    f"WITH v AS (SELECT * FROM {unnested(SETTLED_TYPES)}), done AS (UPDATE taskloop.runs r SET "
    + ",".join(f"{name} = v.{name}" for name in SETTLED_COLUMNS[2:])
    + f" FROM v WHERE {STILL_OWNED} RETURNING r.id, r.token, r.job, r.state, r.count, r.started_at, r.ended_at), "
    f"counted AS ({COUNT}), forgotten AS ({FORGET_WISHES}) SELECT id, token FROM done"
)
_FREE: Final = tuple(SETTLED_COLUMNS.index(name) for name in ("reason", "summary"))


async def settle(db: Db, settlings: Sequence[Settling]) -> list[Run | None]:
    """Write how attempts ended, each only while its worker still has it by the token it was claimed with.

    Gives each run as it stands now. A settling that was written before, and whose answer was lost, is as good as written.
    """
    back = await _back(db, settlings)
    if back:
        answers = iter(await settle(db, [one for place, one in enumerate(settlings) if place not in back]))
        return [None if place in back else next(answers) for place in range(len(settlings))]
    if any(one.breaker is not None and one.after.state is not State.SUCCEEDED and one.after.final for one in settlings):
        await lock(db, KEEPING)
    settlings = await _with_wishes(db, settlings)
    rows = [settled_row(one) for one in settlings]
    firsts = {row[:2]: row for row in reversed(rows)}
    done = {(run, token) for run, token in await db.fetch(_SETTLE, *arrays(firsts.values(), len(SETTLED_TYPES)))}
    wrote = [row[:2] in done and firsts[row[:2]] is row for row in rows]
    written = [one for one, was in zip(settlings, wrote, strict=True) if was]
    await _keep_attempts(db, [attempted(one) for one in written if one.after.state is State.WAITING])
    await steps.log(db, [(one.before, one.lines) for one in written if one.lines])
    for one in written:
        if one.breaker is not None and one.after.final:
            await trip(db, one.after, *one.breaker)
    return [
        one.after if was or await stands(db, row) else None
        for one, was, row in zip(settlings, wrote, rows, strict=True)
    ]


def settled_row(one: Settling) -> Row:
    row = [*settled(one), one.before.worker]
    for place in _FREE:
        row[place] = kept(row[place])
    return tuple(row)


def plainly_settled_rows(settlings: Sequence[Settling]) -> list[Row]:
    """Rows of PLAIN_COLUMNS and the owner, as they are written."""
    if not settlings:
        return []
    *first, summary, result = plainly_settled(settlings)
    return list(zip(*first, kept_column(summary), result, [one.before.worker for one in settlings], strict=True))


async def _back(db: Db, settlings: Sequence[Settling]) -> set[int]:
    """Those of runs whose worker was taken for dead and lives after all: none comes back while we settle in its place."""
    dead = sorted({str(one.before.worker) for one in settlings if one.for_the_dead})
    if not dead:
        return set()
    rows = await db.fetch(
        "SELECT id, stopped_at FROM taskloop.workers WHERE id = ANY($1::text[]) ORDER BY id FOR SHARE", dead
    )
    alive = {row[0] for row in rows if row[1] is None}
    return {place for place, one in enumerate(settlings) if one.for_the_dead and one.before.worker in alive}


async def _with_wishes(db: Db, settlings: Sequence[Settling]) -> Sequence[Settling]:
    """Of runs that were to wait for another attempt those are cancelled instead whose end somebody has asked for.

    Their worker has not heard of it, and once the run waits nobody would.
    """
    ids = sorted(one.after.id for one in settlings if one.after.state is State.WAITING)
    if not ids:
        return settlings
    # From here on nobody leaves a wish until we have committed, and then finds the run waiting.
    await db.execute("SELECT 1 FROM taskloop.runs WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE", ids)
    rows = await db.fetch(
        "SELECT run, actor, reason, at FROM taskloop.wishes WHERE kind = 'cancel' AND run = ANY($1::bigint[]) "
        "ORDER BY id DESC",
        ids,
    )
    wished = {row[0]: (heard(row[1]), heard(row[2]), row[3]) for row in rows}
    return [cancelled(one, *wished[one.after.id]) if one.after.id in wished else one for one in settlings]


async def _keep_attempts(db: Db, rows: Sequence[Row]) -> None:
    if rows:
        await db.execute(
            "INSERT INTO taskloop.attempts (run, attempt, token, worker, started_at, ended_at, outcome, error) "
            "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], "
            "$7::text[], $8::text[]) ON CONFLICT (run, token) DO UPDATE SET attempt = excluded.attempt, "
            "worker = excluded.worker, started_at = excluded.started_at, ended_at = excluded.ended_at, "
            "outcome = excluded.outcome, error = excluded.error",
            *arrays(rows, 8),
        )


async def stands(db: Db, row: Row) -> bool:
    """Whether a run stands just as this settling would have it."""
    found = await db.fetchval(
        "SELECT 1 FROM taskloop.runs WHERE id = $1 AND token = $2 AND token > 0 AND state = $3 AND ready_at = $4 "
        "AND ended_at IS NOT DISTINCT FROM $5 AND worker IS NOT DISTINCT FROM $6 AND summary IS NOT DISTINCT FROM $7 "
        "AND result IS NOT DISTINCT FROM $8 AND error IS NOT DISTINCT FROM $9",
        *row[:3], *row[6:9], *row[10:13],
    )  # fmt: skip
    return found is not None


async def trip(db: Db, run: Run, failures: int, trial_after: timedelta) -> None:
    """Move the circuit breaker of a job after one of its runs has ended: off, on again, or off once more."""
    if run.state is State.CANCELLED or run.reason == Reason.SHUTTING_DOWN or run.ended_at is None:
        return
    at = microseconds(run.ended_at)
    end = (
        "UPDATE taskloop.switches SET ended_at = $1, ended_by = 'taskloop', ended_because = $2 "
        "WHERE kind = 'tripped' AND job = $3 AND ended_at IS NULL"
    )
    if run.state is State.SUCCEEDED:
        await db.execute(end, at, f"run {run.id} succeeded", run.job)
        return
    tripped = await db.fetchrow(
        "SELECT until, reason FROM taskloop.switches WHERE kind = 'tripped' AND job = $1 AND ended_at IS NULL", run.job
    )
    said = kept(f"run {run.id}: {run.error.told(run.summary)}" if run.error else f"run {run.id}: {run.reason}")
    until = microseconds(later(run.ended_at, trial_after))
    if tripped:
        if at >= tripped[0]:  # the trial itself, not one that was running when the breaker opened
            await db.execute(end, at, f"the trial failed, {said}", run.job)
            reason = f"{tripped[1].partition('; the trial')[0]}; the trial failed too, {said}"
            await _open_breaker(db, run.job, reason, at, until)
    elif await _fails(db, run.job, failures):
        await _open_breaker(db, run.job, too_many(failures, said), at, until)


async def _open_breaker(db: Db, job: str, reason: str, since: int, until: int) -> None:
    """An interval of its own each time, so that the past is told as it was known then."""
    await db.execute(
        "INSERT INTO taskloop.switches (job, kind, actor, reason, since, until) "
        "VALUES ($1, 'tripped', 'taskloop', $2, $3, $4)",
        job, reason, since, until,
    )  # fmt: skip


async def _fails(db: Db, job: str, failures: int) -> bool:
    """Whether the newest runs of a job, so many, all failed since it was last switched by anybody."""
    since = await db.fetchval(
        "SELECT max(coalesce(ended_at, since)) FROM taskloop.switches WHERE job = $1 AND kind IN ('enabled', 'tripped')",
        job,
    )
    return await failed_in_a_row(db, job, failures, since or 0)


async def progress(db: Db, reports: Sequence[tuple[Run, Progress]]) -> None:
    """Keep what running runs last said of themselves."""
    if reports:
        await db.execute(
            "UPDATE taskloop.runs r SET progress = v.progress FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) "
            f"AS v(id, token, owner, progress) WHERE {STILL_OWNED}",
            *arrays([(run.id, run.token, run.worker, write_progress(one)) for run, one in reports], 4),
        )


async def cancel(
    db: Db, run_id: RunId, actor: str | None, reason: str | None, now: datetime, waiting_only: bool
) -> Cancelling | None:
    """End a waiting run; ask for the end of a running one, unless `waiting_only`; leave a final one as it is."""
    row = await db.fetchrow(f"SELECT {RUN} FROM taskloop.runs WHERE id = $1 FOR UPDATE", run_id)
    if row is None:
        return None
    run = run_of(row)
    if run.state not in ACTIVE or (waiting_only and run.state is State.RUNNING):
        return Cancelling(run)
    if run.state is State.RUNNING:
        await db.execute(
            "INSERT INTO taskloop.wishes (run, kind, actor, reason, at) VALUES ($1, 'cancel', $2, $3, $4)",
            run_id, kept(actor), kept(reason), microseconds(now),
        )  # fmt: skip
        return Cancelling(run, wished=True)
    ended = given_up(run, reason, now, actor) if waiting_only else cancelled_by(actor, run, reason, now)
    await _end_waiting(db, [ended])
    await count_days(db, [ended])
    return Cancelling(ended, ended=True)


async def put_schedules(db: Db, schedules: Sequence[Schedule], merge: Merge) -> tuple[list[Schedule], list[Schedule]]:
    """Store each schedule as `merge` has it beside what stands there; gives what stands now, and what gave way."""
    rows = await db.fetch(
        f"SELECT {SCHEDULE} FROM taskloop.schedules WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE",
        [one.id for one in schedules],
    )
    old = {one.id: one for one in read_schedules(rows)}
    merged = [merge(old.get(one.id), one) for one in schedules]
    last = {one.id: one for one in merged if one != old.get(one.id)}
    if last:
        changes = ",".join(f"{name} = excluded.{name}" for name in SCHEDULE_TYPES if name != "id")
        await db.execute(
            f"INSERT INTO taskloop.schedules ({SCHEDULE}) SELECT * FROM {unnested(SCHEDULE_TYPES)} "
            f"ON CONFLICT (id) DO UPDATE SET {changes}",
            *schedule_columns([*last.values()]),
        )
    gone = [
        old[one.id]
        for one in merged
        if one.id in old and (one.trigger, one.job) != (old[one.id].trigger, old[one.id].job)
    ]
    return merged, gone
