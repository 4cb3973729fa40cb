"""What a started scheduler does beside firing: runs of dead workers, wishes of others, progress, flags, pruning.

Level 5. Each round of `Tending.round` is short and repeatable; what fails because the store is away is done in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from taskloop.attempts import LiveAttempt
from taskloop.errors import BadStore, Conflict, StoreUnavailable
from taskloop.guard import Guard
from taskloop.jobs import Job
from taskloop.life import Life
from taskloop.processes import is_dead, lease_seconds, silent_seconds
from taskloop.punctuality import LATE, Usual, overdue, stuck
from taskloop.runs import Cancelled, Lost, Reason, Run, RunId, State, settle
from taskloop.slots import Slots
from taskloop.store_data import Settling, Wish, Worker
from taskloop.triggers import Unreadable

__all__ = ["TOLD_SECONDS", "Tending"]

TEND_SECONDS: Final = 0.5
"""How often wishes of other processes are looked for, and progress is written."""
RESCUE_SECONDS: Final = 1.0
MANY_WORKERS: Final = 100
TOGETHER: Final = 25
"""Runs of dead workers that are settled by one transaction. One by one two thousand took 6.4 s, on a server of the same machine;
so they take 2.9. Of more at once the lines of the log would hold the loop.
"""
RENAMED: Final = 1000
"""Records of a job's past that are given its new name in one go."""
FLAG_SECONDS: Final = 10.0
UNKNOWN_SECONDS: Final = 20.0
"""For how long a run may be ours in the store and unknown here: what it hands out is heard of within 15 s, or taken back."""
STALL_SECONDS: Final = 70.0
"""A schedule that is seen to be due for so long, while the store answers and the loop turns, should have moved."""
PRUNE_SECONDS: Final = 3600.0
MOST_LATE: Final = 20
"""Runs of a job of which it is told that they wait far too long, the oldest: the others wait behind these."""
MOST_LATE_OF_ALL: Final = 200
"""The same of all jobs: to tell of twenty of a thousand jobs each would hold the loop for seconds."""
ORPHANED: Final = timedelta(days=1)
"""How long a run may wait for a job that no live worker has: a deploy may bring it back."""
SEEN_SECONDS: Final = 3600.0
DOUBTFUL: Final = timedelta(days=30)
"""A step of the clock as long as this, or a store untouched for as long, makes nobody delete records for a day."""
TOLD_SECONDS: Final = 600.0
"""How often one and the same failure is told: it may come twice a second until somebody mends its cause."""


