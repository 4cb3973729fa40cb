"""Attempts: timeouts, retries, and jobs that raise or return what nobody would expect."""

from __future__ import annotations

import asyncio
import math
import threading
from datetime import timedelta
from time import monotonic

import pytest
from stories import failing, fates, lasting, nothing, stamp, starts, stubborn, threads_ended

from taskloop import Every, Fatal, Inject, Options, Retry, RetryAt, RunContext, State, TaskScheduler, current_run

pytestmark = pytest.mark.anyio


async def outcome(time, function, **policy):
    """The final record of one run of `function`, which must leave the scheduler unharmed."""
    scheduler = time.scheduler
    job = scheduler.add_job(function, name=f"job-{len(scheduler)}", **policy)
    await time.restart()
    run = await time.until((await scheduler.submit(job)).wait())
    assert scheduler.is_running
    return run


# -- timeouts


async def test_a_timeout_ends_an_attempt_on_the_loop(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="job", timeout="1m")
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        assert (run.state, run.error.type, stamp(run.ended_at)) == (State.FAILED, "Timeout", "00:01")


async def test_a_timeout_is_retried_like_other_errors(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="job", timeout="1m", retry=Retry(3, first="10s", factor=1))
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        assert (run.state, run.attempt, stamp(run.ended_at)) == (State.FAILED, 3, "00:03:20")


async def test_a_timeout_is_no_matter_of_on_types_it_is_not(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="job", timeout="1m", retry=Retry(3, on=KeyError))
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        assert (run.state, run.attempt) == (State.FAILED, 1)


async def test_what_a_job_returns_after_its_timeout_is_too_late(scheduler, virtual_time):
    @scheduler.job(timeout="1m")
    async def job():
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            return "made it after all"

    async with virtual_time(scheduler) as time:
        run = await time.until((await job.submit()).wait())
        assert (run.state, run.error.type, run.result) == (State.FAILED, "Timeout", None)


async def test_a_job_that_swallows_its_timeout_is_left_behind_after_the_kill_grace(scheduler, virtual_time):
    job = stubborn()
    scheduler.add_job(job, name="job", timeout="1m")
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        assert (run.state, run.error.type, stamp(run.ended_at)) == (State.FAILED, "Timeout", "00:01:05")
        job.enough = True
        await time.advance("1s")


async def test_a_timeout_asks_a_thread_to_end(scheduler, virtual_time):
    @scheduler.job(timeout="1m")
    def job(run: RunContext):
        while True:
            run.check_cancelled()
            threading.Event().wait(0.002)

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await time.until((await job.submit()).wait())
        assert (run.state, run.error.type) == (State.FAILED, "Timeout")
        assert "00:01" <= stamp(run.ended_at) <= "00:01:05"


async def test_the_wait_for_a_thread_takes_nothing_of_a_timeout(virtual_time):
    scheduler = TaskScheduler(":memory:", options=Options(threads=1))
    enough = threading.Event()

    def first():
        enough.wait(20)

    def second(): ...

    scheduler.add_job(first)
    scheduler.add_job(second, timeout="1m")
    async with virtual_time(scheduler, patience="50ms") as time:
        running, waiting = await scheduler.submit("first"), await scheduler.submit("second")
        await time.advance("5m")
        assert (await scheduler.run(waiting.id)).state is State.RUNNING
        enough.set()
        assert [(await time.until(one.wait())).state for one in (running, waiting)] == [State.SUCCEEDED] * 2


async def test_once_each_thread_is_held_by_what_does_not_end_that_is_told(virtual_time, lines):
    scheduler = TaskScheduler(":memory:", options=Options(threads=2, kill_grace=timedelta(seconds=1)))
    enough = threading.Event()

    @scheduler.job(timeout="1m")
    def deaf():
        enough.wait(20)

    async with virtual_time(scheduler, patience="50ms") as time:
        for told in (0, 1):
            await time.until((await deaf.submit()).wait())
            assert lines.count("thread.none_free") == told
        waiting = await deaf.submit()
        await time.advance("5m")
        assert (await scheduler.run(waiting.id)).state is State.RUNNING
        enough.set()
        assert (await time.until(waiting.wait())).state is State.SUCCEEDED


