"""The log of a run: the lines of one attempt, kept until somebody writes them, and never more than there is room for.

Level 4. Lines come from the loop, from threads and from libraries of the host; one writer takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from typing import Final

from taskloop.steps import LogLine

__all__ = ["RunLog"]

LINE_CHARACTERS: Final = 4_000
"""What is kept of one line of a log."""
UNWRITTEN_LINES: Final = 1_000
"""Lines that may wait to be written: a flood between two writes is dropped, and counted."""


class RunLog:
    """The lines of one attempt that nobody has written yet; added from any thread, taken by one."""

    __slots__ = ("_lines", "_lock", "_room", "dropped")

    def __init__(self, room: int) -> None:
        """`room`: characters that this attempt may leave in all."""
        self._lines: deque[LogLine] = deque()
        self._room = room
        self._lock = Lock()
        self.dropped = 0
        """Lines that had no room, since they were last taken."""

    def __bool__(self) -> bool:
        return bool(self._lines or self.dropped)

    def add(self, line: LogLine) -> bool:
        """Keep a line if there is room; gives whether it was kept. Costs the same however many came before."""
        with self._lock:
            size = len(line.text) + 40
            if size > self._room or len(self._lines) >= UNWRITTEN_LINES:
                self.dropped += 1
                return False
            self._room -= size
            self._lines.append(line)
            return True

    def take(self, now: datetime) -> Sequence[LogLine]:
        """The lines, the oldest first, and where some had no room a last one that says how many."""
        with self._lock:
            lines, self._lines = list(self._lines), deque()
            dropped, self.dropped = self.dropped, 0
        if dropped:
            lines.append(LogLine(now, "warning", f"{dropped} lines left out: more than a run's log may hold"))
        return lines
