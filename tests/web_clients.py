"""Two clients that speak to the admin surface as a browser would: through aiohttp on loopback, and through ASGI in process."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from aiohttp import web

from taskloop.web import asgi
from taskloop.web.aiohttp import setup

PREFIX = "/taskloop"
V1 = "/api/v1"


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes = b""

    @property
    def data(self):
        return json.loads(self.body)

    @property
    def items(self):
        return self.data["items"]

    @property
    def code(self):
        assert self.headers["content-type"] == "application/problem+json"
        return self.data["code"]


@dataclass
class Client:
    """Sends requests below the mount. `headers`: sent with each."""

    send: object
    listen: object
    headers: dict = field(default_factory=dict)

    async def request(self, method, path, body=None, *, raw=None, headers=None):
        given = {**self.headers, **(headers or {})}
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            given = {"content-type": "application/json", **given}
        return await self.send(method, PREFIX + path, raw, given)

    async def get(self, path, **more):
        return await self.request("GET", path, **more)

    async def post(self, path, body=None, **more):
        return await self.request("POST", path, body, **more)

    def stream(self, path, headers=None):
        """The lines of a stream, while the context is open."""
        return self.listen(PREFIX + path, {**self.headers, **(headers or {})})


@asynccontextmanager
async def over_aiohttp(scheduler, **options):
    app = web.Application()
    setup(app, scheduler, PREFIX, **options)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def send(method, path, body, headers):
            url = aiohttp.client.URL(base + path, encoded=True)
            async with session.request(method, url, data=body, headers=headers, skip_auto_headers=["Content-Type"],
                                       allow_redirects=False) as answer:  # fmt: skip
                return Answer(
                    answer.status, {name.lower(): one for name, one in answer.headers.items()}, await answer.read()
                )

        @asynccontextmanager
        async def listen(path, headers):
            async with session.get(base + path, headers=headers) as answer:
                yield Lines(answer.status, answer.content.readline)

        try:
            yield Client(send, listen)
        finally:
            await runner.cleanup()


class Lines:
    """A stream of server-sent events, read one by one."""

    def __init__(self, status, readline):
        self.status = status
        self._readline = readline

    async def event(self):
        """The next event as its fields, comments left out; None: the stream is over."""
        fields = {}
        async with asyncio.timeout(10):
            while True:
                line = (await self._readline()).decode()
                if not line:
                    return None
                name, _, value = line.rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    return fields | {"data": json.loads(fields["data"])}
                elif "id" in fields:
                    fields = {}


@asynccontextmanager
async def over_asgi(scheduler, start=True, **options):
    surface = asgi.app(scheduler, **options)

    def scope(method, path, headers):
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8000", **{name.lower(): value for name, value in headers.items()}}
        from urllib.parse import unquote

        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "query_string": quote(query, safe="=&,%+:").encode(),
            "root_path": PREFIX, "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000),
        }  # fmt: skip

    def receiving(body, gone):
        sent = []

        async def receive():
            if not sent:
                sent.append(True)
                return {"type": "http.request", "body": body or b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        return receive

    async def send(method, path, body, headers):
        if body is not None:
            headers = {"content-length": str(len(body)), **headers}
        answer, gone = Answer(0, {}), asyncio.Event()

        async def hear(message):
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await surface(scope(method, path, headers), receiving(body, gone), hear)
        return answer

    @asynccontextmanager
    async def listen(path, headers):
        stream, started, gone = asyncio.StreamReader(), asyncio.get_running_loop().create_future(), asyncio.Event()

        async def hear(message):
            if message["type"] == "http.response.start":
                started.set_result(message["status"])
            else:
                stream.feed_data(message["body"])
                if not message.get("more_body"):
                    stream.feed_eof()

        task = asyncio.ensure_future(surface(scope("GET", path, headers), receiving(b"", gone), hear))
        try:
            yield Lines(await started, stream.readline)
        finally:
            gone.set()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(task, 5)

    @asynccontextmanager
    async def nothing(_):
        yield

    async with (asgi.lifespan(scheduler) if start else nothing)(None):
        yield Client(send, listen)


HOSTS = {"aiohttp": over_aiohttp, "asgi": over_asgi}
