"""Running again: what a repeat changed, and that a form makes one run, however often it is sent."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from taskloop.errors import NoSuchRun
from taskloop.masking import shown
from taskloop.runs import Cause, Run, RunId, State

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = ["ONCE", "Difference", "Forms", "changes", "form_key", "sign", "source_of"]

ONCE: Final = 40
"""Characters of the sign of a form, at most."""

RECENT: Final = timedelta(minutes=10)
"""For so long a form that is sent again finds its run also where that has failed and another process had it."""
LOOKED: Final = 200
"""Runs among which it is looked for."""
REMEMBERED: Final = 1_000
"""Forms of which this process knows what came of them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A parameter that differs between a run and the one it repeats; empty: it was not given."""

    name: str
    before: str
    after: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """What differs between the parameters of two runs, by name; of a secret only that it does."""
    before, after = shown(old), shown(new)
    return [
        Difference(name, _text(before, name), _text(after, name))
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


def sign(asked: Asked) -> str:
    """What a form is given when it is made; that of a page which only brings itself up to date keeps its own."""
    return "" if asked.query.get("live") else secrets.token_hex(8)


def form_key(once: str, form: Mapping[str, Any], mark: Callable[[str], str]) -> str:
    """The key of what a form asks for: the same when it is sent again, another when it was changed before.

    `once`: the form's `sign`. `mark`: stands for a text and tells nothing of it, for in the form
    may be a secret, and a key is shown.
    """
    typed = json.dumps(sorted((name, str(value)) for name, value in form.items()), ensure_ascii=False)
    return f"form-{mark(f'form {once} {typed}')[:24]}"


class Forms:
    """The forms of one mount: each makes one run, also where that has failed before it is sent again.

    The key alone does not see to that: a run that has failed gives it up, so that it may be asked for again.
    """

    def __init__(self) -> None:
        self._sending: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._made: OrderedDict[str, RunId] = OrderedDict()

    async def ask(
        self,
        scheduler: TaskScheduler,
        job: str,
        key: str | None,
        cause: Cause,
        ask: Callable[[], Awaitable[RunHandle[Any]]],
    ) -> Run:
        """The run that the form of this key asks for; `existed`: it was asked for already. Raises what `ask` raises.

        `key` None: it has no sign, as one that a program filled in; then each asks anew.
        """
        if key is None:
            return (await ask()).run
        lock = self._sending.setdefault(key, asyncio.Lock())
        async with lock:
            earlier = await self._earlier(scheduler, job, key, cause)
            found = (await ask()).run if earlier is None else replace(earlier, existed=True)
            self._made[key] = found.id
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
            return found

    async def _earlier(self, scheduler: TaskScheduler, job: str, key: str, cause: Cause) -> Run | None:
        """What came of the form before; None: nothing, or what the store finds by the key itself."""
        if (known := self._made.get(key)) is not None:
            try:
                return await scheduler.run(known)
            except NoSuchRun:
                return None
        recent = await scheduler.runs(job, state=[*State], cause=cause, since=RECENT, limit=LOOKED)
        return next((one for one in recent if one.key == key), None)
