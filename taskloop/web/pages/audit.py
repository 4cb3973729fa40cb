"""The page of who changed what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from taskloop.web.api.asking import BEFORE
from taskloop.web.api.audit import FILTERS, filters
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.routes import Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

ENTRIES_A_PAGE: Final = 50


async def audit(asked: Asked) -> Response:
    narrowed = filters(asked)
    found = await asked.scheduler.audit(**narrowed, before=asked.query["before"], limit=ENTRIES_A_PAGE + 1)
    here, kept = found[:ENTRIES_A_PAGE], {name: value for name, value in narrowed.items() if value}
    following = urlencode({**kept, "before": here[-1].id}) if len(found) > len(here) else None
    return await whole_page(
        asked, "audit.html", entries=[(one, _text(one.before), _text(one.after)) for one in here], next=following,
        wanted=narrowed, kept=urlencode(kept), names=sorted(job.name for job in asked.scheduler),
    )  # fmt: skip


def _text(facts: Mapping[str, Any] | None) -> str:
    """Facts as people read them: `switch disabled, until 2026-03-01T02:00Z`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in (facts or {}).items())


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
