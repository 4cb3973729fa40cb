"""What a check found: well, worth a thought, or wrong, in one line; and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from taskloop.cli.failures import explain

__all__ = ["Finding", "guarded", "of_error", "parted", "problem", "warning", "well"]


class Finding(NamedTuple):
    """One line of `taskloop doctor`."""

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    help: str | None = None
    """What to do; None: nothing."""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "ok": self.state != "problem",
            "state": self.state,
            "text": self.text,
            "help": self.help,
        }


def well(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", text)


def warning(name: str, text: str, mend: str) -> Finding:
    """It works, and may not always."""
    return Finding(name, "warning", text, mend)


def problem(name: str, text: str, mend: str) -> Finding:
    """It does not work, or will not."""
    return Finding(name, "problem", text, mend)


def of_error(name: str, error: Exception) -> list[Finding]:
    """An error as it would be told, a finding for each `error:` line."""
    _, lines = explain(error)
    mends = [line.removeprefix("help: ") for line in lines if line.startswith("help: ")]
    texts = [line.removeprefix("error: ") for line in lines if not line.startswith("help: ")]
    return [problem(name, *parted(text, "; ".join(mends))) for text in texts]


def parted(text: str, otherwise: str) -> tuple[str, str]:
    """What is wrong, and what to do about it, of a text that says the latter after its last semicolon."""
    what, _, mend = text.rpartition("; ")
    return (what, mend) if what else (text, otherwise)


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; where it fails itself, that is what it found: the others are to be heard all the same."""
    try:
        yield from check()
    except Exception as error:  # whatever a machine has in store
        yield from of_error(name, error)
