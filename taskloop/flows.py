"""A flow: a job made of named steps whose results are kept. Declared here; carried out by `stepping`.

Level 3, pure. A step's parameter that is named like another step receives that step's result, and so makes the order;
every other parameter is one of the flow. What may begin, how far it is and what it came to are functions of the states.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, Never, TypeVar

from taskloop.annotations import annotations_of
from taskloop.context import RunContext
from taskloop.durations import rfc3339
from taskloop.errors import BadJob, nearest
from taskloop.jobs import NAME, Job, by_name, refuse_the_bare, refuse_the_uncallable, unfit_for_a_process
from taskloop.parameters import Parameters
from taskloop.policy import ELSEWHERE, ExecutorName, Policy, read_option
from taskloop.retry import Retry
from taskloop.runs import RunId
from taskloop.steps import Step, StepState
from taskloop.triggers import Trigger

__all__ = ["Course", "Flow", "FlowStep", "ahead", "outcome", "step_record"]

F = TypeVar("F", bound=Callable[..., Any])
RETRY: Final = Retry(attempts=3, first="2s")
"""How often a step is called, unless it says otherwise."""
_ATTEMPTS: Final = Retry(attempts=3)
"""Of the flow itself: used up by crashes alone."""
_CONTEXT: Final = "taskloop_run"


class _Crash(Exception):
    """Raised by nobody: no error makes a flow begin again, its steps have been tried again already."""


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One named step of a flow, as declared."""

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    after: tuple[str, ...]
    retry: Retry
    optional: bool
    """Whether the flow goes on without it; what needs it receives None then."""
    executor: str
    """Where the function is called."""


