"""Flows: their order, what is kept, what is tried again, and what a run of one comes to."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import weakref
from collections import Counter
from contextlib import suppress
from datetime import date
from functools import wraps
from typing import Any

import pytest
from anyio import create_task_group
from pydantic import SecretStr
from stories import stamp

from taskloop import Fatal, Flow, Inject, Jobs, Options, Retry, RetryAt, RunContext, TaskScheduler, current_run
from taskloop.context import AttemptCancelled
from taskloop.errors import BadJob, BadParameters, NoSuchStep, RunFailed
from taskloop.records import run_record

pytestmark = pytest.mark.anyio


async def ended(time, asking):
    """The run that is asked for, once it has ended."""
    return await time.until((await asking).wait())


def video(scheduler, tape, **policy):
    """A flow in the shape of a diamond."""
    flow = scheduler.flow("video", **policy)

    @flow.step()
    async def fetch(url: str) -> dict[str, str]:
        tape.append("fetch")
        return {"file": url}

    @flow.step()
    async def sound(fetch: dict[str, str]) -> str:
        tape.append("sound")
        return fetch["file"] + ".ogg"

    @flow.step()
    def picture(fetch: dict[str, str], width: int = 640) -> str:
        tape.append("picture")
        return f"{fetch['file']}.{width}"

    @flow.step()
    async def publish(sound: str, picture: str) -> str:
        tape.append("publish")
        return f"{sound}+{picture}"

    return flow


async def test_steps_run_in_the_order_their_parameters_make_and_receive_results(scheduler, virtual_time):
    tape = []
    flow = video(scheduler, tape)
    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(url="a"))
        assert run.state == "succeeded"
        assert (
            tape[0] == "fetch"
            and tape[-1] == "publish"
            and Counter(tape) == Counter(["fetch", "sound", "picture", "publish"])
        )
        result = run.result
        assert result["steps"]["publish"]["result"] == "a.ogg+a.640"
        assert result["completed_steps"] == ["fetch", "sound", "picture", "publish"]
        assert (result["total_steps"], result["completed_count"], result["failed_count"]) == (4, 4, 0)
        assert result["failed_steps"] == [] and result["current_step"] is None and result["errors"] == []
        assert result["started_at"] and result["completed_at"]
        assert {one["state"] for one in result["steps"].values()} == {"succeeded"}
        assert run.progress.fraction == 1
        await time.run_until_idle()


async def test_what_steps_take_is_what_the_flow_takes(scheduler, virtual_time):
    flow = video(scheduler, [])
    assert list(flow.parameters.names) == ["url", "width"]
    assert flow.parameters.required == ("url",)
    assert flow.kind == "flow"
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadParameters, match="url.*missing"):
            await flow.submit(width=3)
        with pytest.raises(BadParameters, match="width"):
            await flow.submit(url="a", width="wide")
        run = await ended(time, flow.submit(url="a", width=3))
        assert run.result["steps"]["picture"]["result"] == "a.3"


async def test_steps_that_need_nothing_of_each_other_run_side_by_side(scheduler, virtual_time):
    flow = scheduler.flow("wide")
    met = asyncio.Barrier(3)

    for name in ("a", "b", "c"):

        @flow.step(name=name)
        async def one() -> None:
            await met.wait()

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("1s")
        assert (await scheduler.run(handle.id)).state == "succeeded"


async def test_a_step_may_come_after_another_without_taking_anything_from_it(scheduler, virtual_time):
    tape = []
    flow = scheduler.flow("ordered")

    @flow.step()
    async def clean() -> None:
        await asyncio.sleep(5)
        tape.append("clean")

    @flow.step(after=[clean])
    async def build() -> None:
        tape.append("build")

    @flow.step(after=["build"])
    async def ship() -> None:
        tape.append("ship")

    async with virtual_time(scheduler) as time:
        await ended(time, flow.submit())
    assert tape == ["clean", "build", "ship"]


async def test_a_step_comes_after_a_function_whatever_the_name_of_its_step(scheduler):
    flow = scheduler.flow("named")

    @flow.step(name="wipe")
    async def clean() -> None: ...

    @flow.step(after=[clean])
    async def build() -> None: ...

    assert flow.needs("build") == ("wipe",)
    flow.bind()


async def test_a_step_that_fails_is_tried_again_by_its_own_rule_and_the_flow_goes_on(scheduler, virtual_time):
    calls = []
    flow = scheduler.flow("shaky")

    @flow.step(retry=Retry(attempts=3, first="10s", factor=2))
    async def shaky(run: RunContext) -> int:
        calls.append((run.attempt, str(run.step)))
        if run.attempt < 3:
            raise OSError("not yet")
        return run.attempt

    async with virtual_time(scheduler) as time:
        begun = time.now
        run = await ended(time, flow.submit())
        assert run.result["steps"]["shaky"]["result"] == 3
        assert run.result["steps"]["shaky"]["attempt"] == 3
        assert calls == [(1, "shaky"), (2, "shaky"), (3, "shaky")]
        assert (run.ended_at - begun).total_seconds() == 30
        assert run.attempt == 1


async def test_a_step_says_by_what_it_raises_whether_and_when_it_is_called_again(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("words")

    @flow.step()
    async def hopeless() -> None:
        calls["hopeless"] += 1
        raise Fatal("no such file")

    @flow.step()
    async def later() -> None:
        calls["later"] += 1
        if calls["later"] == 1:
            raise RetryAt("1h")

    async with virtual_time(scheduler) as time:
        begun = time.now
        run = await ended(time, flow.submit())
        assert run.state == "failed" and run.error.message == "step 'hopeless': no such file"
        assert calls == {"hopeless": 1, "later": 2}
        assert (run.ended_at - begun).total_seconds() == 3600


async def test_a_step_that_fails_for_good_fails_the_flow_and_leaves_out_what_needs_it_alone(scheduler, virtual_time):
    tape = []
    flow = scheduler.flow("broken")

    @flow.step(retry=1)
    async def bad() -> None:
        raise ValueError("bad luck")

    @flow.step()
    async def needs_it(bad: None) -> None:
        tape.append("needs_it")

    @flow.step()
    async def needs_that(needs_it: None) -> None:
        tape.append("needs_that")

    @flow.step()
    async def other() -> None:
        await asyncio.sleep(60)
        tape.append("other")

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        run = await time.until(handle.wait())
        assert run.state == "failed" and run.status == "FAILED"
        assert tape == ["other"]
        states = {name: one["state"] for name, one in run.result["steps"].items()}
        assert states == {"bad": "failed", "needs_it": "skipped", "needs_that": "skipped", "other": "succeeded"}
        assert run.error.type == "ValueError" and "bad luck" in run.error.traceback
        [error] = run.result["errors"]
        assert (error["step"], error["message"]) == ("bad", "ValueError: bad luck") and "bad luck" in error["traceback"]
        assert run.attempt == 1, "a failed flow is not begun again"
        on_record = {one.name: one.state for one in await scheduler.steps(run.id)}
        assert on_record == states
        with pytest.raises(RunFailed, match="step 'bad': bad luck"):
            await handle.value()


async def test_a_flow_goes_on_without_an_optional_step_and_gives_none_for_it(scheduler, virtual_time):
    flow = scheduler.flow("lenient")

    @flow.step(optional=True, retry=1)
    async def thumbnail() -> str:
        raise OSError("no picture")

    @flow.step()
    async def publish(thumbnail: str | None) -> str:
        return f"with {thumbnail}"

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "succeeded"
        assert run.result["failed_steps"] == ["thumbnail"] and len(run.result["errors"]) == 1
        assert run.result["steps"]["publish"]["result"] == "with None"


# -- kept results


async def test_after_a_crash_no_step_that_has_succeeded_is_called_again(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("long")

    @flow.step()
    async def first() -> int:
        calls["first"] += 1
        return 1

    @flow.step()
    def second(first: int) -> tuple[int, int]:
        calls["second"] += 1
        return first, 2

    @flow.step()
    async def third(second: tuple[int, int]) -> int:
        calls["third"] += 1
        await asyncio.sleep(60)
        return sum(second)

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("10s")
        await time.crash()
        await time.restart(after="1m")
        await time.advance("5m")
        run = await scheduler.run(handle.id)
        assert (run.state, run.attempt, run.result["steps"]["third"]["result"]) == ("succeeded", 2, 3)
        assert calls == {"first": 1, "second": 1, "third": 2}
        kept = {name: (one["kept"], one["attempt"]) for name, one in run.result["steps"].items()}
        assert kept == {"first": (True, 1), "second": (True, 1), "third": (False, 1)}


async def test_after_a_crash_a_step_that_has_failed_is_not_called_again_and_stays_failed(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("lenient")

    @flow.step(optional=True, retry=1)
    async def thumbnail() -> str:
        calls["thumbnail"] += 1
        raise OSError("no picture")

    @flow.step()
    async def publish(thumbnail: str | None) -> str:
        calls["publish"] += 1
        await asyncio.sleep(60)
        return f"with {thumbnail}"

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("10s")
        await time.crash()
        await time.restart(after="1m")
        run = await time.until(scheduler.wait(handle.id))
        assert (run.state, run.attempt, calls) == ("succeeded", 2, {"thumbnail": 1, "publish": 2})
        assert run.result["failed_steps"] == ["thumbnail"] and run.result["steps"]["publish"]["result"] == "with None"
        assert [one["message"] for one in run.result["errors"]] == ["OSError: no picture"]


async def test_what_a_crash_finds_between_two_calls_of_a_step_has_used_up_the_first(scheduler, virtual_time):
    calls = []
    flow = scheduler.flow("patient")

    @flow.step(retry=Retry(2, first="10m"))
    async def fetch() -> None:
        calls.append(stamp(time.now))
        raise OSError("gone")

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("1m")
        assert [(one.state, one.error.told()) for one in await scheduler.steps(handle.id)] == [
            ("waiting", "OSError: gone")
        ]
        await time.crash()
        await time.restart(after="1m")
        run = await time.until(scheduler.wait(handle.id))
        [step] = await scheduler.steps(handle.id)
        assert (run.state, len(calls), step.state, step.attempt) == ("failed", 2, "failed", 2)
        assert stamp(step.started_at) == "00:00", "when it was called first"


async def test_crashes_alone_use_up_the_attempts_of_a_flow(scheduler, virtual_time):
    flow = scheduler.flow("cursed")

    @flow.step()
    async def forever() -> None:
        await asyncio.sleep(10**6)

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        for _ in range(3):
            await time.advance("10s")
            await time.crash()
            await time.restart(after="1m")
            await time.advance("1m")
        run = await scheduler.run(handle.id)
        assert (run.state, run.attempt, run.reason) == ("interrupted", 3, "worker_died")


async def test_a_stop_in_time_gives_the_attempt_back_and_keeps_what_is_done(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("stopped")

    @flow.step()
    async def done() -> str:
        calls["done"] += 1
        return "done"

    @flow.step()
    async def slow(done: str) -> str:
        calls["slow"] += 1
        await asyncio.sleep(3600)
        return done

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("10s")
        await time.until(scheduler.stop(grace="1s"))
        await time.start()
        await time.advance("2h")
        run = await scheduler.run(handle.id)
        assert (run.state, run.attempt) == ("succeeded", 1)
        assert calls == {"done": 1, "slow": 2}
        assert run.result["steps"]["slow"]["attempt"] == 1, "a call that was cut short does not count"


async def test_run_again_from_a_step_takes_over_all_before_it(scheduler, virtual_time):
    tape = []
    flow = video(scheduler, tape)
    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit(url="a"))
        tape.clear()
        new = await ended(time, scheduler.rerun(old.id, {"width": 9}, from_step="picture"))
        assert tape == ["picture", "publish"]
        assert new.rerun_of == old.id and new.result["steps"]["publish"]["result"] == "a.ogg+a.9"
        assert [name for name, one in new.result["steps"].items() if one["kept"]] == ["fetch", "sound"]
        with pytest.raises(NoSuchStep, match="no step 'pictur'; did you mean 'picture'"):
            await scheduler.rerun(old.id, from_step="pictur")
        with pytest.raises(NoSuchStep, match="no step '2'"):
            await scheduler.rerun(old.id, from_step=2)
        tape.clear()
        await ended(time, scheduler.rerun(old.id))
        assert len(tape) == 4, "without a step all is done anew"


async def test_a_step_that_the_flow_has_no_more_is_none_to_begin_again_at(scheduler, virtual_time):
    tape = []
    flow = video(scheduler, tape)
    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit(url="a"))
        del flow.steps["picture"]
        with pytest.raises(NoSuchStep, match="no step 'picture'"):
            await scheduler.rerun(old.id, from_step="picture")


async def test_run_again_after_a_failure_calls_what_did_not_succeed(scheduler, virtual_time):
    calls, broken = Counter(), [True]
    flow = scheduler.flow("mended")

    @flow.step()
    async def good() -> int:
        calls["good"] += 1
        return 1

    @flow.step(retry=1)
    async def bad(good: int) -> int:
        calls["bad"] += 1
        if broken:
            raise ValueError("broken")
        return good + 1

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        broken.clear()
        run = await ended(time, scheduler.rerun(old.id, from_step="bad"))
        assert run.state == "succeeded" and run.result["steps"]["bad"]["result"] == 2
        assert calls == {"good": 1, "bad": 2}


async def test_a_run_again_that_is_cut_short_passes_on_nothing_it_was_to_do_anew(scheduler, virtual_time):
    flow = scheduler.flow("numbers")

    @flow.step()
    async def number(start: int = 0, slow: float = 0) -> int:
        await asyncio.sleep(slow)
        return start

    @flow.step()
    async def double(number: int) -> int:
        return 2 * number

    @flow.step()
    async def other() -> None: ...

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        cut = await scheduler.rerun(old.id, {"start": 7, "slow": 3600}, from_step="number")
        await time.advance("1m")
        await scheduler.cancel(cut.id)
        await time.until(cut.wait())
        assert [one.state for one in await scheduler.steps(cut.id)] == ["running", "succeeded"]
        run = await ended(time, scheduler.rerun(cut.id, {"slow": 0}, from_step="other"))
        assert [one["result"] for one in run.result["steps"].values()] == [7, 14, None]


async def test_run_again_from_a_step_does_the_steps_inside_of_it_anew_too(scheduler, virtual_time):
    flow = scheduler.flow("nested")

    @flow.step()
    async def outer(run: RunContext, factor: int = 1) -> int:
        async def inner() -> int:
            return factor

        return await run.step("inner", inner)

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        run = await ended(time, scheduler.rerun(old.id, {"factor": 5}, from_step="outer"))
        assert run.result["steps"]["outer"]["result"] == 5


async def test_what_a_run_again_has_done_anew_is_not_called_once_more_after_a_crash(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("long")

    @flow.step()
    async def first() -> int:
        calls["first"] += 1
        return calls["first"]

    @flow.step()
    async def second(first: int, slow: float = 0) -> int:
        await asyncio.sleep(slow)
        return first

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        again = await scheduler.rerun(old.id, {"slow": 60}, from_step="first")
        await time.advance("10s")
        await time.crash()
        await time.restart(after="1m")
        run = await time.until(scheduler.wait(again.id))
        assert (run.state, run.attempt, run.result["steps"]["second"]["result"], calls["first"]) == (
            "succeeded",
            2,
            2,
            2,
        )


async def test_a_job_that_is_run_again_from_one_of_its_steps_calls_that_and_what_it_began_after_it(
    scheduler, virtual_time
):
    calls = []

    @scheduler.job()
    async def job(run: RunContext) -> list[str]:
        async def load(name: str) -> str:
            calls.append(name)
            return name

        return [await run.step(name, load, name) for name in ("a", "b", "c")]

    async with virtual_time(scheduler) as time:
        old = await ended(time, job.submit())
        run = await ended(time, scheduler.rerun(old.id, from_step="b"))
        assert (run.result, calls) == (["a", "b", "c"], ["a", "b", "c", "b", "c"])
        assert [(one.name, one.kept) for one in await scheduler.steps(run.id)] == [
            ("a", True),
            ("b", False),
            ("c", False),
        ]


async def test_a_run_again_shows_no_step_as_waiting_that_it_never_begins(scheduler, virtual_time):
    flow = scheduler.flow("parcels")

    @flow.step()
    async def labels(run: RunContext, count: int = 3) -> list[int]:
        async def label(number: int) -> int:
            return number

        return [await run.step(f"label {number}", label, number) for number in range(count)]

    @flow.step()
    async def ship(labels: list[int]) -> int:
        return len(labels)

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        kept = await ended(time, scheduler.rerun(old.id, from_step="ship"))
        assert [one.name for one in await scheduler.steps(kept.id)] == ["labels", "ship"], "labels was not called"
        fewer = await ended(time, scheduler.rerun(old.id, {"count": 1}, from_step="labels"))
        assert [one.name for one in await scheduler.steps(fewer.id)] == ["labels", "ship", "label 0"]


async def test_a_result_that_cannot_be_kept_fails_its_step_at_once(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("unkept")

    @flow.step()
    def handle() -> object:
        calls["handle"] += 1
        return threading.Lock()

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "failed" and calls == {"handle": 1}
        assert "step 'handle' returned a lock that cannot be kept" in run.error.message


async def test_a_result_that_does_not_fit_its_annotation_fails_its_step_at_once(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("unfit")

    @flow.step()
    async def count() -> int:
        calls["count"] += 1
        return "twelve"

    @flow.step()
    def pairs() -> dict[tuple[int, int], str]:
        calls["pairs"] += 1
        return {(1, 2): "a"}

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "failed" and calls == {"count": 1, "pairs": 1}
        count, pairs = await scheduler.steps(run.id)
        assert count.state == pairs.state == "failed" and count.result is None
        assert count.error.message == (
            "step 'count' returned what does not come back from its record as its annotation says, int: "
            "input should be a valid integer, unable to parse string as an integer, got 'twelve'; "
            "let the annotation say what it returns, of plain data, or leave it out"
        )
        assert "plain data" in pairs.error.message


async def test_what_reads_a_result_is_made_before_its_step_is_called_and_that_of_a_flow_at_the_start_in_a_thread(
    scheduler, virtual_time
):
    tape = []

    class Noted:
        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            tape.append("on the loop" if threading.current_thread() is threading.main_thread() else "in a thread")
            return handler(str)

    def stepping():
        def say():
            tape.append("called")
            return "said"

        say.__annotations__["return"] = Noted
        return say

    flow = scheduler.flow("ready")
    flow.step()(stepping())

    @scheduler.job()
    async def decide(run: RunContext):
        return await run.step("say", stepping())

    async with virtual_time(scheduler) as time:
        await ended(time, flow.submit())
        assert tape == ["in a thread", "called"], "between its return and its record a kill makes it be called again"
        await ended(time, decide.submit())
        assert tape[2:] == ["on the loop", "called"]


async def test_a_step_gets_what_the_record_says_whether_it_was_called_or_kept(scheduler, virtual_time):
    got = []
    flow = scheduler.flow("same")

    @flow.step()
    async def pair():
        return (1, 2)

    @flow.step()
    async def typed() -> tuple[int, int]:
        return (1, 2)

    @flow.step()
    async def use(pair, typed) -> None:
        got.append((pair, typed))

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        await ended(time, scheduler.rerun(run.id, from_step="use"))
    assert got == [([1, 2], (1, 2))] * 2


async def test_what_a_step_does_to_what_it_was_given_reaches_neither_the_record_nor_another_call(
    scheduler, virtual_time
):
    got = []
    flow = scheduler.flow("own")

    @flow.step()
    async def numbers():
        return [1]

    @flow.step(retry=Retry(2, first="1s"))
    async def greedy(numbers, names: list[str], run: RunContext) -> None:
        got.append((list(numbers), list(names)))
        numbers.append(2)
        names.append("b")
        if run.attempt < 2:
            raise OSError("not yet")

    @flow.step(after=["greedy"])
    async def last(numbers, names: list[str]) -> None:
        got.append((numbers, names))

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(names=["a"]))
        assert got == [([1], ["a"])] * 3 and run.result["steps"]["numbers"]["result"] == [1]


async def test_a_secret_that_a_step_gives_on_is_masked_wherever_steps_are_looked_at(scheduler, virtual_time):
    flow = scheduler.flow("sealed", secret=("token",))

    @flow.step()
    async def header(token: str) -> list[str]:
        return [f"Bearer {token}"]

    @flow.step()
    async def use(header: list[str]) -> int:
        return len(header[0])

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(token="hush-hush"))
        assert [one.result for one in await scheduler.steps(run.id)] == [["Bearer ********"], 16]
        again = await ended(time, scheduler.rerun(run.id, from_step="use"))
        assert again.result["steps"]["use"]["result"] == 16


async def test_a_kept_result_that_fits_no_more_fails_its_step_alone(scheduler, virtual_time):
    flow = scheduler.flow("changed")

    async def text() -> str:
        return "text"

    async def number() -> int:
        return 1

    flow.step(name="first")(text)

    @flow.step()
    async def other() -> int:
        await asyncio.sleep(5)
        return 2

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        del flow.steps["first"]
        flow.step(name="first")(number)
        run = await ended(time, scheduler.rerun(old.id, from_step="other"))
        assert {name: one["state"] for name, one in run.result["steps"].items()} == {
            "other": "succeeded", "first": "failed"
        }  # fmt: skip
        assert run.error.message == (
            "step 'first': its kept result does not fit its annotation any more (input should be a valid integer, unable "
            "to parse string as an integer, got 'text'); run it again from_step='first'"
        )


async def test_a_kept_result_of_an_optional_step_that_fits_no_more_is_none_to_what_needs_it(scheduler, virtual_time):
    flow = scheduler.flow("changed")

    async def text() -> str:
        return "text"

    async def number() -> int:
        return 1

    flow.step(name="first", optional=True)(text)

    @flow.step()
    async def last(first: Any) -> list[Any]:
        return [first]

    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit())
        del flow.steps["first"]
        flow.step(name="first", optional=True)(number)
        run = await ended(time, scheduler.rerun(old.id, from_step="last"))
        first, last = run.result["steps"]["first"], run.result["steps"]["last"]
        assert (run.state, last["result"], first["state"], first["result"]) == ("succeeded", [None], "failed", None)


async def test_a_step_that_returns_a_secret_fails_and_gives_on_no_mask_in_its_place(scheduler, virtual_time):
    flow = scheduler.flow("sealed")

    @flow.step()
    async def login() -> SecretStr:
        return SecretStr("hush-hush")

    @flow.step()
    async def use(login: SecretStr) -> None: ...

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.error.message.startswith("step 'login': step 'login' returned a secret, of which only its mask")
        assert run.result["steps"]["use"]["state"] == "skipped" and "hush-hush" not in str(run.result)


# -- ends


async def test_a_flow_that_is_cancelled_waits_for_its_threads(scheduler, virtual_time):
    ended = []
    flow = scheduler.flow("cancelled")
    begun = threading.Event()

    @flow.step()
    def in_thread(run: RunContext) -> None:
        begun.set()
        while True:
            try:
                run.check_cancelled()
            except BaseException:
                ended.append("thread")
                raise

    @flow.step()
    async def on_loop() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("loop")

    async with virtual_time(scheduler) as time:
        handle = await flow.submit()
        await time.advance("1s")
        assert begun.wait(5)
        await scheduler.cancel(handle.id, reason="enough", actor="eve")
        run = await time.until(handle.wait())
        assert (run.state, run.reason) == ("cancelled", "enough") and sorted(ended) == ["loop", "thread"]


async def test_a_flow_whose_time_is_over_has_failed_and_is_not_begun_again(scheduler, virtual_time):
    flow = scheduler.flow("slow", timeout="1m")

    @flow.step()
    async def forever() -> None:
        await asyncio.sleep(10**6)

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert (run.state, run.error.type, run.attempt) == ("failed", "Timeout", 1)


@pytest.mark.parametrize(
    "raised", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration]
)
async def test_whatever_a_step_raises_the_loop_lives_and_the_step_has_failed(scheduler, virtual_time, raised):
    flow = scheduler.flow("hostile")

    @flow.step(retry=1)
    async def hostile() -> None:
        raise raised("gone")

    @flow.step(retry=1)
    def in_thread() -> None:
        raise raised("gone")

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "failed" and run.result["failed_steps"] == ["hostile", "in_thread"]


# -- progress


async def test_a_step_that_cancels_its_own_task_fails_alone(scheduler, virtual_time):
    """As a limit of its own, set by hand, does: the flow ended with it, and the steps beside it were cut short."""
    flow = scheduler.flow("limited")

    @flow.step(optional=True)
    async def slow() -> None:
        asyncio.get_running_loop().call_later(5, asyncio.current_task().cancel)
        await asyncio.sleep(60)

    @flow.step()
    async def beside() -> str:
        await asyncio.sleep(10)
        return "done"

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "succeeded", run.error
        steps = run.result["steps"]
        assert (steps["slow"]["state"], steps["slow"]["attempt"], steps["slow"]["error"]) == (
            "failed",
            1,
            "CancelledError",
        )
        assert steps["beside"]["result"] == "done"
        assert [one.state for one in await scheduler.steps(run.id)] == ["failed", "succeeded"]


async def test_what_runs_counts_in_what_is_on_record_too_and_no_step_is_done_by_a_part(scheduler, virtual_time):
    flow = scheduler.flow("counted")

    @flow.step()
    async def one() -> None: ...

    @flow.step()
    async def two(one: None, run: RunContext) -> None:
        await asyncio.sleep(10)
        run.progress(message="half way")
        await asyncio.sleep(10)

    async with virtual_time(scheduler) as time:
        run = await flow.submit()
        for _ in range(2):
            await time.advance("9s")
            progress = run_record(await scheduler.run(run.id))["progress"]
            assert (progress["done"], progress["total"], round(progress["fraction"], 3)) == (1, 2, 0.55)
        assert progress["message"] == "two: half way"


async def test_progress_counts_the_steps_done_and_a_little_for_what_runs(scheduler, virtual_time):
    seen = []
    flow = scheduler.flow("counted")

    @flow.step()
    async def one(run: RunContext) -> None:
        run.progress(1, 4, "reading")
        seen.append(run.scheduler._slots.attempts[run.id].context.latest)
        await asyncio.sleep(10)

    @flow.step()
    async def two(one: None, run: RunContext) -> None:
        seen.append(run.scheduler._slots.attempts[run.id].context.latest)

    async with virtual_time(scheduler) as time:
        await ended(time, flow.submit())
    assert [(one.done, one.total, round(one.fraction, 3)) for one in seen] == [(0, 2, 0.05), (1, 2, 0.55)]
    assert seen[0].message == "one: 25% reading" and seen[1].message == "two"
    assert (
        seen[0].eta_seconds is None and seen[1].eta_seconds > 5
    )  # nothing was measured yet, then one step in ten seconds


# -- steps decided while running


async def test_a_job_may_take_steps_whose_results_are_kept_over_its_retries(scheduler, virtual_time):
    calls = Counter()

    @scheduler.job(retry=3)
    async def import_all(run: RunContext, files: list[str]) -> int:
        async def load(name: str) -> int:
            calls[name] += 1
            return len(name)

        sizes = await asyncio.gather(*(run.step(f"load {name}", load, name) for name in files))
        if run.attempt < 2:
            raise OSError("half way")
        return sum(sizes)

    async with virtual_time(scheduler) as time:
        handle = await import_all.submit(files=["a", "bb", "ccc"])
        assert await time.until(handle.value()) == 6
    assert calls == {"a": 1, "bb": 1, "ccc": 1}


async def test_what_a_function_takes_is_read_once_for_all_steps_that_call_it(scheduler, virtual_time):
    read = []

    class Load:
        __name__ = "load"

        @property
        def __signature__(self) -> inspect.Signature:
            read.append(self)
            return inspect.Signature([inspect.Parameter("name", inspect.Parameter.POSITIONAL_OR_KEYWORD)])

        def __call__(self, name: str) -> str:
            return name

    class Unhashable(Load):
        __hash__ = None

    @scheduler.job()
    async def job(run: RunContext) -> list[str]:
        load, other = Load(), Unhashable()
        for number in range(30):
            await run.step(f"{number}", load, "a")
        once = len(read)
        return [await run.step("again", load, "b"), await run.step("other", other, "c"), "once" if once < 5 else once]

    async with virtual_time(scheduler) as time:
        assert await time.until((await job.submit()).value()) == ["b", "c", "once"]


async def test_what_a_step_that_has_ended_has_worked_on_is_not_kept(scheduler, virtual_time):
    class Part:
        """Much of a file, say."""

    parts = weakref.WeakSet()

    @scheduler.job()
    async def job(run: RunContext) -> int:
        for number in range(30):
            part = Part()
            parts.add(part)
            await run.step(f"part {number}", lambda part=part: None)
        del part
        gc.collect()
        return len(parts)

    async with virtual_time(scheduler) as time:
        assert await time.until((await job.submit()).value()) <= 2


async def test_steps_of_objects_that_are_equal_by_their_own_word_give_each_what_its_own_function_gives(
    scheduler, virtual_time
):
    class Load:
        """Looks like the function that it calls, as decorators make it."""

        def __init__(self, function, answer):
            wraps(function)(self)
            self.answer = answer

        def __call__(self):
            return self.__wrapped__()

        def __hash__(self):
            return 1

        def __eq__(self, other):
            return self.answer()

    def number() -> int:
        return 1

    def day() -> date:
        return date(2026, 3, 1)

    def unclear() -> bool:
        raise ValueError("neither equal nor unequal, as arrays say")

    @scheduler.job()
    async def job(run: RunContext) -> list[str]:
        async def both(word, answer):
            ways = (Load(number, answer), Load(day, answer))
            return repr(await asyncio.gather(*(run.step(f"{word} {at}", way) for at, way in enumerate(ways))))

        return [await both("equal", lambda: True), await both("unclear", unclear)]

    async with virtual_time(scheduler) as time:
        assert await time.until((await job.submit()).value()) == ["[1, datetime.date(2026, 3, 1)]"] * 2


async def test_steps_side_by_side_have_places_of_their_own_also_in_a_retry(scheduler, virtual_time):
    async def load(name: str) -> str:
        return name

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(run: RunContext) -> None:
        if run.attempt < 2:
            raise OSError("not yet")
        await asyncio.gather(*(run.step(name, load, name) for name in ("a", "b", "c")))

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert [(one.name, one.place) for one in await scheduler.steps(run.id)] == [("a", 0), ("b", 1), ("c", 2)]


async def test_what_is_left_of_a_fan_out_ends_before_the_run_is_tried_again(scheduler, virtual_time):
    calls = Counter()

    async def load(number: int) -> int:
        calls[number] += 1
        await asyncio.sleep(1 if number == 0 else 10)
        if number == 0 and calls[0] == 1:
            raise OSError("gone")
        return number

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(run: RunContext) -> int:
        return sum(await asyncio.gather(*(run.step(f"load {number}", load, number) for number in range(3))))

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert (run.result, run.attempt, calls) == (3, 2, {0: 2, 1: 1, 2: 1})


async def test_what_a_step_has_begun_and_left_ends_before_the_step_is_tried_again(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("fan")

    @flow.step(retry=Retry(2, first="1s"))
    async def fetch(run: RunContext) -> int:
        async def load(number: int) -> int:
            calls[number] += 1
            await asyncio.sleep(1 if number == 0 else 10)
            if number == 0 and calls[0] == 1:
                raise OSError("gone")
            return number

        return sum(await asyncio.gather(*(run.step(f"load {number}", load, number) for number in range(3))))

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert (run.state, run.result["steps"]["fetch"]["result"], calls) == ("succeeded", 3, {0: 2, 1: 1, 2: 1})


async def test_a_step_that_its_job_has_left_is_cancelled_with_its_run(scheduler, virtual_time):
    """Else the run, whose job had ended long since, was abandoned: it had waited for the step."""
    cancelled, tasks = [], []

    async def load() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(stamp(time.now))
            raise

    @scheduler.job()
    async def job(run: RunContext) -> None:
        tasks.append(asyncio.create_task(run.step("load", load)))
        await asyncio.sleep(3600)

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("1m")
        await scheduler.cancel(handle.id)
        run = await time.until(handle.wait())
        assert (run.state, run.reason, cancelled) == ("cancelled", None, ["00:01"])


async def test_a_step_that_had_not_begun_when_its_attempt_ended_is_left_to_the_next_one(scheduler, virtual_time):
    """Its first line was written in the very transaction that ended the attempt, and then both called it at once."""
    begun, tasks = [], []

    async def load() -> int:
        begun.append(stamp(time.now))
        await asyncio.sleep(10)
        return 7

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(run: RunContext) -> int:
        tasks.append(asyncio.create_task(run.step("load", load)))
        if run.attempt == 1:
            raise OSError("gone")
        return await tasks[-1]

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert (run.result, run.attempt, begun) == (7, 2, ["00:00:01"])
        assert isinstance(tasks[0].exception(), AttemptCancelled)


async def test_a_step_that_its_job_gives_up_before_its_call_or_between_two_is_on_record_as_failed(
    scheduler, virtual_time
):
    """Of a run that had succeeded it stayed on record as running, or waiting: it was given up while it was called alone."""
    called = []

    async def load() -> None:
        called.append(stamp(time.now))
        raise OSError("gone")

    @scheduler.job()
    async def job(run: RunContext) -> None:
        early = asyncio.create_task(run.step("early", load))
        await asyncio.sleep(0)  # its first line is on its way to the store
        early.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(run.step("late", load, retry=Retry(3, first="1m")), 5)

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.state == "succeeded" and called == ["00:00"]
        assert [(one.name, one.state, one.error.told()) for one in await scheduler.steps(run.id)] == [
            ("early", "failed", "CancelledError"), ("late", "failed", "OSError: gone")
        ]  # fmt: skip


async def test_what_is_left_of_a_fan_out_is_cancelled_with_its_run(scheduler, virtual_time):
    cancelled = []

    async def load(number: int) -> None:
        if number == 0:
            raise OSError("gone")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    @scheduler.job()
    async def job(run: RunContext) -> None:
        await asyncio.gather(*(run.step(f"load {number}", load, number) for number in range(3)))

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("1m")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state == "cancelled" and cancelled == [1, 2]
        await time.run_until_idle()


async def test_a_step_that_a_scope_of_anyio_gives_up_is_called_anew_only_once_its_thread_has_ended(
    scheduler, virtual_time
):
    """Such a scope cancels at each await: the wait for the thread too, and that for the steps of a step."""
    begun, may_end = threading.Semaphore(0), threading.Event()
    inside, left = [], []

    def load(number: int) -> int:
        inside.append(number)
        begun.release()
        may_end.wait(5)
        inside.remove(number)
        return number

    async def some(run: RunContext) -> int:
        return sum(await asyncio.gather(*(run.step(f"load {number}", load, number) for number in (1, 2))))

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(run: RunContext) -> int:
        if run.attempt == 1:
            async with create_task_group() as group:
                group.start_soon(run.step, "some", some)
                for _ in (1, 2):
                    await asyncio.to_thread(begun.acquire, timeout=5)
                threading.Timer(0.2, may_end.set).start()
                raise OSError("gone")
        return await run.step("some", some) + await run.step("load 3", load, 3)

    async with virtual_time(scheduler) as time:
        scheduler.feed.subscribe(lambda _: left.extend(inside), "retrying")
        run = await ended(time, job.submit())
        assert (run.result, run.attempt, left) == (6, 2, [])


async def test_a_step_inside_that_cleans_up_after_its_cancellation_is_cancelled_once(scheduler, virtual_time):
    cleaned = []

    async def load() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            cleaned.append("load")

    @scheduler.job()
    async def job(run: RunContext) -> None:
        loading = asyncio.create_task(run.step("load", load))
        await asyncio.sleep(60)
        loading.cancel()

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("60.5s")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state == "cancelled" and cleaned == ["load"]


async def test_a_step_that_its_job_gives_up_has_failed_and_is_called_anew_by_the_next_attempt(scheduler, virtual_time):
    calls = []

    async def slow(run: RunContext) -> str:
        calls.append(run.attempt)
        if len(calls) < 3:
            await asyncio.sleep(3600)
        return "done"

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(run: RunContext, tries: int) -> str:
        try:
            async with asyncio.timeout(60):
                return await run.step("slow", slow)
        except TimeoutError:
            if tries > run.attempt:
                raise
            return "without it"

    async with virtual_time(scheduler) as time:
        told = []
        scheduler.feed.subscribe(lambda event: told.append((event.data["step"], event.data["state"])), "step_done")
        run = await ended(time, job.submit(1))
        [step] = await scheduler.steps(run.id)
        assert (run.state, run.result) == ("succeeded", "without it")
        assert (step.state, step.error.type, stamp(step.ended_at)) == ("failed", "CancelledError", "00:01")
        assert told == [("slow", "failed")]

        run = await ended(time, job.submit(2))
        [step] = await scheduler.steps(run.id)
        assert (run.result, step.state, step.attempt, len(calls)) == ("done", "succeeded", 2, 3)


async def test_a_step_of_steps_is_tried_again_and_calls_none_of_them_twice(scheduler, virtual_time):
    calls = Counter()
    flow = scheduler.flow("nested")

    @flow.step(retry=Retry(3, first="1s"))
    async def fetch(run: RunContext) -> list[int]:
        async def load(number: int) -> int:
            calls[number] += 1
            if number == 1 and calls[1] == 1:
                raise OSError("gone")
            return number

        loaded = [await run.step(f"load {number}", load, number) for number in range(3)]
        if run.attempt < 3:
            raise OSError("not yet")
        return loaded

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.state == "succeeded" and run.result["steps"]["fetch"]["result"] == [0, 1, 2]
        assert calls == {0: 1, 1: 2, 2: 1}


async def test_a_step_inside_that_is_named_like_one_of_the_flow_fails_alone(scheduler, virtual_time):
    flow = scheduler.flow("clash")

    async def calm() -> None: ...

    @flow.step(retry=1)
    async def first(run: RunContext) -> None:
        await run.step("second", calm)

    @flow.step()
    async def second(first: None) -> None: ...

    @flow.step()
    async def other() -> None:
        await asyncio.sleep(5)

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit())
        assert run.error.message.startswith("step 'first': 'second' is a step of flow 'clash'")
        assert [one["state"] for one in run.result["steps"].values()] == ["failed", "skipped", "succeeded"]


async def test_a_step_may_be_handed_the_run_or_leave_it_to_the_engine(scheduler, virtual_time):
    async def first(run: RunContext, name: str) -> str:
        return f"{run.job} {name}"

    async def last(name: str, run: RunContext) -> str:
        return f"{run.step} {name}"

    @scheduler.job()
    async def job(run: RunContext) -> list[str]:
        return [await run.step("handed", first, run, "a"), await run.step("left", last, "b")]

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.result == ["job a", "left b"]


async def test_after_a_step_the_current_run_is_that_of_the_job_again(scheduler, virtual_time):
    async def nothing() -> str:
        return current_run().step

    @scheduler.job()
    async def job(run: RunContext) -> bool:
        assert await run.step("inner", nothing) == "inner"
        return current_run() is run

    async with virtual_time(scheduler) as time:
        assert (await ended(time, job.submit())).result is True


async def test_a_step_may_be_any_function_for_its_arguments_are_not_stored(scheduler, virtual_time):
    async def pair(*numbers: int) -> tuple[int, ...]:
        return numbers

    @scheduler.job()
    async def job(run: RunContext) -> str:
        return repr([await run.step("a", len, "abc"), await run.step("b", max, 1, 2), await run.step("c", pair, 1, 2)])

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.result == "[3, 2, (1, 2)]"


async def test_a_step_taken_twice_is_an_error_and_a_failed_one_is_called_again_by_the_next_attempt(
    scheduler, virtual_time
):
    calls = Counter()

    def load() -> int:
        calls["load"] += 1
        if calls["load"] == 1:
            raise OSError("gone")
        return calls["load"]

    @scheduler.job(retry=2)
    async def job(run: RunContext) -> int:
        return await run.step("load", load)

    @scheduler.job()
    async def twice(run: RunContext) -> None:
        await run.step("load", load)
        await run.step("load", load)

    async with virtual_time(scheduler) as time:
        assert await time.until((await job.submit()).value()) == 2
        run = await ended(time, twice.submit())
        assert run.error.message == "step 'load' was begun in this run already; give each step of a run its own name"
        assert run.error.type == "BadValue"


async def test_a_step_that_had_failed_has_all_its_attempts_anew_in_the_next_attempt_of_its_job(scheduler, virtual_time):
    calls = []

    async def load() -> int:
        calls.append(stamp(time.now))
        if len(calls) < 4:
            raise OSError("gone")
        return 7

    @scheduler.job(retry=Retry(2, first="1m"))
    async def job(run: RunContext) -> int:
        return await run.step("load", load, retry=Retry(2, first="10s"))

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert (run.result, calls) == (7, ["00:00", "00:00:10", "00:01:10", "00:01:20"])
        [step] = await scheduler.steps(run.id)
        assert (step.state, step.attempt, stamp(step.started_at)) == ("succeeded", 4, "00:00")


@pytest.mark.parametrize("wait", ["0s", "2s", "1h"])
async def test_a_step_that_fails_as_it_is_cancelled_is_not_tried_again_in_a_run_that_was_asked_to_end(
    scheduler, virtual_time, wait
):
    """It was called again, seconds after the run had been cancelled; or waited to be until that was abandoned."""
    calls = Counter()

    async def load(name: str) -> None:
        calls[name] += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise OSError("its clean-up failed") from None

    flow = scheduler.flow("flow")

    @flow.step(retry=Retry(3, first=wait))
    async def in_flow() -> None:
        await load("in_flow")

    @scheduler.job()
    async def job(run: RunContext) -> None:
        await run.step("in_job", load, "in_job", retry=Retry(3, first=wait))

    async with virtual_time(scheduler) as time:
        handles = [await flow.submit(), await job.submit()]
        await time.advance("1m")
        for handle in handles:
            await scheduler.cancel(handle.id, reason="enough")
            run = await time.until(handle.wait())
            assert (run.state, run.reason, stamp(run.ended_at)) == ("cancelled", "enough", "00:01")
            [step] = await scheduler.steps(run.id)
            assert (step.state, step.attempt, step.error.told()) == ("waiting", 1, "OSError: its clean-up failed")
        assert calls == {"in_flow": 1, "in_job": 1}


async def test_a_step_with_which_a_cancelled_job_cleans_up_is_tried_again_as_any_other(scheduler, virtual_time):
    calls = []

    async def tidy() -> None:
        calls.append(stamp(time.now))
        if len(calls) == 1:
            raise OSError("gone")

    @scheduler.job()
    async def job(run: RunContext) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await run.step("tidy", tidy, retry=Retry(2, first="1s"))

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("1m")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state == "cancelled" and calls == ["00:01", "00:01:01"]


async def test_events_tell_of_each_step(scheduler, virtual_time):
    told = []
    flow = video(scheduler, [])
    names = ("step_started", "step_done", "step_kept")
    scheduler.feed.subscribe(lambda event: told.append((event.name, event.data["step"])), *names)
    async with virtual_time(scheduler) as time:
        old = await ended(time, flow.submit(url="a"))
        assert Counter(name for name, _ in told) == {"step_started": 4, "step_done": 4}
        told.clear()
        await ended(time, scheduler.rerun(old.id, from_step="publish"))
    assert told[-2:] == [("step_started", "publish"), ("step_done", "publish")]
    assert sorted(told[:-2]) == [("step_kept", "fetch"), ("step_kept", "picture"), ("step_kept", "sound")]


# -- declared


def test_a_parameter_that_was_to_be_the_result_of_a_step_is_missing_with_how_it_would_be():
    flow = Jobs().flow("report")

    @flow.step()
    def orders(days: int) -> list[int]: ...

    @flow.step(after=["orders"])
    def chart(numbers: list[int]) -> str: ...

    @flow.step()
    def table(order: list[int]) -> str: ...

    with pytest.raises(BadParameters) as caught:
        flow.bind()
    result = "called 'orders' it would be the result of that step"
    assert caught.value.problems == {
        "days": "is missing",
        "numbers": f"is missing (step 'chart' takes it; {result})",
        "order": f"is missing (step 'table' takes it; {result})",
    }


def test_circles_unknown_names_and_contradictions_are_refused_when_declared():
    flow = Flow("f")

    @flow.step()
    async def a(c: int) -> None: ...

    @flow.step()
    async def b(a: int) -> None: ...

    with pytest.raises(BadJob, match="round in a circle: a needs c needs b needs a|circle"):

        @flow.step()
        async def c(b: int) -> None: ...

    assert list(flow.steps) == ["a", "b"]
    with pytest.raises(BadJob, match="has a step 'a' already"):
        flow.step(name="a")(b)
    with pytest.raises(BadJob, match="plain def, which would block the loop"):

        @flow.step(executor="loop")
        def blocking() -> None: ...

    with pytest.raises(BadJob, match="lambda"):
        flow.step()(lambda: None)

    @flow.step(after=["aa"])
    async def d() -> None: ...

    with pytest.raises(BadJob, match="comes after 'aa', which is no step of it; did you mean 'a'"):
        flow.bind()

    other = Flow("g")

    @other.step()
    async def one(number: int) -> None: ...

    @other.step()
    async def two(number: str) -> None: ...

    with pytest.raises(BadJob, match="steps 'one' and 'two' both take 'number'"):
        other.bind(number=1)


def test_a_flow_is_not_called_like_a_function_and_leaves_its_executor_to_its_steps():
    with pytest.raises(TypeError, match="flow 'f' is no function to call"):
        Flow("f")()
    with pytest.raises(BadJob, match="give executor to its steps"):
        Flow("f", options={"executor": "thread"})


async def test_a_flow_without_steps_cannot_start(virtual_time):
    scheduler = TaskScheduler(options=Options())
    scheduler.flow("empty")
    with pytest.raises(BadJob, match="flow 'empty' of .*test_flows.py.* has no steps"):
        async with virtual_time(scheduler) as time:
            pass


async def test_a_started_scheduler_takes_a_flow_with_its_steps_and_says_how(virtual_time):
    scheduler = TaskScheduler(options=Options())
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadJob, match=r"Jobs\(\).flow\('late'\), steps, scheduler.adopt\(flow\)"):
            scheduler.flow("late")
        flow = Jobs().flow("late")

        @flow.step()
        async def one(days: int) -> int:
            return days + 1

        scheduler.adopt(flow)
        run = await time.until(flow.submit(days=1))
        assert (await time.until(run.value()))["steps"]["one"]["result"] == 2


async def test_a_flow_of_a_collection_with_a_trigger_fires(virtual_time):
    from taskloop import Every

    jobs = Jobs(prefix="media.")
    flow = jobs.flow("nightly", Every("1h"), params={"depth": 2})

    @flow.step()
    async def walk(depth: int) -> int:
        return depth

    scheduler = TaskScheduler(jobs=[jobs], options=Options())
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        [run] = await time.runs("media.nightly")
        assert run.result["steps"]["walk"]["result"] == 2 and run.params == {"depth": 2}


# -- other executors, and what steps are given


async def test_a_step_is_given_what_it_has_injected_and_that_is_left_with_its_error(scheduler, virtual_time):
    tape = []

    def session():
        tape.append("enter")
        try:
            yield "session"
        except OSError:
            tape.append("rollback")
            raise
        else:
            tape.append("commit")

    flow = scheduler.flow("given")

    @flow.step(retry=Retry(2, first="1s"))
    def in_thread(run: RunContext, db: str = Inject(session), number: int = 1) -> str:
        if run.attempt == 1:
            raise OSError("gone")
        return f"{db} {number}"

    @flow.step()
    async def on_loop(in_thread: str, db: str = Inject(session)) -> str:
        return f"{in_thread}, {db}"

    assert list(flow.parameters.names) == ["number"]
    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(number=3))
        assert run.result["steps"]["on_loop"]["result"] == "session 3, session"
    assert tape == ["enter", "rollback", "enter", "commit", "enter", "commit"]


async def alone(scheduler, flow, **params):
    """The run of a flow on a loop of its own: processes are kept as long as their loop lives."""
    async with scheduler:
        return await (await flow.submit(**params)).wait()


def squared(number: int, offset: int = 0) -> int:
    current_run().progress(1, 2, "squaring")
    return number * number + offset


def named() -> str:
    """Fails once: its first call."""
    run = current_run()
    if run.attempt == 1:
        raise OSError(run.step)
    return f"{run.step}, {run.attempt}"


def filed() -> dict[str, str]:
    return {"type": "invoice", "note": "late"}


def token() -> SecretStr:
    return SecretStr("open sesame")


def lock() -> object:
    return threading.Lock()


def sums(left: int, right: int) -> int:
    raise ArithmeticError(f"{left} and {right} from {os.getpid()}")


def test_steps_of_one_flow_may_run_on_the_loop_in_threads_and_in_processes(tmp_path):
    scheduler = TaskScheduler(tmp_path / "mixed.db", options=Options())
    flow = scheduler.flow("mixed")

    @flow.step()
    async def number(start: int) -> int:
        return start + 1

    flow.step(name="square", executor="process")(squared)

    @flow.step()
    def text(square: int) -> str:
        return f"= {square}"

    run = asyncio.run(alone(scheduler, flow, start=2, offset=1))
    assert run.result["steps"]["text"]["result"] == "= 10"


def test_a_step_in_a_process_knows_its_name_and_which_call_it_is(tmp_path):
    scheduler = TaskScheduler(tmp_path / "named.db", options=Options())
    flow = scheduler.flow("names")
    flow.step(name="first", executor="process", retry=Retry(2, first="10ms"))(named)
    run = asyncio.run(alone(scheduler, flow))
    assert run.result["steps"]["first"]["result"] == "first, 2"


def test_what_a_step_raises_in_a_process_is_tried_again_and_told_with_its_trace(tmp_path):
    scheduler = TaskScheduler(tmp_path / "mixed.db", options=Options())
    flow = scheduler.flow("broken")
    flow.step(executor="process", retry=Retry(2, first="10ms", on=ArithmeticError))(sums)
    run = asyncio.run(alone(scheduler, flow, left=1, right=2))
    step = run.result["steps"]["sums"]
    assert (step["state"], step["attempt"]) == ("failed", 2)
    assert step["error"].startswith("ArithmeticError: 1 and 2 from ") and str(os.getpid()) not in step["error"]
    assert "in sums" in run.result["errors"][0]["traceback"]


def test_what_a_step_returns_in_a_process_is_kept_or_refused_as_anywhere(tmp_path):
    scheduler = TaskScheduler(tmp_path / "kept.db", options=Options())
    flow = scheduler.flow("kept")
    for function in (filed, token, lock):
        flow.step(executor="process", optional=True)(function)
    steps = asyncio.run(alone(scheduler, flow)).result["steps"]
    assert steps["filed"]["result"] == {"type": "invoice", "note": "late"}
    assert steps["token"]["error"].startswith("Fatal: step 'token' returned a secret")
    assert steps["lock"]["error"].startswith("Fatal: step 'lock' returned a lock that cannot be kept (no JSON")
    assert (steps["token"]["attempt"], steps["lock"]["attempt"]) == (1, 1)


def test_a_step_that_no_process_could_find_is_refused_when_declared():
    flow = Flow("f")
    with pytest.raises(BadJob, match="step 'inner' of flow 'f' cannot run in a process: its function stands inside"):

        @flow.step(executor="process")
        def inner() -> None: ...
