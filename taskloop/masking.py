"""Parameters that nobody is to read: kept in clear for the job that needs them, shown nowhere.

Level 1, pure. A secret value is a `Secret` wherever a run or a schedule is at hand, so that no page, line or event can
show it by an oversight; stores write it tagged, `{"$secret": ...}`, and make a `Secret` of that again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, get_args, get_type_hints

from taskloop.runs import Failure, Outcome, Raised, Returned, first_line
from taskloop.steps import Step

__all__ = [
    "MASK",
    "TAG",
    "Secret",
    "clean_failure",
    "clean_outcome",
    "clean_step",
    "clean_value",
    "covered",
    "read_params",
    "scrubber",
    "shown",
    "tagged",
    "uncovered",
]

MASK: Final = "********"
TAG: Final = "$secret"
"""The key under which a store keeps a secret value."""
LEAST_CHARACTERS: Final = 4
"""A shorter text is not taken out of what a job says: it would be everywhere."""
_CUT: Final = re.compile(r"(\n… \d+ characters left out …\n|…)")
"""What stands where a text of a record was cut."""


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


def covered(hint: Any) -> bool:
    """Whether a value of this annotation is one of pydantic's secrets, or may hold one inside."""
    return _is_covered(hint, [])


def _is_covered(hint: Any, seen: list[Any]) -> bool:
    if any(hint is one for one in seen):
        return False
    seen.append(hint)
    if hasattr(hint, "get_secret_value"):
        return True
    inner = [*get_args(hint), *(getattr(hint, name, None) for name in ("__value__", "__supertype__", "__origin__"))]
    if isinstance(hint, type):
        inner += [one.annotation for one in getattr(hint, "model_fields", {}).values()]
        inner += _fields(hint)
    return any(_is_covered(one, seen) for one in inner if one is not None and not isinstance(one, str | int | bytes))


def _fields(kind: type) -> list[Any]:
    """The annotations of a class, as far as they can be read."""
    try:
        return list(get_type_hints(kind, include_extras=True).values())
    except Exception:
        return []


def uncovered(value: Any) -> Any:
    """A value with what pydantic's secrets hold in their place."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: uncovered(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [uncovered(one) for one in value]
    return value


def scrubber(params: Mapping[str, Any]) -> Callable[[str], str] | None:
    """Takes the secret values of a run out of a text; None: it has none."""
    secrets = [value.clear for value in params.values() if isinstance(value, Secret)]
    if not secrets:
        return None
    texts = {form for value in secrets for text in _texts(value) for form in _forms(text)}
    return partial(_scrub, sorted(texts, key=len, reverse=True))


def _scrub(texts: list[str], said: str) -> str:
    for text in texts:
        said = said.replace(text, MASK)
    return _without_halves(texts, said) if texts and "…" in said else said


def _without_halves(texts: list[str], said: str) -> str:
    """The text without what is left of a secret where the text was cut: its begin before the cut, its end after it."""
    parts = _CUT.split(said)
    for place in range(0, len(parts), 2):
        if place + 1 < len(parts):
            size = max((_shared(text, parts[place]) for text in texts), default=0)
            parts[place] = parts[place][:-size] + MASK if size else parts[place]
        if place:
            size = max((_shared(parts[place], text) for text in texts), default=0)
            parts[place] = MASK + parts[place][size:] if size else parts[place]
    return "".join(parts)


def _shared(one: str, other: str) -> int:
    """How many characters `other` ends with, four at least, with which `one` begins; 0: none."""
    most = min(len(one), len(other))
    return next((size for size in range(most, LEAST_CHARACTERS - 1, -1) if other.endswith(one[:size])), 0)


def _forms(text: str) -> Iterator[str]:
    """A text as it stands in a message, in a repr, in JSON, and in an address or a form that is sent."""
    from urllib.parse import quote, quote_plus

    yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield from (quote(text, safe=safe, errors="replace") for safe in ("", "/"))
    yield quote_plus(text, errors="replace")


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
            clean = clean_value(result, scrub)
            return Returned(clean, first_line(clean) or None if isinstance(clean, str) else None)
        case Raised(failure, retry_in, result):
            return Raised(clean_failure(failure, scrub), retry_in, clean_value(result, scrub))
        case _:
            return outcome


def clean_step(step: Step, scrub: Callable[[str], str]) -> Step:
    """A step as it may be shown: the store keeps its result in clear, which the run goes on with."""
    return replace(step, name=scrub(step.name), result=clean_value(step.result, scrub))


def clean_value(value: Any, scrub: Callable[[str], str]) -> Any:
    """Plain JSON without the secrets of its run."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): clean_value(one, scrub) for name, one in value.items()}
    if isinstance(value, list):
        return [clean_value(one, scrub) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and scrub(str(value)) == MASK:
        return MASK
    return value
