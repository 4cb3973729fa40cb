"""What a job gave, as people want to see it: a table of shapes of results, each with its picture; all others are JSON.

A shape tells by the value alone whether it fits, so the results of a host's own job are drawn too where they look alike.
Start at `SHAPES`; a further one is a line there, a module that lays it out, and a template with two macros.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from taskloop.runs import Run, State
from taskloop.web.api.jobs import the_job
from taskloop.web.core import Response
from taskloop.web.pages import repositories
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "SHAPES", "Picture", "Shape", "as_json", "picture_of"]

PAST: Final = 30
"""Runs whose results are looked at for how it came to be so."""
RESULT_CHARACTERS: Final = 20_000


class Shape(NamedTuple):
    """Results of one kind, and how they are drawn."""

    fits: Callable[[Any], bool]
    drawn: Callable[[Sequence[Run]], Any]
    """From runs, the newest first: the first one is shown, the others are its past."""
    template: str
    """Has the macros `brief`, for a page about something else, and `whole`."""


SHAPES: Final = (Shape(repositories.fits, repositories.drawn, "repositories.html"),)


class Picture(NamedTuple):
    """A result that has a picture."""

    template: str
    value: Any


def picture_of(runs: Sequence[Run]) -> Picture | None:
    """The picture of what the first of these runs gave; None: it has none. Takes milliseconds for what is large."""
    if not runs or runs[0].result is None:
        return None
    shape = next((one for one in SHAPES if one.fits(runs[0].result)), None)
    return None if shape is None else Picture(shape.template, shape.drawn(runs))


def as_json(value: Any) -> str:
    """A result as people read JSON, cut where it is long."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(text) > RESULT_CHARACTERS:
        text = f"{text[:RESULT_CHARACTERS]}\n… {len(text) - RESULT_CHARACTERS} characters more: see the JSON"
    return text


async def result(asked: Asked) -> Response:
    """What the newest success of a job gave, and where it can be drawn how that came to be."""
    record = await the_job(asked)
    runs = await asked.scheduler.runs(record.name, state=State.SUCCEEDED, limit=PAST)
    picture = await asyncio.to_thread(picture_of, runs)
    text = await asyncio.to_thread(as_json, runs[0].result) if runs and picture is None else ""
    return await whole_page(
        asked, "result.html", job=record, run=runs[0] if runs else None, shown=picture, text=text, wanted=asked.query
    )


ROUTES = (
    Route(
        method="GET", path="/jobs/{job}/result", name="page_result", scope=Scope.read, handler=result, page=True,
        summary="What it gave last", query=(*PAGE, Parameter("only", TEXT, "this part of it alone")),
    ),
)  # fmt: skip
