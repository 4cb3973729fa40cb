"""A job: a named function with its trigger and policy; and `Jobs`, which collects them by decorators.

Level 3, pure: declaring opens nothing and starts nothing. What a job does with records (`submit`, `schedule`) it asks
of the `Desk` it belongs to.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from weakref import WeakSet

from taskloop.annotations import annotations_of, signature_of
from taskloop.context import RunContext, running
from taskloop.errors import BadJob, BadParameters, Conflict, NoSuchJob, nearest
from taskloop.inject import Injected, is_context
from taskloop.parameters import Parameters
from taskloop.policy import ELSEWHERE, Policy, PolicyOptions, read_option, read_texts
from taskloop.triggers import Cron, Every, Trigger, checked

if TYPE_CHECKING:
    from taskloop.flows import Flow
    from taskloop.handles import RunHandle
    from taskloop.schedules import Schedule

__all__ = [
    "NAME", "Call", "Desk", "Job", "Jobs", "Register", "begun", "by_name", "collections_of", "name_of", "refuse_the_bare", "refuse_the_uncallable", "unfit_for_a_process"
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
V = TypeVar("V")
Duration = timedelta | float | str

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
"""What a job may be called: the key of all its history."""


class Desk(Protocol):
    """What a job needs of the scheduler it belongs to."""

    _is_configured: bool

    @property
    def is_running(self) -> bool: ...

    async def _configure(self) -> None: ...

    async def _submit_call(self, call: Call[T], at: Any, key: str | None, actor: str | None) -> RunHandle[T]: ...

    async def schedule(
        self, job: Any, trigger: Trigger, *, id: str, params: Mapping[str, Any] | None = None
    ) -> Schedule: ...


class Call(Generic[T_co]):
    """A job with its parameters, already checked: may be submitted, scheduled, or both, any number of times."""

    __slots__ = ("job", "params")

    def __init__(self, job: Job[Any, T_co], params: dict[str, Any]) -> None:
        self.job: Job[Any, T_co] = job
        self.params: dict[str, Any] = params

    async def submit(
        self, *, at: datetime | Duration | None = None, key: str | None = None, actor: str | None = None
    ) -> RunHandle[T_co]:
        """Ask for one run; committed when this returns. `at` None: as soon as there is a place.

        With `key` a second submit of equal parameters gives the first run, with `existed` set. Raises `Conflict`,
        `KeyConflict`, `StoreUnavailable`.
        """
        return await self.job.desk()._submit_call(self, at, key, actor)

    async def schedule(self, trigger: Trigger, *, id: str) -> Schedule:
        """Store a schedule that runs this call at each instant of `trigger`; a known `id` is replaced."""
        return await self.job.desk().schedule(self.job, trigger, id=id, params=self.params)

    def __repr__(self) -> str:
        return f"<call of {self.job.name} with {sorted(self.params)}>"


class Job(Generic[P, T_co]):
    """A named function and its policy. Calling it calls the plain function, outside of any record."""

    def __init__(
        self,
        function: Callable[..., Any],
        trigger: Trigger | None,
        *,
        name: str | None = None,
        prefix: str = "",
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        options: Mapping[str, Any] | None = None,
        origin: Literal["code", "file"] = "code",
    ) -> None:
        refuse_the_uncallable(function, name)
        given: Any = name if name is not None else function.__name__
        self.name: str = prefix + given if isinstance(given, str) else given
        self.aliases: tuple[str, ...] = read_texts("aliases", aliases)
        for text in (self.name, *self.aliases):
            if not isinstance(text, str) or not NAME.fullmatch(text):
                raise BadJob(
                    f"job name {str(text)[:140]!r} cannot be; allowed are 1 to 128 letters, digits and '._:-', the first a "
                    'letter or digit; give name="..."'
                )
        self.function: Callable[P, T_co] = function
        """The function as it was written."""
        self.trigger = self._declared_trigger = None if trigger is None else checked(trigger)
        self.origin: Literal["code", "file"] = origin
        self.options: dict[str, Any] = dict(options or {})
        """What the declaration itself said; the layers of a configuration file are laid around it."""
        self.parameters: Parameters = Parameters(self.name, function)
        self.policy: Policy = Policy.of(self.name, self.options)
        self.is_async: bool = inspect.iscoroutinefunction(function)
        self._keep_secrets()
        self.params: dict[str, Any] = {}
        """What its declaration gives: to the runs of its own schedule, and to each call that leaves it out."""
        self._declared_params = dict(by_name(self.name, params))
        if (params or trigger is not None) and not self.parameters.is_unread:  # else a start checks it
            self._declare(self._declared_params)
        self._desk: Desk | None = None
        """The scheduler it was given to, as long as that was but one."""
        self._desks: WeakSet[Desk] | None = None
        """Several: the jobs of a module outlive each that a test, or an application anew, makes of them."""
        self._check_executor()

    @property
    def place(self) -> str:
        """The file and line of the function, for messages."""
        code = inspect.unwrap(self.function).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    @property
    def kind(self) -> Literal["periodic", "on_demand", "flow"]:
        return "periodic" if self.trigger is not None else "on_demand"

    @property
    def title(self) -> str:
        return self.policy.title or self.name

    @property
    def description(self) -> str:
        return self.policy.description or inspect.getdoc(self.function) or ""

    def configure(
        self,
        defaults: Mapping[str, Any],
        overrides: Mapping[str, Any],
        trigger: Trigger | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Lay the file's `[defaults]` beneath and its `[jobs.NAME]` above what the declaration said."""
        if "secret" in defaults:  # said of all jobs: meant are those that have such a parameter
            known = [name for name in defaults["secret"] if name in self.parameters.names]
            defaults = {**defaults, "secret": known}
        self.policy = Policy.of(self.name, defaults, self.options, overrides)
        self._keep_secrets()
        self.parameters.refuse_unread()
        self.trigger = trigger if trigger is not None else self._declared_trigger
        self._declare({**self._declared_params, **(params or {})})
        self._check_executor()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """The plain function, as if it were not decorated. Raises `NotInjected` where an injected parameter is missing."""
        if self.parameters.injected:
            self.parameters.refuse_uninjected(args, kwargs)
        return self.function(*args, **kwargs)

    @overload
    def bind(self: Job[P, Awaitable[V]], *args: P.args, **kwargs: P.kwargs) -> Call[V]: ...
    @overload
    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[T_co]: ...
    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """This job with these parameters, checked now. Raises `BadParameters`."""
        return Call(self, self.parameters.check(self.parameters.named(args, kwargs)))

    @overload
    async def submit(self: Job[P, Awaitable[V]], *args: P.args, **kwargs: P.kwargs) -> RunHandle[V]: ...
    @overload
    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle[T_co]: ...
    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle[Any]:
        """Ask for one run with these parameters; committed when this returns.

        For an instant, a key or an actor: `job.bind(...).submit(at=, key=, actor=)`. Raises `BadParameters`,
        `Conflict` (the job is switched off), `StoreUnavailable`.
        """
        desk = self.desk()
        if not desk._is_configured:  # what a file gives stands where this call leaves it out
            await desk._configure()
        return await desk._submit_call(self.bind(*args, **kwargs), None, None, None)

    def _expect(self) -> None:
        """Make what its runs will need and a loop had better not wait for; in a thread."""

    def step_facts(self) -> list[dict[str, Any]]:
        """The steps it is made of, in plain JSON: none, it is one function."""
        return []

    def desk(self) -> Desk:
        """The scheduler that keeps this job's records: that of the run in hand, else the only one it was given to, and
        of several the only one that runs, or that is left.
        """
        if self._desks is None and self._desk is not None:
            return self._desk
        left = list(self._desks or ())
        context = running.get()
        if context is not None and context.scheduler in left:
            return cast("Desk", context.scheduler)
        for some in ([one for one in left if one.is_running], left):
            if len(some) == 1:
                return some[0]
        if not left:
            raise Conflict(f"job '{self.name}' belongs to no scheduler; give its Jobs to TaskScheduler(jobs=[...])")
        raise Conflict(f"job '{self.name}' belongs to several schedulers; call scheduler.submit({self.name!r}, ...)")

    def attach(self, desk: Desk) -> None:
        """Make `desk` one of the schedulers this job belongs to."""
        if self._desks is not None:
            self._desks.add(desk)
        elif self._desk is None or self._desk is desk:
            self._desk = desk
        else:
            self._desks = WeakSet([self._desk, desk])
            self._desk = None

    def _declare(self, params: Mapping[str, Any]) -> None:
        self.params = self.parameters.declare(params, whole=self.trigger is not None or self.policy.on_start)

    def _keep_secrets(self) -> None:
        self.parameters.keep_secret(self.policy.secret)

    def _check_executor(self) -> None:
        wanted = self.policy.executor
        if wanted == "loop" and not self.is_async:
            raise BadJob(
                f"job '{self.name}' is a plain def, which would block the loop; write async def, or leave executor out"
            )
        if wanted == "thread" and self.is_async:
            raise BadJob(f"job '{self.name}' is an async def, which runs on the loop; write def, or leave executor out")
        if wanted in ELSEWHERE and (why := unfit_for_a_process(self.function, self.parameters, wanted)):
            raise BadJob(f"job '{self.name}' cannot run in {'a process' if wanted == 'process' else 'Dask'}: {why}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (self.function.__module__, self.function.__qualname__)

    def __repr__(self) -> str:
        return f"<job {self.name}{f' {self.trigger}' if self.trigger else ''}>"


def name_of(job: str | Job[..., Any]) -> str:
    """The name of a job that is given by it, or as itself. Raises `TypeError`."""
    if isinstance(job, str):
        return job
    if not isinstance(job, Job):
        meant = (
            "give its name; a call is asked for by itself: `call.submit()`, and scheduled: `call.schedule(trigger, id=...)`"
            if isinstance(job, Call)
            else "give its name"
        )
        raise TypeError(f"a job is named by a text or given itself, got {type(job).__name__}; {meant}")
    return job.name


def by_name(job: str, params: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Parameters by name, none for None. Raises `BadParameters` for what names none."""
    if params and not isinstance(params, Mapping):
        raise BadParameters(job, {"*": f"is a {type(params).__name__}; a dict of names and their values is allowed"})
    return params or {}


def _found(module: str, qualname: str) -> Any:
    """The job that stands in `module` under the function's own name: how a job is unpickled."""
    from importlib import import_module

    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def unfit_for_a_process(function: Callable[..., Any], parameters: Parameters, executor: str) -> str | None:
    """What keeps a function from being found and called in another process, as far as its declaration tells."""
    by_name = executor != "dask"  # there a function that has no name for others is sent itself
    if inspect.iscoroutinefunction(function):
        return "it is an async def, which runs on the loop; write def, or leave executor out"
    if by_name and "<locals>" in function.__qualname__:
        return "its function stands inside of another, where nobody else finds it; write it at the top of a module"
    if executor == "process" and getattr(sys, "frozen", False):  # what would be started for it is the program once more
        return "the program is frozen into one file, and has no interpreter to start for jobs; use executor='thread'"
    if by_name and function.__module__ == "__main__":
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if main is None:
            return "its function was typed in or given with -c; write it into a file"
        if not Path(main).is_file():
            return f"its function stands in {main}, which is no file of its own; write it into a module that can be imported"
    for one in parameters.plan.order if parameters.plan is not None else ():
        if one.on_loop:
            return f"provider {one.name} needs a loop, and there is none; inject a plain one, or use executor='thread'"
        if one.scope == "worker":
            return f"provider {one.name} lives as long as the worker, which a process does not; leave its scope out"
    return None


def refuse_the_uncallable(function: object, name: str | None) -> None:
    """Raise `BadJob` for what cannot be called by name, in any process, to give one value."""
    if inspect.ismethod(function):
        raise BadJob(
            f"{function.__qualname__} is a bound method, which no other process could find again; "
            "write a function that makes or finds the object itself"
        )
    if isinstance(function, Job):
        raise BadJob(
            f"'{function.name}' is a job already; it gets a further schedule by "
            f"`await scheduler.schedule({function.name!r}, trigger, id=...)`, and a second job is made of its `.function`"
        )
    if isinstance(function, str):
        raise BadJob(
            f"a job must be a function (def or async def), got the text {function!r}; import it and give it itself, "
            "or name it in config.toml: call = 'module:function'"
        )
    if not inspect.isfunction(function):
        raise BadJob(f"a job must be a function (def or async def), got {type(function).__name__}; wrap it in a def")
    if function.__name__ == "<lambda>":
        raise BadJob(f"a lambda{f' named {name!r}' if name else ''} cannot be a job, it has no name; write a def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadJob(f"{function.__qualname__} yields, and nobody would read what it yields; return one value instead")
    taken = signature_of(function).parameters.values()
    within, _, _ = function.__qualname__.rpartition(".")
    if within and not within.endswith("<locals>") and next((one.name for one in taken), "") in ("self", "cls"):
        raise BadJob(
            f"{function.__qualname__} is a method, and nobody would give it what it belongs to; "
            "write a function that makes or finds the object itself"
        )
    given = [one for one in taken if not isinstance(one.default, Injected)]
    is_marked = any("Inject" in str(one.annotation) for one in given)
    if len(given) < 2 and not is_marked:
        return
    hints = annotations_of(function)
    for one in given if is_marked else ():
        if any(isinstance(mark, Injected) for mark in getattr(hints.get(one.name), "__metadata__", ())):
            raise BadJob(
                f"{function.__qualname__} has Inject(...) in the annotation of '{one.name}', where it is no default: "
                f"write {one.name}: ... = Inject(...)"
            )
    contexts = [one.name for one in given if is_context(hints.get(one.name))]
    if len(contexts) > 1:
        raise BadJob(
            f"{function.__qualname__} takes the run twice, as '{contexts[0]}' and as '{contexts[1]}'; leave one of them out"
        )


def refuse_the_bare(given: object, decorator: str) -> None:
    """Raise `TypeError` where a decorator was written without its parentheses, and so is given the function."""
    first = given[0] if isinstance(given, tuple) and given else given
    if callable(first):
        raise TypeError(f"a decorator needs its parentheses; write {decorator}")
    if isinstance(given, tuple) and given:
        raise TypeError(f"a decorator takes what is given by name, got {first!r:.100}; write name=...")


def begun(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """The work of an async function, for `call()` to wait for. Raises `TypeError` for what is none."""
    if inspect.iscoroutine(function):
        function.close()  # nobody will await it
        raise TypeError(f"call() takes the function and its arguments apart; write call({function.__qualname__}, ...)")
    work = function(*args, **kwargs)
    if not inspect.iscoroutine(work):
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TypeError(f"call() is for async functions, {name} gave {type(work).__name__}; call it directly")
    return work


if TYPE_CHECKING:

    class ContextJob(Job[P, T_co]):
        """A job whose function takes the run first: who calls it plainly gives one, who asks for a run of it does not."""

        function: Callable[Concatenate[RunContext, P], T_co]  # type: ignore[assignment]

        def __call__(self, run: RunContext, /, *args: P.args, **kwargs: P.kwargs) -> T_co:  # type: ignore[override]
            """The plain function, as if it were not decorated. Raises `NotInjected` where an injected parameter is missing."""

    class _Stranger:
        """Taken by no function but one whose first parameter takes anything, a `RunContext` too, and is none."""


class Register(Protocol):
    """A decorator that makes a function a job, typed by what the function takes and gives."""

    @overload
    def __call__(self, function: Callable[Concatenate[_Stranger, ...], T], /) -> Job[..., T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[RunContext, P], T], /) -> ContextJob[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Job[P, T]: ...


class Jobs:
    """Jobs of a module, collected by decorators; give them to a scheduler with `TaskScheduler(jobs=[...])`."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._jobs: dict[str, Job[..., Any]] = {}

    def every(
        self,
        interval: Duration | None = None,
        *,
        anchor: datetime | str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Register:
        """Run the function again and again, `interval` apart; None: the interval given to `start()`."""
        refuse_the_bare(interval, "@scheduler.every()")
        return self._register(Every(interval, anchor=anchor), name, params, aliases, policy)

    def cron(
        self,
        expression: str,
        *,
        timezone: str | None = None,
        gap: Literal["after", "skip"] = "after",
        fold: Literal["once", "both"] = "once",
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Register:
        """Run the function by a cron expression, read on the clocks of `timezone`; None: the scheduler's zone."""
        refuse_the_bare(expression, "@scheduler.cron('0 2 * * *')")
        trigger = Cron(expression, timezone=timezone, gap=gap, fold=fold)
        return self._register(trigger, name, params, aliases, policy)

    def job(
        self,
        *bare: Never,
        name: str | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Register:
        """Run the function only when somebody asks for it."""
        refuse_the_bare(bare, "@scheduler.job()")
        return self._register(None, name, None, aliases, policy)

    def flow(
        self,
        name: str,
        trigger: Trigger | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Flow:
        """A job made of steps, which `@flow.step()` adds; its own attempts (3) are used up by crashes alone."""
        from taskloop.flows import Flow

        flow = Flow(name, trigger, prefix=self.prefix, params=params, aliases=aliases, options=policy)
        self._add(flow)
        return flow

    @overload
    def add_job(
        self,
        func: Callable[Concatenate[_Stranger, ...], T],
        trigger: Trigger | None = ...,
        *,
        name: str | None = ...,
        params: Mapping[str, Any] | None = ...,
        aliases: tuple[str, ...] | list[str] = ...,
        **policy: Unpack[PolicyOptions],
    ) -> Job[..., T]: ...
    @overload
    def add_job(
        self,
        func: Callable[Concatenate[RunContext, P], T],
        trigger: Trigger | None = ...,
        *,
        name: str | None = ...,
        params: Mapping[str, Any] | None = ...,
        aliases: tuple[str, ...] | list[str] = ...,
        **policy: Unpack[PolicyOptions],
    ) -> ContextJob[P, T]: ...
    @overload
    def add_job(
        self,
        func: Callable[P, T],
        trigger: Trigger | None = ...,
        *,
        name: str | None = ...,
        params: Mapping[str, Any] | None = ...,
        aliases: tuple[str, ...] | list[str] = ...,
        **policy: Unpack[PolicyOptions],
    ) -> Job[P, T]: ...
    def add_job(
        self,
        func: Callable[..., Any],
        trigger: Trigger | None = None,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        aliases: tuple[str, ...] | list[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Job[..., Any]:
        """The decorators without the `@`. Raises `BadJob` for what cannot be a job, or a name taken."""
        job: Job[..., Any] = Job(
            func, trigger, name=name, prefix=self.prefix, params=params, aliases=aliases, options=policy
        )
        self._add(job)
        return job

    def adopt(self, job: Job[..., Any]) -> None:
        """Take a job that another collection declared. Raises `BadJob` for a name taken."""
        self._add(job)

    def remove_job(self, name: str) -> None:
        """Forget a job: it fires no more here; its history stays. Raises `NoSuchJob`."""
        self._jobs.pop(self[name].name)

    def _register(
        self,
        trigger: Trigger | None,
        name: str | None,
        params: Mapping[str, Any] | None,
        aliases: tuple[str, ...] | list[str],
        policy: PolicyOptions,
    ) -> Register:
        for option, value in policy.items():
            read_option(option, value)

        def register(function: Callable[..., Any]) -> Job[..., Any]:
            job: Job[..., Any] = self.add_job(function, trigger, name=name, params=params, aliases=aliases, **policy)
            return job

        return cast("Register", register)

    def _add(self, job: Job[..., Any]) -> None:
        taken = self._jobs.get(job.name)
        if taken is not None and taken is not job:
            again = f", or remove_job('{job.name}') first if it takes the place of the one before"
            raise BadJob(
                f"two jobs are named '{job.name}': {taken.place} and {job.place}; give one of them name=\"...\", "
                f"for names are the key of history and switches{again if taken.function is job.function else ''}"
            )
        self._jobs[job.name] = job

    def __getitem__(self, name: str) -> Job[..., Any]:
        """The job of that name. Raises `NoSuchJob`."""
        if name not in self._jobs and (name := name_of(name)) not in self._jobs:
            raise NoSuchJob(name, nearest(name, self._jobs))
        return self._jobs[name]

    def __contains__(self, name: object) -> bool:
        return (name.name if isinstance(name, Job) else name) in self._jobs

    def __iter__(self) -> Iterator[Job[..., Any]]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} jobs>"


def collections_of(jobs: Iterable[Jobs]) -> list[Jobs]:
    """The collections that a scheduler is to take over. Raises `TypeError` for what is none, or one alone."""
    is_list = isinstance(jobs, Iterable) and not isinstance(jobs, Jobs)
    found: list[Jobs] = list(jobs) if is_list else []
    if not is_list or not all(isinstance(one, Jobs) for one in found):
        raise TypeError(
            f"jobs is {jobs!r:.200}; a list of collections is allowed, such as jobs=[shop] with shop = Jobs()"
        )
    return found
