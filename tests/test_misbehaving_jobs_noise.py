"""Floods of progress (J10), and listeners that raise, hang, exit, wait or meddle (J20)."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, settle_in, three_runs, unharmed
from stores import Stores
from stories import lasting, nothing, stamp, threads_ended

from taskloop import Options, Retry, RunContext, State, TaskScheduler

pytestmark = pytest.mark.anyio

MILLION = 1_000_000


# -- J10: floods


async def test_a_million_reports_from_the_loop_are_two_writes_a_second_and_the_newest_is_kept(
    scheduler, virtual_time, tmp_path
):
    stores, heard = Stores("file", tmp_path), []
    scheduler.feed.subscribe(heard.append, "progress")
    settle_in(scheduler)

    @scheduler.job()
    async def floods(run: RunContext):
        for second in range(100):
            for number in range(MILLION // 100):
                run.progress(second * MILLION // 100 + number, MILLION, f"line {number}")
            await asyncio.sleep(1)

    async with virtual_time(scheduler, store=stores.url) as time:
        handle = await floods.submit()
        before = stores.commits()
        await time.advance("100s")
        assert stores.commits() - before < 300  # beats, neighbours and the end are among them
        run = await scheduler.run(handle.id)
        assert (run.state, run.progress.done, run.progress.message) == (State.SUCCEEDED, MILLION - 1, "line 9999")
        assert 90 < len(heard) <= 201
        assert [event.run.progress.done for event in heard] == sorted(event.run.progress.done for event in heard)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 6 * MILLION
        await unharmed(time)


async def test_a_million_reports_from_a_thread_leave_the_healthy_jobs_on_time_and_the_file_small(tmp_path):
    scheduler, heard = TaskScheduler(tmp_path / "runs.db", options=Options()), []
    scheduler.feed.subscribe(heard.append, "progress")

    @scheduler.every("100ms", overlap="allow", missed="all")
    async def healthy(): ...

    @scheduler.job()
    def floods(run: RunContext):
        for number in range(MILLION):
            run.progress(number, MILLION, "on and on")

    async with scheduler:
        before = sum(file.stat().st_size for file in tmp_path.iterdir())
        run = await (await floods.submit()).wait("18s")
        found = await scheduler.runs("healthy", state=list(State), limit=1000)
        runs = [one if one.final else await scheduler.wait(one.id, "10s") for one in found]  # the newest just come due
    after = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert (run.state, run.progress.done) == (State.SUCCEEDED, MILLION - 1)
    took = (run.ended_at - run.started_at).total_seconds()
    assert len(heard) <= 2 * took + 2
    assert after - before < MILLION
    assert {(one.state, one.reason) for one in runs} == {(State.SUCCEEDED, None)}
    assert len(runs) >= int(took * 10) - 2
    assert max((one.started_at - one.due_at).total_seconds() for one in runs) < 2


@pytest.mark.parametrize("name", ["huge", "tiny", "back", "empty", "odd"])
@hosted
async def test_whatever_figures_a_job_reports_its_record_can_be_told(crowded, virtual_time, name):
    figures = {"huge": (1e308, 1e308), "tiny": (5e-324, 1), "back": (-1, -1), "empty": (1, 0), "odd": (1e308, -1e308)}

    async def job(run: RunContext):
        await asyncio.sleep(0.001)
        run.progress(*figures[name], "\x1b[2J\0\ud800" * 10_000)
        await asyncio.sleep(2)

    for run in await three_runs(crowded, virtual_time, job):
        assert run.state is State.SUCCEEDED
        assert (run.progress.done, run.progress.total) == figures[name]
        assert 0 <= run.progress.fraction <= 1


# -- J20: listeners


class Own(BaseException):
    """An end that only this listener knows."""


class ReprExits(Exception):
    def __repr__(self):
        raise SystemExit(3)

    __str__ = __repr__


class ReprFails(Exception):
    def __repr__(self):
        raise RuntimeError

    __str__ = __repr__


RAISED = {
    one.__name__: one
    for one in (
        ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration, MemoryError,
        Own, ReprExits, ReprFails,
    )
}  # fmt: skip


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("name", RAISED)
@hosted
async def test_whatever_a_listener_raises_touches_no_run_and_no_other_listener(
    crowded, virtual_time, lines, kind, name
):
    heard = []
    make_listener(crowded, kind, RAISED[name])
    crowded.on("started", "succeeded")(lambda event: heard.append((event.run.id, event.name)))
    runs = await three_runs(crowded, virtual_time, nothing)
    assert {run.state for run in runs} == {State.SUCCEEDED}
    for run in runs:
        assert [event for number, event in heard if number == run.id] == ["started", "succeeded"]
    assert lines.count("listener.failed") == (0 if name == "CancelledError" else len(heard))  # it may be our own


def make_listener(scheduler, kind, error):
    @scheduler.on("started", "succeeded")
    async def on_loop(event):
        if kind == "async":
            raise error

    @scheduler.on("started", "succeeded")
    def in_thread(event):
        if kind == "plain":
            raise error


@hosted
async def test_an_async_listener_that_swallows_its_cancellation_holds_up_no_stop(crowded, virtual_time):
    enough = asyncio.Event()

    @crowded.on("started")
    async def listener(event):
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue

    async with virtual_time(crowded) as time:
        await unharmed(time)
        before = time.now
        await time.until(crowded.stop(grace="1s"))
        assert (time.now - before).total_seconds() <= 3
        await time.restart(after="1m")
        await time.advance("1m")
        assert {run.state for run in await time.runs()} == {State.SUCCEEDED}
        enough.set()


@pytest.mark.parametrize("restarted", [False, True], ids=["without a restart", "after a restart"])
@hosted
async def test_a_plain_listener_that_hangs_is_given_up_and_the_others_still_hear(
    crowded, virtual_time, lines, restarted
):
    heard, enough = [], threading.Event()
    crowded.on("submitted")(lambda event: enough.wait(15))
    crowded.on("succeeded")(lambda event: heard.append(event.run.id))
    crowded.add_job(nothing, name="job")
    try:
        async with virtual_time(crowded, patience="100ms") as time:
            await crowded.submit("job")
            await time.advance("45s")
            if restarted:
                await time.restart()
            run = await crowded.submit("job")
            await time.advance("45s")
            assert run.id in heard
            assert "listener.failed" in lines
    finally:
        enough.set()


@hosted
async def test_a_plain_listener_that_hangs_delays_no_run_and_no_stop(crowded, virtual_time):
    enough = threading.Event()
    crowded.on("started")(lambda event: enough.wait(15))
    try:
        async with virtual_time(crowded, patience="100ms") as time:
            await time.advance("3m")
            assert [stamp(run.started_at) for run in await time.runs("on_loop")] == ["00:00", "00:01", "00:02", "00:03"]
            before = time.now
            await time.until(crowded.stop(grace="1s"))
            assert (time.now - before).total_seconds() <= 3
            enough.set()
            await threads_ended(time)
    finally:
        enough.set()


class AsyncCall:
    def __init__(self, function):
        self.function = function

    async def __call__(self, event):
        await self.function(event)


SHAPES = {
    "async function": lambda function: function,
    "partial": lambda function: functools.partial(function),
    "object with an async call": AsyncCall,
    "function that gives a coroutine": lambda function: lambda event: function(event),
}


@pytest.mark.parametrize("name", SHAPES)
@hosted
async def test_a_listener_of_any_shape_that_gives_an_awaitable_is_awaited(crowded, virtual_time, name):
    heard = []

    async def listener(event):
        await asyncio.sleep(0)
        heard.append(event.run.id)

    crowded.on("succeeded")(SHAPES[name](listener))
    runs = await three_runs(crowded, virtual_time, nothing)
    assert {run.id for run in runs} <= set(heard)


@hosted
async def test_a_slow_listener_hears_everything_later_and_nobody_waits_for_it(crowded, virtual_time):
    begun, ended = [], []

    @crowded.on("started")
    async def listener(event):
        begun.append(stamp(event.at))
        await asyncio.sleep(20)
        ended.append(stamp(event.at))

    runs = await three_runs(crowded, virtual_time, lasting(1))
    assert {(run.ended_at - run.started_at).total_seconds() for run in runs} == {1}
    assert begun == sorted(begun) and ended == begun[: len(ended)] and len(ended) >= 6


@hosted
async def test_a_listener_that_writes_into_its_event_changes_no_run(crowded, virtual_time):
    called = []

    @crowded.on("submitted", "started")
    async def meddles(event):
        if event.run.params:
            event.run.params["user"] = 666

    @crowded.job()
    async def remind(user: int = 1):
        called.append(user)

    async with virtual_time(crowded) as time:
        run = await remind.submit(user=7)
        await time.advance("1s")
        assert called == [7]
        assert (await crowded.run(run.id)).params == {"user": 7}


@hosted
async def test_a_job_that_writes_into_its_parameters_changes_neither_the_call_nor_the_next_attempt(
    crowded, virtual_time
):
    called = []

    @crowded.job(retry=Retry(2, first=0))
    async def collect(run: RunContext, rows=None, wanted: list[int] | None = None):
        called.append((list(rows), list(wanted)))
        rows.append("more")
        wanted.append(0)
        if run.attempt == 1:
            raise OSError

    async with virtual_time(crowded) as time:
        call = collect.bind(rows=["first"], wanted=[1])
        for _ in range(2):
            await call.submit()
            await time.advance("1s")
        assert called == [(["first"], [1])] * 4
        assert [run.params for run in time.submitted(collect)] == [{"rows": ["first"], "wanted": [1]}] * 2
        await unharmed(time)


@hosted
async def test_a_listener_may_use_every_verb_on_the_run_it_hears_of(crowded, virtual_time):
    done = []

    @crowded.on("started")
    async def meddles(event):
        if event.job != "bad":
            return
        await crowded.cancel(event.run.id, reason="because")
        await crowded.disable("bad", reason="because")
        await crowded.pause("bad")
        await crowded.resume("bad")
        await crowded.enable("bad")
        done.append((await crowded.run(event.run.id)).state)

    for run in await three_runs(crowded, virtual_time, lasting(20)):
        assert (run.state, run.reason) == (State.CANCELLED, "because")
    assert len(done) == 3


@hosted
async def test_listeners_that_submit_at_each_submit_are_a_crowd_and_no_more(crowded, virtual_time):
    made = []
    crowded.add_job(nothing, name="job")

    @crowded.on("submitted", "succeeded")
    async def more(event):
        if event.job == "job" and len(made) < 300:
            made.append(event.run.id)
            await crowded.submit("job")

    async with virtual_time(crowded) as time:
        await crowded.submit("job")
        await time.advance("1s")
        assert [run.state for run in await time.runs("job")] == [State.SUCCEEDED] * 301
        await unharmed(time)


@pytest.mark.parametrize("who", ["listener", "orphan"])
@hosted
async def test_who_waits_for_a_run_after_its_own_has_ended_lends_no_slot(virtual_time, who):
    scheduler, going, most, left = TaskScheduler(options=Options(max_running=1)), set(), [0], []

    @scheduler.job()
    async def busy(run: RunContext):
        going.add(run.id)
        most[0] = max(most[0], len(going))
        await asyncio.sleep(10)
        going.discard(run.id)

    async def waits():
        await (await scheduler.submit("busy")).wait()

    @scheduler.job()
    async def first():
        if who == "orphan":
            left.append(asyncio.create_task(waits()))

    @scheduler.on("succeeded")
    async def afterwards(event):
        if who == "listener" and event.job == "first":
            await waits()

    async with virtual_time(scheduler) as time:
        await first.submit()
        for _ in range(3):
            await busy.submit()
        await time.run_until_idle()
        assert {run.state for run in await time.runs()} == {State.SUCCEEDED}
    assert most == [1]
