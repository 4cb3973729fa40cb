"""A new version of a program takes other parameters, or has other steps, than what an earlier one was asked for."""

from __future__ import annotations

import pytest

from taskloop import RunContext, State, TaskScheduler
from taskloop.errors import BadParameters

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
        assert "parameter 'currency' is missing: the run was asked for before it was needed" in run.error.message
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
        told = "parameter 'amount' is unknown: the earlier version took it, this one does not"
        assert run.state == State.FAILED and told in run.error.message
        with pytest.raises(BadParameters, match=told):
            await later.rerun(run.id)


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
        assert "it takes 'currency', and this run has none: the run was asked for before" in steps["invoice"]["error"]
