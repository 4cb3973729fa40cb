"""What a running attempt can see and say."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from taskloop.context import AttemptCancelled, RunContext, current_run, running
from taskloop.errors import BadValue, NoCurrentRun, NotRunning
from taskloop.runs import Progress, Run, RunId, State

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(
    id=RunId(7), job="a", schedule="s", state=State.RUNNING, attempt=2, params={"n": 1}, worker="w1", due_at=NOW,
    ready_at=NOW, created_at=NOW,
)  # fmt: skip


class Watch:
    """A clock that stands until it is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def context(**options: Any) -> RunContext:
    return RunContext(options.pop("run", RUN), **({"monotonic": Watch()} | options))


def test_a_context_tells_of_its_run():
    run = context(scheduler="mine")
    assert (run.id, run.job, run.schedule, run.attempt, run.due_at) == (7, "a", "s", 2, NOW)
    assert (run.params, run.worker, run.scheduler, run.step) == ({"n": 1}, "w1", "mine", "")
    assert (run.cancelled, run.latest) == (False, None)


def test_the_key_is_the_same_for_every_attempt_and_for_no_other_run():
    assert context().key == "a:7"
    assert context(run=Run(job="a", key="k", due_at=NOW, ready_at=NOW, created_at=NOW)).key == "k"


def test_progress_knows_its_rate_and_how_long_it_will_take():
    watch = Watch()
    run = context(monotonic=watch)
    run.progress(10, 50, "ten")
    assert run.latest == Progress(10, 50, "ten")
    watch.seconds += 5
    run.progress(20, 50, "twenty")
    assert run.latest == Progress(20, 50, "twenty", 4.0, 7.5)
    run.progress(60, 50)
    assert run.latest == Progress(60, 50, "", 12.0, 0.0)
    run.progress(0, 50)
    assert run.latest == Progress(0, 50)


def test_what_is_left_grows_less_while_nothing_is_reported_and_is_not_known_once_it_has_not_come_true():
    watch = Watch()
    run = context(monotonic=watch)
    watch.seconds += 30
    run.progress(3, 4)
    assert run.latest.told_after == 30
    assert [run.latest.left(elapsed) for elapsed in (29, 30, 34, 40, 4000)] == [10, 10, 6, None, None]
    assert Progress(0, 4).told_after is None and Progress(0, 4).left(1) is None


def test_a_message_alone_keeps_the_figures():
    run = context()
    run.progress(message="begin")
    assert run.latest == Progress(0, 100, "begin")
    run.progress(3, 4)
    run.progress(message="still")
    assert run.latest == Progress(3, 4, "still")


@pytest.mark.parametrize("figures", [(math.nan, 1), (1, math.nan), (math.inf, 1), (1, math.inf), (-1, 10), (1, 0)])
def test_progress_is_refused_or_of_finite_figures(figures):
    watch = Watch()
    run = context(monotonic=watch)
    watch.seconds += 1
    try:
        run.progress(*figures)
    except ValueError:
        return
    assert run.latest is not None
    json.dumps([run.latest.done, run.latest.total, run.latest.rate, run.latest.eta_seconds], allow_nan=False)


@pytest.mark.parametrize("figures", [(10**400, 1), (1, 10**400)])
def test_figures_beyond_those_of_a_float_are_refused_as_others_that_are_not_finite(figures):
    with pytest.raises(BadValue, match="finite numbers are allowed"):
        context().progress(*figures)


@pytest.mark.parametrize("figures", [(3, None), ("some", 10)])
def test_figures_that_are_no_numbers_are_refused_with_what_to_write(figures):
    """A total that is not known is often None: the job failed by a TypeError about float()."""
    run = context()
    with pytest.raises(BadValue, match=r"progress is .* of .*run\.progress\(message=\.\.\.\)"):
        run.progress(*figures)
    assert run.latest is None


def test_the_engine_is_told_once_until_it_has_written_what_was_reported():
    told: list[Progress | None] = []
    run = context(report=lambda: told.append(run.latest))
    run.progress(1)
    run.progress(2)
    assert (len(told), run.unwritten) == (1, True)
    run.unwritten = False
    run.progress(3)
    assert told[-1] == Progress(3, 100)


def test_an_attempt_that_is_to_end_leaves_where_it_looks():
    run = context()
    run.check_cancelled()
    run.cancelled = True
    with pytest.raises(AttemptCancelled, match="run 7 was asked to end"):
        run.check_cancelled()
    assert not issubclass(AttemptCancelled, Exception)


def test_a_call_goes_through_the_scheduler_and_needs_one():
    async def add(one: int, *, two: int) -> int:
        return one + two

    run = context(call=lambda function, *args, **kwargs: asyncio.run(function(*args, **kwargs)))
    assert run.call(add, 1, two=2) == 3
    with pytest.raises(NotRunning, match="belongs to no scheduler"):
        context().call(add, 1, two=2)


def test_there_is_no_current_run_outside_of_one():
    with pytest.raises(NoCurrentRun, match="works only inside a job"):
        current_run()


async def test_the_current_run_is_found_in_child_tasks_and_threads():
    run = context()
    token = running.set(run)
    try:
        assert current_run() is run
        assert await asyncio.create_task(found()) is run
        assert await asyncio.to_thread(current_run) is run
        bare: list[object] = []
        thread = threading.Thread(target=lambda: bare.append(running.get()))
        thread.start()
        thread.join()
        assert bare == [None]
    finally:
        running.reset(token)


async def found() -> RunContext:
    return current_run()
