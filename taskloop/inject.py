"""What a job is given beside its parameters: `Inject`, and the plan in which order that is made.

Level 2, pure: nothing is called here, only looked at. `InjectionPlan.of` is the whole of it: every provider once, those it
needs before it. How providers are entered and left stands in `injecting`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextlib import _AsyncGeneratorContextManager as AsyncManaged
from contextlib import _GeneratorContextManager as Managed
from dataclasses import dataclass
from functools import partial
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

from taskloop.annotations import annotations_of, signature_of
from taskloop.context import RunContext, StepContext
from taskloop.errors import BadJob, nearest

__all__ = ["Inject", "Injected", "InjectionPlan", "Provision", "Scope", "entered_class", "identity", "is_context"]

T = TypeVar("T")
Scope = Literal["attempt", "worker"]
SCOPES: Final = ("attempt", "worker")


@dataclass(frozen=True, slots=True)
class Injected:
    """The default of a parameter that the engine fills: by what, and for how long. Made by `Inject`."""

    provider: Callable[..., Any]
    scope: Scope = "attempt"


@overload
def Inject(provider: type[AbstractAsyncContextManager[T, Any]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: type[AbstractContextManager[T, Any]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., AsyncManaged[T]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., Managed[T]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., AsyncIterator[T]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., Iterator[T]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., Coroutine[Any, Any, T]], scope: Scope = ...) -> T: ...
@overload
def Inject(provider: Callable[..., T], scope: Scope = ...) -> T: ...
def Inject(provider: Any, scope: Scope = "attempt") -> Any:  # noqa: N802 - the contract's name, as of a type
    """As the default of a parameter: the engine fills it with what `provider` gives, entered before and left after.

    `provider`: a function or coroutine function (what it returns), a generator or asynchronous generator function that
    yields once, a context manager: a class, or a function decorated by `contextmanager` or `asynccontextmanager`.
    `scope`: "attempt", entered and left for each; "worker", once, and left when the scheduler stops. Its own
    parameters are injected the same way. Raises `BadJob`.
    """
    if scope not in SCOPES:
        near = nearest(scope, SCOPES) if isinstance(scope, str) else None
        meant = f"; did you mean '{near}'?" if near else ""
        raise BadJob(f"Inject: scope is {scope!r}; allowed are 'attempt' and 'worker'{meant}")
    if isinstance(provider, Managed | AsyncManaged):
        raise BadJob("Inject: got what a provider gives, not the provider; give the function itself, without ()")
    if not callable(provider):
        raise BadJob(
            f"Inject: a {type(provider).__name__} cannot be called; "
            "give a function, a generator function, or the class of a context manager"
        )
    return Injected(provider, scope)


@dataclass(frozen=True, slots=True, eq=False)
class Provision:
    """One provider in the plan of a job, with what it needs itself."""

    key: Any
    """Equal for every place that means this provider in this scope."""
    provider: Callable[..., Any]
    scope: Scope
    on_loop: bool
    """Whether it is called on the loop: a coroutine, asynchronous generator or asynchronous context manager."""
    needs: Mapping[str, Provision]
    context_name: str | None
    """The parameter that receives the `RunContext`; None: it does not ask for it."""

    @property
    def name(self) -> str:
        return _name(self.provider)


@dataclass(frozen=True, slots=True, eq=False)
class InjectionPlan:
    """The providers of one job: each once, after all that it needs."""

    order: tuple[Provision, ...]
    arguments: Mapping[str, Provision]
    """What each injected parameter of the job receives."""
    outside: tuple[Provision, ...]
    """Of a job in a thread: those that are entered before the thread is asked for, as the loop has to do it."""
    inside: tuple[Provision, ...]
    """The others: entered, used and left in that thread."""

    @classmethod
    def of(
        cls, job: str, injected: Mapping[str, Injected], overrides: Mapping[Any, Any] | None = None
    ) -> InjectionPlan:
        """The plan for a job's injected parameters, `overrides` in the place of providers. Raises `BadJob`."""
        planner = _Planner(job, overrides or {})
        arguments = {name: planner.provision(one, ()) for name, one in injected.items()}
        order = tuple(planner.known.values())
        outer: set[Any] = set()
        for one in reversed(order):  # a provider stands after those it needs
            if one.on_loop or one.scope == "worker" or one.key in outer:
                outer |= {one.key, *(each.key for each in one.needs.values())}
        outside = tuple(one for one in order if one.key in outer)
        return cls(order, arguments, outside, tuple(one for one in order if one.key not in outer))