class Tending:
    """The housekeeping of one worker."""

    def __init__(
        self,
        life: Life,
        *,
        slots: Slots,
        heirs: Mapping[str, Sequence[Job[..., Any]]],
        guard: Guard,
        gone: Callable[[Sequence[Worker], Sequence[Worker]], None],
    ) -> None:
        self._store, self._worker, self._jobs = life.store, life.worker, life.jobs
        self._options, self._clock, self._feed = life.options, life.clock, life.feed
        self._journal, self._store_watch = life.journal, life.store_watch
        self._tell, self._breaker, self._ended = life.tell, life.breaker, life.ended
        self._slots = slots
        self._heirs = heirs
        self._guard = guard
        self._gone = gone
        self._begun = life.clock.monotonic()
        self.changed: bool = False
        """Whether something was written by others that the engine has not looked at."""
        self.others: Sequence[Worker] = ()
        """The other workers that live, as last seen."""
        self.beats: bool = not life.store.private
        """Whether beats are written here, on the loop; else a thread writes them."""
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._awake_at: float = self._begun
        """When we last did something here, by the steady clock."""
        self._awake_since: float | None = None
        """Since when we have not stood still ourselves; None: we never did."""
        self._enlisted_at = self._begun
        """When the store had taken this worker, by the steady clock."""
        self._is_away = False
        """Whether the store did not answer when it was asked last, or took no beat of ours."""
        self._still: tuple[Any, float] | None = None
        """The schedule that is due for longest, and since when it was seen to be, by the steady clock."""
        self._unknown: dict[tuple[RunId, int], float] = {}
        """Runs, with their tokens, that are ours in the store and unknown here; since when, by the steady clock."""
        self._flagged: dict[RunId, int] = {}
        """Runs that were told of already, and in which attempt."""
        # Not at once: what waited while no worker was there is overdue only if it goes on waiting now that one is.
        self._turns: dict[str, float] = {"flags": self._begun + FLAG_SECONDS}
        self._renaming = True
        self._wishes: list[Wish] = []
        """Wishes that were taken out of the store and are not granted yet."""
        self._prune_after: object | None = None
        self._looked: tuple[datetime, float] | None = None
        """The wall clock and the steady clock when it was last time to prune."""
        self._doubted_until = self._begun

    async def round(self) -> Exception | None:
        """Do what is to be done now; sets `changed` if others wrote or their runs were settled, for the engine to clear.

        Gives the first error of a duty, which has kept none of the others. Raises that of a store which is away.
        """
        shared = not self._store.private
        was_away, self._is_away = self._is_away, True
        self.changed |= shared and await self._store.changed()
        # A store that can be read but takes no beats, as a standby or one whose disk is full, takes nobody's.
        self._is_away = not self._store_watch.takes_beats
        if was_away:  # as after a start
            self._turns["flags"] = self._clock.monotonic() + FLAG_SECONDS
        if not self._is_away:  # once it has answered: while it is away we are as good as asleep
            self._note_standstill(was_away=was_away)
        if shared and self.beats and self._is_time("beat", self._options.heartbeat.total_seconds()):
            lives = await self._store.beat(
                self._worker, self._clock.now(), self._clock.monotonic(), self._guard.health()
            )
            self._guard.heard_beat(lives)
        wrong: Exception | None = None
        for duty in self._duties(shared):
            try:
                await duty()
            except (StoreUnavailable, BadStore):
                raise
            except Exception as error:  # of a row, it may be, that a worker of another version has written
                wrong = wrong or error
        self._store_watch.answered(self)
        if not self._options.enabled and self._store_watch.takes_beats:
            self._store_watch.well()  # nothing else is written here by itself: to wait for it would keep callers away
        return wrong

    def _duties(self, shared: bool) -> Iterator[Callable[[], Awaitable[object]]]:
        """What is to be done in this round, one after the other; each is done whatever has become of those before."""
        yield partial(self._mind_the_others, shared)
        if self.changed or self._wishes or self._slots.wished:
            yield self._grant_wishes
        yield self._write_progress
        yield partial(self._journal.write, self._store)
        if self._is_time("rename", 0.0 if self._renaming else FLAG_SECONDS):
            yield self._rename
        if self._is_time("flags", FLAG_SECONDS):
            if shared:  # what was written for a worker as it left
                yield self._settle_orphans
            if self._store.remote:
                yield self._settle_forgotten
            yield self._raise_flags
            yield self._guard_the_fires
        if self._is_time("prune", 0.0):
            yield self._prune

    async def _mind_the_others(self, shared: bool) -> None:
        # In a file each beat and each worker that comes is a change; a server counts no beats as one, for with a hundred
        # workers there is always a beat.
        if shared and (self.changed or (self._store.remote and self._is_time("others", self._look_seconds()))):
            before = self.others
            self.others = [one for one in await self._store.workers(living=True) if one.id != self._worker.id]
            await self._miss_some_of(before)
        silent = [one for one in self.others if self._is_silent(one)]  # of all of them: each look notes who has beaten
        if not self._is_away and (silent or (self.others and self._is_time("rescue", RESCUE_SECONDS))):
            before, self.others = self.others, await self.rescue(self.others)
            await self._miss_some_of(before)
            self.changed |= len(self.others) < len(before)

    def _look_seconds(self) -> float:
        """How often to look who lives: of a thousand workers each reads no more rows a second than of a hundred."""
        return RESCUE_SECONDS * max(1.0, len(self.others) / MANY_WORKERS)

    def _is_time(self, what: str, seconds: float) -> bool:
        """Whether `what`, to be done every so many seconds, is to be done now."""
        now = self._clock.monotonic()
        if now < self._turns.get(what, float("-inf")):
            return False
        self._turns[what] = now + seconds
        return True

    async def nap(self) -> None:
        """Sleep until the next round; where nobody else can write, until there is something to write here."""
        if self._store.private and self._prune_after is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_SECONDS):
                    await self._slots.reported.wait()
        self._slots.reported.clear()
        await self._store.hint(TEND_SECONDS)

    # -- other workers

    async def enlist(self) -> list[Worker]:
        """Take this worker into the store, settle what dead ones have left, and give those that live beside it.

        Whoever held the store until now has kept the others from beating too: their silence says nothing then.
        """
        others = await self._store.enlist(self._worker)
        self._enlisted_at = self._clock.monotonic()
        return await self.rescue(others, thorough=True)

    async def rescue(self, others: Sequence[Worker], *, thorough: bool = False) -> list[Worker]:
        """Settle the runs of workers that are gone, never of one that beats; gives those that live.

        `thorough`: look also for what was left by those that ended long ago.
        """
        dead = []
        self._note_standstill()
        for one in others:
            # Our own view may be old, if we stood still ourselves: the store buries nobody that has beaten since.
            if self._is_gone(one) and await self._store.bury(one):
                dead.append(one)
                self._seen.pop(one.id, None)
        if dead or thorough:
            await self._settle_orphans()
        return [one for one in others if one not in dead]

    async def _miss_some_of(self, before: Sequence[Worker]) -> None:
        lives = {one.id for one in self.others}
        gone = [one for one in before if one.id not in lives]
        for one in gone:  # also those that left in order, as a command of each minute does
            self._seen.pop(one.id, None)
        if gone:
            self._gone(gone, self.others)
            await self._settle_orphans()

    async def _settle_orphans(self) -> None:
        orphans = await self._store.orphans()
        known = {one.id: one for one in await self._store.workers()} if orphans else {}
        for start in range(0, len(orphans), TOGETHER):
            some = orphans[start : start + TOGETHER]
            await asyncio.gather(
                *(self._settle_lost(one, known.get(str(one.worker)), for_the_dead=True) for one in some)
            )

    async def _settle_forgotten(self) -> None:
        """Settle what the store has as running here and nobody here has in hand: a standby that lagged as it became the
        server does not know that it ended, and as long as we live nobody else would look at it.
        """
        if not self._slots.trusted():  # what is handed out meanwhile is begun once it is sure to be ours
            self._unknown.clear()
            return
        tick, held = self._clock.monotonic(), await self._store.in_hand(self._worker.id)
        unknown = [one for one in held.items() if one[0] not in self._slots.attempts]
        self._unknown = {one: self._unknown.get(one, tick) for one in unknown}
        for (run_id, token), since in self._unknown.items():
            if tick - since > UNKNOWN_SECONDS:
                run = await self._store.run(run_id)
                if run is not None and run.state is State.RUNNING and run.token == token:
                    await self._settle_lost(run, self._worker)

    async def _settle_lost(self, run: Run, worker: Worker | None, *, for_the_dead: bool = False) -> None:
        policy = self._jobs[run.job].policy if run.job in self._jobs else None
        repeatable = policy.repeatable if policy is not None else await self._is_repeatable_elsewhere(run)
        after = settle(run, Lost(), now=self._clock.now(), repeatable=repeatable)
        breaker = policy.breaker if policy is not None else None
        breaker_moved = self._breaker(run.job)
        stands = await self._store.settle(Settling(run, after, Lost(), breaker, for_the_dead=for_the_dead))
        if stands is not None:
            whose = {} if worker is None else {"worker": worker.name or worker.id, "host": worker.host}
            self._tell("recovered", stands, **whose)
            self._tell("retrying" if stands.state is State.WAITING else stands.state.value, stands, **whose)
            if breaker is not None and stands.final:
                await breaker_moved(stands)

    async def _is_repeatable_elsewhere(self, run: Run) -> bool:
        """Whether a job that only another program has may be called again, by what that program said of it."""
        facts = next((one.facts for one in await self._store.definitions() if one.name == run.job), None)
        return facts is not None and run.attempts > 1 and facts["policy"].get("on_crash") != "fail"

    def _is_gone(self, worker: Worker) -> bool:
        """Whether a worker's process has ended, or it has not beaten for a lease."""
        return is_dead(worker) or self._is_silent(worker)

    def _is_silent(self, worker: Worker) -> bool:
        """Whether a worker has not beaten for a lease, though it could have, and we were there all the time.

        The age of a beat is never taken from the wall clock, which each may have set otherwise: on one machine it is
        told by the clock that all share, and of another machine by what we ourselves have seen.
        """
        lease, tick = lease_seconds(worker, self._options.lease), self._clock.monotonic()
        silent, awake = silent_seconds(worker, tick), self._awake_since is None or tick - self._awake_since > lease
        if silent is None:
            beat_at, since = self._seen.get(worker.id, (None, tick))
            if beat_at != worker.beat_at:
                since = tick
            self._seen[worker.id] = (worker.beat_at, since)
            silent, awake = tick - since, True
        return silent > lease and awake and tick - self._could_beat_since() > lease / 2

    def _could_beat_since(self) -> float:
        """Since when whoever lives could beat, as far as we know: where one stood still in the midst of a transaction nobody
        could, and who begins then, or buries then, may be quicker than the beats of those that waited as well.
        """
        return max(self._enlisted_at, self._guard.through_since())

    def _note_standstill(self, *, was_away: bool = False) -> None:
        """See whether we stood still ourselves, or could not reach the store: then the silence of the others says nothing of
        them, for what held us may have held them, and what they have written since is only to come.
        """
        now, lease = self._clock.monotonic(), self._options.lease.total_seconds()
        gap = now - self._awake_at
        # Half of it is left for a beat to come through. One that is only slow, all the time, is awake after a lease, and
        # for as long again: else it would never find anybody dead.
        slow = self._awake_since is not None and now - self._awake_since < 2 * lease and gap < lease and not was_away
        if gap > max(lease / 2, 2 * TEND_SECONDS) and not slow:
            self._awake_since = now
            self._seen.clear()
        self._awake_at = now

    async def _grant_wishes(self) -> None:
        self._slots.wished = False
        await self._store.wishes(self._worker.id, self._hear_wishes)
        while self._wishes:
            wish = self._wishes[0]
            done = await self._store.cancel(wish.run, actor=wish.actor, reason=wish.reason, now=self._clock.now())
            if done is not None and done.ended:
                self._ended(done.run)
            self._wishes.pop(0)

    def _hear_wishes(self, answer: Sequence[Wish] | Exception) -> None:
        """They are in the store no more: also those that it hands out after nobody waited for them any longer.

        After some there may be more: those it did not hand out at once, and of runs that are not in hand yet.
        """
        self._slots.wished |= isinstance(answer, Exception) or bool(answer)
        for wish in () if isinstance(answer, Exception) else answer:
            if self._slots.ask(wish.run, Cancelled(wish.reason, wish.actor)) is None:  # its attempt ends as we hear it
                self._wishes.append(wish)

    async def _rename(self) -> None:
        """Give jobs what still stands under their aliases, or was put there by a worker of an earlier version."""
        # By the heirs, not by a look at every job: of a hundred thousand that would hold the loop for 9 ms.
        names = {alias: jobs[-1].name for alias, jobs in self._heirs.items()}
        if not names or not self._worker.fires:
            self._renaming = False
            return
        renamed = await self._store.rename(names, self._clock.now(), RENAMED)
        self._renaming = renamed.more
        for run in renamed.ended:
            self._ended(run)
        self.changed |= renamed.active or bool(renamed.schedules)

    # -- what the runs in hand say of themselves

    async def _write_progress(self) -> None:
        reporting, reports, logs = [], [], []
        for attempt in self._slots.attempts.values():
            if attempt.context.lines and not attempt.settled:
                logs.append(attempt)
            if attempt.settled or not attempt.context.unwritten:
                continue
            attempt.context.unwritten = False  # before the look: a thread may report between the two
            latest = attempt.context.latest
            if latest is not None:
                attempt.run = attempt.run.changed(progress=latest)
                reporting.append(attempt)
                reports.append((attempt.run, latest))
        if reports:
            try:
                await self._store.progress(reports)
            except BaseException:
                for attempt in reporting:
                    attempt.context.unwritten = True
                raise
            for run, _ in reports:
                self._feed.send("progress", self._clock.now(), run)
        if logs:
            await self._write_logs(logs)

    async def _write_logs(self, attempts: Sequence[LiveAttempt]) -> None:
        taken = [(attempt, attempt.context.lines.take()) for attempt in attempts]
        self._slots.logged.clear()
        try:
            await self._store.log([(attempt.run, lines) for attempt, lines in taken])
        except BaseException:
            for attempt, lines in taken:
                attempt.context.lines.give_back(lines)
            raise
        finally:
            self._slots.logged.set()

    async def _raise_flags(self) -> None:
        """Tell once of each run in hand that takes far longer than usual, and of each that waits far too long."""
        now, lively = self._clock.now(), LATE
        running = [one.run for one in self._slots.attempts.values() if not one.settled]
        expected = {one.run.id: one.policy.expect for one in self._slots.attempts.values()}  # its job may be removed
        old = [run for run in running if run.attempt_started_at is not None and now - run.attempt_started_at > lively]
        took = await self._store.usual(sorted({run.job for run in old})) if old else {}
        waiting = await self._store.late(now - LATE, each=MOST_LATE, most=MOST_LATE_OF_ALL)
        await self._close_orphans([run for run in waiting if self._is_orphan(run)], now)
        late = [run for run in waiting if self._is_ours_to_tell(run)]
        self._flagged = {one: self._flagged[one] for run in (*running, *late) if (one := run.id) in self._flagged}
        for run in old:
            usual = Usual.of(took[run.job]) if run.job in took else None
            facts = stuck(run.attempt_started_at, now, usual, expected[run.id])
            self._flag(run, facts and {"condition": "stuck", **facts}, run.attempt)
        for run in late:
            facts = overdue(run.ready_at, now)
            self._flag(run, facts and {"condition": "overdue", **facts}, -1)

    def _flag(self, run: Run, facts: Mapping[str, Any] | None, occasion: int) -> None:
        if facts and self._flagged.get(run.id) != occasion:
            self._flagged[run.id] = occasion
            self._feed.send("overdue", self._clock.now(), run, **facts)

    def _is_ours_to_tell(self, run: Run) -> bool:
        """Of several workers that know a job the one tells that has been there longest."""
        mine = (self._worker.started_at, self._worker.id)
        knowing = [one for one in self.others if one.jobs is None or run.job in one.jobs]
        return run.job in self._jobs and all((one.started_at, one.id) > mine for one in knowing)

    def _is_orphan(self, run: Run) -> bool:
        """Whether no live worker has the job of a run."""
        return run.job not in self._jobs and all(
            one.jobs is not None and run.job not in one.jobs for one in self.others
        )

    async def _close_orphans(self, runs: Sequence[Run], now: datetime) -> None:
        """Cancel what has waited for ORPHANED for a job that nobody has, once this worker has seen so for long itself."""
        if self._clock.monotonic() - self._begun < SEEN_SECONDS:
            return
        for run in runs:
            if now - run.ready_at > ORPHANED:
                done = await self._store.cancel(
                    run.id, actor="taskloop", reason=Reason.UNKNOWN_JOB.value, now=now, waiting_only=True
                )
                if done is not None and done.ended:
                    self._ended(done.run)

    async def _guard_the_fires(self) -> None:
        """See that every schedule that is due has moved: the guard over the engine itself."""
        if not self._worker.fires or self._store_watch.lost_at is not None:
            return
        found = (await self._store.due(self._clock.now() - LATE, 20)).schedules
        readable = (one for one in found if not isinstance(one.trigger, Unreadable))
        first, tick = next(readable, None), self._clock.monotonic()
        seen = (first.id, first.next_due) if first is not None else None
        if self._still is None or self._still[0] != seen:
            self._still = (seen, tick)
        # Seen twice, for the wall clock may have stepped, which the engine notices within a minute.
        stalled = first is not None and tick - self._still[1] > STALL_SECONDS
        self._guard.stalled(first if stalled else None)

    # -- pruning

    def doubt_the_clock(self, step: timedelta) -> None:
        """Delete nothing for a day if the clock jumped far: it may be wrong, and records are not to be had again."""
        if step > DOUBTFUL:
            self._turns["prune"] = self._doubted_until = self._clock.monotonic() + timedelta(days=1).total_seconds()

    def _has_jumped(self, now: datetime, tick: float) -> bool:
        """Whether the clock went far ahead since the last look at it; then it is doubted."""
        before, self._looked = self._looked or (now, tick), (now, tick)
        step = now - before[0] - timedelta(seconds=tick - before[1])
        self.doubt_the_clock(step)
        return step > DOUBTFUL

    async def _earlier(self, now: datetime) -> datetime:
        """The earlier of our clock and that of the store's server, if it has one: a host whose clock is ahead takes nobody's
        records, also where it has been so since its start and others live beside it.
        """
        theirs = None if self._clock.steps_by_hand else await self._store.clock()
        return now if theirs is None else min(now, theirs)

    async def _prune(self) -> None:
        """A part of a round over all jobs, most of the time at rest, so that fires go first; a round every hour."""
        now = self._clock.now()
        if self._has_jumped(now, self._clock.monotonic()):
            return
        now = await self._earlier(now)
        until = self._clock.monotonic() + TEND_SECONDS
        while True:
            began = self._clock.monotonic()
            pruned = await self._store.prune(self._options.keep, now=now, after=self._prune_after)
            self._prune_after, ended = pruned.after, self._clock.monotonic()
            if pruned.after is None:
                self._turns["prune"] = max(
                    self._turns["prune"], ended + PRUNE_SECONDS
                )  # later where a clock is doubted
                return
            if ended > until:
                return
            await asyncio.sleep(max(0.005, 3 * (ended - began)))

    async def prune_history(self, progress: Callable[[int], None]) -> None:
        """A whole round, for the job of that name, which hears how many runs are gone. Raises `Conflict`: not now."""
        now, began = self._clock.now(), self._clock.monotonic()
        if self._has_jumped(now, began) or began < self._doubted_until:
            raise Conflict(
                f"the clock of this machine is more than {DOUBTFUL.days} days ahead of what was last on record, as if it "
                "had jumped, so nothing is deleted for a day; see that it is right"
            )
        now, deleted, after = await self._earlier(now), 0, None
        while True:
            began = self._clock.monotonic()
            pruned = await self._store.prune(self._options.keep, now=now, after=after)
            deleted, after = deleted + pruned.deleted, pruned.after
            progress(deleted)
            if after is None:
                return
            await asyncio.sleep(max(0.005, self._clock.monotonic() - began))
