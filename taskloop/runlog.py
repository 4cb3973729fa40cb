"""The log of a run: the lines of one attempt, kept until somebody writes them, and never more than there is room for.

Level 4. Lines come from the loop, from threads and from libraries of the host; one writer takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Lock
from typing import Final

from taskloop.outcomes import plain_text
from taskloop.steps import LogLine

__all__ = ["RunLog"]

LINE_CHARACTERS: Final = 4_000
"""What is kept of one line of a log."""
LINE_COST: Final = 40
"""What a line takes of the room beside its text, so that empty ones do not fill a store."""
UNWRITTEN_LINES: Final = 1_000
"""Lines that may wait to be written: of a flood between two writes the rest is dropped, and counted."""


class RunLog:
    """The lines of one attempt that nobody has written yet; added from any thread, taken by one."""

    __slots__ = ("_dropped", "_lines", "_lock", "_now", "_room", "_wake", "scrub")

    def __init__(
        self,
        room: int,
        now: Callable[[], datetime],
        wake: Callable[[], object],
        scrub: Callable[[str], str] | None = None,
    ) -> None:
        """`room`: characters that this attempt may leave in all; `wake`: called when there is something to take."""
        self._lines: deque[LogLine] = deque()
        self._room = room
        self._now = now
        self._wake = wake
        self._lock = Lock()
        self._dropped = 0
        self.scrub: Callable[[str], str] | None = scrub
        """Takes secrets out of a text; None: the run has none."""

    def __bool__(self) -> bool:
        return bool(self._lines or self._dropped)

    def add(self, level: str, text: object, step: str | None = None) -> None:
        """Keep a line if there is room, and count it if there is none; costs the same however many came before."""
        if self._room <= 0 or len(self._lines) >= UNWRITTEN_LINES:  # in a flood no text is even made
            with self._lock:
                self._dropped += 1
            return
        said = plain_text(text, LINE_CHARACTERS)
        if self.scrub is not None:
            said = self.scrub(said)
        line = LogLine(self._now(), level, said, step)
        with self._lock:
            first = not self._lines
            self._room -= len(said) + LINE_COST
            self._lines.append(line)
        if first:
            self._wake()

    def take(self) -> Sequence[LogLine]:
        """The lines, the oldest first, and where some had no room a last one that says how many."""
        with self._lock:
            lines, self._lines = list(self._lines), deque()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"{dropped} line{'s' * (dropped > 1)} left out: more than the log of a run may hold"
            lines.append(LogLine(self._now(), "warning", text))
        return lines

    def give_back(self, lines: Sequence[LogLine]) -> None:
        """Lines that could not be written: they are taken again, before what came since."""
        with self._lock:
            self._lines.extendleft(reversed(lines))
