"""The pages of jobs: all of them, one with its form and its switches, and what those forms do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import quote, urlencode

from taskloop import looking
from taskloop.errors import BadParameters, NoSuchRun, TaskloopError, nearest
from taskloop.masking import shown
from taskloop.punctuality import Condition
from taskloop.records import JobRecord, Standing
from taskloop.runs import Cause, Run, State
from taskloop.web.api.asking import NARROWING, UNTIL
from taskloop.web.api.jobs import durations, spread, still_wanted, the_job, wanted
from taskloop.web.core import Response
from taskloop.web.discretion import explained
from taskloop.web.pages import charts
from taskloop.web.pages.forms import fields, in_a_gap, no_json, strays, typed
from taskloop.web.pages.graph import graph
from taskloop.web.pages.now import PAGE, empty_is_none, whole_page
from taskloop.web.pages.rendering import see_other, zone_of
from taskloop.web.pages.repeating import ONCE, form_key, sign
from taskloop.web.pages.results import picture_of
from taskloop.web.pages.strips import brief
from taskloop.web.problems import Problem
from taskloop.web.routes import TEXT, Parameter, Route, whole, word, words
from taskloop.web.security import Scope
from taskloop.why import said

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

JOBS_A_PAGE, STRIP, BARS, HISTORY, COMING, DAYS = 50, 20, 60, 200, 5, 30
CONDITIONS: Final = get_args(Condition)
OF_AN_OLDER_PAGE: Final = (
    "is none of the job by now, and what was typed for it is left out below; send that if it is right"
)


async def jobs(asked: Asked) -> Response:
    scheduler, query = asked.scheduler, {name: asked.query.get(name) for name in ("condition", "tag", "text", "before")}
    found = await looking.stands(scheduler)
    kept = wanted(found, {**query, "before": None})
    rest = wanted(kept, {"before": query["before"]})
    names = [one.name for one in rest[:JOBS_A_PAGE]]
    records, strips = await looking.records(scheduler, names), await looking.strips(scheduler, names, STRIP)
    here = still_wanted(records, query)
    texts = {**query, "condition": ",".join(query["condition"] or ()), "before": None}
    narrowed = {name: value for name, value in texts.items() if value}
    following = urlencode({**narrowed, "before": names[-1]}) if len(rest) > len(names) else None
    # What is shown was read after the others: it is counted as it is shown, and not at all where it is gone.
    chosen = {*names}
    conditions = {one.name: one.condition for one in found if one.name not in chosen}
    conditions |= {one.name: one.condition for one in records}
    counts = Counter(conditions.values())
    near = None if kept else await asyncio.to_thread(_near, found, query)
    return await whole_page(
        asked, "jobs.html", near=near, meant=urlencode({**narrowed, **(near or {})}), jobs=here, strips=strips, wanted=query, next=following, kept=urlencode(narrowed),
        found=len(kept) - len(names) + len(here), all=len(conditions),
        conditions=CONDITIONS, counts={word: counts[word] for word in CONDITIONS if counts[word] and word != "ok"},
    )  # fmt: skip


def _near(found: Sequence[Standing], query: Mapping[str, Any]) -> dict[str, str] | None:
    """Of a filter that nothing fits, what may be meant by a word in it that no job has; None: nothing is near."""
    tags = {tag for one in found for tag in one.facts["policy"].get("tags", ())}
    for name, known in (("tag", tags), ("text", {one.name for one in found})):
        if query[name] and not wanted(found, {name: query[name]}) and (near := nearest(query[name], sorted(known))):
            return {name: near}
    return None


async def job(asked: Asked) -> Response:
    source = None
    if asked.query["from_run"] is not None:
        source = await asked.scheduler.run(asked.query["from_run"])
        if source.job != asked.path["job"]:
            raise NoSuchRun(source.id)
    return await _page(asked, await the_job(asked), source=source)


async def _page(
    asked: Asked,
    record: JobRecord,
    status: int = 200,
    *,
    source: Run | None = None,
    given: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    refused: str = "",
    switch: Mapping[str, str] | None = None,
) -> Response:
    """The page of a job. `source`: the run that is to be repeated; `given`: what was typed, refused for `problems`;
    `switch`: what was typed to switch it, with the verb, and as `refused` why that cannot be.
    """
    scheduler, query, zone = asked.scheduler, asked.query, zone_of(asked)
    runs = await scheduler.runs(record.name, limit=HISTORY)
    won = [one for one in runs if one.state is State.SUCCEEDED][:1]
    why, problem = None, ""
    try:
        why = await scheduler.why(record.name, query.get("at") or None)
        why = why if asked.admin else explained(why)
    except (TaskloopError, ValueError) as error:
        problem = str(error)
    begin = None if source is None else shown(source.params)
    middle = spread(durations(runs))
    pause = await looking.own_pause(scheduler, record.name)
    counted = charts.days(await looking.days(scheduler, record.name, DAYS), asked.now.date(), DAYS)
    return await whole_page(
        asked, "job.html", status, job=record, runs=runs, bars=[*map(brief, runs[:BARS])], why=why, said_in_why=[] if why is None else said(why), problem=problem, wanted={"at": None, **query},
        spread=middle, charts=bool(runs), durations=charts.durations_data(runs, middle), days=counted,
        success=charts.success_data(counted), graph=graph(record.steps),
        coming=await scheduler.upcoming(limit=COMING, job=record.name), known=record.name in scheduler,
        fields=await asyncio.to_thread(fields, record.params_schema, begin, problems, zone, given), source=source, refused=refused,
        once=sign(asked), effect=await asked.site.foresight.day_of(record.name),
        pause=pause, held_here=await scheduler.held(record.name) if pause else 0,
        shown=await asyncio.to_thread(picture_of, won), won=won,
        active=sum(not one.final for one in runs),
        steps=await _steps_to_begin_at(scheduler, record, source), given={"at": "", "key": "", "reason": "", "from_step": "", **(given or {})},
        switch={"verb": "", "refused": "", "reason": "", "until": "", **(switch or {})}, about_job=record.name, policy=[(name, _policy_text(value)) for name, value in record.policy.items() if value not in (None, [], {}, "")],
    )  # fmt: skip


async def _steps_to_begin_at(scheduler: TaskScheduler, record: JobRecord, source: Run | None) -> list[str]:
    """At which steps a run may be begun again: of a flow those it has now, whatever they began themselves."""
    taken_over = () if source is None else await scheduler.steps(source.id)
    declared = [one["name"] for one in record.steps] if taken_over else []
    return declared or [one.name for one in taken_over]


def _policy_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


async def submit(asked: Asked) -> Response:
    """Ask for a run by the form; what is wrong with it stands beside its fields."""
    record, form = await the_job(asked), empty_is_none(asked.body)
    source = await asked.scheduler.run(asked.number(form["from_run"])) if form.get("from_run") else None
    if source is not None and source.job != record.name:
        raise NoSuchRun(source.id)
    before = shown(source.params) if source is not None else None
    params = typed(record.params_schema, asked.body, zone_of(asked), before=before)
    by: dict[str, Any] = {"actor": asked.principal.name, "reason": form.get("reason")}
    once, key = str(form.get("once") or "")[:ONCE], form.get("key")
    sent = form_key(once, {**asked.body, "job": record.name}, await asked.site.access.marks()) if once else None

    async def ask() -> RunHandle[Any]:
        asked.count_submit(record.name)
        if stray := strays(record.params_schema, asked.body):
            raise BadParameters(record.name, dict.fromkeys(stray, OF_AN_OLDER_PAGE))
        if gaps := in_a_gap(record.params_schema, asked.body, zone_of(asked), params):
            raise BadParameters(record.name, gaps)
        if source is not None:
            return await asked.scheduler.rerun(
                source.id, params, from_step=form.get("from_step"), key=key or sent, **by
            )
        return await asked.scheduler.submit(
            record.name, params, at=form.get("at"), key=key or sent, cause=Cause.MANUAL, **by
        )

    cause = Cause.MANUAL if source is None else Cause.RERUN
    try:
        made = await asked.site.forms.ask(asked.scheduler, record.name, sent, cause, ask)
    except BadParameters as error:
        unread = no_json(record.params_schema, asked.body)
        problems = {name: unread.get(name, text) for name, text in error.problems.items()}
        return await _page(
            asked, record, 422, source=source, given=asked.body, problems=problems,
            refused=f"Nothing was submitted: {_misfits(record.params_schema, problems)}.",
        )  # fmt: skip
    except (TaskloopError, ValueError) as error:
        return await _page(
            asked, record, 409, source=source, given=asked.body, refused=f"Nothing was submitted: {error}"
        )
    except Problem as problem:  # too often: what was typed is good for later
        told = f"Nothing was submitted: {problem.detail}; {problem.hint}"
        response = await _page(asked, record, problem.status, source=source, given=asked.body, refused=told)
        response.headers |= problem.headers
        return response
    return see_other(asked, f"/runs/{made.id}", "existed" if made.existed else "submitted")


def _misfits(schema: Mapping[str, Any], problems: Mapping[str, str]) -> str:
    """Where to look for what is wrong; what stands at no field is said at once, as of a parameter that is gone."""
    named = {one.name for one in fields(schema)}
    told = ["see the fields below"] if named & problems.keys() else []
    return "; ".join([*told, *(f"parameter '{name}' {text}" for name, text in problems.items() if name not in named)])


# -- switches


async def _switch(asked: Asked, verb: str, said: str, *names: str) -> Response:
    record, form = await the_job(asked), empty_is_none(asked.body)
    options = {name: form.get(name) for name in names}
    try:
        await getattr(asked.scheduler, verb)(record.name, actor=asked.principal.name, **options)
    except ValueError as error:  # an `until` that is none
        typed = {name: str(asked.body.get(name) or "") for name in names}
        return await _page(asked, record, 422, switch={"verb": verb, "refused": f"Nothing was done: {error}", **typed})
    return see_other(asked, f"/jobs/{quote(record.name, safe='')}", said)


async def enable(asked: Asked) -> Response:
    return await _switch(asked, "enable", "enabled", "reason")


async def disable(asked: Asked) -> Response:
    return await _switch(asked, "disable", "disabled", "reason", "until")


async def pause(asked: Asked) -> Response:
    return await _switch(asked, "pause", "paused", "reason", "until")


async def resume(asked: Asked) -> Response:
    said = "resumed"
    if await asked.scheduler.paused():
        said = "still_held"
    elif await looking.own_pause(asked.scheduler, (await the_job(asked)).name) is None:
        said = "not_paused"
    return await _switch(asked, "resume", said, "missed", "reason")


REASON: Final = Parameter("reason", TEXT, "why")
_UNTIL: Final = Parameter("until", TEXT, UNTIL.summary)

ROUTES = (
    Route(
        method="GET", path="/jobs", name="page_jobs", scope=Scope.read, handler=jobs, summary="Jobs", page=True,
        query=(
            *PAGE,
            Parameter("condition", words(*CONDITIONS), "only jobs that stand so", many=True),
            *NARROWING,
            Parameter("before", TEXT, "the name of the last job of the page before"),
        ),
    ),
    Route(
        method="GET", path="/jobs/{job}", name="page_job", scope=Scope.read, handler=job, summary="A job", page=True,
        query=(
            *PAGE,
            Parameter("at", TEXT, "the instant to explain"),
            Parameter("from_run", whole(1, 10**18), "the run to repeat"),
        ),
    ),
    Route(
        method="POST", path="/jobs/{job}/submit", name="page_submit", scope=Scope.operate, handler=submit,
        summary="Submit", page=True, free_body="the form's fields",
    ),
    *(
        Route(
            method="POST", path=f"/jobs/{{job}}/{name}", name=f"page_{name}", scope=Scope.admin, handler=handler,
            summary=name.capitalize(), page=True, body=body,
        )
        for name, handler, body in (
            ("enable", enable, (REASON,)),
            ("disable", disable, (REASON, _UNTIL)),
            ("pause", pause, (REASON, _UNTIL)),
            ("resume", resume, (REASON, Parameter("missed", word("", "skip", "latest", "all"), "what becomes of what was held"))),
        )
    ),
)  # fmt: skip
