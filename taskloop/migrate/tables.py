"""Jobs on their way into config.toml: values in, the text of a file out.

Pure. A `Moved` is a job with what becomes of it; `document` makes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Moved", "document", "job_name", "named_apart"]

_WIDTH: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A job as it was, and the table that it becomes."""

    name: str
    origin: str
    """Where it stands, and as what: the line of a crontab, the id of a job."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Of `[jobs.NAME]`, in their order."""
    notes: Sequence[str] = ()
    """What is different now, a sentence each."""
    refused: str | None = None
    """Why it cannot be said in taskloop's words; None: it can."""


def document(head: Sequence[str], moved: Sequence[Moved]) -> str:
    """The file: what holds for all, then a table for each."""
    parts = ["".join(_comment(line) for line in head)]
    for one in moved:
        text = _comment(one.origin) + "".join(_comment(f"! {note}") for note in one.notes)
        if one.refused is not None:
            text += _comment(f"NOT MOVED: {one.refused}")
        else:
            text += f"[jobs.{_key(one.name)}]\n" + "".join(
                f"{key} = {_value(value)}\n" for key, value in one.keys.items()
            )
        parts.append(text)
    return "\n".join(parts)


def job_name(text: str) -> str:
    """A text as a job may be called."""
    name = re.sub(r"[^A-Za-z0-9._:-]+", "_", text).strip("_.:-")[:100]
    return name if re.match(r"[A-Za-z0-9]", name) else f"job_{name}".rstrip("_")


def named_apart(names: Sequence[str]) -> list[str]:
    """The names, each only once: a later one of the same name gets a number."""
    found: list[str] = []
    for name in names:
        number, tried = 2, name
        while tried in found:
            tried, number = f"{name}-{number}", number + 1
        found.append(tried)
    return found


def _comment(text: str) -> str:
    lines = []
    for line in text.splitlines() or [""]:
        clean = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "?", line)
        lines += [f"# {one}".rstrip() + "\n" for one in _folded(clean)]
    return "".join(lines)


def _folded(line: str) -> list[str]:
    """A note in lines of a page's width; a line of the source, which begins with a blank, stays whole."""
    if line.startswith("  ") or len(line) <= _WIDTH:
        return [line]
    import textwrap

    return textwrap.wrap(line, _WIDTH, subsequent_indent="  " if line.startswith("!") else "", break_long_words=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    """A value of JSON, without nulls, as TOML has it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(str(key))} = {_value(one)}" for key, one in value.items()) + " }"
            if value
            else "{}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return repr(value)
