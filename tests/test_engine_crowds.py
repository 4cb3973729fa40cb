"""Functions that are called in threads or processes: no more of their runs are claimed than can be called."""

from __future__ import annotations

import asyncio
import threading

import pytest

from taskloop import Every, Options, State, TaskScheduler

pytestmark = pytest.mark.anyio


class Gate:
    """A plain job that waits until it is let go, and remembers who came."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.opened: dict[int, threading.Event] = {}

        def job(number: int) -> int:
            self.came.append(number)
            assert self.opened.setdefault(number, threading.Event()).wait(20)
            return number

        self.job = job

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.opened.setdefault(number, threading.Event()).set()


async def states(scheduler, state):
    return [run.params["number"] for run in reversed(await scheduler.runs("job", state=state))]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def scheduler(gate):
    made = TaskScheduler(options=Options(threads=2))
    made.add_job(gate.job, name="job")
    return made


async def test_what_finds_no_thread_waits_in_the_store_and_begins_with_the_next_end(scheduler, virtual_time, gate):
    async with virtual_time(scheduler, patience="50ms") as time:
        await asyncio.gather(*(scheduler.submit("job", {"number": number}) for number in range(5)))
        await time.advance("1s")
        assert (await states(scheduler, "running"), await states(scheduler, "waiting")) == ([0, 1], [2, 3, 4])
        gate.open(1)
        await time.advance("1s")
        assert (await states(scheduler, "running"), await states(scheduler, "waiting")) == ([0, 2], [3, 4])
        gate.open(*range(5))
        await time.run_until_idle()
        assert await states(scheduler, "succeeded") == [0, 1, 2, 3, 4]


async def test_what_waits_begins_by_priority_and_what_is_asked_for_later_does_not_overtake_it(
    scheduler, virtual_time, gate
):
    scheduler.add_job(gate.job, name="urgent", priority=5)
    async with virtual_time(scheduler, patience="50ms") as time:
        for number in range(4):
            await scheduler.submit("job", {"number": number})
        await scheduler.submit("urgent", {"number": 9})
        await time.advance("1s")
        gate.open(0)
        await time.advance("1s")
        assert sorted(gate.came) == [0, 1, 9]
        gate.open(*range(10))
        await time.run_until_idle()
        assert sorted(gate.came) == [0, 1, 2, 3, 9]


async def test_jobs_of_the_loop_go_on_beside_those_that_wait_for_a_thread(scheduler, virtual_time, gate):
    async def quick():
        return "quick"

    scheduler.add_job(quick)
    async with virtual_time(scheduler, patience="50ms") as time:
        for number in range(4):
            await scheduler.submit("job", {"number": number})
        assert await time.until((await scheduler.submit("quick")).value("1s")) == "quick"
        gate.open(*range(4))
        await time.run_until_idle()


async def test_fires_that_find_no_thread_wait_for_one(scheduler, virtual_time, gate):
    scheduler.options = Options(threads=2)
    for number in range(10, 14):
        scheduler.add_job(gate.job, Every("1h"), name=f"at-{number}", params={"number": number}, first="now")
    async with virtual_time(scheduler, patience="50ms") as time:
        await time.advance("1s")
        runs = await time.runs()
        assert [run.state for run in runs] == [State.RUNNING] * 2 + [State.WAITING] * 2
        gate.open(*range(10, 14))
        await time.run_until_idle()
        assert len(gate.came) == 4
        assert {run.state for run in await time.runs()} == {State.SUCCEEDED}


async def test_another_worker_takes_what_finds_no_thread_in_the_first(scheduler, virtual_time, gate, tmp_path):
    address, second = f"sqlite:///{tmp_path}/shared.db", TaskScheduler(options=Options(threads=2))
    second.add_job(gate.job, name="job")
    async with virtual_time(scheduler, store=address, patience="50ms") as time:
        await time.join(second, address)
        for number in range(5):
            await scheduler.submit("job", {"number": number})
        await time.advance("5s")
        assert (len(gate.came), await states(scheduler, "waiting")) == (4, [4])
        assert len({run.worker for run in await scheduler.runs(state="running")}) == 2
        why = await scheduler.why(run=5)
        assert (why.code, why.verdict) == ("slots", "waiting") and "all threads for jobs are taken" in why.text
        gate.open(*range(5))
        await time.run_until_idle()
        assert len(gate.came) == 5


async def test_a_refused_submit_gives_its_room_back(scheduler, virtual_time, gate):
    async with virtual_time(scheduler, patience="50ms") as time:
        first = await scheduler.submit("job", {"number": 0}, key="one")
        again = await asyncio.gather(*(scheduler.submit("job", {"number": 0}, key="one") for _ in range(6)))
        assert {one.id for one in again} == {first.id}
        for number in (1, 2):
            await scheduler.submit("job", {"number": number})
        await time.advance("1s")
        assert sorted(gate.came) == [0, 1]
        gate.open(0, 1, 2)
        await time.run_until_idle()
        assert sorted(gate.came) == [0, 1, 2]


async def test_runs_asked_to_end_while_they_wait_for_a_thread_leave_the_others_their_turn(
    scheduler, virtual_time, gate
):
    async with virtual_time(scheduler, patience="50ms") as time:
        handles = [await scheduler.submit("job", {"number": number}) for number in range(6)]
        await time.advance("1s")
        for handle in handles[2:5]:
            await scheduler.cancel(handle.id)
        gate.open(*range(6))
        await time.run_until_idle()
        assert sorted(gate.came) == [0, 1, 5]
        assert [run.state.value for run in await time.runs()] == ["succeeded"] * 2 + ["cancelled"] * 3 + ["succeeded"]
