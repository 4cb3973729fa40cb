"""Failures by their cause, as the API and the page have them. This route may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskloop.records import instant_text
from taskloop.runs import Run, State
from taskloop.web.api.asking import V1
from taskloop.web.core import Response, answer
from taskloop.web.routes import INSTANT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = ["FAILED", "ROUTES", "SINCE", "USUAL", "FailureCause", "causes", "failed_since", "fingerprint"]

NEWEST: Final = 1000
"""Failures that are looked at."""
FAILED: Final = (State.FAILED, State.INTERRUPTED)
USUAL: Final = "7d"


@dataclass(slots=True)
class FailureCause:
    """Runs that failed of the same error at the same place, or of none."""

    fingerprint: str
    newest: Run
    oldest: Run
    jobs: list[str]
    count: int = 0


def fingerprint(run: Run) -> str:
    """What is the same of all runs that failed of one cause."""
    return (run.error.fingerprint if run.error is not None else "") or f"{run.job} {run.state} {run.reason}"


def causes(runs: Sequence[Run]) -> list[FailureCause]:
    """Failed runs, the newest first, by what they failed of; the most frequent first."""
    found: dict[str, FailureCause] = {}
    for one in runs:
        key = fingerprint(one)
        cause = found.setdefault(key, FailureCause(key, one, one, []))
        cause.oldest = one
        cause.count += 1
        if one.job not in cause.jobs:
            cause.jobs.append(one.job)
    return sorted(found.values(), key=lambda one: (-one.count, -(one.newest.id or 0)))


async def failed_since(scheduler: TaskScheduler, since: str | None) -> list[Run]:
    """The newest failed runs on record since then, at most NEWEST."""
    return await scheduler.runs(state=list(FAILED), since=since or USUAL, limit=NEWEST)


async def failures(asked: Asked) -> Response:
    found = await failed_since(asked.scheduler, asked.query["since"])
    items = [_record(one) for one in causes(found)]
    return await answer({"items": items, "next": None, "found": len(found), "complete": len(found) < NEWEST})


def _record(one: FailureCause) -> dict[str, Any]:
    error = one.newest.error
    return {
        "fingerprint": one.fingerprint,
        "type": None if error is None else error.type,
        "message": one.newest.reason if error is None else error.message,
        "jobs": one.jobs,
        "count": one.count,
        "first": {"run": one.oldest.id, "due_at": instant_text(one.oldest.due_at)},
        "last": {"run": one.newest.id, "due_at": instant_text(one.newest.due_at)},
    }


SINCE: Final = Parameter("since", INSTANT, f"on record from then on, or the time back from now; without it {USUAL}")

ROUTES = (
    Route(
        method="GET", path=f"{V1}/failures", name="failures", scope=Scope.read, handler=failures, query=(SINCE,),
        summary=f"Failed runs by their cause, the most frequent first; of the newest {NEWEST} at most", example="?since=24h",
    ),
)  # fmt: skip
