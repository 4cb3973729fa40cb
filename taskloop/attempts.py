"""One call of a job's function, from its start to the outcome; and how it is asked, once, to end.

Level 4. Nothing that foreign code does gets past `LiveAttempt.outcome`: what it raises, SystemExit included, becomes an
`Outcome`; its kind is asked of its type, for `__class__` is foreign code too. The task of an attempt is cancelled once
by `Task.cancel()`: a scope would cancel again at each await, so that a job's own clean-up could not wait for anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from taskloop.context import AttemptCancelled, RunContext, running
from taskloop.executors import Executor, OnLoop, RaisedElsewhere
from taskloop.jobs import Job
from taskloop.outcomes import NOTHING, failure, finished, returned
from taskloop.policy import ELSEWHERE, Policy
from taskloop.retry import Fatal, Retry, RetryAt
from taskloop.runs import Cancelled, Failure, Lost, Outcome, Raised, Reason, Returned, Run, ShutDown

if TYPE_CHECKING:
    from taskloop.injecting import Injecting

__all__ = ["FlowFailed", "LiveAttempt", "decisive", "is_ended_by_host", "judged", "taken"]


_EXCEPTIONS: Final = BaseExceptionGroup.__dict__["exceptions"].__get__
"""The errors of a group as Python has them: a class of the job's own may say otherwise, or fail."""


class FlowFailed(Fatal):
    """Steps of a flow have failed, after all their retries."""

    def __init__(self, failure: Failure, result: Any) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.result = result


