"""Running again: what a repeat changed, and that a form sent twice asks once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from taskloop.clock import SystemClock
from taskloop.errors import KeyConflict, NoSuchRun
from taskloop.masking import shown
from taskloop.runs import Run

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.scheduler import TaskScheduler

__all__ = ["Change", "asked_once", "changes", "source_of"]

TWICE: Final = timedelta(minutes=1)
"""A form that is sent again after this is meant so."""


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
