"""Jobs that raise what would end a program (J2), and cancellations that nobody asked for (J3)."""

from __future__ import annotations

import asyncio
import sys

import anyio
import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, three_runs, unharmed

from taskloop import RunContext, State

pytestmark = pytest.mark.anyio

# -- J2: what would end a program

ENDS = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}


def ways(error):
    """Jobs that raise `error`, each in another place."""

    def exits():
        raise error

    async def on_loop():
        raise error

    async def deeper():
        await on_loop()

    async def while_cleaning_up():
        try:
            raise ValueError
        finally:
            raise error

    async def in_a_thread_of_its_own():
        await asyncio.to_thread(exits)

    async def in_a_child_task():
        await asyncio.create_task(on_loop())

    async def in_a_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(on_loop())

    def by_call(run: RunContext):
        run.call(on_loop)

    found = [exits, on_loop, deeper, while_cleaning_up, in_a_thread_of_its_own, in_a_child_task, in_a_group, by_call]
    return {one.__name__: one for one in found}


ESCAPES = {(way, end) for way in ("in_a_child_task", "in_a_group") for end in ("SystemExit", "KeyboardInterrupt")}
"""asyncio lets these two of any task out of the loop, and a job's child tasks are its own: docs/guarantees.md says so."""


@pytest.mark.parametrize(
    ("way", "end"), [(way, end) for way in ways(None) for end in ENDS if (way, end) not in ESCAPES]
)
@hosted
async def test_what_would_end_a_program_fails_a_run_and_the_host_lives_on(crowded, virtual_time, way, end):
    for run in await three_runs(crowded, virtual_time, ways(ENDS[end])[way], retry=3):
        assert (run.state, run.attempt) == (State.FAILED, 1)
        assert run.error.type in (end, "BaseExceptionGroup")
        assert f"{end}\n" in run.error.traceback


# -- J3: cancellations of a job's own


async def raised():
    raise asyncio.CancelledError


async def of_a_child_task():
    child = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_later(1, child.cancel)
    await child


async def of_a_child_among_others():
    child = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_later(1, child.cancel)
    await asyncio.gather(child, asyncio.sleep(2))


async def of_a_future():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(1, future.cancel)
    await future


def in_a_thread():
    raise asyncio.CancelledError


async def by_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(60)


async def by_its_child():
    asyncio.create_task(cancelling(asyncio.current_task()))
    await asyncio.sleep(60)


async def cancelling(task):
    task.cancel()


OWN = [raised, of_a_child_task, of_a_child_among_others, of_a_future, in_a_thread, by_itself, by_its_child]


@pytest.mark.parametrize("retry", [1, 3], ids=["once", "retrying"])
@pytest.mark.parametrize("name", [job.__name__ for job in OWN])
@hosted
async def test_a_cancellation_that_nobody_asked_for_has_failed_and_is_not_repeated(crowded, virtual_time, name, retry):
    """It is neither our cancel, nor a stop, nor an error of the types that are retried."""
    calls = []
    [function] = [job for job in OWN if job.__name__ == name]

    async def job():
        calls.append(1)
        if len(calls) > 30:
            return "called again and again"
        await function()

    if name == "in_a_thread":
        calls += [1, 1, 1]
        job = function
    for run in await three_runs(crowded, virtual_time, job, retry=retry):
        assert (run.state, run.reason, run.attempt) == (State.FAILED, None, 1)
        assert run.error.type == "CancelledError"
    assert len(calls) == 3


@hosted
async def test_scopes_of_its_own_that_cancel_and_catch_harm_no_job(crowded, virtual_time):
    async def job():
        caught = []
        for _ in range(3):
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(60)
            except TimeoutError:
                caught.append("timeout")
        try:
            await asyncio.wait_for(asyncio.sleep(60), 1)
        except TimeoutError:
            caught.append("wait_for")
        with anyio.move_on_after(1) as scope:
            await asyncio.sleep(60)
        caught += ["scope"] if scope.cancelled_caught else []
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            caught.append("own")
        return caught

    for run in await three_runs(crowded, virtual_time, job):
        assert (run.state, run.result) == (State.SUCCEEDED, ["timeout"] * 3 + ["wait_for", "scope", "own"])


@hosted
async def test_a_job_that_swallowed_a_cancellation_of_its_own_can_still_be_cancelled(crowded, virtual_time):
    @crowded.job()
    async def bad():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)

    async with virtual_time(crowded) as time:
        run = await bad.submit()
        await time.advance("10s")
        await crowded.cancel(run.id, reason="why")
        await time.advance("10s")
        ended = await crowded.run(run.id)
        assert (ended.state, ended.reason) == (State.CANCELLED, "why")
        await unharmed(time)


def answering(answer):
    """A job that, asked to end, does what `answer` does."""

    async def job():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return answer()

    return job


def again():
    raise asyncio.CancelledError("its own")


def fails():
    raise ValueError("in the way")


@pytest.mark.parametrize(
    ("answer", "asked", "record"),
    [
        (again, "cancel", (State.CANCELLED, "why", None)),
        (again, "timeout", (State.FAILED, None, "Timeout")),
        (again, "stop", (State.INTERRUPTED, "shutting_down", None)),
        (fails, "cancel", (State.CANCELLED, "why", None)),
        (fails, "timeout", (State.FAILED, None, "Timeout")),
        (fails, "stop", (State.INTERRUPTED, "shutting_down", None)),
        (lambda: "done all the same", "cancel", (State.SUCCEEDED, None, None)),
        (lambda: "done all the same", "timeout", (State.FAILED, None, "Timeout")),
        (lambda: "done all the same", "stop", (State.SUCCEEDED, None, None)),
        (sys.exit, "cancel", (State.CANCELLED, "why", None)),
        (sys.exit, "timeout", (State.FAILED, None, "Timeout")),
        (sys.exit, "stop", (State.INTERRUPTED, "shutting_down", None)),
    ],
)
@hosted
async def test_what_a_job_answers_to_our_cancel_decides_only_whether_it_succeeded(
    crowded, virtual_time, answer, asked, record
):
    """A cancel that the job turned into a result is a success; into any error, it is still the cancel that was asked."""
    crowded.add_job(answering(answer), name="bad", timeout="1m" if asked == "timeout" else None)
    async with virtual_time(crowded) as time:
        handle = await crowded.submit("bad")
        await time.advance("30s")
        if asked == "cancel":
            await crowded.cancel(handle.id, reason="why")
        elif asked == "stop":
            await time.until(crowded.stop(grace=0))
            await time.restart()
        await time.advance("1m")
        run = await crowded.run(handle.id)
        assert (run.state, run.reason, run.error and run.error.type) == record
        await unharmed(time)
