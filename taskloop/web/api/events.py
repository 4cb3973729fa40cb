"""What happens, as it happens."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from taskloop.events import EVENTS
from taskloop.web.api.asking import V1, refuse_unknown
from taskloop.web.core import Response
from taskloop.web.routes import TEXT, Parameter, Route, whole, words
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

ASK_SECONDS: Final = 10.0
"""How often it is asked whether a listener may still listen."""


async def events(asked: Asked) -> Response:
    query = asked.query
    last = asked.request.headers.get("last-event-id") or query["last"]
    if query["job"] is not None:  # of one that is misspelt nothing would ever be told
        await refuse_unknown(asked, query["job"])
    heard = asked.site.live.stream(last, names=query["name"], job=query["job"], run=query["run"], admin=asked.admin)
    stream = while_allowed(asked, heard)
    # A proxy that gathers what it passes on would hold events back.
    return Response(200, stream, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})


async def while_allowed(
    asked: Asked, stream: AsyncGenerator[bytes, None], monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[bytes]:
    """The stream, until whoever listens may not any more."""
    asked_at = monotonic()
    async with aclosing(stream):
        async for chunk in stream:
            if monotonic() - asked_at > ASK_SECONDS:
                if not await asked.may_still():
                    return
                asked_at = monotonic()
            yield chunk


ROUTES = (
    Route(
        method="GET", path=f"{V1}/events", name="events", scope=Scope.read, handler=events, gives={200: "stream"},
        summary="Server-sent events of this process; each has an id, and Last-Event-ID takes up where it was left",
        query=(
            Parameter("name", words(*sorted(EVENTS)), "only these events", many=True),
            Parameter("job", TEXT, "only of this job"),
            Parameter("run", whole(1, 10**18), "only of this run"),
            Parameter("last", TEXT, "what Last-Event-ID would say, for who cannot send headers"),
        ),
        headers=(Parameter("Last-Event-ID", TEXT, "the id heard last"),),
        example="?name=failed,succeeded",
    ),
)  # fmt: skip
