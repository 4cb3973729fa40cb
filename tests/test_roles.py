"""Workers that know different jobs, on one store; what a process of the command line leaves out is in test_cli_processes."""

from __future__ import annotations

import pytest
from stories import lasting

from taskloop import Every, Options, State, TaskScheduler
from taskloop.errors import NoSuchJob

pytestmark = pytest.mark.anyio


def scheduler(*jobs, **options):
    made = TaskScheduler(options=Options(**options))
    for name, seconds, policy in jobs:
        made.add_job(lasting(seconds), name=name, **policy)
    return made


def together(runs):
    """How many of these runs went on at once, at most."""
    instants = sorted([(run.started_at, 1) for run in runs] + [(run.ended_at, -1) for run in runs])
    most = now = 0
    for _, change in instants:
        now += change
        most = max(most, now)
    return most


async def test_a_worker_claims_no_job_that_it_does_not_know(virtual_time, tmp_path):
    asking = scheduler(("one", 5, {}), ("two", 5, {}), enabled=False)
    ones, twos = scheduler(("one", 5, {})), scheduler(("two", 5, {}))
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(asking, store=address) as time:
        await time.join(ones, address)
        runs = [await asking.submit(name) for name in ("two", "one", "two")]
        await time.advance("1m")
        assert [(await asking.run(run.id)).state for run in runs] == [State.WAITING, State.SUCCEEDED, State.WAITING]
        await time.join(twos, address)
        await time.advance("1m")
        found = [await asking.run(run.id) for run in runs]
        assert [run.state for run in found] == [State.SUCCEEDED] * 3
        assert [run.worker for run in found] == [twos.worker.id, ones.worker.id, twos.worker.id]


async def test_places_of_a_group_and_of_a_job_hold_across_workers_that_know_different_jobs(virtual_time, tmp_path):
    shared = ("shared", 60, {"max_running": 2})
    ones = scheduler(("one", 60, {"group": "press"}), shared, groups={"press": 2})
    twos = scheduler(("two", 60, {"group": "press"}), shared, groups={"press": 2})
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(ones, store=address) as time:
        await time.join(twos, address)
        for _ in range(3):
            await ones.submit("one")
            await twos.submit("two")
            await ones.submit("shared")
            await twos.submit("shared")
        await time.advance("10m")
        pressed = [*await ones.runs("one"), *await ones.runs("two")]
        limited = await ones.runs("shared")
        assert {run.state for run in (*pressed, *limited)} == {State.SUCCEEDED}
        assert (len(pressed), len(limited)) == (6, 6)
        assert (together(pressed), together(limited)) == (2, 2)
        assert {run.worker for run in pressed} == {ones.worker.id, twos.worker.id}


async def test_a_job_that_another_program_has_is_told_as_such_where_it_is_asked_for(virtual_time, tmp_path):
    one, other = scheduler(("one", 5, {})), scheduler(("two", 5, {}))
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(one, store=address) as time:
        await time.join(other, address)
        run = await other.submit("two")
        await other.schedule("two", Every("1h"), id="hourly")
        asked = (
            one.submit("two"),
            one.rerun(run.id),
            one.schedule("two", Every("1h"), id="other"),
            one.reschedule("hourly", trigger=Every("2h")),
        )
        for each in asked:
            with pytest.raises(NoSuchJob, match="no job 'two' in this program; another one on its store declares it"):
                await time.until(each)
        with pytest.raises(NoSuchJob, match="no job 'tow'; `taskloop list` shows all"):
            await time.until(one.submit("tow"))
