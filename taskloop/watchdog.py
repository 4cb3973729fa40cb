"""The guard on the loop: a thread that notices when the loop stands still, and names who holds it, and at which line.

Level 4. The loop itself does nothing for it while it is idle: the thread looks at the loop's frame, and only where it
finds it at work does it ask for a sign of life. A loop that owes the sign for longer than the limit is blocked; the
frames seen meanwhile say by whom. If the thread itself was held up, either something kept the interpreter's lock (then
the process used its processor) or the whole process stood still, stopped or suspended (then it did not).

Start at `Watchdog._watch`.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Literal, NamedTuple

__all__ = ["Block", "Watchdog", "is_of_others"]

TICK_SECONDS: Final = 0.05
"""How often the thread looks while jobs run or the loop is at work."""
QUIET_SECONDS: Final = 0.5
"""How often it looks when all is quiet: each waking costs a tenth of a millisecond of a processor."""
ACTIVE_SECONDS: Final = 1.0
"""How long after the loop was last seen at work all is quiet."""
MINUTE: Final = 60.0
FRAMES_KEPT: Final = 20
FROZEN_SECONDS: Final = 1.0
"""A process that was held up for less was only waiting for its turn on a busy machine."""
NOTICED_SECONDS: Final = 1.0
"""A block that lasts this long is told while it lasts, for it may never end."""
_IDLE: Final[frozenset[CodeType]] = frozenset(
    one.select.__code__ for one in vars(selectors).values() if hasattr(getattr(one, "select", None), "__code__")
)
_OURS: Final = str(Path(__file__).parent)


class Block(NamedTuple):
    """A time in which the loop, or the whole process, stood still."""

    kind: Literal["loop_blocked", "frozen"]
    """`frozen`: the process itself was stopped, or its machine asleep; nobody in it is to blame."""
    began: float
    """By the steady clock."""
    seconds: float
    """So far, if it is still going on."""
    where: str
    """The line that held it, as `file:line function`: the innermost that belongs to no library."""
    stack: tuple[str, ...]
    who: Mapping[str, Any]
    """`job` and `run` of the culprit, or `task` of one that is no job's, or neither: a callback."""


