"""A new version of a program takes other parameters, or has other steps or triggers, than an earlier one that is still there,
or was asked for something.
"""

from __future__ import annotations

import pytest
from loguru import logger
from stories import nothing

from taskloop import Every, Options, RunContext, State, TaskScheduler
from taskloop.errors import BadJob, BadParameters, Conflict

pytestmark = pytest.mark.anyio


@pytest.fixture
def later():
    return TaskScheduler("sqlite:///:memory:")


async def asked_before(time, later, address, declare, **params):
    """A run that a version of the program which is gone by now was asked for."""
    earlier = TaskScheduler(address)
    job = declare(earlier)
    await time.join(earlier, address)
    run = await job.bind(**params).submit(at="+1m")
    await time.until(earlier.stop())
    await time.advance("5m")
    return await later.run(run.id)


async def test_a_run_that_lacks_what_its_job_needs_by_now_says_how_to_go_on(virtual_time, later, tmp_path):
    def declare(scheduler):
        @scheduler.job()
        async def pay(amount: int) -> None: ...

        return pay

    @later.job()
    async def pay(amount: int, currency: str) -> str:
        return currency

    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(later, store=address) as time:
        run = await asked_before(time, later, address, declare, amount=7)
        assert (run.state, run.error.type) == (State.FAILED, "BadParameters")
        assert (
            "parameter 'currency' is missing: the run was asked for by a version of the program that does not need it"
            in run.error.message
        )
        again = await later.rerun(run.id, {"currency": "EUR"})
        assert await time.until(again.value()) == "EUR"


async def test_a_run_with_a_parameter_that_is_gone_says_so_as_it_fails_and_as_it_is_repeated(
    virtual_time, later, tmp_path
):
    def declare(scheduler):
        @scheduler.job()
        async def pay(amount: int) -> None: ...

        return pay

    @later.job()
    async def pay() -> None: ...

    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(later, store=address) as time:
        run = await asked_before(time, later, address, declare, amount=7)
        told = "parameter 'amount' is unknown: another version of the program took it, this one does not"
        assert run.state == State.FAILED and told in run.error.message
        with pytest.raises(BadParameters, match=told):
            await later.rerun(run.id)


async def test_a_run_of_a_stored_schedule_that_does_not_fit_a_later_version_names_the_schedule(
    virtual_time, later, tmp_path
):
    earlier, address = TaskScheduler(options=Options()), f"sqlite:///{tmp_path}/app.db"

    async def before(amount: str, note: str = "") -> None: ...

    async def after(amount: int, currency: str) -> None: ...

    earlier.add_job(before, name="pay")
    later.add_job(after, name="pay")
    async with virtual_time(earlier, store=address) as time:
        hourly = Every("1h", anchor="2026-01-01T00:10Z")
        await earlier.schedule("pay", hourly, id="rent", params={"amount": "much", "note": "x"})
        await time.until(earlier.stop())
        await time.join(later, address)
        await time.advance("11m")
        (run,) = await later.runs()
        assert (
            "'currency' is missing: schedule 'rent' was stored without it; store that again with" in run.error.message
        )
        assert "'note' is unknown: schedule 'rent' gives it, stored for another version of the" in run.error.message


async def test_a_value_of_a_stored_schedule_that_a_later_version_cannot_read_is_told_with_the_schedule(
    virtual_time, later, tmp_path
):
    earlier, address = TaskScheduler(options=Options()), f"sqlite:///{tmp_path}/app.db"

    async def before(amount: str) -> None: ...

    async def after(amount: int) -> None: ...

    earlier.add_job(before, name="pay")
    later.add_job(after, name="pay")
    async with virtual_time(earlier, store=address) as time:
        await earlier.schedule("pay", Every("1h", anchor="2026-01-01T00:10Z"), id="rent", params={"amount": "much"})
        await time.until(earlier.stop())
        await time.join(later, address)
        await time.advance("11m")
        (run,) = await later.runs()
        assert "got 'much'; schedule 'rent' gives it: store that again with another;" in run.error.message


async def test_a_step_that_is_new_and_lacks_a_parameter_fails_at_once_and_the_others_end(virtual_time, later, tmp_path):
    def declare(scheduler):
        flow = scheduler.flow("order")

        @flow.step()
        async def load(number: int, colour: str) -> int:
            return number

        return flow

    flow = later.flow("order")

    @flow.step()
    async def load(number: int) -> int:
        return number

    @flow.step()
    async def invoice(load: int, currency: str) -> str:
        return f"{load} {currency}"

    @flow.step()
    async def ship(run: RunContext, load: int) -> int:
        return load

    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(later, store=address) as time:
        run = await asked_before(time, later, address, declare, number=7, colour="red")
        steps = run.result["steps"]
        assert [one["state"] for one in steps.values()] == ["succeeded", "failed", "succeeded"]
        assert steps["invoice"]["attempt"] == 1
        assert "it takes 'currency', and this run has none: the run was asked for by" in steps["invoice"]["error"]


# -- other triggers


