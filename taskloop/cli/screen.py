"""The live part of `run` on a terminal: a bar for each run in hand, below log lines that scroll.

At most half the screen and five redraws a second. Lines and bars are drawn by the same tick, so they never tear. Ctrl-Z
gives the terminal back as the end does, and `fg` takes it again.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import RLock, current_thread, get_ident, main_thread
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from taskloop import looking
from taskloop.cli.listing import next_fire
from taskloop.cli.output import LEAST, clean, plain, span_text
from taskloop.errors import TaskloopError
from taskloop.events import Event
from taskloop.runs import Run, RunId

if TYPE_CHECKING:
    from taskloop.cli.lines import Log
    from taskloop.scheduler import TaskScheduler

__all__ = ["Screen"]

TICK_SECONDS: Final = 0.2
BAR: Final = 20
BESIDE: Final = BAR + 10
"""Columns that a run's line has for more than its name: the sign, the bar, the percents, and the … of what is cut off."""
_MOVES: Final = re.compile(r"\x1b(?:\[[0-9;:<=>?]*[ -/]*[@-JL-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z^-~])")
"""Sequences that a terminal obeys, but for colours and for erasing within the line."""
_ENDS: Final = ("succeeded", "failed", "retrying", "cancelled", "interrupted", "skipped")


class _Terminal:
    """A terminal with a frame below its lines.

    The cursor stands above the frame, on a line that is free: what others write there, such as the commands that jobs
    start, and the keys that somebody presses, comes above it too. Nobody tells us of that; so each drawing begins by
    erasing what is below the cursor, in however many rows a terminal that was made narrower has broken it.
    """

    def __init__(self, stream: TextIO, console: Console) -> None:
        self._stream, self._console = stream, console
        self._frame: list[Text] = []
        self.lock = RLock()
        self._writer = 0
        self._is_begun = self._is_to_leave = False
        self._process = os.getpid()
        self._instead: dict[str, Any] = {}

    @property
    def is_of_another_process(self) -> bool:
        """Whether this is a fork, which a job has made."""
        return os.getpid() != self._process

    def take(self) -> None:
        """From now on lines come above the frame."""
        self._instead = {name: getattr(sys, name) for name in ("stdout", "stderr") if getattr(sys, name).isatty()}
        for name, stream in self._instead.items():
            setattr(sys, name, _Above(self, stream))
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._leave)

    def give_back(self) -> None:
        """No frame is left."""
        if signal.getsignal(signal.SIGTSTP) == self._leave:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        for name, stream in self._instead.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)
        self._clear()
        self._frame = []  # a handler of logs that was made meanwhile goes on to write here

    def vanish(self) -> None:
        """What give_back does, at once: the process is about to be gone, and may be in the middle of a drawing."""
        os.write(self._stream.fileno(), b"\x1b[J\n\x1b[?25h")

    def _clear(self) -> None:
        self._write(f"\x1b[J{self._new_line()}\x1b[?25h")
        self._is_begun = False

    def lines(self, texts: Sequence[str]) -> None:
        """Lines of ours."""
        if texts:
            with self.lock:
                self._draw(self._new_line() + "".join(f"{text}\n" for text in texts))
                self._is_begun = False

    def text(self, text: str) -> None:
        """What a job prints, be it a line or not."""
        with self.lock:
            self._draw(text)
            self._is_begun = not text.endswith("\n")

    def show(self, frame: list[Text]) -> None:
        """Another frame."""
        with self.lock:
            self._frame = frame
            self._draw()

    def _new_line(self) -> str:
        """From where a job has left the cursor, or somebody's key, of which nothing need stay."""
        return "\n" if self._is_begun else "\r\x1b[K"

    def _draw(self, text: str = "") -> None:
        columns, rows = self._console.size
        shown = [line.copy() for line in self._frame[: rows - 1]]
        for line in shown:
            line.truncate(columns, overflow="ellipsis")
        # First there must be rows below, then the cursor's place is kept: after a scroll it would be another's.
        room = "\x1bD" * len(shown) + f"\x1b[{len(shown)}A" if shown else ""
        below = "".join(f"\x1b[B\r{line.plain}" for line in shown)
        # The cursor is hidden no longer than this takes: whatever ends the process, the terminal has it.
        self._write(f"\x1b[?25l\x1b[J{text}{room}\x1b7{below}\x1b8\x1b[?25h")

    def _write(self, text: str) -> None:
        with self.lock:
            self._writer = get_ident()
            try:
                self._stream.write(text)
                self._stream.flush()
            finally:
                self._writer = 0
        if self._is_to_leave and current_thread() is main_thread():
            self._is_to_leave = False
            self._leave()

    def _leave(self, *_: object) -> None:
        """Ctrl-Z, wherever the main thread is: the shell gets its terminal without a frame, which is new below what it says."""
        if self._writer == get_ident():
            self._is_to_leave = True
            return
        if not self.is_of_another_process:
            with suppress(OSError, ValueError):
                self._clear()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._leave)


class _Above:
    """In the place of stdout or stderr: what is printed comes above the frame, without what would move the cursor there."""

    def __init__(self, terminal: _Terminal, stream: TextIO) -> None:
        self._terminal, self._stream = terminal, stream
        self._kept = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._terminal.is_of_another_process:  # a fork has no part in the frame
            return self._stream.write(text)
        with self._terminal.lock:
            whole, line_end, self._kept = (self._kept + text).rpartition("\n")
        if line_end:
            self._put(whole + line_end)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        self.write("".join(texts))

    def flush(self) -> None:
        if self._terminal.is_of_another_process:
            self._stream.flush()
            return
        with self._terminal.lock:
            text, self._kept = self._kept, ""
        if text:
            self._put(text)

    def _put(self, text: str) -> None:
        self._terminal.text(_MOVES.sub("", text))


