"""The log of a run: the lines of one attempt, kept until somebody writes them, and never more than there is room for.

Level 4. Lines come from the loop, from threads and from libraries of the host; one writer takes them. Of a flood the
first lines are kept, and the last ones, which tell what it came to; what lies between is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from os import getpid
from threading import RLock
from typing import Final

from taskloop.outcomes import plain_text
from taskloop.steps import LogLine

__all__ = ["RunLog"]

LINE_CHARACTERS: Final = 4_000
"""What is kept of one line of a log; of a longer one the middle is left out."""
LINE_COST: Final = 40
"""What a line takes of the room beside its text, so that empty ones do not fill a store."""
LAST_SHARE: Final = 8
"""One part in so many of the room is for the last lines."""
FULL: Final = "the log is full: of the lines that follow, the last ones are kept, and are written when the attempt ends"


class RunLog:
    """The lines of one attempt that nobody has written yet; added from any thread, taken by one.

    Of a process that was forked from this one it keeps nothing.
    """

    __slots__ = (
        "__weakref__", "_ended", "_full", "_last", "_last_room", "_left_out", "_lines", "_lock", "_now", "_process",
        "_room", "_told", "_wake", "scrub",
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
        self._lines: deque[LogLine] = deque()
        self._last: deque[LogLine] = deque()
        # Of a signal's handler or the garbage collector, either may log while this thread holds it.
        self._lock = RLock()
        self._process = getpid()
        self._full = self._told = self._ended = False
        self._left_out = 0
        self.scrub: Callable[[str], str] | None = scrub
        """Takes secrets out of a text; None: the run has none."""

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._lines) or (self._full and not self._told)

    def add(self, level: str, text: object, step: str | None = None) -> None:
        """Keep a line while there is room, then the last ones; costs the same however many came before."""
        if self._ended or getpid() != self._process:
            return
        line = LogLine(
            self._now(), level, self._kept(text), step and (step if self.scrub is None else self.scrub(step))
        )
        cost = _cost(line)
        with self._lock:
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
        self._last.append(line)
        self._last_room -= cost
        while self._last_room < 0:
            self._last_room += _cost(self._last.popleft())
            self._left_out += 1

    def take(self) -> Sequence[LogLine]:
        """The lines to be written now, the oldest first; where there is no more room, once, a last one that says so."""
        with self._lock:
            lines, self._lines = list(self._lines), deque()
            is_told, self._told = self._told, self._full
        if self._told and not is_told:
            lines.append(LogLine(self._now(), "warning", FULL))
        return lines

    def give_back(self, lines: Sequence[LogLine]) -> None:
        """Lines that could not be written: they are taken again, before what came since."""
        with self._lock:
            self._lines.extendleft(reversed(lines))

    def end(self) -> Sequence[LogLine]:
        """The lines that are left, before the last of a flood how many are not; what is said later is not kept."""
        with self._lock:
            self._ended = True
            lines, last, left_out = [*self._lines], [*self._last], self._left_out
            self._lines, self._last, self._left_out, self._told = deque(), deque(), 0, True
        if left_out:
            text = f"{left_out} line{'s' * (left_out > 1)} left out: more than the log of a run may hold"
            lines.append(LogLine(last[0].at if last else self._now(), "warning", text))
        return [*lines, *last]


def _cost(line: LogLine) -> int:
    return len(line.text) + len(line.step or "") + LINE_COST
