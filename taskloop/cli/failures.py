"""What went wrong, as an exit code, one `error:` line and `help:` lines."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from taskloop import errors

__all__ = ["CODES", "Failed", "Unwritable", "Usage", "tell"]

CODES: Final[dict[int, str]] = {
    0: "done",
    1: "a job failed, or a check found a problem",
    2: "wrong use of the command line",
    3: "no such job, run, schedule or token",
    4: "conflict: the job is off or paused, a key is taken, a file exists",
    5: "unreachable: nobody is there to run it",
    6: "not allowed",
    7: "configuration",
    8: "store",
    9: "timed out",
    10: "skipped",
    129: "stopped by SIGHUP (its terminal was closed)",
    130: "stopped by SIGINT (Ctrl-C)",
    143: "stopped by SIGTERM",
}

# The first that fits counts.
_CODES: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...]] = (
    ((errors.NoSuchJob, errors.NoSuchRun, errors.NoSuchSchedule, errors.NoSuchStep, errors.NoSuchToken), 3),
    (errors.Conflict, 4),
    ((errors.BadSettings, errors.BadJob, errors.MissingExtra), 7),
    ((errors.BadStore, errors.StoreUnavailable), 8),
    ((errors.BadParameters, errors.BadTrigger, errors.BadDuration, errors.BadInstant), 2),
    ((errors.BadValue, errors.BadToken), 2),
    (errors.TaskloopError, 1),
    (TimeoutError, 9),
    (PermissionError, 6),
)


class Failed(Exception):
    """A command that ends with `code`; the text says what and why, `mends` what to do."""

    def __init__(self, code: int, text: str, *mends: str) -> None:
        self.code = code
        self.mends = mends
        super().__init__(text)


class Usage(Failed):
    """The command line itself is wrong."""

    def __init__(self, text: str, *mends: str) -> None:
        super().__init__(2, text, *mends)


_NO_PLACE: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Unwritable(Failed):
    """What a command was to write cannot be written: not allowed, no place for it, or for another reason."""

    def __init__(self, name: object, error: OSError, *mends: str) -> None:
        code = 6 if isinstance(error, PermissionError) else 2 if isinstance(error, _NO_PLACE) else 1
        super().__init__(code, f"{name} cannot be written: {error.strerror}", *mends)


def tell(error: Exception, *, verbose: bool) -> int:
    """Say on stderr what went wrong; gives the exit code. `verbose`: with the traceback."""
    code, lines = explain(error)
    if verbose:
        import traceback

        traceback.print_exception(error)
    from taskloop.cli.output import clean

    with suppress(OSError):
        print("\n".join(clean(line, keep="\n") for line in lines), file=sys.stderr, flush=True)
    return code


def explain(error: Exception) -> tuple[int, list[str]]:
    """The exit code, and the lines to show."""
    if isinstance(error, Failed):
        return error.code, [f"error: {error}", *(f"help: {mend}" for mend in error.mends)]
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), None)
    if isinstance(error, errors.BadSettings):
        what, _, mend = error.problems[0].rpartition("; ")
        if what and len(error.problems) == 1 and "\n" not in mend:
            return 7, [f"error: {what}", f"help: {mend}"]
        return 7, [f"error: {problem}" for problem in error.problems] + ["help: docs/configuration.md lists all keys"]
    if isinstance(error, errors.TaskloopError):
        what, _, mend = str(error).rpartition("; ")
        return code or 1, [f"error: {what}", f"help: {mend}"] if what else [f"error: {mend}"]
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if code is not None:
        return code, [f"error: {text}"]
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return 2, ["error: the current folder is gone", "help: change to one that exists"]
    place = errors.raised_at(error)
    return 1, [
        f"error: unexpected {text}{f' ({place})' if place else ''}",
        "help: the same command with -v shows the traceback",
    ]


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
