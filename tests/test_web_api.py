"""What the admin surface answers, the same in both hosts."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from web_clients import HOSTS, V1, over_asgi

from taskloop import Cron, Options, RunContext, TaskScheduler
from taskloop.options import Http
from taskloop.policy import Policy
from taskloop.testing import virtual_time
from taskloop.web.api.schedules import fires_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


def shop(limit=None):
    """A scheduler with a few jobs in a store in memory."""
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(submit_limit=limit)))
    scheduler.began = asyncio.Event()

    @scheduler.job(title="Adds up", tags=("sums",))
    async def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    @scheduler.job()
    async def fails():
        raise ValueError("=1+1 no luck")

    @scheduler.job()
    async def waits():
        scheduler.began.set()
        await asyncio.sleep(60)

    @scheduler.every("1h", first="after", aliases=("each_hour",))
    async def hourly():
        return "ticked"

    flow = scheduler.flow("video")

    @flow.step()
    async def fetch():
        return 1

    @flow.step(after=("fetch",))
    async def cut():
        return 2

    return scheduler


def talkative():
    """A scheduler whose jobs leave a log."""
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.job()
    def speaks(run: RunContext):
        run.log("one")
        run.log("<b>two</b>", "warning")

    @scheduler.job(secret=("key",))
    async def secretive(key: str, run: RunContext):
        run.log(f"refused {key}")
        raise ValueError(f"wrong key {key}")

    return scheduler


@pytest.fixture
async def client(host, no_task_outlives_the_fixture):
    async with host(shop(), auth="open") as client:
        yield client


@pytest.fixture
async def pair(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        yield scheduler, client


# -- health


async def test_a_surface_that_lives_says_so_and_no_more(client):
    answer = await client.get("/healthz")
    assert (answer.status, answer.data) == (200, {"status": "ok"})


async def test_it_is_ready_once_the_scheduler_runs_and_the_store_answers(pair):
    scheduler, client = pair
    ready = await client.get("/readyz")
    await scheduler.stop()
    stopped = await client.get("/readyz")
    assert (ready.status, ready.data["checks"]) == (200, {"scheduler": "ok", "store": "ok"})
    assert (stopped.status, stopped.data["checks"]) == (503, {"scheduler": "not running", "store": "closed"})
    assert not scheduler._store_is_open, "a probe has not opened it again"


# -- jobs


async def test_jobs_are_listed_by_name_page_by_page(client):
    first = await client.get(f"{V1}/jobs?limit=3")
    second = await client.get(f"{V1}/jobs?limit=3&before={first.data['next']}")
    assert [one["name"] for one in first.items] == ["add", "fails", "hourly"]
    assert ([one["name"] for one in second.items], second.data["next"]) == (["video", "waits"], None)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("condition=ok", []),
        ("condition=never_ran&tag=sums", ["add"]),
        ("condition=ok,never_ran&text=hour", ["hourly"]),
        ("condition=ok&condition=never_ran&text=ADDS", ["add"]),
    ],
)
async def test_jobs_are_narrowed_by_condition_tag_and_text(client, query, names):
    assert [one["name"] for one in (await client.get(f"{V1}/jobs?{query}")).items] == names


async def test_a_job_tells_what_it_takes(client):
    job = (await client.get(f"{V1}/jobs/add")).data
    assert (job["title"], job["kind"], job["condition"]) == ("Adds up", "on_demand", "never_ran")
    assert job["params_schema"]["required"] == ["a"]


async def test_of_thousands_of_mistakes_twenty_are_told(client):
    """To look for what each could have meant held the loop for seconds, for who may only look."""
    wrong = {f"parameter{number}": 1 for number in range(3_000)}
    wrong["a"] = 1
    validated = await client.post(f"{V1}/jobs/add/validate", {"params": wrong})
    assert len(validated.data["errors"]) == 20
    for path, body in ((f"{V1}/jobs/add/submit", {"params": wrong}), ("/tasks/add", wrong), (f"{V1}/pause", wrong)):
        refused = await client.post(path, body)
        assert (refused.status, len(refused.data["errors"])) == (422, 20)


async def test_an_unknown_job_is_not_found_and_the_nearest_is_named(client):
    answer = await client.get(f"{V1}/jobs/hourlie")
    assert (answer.status, answer.code) == (404, "job-not-found")
    assert "did you mean 'hourly'?" in answer.data["detail"] + answer.data["hint"]


async def test_who_asks_for_a_job_by_an_earlier_name_is_told_the_one_it_has(client):
    for path in ("", "/stats"):
        answer = await client.get(f"{V1}/jobs/each_hour{path}")
        assert (answer.status, answer.code) == (404, "job-not-found")
        assert answer.data["hint"].startswith("did you mean 'hourly'?")


async def test_a_switch_is_thrown_with_its_reason_and_told_in_the_job(client):
    off = await client.post(f"{V1}/jobs/add/disable", {"reason": "moving", "until": "+2h"})
    refused = await client.post(f"{V1}/jobs/add/submit", {"params": {"a": 1}})
    on = await client.post(f"{V1}/jobs/add/enable")
    assert (off.data["enabled"], off.data["switch"]["reason"], off.data["switch"]["by"]) == (False, "moving", "anyone")
    assert (refused.status, refused.code) == (409, "conflict")
    assert on.data["enabled"] is True


async def test_a_paused_job_holds_what_is_submitted_until_it_is_resumed(pair):
    scheduler, client = pair
    paused = await client.post(f"{V1}/jobs/add/pause", {"reason": "look"})
    run = (await client.post(f"{V1}/jobs/add/submit", {"params": {"a": 1}})).data
    held = (await client.get(f"{V1}/runs/{run['id']}")).data
    await client.post(f"{V1}/jobs/add/resume", {"missed": "skip"})
    assert (paused.data["condition"], held["state"]) == ("paused", "waiting")
    assert [paused.data["switch"][key] for key in ("kind", "by", "reason")] == ["paused", "anyone", "look"]
    assert (await scheduler.wait(run["id"], timeout=10)).result == 3


async def test_the_whole_is_paused_and_resumed(client):
    paused = await client.post(f"{V1}/pause", {"reason": "move"})
    resumed = await client.post(f"{V1}/resume")
    assert (paused.data["paused"]["reason"], resumed.data["paused"]) == ("move", None)


async def test_coming_fires_of_one_job_and_of_all(client):
    one = await client.get(f"{V1}/jobs/hourly/upcoming?limit=3")
    every = await client.get(f"{V1}/upcoming?limit=2")
    assert [fire["job"] for fire in one.items] == ["hourly"] * 3
    assert one.items[0]["at"] < one.items[1]["at"]
    assert every.items == one.items[:2]


async def test_why_is_answered_for_a_run(pair):
    scheduler, client = pair
    run = await (await scheduler.submit("fails")).wait()
    told = (await client.get(f"{V1}/jobs/fails/why?run={run.id}")).data
    assert (told["code"], told["run"]["run"]) == ("ran", run.id)
    assert (await client.get(f"{V1}/jobs/add/why?run={run.id}")).code == "run-not-found"
    assert (await client.get(f"{V1}/jobs/add/why?at=2026-01-01T00:00:00Z")).data["verdict"] == "unknown"
    assert (await client.get(f"{V1}/jobs/nobody/why")).code == "job-not-found"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("+2h", "%2B2h"),
        ("2999-03-01T02:00:00+01:00", "2999-03-01T01:00:00Z"),
        ("2999-03-01+02:00:00+0100", "2999-03-01T01:00:00Z"),
        ("2999-03-01+02:00:00Z", "2999-03-01T02:00:00Z"),
    ],
)
async def test_a_plus_in_the_instant_of_an_address_is_one(client, written, meant):
    texts = [
        (await client.get(f"{V1}/jobs/hourly/why?at={one}")).data["text"].partition("T")[0] for one in (written, meant)
    ]
    fires = [(await client.get(f"{V1}/upcoming?until={one}&limit=3")).items for one in (written, meant)]
    assert texts[0] == texts[1] and fires[0] == fires[1] != []


async def test_an_instant_without_an_offset_is_told_as_it_was_written(client):
    answer = await client.get(f"{V1}/runs?since=2999-03-01+02:00")
    assert answer.status == 422 and "instant '2999-03-01 02:00': it names no zone" in answer.data["detail"]


async def test_statistics_count_by_state_and_tell_how_long_it_took(pair):
    scheduler, client = pair
    for number in range(3):
        await (await scheduler.submit("add", {"a": number})).wait()
    told = (await client.get(f"{V1}/jobs/add/stats?since=1h")).data
    assert (told["runs"]["succeeded"], told["success_rate"], told["complete"]) == (3, 1.0, True)
    assert 0 <= told["took_seconds"]["p50"] <= told["took_seconds"]["max"]


# -- asking for runs


async def test_a_submit_is_accepted_and_leads_to_the_run(pair):
    scheduler, client = pair
    answer = await client.post(f"{V1}/jobs/add/submit", {"params": {"a": 1}, "reason": "try"})
    run = answer.data
    assert answer.status == 202
    assert answer.headers["location"].endswith(f"{V1}/runs/{run['id']}")
    assert (run["cause"], run["actor"], run["params"]) == ("api", "anyone", {"a": 1})
    await scheduler.wait(run["id"], timeout=10)
    assert (await client.get(f"{V1}/runs/{run['id']}/result")).data == 3


async def test_a_submit_of_wrong_parameters_names_each_and_writes_nothing(client):
    answer = await client.post(f"{V1}/jobs/add/submit", {"params": {"a": "x", "c": 1}})
    assert (answer.status, answer.code) == (422, "invalid-params")
    assert {one["parameter"] for one in answer.data["errors"]} == {"a", "c"}
    assert (await client.get(f"{V1}/runs")).items == []


@pytest.mark.parametrize("way", ["header", "body"])
async def test_the_same_key_gives_the_same_run_and_other_parameters_a_conflict(client, way):
    def asked(params):
        body = {"params": params} | ({"key": "k"} if way == "body" else {})
        return client.post(f"{V1}/jobs/add/submit", body, headers={"idempotency-key": "k"} if way == "header" else {})

    first, again, other = await asked({"a": 1}), await asked({"a": 1}), await asked({"a": 2})
    assert (first.data["id"], first.data["existed"]) == (again.data["id"], False)
    assert (again.data["existed"], again.headers["idempotent-replayed"]) == (True, "true")
    assert (other.status, other.code) == (409, "key-conflict")


async def test_a_run_that_was_cancelled_or_failed_frees_its_key_also_for_other_parameters(client):
    def asked(params):
        return client.post(f"{V1}/jobs/add/submit", {"params": params, "key": "k", "at": "+2h"})

    first = await asked({"a": 1})
    assert (await client.post(f"{V1}/runs/{first.data['id']}/cancel")).status in (200, 202)
    other = await asked({"a": 2})
    assert (other.status, other.data["existed"], other.data["key"]) == (202, False, "k")
    assert other.data["id"] != first.data["id"]
    told = (await client.get("/openapi.json")).data["paths"][f"{V1}/jobs/{{job}}/submit"]["post"]
    assert "one that failed or was cancelled frees" in json.dumps(told)


async def test_an_empty_key_is_none(client):
    first, second = [
        await client.post(f"{V1}/jobs/add/submit", {"params": {"a": one}}, headers={"idempotency-key": ""})
        for one in (1, 2)
    ]
    assert (first.status, second.status, first.data["key"], second.data["existed"]) == (202, 202, None, False)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/jobs/%00", 404), ("/schedules/a%00", 404), ("/schedules?prefix=%00", 422), ("/runs?job=%00", 422)],
)
async def test_an_address_with_a_nul_finds_nothing_whatever_the_store(client, path, status):
    assert (await client.get(V1 + path)).status == status


async def test_a_head_of_what_is_known_already_has_no_length(client):
    mark = (await client.get(f"{V1}/jobs")).headers["etag"]
    known = await client.request("HEAD", f"{V1}/jobs", headers={"if-none-match": mark})
    assert known.status == 304 and "content-length" not in known.headers


async def test_a_repeat_that_is_asked_for_with_a_key_twice_is_one_run(pair):
    scheduler, client = pair
    await (await scheduler.submit("add", {"a": 1})).wait()
    path, key = f"{V1}/runs/1/rerun", {"idempotency-key": "k"}
    first = await client.post(path, {"params": {"b": 5}}, headers=key)
    again = await client.post(path, {"params": {"b": 5}, "key": "k"})
    assert (first.status, first.data["rerun_of"], first.data["key"]) == (202, 1, "k")
    assert (again.data["id"], again.headers["idempotent-replayed"]) == (first.data["id"], "true")
    assert (await client.post(path, {"params": {"b": 6}}, headers=key)).code == "key-conflict"
    assert (await client.post(path, {"once": True}, headers=key)).status == 422


async def test_a_submit_may_be_for_later(client):
    run = (await client.post(f"{V1}/jobs/add/submit", {"params": {"a": 1}, "at": "+2h"})).data
    wrong = await client.post(f"{V1}/jobs/add/submit", {"params": {"a": 1}, "at": "tomorrow"})
    assert (run["state"], run["ready_at"] > run["created_at"]) == ("waiting", True)
    assert (wrong.status, wrong.code) == (422, "invalid-value")


async def test_parameters_are_checked_without_a_run(client):
    well = (await client.post(f"{V1}/jobs/add/validate", {"params": {"a": "5"}})).data
    ill = (await client.post(f"{V1}/jobs/add/validate", {"params": {"b": 1}})).data
    assert well == {"ok": True, "params": {"a": 5}, "errors": []}
    assert ill["errors"] == [{"parameter": "a", "detail": "is missing"}]


async def test_all_jobs_that_need_nothing_are_submitted_at_once(client):
    await client.post(f"{V1}/jobs/waits/disable")
    answer = await client.post(f"{V1}/jobs/run-all", {"reason": "all"})
    assert answer.status == 202
    assert sorted(one["job"] for one in answer.items) == ["fails", "hourly", "video"]
    assert {one["cause"] for one in answer.items} == {"api"}


# -- runs


async def test_the_history_is_newest_first_and_goes_on_where_the_page_ended(pair):
    scheduler, client = pair
    for number in range(5):
        await (await scheduler.submit("add", {"a": number})).wait()
    seen, before = [], ""
    while before is not None:
        page = await client.get(f"{V1}/runs?limit=2{before and f'&before={before}'}")
        seen += [one["params"]["a"] for one in page.items]
        before = page.data["next"]
    assert seen == [4, 3, 2, 1, 0]


async def test_a_long_page_is_the_same_as_a_short_one(pair):
    scheduler, client = pair
    await scheduler.pause("add")
    await scheduler.submit_many([scheduler["add"].bind(a=one) for one in range(120)])
    page = await client.get(f"{V1}/runs?limit=110")
    assert [one["params"]["a"] for one in page.items] == list(range(119, 9, -1))
    assert page.data["next"] == page.items[-1]["id"]
    assert page.items[0] == (await client.get(f"{V1}/runs?limit=1")).items[0]


@pytest.mark.parametrize("path", ["/runs", "/runs/export", "/events"])
async def test_a_misspelt_job_is_no_job_of_which_nothing_is_to_be_told(client, path):
    answer = await client.get(f"{V1}{path}?job=ad")
    assert (answer.status, answer.code) == (404, "job-not-found")
    assert "add" in answer.data["hint"]


async def test_the_history_is_narrowed_by_state_time_job_and_cause(pair):
    scheduler, client = pair
    await (await scheduler.submit("add", {"a": 1})).wait()
    await (await scheduler.submit("fails")).wait()
    assert [one["job"] for one in (await client.get(f"{V1}/runs?state=failed,cancelled&since=1h")).items] == ["fails"]
    assert [one["job"] for one in (await client.get(f"{V1}/runs?job=add&cause=manual")).items] == ["add"]
    for nothing in ("state=", "state=,", "state=&state=", "cause="):  # as a program writes an empty list
        assert [one["job"] for one in (await client.get(f"{V1}/runs?{nothing}")).items] == ["fails", "add"], nothing


@pytest.mark.parametrize(
    "query", ["state=done", "limit=0", "limit=1001", "limit=x", "befor=3", "since=yesterday", "limit=1&limit=2"]
)
async def test_a_query_that_cannot_be_is_refused(client, query):
    answer = await client.get(f"{V1}/runs?{query}")
    assert (answer.status, answer.code) == (422, "invalid-value")


async def test_a_run_that_is_not_there_is_not_found(client):
    for path in ("/runs/99", "/runs/99/attempts", "/runs/99/steps", "/runs/99/log", "/runs/99/result", "/runs/x"):
        assert (await client.get(V1 + path)).code == "run-not-found"


async def test_attempts_and_error_of_a_failed_run(pair):
    scheduler, client = pair
    run = await (await scheduler.submit("fails")).wait()
    record = (await client.get(f"{V1}/runs/{run.id}")).data
    attempts = (await client.get(f"{V1}/runs/{run.id}/attempts")).items
    assert (record["state"], record["error"]["type"]) == ("failed", "ValueError")
    assert [one["outcome"] for one in attempts] == ["failed"]
    assert (await client.get(f"{V1}/runs/{run.id}/result")).status == 409


async def test_the_log_of_a_run_is_read_on_from_where_it_was_left(host):
    scheduler = talkative()
    async with host(scheduler, auth="open") as client:
        run = await (await scheduler.submit("speaks")).wait()
        first = (await client.get(f"{V1}/runs/{run.id}/log")).data
        after = (await client.get(f"{V1}/runs/{run.id}/log?after={first['next']}")).data
        assert (await client.get(f"{V1}/runs/{run.id}/log?after=-1")).status == 422
        one = (await client.get(f"{V1}/runs/{run.id}/log?limit=1")).data
        other = (await client.get(f"{V1}/runs/{run.id}/log?limit=1&after={one['next']}")).data
    assert [(one["level"], one["text"], one["step"]) for one in first["items"]] == [
        ("info", "one", None), ("warning", "<b>two</b>", None)
    ]  # fmt: skip
    assert after == {"items": [], "next": first["next"]}
    assert [one["items"], other["items"]] == [first["items"][:1], first["items"][1:]], "lines are counted, not parts"
    assert other["next"] == first["next"]


async def test_no_answer_has_a_secret_in_it(host):
    scheduler, clear = talkative(), "hunter2-and-more"
    async with host(scheduler, auth="open") as client:
        answers = [await client.post(f"{V1}/jobs/secretive/submit", {"params": {"key": clear}})]
        run = answers[0].data["id"]
        await scheduler.wait(run, timeout=10)
        for path in (
            f"runs/{run}",
            f"runs/{run}/attempts",
            f"runs/{run}/log",
            "runs",
            "runs/export",
            "jobs/secretive/why",
        ):
            answers.append(await client.get(f"{V1}/{path}"))
        answers.append(await client.post(f"{V1}/runs/{run}/rerun", {}))
        answers.append(await client.post(f"{V1}/jobs/secretive/submit", {"params": {"key": [clear]}}))
    assert [one.status for one in answers] == [202, 200, 200, 200, 200, 200, 200, 202, 422]
    assert not [one.body for one in answers if b"hunter2" in one.body]
    assert b"refused ***" in answers[3].body, "the log is there"


async def test_steps_of_a_flow_and_a_rerun_from_one_of_them(pair):
    scheduler, client = pair
    run = await (await scheduler.submit("video")).wait()
    steps = (await client.get(f"{V1}/runs/{run.id}/steps")).items
    again = await client.post(f"{V1}/runs/{run.id}/rerun", {"from_step": "cut"})
    wrong = await client.post(f"{V1}/runs/{run.id}/rerun", {"from_step": "cat"})
    await scheduler.wait(again.data["id"], timeout=10)
    kept = (await client.get(f"{V1}/runs/{again.data['id']}/steps")).items
    assert [(one["name"], one["state"]) for one in steps] == [("fetch", "succeeded"), ("cut", "succeeded")]
    assert [one["kept"] for one in kept] == [True, False]
    assert (again.status, again.data["rerun_of"]) == (202, run.id)
    assert (wrong.status, wrong.code) == (404, "step-not-found")


async def test_a_running_run_is_cancelled_and_a_final_one_is_a_conflict(pair):
    scheduler, client = pair
    run = (await client.post(f"{V1}/jobs/waits/submit")).data
    asked = await client.post(f"{V1}/runs/{run['id']}/cancel", {"reason": "enough"})
    ended = await scheduler.wait(run["id"], timeout=10)
    again = await client.post(f"{V1}/runs/{run['id']}/cancel")
    assert asked.status in (200, 202)
    assert (ended.state, ended.reason, ended.actor) == ("cancelled", "enough", "anyone")
    assert (again.status, again.data["state"]) == (409, "cancelled")


async def test_the_history_is_exported_as_lines_and_as_a_sheet_without_formulas(pair):
    scheduler, client = pair
    await (await scheduler.submit("fails")).wait()
    await (await scheduler.submit("add", {"a": 1})).wait()
    lines = await client.get(f"{V1}/runs/export")
    sheet = await client.get(f"{V1}/runs/export?format=csv&state=failed")
    rows = list(csv.DictReader(io.StringIO(sheet.body.decode())))
    assert [json.loads(line)["job"] for line in lines.body.decode().splitlines()] == ["add", "fails"]
    assert [row["summary"] for row in rows] == ["'=1+1 no luck"]
    assert "runs.csv" in sheet.headers["content-disposition"]
    none = await client.get(f"{V1}/runs/export?format=csv&state=interrupted")
    assert none.body.splitlines() == sheet.body.splitlines()[:1]  # its columns, which readers of a sheet ask for first


async def test_a_long_export_has_every_run_once(pair):
    scheduler, client = pair
    await scheduler.pause("add")
    await scheduler.submit_many([scheduler["add"].bind(a=one) for one in range(450)])
    lines = (await client.get(f"{V1}/runs/export")).body.decode().splitlines()
    assert [json.loads(line)["params"]["a"] for line in lines] == list(range(449, -1, -1))


# -- schedules


async def test_a_schedule_is_stored_changed_and_removed(client):
    body = {"job": "add", "trigger": {"cron": "0 3 * * *"}, "params": {"a": 1}, "id": "five/ten %"}
    stored = await client.post(f"{V1}/schedules", body)
    again = await client.post(f"{V1}/schedules", body)
    where = stored.headers["location"].removeprefix("/taskloop")
    changed = await client.request("PATCH", where, {"trigger": {"cron": "0 2 * * *", "timezone": "Europe/London"}})
    removed = await client.request("DELETE", where)
    assert (stored.status, again.status) == (201, 200)
    assert stored.data["next_due"] == again.data["next_due"]
    assert (changed.data["id"], changed.data["params"]) == ("five/ten %", {"a": 1})
    assert changed.data["trigger"] == "cron 0 2 * * * timezone=Europe/London"
    assert (removed.status, removed.body) == (204, b"")
    assert (await client.get(where)).code == "schedule-not-found"


async def test_a_schedule_without_an_id_is_named_after_job_and_trigger(client):
    stored = await client.post(f"{V1}/schedules", {"job": "add", "trigger": "every 1d", "params": {"a": 1}})
    assert stored.data["id"] == "add:every_1d"
    assert [one["id"] for one in (await client.get(f"{V1}/schedules?job=add")).items] == ["add:every_1d"]


@pytest.mark.parametrize(
    ("trigger", "code"),
    [
        ({"cron": "61 * * * *"}, "invalid-schedule"),
        ({"cron": "0 0 30 2 *"}, "invalid-schedule"),
        ({"every": "0"}, "invalid-value"),
        ({"every": "5m", "cron": "* * * * *"}, "invalid-schedule"),
        ({"cron": 5}, "invalid-schedule"),
        ({"every": [1]}, "invalid-value"),
        ({"at": "2030-01-01"}, "invalid-value"),
        ({"at": 7}, "invalid-value"),
        ("fortnightly", "invalid-schedule"),
        (5, "invalid-value"),
    ],
)
async def test_a_trigger_that_cannot_be_is_refused(client, trigger, code):
    answer = await client.post(f"{V1}/schedules", {"job": "add", "trigger": trigger, "params": {"a": 1}})
    assert (answer.status, answer.code) == (422, code)


async def test_a_declared_schedule_is_left_to_the_code(client):
    for method in ("PATCH", "DELETE"):
        body = {"trigger": {"every": "1d"}} if method == "PATCH" else None
        assert (await client.request(method, f"{V1}/schedules/hourly", body)).status == 409
    assert (
        await client.post(f"{V1}/schedules", {"job": "add", "trigger": "every 1h", "id": "hourly", "params": {"a": 1}})
    ).status == 409


async def test_in_a_virtual_time_a_time_from_now_is_counted_from_it():
    """The schedule was stored for two hours after the test, and never came."""
    async with virtual_time(shop(), at="2031-05-01T00:00Z") as time, over_asgi(time.scheduler, auth="open") as client:
        asked = {"job": "add", "trigger": {"at": "+2h"}, "params": {"a": 1}}
        stored = (await client.post(f"{V1}/schedules", asked)).data
        assert (stored["trigger"], stored["next_due"]) == ("at 2031-05-01T02:00:00Z", "2031-05-01T02:00:00Z")
        shown = (await client.post(f"{V1}/schedules/preview", {"trigger": "every 1h", "count": 1})).data
        assert shown["fires"] == ["2031-05-01T00:00:00Z"]
        seen = (await client.get(f"{V1}/timeline?from=1h&to=3h")).data
        assert seen["now"] == "2031-05-01T00:00:00Z"
        await time.advance("2h")
        assert [one.result for one in await time.runs("add")] == [3]


async def test_a_trigger_is_previewed_without_being_stored(client):
    body = {"trigger": {"cron": "0 2 * * *", "timezone": "Europe/London"}, "count": 2, "start": "2026-03-28T12:00:00Z"}
    told = (await client.post(f"{V1}/schedules/preview", body)).data
    assert told["fires"] == ["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]
    assert "Europe/London" in told["trigger_text"]


async def test_a_preview_begins_where_a_schedule_stored_now_would(client):
    """It said that a span fires first after it had passed once, and the stored one ran at once."""
    body = {"trigger": {"every": "1h"}, "count": 2, "start": "2026-03-28T12:00:00Z"}
    at_once = (await client.post(f"{V1}/schedules/preview", body)).data["fires"]
    assert at_once == ["2026-03-28T12:00:00Z", "2026-03-28T13:00:00Z"]
    after = (await client.post(f"{V1}/schedules/preview", body | {"job": "hourly"})).data["fires"]
    assert after == ["2026-03-28T13:00:00Z", "2026-03-28T14:00:00Z"], "of a job that says first=after"
    assert (await client.post(f"{V1}/schedules/preview", body | {"job": "hourli"})).status == 404
    past = {"trigger": {"at": "2020-01-01T00:00:00Z"}}
    assert (await client.post(f"{V1}/schedules/preview", past)).data["fires"] == []


def test_a_preview_for_a_job_that_is_spread_has_the_instants_of_its_trigger():
    start = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
    fires = fires_of(Cron("0 * * * *", timezone="UTC"), Policy(spread=timedelta(minutes=30)), start, 3)
    assert [f"{one:%H:%M:%S}" for one in fires] == ["11:00:00", "12:00:00", "13:00:00"]


# -- the whole


async def test_status_workers_and_who_asks(client):
    assert (await client.get(f"{V1}/status")).data["running"] is True
    assert len((await client.get(f"{V1}/workers")).items) == 1
    assert (await client.get(f"{V1}/whoami")).data == {
        "name": "anyone", "scope": "admin", "scopes": ["read", "operate", "admin"], "via": "open",
    }  # fmt: skip


# -- the old addresses


async def test_the_old_scheduler_status_lists_schedules(client):
    [one] = (await client.get("/tasks/scheduler/status")).data
    assert (one["id"], one["name"], one["trigger"]) == ("hourly", "hourly", "every 1h")
    assert one["next_run"]


async def test_the_old_worker_status_follows_the_newest_run(pair):
    scheduler, client = pair
    idle = (await client.get("/tasks/worker/status")).data
    run = (await client.post("/tasks/waits")).data
    await scheduler.began.wait()
    busy = (await client.get("/tasks/worker/status")).data
    await scheduler.cancel(run["id"])
    await scheduler.wait(run["id"], timeout=10)
    await (await scheduler.submit("fails")).wait()
    failed = (await client.get("/tasks/worker/status")).data
    assert (idle["status"], idle["is_running"], idle["started_at"]) == ("idle", False, None)
    assert (busy["status"], busy["is_running"]) == ("running", True)
    assert (failed["status"], failed["last_error"]) == ("idle", "ValueError: =1+1 no luck")


async def test_an_old_task_takes_bare_parameters_and_is_refused_while_it_runs(client):
    first = await client.post("/tasks/add", {"a": 4})
    waiting, other = await asyncio.gather(client.post("/tasks/waits", {}), client.post("/tasks/waits", {}))
    assert (first.status, first.data["params"]) == (202, {"a": 4})
    assert sorted([waiting.status, other.status]) == [202, 409]
    begun, refused = sorted((waiting, other), key=lambda one: one.status)
    assert refused.data["run"] == begun.data["id"], "it says which run is in the way"


async def test_an_old_task_is_not_refused_for_a_run_that_was_asked_for_later(pair):
    scheduler, client = pair
    for _ in range(3):
        await scheduler.submit("waits", at="+2h")
    idle = (await client.get("/tasks/worker/status")).data
    assert (idle["status"], idle["is_running"]) == ("idle", False)
    assert (await client.post("/tasks/waits", {})).status == 202
    await scheduler.began.wait()
    for _ in range(3):
        await scheduler.submit("waits", at="+2h")
    assert (await client.get("/tasks/worker/status")).data["status"] == "running"
    assert (await client.post("/tasks/waits", {})).status == 409


async def test_the_old_run_of_all_waits_and_tells_what_failed(client):
    await client.post(f"{V1}/jobs/waits/disable")
    failed = await client.post("/admin/tasks/run")
    await client.post(f"{V1}/jobs/fails/disable")
    well = await client.post("/admin/tasks/run")
    assert (failed.status, failed.code) == (500, "failed")
    assert "no luck" in failed.data["detail"]
    assert (well.status, well.data["status"], len(well.data["runs"])) == (200, "success", 2)
    assert {run["cause"] for run in well.data["runs"]} == {"api"}


async def test_the_old_run_of_all_does_not_wait_for_the_end_of_a_pause(client):
    await client.post(f"{V1}/pause")
    refused = await client.post("/admin/tasks/run")
    assert (refused.status, refused.code) == (409, "conflict") and "is paused" in refused.data["detail"]


async def test_the_old_run_of_all_does_not_wait_for_a_worker_where_there_is_none(host):
    scheduler = shop()
    async with asyncio.timeout(20), host(scheduler, auth="open", start=False) as client:
        before = await client.post("/admin/tasks/run")
        async with scheduler:
            run = await scheduler.submit("waits")
            await scheduler.began.wait()
            stopping = asyncio.ensure_future(scheduler.stop(grace="1h"))
            while scheduler.is_running:
                await asyncio.sleep(0)
            meanwhile = await client.post("/admin/tasks/run")
            await scheduler.cancel(run.id)
            await stopping
        for refused in (before, meanwhile, await client.post("/admin/tasks/run")):
            assert (refused.status, refused.code) == (409, "conflict")
            assert refused.data["detail"] == "no worker runs jobs, and the scheduler does not run here"
        await scheduler.close()


async def test_the_old_processors_are_switched(client):
    off = await client.post("/admin/control_processors/add", {"enabled": False, "reason": "old"})
    found = {one["name"]: one for one in (await client.get("/admin/control_processors")).data}
    assert off.data == found["add"]
    assert (found["add"]["enabled"], found["add"]["by"], found["add"]["reason"]) == (False, "anyone", "old")
    assert (await client.post("/admin/control_processors/add", {"enabled": True})).data["enabled"] is True
    assert (await client.post("/admin/control_processors/add", {})).status == 422
    await client.post(f"{V1}/jobs/add/pause", {"reason": "look"})
    found = {one["name"]: one for one in (await client.get("/admin/control_processors")).data}
    assert (found["add"]["enabled"], found["add"]["by"]) == (True, None), "a pause switches nothing on"


# -- the protocol


async def test_what_has_not_changed_is_not_sent_again(client):
    first = await client.get(f"{V1}/jobs/add")
    again = await client.get(f"{V1}/jobs/add", headers={"if-none-match": first.headers["etag"]})
    await client.post(f"{V1}/jobs/add/disable")
    changed = await client.get(f"{V1}/jobs/add", headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert changed.status == 200


async def test_a_wrong_method_is_told_the_right_ones(client):
    answer = await client.get(f"{V1}/jobs/add/submit")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method-not-allowed", "POST")
    assert (await client.get("/nothing")).code == "not-found"


async def test_head_is_get_without_its_body(client):
    got, head = await client.get(f"{V1}/jobs"), await client.request("HEAD", f"{V1}/jobs")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", got.headers["etag"])
    assert (await client.request("HEAD", f"{V1}/events")).status == 200


@pytest.mark.parametrize(
    ("raw", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"params": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"params": {"a": 1, "b": 2, "a": 3}}', "application/json", 400),
        (b"[" * 20_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"parms": {}}', "application/json", 422),
        (b'{"params": []}', "application/json", 422),
        (b'{"params": {"a": ' + b"9" * 5000 + b"}}", "application/json", 400),
        (b"params=1", "application/x-www-form-urlencoded", 415),
        (b'{"params": {"a": 1}, "reason": "\\ud800"}', "application/json", 422),
        (b'{"params": {"\\ud800": 1}}', "application/json", 422),
    ],
)
async def test_a_body_that_cannot_be_is_refused(client, raw, kind, status):
    answer = await client.request("POST", f"{V1}/jobs/add/submit", raw=raw, headers={"content-type": kind})
    assert (answer.status, answer.data["status"]) == (status, status)
    assert (await client.get(f"{V1}/runs")).items == []


async def test_every_answer_says_that_nothing_else_may_be_made_of_it(client):
    for answer in (await client.get(f"{V1}/jobs"), await client.get("/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["taskloop-request-id"]
        assert "no-" in answer.headers["cache-control"]


async def test_a_store_that_does_not_answer_is_told_without_its_file(host, tmp_path):
    scheduler = shop()
    scheduler.furnish(store=tmp_path / "missing" / "app.db")
    told = []
    for auth in ("open", lambda request: Reader()):
        async with host(scheduler, auth=auth, start=False) as client:
            told.append(await client.get(f"{V1}/runs"))
            assert (await client.get("/readyz")).status == 503
    assert [(one.status, one.code, one.headers["retry-after"]) for one in told] == [(503, "store-unavailable", "5")] * 2
    assert "app.db" in told[0].body.decode()
    assert "app.db" not in told[1].body.decode()


class Reader:
    name, scope = "rita", "read"


async def test_a_trigger_that_is_refused_is_told_as_it_was_given(client):
    """A time from now was told as the instant it had been made."""
    answer = await client.post(f"{V1}/schedules/preview", {"trigger": {"at": "+5m", "every": "1h"}})
    assert answer.status == 422
    assert "{'at': '+5m', 'every': '1h'}: it has every and at" in answer.data["detail"]


async def test_a_schedule_that_fires_once_is_previewed_as_that(client):
    told = (await client.post(f"{V1}/schedules/preview", {"trigger": {"at": "2030-01-01T00:00:00Z"}})).data
    assert told["fires"] == ["2030-01-01T00:00:00Z"]
