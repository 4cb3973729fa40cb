"""Runs asked for at a wrong moment (J16), jobs toggled a thousand times (J17), fires in each other's way (J18)."""

from __future__ import annotations

import asyncio
import threading

import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, unharmed
from stories import START, failing, fates, lasting, nothing, stamp, stubborn, threads_ended

from taskloop import Every, Options, Retry, RunContext, State, TaskScheduler
from taskloop.errors import Conflict, NoSuchJob

pytestmark = pytest.mark.anyio

# -- J16: asked for at the wrong moment


async def disabled(time):
    await time.scheduler.disable("job", reason="broken")


async def off_in_code(time):
    time.scheduler.remove_job("job")
    time.scheduler.add_job(lasting(10), name="job", enabled=False)
    await time.advance(0)


async def paused(time):
    await time.scheduler.pause("job")


async def all_paused(time):
    await time.scheduler.pause()


async def busy(time):
    await time.scheduler.submit("job")


async def busy_and_alone(time):
    time.scheduler.remove_job("job")
    time.scheduler.add_job(lasting(10), name="job", max_running=1)
    await time.advance(0)
    await time.scheduler.submit("job")


async def stopping(time):
    await time.scheduler.submit("job")
    await time.advance("1s")
    time.ending = asyncio.create_task(time.scheduler.stop(grace="1m"))
    await time.advance("1s")


async def stopped(time):
    await time.until(time.scheduler.stop())


async def removed(time):
    time.scheduler.remove_job("job")


MOMENTS = {
    "at ease": (None, "running", ["running"]),
    "disabled": (disabled, Conflict, []),
    "off in code": (off_in_code, Conflict, []),
    "paused": (paused, "waiting", ["waiting"]),
    "all paused": (all_paused, "waiting", ["waiting"]),
    "busy": (busy, "running", ["running", "running"]),
    "busy and alone": (busy_and_alone, "waiting", ["running", "waiting"]),
    "stopping": (stopping, "waiting", ["running", "waiting"]),
    "stopped": (stopped, "waiting", ["waiting"]),
    "removed": (removed, NoSuchJob, []),
}


async def by_submit(scheduler, job):
    return await scheduler.submit("job")


async def by_call(scheduler, job):
    return await job.bind().submit()


async def by_many(scheduler, job):
    return (await scheduler.submit_many([job.bind()]))[0]


async def by_key(scheduler, job):
    return await scheduler.submit("job", key="once")


def all_ways():
    for moment in MOMENTS:
        for ask in (by_submit, by_call, by_many, by_key):
            yield pytest.param(moment, ask, id=f"{moment} {ask.__name__}")


@pytest.mark.parametrize(("moment", "ask"), [*all_ways()])
@hosted
async def test_a_run_asked_for_at_any_moment_has_one_stated_answer(crowded, virtual_time, moment, ask):
    arrange, answer, states = MOMENTS[moment]
    crowded.add_job(lasting(10), name="job")
    async with virtual_time(crowded) as time:
        job = crowded["job"]
        if arrange is not None:
            await arrange(time)
        if "job" in crowded:
            job = crowded["job"]
        if isinstance(answer, str):
            asked = await ask(crowded, job)
            assert (asked.state, asked.cause, asked.existed) == (answer, "manual", False)
        else:
            with pytest.raises(answer):
                await ask(crowded, job)
        assert [run.state for run in await time.runs("job")] == states
        if moment == "stopping":
            await time.until(time.ending)
        if not crowded.is_running:
            await time.start()
        await crowded.resume("job")
        await crowded.resume()
        await time.advance("1m")
        assert {run.state for run in await time.runs("job")} <= {State.SUCCEEDED}
        assert len(await time.runs("job")) == len(states)


@hosted
async def test_run_all_leaves_out_what_is_off_and_waits_for_what_is_paused(crowded, virtual_time):
    crowded.add_job(nothing, name="off", enabled=False)
    crowded.add_job(nothing, name="held")
    async with virtual_time(crowded) as time:
        await crowded.pause("held", until="+10m")
        runs = await time.until(crowded.run_all())
        assert sorted((run.job, run.state) for run in runs) == [
            (name, State.SUCCEEDED) for name in ("held", "in_thread", "on_loop")
        ]
        assert "00:10" <= stamp(max(run.ended_at for run in runs)) < "00:11"


@pytest.mark.parametrize("reason", [object(), "\ud800"], ids=["no text", "surrogate"])
@hosted
async def test_a_cancel_for_a_reason_that_cannot_be_kept_is_refused_or_ends_the_run(crowded, virtual_time, reason):
    crowded.add_job(lasting(3600), name="bad")
    async with virtual_time(crowded) as time:
        run = await crowded.submit("bad")
        await time.advance("1s")
        try:
            await crowded.cancel(run.id, reason=reason)
        except (ValueError, TypeError):
            await crowded.cancel(run.id, reason="refused")
        await time.advance("1m")
        assert (await crowded.run(run.id)).state is State.CANCELLED
        await unharmed(time)


# -- J17: a thousand toggles


