"""What a verb is given: ids, limits, words, read or refused before a store is asked.

Level 3, pure. Each gives the value as it is meant, or raises with what was given and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, TypeVar, overload

from taskloop.errors import BadJob, BadTrigger, BadValue, NoSuchRun, NoSuchSchedule, nearest
from taskloop.jobs import Call, Job
from taskloop.runs import Cause, Run, RunId, State

__all__ = [
    "before",
    "calls",
    "cause",
    "each",
    "is_same_call",
    "limit",
    "run_id",
    "schedule",
    "schedule_id",
    "states",
    "texts",
]

T = TypeVar("T")
V = TypeVar("V")
W = TypeVar("W", bound=StrEnum)


def run_id(number: object) -> RunId:
    """A number as the id of a run. Raises `NoSuchRun` for what none can have."""
    if not isinstance(number, int) or not 0 < number < 2**63:
        raise NoSuchRun(number)
    return RunId(number)


def schedule_id(id: object) -> str:
    """A text as the id of a schedule. Raises `NoSuchSchedule` for what none can have."""
    if not isinstance(id, str):
        raise NoSuchSchedule(str(id))
    return id


def calls(given: Iterable[Call[T]]) -> list[Call[T]]:
    """The calls to submit. Raises `BadJob` for what is none."""
    found = list(each(given, "calls, as a job's `bind(…)` returns them"))
    for place, call in enumerate(found):
        if not isinstance(call, Call):
            raise BadJob(f"calls[{place}] is a {type(call).__name__}; give what a job's `bind(…)` returns")
    return found


def each(given: Iterable[V], what: str) -> Iterator[V]:
    """What is given, one after the other; `what` says what that should be. Raises `BadJob` for what is no list."""
    if not isinstance(given, Iterable):
        raise BadJob(f"{given!r:.200} is no list; give a list, or a generator, of {what}")
    return iter(given)


def schedule(wanted: Any) -> tuple[Call[Any], Any, str]:
    """A schedule to store: the call, the trigger, which is not looked at, and the id. Raises `BadJob`, and `BadTrigger` for
    an id that is no text.
    """
    if not isinstance(wanted, tuple | list) or len(wanted) != 3 or not isinstance(wanted[0], Call):
        raise BadJob(
            f"{wanted!r:.200} is no schedule; give (call, trigger, id), the call as a job's `bind(…)` returns it"
        )
    call, trigger, name = wanted
    if not isinstance(name, str):
        raise BadTrigger(name, "allowed is a text of 1 to 200 printable characters", what="schedule id")
    return call, trigger, name


def limit(number: object, name: str = "limit") -> int:
    """How many, or from where on. Raises `BadValue` for what is no whole number from 0 to 2**63 - 1."""
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise BadValue(f"{name} is {number!r}; allowed is a whole number from 0 on")
    return number


def before(number: object) -> int | None:
    """An id below which to look, None: below none. Raises `BadValue`."""
    return None if number is None else limit(number, "before")


def texts(**given: object) -> None:
    """Refuse what is neither a text nor None. Raises `BadValue`."""
    for name, text in given.items():
        if text is not None and not isinstance(text, str):
            raise BadValue(f"{name} is {text!r}; allowed is a text, or None")


def states(words: object) -> list[State] | None:
    """A word, or some, as states. Raises `BadValue` with the one that is nearest."""
    if words is None:
        return None
    return [
        _word("state", one, State)
        for one in (words if isinstance(words, Iterable) and not isinstance(words, str) else [words])
    ]


@overload
def cause(word: None) -> None: ...
@overload
def cause(word: str) -> Cause: ...
def cause(word: str | None) -> Cause | None:
    """A word as a cause. Raises `BadValue` with the one that is nearest."""
    return word if word is None or type(word) is Cause else _word("cause", word, Cause)


def _word(what: str, word: Any, known: type[W]) -> W:
    try:
        return known(word)
    except ValueError:
        near = nearest(word, list(known)) if isinstance(word, str) else None
        meant = f"did you mean '{near}'? " if near else ""
        raise BadValue(f"no {what} '{word}'; {meant}{what}s are: {', '.join(known)}") from None


def is_same_call(job: Job[..., Any], run: Run, other: Run) -> bool:
    """Whether two runs of a job are given the same, be a value written out or left to the default of the function.

    Of a first one that has given back its key meanwhile it is not asked.
    """
    if run.state not in (State.WAITING, State.RUNNING, State.SUCCEEDED):
        return False
    properties: Mapping[str, Mapping[str, Any]] = job.parameters.schema()["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    return {**defaults, **run.params} == {**defaults, **other.params}