class LiveAttempt:
    """The attempt in hand of a running run."""

    __slots__ = (
        "_executor",
        "_killer",
        "_queues",
        "_timer",
        "begun",
        "cancellable",
        "context",
        "ending",
        "injecting",
        "job",
        "policy",
        "run",
        "settled",
        "task",
        "timed_out",
    )

    def __init__(self, run: Run, job: Job[..., Any], context: RunContext, executor: Executor) -> None:
        self.run: Run = run
        self.job: Job[..., Any] = job
        self.policy: Policy = job.policy
        self.context: RunContext = context
        self.task: asyncio.Task[None] | None = None
        self.ending: Outcome | None = None
        """What the attempt comes to because it was asked to end; None: it was not."""
        self.timed_out: Raised | None = None
        """The end that its timeout asked for, whatever was asked for since; None: it is in time."""
        self.begun: bool = False
        """Whether the function may have been called; a task cancelled before its first step would never record."""
        self.settled: bool = False
        """Its end is recorded: what it still does or returns concerns nobody."""
        self.cancellable: bool = job.is_async
        """Whether it is on the loop, where it is asked to end by cancelling its task."""
        self.injecting: Injecting | None = None
        """Enters what the job is given; None: it is given nothing."""
        self._executor = executor
        self._queues: bool = not job.is_async and getattr(executor, "queues", False)
        """Whether the call may wait for a thread or a process; the context says when it does no more."""
        self._timer: asyncio.TimerHandle | None = None
        self._killer: asyncio.TimerHandle | None = None

    async def outcome(self, now: Callable[[], datetime], chance: Callable[[], float]) -> Outcome:
        """Call the function and give what it came to; `chance` in [0, 1) spreads the wait before a retry."""
        if self.ending is not None:  # asked to end before it began: nothing is called
            self._disarm()
            return self.ending
        self.begun = True
        if self.context.enter is not None:
            self.context.enter()
        try:
            params = self.job.parameters.as_declared(self.run.params)
            if params is not self.run.params and params != self.run.params:
                self.context.log(
                    "not by the parameters of its record: the job's declaration says others by now", "warning"
                )
            if self.job.parameters.takers is None:  # else each step of a flow looks for its own
                self.job.parameters.refuse_another_version(params, self.run.schedule)
            arguments = self.job.parameters.rebuild(params, self.run.schedule) if params else {}
            if self.job.parameters.context_name is not None:
                arguments[self.job.parameters.context_name] = self.context
            if self.injecting is None:
                result = await self.call(arguments)
            else:
                result = await self.injecting.around(self, arguments)
        except BaseException as error:
            if issubclass(type(error), GeneratorExit) and not self.is_in_hand():
                raise  # the loop is gone and Python is taking the coroutine apart
            return self._after(error, now, chance)
        finally:
            if self._timer is not None or self._killer is not None:
                self._disarm()
        if self.timed_out is not None and self.ending is not None:  # whatever it returned later
            return self._asked(self.ending, chance)
        return result

    async def call(self, arguments: dict[str, Any], within: Callable[..., Returned] | None = None) -> Returned:
        """Call the function; what a thread or a process returns is made JSON there, for that may take long."""
        function = self.job.function
        if self.job.is_async:
            try:
                if type(self._executor) is OnLoop:  # as it does itself, without a coroutine between task and job
                    running.set(self.context)
                    value = await function(**arguments)
                else:
                    value = await self._executor.call(function, self.context, arguments)
            finally:
                if self.context._takes_steps:
                    await self.context._steps.ended()
            return taken(value)
        if self.policy.executor not in ELSEWHERE:  # there it is found by its name
            function = partial(within or _call, function)
        result: Returned = await self._executor.call(function, self.context, arguments)
        return result

    def was_called(self) -> bool:
        """Whether the function may have been called: not where it still waits for a thread or a process."""
        return self.begun and (self.context.entered or not self._queues)

    def lateness(self) -> BaseException | None:
        """What the attempt has come to although its function returns now; None: it is in time."""
        if self.timed_out is not None:
            return TimeoutError(self.timed_out.failure.message)
        return AttemptCancelled("it was abandoned") if self.settled else None

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks in which it goes on: its own, and those of its steps."""
        steps = self.context._steps.tasks() if self.context._takes_steps else []
        return steps if self.task is None else [self.task, *steps]

    def is_in_hand(self) -> bool:
        """Whether the loop is stepping this attempt's task."""
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:
            return False

    def limit(self, seconds: float, kill: Callable[[LiveAttempt], None], kill_grace: float) -> None:
        """Ask for the end `seconds` after the function is called, and call `kill` if it has not come `kill_grace` later.

        A call that waits for a thread or a process has not begun.
        """
        begin = partial(self._begin_limit, seconds, kill, kill_grace)
        if self._queues:
            self.context.began = begin
        else:
            begin()

    def _begin_limit(self, seconds: float, kill: Callable[[LiveAttempt], None], kill_grace: float) -> None:
        self.context.began = None  # once: where a provider was entered first, its call has begun the attempt
        if self.settled:
            return
        loop = asyncio.get_running_loop()
        ending = Raised(Failure("Timeout", f"the attempt took longer than its timeout of {seconds:g} s"), None)
        self._timer = loop.call_later(seconds, self.ask, ending, kill, kill_grace)

    def ask(self, ending: Outcome, kill: Callable[[LiveAttempt], None], kill_grace: float) -> None:
        """Ask the attempt to end as `ending`; a second time changes nothing. Does not wait."""
        if self.settled:
            return
        if self.ending is not None:
            if isinstance(ending, Cancelled):  # outranks a timeout or a stop, after which it might be tried again
                self.ending = ending
            return
        self.ending = ending
        if isinstance(ending, Raised):
            self.timed_out = ending
        self.context.cancelled = True
        self._killer = asyncio.get_running_loop().call_later(kill_grace, kill, self)
        # Once: a second cancellation would reach the writing of the record. One of the job's own does not count.
        if self.cancellable and self.begun and self.task is not None and not self._is_cancelled_by_host():
            self.task.cancel()
        if self.context.withdraw is not None:
            self.context.withdraw()

    def abandoned(self) -> Outcome:
        """What an attempt comes to that was asked to end and goes on: nobody knows what it still does."""
        by = self.ending.actor if isinstance(self.ending, Cancelled) else None
        return self.timed_out or Lost(Reason.ABANDONED, by)

    def _after(self, error: BaseException, now: Callable[[], datetime], chance: Callable[[], float]) -> Outcome:
        if self.ending is not None:
            return self._asked(self.ending, chance)
        kind = type(error)
        if issubclass(kind, RaisedElsewhere):
            kind = cast("RaisedElsewhere", error).kind
        if issubclass(kind, asyncio.CancelledError) and self._is_cancelled_by_host():
            return ShutDown()
        if issubclass(kind, AttemptCancelled):
            return Cancelled()
        if issubclass(kind, FlowFailed):
            failed = cast("FlowFailed", error)
            return Raised(failed.failure, None, failed.result)
        return judged(error, self.policy.retry, self.run.attempt, now(), chance())

    def _is_cancelled_by_host(self) -> bool:
        """Whether the host is cancelling its tasks, the engine's own among them; else the job cancelled itself."""
        return self.task is not None and self.task.cancelling() > 0 and is_ended_by_host(self.context)

    def _asked(self, ending: Outcome, chance: Callable[[], float]) -> Outcome:
        """What the attempt comes to that ends as it was asked to: after a timeout it may be tried again."""
        retry = self.policy.retry
        if not isinstance(ending, Raised) or not issubclass(TimeoutError, retry.on):
            return ending
        return Raised(ending.failure, retry.jittered(self.run.attempt, chance()))

    def _disarm(self) -> None:
        for handle in (self._timer, self._killer):
            if handle is not None:
                handle.cancel()
        self._timer = self._killer = None


