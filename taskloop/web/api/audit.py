"""Who changed what, and why. This route may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskloop.records import entry_record
from taskloop.web.api.asking import BEFORE, LIMIT, V1, limit, page
from taskloop.web.core import Response
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["FILTERS", "ROUTES", "filters"]


async def audit(asked: Asked) -> Response:
    most = limit(asked.query)
    found = await asked.scheduler.audit(**filters(asked), before=asked.query["before"], limit=most + 1)
    return await page(found, most, entry_record, lambda one: one.id)


def filters(asked: Asked) -> dict[str, Any]:
    """What of the query narrows the entries; an empty field does not."""
    return {name: asked.query[name] or None for name in ("actor", "job")}


FILTERS: Final = (
    Parameter("actor", TEXT, "only what this one changed"),
    Parameter("job", TEXT, "only what was changed of this job, its runs and its schedules"),
)

ROUTES = (
    Route(
        method="GET", path=f"{V1}/audit", name="audit", scope=Scope.read, handler=audit, gives={200: "Entries"},
        summary="What people changed, newest first", query=(*FILTERS, BEFORE, LIMIT), example="?job=report&actor=anna",
    ),
)  # fmt: skip
