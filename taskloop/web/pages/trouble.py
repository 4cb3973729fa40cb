"""The pages of what went wrong: failures by their cause, and the workers with what disturbed them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from taskloop import durations
from taskloop.errors import BadDuration
from taskloop.web.api.bulk import Done, Selection, carry_out, choose, left_of
from taskloop.web.api.failures import NEWEST, SINCE, USUAL, causes, failed_since, fingerprint
from taskloop.web.api.whole import INCIDENTS
from taskloop.web.core import Response
from taskloop.web.discretion import incident
from taskloop.web.pages.loops import SPAN, loop_strip
from taskloop.web.pages.now import PAGE, empty_is_none, whole_page
from taskloop.web.pages.rendering import see_other
from taskloop.web.routes import TEXT, Parameter, Route, whole
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

LISTED: Final = 20
STRIPS: Final = 20
"""Workers whose loop is drawn."""
STOOD: Final = 500
"""Stands of the loops that are drawn."""


async def failures(asked: Asked) -> Response:
    return await _page(asked, asked.query["since"] or USUAL, asked.query["cause"])


async def _page(
    asked: Asked, since: str, cause: str | None, code: int = 200, *, refused: Done | None = None
) -> Response:
    """All causes, with how many runs of each are left to be run again; or one, with what became of its runs too.

    `refused`: what came of running them again, where some could not be.
    """
    scheduler = asked.scheduler
    found = await failed_since(scheduler, since)
    one: dict[str, Any] = {}
    left: Counter[str] = Counter()
    if not cause:
        left.update(map(fingerprint, await left_of(scheduler, found, since)))
    else:
        runs = [run for run in found if fingerprint(run) == cause]
        chosen = await choose(scheduler, _meant(cause, since, found[0].id), NEWEST) if runs else None
        one = {"runs": runs[:LISTED], "chosen": chosen, "last": found[0].id if found else 0,
               "known": any(run.job in scheduler for run in runs), "all": len(runs)}  # fmt: skip
    return await whole_page(
        asked, "failures.html", code, refused=refused, causes=causes(found), since=since, found=len(found), complete=len(found) < NEWEST,
        cause=cause, one=one, left=left, lately=_lately(since), rarely=5,
    )  # fmt: skip


def _lately(since: str) -> str:
    """The time that is asked for, in words: a span is one until now."""
    try:
        durations.parse(since)
    except BadDuration:
        return f"since {since}"
    return f"in the last {since}"


def _meant(cause: str, since: str, last: int | None) -> Selection:
    """The failures of one cause that a page has shown: none that came after."""
    return Selection("rerun", fingerprint=cause, since=since, before=None if last is None else last + 1)


async def retry(asked: Asked) -> Response:
    """Run the failures of one cause again, those that were not yet; and go back to where they are seen."""
    form = empty_is_none(asked.body)
    since, cause = form["since"] or USUAL, form["cause"]
    async with asked.site.bulk:
        chosen = await choose(asked.scheduler, _meant(cause, since, form["last"]), NEWEST)  # as the page counted them
        if chosen.runs:
            asked.count_submit("*")
            done = await carry_out(
                asked.scheduler, "rerun", chosen.runs, actor=asked.principal.name, reason=form["reason"]
            )
            if done.refused:
                return await _page(asked, since, cause, 409, refused=done)
            said = "retried" if done.runs else "again"
        else:
            said = "again" if chosen.again else "none_left"
    return see_other(asked, f"/failures?{urlencode({'since': since, 'cause': cause})}", said)


async def workers(asked: Asked) -> Response:
    status = await asked.scheduler.status()
    found = await asked.scheduler.incidents("24h", limit=INCIDENTS)
    held = await asked.scheduler.incidents(SPAN, limit=STOOD)
    if not asked.admin:
        found = [*map(incident, found)]
    now = asked.now
    loops = [loop_strip(one, held, now) for one in status.workers[:STRIPS]]
    return await whole_page(asked, "workers.html", status=status, incidents=found, loops=loops)


CAUSE: Final = Parameter("cause", TEXT, "only those that failed of this: a fingerprint")

ROUTES = (
    Route(
        method="GET", path="/failures", name="page_failures", scope=Scope.read, handler=failures, summary="Failures",
        page=True, query=(*PAGE, SINCE, CAUSE),
    ),
    Route(
        method="POST", path="/failures/retry", name="page_retry", scope=Scope.operate, handler=retry,
        summary="Run failures of one cause again", page=True,
        body=(
            Parameter("since", TEXT, SINCE.summary),
            Parameter("cause", TEXT, "its fingerprint", required=True),
            Parameter("last", whole(1, 10**18), "the newest run that was shown", required=True),
            Parameter("reason", TEXT, "why"),
        ),
    ),
    Route(
        method="GET", path="/workers", name="page_workers", scope=Scope.read, handler=workers, summary="Workers",
        page=True, query=PAGE,
    ),
)  # fmt: skip
