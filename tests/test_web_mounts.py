"""Where the surface is mounted: below another aiohttp application, and below a prefix with letters of any script."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import Mount
from stories import nothing

from taskloop import TaskScheduler
from taskloop.errors import BadSettings
from taskloop.web import asgi
from taskloop.web.aiohttp import setup

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("above", "prefix"), [("/internal", "/taskloop"), ("/sub", ""), ("/a/b", "/c/d")])
async def test_below_another_application_all_is_there_and_every_link_stays_below(above, prefix):
    scheduler, root, inner = TaskScheduler(":memory:"), web.Application(), web.Application()
    scheduler.add_job(nothing, name="job")
    setup(inner, scheduler, prefix=prefix, auth="open")
    root.add_subapp(above, inner)
    runner = web.AppRunner(root)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base, mount = f"http://127.0.0.1:{runner.addresses[0][1]}", above + prefix
    async with aiohttp.ClientSession(base) as session:
        async with session.get(f"{mount}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{mount}/jobs/job", headers={"accept": "text/html"}) as answer:
            page = await answer.text()
        assert answer.status == 200 and f'href="{mount}/static/' in page and 'href="/static' not in page
        async with session.post(f"{mount}/api/v1/jobs/job/submit", json={}) as answer:
            assert (answer.status, answer.headers["location"]) == (202, f"{mount}/api/v1/runs/1")
        async with session.get(f"{mount}/openapi.json") as answer:
            assert (await answer.json())["servers"][0]["url"] == mount
    await runner.cleanup()


@pytest.mark.parametrize("prefix", ["taskloop", "/taskloop/", "/a b", "/t\u00e4sk", "/a%20b", "/", "//a"])
def test_a_prefix_that_no_address_would_reach_is_refused(prefix):
    with pytest.raises(BadSettings, match="prefix is"):
        setup(web.Application(), TaskScheduler(":memory:"), prefix=prefix, auth="open")


@pytest.mark.parametrize(("mount", "sent"), [("/a b", "/a%20b"), ("/t\u00e4sk", "/t%C3%A4sk"), ("/\u0437", "/%D0%B7")])
async def test_below_a_prefix_of_any_letters_what_is_sent_on_is_an_address(mount, sent):
    scheduler = TaskScheduler(":memory:")
    scheduler.add_job(nothing, name="job")
    host, told = Starlette(routes=[Mount(mount, asgi.app(scheduler, auth="open"))]), []

    async def send(message):
        told.append(message)

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async with scheduler:
        await host(
            {"type": "http", "method": "POST", "path": f"{mount}/api/v1/jobs/job/submit", "query_string": b"",
             "raw_path": f"{sent}/api/v1/jobs/job/submit".encode(), "root_path": "", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 80), "scheme": "http",
             "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]},
            receive, send,
        )  # fmt: skip
    assert told[0]["status"] == 202
    assert dict(told[0]["headers"])[b"location"] == f"{sent}/api/v1/runs/1".encode()


@pytest.mark.parametrize(
    ("sent", "path", "mount"),
    [
        ("/taskloop/jobs/job", "/jobs/job", "/taskloop"),
        ("/taskloop/jobs/job/", "/jobs/job", "/taskloop"),
        ("/a/b%20c/jobs/jo%62", "/jobs/job", "/a/b%20c"),
        ("/jobs/job", "/jobs/job", ""),
        ("//evil.example/jobs/job", "/jobs/job", ""),
        ("/jobs/jobs/job", "/jobs/job", "/jobs"),
    ],
)
async def test_a_host_that_takes_the_mount_off_the_path_and_says_so_nowhere_is_understood(sent, path, mount):
    """As Litestar does."""
    scheduler, told = TaskScheduler(":memory:"), []
    scheduler.add_job(nothing, name="job")

    async def send(message):
        told.append(message)

    async with scheduler:
        await asgi.app(scheduler, auth="open")(
            {"type": "http", "method": "GET", "path": path, "query_string": b"", "raw_path": sent.encode(), "root_path": "",
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
             "headers": [(b"host", b"127.0.0.1"), (b"accept", b"text/html")]},
            None, send,
        )  # fmt: skip
    page = told[1]["body"].decode()
    assert told[0]["status"] == 200 and f'<a href="{mount}/runs" data-key' in page


@pytest.mark.parametrize("handed", ["", "/shop"], ids=["the server leaves it off", "the server puts it back"])
async def test_a_path_that_a_proxy_takes_off_and_the_server_is_told_of_stands_before_each_link(handed):
    """As `root_path` of FastAPI and of hypercorn says it, and as uvicorn's does, which hands on the whole path."""
    scheduler, told = TaskScheduler(":memory:"), []
    scheduler.add_job(nothing, name="job")
    host = Starlette(routes=[Mount("/taskloop", asgi.app(scheduler, auth="open"))])

    async def send(message):
        told.append(message)

    async with scheduler:
        await host(
            {"type": "http", "method": "GET", "path": f"{handed}/taskloop/jobs/job", "query_string": b"",
             "raw_path": f"{handed}/taskloop/jobs/job".encode(), "root_path": "/shop", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 80), "scheme": "http",
             "headers": [(b"host", b"127.0.0.1"), (b"accept", b"text/html")]},
            None, send,
        )  # fmt: skip
    page = told[1]["body"].decode()
    assert told[0]["status"] == 200 and '<a href="/shop/taskloop/runs" data-key' in page
