"""The admin surface as an ASGI application, for Starlette, FastAPI and their kin: translates, and nothing else.

    host = Starlette(lifespan=asgi.lifespan(scheduler))
    host.mount("/taskloop", asgi.app(scheduler, auth=...))

No framework is imported: an ASGI application is a function.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from taskloop.web.core import BrokenOff, Headers, Request, Response, taken
from taskloop.web.living import living
from taskloop.web.security import Auth
from taskloop.web.site import Site

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["app", "lifespan"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def app(
    scheduler: TaskScheduler, auth: Auth = None, hosts: Iterable[str] = (), login_url: str | None = None
) -> Application:
    """The surface of `scheduler`, to be mounted anywhere.

    `auth`, `hosts` and `login_url` as for `taskloop.web.aiohttp.setup`. Served as the whole program it starts and stops the scheduler;
    mounted, the host does that by `lifespan`. Of several hosts of one scheduler the last that goes stops it. Raises `BadSettings`.
    """
    site = Site(scheduler, auth=auth, hosts=hosts, login_url=login_url)

    async def surface(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(scheduler, site, receive, send)
        elif scope["type"] == "http":
            request = _read(scope, receive)
            await _send(await site.answer(request), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    return surface


def lifespan(scheduler: TaskScheduler) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """What a host takes as its `lifespan`: starts the scheduler with the host, and stops it, unless another one still
    serves it, or somebody else started it.
    """
    return lambda _: living(scheduler)


async def _live(scheduler: TaskScheduler, site: Site, receive: Receive, send: Send) -> None:
    life = living(scheduler)
    while True:
        message = await receive()
        try:
            if message["type"] == "lifespan.startup":
                await life.__aenter__()
                site.open()
            else:
                await site.close()
                await life.__aexit__(None, None, None)
        except Exception as error:
            await send({"type": f"{message['type']}.failed", "message": str(error)})
            return
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _read(scope: Scope, receive: Receive) -> Request:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            message = await receive()
            if message["type"] != "http.request":  # an end without one would be an empty body, and that is allowed
                raise ConnectionResetError("the client has gone")
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    prefix, path = _place(scope)
    client, server = scope.get("client"), scope.get("server")
    return Request(
        method=scope["method"],
        path=path,
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=Headers.of_bytes(scope["headers"]),
        chunks=chunks,
        peer=client[0] if client else None,
        server=server[0] if server and server[1] is not None else None,
        scheme=scope.get("scheme", "http"),
        prefix=quote(prefix, safe="/%"),  # as it stands in addresses that we send
        native=scope,
    )


def _place(scope: Mapping[str, Any]) -> tuple[str, str]:
    """Where it is mounted, and the path below, percent-encoded as it was sent where the server tells that."""
    prefix, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    raw = scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
    if (found := _taken_off(raw, path)) is not None:
        mount, below = found
        return _joined(prefix, mount), below
    mount, above = prefix, scope.get("app_root_path", "").rstrip("/")  # Starlette's: without the mounts of the program
    if above and not _lies_below(path, prefix):  # a proxy took that off, and the server does not put it back
        mount = prefix.removeprefix(above)
    whole = _lies_below(path, mount)
    below = path[len(mount) :] if whole else path
    if unquote(raw) == path:  # then it says which of the slashes were sent as such
        parts = raw.split("/")[1 + (mount.count("/") if whole else 0) :]
        if unquote("/" + "/".join(parts)) == (below or "/"):
            return prefix, "/" + "/".join(parts)
    return prefix, quote(below)


def _lies_below(path: str, mount: str) -> bool:
    return path == mount or path.startswith(f"{mount}/")


def _joined(prefix: str, mount: str) -> str:
    """A mount, as it was sent, below a prefix, where each may have the other in it already."""
    if prefix.endswith(unquote(mount)):
        return prefix
    return mount if _lies_below(unquote(mount), prefix) else prefix + mount


def _taken_off(raw: str, path: str) -> tuple[str, str] | None:
    """Where it is mounted by a host that takes the mount off the path and says so nowhere; None: it took nothing off.

    What was sent tells it: it ends with the path, which is shorter. Never an address of another host, `//name`.
    """
    parts = raw.rstrip("/").split("/")
    for at in range(2, len(parts) + 1):
        if all(parts[1:at]) and unquote("/" + "/".join(parts[at:])) == (path.rstrip("/") or "/"):
            return "/".join(parts[:at]), "/" + "/".join(parts[at:])
    return None


async def _send(response: Response, receive: Receive, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in response.headers.items()]
    body = response.body
    if isinstance(body, bytes) and "content-length" not in response.headers and response.status not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    gone = asyncio.ensure_future(_until_gone(receive))
    is_endless = response.headers.get("content-type", "").startswith("text/event-stream")
    try:
        async for chunk in body:
            if gone.done():
                return
            if is_endless and _is_ending():
                break
            if chunk and not await taken(send({"type": "http.response.body", "body": chunk, "more_body": True})):
                return
        await send({"type": "http.response.body", "body": b""})
    except BrokenOff:
        return  # without an end, which the server tells the client
    finally:
        gone.cancel()
        await asyncio.wait({gone})
        if (close := getattr(body, "aclose", None)) is not None:
            await close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_ending() -> bool:
    """Whether uvicorn stops, as it was asked or has answered its most requests: it waits for what is open before it tells the
    program, for ever where nobody set a limit. Its handler of SIGTERM is a method of the server, which knows; elsewhere
    nobody is asked.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(should_exit := getattr(server, "should_exit", None), bool):
        return False
    return should_exit or not all(one.is_serving() for one in getattr(server, "servers", ()))
