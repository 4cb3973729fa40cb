"""The pages of what went wrong: failures by their cause, and the workers with what disturbed them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from taskloop.runs import Run
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.pages.rendering import see_other
from taskloop.web.pages.repeating import MOST, NEWEST, cause_of, failed_since, repeated_since, retry
from taskloop.web.problems import Problem
from taskloop.web.routes import INSTANT, TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "Cause", "causes"]

INCIDENTS: Final = 50


@dataclass(slots=True)
class Cause:
    """Runs that failed of the same error at the same place, or of none."""

    newest: Run
    oldest: Run
    jobs: list[str]
    key: str
    count: int = 0
    open: int = 0
    """Those of them that nobody asked for again."""


def causes(runs: Sequence[Run], repeated: Collection[int | None] = ()) -> list[Cause]:
    """Failed runs, the newest first, by what they failed of; the most frequent first. `repeated`: asked for again."""
    found: dict[str, Cause] = {}
    for one in runs:
        key = cause_of(one)
        cause = found.setdefault(key, Cause(one, one, [], key))
        cause.oldest = one
        cause.count += 1
        cause.open += one.id not in repeated
        if one.job not in cause.jobs:
            cause.jobs.append(one.job)
    return sorted(found.values(), key=lambda one: (-one.count, -one.newest.id))


async def failures(asked: Asked) -> Response:
    since = asked.query["since"] or "7d"
    found = await failed_since(asked.scheduler, since)
    again = await repeated_since(asked.scheduler, since)
    return await whole_page(
        asked, "failures.html", causes=causes(found, again), since=since, found=len(found), complete=len(found) < NEWEST,
        most=MOST, rarely=5,
    )  # fmt: skip


async def retry_all(asked: Asked) -> Response:
    """Run those of one cause again that were not yet."""
    since = asked.body["since"] or "7d"
    found, again = await failed_since(asked.scheduler, since), await repeated_since(asked.scheduler, since)
    group = [one for one in found if cause_of(one) == asked.body["cause"] and one.id not in again]
    for job in {one.job for one in group}:
        asked.count_submit(job)
    number, refused = await retry(asked.scheduler, group, actor=asked.principal.name)
    if not number and refused:
        raise Problem(409, "conflict", f"none was asked for again; {refused}")
    return see_other(asked, f"/failures?{urlencode({'since': since})}", "retried" if number else "retried_before")


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
        method="POST", path="/failures/retry", name="page_retry", scope=Scope.operate, handler=retry_all,
        summary="Run a group of failures again", page=True,
        body=(Parameter("since", INSTANT, "due from then on"), Parameter("cause", TEXT, "of this cause", required=True)),
    ),
    Route(
        method="GET", path="/workers", name="page_workers", scope=Scope.read, handler=workers, summary="Workers",
        page=True, query=PAGE,
    ),
)  # fmt: skip
