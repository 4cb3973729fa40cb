"""The admin surface in an aiohttp program, or alone: translates, and nothing else.

    setup(app, scheduler, prefix="/taskloop", auth=...)

`listening` is the server of `taskloop run --http`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

from taskloop.errors import BadSettings, MissingExtra
from taskloop.given import PREFIX
from taskloop.web.core import BrokenOff, Headers, Request, Response, taken
from taskloop.web.living import living
from taskloop.web.security import HEADERS, Auth
from taskloop.web.site import Site

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

try:
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError
except ImportError as _error:
    raise MissingExtra("aiohttp", "web") from _error

__all__ = ["listening", "setup"]

CLOSE_SECONDS: Final = 2.0
"""What a server of our own waits for requests in hand when it stops, in all."""
CONNECTIONS: Final = 200
"""Open connections of a server of our own: a process may often have only 1,024 files open, and jobs want most of them."""
IDLE_SECONDS: Final = 60.0
"""How long one stays open on which no whole request comes."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LOG: Final = logging.getLogger(__name__)


def setup(
    app: web.Application,
    scheduler: TaskScheduler,
    prefix: str = "/taskloop",
    start: bool = True,
    auth: Auth = None,
    hosts: Iterable[str] = (),
    login_url: str | None = None,
) -> None:
    """Mount the surface below `prefix` (empty: at the root), and start and stop the scheduler with the app; of several
    apps of one scheduler the last that goes stops it.

    `app` may be an application below another one (`add_subapp`). In `prefix` letters, digits and `-._~/` are allowed.

    `start` False leaves the scheduler to the host. `auth`: a function of the request, plain or async, that gives a
    `Principal` or None; "open" lets everybody in; None: only tokens, of the store or the configuration's, and without
    any nobody.
    `hosts`: names under which the host is reached, beside those of the machine itself. `login_url`: the host's page to
    sign in: whoever `auth` does not know finds a button that leads there, with the page that was asked for as `next`; None:
    one to sign in with a token. Raises `BadSettings`.
    """
    if not re.fullmatch(PREFIX, prefix):
        raise BadSettings(
            [
                f"prefix is {prefix!r}; a path such as '/taskloop', of letters, digits and -._~, is allowed, or '' for the root"
            ]
        )
    site = Site(scheduler, auth=auth, hosts=hosts, login_url=login_url)
    _mount(app, site, prefix)

    async def with_the_app(_: web.Application) -> AsyncIterator[None]:
        async with living(scheduler) if start else nullcontext():
            yield

    async def end_streams(_: web.Application) -> None:
        await site.close()

    app.cleanup_ctx.append(with_the_app)
    app.on_shutdown.append(end_streams)  # comes before the server waits for what is open


def _mount(app: web.Application, site: Site, prefix: str) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await _send(request, await site.answer(_read(request)))

    if prefix:
        app.router.add_route("*", prefix, handle)
    app.router.add_route("*", rf"{prefix}/{{tail:[\s\S]*}}", handle)  # a dot would leave line breaks to aiohttp


def _read(request: web.Request) -> Request:
    prefix, path = _place(request)
    sock = None if request.transport is None else request.transport.get_extra_info("sockname")

    async def chunks() -> AsyncIterator[bytes]:
        if request.can_read_body:
            async for chunk in request.content.iter_any():
                yield chunk

    return Request(
        method=request.method,
        path=path,
        query=request.rel_url.raw_query_string,
        headers=Headers.of_bytes(request.raw_headers),
        chunks=chunks,
        peer=request.remote,
        server=sock[0] if isinstance(sock, tuple) else None,
        scheme=request.scheme,
        prefix=prefix,
        native=request,
    )


def _place(request: web.Request) -> tuple[str, str]:
    """Where it is mounted, applications above it included, and the path below; both percent-encoded as they were sent."""
    resource = request.match_info.route.resource
    mount = "" if resource is None else resource.canonical.removesuffix("/{tail}")
    parts = request.rel_url.raw_path.split("/")
    above = 1 + mount.count("/")
    return "/".join(parts[:above]), "".join(f"/{part}" for part in parts[above:])


