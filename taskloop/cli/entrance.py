"""From the words of a command line to an exit code: parse, do, and say in one line what went wrong.

Knows no command. Until an engine listens itself, a signal ends the process here: at once, with its exit code, and
without a traceback, wherever in an import it may come.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["before_exit", "command", "process", "to_nowhere"]

BROKEN_PIPE: Final = 0
"""Whoever closed the pipe has read what it wanted: `taskloop runs | head -1` did its work."""

before_exit: list[Callable[[], None]] = []
"""What to do before a signal ends the process here: give the cursor back, say what goes on elsewhere."""


def process(arguments: Sequence[str]) -> int:
    """Like `command`, for the whole process: minds signals, and leaves no half-written stream behind."""
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _end_now)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before we began, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for good, no import
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = command(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            to_nowhere(stream)
        except (OSError, ValueError) as error:
            to_nowhere(stream)
            code = code or 1
            with suppress(OSError, ValueError):
                sys.stderr.write(f"error: the output cannot be written: {getattr(error, 'strerror', error)}\n")
    return _unless_kept(code)


def _unless_kept(code: int) -> int:
    """The code; where threads that jobs left behind might keep the process, it ends here, as it would without them.

    Of daemon threads too: a pool that was made in one has daemons itself, and is joined at the exit all the same.
    """
    import threading

    if threading.active_count() > 1:
        import atexit

        with suppress(BaseException):
            atexit._run_exitfuncs()
        os._exit(code)
    return code


def command(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    from taskloop.cli import parser

    args: Namespace | None = None
    try:
        args = parser.parse(list(arguments))
        return int(parser.load(args.run)(args))
    except parser.Finished as done:
        return done.code
    except BrokenPipeError:
        to_nowhere(sys.stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        from taskloop.cli import failures

        return failures.tell(error, verbose=getattr(args, "verbose", "-v" in arguments))


def _end_now(number: int, _frame: Any) -> None:
    if signal.getsignal(number) is not _end_now:
        return  # an engine listens, and passes on to us what it has heard
    for act in before_exit:
        act()
    os._exit(128 + number)


def to_nowhere(stream: Any) -> None:
    """Let what is left in a stream's buffer vanish; else Python complains of it at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