def _call(function: Callable[..., Any], /, **arguments: Any) -> Returned:
    return taken(function(**arguments))


def taken(value: Any) -> Returned:
    """What was returned, as it is kept."""
    return NOTHING if value is None else returned(finished(value))


def is_ended_by_host(context: RunContext) -> bool:
    """Whether the host is cancelling its tasks, the engine's own among them."""
    engine = getattr(context.scheduler, "_host", None)
    return engine is None or engine.cancelling() > 0


def judged(error: BaseException, retry: Retry, attempt: int, now: datetime, chance: float) -> Raised:
    """What call number `attempt` has come to by raising `error`, wherever that was: its record, and when to try again."""
    kind, told, again = type(error), None, False
    if issubclass(kind, RaisedElsewhere):
        elsewhere = cast("RaisedElsewhere", error)
        kind, told, error = elsewhere.kind, elsewhere.failure, elsewhere.error
        again = issubclass(kind, retry.on)
    else:
        again = _is_one_of(error, retry.on) or all(_is_one_of(one, retry.on) for one in _within(error))
        told, error = failure(error), decisive(error)
        kind = type(error)
    if issubclass(kind, Fatal):
        return Raised(told, None)
    if issubclass(kind, RetryAt):
        return Raised(told, _until(error, now))
    return Raised(told, retry.jittered(attempt, chance) if again else None)


def decisive(error: BaseException) -> BaseException:
    """What says whether to try again: of a group of errors, as a `TaskGroup` raises, the `Fatal` in it, else the `RetryAt`."""
    for word in (Fatal, RetryAt):
        for one in _within(error):
            if issubclass(type(one), word):
                return one
    return error


def _within(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, however deep it goes; any other alone."""
    left = [error]
    while left:
        one = left.pop()
        if issubclass(type(one), BaseExceptionGroup):
            left += reversed(_EXCEPTIONS(one))
        else:
            yield one


def _until(error: Any, now: datetime) -> timedelta | None:
    """How long until a `RetryAt` wants the next attempt; None: its class is the job's own and does not say."""
    try:
        wait: timedelta = max(timedelta(0), error.resolve(now) - now)
    except BaseException:
        return None
    return wait


def _is_one_of(error: BaseException, types: Any) -> bool:
    try:
        return isinstance(error, types)
    except BaseException:  # a class may say itself what is an instance of it
        return False
