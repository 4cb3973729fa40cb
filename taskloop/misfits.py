"""Where in a parameter's value the fault lies, and what stands there.

Level 2, pure; asked only once a value is refused. A value is foreign: nothing here may call its methods beyond what
building it as JSON has called already, and whatever they raise is caught.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final

from taskloop.masking import MASK, TAG, Secret, scrubber, uncovered
from taskloop.outcomes import LEVELS, NUMBER_BITS, failure

__all__ = ["TOO_DEEP", "cut", "holds_tag", "invalid", "is_deep", "unread", "unstorable"]

MOST: Final = 3
"""Faults told of one value."""
TOO_DEEP: Final = f"is nested deeper than {LEVELS} levels"


def invalid(name: str, error: Any, value: Any, *, secret: bool = False) -> str:
    """What pydantic found wrong with a parameter: where, what is allowed, what was given. At most three faults."""
    found: dict[str, tuple[dict[str, None], Any]] = {}
    scrub = scrubber({name: Secret(uncovered(value))}) if secret else None
    for one in error.errors(include_context=False):
        path = _path(name, one, value)
        messages, _ = found.setdefault(path, ({}, one["input"]))
        text = one["msg"][:1].lower() + one["msg"][1:]
        text = text if scrub is None else scrub(text)
        if secret and ("url" not in one or one["type"] in ("value_error", "assertion_error")):
            text = "does not fit"  # a validator's own text, which may quote what it was given
        messages[text] = None
    told = []
    for path, (messages, got) in list(found.items())[:MOST]:
        where = f"at {_shortened(path)}: " if path != name else ""
        told.append(f"{where}{' or '.join(list(messages)[:5])}, got {MASK if secret else cut(got)}")
    if len(found) > MOST:
        told.append(f"and {len(found) - MOST} more")
    return "; ".join(told)


def unread(value: Any, error: Exception) -> str:
    """Why an annotation does not read a result as it is kept, on one line: a sentence goes on behind it."""
    is_of_pydantic = hasattr(error, "errors") and hasattr(error, "title")
    return invalid("result", error, value) if is_of_pydantic else failure(error).message


def _path(name: str, error: Mapping[str, Any], value: Any) -> str:
    """The way to what was refused, by keys and places alone: pydantic also names the branches of a union it tried."""
    parts, here = [name], value
    location: Sequence[Any] = error["loc"]
    for place, part in enumerate(location):
        below = _below(here, part)
        is_last = place == len(location) - 1
        if below is not None or isinstance(part, int) or (is_last and error["type"] in ("missing", "extra_forbidden")):
            parts.append(str(part))
            here = below[0] if below is not None else None
    return ".".join(parts)


def _shortened(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:60]}…{path[-59:]}"


def _below(value: Any, part: Any) -> tuple[Any] | None:
    """What stands at a key, a place or an attribute; None: nothing does."""
    try:
        if isinstance(value, Mapping):
            return (value[part],) if part in value else None
        if isinstance(part, int):
            return (value[part],) if isinstance(value, Sequence) else None
        return (vars(value)[part],)
    except Exception:
        return None


def unstorable(name: str, value: Any, *, secret: bool = False, typed: bool = False, why: str = "") -> str:
    """Why a value cannot be stored as JSON: where, what is allowed, what stands there.

    `typed`: its annotation lets pydantic write what JSON itself has no word for. `why`: what to say where no part of
    it is to blame.
    """
    path, why, got = next(_misfits(value, typed), ("", cut(why, plain=True) or "cannot be stored as JSON", value))
    where = f"at {_shortened(name + path)}: " if path else ""
    return f"{where}{why}, got {MASK if secret else cut(got)}"


def holds_tag(value: Any) -> bool:
    """Whether plain JSON holds the key by which a store tells secrets."""
    if isinstance(value, dict):
        return TAG in value or any(holds_tag(one) for one in value.values())
    return isinstance(value, list) and any(holds_tag(one) for one in value)


def is_deep(plain: Any) -> bool:
    """Whether plain JSON is nested deeper than may be kept, so that whoever reads the record of a run can follow."""
    level = [plain]
    for _ in range(LEVELS):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def _misfits(value: Any, typed: bool) -> Iterator[tuple[str, str, Any]]:
    """Each part of a value that JSON has no word for: the path to it, why, and what it is."""
    stack: list[tuple[str, Any, frozenset[int]]] = [("", value, frozenset())]
    while stack:
        path, one, above = stack.pop()
        why = _why(one, above, typed)
        if why is not None:
            yield path, why, one
        elif isinstance(one, dict):
            for key in dict.keys(one):
                if (wrong := _wrong_key(key)) is not None:
                    yield path, wrong, key
            items = [(f"{path}.{_shown(key)}", below, above | {id(one)}) for key, below in dict.items(one)]
            stack += reversed(items)
        elif isinstance(one, list | tuple):
            stack += reversed([(f"{path}.{place}", below, above | {id(one)}) for place, below in enumerate(one)])


def _why(one: Any, above: frozenset[int], typed: bool) -> str | None:
    if type(one) is Secret:
        return "is a secret; give it as a parameter of its own"
    if one is None or isinstance(one, bool):
        return None
    if isinstance(one, str):
        return None if _is_unicode(one) else "is no Unicode text"
    if isinstance(one, int):
        return None if one.bit_length() <= NUMBER_BITS else "is a number of too many digits"
    if isinstance(one, float):
        return None if isfinite(one) else "is not JSON compliant: a number must be finite"
    if not isinstance(one, dict | list | tuple):
        if typed and _is_written(one):
            return None
        return "is no JSON: texts, numbers, booleans, None, lists and tables of these can be stored"
    if id(one) in above:
        return "holds itself"
    return TOO_DEEP if len(above) >= LEVELS else None


def _is_written(one: Any) -> bool:
    from pydantic_core import to_jsonable_python

    try:
        to_jsonable_python(one)
    except Exception:
        return False
    return True


def _wrong_key(key: Any) -> str | None:
    if isinstance(key, str):
        if key == TAG:
            return f"the key '{TAG}' is kept for secrets"
        return None if _is_unicode(key) else "has a key that is no Unicode text"
    if key is None or isinstance(key, bool | int) or (isinstance(key, float) and isfinite(key)):
        return None
    return "has a key that is no text"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(key: Any) -> str:
    return cut(key if isinstance(key, str) else json.dumps(key) if _wrong_key(key) is None else "?", plain=True)


def cut(value: object, *, plain: bool = False) -> str:
    """A value as it stands in a message: its repr, or as it is where it is `plain`, at most 60 characters."""
    try:
        text = str(value).encode(errors="backslashreplace").decode() if plain else repr(value)
    except Exception:
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
