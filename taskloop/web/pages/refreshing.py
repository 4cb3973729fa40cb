"""What the script of a page asks for: word that something changed, and then the page's own content again.

A page asked for with `live` is the same template without its frame. All who look at the same with the same rights are
given one look, see `sharing`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from taskloop.web.api.events import while_allowed
from taskloop.web.core import Response
from taskloop.web.problems import Problem
from taskloop.web.routes import Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "shared"]


def shared(route: Route) -> Route:
    """The route of a page, whose content alone is looked up once for all who ask."""
    if route.writes:
        return route
    handler = route.handler

    async def handle(asked: Asked) -> Response:
        if not asked.query.get("live"):
            return await handler(asked)
        who, request, was_running = asked.principal, asked.request, asked.scheduler.is_running

        async def look() -> Response:
            if was_running and not asked.scheduler.is_running:  # it stopped while we waited, and closed its store
                raise Problem(503, "not-running", "the scheduler has stopped", headers={"retry-after": "5"})
            return await handler(asked)

        key = (request.prefix, request.path, request.query, who.level)
        return await asked.site.shared.answer(key, look)

    return replace(route, handler=handle)


async def changes(asked: Asked) -> Response:
    stream = while_allowed(asked, asked.site.live.changes())
    return Response(200, stream, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})


ROUTES = (
    Route(
        method="GET", path="/changes", name="page_changes", scope=Scope.read, handler=changes, page=True,
        summary="Server-sent events: of which jobs and runs something happened, gathered",
    ),
)  # fmt: skip
