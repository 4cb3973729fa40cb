"""Running again: what a repeat changed, and a group of failed runs at once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from taskloop.clock import SystemClock
from taskloop.errors import KeyConflict, NoSuchRun, TaskloopError
from taskloop.masking import shown
from taskloop.runs import Cause, Run, State

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.scheduler import TaskScheduler

__all__ = [
    "MOST",
    "Change",
    "asked_once",
    "cause_of",
    "changes",
    "failed_since",
    "repeated_since",
    "retry",
    "source_of",
]

MOST: Final = 100
"""Runs of a group that are asked for again at once, the newest of them."""
TWICE: Final = timedelta(minutes=1)
"""A form that is sent again after this is meant so."""
NEWEST: Final = 1000
"""Failures that are looked at."""


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter that differs between a run and the one it repeats; empty: it was not given."""

    name: str
    before: str
    after: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What differs between the parameters of two runs, by name; of a secret only that it does."""
    before, after = shown(old), shown(new)
    return [
        Change(name, _text(before, name), _text(after, name))
        for name in sorted({*old, *new})
        if name not in old or name not in new or old[name] != new[name]
    ]


def _text(params: Mapping[str, Any], name: str) -> str:
    text = json.dumps(params[name], ensure_ascii=False, default=str) if name in params else ""
    return text if len(text) <= 200 else f"{text[:200]}…"


async def source_of(scheduler: TaskScheduler, run: Run) -> Run | None:
    """The run that this one repeats; None: none, or it is gone."""
    if run.rerun_of is None:
        return None
    try:
        return await scheduler.run(run.rerun_of)
    except NoSuchRun:
        return None


async def asked_once(ask: Callable[[str | None], Awaitable[RunHandle[Any]]], key: str) -> RunHandle[Any]:
    """What a form asks for: sent twice at once, as by a double click, it is one run. `ask` takes a key, or None."""
    try:
        handle = await ask(key)
    except KeyConflict:  # somebody went back to the form and changed it
        return await ask(None)
    if handle.run.existed and SystemClock().now() - handle.run.created_at > TWICE:  # went back to it, and means it
        return await ask(None)
    return handle


async def failed_since(scheduler: TaskScheduler, since: str) -> list[Run]:
    """Runs that failed or ended without a word, the newest first."""
    return await scheduler.runs(state=[State.FAILED, State.INTERRUPTED], since=since, limit=NEWEST)


async def repeated_since(scheduler: TaskScheduler, since: str) -> set[int | None]:
    """The runs that others repeat, which were asked for since then."""
    found = await scheduler.runs(cause=Cause.RERUN, state=[*State], since=since, limit=NEWEST)
    return {one.rerun_of for one in found}


def cause_of(run: Run) -> str:
    """What a run failed of: runs with the same are one group."""
    return run.error.fingerprint if run.error is not None else f"{run.job} {run.state} {run.reason}"


async def retry(scheduler: TaskScheduler, runs: Sequence[Run], *, actor: str) -> tuple[int, str]:
    """Run `MOST` of them again, but none that was already; gives how many were asked for, and why the first refused was."""
    asked, refused = 0, ""
    for one in runs:
        if asked == MOST:
            break
        if await scheduler.reruns(one.id):
            continue
        try:
            await scheduler.rerun(one.id, actor=actor, reason="all of a group of failures")
            asked += 1
        except (TaskloopError, ValueError) as error:
            refused = refused or f"run {one.id}: {error}"
    return asked, refused
