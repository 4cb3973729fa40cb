"""A store that shows an engine only a part of what is there: `run --jobs`, `--no-fire` and `--fire-only`, `once`,
`process`.

The engine stays as it is: it fires what the store says is due and starts what the store hands out. With each beat the
worker tells which runs it takes, in `health["takes"]`: a list of jobs, or "all".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from taskloop.audit import Entry
from taskloop.runs import Cause, Run
from taskloop.store import Beater, Heed, Store
from taskloop.store_data import Due, Terms, Worker

__all__ = ["Narrow"]


class Narrow:
    """The store beneath, but: fires until an instant only, runs of certain jobs only, no runs for being started."""

    def __init__(
        self,
        store: Store,
        *,
        only: Collection[str] | None = None,
        fires: bool = True,
        starts: bool = True,
        one_round: bool = False,
        on_start: bool = False,
    ) -> None:
        """`only`: these jobs, and what they submit here; None: all. `starts`: whether any
        run is to be started here. `one_round`: what is due by the first look only.
        """
        self._store = store
        self._only = None if only is None else set(only)
        self._fires = fires
        self.starts: bool = starts
        """Whether runs are started here; else the engine has no slot, and what it fires waits for other workers."""
        self._one_round = one_round
        self._until: datetime | None = None
        self._on_start = on_start
        self._terms: list[Terms] = []
        self.nothing_due: asyncio.Event = asyncio.Event()
        """Set once the engine was told that nothing is due."""

    @property
    def only(self) -> Collection[str] | None:
        """The jobs it is narrowed to; None: all."""
        return self._only

    @property
    def fires(self) -> bool:
        """Whether schedules fire here, as a worker says of itself."""
        return self._fires and not self._one_round

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def telling(self, health: Mapping[str, Any]) -> dict[str, Any]:
        """What the worker says of itself, and which runs it takes."""
        takes = [] if not self.starts else "all" if self._only is None else sorted(self._only)
        return {**health, "takes": takes}

    async def enlist(self, worker: Worker) -> Sequence[Worker]:
        return await self._store.enlist(replace(worker, health=self.telling(worker.health)))

    async def beat(self, worker: Worker, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        return await self._store.beat(worker, now, tick, self.telling(health))

    def beater(self, worker: Worker) -> Beater | None:
        beater = self._store.beater(worker)
        return None if beater is None else _Telling(beater, self.telling)

    async def know(self, terms: Iterable[Terms]) -> None:
        self._terms = list(terms)
        await self._store.know([one for one in self._terms if self._only is None or one.job in self._only])

    async def due(self, now: datetime, limit: int, without: Collection[str] = (), ahead_seconds: float = 0.0) -> Due:
        if not self._fires:
            self.nothing_due.set()
            return Due((), None)
        if not self._one_round:
            return await self._store.due(now, limit, without, ahead_seconds)
        self._until = self._until or now
        found = await self._store.due(min(now, self._until), limit, without)
        if not found.schedules:
            self.nothing_due.set()
        later = found.next_at is not None and found.next_at > self._until
        return Due(found.schedules, None if later else found.next_at)

    async def submit(self, runs: Sequence[Run], heed: Heed | None = None, entry: Entry | None = None) -> Sequence[Run]:
        wanted = [run for run in runs if self._takes(run)]
        if not wanted and runs:
            return ()
        new = set() if self._only is None else {run.job for run in wanted} - self._only
        if self._only is not None and new:
            self._only |= new
            await self.know(self._terms)
        return await self._store.submit(wanted, heed, entry)

    def _takes(self, run: Run) -> bool:
        if run.cause is not Cause.ON_START:
            return True
        return self._on_start and (self._only is None or run.job in self._only)

    def as_store(self) -> Store:
        return cast("Store", self)


class _Telling:
    """A beater that tells more with each beat."""

    def __init__(self, beater: Beater, telling: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._beater, self._telling = beater, telling

    def beat(self, now: datetime, tick: float, health: Mapping[str, Any]) -> bool:
        return self._beater.beat(now, tick, self._telling(health))

    def close(self) -> None:
        self._beater.close()
