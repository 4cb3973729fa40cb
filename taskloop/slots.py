"""The slots of a process: how many runs it may have in hand, those it has, and how each comes to its end.

Level 5. A slot is taken before a run is claimed and given back when its function has ended, not before: so `free`
never lies about what this process is doing, even while a job that was abandoned goes on. Start at `launch`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, cast

from taskloop import capture
from taskloop.attempts import LiveAttempt
from taskloop.audience import Waiters
from taskloop.context import RunContext
from taskloop.errors import BadStore, Conflict, StoreUnavailable, TakenOver, TaskloopError, Unstorable
from taskloop.executors import Executor, InThread, is_called_for
from taskloop.injecting import Injecting
from taskloop.jobs import Job
from taskloop.life import Life
from taskloop.masking import clean_outcome, scrubber
from taskloop.outcomes import failure
from taskloop.runlog import end_log, open_log
from taskloop.runs import Lost, Outcome, Raised, Reason, Returned, Run, RunId, ShutDown, State, settle
from taskloop.steps import Step
from taskloop.store_data import Settling
from taskloop.tasks import Answer, disown, refused, undisturbed

__all__ = ["Slots"]

ANSWER_SECONDS: Final = 5.0
"""How long a stop waits for the store to say which runs it has just handed out."""
LEAST_SECONDS: Final = 0.4
"""How long it waits for that at least, without any grace."""
TURN: Final = 100
"""Runs launched in one turn of the loop."""
EXPECTED: Final = 100_000
"""Ids that are remembered as expected; beyond these the store is asked for each."""
GLANCE_SECONDS: Final = 10.0
"""After how long the housekeeping looks at runs in hand that have reported nothing; at old ones less often."""
TRUST_SECONDS: Final = 0.25
"""How often a worker that was silent for a lease looks whether it has beaten again."""
LAST_SECONDS: Final = 0.6
"""How long a stop waits, at its very end, for what it abandons to be recorded."""


class Slots:
    """The runs in hand of one started scheduler."""

    _is_taken_over: bool = False
    """Whether a newer program has the store, as whoever asked last was told; who is told so sets `_refused`."""

    def __init__(
        self,
        number: int,
        life: Life,
        *,
        executors: Mapping[str, Executor],
        waiters: Waiters,
        context: Callable[..., RunContext],
        overrides: Mapping[Any, Any],
    ) -> None:
        self.free: int = number
        """Runs that may still be claimed; below zero while a run that lent its slot has it back."""
        self.attempts: dict[RunId, LiveAttempt] = {}
        """Runs that are started and whose end is not recorded yet."""
        self._left: set[LiveAttempt] = set()
        """Those whose function may go on although their end is on record, or nobody's."""
        self._writes: set[asyncio.Task[None]] = set()
        """Each has the end of an attempt that the store refused when first asked."""
        self.expected: set[RunId] = set()
        """Waiting runs that this process wrote: those who wait for them need not ask the store at once."""
        self._lent: Counter[tuple[RunId, int]] = Counter()
        """By its claim, for how many other runs an attempt waits, while its slot is free for them."""
        self.expecting: int = 0
        """Slots held for runs that the store is asked to hand out and has not answered about."""
        self._answered, self._refused = asyncio.Event(), asyncio.Event()
        self.reported: asyncio.Event = asyncio.Event()
        """Set when a run has reported progress that is not written yet."""
        self.wished: bool = False
        """Whether the end of a run of ours may be wished in the store although nobody else has written."""
        self.logged: asyncio.Event = asyncio.Event()
        """Not set while lines of runs in hand are being written."""
        self.logged.set()
        self._closed = asyncio.Event()
        self._resting: set[asyncio.Future[None]] = set()
        """Each of those who wait before they ask a store again that was away."""
        self._over = False
        """A stop has waited for all it was to wait for: what is handed out now is for the next start."""
        self._store, self._jobs, self._clock, self._worker = life.store, life.jobs, life.clock, life.worker.id
        self._journal, self._store_watch, self._listeners = life.journal, life.store_watch, life.listeners
        self._say, self._tell, self._breaker = life.say, life.tell, life.breaker
        self._executors, self._waiters, self._context = executors, waiters, context
        self._injecting = Injecting(cast("InThread", executors["thread"]), overrides, life.say)
        self.trusted: Callable[[], bool] = lambda: True
        """Whether this worker's lease is good: its runs are nobody else's yet. The guard sets it."""
        self._kill_grace = life.options.kill_grace.total_seconds()
        self._log_room = log_room = life.options.capture
        """Characters that the log of an attempt may have; 0: none is kept."""
        self._end_capture = capture.attach() if log_room else None
        # Bound once, not for each attempt: what the collector of garbage has to look at for each is a fifth of its time.
        self._report, self._begin_steps, self._hear = self.report, self._stepping, self._heard
        self._now = life.clock.now
        self._open_log = partial(open_log, log_room, life.clock.now, self.report)
        life.journal.stir = self.reported.set
        self._glance: asyncio.TimerHandle | None = None
        self.stirred: Callable[[], None] = lambda: None
        """Called when a run begins while none was in hand."""
        self.freed: Callable[[bool, bool], None] = lambda *_: None
        """Told of each slot that is free again, as `FireLoop.freed` is, which sets it."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """The store is closed for good: nothing more can be written, and nobody waits for that any longer."""
        self._over = True
        with suppress(RuntimeError):  # of a loop that is closed: nobody waits
            self._closed.set()
            self.urge()
        if self._glance is not None:
            self._glance.cancel()
        if self._end_capture is not None:
            self._end_capture()

    def reserve(self, number: int) -> None:
        """Hold slots for runs that the store is asked to hand out."""
        self.free -= number
        self.expecting += number
        self._answered.clear()

    def release(self, number: int) -> None:
        """The store has answered: what it did hand out is launched next."""
        self.free += number
        self.expecting -= number
        if not self.expecting:
            self._answered.set()

    def launch_all(self, runs: Sequence[Run]) -> None:
        """Launch a few runs now and the rest in the next turns of the loop, so that a thousand do not hold it up."""
        for run in runs[:TURN]:
            self.launch(run)
        if len(runs) > TURN:
            self.reserve(len(runs) - TURN)
            self._loop.call_soon(self._launch_rest, runs[TURN:])

    def _launch_rest(self, runs: Sequence[Run]) -> None:
        self.release(len(runs))
        self.launch_all(runs)

    def launch(self, run: Run, *, told: bool = False) -> None:
        """Take a slot for a run that is committed as running, and give it a task of its own.

        `told`: whether there was a turn of the loop for the end of the attempt before it.
        """
        if self._over:  # the next start finds the run without its worker and says so
            return
        if not told and run.id in self.attempts:  # whose end the same transaction has written, it may be
            self.reserve(1)
            self._loop.call_soon(self._launch_told, run)
            return
        job = self._jobs._jobs.get(run.job)
        if job is None:  # removed between the claim and now
            self._listeners.begin(self._end_without_job(run))
            return
        if not self.trusted():  # this process stood still since it claimed the run: it may be another's by now
            self.reserve(1)
            self._listeners.begin(self._launch_if_ours(run))
            return
        self._launch(run, job)

    def _launch_told(self, run: Run) -> None:
        self.release(1)
        self.launch(run, told=True)

    def _launch(self, run: Run, job: Job[..., Any]) -> None:
        try:
            self._begin(run, job)
        except Exception as error:  # on record as running, it would be nobody's as long as this worker lives
            self._listeners.begin(self._end_unbegun(run, error))

    def _begin(self, run: Run, job: Job[..., Any]) -> None:
        self.expected.discard(run.id)
        executor = self._executors[job.policy.executor or ("loop" if job.is_async else "thread")]
        context = self._context(run, report=self._report)
        context.begin_steps, context.trusted = self._begin_steps, self.trusted
        if secrets := job.parameters.secrets(run.params):
            context.scrub = scrubber(secrets)
        if self._log_room:
            context.open_log = self._open_log
            capture.look()
        attempt = LiveAttempt(run, job, context, executor)
        if job.parameters.injected:
            attempt.injecting = self._injecting
        if not self.attempts:
            self.stirred()
        self.free -= 1
        self.attempts[run.id] = attempt
        if job.policy.timeout is not None:
            attempt.limit(job.policy.timeout.total_seconds(), self._abandon, self._kill_grace)
        attempt.task = self._loop.create_task(self._perform(attempt))
        if self._glance is None:
            self._glance = self._loop.call_later(GLANCE_SECONDS, self._glance_at_runs)
        self._tell("started", run, run.attempt_started_at)

    def _glance_at_runs(self) -> None:
        """Let the housekeeping look at runs that have been in hand for a while, though none has reported anything."""
        self._glance = None
        if self.attempts:
            self.reported.set()
            youngest = min(one.context.age for one in self.attempts.values())
            self._glance = self._loop.call_later(max(GLANCE_SECONDS, youngest / 20), self._glance_at_runs)

    async def _launch_if_ours(self, run: Run) -> None:
        while not self.trusted() and not self._closed.is_set():  # once it has beaten, nobody can take it any more
            await asyncio.sleep(TRUST_SECONDS)
        held = await self.insist(partial(self._store.in_hand, self._worker))
        self.release(1)
        if held is None:  # closed meanwhile: the next start finds the run without its worker and says so
            return
        if run.job not in self._jobs:
            await self._end_without_job(run)
        elif held.get(run.id) == run.token:
            self._launch(run, self._jobs[run.job])
        else:
            self._fenced(run, "it was not begun")

    def lose(self, held: Mapping[RunId, int], among: Sequence[LiveAttempt]) -> None:
        """Let go of those attempts that are not ours any more, given the runs the store says we have and their tokens."""
        for attempt in among:
            if held.get(attempt.run.id) != attempt.run.token and not attempt.settled:
                attempt.ask(Lost(), self._abandon, self._kill_grace)
                attempt.settled = True
                self._forget(attempt)
                self._left.add(attempt)
                self._fenced(attempt.run, "it was asked to end")

    def give_up(self) -> int:
        """Ask all that is in hand to end: others may soon begin it anew; gives how many were asked.

        What cannot be cancelled goes on, and is recorded if it is still ours then.
        """
        asked = [one for one in self.attempts.values() if one.ending is None and not one.settled]
        for attempt in asked:
            attempt.ask(Lost(Reason.LEASE_LOST), _let_be, self._kill_grace)
        return len(asked)

    def _fenced(self, run: Run, what: str) -> None:
        """A run of ours is another worker's: nothing of what it does here is recorded, but that it was so."""
        now = self._clock.now()
        self._journal.add("fenced", run.attempt_started_at or now, now, run=run.id, job=run.job, attempt=run.attempt)
        self._waiters.announce(run.id, None)
        self._say("WARNING", "run.fenced", job=run.job, run=run.id, attempt=run.attempt, text=what)

    def _unrecorded(self, run: Run) -> None:
        """What a run came to could not be written before we ended: the next start can only say that its worker died."""
        self._waiters.announce(run.id, None)
        text = f"what it came to, {run.state.value}, could not be written before the stop; the next start takes its worker for dead"
        self._say("WARNING", "run.unrecorded", job=run.job, run=run.id, attempt=run.attempt, text=text)

    def _forget(self, attempt: LiveAttempt) -> None:
        if self.attempts.get(attempt.run.id) is attempt:  # a retry without delay may be launched already
            del self.attempts[attempt.run.id]

    def expect(self, run_id: RunId) -> None:
        """A run that this process wrote waits, and is probably launched here."""
        if len(self.expected) >= EXPECTED:
            self.expected.clear()
        self.expected.add(run_id)

    def lend(self, context: RunContext, other: RunId) -> None:
        """A run in hand waits for another, or for one more: its slot is free until it waits for none.

        Raises `Conflict` where it is itself that it waits for.
        """
        attempt, claim = self.attempts.get(context.id), _claim(context._run)
        # What an attempt has left behind, or who was told of it, has no slot to lend.
        if attempt is None or attempt.settled or _claim(attempt.run) != claim:
            return
        if other == context.id and (attempt.is_in_hand() or is_called_for()):
            raise Conflict(f"run {other} would wait for its own end, for ever; let another run wait for it")
        self._lent[claim] += 1
        if self._lent[claim] == 1:
            self.free += 1
            self.freed(False, False)

    def take_back(self, context: RunContext) -> None:
        claim = _claim(context._run)
        if claim not in self._lent:
            return
        self._lent[claim] -= 1
        if not self._lent[claim]:
            del self._lent[claim]
            self.free -= 1

    def report(self) -> None:
        """A run reported progress; called from any thread."""
        with suppress(RuntimeError):  # a job's thread may outlive the loop
            self._loop.call_soon_threadsafe(self.reported.set)

    def _stepping(self, context: RunContext) -> Any:
        """What carries out the steps of a run in hand."""
        from taskloop.stepping import Stepping  # here, not above: most programs have no flow

        attempt = self.attempts.get(context.id)
        if attempt is None or attempt.context is not context:
            return _OVER
        run = attempt.run

        async def write(steps: Sequence[Step]) -> bool | None:
            if attempt.settled:  # its end is on its way to the store: what begins now, its next attempt would call too
                return False
            written: bool | None = await self.insist(partial(self._store.step, run, steps))
            return written

        return Stepping(
            attempt.context, run, read=partial(self.insist, partial(self._store.steps, run.id)), write=write,
            executor=self._executors.__getitem__, injecting=self._injecting, now=self._clock.now,
            chance=_chance, tell=partial(self._tell_of_step, attempt.context.scrub), log=self._say
        )  # fmt: skip

    def _tell_of_step(
        self, scrub: Callable[[str], str] | None, name: str, run: Run, at: datetime, *, step: str, **data: Any
    ) -> None:
        self._tell(name, run, at, step=step if scrub is None else scrub(step), **data)

    def ask(self, run_id: RunId, ending: Outcome) -> Run | None:
        """Ask a run in hand to end as `ending`; None: it is not in hand. Does not wait."""
        attempt = self.attempts.get(run_id)
        if attempt is None or attempt.settled:  # its end is being written: the store decides, after that
            return None
        attempt.ask(ending, self._abandon, self._kill_grace)
        return attempt.run

    def leave_a_wish(self) -> None:
        """Have the housekeeping look for a wish: it is for a run that may be ours and is not in hand yet, of many that were
        handed out together.
        """
        self.wished = True
        self.reported.set()

    async def wind_down(self, grace: timedelta, hurrying: asyncio.Event) -> None:
        """Let runs end for at most `grace`, or until somebody hurries; ask the rest to end; abandon what does not."""
        began = self._loop.time()
        self.urge()
        if self.expecting:  # a run that is committed as ours while we begin to stop is ours to start, and to end
            with suppress(TimeoutError):
                async with asyncio.timeout(max(LEAST_SECONDS, min(ANSWER_SECONDS, grace.total_seconds()))):
                    await self._answered.wait()
        await self._all_recorded(began + grace.total_seconds() - self._loop.time(), hurrying)
        self.urge()
        for run_id in list(self.attempts):
            self.ask(run_id, ShutDown())
        await self._all_recorded(self._kill_grace)
        for attempt in list(self.attempts.values()):
            self._abandon(attempt)
        self.urge()
        await self._all_recorded(LAST_SECONDS)
        left = began + (0.0 if hurrying.is_set() else grace.total_seconds()) + self._kill_grace - self._loop.time()
        hurry = asyncio.ensure_future(hurrying.wait())
        await self._injecting.leave(max(LAST_SECONDS, left), hurry, max(LAST_SECONDS, self._kill_grace))
        hurry.cancel()
        self._over = True
        disown(task for attempt in {*self.attempts.values(), *self._left} for task in attempt.tasks())
        disown(self._writes)

    async def _all_recorded(self, seconds: float, hurrying: asyncio.Event | None = None) -> None:
        deadline = self._loop.time() + seconds
        hurry = asyncio.ensure_future(hurrying.wait()) if hurrying is not None else self._loop.create_future()
        # Not down to zero: a virtual clock does not move for what is less than the loop can tell apart.
        while (left := deadline - self._loop.time()) > 0.0001 and not hurry.done() and self._may_be_recorded():
            self._refused.clear()
            heard = self._waiters.add(first := next(iter(self.attempts)))
            refused = asyncio.ensure_future(self._refused.wait())
            await asyncio.wait({heard, refused, hurry}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            refused.cancel()
            self._waiters.discard(first, heard)
        hurry.cancel()

    def _may_be_recorded(self) -> bool:
        """Whether what is in hand may yet be on record; of what has ended none will be where a newer program has the store."""
        return any(not (self._is_taken_over and attempt.settled) for attempt in self.attempts.values())

    async def _perform(self, attempt: LiveAttempt) -> None:
        if attempt.task is None:  # begun as it was made, by a host's `eager_task_factory`
            attempt.task = asyncio.current_task()
            await asyncio.sleep(0)  # what the job does first would find slots free that others are launched in next
        while not self.trusted() and not self._closed.is_set():  # we stood still since it was launched: it may be lost
            await asyncio.sleep(TRUST_SECONDS)
        try:
            outcome = await attempt.outcome(self._now, _chance)
        except GeneratorExit as error:
            if not attempt.is_in_hand():
                raise  # the loop is gone and Python is taking the coroutine apart
            outcome = Raised(failure(error), None)  # of a task or thread that the job awaited: thrown past all others
        if attempt.context.scrub is not None:
            outcome = clean_outcome(outcome, attempt.context.scrub)
        # Where it is lent it is free already: a task that the job left behind still waits for another run.
        if not self._lent or not self._lent.pop(_claim(attempt.run), 0):
            self.free += 1
            self.freed(False, False)
        await self._record(attempt, outcome)
        self._left.discard(attempt)
        attempt.task = None  # they hold each other, by its context: each run would wait for the garbage collector

    async def _record(self, attempt: LiveAttempt, outcome: Outcome) -> None:
        """Write what an attempt came to, however long the store is away, and tell it; what it came to first counts.

        Where the store gives an `Answer` this waits for neither: `attempts` has the attempt until its end is told.
        """
        if attempt.settled:
            return
        attempt.settled = True
        if attempt.task is not None and attempt.task.cancelling() and attempt.is_in_hand():
            with suppress(asyncio.CancelledError):  # asked to end in its last step: it would reach the writing
                await asyncio.sleep(0)
        run = attempt.run
        if attempt.context.latest is not None:
            run = run.changed(progress=attempt.context.latest)
        policy = attempt.policy
        # Asked of the others alone: a run that has returned, as nearly all have, is never repeated.
        repeatable = type(outcome) is not Returned and (policy.repeatable or not attempt.was_called())
        after = settle(run, outcome, now=self._clock.now(), repeatable=repeatable)
        if not self.logged.is_set():
            with suppress(asyncio.CancelledError):  # of a host that ends its loop: what is at hand is written
                await self.logged.wait()  # what could not be is given back, to be written with the rest
        # For the end of a scheduled run that has returned nobody waits, unless it lets something start that could not
        # before. For one that was asked for somebody may, even if nobody does yet: he may begin to when it has ended.
        frees = policy.constrained or policy.overlap in ("queue", "replace") or policy.breaker is not None
        awaited = run.schedule is None or type(outcome) is not Returned or frees or self._waiters.has(run.id)
        settling = Settling(
            attempt.run, after, outcome, policy.breaker, lines=end_log(attempt.context), awaited=awaited
        )
        answer = self._store.settle(settling)
        if isinstance(answer, Answer) and settling.breaker is None:
            answer.tell(self._hear, attempt, settling)
        else:
            await self._write(attempt, settling, answer)

    def _heard(self, attempt: LiveAttempt, settling: Settling, stands: Run | None, error: BaseException | None) -> None:
        """The store has answered about an end for which no task waits; one does from now on where it refused."""
        if error is None:
            self._store_watch.well()
            if (after := self._told(attempt, settling, stands)) is not None:
                self._announce(attempt, after)
        elif not self._loop.is_closed():
            self._write_beside(attempt, settling, refused(error))

    def _write_beside(self, attempt: LiveAttempt, settling: Settling, answer: Awaitable[Run | None]) -> None:
        """Write an end in a task of its own, which once begun heeds nobody who cancels it."""

        def over(task: asyncio.Task[None]) -> None:
            self._writes.discard(task)
            if task.cancelled() and task.cancelling():  # before its first step, by a host that cancels all tasks
                self._write_beside(attempt, settling, answer)

        task = self._loop.create_task(self._write(attempt, settling, answer))
        self._writes.add(task)
        task.add_done_callback(over)

    async def _write(self, attempt: LiveAttempt, settling: Settling, answer: Awaitable[Run | None]) -> None:
        """Write an end, however long the store is away, and tell it; `answer`: what the store says when first asked."""
        breaker_moved = self._breaker(attempt.run.job) if settling.breaker is not None else None
        try:
            written = await self._settle(settling, answer)
        except Exception as error:  # of what the job left, or a fault of ours; that it ended must be on record
            after = attempt.run.changed(
                state=State.FAILED, error=failure(error), progress=None, ended_at=self._clock.now()
            )
            settling = settling._replace(after=after, outcome=Lost())
            written = await self._settle(settling)
        if (stands := self._told(attempt, settling, written)) is not None:
            if breaker_moved is not None and stands.final:
                await undisturbed(partial(breaker_moved, stands))
            self._announce(attempt, stands)

    def _told(self, attempt: LiveAttempt, settling: Settling, written: Run | None) -> Run | None:
        """Tell of an end that was written; gives it as it stands. None: it was not, for the run is not ours any more."""
        self._forget(attempt)
        if written is None:
            if self._closed.is_set():
                self._unrecorded(settling.after)
            else:
                self._fenced(attempt.run, f"what it came to, {settling.after.state.value}, is not recorded")
        elif written.state is State.WAITING:
            self._tell("retrying", written, **_cut_short(settling.outcome))
        else:  # cancelled, it may be, instead of tried again
            self._tell(written.state.value, written)
        return written

    def _announce(self, attempt: LiveAttempt, after: Run) -> None:
        self._waiters.announce(after.id, after)
        # The run itself, the next of its schedule or one of its group may be able to start now.
        waits = after.state is State.WAITING
        if waits or after.schedule is not None or attempt.policy.constrained:
            self.freed(True, waits)

    async def _end_without_job(self, run: Run) -> None:
        after = run.changed(state=State.INTERRUPTED, reason=Reason.UNKNOWN_JOB.value, ended_at=self._clock.now())
        if await self._settle(Settling(run, after, Lost())) is not None:
            self._waiters.announce(run.id, after)
            self._tell("interrupted", after)

    async def _end_unbegun(self, run: Run, error: Exception) -> None:
        after = settle(run, Raised(failure(error), None), now=self._clock.now(), repeatable=False)
        if await self._settle(Settling(run, after, Lost())) is not None:
            self._waiters.announce(run.id, after)
            self._tell(after.state.value, after)
            self.freed(True, False)

    async def _settle(self, settling: Settling, answer: Awaitable[Run | None] | None = None) -> Run | None:
        """The run as it stands; None: it is not ours any more, or the next start finds it without its worker.

        `answer`: what the store says, if it is asked already.
        """
        try:
            stands: Run | None = await (self._store.settle(settling) if answer is None else answer)
        except Unstorable:
            raise
        except (TaskloopError, asyncio.CancelledError):  # what may have been written all the same is as good as written
            # Whoever has the task of a job may still cancel it; but by now it does the engine's work, not the job's.
            stands = await undisturbed(partial(self.insist, partial(self._store.settle, settling), again=True))
        else:
            self._store_watch.well()
        return stands

    async def insist(self, ask: Callable[[], Awaitable[Any]], *, again: bool = False) -> Any:
        """What the store answers, however long it is away; None: this worker has ended first. `again`: it failed before."""
        who = object()
        if again:
            self._store_watch.doubted(who)
        try:
            while True:
                try:
                    answer = await ask()
                    break
                except (StoreUnavailable, BadStore) as error:
                    self._is_taken_over = isinstance(error, TakenOver)
                    if self._is_taken_over:
                        self._refused.set()
                    if self._closed.is_set():
                        return None
                    self._store_watch.lost(error, who)
                turn: asyncio.Future[None] = self._loop.create_future()
                self._resting.add(turn)
                try:
                    await asyncio.wait({turn}, timeout=self._store_watch.patience())
                finally:
                    self._resting.discard(turn)
        finally:
            self._store_watch.answered(who)
        self._is_taken_over = False
        self._store_watch.well()
        return answer

    def urge(self) -> None:
        """Have what could not be written tried again at once: the store is back, or there is little time left."""
        for turn in self._resting:
            if not turn.done():
                turn.set_result(None)

    def _abandon(self, attempt: Any) -> None:
        """Record an attempt that was asked to end and goes on; its slot stays taken until it does end."""
        if attempt.task is not None:  # else it came to an end as it was asked to
            self._left.add(attempt)
            self._note_threads()
        self._listeners.begin(self._record(attempt, attempt.abandoned()))

    def _note_threads(self) -> None:
        """Tell once the last thread is held by what does not end: what waits for one is on record as running."""
        pool = cast("InThread", self._executors["thread"])
        deaf = [one.job.name for one in self._left if one._executor is pool and not one.job.is_async]
        if len(deaf) == pool.limit:
            text = (
                "each thread is held by a function that was asked to end and goes on, so plain functions wait, in hand and "
                "not called, until one returns; have them ask run.check_cancelled(), or use executor='process'"
            )
            self._say("WARNING", "thread.none_free", threads=pool.limit, jobs=",".join(sorted({*deaf})[:5]), text=text)


class _Over:
    """The steps of an attempt that has ended."""

    def tasks(self) -> list[asyncio.Task[Any]]:
        return []

    async def call(self, *_: Any) -> Any:
        raise Conflict(
            "the attempt has ended, and a step that begins now would be nobody's; await all that a job begins"
        )


_OVER: Final = _Over()


def _claim(run: Run) -> tuple[RunId, int]:
    """What tells an attempt from all others of its run."""
    return run.id, run.token


def _cut_short(outcome: Outcome) -> dict[str, Any]:
    """Why an attempt did not come to an end by itself, for who is told that its run waits again."""
    if isinstance(outcome, ShutDown):
        return {"reason": Reason.SHUTTING_DOWN.value}
    return {"reason": outcome.reason.value} if isinstance(outcome, Lost) else {}


def _let_be(attempt: Any) -> None:
    """Nothing, to an attempt that was asked to end and goes on."""


def _chance() -> float:
    """From 0 to 1, for the jitter of a retry."""
    import random

    return random.random()  # noqa: S311 - to spread those who wait, not to hide anything