class Flow(Job[..., dict[str, Any]]):
    """A job whose function is made of steps; a run gives `{steps: {name: {...}}, completed_count: ..., ...}`.

    Steps that need nothing of each other run side by side. One that has succeeded is never called again in its run: not
    on a retry, nor after a crash, nor by `rerun(from_step=...)`, which takes over what came before.
    """

    def __init__(
        self,
        name: str,
        trigger: Trigger | None = None,
        *,
        prefix: str = "",
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        options: Mapping[str, Any] | None = None,
        origin: Literal["code", "file"] = "code",
    ) -> None:
        self.steps: dict[str, FlowStep] = {}
        """By name, in the order they were declared."""
        self._parameters: Parameters | None = None
        self._wanted: set[str] = set()
        """What the steps so far come after and take: a step that none of them can need closes no circle."""
        self._declared_at = _caller()

        async def conduct(taskloop_run: RunContext, **params: Any) -> Any:
            return await taskloop_run._steps.conduct(self, params)

        conduct.__dict__["__signature__"] = _signature([])
        options = {"retry": _ATTEMPTS, **(options or {})}
        super().__init__(conduct, trigger, name=name, prefix=prefix, aliases=aliases, options=options, origin=origin)
        self._declared_params = dict(by_name(self.name, params))
        self._crashes_alone()

    def step(
        self,
        *bare: Never,
        name: str | None = None,
        after: str | Callable[..., Any] | Iterable[str | Callable[..., Any]] = (),
        retry: Retry | int = RETRY,
        optional: bool = False,
        executor: ExecutorName | None = None,
        **other: Never,
    ) -> Callable[[F], F]:
        """A decorator that makes a function a step, and leaves it the function it is.

        `after`: steps, or one, by name or function, that must have ended without giving it anything. `retry`: how its failures
        are tried again (3 attempts). `optional`: its failure is on record, but does not fail the flow. `executor`: None:
        an `async def` on the loop, a `def` in a thread. Raises `BadJob` for what cannot be a step, for a name taken, and
        for a step that would need itself, however far around.
        """
        refuse_the_bare(bare, "@flow.step()")
        if other:
            raise BadJob(_no_option(next(iter(other))))
        read_option("executor", executor)

        def declare(function: F) -> F:
            refuse_the_uncallable(function, name)
            own = name or function.__name__
            if not NAME.fullmatch(own):
                raise BadJob(
                    f"step name {own[:140]!r} cannot be; allowed are 1 to 128 letters, digits and '._:-'; give name=..."
                )
            if own in self.steps:
                raise BadJob(f"flow '{self.name}' has a step '{own}' already; give one of them name=\"...\"")
            is_async = inspect.iscoroutinefunction(function)
            given = (after,) if isinstance(after, str) or callable(after) else after
            names = tuple(one if isinstance(one, str) else self._name_of(one) for one in given)
            where = _executor(self.name, own, is_async, executor)
            parameters = Parameters(f"{self.name}.{own}", function)
            if where in ELSEWHERE and (why := unfit_for_a_process(function, parameters, where)):
                there = "a process" if where == "process" else "Dask"
                raise BadJob(f"step '{own}' of flow '{self.name}' cannot run in {there}: {why}")
            self.steps[own] = FlowStep(own, function, parameters, names, Retry.of(retry), optional, where)
            self._parameters = None
            self._wanted.update(names, parameters.names)
            if own in self._wanted:
                try:
                    self.order()
                except BadJob:
                    del self.steps[own]
                    raise
            return function

        return declare

    def _name_of(self, function: Callable[..., Any]) -> str:
        """The step that a function is, which may have another name than the function."""
        own = [one.name for one in self.steps.values() if one.function is function]
        return own[-1] if own else function.__name__

    def needs(self, name: str) -> tuple[str, ...]:
        """The steps that must have ended before this one begins."""
        one = self.steps[name]
        return tuple(dict.fromkeys([*one.after, *(given for given in one.parameters.names if given in self.steps)]))

    def order(self) -> list[list[str]]:
        """The steps in layers: each needs only steps of layers before its own. Raises `BadJob` for a circle."""
        places = {name: place for place, name in enumerate(self.steps)}
        left = {name: sum(one in places for one in self.needs(name)) for name in places}
        following: dict[str, list[str]] = {name: [] for name in places}
        for name in places:
            for one in self.needs(name):
                if one in places:  # a step may come after one that is declared later
                    following[one].append(name)
        layers: list[list[str]] = []
        layer = [name for name, count in left.items() if not count]
        while layer:
            layers.append(layer)
            freed: list[str] = []
            for name in layer:
                del left[name]
                for one in following[name]:
                    left[one] -= 1
                    if not left[one]:
                        freed.append(one)
            layer = sorted(freed, key=places.__getitem__)
        if left:
            raise BadJob(f"flow '{self.name}' goes round in a circle: {' needs '.join(self._circle(left))}")
        return layers

    def _circle(self, left: Collection[str]) -> list[str]:
        walked = [next(iter(left))]
        while True:
            following = next(one for one in self.needs(walked[-1]) if one in left)
            if following in walked:
                return [*walked[walked.index(following) :], following]
            walked.append(following)

    def downstream(self, name: str) -> set[str]:
        """A step and all that need it, directly or not. Raises `BadJob` for a step that is unknown."""
        if name not in self.steps:
            near = nearest(name, self.steps)
            meant = f"did you mean '{near}'? " if near else ""
            raise BadJob(f"flow '{self.name}' has no step '{name}'; {meant}steps are: {', '.join(self.steps)}")
        found = {name}
        for layer in self.order():
            found |= {one for one in layer if found & set(self.needs(one))}
        return found

    # -- a job like any other

    @property
    def kind(self) -> Literal["periodic", "on_demand", "flow"]:
        return "flow"

    def _expect(self) -> None:
        for one in self.steps.values():
            one.parameters.expect()

    def step_facts(self) -> list[dict[str, Any]]:
        return [
            {"name": one.name, "needs": list(self.needs(one.name)), "optional": one.optional, "executor": one.executor,
             "attempts": one.retry.attempts}
            for one in self.steps.values()
        ]  # fmt: skip

    @property
    def place(self) -> str:
        return self._declared_at

    @property
    def parameters(self) -> Parameters:
        """What its steps take that is no result of another step. Raises `BadJob` for steps that contradict each other."""
        if self._parameters is None:
            self._parameters = self._shared()
            if self.steps:
                self._parameters.keep_secret(self.policy.secret)
        return self._parameters

    @parameters.setter
    def parameters(self, _: Parameters) -> None:
        self._parameters = None

    def configure(
        self,
        defaults: Mapping[str, Any],
        overrides: Mapping[str, Any],
        trigger: Trigger | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        if not self.steps:
            raise BadJob(
                f"flow '{self.name}' of {self.place} has no steps; give it some with @flow.step(); a scheduler that is "
                f"started takes it with its steps alone: flow = Jobs().flow('{self.name}'), steps, scheduler.adopt(flow)"
            )
        super().configure(defaults, overrides, trigger, params)
        self._crashes_alone()

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"flow '{self.name}' is no function to call; await its submit(), or call one of its steps")

    def _keep_secrets(self) -> None:
        self._parameters = None  # it is done when they are asked for, for there may be steps to come

    def _check_executor(self) -> None:
        if self.policy.executor not in (None, "loop"):
            raise BadJob(f"flow '{self.name}' has executor='{self.policy.executor}'; give executor to its steps")

    def _crashes_alone(self) -> None:
        self.policy: Policy = replace(self.policy, retry=_for_crashes(self.policy.retry))

    def _shared(self) -> Parameters:
        """The parameters of all steps together, as those of the function that conducts them."""
        taken: dict[str, tuple[inspect.Parameter, Any, str]] = {}
        for step in self.steps.values():
            unknown = [one for one in step.after if one not in self.steps]
            if unknown:
                near = nearest(unknown[0], self.steps)
                meant = f"did you mean '{near}'? " if near else ""
                raise BadJob(
                    f"step '{step.name}' of flow '{self.name}' comes after '{unknown[0]}', which is no step of it; {meant}"
                    f"steps are: {', '.join(self.steps)}"
                )
            step.parameters.refuse_unread()
            hints = annotations_of(step.function)
            for name, one in step.parameters.names.items():
                if name in self.steps:
                    continue
                hint = hints.get(name, Any)
                before = taken.setdefault(name, (one, hint, step.name))
                if before[1] != hint or not _same(before[0].default, one.default):
                    raise BadJob(
                        f"flow '{self.name}': steps '{before[2]}' and '{step.name}' both take '{name}', one as "
                        f"{before[0]}, the other as {one}; it is one parameter of the flow, so write both alike"
                    )
        others = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hint)
            for name, (one, hint, _) in taken.items()
        ]
        conduct: Any = self.function
        conduct.__signature__ = _signature(others)
        conduct.__annotations__ = {
            _CONTEXT: RunContext, "return": dict[str, Any], **{name: hint for name, (_, hint, _) in taken.items()}
        }  # fmt: skip
        shared = Parameters(self.name, conduct)
        shared.takers = {name: self._taker(name, step) for name, (_, _, step) in taken.items()}
        return shared

    def _taker(self, name: str, step: str) -> str:
        """What is said of a parameter that nobody gave: of one that was to be a result the name is not that of its step."""
        before = nearest(name, [one for one in self.steps if one != step]) or next(iter(self.steps[step].after), None)
        return f" (step '{step}' takes it; called '{before}' it would be the result of that step)" if before else ""


