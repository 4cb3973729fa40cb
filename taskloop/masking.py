"""Parameters that nobody is to read: kept in clear for the job that needs them, shown nowhere.

Level 1, pure. A secret value is a `Secret` wherever a run or a schedule is at hand, so that no page, line or event can
show it by an oversight; stores write it tagged, `{"$secret": ...}`, and make a `Secret` of that again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from taskloop.runs import Failure, Outcome, Raised, Returned, first_line

__all__ = ["MASK", "TAG", "Secret", "clean_failure", "clean_outcome", "read_params", "scrubber", "shown", "tagged"]

MASK: Final = "********"
TAG: Final = "$secret"
"""The key under which a store keeps a secret value."""
LEAST_CHARACTERS: Final = 4
"""A shorter text is not taken out of what a job says: it would be everywhere."""


class Secret:
    """A value that is shown as `********`; plain JSON inside."""

    __slots__ = ("clear",)

    def __init__(self, clear: Any) -> None:
        self.clear: Any = clear
        """The value, for the call of the job and for nothing else."""

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self.clear == other.clear)

    def __hash__(self) -> int:
        return hash(Secret)


def shown(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they may be shown."""
    return {name: MASK if isinstance(value, Secret) else value for name, value in params.items()}


def tagged(value: Any) -> Any:
    """A secret as a store keeps it: the `default` of a JSON writer. Raises `TypeError` for whatever else is no JSON."""
    if isinstance(value, Secret):
        return {TAG: value.clear}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def read_params(text: str | None) -> dict[str, Any]:
    """Parameters from the JSON a store keeps of them; None: there are none."""
    if not text:
        return {}
    params: dict[str, Any] = json.loads(text)
    if f'"{TAG}"' not in text:
        return params
    return {
        name: Secret(value[TAG]) if isinstance(value, dict) and set(value) == {TAG} else value
        for name, value in params.items()
    }


def scrubber(params: Mapping[str, Any]) -> Callable[[str], str] | None:
    """Takes the secret values of a run out of a text; None: it has none."""
    texts = {text for value in params.values() if isinstance(value, Secret) for text in _texts(value.clear)}
    if not any(isinstance(value, Secret) for value in params.values()):
        return None
    return partial(_scrub, sorted(texts, key=len, reverse=True))


def _scrub(texts: list[str], said: str) -> str:
    for text in texts:
        said = said.replace(text, MASK)
    return said


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif value is not None and not isinstance(value, bool) and len(str(value)) >= LEAST_CHARACTERS:
        yield str(value)


def clean_failure(failure: Failure, scrub: Callable[[str], str]) -> Failure:
    """An error without the secrets of its run."""
    return replace(failure, message=scrub(failure.message), traceback=scrub(failure.traceback))


def clean_outcome(outcome: Outcome, scrub: Callable[[str], str]) -> Outcome:
    """What an attempt came to, without the secrets of its run."""
    match outcome:
        case Returned(result):
            clean = _clean(result, scrub)
            return Returned(clean, first_line(clean) or None if isinstance(clean, str) else None)
        case Raised(failure, retry_in, result):
            return Raised(clean_failure(failure, scrub), retry_in, _clean(result, scrub))
        case _:
            return outcome


def _clean(value: Any, scrub: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): _clean(one, scrub) for name, one in value.items()}
    if isinstance(value, list):
        return [_clean(one, scrub) for one in value]
    return value
