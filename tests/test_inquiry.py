"""What a verb is given: taken as it is meant, or refused with what is allowed, before anything is read or written."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from stories import nothing

from taskloop import Every, Jobs, TaskScheduler
from taskloop.errors import BadJob, BadParameters, BadSettings, BadTrigger, BadValue, NoSuchJob, NoSuchSchedule
from taskloop.inquiry import is_same_call
from taskloop.runs import Cause, State

pytestmark = pytest.mark.anyio


async def quiet(level: int = 1):
    pass


WITH_JOB = {
    "disable": lambda one, job: one.disable(job),
    "enable": lambda one, job: one.enable(job),
    "reset": lambda one, job: one.reset(job),
    "pause": lambda one, job: one.pause(job),
    "resume": lambda one, job: one.resume(job),
    "held": lambda one, job: one.held(job),
    "why": lambda one, job: one.why(job),
    "upcoming": lambda one, job: one.upcoming(job=job),
    "simulate": lambda one, job: one.simulate("1h", job=job),
    "submit": lambda one, job: one.submit(job),
}
AND_UNKNOWN = {
    "runs": lambda one, job: one.runs(job),
    "schedules": lambda one, job: one.schedules(job),
    "audit": lambda one, job: one.audit(job=job),
    "jobs": lambda one, job: one.jobs(job),
}


@pytest.mark.parametrize("verb", [*WITH_JOB, *AND_UNKNOWN])
async def test_a_job_is_given_by_its_name_or_as_itself(scheduler, virtual_time, verb):
    job, ask = scheduler.add_job(nothing, Every("5m")), (WITH_JOB | AND_UNKNOWN)[verb]
    async with virtual_time(scheduler):
        assert type(await ask(scheduler, job)) is type(await ask(scheduler, "nothing"))
        with pytest.raises(TypeError, match="a job is named by a text or given itself, got int; give its name"):
            await ask(scheduler, 5)
        with pytest.raises(
            TypeError, match=r"got Call; give its name; a call is asked for by itself: `call.submit\(\)`"
        ):
            await ask(scheduler, job.bind())


@pytest.mark.parametrize("verb", WITH_JOB)
async def test_a_job_that_nobody_knows_is_refused_with_the_one_that_is_nearest(scheduler, virtual_time, verb):
    scheduler.add_job(nothing)
    async with virtual_time(scheduler):
        with pytest.raises(NoSuchJob, match="no job 'nothin'; did you mean 'nothing'"):
            await WITH_JOB[verb](scheduler, "nothin")


async def test_what_is_to_come_of_a_job_is_found_under_its_alias_too_and_by_a_scheduler_that_has_no_such_job(
    scheduler, virtual_time
):
    scheduler.add_job(nothing, Every("5m"), aliases=("before",))
    async with virtual_time(scheduler):
        ledger = TaskScheduler(scheduler._store, clock=scheduler._clock)
        for one in (scheduler, ledger):
            assert len(await one.upcoming(limit=3, job="before")) == 3
            assert (await one.simulate("1h", job="before")).fires


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda one: one.submit("nothing", [1]), BadParameters, "'*' is a list; a dict of names and their values"),
        (lambda one: one.schedule("nothing", Every("5m"), id="a", params=[1]), BadParameters, "'*' is a list"),
        (lambda one: one.submit("nothing", cause="manul"), BadValue, "no cause 'manul'; did you mean 'manual'?"),
        (lambda one: one.submit_many([one["nothing"].bind()], cause="x"), BadValue, "no cause 'x'; causes are: "),
        (lambda one: one.submit_all(cause="x"), BadValue, "no cause 'x'"),
        (lambda one: one.runs(cause="manul"), BadValue, "no cause 'manul'; did you mean 'manual'?"),
        (lambda one: one.runs(state=5), BadValue, "no state '5'; states are: "),
        (lambda one: one.runs(before=2**70), BadValue, f"before is {2**70}; allowed is a whole number from 0 on"),
        (lambda one: one.audit(before="x"), BadValue, "before is 'x'; allowed is a whole number"),
        (lambda one: one.audit(actor=5), BadValue, "actor is 5; allowed is a text, or None"),
        (lambda one: one.schedules(prefix=5), BadValue, "prefix is 5; allowed is a text, or None"),
        (lambda one: one.schedules(before=5), BadValue, "before is 5; allowed is a text, or None"),
        (lambda one: one.schedule("nothing", Every("5m"), id=5), BadTrigger, "schedule id 5: allowed is a text"),
        (lambda one: one.unschedule(5), NoSuchSchedule, "no schedule '5'"),
        (lambda one: one.reschedule(5, trigger=Every("5m")), NoSuchSchedule, "no schedule '5'"),
        (
            lambda one: one.schedule_many([(5, Every("5m"), "a")]),
            BadJob,
            "'a') is no schedule; give (call, trigger, id)",
        ),
        (lambda one: one.submit_many(5), BadJob, "5 is no list; give a list, or a generator, of calls"),
        (lambda one: one.submit_many(one["nothing"].bind()), BadJob, "> is no list; give a list"),
        (lambda one: one.submit_many([5]), BadJob, "calls[0] is a int; give what a job's `bind(…)` returns"),
        (lambda one: one.schedule_many(5), BadJob, "5 is no list; give a list, or a generator, of (call, trigger, id)"),
        (lambda one: one.schedule_many([one["nothing"].bind()]), BadJob, "> is no schedule; give (call, trigger, id)"),
    ],
)
async def test_what_no_verb_can_take_is_refused_with_what_it_takes(scheduler, virtual_time, ask, error, text):
    scheduler.add_job(nothing)
    async with virtual_time(scheduler):
        with pytest.raises(error, match=re.escape(text)):
            await ask(scheduler)
        assert not await scheduler.runs() and not await scheduler.schedules()


async def test_a_run_that_gave_its_key_back_is_no_answer_to_the_same_call(scheduler, virtual_time):
    job = scheduler.add_job(quiet)
    async with virtual_time(scheduler):
        first = await scheduler.run((await scheduler.submit(job.name, {"level": 1})).id)
        same = await scheduler.run((await scheduler.submit(job.name)).id)
        assert is_same_call(job, first, same) and first.params != same.params
        for state in State:
            keeps = state in (State.WAITING, State.RUNNING, State.SUCCEEDED)
            assert is_same_call(job, replace(first, state=state), same) is keeps


async def test_what_a_declaration_gives_stands_where_a_call_leaves_it_out(scheduler, virtual_time):
    async def scan(path: str, level: int = 1):
        return f"{path} {level}"

    job = scheduler.add_job(scan, params={"path": "/srv", "level": 2})
    assert job.parameters.required == () and job.parameters.schema()["properties"]["path"]["default"] == "/srv"
    async with virtual_time(scheduler):
        asked = [await job.submit(), await scheduler.submit("scan", {"level": 3}), *await scheduler.submit_all()]
        assert [await one.value() for one in asked] == ["/srv 2", "/srv 3", "/srv 2"]
        stored = await scheduler.schedule("scan", Every("1h"), id="other", params={"path": "/home"})
        assert stored.params == {"path": "/home", "level": 2}
        job.configure({}, {}, None, {"path": "/var"})
        again = await scheduler.rerun(asked[0].id, {"level": 4})
        assert [await again.value(), await (await job.submit()).value()] == ["/srv 4", "/var 2"]


async def test_a_job_that_is_asked_for_alone_may_be_given_a_part_and_one_that_fires_needs_all(scheduler):
    async def scan(path: str, level: int): ...

    job = scheduler.add_job(scan, params={"level": 2})
    assert job.parameters.required == ("path",)
    with pytest.raises(BadParameters, match="'path' is missing"):
        job.bind()
    with pytest.raises(BadParameters, match="'path' is missing"):
        job.configure({}, {}, Every("1h"))
    with pytest.raises(BadParameters, match="'path' is missing"):
        job.configure({}, {"on_start": True})
    with pytest.raises(BadParameters, match="'levl' is unknown; did you mean 'level'"):
        scheduler.add_job(scan, name="other", params={"levl": 2})


async def test_a_cause_may_be_given_by_its_word(scheduler, virtual_time):
    scheduler.add_job(nothing)
    async with virtual_time(scheduler):
        run = await scheduler.submit("nothing", cause="api")
        assert (await scheduler.run(run.id)).cause is Cause.API
        assert [one.id for one in await scheduler.runs(cause="api")] == [run.id]
        assert [one.id for one in await scheduler.runs(cause=Cause.API, state={"running", "succeeded"})] == [run.id]


def test_what_a_scheduler_is_made_with_is_checked_there_and_all_mistakes_are_told_at_once():
    with pytest.raises(BadSettings) as told:
        TaskScheduler(config=5, name=["web"], clock=object)
    for one in (
        "config is a int; the path of a file",
        "name is a list; a text",
        "clock is <class 'object'>; an object",
    ):
        assert one in str(told.value)


def test_what_a_scheduler_cannot_be_made_of_is_refused_when_it_is_made():
    with pytest.raises(BadSettings, match=r"options is a dict; Options\(\.\.\.\) is allowed"):
        TaskScheduler(options={"grace": 1})
    shop = Jobs()
    with pytest.raises(
        TypeError, match=r"jobs is <Jobs of 0 jobs>; a list of collections is allowed, such as jobs=\[shop\]"
    ):
        TaskScheduler(jobs=shop)
    with pytest.raises(TypeError, match="a list of collections is allowed"):
        TaskScheduler(jobs=[shop.add_job(nothing)])
    for none in (5, None):
        with pytest.raises(TypeError, match=f"jobs is {none}; a list of collections is allowed"):
            TaskScheduler(jobs=none)
