"""The two translators in real hosts: what starts and stops with what, and the server of `taskloop run --http`."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from command_line import shop as shop
from command_line import surroundings, until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from web_clients import over_asgi

from taskloop import Options, TaskScheduler
from taskloop.errors import BadSettings, NotRunning
from taskloop.web import asgi
from taskloop.web.aiohttp import listening, setup
from taskloop.web.api import export
from taskloop.web.site import Site

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parent.parent / "docs" / "http.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
QUICK = 6.0
"""Seconds in which a server ends, an open stream or not."""


def made():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.job()
    async def add(a: int = 1) -> int:
        return a

    return scheduler


# -- the page


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_each_program_of_the_page_makes_its_app(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAMS[number], "utf-8")
    names = runpy.run_path(str(tmp_path / "program.py"))
    assert isinstance(names["app"], web.Application | Starlette)
    assert list(tmp_path.iterdir()) == [tmp_path / "program.py"]


def test_the_page_has_both_hosts():
    assert len(PROGRAMS) == 2


# -- aiohttp


@asynccontextmanager
async def running(app):
    runner = web.AppRunner(app, shutdown_timeout=10)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}", runner
    finally:
        await runner.cleanup()


async def asked(session, url, method="GET", **more):
    """An answer, read to its end."""
    async with session.request(method, aiohttp.client.URL(url, encoded=True), **more) as answer:
        await answer.read()
        return answer


async def hello(request):
    return web.Response(text="hello")


@pytest.mark.parametrize("prefix", ["/taskloop", "/deep/down", ""])
async def test_the_scheduler_lives_as_long_as_the_app_whose_own_addresses_stay(prefix):
    scheduler, app = made(), web.Application()
    app.router.add_get("/hello", hello)
    setup(app, scheduler, prefix, auth="open")
    async with running(app) as (session, base, _):
        assert scheduler.is_running
        assert await (await asked(session, f"{base}/hello")).text() == "hello"
        run = await asked(session, f"{base}{prefix}/api/v1/jobs/add/submit", "POST", json={})
        assert run.headers["location"].startswith(f"{prefix}/api/v1/runs/")
        assert (await asked(session, f"{base}{run.headers['location']}")).status == 200
        assert (await asked(session, f"{base}{prefix}/nothing")).status == 404
        assert (await asked(session, f"{base}{prefix}")).status == 200, "without the slash, too"
    assert not scheduler.is_running


async def test_the_scheduler_is_left_to_the_host_when_that_says_so():
    scheduler, app = made(), web.Application()
    setup(app, scheduler, auth="open", start=False)
    async with running(app) as (session, base, _):
        assert not scheduler.is_running
        assert (await asked(session, f"{base}/taskloop/api/v1/jobs")).status == 200
    await scheduler.close()


async def test_a_scheduler_that_runs_already_is_neither_started_nor_stopped():
    scheduler, app = made(), web.Application()
    setup(app, scheduler, auth="open")
    async with scheduler:
        async with running(app):
            pass
        assert scheduler.is_running


@pytest.mark.parametrize("prefix", ["taskloop", "/taskloop/", "/"])
def test_a_prefix_that_cannot_be_is_refused(prefix):
    with pytest.raises(BadSettings, match="prefix"):
        setup(web.Application(), made(), prefix)


async def test_an_app_that_stops_ends_its_streams_first():
    app = web.Application()
    setup(app, made(), auth="open")
    async with running(app) as (session, base, runner):
        stream = await session.get(f"{base}/taskloop/api/v1/events")
        began = time.monotonic()
        await runner.cleanup()
        assert time.monotonic() - began < QUICK
        assert b"retry" in await stream.content.read()


async def test_a_listener_that_leaves_is_forgotten():
    scheduler = made()
    site = Site(scheduler, bind="127.0.0.1")
    async with scheduler, listening(site, "127.0.0.1", 0) as address:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}/api/v1/events") as stream:
                await stream.content.readline()
                assert len(site.live._listeners) == 1
        async with asyncio.timeout(5):
            while site.live._listeners:
                await asyncio.sleep(0.01)


async def test_a_request_in_hand_keeps_no_server_from_its_end(monkeypatch):
    """It failed with a bare TimeoutError, as where a browser is open on a machine that sleeps, and takes nothing."""
    monkeypatch.setattr("taskloop.web.aiohttp.CLOSE_SECONDS", 0.1)
    scheduler, began = made(), asyncio.Event()

    @scheduler.job()
    async def waits() -> None:
        began.set()
        await asyncio.Event().wait()

    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0) as address:
        _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(b"POST /admin/tasks/run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(5):
            await began.wait()
    writer.transport.abort()


async def test_who_takes_nothing_of_a_stream_is_let_go(monkeypatch):
    monkeypatch.setattr("taskloop.web.core.TAKE_SECONDS", 0.05)
    scheduler = made()
    site = Site(scheduler, bind="127.0.0.1")

    @scheduler.job()
    async def says(text: str) -> None: ...

    async with scheduler, listening(site, "127.0.0.1", 0) as address:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", int(address.rpartition(":")[2])))
            deaf.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(20):
                while not site.live._listeners:
                    await asyncio.sleep(0.01)
                while site.live._listeners:  # what the system takes for it comes to an end
                    await scheduler.submit_many([scheduler["says"].bind(text="a" * 50_000) for _ in range(10)])
                    await asyncio.sleep(0.01)


async def test_whose_server_says_that_it_takes_nothing_is_let_go_too(monkeypatch):
    monkeypatch.setattr("taskloop.web.core.TAKE_SECONDS", 0.05)
    scheduler, sent = made(), []
    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/events", "raw_path": b"/api/v1/events",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip

    async def takes_only_the_head(message):
        sent.append(message["type"])
        if len(sent) > 1:
            await asyncio.Event().wait()

    async with scheduler, asyncio.timeout(5):
        await asgi.app(scheduler, auth="open")(scope, asyncio.Queue().get, takes_only_the_head)
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_surface_of_its_own_lies_below_a_prefix_too_for_a_proxy_that_hands_on_the_whole_path():
    scheduler = made()
    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0, "/a/b") as address:
        root = address.removesuffix("/a/b")
        async with aiohttp.ClientSession() as session:
            for mount, links in ((address, "/a/b/jobs"), (root, "/jobs")):
                async with session.get(f"{mount}/") as page:
                    assert f'href="{links}"' in await page.text()
                async with session.get(f"{mount}/readyz") as probe:
                    assert probe.status == 200


async def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=f"port {port}"):
            async with listening(Site(made(), bind="127.0.0.1"), "127.0.0.1", port):
                pass


async def test_strangers_who_only_hold_connections_open_make_room_and_who_hears_a_stream_stays(monkeypatch):
    monkeypatch.setattr("taskloop.web.aiohttp.CONNECTIONS", 8)
    scheduler = made()
    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0) as address:
        port = int(address.rpartition(":")[2])
        async with aiohttp.ClientSession() as session, session.get(f"{address}/api/v1/events") as stream:
            await stream.content.readline()
            held = []
            for number in range(40):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HT" if number % 2 else b"")
                held.append((reader, writer))
                async with session.get(f"{address}/healthz", headers={"connection": "close"}) as probe:
                    assert probe.status == 200
            for reader, _ in held[:30]:  # the oldest were told to go
                assert await asyncio.wait_for(reader.read(), 5) == b""
            assert not held[-1][0].at_eof()
            await scheduler.submit("add")
            async with asyncio.timeout(5):
                while b"submitted" not in await stream.content.readline():
                    pass
            for _, writer in held:
                writer.close()


async def test_where_every_connection_waits_for_an_answer_the_next_is_not_let_in(monkeypatch):
    monkeypatch.setattr("taskloop.web.aiohttp.CONNECTIONS", 2)
    scheduler = made()
    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0) as address:
        async with aiohttp.ClientSession() as session:
            streams = [await session.get(f"{address}/api/v1/events") for _ in range(4)]
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(f"{address}/healthz")
            for one in streams:
                one.close()


async def test_a_request_that_cannot_be_read_is_answered_and_writes_nothing_into_the_log(caplog):
    scheduler = made()
    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0) as address:
        port = int(address.rpartition(":")[2])
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
    assert not [one for one in caplog.records if "Error handling request" in one.getMessage()]


# -- ASGI


@asynccontextmanager
async def serving(app, lifespan="on"):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, lifespan=lifespan, log_level="error", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        task = asyncio.ensure_future(server._serve([bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            async with aiohttp.ClientSession() as session:
                yield session, f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def test_mounted_in_starlette_it_lives_by_the_hosts_lifespan_and_answers_below_the_mount():
    scheduler = made()
    app = Starlette(
        routes=[Route("/hello", lambda request: PlainTextResponse("hello"))], lifespan=asgi.lifespan(scheduler)
    )
    app.mount("/jobs", asgi.app(scheduler, auth="open"))
    async with serving(app) as (session, base):
        assert scheduler.is_running
        assert await (await asked(session, f"{base}/hello")).text() == "hello"
        body = {"job": "add", "id": "a/b", "trigger": {"cron": "0 3 * * *"}}
        stored = await asked(session, f"{base}/jobs/api/v1/schedules", "POST", json=body)
        where = stored.headers["location"]
        assert where == "/jobs/api/v1/schedules/a%2Fb"
        found = await asked(session, base + where)
        assert (await found.json())["id"] == "a/b"
        assert (await asked(session, f"{base}/jobs/nothing")).status == 404
        assert (await asked(session, f"{base}/jobs/healthz", headers={"host": "evil.example"})).status == 200
        assert (await asked(session, f"{base}/jobs/api/v1/jobs", headers={"host": "evil.example"})).status == 403
    assert not scheduler.is_running


@pytest.mark.parametrize("kind", ["aiohttp", "asgi"])
async def test_an_export_that_loses_its_store_breaks_off_and_is_one_line_in_the_log(
    kind, tmp_path, lines, caplog, monkeypatch
):
    monkeypatch.setattr(export, "PAGE", 2)
    folder, away = tmp_path / "vault", tmp_path / "unplugged"
    folder.mkdir()
    scheduler = TaskScheduler(folder / "shop.db", options=Options(grace=timedelta(0)))
    scheduler.add_job(large)
    app = web.Application()
    setup(app, scheduler, "", auth="open")
    host = running(app) if kind == "aiohttp" else serving(asgi.app(scheduler, auth="open"))
    async with host as (session, base, *_):
        for one in await scheduler.submit_many([scheduler["large"].bind()] * 60):
            await one.wait(20)
        async with session.get(f"{base}/api/v1/runs/export") as answer:
            assert answer.status == 200 and await answer.content.read(1000)
            folder.rename(away)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        away.rename(folder)
    assert lines.count("http.failed") == 1
    assert not [one for one in caplog.records if one.exc_info]


async def large() -> str:
    return "x" * 900_000


async def test_keys_that_differ_in_a_letter_beyond_ascii_are_two_however_a_client_writes_them():
    """urllib and requests send Latin-1, as a browser's fetch does, others UTF-8. Else a submit is taken for another's."""

    def key(base, text, coding):
        headers = {"content-type": "application/json", "idempotency-key": text.encode(coding).decode("latin-1")}
        asked = urllib.request.Request(f"{base}/api/v1/jobs/add/submit", b"{}", headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)["key"]

    sent = [(text, coding) for coding in ("latin-1", "utf-8") for text in ("Müller", "Möller")]
    app, scheduler = web.Application(), made()
    setup(app, scheduler, "", auth="open")
    async with running(app) as (_, base, _), serving(asgi.app(scheduler, auth="open")) as (_, other):
        for one in (base, other):
            assert [await asyncio.to_thread(key, one, *given) for given in sent] == ["Müller", "Möller"] * 2


@pytest.mark.parametrize("came", [[], [b""], [b'{"until": ']])
async def test_a_body_that_breaks_off_is_refused_and_not_taken_for_an_empty_one(came, lines):
    """Else a job is off for ever that was to be off for two hours, and a run has other parameters than were sent."""
    scheduler, coming, answered = made(), asyncio.Queue(), []
    for one in came:
        coming.put_nowait({"type": "http.request", "body": one, "more_body": True})
    coming.put_nowait({"type": "http.disconnect"})
    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/jobs/add/disable", "raw_path": b"/api/v1/jobs/add/disable",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"40")],
    }  # fmt: skip

    async def hear(message):
        answered.append(message)

    async with scheduler:
        await asgi.app(scheduler, auth="open")(scope, coming.get, hear)
        assert (await scheduler.jobs("add"))[0].enabled
    assert (answered[0]["status"], json.loads(answered[1]["body"])["detail"]) == (400, "the body breaks off")
    assert "http.failed" not in lines


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_failure_of_the_server(lines):
    scheduler = made()
    async with scheduler, listening(Site(scheduler, bind="127.0.0.1"), "127.0.0.1", 0) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        head = "POST /api/v1/jobs/add/submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 40\r\nExpect: 100-continue\r\n\r\n".encode())
        await asyncio.wait_for(reader.readline(), 5)  # now it waits for the body
        writer.transport.abort()
    assert "http.failed" not in lines  # whoever closes waits for the requests in hand


async def test_as_the_whole_program_it_starts_and_stops_the_scheduler_itself():
    scheduler = made()
    async with serving(asgi.app(scheduler, auth="open")) as (session, base):
        assert scheduler.is_running
        async with session.get(f"{base}/api/v1/events") as stream:
            assert stream.status == 200
            await scheduler.submit("add")
            while b"submitted" not in await stream.content.readline():
                pass
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{base}/api/v1/events")
    assert not scheduler.is_running


@pytest.mark.parametrize("why", ["it is asked to", "it has answered enough"])
async def test_uvicorn_stops_at_once_though_somebody_listens_and_nobody_set_it_a_limit(why):
    """It tells the program only when all is answered: a page that is open would keep it for ever."""
    scheduler = made()
    app = Starlette(lifespan=asgi.lifespan(scheduler))
    app.mount("/jobs", asgi.app(scheduler, auth="open"))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        enough = 1 if why == "it has answered enough" else None
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", limit_max_requests=enough))
        task = asyncio.ensure_future(server.serve([bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{bound.getsockname()[1]}/jobs"
            async with session.get(f"{base}/api/v1/events") as stream:
                await stream.content.readline()
                await asked(session, f"{base}/healthz")
                server.should_exit = enough is None  # as its handler of SIGTERM does
                try:
                    await asyncio.wait_for(stream.content.read(), QUICK)  # to its end: it is not broken off
                except TimeoutError:
                    server.force_exit = True
                    raise
        await asyncio.wait_for(task, QUICK)
    assert not scheduler.is_running


async def test_of_two_hosts_of_one_scheduler_the_last_that_goes_stops_it():
    scheduler = made()
    first, second = web.Application(), web.Application()
    for app in (first, second):
        setup(app, scheduler, auth="open")
    runners = [web.AppRunner(one) for one in (first, second)]
    await asyncio.gather(*(one.setup() for one in runners))  # both at once: neither is served before it runs
    assert scheduler.is_running
    told, sent = asyncio.Queue(), asyncio.Queue()
    third = asyncio.create_task(asgi.app(scheduler, auth="open")({"type": "lifespan"}, told.get, sent.put))
    await told.put({"type": "lifespan.startup"})
    assert await sent.get() == {"type": "lifespan.startup.complete"}
    await runners[0].cleanup()
    await told.put({"type": "lifespan.shutdown"})
    await third
    assert scheduler.is_running
    async with asgi.lifespan(scheduler)(None):
        await runners[1].cleanup()
        assert scheduler.is_running
    assert not scheduler.is_running


def test_a_host_whose_loop_was_closed_is_none_of_those_that_a_scheduler_lives_for(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db")
    lifespan = asgi.lifespan(scheduler)
    left = lifespan(None)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(left.__aenter__())
    loop.close()

    async def again():
        await scheduler.stop()
        async with lifespan(None):
            assert scheduler.is_running
        return scheduler.is_running

    assert not asyncio.run(again())


async def test_a_host_on_a_loop_of_its_own_leaves_the_others_in_peace(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db")
    first, second = asgi.lifespan(scheduler)(None), asgi.lifespan(scheduler)(None)
    await first.__aenter__()

    async def elsewhere():
        async with asgi.lifespan(scheduler)(None):
            pass

    await asyncio.to_thread(asyncio.run, elsewhere())
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert scheduler.is_running
    await second.__aexit__(None, None, None)
    assert not scheduler.is_running


async def test_of_hosts_that_come_as_the_last_one_goes_none_is_left_without_a_scheduler():
    """Whoever came between the end of one wait for the other and the beginning of the next counted for itself."""
    scheduler = made()
    first, second, third = (asgi.lifespan(scheduler)(None) for _ in range(3))
    await first.__aenter__()
    going = asyncio.create_task(first.__aexit__(None, None, None))
    await asyncio.sleep(0)
    coming = asyncio.create_task(second.__aenter__())
    await going
    await third.__aenter__()
    await coming
    await third.__aexit__(None, None, None)
    assert scheduler.is_running
    await second.__aexit__(None, None, None)
    assert not scheduler.is_running


async def test_a_surface_with_a_life_of_its_own_leaves_a_scheduler_to_who_started_it():
    async with made() as scheduler:
        told, sent = asyncio.Queue(), asyncio.Queue()
        living = asyncio.create_task(asgi.app(scheduler, auth="open")({"type": "lifespan"}, told.get, sent.put))
        for word in ("startup", "shutdown"):
            await told.put({"type": f"lifespan.{word}"})
            assert await sent.get() == {"type": f"lifespan.{word}.complete"}
        await living
        assert scheduler.is_running


def test_a_server_that_has_no_loop_of_asyncio_is_told_what_has_one():
    """As hypercorn's, with `-k trio`."""
    with pytest.raises(NotRunning, match="no event loop of asyncio runs here"):
        asgi.lifespan(made())(None).__aenter__().send(None)


