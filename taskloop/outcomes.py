"""What a call came to, as plain bounded data: its error as text, its result as JSON.

Level 1, pure. Nothing here may raise, whatever a job returned or raised: its objects are foreign code. So a type is
asked for by `type`, a built-in's content by the built-in's own methods, and what still calls foreign code is caught
whatever it raises, SystemExit included.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator
from dataclasses import fields
from math import isfinite
from types import CoroutineType, GeneratorType
from typing import Any, Final

from taskloop.masking import MASK, Secret
from taskloop.runs import Failure, Returned, first_line

__all__ = [
    "LEVELS",
    "MESSAGE_CHARACTERS",
    "NOTHING",
    "RESULT_BYTES",
    "TRACEBACK_CHARACTERS",
    "as_json",
    "failure",
    "finished",
    "plain_text",
    "returned",
]

NAME_CHARACTERS: Final = 200
MESSAGE_CHARACTERS: Final = 4_000
TRACEBACK_CHARACTERS: Final = 30_000
NOTHING: Final = Returned()
"""What nearly all jobs return."""
RESULT_BYTES: Final = 1_000_000
LEVELS: Final = 200
"""How deep a result, or a parameter, may be nested: any reader of JSON can follow, from however deep a call."""
NUMBER_BITS: Final = 14_000
"""Whole numbers up to here are written and read everywhere: 4,214 digits, and Python itself reads 4,300."""
_NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")
_SEQUENCES: Final = (list, tuple, set, frozenset, GeneratorType, map, filter, zip)
_NAME: Final = type.__dict__["__qualname__"].__get__
_TRACEBACK: Final = BaseException.__dict__["__traceback__"].__get__


def failure(error: BaseException) -> Failure:
    """An error as it is kept: its type, message and traceback, cut where they grow wild."""
    kind = _kind(error)
    message = _clean(_text(error), MESSAGE_CHARACTERS)
    return Failure(kind, message, _trace(error, kind, message), _fingerprint(kind, message, error))


def returned(value: Any) -> Returned:
    """A returned value as JSON; one that is none, or too large, as a note of what it was. A text is the summary."""
    if value is None:
        return NOTHING
    try:
        plain = as_json(value)
    except ValueError as error:
        plain = _note(value, str(error))
    return Returned(plain, first_line(plain) or None if isinstance(plain, str) else None)


def as_json(value: Any) -> Any:
    """A value as plain JSON, built anew. Raises `ValueError`, and nothing else, for what is none or is too large."""
    try:
        return _plain(value)
    except _TooLarge as error:
        raise ValueError(str(error)) from None
    except BaseException as error:
        raise ValueError(f"no JSON: {first_line(_text(error))}") from None


def finished(value: Any) -> Any:
    """A returned value. Raises `TypeError` for a coroutine that nobody has awaited: its work was never done."""
    if type(value) is CoroutineType:
        value.close()
        raise TypeError("the job returned a coroutine that nobody awaited; write async def, and return await ...")
    return value


def plain_text(value: object, limit: int | None = None) -> str:
    """The text of any object, as a database and a page can hold it, cut in its middle at `limit` characters."""
    try:
        text = str.__str__(value if type(value) is str else str(value))
    except BaseException as error:
        text = f"(its text could not be made: {_kind(error)})"
    return _clean(text, len(text) if limit is None else limit)


# -- results


class _TooLarge(Exception):
    """The result is, or would be, larger than what is kept."""

    def __init__(self, size: str) -> None:
        super().__init__(f"{size}, more than the {RESULT_BYTES} that are kept")


class _Room:
    """How many bytes are left for what is being built."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = RESULT_BYTES

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise _TooLarge(f"at least {RESULT_BYTES - self.left} bytes")


def _plain(value: Any) -> Any:
    plain = _built(value, _Room(), LEVELS)
    size = len(json.dumps(plain, ensure_ascii=False).encode())
    if size > RESULT_BYTES:
        raise _TooLarge(f"{size} bytes")
    return plain


