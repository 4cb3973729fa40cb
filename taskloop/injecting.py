"""Providers at work: entered before an attempt, left after it with its error, each where it belongs.

Level 4; the plan, who needs whom, is made in `inject`. Start at `Injecting.around`. For an async job all of it happens
in the attempt's own task: what is async on the loop, the rest in a thread of the pool, so that it blocks nothing. For
a job in a thread only what the loop has to do comes before; `call_within` does the rest in the very thread of the job,
for a connection of sqlite3 can be used only where it was made. What lives as long as the worker has a task of its own.

Leaving is always done, whatever came before it, and nothing that a provider does with an error changes what the
attempt came to: but one that fails on leaving after success, a commit that did not happen, makes it a failure.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import _AsyncGeneratorContextManager as AsyncManaged
from contextlib import _GeneratorContextManager as Managed
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from taskloop.attempts import LiveAttempt, taken
from taskloop.context import AttemptCancelled, RunContext, running
from taskloop.errors import Conflict
from taskloop.executors import InThread
from taskloop.inject import InjectionPlan, Provision, entered_class, identity
from taskloop.jobs import Job
from taskloop.masking import clean_failure
from taskloop.outcomes import failure
from taskloop.policy import ELSEWHERE
from taskloop.runs import Returned
from taskloop.tasks import disown, outlast

__all__ = ["Injecting", "call_within"]

Report = Callable[[Provision, BaseException], None]
DEAF_SECONDS: Final = 0.1
"""How long a provider that did not leave in time may take to hear that it is cancelled."""
DEAF_TOGETHER_SECONDS: Final = 0.6
"""How long all of them may, however many there are: a stop has an end."""


class Injecting:
    """The providers of one started scheduler."""

    def __init__(self, pool: InThread, overrides: Mapping[Any, Any], say: Callable[..., None]) -> None:
        self._pool = pool
        self._overrides = overrides
        self._say = say
        self._kept: dict[Any, _Kept] = {}
        """What lives as long as the worker, in the order in which it was asked for."""
        self._tasks: set[asyncio.Task[None]] = set()
        """Those in which it is entered and left."""

    async def around(self, attempt: LiveAttempt, arguments: dict[str, Any]) -> Returned:
        """Enter what the job is given, call it, leave in reverse order; raises what the attempt came to."""
        plan = self._plan(attempt.job)
        context = attempt.context
        running.set(context)
        if attempt.policy.executor in ELSEWHERE:  # there it is entered
            self._refuse_overrides(attempt.job)
            return await attempt.call(arguments)
        report = partial(self._report, context)
        hold = _Hold(self._pool, context, report)
        result: Returned | None = None
        error: BaseException | None = None
        attempt.cancellable = True
        try:
            outside = plan.order if attempt.job.is_async else plan.outside
            if outside and context.began is not None:  # entering is a part of the attempt
                context.began()
            for one in outside:
                await self._enter(one, hold)
            if attempt.job.is_async:
                given = {name: hold.values[one.key] for name, one in plan.arguments.items()}
                result = await attempt.call(arguments | given)
            else:
                attempt.cancellable = False
                within = partial(call_within, plan, plan.inside, hold.values, context, attempt.lateness, report)
                result = await attempt.call(arguments, within)
            error = attempt.lateness()
        except BaseException as raised:
            if issubclass(type(raised), GeneratorExit) and not attempt.is_in_hand():
                raise  # the loop is gone: nothing can be awaited
            error = raised
        attempt.cancellable = True
        error = await hold.leave(error)
        if error is not None:
            raise error
        assert result is not None
        return result

    async def leave(self, seconds: float, hurried: asyncio.Future[Any], last_seconds: float) -> None:
        """Leave what lives as long as the worker, the last entered first; waits at most so long, then cancels.

        Once somebody has `hurried`, at most `last_seconds` more.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        for kept in reversed(list(self._kept.values())):
            kept.end()
            if not hurried.done():
                waits = max(0.0, deadline - loop.time())
                await asyncio.wait({kept.task, hurried}, timeout=waits, return_when=asyncio.FIRST_COMPLETED)
                if hurried.done():
                    deadline = min(deadline, loop.time() + last_seconds)
            if not kept.task.done():
                await asyncio.wait({kept.task}, timeout=max(0.0, deadline - loop.time()))
            if not kept.task.done():
                kept.task.cancel()
                self._say("WARNING", "provider.not_left", provider=kept.one.name)
                spare = deadline + DEAF_TOGETHER_SECONDS - loop.time()
                await asyncio.wait({kept.task}, timeout=max(0.0, min(DEAF_SECONDS, spare)))
        disown(self._tasks)

    def _plan(self, job: Job[..., Any]) -> InjectionPlan:
        if self._overrides:  # of a test: it may give more of them at any time
            return InjectionPlan.of(job.name, job.parameters.injected, self._overrides)
        assert job.parameters.plan is not None
        return job.parameters.plan

    def _refuse_overrides(self, job: Job[..., Any]) -> None:
        order = job.parameters.plan.order if job.parameters.plan is not None else ()
        names = [one.name for one in order if identity(one.provider) in self._overrides]
        if names:
            raise Conflict(
                f"job '{job.name}' runs in another process, which no override reaches: {', '.join(names)}; "
                'test it with executor="thread"'
            )

    async def _enter(self, one: Provision, hold: _Hold) -> None:
        if one.scope == "worker":
            hold.values[one.key] = await self._of_worker(one)
        else:
            await hold.enter(one)

    async def _of_worker(self, one: Provision) -> Any:
        """What the worker keeps of this provider; it is entered by who asks first, for all who ask meanwhile."""
        kept = self._kept.get(one.key)
        if kept is None:
            kept = self._kept[one.key] = _Kept(one)
            kept.task = asyncio.get_running_loop().create_task(self._keep(kept), name=f"taskloop provider {one.name}")
            self._tasks.add(kept.task)
            kept.task.add_done_callback(self._tasks.discard)
        if not kept.entered.done():
            kept.waiting += 1
            try:
                await asyncio.wait({kept.entered})
            finally:
                kept.waiting -= 1
                if not kept.waiting and not kept.entered.done():  # nobody waits: who asks next begins anew
                    self._drop(kept)
                    kept.task.cancel()
        if kept.error is not None:
            raise kept.error
        return kept.value

    async def _keep(self, kept: _Kept) -> None:
        """From entering to leaving, in one task: what belongs to a task stays in it. Raises nothing."""
        running.set(None)
        one, error = kept.one, None
        hold = _Hold(self._pool, None, partial(self._report, None))
        try:
            for need in one.needs.values():
                await self._enter(need, hold)
            await hold.enter(one)
        except GeneratorExit:
            raise
        except BaseException as raised:
            self._drop(kept)
            kept.error = error = raised
            kept.tell()
        else:
            kept.value = hold.values[one.key]
            kept.tell()
            try:
                await kept.closing.wait()
            except asyncio.CancelledError as cancelled:  # the host ends its loop
                error = cancelled
            self._drop(kept)
        await hold.leave(error)

    def _drop(self, kept: _Kept) -> None:
        if self._kept.get(kept.one.key) is kept:
            del self._kept[kept.one.key]

    def _report(self, context: RunContext | None, one: Provision, error: BaseException) -> None:
        of_run = {} if context is None else {"job": context.job, "run": context.id, "attempt": context.attempt}
        told = failure(error)
        if context is not None and context.scrub is not None:
            told = clean_failure(told, context.scrub)
        self._say("WARNING", "provider.failed", provider=one.name, error=f"{told.type}: {told.message}"[:300], **of_run)