def _signature(others: Sequence[inspect.Parameter]) -> inspect.Signature:
    context = inspect.Parameter(_CONTEXT, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=RunContext)
    return inspect.Signature([context, *others])


def _for_crashes(retry: Retry) -> Retry:
    """The same number of attempts, but none of them for an error."""
    return Retry(retry.attempts, retry.first, retry.factor, retry.max, retry.jitter, _Crash)


def _executor(flow: str, step: str, is_async: bool, wanted: str | None) -> str:
    if wanted is None:
        return "loop" if is_async else "thread"
    if is_async and wanted != "loop":
        raise BadJob(
            f"step '{step}' of flow '{flow}' is an async def, which runs on the loop; write def for a {wanted}"
        )
    if not is_async and wanted == "loop":
        raise BadJob(f"step '{step}' of flow '{flow}' is a plain def, which would block the loop; write async def")
    return wanted


def _no_option(name: str) -> str:
    """What to write for an option that steps do not have."""
    options = ("name", "after", "retry", "optional", "executor")
    if name == "timeout":
        meant = "that is of the whole flow; within an async def write `async with asyncio.timeout(30)`; "
    else:
        near = nearest(name, options)
        meant = f"did you mean '{near}'? " if near else ""
    return f"a step has no option '{name}'; {meant}options of a step are: {', '.join(options)}; others are of the flow"


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or (type(one) is type(other) and bool(one == other))
    except Exception:
        return False