def _built(value: Any, room: _Room, levels: int) -> Any:
    """The value anew, of nothing but what JSON knows; stops where it grows too large, too deep, or is none."""
    kind = type(value)
    room.take(2)
    if levels < 0:
        raise ValueError(f"nested deeper than {LEVELS} levels")
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        text = str.__str__(value)
        room.take(len(text))
        return text
    if issubclass(kind, int):
        return _number(int.__int__(value), room)
    if issubclass(kind, float):
        number = float.__float__(value)
        return number if isfinite(number) else None
    if issubclass(kind, dict):
        return {_key(key, room): _built(one, room, levels - 1) for key, one in dict.items(value)}
    for base in _SEQUENCES:
        if issubclass(kind, base):
            items: Iterator[Any] = base.__iter__(value)
            return [_built(one, room, levels - 1) for one in items]
    return _built(_translated(value, kind), room, levels - 1)


def _translated(value: Any, kind: type) -> Any:
    """One step towards JSON, of a value that is no built-in: pydantic knows dates, models and the like."""
    if kind is Secret:  # of the run's own parameters
        return MASK
    if hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_serializer__"):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if hasattr(kind, "__next__"):  # an open file, a cursor, a counter: pydantic would read it to its end
        raise TypeError("an iterator, which is not read")
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, inf_nan_mode="null")


def _key(key: Any, room: _Room) -> str:
    """A key as JSON has it."""
    if issubclass(type(key), str):
        text = str.__str__(key)
    elif key is None or isinstance(key, bool | int | float):
        text = json.dumps(_built(key, room, LEVELS))
    else:
        from pydantic_core import to_jsonable_python

        (text,) = to_jsonable_python({key: None})
    room.take(len(text) + 2)
    return text


def _number(number: int, room: _Room) -> int:
    if number.bit_length() > NUMBER_BITS:
        raise ValueError(f"a whole number of {number.bit_length()} bits, more than the {NUMBER_BITS} that are kept")
    room.take(number.bit_length() // 4)
    return number


def _note(value: Any, why: str) -> dict[str, str]:
    return {"type": _kind(value), "note": _clean(why, MESSAGE_CHARACTERS)}


# -- errors


def _kind(value: object) -> str:
    """The name of a value's type, whatever its class or its metaclass would say."""
    return _clean(_NAME(type(value)), NAME_CHARACTERS)


_ENGINE: Final = frozenset(
    __file__.replace("outcomes.py", f"{name}.py")
    for name in ("attempts", "executors", "executor_dask", "processing", "stepping")
)
"""The files whose frames come before those of a job."""


def _text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except BaseException as second:
        return f"(its text could not be made: {_kind(second)})"


def _trace(error: BaseException, kind: str, message: str) -> str:
    """The traceback; only the place it came from, where something in its chain cannot be looked at."""
    for lines in (_chained, _placed):
        try:
            return _clean("".join(lines(error, f"{kind}: {message}\n")), TRACEBACK_CHARACTERS)
        except BaseException:  # noqa: S112 - what its objects, or its modules, have against it concerns nobody
            continue
    return ""


def _chained(error: BaseException, _: str) -> Iterator[str]:
    told = traceback.TracebackException.from_exception(error, limit=-40, compact=True)
    # How the engine came to call the function is the same for every job: a reader looks for the job's own lines.
    own = next((place for place, frame in enumerate(told.stack) if frame.filename not in _ENGINE), 0)
    del told.stack[:own]
    return told.format(chain=True)


def _placed(error: BaseException, last: str) -> list[str]:
    return ["Traceback (most recent call last):\n", *traceback.format_tb(_TRACEBACK(error), -40), last]


def _clean(text: str, limit: int) -> str:
    """Text a database and a page can hold: no lone surrogate, no NUL, the middle left out where it is too long."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.encode(errors="replace").decode().replace("\0", "�")


def _fingerprint(kind: str, message: str, error: BaseException) -> str:
    """Equal for errors of one kind from one place, with whatever numbers."""
    from hashlib import blake2b

    place = ""
    step = _TRACEBACK(error)
    while step is not None:
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_frame.f_code.co_qualname}"
        step = step.tb_next
    text = f"{kind}\n{place}\n{_NUMBERS.sub('#', first_line(message))}"
    return blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
