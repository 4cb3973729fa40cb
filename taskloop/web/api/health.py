"""Whether it lives, whether it is ready, and what it can do. The first two are open to all and tell nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from taskloop import looking
from taskloop.web.core import Response, answer
from taskloop.web.routes import Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

STORE_SECONDS: Final = 2.0


async def alive(_: Asked) -> Response:
    """The loop answers: no more is said."""
    return await answer({"status": "ok"})


async def ready(asked: Asked) -> Response:
    """Whether the scheduler runs, and the store answers and takes what the scheduler writes; one word each.

    A store that is closed stays so: whoever asks needs no sign-in, and nobody would close it after a stop.
    """
    checks = {"scheduler": "ok" if asked.scheduler.is_running else "not running", "store": "ok"}
    try:
        async with asyncio.timeout(STORE_SECONDS):
            if looking.is_closed(asked.scheduler):
                checks["store"] = "closed"
            else:
                await asked.scheduler.runs(limit=1)
    except Exception:  # whatever is wrong with the store: it does not answer, and its words are not for all
        checks["store"] = "no answer"
    else:
        if looking.is_lost(asked.scheduler):
            checks["store"] = "lost"  # as where a disk is full, or a table locked: it is read, and takes nothing
    well = all(word == "ok" for word in checks.values())
    return await answer({"status": "ready" if well else "not ready", "checks": checks}, 200 if well else 503)


async def description(asked: Asked) -> Response:
    """The API as OpenAPI 3.1, with the parameters of each job."""
    text = await asked.site.described.text(asked.scheduler, asked.request.prefix)
    return Response(200, text, {"content-type": "application/json"})


async def metrics(asked: Asked) -> Response:
    """Figures for Prometheus, in its text format."""
    from taskloop.metrics import CONTENT_TYPE

    return Response(200, await asked.site.metrics.text(), {"content-type": CONTENT_TYPE})


ROUTES = (
    Route(
        method="GET", path="/healthz", name="alive", scope=None, handler=alive, summary="Whether the loop answers",
        gives={200: "Health"},
    ),
    Route(
        method="GET", path="/readyz", name="ready", scope=None, handler=ready,
        summary="Whether the scheduler runs, and the store answers and is not lost; 503 if not", gives={200: "Health", 503: "Health"},
    ),
    Route(
        method="GET", path="/metrics", name="metrics", scope=Scope.read, handler=metrics, gives={200: "text"},
        summary="Figures for Prometheus",
    ),
    Route(
        method="GET", path="/openapi.json", name="description", scope=Scope.read, handler=description,
        summary="This list as OpenAPI 3.1, with the parameters of each job",
    ),
)  # fmt: skip
