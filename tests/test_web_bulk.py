"""One action on many runs, over the API and by the page of failures: counted first, bounded, safe to repeat."""

from __future__ import annotations

import asyncio
import html
import re
from datetime import timedelta

import pytest
from test_web_pages import BROWSER, EVIL, filled, text
from web_clients import HOSTS, V1

from taskloop import Options, TaskScheduler
from taskloop.options import Http
from taskloop.store_data import Incident
from taskloop.web import Principal
from taskloop.web.api import bulk, failures
from taskloop.web.pages import trouble

pytestmark = pytest.mark.anyio
BULK = f"{V1}/runs/bulk"


def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(submit_limit=None)))
    scheduler.well = False

    @scheduler.job()
    async def pays(order: int):
        if not scheduler.well:
            raise ConnectionRefusedError(f"order {order}: {EVIL}")

    @scheduler.job()
    async def other():
        raise LookupError("elsewhere")

    @scheduler.job()
    async def waits():
        await asyncio.sleep(60)

    return scheduler


async def ended(scheduler, *calls):
    return [await handle.wait(10) for handle in await scheduler.submit_many(calls)]


@pytest.fixture(params=sorted(HOSTS))
async def pair(request, no_task_outlives_the_fixture):
    scheduler = shop()
    async with HOSTS[request.param](scheduler, auth=lambda _: Principal("ann", "operate")) as client:
        yield scheduler, client


async def test_a_misspelt_job_is_no_success(pair):
    _, client = pair
    refused = await client.post(BULK, {"action": "rerun", "job": "pay"})
    assert (refused.status, refused.code) == (404, "job-not-found") and "pays" in refused.data["hint"]
    assert (await client.get(f"{V1}/schedules?job=pay")).status == 404
    assert (await client.get(f"{V1}/schedules?job=pays")).items == []


async def test_runs_that_came_to_much_are_chosen_all_though_few_of_them_are_read_at_a_time(pair, monkeypatch):
    scheduler, client = pair
    read = []

    async def large():
        return "x" * 900_000

    scheduler.add_job(large)
    await ended(scheduler, *(scheduler["large"].bind() for _ in range(40)))
    looks = scheduler.runs

    async def counted(*args, **more):
        found = await looks(*args, **more)
        read.append(len(found))
        return found

    monkeypatch.setattr(scheduler, "runs", counted)
    meant = {"action": "rerun", "job": "large", "state": "succeeded", "dry_run": True}
    answer = (await client.post(BULK, meant)).data
    assert (answer["matched"], answer["complete"]) == (40, True)
    assert max(read) < 30  # of a megabyte each


async def test_what_failed_of_a_cause_is_counted_run_again_once_and_left_alone_then(pair):
    scheduler, client = pair
    await ended(scheduler, *(scheduler["pays"].bind(order=number) for number in range(4)), scheduler["other"].bind())
    found = (await client.get(f"{V1}/failures?since=1h")).data
    [pays, other] = found["items"]
    assert (pays["count"], pays["jobs"], pays["type"], pays["first"]["run"]) == (
        4,
        ["pays"],
        "ConnectionRefusedError",
        1,
    )
    assert (other["count"], other["last"]["run"], found["found"], found["complete"]) == (1, 5, 5, True)
    wanted = {"action": "rerun", "fingerprint": pays["fingerprint"], "since": "1h"}
    dry = (await client.post(BULK, {**wanted, "dry_run": True})).data
    assert (dry["matched"], dry["done"], dry["complete"]) == (4, 0, True) and len(await scheduler.runs()) == 5
    scheduler.well = True
    part = (await client.post(BULK, {**wanted, "limit": 3, "reason": "the bank is back"})).data
    assert (part["matched"], part["done"], part["runs"], part["complete"]) == (3, 3, [6, 7, 8], False)
    rest = (await client.post(BULK, wanted)).data
    assert (rest["matched"], rest["again"], rest["done"]) == (1, 3, 1)
    assert (await client.post(BULK, wanted)).data | {"fingerprint": 0} == {
        "action": "rerun", "dry_run": False, "matched": 0, "again": 4, "complete": True, "done": 0, "runs": [],
        "refused": 0, "refusals": [], "fingerprint": 0,
    }  # fmt: skip
    again = [await scheduler.wait(number, 10) for number in (6, 7, 8, 9)]
    assert [one.rerun_of for one in again] == [2, 3, 4, 1] and {one.state for one in again} == {"succeeded"}
    assert {one.actor for one in again} == {"ann"}


