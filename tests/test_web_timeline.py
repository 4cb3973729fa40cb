"""The layout of the timeline, by itself, and its page."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_web_pages import BROWSER, shop, text
from web_clients import HOSTS

from taskloop.runs import Run, State
from taskloop.web.pages.timeline import LEAST, NEAR, WIDTH, lanes, ticks

pytestmark = pytest.mark.anyio
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW, END = START + timedelta(hours=1), START + timedelta(hours=2)


def run(number, minute, took=1.0, state=State.SUCCEEDED, job="a"):
    at = START + timedelta(minutes=minute)
    ended = None if state is State.RUNNING else at + timedelta(minutes=took)
    return Run(job=job, id=number, state=state, due_at=at, ready_at=at, created_at=at, started_at=at, ended_at=ended)


def laid(*runs, fires=()):
    return {lane.job: lane.marks for lane in lanes(runs, fires, START, END, NOW)}


def test_a_run_lies_where_it_was_and_is_as_wide_as_it_took():
    [mark] = laid(run(1, 30, took=12))["a"]
    assert (mark.x, mark.width, mark.kind, mark.run) == (250.0, 100.0, "succeeded", 1)
    assert mark.words == "run 1: succeeded after 12m 0s"
    assert laid(run(1, 30, took=0))["a"][0].width == LEAST


def test_a_run_in_hand_reaches_to_now_and_what_lies_outside_to_the_edge():
    assert laid(run(1, 30, state=State.RUNNING))["a"][0].end == 500.0
    [mark] = laid(run(1, -60, took=90))["a"]
    assert (mark.x, mark.width) == (0.0, 250.0)


def test_marks_that_would_lie_on_each_other_are_one_of_the_worst_state_and_lead_to_the_newest():
    [mark] = laid(run(1, 10, 0.1), run(2, 10.2, 0.1, State.FAILED), run(3, 10.4, 0.1))["a"]
    assert (mark.count, mark.kind, mark.run, mark.words) == (3, "failed", 3, "3 runs, the worst of them failed")


def test_what_comes_is_never_one_with_what_was():
    before, after = laid(run(1, 59.9, 0.1), fires=[(NOW, "a"), (NOW + timedelta(seconds=1), "a")])["a"]
    assert (before.kind, after.kind, after.count, after.words) == ("succeeded", "coming", 2, "2 × to come")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-30, 150), st.floats(0, 90), st.sampled_from(State)), max_size=60),
    st.lists(st.floats(60, 200), max_size=60),
)
def test_no_run_is_lost_and_no_mark_lies_on_another_or_outside(runs, fires):
    given_ = [run(number, *one) for number, one in enumerate(runs, 1)]
    marks = laid(*given_, fires=[(START + timedelta(minutes=one), "a") for one in fires]).get("a", [])
    assert sum(one.count for one in marks if one.kind != "coming") == len(runs)
    assert sum(one.count for one in marks if one.kind == "coming") == len(fires)
    for kind in (True, False):
        row = [one for one in marks if (one.kind == "coming") == kind]
        assert all(0 <= one.x and one.end <= WIDTH + LEAST + 1e-6 for one in row)
        assert all(right.x >= left.x for left, right in zip(row, row[1:], strict=False))


ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin", "Australia/Lord_Howe")


@given(st.integers(0, 400 * 24 * 60), st.integers(1, 90 * 24 * 60), st.sampled_from(ZONES))
def test_ticks_are_few_and_round_on_the_clock_of_the_pages(begin, minutes, zone):
    start = START + timedelta(minutes=begin)
    found = ticks(start, start + timedelta(minutes=minutes), ZoneInfo(zone))
    assert 1 <= len(found) <= 12
    assert all(0 <= place <= WIDTH + 1e-6 and at.microsecond == 0 for place, at in found)
    assert [place for place, _ in found] == sorted({place for place, _ in found})
    if minutes >= 5 * 24 * 60 + 1:  # what bears a day
        assert {(at.hour, at.minute) for _, at in found} == {(0, 0)}


def test_near_marks_of_far_windows_do_not_make_the_page_long():
    every_second = [run(number, number / 60, 0.001) for number in range(1, 3_600)]
    assert len(laid(*every_second)["a"]) < WIDTH / NEAR


@pytest.mark.parametrize("host", sorted(HOSTS))
async def test_the_page_draws_what_was_and_what_comes(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with HOSTS[host](scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        bad = await (await scheduler.submit("evil")).wait()
        answer = await client.get("/timeline?from=1h&to=6h")
        shown, body = text(answer), answer.body.decode()
        assert (await client.get("/timeline?from=x")).status == (await client.get("/timeline?to=9999d")).status == 422
    assert answer.status == 200 and "hourly is to come" in shown and f"evil run {bad.id}: failed" in shown
    assert re.search(rf'<a href="/taskloop/runs/{bad.id}"[^>]*><rect class="failed"', body) and "<script>" not in body


async def test_what_runs_rarely_has_its_marks_beside_what_runs_often(monkeypatch, no_task_outlives_the_fixture):
    monkeypatch.setattr("taskloop.web.api.between.MOST_RUNS", 5)
    scheduler = shop()

    @scheduler.every("2s", first="after")
    async def tick(): ...

    async with HOSTS["asgi"](scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        for job in ("evil", *["add"] * 9):
            await (await scheduler.submit(job, {"a": 1} if job == "add" else {})).wait()
        answer = await client.get("/timeline?from=1h&to=12h")
        first = await client.get("/")
    shown = text(answer)
    assert "tick at least" in shown and "hourly is to come; is to come" in shown, "12 hours have 21,600 ticks"
    assert "evil run 1: failed" in shown and "not all is shown" in shown
    heights = dict(re.findall(r'<rect class="(failed|succeeded)"[^>]* height="(\d+)"', answer.body.decode()))
    assert int(heights["failed"]) > int(heights["succeeded"]), "not by its colour alone"
    bars = re.findall(
        r'<rect class="coming" x="([\d.]+)" y="\d+" width="([\d.]+)"[^>]*><title>tick', answer.body.decode()
    )
    assert len(bars) == 1 and sum(map(float, bars[0])) > WIDTH - NEAR, "as drawn, it is as if all were there"
    assert text(first).count("tick") == 1, "next is the next fire of each schedule"


async def test_the_timeline_of_jobs_with_a_tag_or_name_keeps_its_room_for_those_alone(
    monkeypatch, no_task_outlives_the_fixture
):
    monkeypatch.setattr("taskloop.web.api.between.MOST_RUNS", 3)
    monkeypatch.setattr("taskloop.web.api.between.MOST_FIRES", 3)
    scheduler = shop()

    @scheduler.every("2s", first="after")
    async def tick(): ...

    @scheduler.every("5h", first="after", tags=("night",), title="The books")
    async def closing(): ...

    @scheduler.every("5h", first="after", tags=("late",))
    async def closing_late(): ...

    async with HOSTS["asgi"](scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        for job in ("closing", *["add"] * 6):
            await (await scheduler.submit(job, {"a": 1} if job == "add" else {})).wait()
        seen = {
            asked: (await client.get(f"/api/v1/timeline?from=1h&to=6h&{asked}")).data
            for asked in ("tag=night", "text=BOOKS", "text=clos&tag=night", "job=closing", "job=closing&tag=late")
        }
        one, unknown = await client.get("/timeline?job=closing"), await client.get("/api/v1/timeline?job=nobody")
        page, none = await client.get("/timeline?tag=night&to=6h"), await client.get("/timeline?text=nobody")
        everyone, about = await client.get("/timeline?from=1h&to=6h"), await client.get("/jobs/closing")
    *found, nothing = seen.values()
    assert nothing["lanes"] == [] and all([lane["job"] for lane in one["lanes"]] == ["closing"] for one in found)
    assert all(len(lane["runs"]) == len(lane["coming"]) == 1 for one in found for lane in one["lanes"])
    assert all(one["complete"] for one in found) and "not all is shown" in text(everyone)
    assert (
        'name="tag" value="night"' in page.body.decode() and "from=24h&amp;to=24h&amp;tag=night" in page.body.decode()
    )
    assert "/timeline?from=24h&amp;to=24h&amp;job=closing" in about.body.decode()
    assert "Of closing alone. All jobs" in text(one) and 'name="job" value="closing"' in one.body.decode()
    assert unknown.status == 404
    assert "Nothing of such a job ran" in text(none) and "All jobs" in text(none)


async def test_what_comes_due_of_a_job_that_is_off_is_not_said_to_run(no_task_outlives_the_fixture):
    scheduler = shop()
    async with HOSTS["asgi"](scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        before = text(await client.get("/"))
        await scheduler.disable("hourly", reason="moving", until="+2h")
        page, now = await client.get("/timeline?from=1h&to=6h"), text(await client.get("/"))
        [lane] = (await client.get("/api/v1/timeline?to=6h")).data["lanes"]
    assert page.body.count(b'class="off"') == 2 and "is to come, but the job is off" in text(page)
    assert [one["fate"] for one in lane["coming"]] == ["skipped"] * 2 + ["runs"] * 4
    assert "hourly" in before and "hourly" not in now.partition("Next")[2].partition("Last failures")[0]
