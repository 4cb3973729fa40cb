"""The addresses that services had before taskloop, in their words, so that what calls them need not change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from taskloop import looking
from taskloop.records import JobRecord, Standing, instant_text, run_record, switch_record
from taskloop.runs import ACTIVE, Cause, Run, State
from taskloop.web.api.asking import TOLD
from taskloop.web.api.jobs import accepted, the_job
from taskloop.web.core import Response, answer
from taskloop.web.problems import Problem
from taskloop.web.routes import FLAG, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.schedules import Schedule
    from taskloop.web.site import Asked

GROUP: Final = "worker"
_ACTIVE: Final = [state.value for state in ACTIVE]


async def scheduler_status(asked: Asked) -> Response:
    titles = {job.name: job.title for job in asked.scheduler}
    found = await asked.scheduler.schedules(limit=1000)

    def record(one: Schedule) -> dict[str, Any]:
        return {
            "id": one.id,
            "name": titles.get(one.job, one.job),
            "next_run": instant_text(one.next_due),
            "trigger": str(one.trigger),
        }

    return await answer(await asyncio.to_thread(lambda: [*map(record, found)]))


async def worker_status(asked: Asked) -> Response:
    run = await _newest(asked)
    busy = run is not None and run.status == "RUNNING"
    return await answer(
        {
            "status": "running" if busy else "idle",
            "progress": run.progress.message if run and run.progress else "",
            "is_running": busy,
            "started_at": instant_text(run.started_at) if run else None,
            "completed_at": instant_text(run.ended_at) if run else None,
            "last_result": run.result if run else None,
            "last_error": run.error.told() if run and run.error else None,
        }
    )


async def _newest(asked: Asked) -> Run | None:
    """The newest run of a job of the group, else of any job; one that was asked for later is none yet."""
    of_group = [job.name for job in asked.scheduler if job.policy.group == GROUP]
    found = [run for name in of_group if (run := await _newest_of(asked, name)) is not None]
    return max(found, key=lambda run: run.id) if found else await _newest_of(asked, None)


async def _newest_of(asked: Asked, job: str | None, states: Sequence[str] | None = None) -> Run | None:
    """The newest run of a job (None: of any) in these states, past those that were asked for a time to come."""
    before, limit = None, 1
    while found := await asked.scheduler.runs(job, state=states, before=before, limit=limit):
        for run in found:
            if run.state is not State.WAITING or run.attempt or run.ready_at <= asked.now:
                return run
        before, limit = found[-1].id, 100
    return None


async def start(asked: Asked) -> Response:
    """Ask for a run, unless one of the same group, or else of the same job, runs or is about to."""
    job = asked.scheduler[asked.path["job"]]
    asked.count_submit(job.name)
    group = job.policy.group
    names = [one.name for one in asked.scheduler if one is job or (group is not None and one.policy.group == group)]
    async with asked.site.one_at_a_time:  # else two that come together would both see that nothing runs
        for name in names:
            if run := await _newest_of(asked, name, _ACTIVE):
                raise Problem(
                    409, "conflict", f"run {run.id} of '{run.job}' is {run.state}", "wait for its end, or cancel it",
                    more={"run": run.id},
                )  # fmt: skip
        handle = await asked.scheduler.submit(job.name, asked.body, actor=asked.principal.name, cause=Cause.API)
    return await accepted(asked, handle)


async def run_tasks(asked: Asked) -> Response:
    """Run every enabled job that needs no parameters, and wait for all."""
    await _refuse_to_wait_for_nobody(asked)
    ready = {job.name for job in asked.scheduler if not job.parameters.required}
    stands = await looking.stands(asked.scheduler)
    if paused := [one.name for one in stands if one.condition == "paused" and one.name in ready]:
        raise Problem(
            409, "conflict", f"job '{paused[0]}' is paused: its run would wait for the end of that", "resume it"
        )
    asked.count_submit("*")
    runs = await asked.scheduler.run_all(**asked.told(), cause=Cause.API)
    failed = [run for run in runs if run.state is not State.SUCCEEDED]
    records = [run_record(run) for run in runs]
    if failed:
        told = "; ".join(f"run {run.id} of '{run.job}' {run.state}: {run.summary or run.reason}" for run in failed)
        raise Problem(500, "failed", told, "GET /api/v1/runs has their errors", more={"runs": records})
    return await answer({"status": "success", "runs": records})


async def _refuse_to_wait_for_nobody(asked: Asked) -> None:
    """Raise `Problem` where nobody would run what is asked for: what waits for that would wait for ever."""
    scheduler, own = asked.scheduler, asked.scheduler.worker
    if scheduler.options.enabled and scheduler.is_running:
        return
    if any(own is None or one.id != own.id for one in (await scheduler.status()).workers):
        return
    here = "the scheduler does not run here" if scheduler.options.enabled else "scheduler.enabled is false here"
    raise Problem(409, "conflict", f"no worker runs jobs, and {here}", "start a worker")


async def processors(asked: Asked) -> Response:
    """For a browser the page of the jobs, whose switches are a click further."""
    if "text/html" in asked.request.headers.get("accept", ""):
        from taskloop.web.pages.jobs import jobs as page_of_jobs

        return await page_of_jobs(asked)
    found = await looking.stands(asked.scheduler)
    return await answer(await asyncio.to_thread(lambda: [_processor(one) for one in found]))


async def switch_processor(asked: Asked) -> Response:
    record = await the_job(asked)
    verb = asked.scheduler.enable if asked.body["enabled"] else asked.scheduler.disable
    await verb(record.name, **asked.told())
    return await answer(_processor(await the_job(asked, record.name)))


def _processor(job: JobRecord | Standing) -> dict[str, Any]:
    thrown = job.switch if job.switch is not None and job.switch.kind != "paused" else None  # a pause switches nothing
    switch = switch_record(thrown) or {}
    told = {name: switch.get(name) for name in ("by", "at", "reason")}
    return {"name": job.name, "title": job.title, "enabled": job.enabled, **told}


ROUTES = (
    Route(
        method="GET", path="/tasks/scheduler/status", name="scheduler_status", scope=Scope.read,
        handler=scheduler_status, summary="Schedules, at most 1000, and when each fires next", gives={200: "any"},
    ),
    Route(
        method="GET", path="/tasks/worker/status", name="worker_status", scope=Scope.read, handler=worker_status,
        summary="The newest run of group worker, else of any job",
    ),
    Route(
        method="POST", path="/tasks/{job}", name="start_task", scope=Scope.operate, handler=start,
        summary="Ask for a run, the body is its parameters; 409 while one of its group runs or is about to",
        free_body="the job's parameters by name", gives={202: "Run"}, example="""-d '{"days": 7}'""",
    ),
    Route(
        method="POST", path="/admin/tasks/run", name="run_tasks", scope=Scope.operate, handler=run_tasks, body=TOLD,
        summary="Run every enabled job that needs no parameters, and wait; 500 if one failed",
    ),
    Route(
        method="GET", path="/admin/control_processors", name="processors", scope=Scope.read, handler=processors,
        summary="All jobs and whether they are on; for a browser as a page", gives={200: "any"},
    ),
    Route(
        method="POST", path="/admin/control_processors/{job}", name="switch_processor", scope=Scope.admin,
        handler=switch_processor, summary="Switch a job on or off",
        body=(Parameter("enabled", FLAG, "on or off", required=True), *TOLD), example="""-d '{"enabled": false}'""",
    ),
)  # fmt: skip