class Watchdog:
    """Watches one loop from a thread of its own.

    `busy` says whether a job is running, and whoever makes one run calls `hurry`: blocks by jobs are seen from the limit
    on. While none runs and the loop was idle for a second, one of less than `QUIET_SECONDS` more may go unseen.
    `who` names a task (None: no task was running); `heard` is told of each block once it is over, on the loop;
    `noticed` of one that goes on, in the thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float,
        *,
        busy: Callable[[], bool],
        who: Callable[[asyncio.Task[Any] | None], Mapping[str, Any]],
        heard: Callable[[Block], None],
        noticed: Callable[[Block], None],
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._busy = busy
        self._who = who
        self._heard = heard
        self._noticed = noticed
        self._thread_id = threading.get_ident()
        self._ended = False
        self._wake = threading.Event()
        self._quiet = False
        self._sign = threading.Event()
        self._lags: deque[tuple[float, float]] = deque(maxlen=2048)
        self._held: deque[tuple[float, float]] = deque(maxlen=256)
        self.blocked: Block | None = None
        """The block that is going on."""

    def start(self) -> None:
        """Begin to watch; called on the loop's own thread."""
        threading.Thread(target=self._watch, name="taskloop watchdog", daemon=True).start()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        self._sign.set()

    def hurry(self) -> None:
        """Look closely from now on: a job begins."""
        if self._quiet:
            self._wake.set()

    @property
    def lag_ms(self) -> float:
        """How late the loop was at worst within the last minute."""
        since = time.monotonic() - MINUTE
        worst = max((lag for at, lag in [*self._lags] if at >= since), default=0.0)
        going_on = self.blocked
        return round(1000 * max(worst, going_on.seconds if going_on else 0.0), 1)

    def blocked_since(self, since: float) -> float:
        """For how many seconds since then, by the steady clock, somebody held the loop: it was late, but awake."""
        return sum(min(seconds, began + seconds - since) for began, seconds in [*self._held] if began + seconds > since)

    # -- in the thread

    def _watch(self) -> None:
        looked_at, used, active_at = time.monotonic(), time.process_time(), time.monotonic()
        while not self._loop.is_closed():
            tick = TICK_SECONDS if self._busy() or looked_at - active_at < ACTIVE_SECONDS else QUIET_SECONDS
            self._quiet = tick == QUIET_SECONDS
            if self._wake.wait(tick):
                self._wake.clear()
                active_at = time.monotonic()
            if self._ended:
                return
            now, burnt = time.monotonic(), time.process_time()
            overslept = now - looked_at - tick
            if overslept > self._limit and burnt - used > overslept / 2:
                self._report(Block("loop_blocked", looked_at, overslept, *self._look()))
            elif overslept > FROZEN_SECONDS:
                self._report(Block("frozen", looked_at, overslept, "", (), {}))
            elif not self._is_idle():
                active_at = now
                self._ask()
            looked_at, used = time.monotonic(), time.process_time()

    def _is_idle(self) -> bool:
        frame = sys._current_frames().get(self._thread_id)
        return frame is not None and frame.f_code in _IDLE

    def _ask(self) -> None:
        """Ask the loop for a sign of life, and watch it until the sign comes."""
        self._sign.clear()
        asked = time.monotonic()
        with suppress(RuntimeError):  # the loop was closed in this moment
            self._loop.call_soon_threadsafe(self._sign.set)
        if self._sign.wait(self._limit):
            self._lags.append((asked, time.monotonic() - asked))
            return
        block = self._watch_block(asked)
        if block is not None:
            self._report(block)

    def _watch_block(self, asked: float) -> Block | None:
        """Look at the culprit until the loop answers; the line seen most often is the one that held it."""
        seen: Counter[str] = Counter()
        samples: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {}
        told = False
        while True:
            where, stack, who = self._look()
            seen[where] += 1
            samples.setdefault(where, (stack, who))
            worst = seen.most_common(1)[0][0]
            block = Block("loop_blocked", asked, time.monotonic() - asked, worst, *samples[worst])
            self.blocked = block
            if block.seconds > NOTICED_SECONDS and not told:
                told = True
                self._noticed(block)
            answered = self._sign.wait(TICK_SECONDS if sum(seen.values()) < 40 else 10 * TICK_SECONDS)
            if self._ended or self._loop.is_closed():
                self.blocked = None
                return None
            if answered:
                self.blocked = None
                return block._replace(seconds=time.monotonic() - asked)

    def _report(self, block: Block) -> None:
        if block.kind == "loop_blocked":
            self._lags.append((block.began, block.seconds))
            self._held.append((block.began, block.seconds))
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._heard, block)

    def _look(self) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
        """The line at which the loop's thread is, the frames above it, and whose task it is."""
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:  # a Python that tells only the loop's own thread
            task = None
        frames = _frames(sys._current_frames().get(self._thread_id))
        named = [frame for frame in frames if not _is_of_others(frame[0])]
        where = _said(*(named or frames or [("?", 0, "?")])[0])
        return where, tuple(_said(*frame) for frame in frames), self._who(task)


def is_of_others(where: str) -> bool:
    """Whether a place that was named lies in a library: then nothing of the program's own was on the stack."""
    file = where.rpartition(" ")[0].rpartition(":")[0]
    return file.startswith("<frozen") or _is_of_others(str(Path.cwd() / file))


def _is_of_others(file: str) -> bool:
    return file.startswith((*_libraries(), _OURS, "<frozen"))


@cache
def _libraries() -> tuple[str, ...]:
    """Where the code of others lies."""
    import sysconfig

    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _frames(frame: FrameType | None) -> list[tuple[str, int, str]]:
    found: list[tuple[str, int, str]] = []
    while frame is not None and len(found) < FRAMES_KEPT:
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return found


def _said(file: str, line: int, function: str) -> str:
    """`jobs.py:12 Shop.close`; a file below the current folder by its path from there."""
    with suppress(ValueError, OSError):
        file = str(Path(file).relative_to(Path.cwd()))
    return f"{file}:{line} {function}"
