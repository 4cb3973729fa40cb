"""Somebody else changes something between two looks of ours: nothing is lost, and nobody is told what is not so."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from web_clients import V1, over_asgi

from taskloop import Every, Options, TaskScheduler
from taskloop.errors import Conflict, NoSuchSchedule
from taskloop.keyring import Keyring
from taskloop.web import Principal

pytestmark = pytest.mark.anyio


def meanwhile(store, verb, change):
    """Have `change` done right after the next call of that verb, before whoever asked goes on."""
    asked = getattr(store, verb)

    async def then_changed(*args, **options):
        found = await asked(*args, **options)
        if store.__dict__.pop(verb, None) is not None:
            await change()
        return found

    setattr(store, verb, then_changed)


@pytest.fixture
async def shop(tmp_path, no_task_outlives_the_fixture):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options(grace=timedelta(0)))
    scheduler.gate = asyncio.Event()

    @scheduler.job()
    async def slow():
        await scheduler.gate.wait()

    @scheduler.job()
    async def mail(days: int = 1):
        pass

    async with scheduler:
        yield scheduler


@pytest.fixture
async def client(shop, no_task_outlives_the_fixture):
    async with over_asgi(shop, auth=lambda _: Principal("ann", "admin")) as one:
        yield one


# -- schedules


async def test_two_who_change_one_schedule_at_once_both_have_their_change(shop, client):
    await shop.schedule("mail", Every("1h"), id="news", params={"days": 1})

    async def ben():
        assert (await client.request("PATCH", f"{V1}/schedules/news", {"params": {"days": 30}})).status == 200

    meanwhile(shop._store, "schedules", ben)
    done = await client.request("PATCH", f"{V1}/schedules/news", {"trigger": {"every": "2h"}})
    assert (done.status, done.data["trigger"], done.data["params"]) == (200, "every 2h", {"days": 30})
    assert [(one.before["params"], one.after["params"]) for one in await shop.audit(limit=2)] == [
        ({"days": 30}, {"days": 30}), ({"days": 1}, {"days": 30})
    ]  # fmt: skip


async def test_a_schedule_that_is_removed_while_somebody_changes_it_stays_removed(shop, client):
    await shop.schedule("mail", Every("1h"), id="news")
    meanwhile(shop._store, "schedules", lambda: shop.unschedule("news"))
    done = await client.request("PATCH", f"{V1}/schedules/news", {"trigger": {"every": "2h"}})
    assert done.status == 404
    assert await shop.schedules() == []
    with pytest.raises(NoSuchSchedule):
        await shop.reschedule("news", params={"days": 2})


async def test_a_schedule_that_is_given_to_another_job_meanwhile_takes_no_parameters_of_the_first(shop):
    await shop.schedule("mail", Every("1h"), id="news")
    meanwhile(shop._store, "schedules", lambda: shop.schedule("slow", Every("1h"), id="news"))
    with pytest.raises(Conflict, match="was given to job 'slow' meanwhile"):
        await shop.reschedule("news", params={"days": 2})


# -- the ends of runs


@pytest.fixture
def cancelled(shop):
    heard = []
    shop.feed.subscribe(lambda event: heard.append(event.run.id), "cancelled")
    return heard


async def test_a_run_that_two_cancel_is_told_as_cancelled_once(shop, cancelled):
    run = await shop.submit("mail", at="+1h")
    await asyncio.gather(shop.cancel(run.id, actor="anna"), shop.cancel(run.id, actor="ben"))
    assert (await shop.cancel(run.id, actor="carl")).state == "cancelled"
    assert cancelled == [run.id]
    assert [one.action for one in await shop.audit()].count("cancel") == 1


async def test_who_cancels_a_run_that_succeeds_meanwhile_is_told_so(shop, client):
    async def ends():
        shop.gate.set()
        await shop.wait(run.id)

    run = await shop.submit("slow")
    meanwhile(shop._store, "run", ends)
    refused = await client.post(f"{V1}/runs/{run.id}/cancel")
    assert (refused.status, refused.data["state"]) == (409, "succeeded")

    shop.gate.clear()
    run = await shop.submit("slow")
    meanwhile(shop._store, "find", ends)
    done = await client.post(f"{V1}/runs/bulk", {"action": "cancel", "job": "slow"})
    assert (done.data["done"], done.data["refused"]) == (0, 1)


async def test_a_breaker_that_closes_is_told_also_if_somebody_looks_at_the_switches_before(shop):
    heard = []
    shop.feed.subscribe(lambda event: heard.append(event.name), "enabled", "disabled")

    @shop.job(pause_after=1)
    async def shaky(well: bool):
        if well:
            await shop.gate.wait()
        assert well

    well = await shop.submit("shaky", {"well": True})
    assert (await (await shop.submit("shaky", {"well": False})).wait()).state == "failed"
    meanwhile(shop._store, "settle", lambda: shop._refresh_switches(force=True))
    shop.gate.set()
    assert (await well.wait()).state == "succeeded"
    assert heard == ["disabled", "enabled"]


async def test_a_breaker_that_several_runs_close_is_told_as_closed_once(shop):
    heard, fails = [], asyncio.Event()
    shop.feed.subscribe(lambda event: heard.append(event.name), "enabled", "disabled")

    @shop.job(pause_after=1)
    async def shaky(well: bool):
        await (shop.gate if well else fails).wait()
        assert well

    runs = [await shop.submit("shaky", {"well": well}) for well in (True, True, True, False)]
    fails.set()
    await runs[-1].wait()
    shop.gate.set()
    assert [(await run.wait()).state for run in runs[:3]] == ["succeeded"] * 3
    assert heard == ["disabled", "enabled"]


# -- tokens


async def test_a_token_that_is_made_while_those_of_its_name_are_revoked_is_revoked_too(shop):
    ring: Keyring = shop.keyring
    await ring.create("ci", "read")
    await ring.revoke("ci")
    meanwhile(shop._store, "revoke_tokens", lambda: ring.create("ci", "read"))
    [gone] = await ring.revoke("ci")
    assert gone.revoked_at is not None and await ring.live() == []