class _Kept:
    """A provider that lives as long as the worker."""

    task: asyncio.Task[None]

    def __init__(self, one: Provision) -> None:
        self.one = one
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closing = asyncio.Event()
        self.waiting = 0
        """Attempts that wait until it is entered."""
        self.value: Any = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        if not self.entered.done():
            self.entered.set_result(None)

    def end(self) -> None:
        self.closing.set()
        if not self.entered.done():
            self.task.cancel()


class _Hold:
    """What was entered on the loop, and through it in threads, to be left from there."""

    def __init__(self, pool: InThread, context: RunContext | None, report: Report) -> None:
        self.values: dict[Any, Any] = {}
        self._held: list[tuple[Provision, Any]] = []
        self._pool = pool
        self._context = context
        self._report = report

    async def enter(self, one: Provision) -> None:
        work = partial(_entered, one, _given(one, self.values, self._context))
        cancelled: asyncio.CancelledError | None = None
        if one.on_loop:
            value, manager = work()
        else:
            (value, manager), cancelled = await self._in_pool(work)
        if cancelled is not None and (manager is None or isinstance(value, _Unentered)):
            if inspect.iscoroutine(value):
                value.close()
            raise cancelled
        if isinstance(value, _Unentered):
            value = await value.manager.__aenter__()
        elif manager is None and inspect.iscoroutine(value):
            value = await value
        if manager is not None:
            self._held.append((one, manager))
        self.values[one.key] = value
        if cancelled is not None:
            raise cancelled

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """Leave all in reverse order, each told of the error; gives the error there is after that."""
        while self._held:
            one, manager = self._held.pop()
            cancellations = _cancellations()
            try:
                if hasattr(manager, "__aexit__"):
                    await manager.__aexit__(*_shown(error))
                else:  # who cancels meanwhile is too late: all else is done
                    await self._in_pool(partial(manager.__exit__, *_shown(error)))
            except BaseException as raised:
                was_cancelled, error = error, _judged(one, raised, error, self._report)
                if issubclass(type(was_cancelled), asyncio.CancelledError) and _cancellations() < cancellations:
                    error = raised  # it had cancelled it, by a group or a time limit inside of it, and says now why
        return error

    async def _in_pool(self, work: Callable[[], Any]) -> tuple[Any, asyncio.CancelledError | None]:
        """What `work` gives in a thread, and the cancellation that came meanwhile: it is never left unfinished."""
        inside = self._pool.call(partial(_as_part_of, self._context, work), None, {})
        task = asyncio.ensure_future(_caught(inside))
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            await outlast({task})
        result, raised = task.result()
        if raised is not None:
            raise raised if cancelled is None else cancelled
        return result, cancelled


