"""Who changed what is on record, through whichever channel: over HTTP, on a page, by the command line and in code."""

from __future__ import annotations

import asyncio
import html
import re
from datetime import timedelta

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from web_clients import HOSTS

from stores import NOW, asked
from taskloop import Every, Options, TaskScheduler, audit
from taskloop.errors import StoreUnavailable
from taskloop.ledger import Ledger
from taskloop.options import Http
from taskloop.web.security import Principal, Scope

FORM = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
EVIL = "<script>alert(1)</script>"


def program(**http):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(**http)))
    scheduler.began = asyncio.Event()

    @scheduler.job(secret=("key",))
    async def report(days: int = 1, key: str = "hush-hush"): ...

    @scheduler.job()
    async def meddles():
        await scheduler.pause("report", actor="meddler", reason="too many")

    @scheduler.job()
    async def waits():
        scheduler.began.set()
        await asyncio.sleep(3600)

    return scheduler


def by_whom(entries):
    """The oldest first."""
    return [(one.actor, one.channel, one.action, one.object, one.reason) for one in reversed(entries)]


@pytest.mark.anyio
async def test_code_that_names_an_actor_is_on_record_and_what_runs_by_itself_is_not(virtual_time):
    scheduler = program()
    scheduler.add_job(scheduler["report"].function, Every("1m"), name="often")
    async with virtual_time(scheduler, at="2026-01-01T00:00Z") as time:
        await time.advance("5m")
        await scheduler.submit("report")
        await scheduler.disable("often")
        await scheduler.schedule("report", Every("1h"), id="s")
        assert await scheduler.audit() == []
        told = {"actor": "tom", "reason": "move"}
        await scheduler.disable("report", until="+2h", **told)
        await scheduler.reset("report", **told)
        await scheduler.schedule("report", Every("2h"), id="s", params={"key": "new-hush"}, **told)
        await scheduler.unschedule("s", **told)
        [first, *_] = await scheduler.submit_many([scheduler["report"].bind(n) for n in range(3)], **told)
        bound = await scheduler["report"].bind(days=9).submit(actor="tom")
        run = await scheduler.submit("meddles", **told)
        await time.advance("1s")
        entries = await scheduler.audit()
        assert [one.action for one in await scheduler.audit(job="meddles", actor="tom")] == ["submit"]
    assert by_whom(entries) == [
        ("tom", "code", "disable", "report", "move"),
        ("tom", "code", "reset", "report", "move"),
        ("tom", "code", "schedule", "s", "move"),
        ("tom", "code", "unschedule", "s", "move"),
        ("tom", "code", "submit", str(first.id), "move"),
        ("tom", "code", "submit", str(bound.id), None),
        ("tom", "code", "submit", str(run.id), "move"),
        ("meddler", "code", "pause", "report", "too many"),
    ]
    assert "hush" not in repr(entries)


@pytest.mark.anyio
async def test_the_cancel_of_a_run_in_hand_is_on_record_and_a_store_that_is_away_does_not_hinder_it(
    virtual_time, monkeypatch
):
    scheduler = program()
    async with virtual_time(scheduler, at="2026-01-01T00:00Z") as time:
        [first, second] = await scheduler.submit_many([scheduler["waits"].bind()] * 2)
        await time.advance("1s")
        await scheduler.cancel(first.id, actor="tom", reason="enough")

        async def away(entries):
            raise StoreUnavailable("it is away")

        monkeypatch.setattr(scheduler._store, "record", away)
        await scheduler.cancel(second.id, actor="tom", reason="enough")
        assert [(await run.wait()).data["cancelled_by"] for run in (first, second)] == ["tom", "tom"]
        [one] = await scheduler.audit()
        assert (one.object, one.before, one.after) == (str(first.id), {"state": "running"}, {"asked": "to end"})


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


@pytest.mark.anyio
async def test_over_http_each_change_names_who_asked_through_what_and_by_which_request(
    host, no_task_outlives_the_fixture
):
    scheduler = program()

    def who(request):
        return Principal("anna", Scope.admin)

    async with host(scheduler, auth=who) as client:
        disabled = await client.post("/api/v1/jobs/report/disable", {"reason": "move"})
        await client.post("/api/v1/jobs/report/enable", {"actor": "tom"})
        added = {
            "job": "report",
            "trigger": {"every": "1h"},
            "id": "s",
            "reason": "hourly",
            "params": {"key": "new-hush"},
        }
        assert (await client.post("/api/v1/schedules", added)).status == 201
        change = {"trigger": {"every": "2h"}, "reason": "less"}
        assert (await client.request("PATCH", "/api/v1/schedules/s", change)).status == 200
        assert (await client.request("DELETE", "/api/v1/schedules/s", {"reason": "none"})).status == 204
        await client.post("/jobs/report/pause", raw=b"reason=night", headers=FORM)
        await client.post("/jobs/report/submit", raw=b"p.days=3", headers=FORM)
        meddling = await client.post("/api/v1/jobs/meddles/submit")
        await scheduler.wait(meddling.data["id"])
        entries = (await client.get("/api/v1/audit")).items
        assert [(one["actor"], one["channel"], one["action"], one["reason"]) for one in reversed(entries)] == [
            ("anna", "api", "disable", "move"),
            ("tom", "api", "enable", None),
            ("anna", "api", "schedule", "hourly"),
            ("anna", "api", "schedule", "less"),
            ("anna", "api", "unschedule", "none"),
            ("anna", "web", "pause", "night"),
            ("anna", "web", "submit", None),
            ("anna", "api", "submit", None),
            ("meddler", "code", "pause", "too many"),
        ]
        assert entries[-1]["request_id"] == disabled.headers["taskloop-request-id"] and entries[0]["request_id"] is None
        assert entries[-4]["before"]["trigger"] == "every 1h" and entries[-4]["after"]["params"] == {"key": "********"}
        assert [one["kind"] for one in entries[:2]] == ["job", "run"] and b"hush" not in (
            await client.get("/audit")
        ).body
        page = await client.get("/api/v1/audit?job=report&actor=anna&limit=2")
        assert len(page.items) == 2 and page.data["next"] == page.items[-1]["id"]
        rest = await client.get(f"/api/v1/audit?job=report&actor=anna&before={page.data['next']}")
        assert [one["action"] for one in rest.items] == ["unschedule", "schedule", "schedule", "disable"]


