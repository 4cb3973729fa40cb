"""The log of a run: the lines of one attempt, kept until somebody writes them, and never more than there is room for.

Level 4. Lines come from the loop, from threads and from libraries of the host; one writer takes them. Of a flood the
first lines are kept, and the last ones, which tell what it came to; what lies between is counted.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import RLock
from typing import Final

from taskloop.context import RunContext
from taskloop.outcomes import plain_text
from taskloop.steps import LogLine

__all__ = ["RunLog", "end_log", "open_log"]

LINE_CHARACTERS: Final = 4_000
"""What is kept of one line of a log; of a longer one the middle is left out."""
LINE_COST: Final = 40
"""What a line takes of the room beside its text, so that empty ones do not fill a store."""
LAST_SHARE: Final = 8
"""One part in so many of the room is for the last lines."""
FULL: Final = "the log is full: of the lines that follow, the last ones are kept, and are written when the attempt ends"


class _Guard:
    """The lock that all logs of a process share: most attempts say nothing, and a lock each is dear to make."""

    def __init__(self) -> None:
        self.forks = -1
        """How many forks lie between the first process and this one: to ask for its id at each attempt takes longer."""
        self.renew()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Another one: in a fork the thread that held it is gone."""
        # Of a signal's handler or the garbage collector, either may log while this thread holds it.
        self.lock = RLock()
        self.forks += 1


_guard: Final = _Guard()


class RunLog:
    """The lines of one attempt that nobody has written yet; added from any thread, taken by one.

    Of a process that was forked from this one it keeps nothing.
    """

    __slots__ = (
        "__weakref__", "_ended", "_forks", "_full", "_last", "_last_room", "_left_out", "_lines", "_now", "_room",
        "_told", "_wake", "scrub",
    )  # fmt: skip

    def __init__(
        self,
        room: int,
        now: Callable[[], datetime],
        wake: Callable[[], object],
        scrub: Callable[[str], str] | None = None,
    ) -> None:
        """`room`: characters that this attempt may leave in all; `wake`: called when there is something to take."""
        self._last_room = room // LAST_SHARE
        self._room = room - self._last_room
        self._now = now
        self._wake = wake
        self._lines: list[LogLine] = []
        self._last: deque[LogLine] | None = None
        self._forks = _guard.forks
        self._full = self._told = self._ended = False
        self._left_out = 0
        self.scrub: Callable[[str], str] | None = scrub
        """Takes secrets out of a text; None: the run has none."""

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._lines) or (self._full and not self._told)

    def add(self, level: str, text: object, step: str | None = None) -> None:
        """Keep a line while there is room, then the last ones; costs the same however many came before."""
        if self._ended or _guard.forks != self._forks:
            return
        line = LogLine(
            self._now(), level, self._kept(text), step and (step if self.scrub is None else self.scrub(step))
        )
        cost = _cost(line)
        with _guard.lock:
            is_news = not self
            if not self._full and cost <= self._room:
                self._room -= cost
                self._lines.append(line)
            else:
                self._full = True
                self._keep_last(line, cost)
            is_news = is_news and bool(self)
        if is_news:
            self._wake()

    def _kept(self, text: object) -> str:
        if self.scrub is not None:
            text = self.scrub(plain_text(text))  # all of it: what a cut leaves may be half of a secret
        return plain_text(text, LINE_CHARACTERS)

    def _keep_last(self, line: LogLine, cost: int) -> None:
        if self._last is None:
            self._last = deque()
        self._last.append(line)
        self._last_room -= cost
        while self._last_room < 0:
            self._last_room += _cost(self._last.popleft())
            self._left_out += 1

    def take(self) -> Sequence[LogLine]:
        """The lines to be written now, the oldest first; where there is no more room, once, a last one that says so."""
        with _guard.lock:
            lines, self._lines = self._lines, []
            is_told, self._told = self._told, self._full
        if self._told and not is_told:
            lines.append(LogLine(self._now(), "warning", FULL))
        return lines

    def give_back(self, lines: Sequence[LogLine]) -> None:
        """Lines that could not be written: they are taken again, before what came since."""
        with _guard.lock:
            self._lines = [*lines, *self._lines]

    def end(self) -> Sequence[LogLine]:
        """The lines that are left, before the last of a flood how many are not; what is said later is not kept."""
        with _guard.lock:
            self._ended = True
            lines, last, left_out = self._lines, self._last or (), self._left_out
            self._lines, self._last, self._left_out, self._told = [], None, 0, True
        if left_out:
            text = f"{left_out} line{'s' * (left_out > 1)} left out: more than the log of a run may hold"
            lines.append(LogLine(last[0].at if last else self._now(), "warning", text))
        return [*lines, *last]


def open_log(room: int, now: Callable[[], datetime], wake: Callable[[], object], context: RunContext) -> None:
    """Make the log of a run that says its first word, perhaps in several threads at once."""
    with _guard.lock:
        if context.lines is None and context.open_log is not None:
            context.lines = RunLog(room, now, wake, context.scrub)


def end_log(context: RunContext) -> Sequence[LogLine]:
    """The lines of an attempt that are left; what is said later is not kept."""
    with _guard.lock:
        lines, context.open_log = context.lines, None
    return () if lines is None else lines.end()


def _cost(line: LogLine) -> int:
    return len(line.text) + len(line.step or "") + LINE_COST
