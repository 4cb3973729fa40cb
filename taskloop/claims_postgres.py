"""Which waiting runs a worker is given: by priority, then by how long they are ready, within the limits of jobs and groups.

Level 5. Parts of a transaction, like those of `statements_postgres`. What waits may be a million runs of a job that is at its
limit: as many are looked through as a start may need, and beyond them each job is asked for its own. Start at `claim`.

Workers meet here, in the mode READ COMMITTED: a waiting run is claimed by who locks its row first, and who comes second
passes it by; a run whose start depends on how many others run is claimed under a lock that all claims of such runs take.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from taskloop.clock import microseconds
from taskloop.fates import MOST_EXPIRED, Fullness, claimed, regrouped, take
from taskloop.rows import encode, instant
from taskloop.rows_postgres import ONE_BY_ONE, RUN, STILL_RUNNING, Db, arrays, heard, kept, run_of
from taskloop.runs import Reason, Run, State
from taskloop.statements_postgres import Known, count_days, lock
from taskloop.store_data import Claimed

__all__ = ["claim", "unclaim"]

CLAIMING: Final = 0x7461_736B_6C6F_6F02
"""The lock of claims whose answer depends on what else runs."""
_STARTED: Final = "state = 'running'"
_PRIORITIES: Final = (
    "WITH RECURSIVE p(priority, first) AS ((SELECT priority, ready_at FROM taskloop.runs WHERE state = 'waiting' "
    "ORDER BY priority DESC, ready_at LIMIT 1) UNION ALL SELECT n.priority, n.ready_at FROM p CROSS JOIN LATERAL "
    "(SELECT priority, ready_at FROM taskloop.runs WHERE state = 'waiting' AND priority < p.priority "
    "ORDER BY priority DESC, ready_at LIMIT 1) n) "
)
"""The priorities of what waits, the highest first, and since when the first of each is ready: one look into the index each.

