"""The live part of `run` on a terminal: a bar for each run in hand, below log lines that scroll.

At most half the screen and five redraws a second. Lines and bars are drawn by the same tick, so they never tear. Ctrl-Z
gives the terminal back as the end does, and `fg` takes it again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from taskloop import looking
from taskloop.cli.listing import next_fire
from taskloop.cli.output import LEAST, clean, plain, span_text, width
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
_ENDS: Final = ("succeeded", "failed", "retrying", "cancelled", "interrupted", "skipped")


class _Bars(Live):
    """What stands below the lines. A terminal that was made narrower has broken its lines: it takes more rows than it had."""

    def __init__(self, console: Console, frame: Callable[[], list[Text]]) -> None:
        self._frame = frame
        self._shown: list[Text] = []
        self._widths: list[int] = []
        super().__init__(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            get_renderable=self._renderable_now,
            vertical_overflow="crop",
        )

    def _renderable_now(self) -> RenderableType:
        self._shown = self._frame()
        return Group(*self._shown)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        columns = self.console.width
        more = sum(max(0, wide - 1) // columns for wide in self._widths)
        self._widths = [min(width(line.plain), columns) for line in self._shown]
        found = super().process_renderables(renderables)
        if more:
            found.insert(1, Control(*((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * more))
        return found


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
        self._has_begun = self._is_drawing = self._is_to_leave = False
        self._process = os.getpid()
        self._live = _Bars(self._console, self._frame)
        scheduler.feed.subscribe(self._hear, "started", "progress", *_ENDS)

    def start(self) -> None:
        """Take the terminal."""
        self._log.write = self._lines.append
        self._live.start()
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._leave)

    def stop(self) -> None:
        """Give the terminal back: every line written, no bar left, the cursor shown."""
        with suppress(OSError, ValueError):
            self._print_lines()
            self._live.stop()
        if signal.getsignal(signal.SIGTSTP) == self._leave:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        del self._log.write

    def show_cursor(self) -> None:
        """The least that must be done when the process is about to vanish."""
        with suppress(OSError, ValueError):
            self._console.file.write("\n\x1b[?25h")
            self._console.file.flush()

    def _leave(self, *_: object) -> None:
        """Ctrl-Z, wherever the main thread is: the shell gets its terminal without bars; they are new below what it says."""
        if self._is_drawing:
            self._is_to_leave = True
            return
        is_ours = os.getpid() == self._process  # what a job has forked draws nothing
        if is_ours:
            with suppress(OSError, ValueError):
                self._live.stop()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._leave)
        if is_ours:
            self._live = _Bars(self._console, self._frame)
            with suppress(OSError, ValueError):
                self._live.start()

    def _draw(self) -> None:
        self._is_drawing = True
        try:
            self._print_lines()
            self._live.refresh()
        finally:
            self._is_drawing = False
        if self._is_to_leave:
            self._is_to_leave = False
            self._leave()

    async def keep(self) -> None:
        """Redraw until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._look_ahead()
            try:
                self._draw()
            except (OSError, ValueError):
                return  # the terminal is gone; a signal will come

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

    def _print_lines(self) -> None:
        waiting = [self._lines.popleft() for _ in range(len(self._lines))]
        if waiting:
            self._console.print(Text.from_ansi("\n".join(waiting)), soft_wrap=True)

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