class Screen:
    """What a terminal shows while the scheduler runs."""

    def __init__(self, log: Log, scheduler: TaskScheduler, firing: Collection[str]) -> None:
        self._log, self._scheduler, self._firing = log, scheduler, firing
        self._console = Console(
            stderr=True, no_color=not log.color, highlight=False, markup=False, emoji=False, soft_wrap=False
        )
        self._lines: deque[str] = deque()
        self._running: dict[RunId, Run] = {}
        self._counts = {"succeeded": 0, "failed": 0, "skipped": 0}
        self._next: tuple[str, datetime] | None = None
        self._asked_at = float("-inf")
        self._is_stale = True
        self._terminal = _Terminal(log.stream, self._console)
        self._has_begun = False
        scheduler.feed.subscribe(self._hear, "started", "progress", *_ENDS)

    def start(self) -> None:
        """Take the terminal."""
        self._log.write = self._lines.append
        with suppress(OSError, ValueError):
            self._terminal.take()
            self._terminal.show(self._frame())

    def stop(self) -> None:
        """Give the terminal back: every line written, no bar left, the cursor shown."""
        with suppress(OSError, ValueError):
            self._draw()
            self._terminal.give_back()
        del self._log.write

    def show_cursor(self) -> None:
        """The least that must be done when the process is about to vanish."""
        with suppress(OSError, ValueError):
            self._terminal.vanish()

    def _draw(self) -> None:
        self._terminal.lines([self._lines.popleft() for _ in range(len(self._lines))])
        self._terminal.show(self._frame())

    async def keep(self) -> None:
        """Redraw until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._look_ahead()
            # It may be gone, and who was disowned gets no signal for that: what cannot be written must not be kept either.
            with suppress(OSError, ValueError):
                self._draw()

    def _hear(self, event: Event) -> None:
        run: Any = event.run
        if event.name in _ENDS:
            self._running.pop(run.id, None)
            kind = "failed" if event.name == "interrupted" else event.name
            if kind in self._counts:
                self._counts[kind] += 1
        else:
            self._running[run.id] = run
        self._is_stale = True

    async def _look_ahead(self) -> None:
        """What fires next, asked again at most once a second and only after something happened."""
        self._has_begun |= self._scheduler.is_running
        now = time.monotonic()
        passed = self._next is not None and self._next[1] <= datetime.now(UTC)
        if not (self._is_stale or passed) or now < self._asked_at + 1 or not self._scheduler.is_running:
            return
        self._asked_at, self._is_stale = now, False
        with suppress(TaskloopError):
            self._next = next_fire(await self._scheduler.jobs(), self._firing)

    def _frame(self) -> list[Text]:
        room = max(1, self._console.height // 2 - 2)
        if (here := looking.in_hand(self._scheduler)) is not None:  # of what others have taken over no end is told
            self._running = {run_id: run for run_id, run in self._running.items() if run_id in here}
        runs = list(self._running.values())
        shown = [self._bar(run) for run in runs[:room]]
        if len(runs) > room:
            shown.append(self._text(f"… and {len(runs) - room} more"))
        return [*shown, self._text(self._foot())]

    def _bar(self, run: Run) -> Text:
        elapsed = 0.0 if run.started_at is None else max(0.0, (datetime.now(UTC) - run.started_at).total_seconds())
        progress = run.progress
        if progress is None or progress.total <= 0:
            at = round(elapsed * 4) % BAR
            return self._text(
                f"▶ {self._name(run.job, 18)} {'░' * at}▓{'░' * (BAR - at - 1)}        {span_text(elapsed)}"
            )
        filled = round(progress.fraction * BAR)
        began_at = run.attempt_started_at or run.started_at
        left = None if began_at is None else progress.left((datetime.now(UTC) - began_at).total_seconds())
        eta = "" if left is None else f"  ETA {span_text(left)}"
        done = f"{progress.done:g}/{progress.total:g}"
        return self._text(
            f"▶ {self._name(run.job, 18)} {'▓' * filled}{'░' * (BAR - filled)}  {progress.fraction:4.0%}  {done}"
            f"  {span_text(elapsed)}{eta}  {clean(progress.message)}"
        )

    def _name(self, job: str, at_least: int = 0) -> str:
        """A job's name, as much of it as leaves room for a bar; filled up to so many columns, where there are as many."""
        room = max(LEAST, self._console.width - BESIDE)
        name = job if len(job) <= room else f"{job[: room - 1]}…"
        return name.ljust(min(at_least, room))

    def _foot(self) -> str:
        counts = "  ".join(f"{'ok' if name == 'succeeded' else name} {count}" for name, count in self._counts.items())
        if not self._scheduler.is_running:
            return f"{'stopping' if self._has_begun else 'starting'}  ·  {counts}"
        if self._next is None:
            return f"nothing is due  ·  {counts}"
        name, at = self._next
        left = (at - datetime.now(UTC)).total_seconds()
        return f"next {self._name(name)} {'now' if left <= 0 else 'in ' + span_text(max(1, round(left)))}  ·  {counts}"

    def _text(self, text: str) -> Text:
        return Text(text if self._log.glyphs else plain(text).replace("▶", ">"), no_wrap=True, overflow="ellipsis")