async def test_a_start_that_fails_is_told_to_the_server(tmp_path):
    scheduler = TaskScheduler(tmp_path / "missing" / "app.db", options=Options())
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    await asgi.app(scheduler, auth="open")({"type": "lifespan"}, receive, send)
    assert [one["type"] for one in sent] == ["lifespan.startup.failed"]
    assert "missing" in sent[0]["message"]


async def test_a_program_that_is_started_again_as_each_test_of_it_may_do_streams_and_counts_again():
    scheduler = made()
    app = asgi.app(scheduler, auth="open")
    for life in range(2):
        told, sent = asyncio.Queue(), asyncio.Queue()
        living = asyncio.create_task(app({"type": "lifespan"}, told.get, sent.put))
        await told.put({"type": "lifespan.startup"})
        assert await sent.get() == {"type": "lifespan.startup.complete"}
        asked, answered = asyncio.Queue(), asyncio.Queue()
        request = {"type": "http", "method": "GET", "path": "/api/v1/events", "headers": [(b"host", b"localhost")]}
        streaming = asyncio.create_task(app(request, asked.get, answered.put))
        assert (await answered.get())["status"] == 200
        await (await scheduler.submit("add")).wait()
        assert f'state="succeeded"}} {life + 1}\n'.encode() in (await metrics(app))
        await told.put({"type": "lifespan.shutdown"})
        assert await sent.get() == {"type": "lifespan.shutdown.complete"}
        await asyncio.gather(living, streaming)


