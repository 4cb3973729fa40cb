"""The whole at once, for pages: how it stands, who works, holding everything. These routes may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskloop.records import status_record, worker_record
from taskloop.web.api.asking import FIRES_UNTIL, LIMIT, TOLD, UNTIL, V1
from taskloop.web.api.jobs import MISSED, coming
from taskloop.web.core import Response, answer, listed
from taskloop.web.routes import Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked


async def _status(asked: Asked) -> dict[str, Any]:
    record = status_record(await asked.scheduler.status())
    if not asked.admin:  # where its file lies is no reader's business
        record["store"] = record["store"].partition("://")[0]
    return record


async def status(asked: Asked) -> Response:
    return await answer(await _status(asked))


async def upcoming(asked: Asked) -> Response:
    return await coming(asked)


async def workers(asked: Asked) -> Response:
    return await listed(await asked.scheduler.workers(), worker_record)


async def pause(asked: Asked) -> Response:
    await asked.scheduler.pause(until=asked.body["until"], **asked.told())
    return await answer(await _status(asked))


async def resume(asked: Asked) -> Response:
    await asked.scheduler.resume(missed=asked.body["missed"], **asked.told())
    return await answer(await _status(asked))


async def whoami(asked: Asked) -> Response:
    one = asked.principal
    scopes = [scope.name for scope in Scope if one.may(scope)]
    return await answer({"name": one.name, "scope": one.level.name, "scopes": scopes, "via": one.via})


ROUTES = (
    Route(
        method="GET", path=f"{V1}/status", name="status", scope=Scope.read, handler=status, gives={200: "Status"},
        summary="How the whole stands, and what needs a person",
    ),
    Route(
        method="GET", path=f"{V1}/upcoming", name="upcoming", scope=Scope.read, handler=upcoming, query=(FIRES_UNTIL, LIMIT),
        summary="The coming fires of all jobs, earliest first", example="?limit=10",
    ),
    Route(
        method="GET", path=f"{V1}/workers", name="workers", scope=Scope.read, handler=workers,
        summary="The processes that live",
    ),
    Route(
        method="POST", path=f"{V1}/pause", name="pause_all", scope=Scope.admin, handler=pause, body=(UNTIL, *TOLD),
        summary="Hold all jobs, in the whole store", gives={200: "Status"}, example="""-d '{"reason": "move"}'""",
    ),
    Route(
        method="POST", path=f"{V1}/resume", name="resume_all", scope=Scope.admin, handler=resume, body=(MISSED, *TOLD),
        summary="End the pause of all", gives={200: "Status"},
    ),
    Route(
        method="GET", path=f"{V1}/whoami", name="whoami", scope=Scope.read, handler=whoami,
        summary="Who asks, and what that one may do",
    ),
)  # fmt: skip
