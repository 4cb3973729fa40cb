"""Events over HTTP: each once, in order, taken up where they were left; nobody who listens can hold anything up."""

from __future__ import annotations

import asyncio
import gc
import json
from datetime import timedelta

import pytest
from stories import START
from web_clients import HOSTS, V1

from taskloop import Options, TaskScheduler
from taskloop.testing import virtual_time
from taskloop.web import live
from taskloop.web.live import Live
from taskloop.web.problems import Problem

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.job()
    async def add(a: int = 1) -> int:
        return a

    @scheduler.job()
    async def fails():
        raise ValueError("no luck")

    return scheduler


def read(chunk):
    """The events of a chunk, as (id, name, data)."""
    found = []
    for block in chunk.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


# -- in both hosts


async def test_what_happens_is_told_in_order_with_ids(host):
    scheduler = shop()
    async with host(scheduler, auth="open") as client, client.stream(f"{V1}/events") as stream:
        run = await (await scheduler.submit("add", {"a": 5})).wait()
        told = [await stream.event() for _ in range(3)]
    assert [one["event"] for one in told] == ["submitted", "started", "succeeded"]
    assert [set(one["data"]) for one in told] == [{"name", "at", "run", "job", "data"}] * 3
    assert (told[2]["data"]["run"]["id"], told[2]["data"]["run"]["result"], told[2]["data"]["job"]) == (
        run.id,
        5,
        "add",
    )
    numbers = [int(one["id"].rpartition("-")[2]) for one in told]
    assert numbers == sorted(set(numbers))


async def test_who_comes_back_is_told_what_was_missed_and_nothing_twice(host):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        async with client.stream(f"{V1}/events?name=succeeded") as stream:
            await (await scheduler.submit("add", {"a": 1})).wait()
            first = await stream.event()
        await (await scheduler.submit("add", {"a": 2})).wait()
        async with client.stream(f"{V1}/events?name=succeeded", {"last-event-id": first["id"]}) as stream:
            await (await scheduler.submit("add", {"a": 3})).wait()
            told = [await stream.event() for _ in range(2)]
    assert [one["data"]["run"]["result"] for one in told] == [2, 3]


async def test_events_are_narrowed_by_name_job_and_run(host):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        async with client.stream(f"{V1}/events?job=fails&name=submitted,failed") as stream:
            await (await scheduler.submit("add")).wait()
            await (await scheduler.submit("fails")).wait()
            told = [await stream.event() for _ in range(2)]
        assert (await client.get(f"{V1}/events?name=nonsense")).status == 422
    assert [(one["event"], one["data"]["job"]) for one in told] == [("submitted", "fails"), ("failed", "fails")]


async def test_a_stream_ends_by_itself_when_the_scheduler_stops(host):
    scheduler = shop()
    async with host(scheduler, auth="open") as client, client.stream(f"{V1}/events") as stream:
        await scheduler.stop()
        assert await stream.event() is None


# -- by themselves, on virtual time


async def test_who_wants_few_of_the_events_comes_back_without_having_missed_any(monkeypatch):
    monkeypatch.setattr(live, "KEPT", 200)
    async with virtual_time(shop()) as time:
        events, place = Live(time.scheduler), ""

        async def listen():
            nonlocal place
            async for chunk in events.stream(names=["failed"]):
                for line in chunk.decode().splitlines():
                    place = line.removeprefix("id: ") if line.startswith("id: ") else place
                    assert not line.startswith("event"), line

        task = asyncio.ensure_future(listen())
        for _ in range(100):  # three events each
            await time.scheduler.submit("add")
            await time.advance("1s")
        task.cancel()
        await asyncio.wait({task})
        again = events.stream(place, names=["failed"])
        assert b"gap" not in await anext(again)
        await time.scheduler.submit("fails")
        await time.run_until_idle()
        assert [name for _, name, _ in read(await anext(again))] == ["failed"]
        await again.aclose()


async def test_a_silent_stream_says_that_it_lives_every_quarter_of_a_minute():
    async with virtual_time(shop()) as time:
        stream = Live(time.scheduler).stream()
        await anext(stream)
        said = []

        async def listen():
            async for chunk in stream:
                if chunk:
                    said.append((time.now - START, chunk))

        task = asyncio.ensure_future(listen())
        await time.advance("1m")
        task.cancel()
        await asyncio.wait({task})
        await stream.aclose()
    assert [(at.total_seconds(), chunk) for at, chunk in said] == [(n, b": still here\n\n") for n in (15, 30, 45, 60)]


async def test_who_was_away_for_too_long_or_comes_from_another_process_is_told_of_a_gap(monkeypatch):
    monkeypatch.setattr(live, "KEPT", 4)
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        stream = streams.stream()
        await anext(stream)
        await (await time.scheduler.submit("add")).wait()
        [first, *_] = read(await anext(stream))
        for _ in range(3):
            await (await time.scheduler.submit("add")).wait()
        for last in (first[0], "0badcafe-1", "nonsense", f"{first[0].partition('-')[0]}-999"):
            late = streams.stream(last)
            assert [(name, data) for _, name, data in read(await anext(late))] == [("gap", {"after": last})]
            await late.aclose()
        await stream.aclose()


