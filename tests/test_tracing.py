"""Attempts as OpenTelemetry spans, read back from the SDK's own exporter."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from taskloop import Options, Retry, RunContext, TaskScheduler, tracing
from taskloop.tracing import trace

pytestmark = pytest.mark.anyio


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


@pytest.fixture
def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

    @scheduler.every("1m", first="after")
    async def tick():
        await asyncio.sleep(2)

    @scheduler.job(retry=Retry(2, first="10s"))
    async def fails():
        await asyncio.sleep(3)
        raise ValueError("no luck")

    return scheduler


def seconds(span):
    return (span.end_time - span.start_time) / 1e9


async def test_each_attempt_is_a_span_from_its_start_to_its_end(shop, tracer, exporter, virtual_time):
    trace(shop, tracer)
    async with virtual_time(shop) as time:
        await time.advance("2m30s")
        [one, two] = exporter.get_finished_spans()
        assert [span.name for span in (one, two)] == ["run tick"] * 2 and seconds(one) == pytest.approx(2, abs=0.01)
        [_, run] = await time.runs("tick")
    assert two.attributes["taskloop.run"] == run.id and two.attributes["taskloop.schedule"] == "tick"
    assert two.attributes["taskloop.state"] == "succeeded" and two.status.status_code is StatusCode.UNSET
    assert two.attributes["taskloop.late_seconds"] < 0.1 and "taskloop.params" not in two.attributes


async def test_an_attempt_that_fails_has_its_error_and_the_next_a_span_of_its_own(shop, tracer, exporter, virtual_time):
    trace(shop, tracer)
    async with virtual_time(shop) as time:
        await time.until((await shop.submit("fails")).wait())
    spans = [span for span in exporter.get_finished_spans() if span.name == "run fails"]
    assert [(span.attributes["taskloop.attempt"], span.attributes["taskloop.state"]) for span in spans] == [
        (1, "retrying"), (2, "failed")
    ]  # fmt: skip
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR and span.status.description == "ValueError: no luck"
        assert span.events[0].attributes["exception.type"] == "ValueError"
        assert seconds(span) == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_spans_of_the_job_lie_below_that_of_its_attempt_and_no_run_below_another(shop, tracer, exporter, kind):
    async def on_loop():
        with tracer.start_as_current_span("inner"):
            await asyncio.sleep(0)

    def in_thread():
        with tracer.start_as_current_span("inner"):
            pass

    trace(shop, tracer)
    shop.add_job(on_loop if kind == "loop" else in_thread, name="outer", max_running=1)
    async with shop:
        with tracer.start_as_current_span("request"):
            runs = [await shop.submit("outer") for _ in range(3)]
        for run in runs:
            await run.wait()
    spans = exporter.get_finished_spans()
    outer = {span.context.span_id for span in spans if span.name == "run outer" and span.parent is None}
    assert len(outer) == 3 and {span.parent.span_id for span in spans if span.name == "inner"} == outer


async def test_a_step_is_a_span_below_its_attempt_and_above_what_it_does(shop, tracer, exporter, virtual_time):
    flow = shop.flow("video")

    @flow.step(retry=Retry(2, first="10s"))
    async def cut():
        with tracer.start_as_current_span("in cut"):
            await asyncio.sleep(1)
        raise ValueError

    @flow.step()
    def sound():
        with tracer.start_as_current_span("in sound"):
            pass

    @shop.job()
    async def fans(run: RunContext):
        await run.step("first", asyncio.sleep, 1)
        await asyncio.gather(*(run.step(f"part {n}", asyncio.sleep, 1) for n in range(2)))
        with tracer.start_as_current_span("afterwards"):
            pass

    trace(shop, tracer)
    async with virtual_time(shop) as time:
        for name in ("video", "fans"):
            await time.until((await shop.submit(name)).wait())
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    below = {(span.name, names[span.parent.span_id]) for span in spans if span.parent is not None}
    assert below == {
        ("step cut", "run video"), ("step sound", "run video"), ("in cut", "step cut"), ("in sound", "step sound"),
        ("step first", "run fans"), ("step part 0", "run fans"), ("step part 1", "run fans"), ("afterwards", "run fans"),
    }  # fmt: skip
    [cut] = [span for span in spans if span.name == "step cut"]
    assert cut.status.status_code is StatusCode.ERROR and cut.attributes["taskloop.attempt"] == 2
    assert seconds(cut) == pytest.approx(12, abs=0.1)


async def test_a_cancelled_run_says_so(shop, tracer, exporter, virtual_time):
    @shop.job()
    async def long():
        await asyncio.sleep(3600)

    trace(shop, tracer)
    async with virtual_time(shop) as time:
        handle = await shop.submit("long")
        await time.advance("5s")
        await shop.cancel(handle.id)
        await time.advance("1s")
    [span] = [span for span in exporter.get_finished_spans() if span.name == "run long"]
    assert span.attributes["taskloop.state"] == "cancelled" and span.status.status_code is StatusCode.ERROR


async def test_runs_that_others_have_taken_over_leave_room_for_those_that_follow(
    shop, tracer, exporter, virtual_time, monkeypatch, tmp_path
):
    """Each left a span open; after ten thousand of them no run had one any more."""
    monkeypatch.setattr(tracing, "MOST", 1)
    trace(shop, tracer)
    async with virtual_time(shop, store=f"sqlite:///{tmp_path}/shop.db") as time:
        await shop.submit("fails")
        await time.advance("1s")
        with closing(sqlite3.connect(tmp_path / "shop.db")) as db:  # what a worker does that takes this one for dead
            db.execute("UPDATE taskloop_runs SET state = 'interrupted', ended_at = 0, token = token + 1")
            db.commit()
        await time.advance("2m30s")
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["run fails", "run tick", "run tick"]
    assert [span.status.description for span in spans] == ["lost", None, None]


async def test_what_is_ended_makes_no_more_spans(shop, tracer, exporter, virtual_time):
    end = trace(shop, tracer)
    end()
    async with virtual_time(shop) as time:
        await time.advance("5m")
    assert exporter.get_finished_spans() == ()


async def test_without_an_sdk_a_run_is_not_disturbed(shop, virtual_time):
    trace(shop)
    async with virtual_time(shop) as time:
        await time.advance("5m")
        assert len(await time.runs("tick", state="succeeded")) == 4
