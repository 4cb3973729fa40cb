"""What several routes take, and the pages they give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from taskloop import looking
from taskloop.errors import NoSuchJob, nearest
from taskloop.web.core import Response, breathing, least, listed
from taskloop.web.routes import INSTANT, TEXT, Parameter, whole

if TYPE_CHECKING:
    from taskloop.runs import Run
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = [
    "BEFORE",
    "FIRES_UNTIL",
    "KEY",
    "KEY_HEADER",
    "LIMIT",
    "NARROWED",
    "NARROWING",
    "TOLD",
    "UNTIL",
    "V1",
    "key",
    "limit",
    "newest",
    "page",
    "refuse_unknown",
]

V1: Final = "/api/v1"
USUAL: Final = 100
PAGE_CHARACTERS: Final = 16_000_000
"""Of what the runs of a page came to and were given."""
FIRST, AT_ONCE = 25, 200
"""Runs that are read at once: before it is known how much they came to, and at most."""

LIMIT: Final = Parameter("limit", whole(1, 1000), f"how many at most; without it {USUAL}")
BEFORE: Final = Parameter("before", whole(1, 10**18), "only ids below this one: the `next` of the page before")
UNTIL: Final = Parameter("until", INSTANT, "it ends by itself then")
FIRES_UNTIL: Final = Parameter("until", INSTANT, "none after this instant")
KEY: Final = Parameter(
    "key",
    TEXT,
    "one run per job and key, which one that failed or was cancelled frees; also as the header Idempotency-Key",
)
KEY_HEADER: Final = Parameter("Idempotency-Key", TEXT, "the key, if the body has none")
NARROWING: Final = (
    Parameter("tag", TEXT, "only jobs with this tag"),
    Parameter("text", TEXT, "only jobs with this in their name or title"),
)
NARROWED: Final = (Parameter("job", TEXT, "only of this job"), *NARROWING)
TOLD: Final = (
    Parameter("reason", TEXT, "why: stands in the records"),
    Parameter("actor", TEXT, "for whom; only for callers with scope admin, without it the caller's own name"),
)


def limit(query: Any) -> int:
    """The limit of a page."""
    return int(query.get("limit") or USUAL)


def key(asked: Asked) -> str | None:
    """The key of the body, else of the header; None: there is none."""
    found: str | None = asked.body["key"] or asked.request.headers.get("idempotency-key")
    return found or None


async def page(found: Sequence[Any], most: int, record: Callable[[Any], Any], mark: Callable[[Any], Any]) -> Response:
    """A page of what was found, of which one more than `most` was asked for: `mark` of the last one leads to the next."""
    shown = found[:most]
    return await listed(shown, record, mark(shown[-1]) if len(found) > most else None)


async def newest(
    scheduler: TaskScheduler, narrowed: Mapping[str, Any], before: int | None, most: int
) -> tuple[list[Run], int | None]:
    """Runs, the newest first, at most so many; and what to give as `before` for those that follow, None: none do.

    Fewer where they came to much, or were given much: a thousand results of a megabyte are several gigabytes to whoever
    makes one answer of them. So they are read little by little, and no further than PAGE_CHARACTERS of them.
    """
    found: list[Run] = []
    count, characters = FIRST, 0
    while True:
        asked_for = min(count, most + 1 - len(found))
        some = await scheduler.runs(**narrowed, before=found[-1].id if found else before, limit=asked_for)
        for run, size in zip(some, await asyncio.to_thread(_sizes, some), strict=True):
            characters += size
            if found and (characters > PAGE_CHARACTERS or len(found) == most):
                return found, found[-1].id
            found.append(run)
        if len(some) < asked_for:
            return found, None
        fit = (PAGE_CHARACTERS - characters) * len(found) // max(characters, 1)
        count = max(1, min(AT_ONCE, fit))


def _sizes(runs: Sequence[Run]) -> list[int]:
    """Characters of what each came to and was given."""
    sizes = (least(one.result, one.params, one.error and one.error.traceback, most=PAGE_CHARACTERS) for one in runs)
    return [*breathing(sizes)]


async def refuse_unknown(asked: Asked, name: str) -> None:
    """Raise `NoSuchJob` for the name of a job that neither this program nor the store has."""
    if name not in asked.scheduler and not await asked.scheduler.jobs(name):
        raise await no_such_job(asked, name)


async def no_such_job(asked: Asked, name: str) -> NoSuchJob:
    """That no job has this name; with the one that had it before, else the one whose name is nearest to it."""
    near = await looking.heir(asked.scheduler, name) or nearest(name, [job.name for job in asked.scheduler])
    return NoSuchJob(name, near)