async def test_who_does_not_keep_up_is_let_go_and_finds_the_rest_later(monkeypatch):
    monkeypatch.setattr(live, "QUEUE", 5)
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        slow = streams.stream()
        await anext(slow)
        await time.scheduler.submit_many([time.scheduler["add"].bind(a=one) for one in range(8)])
        told = [one async for chunk in slow for one in read(chunk)]
        again = streams.stream(told[-1][0])
        await anext(again)
        rest = read(await anext(again))
        await again.aclose()
    assert [data["run"]["params"]["a"] for _, _, data in told] == [0, 1, 2, 3, 4]
    assert [data["run"]["params"]["a"] for _, name, data in rest if name == "submitted"] == [5, 6, 7]


async def test_too_many_listeners_are_refused_and_none_after_the_end(monkeypatch):
    monkeypatch.setattr(live, "MOST_LISTENERS", 1)
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        one = streams.stream()
        await anext(one)
        with pytest.raises(Problem, match="listen already"):
            streams.stream()
        streams.close()
        assert [chunk async for chunk in one if chunk] == []
        with pytest.raises(Problem, match="stopping"):
            streams.stream()


async def test_of_many_who_come_at_once_no_more_listen_than_may(monkeypatch):
    monkeypatch.setattr(live, "MOST_LISTENERS", 3)
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        many = [streams.changes() for _ in range(10)]  # as when all have asked, and none was answered yet
        begun = [await anext(one) for one in many]
        assert len(streams._gathering.pages) == 3 and begun[-1] == b"retry: 15000\n\n"
        assert [await anext(one, None) for one in many[3:]] == [None] * 7
        for one in many:
            await one.aclose()
        assert not streams._gathering.pages


async def test_all_pages_are_told_the_same_at_most_once_in_a_while_and_one_that_is_slow_to_look_at_all():
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        quick, slow = streams.changes(), streams.changes()
        for one in (quick, slow):
            await anext(one)
        heard = []

        async def listen() -> None:
            async for chunk in quick:
                heard.append((time.now, chunk))

        listening = asyncio.create_task(listen())
        began = time.now
        for number in range(20):
            await time.scheduler.submit("add", {"a": number})
            await time.advance(timedelta(seconds=0.1))
        listening.cancel()
        told = [(at, chunk) for at, chunk in heard if chunk]
        assert 8 <= len(told) <= 10 and told[-1][1] != b"event: changed\ndata: null\n\n"
        assert told[0][0] - began <= timedelta(seconds=live.APART_SECONDS), "it was told at once, or after the other"
        assert await anext(slow) == b"event: changed\ndata: null\n\n"


async def test_an_event_of_a_large_run_leaves_out_what_is_large():
    async with virtual_time(shop()) as time:
        time.scheduler.add_job(large)
        stream = Live(time.scheduler).stream(names=["succeeded"])
        await anext(stream)
        await (await time.scheduler.submit("large")).wait()
        chunk = await anext(stream)
        await stream.aclose()
    [(_, _, data)] = read(chunk)
    assert len(chunk) < 5_000
    assert (data["run"]["cut"], data["run"]["result"], data["run"]["state"]) == (True, None, "succeeded")


async def large():
    return ["x" * 1000] * 100


async def test_what_large_runs_came_to_is_not_kept_for_listeners_who_might_come():
    """A page that was open once cost a program of such jobs more than a gigabyte, for as long as it lived."""
    async with virtual_time(shop()) as time:
        time.scheduler.add_job(large)
        stream = Live(time.scheduler).changes()
        await anext(stream)
        await stream.aclose()
        for _ in range(5):
            await (await time.scheduler.submit("large")).wait()
        await time.run_until_idle()
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one) is list and one[:1] == ["x" * 1000]]


async def test_of_events_of_long_runs_so_many_fewer_are_kept(monkeypatch):
    monkeypatch.setattr(live, "KEPT_CHARACTERS", 7_000)
    async with virtual_time(shop()) as time:
        time.scheduler.add_job(middling)
        streams = Live(time.scheduler)
        stream = streams.stream(names=["succeeded"])
        await anext(stream)
        heard = []
        for _ in range(4):
            await (await time.scheduler.submit("middling")).wait()
            heard += [number for number, _, _ in read(await anext(stream))]
        await stream.aclose()
        late, early = streams.stream(heard[1], names=["succeeded"]), streams.stream(heard[0], names=["succeeded"])
        await anext(late)
        assert [number for number, _, _ in read(await anext(late))] == heard[2:]
        assert [name for _, name, _ in read(await anext(early))] == ["gap"]
        await late.aclose()
        await early.aclose()


async def middling():
    return {"text": "x" * 1000, "lines": ["y" * 100] * 20}


async def test_nobody_listens_to_the_scheduler_before_somebody_asks():
    async with virtual_time(shop()) as time:
        streams = Live(time.scheduler)
        assert not time.scheduler.feed.wanted("paused")
        stream = streams.stream()
        assert time.scheduler.feed.wanted("paused")
        streams.close()
        assert not time.scheduler.feed.wanted("paused")
        assert [chunk async for chunk in stream if b"event" in chunk] == []


async def test_an_event_from_another_thread_is_heard():
    async with virtual_time(shop()) as time:
        stream = Live(time.scheduler).stream()
        await anext(stream)
        await asyncio.to_thread(time.scheduler.feed.send, "store_lost", START, None, why="gone")
        assert [(name, data["data"]) for _, name, data in read(await anext(stream))] == [
            ("store_lost", {"why": "gone"})
        ]
        await stream.aclose()