@pytest.mark.parametrize("is_given_something", [False, True])
async def test_a_stop_gives_back_what_still_waits_for_a_thread(virtual_time, is_given_something):
    scheduler = TaskScheduler(":memory:", options=Options(threads=1, kill_grace=timedelta(seconds=1)))
    enough, called = threading.Event(), []

    async def something():
        return 1

    def job(number: int):
        called.append(number)
        enough.wait(20)

    def given(number: int, value: int = Inject(something)):
        job(number)

    scheduler.add_job(given if is_given_something else job, name="job")
    async with virtual_time(scheduler, patience="50ms") as time:
        for number in range(3):
            await scheduler.submit("job", {"number": number})
        await time.advance("1s")
        await time.until(scheduler.stop(grace="1s"))
        enough.set()
        assert called == [0]
        states = [(run.state, run.attempt, run.reason) for run in reversed(await scheduler.runs())]
        assert states == [("interrupted", 1, "abandoned"), ("waiting", 0, None), ("waiting", 0, None)]
        await scheduler.start()
        await time.advance("1s")
        assert sorted(called) == [0, 1, 2]


async def test_a_thread_that_does_not_hear_its_timeout_is_left_behind(scheduler, virtual_time):
    enough = threading.Event()

    @scheduler.job(timeout="1m")
    def job():
        enough.wait(10)

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await time.until((await job.submit()).wait())
        assert (run.state, run.error.type, stamp(run.ended_at)) == (State.FAILED, "Timeout", "00:01:05")
        enough.set()
        await threads_ended(time)
        assert (await scheduler.run(run.id)).state is State.FAILED


async def test_the_timeout_begins_anew_with_each_attempt(scheduler, virtual_time):
    tries = []

    @scheduler.job(timeout="1m", retry=Retry(2, first="5m"))
    async def job():
        tries.append(1)
        await asyncio.sleep(50)
        if len(tries) == 1:
            raise OSError

    async with virtual_time(scheduler) as time:
        run = await time.until((await job.submit()).wait())
        assert (run.state, run.attempt) == (State.SUCCEEDED, 2)


# -- retries


async def test_retries_wait_longer_each_time_up_to_the_longest(scheduler, virtual_time):
    tape = []

    @scheduler.job(retry=Retry(6, first="10s", factor=3, max="1m"))
    async def job(run: RunContext):
        tape.append((run.attempt, stamp(time.now)))
        raise OSError("no luck")

    async with virtual_time(scheduler) as time:
        run = await time.until((await job.submit()).wait())
        assert (run.state, run.attempt, run.attempts) == (State.FAILED, 6, 6)
    assert tape == [(1, "00:00"), (2, "00:00:10"), (3, "00:00:40"), (4, "00:01:40"), (5, "00:02:40"), (6, "00:03:40")]


async def test_a_run_between_two_attempts_waits_and_its_status_is_running(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="job", retry=Retry(2, first="1m"))
    async with virtual_time(scheduler) as time:
        handle = await scheduler.submit("job")
        await time.advance("30s")
        run = await scheduler.run(handle.id)
        assert (run.state, run.status, run.error.type, stamp(run.ready_at)) == (
            State.WAITING,
            "RUNNING",
            "OSError",
            "00:01",
        )
        await time.advance("30s")
        run = await scheduler.run(handle.id)
        assert (run.state, run.status, run.error) == (State.SUCCEEDED, "SUCCESS", None)
        assert stamp(run.started_at) == "00:00"


async def test_three_attempts_are_written_short_as_three(scheduler, virtual_time):
    scheduler.add_job(failing(2), name="job", retry=3)
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job")).wait())
        assert (run.state, run.attempt) == (State.SUCCEEDED, 3)


async def test_retry_at_says_when(scheduler, virtual_time):
    @scheduler.job(retry=Retry(3, first="1s"))
    async def job(run: RunContext):
        if run.attempt == 1:
            raise RetryAt("1h")
        if run.attempt == 2:
            raise RetryAt("2026-01-01T01:10Z")
        return stamp(time.now)

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        assert await time.until(run.value()) == "01:10"


