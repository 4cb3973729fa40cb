"""The whole at once, for pages: how it stands, who works, holding everything. These routes may change."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, get_args

from taskloop.attention import Item, found
from taskloop.punctuality import Condition
from taskloop.records import instant_text, status_record, switch_record, worker_record
from taskloop.web.api.asking import FIRES_UNTIL, LIMIT, TOLD, UNTIL, V1
from taskloop.web.api.jobs import MISSED, coming
from taskloop.web.core import Response, answer, listed
from taskloop.web.discretion import incident, item, wanting
from taskloop.web.routes import INSTANT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked


INCIDENTS: Final = 50
"""What disturbed a worker: as much as is shown."""


async def _status(asked: Asked) -> dict[str, Any]:
    record = status_record(await asked.scheduler.status())
    if not asked.admin:  # where its file lies is no reader's business
        record["store"] = record["store"].partition("://")[0]
        record["attention"] = [*map(wanting, record["attention"])]
    return record


async def status(asked: Asked) -> Response:
    return await answer(await _status(asked))


async def upcoming(asked: Asked) -> Response:
    return await coming(asked)


async def workers(asked: Asked) -> Response:
    return await listed(await asked.scheduler.workers(), worker_record)


async def summary(asked: Asked) -> Response:
    """The figures of the whole; nothing that grows with the history."""
    status = await asked.scheduler.status()
    conditions = Counter(one.condition for one in status.standings)
    return await answer(
        {
            "running": status.running,
            "paused": switch_record(status.paused),
            "jobs": {"all": status.jobs, **{word: conditions[word] for word in get_args(Condition)}},
            "runs": {"waiting": status.waiting, "running": status.in_hand},
            "workers": len(status.workers),
            "attention": len(status.attention),
            "loop_lag_ms": status.loop_lag_ms,
        }
    )


async def loop(asked: Asked) -> Response:
    """How late the loops are, and what disturbed them."""
    status = await asked.scheduler.status()
    incidents = await asked.scheduler.incidents(asked.query["since"] or "24h", limit=INCIDENTS)
    return await answer(
        {
            "lag_ms": status.loop_lag_ms,
            "workers": [{**worker_record(one), "lag_ms": one.health.get("lag_ms")} for one in status.workers],
            "incidents": [
                {
                    "kind": one.kind,
                    "worker": one.worker,
                    "since": instant_text(one.since),
                    "until": instant_text(one.until),
                    "data": dict(one.data),
                }
                for one in (incidents if asked.admin else map(incident, incidents))
            ],
        }
    )


async def attention(asked: Asked) -> Response:
    items = await found(asked.scheduler)
    return await listed(items if asked.admin else [*map(item, items)], Item.record)


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
        method="GET", path=f"{V1}/attention", name="attention", scope=Scope.read, handler=attention,
        summary="What needs a person, the worst first; each item with a key that stays",
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
        method="GET", path=f"{V1}/summary", name="summary", scope=Scope.read, handler=summary,
        summary="The whole in a few figures: jobs by how they stand, runs in hand, workers",
    ),
    Route(
        method="GET", path=f"{V1}/loop", name="loop", scope=Scope.read, handler=loop,
        query=(Parameter("since", INSTANT, "from then on, or the time back from now; without it 24h"),),
        summary=f"How late each worker's loop is, and the newest {INCIDENTS} things that disturbed a worker", example="?since=1h",
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
