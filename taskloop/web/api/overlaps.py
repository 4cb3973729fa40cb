"""What comes, and what is in each other's way, for pages. These routes may change."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from taskloop import durations
from taskloop.records import instant_text
from taskloop.simulation import overlap_record, simulation_record
from taskloop.web.api.asking import NARROWED, V1
from taskloop.web.api.between import Seen, is_off, seen
from taskloop.web.core import Response, answer
from taskloop.web.foresight import LONGEST
from taskloop.web.problems import Problem
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.store_data import Span
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "span_of"]


def span_of(text: str | None, usual: str) -> timedelta:
    """How far to look ahead. Raises `Problem`."""
    try:
        span = durations.parse_interval(text or usual)
    except ValueError as error:
        raise Problem(422, "invalid-value", f"the span cannot be: {error}") from None
    if span > LONGEST:
        raise Problem(422, "invalid-value", f"the span is {span}; allowed are {LONGEST.days} days at most")
    return span


async def overlaps(asked: Asked) -> Response:
    found = await asked.site.foresight.ahead(span_of(asked.query["for"], "7d"))
    return await answer(await asyncio.to_thread(simulation_record, found))


async def timeline(asked: Asked) -> Response:
    return await answer(await asyncio.to_thread(_timeline, await seen(asked)))


def _timeline(found: Seen) -> dict[str, Any]:
    runs: dict[str, list[Span]] = defaultdict(list)
    for one in found.runs:
        runs[one.job].append(one)
    coming: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for at, job in found.fires:
        trouble, off = found.troubles.get((job, at)), is_off(found.off, job, at)
        coming[job].append(
            {
                "at": instant_text(at),
                "fate": "skipped" if off else "runs" if trouble is None else trouble.fate,
                "wait_seconds": 0.0 if trouble is None else trouble.wait.total_seconds(),
            }
        )
    return {
        "from": instant_text(found.start),
        "until": instant_text(found.end),
        "now": instant_text(found.now),
        "lanes": [
            {"job": job, "runs": [_run(one) for one in runs.get(job, ())], "coming": coming.get(job, [])}
            for job in sorted({*runs, *coming})
        ],
        "overlaps": [overlap_record(one) for one in found.overlaps],
        "complete": not found.full,
    }


def _run(run: Span) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": run.state.value,
        "reason": run.reason,
        "due_at": instant_text(run.due_at),
        "started_at": instant_text(run.started_at),
        "ended_at": instant_text(run.ended_at),
        "count": run.count,
    }


ROUTES = (
    Route(
        method="GET", path=f"{V1}/overlaps", name="overlaps", scope=Scope.read, handler=overlaps,
        summary="What would happen: fires, overlaps, waits, load and notes, as of `taskloop simulate`",
        query=(Parameter("for", TEXT, "how far ahead, 31d at most; without it 7d"),), example="?for=24h",
    ),
    Route(
        method="GET", path=f"{V1}/timeline", name="timeline", scope=Scope.read, handler=timeline,
        summary="By job what was and what comes, and the overlaps foretold",
        query=(
            Parameter("from", TEXT, "how far back; without it 6h"), Parameter("to", TEXT, "how far ahead; without it 6h"),
            *NARROWED,
        ),
        example="?from=1h&to=24h",
    ),
)  # fmt: skip