@pytest.mark.anyio
async def test_a_sign_in_is_on_record_and_a_wrong_one_is_not(host, no_task_outlives_the_fixture):
    scheduler = program(token="right")  # noqa: S106 - of a test
    async with host(scheduler) as client:
        assert (await client.post("/api/v1/session", {"token": "wrong"})).status == 401
        assert (await client.post("/api/v1/session", {"token": "right"})).status == 204
        assert (await client.post("/login", raw=b"token=right", headers=FORM)).status == 303
        told = [(one.actor, one.channel, one.action, one.object) for one in await scheduler.audit()]
    assert told == [("token", "web", "sign_in", "token"), ("token", "api", "sign_in", "token")]


@pytest.mark.anyio
async def test_the_page_shows_who_did_what_to_which_narrowed_by_its_address(host, no_task_outlives_the_fixture):
    scheduler = program()
    async with host(scheduler, auth="open") as client:
        client.headers = {"accept": "text/html", "sec-fetch-site": "same-origin"}
        nobody = (await client.get("/audit")).body.decode()
        await scheduler.disable("report", actor="tom", reason=EVIL)
        await scheduler.enable("report", actor="anna")
        await scheduler.pause(actor="anna", until="2099-01-01T00:00Z", reason="by 2099-01-01T00:00Z")
        for number in range(60):
            await scheduler.submit("waits", actor="bot", at="+1h", key=str(number))
        job = (await client.get("/jobs/report")).body.decode()
        mine = (await client.get("/audit?job=report&actor=")).body.decode()
        all_of_it = (await client.get("/audit")).body.decode()
        older = html.unescape(re.search(r'href="/taskloop([^"]*)" rel="next"', all_of_it)[1])
        last = (await client.get(older)).body.decode()
    assert "Nobody changed anything" in nobody and '/audit?job=report"' in job
    assert mine.count("<tr id=") == 2 and "disabled, by tom" in mine and EVIL not in mine
    assert html.escape(EVIL, quote=False) in mine
    assert all_of_it.count("<tr id=") == 50 and last.count("<tr id=") == 13 and "everything" in last
    assert "until 2099-01-01 00:00 UTC" in last, "as all times of the pages"
    assert "by 2099-01-01T00:00Z" in last, "but a reason stands as it was given"


def test_every_changing_command_is_on_record_with_its_reason(shop, call):
    told = ("--actor", "tom", "--reason", "try")
    call("once", "add", "a=1", *told)
    call("submit", "add", "a=1", "--at", "+2h", *told)
    call("cancel", "2", *told)
    call("rerun", "1", *told)
    call("disable", "hourly", *told)
    call("schedule", "add", "add", "a=1", "--every", "5m", "--id", "often", *told)
    call("schedule", "remove", "often", *told)
    call("pause", *told)
    call("resume", *told)
    call("token", "create", "ci", "--scope", "read", *told)
    call("token", "revoke", "ci", *told)
    call("db", "prune", "--keep", "30d", *told)
    call("process", "hourly", "--every", "0", "--max-runtime", "0.2s", *told)

    async def read():
        ledger = Ledger(shop.folder / "taskloop.db", options=Options())
        try:
            return await ledger.audit()
        finally:
            await ledger.close()

    entries = asyncio.run(read())
    assert {(one.actor, one.channel, one.reason) for one in entries} == {("tom", "cli", "try")}
    assert [(one.action, one.object) for one in reversed(entries)] == [
        ("submit", "1"), ("submit", "2"), ("cancel", "2"), ("rerun", "3"), ("disable", "hourly"), ("schedule", "often"),
        ("unschedule", "often"), ("pause", None), ("resume", None), ("create_token", "ci"), ("revoke_token", "ci"), ("prune", None),
    ]  # fmt: skip
    assert entries[0].after == {"deleted": 0, "keep": "30d"}


def test_of_many_parameters_an_entry_shows_some_and_how_many_there_are_besides():
    run = asked(actor="ann", params={f"p{number}": number for number in range(40)})
    entry = audit.asking([run], NOW)
    assert entry is not None
    [entry] = audit.submitted(entry, [run])
    assert entry.after is not None
    assert len(entry.after["params"]) == 31 and entry.after["params"]["…"] == "10 more"
