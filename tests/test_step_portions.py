"""Many steps that go on at once let the loop turn between: neither a fan-out nor a wide flow holds it up."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from taskloop import RunContext, TaskScheduler
from taskloop.stepping import TURN
from taskloop.tasks import Portions

pytestmark = pytest.mark.anyio
WIDE = 6 * TURN


class Turning:
    """Counts what happens in each turn of the loop."""

    def __init__(self):
        self.turn = 0
        self.happened = Counter()
        self._task = asyncio.create_task(self._count())

    async def _count(self):
        while True:
            await asyncio.sleep(0)
            self.turn += 1

    def note(self):
        self.happened[self.turn] += 1

    def end(self):
        self._task.cancel()
        return self.happened


async def test_a_wide_fan_out_calls_a_portion_of_its_steps_in_a_turn_of_the_loop(tmp_path):
    scheduler = TaskScheduler(f"sqlite:///{tmp_path}/runs.db")

    @scheduler.job()
    async def job(run: RunContext) -> int:
        turning = Turning()

        async def one(number: int) -> int:
            turning.note()
            return number

        try:
            given = await asyncio.gather(*(run.step(f"step {number}", one, number) for number in range(WIDE)))
        finally:
            happened = turning.end()
        assert given == list(range(WIDE))
        assert happened.total() == WIDE
        return max(happened.values())

    async with scheduler:
        assert 1 <= await (await job.submit()).value(timeout=60) <= 2 * TURN
        places = [one.place for one in await scheduler.steps(1)]
        assert places == sorted(places) == list(range(WIDE)), "begun in the order in which they were asked for"


async def test_a_wide_flow_calls_a_portion_of_its_steps_in_a_turn_of_the_loop(tmp_path):
    scheduler = TaskScheduler(f"sqlite:///{tmp_path}/runs.db")
    flow = scheduler.flow("wide")
    turning = None

    async def one() -> int:
        turning.note()
        return 1

    for number in range(WIDE):
        flow.step(name=f"step_{number}")(one)

    async with scheduler:
        turning = Turning()
        try:
            result = await (await flow.submit()).value(timeout=60)
        finally:
            happened = turning.end()
    assert result["completed_count"] == happened.total() == WIDE
    assert max(happened.values()) <= 2 * TURN


async def test_a_flow_whose_first_steps_are_being_begun_is_cancelled_as_a_whole(scheduler, virtual_time):
    flow = scheduler.flow("wide")
    begun, cancelled = [], []

    async def one() -> None:
        begun.append(1)
        if len(begun) == 1:
            await scheduler.cancel(run.id)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    for number in range(WIDE):
        flow.step(name=f"step_{number}")(one)

    async with virtual_time(scheduler) as time:
        run = await flow.submit()
        assert (await time.until(run.wait())).state == "cancelled"
        assert begun == cancelled != []
        await time.run_until_idle()
        assert not [task for task in asyncio.all_tasks() if "_perform" in repr(task.get_coro())]


async def test_who_is_cancelled_while_it_waits_takes_nobody_elses_turn():
    portions, passed = Portions(2), []

    async def passes(number):
        await portions.my_turn()
        passed.append(number)

    tasks = [asyncio.create_task(passes(number)) for number in range(7)]
    await asyncio.sleep(0)
    assert passed == [0, 1]
    tasks[2].cancel()
    tasks[3].cancel()
    await asyncio.wait(tasks)
    assert passed == [0, 1, 4, 5, 6]


async def test_portions_pass_in_the_order_in_which_they_came_so_many_a_turn():
    portions, turn, passed = Portions(3), 0, []

    async def passes(number):
        await portions.my_turn()
        passed.append((turn, number))

    tasks = [asyncio.create_task(passes(number)) for number in range(10)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        turn += 1
    assert [number for _, number in passed] == list(range(10))
    assert max(Counter(turn for turn, _ in passed).values()) == 3