async def test_retry_at_in_the_past_is_now_and_needs_an_attempt(scheduler, virtual_time):
    tries = []

    async def job():
        tries.append(1)
        raise RetryAt("2020-01-01T00:00Z")

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job, retry=3)
        assert (run.state, len(tries), run.error.type) == (State.FAILED, 3, "RetryAt")
        assert stamp(run.ended_at) == "00:00"


async def test_fatal_ends_a_run_whatever_attempts_are_left(scheduler, virtual_time):
    async def job():
        raise Fatal("the file is gone")

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job, retry=5)
        assert (run.state, run.attempt, run.error.message) == (State.FAILED, 1, "the file is gone")
        assert run.summary == "the file is gone"


@pytest.mark.parametrize(("error", "attempts"), [(ConnectionError, 3), (OSError, 3), (KeyError, 1), (ValueError, 3)])
async def test_only_errors_of_the_types_on_are_retried(scheduler, virtual_time, error, attempts):
    scheduler.add_job(failing(9, error), name="job", retry=Retry(3, on=(OSError, ValueError)))
    async with virtual_time(scheduler) as time:
        assert (await time.until((await scheduler.submit("job")).wait())).attempt == attempts


@pytest.mark.parametrize(
    ("errors", "attempts"),
    [
        ([OSError, ConnectionError], 3),
        ([OSError, KeyError], 1),
        ([OSError, Fatal], 1),
        ([lambda: RetryAt("1h"), KeyError], 3),
        ([lambda: RetryAt("1h"), Fatal], 1),
    ],
)
async def test_what_the_tasks_of_a_job_raise_together_says_whether_it_is_tried_again(virtual_time, errors, attempts):
    scheduler = TaskScheduler(":memory:")

    async def raising(make):
        await asyncio.sleep(1)
        raise make()

    @scheduler.job(retry=Retry(3, on=OSError))
    async def job():
        async with asyncio.TaskGroup() as outer:
            outer.create_task(raising(errors[0]))
            async with asyncio.TaskGroup() as inner:
                inner.create_task(raising(errors[1]))

    async with virtual_time(scheduler) as time:
        run = await time.until((await job.submit()).wait())
        assert (run.attempt, run.error.type) == (attempts, "ExceptionGroup")
        if attempts == 3 and OSError not in errors:
            assert stamp(run.ended_at) == "02:00:03"


async def test_jitter_spreads_the_wait_within_its_share(scheduler, virtual_time):
    scheduler.add_job(failing(999), name="job", retry=Retry(40, first="100s", factor=1, jitter=0.5), max_running=1)
    instants = []
    scheduler.feed.subscribe(lambda event: instants.append(event.at), "started")
    async with virtual_time(scheduler) as time:
        await time.until((await scheduler.submit("job")).wait())
    waits = [(later - sooner).total_seconds() for sooner, later in zip(instants, instants[1:], strict=False)]
    assert len(waits) == 39
    assert all(50 <= wait <= 150 for wait in waits)
    assert max(waits) - min(waits) > 20


async def test_a_retry_survives_a_restart(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="job", retry=Retry(2, first="1h"))
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.advance("1m")
        await time.restart(after="10m")
        await time.run_until_idle()
        end = await scheduler.run(run.id)
        assert (end.state, end.attempt, stamp(end.ended_at)) == (State.SUCCEEDED, 2, "01:00")


# -- what jobs raise


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("not even a text")

    __repr__ = __str__


class Rude(BaseException):
    """Neither an Exception nor known to anybody."""


def group():
    return ExceptionGroup("two things", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])


def cycle():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