async def _send(request: web.Request, response: Response) -> web.StreamResponse:
    body = response.body
    response.headers.setdefault("server", "taskloop")  # else it tells of which versions it is made
    if isinstance(body, bytes):
        return web.Response(status=response.status, body=body, headers=response.headers)
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    try:
        await stream.prepare(request)
        async for chunk in body:
            transport = request.transport
            if transport is None or transport.is_closing():
                break
            if chunk and not await taken(stream.write(chunk)):
                transport.abort()
                break
        with suppress(ConnectionError):
            await stream.write_eof()
    except ConnectionError:  # the client left: nobody is there to be told
        pass
    except BrokenOff:
        if request.transport is not None:
            request.transport.abort()  # or it would be ended as if it were whole
    finally:
        if (close := getattr(body, "aclose", None)) is not None:
            await close()
    return stream


@asynccontextmanager
async def listening(site: Site, host: str, port: int, prefix: str = "") -> AsyncIterator[str]:
    """Serve the surface alone while the context is open; gives its address.

    `port` 0: any free one. `prefix`: it lies there too, for a proxy that hands on the whole path; probes may go on asking
    at the root. Raises `BadSettings` where nobody may come in, nobody may listen, or somebody does.
    """
    await site.check_bind()
    door = _Door()

    @web.middleware
    async def kept(request: web.Request, handler: _Handler) -> web.StreamResponse:
        with door.keeping(request.protocol):
            return await handler(request)

    app = web.Application(middlewares=[kept])
    for mount in (prefix, "") if prefix else ("",):
        _mount(app, site, mount)
    # What is packed is refused, and must not hold the loop by being unpacked for that.
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, auto_decompress=False,
        shutdown_timeout=CLOSE_SECONDS / 2,  # for it waits twice: for the answer, and once more before it ends that
        # Longer than the surface itself takes, which answers with a problem of its own.
        max_line_size=2 * HEADERS[1], max_field_size=2 * HEADERS[1],
        keepalive_timeout=IDLE_SECONDS, logger=_LOG,
    )  # fmt: skip
    _LOG.addFilter(_is_no_clients_fault)
    await runner.setup()
    door.server = runner.server
    listener: asyncio.Server | None = None
    try:
        try:
            listener = await asyncio.get_running_loop().create_server(door, host, port)
        except OSError as error:
            raise BadSettings(
                [f"http: nothing can listen on {host} port {port}: {error.strerror or error}; give another with --http"]
            ) from None
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{listener.sockets[0].getsockname()[1]}{prefix}"
    finally:
        if listener is not None:
            listener.close()
        await site.close()
        async with asyncio.timeout(2 * CLOSE_SECONDS):
            await runner.cleanup()


class _Door:
    """Lets clients in, but no more than leave the jobs what they need: whoever only holds a connection open makes room."""

    def __init__(self) -> None:
        self.server: web.Server | None = None
        """Who is let in."""
        self._answered: set[asyncio.BaseProtocol] = set()
        """The connections on which an answer is in the making."""

    def __call__(self) -> asyncio.BaseProtocol:
        assert self.server is not None
        here = [one for one in self.server.connections if one.transport is not None]
        if len(here) >= CONNECTIONS:
            idle = [one for one in here if one not in self._answered]
            for oldest in idle[: len(here) - CONNECTIONS + 1]:
                oldest.force_close()
            if not idle and len(here) >= 2 * CONNECTIONS:
                return _Shut()
        return self.server()

    @contextmanager
    def keeping(self, connection: asyncio.BaseProtocol) -> Iterator[None]:
        """Let a connection stay while it is answered."""
        self._answered.add(connection)
        try:
            yield
        finally:
            self._answered.discard(connection)


class _Shut(asyncio.BaseProtocol):
    """Lets nobody in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Not a request that cannot be read: who sent it is told, and strangers write nothing into our log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
