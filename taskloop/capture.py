"""What a job says by `logging` or loguru belongs to its run too: here it is overheard.

Level 4. Nothing of the host's logging is changed, neither levels nor handlers nor what is printed: of `logging` records
are seen as they are made, so what the host's levels let through; of loguru a sink of ours sees what any sink of the host
would. Which run a record belongs to says `context.running`, so one made outside of a run costs a lookup.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, local
from typing import Any, Final
from weakref import ref

from taskloop.context import RunContext, running
from taskloop.outcomes import failure
from taskloop.steps import LEVELS

__all__ = ["attach", "look"]

_OURS: Final = "taskloop"
FORWARDED_SECONDS: Final = 0.05
"""A record that the other library made of the same text so shortly before is the same, handed on by the host."""


class _OfThread(local):
    """What a thread is about."""

    busy = False
    """Whether it makes the text of a record: what is logged meanwhile would be heard without end."""
    last: tuple[str, tuple[ref[Any], str], float] | None = None
    """The library, the log and message, and the time of the record that was heard last."""


_thread: Final = _OfThread()


class _Ear:
    """Overhears for all schedulers of the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._factory: _Factory | None = None
        self._sink: int | None = None

    def attach(self) -> Callable[[], None]:
        with self._lock:
            self._users += 1
            if self._factory is None:
                self._factory = _Factory(logging.getLogRecordFactory())
                logging.setLogRecordFactory(self._factory)
        self.look()
        ends = iter([self._detach])
        return lambda: next(ends, _nothing)()

    def _detach(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._factory is None:
                return
            self._factory.listens = False
            if logging.getLogRecordFactory() is self._factory:  # else somebody has built upon it
                logging.setLogRecordFactory(self._factory.before)
            self._factory = None
            if self._sink is not None and (logger := _loguru()) is not None:
                with suppress(Exception):  # the host has removed all sinks
                    logger.remove(self._sink)
            self._sink = None

    def look(self) -> None:
        try:  # not `suppress`: this is done for each run
            if (logger := _loguru()) is not None and not self._is_in(logger):
                self._listen_to(logger)
        except Exception:  # what a host's test has put in its place fails no run
            return

    def _listen_to(self, logger: Any) -> None:
        with self._lock:
            if self._users and not self._is_in(logger):
                # What the host's own sinks let through: for a lower level loguru would build records for nobody else.
                lowest = getattr(getattr(logger, "_core", None), "min_level", logging.INFO)
                level = int(lowest) if lowest < 100 else logging.INFO  # infinite: it has no sink
                self._sink = logger.add(
                    _heard, level=level, format="{message}", filter=_is_of_a_run, catch=False, backtrace=False,
                    diagnose=False
                )  # fmt: skip

    def _is_in(self, logger: Any) -> bool:
        sinks = getattr(getattr(logger, "_core", None), "handlers", (self._sink,))  # loguru has no public name for it
        return self._sink is not None and self._sink in sinks


_ear: Final = _Ear()


def attach() -> Callable[[], None]:
    """Overhear from now on; gives what ends it, once. It goes on as long as anybody wants it."""
    return _ear.attach()


def look() -> None:
    """Overhear loguru too, if the host has come to use it; again, if it has removed all sinks."""
    if "loguru" in sys.modules:
        _ear.look()


def _nothing() -> None: ...


def _loguru() -> Any:
    """The logger of loguru; None: nobody has imported it, or not to its end."""
    return getattr(sys.modules.get("loguru"), "logger", None)


def _is_of_a_run(record: Any) -> bool:
    context = running.get()
    return context is not None and context._keeps_log and not _is_ours(record["name"])


def _heard(message: Any) -> None:
    context = running.get()
    record = message.record
    if context is not None and _is_new("loguru", context, record["message"], record["time"].timestamp()):
        _add(context, record["level"].no, str(message).rstrip("\n"))


class _Factory:
    """Makes records as before, and lets the run hear that is executing."""

    def __init__(self, before: Callable[..., logging.LogRecord]) -> None:
        self.before = before
        self.listens = True

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.before(*args, **kwargs)
        if self.listens:
            context = running.get()
            if context is not None and context._keeps_log and not _is_ours(record.name):
                with suppress(Exception):  # a record that cannot be read must not fail the job that made it
                    _hear(record, context)
        return record


def _is_ours(name: object) -> bool:
    """Whether a record is about a run instead of of it; or is not made by anybody, but copied."""
    return not isinstance(name, str) or name == _OURS or name.startswith(f"{_OURS}.")


def _hear(record: logging.LogRecord, context: RunContext) -> None:
    number: Any = record.levelno
    if _thread.busy or not isinstance(number, int):  # no number: an empty record, for `makeLogRecord` to fill in
        return
    _thread.busy = True
    try:
        message = record.getMessage()
    except Exception:  # a wrong number of arguments: `logging` complains of it, and shows as much
        message = f"{record.msg} {record.args}"
    finally:
        _thread.busy = False
    if _is_new("logging", context, message, record.created):
        error = record.exc_info[1] if record.exc_info else None
        trace = f"\n{failure(error).traceback.rstrip()}" if error is not None else ""
        _add(context, number, message + trace)


def _is_new(library: str, context: RunContext, message: str, at: float) -> bool:
    """Whether a record is no other one that the host hands on from one library to the other."""
    log = context._log_lines()
    if log is None:  # it ended before this was said
        return False
    said = (ref(log), message)  # an id would be that of the next run's log, once this one is gone
    before, _thread.last = _thread.last, (library, said, at)
    if before is None or before[0] == library or before[1] != said or abs(at - before[2]) > FORWARDED_SECONDS:
        return True
    _thread.last = None
    return False


def _add(context: RunContext, number: int, text: str) -> None:
    context.add_line(LEVELS[min(4, max(0, number // 10 - 1))], text)
