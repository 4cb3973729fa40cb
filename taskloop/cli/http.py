"""`run --http`: the admin surface beside the scheduler, on a server of its own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from taskloop.cli.failures import Usage
from taskloop.cli.output import clean

if TYPE_CHECKING:
    from taskloop.cli.lines import Narrator
    from taskloop.scheduler import TaskScheduler
    from taskloop.settings import Settings
    from taskloop.web.site import Site

__all__ = ["asked", "serving", "surface"]


def asked(args: Namespace) -> dict[str, Any]:
    """What `--http [HOST:PORT]` says, as settings. Raises `Usage`."""
    text = getattr(args, "http", None)
    if text is None:
        return {}
    host, port = text, ""
    if text.isdecimal():
        host, port = "", text
    elif text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 6):
        raise Usage(
            f"--http is '{clean(text)}'; allowed is HOST, PORT or HOST:PORT, such as 127.0.0.1:8700, [::1]:8700"
        )
    return {"http.enabled": True, "http.host": host or None, "http.port": int(port) if port else None}


def surface(scheduler: TaskScheduler, settings: Settings) -> Site | None:
    """The surface that the configuration asks for; None: none. Raises `BadSettings`, `MissingExtra`."""
    if not settings.http.enabled:
        return None
    from taskloop.web import aiohttp  # now: its import takes half a second, and nothing runs yet
    from taskloop.web.site import Site

    assert aiohttp
    return Site(scheduler, bind=settings.http.host)


@asynccontextmanager
async def serving(site: Site | None, settings: Settings, narrator: Narrator) -> AsyncIterator[None]:
    """Serve while the context is open, and say where. Raises `BadSettings` where nobody can listen."""
    if site is None:
        yield
        return
    from taskloop.web.aiohttp import listening

    async with listening(site, settings.http.host, settings.http.port, settings.http.prefix) as address:
        narrator.say("INFO", "http.listening", url=address)
        yield
