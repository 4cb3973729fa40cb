"""Signals while a scheduler serves: heard on the loop, chained to the host's handlers, put back afterwards.

Level 4. Outside the main thread there are no signal handlers, and none are needed: `wait` then waits for ever. What a
job forks, as `multiprocessing` does, hears its own signals and no others do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from threading import local
from types import FrameType
from typing import Any, Final, Self

from taskloop.tasks import shielded

__all__ = ["Signals", "forks", "in_forks", "set_forks_free", "until_signal"]

_NOT_CHAINED: Final = ("asyncio.runners",)
"""Modules whose handler would do what we do: end the program."""
BURST_SECONDS: Final = 0.5
"""What follows the second signal this closely belongs to it: a storm of them is no third word."""
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_signal(
    work: Coroutine[Any, Any, None],
    *,
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    heard: Callable[[signal.Signals], None],
) -> signal.Signals | None:
    """Do `work` until it ends or SIGINT, SIGTERM or SIGHUP is `heard`, then `stop`; a second signal hurries that.

    Gives the signal, None if the work ended by itself. Raises what the work raises.
    """
    with Signals(*_ENDING) as signals:
        signals.on_repeat = hurry
        working, first = asyncio.ensure_future(work), asyncio.ensure_future(signals.wait())
        try:
            await asyncio.wait({working, first}, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                heard(first.result())
            else:
                working.result()
        finally:
            working.cancel()
            with shielded():
                await asyncio.wait({working})
                await stop()
            first.cancel()
        return signals.received


class Signals:
    """A context in which these signals are counted instead of ending the process."""

    def __init__(self, *wanted: signal.Signals) -> None:
        self._wanted = wanted
        self._before: dict[signal.Signals, Any] = {}
        self._first: asyncio.Event = asyncio.Event()
        self.received: signal.Signals | None = None
        """The first signal; None: none came."""
        self.on_repeat: Callable[[], None] | None = None
        """Called at each further signal."""
        self._counted_at = 0.0
        self._presses = 0

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for one in self._wanted:
            before = signal.getsignal(one)
            if before is signal.SIG_IGN:  # whoever started the program meant it, as nohup does
                continue
            try:
                loop.add_signal_handler(one, self._hear, one)
            except (ValueError, RuntimeError, NotImplementedError):  # not the main thread, or no such signals here
                return self
            self._before[one] = before
            # In the place of the nothing that the loop does here: it hears by another way, which stays.
            signal.signal(one, self._press)
            signal.siginterrupt(one, False)
        _counting.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        loop = asyncio.get_running_loop()
        for one, before in self._before.items():
            loop.remove_signal_handler(one)
            signal.signal(one, before if before is not None else signal.SIG_DFL)
        self._before = {}
        _counting.discard(self)

    def leave_alone(self) -> None:
        """In a fork, which has no loop: let the signals do there what they did before."""
        for one, before in self._before.items():
            inherited = signal.default_int_handler if _module(before) in _NOT_CHAINED else before
            signal.signal(one, inherited if inherited is not None else signal.SIG_DFL)

    async def wait(self) -> signal.Signals:
        """The first signal, as soon as there is one."""
        await self._first.wait()
        assert self.received is not None
        return self.received

    def _press(self, number: int, _frame: FrameType | None) -> None:
        """Count it at once: a loop that stands still would hear the third word when it is too late.

        Nobody presses three times who wants to wait: whoever listened before us has the word then.
        """
        now = time.monotonic()
        if self._presses < 2 or now - self._counted_at > BURST_SECONDS:
            self._presses += 1
            self._counted_at = now
        if self._presses > 2:
            self._give_back()
            signal.raise_signal(number)

    def _hear(self, one: signal.Signals) -> None:
        if signal.getsignal(one) != self._press:  # the host has taken it meanwhile
            self._press(one, None)
        if not self._before:
            return
        if self.received is None:
            self.received = one
            self._first.set()
        elif self.on_repeat is not None:
            self.on_repeat()
        before = self._before.get(one)
        if callable(before) and before is not signal.default_int_handler and _module(before) not in _NOT_CHAINED:
            frame: FrameType | None = None
            before(int(one), frame)


forks: Final[list[int]] = []
"""The ids of the processes that lie between the first scheduler's and this one, which was forked: this one's is the last."""
_counting: Final[set[Signals]] = set()
"""Those whose context is open."""


@cache
def set_forks_free() -> None:
    """From now on no signal to what a job forks is heard here, and what is forked heeds it: `Process.terminate()` would stop
    this program, and nothing else. Python does the first half itself from 3.12 on.
    """
    in_forks(_leave_alone)


def _leave_alone() -> None:
    forks.append(os.getpid())
    signal.set_wakeup_fd(-1)  # the other end of it is our loop
    for one in _counting:
        one.leave_alone()


def in_forks(leave: Callable[[], None]) -> None:
    """Have `leave` called in each fork of this process, before any signal that would end it gets there."""
    before = local()

    def hold_back() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def begin() -> None:
        try:
            leave()
        finally:
            go_on()

    os.register_at_fork(before=hold_back, after_in_parent=go_on, after_in_child=begin)


def _module(handler: Any) -> str:
    function = getattr(handler, "func", handler)
    return str(getattr(function, "__module__", ""))