RAISED = [
    (lambda: ValueError("no luck"), "ValueError"),
    (group, "ExceptionGroup"),
    (lambda: SystemExit(3), "SystemExit"),
    (KeyboardInterrupt, "KeyboardInterrupt"),
    (asyncio.CancelledError, "CancelledError"),
    (lambda: Rude("rude"), "Rude"),
    (Hostile, "Hostile"),
    (cycle, "ValueError"),
    (lambda: ValueError("x" * 10_000_000), "ValueError"),
    (lambda: ValueError("nul \0 and \ud800"), "ValueError"),
    (lambda: StopAsyncIteration("odd"), "StopAsyncIteration"),
    (MemoryError, "MemoryError"),
    (RecursionError, "RecursionError"),
]


@pytest.mark.parametrize(("make", "name"), RAISED, ids=[f"{number} {name}" for number, (_, name) in enumerate(RAISED)])
@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_whatever_a_job_raises_fails_its_run_alone(scheduler, virtual_time, make, name, where):
    async def on_loop():
        raise make()

    def in_thread():
        raise make()

    scheduler.add_job(nothing, Every("1m"), name="neighbour")
    async with virtual_time(scheduler) as time:
        run = await outcome(time, on_loop if where == "loop" else in_thread)
        assert (run.state, run.error.type) == (State.FAILED, name)
        assert len(run.error.message) < 5000
        assert run.error.traceback
        await time.advance("2m")
        assert {one.state for one in await time.runs("neighbour")} == {State.SUCCEEDED}


async def test_a_stop_iteration_from_a_thread_is_an_error_with_its_name_in_it(scheduler, virtual_time):
    def job():
        raise StopIteration("odd")

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job)
        assert run.state is State.FAILED
        assert "StopIteration" in run.error.message


async def test_a_group_of_errors_tells_all_of_them(scheduler, virtual_time):
    async def job():
        raise group()

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job)
        assert "ValueError: one" in run.error.traceback
        assert "KeyError: 'two'" in run.error.traceback


async def test_equal_errors_have_one_fingerprint_whatever_their_numbers(scheduler, virtual_time):
    numbers = iter(range(100))

    async def job():
        raise ValueError(f"row {next(numbers)} is bad")

    async with virtual_time(scheduler) as time:
        scheduler.add_job(job, name="job")
        await time.restart()
        runs = [await time.until((await scheduler.submit("job")).wait()) for _ in range(3)]
    assert len({run.error.fingerprint for run in runs}) == 1
    assert len({run.error.message for run in runs}) == 3


async def test_a_cancelled_error_of_its_own_is_retried_by_nobody(scheduler, virtual_time):
    async def job():
        raise asyncio.CancelledError

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job, retry=3)
        assert (run.state, run.attempt) == (State.FAILED, 1)


async def test_a_timeout_of_the_jobs_own_is_an_ordinary_error(scheduler, virtual_time):
    async def job():
        async with asyncio.timeout(5):
            await asyncio.sleep(60)

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job, retry=Retry(2, first="1s"), timeout="1m")
        assert (run.state, run.error.type, run.attempt) == (State.FAILED, "TimeoutError", 2)


# -- what jobs return


class Odd:
    """Nothing that JSON knows."""


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def ring():
    value = []
    value.append(value)
    return value


RETURNED = [
    (lambda: None, None),
    (lambda: {"a": [1, 2.5, True, None]}, {"a": [1, 2.5, True, None]}),
    (lambda: timedelta(hours=1), "PT1H"),
    (lambda: {3}, [3]),
    (lambda: (1, 2), [1, 2]),
    (lambda: "first line\nsecond", "first line\nsecond"),
    (lambda: "", ""),
    (lambda: 2**80, 2**80),
]


@pytest.mark.parametrize(("make", "kept"), RETURNED, ids=[str(number) for number in range(len(RETURNED))])
async def test_a_result_is_kept_as_json(scheduler, virtual_time, make, kept):
    async def job():
        return make()

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job)
        assert (run.state, run.result) == (State.SUCCEEDED, kept)


UNKEPT = [
    Odd,
    lambda: math.nan,
    lambda: b"\xff\x00",
    deep,
    ring,
    lambda: "x" * 2_000_000,
    lambda: "\ud800",
    lambda: "a\0b",
]


