"""Jobs: how they stand, why they did or did not run, and what can be done to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

from taskloop import looking
from taskloop.errors import BadParameters
from taskloop.punctuality import Condition
from taskloop.records import JobRecord, Standing, instant_text, job_record, run_record
from taskloop.runs import Cause, Run, State
from taskloop.web.api import asking
from taskloop.web.api.asking import (
    FIRES_UNTIL,
    KEY,
    KEY_HEADER,
    LIMIT,
    NARROWING,
    TOLD,
    UNTIL,
    V1,
    key,
    limit,
    no_such_job,
)
from taskloop.web.core import Response, answer, listed
from taskloop.web.discretion import explained
from taskloop.web.problems import Problem
from taskloop.web.routes import FLAG, INSTANT, OBJECT, TEXT, Parameter, Route, whole, word, words
from taskloop.web.security import Scope
from taskloop.why import explanation_record

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.web.site import Asked

NEWEST: Final = 1000
"""Runs of which statistics are made."""


async def the_job(asked: Asked, name: str | None = None) -> JobRecord:
    """The job of that name, else of the name in the path, as it stands. Raises `NoSuchJob`."""
    name = asked.path["job"] if name is None else name
    found = await asked.scheduler.jobs(name)
    if not found:
        raise await no_such_job(asked, name)
    return found[0]


# -- looking


async def jobs(asked: Asked) -> Response:
    query, most = asked.query, limit(asked.query)
    found = wanted(await looking.stands(asked.scheduler), query)
    names = [one.name for one in found[:most]]
    records = await looking.records(asked.scheduler, names)
    # `next` is of those that were chosen: that one of them is gone by now ends no list.
    return await listed(still_wanted(records, query), job_record, names[-1] if len(found) > most else None)


def wanted(found: Iterable[Standing], query: Mapping[str, Any]) -> list[Standing]:
    """Those that stand in one of the `condition`s, have the `tag`, the `text` in their name or title, and come after `before`."""
    conditions, tag, text, before = (query.get(name) for name in ("condition", "tag", "text", "before"))
    return [
        one
        for one in found
        if (not before or one.name > before)
        and (not conditions or one.condition in conditions)
        and (not tag or tag in one.facts["policy"].get("tags", ()))
        and (not text or text.lower() in f"{one.name} {one.title}".lower())
    ]


def still_wanted(records: Iterable[JobRecord], query: Mapping[str, Any]) -> list[JobRecord]:
    """Of jobs that were chosen by how they stood, and read in full after that, those that stand so still."""
    conditions = query.get("condition")
    return [one for one in records if not conditions or one.condition in conditions]


async def job(asked: Asked) -> Response:
    return await answer(job_record(await the_job(asked)))


async def stats(asked: Asked) -> Response:
    since = asked.query["since"] or "7d"
    record, found = await _with_runs(asked, since)
    waited = sorted(
        (one.started_at - one.ready_at).total_seconds() for one in found if one.started_at and one.attempt <= 1
    )
    counts = Counter[State]()
    for one in found:
        counts[one.state] += one.count
    ended = counts[State.SUCCEEDED] + counts[State.FAILED] + counts[State.INTERRUPTED]
    return await answer(
        {
            "job": record.name,
            "since": since,
            "runs": {state.value: counts[state] for state in State},
            "success_rate": counts[State.SUCCEEDED] / ended if ended else None,
            "took_seconds": spread(durations(found)),
            "waited_seconds": spread([max(0.0, one) for one in waited]),
            "last_run": None if record.last_run is None else record.last_run.id,
            "last_success": instant_text(record.last_success),
            "consecutive_failures": record.consecutive_failures,
            "complete": len(found) < NEWEST,
        }
    )


async def _with_runs(asked: Asked, since: str) -> tuple[JobRecord, list[Run]]:
    """The job with its newest runs, skips too, which tell the same: read again where one began or ended meanwhile."""
    record = await the_job(asked)
    for _ in range(looking.TRIES):
        before, found = record, await _lightly(asked, record.name, since)
        record = await the_job(asked)
        if _course(record) == _course(before):
            break
    return record, found


async def _lightly(asked: Asked, name: str, since: str) -> list[Run]:
    """The newest runs of a job, skips too, without what they came to and were given: that may be gigabytes."""
    found: list[Run] = []
    while len(found) < NEWEST:
        count, before = min(asking.AT_ONCE, NEWEST - len(found)), found[-1].id if found else None
        some = await asked.scheduler.runs(name, state=[*State], since=since, before=before, limit=count)
        found += [one.changed(result=None, params={}, error=None) for one in some]
        if len(some) < count:
            break
    return found


def _course(record: JobRecord) -> tuple[Any, ...]:
    last = record.last_run
    return last and (last.id, last.state), record.last_success, record.consecutive_failures


def durations(runs: Sequence[Run]) -> list[float]:
    """Seconds that those which succeeded took, sorted."""
    return sorted(
        (one.ended_at - one.started_at).total_seconds()
        for one in runs
        if one.state is State.SUCCEEDED and one.started_at is not None and one.ended_at is not None
    )


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """The middle, the slow end and the longest; of sorted values."""

    def at(part: float) -> float | None:
        return seconds[min(len(seconds) - 1, int(part * len(seconds)))] if seconds else None

    return {"p50": at(0.5), "p95": at(0.95), "max": seconds[-1] if seconds else None}


async def upcoming(asked: Asked) -> Response:
    record = await the_job(asked)
    return await coming(asked, record.name)


async def coming(asked: Asked, name: str | None = None) -> Response:
    """The fires that come, of one job or of all."""
    fires = await asked.scheduler.upcoming(asked.query["until"], limit(asked.query), job=name)
    return await listed(
        fires, lambda one: {"at": instant_text(one[0]), "job": one[1].job, "schedule": one[1].id}
    )  # fmt: skip


async def why(asked: Asked) -> Response:
    query, name = asked.query, asked.path["job"]
    if query["run"] is not None:
        run = await asked.scheduler.run(query["run"])
        aliases = asked.scheduler[name].aliases if name in asked.scheduler else ()
        if run.job not in (name, *aliases):
            raise Problem(404, "run-not-found", f"run {run.id} is of job '{run.job}', not of '{name[:80]}'")
    explanation = await asked.scheduler.why(name, query["at"], query["run"])
    return await answer(explanation_record(explanation if asked.admin else explained(explanation)))


async def validate(asked: Asked) -> Response:
    one = asked.scheduler[asked.path["job"]]
    try:
        plain = one.parameters.check(asked.body["params"] or {})
    except BadParameters as error:
        problems = [{"parameter": name, "detail": text} for name, text in error.problems.items()]
        return await answer({"ok": False, "params": None, "errors": problems})
    return await answer({"ok": True, "params": plain, "errors": []})


# -- asking for runs


async def submit(asked: Asked) -> Response:
    name, body = asked.path["job"], asked.body
    asked.count_submit(name)
    handle = await asked.scheduler.submit(
        name, body["params"], at=body["at"], key=key(asked), cause=Cause.API, **asked.told()
    )
    return await accepted(asked, handle)


async def accepted(asked: Asked, handle: RunHandle[Any]) -> Response:
    """The run that was asked for, and where it can be looked at; of one that was there before, that it was."""
    where = {"location": f"{asked.request.prefix}{V1}/runs/{handle.run.id}"}
    again = {"idempotent-replayed": "true"} if handle.run.existed else {}
    return await answer(run_record(handle.run), 202, headers=where | again)


async def run_all(asked: Asked) -> Response:
    asked.count_submit("*")
    handles = await asked.scheduler.submit_all(cause=Cause.API, **asked.told())
    response = await listed([one.run for one in handles], run_record)
    response.status = 202
    return response


# -- switching

Verb = Callable[..., Awaitable[None]]


async def _switched(asked: Asked, verb: Verb, **options: Any) -> Response:
    """Do something to a job, and give it as it stands then."""
    record = await the_job(asked)
    await verb(record.name, **options, **asked.told())
    return await answer(job_record(await the_job(asked, record.name)))


async def enable(asked: Asked) -> Response:
    return await _switched(asked, asked.scheduler.enable)


async def disable(asked: Asked) -> Response:
    if asked.query["dry_run"]:
        return await _effect(asked)
    return await _switched(asked, asked.scheduler.disable, until=asked.body["until"])


async def _effect(asked: Asked) -> Response:
    """What disabling would do."""
    record = await the_job(asked)
    active = await asked.scheduler.runs(record.name, state=State.RUNNING, limit=NEWEST)
    day = await asked.site.foresight.day_of(record.name)
    effect = {
        "fires_skipped_per_day": 0 if day is None else day.fires,
        "next_skipped": instant_text(record.next_due if day is None or day.first is None else day.first),
        "active_runs": len(active),
    }
    return await answer({**job_record(record), "effect": effect})


async def pause(asked: Asked) -> Response:
    return await _switched(asked, asked.scheduler.pause, until=asked.body["until"])


async def resume(asked: Asked) -> Response:
    return await _switched(asked, asked.scheduler.resume, missed=asked.body["missed"])


MISSED: Final = Parameter(
    "missed",
    word("skip", "latest", "all"),
    "what becomes of the fires that were held; without it each job's own policy",
)
_PARAMS: Final = Parameter("params", OBJECT, "the job's parameters by name")

ROUTES = (
    Route(
        method="GET", path=f"{V1}/jobs", name="jobs", scope=Scope.read, handler=jobs, gives={200: "Jobs"},
        summary="All jobs by name, as they stand",
        query=(
            Parameter("condition", words(*get_args(Condition)), "only jobs that stand so", many=True),
            *NARROWING,
            Parameter("before", TEXT, "the `next` of the page before: the name of its last job"),
            LIMIT,
        ),
        example="?condition=failing,overdue",
    ),
    Route(
        method="POST", path=f"{V1}/jobs/run-all", name="run_all", scope=Scope.operate, handler=run_all, body=TOLD,
        summary="Submit every enabled job that needs no parameters", gives={202: "Runs"},
    ),
    Route(
        method="GET", path=f"{V1}/jobs/{{job}}", name="job", scope=Scope.read, handler=job, gives={200: "Job"},
        summary="One job: policy, switch, condition, schema of its parameters",
    ),
    Route(
        method="GET", path=f"{V1}/jobs/{{job}}/stats", name="stats", scope=Scope.read, handler=stats,
        summary=f"Counts and durations of its runs, of the newest {NEWEST} at most",
        query=(Parameter("since", INSTANT, "from then on, or the time back from now; without it 7d"),),
        example="?since=24h",
    ),
    Route(
        method="GET", path=f"{V1}/jobs/{{job}}/upcoming", name="job_upcoming", scope=Scope.read, handler=upcoming,
        summary="Its coming fires, earliest first", query=(FIRES_UNTIL, LIMIT), example="?limit=5",
    ),
    Route(
        method="GET", path=f"{V1}/jobs/{{job}}/why", name="why", scope=Scope.read, handler=why,
        summary="Why it did or did not run at an instant, or what became of a run", gives={200: "Explanation"},
        query=(
            Parameter("at", INSTANT, "the instant, or the time back from now; without it what is due now or was last"),
            Parameter("run", whole(1, 10**18), "a run, in the place of an instant"),
        ),
        example="?at=2026-03-01T02:00:00Z",
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/submit", name="submit", scope=Scope.operate, handler=submit,
        summary="Ask for a run", gives={202: "Run"},
        body=(
            _PARAMS,
            Parameter("at", INSTANT, "not before this instant"),
            KEY,
            *TOLD,
        ),
        headers=(KEY_HEADER,),
        example="""-d '{"params": {"days": 7}, "at": "+2h"}'""",
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/validate", name="validate", scope=Scope.read, handler=validate,
        summary="Whether parameters fit, and as what they would be stored; writes nothing", body=(_PARAMS,),
        example="""-d '{"params": {"days": "seven"}}'""",
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/enable", name="enable", scope=Scope.admin, handler=enable, body=TOLD,
        summary="Switch it on, whatever its declaration says", gives={200: "Job"},
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/disable", name="disable", scope=Scope.admin, handler=disable,
        summary="Switch it off: its fires are skipped, a submit is refused", body=(UNTIL, *TOLD), gives={200: "Job"},
        query=(Parameter("dry_run", FLAG, "only say what it would skip, as `effect` of the job"),),
        example="""-d '{"reason": "moving house", "until": "+2h"}'""",
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/pause", name="pause", scope=Scope.admin, handler=pause,
        summary="Hold it: nothing new starts, submits wait, fires are kept", body=(UNTIL, *TOLD), gives={200: "Job"},
    ),
    Route(
        method="POST", path=f"{V1}/jobs/{{job}}/resume", name="resume", scope=Scope.admin, handler=resume,
        summary="End its pause", body=(MISSED, *TOLD), gives={200: "Job"}, example="""-d '{"missed": "skip"}'""",
    ),
)  # fmt: skip
