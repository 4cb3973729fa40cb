"""What jobs did, newest first, in PostgreSQL: statements that cost the same however long the history is.

Level 5. A run that waits or runs stands in a small index of its state, a final one in `runs_final`, by job and state. A
question over several jobs and states merges them by id, each from its own index and no longer than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskloop.rows_postgres import RUN, Db

__all__ = [
    "FINAL", "SLACK", "days", "failed_in_a_row", "find", "first_since", "ids_of_job", "landmarks", "late", "newest",
    "newest_active", "of_job", "recent", "standing", "usual",
]  # fmt: skip

FINAL: Final = "state NOT IN ('waiting', 'running')"
"""What tells the rows of `runs_final`; a statement has to repeat it, or the planner does not see that it fits."""
_LASTING: Final = ("waiting", "running", "succeeded", "failed", "cancelled", "interrupted")
"""All states but `skipped`."""
_TROUBLED: Final = ("failed", "interrupted", "cancelled", "skipped")
SLACK: Final = 600_000_000
"""Ten minutes: of a span no run is missed though a clock, or two hosts apart, were wrong by up to five."""
_MERGED: Final = 60
"""Jobs times states that a question merges; with more it goes by the states alone."""


def of_job(job: str, state: str) -> str:
    """FROM and WHERE of a job's runs in one state; `job` is SQL: a column, or a parameter."""
    more = "" if state in ("waiting", "running") else f" AND {FINAL}"
    return f"FROM taskloop.runs WHERE job = {job} AND state = '{state}'{more}"


def ids_of_job(job: str, further: str, *, newest: bool, limit: str) -> str:
    """A SELECT of the ids of a job's runs in any state, oldest or newest first. All but `newest` is SQL, `limit` too."""
    order = f"ORDER BY id{' DESC' if newest else ''} LIMIT {limit}"
    parts = " UNION ALL ".join(f"(SELECT id {of_job(job, state)}{further} {order})" for state in (*_LASTING, "skipped"))
    return f"SELECT id FROM ({parts}) i {order}"


def _of_all(state: str) -> str:
    """FROM and WHERE of all runs in one state."""
    these = ", ".join(f"'{one}'" for one in _TROUBLED)
    more = f" AND state IN ({these})" if state in _TROUBLED else ""
    return f"FROM taskloop.runs WHERE state = '{state}'{more}"


_HALVES: Final = (
    "WITH RECURSIVE half(low, high) AS (SELECT 0::bigint, coalesce((SELECT max(id) FROM taskloop.runs), 0) + 1 UNION ALL "
    "SELECT CASE WHEN r.created_at < $1 THEN r.id + 1 ELSE h.low END, "
    "CASE WHEN r.created_at < $1 THEN h.high ELSE (h.low + h.high) / 2 END "
    "FROM half h LEFT JOIN LATERAL (SELECT id, created_at FROM taskloop.runs WHERE id >= (h.low + h.high) / 2 "
    "ORDER BY id LIMIT 1) r ON true WHERE h.low < h.high) "
    "SELECT low FROM half WHERE low >= high LIMIT 1"
)


async def first_since(db: Db, at: int) -> int:
    """The id of about the first run that was put on record at an instant or later.

    Ids grow as time does, so the server finds it by halves, in one statement of some thirty looks into the table's own
    index; an index by time would cost each run that is written. Where clocks differ the order is not quite that: hence
    `SLACK`.
    """
    found: int = await db.fetchval(_HALVES, at)
    return found


async def _between(db: Db, since: int | None, until: int | None) -> dict[str, Any]:
    """Conditions for what was put on record in a span: on the ids, by which rows are found, and on the instant itself."""
    found: dict[str, Any] = {}
    if since is not None:
        found |= {"id >= {}": await first_since(db, since - SLACK), "created_at >= {}": since}
    if until is not None:
        found |= {"id <= {}": await first_since(db, until + SLACK), "created_at < {}": until}
    return found