async def test_what_has_not_ended_is_cancelled_and_what_is_refused_is_told(pair):
    scheduler, client = pair
    handles = await scheduler.submit_many([scheduler["waits"].bind()] * 60)
    done = (await client.post(BULK, {"action": "cancel", "job": "waits", "reason": "no need"})).data
    assert done["done"] == 60 and done["runs"] == [one.id for one in handles]
    assert {(await one.wait(10)).state for one in handles} == {"cancelled"}
    await ended(scheduler, scheduler["other"].bind())
    await scheduler.disable("other", reason="moving")
    refused = (await client.post(BULK, {"action": "rerun", "job": "other"})).data
    assert (refused["matched"], refused["done"], refused["refused"]) == (1, 0, 1)
    assert "is off" in refused["refusals"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "'action' is missing"),
        ({"action": "delete", "job": "x"}, "rerun, cancel"),
        ({"action": "cancel"}, "names no job, fingerprint, since or until"),
        ({"action": "rerun", "job": "x", "state": "running"}, "running cannot be meant by rerun"),
        ({"action": "cancel", "job": "x", "state": "failed"}, "failed cannot be meant by cancel"),
        ({"action": "cancel", "job": "x", "limit": 1001}, "'limit' is 1001"),
        ({"action": "cancel", "since": "yesterday"}, "yesterday"),
    ],
)
async def test_what_cannot_be_meant_is_refused(body, told):
    async with HOSTS["asgi"](shop(), auth="open") as client:
        answer = await client.post(BULK, body)
        assert answer.status == 422 and told in f"{answer.data['detail']} {answer.data['hint']}"


async def test_two_at_once_do_it_once_and_what_is_looked_at_is_bounded(monkeypatch):
    scheduler = shop()
    async with HOSTS["asgi"](scheduler, auth="open") as client:
        await ended(scheduler, *(scheduler["pays"].bind(order=number) for number in range(30)))
        shown = {"action": "rerun", "job": "pays", "before": 31}
        both = await asyncio.gather(*(client.post(BULK, shown) for _ in range(2)))
        assert sorted(one.data["done"] for one in both) == [0, 30]
        monkeypatch.setattr(bulk, "PAGE", 10)
        monkeypatch.setattr(bulk, "LOOKED", 20)
        far = (await client.post(BULK, {"action": "rerun", "job": "pays", "fingerprint": "none"})).data
        assert (far["matched"], far["complete"]) == (0, False)


async def test_two_processes_that_are_asked_at_once_run_each_failure_again_once(tmp_path):
    here, there = shop(), shop()
    for one in (here, there):
        one.furnish(store=tmp_path / "shop.db")
    async with HOSTS["asgi"](here, auth="open") as client, HOSTS["asgi"](there, auth="open") as other:
        await ended(here, *(here["pays"].bind(order=number) for number in range(30)))
        # They fail again, within milliseconds.
        shown = {"action": "rerun", "job": "pays", "before": 31}
        both = [one.data for one in await asyncio.gather(*(one.post(BULK, shown) for one in (client, other)))]
        assert sum(one["done"] for one in both) == 30 and {one["done"] + one["again"] for one in both} == {30}
        assert len({one.rerun_of for one in await here.runs(cause="rerun")}) == 30
        assert len(await here.runs(limit=1000)) == 60
        newest = (await here.runs(limit=1))[0].id
        again = [await one.post(f"{V1}/runs/{newest}/rerun", {"once": True}) for one in [client, other] * 3]
        assert {one.status for one in again} == {202} and len({one.data["id"] for one in again}) == 1
        assert [one.headers.get("idempotent-replayed") for one in again] == [None, *["true"] * 5]
        with pytest.raises(ValueError, match="one of both"):
            await here.rerun(newest, once=True, key="mine")


async def test_failures_of_one_cause_are_retried_from_their_page_and_the_filter_stays(pair):
    scheduler, client = pair
    client.headers = dict(BROWSER)
    await ended(scheduler, *(scheduler["pays"].bind(order=number) for number in range(4)), scheduler["other"].bind())
    page = await client.get("/failures?since=1h")
    assert "Retry all 4…" in text(page) and "Retry…" in text(page) and "<script>" not in page.body.decode()
    path = html.unescape(
        re.search(r'href="/taskloop(/failures\?[^"]*)" aria-label="Retry all 4[^"]*">Retry all 4', page.body.decode())[
            1
        ]
    )
    one = (await client.get(path)).body.decode()
    assert ">Retry all 4</button>" in one and "<script>" not in one
    form = dict(re.findall(r'type="hidden" name="(since|cause|last)" value="([^"]*)"', one))
    await ended(scheduler, scheduler["pays"].bind(order=5))  # it was not shown, and is not meant
    scheduler.well = True
    answer = await filled(client, "/failures/retry", **form, reason="the bank is back")
    assert answer.status == 303 and answer.headers["location"] == f"/taskloop{path}&said=retried"
    await scheduler.wait(10, 10)
    after = await client.get(f"{path}&said=retried")
    assert "They are run again" in text(
        after
    ) and "5 runs failed of it in the last 1h; 4 of them were run again" in text(after)
    assert ">Retry all 1</button>" in after.body.decode()
    again = await filled(client, "/failures/retry", **form)
    assert again.headers["location"].endswith("&said=again") and len(await scheduler.runs(cause="rerun")) == 4
    assert "No run failed of that" in text(await client.get("/failures?cause=%3Cscript%3E"))


