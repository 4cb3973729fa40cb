"""The pages of runs: the history, and one run from its start to its end."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from taskloop import durations
from taskloop.errors import nearest
from taskloop.explaining import lost_by, plan, waits_for
from taskloop.looking import identities, run_in_full
from taskloop.masking import shown
from taskloop.records import instant_text
from taskloop.runs import Cause, Run, State
from taskloop.steps import LogLine, standing
from taskloop.web.api.asking import BEFORE
from taskloop.web.api.failures import FAILED, USUAL, fingerprint
from taskloop.web.api.runs import AFTER, ask_to_end
from taskloop.web.core import Response
from taskloop.web.pages.graph import graph
from taskloop.web.pages.now import PAGE, empty_is_none, whole_page
from taskloop.web.pages.rendering import see_other
from taskloop.web.pages.repeating import Difference, changes, source_of
from taskloop.web.pages.results import as_json, picture_of
from taskloop.web.routes import INSTANT, TEXT, Parameter, Route, word, words
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.audit import Entry
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

RUNS_A_PAGE = 50
LINES: Final = 500
"""Of a log that are shown at once, without further ado those of its end."""
AT_ONCE: Final = 10_000
"""Lines that are read at once, to find the end of a log."""


ENTRIES: Final = 50
"""Of what was done to a job of late, among which a cancel of its run is looked for."""


async def runs(asked: Asked) -> Response:
    query, scheduler = asked.query, asked.scheduler
    narrowed = {name: query[name] for name in ("job", "state", "cause", "since") if query[name]}
    found = await scheduler.runs(**narrowed, before=query["before"], limit=RUNS_A_PAGE + 1)
    here = found[:RUNS_A_PAGE]
    kept = {name: ",".join(value) if isinstance(value, list) else value for name, value in narrowed.items()}
    following = urlencode({**kept, "before": here[-1].id}) if len(found) > len(here) else None
    names = sorted(job.name for job in scheduler)
    misspelt = not here and query["job"] and query["job"] not in names
    near = await asyncio.to_thread(nearest, query["job"], names) if misspelt else None
    return await whole_page(
        asked, "runs.html", runs=here, next=following, kept=urlencode(kept), wanted=query, narrowed=narrowed, states=[*State], causes=[*Cause],
        names=names, near=near, meant=urlencode({**kept, "job": near}), coming=[] if here else await _coming(asked, narrowed),
    )  # fmt: skip


async def _coming(asked: Asked, narrowed: Mapping[str, Any]) -> list[Any]:
    """The fire that would fill an empty list; none where that may be long due, as what a pause holds is."""
    scheduler, job = asked.scheduler, narrowed.get("job")
    if job is not None and job not in scheduler:
        return []
    return [one for one in await scheduler.upcoming(limit=1, job=job) if one[0] > asked.now]


async def run(asked: Asked) -> Response:
    scheduler, number = asked.scheduler, asked.number()
    one, attempts, steps = await run_in_full(scheduler, number)
    lines, earlier, following = await _log(asked, number)
    params, result = await asyncio.to_thread(_texts, one)
    facts = await plan(scheduler, one.job) if steps else ()
    return await whole_page(
        asked, "run.html", run=one, attempts=attempts, steps=steps, graph=graph(facts, steps, one.state), standing=standing,
        workers=await identities(scheduler, {one.worker, *(each.worker for each in attempts)}),
        reruns=await scheduler.reruns(number), lines=lines, earlier=earlier, following=following, wanted=asked.query,
        params=params, result=result, waits=await waits_for(scheduler, one), lost=await lost_by(scheduler, one), ending=await _asked_to_end(asked, one), known=one.job in scheduler,
        shown=await asyncio.to_thread(picture_of, [one]), changes=await _changes(asked, one), about_run=number,
        alike=_alike(one, asked.now), good=await _good_before(asked, one), usual={} if one.final else await asked.site.foresight.usual([one.job]),
    )  # fmt: skip


async def _asked_to_end(asked: Asked, one: Run) -> Entry | None:
    """Who asked a run to end that goes on nevertheless; None: nobody did, of late."""
    if one.state is not State.RUNNING:
        return None
    found = await asked.scheduler.audit(job=one.job, limit=ENTRIES)
    return next((entry for entry in found if entry.action == "cancel" and entry.object == str(one.id)), None)


def _alike(one: Run, now: datetime) -> str:
    """The query of the page of failures for what failed of the same cause, from this one on at least; empty: it did not."""
    if one.state not in FAILED:
        return ""
    since = min(one.created_at, now - durations.parse(USUAL))
    return urlencode({"since": instant_text(since), "cause": fingerprint(one)})


async def _good_before(asked: Asked, one: Run) -> tuple[Run, list[Difference]] | None:
    """Of a run that failed the last one before it that did not, and what is different; None: there is none on record."""
    if one.state not in FAILED:
        return None
    found = await asked.scheduler.runs(one.job, state=State.SUCCEEDED, before=one.id, limit=1)
    return (found[0], changes(found[0].params, one.params)) if found else None


async def _log(asked: Asked, number: int) -> tuple[Sequence[LogLine], int, int | None]:
    """The end of a run's log, with the number of lines before it; `after` a place the lines that follow, and where to go on."""
    after, log = asked.query["after"], asked.scheduler.log
    if after is None:
        end, seen, place = deque[LogLine](maxlen=LINES), 0, 0
        while True:
            found, place = await log(number, after=place, limit=AT_ONCE)
            end.extend(found)
            seen += len(found)
            if len(found) < AT_ONCE:
                return [*end], seen - len(end), None
    lines, place = await log(number, after=after, limit=LINES)
    more = bool(lines) and bool((await log(number, after=place, limit=1)).lines)
    return lines, 0, place if more else None


async def _changes(asked: Asked, one: Run) -> list[Difference] | None:
    """What a run that repeats another changed; None: it repeats none that is kept."""
    source = await source_of(asked.scheduler, one)
    return None if source is None else changes(source.params, one.params)


def _texts(one: Run) -> tuple[str, str]:
    """Its parameters and its result as people read JSON."""
    params = json.dumps(shown(one.params), indent=2, ensure_ascii=False, default=str) if one.params else ""
    return params, as_json(one.result)


async def cancel(asked: Asked) -> Response:
    number, reason = asked.number(), empty_is_none(asked.body).get("reason")
    _, had_ended = await ask_to_end(asked.scheduler, number, actor=asked.principal.name, reason=reason)
    return see_other(asked, f"/runs/{number}", "ended" if had_ended else "cancelled")


ROUTES = (
    Route(
        method="GET", path="/runs", name="page_runs", scope=Scope.read, handler=runs, summary="Runs", page=True,
        query=(
            *PAGE,
            Parameter("job", TEXT, "only of this job"),
            Parameter("state", words(*State), "only in one of these states", many=True),
            Parameter("cause", word("", *Cause), "only those that came about so"),
            Parameter("since", INSTANT, "on record from then on"),
            BEFORE,
        ),
    ),
    Route(
        method="GET", path="/runs/{id}", name="page_run", scope=Scope.read, handler=run, summary="A run", page=True,
        query=(*PAGE, AFTER, Parameter("only", TEXT, "of its result this part alone")),
    ),
    Route(
        method="POST", path="/runs/{id}/cancel", name="page_cancel", scope=Scope.operate, handler=cancel,
        summary="Cancel", page=True, body=(Parameter("reason", TEXT, "why"),),
    ),
)  # fmt: skip