class _Planner:
    """Walks from the parameters of a job to all that is needed for them."""

    def __init__(self, job: str, overrides: Mapping[Any, Any]) -> None:
        self.job = job
        self.known: dict[Any, Provision] = {}
        self._overrides = overrides
        self._met: dict[Any, Any] = {}

    def provision(self, wanted: Injected, way: tuple[Any, ...]) -> Provision:
        provider = self._overrides.get(identity(wanted.provider), wanted.provider)
        key = (wanted.scope, identity(provider))
        if key in way:
            ring = " -> ".join(_name(self._met[one]) for one in (*way[way.index(key) :], key))
            raise BadJob(f"job '{self.job}': provider {_name(provider)} needs itself ({ring}); break the ring")
        if key not in self.known:
            self.known[key] = self._provision(key, provider, wanted.scope, (*way, key))
        return self.known[key]

    def _provision(self, key: Any, provider: Any, scope: Scope, way: tuple[Any, ...]) -> Provision:
        self._met[key] = provider
        context_name, inner = self._parameters(provider, scope)
        needs = {name: self.provision(one, way) for name, one in inner.items()}
        if scope == "worker" and (short := [one.name for one in needs.values() if one.scope != "worker"]):
            raise BadJob(
                f"job '{self.job}': provider {_name(provider)} lives as long as the worker and needs {short[0]}, which "
                'is left after each attempt; give that one scope="worker" too, or this one scope="attempt"'
            )
        return Provision(key, provider, scope, _is_on_loop(provider), needs, context_name)

    def _parameters(self, provider: Any, scope: Scope) -> tuple[str | None, dict[str, Injected]]:
        try:
            parameters = signature_of(provider).parameters.values()
        except (TypeError, ValueError):  # a built-in that does not say
            return None, {}
        hints = _hints(provider)
        context_name: str | None = None
        injected: dict[str, Injected] = {}
        for one in parameters:
            if isinstance(one.default, Injected):
                injected[one.name] = one.default
            elif is_context(hints.get(one.name)):
                if scope == "worker":
                    raise BadJob(
                        f"job '{self.job}': provider {_name(provider)} lives as long as the worker, so there is no run "
                        f"for its parameter '{one.name}'; leave it out, or give it scope=\"attempt\""
                    )
                if context_name is not None:
                    raise BadJob(
                        f"job '{self.job}': provider {_name(provider)} takes the run twice, as '{context_name}' and as "
                        f"'{one.name}'; leave one of them out"
                    )
                context_name = one.name
            elif one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                raise BadJob(
                    f"job '{self.job}': provider {_name(provider)} has a parameter '{one.name}' that nobody gives; "
                    "give it a default, Inject(...) or another, or bind it with functools.partial"
                )
        return context_name, injected


def identity(provider: Any) -> Any:
    """What two mentions of one provider have in common."""
    try:
        hash(provider)
    except TypeError:
        return id(provider)
    return provider


def is_context(hint: object) -> bool:
    """Whether a parameter with this annotation receives the `RunContext`: annotated with it, with or without None."""
    if isinstance(hint, ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        return _is_written_context(hint)
    origin = get_origin(hint)
    if origin is Annotated:
        return is_context(get_args(hint)[0])
    if origin in (Union, UnionType):
        return all(one is NoneType or is_context(one) for one in get_args(hint))
    return hint is RunContext or hint is StepContext


_WRITTEN: Final = re.compile(r"(?:[\w.]+\.)?(?:Run|Step)Context")
_WRITTEN_AROUND: Final = re.compile(r"(?:[\w.]+\.)?(Annotated|Optional|Union)\[(.*)\]", re.DOTALL)


def _is_written_context(text: str) -> bool:
    """As `is_context`, of an annotation whose names cannot be found: it is taken by how it is written."""
    text = text.strip(" '\"")
    if around := _WRITTEN_AROUND.fullmatch(text):
        return _is_written_context(around[2].partition(",")[0] if around[1] == "Annotated" else around[2])
    parts = [one.strip(" '\"") for one in re.split(r"[|,]", text)]
    return set(parts) != {"None"} and all(one == "None" or _WRITTEN.fullmatch(one) for one in parts)


def _hints(provider: Any) -> dict[str, Any]:
    """The annotations of what is called, as types where they can be found, else as they are written."""
    called = _called(provider)
    called = getattr(called, "__init__", None) if isinstance(called, type) else called
    return annotations_of(called)


def _called(provider: Any) -> Any:
    """The function or class behind a partial or an object that can be called."""
    while isinstance(provider, partial):
        provider = provider.func
    if isinstance(provider, type) or inspect.isroutine(provider):
        return provider
    return type(provider).__call__


def entered_class(provider: Any) -> bool:
    """Whether the provider is a class of context managers; what a function returns is given as it is."""
    called = _called(provider)
    return isinstance(called, type) and (hasattr(called, "__enter__") or hasattr(called, "__aenter__"))


def _is_on_loop(provider: Any) -> bool:
    called = _called(provider)
    if isinstance(called, type):
        return hasattr(called, "__aenter__")
    plain = inspect.unwrap(called)  # what contextlib decorates says so itself
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(plain)


def _name(provider: Any) -> str:
    called = _called(provider)
    return str(getattr(called, "__qualname__", type(provider).__name__))
