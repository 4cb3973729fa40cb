"""What a started scheduler does beside firing: beats, runs of dead workers, wishes of others, progress, pruning.

Level 5. Each round of `Tending.round` is short and repeatable; what fails because the store is away is done in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from taskloop.clock import Clock
from taskloop.events import Feed
from taskloop.jobs import Jobs
from taskloop.options import Options
from taskloop.processes import is_dead
from taskloop.runs import Cancelled, Lost, Run, State, settle
from taskloop.slots import Slots
from taskloop.store import Settling, Store, Worker

__all__ = ["Tending"]

TEND_SECONDS: Final = 0.5
"""How often wishes of other processes are looked for, and progress is written."""
PRUNE_SECONDS: Final = 3600.0


class Tending:
    """The housekeeping of one worker."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        *,
        jobs: Jobs,
        slots: Slots,
        options: Options,
        clock: Clock,
        feed: Feed,
        tell: Callable[[str, Run], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._jobs = jobs
        self._slots = slots
        self._options = options
        self._clock = clock
        self._feed = feed
        self._tell = tell
        self.changed = False
        """Whether something was written by others that the engine has not looked at."""
        self._beat_at = self._prune_at = float("-inf")

    async def round(self) -> None:
        """Do what is to be done now; sets `changed` if others wrote or their runs were settled, for the engine to clear."""
        self.changed |= not self._store.private and await self._store.changed()
        now = self._clock.monotonic()
        if now >= self._beat_at and not self._store.private:
            await self._store.beat(self._worker.id, self._clock.now())
            self._beat_at = now + self._options.heartbeat.total_seconds()
            live = [one for one in await self._store.workers() if one.stopped_at is None]
            others = [one for one in live if one.id != self._worker.id]
            self.changed |= len(await self.rescue(others)) < len(others)
        if self.changed:
            await self._grant_wishes()
        await self._write_progress()
        if now >= self._prune_at and self._options.keep is not None:
            self._prune_at = now + PRUNE_SECONDS
            await self._prune(self._options.keep)

    async def nap(self) -> None:
        """Sleep until the next round; where nobody else can write, until there is something to write here."""
        if self._store.private:
            with suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_SECONDS):
                    await self._slots.reported.wait()
        self._slots.reported.clear()
        await asyncio.sleep(TEND_SECONDS)

    async def rescue(self, others: Sequence[Worker]) -> list[Worker]:
        """Settle the runs of workers that are gone, never of one that beats; gives those that live."""
        now = self._clock.now()
        dead = [
            one
            for one in others
            if one.id != self._worker.id and (is_dead(one) or now - one.beat_at > self._options.lease)
        ]
        for run in await self._orphans([one.id for one in dead]):
            repeatable = run.job in self._jobs and self._jobs[run.job].policy.repeatable
            after = settle(run, Lost(), now=now, repeatable=repeatable)
            if await self._store.settle(Settling(run, after, Lost())):
                self._tell("recovered", after)
                self._tell("retrying" if after.state is State.WAITING else after.state.value, after)
        for one in dead:
            await self._store.leave(one.id, one.beat_at)
        return [one for one in others if one.id != self._worker.id and one not in dead]

    async def _orphans(self, dead: Sequence[str]) -> Sequence[Run]:
        return await self._store.orphans(dead) if dead else ()

    async def _grant_wishes(self) -> None:
        for wish in await self._store.wishes(self._worker.id):
            self._slots.ask(wish.run, Cancelled(wish.reason, wish.actor))

    async def _write_progress(self) -> None:
        reports = []
        for attempt in self._slots.attempts.values():
            latest = attempt.context.latest
            if attempt.context.unwritten and latest is not None and not attempt.settled:
                attempt.context.unwritten = False
                attempt.run = attempt.run.changed(progress=latest)
                reports.append((attempt.run, latest))
                self._feed.send("progress", self._clock.now(), attempt.run)
        if reports:
            await self._store.progress(reports)

    async def _prune(self, keep: timedelta) -> None:
        while await self._store.prune(ended_before=self._clock.now() - keep):
            await asyncio.sleep(0.05)  # a fire goes before the next batch