@pytest.mark.parametrize("make", UNKEPT, ids=["object", "nan", "bytes", "deep", "ring", "huge", "surrogate", "nul"])
async def test_a_result_that_is_no_json_is_noted_and_the_run_succeeds(scheduler, virtual_time, make):
    async def job():
        return make()

    async with virtual_time(scheduler) as time:
        run = await outcome(time, job)
        assert run.state is State.SUCCEEDED
        assert len(repr(run.result)) < 1000
        assert (await scheduler.runs())[0].id == run.id


async def test_a_returned_text_is_the_summary_and_so_is_an_errors_first_line(scheduler, virtual_time):
    async def says():
        return "sent 5 mails\nand more"

    async def fails():
        raise OSError("disk is full\nreally")

    async with virtual_time(scheduler) as time:
        assert (await outcome(time, says)).summary == "sent 5 mails"
        assert (await outcome(time, fails)).summary == "disk is full"


# -- what an attempt can see


async def test_an_attempt_sees_its_run(scheduler, virtual_time):
    seen = []

    @scheduler.every("1h", retry=Retry(2, first="1m"))
    async def job(run: RunContext, batch: int = 3):
        seen.append((run.id, run.job, run.schedule, run.attempt, stamp(run.due_at), dict(run.params), run.step))
        assert current_run() is run
        assert run.worker is not None
        if run.attempt == 1:
            raise OSError

    async with virtual_time(scheduler) as time:
        await time.advance("2m")
    assert seen == [(1, "job", "job", 1, "00:00", {}, ""), (1, "job", "job", 2, "00:00", {}, "")]


async def test_current_run_is_found_in_threads_and_child_tasks_and_nowhere_else(scheduler, virtual_time):
    found = []

    def deeper():
        found.append(current_run().job)

    @scheduler.job()
    async def on_loop():
        await asyncio.gather(asyncio.to_thread(deeper), asyncio.create_task(asyncio.to_thread(deeper)))

    @scheduler.job()
    def in_thread():
        deeper()

    async with virtual_time(scheduler) as time:
        await on_loop.submit()
        await in_thread.submit()
        await time.run_until_idle()
        with pytest.raises(LookupError):
            current_run()
    assert sorted(found) == ["in_thread", "on_loop", "on_loop"]


async def test_progress_is_kept_from_the_loop_and_from_threads(scheduler, virtual_time):
    @scheduler.job()
    async def on_loop(run: RunContext):
        run.progress(1, 4, "a quarter")
        await asyncio.sleep(60)

    @scheduler.job()
    def in_thread(run: RunContext):
        run.progress(50, message="half")

    async with virtual_time(scheduler) as time:
        one, other = await on_loop.submit(), await in_thread.submit()
        await time.advance("2s")
        assert (await scheduler.run(one.id)).progress.fraction == 0.25
        assert (await scheduler.run(one.id)).state is State.RUNNING
        assert (await scheduler.run(other.id)).progress.message == "half"


async def test_a_flood_of_progress_costs_a_few_writes_a_second(scheduler, virtual_time):
    heard = []
    scheduler.feed.subscribe(heard.append, "progress")

    @scheduler.job()
    async def job(run: RunContext):
        for second in range(10):
            for number in range(10_000):
                run.progress(second * 10_000 + number, 100_000)
            await asyncio.sleep(1)

    async with virtual_time(scheduler) as time:
        await job.submit()
        await time.run_until_idle()
        assert (await time.runs())[0].progress.done == 99_999
    assert len(heard) <= 30


async def test_call_from_a_thread_runs_on_the_loop(scheduler, virtual_time):
    @scheduler.job()
    async def child(number: int) -> int:
        return number + 1

    @scheduler.job()
    def parent(run: RunContext) -> int:
        handle = run.call(child.submit, 41)
        return run.call(handle.value)

    async with virtual_time(scheduler, patience="200ms") as time:
        run = await parent.submit()
        assert await time.until(run.value()) == 42


