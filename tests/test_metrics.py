"""Figures for Prometheus: counted from events, asked of the store, written so that Prometheus can read them."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from web_clients import HOSTS

from taskloop import Options, Retry, TaskScheduler
from taskloop.metrics import Metrics, _written

pytestmark = pytest.mark.anyio


def read(text):
    """Every sample, by its name and the values of its labels."""
    families = text_string_to_metric_families(text.decode())
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples
    }  # fmt: skip


@pytest.fixture
def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.every("1m", first="after")
    async def tick():
        await asyncio.sleep(2)

    @scheduler.job(retry=Retry(2, first="1s"))
    async def fails():
        raise ValueError

    @scheduler.every("1h", first="after", enabled=False)
    async def off(): ...

    return scheduler


async def test_runs_are_counted_by_job_and_end_with_their_durations_and_latenesses(shop, virtual_time):
    metrics = Metrics(shop)
    async with virtual_time(shop) as time:
        await time.advance("3m5s")
        await time.until((await shop.submit("fails")).wait())
        await time.advance("1h")
        found = read(await metrics.text())
        assert found["taskloop_runs_total", ("job", "tick"), ("state", "succeeded")] == 63
        assert found["taskloop_runs_total", ("job", "fails"), ("state", "failed")] == 1
        assert found["taskloop_retries_total", ("job", "fails")] == 1
        assert found["taskloop_skips_total", ("job", "off"), ("reason", "disabled")] >= 1
        took = {key[-1][1]: value for key, value in found.items() if key[0] == "taskloop_run_duration_seconds_bucket"
                and ("job", "tick") in key}  # fmt: skip
        assert (took["1.0"], took["5.0"], took["+Inf"]) == (0, 63, 63)
        assert found["taskloop_run_duration_seconds_sum", ("job", "tick")] == pytest.approx(126)
        assert found["taskloop_run_lateness_seconds_bucket", ("job", "tick"), ("le", "0.01")] == 63
        assert found["taskloop_run_lateness_seconds_count", ("job", "fails")] == 1, "its second attempt is not late"


async def test_skips_that_are_decided_at_once_are_all_counted_and_those_added_to_a_record_later_are_not(
    shop, virtual_time
):
    metrics = Metrics(shop)
    async with virtual_time(shop) as time:
        await time.advance("1s")
        await shop.pause("tick")
        await time.advance("47m")
        await shop.resume("tick", missed="skip")
        await time.advance("3h")
        found = read(await metrics.text())
        assert found["taskloop_skips_total", ("job", "tick"), ("reason", "missed")] == 47
        assert found["taskloop_skips_total", ("job", "off"), ("reason", "disabled")] == 1
        [off] = await shop.runs("off", state="skipped")
        assert off.count == 3, "its record has them all"


async def test_a_job_is_counted_from_nought_on_for_of_what_begins_with_one_the_first_is_missed(shop, virtual_time):
    metrics = Metrics(shop)
    async with virtual_time(shop) as time:
        found = read(await metrics.text())
        for state in ("succeeded", "failed", "interrupted"):
            assert found["taskloop_runs_total", ("job", "fails"), ("state", state)] == 0
        assert found["taskloop_retries_total", ("job", "fails")] == 0
        assert ("taskloop_retries_total", ("job", "tick")) not in found, "it is never tried again"
        await time.until((await shop.submit("fails")).wait())
        assert read(await metrics.text())["taskloop_runs_total", ("job", "fails"), ("state", "failed")] == 1


async def test_a_wait_for_the_next_attempt_is_no_duration_nor_is_that_for_the_end_of_a_dead_worker(virtual_time):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.job(retry=Retry(2, first="1h"))
    async def fails():
        raise ValueError

    @scheduler.job()
    async def long():
        await asyncio.sleep(3600)

    metrics = Metrics(scheduler)
    async with virtual_time(scheduler) as time:
        waits = await scheduler.submit("fails")
        await scheduler.submit("long")
        await time.advance("30m")
        await scheduler.cancel(waits.id)
        await time.crash()
        await time.restart(after="10m")
        await time.advance("1m")
        found = read(await metrics.text())
    assert found["taskloop_runs_total", ("job", "fails"), ("state", "cancelled")] == 1
    assert found["taskloop_runs_total", ("job", "long"), ("state", "interrupted")] == 1
    assert not [key for key in found if key[0].startswith("taskloop_run_duration")]


async def test_how_the_whole_stands_is_asked_of_the_store(shop, virtual_time):
    metrics = Metrics(shop)
    async with virtual_time(shop) as time:
        await time.until((await shop.submit("fails")).wait())
        await shop.pause()
        found = read(await metrics.text())
        assert found["taskloop_store_up",] == 1 and found["taskloop_paused",] == 1 and found["taskloop_workers",] == 1
        assert (
            found["taskloop_job_disabled", ("job", "off")] == 1 and found["taskloop_job_disabled", ("job", "tick")] == 0
        )
        assert found["taskloop_job_consecutive_failures", ("job", "fails")] == 1
        assert found["taskloop_job_failing", ("job", "fails")] == 1, "a pause mends nothing"
        assert ("taskloop_job_last_success_timestamp_seconds", ("job", "fails")) not in found, "it never did"
        due = found["taskloop_job_next_due_timestamp_seconds", ("job", "tick")]
        assert due - time.now.timestamp() == pytest.approx(60, abs=1)


async def test_what_needs_a_person_is_counted_by_kind_that_a_breaker_has_switched_off_too(virtual_time):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.job(pause_after=2)
    async def fails():
        raise ValueError

    metrics = Metrics(scheduler)
    async with virtual_time(scheduler) as time:
        assert read(await metrics.text())["taskloop_attention", ("kind", "tripped")] == 0
        for _ in range(2):
            await time.until((await scheduler.submit("fails")).wait())
        found = read(await metrics.text())
        kinds = {one["condition"] for one in (await scheduler.status()).attention}
    assert found["taskloop_attention", ("kind", "tripped")] == 1
    assert kinds <= {key[1][1] for key in found if key[0] == "taskloop_attention"}


async def test_who_only_submits_is_no_worker_and_what_waits_there_says_that_none_runs(virtual_time):
    scheduler = TaskScheduler(options=Options(enabled=False))

    @scheduler.job()
    async def waits(): ...

    metrics = Metrics(scheduler)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("waits")
        await time.advance("1m")
        assert read(await metrics.text())["taskloop_workers",] == 0, "by which monitoring/alerts.yml calls somebody"
        [overdue] = (await scheduler.status()).attention
        assert overdue["condition"] == "overdue" and overdue["text"].endswith("; no worker runs")


async def test_they_are_written_without_any_library(shop, virtual_time, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with virtual_time(shop):
        assert b'taskloop_runs_total{job="tick",state="failed"} 0\n' in await Metrics(shop).text()


def test_a_label_may_hold_whatever_there_is():
    word = 'a "quoted" \\n, a \n line and a \\ at the end \\'
    found = read(_written([("gauge", "taskloop_odd", "What is odd", ("job", "other"), [((word, ""), 1)])]))
    assert found == {("taskloop_odd", ("job", word), ("other", "")): 1}


async def test_without_a_store_the_figures_of_this_process_are_told(tmp_path):
    scheduler = TaskScheduler(tmp_path / "is" / "not" / "there.db", options=Options())
    found = read(await Metrics(scheduler).text())
    assert found["taskloop_store_up",] == 0 and found["taskloop_loop_blocks_total",] == 0
    assert not any(key[0].startswith("taskloop_job") for key in found)


async def test_of_a_started_scheduler_whose_store_is_away_it_is_told_and_nothing_of_the_whole(tmp_path):
    scheduler, path = TaskScheduler(tmp_path / "app.db", options=Options(grace=timedelta(0))), tmp_path / "app.db"
    metrics = Metrics(scheduler)
    async with scheduler:
        assert read(await metrics.text())["taskloop_store_up",] == 1
        path.rename(tmp_path / "away.db")
        async with asyncio.timeout(10):
            while read(await metrics.text())["taskloop_store_up",] != 0:
                await asyncio.sleep(0.02)
        assert not [
            key for key in read(await metrics.text()) if key[0].startswith(("taskloop_workers", "taskloop_paused"))
        ]
        (tmp_path / "away.db").rename(path)


async def test_what_is_closed_counts_no_more(shop, virtual_time):
    metrics = Metrics(shop)
    metrics.close()
    async with virtual_time(shop) as time:
        await time.advance("5m")
        found = read(await metrics.text())
        assert {value for key, value in found.items() if key[0] == "taskloop_runs_total"} == {0}


@pytest.mark.parametrize("host", sorted(HOSTS))
async def test_the_route_gives_them_to_who_may_read(shop, host, no_task_outlives_the_fixture):
    async with HOSTS[host](shop, auth="open") as client:
        await (await shop.submit("fails")).wait()
        answer = await client.get("/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert read(answer.body)["taskloop_runs_total", ("job", "fails"), ("state", "failed")] == 1


async def test_the_route_is_closed_to_who_has_no_token(shop, no_task_outlives_the_fixture):
    async with HOSTS["asgi"](shop) as client:
        assert (await client.get("/metrics")).status in (401, 403)