async def find(
    db: Db,
    *,
    columns: str = RUN,
    jobs: Sequence[str] | None,
    states: Sequence[str] | None,
    skipped: bool,
    cause: str | None = None,
    since: int | None = None,
    until: int | None = None,
    conditions: Mapping[str, Any],
    limit: int,
) -> Sequence[Any]:
    """Runs, newest first. `conditions`: further ones, each a text with one `{}` for its value."""
    values: list[Any] = [limit]

    def given(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = {**conditions, **await _between(db, since, until), **({} if cause is None else {"cause = {}": cause})}
    further = "".join(f" AND {text.format(given(value))}" for text, value in conditions.items())
    wanted = (*_LASTING, *(["skipped"] if skipped else [])) if states is None else list(dict.fromkeys(states))
    order = "ORDER BY id DESC LIMIT $1"
    if cause not in (None, "schedule") and "succeeded" in wanted:  # few among many, in an index of their own
        among = f"state = ANY({given(wanted)}::text[])"
        among += "" if jobs is None else f" AND job = ANY({given(list(jobs))}::text[])"
        rest = f"WHERE cause <> 'schedule' AND {among}{further} {order}"
        return await db.fetch(f"SELECT {columns} FROM taskloop.runs {rest}", *values)
    if jobs is None and (states is None or len(wanted) > len(_LASTING)):
        where = "state <> 'skipped'" if states is None and not skipped else "true"
        return await db.fetch(f"SELECT {columns} FROM taskloop.runs WHERE {where}{further} {order}", *values)
    names = None if jobs is None else list(dict.fromkeys(jobs))
    if names is not None and len(names) * len(wanted) > _MERGED:
        further += f" AND job = ANY({given(names)}::text[])"
        names = None
    if names is None:
        parts = [_of_all(one) for one in wanted]
    else:
        asked = [given(name) for name in names]
        parts = [of_job(one, state) for state in wanted for one in asked]
    if not parts:
        return []
    merged = " UNION ALL ".join(f"(SELECT id {part}{further} {order})" for part in parts)
    return await db.fetch(
        f"SELECT {columns} FROM taskloop.runs WHERE id IN (SELECT id FROM ({merged}) i {order}) ORDER BY id DESC",
        *values,
    )


# -- what waits

_LATE: Final = (
    "WITH RECURSIVE held AS (SELECT job FROM taskloop.switches WHERE kind = 'paused' AND ended_at IS NULL "
    "AND (until IS NULL OR until > $1)), "
    "queue(job, priority) AS ((SELECT job, priority FROM taskloop.runs WHERE state = 'waiting' "
    "ORDER BY job, priority LIMIT 1) UNION ALL SELECT n.job, n.priority FROM queue q CROSS JOIN LATERAL "
    "(SELECT job, priority FROM taskloop.runs WHERE state = 'waiting' AND (job, priority) > (q.job, q.priority) "
    "ORDER BY job, priority LIMIT 1) n), "
    "oldest AS (SELECT o.id, o.ready_at, row_number() OVER (PARTITION BY q.job ORDER BY o.ready_at, o.id) AS place "
    "FROM queue q CROSS JOIN LATERAL (SELECT id, ready_at FROM taskloop.runs WHERE state = 'waiting' AND job = q.job "
    "AND priority = q.priority AND ready_at < $1 ORDER BY ready_at, id LIMIT $2) o "
    "WHERE NOT EXISTS (SELECT 1 FROM held WHERE job IS NULL) AND q.job NOT IN (SELECT job FROM held WHERE job IS NOT NULL)) "
    f"SELECT {RUN} FROM taskloop.runs WHERE id IN (SELECT id FROM oldest WHERE place <= $2 "
    "ORDER BY place, ready_at LIMIT $3) ORDER BY ready_at"
)


async def late(db: Db, before: int, each: int, most: int | None) -> Sequence[Any]:
    """Runs that wait though they were ready before then, the oldest first, at most `each` of a job; held ones left out.

    Asked within a transaction. A server that has counted when nothing waited takes any way for as good as that by the
    index, and would read and sort all that waits for each job: 200,000 of 200 jobs for ten seconds. With a long history it
    counts again only after as many changes as a tenth of that.
    """
    await db.execute("SET LOCAL enable_sort = off")
    rows = await db.fetch(_LATE, before, each, most)
    await db.execute("SET LOCAL enable_sort TO DEFAULT")
    return rows


# -- how a job stands


def _newest(job: str, state: str) -> str:
    return f"(SELECT max(id) {of_job(job, state)})"


def _failures(job: str, after: str, columns: str, rest: str) -> str:
    """The failures of a job with an id above `after`, those left out that a stop of the program caused."""
    return " UNION ALL ".join(
        f"(SELECT {columns} {of_job(job, state)} AND id > {after} AND reason IS DISTINCT FROM 'shutting_down' {rest})"
        for state in ("failed", "interrupted")
    )


def _first_failure(job: str, after: str, otherwise: str) -> str:
    """The id of the first of those failures; `otherwise` where there is none but what a stop caused."""
    ids = _failures(job, after, "id", "ORDER BY id LIMIT 1")
    return f"coalesce((SELECT min(id) FROM ({ids}) first), {otherwise})"


def _stands() -> str:
    """WITH of each job that ever ran: its newest run, skips not counted, and its newest success and failure, 0: none."""
    ids = ", ".join(f"coalesce({_newest('j.name', state)}, 0) AS {state}" for state in _LASTING)
    return (
        f"WITH ids AS MATERIALIZED (SELECT j.name, {ids} FROM (SELECT DISTINCT name FROM unnest($1::text[]) u(name)) j), "
        f"s AS (SELECT *, greatest({', '.join(_LASTING)}) AS newest, greatest(failed, interrupted) AS trouble FROM ids) "
    )


_COUNTED: Final = f"SELECT 1 FROM ({_failures('s.name', 's.succeeded', 'id', 'LIMIT 100')}) f LIMIT 100"
_SINCE_SUCCESS: Final = (
    "(SELECT ended_at FROM taskloop.runs WHERE id = s.succeeded) AS last_success, "
    f"CASE WHEN s.trouble > s.succeeded THEN (SELECT count(*) FROM ({_COUNTED}) g) ELSE 0 END AS failures"
)


async def standing(db: Db, jobs: Sequence[str]) -> Sequence[Any]:
    """Of each job that ever ran its newest run, skips not counted; then its last success, and its failures since, counted to 100."""
    return await db.fetch(
        f"{_stands()} SELECT {','.join(f'r.{name}' for name in RUN.split(','))}, {_SINCE_SUCCESS} "
        "FROM s JOIN taskloop.runs r ON r.id = s.newest",
        list(jobs),
    )


async def newest(db: Db, jobs: Sequence[str]) -> Sequence[Any]:
    """Of each job that ever ran: its name, the id and the state of its newest run, skips not counted; its last success, its
    failures since, counted to 100; the end of the first of them; of the newest its state, reason, summary and the beginning
    of its error; whether the newest run has had an attempt.
    """
    state = " ".join(f"WHEN s.{state} THEN '{state}'" for state in _LASTING)
    error = "substr(error, 1, 2500)"  # it is long, and its type stands first
    first = f"(SELECT ended_at FROM taskloop.runs WHERE id = {_first_failure('s.name', 's.succeeded', 's.trouble')})"
    failure = (
        f"SELECT {first} AS since, state, reason, summary, {error} AS error FROM taskloop.runs "
        "WHERE s.trouble > s.succeeded AND id = s.trouble"
    )
    return await db.fetch(
        f"{_stands()} SELECT s.name, s.newest, CASE s.newest {state} END, {_SINCE_SUCCESS}, f.*, "
        "s.newest <> s.waiting OR (SELECT attempt > 0 FROM taskloop.runs WHERE id = s.newest) "
        f"FROM s LEFT JOIN LATERAL ({failure}) f ON true WHERE s.newest > 0",
        list(jobs),
    )


async def recent(db: Db, jobs: Sequence[Sequence[str]], limit: int) -> list[list[Any]]:
    """Of each job, under its names, its newest runs, skips not counted, at most `limit`: the id, the state, what it took."""
    places = [place for place, names in enumerate(jobs) for _ in names]
    order = "ORDER BY id DESC LIMIT $3"
    parts = " UNION ALL ".join(f"(SELECT id {of_job('j.name', state)} {order})" for state in _LASTING)
    rows = await db.fetch(
        "SELECT j.place, r.id, r.state, (r.ended_at - r.started_at) / 1e6::double precision "
        f"FROM unnest($1::int[], $2::text[]) j(place, name) CROSS JOIN LATERAL (SELECT id FROM ({parts}) p {order}) i "
        "JOIN taskloop.runs r ON r.id = i.id ORDER BY j.place, r.id DESC",
        places, [name for names in jobs for name in names], limit,
    )  # fmt: skip
    found: list[list[Any]] = [[] for _ in jobs]
    for place, *row in rows:
        if len(found[place]) < limit:
            found[place].append(row)
    return found


async def usual(db: Db, jobs: Sequence[str]) -> dict[str, list[float]]:
    """Of each job that ever succeeded the seconds of its newest successful attempts, 200 at most."""
    rows = await db.fetch(
        "SELECT j.name, t.took FROM unnest($1::text[]) WITH ORDINALITY j(name, place) CROSS JOIN LATERAL ("
        f"SELECT id, (ended_at - attempt_started_at) / 1e6::double precision AS took {of_job('j.name', 'succeeded')} "
        "AND attempt_started_at IS NOT NULL ORDER BY id DESC LIMIT 200) t ORDER BY j.place, t.id DESC",
        list(dict.fromkeys(jobs)),
    )
    found: dict[str, list[float]] = {}
    for job, took in rows:
        found.setdefault(job, []).append(took)
    return found


async def days(db: Db, jobs: Sequence[str], first: int, last: int) -> Sequence[Any]:
    """What was counted of jobs: the day, the state, how many runs ended so, and what they took; the oldest first."""
    return await db.fetch(
        "SELECT day, state, sum(runs)::bigint, sum(took)::bigint FROM taskloop.counters WHERE day = ANY($2::bigint[]) "
        "AND job = ANY($1::text[]) GROUP BY day, state ORDER BY day",
        jobs, list(range(first, last + 1)),
    )  # fmt: skip


async def newest_active(db: Db, job: str, now: int) -> int | None:
    """The newest run of a job that runs, or waits and is ready: one that is for later stands in nobody's way."""
    ready = f"(SELECT max(id) {of_job('$1', 'waiting')} AND ready_at <= $2)"
    found: int | None = await db.fetchval(f"SELECT greatest({ready}, {_newest('$1', 'running')})", job, now)
    return found


async def landmarks(db: Db, job: str, failures: int) -> tuple[int, int, frozenset[int]]:
    """The runs that tell how a job stands, as `Landmarks` has them: of its newest failures so many at most."""
    newest, success = await db.fetchrow(f"{_stands()} SELECT newest, succeeded FROM s", [job])
    rest = "ORDER BY id DESC LIMIT $3"
    rows = await db.fetch(
        f"SELECT id FROM ({_failures('$1', '$2::bigint', 'id', rest)}) f {rest}", job, success, failures
    )
    return newest, success, frozenset(row[0] for row in rows)


async def failed_in_a_row(db: Db, job: str, number: int, since: int) -> bool:
    """Whether the newest runs of a job, so many, all failed, and ended after `since`."""
    success = await db.fetchval(f"SELECT coalesce({_newest('$1', 'succeeded')}, 0)", job)
    rest = "ORDER BY id DESC LIMIT $3"
    rows = await db.fetch(
        f"SELECT ended_at FROM ({_failures('$1', '$2::bigint', 'id, ended_at', rest)}) f {rest}", job, success, number
    )
    return len(rows) == number and all(row[0] > since for row in rows)
