"""Which records go, in PostgreSQL, and how: in small steps, oldest first, so that a fire never waits for long.

Level 5. A round goes over the final runs of each job, state by state; what a look found is then deleted in one short
transaction. Start at `look`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from taskloop import steps_postgres as steps
from taskloop.clock import EPOCH, microseconds
from taskloop.history_postgres import FINAL, landmarks, of_job
from taskloop.keeping_postgres import FACTS_SINCE, aliases, named_twice
from taskloop.retention import (
    COUNTED,
    NO_LANDMARKS,
    NO_RULE,
    RUNS_DONE,
    SPARED,
    TOGETHER,
    Expired,
    Landmarks,
    Place,
    Rule,
    rule_of,
)
from taskloop.rows_postgres import Db, arrays, changed

__all__ = ["RUNS_DONE", "delete", "delete_the_rest", "look"]

LOOK_SECONDS: Final = 0.02
"""How long one step may look around: another question may wait for its connection."""


async def look(db: Db, keep: timedelta | None, now: datetime, after: Place | None, limit: int) -> Expired:
    """Find at most `limit` runs that are to go, for a few milliseconds, from the place where the last look ended."""
    ids: list[int] = []
    place = after or Place()
    newest = await db.fetchval("SELECT coalesce(max(id), 0) FROM taskloop.runs")
    of, rule = "", NO_RULE
    known, stays = "", NO_LANDMARKS
    number, until = limit, time.perf_counter() + LOOK_SECONDS
    while len(ids) < limit and time.perf_counter() < until:
        if place.id is None:
            following = await _following(db, place)
            if following is None:
                return Expired(ids, None)
            job, state = following
            beyond = place.beyond
            if job != of:
                of, rule = job, await _rule(db, job, keep, now)
            if job != place.job:
                beyond = None if rule.runs is None else await _beyond(db, job, rule.runs)
            place, number = Place(job, state, 0, beyond), 1  # of most, the oldest row says that there is nothing to do
        elif place.job != of:
            of, rule = place.job, await _rule(db, place.job, keep, now)
        if rule.before is None and place.beyond is None:
            place = place._replace(id=None)
            continue
        found, far = await _sifted(db, place, rule, newest, now, number)
        if found:
            if known != place.job:
                known, stays = place.job, await _landmarks(db, place.job, rule)
            found = [id for id in found if stays.may_go(id)]
        room = limit - len(ids)
        place = far if len(found) <= room else place._replace(id=found[room - 1])
        ids += found[:room]
        number = limit - len(ids) if found else TOGETHER  # where all stay, pass by in large steps
    return Expired(ids, place)


async def _following(db: Db, place: Place) -> tuple[str, str] | None:
    """The next job and state of which there are final runs."""
    row = await db.fetchrow(
        f"SELECT job, state FROM taskloop.runs WHERE {FINAL} AND (job, state) > ($1, $2) ORDER BY job, state LIMIT 1",
        place.job, place.state,
    )  # fmt: skip
    return None if row is None else (row[0], row[1])


async def _sifted(db: Db, place: Place, rule: Rule, newest: int, now: datetime, number: int) -> tuple[list[int], Place]:
    """Of the next rows, so many, those that are to go, and how far that is.

    Rows that are to stay are passed by. The end is a row that began too lately to have ended long ago, unless it began
    in the future: then the clock was wrong, and the rows after it are older than they seem.
    """
    found, last, looked_at, late = await db.fetchrow(
        "SELECT array_agg(id ORDER BY id) FILTER (WHERE goes), max(id), count(*), coalesce(bool_or(late), false) FROM (SELECT id, "
        "(ended_at < $1 OR id <= $2) AND id < $3 AND (schedule IS NULL OR coalesce(until_at, due_at) < $4) AS goes, "
        "created_at BETWEEN $1 AND $5 AND id > $2 AS late FROM taskloop.runs "
        f"WHERE job = $6 AND state = $7 AND {FINAL} AND id > $8 ORDER BY id LIMIT $9) r",
        rule.before if rule.before is not None else 0, place.beyond or 0, newest, microseconds(now - SPARED),
        microseconds(now), place.job, place.state, place.id, number,
    )  # fmt: skip
    return found or [], place._replace(id=None if late or looked_at < number else last)


async def _rule(db: Db, job: str, keep: timedelta | None, now: datetime) -> Rule:
    """How long a job's runs are kept: as its definition says, whoever wrote it, else as long as `keep`."""
    text = await db.fetchval("SELECT definition FROM taskloop.jobs WHERE name = $1", job)
    if text is None:  # the job has another name now
        text = await db.fetchval("SELECT definition FROM taskloop.jobs WHERE name = $1", (await aliases(db)).get(job))
    return rule_of(json.loads(text).get("policy") if text else None, keep, now)


