"""The page of who changed what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from taskloop.signs import readable
from taskloop.web.api.asking import BEFORE
from taskloop.web.api.audit import FILTERS, filters
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.pages.rendering import zone_of
from taskloop.web.routes import Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

ENTRIES_A_PAGE: Final = 50
INSTANTS: Final = ("at", "until", "expires_at", "trigger")
"""Facts that are one, or have one within. Parameters and reasons stand as they were given."""


async def audit(asked: Asked) -> Response:
    narrowed = filters(asked)
    found = await asked.scheduler.audit(**narrowed, before=asked.query["before"], limit=ENTRIES_A_PAGE + 1)
    here, kept = found[:ENTRIES_A_PAGE], {name: value for name, value in narrowed.items() if value}
    following = urlencode({**kept, "before": here[-1].id}) if len(found) > len(here) else None
    zone, now = zone_of(asked), asked.now
    return await whole_page(
        asked, "audit.html", entries=[(one, _text(one.before, zone, now), _text(one.after, zone, now)) for one in here], next=following,
        wanted=narrowed, kept=urlencode(kept), names=sorted(job.name for job in asked.scheduler),
    )  # fmt: skip


def _text(facts: Mapping[str, Any] | None, zone: tzinfo, now: datetime) -> str:
    """Facts as people read them, their instants on the clock of a zone: `switch disabled, until 02:00:00 UTC`."""
    told = {name: _value(value) for name, value in (facts or {}).items()}
    return ", ".join(f"{name} {readable(one, now, zone) if name in INSTANTS else one}" for name, one in told.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_value(one)}" for name, one in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


ROUTES = (
    Route(
        method="GET", path="/audit", name="page_audit", scope=Scope.read, handler=audit, summary="Audit", page=True,
        query=(*PAGE, *FILTERS, BEFORE),
    ),
)  # fmt: skip
