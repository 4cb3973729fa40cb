"""The pages of what went wrong: failures by their cause, and the workers with what disturbed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from taskloop.runs import Run, State
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.routes import INSTANT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "Cause", "causes"]

NEWEST: Final = 1000
"""Failures that are looked at."""
INCIDENTS: Final = 50


@dataclass(slots=True)
class Cause:
    """Runs that failed of the same error at the same place, or of none."""

    newest: Run
    oldest: Run
    jobs: list[str]
    count: int = 0


def causes(runs: Sequence[Run]) -> list[Cause]:
    """Failed runs, the newest first, by what they failed of; the most frequent first."""
    found: dict[str, Cause] = {}
    for one in runs:
        key = one.error.fingerprint if one.error is not None else f"{one.job} {one.state} {one.reason}"
        cause = found.setdefault(key, Cause(one, one, []))
        cause.oldest = one
        cause.count += 1
        if one.job not in cause.jobs:
            cause.jobs.append(one.job)
    return sorted(found.values(), key=lambda one: (-one.count, -one.newest.id))


async def failures(asked: Asked) -> Response:
    since = asked.query["since"] or "7d"
    found = await asked.scheduler.runs(state=[State.FAILED, State.INTERRUPTED], since=since, limit=NEWEST)
    return await whole_page(
        asked,
        "failures.html",
        rarely=5,
        causes=causes(found),
        since=since,
        found=len(found),
        complete=len(found) < NEWEST,
    )


async def workers(asked: Asked) -> Response:
    status = await asked.scheduler.status()
    found = await asked.scheduler.incidents("24h", limit=INCIDENTS)
    return await whole_page(asked, "workers.html", status=status, incidents=found, attention=status.attention)


ROUTES = (
    Route(
        method="GET", path="/failures", name="page_failures", scope=Scope.read, handler=failures, summary="Failures",
        page=True, query=(*PAGE, Parameter("since", INSTANT, "due from then on")),
    ),
    Route(
        method="GET", path="/workers", name="page_workers", scope=Scope.read, handler=workers, summary="Workers",
        page=True, query=PAGE,
    ),
)  # fmt: skip
