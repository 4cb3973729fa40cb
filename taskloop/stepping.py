"""The steps of a run, carried out: each written when it begins and when it has ended, none called that has succeeded.

Level 4. `Stepping.call` is `run.step(...)`, `Stepping.conduct` a whole flow; both lead to `_perform`. What a step gives is
always what the record says, rebuilt by its annotation: so a step that is taken from the record gives the same.

A step that is cut short (the attempt was asked to end, the worker died) stays on record as running, and the next attempt
of the run calls it again without using up one of the step's own attempts.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial, wraps
from itertools import islice
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from weakref import WeakValueDictionary

from taskloop.annotations import annotations_as_they_stand, signature_of
from taskloop.attempts import FlowFailed, LiveAttempt, is_ended_by_host, judged
from taskloop.context import AttemptCancelled, RunContext, StepContext, running
from taskloop.errors import BadJob, BadValue
from taskloop.executors import Executor, ended_with
from taskloop.flows import Course, Flow, ahead, outcome
from taskloop.masking import clean_failure, covered
from taskloop.misfits import unread
from taskloop.outcomes import as_json, failure, finished
from taskloop.parameters import Parameters
from taskloop.retry import Fatal, Retry
from taskloop.runs import Failure, Returned, Run
from taskloop.steps import Step, StepState
from taskloop.tasks import Portions, outlast

if TYPE_CHECKING:
    from taskloop.injecting import Injecting

__all__ = ["Stepping", "call_and_keep"]


TURN: Final = 100
"""Steps that go on in one turn of the loop, of all that an answer of the store, or the job, lets go on at once: a fan-out of a
thousand held the loop for 50 to 80 ms of its processor's time, and holds it for 10 to 15. With 50 a turn a flow of a hundred
steps had more and smaller transactions, and took 6 % longer; with 100 it takes as long as without.
"""
_IDENTITY: Final = {object.__eq__, MethodType.__eq__, BuiltinMethodType.__eq__}
"""How functions are equal: if they are the same."""
_PYDANTIC_MASK: Final = "**********"
_PLAIN: Final = {type(None), bool, int, float, str, dict, list, tuple}


class _Call(NamedTuple):
    """A step to carry out."""

    name: str
    place: int
    function: Callable[..., Any]
    parameters: Parameters
    arguments: Callable[[], dict[str, Any]]
    """Made anew for each call: it may do with them what it likes."""
    retry: Retry
    executor: str
    params: Mapping[str, Any] | None = None
    """What it takes, as on record: for a process."""
    has_context: bool = False
    """Whether its caller has given it a `RunContext` already."""

    @property
    def is_async(self) -> bool:
        return self.executor == "loop"


class _StepCall:
    """One call of a step, as `injecting` sees an attempt: what is called and where, and whether it is in time."""

    def __init__(self, stepping: Stepping, context: StepContext, wanted: _Call) -> None:
        self.job = self.policy = wanted
        self.context = context
        self.cancellable = True
        self._stepping = stepping

    async def call(self, arguments: dict[str, Any], within: Callable[..., Returned] | None = None) -> Returned:
        """Call the function. A thread is waited for, whoever asks for the end meanwhile."""
        wanted, context = self.job, self.context
        executor = self._stepping.executor(wanted.executor)
        if wanted.executor == "loop":
            try:
                value = await executor.call(wanted.function, context, arguments)
            finally:
                await self._stepping.ended(wanted.name)
            return Returned(_kept(wanted.name, value))
        if wanted.executor != "thread":  # there it is kept by `call_and_keep` too
            elsewhere: Returned = await executor.call(wanted.function, context, arguments)
            return elsewhere
        strict = partial(call_and_keep, wanted.name, wanted.function)
        work = partial(_returned, strict) if within is None else partial(within, strict)
        call = asyncio.create_task(_caught(executor.call(work, context, arguments)))
        try:
            result, error = await asyncio.shield(call)
        except asyncio.CancelledError:
            if context.withdraw is not None:
                context.withdraw()
            await outlast({call})
            raise
        if error is not None:
            raise error
        returned: Returned = result
        return returned

    def lateness(self) -> BaseException | None:
        """What it has come to although its function returns now; None: it is in time."""
        return AttemptCancelled("its run was asked to end") if self.context.cancelled else None

    def is_in_hand(self) -> bool:
        return _is_on_loop()


class _Done(NamedTuple):
    """How a step stands at its end, what it gives, and what it raised."""

    step: Step
    value: Any = None
    error: BaseException | None = None


class Stepping:
    """The steps of one attempt of a run."""

    def __init__(
        self,
        context: RunContext,
        run: Run,
        *,
        read: Callable[[], Awaitable[Sequence[Step] | None]],
        write: Callable[[Sequence[Step]], Awaitable[bool | None]],
        executor: Callable[[str], Executor],
        injecting: Injecting | None,
        now: Callable[[], datetime],
        chance: Callable[[], float],
        tell: Callable[..., None],
        log: Callable[..., None],
    ) -> None:
        """`read` and `write`: the steps on record, however long the store is away; None, False: the run is ours no more."""
        self._context = context
        self._run = run
        self._read = read
        self._write = write
        self.executor = executor
        """Where functions are called, by name."""
        self._injecting = injecting
        self._now = now
        self._chance = chance
        self._tell = tell
        self._log = log
        self._known: dict[str, Step] = {}
        self._flow: Flow | None = None
        self._read_once: asyncio.Task[None] | None = None
        self._names: set[str] = set()
        self._parameters: WeakValueDictionary[Callable[..., Any], Parameters] = WeakValueDictionary()
        """What functions take, as long as a step that calls one is in hand: each may hold much that it is to work on."""
        self._read_last: Parameters | None = None
        """Those of the last function: else a loop over one function would have them read anew for each step."""
        self._going: dict[str, dict[asyncio.Future[None], asyncio.Task[Any] | None]] = {}
        """By the step that began them, "" for the job itself: the ends of steps in hand, and the tasks they are in."""
        self._flow_tasks: dict[asyncio.Task[_Done], str] = {}
        """The steps of the flow in hand."""
        self._is_over = False
        """Whether the flow ends before its steps have: those in hand are cut short."""
        self._portions = Portions(TURN)
        self._inner: dict[str, list[str]] = {}
        """The steps that a step has begun, whose names are free again when it is called again."""

    # -- one step

    async def call(
        self, context: RunContext, name: str, function: Callable[..., Any], args: tuple[Any, ...], retry: Retry
    ) -> Any:
        """Carry out a step that was decided while running; raises what it raises."""
        if not isinstance(name, str) or not 0 < len(name) <= 128 or not name.isprintable():
            raise BadJob(f"step name {str(name)[:140]!r} cannot be; allowed are 1 to 128 printable characters")
        if not callable(function):
            raise TypeError(f"step '{name}' is to call {type(function).__name__}, which is no function")
        self._take(name)
        place = len(self._names) - 1  # now: of a fan-out all are begun before the record is read
        await self._portions.my_turn()
        await self._recall()
        is_async = inspect.iscoroutinefunction(function)
        parameters = self._parameters_of(function, name)
        wanted = _Call(
            name,
            place,
            partial(function, *args),
            parameters,
            dict,
            retry,
            "loop" if is_async else "thread",
            has_context=parameters.context_name is not None and parameters.context_name in _filled(function, args),
        )
        if context.step:
            self._inner.setdefault(str(context.step), []).append(name)
        before = running.get()
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        going = self._going.setdefault(str(context.step), {})
        going[end] = asyncio.current_task()
        try:
            with ended_with(context):
                done = await self._perform(context, wanted, keep_failed=False)
            if context.step:  # what is called again finds it done
                self._known[name] = done.step
        finally:
            # Where it is taken apart long after its loop is gone, that is in the context of whoever is at work then.
            if (inner := running.get()) is not None and inner.id == context.id and inner.scheduler is context.scheduler:
                running.set(before)
            del going[end]
            end.set_result(None)
        if done.error is not None:
            raise done.error
        return done.value

    def _parameters_of(self, function: Callable[..., Any], name: str) -> Parameters:
        """What a step's function takes: read once for a fan-out of one function, which it would hold the loop for."""
        is_itself = type(function).__eq__ in _IDENTITY  # by its own word it might equal what takes or returns another
        with suppress(TypeError):  # a method of a callable object may have no hash
            if is_itself and (known := self._parameters.get(function)) is not None:
                return known
        found = Parameters(f"{self._run.job}.{name}", _by_name(function))
        with suppress(TypeError):
            if is_itself:
                self._parameters[function] = self._read_last = found
        return found

    def _free(self, name: str) -> None:
        """Let the steps that a step began be begun again."""
        for one in self._inner.pop(name, ()):
            self._names.discard(one)
            self._free(one)

    async def ended(self, within: str = "") -> None:
        """Wait for the steps that a step, or the job itself, began and left: one of a fan-out has failed, the others go
        on, and what tries again would call them a second time. An attempt that is asked to end cancels them.
        """
        while (going := self._going.get(within)) and _is_on_loop():
            tasks = [task for task in going.values() if task is not None]
            if self._context.cancelled:
                _cancel_once(tasks)
            try:
                await asyncio.wait(list(going))
            except asyncio.CancelledError:
                _cancel_once(tasks)
                await outlast(going)
                raise

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks in which steps go on."""
        begun = [task for going in self._going.values() for task in going.values() if task is not None]
        return [*self._flow_tasks, *begun]

    def _take(self, name: str) -> None:
        if self._flow is not None and name in self._flow.steps:
            raise BadValue(f"'{name}' is a step of flow '{self._flow.name}'; give the step inside another name")
        if name in self._names:
            raise BadValue(f"step '{name}' was begun in this run already; give each step of a run its own name")
        self._names.add(name)

    async def _recall(self) -> None:
        """Read once what is on record of earlier attempts, or was taken over from another run."""
        if self._run.token <= 1 and self._run.rerun_of is None:
            return
        if self._read_once is None:
            self._read_once = asyncio.create_task(self._read_known())
        await asyncio.shield(self._read_once)

    async def _read_known(self) -> None:
        found = await self._read()
        if found is None:
            raise _lost(self._run)
        again = self._redone(found)
        redone = [Step(name=one.name, place=one.place) for one in found if one.kept and one.name in again]
        if redone:  # on record too: cut short, this run must not pass on what it was not to take over
            await self._keep(*redone)
        self._known = {one.name: one for one in found} | {one.name: one for one in redone}

    def _redone(self, found: Sequence[Step]) -> Collection[str]:
        """The steps whose results are not to be taken over from the run that this one repeats."""
        first = self._run.data.get("from_step")
        if first is None:
            return ()
        if self._flow is not None:
            below = self._flow.downstream(first) if first in self._flow.steps else set()
            return [
                one.name for one in found if one.name in below or one.name not in self._flow.steps
            ]  # steps of steps
        place = self._run.data.get("from_place")
        return [one.name for one in found if place is not None and one.place >= place]

    async def _perform(self, context: RunContext, wanted: _Call, *, keep_failed: bool) -> _Done:
        """Call a step until it succeeds or its attempts are used up; take it from the record if it has ended before.

        `keep_failed`: one that has failed before is not called again.
        """
        known = self._known.get(wanted.name)
        if known is not None and known.state is StepState.SUCCEEDED:
            return self._from_record(known, wanted)
        if known is not None and known.state is StepState.FAILED and keep_failed:
            return _Done(known, error=_Recorded(known.error))
        own, number, was_ending = _task_here(), _calls(known), self._is_ending()
        spent = 0 if known is not None and known.state is StepState.FAILED else number  # what had failed begins anew
        started_at = known.started_at if known is not None and known.started_at is not None else self._now()
        step = Step(name=wanted.name, place=wanted.place, started_at=started_at, error=known.error if known else None)
        try:
            while True:
                spent, number = spent + 1, number + 1
                wanted.parameters.expect()  # now: once it has returned, what a kill finds unwritten is called again
                self._free(wanted.name)
                step = _again(step, state=StepState.RUNNING, attempt=number)
                await self._keep(step)
                self._say("step_started", step)
                try:
                    result = await self._called(StepContext(context, wanted.name, number, wanted.params), wanted)
                    value = _as_annotated(wanted, result)
                except BaseException as error:
                    if self._is_cut_short(error, own):
                        raise
                    raised = error
                else:
                    step = _again(step, state=StepState.SUCCEEDED, ended_at=self._now(), result=result, error=None)
                    await self._keep(step)
                    self._say("step_done", step)
                    return _Done(step, value)
                judgement = judged(raised, wanted.retry, spent, self._now(), self._chance())
                wait, told = judgement.retry_in, self._told(judgement.failure)
                if wait is None or spent >= wanted.retry.attempts:
                    step = _again(step, state=StepState.FAILED, error=told, ended_at=self._now())
                    await self._keep(step)
                    self._say("step_done", step)
                    return _Done(step, error=_raisable(raised))
                step = _again(step, state=StepState.WAITING, error=told)
                await self._keep(step)
                if self._is_ending() and not was_ending:  # its only cancellation it has had, and failed of, it may be
                    raise asyncio.CancelledError
                await asyncio.sleep(wait.total_seconds())
        except asyncio.CancelledError as error:
            if step.ended_at is None and self._is_cut_short(error, own) and not self._is_ending():
                self._give_up(context, step, error)
            raise

    def _from_record(self, known: Step, wanted: _Call) -> _Done:
        """A step that has succeeded before: it is not called again."""
        kept = _again(known, place=wanted.place, kept=True)
        self._say("step_kept", kept)
        try:
            return _Done(kept, wanted.parameters.value(_own(kept.result)))
        except Exception as error:  # of an older version of the code; on record it has succeeded, and stays so
            other = Fatal(f"its kept result does not fit its annotation any more ({unread(kept.result, error)}); "
                          f"run it again from_step='{wanted.name}'")  # fmt: skip
            told = self._told(failure(other))
            return _Done(_again(kept, state=StepState.FAILED, result=None, error=told), error=other)

    def _told(self, failure: Failure) -> Failure:
        """A failure without the secrets of the run."""
        return failure if self._context.scrub is None else clean_failure(failure, self._context.scrub)

    def _is_ending(self) -> bool:
        """Whether the attempt is to end, whoever wants it."""
        return self._context.cancelled or is_ended_by_host(self._context)

    def _give_up(self, context: RunContext, step: Step, error: BaseException) -> None:
        """The job itself has cancelled a step, by a timeout of its own perhaps, and goes on: put on record beside that."""
        told = step.error if step.state is StepState.WAITING else self._told(failure(error))  # between two calls
        step = _again(step, state=StepState.FAILED, error=told, ended_at=self._now())
        going = self._going.setdefault(str(context.step), {})
        writing = asyncio.ensure_future(self._keep(step))

        def written(_: asyncio.Future[None]) -> None:
            del going[writing]
            if not writing.cancelled() and writing.exception() is None:
                self._say("step_done", step)

        going[writing] = None
        writing.add_done_callback(written)

    async def _called(self, context: StepContext, wanted: _Call) -> Any:
        """What the function returns, as plain JSON."""
        arguments = wanted.arguments()
        if wanted.parameters.context_name is not None and not wanted.has_context:
            arguments[wanted.parameters.context_name] = context
        call = _StepCall(self, context, wanted)
        if wanted.parameters.injected and self._injecting is not None:
            return (await self._injecting.around(cast("LiveAttempt", call), arguments)).result
        return (await call.call(arguments)).result

    def _is_cut_short(self, error: BaseException, own: asyncio.Task[Any] | None) -> bool:
        """Whether it is the attempt that ends here, not the step by itself; `own` is the task that carries the step out."""
        kind = type(error)
        if issubclass(kind, GeneratorExit):  # else Python takes it apart, in whatever task it finds the time
            return _task_here() is not own
        if issubclass(kind, _Lost):
            return True
        asked = self._context.cancelled
        if issubclass(kind, AttemptCancelled):
            return asked
        task = asyncio.current_task()
        cancelling = task is not None and task.cancelling() > 0
        if not issubclass(kind, asyncio.CancelledError) or not (asked or cancelling):
            return False
        if task is not None and task in self._flow_tasks and not self._is_over and not self._is_ending():
            while task.cancelling():  # by the step's own code: it has failed, and its record is still to be written
                task.uncancel()
            return False
        return True

    async def _keep(self, *steps: Step) -> None:
        if not await self._write(steps):
            raise _lost(self._run)
        await self._portions.my_turn()

    def _say(self, name: str, step: Step) -> None:
        self._tell(name, self._run, self._now(), step=step.name, state=step.state.value, attempt=step.attempt)

    # -- a flow

    async def conduct(self, flow: Flow, params: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a flow, and give what it came to. Raises `FlowFailed` if a step failed that it cannot do without."""
        self._flow = flow
        self._names.update(flow.steps)
        await self._recall()
        places = {name: place for place, name in enumerate(flow.steps)}
        steps = {name: Step(name=name, place=place) for name, place in places.items()}
        kept = sum(one.state is StepState.SUCCEEDED for name, one in self._known.items() if name in places)
        self._log("INFO", "flow.planned", job=self._run.job, run=self._run.id, steps=len(steps), kept=kept)
        course = Course(flow)
        tasks, succeeded = self._flow_tasks, 0

        async def begin(names: Sequence[str]) -> None:
            for name in names:
                await self._portions.my_turn()
                wanted = self._step_of(flow, name, places[name], params, steps)
                tasks[asyncio.create_task(self._perform(self._context, wanted, keep_failed=True))] = name
                steps[name] = _again(steps[name], state=StepState.RUNNING)

        try:
            await begin(course.first())
            while tasks:
                self._report(succeeded, len(steps), list(islice(tasks.values(), 5)))
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    name = tasks.pop(task)
                    done = task.result()
                    steps[name] = done.step
                    succeeded += done.step.state is StepState.SUCCEEDED
                    following, never = course.ended(name, done.step.state)
                    await begin(following)
                    for one in never:
                        steps[one] = _again(steps[one], state=StepState.SKIPPED)
        except BaseException:
            self._is_over = True
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
                for task in tasks:
                    if not task.cancelled():
                        task.exception()
            raise
        if skipped := [one for one in steps.values() if one.state is StepState.SKIPPED]:
            await self._keep(*skipped)
        self._report(succeeded, len(steps), ())
        result = outcome(list(steps.values()), self._run.started_at, self._now(), self._run.id)
        broken = [one for one in steps.values() if one.state is StepState.FAILED and not flow.steps[one.name].optional]
        if broken:
            raise FlowFailed(_together(broken), result)
        return result

    def _step_of(
        self,
        flow: Flow,
        name: str,
        place: int,
        params: Mapping[str, Any],
        steps: Mapping[str, Step],
    ) -> _Call:
        step = flow.steps[name]
        given = [one for one in step.parameters.names if one in flow.steps or one in params]
        asked = {one: self._run.params[one] for one in given if one in params and one not in flow.steps}

        missing = [one for one in step.parameters.required if one not in given]

        def arguments() -> dict[str, Any]:
            if missing:
                raise Fatal(
                    f"it takes '{missing[0]}', and this run has none: {flow.parameters.ungiven(self._run.schedule)}"
                )
            results = {
                one: flow.steps[one].parameters.value(_own(steps[one].result)) for one in given if one in flow.steps
            }
            return flow.parameters.rebuild(asked, self._run.schedule) | results

        recorded = None
        if step.executor not in ("loop", "thread"):  # there they are rebuilt from what is on record
            recorded = {one: steps[one].result if one in flow.steps else self._run.params[one] for one in given
                      if one in flow.steps or one in self._run.params}  # fmt: skip
        return _Call(name, place, step.function, step.parameters, arguments, step.retry, step.executor, recorded)

    def _report(self, done: int, total: int, going: Sequence[str]) -> None:
        self._context.progress(done, total, ", ".join(going))
        if going and (latest := self._context.latest) is not None:
            self._context._progress = replace(latest, ahead=ahead(total))


