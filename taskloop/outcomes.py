"""What a call came to, as plain bounded data: its error as text, its result as JSON.

Level 1, pure. Nothing here may raise, whatever a job returned or raised: its objects are foreign code.
"""

from __future__ import annotations

import json
import re
import traceback
from hashlib import blake2b
from typing import Any, Final

from taskloop.runs import Failure, Returned, first_line

__all__ = ["MESSAGE_CHARACTERS", "RESULT_BYTES", "TRACEBACK_CHARACTERS", "failure", "returned"]

NAME_CHARACTERS: Final = 200
MESSAGE_CHARACTERS: Final = 4_000
TRACEBACK_CHARACTERS: Final = 30_000
RESULT_BYTES: Final = 1_000_000
_NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")


def failure(error: BaseException) -> Failure:
    """An error as it is kept: its type, message and traceback, cut where they grow wild."""
    kind = _clean(type(error).__qualname__, NAME_CHARACTERS)
    message = _message(error)
    return Failure(kind, message, _trace(error), _fingerprint(kind, message, error))


def returned(value: Any) -> Returned:
    """A returned value as JSON; one that is none, or too large, as a note of what it was. A text is the summary."""
    if value is None:
        return Returned()
    try:
        plain = _plain(value)
    except Exception as error:
        plain = _note(value, f"no JSON: {first_line(_message(error))}")
    return Returned(plain, first_line(plain) or None if isinstance(plain, str) else None)


def _plain(value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        from pydantic_core import to_jsonable_python

        value = to_jsonable_python(value, inf_nan_mode="null")
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    size = len(text.encode())
    if size > RESULT_BYTES:
        return _note(value, f"{size} bytes, more than the {RESULT_BYTES} that are kept")
    return json.loads(text) if not isinstance(value, str) else value


def _note(value: Any, why: str) -> dict[str, str]:
    return {"type": type(value).__qualname__, "note": why.encode(errors="replace").decode()}


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:
        text = f"(its text could not be made: {type(second).__qualname__})"
    return _clean(text, MESSAGE_CHARACTERS)


def _trace(error: BaseException) -> str:
    try:
        frames = traceback.TracebackException.from_exception(error, limit=-40, compact=True)
        return _clean("".join(frames.format(chain=True)), TRACEBACK_CHARACTERS)
    except Exception:
        return ""


def _clean(text: str, limit: int) -> str:
    """Text a database and a page can hold: no lone surrogate, no NUL, the middle left out where it is too long."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.encode(errors="replace").decode().replace("\0", "�")


def _fingerprint(kind: str, message: str, error: BaseException) -> str:
    """Equal for errors of one kind from one place, with whatever numbers."""
    place = ""
    step = error.__traceback__
    while step is not None:
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_frame.f_code.co_qualname}"
        step = step.tb_next
    text = f"{kind}\n{place}\n{_NUMBERS.sub('#', first_line(message))}"
    return blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
