"""Runs: the history, one run in full, its end, and one like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskloop.errors import Conflict
from taskloop.flows import step_record
from taskloop.records import attempt_record, line_record, run_record
from taskloop.runs import Cause, Run, State
from taskloop.web.api.asking import BEFORE, KEY, KEY_HEADER, LIMIT, TOLD, V1, key, limit, newest, refuse_unknown
from taskloop.web.api.export import export
from taskloop.web.api.jobs import accepted
from taskloop.web.core import Response, answer, listed
from taskloop.web.problems import Problem
from taskloop.web.routes import FLAG, INSTANT, OBJECT, TEXT, Parameter, Route, whole, word, words
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

AFTER: Final = Parameter("after", whole(0, 10**18), "only what follows this place: the `next` of the page before")


async def runs(asked: Asked) -> Response:
    query = asked.query
    found, following = await newest(asked.scheduler, filters(asked), query["before"], limit(query))
    if not found and query["job"] is not None:
        await refuse_unknown(asked, query["job"])
    return await listed(found, run_record, following)


def filters(asked: Asked) -> dict[str, Any]:
    """What of the query narrows the history."""
    return {name: asked.query[name] for name in ("job", "state", "cause", "since", "until")}


async def run(asked: Asked) -> Response:
    return await answer(run_record(await asked.scheduler.run(asked.number())))


async def attempts(asked: Asked) -> Response:
    return await listed(await asked.scheduler.attempts(asked.number()), attempt_record)


async def steps(asked: Asked) -> Response:
    found = await asked.scheduler.steps(asked.number())
    return await listed(found, lambda one: {"name": one.name, **step_record(one)})


async def log(asked: Asked) -> Response:
    """Lines of its log; `next` is always there, for of a run that goes on more may come."""
    found = await asked.scheduler.log(asked.number(), after=asked.query["after"] or 0, limit=limit(asked.query))
    return await listed(found.lines, line_record, found.part)


async def result(asked: Asked) -> Response:
    """The result alone; of a run that has none yet, or never will, a conflict that says how it stands."""
    one = await asked.scheduler.run(asked.number())
    if not one.final:
        raise Conflict(f"run {one.id} is {one.state}, it has no result yet; ask again when it has ended")
    if one.state is not State.SUCCEEDED and one.result is None:
        raise Conflict(f"run {one.id} {one.state}, it has no result; GET {V1}/runs/{one.id} has its error")
    return await answer(one.result)


async def cancel(asked: Asked) -> Response:
    number = asked.number()
    run, had_ended = await ask_to_end(asked.scheduler, number, **asked.told())
    if had_ended:
        raise Problem(
            409, "conflict", f"run {number} {run.state} already", f"POST {V1}/runs/{number}/rerun runs it again",
            more={"state": run.state.value},
        )  # fmt: skip
    return await answer(run_record(run), 200 if run.final else 202)


async def ask_to_end(scheduler: TaskScheduler, number: int, *, actor: str, reason: str | None) -> tuple[Run, bool]:
    """Cancel a run; gives it as it stands, and whether it had ended before. Raises `NoSuchRun`."""
    run = await scheduler.run(number)
    if run.final:
        return run, True
    run = await scheduler.cancel(number, actor=actor, reason=reason)
    return run, run.final and run.state is not State.CANCELLED  # between the look and the cancel


async def rerun(asked: Asked) -> Response:
    number, body = asked.number(), asked.body
    asked.count_submit((await asked.scheduler.run(number)).job)
    own, once = key(asked), bool(body["once"])
    if once and own is not None:
        raise Problem(422, "invalid-value", "it has both a key and once", "give one of them: once has a key of its own")
    handle = await asked.scheduler.rerun(
        number, body["params"], from_step=body["from_step"], key=own, once=once, **asked.told()
    )
    return await accepted(asked, handle)


FILTERS: Final = (
    Parameter("job", TEXT, "only of this job"),
    Parameter("state", words(*State), "only in one of these states; without it all but skipped", many=True),
    Parameter("cause", word(*Cause), "only those that came about so"),
    Parameter("since", INSTANT, "on record from then on, or the time back from now such as 24h"),
    Parameter("until", INSTANT, "on record before then, or the time back from now"),
)

ROUTES = (
    Route(
        method="GET", path=f"{V1}/runs", name="runs", scope=Scope.read, handler=runs, gives={200: "Runs"},
        summary="The history, newest first", query=(*FILTERS, BEFORE, LIMIT), example="?state=failed&since=24h",
    ),
    Route(
        method="GET", path=f"{V1}/runs/export", name="export", scope=Scope.read, handler=export,
        summary="The history as a file, newest first, a million runs at most",
        query=(Parameter("format", word("csv", "jsonl"), "without it jsonl"), *FILTERS, BEFORE),
        example="?format=csv&since=7d", gives={200: "file"},
    ),
    Route(
        method="GET", path=f"{V1}/runs/{{id}}", name="run", scope=Scope.read, handler=run, gives={200: "Run"},
        summary="One run",
    ),
    Route(
        method="GET", path=f"{V1}/runs/{{id}}/attempts", name="attempts", scope=Scope.read, handler=attempts,
        summary="Its calls, oldest first",
    ),
    Route(
        method="GET", path=f"{V1}/runs/{{id}}/steps", name="steps", scope=Scope.read, handler=steps,
        summary="Its steps, in their order",
    ),
    Route(
        method="GET", path=f"{V1}/runs/{{id}}/log", name="log", scope=Scope.read, handler=log,
        summary="Lines of its own log, oldest first; `next` as `after` goes on, while it runs too", query=(AFTER, LIMIT),
        example="?after=0",
    ),
    Route(
        method="GET", path=f"{V1}/runs/{{id}}/result", name="result", scope=Scope.read, handler=result,
        summary="What it gave, as bare JSON; 409 while there is none", gives={200: "any"},
    ),
    Route(
        method="POST", path=f"{V1}/runs/{{id}}/cancel", name="cancel", scope=Scope.operate, handler=cancel, body=TOLD,
        summary="Ask for its end: 200 it has ended, 202 its worker was told", gives={200: "Run", 202: "Run"},
        example="""-d '{"reason": "not needed"}'""",
    ),
    Route(
        method="POST", path=f"{V1}/runs/{{id}}/rerun", name="rerun", scope=Scope.operate, handler=rerun,
        summary="Ask for a new run like it", gives={202: "Run"},
        body=(
            Parameter("params", OBJECT, "laid over its own"),
            Parameter("from_step", TEXT, "of a flow: take over what the steps before this one gave"),
            KEY,
            Parameter("once", FLAG, "only if it was not run again yet; else the answer is the first that repeats it"),
            *TOLD,
        ),
        headers=(KEY_HEADER,),
        example="""-d '{"params": {"days": 1}}'""",
    ),
)  # fmt: skip
