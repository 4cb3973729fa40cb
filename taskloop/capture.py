"""What a job says by `logging` or loguru belongs to its run too: here it is overheard.

Level 4. Nothing of the host's logging is changed, neither levels nor handlers nor what is printed: of `logging` records
are seen as they are made, so what the host's levels let through; of loguru a sink of ours sees what any sink of the host
would. Which run a record belongs to says `context.running`, so one made outside of a run costs a lookup.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Final

from taskloop.context import RunContext, running
from taskloop.steps import LEVELS

__all__ = ["attach", "look"]

_OURS: Final = "taskloop"


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
            if self._sink is not None:
                from loguru import logger

                with suppress(ValueError):  # the host has removed all sinks
                    logger.remove(self._sink)
                self._sink = None

    def look(self) -> None:
        if self._sink is not None or "loguru" not in sys.modules:
            return
        with self._lock:
            if self._sink is None and self._users:
                from loguru import logger

                # What the host's own sinks let through: for a lower level loguru would build records for nobody else.
                lowest = getattr(getattr(logger, "_core", None), "min_level", logging.INFO)
                level = int(lowest) if lowest < 100 else logging.INFO  # infinite: it has no sink
                self._sink = logger.add(_heard, level=level, format="{message}", filter=_is_of_a_run, catch=False)


_ear: Final = _Ear()


def attach() -> Callable[[], None]:
    """Overhear from now on; gives what ends it, once. It goes on as long as anybody wants it."""
    return _ear.attach()


def look() -> None:
    """Overhear loguru too, if the host has come to use it."""
    _ear.look()


def _nothing() -> None: ...


def _is_of_a_run(record: Any) -> bool:
    context = running.get()
    return context is not None and context.lines is not None and not _is_ours(record["name"])


def _heard(message: Any) -> None:
    context = running.get()
    if context is not None:
        record = message.record
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
            if context is not None and context.lines is not None and not _is_ours(record.name):
                with suppress(Exception):  # a record that cannot be read must not fail the job that made it
                    _add(context, record.levelno, _text(record))
        return record


def _is_ours(name: object) -> bool:
    """Whether a record is about a run instead of of it; or is not made by anybody, but copied."""
    return not isinstance(name, str) or name == _OURS or name.startswith(f"{_OURS}.")


def _text(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return text


def _add(context: RunContext, number: int, text: str) -> None:
    context.add_line(LEVELS[min(4, max(0, number // 10 - 1))], text)