async def test_of_failures_that_cannot_be_run_again_the_page_says_which_and_why(pair):
    """It guessed: that the job is off or its code is not here, or, where one of them was begun, that all are."""
    scheduler, client = pair
    client.headers = dict(BROWSER)
    scheduler.add_job(scheduler["pays"].function, name="pays-too")
    runs = await ended(scheduler, scheduler["pays"].bind(order=1), scheduler["pays-too"].bind(order=2))
    form = {"since": "1h", "cause": runs[0].error.fingerprint, "last": 2}
    await scheduler.disable("pays-too", reason="the bank is away")
    some = await filled(client, "/failures/retry", **form)
    assert some.status == 409 and "1 is run again, 1 could not be." in text(some)
    assert "Run 2 : job 'pays-too'" in text(some) and "the bank is away" in text(some)
    none = await filled(client, "/failures/retry", **form)
    assert none.status == 409 and "None could be run again. Run 2 : job 'pays-too'" in text(none)
    assert [one.rerun_of for one in await scheduler.runs(cause="rerun")] == [1]


@pytest.mark.parametrize("most", [1000, 2])
async def test_the_list_of_failures_offers_to_run_again_only_what_was_not_yet(pair, monkeypatch, most):
    """However many runs repeat others: `most` of them are looked at together, else each failure is asked for."""
    monkeypatch.setattr(bulk, "MOST", most)
    scheduler, client = pair
    client.headers = dict(BROWSER)
    calls = [scheduler["pays"].bind(order=number) for number in range(4)]
    old = await ended(scheduler, *calls, scheduler["other"].bind())
    scheduler.well = True
    for one in old[:2]:
        await (await scheduler.rerun(one.id)).wait(10)
    assert "Retry all 2…" in text(await client.get("/failures?since=1h"))
    await (await scheduler.rerun(old[2].id)).wait(10)
    some = text(await client.get("/failures?since=1h"))
    assert some.count("Retry…") == 2 and "Retry all" not in some and "run again already" not in some
    await (await scheduler.rerun(old[3].id)).wait(10)
    all_of_it = text(await client.get("/failures?since=1h"))
    assert all_of_it.count("Retry…") == 1 and "run again already" in all_of_it


async def test_a_page_of_failures_counts_what_is_to_be_run_again_among_those_that_it_shows(monkeypatch):
    for one in (failures, trouble):
        monkeypatch.setattr(one, "NEWEST", 3)
    scheduler = shop()
    async with HOSTS["asgi"](scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        old = await ended(scheduler, *(scheduler["pays"].bind(order=number) for number in range(5)))
        scheduler.well = True
        for one in old[1:4]:
            await (await scheduler.rerun(one.id)).wait(10)
        cause = f"/failures?since=1h&cause={old[0].error.fingerprint}"
        shown = await client.get(cause)
        assert "3 runs failed of it in the last 1h, of the newest; 2 of them were run again already" in text(shown)
        assert ">Retry all 1</button>" in shown.body.decode() and "there may be older ones" in text(shown)
        await filled(client, "/failures/retry", since="1h", cause=old[0].error.fingerprint, last=5)
        assert [one.rerun_of for one in await scheduler.runs(cause="rerun", limit=1)] == [5]
        assert "Nothing of the newest is left to run again." in text(await client.get(cause))
        assert (await client.post(BULK, {"action": "rerun", "job": "pays"})).data["done"] == 1, "the older one"


async def test_the_whole_in_figures_and_what_held_a_loop(pair):
    scheduler, client = pair
    await ended(scheduler, scheduler["other"].bind())
    whole = (await client.get(f"{V1}/summary")).data
    assert whole["jobs"] | {"all": 0} == whole["jobs"] | {"all": 0, "failing": 1, "never_ran": 2, "ok": 0}
    assert (whole["jobs"]["all"], whole["workers"], whole["attention"], whole["paused"]) == (3, 1, 1, None)
    now = (await scheduler.runs())[0].ended_at
    await scheduler._open_store.note(
        [Incident("w-1", "loop_blocked", now - timedelta(seconds=3), now, {"where": EVIL})]
    )
    loop = (await client.get(f"{V1}/loop")).data
    assert [one["data"]["where"] for one in loop["incidents"]] == [EVIL] and len(loop["workers"]) == 1