def call_within(
    plan: InjectionPlan,
    order: Sequence[Provision],
    values: dict[Any, Any],
    context: RunContext,
    lateness: Callable[[], BaseException | None],
    report: Report,
    function: Callable[..., Any],
    /,
    **arguments: Any,
) -> Returned:
    """Enter the providers of `order`, call the job, leave them, all in this thread; `values` are there already.

    `lateness` gives what the attempt came to although its function returned: it was asked to end before.
    """
    held: list[tuple[Provision, Any]] = []
    result = Returned()
    error: BaseException | None = None
    try:
        for one in order:
            value, manager = _entered(one, _given(one, values, context))
            if isinstance(value, _Unentered):
                raise TypeError(
                    f"provider {one.name} gave what only a loop can enter, which its look does not tell; "
                    "write it as an async def that yields, without a lambda around it"
                )
            if manager is not None:
                held.append((one, manager))
            elif inspect.iscoroutine(value):
                value = context.call(_awaited, value)
            values[one.key] = value
        given = {name: values[one.key] for name, one in plan.arguments.items()}
        result = taken(function(**arguments, **given))
        error = lateness()
    except BaseException as raised:
        error = raised
    while held:
        one, manager = held.pop()
        try:
            manager.__exit__(*_shown(error))
        except BaseException as raised:
            error = _judged(one, raised, error, report)
    if error is not None:
        raise error
    return result


class _Unentered:
    """An asynchronous manager that is still to be entered."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager


def _entered(one: Provision, given: dict[str, Any]) -> tuple[Any, Any]:
    """The value and what will be left; None: nothing will. A coroutine is still to be awaited."""
    made = one.provider(**given)
    kind = type(made)
    if kind is GeneratorType:
        made = contextmanager(partial(_same, made))()
    elif kind is AsyncGeneratorType:
        made = asynccontextmanager(partial(_same, made))()
    elif not issubclass(kind, Managed | AsyncManaged) and not entered_class(one.provider):
        return made, None
    if hasattr(made, "__aenter__"):
        return _Unentered(made), made
    return made.__enter__(), made


def _same(generator: Any) -> Any:
    return generator


def _given(one: Provision, values: Mapping[Any, Any], context: RunContext | None) -> dict[str, Any]:
    given = {name: values[need.key] for name, need in one.needs.items()}
    if one.context_name is not None:
        given[one.context_name] = context
    return given


def _judged(one: Provision, raised: BaseException, error: BaseException | None, report: Report) -> BaseException | None:
    """The error after a provider raised on leaving: the attempt's own if it had one."""
    if raised is error:
        return error
    if not issubclass(type(raised), asyncio.CancelledError | AttemptCancelled):
        report(one, raised)
    return raised if error is None else error


def _cancellations() -> int:
    """How often this task was cancelled by who has not taken it back."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _shown(error: BaseException | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


def _as_part_of(context: RunContext | None, work: Callable[[], Any]) -> Any:
    running.set(context)
    return work()


async def _awaited(work: Coroutine[Any, Any, Any]) -> Any:
    return await work


async def _caught(work: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """The result or the error, as a value: a task that raised SystemExit would end the loop."""
    try:
        return await work, None
    except GeneratorExit:
        raise
    except BaseException as error:
        return None, error
