"""What a verb is given: ids, limits, words, read or refused before a store is asked.

Level 3, pure. Each gives the value as it is meant, or raises with what was given and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from taskloop.errors import NoSuchRun, NoSuchSchedule, nearest
from taskloop.jobs import Job
from taskloop.runs import Cause, Run, RunId, State

__all__ = ["is_same_call", "read_cause", "read_run_id", "read_schedule_id", "read_state", "read_texts", "read_whole"]

W = TypeVar("W", bound=StrEnum)


def read_run_id(number: object) -> RunId:
    """A number as the id of a run. Raises `NoSuchRun` for what none can have."""
    if not isinstance(number, int) or not 0 < number < 2**63:
        raise NoSuchRun(number)
    return RunId(number)


def read_schedule_id(id: object) -> str:
    """A text as the id of a schedule. Raises `NoSuchSchedule` for what none can have."""
    if not isinstance(id, str):
        raise NoSuchSchedule(str(id))
    return id


def read_whole(name: str, number: object) -> int:
    """How many, or up to which number. Raises `ValueError` for what is no whole number from 0 to 2**63 - 1."""
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise ValueError(f"{name} is {number!r}; allowed is a whole number from 0 on")
    return number


def read_texts(**given: object) -> None:
    """Refuse what is neither a text nor None. Raises `ValueError`."""
    for name, text in given.items():
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} is {text!r}; allowed is a text, or None")


def read_state(word: object) -> State:
    """A word as a state. Raises `ValueError` with the one that is nearest."""
    return _word("state", word, State)


def read_cause(word: object) -> Cause:
    """A word as a cause. Raises `ValueError` with the one that is nearest."""
    return word if type(word) is Cause else _word("cause", word, Cause)


def _word(what: str, word: Any, known: type[W]) -> W:
    try:
        return known(word)
    except ValueError:
        near = nearest(word, list(known)) if isinstance(word, str) else None
        meant = f"did you mean '{near}'? " if near else ""
        raise ValueError(f"no {what} '{word}'; {meant}{what}s are: {', '.join(known)}") from None


def is_same_call(job: Job[..., Any], run: Run, other: Run) -> bool:
    """Whether two runs of a job are given the same, be a value written out or left to the default of the function."""
    properties: Mapping[str, Mapping[str, Any]] = job.parameters.schema()["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    return {**defaults, **run.params} == {**defaults, **other.params}