def _caller() -> str:
    """The file and line outside of taskloop that is declaring something."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "taskloop":
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# -- what follows from the states of the steps


class Course:
    """Which steps of a flow may begin, as others end: the cost of an end is that of the steps that waited for it."""

    def __init__(self, flow: Flow) -> None:
        self._optional = {one.name for one in flow.steps.values() if one.optional}
        self._missing = {name: set(flow.needs(name)) for name in flow.steps}
        self._needed_by: dict[str, list[str]] = {name: [] for name in flow.steps}
        for name, needed in self._missing.items():
            for one in needed:
                self._needed_by[one].append(name)
        self._decided: set[str] = set()

    def first(self) -> list[str]:
        """The steps that need nothing."""
        begin = [name for name, needed in self._missing.items() if not needed]
        self._decided.update(begin)
        return begin

    def ended(self, name: str, state: StepState) -> tuple[list[str], list[str]]:
        """Take note that a step has ended; gives the steps that may begin now, and those that never will."""
        if state is StepState.SKIPPED or (state is StepState.FAILED and name not in self._optional):
            return [], self._never(name)
        begin: list[str] = []
        for one in self._needed_by[name]:
            self._missing[one].discard(name)
            if not self._missing[one] and one not in self._decided:
                self._decided.add(one)
                begin.append(one)
        return begin, []

    def _never(self, name: str) -> list[str]:
        never: list[str] = []
        following = [name]
        while following:
            for one in self._needed_by[following.pop()]:
                if one not in self._decided:
                    self._decided.add(one)
                    never.append(one)
                    following.append(one)
        return never


def ahead(total: int) -> float:
    """What a running step counts for beyond those that are done, of 1: a twentieth, and never as much as a whole step."""
    return min(0.05, 0.99 / total)


def outcome(
    steps: Sequence[Step], started_at: datetime | None, completed_at: datetime | None, run: RunId
) -> dict[str, Any]:
    """What a flow came to, in plain JSON: each step, which of them succeeded and failed, and the errors in full."""
    succeeded = [one.name for one in steps if one.state is StepState.SUCCEEDED]
    failed = [one.name for one in steps if one.state is StepState.FAILED]
    current = next((one.name for one in steps if one.state is StepState.RUNNING), None)
    return {
        "run": run,
        "steps": {one.name: step_record(one) for one in steps},
        "completed_steps": succeeded,
        "failed_steps": failed,
        "current_step": current,
        "total_steps": len(steps),
        "completed_count": len(succeeded),
        "failed_count": len(failed),
        "started_at": _text(started_at),
        "completed_at": _text(completed_at),
        "errors": [
            {"at": _text(one.ended_at), "step": one.name, "message": one.error.told(),
             "traceback": one.error.traceback}
            for one in steps if one.error is not None and one.state is StepState.FAILED
        ],
    }  # fmt: skip


def step_record(step: Step) -> dict[str, Any]:
    """A step of a run, in plain JSON."""
    error = step.error
    return {
        "state": step.state.value,
        "attempt": step.attempt,
        "started_at": _text(step.started_at),
        "completed_at": _text(step.ended_at),
        "error": None if error is None else error.told(),
        "result": step.result,
        "kept": step.kept,
    }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)