async def _landmarks(db: Db, job: str, rule: Rule) -> Landmarks:
    """What of a job stays; nothing, if nobody has had it for as long as its runs are kept: then it is to be forgotten."""
    had = await db.fetchval(
        f"{_LISTS} SELECT 1 FROM taskloop.jobs d WHERE name = $2 AND (seen_at >= $1 OR {_HAD})", rule.before or 0, job
    )
    return NO_LANDMARKS if had is None else Landmarks(*await landmarks(db, job, rule.failures))


async def _beyond(db: Db, job: str, number: int) -> int | None:
    """The newest final run of a job beyond the newest `number`, skips not counted."""
    parts = " UNION ALL ".join(
        f"(SELECT id {of_job('$1', state)} ORDER BY id DESC LIMIT $2::bigint + 1)" for state in COUNTED
    )
    found: int | None = await db.fetchval(f"SELECT id FROM ({parts}) i ORDER BY id DESC LIMIT 1 OFFSET $2", job, number)
    return found


async def delete(db: Db, ids: Sequence[int], now: datetime) -> int:
    """Delete runs and their attempts. One that has become young meanwhile stays: a skip that now counts more fires."""
    await db.execute("DELETE FROM taskloop.attempts WHERE run = ANY($1::bigint[])", ids)
    await steps.delete(db, ids)
    status = await db.execute(
        f"DELETE FROM taskloop.runs WHERE id = ANY($1::bigint[]) AND {FINAL} "
        "AND (schedule IS NULL OR coalesce(until_at, due_at) < $2)",
        ids, microseconds(now - SPARED),
    )  # fmt: skip
    return changed(status)


_PUT_AWAY: Final = (
    "WITH gone AS (DELETE FROM taskloop.writers WHERE id IN (SELECT id FROM taskloop.writers WHERE "
    "at < now() - interval '1 day' AND id <> 'gone' FOR UPDATE SKIP LOCKED) RETURNING writes) "
    "UPDATE taskloop.writers SET writes = writes + (SELECT sum(writes) FROM gone) WHERE id = 'gone' AND EXISTS (SELECT 1 FROM gone)"
)
"""The counts of processes that have not written for long go into one, so that the sum stays. One that is being written
stays: its transaction may be an application's, and open for long.
"""
_SHARDS: Final = (
    "SELECT day, job, state, shard FROM taskloop.counters WHERE day BETWEEN $1 - 31 AND $1 - 2 AND shard <> 0"
)
"""What is counted of days that are over, apart from the rest of the same: so that no two that count wait for each other.

Not of all days: they stay for ever, and a look at years of them each hour would take longer and longer.
"""
_PUT_TOGETHER: Final = (
    f"WITH gone AS (DELETE FROM taskloop.counters WHERE (day, job, state, shard) IN ({_SHARDS} LIMIT $2) "
    "RETURNING day, job, state, runs, took), "
    "counted AS (INSERT INTO taskloop.counters AS c (day, job, state, shard, runs, took) "
    "SELECT day, job, state, 0, sum(runs), sum(took) FROM gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 "
    "ON CONFLICT (day, job, state, shard) DO UPDATE SET runs = c.runs + excluded.runs, took = c.took + excluded.took) "
    "SELECT count(*) FROM gone"
)
_ANY_RUN: Final = " OR ".join(f"EXISTS (SELECT 1 {of_job('n.name', state)})" for state in ("waiting", "running"))
_LISTS: Final = (
    "WITH lists AS MATERIALIZED "
    "(SELECT DISTINCT jobs FROM taskloop.workers WHERE stopped_at IS NULL OR stopped_at >= $1)"
)
"""The jobs that workers have, or had at an instant or later, the first parameter: thousands have the same."""
_HAD: Final = "EXISTS (SELECT 1 FROM lists w WHERE w.jobs IS NULL OR w.jobs::jsonb ? d.name)"
"""Whether job `d` is in one of the `_LISTS`."""
_UNUSED: Final = f"""
{_LISTS}
SELECT d.name FROM taskloop.jobs d WHERE d.seen_at < $1
AND d.name <> ALL($3::text[])
AND NOT EXISTS (SELECT 1 FROM taskloop.schedules WHERE job = d.name)
AND NOT {_HAD}
AND NOT EXISTS (SELECT 1 FROM (SELECT d.name UNION ALL SELECT a.value
    FROM unnest($4::text[], $5::text[]) a(value, job) WHERE a.job = d.name) n(name)
    WHERE {_ANY_RUN} OR EXISTS (SELECT 1 FROM taskloop.runs WHERE job = n.name AND {FINAL}))
LIMIT $2
"""
"""Jobs that nobody has, of which there is nothing left: no run, under whatever name, no schedule and no worker."""
_THE_REST: Final = (
    (
        "workers",
        "id",
        (
            "SELECT id FROM taskloop.workers WHERE stopped_at < $1 AND stopped_at IS NOT NULL AND id NOT IN "
            "(SELECT worker FROM taskloop.runs WHERE state = 'running' AND worker IS NOT NULL) LIMIT $2"
        ),
    ),
    ("incidents", "id", "SELECT id FROM taskloop.incidents WHERE until < $1 LIMIT $2"),
    ("switches", "id", "SELECT id FROM taskloop.switches WHERE ended_at < $1 AND ended_at IS NOT NULL LIMIT $2"),
    ("former", "(id, until)", "SELECT id, until FROM taskloop.former WHERE until < $1 LIMIT $2"),
    ("audit", "id", "SELECT id FROM taskloop.audit WHERE at < $1 LIMIT $2"),
)
_FACTS: Final = ("workers", "incidents", "switches", "former")
"""Tables from which the past is explained."""


