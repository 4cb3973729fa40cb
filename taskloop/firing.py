"""The way of a fire, up to the function: what is due, which fate it has, and who starts it.

Level 5. `FireLoop.run` keeps one timer: it sleeps until the earliest due instant, or until somebody sets `_wake`, and
then does one `_tick`: what is due is planned (`schedules.plan`, pure), committed (`store.fire`), and what the store
hands out is launched in a slot. What waits in the store (submits, retries, queued fires) enters by `store.claim`.

Whatever the store hands out arrives by a callback, even if the task that asked was cancelled meanwhile: a run that is
committed as running is always started.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NoReturn

from taskloop.attendance import Attendance
from taskloop.clock import ClockWatch, Look, later
from taskloop.errors import BadStore, StoreUnavailable
from taskloop.jobs import Job
from taskloop.ledger import Ledger
from taskloop.life import Life
from taskloop.policy import Policy
from taskloop.processes import boot
from taskloop.runs import Cancelled, Run, State
from taskloop.schedules import Plan, Schedule, alike, last_due, plan, recalled, rewind
from taskloop.slots import TRUST_SECONDS, Slots
from taskloop.store_data import Claimed, Fired, Firing, Worker
from taskloop.switches import Switches, Verdict
from taskloop.triggers import Unreadable

__all__ = ["FireLoop"]

READ_AT_ONCE: Final = 500
"""Schedules read in one go while some are due: the first of them wait for it."""
READ_AHEAD: Final = 10_000
"""Schedules read in one go before their instant, when nobody waits."""
DUE_AT_ONCE: Final = 80
"""Schedules planned and written in one go: a millisecond of the loop, however many are due. And so few that what a go needs
dies before Python has counted 700 more things than before it, seven for each run: else its collector looks at the young ones
in each go, and once in ten thousand fires at all of the process, for which a loop stood still 33 to 50 ms instead of 13 to 20.
"""
MANY_FREE: Final = 32
"""With so many free slots a go has no more schedules than slots: what need not wait need not be claimed, a second write."""
FEW: Final = 10
"""Schedules that are read and planned in one turn of the loop."""
LONGEST_NAP: Final = 60.0
"""No sleep is longer, so that a step of the wall clock is noticed within a minute."""
GAP_SECONDS: Final = 30.0
"""A nap that ends this much later than it should was no nap: the machine slept, or its clock was set."""
WATCH_SECONDS: Final = 1.0
"""How often a worker that stops looks at its clocks."""
AHEAD: Final = timedelta(seconds=30)
"""A last word from so far in the future was said by a clock that has been set right since."""
COMING_SECONDS: Final = 1.0
"""What comes due so soon is read along with what is due: a hundred jobs a second cost one look a second, not two each. And
where none is due it is read by then, so that at its instant it is only fired: ten thousand at once with 64 slots end 8 %
sooner. The store writes nothing meanwhile: 40 ms for ten thousand."""
RIVAL_SECONDS: Final = 60.0
"""How long a worker looks at what is due alone, once another was quicker to fire what it had read."""
PLAN_HOLDS: Final = timedelta(seconds=1)
"""What was planned longer ago, while a store did not answer, is planned anew: it may be too late now, or the clock set."""
MOMENT: Final = timedelta(microseconds=1)
"""By so much more than `max_late` a run that waits is too late."""
BACK_SECONDS: Final = 0.5
"""A wall clock that lost this much against the steady one was set back."""


class FireLoop:
    """Fires what is due and starts what waits, for one started scheduler."""

    def __init__(
        self,
        life: Life,
        ledger: Ledger,
        slots: Slots,
        *,
        blocked_since: Callable[[float], float],
    ) -> None:
        self._ledger = ledger
        self._slots = slots
        self._store, self._clock, self._own, self._worker = life.store, life.clock, life.worker, life.worker.id
        self._journal, self._store_watch = life.journal, life.store_watch
        self._say, self._ended = life.say, life.ended
        self._blocked_since = blocked_since
        slots.freed = self.freed
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        # What is known of the store between two looks at it. All four begin as "it may be so", for nothing is known yet,
        # and `stir` says so again of all but `is_behind`.
        self._backlog = True
        """Whether to claim as soon as a slot is free. Set by whatever may let a waiting run start, and where the store
        had more than slots; cleared as a claim is asked for.
        """
        self.is_behind: bool = True
        """Whether runs wait that were here first: what is asked for here then waits behind them, and is not begun at once.
        Set where one is ready and found no slot; cleared by a claim that left none.
        """
        self._waits = True
        """Whether any run may be waiting in the store, ready or not. While none does a free slot wakes nobody."""
        self._unread = True
        """Whether schedules may have changed since they were last read; cleared by reading them."""
        self._next_at: datetime | None = None
        """When to read them again, unless they change before."""
        self._coming: deque[Schedule] = deque()
        """Schedules that are read and come due before that, the earliest first."""
        self._planned: list[Firing] = []
        """What comes before these: the plans of schedules that are due, made while the store wrote those before them."""
        self._planned_at = self._clock.now()
        """When the first of them was made."""
        self._rival_until = -math.inf
        """Until when, by the steady clock, nothing is read ahead: somebody else fires too."""
        self._ready_at: datetime | None = None
        """When the next waiting run is ready that was not when last asked, or one has waited too long."""
        self._look = ClockWatch(self._clock.now(), self._clock.monotonic())
        self._timer: asyncio.TimerHandle
        self._nap_seconds = 0.0
        self._wake_at: datetime | None = None
        """For how long the timer was set, and the instant after which it is not set any more."""
        self._set_back: list[Look] = []
        """Steps back of the wall clock that the cursors do not know of yet."""
        self._was_away = self._is_failing = False
        """Whether the store was out of reach when it was asked last, or this worker not to be trusted."""
        self._is_ahead = False
        """Whether a worker that is gone may have moved cursors by a clock that was ahead."""
        self.closing: bool = False
        self.attendance: Attendance = Attendance(self._clock.now())
        self._unreadable: set[str] = set()
        """Schedules whose trigger cannot be read here: they are passed by until something changes."""
        self._complained: set[tuple[str, str]] = set()
        self.ticked_at: float = self._clock.monotonic()
        """When it last looked, by the steady clock: what a guard can see of its life."""

    # -- what others tell it

    def close(self) -> None:
        """Fire and start no more."""
        self.closing = True
        self._wake.set()

    def stir(self) -> None:
        """Schedules, switches or waiting runs have changed: look at once."""
        self._backlog = self._unread = self._waits = True
        self._unreadable.clear()
        self._wake.set()

    def freed(self, stirred: bool, waits: bool) -> None:
        """A slot is free again. `stirred`: a run that waits for more than a slot may start; `waits`: one does wait."""
        self._waits |= waits
        self._backlog |= stirred and self._waits
        if self._backlog:
            self._wake.set()

    # -- the loop

    async def run(self) -> None:
        """Fire and start until closed; whatever goes wrong, the next fire does not depend on it."""
        while not self.closing:
            self.ticked_at = self._clock.monotonic()
            if not self._slots.trusted():  # taken for dead, as far as we know: what we claimed now might be taken away
                self._was_away = True
                await self._sleep_until(self._again_after(TRUST_SECONDS))
                continue
            try:
                if self._was_away:  # what somebody has switched or paused meanwhile holds for what is fired now
                    await self._ledger._refresh_switches(force=True)
                    self._was_away = False
                wake_at = await self._tick(self._clock.now())
                self._got_through()
            except (StoreUnavailable, BadStore) as error:
                self._was_away = self._is_failing = True
                self._store_watch.lost(error, self)
                wake_at = self._again_after(self._store_watch.patience())
            except Exception as error:
                self._say("ERROR", "tick.failed", error=repr(error))
                wake_at = self._again_after(1.0)
            try:
                await self._sleep_until(wake_at)
            except Exception as error:  # the host's loop is not ours: what it refuses once must not be the last fire
                self._say("ERROR", "tick.failed", error=repr(error))
                await asyncio.sleep(1.0)
        self._store_watch.answered(self)
        await self._keep_cursors_right()

    def _got_through(self) -> None:
        """Nothing failed, from what is due to what waits: here the store is as it should be."""
        if self._is_failing:
            self._store_watch.answered(self)
            self._store_watch.well()
            # It counts as lost until all who failed have got through; if others have not yet, the next go sees it.
            self._is_failing = self._store_watch.lost_at is not None

    async def _keep_cursors_right(self) -> NoReturn:
        """While a stop gives runs in hand their grace: a clock that is set back now, or was just before, must not leave
        the cursors ahead for as long, for others fire by them.
        """
        while True:
            await self.last_look()
            await asyncio.sleep(WATCH_SECONDS)

    async def last_look(self) -> None:
        """See at the very end whether the wall clock was set back: who comes next could not know that cursors are ahead.

        Raises nothing: the runs in hand keep their grace, and the stop goes on to its end.
        """
        try:
            self._notice(0.0)
            while self._set_back:
                await self._rewind(self._clock.now())
        except (StoreUnavailable, BadStore) as error:
            self._store_watch.lost(error)
        except Exception as error:
            self._say("ERROR", "tick.failed", error=repr(error))

    def _again_after(self, seconds: float) -> datetime:
        self._unread = True
        self._wake.clear()
        return later(self._clock.now(), timedelta(seconds=seconds))

    async def _tick(self, now: datetime) -> datetime | None:
        """Fire what is due and start what waits; gives the instant of the next thing to do, None: none is known."""
        await self._put_right(now)
        # The store is not asked again before the instant it named, unless something stirred.
        if self._unread or (self._is_to_be_read(now) and not self._is_due(now)):
            await self._read(now)
            if len(self._coming) > FEW:
                await asyncio.sleep(0)  # the host's turn, between reading and planning
        while True:
            if self._planned and not timedelta(0) <= now - self._planned_at <= PLAN_HOLDS:
                self._coming.extendleft(one.plan.schedule for one in reversed(self._planned))
                self._planned.clear()
            most = self._at_once()
            firings, due = self._planned[:most], self._taken(most - len(self._planned), now)
            jobs = {one.plan.schedule.job for one in firings} | {one.job for one in due}
            if any(job not in self._ledger for job in jobs) or self._ledger._is_untold():
                await self._ledger._know()  # a job was removed, or switched, and the store could not be told at once
                self._unread = True
                return now
            if self.closing:  # what is committed from here on is awaited by the stop; before, it knows of nothing
                return None
            if not firings and not due:
                break
            del self._planned[:most]
            await self._fire(firings + self._plans(due, now), now)
            now = self._clock.now()
            if self._unread or not self._slots.trusted():
                return now
            if self._is_to_claim():  # what waits has waited longer than what comes due now
                break
            # The next go at once, in the turn in which what this one started ends, it may be: both are written as one.
            self.ticked_at = self._clock.monotonic()
        if not self.closing and (self._is_to_claim() or (self._ready_at is not None and now >= self._ready_at)):
            await self._claim(now)
        if self._is_to_claim() or self._is_due(now):
            return now
        coming_at = self._coming[0].next_due if self._coming else None
        instants = (coming_at, self._read_at(), self._ready_at, self._ledger._terms_end)
        return min((at for at in instants if at is not None), default=None)

    async def _put_right(self, now: datetime) -> None:
        """What must be told to the store before it is asked what is due: a clock that was set, a pause that is over."""
        if self._set_back:
            await self._rewind(now)
        if self._is_ahead:
            await self._recall(now)
        terms_end = self._ledger._terms_end
        if terms_end is not None and now >= terms_end:
            await self._ledger._know()
            self.stir()

    async def _fire(self, firings: list[Firing], now: datetime) -> None:
        reserved = min(len(firings), max(0, self._slots.free))  # a plan is made as if there were a slot
        firings[reserved:] = [one._replace(starts=False) for one in firings[reserved:]]
        self._slots.reserve(reserved)
        if self._is_due(now):
            self._store.meanwhile(partial(self._plan_ahead, len(firings)))
        fired = await self._store.fire(firings, self._worker, now, partial(self._handed_out, reserved))
        self._moved(firings, fired)
        if fired.waiting:
            self._expect_too_late(firings)
        self._store_watch.well()

    def _plan_ahead(self, most: int) -> None:
        """Plan what is due beyond what the store has in hand."""
        if self._unread:  # then it is read again before any more is fired
            return
        self._unread, now = True, self._clock.now()  # what is taken stands nowhere, until it is planned
        due = self._taken(most - len(self._planned), now)
        if all(one.job in self._ledger for one in due):
            self._planned_at = self._planned_at if self._planned else now
            self._planned += self._plans(due, now)
            self._unread = False

    def _at_once(self) -> int:
        """How many schedules the next go has, if as many are due."""
        return min(DUE_AT_ONCE, self._slots.free) if self._slots.free >= MANY_FREE else DUE_AT_ONCE

    def _taken(self, most: int, now: datetime) -> list[Schedule]:
        """At most so many of what was read and is due."""
        due: list[Schedule] = []
        while len(due) < most and self._coming and (self._coming[0].next_due or now) <= now:
            due.append(self._coming.popleft())
        return due

    def _is_to_claim(self) -> bool:
        return self._backlog and self._slots.free > 0

    async def _claim(self, now: datetime) -> None:
        """Ask the store for runs that wait and may start, as many as there are slots for."""
        # Where nothing is known to wait, half of the slots stay free for what is asked for here while the store answers.
        # Else that would be written as waiting though a slot is free: all workers are told, whoever is first claims it,
        # and that has all look again, and so on.
        free = self._slots.free
        reserved = max(0, free if self.is_behind else (free + 1) // 2)
        self._backlog = False
        self._slots.reserve(reserved)
        claimed = await self._store.claim(self._worker, now, reserved, partial(self._handed_out, reserved))
        self._ready_at = claimed.next_at
        self._store_watch.well()

    def _ahead_seconds(self) -> float:
        """How long before its instant a schedule may be read."""
        return 0.0 if self._store.remote or self._clock.monotonic() < self._rival_until else COMING_SECONDS

    def _read_at(self) -> datetime | None:
        """When to read schedules again: a little ahead of the next, if all that were read before are fired."""
        if self._coming or self._next_at is None:
            return self._next_at
        return self._next_at - timedelta(seconds=self._ahead_seconds())

    def _is_to_be_read(self, now: datetime) -> bool:
        at = self._read_at()
        return at is None or now >= at

    async def _read(self, now: datetime) -> None:
        """Ask the store for what is due and what comes soon."""
        self._unread = False
        self._coming.clear()
        self._planned.clear()
        ahead, most = self._ahead_seconds(), READ_AT_ONCE
        try:
            found = await self._store.due(now, most, self._unreadable, ahead)
            if len(found.schedules) == most and (found.schedules[0].next_due or now) > now:  # there is time for more
                found = await self._store.due(now, most := READ_AHEAD, self._unreadable, ahead)
            while unreadable := [one for one in found.schedules if isinstance(one.trigger, Unreadable)]:
                self._pass_by(unreadable)
                found = await self._store.due(now, most, self._unreadable, ahead)
        except BaseException:
            self._unread = True
            raise
        self._coming.extend(self._in_order(found.schedules, now))
        last_at = found.schedules[-1].next_due if found.schedules else later(now, timedelta(seconds=LONGEST_NAP))
        self._next_at = found.next_at or last_at

    def _in_order(self, schedules: Sequence[Schedule], now: datetime) -> Sequence[Schedule]:
        """Schedules, given the earliest first, with those of one instant, or due by now, by priority: the first have the slots."""
        jobs = (self._ledger._jobs.get(name) for name in {one.job for one in schedules})
        rank = {job.name: -job.policy.priority for job in jobs if job is not None}
        if len(set(rank.values())) < 2:
            return schedules
        return sorted(schedules, key=lambda one: (max(one.next_due or now, now), rank.get(one.job, 0)))

    def _is_due(self, now: datetime) -> bool:
        return bool(self._planned or (self._coming and (self._coming[0].next_due or now) <= now))

    def _moved(self, firings: Sequence[Firing], fired: Fired) -> None:
        """See when what was just fired comes again; another worker that was quicker may have fired the rest, too."""
        if fired.lost:
            self._unread, self._rival_until = True, self._clock.monotonic() + RIVAL_SECONDS
        again = [one.plan.next_due for one in firings if one.plan.next_due is not None]
        self._next_at = min(again if self._next_at is None else [self._next_at, *again], default=None)

    def _expect_too_late(self, firings: Sequence[Firing]) -> None:
        """Claim as soon as one of these has waited too long, with no slot free too: its run would stand in the way of
        its schedule's next fires.
        """
        for one in firings:
            if one.policy.max_late is not None:
                ends = [
                    later(fire.due_at, one.policy.max_late + MOMENT) for fire in one.plan.fires if fire.reason is None
                ]
                self._ready_at = min(ends if self._ready_at is None else [self._ready_at, *ends], default=None)

    def _pass_by(self, schedules: Sequence[Schedule]) -> None:
        for one in schedules:
            self._unreadable.add(one.id)
            if (one.id, str(one.trigger)) in self._complained:
                continue
            self._complained.add((one.id, str(one.trigger)))
            self._say("ERROR", "schedule.unreadable", schedule=one.id, text=one.trigger.describe())

    def _facts(self, job: str, now: datetime) -> tuple[Policy, Verdict, list[str], datetime]:
        """What holds for all schedules of a job that are due: its policy, whether it is on, its names, who watched."""
        names = self._ledger._names(job)
        return self._ledger[job].policy, self._ledger._verdict(job, now), names, self.attendance.since(names)

    def _plans(self, due: Sequence[Schedule], now: datetime) -> list[Firing]:
        jobs = {name: self._facts(name, now) for name in {one.job for one in due}}
        # Stored with a job's own schedule is what the version declares that started last, which this one may not take.
        declared = {name: self._ledger[name].params for name in jobs}
        firings: list[Firing] = []
        decided: dict[tuple[str, int], Firing] = {}  # by job and trigger, the last
        for schedule in due:
            kind = schedule.job, id(schedule.trigger)
            like = decided.get(kind)
            if like is None or not alike(schedule, like.plan.schedule, like.policy):
                like = self._decided(schedule, *jobs[schedule.job], now)
                if like.plan.fires:  # else it could not be decided, which is said of each
                    decided[kind] = like
            own = declared[schedule.job] if schedule.origin != "stored" else None
            firings.append(Firing(like.plan.of(schedule), like.policy, True, like.because, like.trial, own))
        return firings

    def _decided(
        self, schedule: Schedule, policy: Policy, verdict: Verdict, names: list[str], watched: datetime, now: datetime
    ) -> Firing:
        """A schedule's plan; one of which nothing can be made is said and stopped: it must not hold up the others."""
        because: Mapping[str, Any] = verdict.because
        job, due_at = schedule.job, schedule.next_due or now
        upto, since, missed = now, watched, None
        try:
            over = self._ledger._switches.over(job, due_at) if verdict.on else Switches()
            if over:  # of fires that different pauses held, this plan has those that are settled as the first is
                upto = over.alike_until(job, due_at, now, policy.missed)
                since, missed = over.settling(job, last_due(schedule, policy, upto), watched)
            planned = plan(schedule, policy, now=now, watched_since=since, enabled=verdict.on, missed=missed, upto=upto)
            pause = over.held_by(job, due_at)
            if verdict.on and (pause is not None or due_at < since):
                because = self.attendance.outage(names) if pause is None else pause.told("paused")
        except MemoryError:  # no fault of the schedule: it is asked again
            raise
        except Exception as error:
            self._say("ERROR", "schedule.stopped", schedule=schedule.id, error=repr(error))
            planned = Plan(schedule, (), None, now)
        return Firing(planned, policy, because=because, trial=verdict.trial)

    def _handed_out(self, reserved: int, answer: Fired | Claimed | Exception) -> None:
        """Start what the store gave for `reserved` slots, and give back the slots it did not need."""
        self._slots.release(reserved)
        if isinstance(answer, Exception):
            self._backlog = self.is_behind = True
            return
        self.is_behind = answer.more or (self.is_behind and isinstance(answer, Fired))
        self._backlog |= answer.more
        self._waits = answer.left if isinstance(answer, Claimed) else self._waits or answer.more
        if not self._waits:  # other workers had those of ours
            self._slots.expected.clear()
        self._slots.launch_all(answer.started)
        for run in answer.ended:
            self._ended(run)
        for run_id in answer.replaced:
            self._slots.ask(run_id, Cancelled("superseded"))

    # -- what was asked for in this process

    def admit(self, runs: Sequence[Run]) -> list[Run]:
        """Runs as they are to be written: claimed at once where this process has a slot and nothing else is asked."""
        admitted = list(runs)
        if not (self.closing or self.is_behind):
            for place in sorted(range(len(runs)), key=lambda place: -runs[place].priority):  # the first have the slots
                admitted[place] = self._begun(runs[place])
        return admitted

    def _begun(self, run: Run) -> Run:
        if self._slots.free <= 0 or run.ready_at > run.created_at:  # first, for most of thousands that come at once
            return run
        if self._ledger[run.job].policy.constrained or self._ledger._is_held(run.job, run.created_at):
            return run
        self._slots.reserve(1)
        at = run.created_at
        return run.changed(
            state=State.RUNNING, worker=self._worker, token=1, attempt=1, started_at=at, attempt_started_at=at
        )

    def submitted(self, asked: Sequence[Run], answer: Sequence[Run] | Exception) -> None:
        """Runs were written, or could not be: start those that are ours."""
        self._slots.release(sum(run.state is State.RUNNING for run in asked))
        for run in () if isinstance(answer, Exception) else answer:
            if run.state is State.RUNNING and not run.existed:
                self._slots.launch(run)
            elif run.state is State.WAITING:
                self._slots.expect(run.id)
                self.is_behind |= run.ready_at <= run.created_at
                self.freed(stirred=True, waits=True)

    def heed_the_gone(self, gone: Sequence[Worker], others: Sequence[Worker]) -> None:
        """Workers have ended, and `others` live: what was left to one is ours, what one declared otherwise is as whoever
        started last has it, and what one moved by a clock that was ahead goes back.
        """
        ahead = later(self._clock.now(), AHEAD)
        if any((one.stopped_at or one.beat_at) > ahead for one in gone):
            self._is_ahead = True
            self.stir()
        if not self._own.fires:  # how they are fired is for others to say
            return
        ours = {job.name for job in self._ledger}
        # Of another version: it may have had our fires; or it has declared after us what we have too.
        if any(one.jobs is None or one.jobs - ours or self._is_after_us(one) for one in gone):
            self._ledger._redeclared(*self.ours_to_say(others))

    def ours_to_say(self, others: Sequence[Worker]) -> list[Job[..., Any]]:
        """The jobs that go by what is declared here: none of those that live has them and started after this worker."""
        after = [one for one in others if self._is_after_us(one)]
        theirs = {name for one in after for name in one.jobs or ()}
        if any(one.jobs is None for one in after):
            return []
        return [job for job in self._ledger if job.name not in theirs]

    def _is_after_us(self, other: Worker) -> bool:
        """Whether a worker that fires has started after this one."""
        return other.fires and (other.started_at, other.id) > (self._own.started_at, self._own.id)

    # -- the timer

    async def _sleep_until(self, wake_at: datetime | None) -> None:
        """The one timer: sleep until an instant of the wall clock (None: none), or until `_wake` is set."""
        self._notice(0.0)  # here, for there may be no sleep as long as more runs wait than there are slots
        if self._wake.is_set() or self.closing or not self._nap(wake_at):
            await asyncio.sleep(0)
        else:
            try:
                await self._wake.wait()
            finally:
                self._timer.cancel()
            self.ticked_at = self._clock.monotonic()
            self._notice(self._nap_seconds)
        self._wake.clear()

    def _nap(self, wake_at: datetime | None) -> bool:
        """Set the timer to `wake_at`, or to the next look at the clocks before it; False: it has come."""
        now = self._clock.now()
        nap = LONGEST_NAP if wake_at is None else min(LONGEST_NAP, (wake_at - now).total_seconds())
        if nap > 0:
            self._nap_seconds, self._wake_at = nap, wake_at
            self._timer = self._loop.call_at(self._loop.time() + nap, self._nap_over)
        return nap > 0

    def _nap_over(self) -> None:
        """Sleep on, unless there is something to do: called by the loop, for this is all that an idle worker does."""
        if self._wake.is_set():
            return
        try:
            self.ticked_at = self._clock.monotonic()
            self._notice(self._nap_seconds)
            if self._is_to_be_up() or not self._nap(self._wake_at):
                self._wake.set()
        except Exception:  # the host's loop has refused a timer, or its log a line: `run` goes on
            self._wake.set()
            raise

    def _is_to_be_up(self) -> bool:
        return self._wake.is_set() or self._backlog or self._unread or self.closing or bool(self._set_back)

    def doze(self, after: float, within: float) -> float:
        """Leave out looks at the clocks that would find nothing new, for the time of a test may jump over them: the next one
        is `after` so many seconds, and they are all `within` so many from it; gives how much later it is to be.
        """
        now, tick = self._clock.now(), self._clock.monotonic()
        if self._nap_seconds < LONGEST_NAP or self._is_to_be_up() or not self._look.is_true(now, tick):
            return 0.0
        if self._wake_at is not None:
            within = min(within, (self._wake_at - now).total_seconds() - after)
        if math.isinf(within):  # there is nothing to come before which a last look could be
            return 0.0
        left_out = max(0.0, math.ceil(within / LONGEST_NAP) - 1.0) * LONGEST_NAP
        self._look.leave_out(left_out)
        return left_out

    def _notice(self, nap: float) -> None:
        """See what became of both clocks since the last look, of which `nap` seconds were to be slept.

        After a suspend or a step forward, what was due meanwhile was missed, not late. A loop that somebody held was
        late, but awake.
        """
        look = self._look.look(self._clock.now(), self._clock.monotonic())
        if look.step < -BACK_SECONDS:
            self._set_back.append(look)
            self._next_at, self._unread = None, True
            self._tell_of_step(look, look.step)
            return
        overslept = max(0.0, look.elapsed - nap - self._blocked_since(look.since)) if nap else 0.0
        if look.step + overslept > GAP_SECONDS:
            self._tell_of_step(look, look.step + overslept)
            # a process that stood still woke just now; when between two looks a clock was set, nobody knows
            until = None if overslept > GAP_SECONDS else look.lived_from(self._clock.now())
            self.slept(look.before, look.step + overslept, until)
        elif look.step > BACK_SECONDS:
            self._journal.add("clock", look.before, self._clock.now(), step_seconds=round(look.step, 3))

    def slept(self, since: datetime, seconds: float, until: datetime | None = None) -> None:
        """This worker was not there to fire for so long; what is due from `until` on (None: now) was lived through."""
        self.attendance.slept(until or self._clock.now(), since, seconds)

    def _tell_of_step(self, look: Look, seconds: float) -> None:
        now, name = self._clock.now(), "clock.set_back" if seconds < 0 else "clock.gap"
        self._journal.add("clock", min(look.before, now), max(look.before, now), step_seconds=round(seconds, 3))
        self._say("WARNING", name, seconds=round(abs(seconds), 1))

    async def _rewind(self, now: datetime) -> None:
        """Tell the cursors that the wall clock was set back: else they would be silent until it has caught up."""
        look = self._set_back[0]
        moved = await self._move_cursors(look, lived := look.lived_from(now))
        await self._ledger._refresh_switches(force=True)
        self._set_back.pop(0)
        self._unread = self._backlog = True  # what waits may be ready sooner than it was when last asked
        self.attendance.set_back(lived)
        self._say("INFO", "clock.cursors_moved", moved=moved)

    async def _recall(self, now: datetime) -> None:
        def back(schedule: Schedule, decided: Sequence[tuple[datetime, datetime]]) -> Schedule:
            job = self._ledger._jobs.get(schedule.job)  # it may be removed meanwhile
            return schedule if job is None else recalled(schedule, job.policy, now=now, decided=decided)

        tick = self._clock.monotonic()
        moved = await self._store.rewind(back, now, back=None, boot=boot(), since=tick, tick=tick)
        self._is_ahead, self._unread, self._backlog = False, True, True
        if moved:
            self._say("WARNING", "clock.cursors_recalled", moved=moved)

    async def _move_cursors(self, look: Look, now: datetime) -> int:
        return await self._store.rewind(
            partial(self._rewound, timedelta(seconds=-look.step), now),
            now,
            back=timedelta(seconds=-look.step),
            boot=boot(),
            since=look.since,
            tick=look.since + look.elapsed,
        )

    def _rewound(
        self, back: timedelta, now: datetime, schedule: Schedule, decided: Sequence[tuple[datetime, datetime]]
    ) -> Schedule:
        """Called on the store's thread: values in, a value out."""
        job = self._ledger._jobs.get(schedule.job)  # it may be removed meanwhile
        return schedule if job is None else rewind(schedule, job.policy, now=now, back=back, decided=decided)