class _Lost(AttemptCancelled):
    """The run is another worker's, or the store is closed for good: nothing of it may go on here."""


class _Recorded(Exception):
    """The failure of a step as an earlier attempt left it."""

    def __init__(self, error: Failure | None) -> None:
        super().__init__("" if error is None else error.told())


def _calls(known: Step | None) -> int:
    """How many calls of a step have come to an end; one that was cut short does not count."""
    if known is None:
        return 0
    return known.attempt - 1 if known.state is StepState.RUNNING else known.attempt


def _lost(run: Run) -> _Lost:
    return _Lost(f"run {run.id} is not this worker's any more")


async def _caught(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What a call gives and what it raises, as values: some errors would end the loop that a task of theirs raises them on."""
    try:
        return await call, None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None, error
    except BaseException as error:
        return None, error


def _cancel_once(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel those that nobody has: a second time it would end what they clean up with."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()


def _returned(function: Callable[..., Any], /, **arguments: Any) -> Returned:
    return Returned(function(**arguments))


def call_and_keep(name: str, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """What a step gives as plain JSON, made where it is called."""
    return _kept(name, function(**arguments))


def _kept(name: str, value: Any) -> Any:
    """The value as plain JSON. Raises `Fatal` where it cannot be kept: another call would give no other."""
    value = finished(value)
    try:
        plain = as_json(value)
    except ValueError as error:
        raise Fatal(_unkept(name, type(value).__name__, str(error))) from None
    inner = list(value.values()) if type(value) is dict else value if type(value) in (list, tuple) else ()
    kinds = {type(one) for one in (value, *inner)} - _PLAIN  # what needs no look: most steps give nothing else
    if any(covered(kind) for kind in kinds) and _PYDANTIC_MASK in json.dumps(plain):
        raise Fatal(
            f"step '{name}' returned a secret, of which only its mask would be kept; return nothing of it, and let each "
            "step that needs it take it as a parameter or by Inject"
        )
    return plain


def _as_annotated(wanted: _Call, plain: Any) -> Any:
    """What a step gives on. Raises `Fatal` where its annotation does not read it: another call would give no other."""
    try:
        return wanted.parameters.value(_own(plain))
    except Exception as error:
        hint = wanted.parameters.returns
        raise Fatal(
            f"step '{wanted.name}' returned what does not come back from its record as its annotation says, "
            f"{hint.__name__ if isinstance(hint, type) else hint}: {unread(plain, error)}; "
            "let the annotation say what it returns, of plain data, or leave it out"
        ) from error


def _unkept(name: str, kind: object, why: object) -> str:
    return (
        f"step '{name}' returned a {kind} that cannot be kept ({why}); return plain data of at most a megabyte, or the "
        "name of a file that holds it"
    )


def _by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a function takes by name, and what it gives: its arguments come from the caller, nothing of them is stored."""
    try:
        taken = list(signature_of(function).parameters.values())
    except ValueError:  # some of Python's own do not say what they take
        taken = []
    named = [one for one in taken if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if named == taken and taken:
        return function

    @wraps(function)
    def stand_in() -> None: ...

    stand_in.__annotations__ = annotations_as_they_stand(function)
    stand_in.__dict__["__signature__"] = inspect.Signature(named)
    return stand_in


def _filled(function: Callable[..., Any], args: tuple[Any, ...]) -> Collection[str]:
    """The parameters that these arguments fill; none where they do not fit, which the call itself tells best."""
    with suppress(TypeError, ValueError):
        return signature_of(function).bind_partial(*args).arguments
    return ()


def _own(plain: Any) -> Any:
    """Plain JSON to be handed on: what is done to it does not reach the record, nor others who are given it."""
    return json.loads(json.dumps(plain)) if isinstance(plain, dict | list) else plain


def _again(step: Step, **changes: Any) -> Step:
    fields = {name: getattr(step, name) for name in Step.__slots__}
    return Step(**(fields | changes))


def _raisable(error: BaseException) -> BaseException:
    """What a step raised, for its caller to catch: never what would end the loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    other = RuntimeError(f"{type(error).__name__}: {failure(error).message}")
    other.__cause__ = error if not isinstance(error, asyncio.CancelledError) else None
    return other


def _is_on_loop() -> bool:
    return _task_here() is not None


def _task_here() -> asyncio.Task[Any] | None:
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None


def _together(broken: Sequence[Step]) -> Failure:
    """The failure of a flow: that of its first failed step, and the traces of all."""
    first = broken[0].error or Failure("RuntimeError", "")
    more = f" (and {len(broken) - 1} other steps failed)" if len(broken) > 1 else ""
    traces = [f"step '{one.name}':\n{one.error.traceback}" for one in broken if one.error is not None]
    return Failure(first.type, f"step '{broken[0].name}': {first.message}{more}", "\n".join(traces), first.fingerprint)
