"""The page that says whether all is right, and the switch of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from taskloop import explaining, looking, outlook
from taskloop.errors import BadStore, StoreUnavailable
from taskloop.runs import State
from taskloop.web.core import Response
from taskloop.web.discretion import wanting
from taskloop.web.pages.rendering import page, see_other
from taskloop.web.routes import FLAG, TEXT, Parameter, Route, whole, word
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.punctuality import Usual
    from taskloop.web.site import Asked

__all__ = ["PAGE", "ROUTES", "empty_is_none", "whole_page"]

PAGE: Final = (
    Parameter("said", TEXT, "what was done just now", own=True),
    Parameter("refresh", whole(5, 3600), "seconds after which the browser asks again", own=True),
    Parameter("live", FLAG, "only what changes, for the script of the page; shared by all who look", own=True),
)
"""What every page takes."""
COMING, FAILURES, RUNNING, WAITING = 10, 5, 20, 3
LOOKED: Final = 50
"""Schedules among which the next are found whose job is on."""
_ENDS: Final = (State.SUCCEEDED, State.FAILED, State.INTERRUPTED, State.CANCELLED, State.SKIPPED)


async def whole_page(asked: Asked, template: str, code: int = 200, **values: Any) -> Response:
    """A page with the bar that says whether everything is paused, and how many fires that holds."""
    paused = await asked.scheduler.paused()
    held = await asked.site.foresight.held() if paused else 0
    return await page(asked, template, code, paused=paused, held=held, **values)


def empty_is_none(form: Any) -> dict[str, Any]:
    """The fields of a form, of which one that was left empty was not given."""
    return {name: value or None for name, value in form.items()}


async def now(asked: Asked) -> Response:
    scheduler = asked.scheduler
    status = await scheduler.status()
    coming: list[Any] = []
    failures: list[Any] = []
    waiting: list[Any] = []
    today: Mapping[State, int] = {}
    usual: Mapping[str, Usual] = {}
    is_away = False
    try:
        off = {one.name for one in status.standings if not one.enabled}
        coming = [one for one in await outlook.outline(scheduler, LOOKED) if one[1].job not in off][:COMING]
        today = await looking.today(scheduler, [one.name for one in status.standings])
        usual = await asked.site.foresight.usual({one.job for one in status.active[:RUNNING]})
        failures = await scheduler.runs(state=[State.FAILED, State.INTERRUPTED], limit=FAILURES)
        if status.waiting:
            found = await looking.waiting(scheduler, WAITING)
            waiting = [(one, await explaining.waits_for(scheduler, one)) for one in found]
    except (StoreUnavailable, BadStore):  # the status says so, and what this process knows by itself is shown
        is_away = True
    return await page(
        asked,
        "now.html",
        status=status,
        attention=status.attention if asked.admin else [*map(wanting, status.attention)],
        coming=coming,
        failures=failures,
        running=status.active[:RUNNING],
        waiting=waiting,
        usual=usual,
        held_jobs={one.name for one in status.standings if one.condition == "paused"},
        today=[(today[one], one) for one in _ENDS if today.get(one)],
        midnight=asked.now.strftime("%Y-%m-%dT00:00Z"),
        paused=status.paused,
        held=await asked.site.foresight.held() if status.paused else 0,
        is_away=is_away,
    )


async def pause(asked: Asked) -> Response:
    form = empty_is_none(asked.body)
    await asked.scheduler.pause(reason=form.get("reason"), actor=asked.principal.name)
    return see_other(asked, "/", "paused")


async def resume(asked: Asked) -> Response:
    form = empty_is_none(asked.body)
    # Somebody else may have ended it, and have chosen what becomes of what it held.
    said = "resumed" if await asked.scheduler.paused() else "not_paused"
    await asked.scheduler.resume(missed=form.get("missed"), reason=form.get("reason"), actor=asked.principal.name)
    return see_other(asked, "/", said)


ROUTES = (
    Route(method="GET", path="/", name="page_now", scope=Scope.read, handler=now, summary="Now", query=PAGE, page=True),
    Route(
        method="POST", path="/pause", name="page_pause", scope=Scope.admin, handler=pause, summary="Pause everything",
        page=True, body=(Parameter("reason", TEXT, "why"),),
    ),
    Route(
        method="POST", path="/resume", name="page_resume", scope=Scope.admin, handler=resume, summary="Resume",
        page=True,
        body=(
            Parameter("missed", word("", "skip", "latest", "all"), "what becomes of what was held"),
            Parameter("reason", TEXT, "why"),
        ),
    ),
)  # fmt: skip
