"""What watches over a started scheduler: the pulse that beats for it, the watchdog on its loop, and what both learn.

Level 5. What is learnt goes three ways: into the journal (so that the past can be explained), to listeners and the log,
and into `health`, which each beat carries to the store, where other processes read it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from taskloop.context import running
from taskloop.errors import BadStore, StoreUnavailable, TaskloopError
from taskloop.firing import FireLoop
from taskloop.life import Life
from taskloop.pulse import Pulse
from taskloop.runs import RunId
from taskloop.schedules import Schedule
from taskloop.slots import TRUST_SECONDS, Slots
from taskloop.store_data import Worker
from taskloop.watchdog import Block, Watchdog

__all__ = ["Guard"]

MARGIN: Final = 0.2
"""The part of its lease in which a worker trusts it no more, where others may reach the store while it cannot: what it has
in hand is to end before they begin it anew.
"""


class Guard:
    """Watches over one worker from its start to its stop."""

    def __init__(
        self,
        life: Life,
        *,
        slots: Slots,
        fires: FireLoop,
        came_back: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._worker, self._clock, self._options = life.store, life.worker, life.clock, life.options
        self._journal, self._store_watch, self._listeners = life.journal, life.store_watch, life.listeners
        self._feed, self._say = life.feed, life.say
        self._slots = slots
        self._fires = fires
        self._came_back = came_back
        life.store_watch.urge = self._urge
        slots.trusted = self.is_trusted
        self._mended = 0
        """Of the lapses of the pulse those after which all is as it should be again."""
        self._pulse: Pulse | None = None
        self._watchdog: Watchdog | None = None
        self._trusted_for = life.options.lease.total_seconds() * (1.0 - MARGIN if life.store.remote else 1.0)
        self._others: Callable[[], Sequence[Worker]] = lambda: ()
        self._lapse: asyncio.TimerHandle | None = None
        self._stall = ""
        """The schedule that is due and does not move, if there is one."""

    @property
    def beats(self) -> bool:
        """Whether a thread beats for the worker."""
        return self._pulse is not None

    def start(self, others: Callable[[], Sequence[Worker]]) -> None:
        """Begin to beat and to watch the loop, in threads; in the time of a test there are none. `others` gives the other
        workers that live, as last seen.
        """
        if self._clock.steps_by_hand:
            return
        beater = self._store.beater(self._worker)
        if beater is not None:
            seconds = self._options.heartbeat.total_seconds()
            gap = max(self._options.lease.total_seconds() / 2, 1.5 * seconds)
            self._pulse = Pulse(
                beater, seconds, gap_seconds=gap, clock=self._clock, health=self.health, heard=self.heard_beat
            )
            self._pulse.start()
            self._others = others
            if self._store.remote:
                self._look_at_the_lease(0.0)
        limit = self._options.loop_limit
        if limit is not None:
            self._watchdog = Watchdog(
                asyncio.get_running_loop(),
                limit.total_seconds(),
                busy=lambda: bool(self._slots.attempts),
                who=self._whose,
                heard=self._heard_block,
                noticed=self._noticed_block,
            )
            self._watchdog.start()
            self._slots.stirred = self._watchdog.hurry

    def stop(self) -> None:
        """Watch no more; waits for nothing."""
        if self._lapse is not None:
            self._lapse.cancel()
        for part in (self._pulse, self._watchdog):
            if part is not None:
                part.stop()

    async def gone(self, seconds: float) -> None:
        """Leave the cursors right by the clock, and wait until nobody beats any more, at most `seconds` for each."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._fires.last_look()
        if self._pulse is not None:
            await self._pulse.gone(seconds)

    # -- what it knows

    def health(self) -> dict[str, Any]:
        """What this worker says of itself with each beat; asked in the thread of the pulse too."""
        health: dict[str, Any] = {**self._worker.health, "running": len(self._slots.attempts), "free": self._slots.free}
        if self._watchdog is not None:
            health["lag_ms"] = self._watchdog.lag_ms
            if (block := self._watchdog.blocked) is not None:
                health["blocked"] = _told(block)
        if self._store_watch.lost_at is not None:
            health["store"] = self._store_watch.error
        if self._stall:
            health["stalled"] = self._stall
        if self._fires.closing:
            health["stopping"] = True
        return health

    def is_trusted(self) -> bool:
        """Whether the lease is good by our own clock: what we have claimed is nobody else's yet, and what we fire too."""
        pulse = self._pulse
        return pulse is None or (pulse.lapses == self._mended and self._left_of_the_lease(pulse) >= 0.0)

    def through_since(self) -> float:
        """Since when our own beats have been written without a gap, by the steady clock: so long others could beat, too."""
        return -math.inf if self._pulse is None else self._pulse.through_since()

    def _left_of_the_lease(self, pulse: Pulse) -> float:
        """Seconds for which it is good without another beat."""
        return pulse.good_at + self._trusted_for - self._clock.monotonic()

    def _look_at_the_lease(self, seconds: float) -> None:
        """Look whether it is nearly over in so many seconds."""
        loop = asyncio.get_running_loop()
        self._lapse = loop.call_later(seconds, self._mind_the_lease, loop.time() + seconds)

    def _mind_the_lease(self, due: float) -> None:
        """End what is in hand when the lease is nearly over: others may have the server that we cannot reach, and begin it
        anew. With no other there it goes on, and is recorded when the server is back.

        `due`: when this look was to be. One that comes late comes after a standstill, and the next beat tells more.
        """
        assert self._pulse is not None
        left = self._left_of_the_lease(self._pulse)
        slept = asyncio.get_running_loop().time() - due > 2 * TRUST_SECONDS
        if left < 0.0 and not slept and self._others() and (asked := self._slots.give_up()):
            self._say("WARNING", "lease.lost", worker=self._worker.id, runs=asked)
        self._look_at_the_lease(2 * TRUST_SECONDS if slept else max(left, TRUST_SECONDS))

    def blocked_since(self, since: float) -> float:
        """For how many seconds since then somebody held the loop: it was late, but awake."""
        return 0.0 if self._watchdog is None else self._watchdog.blocked_since(since)

    # -- what it learns

    def stalled(self, schedule: Schedule | None) -> None:
        """A schedule has been due for long and has not moved: say so, and look again. None: all move."""
        if schedule is None or self._fires.closing:  # a stop gives runs their grace, and fires no more
            self._stall = ""
            return
        now = self._clock.now()
        silent = round(self._clock.monotonic() - self._fires.ticked_at, 1)
        self._stall = f"schedule '{schedule.id}' is due since {schedule.next_due} and does not move"
        self._journal.add("stalled", schedule.next_due or now, now, schedule=schedule.id, silent_seconds=silent)
        self._say("ERROR", "scheduler.stalled", schedule=schedule.id, silent_seconds=silent)
        self._fires.stir()

    def store_changed(self, name: str, data: Mapping[str, Any]) -> None:
        """The store was lost, or is back."""
        now = self._clock.now()
        if name == "store_back":
            self._journal.add("store", data["since"], now, error=data["error"])
            data = {"away_seconds": round((now - data["since"]).total_seconds(), 1)}
            self._fires.stir()
            self._slots.urge()
        self._feed.send(name, now, **data)

    def _urge(self, failing: Collection[object]) -> None:
        """The store takes something: what failed is tried again at once, for the same may hold for it."""
        if self._fires in failing:
            self._fires.stir()
        self._slots.urge()

    def heard_beat(self, news: bool | TaskloopError) -> None:
        self._store_watch.takes_beats = not isinstance(news, TaskloopError)
        if isinstance(news, TaskloopError):
            self._store_watch.lost(news, self, in_its_time=True)
            return
        self._store_watch.answered(self)
        if self._store_watch.lost_at is not None:  # what waits to be tried again need not wait: by that it is seen
            self._fires.stir()
            self._slots.urge()
        self._store_watch.beaten()
        if not news:
            now = self._clock.now()
            self._journal.add("taken_for_dead", now, now)
            self._say("WARNING", "worker.taken_for_dead", worker=self._worker.id)
            self._listeners.begin(self._slots.insist(self._come_back))

    async def _come_back(self) -> None:
        """We live, and others thought otherwise: let go of the runs they took, and take back what we fire.

        Until that is done nothing is fired or claimed: a worker of another version may have taken over our schedules
        by the names that it knows.
        """
        lapses = 0 if self._pulse is None else self._pulse.lapses
        before = list(self._slots.attempts.values())  # what begins while we ask is ours
        self._slots.lose(await self._store.in_hand(self._worker.id), before)
        try:
            await self._came_back()
        except (StoreUnavailable, BadStore):
            raise
        except Exception as error:  # a program that contradicts itself fires what it has
            self._say("ERROR", "worker.not_declared", error=repr(error))
        self._mended = max(self._mended, lapses)  # one that began after this may have ended before it
        self._fires.stir()

    def _whose(self, task: asyncio.Task[Any] | None) -> dict[str, Any]:
        """Who a task of the loop belongs to; asked in the thread of the watchdog, while the loop stands still."""
        if task is None:
            return {}
        get_context = getattr(task, "get_context", None)  # Python 3.12: tasks that a job has made are told too
        context = get_context().get(running) if get_context is not None else None
        for attempt in list(self._slots.attempts.values()):
            if attempt.task is task or (context is not None and attempt.context is context):
                return {"job": attempt.run.job, "run": attempt.run.id}
        coroutine = getattr(task.get_coro(), "__qualname__", "?")
        return {"task": f"{task.get_name()} ({coroutine})"}

    def _heard_block(self, block: Block) -> None:
        now = self._clock.now()
        since = now - timedelta(seconds=self._clock.monotonic() - block.began)
        until = min(now, since + timedelta(seconds=block.seconds))
        self._journal.add(block.kind, since, until, **_told(block), stack=list(block.stack))
        if block.kind == "frozen":
            self._say("WARNING", "process.frozen", seconds=round(block.seconds, 1))
            if block.seconds > self._options.lease.total_seconds():
                self._fires.slept(since, block.seconds)
            return
        attempt = self._slots.attempts.get(block.who.get("run", RunId(0)))
        told_elsewhere = ("job",) if attempt is None else ("job", "run")  # the run may have ended by now
        data = {name: fact for name, fact in _told(block).items() if name not in told_elsewhere}
        self._feed.send("loop_blocked", now, attempt.run if attempt else None, block.who.get("job"), **data)

    def _noticed_block(self, block: Block) -> None:
        """Called in the thread of the watchdog: the loop may never turn again."""
        self._say("WARNING", "loop.blocked", **_told(block), still=True)


def _told(block: Block) -> dict[str, Any]:
    """A block as it stands in records, events and lines."""
    return {"ms": round(1000 * block.seconds), "where": block.where, **block.who}
