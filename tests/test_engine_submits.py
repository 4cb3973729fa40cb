"""Asking for runs: submit, key, rerun, wait, value, cancel; and what belongs to whom."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import date, timedelta
from functools import partial
from weakref import ref

import pytest
from stories import START, failing, fates, lasting, nothing, stamp, starts, stubborn

from taskloop import Every, Jobs, Options, Retry, RunContext, State, TaskScheduler, current_run
from taskloop.errors import BadJob, BadParameters, Conflict, KeyConflict, NoSuchJob, NoSuchRun, RunFailed
from taskloop.ledger import Ledger
from taskloop.tasks import gradually

pytestmark = pytest.mark.anyio


async def test_a_submit_is_committed_when_it_returns(scheduler, virtual_time):
    @scheduler.job()
    async def job(number: int) -> int:
        return number * 2

    async with virtual_time(scheduler) as time:
        run = await job.submit(21)
        assert (await scheduler.run(run.id)).params == {"number": 21}
        assert await time.until(run.value()) == 42
        assert (run.job, run.cause, run.schedule) == ("job", "manual", None)


async def test_at_is_not_before_and_not_much_after(scheduler, virtual_time):
    job = scheduler.add_job(nothing)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("nothing", at="+2h")
        await job.bind().submit(at=START + timedelta(hours=1))
        await job.bind().submit(at=timedelta(minutes=30))
        await time.run_until_idle()
        assert await starts(time) == ["00:30", "01:00", "02:00"]


async def test_what_was_submitted_for_later_survives_a_restart(scheduler, virtual_time):
    scheduler.add_job(nothing)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("nothing", at="+2h")
        await time.restart(after="1h")
        await time.run_until_idle()
        assert await starts(time) == ["02:00"]


async def test_a_key_names_one_run_while_it_is_kept(scheduler, virtual_time):
    scheduler.add_job(nothing)
    other = scheduler.add_job(nothing, name="other")
    async with virtual_time(scheduler) as time:
        first = await scheduler.submit("nothing", key="k")
        again = await scheduler.submit("nothing", key="k")
        assert (again.id, again.existed, first.existed) == (first.id, True, False)
        await time.run_until_idle()
        assert (await scheduler.submit("nothing", key="k")).id == first.id
        assert not (await other.bind().submit(key="k")).existed


async def test_a_key_with_other_parameters_is_a_conflict(scheduler, virtual_time):
    @scheduler.job()
    async def remind(user: int):
        """Remind."""

    async with virtual_time(scheduler):
        first = await remind.bind(7).submit(key="k")
        with pytest.raises(KeyConflict, match="other parameters") as caught:
            await remind.bind(8).submit(key="k")
        assert caught.value.run == first.id


async def test_a_default_written_out_and_one_left_out_are_the_same_call_under_a_key(scheduler, virtual_time):
    @scheduler.job(secret=["token"])
    async def remind(user: int, text: str = "hi", token: str = "t") -> str:
        return text

    async with virtual_time(scheduler):
        first = await remind.bind(7).submit(key="k")
        again = await remind.bind(7, "hi").submit(key="k")
        assert (again.id, again.existed, again.run.params) == (first.id, True, {"user": 7})
        assert (await again.wait()).result == "hi"
        other = await scheduler.submit("remind", {"user": 7, "text": "hi"}, key="l")
        assert (await scheduler.submit("remind", {"user": 7}, key="l")).id == other.id
        for params in ({"user": 7, "text": "ho"}, {"user": 8, "text": "hi"}, {"user": 7, "token": "u"}):
            with pytest.raises(KeyConflict):
                await scheduler.submit("remind", params, key="k")


async def test_failed_cancelled_and_interrupted_runs_do_not_hold_their_key(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="fails")
    scheduler.add_job(lasting(600), name="lasts")
    async with virtual_time(scheduler) as time:
        first = await scheduler.submit("fails", key="k")
        await time.run_until_idle()
        assert (await scheduler.submit("fails", key="k")).id != first.id
        second = await scheduler.submit("lasts", key="k")
        await scheduler.cancel(second.id)
        await time.run_until_idle()
        third = await scheduler.submit("lasts", key="k")
        assert third.id != second.id
        await time.crash()
        await time.restart()
        assert not (await scheduler.submit("lasts", key="k")).existed


async def test_a_run_in_hand_knows_its_key(scheduler, virtual_time):
    seen = []

    @scheduler.job()
    async def job(run: RunContext):
        seen.append(run.key)

    async with virtual_time(scheduler) as time:
        await job.bind().submit(key="mine")
        await job.submit()
        await time.run_until_idle()
    assert seen == ["mine", "job:2"]


async def test_submit_many_is_one_transaction(scheduler, virtual_time):
    job = scheduler.add_job(nothing, name="on")
    off = scheduler.add_job(nothing, name="off", enabled=False)
    async with virtual_time(scheduler) as time:
        with pytest.raises(Conflict):
            await scheduler.submit_many([job.bind(), off.bind(), job.bind()])
        assert await fates(time) == []
        runs = await scheduler.submit_many([job.bind()] * 3)
        assert [run.id for run in runs] == [1, 2, 3]
        await time.run_until_idle()
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED] * 3
        assert await scheduler.submit_many([]) == []


async def test_a_loop_has_its_turns_while_much_is_made_at_once():
    turns = []

    async def others():
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    made = await gradually(str, range(1200))
    beside.cancel()
    assert made == [str(number) for number in range(1200)]
    assert len(turns) == 2


async def test_submit_many_says_which_of_its_calls_is_none(scheduler, virtual_time):
    job = scheduler.add_job(nothing)
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadJob, match=r"calls\[1\] is a str; give what a job's `bind"):
            await scheduler.submit_many([job.bind(), "nothing"])
        assert await fates(time) == []


async def test_wrong_parameters_and_unknown_jobs_are_refused_before_a_record_exists(scheduler, virtual_time):
    @scheduler.job()
    async def report(day: date, pages: int = 1):
        """Report."""

    async with virtual_time(scheduler) as time:
        for params in ({}, {"day": "tomorrow"}, {"day": "2026-01-01", "page": 1}):
            with pytest.raises(BadParameters):
                await scheduler.submit("report", params)
        with pytest.raises(BadParameters, match="pages"):
            report.bind(date(2026, 1, 1), pages="many")
        with pytest.raises(NoSuchJob, match="did you mean 'report'"):
            await scheduler.submit("reprot")
        assert await fates(time) == []


async def test_parameters_are_rebuilt_by_annotation_for_the_call(scheduler, virtual_time):
    seen = []

    @scheduler.job()
    async def report(day: date, *, within: timedelta = timedelta(hours=1)):
        seen.append((day, within))

    async with virtual_time(scheduler) as time:
        await report.submit(date(2026, 3, 1), within=timedelta(minutes=5))
        await scheduler.submit("report", {"day": "2026-03-02"})
        await time.run_until_idle()
    assert seen == [(date(2026, 3, 1), timedelta(minutes=5)), (date(2026, 3, 2), timedelta(hours=1))]


async def test_a_call_may_be_used_again_and_again(scheduler, virtual_time):
    @scheduler.job()
    async def remind(user: int):
        """Remind."""

    async with virtual_time(scheduler) as time:
        call = remind.bind(user=7)
        await call.submit()
        await call.submit(at="+1h", actor="ann")
        await call.schedule(Every("2h"), id="often")
        await time.advance("2h")
        assert [(run.params, run.actor) for run in await time.runs()] == [
            ({"user": 7}, None),
            ({"user": 7}, "ann"),
            ({"user": 7}, None),
            ({"user": 7}, None),
        ]


async def test_a_rerun_is_a_new_run_with_parameters_laid_over_the_old(scheduler, virtual_time):
    @scheduler.job()
    async def report(day: str, pages: int = 1):
        """Report."""

    async with virtual_time(scheduler) as time:
        first = await report.submit("monday", pages=5)
        await time.run_until_idle()
        again = await scheduler.rerun(first.id, {"pages": 7}, actor="ann")
        await time.run_until_idle()
        assert again.id != first.id
        assert again.params == {"day": "monday", "pages": 7}
        assert (again.rerun_of, again.cause, again.actor) == (first.id, "rerun", "ann")
        with pytest.raises(BadParameters):
            await scheduler.rerun(first.id, {"page": 7})
        with pytest.raises(NoSuchRun):
            await scheduler.rerun(99)


async def test_a_rerun_has_what_is_declared_by_now_where_the_old_run_has_nothing(scheduler, virtual_time):
    async def send(to: str): ...

    async def send_on(to: str, region: str): ...

    scheduler.add_job(send, name="send")
    async with virtual_time(scheduler) as time:
        first = await scheduler.submit("send", {"to": "ann"})
        await time.run_until_idle()
        scheduler.remove_job("send")
        scheduler.add_job(send_on, name="send", params={"to": "all", "region": "eu"})
        again = await scheduler.rerun(first.id)
        assert again.params == {"to": "ann", "region": "eu"}
        assert (await time.until(again.wait())).state is State.SUCCEEDED


@pytest.mark.parametrize("limit", [-1, 2**63, "10", 1.5, None])
async def test_a_limit_is_a_whole_number_from_nothing_on(scheduler, virtual_time, limit):
    """Below nothing one store gave all there was, and the other an error of its own."""
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        verbs = (scheduler.runs, scheduler.schedules, scheduler.upcoming, scheduler.audit, scheduler.incidents)
        for verb in (*verbs, partial(scheduler.log, run.id)):
            with pytest.raises(ValueError, match="allowed is a whole number from 0 on"):
                await verb(limit=limit)
            assert await verb(limit=0) in ([], ([], 0))


@pytest.mark.parametrize("number", [0, -1, 2**63, 2**70, "abc"])
async def test_a_number_that_no_run_can_have_is_that_of_no_run(scheduler, virtual_time, number):
    async with virtual_time(scheduler):
        for asked in (scheduler.run, scheduler.wait, scheduler.cancel, scheduler.rerun):
            with pytest.raises(NoSuchRun):
                await asked(number)


async def test_run_all_runs_every_enabled_job_that_needs_no_parameters(scheduler, virtual_time):
    async def needs(one: int):
        """Need one."""

    scheduler.add_job(nothing, Every("1d"), name="periodic", first="after")
    scheduler.add_job(lasting(60), name="asked")
    scheduler.add_job(failing(1), name="fails")
    scheduler.add_job(nothing, name="off", enabled=False)
    scheduler.add_job(needs)
    async with virtual_time(scheduler) as time:
        runs = await time.until(scheduler.run_all())
        assert {run.job: run.state for run in runs} == {
            "periodic": State.SUCCEEDED,
            "asked": State.SUCCEEDED,
            "fails": State.FAILED,
        }


# -- waiting


async def test_wait_never_raises_for_the_job_and_value_does(scheduler, virtual_time):
    scheduler.add_job(failing(9, ZeroDivisionError), name="fails")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("fails")
        assert (await time.until(run.wait())).state is State.FAILED
        with pytest.raises(RunFailed, match="ZeroDivisionError: no luck") as caught:
            await run.value()
        assert caught.value.run.id == run.id


async def test_a_run_that_waits_for_itself_is_told_so_instead_of_waiting_for_ever(scheduler, virtual_time):
    @scheduler.job()
    async def job(run: RunContext) -> None:
        await scheduler.wait(run.id)

    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        with pytest.raises(RunFailed, match="Conflict: run 1 would wait for its own end, for ever"):
            await time.until(run.value())


async def test_a_run_that_waits_for_itself_from_a_thread_is_told_so_too(scheduler, virtual_time):
    """It waited for ever, with its thread: there it is another task that waits, and the thread for that one."""

    @scheduler.job()
    def in_a_thread(run: RunContext) -> None:
        run.call(scheduler.wait, run.id)

    @scheduler.job()
    async def in_a_step(run: RunContext) -> None:
        def step() -> None:
            scheduler.call(scheduler.wait, run.id)

        await run.step("step", step)

    async with virtual_time(scheduler) as time:
        for job in (in_a_thread, in_a_step):
            run = await job.bind().submit()
            with pytest.raises(RunFailed, match=f"Conflict: run {run.id} would wait for its own end, for ever"):
                await time.until(run.value())


async def test_what_a_call_from_a_thread_gave_is_kept_by_nobody(scheduler, virtual_time):
    """Its task was in its own context: of megabytes each was kept until Python looked for such."""

    class Pages:
        pass

    async def load() -> Pages:
        return Pages()

    @scheduler.job()
    def job(run: RunContext) -> bool:
        pages = ref(run.call(load))
        run.call(load)  # by then the loop is done with the first
        return pages() is None

    async with virtual_time(scheduler) as time:
        gc.disable()
        try:
            assert await time.until((await job.submit()).value())
        finally:
            gc.enable()


async def test_what_a_call_from_a_thread_leaves_behind_may_wait_for_its_run(scheduler, virtual_time):
    seen = []

    async def watch(number):
        seen.append((await scheduler.wait(number)).state)

    async def begin(number):
        seen.append(asyncio.create_task(watch(number)))

    @scheduler.job()
    def job(run: RunContext) -> None:
        run.call(begin, run.id)

    async with virtual_time(scheduler) as time:
        await time.until((await job.submit()).value())
        await time.advance("1s")
        assert seen[1:] == [State.SUCCEEDED]


async def test_what_a_run_leaves_behind_may_wait_for_it(scheduler, virtual_time):
    """A task that a job begins carries its context, but is not what the run waits for."""
    seen = []

    async def watch(number):
        seen.append((await scheduler.wait(number)).state)

    @scheduler.job()
    async def job(run: RunContext) -> None:
        seen.append(asyncio.create_task(watch(run.id)))

    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance("1s")
        assert seen[1:] == [State.SUCCEEDED]


async def test_wait_gives_up_after_its_timeout_and_the_run_goes_on(scheduler, virtual_time):
    scheduler.add_job(lasting(60), name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        with pytest.raises(TimeoutError, match="run 1 has not ended within 10s, and goes on; `taskloop why 1` says"):
            await time.until(run.wait(timeout="10s"))
        assert stamp(time.now) == "00:00:10"
        with pytest.raises(TimeoutError, match="run 1 is running"):
            await run.wait(timeout=0)
        assert (await time.until(run.wait())).state is State.SUCCEEDED
        assert (await run.wait(timeout=0)).state is State.SUCCEEDED


async def test_a_wait_begun_before_the_run_ends_by_a_cancel_ends_too(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job", at="+1h")
        waiting = asyncio.create_task(run.wait())
        await time.advance("1m")
        await scheduler.cancel(run.id)
        assert (await time.until(waiting)).state is State.CANCELLED
        with pytest.raises(RunFailed):
            await run.value()


async def test_a_value_is_rebuilt_by_the_return_annotation(scheduler, virtual_time):
    @scheduler.job()
    async def when() -> dict[str, date]:
        return {"day": date(2026, 3, 1)}

    async with virtual_time(scheduler) as time:
        run = await when.submit()
        assert await time.until(run.value()) == {"day": date(2026, 3, 1)}
        assert (await scheduler.run(run.id)).result == {"day": "2026-03-01"}


@pytest.mark.parametrize(
    ("value", "said"),
    [("x" * 1_000_001, "only a note is kept: at least 10"), (object(), "a note"), ("word", "it is kept,")],
)
async def test_a_value_that_does_not_fit_its_annotation_is_told_by_an_error_of_ours(
    scheduler, virtual_time, value, said
):
    @scheduler.job()
    async def job() -> list[int]:
        return value

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        with pytest.raises(RunFailed, match="succeeded, but its result.* does not fit its annotation") as caught:
            await time.until(run.value())
        assert said in str(caught.value)
        assert caught.value.run.state is State.SUCCEEDED and caught.value.run.result is not None


async def test_a_handle_names_its_run_where_it_is_printed(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler):
        assert repr(await scheduler.submit("job", at="+1h")) == "<run 1 of job waiting>"


async def test_many_may_wait_for_one_run(scheduler, virtual_time):
    scheduler.add_job(lasting(60), name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        ends = await time.until(asyncio.gather(*(run.wait() for _ in range(20))))
        assert {end.id for end in ends} == {run.id}


async def test_an_unknown_run_is_named(scheduler, virtual_time):
    async with virtual_time(scheduler):
        for verb in (scheduler.run, scheduler.wait, scheduler.cancel):
            with pytest.raises(NoSuchRun, match="42"):
                await verb(42)


async def test_the_id_of_a_run_as_a_text_is_told_from_one_of_no_run(scheduler, virtual_time):
    scheduler.add_job(lasting(60), name="job")
    async with virtual_time(scheduler):
        run = await scheduler.submit("job")
        for verb in (scheduler.run, scheduler.wait, scheduler.cancel, scheduler.rerun, scheduler.log):
            with pytest.raises(NoSuchRun, match=r"give it as int\("):
                await verb(str(run.id))


# -- cancelling


async def test_a_waiting_run_is_cancelled_at_once(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job", at="+1h")
        done = await scheduler.cancel(run.id, reason="not needed", actor="ann")
        assert (done.state, done.reason, done.data["cancelled_by"]) == (State.CANCELLED, "not needed", "ann")
        await time.advance("2h")
        assert await starts(time) == []


async def test_a_running_run_may_clean_up_when_cancelled(scheduler, virtual_time):
    tape = []

    @scheduler.job(retry=3)
    async def job():
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(1)
            tape.append("cleaned")

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        await time.advance("10s")
        await scheduler.cancel(run.id, reason="enough", actor="ann")
        end = await time.until(run.wait())
        assert (end.state, end.reason, end.data["cancelled_by"], stamp(end.ended_at)) == (
            State.CANCELLED,
            "enough",
            "ann",
            "00:00:11",
        )
    assert tape == ["cleaned"]


async def test_a_run_that_is_handed_out_with_many_others_and_not_begun_yet_hears_of_its_cancel_too(virtual_time):
    """A few of them begin in each turn of the loop. The wish stood in the store, where only what others write had it read."""
    scheduler = TaskScheduler(options=Options(max_running=4000))
    scheduler.add_job(lasting(600), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.pause()
        asked = await scheduler.submit_many([scheduler["job"].bind() for _ in range(2000)])
        resuming = asyncio.create_task(scheduler.resume())
        while not scheduler._slots.attempts:
            await asyncio.sleep(0)
        run = await scheduler.cancel(asked[-1].id)
        assert run.state is State.RUNNING
        await time.until(resuming)
        await time.advance("5s")
        assert (await scheduler.run(run.id)).state is State.CANCELLED


async def test_a_run_that_waits_for_its_retry_is_cancelled_at_once(scheduler, virtual_time):
    scheduler.add_job(failing(9), name="job", retry=Retry(5, first="1h"))
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.advance("1m")
        assert (await scheduler.cancel(run.id)).state is State.CANCELLED
        await time.advance("1d")
        assert (await scheduler.run(run.id)).attempt == 1


async def test_a_run_in_a_thread_ends_when_it_looks(scheduler, virtual_time):
    begun = threading.Event()

    @scheduler.job()
    def job(run: RunContext):
        begun.set()
        while True:
            run.check_cancelled()
            threading.Event().wait(0.005)

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await job.submit()
        await asyncio.to_thread(begun.wait)
        await scheduler.cancel(run.id)
        assert (await time.until(run.wait())).state is State.CANCELLED


async def test_a_run_that_swallows_its_cancellation_is_abandoned(scheduler, virtual_time):
    job = stubborn()
    scheduler.add_job(job, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await scheduler.cancel(run.id)
        end = await time.until(run.wait())
        assert (end.state, end.reason, stamp(end.ended_at)) == (State.INTERRUPTED, "abandoned", "00:00:05")
        job.enough = True
        await time.advance("1s")
        assert (await scheduler.run(run.id)).state is State.INTERRUPTED


async def test_an_abandoned_run_keeps_its_slot_until_it_really_ends(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    job = stubborn()
    scheduler.add_job(job, name="job")
    scheduler.add_job(nothing, name="next")
    async with virtual_time(scheduler) as time:
        await scheduler.cancel((await scheduler.submit("job")).id)
        await scheduler.submit("next")
        await time.advance("1m")
        assert [run.state for run in await time.runs("next")] == [State.WAITING]
        job.enough = True
        await time.advance("1s")
        assert [run.state for run in await time.runs("next")] == [State.SUCCEEDED]


async def test_a_final_run_stays_as_it_is(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.run_until_idle()
        assert (await scheduler.cancel(run.id)).state is State.SUCCEEDED


async def test_a_run_of_another_process_hears_of_its_cancel_within_a_second(virtual_time, tmp_path):
    worker, other = TaskScheduler(options=Options()), TaskScheduler(options=Options(enabled=False))
    for scheduler in (worker, other):
        scheduler.add_job(lasting(600), name="job")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(worker, store=address) as time:
        await time.join(other, address)
        run = await other.submit("job")
        await time.advance("1s")
        assert (await other.run(run.id)).state is State.RUNNING
        await other.cancel(run.id, actor="ann")
        await time.advance("1s")
        end = await other.run(run.id)
        assert (end.state, end.data["cancelled_by"]) == (State.CANCELLED, "ann")


# -- whose job is it


async def test_a_job_submits_by_the_scheduler_of_the_run_in_hand(virtual_time, tmp_path):
    jobs = Jobs()

    @jobs.job()
    async def child():
        """Do nothing."""

    @jobs.job()
    async def parent():
        await child.submit()
        return current_run().job

    first, second = (TaskScheduler(jobs=[jobs], options=Options()) for _ in range(2))
    async with virtual_time(first) as time:
        await time.join(second, f"sqlite:///{tmp_path}/second.db")
        with pytest.raises(Conflict, match="several schedulers"):
            await parent.submit()
        await second.submit("parent")
        await time.advance("10s")
        assert [run.job for run in await second.runs()] == ["child", "parent"]
        assert await first.runs() == []


async def test_a_job_of_several_schedulers_submits_by_the_one_that_runs(virtual_time, tmp_path):
    """As after each start of an application anew, or each test of it, that makes a scheduler of the same jobs."""
    jobs, all_three = Jobs(), []
    job = jobs.add_job(nothing, name="job")
    for number in range(3):
        scheduler = TaskScheduler(jobs=[jobs], options=Options())
        all_three.append(scheduler)  # one that nobody has is gone when the garbage collector comes, and asked no more
        async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/{number}.db") as time:
            run = await job.submit()
            await time.until(run.wait())
            assert [one.id for one in await scheduler.runs()] == [run.id]
    with pytest.raises(Conflict, match="several schedulers"):
        await job.submit()


async def test_jobs_keep_none_of_the_schedulers_that_had_them_before(virtual_time):
    """A thousand of them were as good as running: 130 kB each."""
    jobs, gone = Jobs(), []
    jobs.add_job(nothing, Every("1h"), name="job")
    for _ in range(3):
        scheduler = TaskScheduler(jobs=[jobs], options=Options())
        async with virtual_time(scheduler) as time:
            await time.advance("1h")
        gone.append(ref(scheduler))
    del scheduler, time
    gc.collect()
    assert [one() for one in gone] == [None, None, None]


async def test_a_job_that_was_removed_is_kept_by_nobody(scheduler, virtual_time):
    async with virtual_time(scheduler) as time:
        job = ref(scheduler.add_job(nothing, Every("1h"), name="for-a-while"))
        await time.advance("1h")
        await scheduler.jobs()
        scheduler.remove_job("for-a-while")
        await time.advance("1h")
        gc.collect()
        assert job() is None


async def test_who_waits_for_a_run_of_another_process_leaves_nothing_of_its_looks_behind(virtual_time, tmp_path):
    """Each look, four a second, left a future for as long as the process lived."""
    url, scheduler = f"sqlite:///{tmp_path}/a.db", TaskScheduler(options=Options())
    scheduler.add_job(lasting(100), name="long")
    async with virtual_time(scheduler, store=url) as time:
        desk = Ledger(url, clock=time.clock, options=Options())
        desk.add_job(nothing, name="long")
        handle, before = await desk.submit("long"), len(futures())
        ended = await time.until(handle.wait())
        assert ended.state is State.SUCCEEDED and time.now - ended.ended_at < timedelta(seconds=1)
        assert len(futures()) - before < 20
        await desk.close()


def futures():
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]


async def test_a_job_of_no_scheduler_says_how_to_give_it_one():
    jobs = Jobs()
    job = jobs.add_job(nothing)
    with pytest.raises(Conflict, match=r"jobs=\["):
        await job.submit()


async def test_a_prefix_stands_before_every_name_of_a_collection(virtual_time):
    mail, billing = Jobs("mail."), Jobs("billing.")
    for jobs in (mail, billing):
        jobs.add_job(nothing, Every("1h"), name="sync")
    scheduler = TaskScheduler(jobs=[mail, billing], options=Options())
    async with virtual_time(scheduler) as time:
        await scheduler.submit("mail.sync")
        assert sorted(run.job for run in await time.runs()) == ["billing.sync", "mail.sync", "mail.sync"]


async def test_jobs_declared_after_the_collection_was_given_are_found_at_start(virtual_time):
    jobs = Jobs()
    scheduler = TaskScheduler(jobs=[jobs], options=Options())
    jobs.add_job(nothing, Every("1h"), name="late")
    async with virtual_time(scheduler) as time:
        assert await starts(time, "late") == ["00:00"]


async def test_two_jobs_of_one_name_are_an_error_that_names_both_places(virtual_time):
    one, other = Jobs(), Jobs()
    one.add_job(nothing, name="same")
    other.add_job(lasting(1), name="same")
    with pytest.raises(BadJob, match=r"(?s)'same'.*stories\.py:\d+.*stories\.py:\d+"):
        async with virtual_time(TaskScheduler(jobs=[one, other], options=Options())):
            pass


async def test_an_alias_keeps_history_and_switches_over_a_rename(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="old")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        await scheduler.disable("old", reason="by its old name")
        await time.until(scheduler.stop())
        scheduler.remove_job("old")
        scheduler.add_job(nothing, Every("1h"), name="new", aliases=("old",))
        await time.start()
        await time.advance("1h")
        assert [run.job for run in await time.runs("new")] == ["new", "new"]
        with pytest.raises(Conflict, match="by its old name"):
            await scheduler.submit("new")


async def test_an_alias_keeps_the_cursor_over_a_rename(scheduler, virtual_time):
    """A two-week job that is renamed a day after it ran must not run again at once."""
    scheduler.add_job(nothing, Every("2w"), name="old")
    async with virtual_time(scheduler) as time:
        await time.advance("1d")
        await time.until(scheduler.stop())
        scheduler.remove_job("old")
        scheduler.add_job(nothing, Every("2w"), name="new", aliases=("old",))
        await time.start()
        assert await starts(time) == ["00:00"]
        await time.advance("13d")
        assert [(run.job, stamp(run.due_at)) for run in await time.runs()] == [("new", "00:00"), ("new", "+14d 00:00")]


async def test_a_decorated_function_stays_callable():
    @Jobs().job()
    async def double(number: int) -> int:
        return number * 2

    assert await double(4) == 8


async def test_hundreds_of_runs_handed_out_at_once_begin_in_several_turns_and_never_beyond_the_slots(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=230))
    in_hand = []

    @scheduler.job()
    async def job():
        in_hand.append(len(scheduler._slots.attempts))
        await asyncio.sleep(60)

    async with virtual_time(scheduler) as time:
        await scheduler.pause()
        await scheduler.submit_many([job.bind()] * 300)
        await scheduler.resume()
        await time.advance("30s")
        assert len(in_hand) == max(in_hand) == 230
        assert min(in_hand) <= 100, "the first had begun before the last were launched"
        await time.advance("2m")
        assert len(in_hand) == 300 and max(in_hand) == 230
        assert scheduler._slots.free == 230 and not scheduler._slots.expecting
