"""What happens, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskloop.events import EVENTS
from taskloop.web.api.asking import V1
from taskloop.web.core import Response
from taskloop.web.routes import TEXT, Parameter, Route, whole, words
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked


async def events(asked: Asked) -> Response:
    query = asked.query
    last = asked.request.headers.get("last-event-id") or query["last"]
    stream = asked.site.live.stream(last, names=query["name"], job=query["job"], run=query["run"])
    # A proxy that gathers what it passes on would hold events back.
    return Response(200, stream, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})


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
