"""Who is told of what needs a person: once when it comes up, once when it is over, and never at the cost of a run."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from web_clients import HOSTS, V1

from taskloop import Every, Options, TaskScheduler, attention
from taskloop.attention import Bulletin, Change, Item, Webhook, genuine, signature, watch_attention
from taskloop.durations import rfc3339
from taskloop.errors import BadDuration, BadInstant, BadSettings

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "0123456789abcdef"


def shop(store="sqlite:///:memory:"):
    scheduler = TaskScheduler(store, options=Options(grace=timedelta(0)))

    @scheduler.job()
    async def pays(well: bool = False):
        if not well:
            raise ConnectionRefusedError("port 5432 after 3.2 s")

    return scheduler


@contextmanager
def receiver(*statuses):
    """A service that answers so, one after the other and then 200: what it was sent, as (headers, body)."""
    calls, left = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            status = left.pop(0) if left else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self):
            calls.append(("GET", b""))

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", calls
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_webhook_is_told_once_when_a_job_fails_and_once_when_it_is_well_however_it_answers():
    scheduler = shop()
    with receiver(500, 302) as (address, calls):
        watch = watch_attention(scheduler, Webhook(address, SECRET), every="20ms")
        async with scheduler:
            for _ in range(3):
                await (await scheduler.submit("pays")).wait()
            await until(lambda: len(calls) == 3)
            await (await scheduler.submit("pays", {"well": True})).wait()
            await until(lambda: len(calls) == 4)
        watch.close()
        watch._thread.join(5)
    told = [json.loads(body) for _, body in calls]
    assert [one["change"] for one in told] == ["opened", "opened", "opened", "closed"], "the first two were refused"
    item = told[0]["item"]
    assert (item["key"], item["severity"], item["job"]) == ("failing:pays", "critical", "pays")
    assert item["since"] == told[-1]["item"]["since"] and "port 5432" in item["text"]
    headers, body = calls[0]
    assert genuine(SECRET, body, headers["Taskloop-Signature"]) and headers["Content-Type"] == "application/json"
    assert not genuine(SECRET, body + b" ", headers["Taskloop-Signature"])
    assert not genuine(SECRET[::-1], body, headers["Taskloop-Signature"])


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_receiver_that_answers_byte_by_byte_is_given_up(begin, monkeypatch):
    monkeypatch.setattr(attention, "CALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drips():
            taken, _ = server.accept()
            with taken, suppress(OSError):
                taken.sendall(begin)
                for _ in range(100):
                    taken.sendall(b"X")
                    time.sleep(0.05)

        thread = threading.Thread(target=drips)
        thread.start()
        with pytest.raises(TimeoutError, match="within 0.2 s"):
            Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET)(Change("opened", item(), NOW))
        thread.join(3)
        assert not thread.is_alive()


async def test_a_listener_that_hangs_or_raises_holds_up_nobody_and_is_told_again(lines):
    scheduler, release, heard, raising = shop(), threading.Event(), [], []
    watches = [watch_attention(scheduler, lambda _: release.wait(20), every=0.02)]

    async def listens(change):
        heard.append(change)

    def raises(change):
        raising.append(change.what)
        if len(raising) < 3:
            raise ValueError("not today")

    class Listens:
        async def __call__(self, change):
            await listens(change)

    async with scheduler:
        listeners = (listens, Listens(), lambda change: listens(change), raises)
        watches += [watch_attention(scheduler, one, every=0.02) for one in listeners]
        for _ in range(20):
            await (await scheduler.submit("pays")).wait(5)
        await until(lambda: len(heard) == len(raising) == 3)
        assert [one.what for one in heard] == ["opened"] * 3 and raising == ["opened"] * 3
    assert lines.count("attention.untold") == 2
    release.set()
    for one in watches:
        one.close()
        await asyncio.to_thread(one._thread.join, 5)  # what it asks of this loop just now is answered


async def test_what_stands_is_told_at_the_start_though_nothing_happens(tmp_path):
    before = shop(tmp_path / "a.db")
    async with before:
        await (await before.submit("pays")).wait()
    scheduler, heard = shop(tmp_path / "a.db"), []
    watch = watch_attention(scheduler, lambda change: heard.append(change.item.key), every="20ms")
    for _ in range(2):
        async with scheduler:
            await until(lambda: heard == ["failing:pays"])
    watch.close()


async def test_what_a_start_catches_up_was_never_overdue(tmp_path, virtual_time):
    def shop_with_shelves():
        scheduler = shop(tmp_path / "a.db")

        async def counted():
            pass

        for number in range(50):
            scheduler.add_job(counted, Every("1m"), name=f"shelf_{number}", missed="skip")
        return scheduler

    before = shop_with_shelves()
    async with virtual_time(before, at=datetime.now(UTC) - timedelta(hours=1), store=tmp_path / "a.db") as time_:
        await time_.until((await before.submit("pays")).wait())
    scheduler, heard = shop_with_shelves(), []
    watch = watch_attention(scheduler, lambda change: heard.append(change.item.key), every="500ms")
    async with scheduler:
        await until(lambda: "failing:pays" in heard)
        watch.close()
        await asyncio.to_thread(watch._thread.join, 5)  # all that it found with that is told
    assert heard == ["failing:pays"]


async def test_an_item_that_cannot_be_told_keeps_no_other_from_being_told(lines):
    scheduler, heard = shop(), []

    async def fails():
        raise ValueError

    names = [f"job_{number}" for number in range(8)]
    for name in names:
        scheduler.add_job(fails, name=name)

    def tell(change):
        if change.item.job in names[:4]:
            raise OSError("too large")
        heard.append(change.item.job)

    async with scheduler:
        for name in names:
            await (await scheduler.submit(name)).wait()
        watch = watch_attention(scheduler, tell, every="20ms")
        await until(lambda: sorted(heard) == names[4:])
        watch.close()
        await asyncio.to_thread(watch._thread.join, 5)
    assert "attention.untold" in lines


def item(text="x", key="failing:a", severity="critical"):
    return Item(key, "failing", severity, text, "a")


def news(bulletin, *items, after=0):
    """What is told, all of it heard."""
    found = bulletin.news(items, NOW + timedelta(minutes=after))
    for one in found:
        bulletin.heard(one)
    return [(one.what, one.item.text) for one in found]


def test_an_item_is_told_when_it_comes_when_it_is_another_and_when_it_is_over():
    bulletin = Bulletin()
    assert news(bulletin, item("no route, 3 s")) == [("opened", "no route, 3 s")]
    assert news(bulletin, item("no route, 4 s")) == [], "numbers make it no other"
    assert news(bulletin, item("no money")) == [("changed", "no money")]
    assert bulletin.news([item("no money")], NOW) == []
    assert news(bulletin, item(key="b")) == [("closed", "no money"), ("opened", "x")]
    assert bulletin.told["b"].since == NOW, "since it was seen first, where nobody knows better"


def test_how_long_something_has_lasted_makes_it_no_other():
    bulletin = Bulletin()
    for words in ("300 milliseconds", "59 seconds", "1 minute", "10 minutes 30 seconds", "1 hour 1 minute 1 second"):
        told = news(bulletin, item(f"run 21 has been running for {words}"))
        assert [what for what, _ in told] == (["opened"] if words == "300 milliseconds" else [])


def test_while_the_store_is_away_nothing_is_over():
    bulletin = Bulletin()
    news(bulletin, item())
    assert news(bulletin, Item("store", "store", "critical", "gone")) == [("opened", "gone")]
    assert news(bulletin, item()) == [("closed", "gone")]


async def test_a_job_that_fails_needs_somebody_also_while_it_is_at_it_again(virtual_time):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.every("10m", first="after")
    async def imports():
        await asyncio.sleep(60)
        raise OSError("no space")

    async with virtual_time(scheduler) as time:
        await time.advance("11m")
        for _ in range(3):
            await time.advance("9m30s")
            [running] = await scheduler.runs(state="running")
            [one] = (await scheduler.status()).attention
            assert (one["condition"], one["job"], one["text"]) == ("failing", "imports", "OSError: no space")
            assert one["since"] == rfc3339((await scheduler.runs(state="failed"))[-1].ended_at), "of the first of them"
            await time.advance("30s")


@pytest.mark.parametrize("whole", [True, False], ids=["all", "each job"])
async def test_what_needed_somebody_before_a_pause_needs_somebody_still(virtual_time, whole):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))
    names = ("breaks", "hangs", "works", "rests")

    @scheduler.every("10m", first="after")
    async def breaks():
        raise OSError("no space")

    @scheduler.every("10m", first="after", expect="5m")
    async def hangs():
        await asyncio.sleep(86400)

    @scheduler.every("10m", first="after")
    async def works(): ...

    @scheduler.every("10m", first="after")
    async def rests():
        raise OSError("not today")

    async with virtual_time(scheduler) as time:
        await time.advance("25m")
        await scheduler.disable("rests", reason="known")
        before = (await scheduler.status()).attention
        assert [(one["condition"], one["job"]) for one in before] == [("failing", "breaks"), ("stuck", "hangs")]
        for name in [None] if whole else names:
            await scheduler.pause(name)
        paused = await scheduler.status()
        assert paused.attention == before
        assert {one.condition for one in paused.standings} == {"paused", "disabled"}
        await time.advance("1h")
        assert [one.kind for one in await attention.found(scheduler)] == ["failing", "stuck"], (
            "and nothing is overdue: it is held"
        )
        for name in [None] if whole else names:
            await scheduler.resume(name, missed="skip")
        assert [one.kind for one in await attention.found(scheduler)] == ["failing", "stuck"]


def test_what_was_not_heard_is_told_again():
    bulletin = Bulletin()
    assert [one.what for one in bulletin.news([item()], NOW)] == ["opened"]
    assert [one.what for one in bulletin.news([item()], NOW)] == ["opened"]


def test_a_muted_item_is_told_again_at_the_end_if_it_still_stands():
    bulletin = Bulletin()
    news(bulletin, item())
    bulletin.mute("failing:a", NOW + timedelta(minutes=10))
    assert news(bulletin, item("y"), after=1) == news(bulletin, after=2) == []
    assert news(bulletin, item("y"), after=10) == [("changed", "y")] and news(bulletin, item("y"), after=11) == []
    bulletin.mute("failing:a", NOW + timedelta(minutes=20))
    assert news(bulletin, after=11) == [] and news(bulletin, after=20) == [("closed", "y")]


async def test_a_mute_has_an_end_and_a_reason():
    watch = watch_attention(shop(), print)
    with pytest.raises(BadInstant):
        watch.mute("failing:a", until="2020-01-01T00:00:00Z", reason="old")
    with pytest.raises(ValueError, match="reason is empty"):
        watch.mute("failing:a", until="2h", reason=" ")
    watch.mute("failing:a", until="2h", reason="known")
    watch.close()
    with pytest.raises(BadDuration):
        watch_attention(shop(), print, every=0)
    with pytest.raises(TypeError, match="a listener is a function that takes the change, got NoneType"):
        watch_attention(shop(), None)


def test_a_webhook_that_cannot_be_is_refused_with_all_that_is_wrong():
    with pytest.raises(BadSettings) as raised:
        Webhook("file:///etc/passwd", "short")
    assert len(raised.value.problems) == 2
    with pytest.raises(BadSettings, match="has 0 characters, 16 or more"):
        Webhook("https://alerts.example/", None)
    for address in (
        "https://",
        "http://a b/",
        "http://a/\r\nx: y",
        "https://a:b/",
        "http://ünder.example/",
        "http://[/",
        None,
    ):
        with pytest.raises(BadSettings, match="address of a webhook"):
            Webhook(address, SECRET)
    with pytest.raises(BadSettings) as raised:
        Webhook("https://ann:hunter2@alerts.example/", SECRET)
    assert "a user in it" in str(raised.value) and "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "header", [None, "", "t=1,v1=", "v1=00,t=1", f"t={'9' * 30},v1={'0' * 64}", "é", f"t=١,v1={'0' * 64}"]
)
def test_a_signature_that_is_none_or_is_old_is_not_genuine(header):
    assert not genuine(SECRET, b"{}", header, now=1)
    good = signature(SECRET, b"{}", 1_000)
    assert genuine(SECRET, b"{}", good, now=1_299) and not genuine(SECRET, b"{}", good, now=1_301)


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_what_needs_a_person_is_a_list_with_keys_that_stay(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        assert (await client.get(f"{V1}/attention")).items == []
        for _ in range(2):
            await (await scheduler.submit("pays")).wait()
        [one] = (await client.get(f"{V1}/attention")).items
        first = (await client.get(f"{V1}/runs/1")).data["ended_at"]
        [told] = (await client.get(f"{V1}/status")).data["attention"]
    assert (one["key"], one["kind"], one["failures"], one["since"]) == ("failing:pays", "failing", 2, first)
    assert (told["failures"], told["since"]) == (2, first), "the status says no less"