async def metrics(app):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")]
    await app({"type": "http", "method": "GET", "path": "/metrics", "headers": headers}, asyncio.Queue().get, send)
    return b"".join(one.get("body", b"") for one in sent)


# -- the command line


def got(address, path, **headers):
    asked = urllib.request.Request(address + path, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def heard(process):
    """The address that a running command said it listens on."""
    process.hear(r"http\.listening url=\S+")
    return re.search(r"http\.listening url=(\S+)", process.said)[1]


def test_run_serves_the_surface_and_ends_at_a_signal_with_a_stream_open(shop):
    with shop.start("run", "--http", "127.0.0.1:0") as process:
        address = heard(process)
        process.hear(r"scheduler\.ready")
        assert got(address, "/readyz")[0] == 200
        assert got(address, "/api/v1/whoami")[1]["via"] == "local"
        assert "nightly" in {one["name"] for one in got(address, "/api/v1/jobs")[1]["items"]}
        stream = urllib.request.urlopen(f"{address}/api/v1/events", timeout=10)
        stream.readline()
        began = time.monotonic()
        assert process.end(signal.SIGTERM) == 143
        assert time.monotonic() - began < QUICK
        stream.close()


@pytest.mark.parametrize("token", ["abcdefghijklmnop", "abcdefghijklmno"])
def test_the_table_of_the_file_turns_it_on_with_its_token_and_says_so_of_a_short_one(shop, token):
    text = (shop.folder / "config.toml").read_text()
    shop.write("config.toml", f'{text}\n[http]\nenabled = true\nhost = "0.0.0.0"\nport = 0\ntoken = "{token}"\n')
    with shop.start("run") as process:
        address = heard(process).replace("0.0.0.0", "127.0.0.1")
        assert got(address, "/api/v1/jobs")[0] == 401
        assert got(address, "/api/v1/jobs", Authorization=f"Bearer {token}")[0] == 200
        assert ('WARNING http.weak_token text="http.token has 15 characters' in process.said) is (len(token) < 16)
        assert token not in process.said
        assert process.end(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--http", "0.0.0.0:8700"], 7, "give a token"),
        (["--http", "127.0.0.1:x"], 2, "HOST:PORT"),
        (["--http", "127.0.0.1:70000"], 7, "0 to 65535"),
        (["--http", "[::]:0"], 7, "give a token"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_starts(shop, words, code, said):
    done = shop.process("run", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "scheduler.starting" not in done.err


def test_with_a_token_in_the_store_it_listens_where_others_reach_it_and_takes_it_back_while_it_runs(shop):
    token = shop.process("token", "create", "anna", "--scope", "operate").out.strip()
    with shop.start("run", "--http", "0.0.0.0:0") as process:
        address = heard(process).replace("0.0.0.0", "127.0.0.1")
        assert got(address, "/api/v1/whoami")[0] == 401
        who = got(address, "/api/v1/whoami", Authorization=f"Bearer {token}")
        assert (who[0], who[1]["name"], who[1]["scope"]) == (200, "anna", "operate")
        assert shop.process("token", "revoke", "anna").code == 0
        until(lambda: got(address, "/api/v1/whoami", Authorization=f"Bearer {token}")[0] != 200, 6)
        assert token not in process.said
        assert process.end(signal.SIGINT) == 130
    again = shop.process("run", "--http", "0.0.0.0:0")
    assert (again.code, "taskloop token create" in again.err) == (7, True)


def test_a_taken_port_ends_the_command_before_the_scheduler_starts(shop):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = shop.process("run", "--http", str(taken.getsockname()[1]))
    assert (done.code, "nothing can listen" in done.err, "scheduler.starting" in done.err) == (7, True, False)


def test_without_aiohttp_the_mend_is_named(shop):
    code = "import sys; sys.modules['aiohttp'] = None; from taskloop.__main__ import main; sys.exit(main(['run', '--http']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=shop.folder, env=surroundings({}), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 7
    assert 'pip install "taskloop[web]"' in done.stderr


def test_an_app_that_is_served_on_one_loop_after_another_answers_many_at_once_on_each():
    """As in the tests of a program, each on a loop of its own: whoever had to wait for a look ahead had an error of asyncio's."""
    scheduler = made()
    client = asyncio.run(over_asgi(scheduler, start=False, auth="open").__aenter__())

    async def served(*days):  # others each time: what was found is kept for some seconds
        async with scheduler:
            pages = ("/openapi.json", "/openapi.json", "/", "/timeline", *(f"/schedules?days={one}" for one in days))
            answers = await asyncio.gather(*(client.get(path, headers={"accept": "text/html"}) for path in pages))
            return {answer.status for answer in answers}

    assert (asyncio.run(served(1, 2, 3)), asyncio.run(served(4, 5, 6))) == ({200}, {200})