@hosted
async def test_a_thousand_toggles_of_two_processes_leave_each_fire_one_fate_and_the_last_word_stands(
    virtual_time, tmp_path
):
    one, other = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (one, other):
        scheduler.add_job(lasting(0.5), Every("1s"), name="job", missed="all")
        scheduler.add_job(nothing, Every("1s"), name="beside")
    address = f"sqlite:///{tmp_path}/runs.db"
    async with virtual_time(one, store=address) as time:
        await time.join(other, address)
        for number in range(1000):
            toggle = (one, other)[number * 7 // 3 % 2]
            await (toggle.enable if number % 2 else toggle.disable)("job", actor=f"toggle {number}")
            await time.advance(["0s", "100ms", "0s", "0s", "450ms"][number % 5])
        await time.advance("5s")
        seconds = int((time.now - START).total_seconds())
        runs = await time.runs("job", state=list(State))
        fired = [run for run in runs if run.state is not State.SKIPPED]
        assert {run.state for run in fired[:-1]} == {State.SUCCEEDED}
        assert {run.reason for run in runs if run.state is State.SKIPPED} == {"disabled"}
        assert sum(run.count for run in runs) == seconds + 1
        assert len({run.due_at for run in runs}) == len(runs)
        assert [run.due_at for run in await time.runs("beside")] == [
            START + (time.now - START) * n / seconds for n in range(seconds + 1)
        ]
        for scheduler in (one, other):
            [record] = [record for record in await scheduler.jobs() if record.name == "job"]
            assert (record.enabled, record.switch.actor) == (True, "toggle 999")


@hosted
async def test_a_run_in_hand_goes_on_whatever_is_toggled_and_so_does_a_retry(crowded, virtual_time):
    crowded.add_job(failing(1), name="job", retry=Retry(2, first="10s"))
    crowded.add_job(lasting(20), name="long")
    async with virtual_time(crowded) as time:
        runs = [await crowded.submit(name) for name in ("job", "long")]
        for name in ("job", "long") * 50:
            await crowded.disable(name)
            await time.advance("100ms")
            await crowded.enable(name)
        await crowded.disable("job")
        await crowded.disable("long")
        await time.advance("50s")
        assert [(await crowded.run(run.id)).state for run in runs] == [State.SUCCEEDED] * 2
        await unharmed(time)


# -- J18: in each other's way


def endless(kind):
    """A job that ends only when it is let go, whatever it is asked."""
    if kind == "swallows":
        job = stubborn()
        job.let_go = lambda: setattr(job, "enough", True)
        return job
    enough = threading.Event()

    def stuck():
        enough.wait(15)

    stuck.let_go = enough.set
    return stuck


@pytest.mark.parametrize(
    ("overlap", "told"),
    [
        ("skip", ["00:00 running", "00:01 skipped overlap", "00:02 skipped overlap", "00:03 skipped overlap"]),
        ("queue", ["00:00 running", "00:01 waiting", "00:02 skipped overlap", "00:03 skipped overlap"]),
        (
            "replace",
            [
                "00:00 interrupted abandoned",
                "00:01 interrupted abandoned",
                "00:02 interrupted abandoned",
                "00:03 running",
            ],
        ),
        ("allow", ["00:00 running", "00:01 running", "00:02 running", "00:03 running"]),
    ],
)
@pytest.mark.parametrize("kind", ["swallows", "thread"])
@hosted
async def test_each_fire_over_a_run_that_does_not_end_has_the_fate_of_the_policy(virtual_time, overlap, told, kind):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(threads=10))
    job = endless(kind)
    scheduler.add_job(job, Every("1m"), name="job", overlap=overlap)
    async with virtual_time(scheduler, patience="100ms") as time:
        await time.advance("3m30s")
        assert await fates(time) == told
        skips = [run for run in await time.runs(state="skipped")]
        assert [(run.data["run"], run.data["age_seconds"]) for run in skips] == [
            (1, (run.due_at - START).total_seconds()) for run in skips
        ]
        job.let_go()
        await threads_ended(time)
        await time.advance("2m")
        ends = (await fates(time))[-2:]
        assert [end for end in ends if "skipped" not in end] == ["00:04 succeeded", "00:05 succeeded"]


@hosted
async def test_fires_over_retries_that_fail_are_each_told_and_the_schedule_goes_on(crowded, virtual_time):
    called = []

    async def job(run: RunContext):
        called.append((stamp(run.due_at), run.attempt))
        raise OSError

    crowded.add_job(job, Every("1m"), name="job", retry=Retry(3, first="50s", factor=1))
    async with virtual_time(crowded) as time:
        await time.advance("4m30s")
        assert await fates(time, "job") == [
            "00:00 failed", "00:01 skipped overlap", "00:02 failed", "00:03 skipped overlap", "00:04 waiting",
        ]  # fmt: skip
        assert called[:6] == [("00:00", 1), ("00:00", 2), ("00:00", 3), ("00:02", 1), ("00:02", 2), ("00:02", 3)]
        await time.advance("30s")
        await unharmed(time)