Everything else looks on from there. As long as any transaction of the server is older than a run that has begun since, as
that of a dump, the index still has that run, and a look from its beginning goes through all such. Nor is the highest asked
for by max(), which any index of what waits may seem good for: to a server that has counted when nothing waited all are empty.
"""
LOOKED_AT: Final = 1_000
"""Runs of a priority that wait, the first in their order, which are looked through for what may start: those of a job that is
at its limit, or held, may be a million. Beyond them each job is asked for its own first.
"""
_READY: Final = "state = 'waiting' AND priority = p.priority AND ready_at BETWEEN p.first AND $1"
_END: Final = (
    f"(SELECT ready_at, id FROM taskloop.runs WHERE {_READY} ORDER BY ready_at, id LIMIT 1 OFFSET {LOOKED_AT})"
)
_MAY_START: Final = (
    "c.id <> ALL($5::bigint[]) AND (c.schedule IS NULL OR c.job = ANY($3::text[]) OR (c.schedule <> ALL($6::text[]) "
    "AND NOT EXISTS (SELECT 1 FROM taskloop.runs a WHERE a.schedule = c.schedule AND a.schedule IS NOT NULL "
    "AND a.state IN ('waiting', 'running') AND a.state = 'running'))) "
    "ORDER BY c.ready_at, c.id LIMIT $7 FOR UPDATE SKIP LOCKED"
)
_CANDIDATES: Final = (
    f"{_PRIORITIES} SELECT r.* FROM p LEFT JOIN LATERAL {_END} e ON true CROSS JOIN LATERAL (SELECT {RUN} FROM taskloop.runs c "
    "WHERE c.state = 'waiting' AND c.priority = p.priority AND c.ready_at >= p.first "
    "AND (c.ready_at, c.id) < (coalesce(e.ready_at, $1 + 1), coalesce(e.id, 0)) "
    f"AND c.job = ANY($2::text[]) AND c.job <> ALL($4::text[]) AND {_MAY_START}) r LIMIT $7"
)
_OF_EACH: Final = (
    f"{_PRIORITIES} SELECT r.* FROM p CROSS JOIN LATERAL (SELECT f.* FROM unnest($2::text[]) k(job) CROSS JOIN LATERAL ("
    f"SELECT {RUN} FROM taskloop.runs c WHERE c.state = 'waiting' AND c.job = k.job AND c.priority = p.priority "
    f"AND c.ready_at BETWEEN p.first AND $1 AND {_MAY_START}) f "
    "WHERE k.job <> ALL($4::text[]) ORDER BY f.ready_at, f.id LIMIT $7) r LIMIT $7"
)
_ARE_MANY: Final = f"{_PRIORITIES} SELECT bool_or(e.id IS NOT NULL) FROM p LEFT JOIN LATERAL {_END} e ON true"
"""Whether there are more than those that are looked through."""
_ORDER: Final = ("priority", "ready_at", "id")
_WHAT_WAITS: Final = (
    f"{_PRIORITIES} SELECT (SELECT min(n) FROM p CROSS JOIN LATERAL (SELECT min(ready_at) AS n FROM taskloop.runs "
    "WHERE state = 'waiting' AND priority = p.priority AND ready_at > $1) r), EXISTS (SELECT 1 FROM p)"
)
_WHAT_EXPIRES: Final = (
    f"{_WHAT_WAITS}, (SELECT min(expires_at) FROM taskloop.runs WHERE state = 'waiting' AND expires_at IS NOT NULL)"
)
"""The same where a fire may wait for too long. Else that is not asked: a server that has counted when nothing waited may take any
index for it, and go through all that waits by now.
"""


async def claim(db: Db, worker: str, now: datetime, slots: int, known: Known) -> Claimed:
    """Give `worker` at most `slots` waiting runs that may start: by priority, then by how long they are ready."""
    at = microseconds(now)
    full = Fullness(known.terms, [])
    expired = await _expire(db, now, known) if known.expires else []
    if len(expired) == MOST_EXPIRED:  # others may be too late as well, and none of them is to begin
        return Claimed([], expired, now, more=True)
    chosen: list[list[Any]] = []
    locked = of_each = False
    while len(chosen) < slots:
        wanted = slots - len(chosen)
        schedules = [row[2] for row in chosen if row[2] is not None]
        rows = await db.fetch(
            _OF_EACH if of_each else _CANDIDATES,
            at,
            known.jobs,
            list(known.free),
            sorted(full.jobs),
            [row[0] for row in chosen],
            schedules,
            wanted,
        )
        found = len(rows)
        if not locked and any(map(known.depends, rows)):
            locked = True
            await lock(db, CLAIMING)
            full = Fullness(known.terms, await _running(db) if known.limited else [])
            rows = await _still_free(db, rows, known)
        rows = sorted(rows, key=lambda row: (-row["priority"], row["ready_at"], row["id"]))
        if take([list(row) for row in rows], full, chosen) == found or not rows:
            if of_each or len(chosen) == slots or not await db.fetchval(_ARE_MANY, at):
                break
            of_each = True
    rows = [_read(row) for row in chosen]
    moved = [(kept(group), run) for group, run in regrouped(rows, known.terms)]
    started = [claimed(row, worker, now) for row in rows]
    if moved:
        await db.execute(
            'UPDATE taskloop.runs r SET "group" = v.name FROM unnest($1::text[], $2::bigint[]) AS v(name, id) '
            f"WHERE r.id = v.id AND {ONE_BY_ONE}",
            *arrays(moved, 2),
        )
    if started:
        await db.execute(
            "UPDATE taskloop.runs r SET state = 'running', worker = $1, token = token + 1, attempt = attempt + 1, "
            "started_at = coalesce(started_at, $2), attempt_started_at = $2, expires_at = NULL, progress = NULL, error = NULL "
            f"FROM unnest($3::bigint[]) AS v(id) WHERE r.id = v.id AND {ONE_BY_ONE}",
            worker, at, [run.id for run in started],
        )  # fmt: skip
    ready_at, left, *expiring = await db.fetchrow(_WHAT_EXPIRES if known.expires else _WHAT_WAITS, at)
    coming = [ready_at] if len(chosen) < slots else []
    coming += [one + 1 for one in expiring if one is not None]
    next_at = min((one for one in coming if one is not None), default=None)
    return Claimed(started, expired, instant(next_at), len(chosen) == slots, left)


async def unclaim(db: Db, runs: Sequence[Run]) -> None:
    """Let claimed runs wait again that nobody has begun."""
    if runs:
        await db.execute(
            "UPDATE taskloop.runs r SET state = 'waiting', worker = NULL, attempt = r.attempt - 1, attempt_started_at = NULL, "
            "started_at = CASE WHEN r.attempt > 1 THEN r.started_at END FROM unnest($1::bigint[], $2::bigint[]) v(id, token) "
            f"WHERE r.id = v.id AND r.token = v.token AND {STILL_RUNNING} AND {ONE_BY_ONE}",
            *arrays([(run.id, run.token) for run in runs], 2),
        )


def _read(row: list[Any]) -> list[Any]:
    """A row of RUN_COLUMNS as it stands in other stores."""
    return [heard(value) if isinstance(value, str) else value for value in row]


async def _running(db: Db) -> Sequence[Any]:
    """How many runs of each job and group run."""
    return await db.fetch(f'SELECT job, "group", count(*) FROM taskloop.runs WHERE {_STARTED} GROUP BY job, "group"')


async def _still_free(db: Db, rows: Sequence[Any], known: Known) -> list[Any]:
    """Of candidates those whose schedule has no running run now that nobody else starts any."""
    schedules = [row["schedule"] for row in rows if row["schedule"] is not None and row["job"] not in known.free]
    if not schedules:
        return list(rows)
    busy = {
        row[0]
        for row in await db.fetch(
            "SELECT schedule FROM taskloop.runs WHERE schedule IS NOT NULL AND state IN ('waiting', 'running') "
            f"AND {_STARTED} AND schedule = ANY($1::text[])",
            schedules,
        )
    }
    return [row for row in rows if row["job"] in known.free or row["schedule"] not in busy]


async def _expire(db: Db, now: datetime, known: Known) -> list[Run]:
    """Skip fires that waited beyond `max_late`: as `group_full` if their group has no place, else as `too_late`."""
    at = microseconds(now)
    rows = await db.fetch(
        f"SELECT {RUN} FROM taskloop.runs WHERE state = 'waiting' AND expires_at IS NOT NULL AND expires_at < $1 "
        f"ORDER BY id LIMIT {MOST_EXPIRED} FOR UPDATE SKIP LOCKED",
        at,
    )
    if not rows:
        return []
    full = Fullness(known.terms, await _running(db) if known.limited else [])
    runs = []
    for row in rows:
        reason = Reason.GROUP_FULL if full.waits_for_group(row["job"]) else Reason.TOO_LATE
        data = {"late_seconds": (at - row["due_at"]) / 1e6}
        runs.append(run_of(row).changed(state=State.SKIPPED, reason=reason.value, ended_at=now, data=data))
    await db.execute(
        "UPDATE taskloop.runs r SET state = 'skipped', reason = v.reason, ended_at = $1, data = v.data "
        f"FROM unnest($2::bigint[], $3::text[], $4::text[]) AS v(id, reason, data) WHERE r.id = v.id AND {ONE_BY_ONE}",
        at, *arrays([(run.id, run.reason, encode(run.data)) for run in runs], 3),
    )  # fmt: skip
    await count_days(db, runs)
    return runs
