"""Log lines on stderr: for people on a terminal, logfmt or JSON for everything else. The only file that adds a sink.

A line is `time LEVEL event key=value …`; a value with a blank or a sign in it is a JSON text, so that every line can be
taken apart again. Whatever jobs log themselves, by loguru or `logging`, becomes such a line too (event `log`).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from taskloop.cli.output import COLORS, TINTS, clean, has_color, has_glyphs, json_text, plain, sign, span_text
from taskloop.events import Event
from taskloop.logs import Speaker

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["Log", "Narrator", "opened"]

Fields = Mapping[str, Any]
_PRIORITIES: Final = {"TRACE": 7, "DEBUG": 7, "INFO": 6, "SUCCESS": 5, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_LEVEL_TINTS: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red", "DEBUG": "dim", "TRACE": "dim"}
_BARE: Final = re.compile(r"[!#-<>-~]+")
"""What needs no quotes: printable ASCII without blank, quote and equals sign."""
_KEY: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Narrator(Speaker):
    """The speaker of a command: says a run's summary too, and whom to tell once the scheduler has started."""

    def __init__(self, level: str, on_started: Callable[[], None] | None = None) -> None:
        super().__init__(level)
        self._on_started = on_started
        self.on_stopping: Callable[[], None] | None = None
        """Called when a stop begins."""
        self.afterwards: list[Callable[[Event], None]] = []
        """Called after the line of an event was written."""

    def __call__(self, event: Event) -> None:
        run = event.run
        if event.name == "skipped" and run is not None and run.reason == "disabled":
            self.say("DEBUG", "run.skipped", job=run.job, run=run.id, reason=run.reason)  # it was switched off: no news
            return
        if event.name == "succeeded" and run is not None and run.summary:
            event = replace(event, data={**event.data, "summary": run.summary})
        super().__call__(event)
        for tell in self.afterwards:
            tell(event)

    def say(self, level: str, name: str, **fields: Any) -> None:
        if name == "scheduler.started" and self._on_started is not None:
            self._on_started()
        if name == "scheduler.stopping" and self.on_stopping is not None:
            self.on_stopping()
        super().say(level, name, **fields)


class Log:
    """Where lines go and how they look. `write` may be replaced, by a screen that has bars below the lines."""

    def __init__(self, args: Namespace, wanted: str) -> None:
        self.stream: TextIO = sys.stderr
        self.form: str = _form(wanted, self.stream)
        self.glyphs: bool = has_glyphs(self.stream, ascii_only=args.ascii)
        self.color: bool = has_color(self.stream, args.color)
        self.write: Callable[[str], None] = self._write

    def line(self, text: str) -> None:
        """A line for people, on a terminal only."""
        if self.form == "people":
            self.write(text if self.glyphs else plain(text))

    def hear(self, message: Any) -> None:
        """What loguru calls."""
        record = message.record
        fields = dict(record["extra"])
        event = fields.pop("event", None)
        if event is None:
            event, fields = "log", {"message": record["message"], "logger": record["name"], **fields}
        if record["exception"] is not None and record["exception"].value is not None:
            error = record["exception"].value
            fields["error"] = f"{type(error).__name__}: {error}"
        self.write(self.text(record["time"], record["level"].name, str(event), fields))

    def text(self, at: datetime, level: str, event: str, fields: Fields) -> str:
        """The line."""
        if self.form == "people":
            text = self._for_people(at, level, event, fields)
            return text if self.glyphs else plain(text)
        stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self.form == "json":
            return json_text({"time": stamp, "level": level.lower(), "event": event, **fields})
        pairs = " ".join([clean(event), *(f"{_KEY.sub('_', key)}={_value(value)}" for key, value in fields.items())])
        return f"<{_PRIORITIES.get(level, 6)}>{pairs}" if self.form == "journal" else f"{stamp} {level} {pairs}"

    def _for_people(self, at: datetime, level: str, event: str, fields: Fields) -> str:
        rest = dict(fields)
        kind = event.rpartition(".")[2]
        word = kind if kind in TINTS else "running" if kind == "started" and "run" in rest else ""
        tint = TINTS.get(word) or _LEVEL_TINTS.get(level, "")
        mark = sign(word, glyphs=self.glyphs) if word else " "
        parts = [clean(rest.pop("job", event)) if event.startswith("run.") else clean(event)]
        if "run" in rest:
            parts.append(f"run {rest.pop('run')}")
        if "took_ms" in rest:
            parts.append(f"{'' if word == 'succeeded' else f'{kind} after '}{span_text(rest.pop('took_ms') / 1000)}")
        elif word and word != "running":
            parts.append(kind)
        said = [clean(rest.pop(key)) for key in ("message", "text", "summary", "error") if key in rest]
        if event.startswith("run."):
            rest = {
                key: rest[key] for key in rest if key not in ("attempt", "cause") or rest[key] not in (1, "schedule")
            }
        parts += [f"{_KEY.sub('_', key)}={_value(value)}" for key, value in rest.items()]
        stamp = f"{at.astimezone():%H:%M:%S %Z}"
        return "  ".join([self._paint(stamp, "dim"), self._paint(f"{mark} {parts[0]}", tint), *parts[1:], *said])

    def _paint(self, text: str, tint: str) -> str:
        return f"\x1b[{COLORS[tint]}m{text}\x1b[0m" if tint and self.color else text

    def _write(self, text: str) -> None:
        # Where nobody reads any more, or a disk is full, the jobs go on; a disk has room again some day.
        with suppress(OSError, ValueError):
            self.stream.write(text + "\n")
            self.stream.flush()


def _form(wanted: str, stream: Any) -> str:
    if wanted != "auto":
        return wanted
    if stream.isatty():
        return "people"
    return "journal" if _ends_in_the_journal(stream) else "text"


def _ends_in_the_journal(stream: Any) -> bool:
    """The one that systemd names: whatever it started hands the name on, as a desktop does to all its terminals."""
    try:
        found = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json_text(value)
    return text if _BARE.fullmatch(text) else json_text(text)


@contextmanager
def opened(args: Namespace, wanted: str, level: str) -> Iterator[Log]:
    """A log that hears loguru and, where nobody else does, `logging`."""
    from loguru import logger

    log = Log(args, wanted)
    logger.remove()
    added = logger.add(log.hear, level=level, format="{message}", diagnose=False, backtrace=False)
    root, forward = logging.getLogger(), _Forward()
    is_heard = bool(root.handlers)
    root.addHandler(forward) if not is_heard else None
    try:
        yield log
    finally:
        root.removeHandler(forward)
        logger.remove(added)


class _Forward(logging.Handler):
    """Hands a record of `logging` on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        from loguru import logger

        level = record.levelname if record.levelname in _PRIORITIES else record.levelno
        try:
            told = logger.bind(event="log", message=record.getMessage(), logger=record.name)
            told.opt(exception=record.exc_info).log(level, "log")
        except Exception:  # a wrong number of arguments: told as `logging` tells it everywhere, and no fault of the job
            self.handleError(record)