async def has_more(db: Db, known: Collection[str], keep: timedelta | None, now: datetime) -> bool:
    """Whether `delete_the_rest` would find anything: most rounds of most workers end with this look."""
    if await db.fetchval(
        "SELECT EXISTS (SELECT 1 FROM taskloop.writers WHERE at < now() - interval '1 day' AND id <> 'gone')"
    ):
        return True
    if await db.fetchval(f"SELECT EXISTS ({_SHARDS})", _day(now)):
        return True
    if keep is None or keep > now - EPOCH:
        return False
    before = microseconds(now - keep)
    for _, _, which in _THE_REST:
        if await db.fetchval(f"SELECT EXISTS ({which})", before, 1):
            return True
    others = arrays(await named_twice(db), 2)
    return bool(await db.fetchval(f"SELECT EXISTS ({_UNUSED})", before, 1, list(known), *others))


def _day(now: datetime) -> int:
    return (now - EPOCH).days


async def delete_the_rest(db: Db, known: Collection[str], keep: timedelta | None, now: datetime) -> bool:
    """What is older than the store keeps anything, once a round; gives whether there is more. None: it keeps all, but
    what was apart only while it was being written.
    """
    await db.execute(_PUT_AWAY)
    full: bool = await db.fetchval(_PUT_TOGETHER, _day(now), TOGETHER) == TOGETHER
    if keep is None or keep > now - EPOCH:
        return full
    before = microseconds(now - keep)
    facts_gone = False
    for table, key, which in _THE_REST:
        gone = changed(await db.execute(f"DELETE FROM taskloop.{table} WHERE {key} IN ({which})", before, TOGETHER))
        full = full or gone == TOGETHER
        facts_gone |= gone > 0 and table in _FACTS
    unused = f"DELETE FROM taskloop.jobs WHERE name IN ({_UNUSED})"
    others = arrays(await named_twice(db), 2)
    full |= changed(await db.execute(unused, before, TOGETHER, list(known), *others)) == TOGETHER
    if facts_gone:  # nobody may take what is gone for what never was
        await db.execute(
            "INSERT INTO taskloop.meta AS m VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value "
            "WHERE m.value::bigint < excluded.value::bigint",
            FACTS_SINCE, str(before),
        )  # fmt: skip
    return full