def firing(*names, every, **options):
    """A version of the program: job `report` with its interval, and jobs that only this version has."""
    made = TaskScheduler(options=Options(**options))
    made.add_job(nothing, Every(every), name="report")
    for name in names:
        made.add_job(nothing, name=name)
    return made


async def declared(scheduler):
    """The trigger by which `report` is fired, and the one that its record names."""
    (schedule,) = await scheduler.schedules("report")
    (definition,) = [one for one in await scheduler._store.definitions() if one.name == "report"]
    assert definition.facts["trigger"] == str(schedule.trigger)
    return str(schedule.trigger)


async def test_an_earlier_version_puts_its_trigger_back_only_when_none_of_the_later_one_is_left(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    before, first, second = firing(every="1h"), firing("new", every="2h"), firing("new", every="2h")
    async with virtual_time(before, store=address) as time:
        for one in (first, second):
            await time.advance("1m")
            await time.join(one, address)
        await time.advance("1m")
        await time.until(first.stop())
        await time.advance("1m")
        assert await declared(before) == "every 2h"
        await time.until(second.stop())
        await time.advance("1m")
        assert await declared(before) == "every 1h"


async def test_a_later_version_has_its_trigger_back_once_an_earlier_one_that_was_started_again_is_gone(
    virtual_time, tmp_path
):
    address = f"sqlite:///{tmp_path}/app.db"
    after, before = firing(every="2h"), firing(every="1h")
    after.speaker.level = "INFO"
    lines = []
    async with virtual_time(after, store=address) as time:
        await time.advance("1m")
        await time.join(before, address)
        await time.advance("1m")
        assert await declared(after) == "every 1h"
        handler = logger.add(lines.append, format="{message}")
        await time.until(before.stop())
        await time.advance("1m")
        logger.remove(handler)
        assert await declared(after) == "every 2h"
    assert [line.strip() for line in lines if line.startswith("scheduler.plan")] == [
        'scheduler.plan changed="report (every 1h -> every 2h)"'
    ]


async def test_a_worker_that_was_taken_for_dead_leaves_what_is_declared_to_one_that_started_since(
    virtual_time, tmp_path
):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = firing("old", every="1h"), firing(every="2h")
    async with virtual_time(before, store=address) as time:
        await time.advance("1m")
        await time.join(after, address)
        await time.advance("1m")
        await before._came_back()
        assert await declared(before) == "every 2h"


async def test_a_process_that_fires_nothing_leaves_it_to_those_who_do_how_its_jobs_are_fired(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    web, worker = firing("ask", every="1h", enabled=False), firing(every="2h")
    other, later = firing("ask", every="1h", enabled=False), firing("new", every="3h")
    async with virtual_time(web, store=address) as time:
        assert await declared(web) == "every 1h", "there is nobody else to say"
        for one, trigger in ((worker, "every 2h"), (other, "every 2h"), (later, "every 3h")):
            await time.advance("1m")
            await time.join(one, address)
            assert await declared(web) == trigger
        await time.advance("1m")
        await time.until(worker.stop())
        await time.until(later.stop())
        await time.advance("1m")
        assert await declared(web) == "every 3h", "who fires next says so"
        assert (await web.submit("ask")).state == State.WAITING


async def test_each_version_fires_a_job_with_the_parameters_that_it_declares_itself(virtual_time, tmp_path):
    async def before(days: int) -> None: ...

    async def after(hours: int) -> None: ...

    earlier, later = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    earlier.add_job(before, Every("1m"), name="report", params={"days": 7})
    later.add_job(after, Every("1m"), name="report", params={"hours": 168})
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(earlier, store=address) as time:
        await time.advance("10s")
        await time.join(later, address)
        await time.advance("10m")
        runs = await later.runs("report")
        assert {run.state for run in runs} == {State.SUCCEEDED}
        given = {earlier.worker.id: {"days": 7}, later.worker.id: {"hours": 168}}
        assert all(run.params == given[run.worker] for run in runs) and len(runs) == 11
        await time.until(later.stop())


# -- a job whose name is the id of a schedule


async def test_a_schedule_that_is_stored_is_not_lost_to_a_later_version_with_a_job_of_its_name(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = TaskScheduler(options=Options()), firing(every="2h")
    for one in (before, after):
        one.add_job(nothing, name="send")
    async with virtual_time(before, store=address) as time:
        await before.schedule("send", Every("1h"), id="report")
        await time.join(after, address, start=False)
        with pytest.raises(BadJob, match="one of that id is stored for job 'send'; `taskloop schedule remove report`"):
            await time.until(after.start())
        assert [(one.job, str(one.trigger)) for one in await before.schedules()] == [("send", "every 1h")]
        await before.unschedule("report")
        await time.until(after.start())
        with pytest.raises(
            Conflict, match="'report' is that of the job of this name, which code declares; choose another"
        ):
            await before.schedule("send", Every("1h"), id="report")
        assert [(one.job, str(one.trigger)) for one in await before.schedules()] == [("report", "every 2h")]