async def test_threads_that_wait_for_other_runs_leave_them_their_place(virtual_time):
    scheduler = TaskScheduler(":memory:", options=Options(threads=2))

    @scheduler.job()
    def child(number: int) -> int:
        return number + 1

    @scheduler.job()
    def parent(run: RunContext, number: int) -> int:
        handle = run.call(child.submit, number)
        return run.call(handle.value)

    async with virtual_time(scheduler, patience="200ms") as time:
        before = set(threading.enumerate())
        runs = [await parent.submit(number) for number in range(6)]
        assert [await time.until(run.value("1m")) for run in runs] == [1, 2, 3, 4, 5, 6]
        deadline = monotonic() + 20
        while len(left := set(threading.enumerate()) - before) > 2 and monotonic() < deadline:
            await time.advance(0)
        assert len(left) <= 2


@pytest.mark.parametrize("what", ["run", "step", "run in a step"])
@pytest.mark.parametrize(
    ("how", "comes_to"), [("cancel", ("cancelled", 1)), ("timeout", ("succeeded", 2)), ("stop", ("waiting", 0))]
)
async def test_a_thread_that_waits_for_a_run_or_a_step_hears_that_it_is_to_end(virtual_time, how, comes_to, what):
    patient = Options(grace=timedelta(seconds=1), kill_grace=timedelta(hours=9))  # a thread wakes up in real time
    scheduler = TaskScheduler(":memory:", options=patient)

    @scheduler.job()
    async def child() -> None:
        await asyncio.sleep(86400)

    def waiting(run: RunContext) -> None:
        run.call(run.call(child.submit).wait)

    @scheduler.job(retry=2, timeout="1h")
    def job(run: RunContext) -> None:
        if run.attempt > 1:
            return
        if what == "run":
            waiting(run)
        else:
            run.call(run.step, "step", *((waiting,) if what == "run in a step" else (asyncio.sleep, 86400)))

    async with virtual_time(scheduler, patience="200ms") as time:
        handle = await job.submit()
        await time.advance("1s")
        if how == "stop":
            await time.until(scheduler.stop())
        elif how == "cancel":
            await scheduler.cancel(handle.id)
        run = await scheduler.run(handle.id) if how == "stop" else await time.until(handle.wait("20h"))
        assert (run.state, run.attempt) == comes_to


async def test_a_thread_that_was_asked_to_end_may_wait_for_a_run_to_clean_up(virtual_time):
    scheduler = TaskScheduler(":memory:", options=Options(kill_grace=timedelta(hours=9)))
    cleaned = []

    @scheduler.job()
    async def child(seconds: int) -> None:
        await asyncio.sleep(seconds)

    @scheduler.job()
    def job(run: RunContext) -> None:
        try:
            run.call(run.call(child.submit, seconds=86400).wait)
        finally:
            cleaned.append(run.call(run.call(child.submit, seconds=1).wait).state)

    async with virtual_time(scheduler, patience="200ms") as time:
        handle = await job.submit()
        await time.advance("1s")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state == "cancelled" and cleaned == ["succeeded"]


async def test_a_plain_step_finds_a_thread_though_its_run_waits_in_the_only_one(virtual_time):
    scheduler = TaskScheduler(":memory:", options=Options(threads=1))

    def double(number):
        return 2 * number

    @scheduler.job()
    def job(run: RunContext) -> int:
        return run.call(run.step, "double", double, 21)

    async with virtual_time(scheduler, patience="200ms") as time:
        assert await time.until((await job.submit()).value("1m")) == 42


async def test_a_job_may_leave_tasks_behind_and_its_run_ends_all_the_same(scheduler, virtual_time):
    left = []

    async def job():
        left.append(asyncio.create_task(asyncio.sleep(3600)))

    async with virtual_time(scheduler) as time:
        assert (await outcome(time, job)).state is State.SUCCEEDED
        left[0].cancel()


async def test_fires_and_skips_are_told_by_fates(scheduler, virtual_time):
    scheduler.add_job(lasting(90), Every("1m"))
    async with virtual_time(scheduler) as time:
        await time.advance("2m")
        assert await fates(time) == ["00:00 succeeded", "00:01 skipped overlap", "00:02 running"]
        assert await starts(time) == ["00:00", "00:02"]
