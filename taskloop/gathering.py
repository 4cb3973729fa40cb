"""Group commit: calls that wait to be written, and the task that writes what has gathered, all in one go.

Level 5. A caller's cancellation never reaches a transaction, and what a store has handed out is always heard by whoever
asked for it, through `heed`. What a batch does is the store's own business. Start at `Gathering.write`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from taskloop.errors import StoreUnavailable
from taskloop.store import Heed
from taskloop.tasks import shielded

__all__ = ["Gathering"]


class Gathering:
    """One queue of a store that is open."""

    def __init__(
        self,
        carry_out: Callable[[Sequence[tuple[str, Any]]], Awaitable[list[Any]]],
        *,
        explained: Callable[[BaseException], BaseException],
        closed: Callable[[], StoreUnavailable],
    ) -> None:
        """`carry_out` gives an answer or an error for each part; called again for a batch in which it was cancelled."""
        self._carry_out = carry_out
        self._explained = explained
        self._closed_error = closed
        self._queue: list[tuple[str, Any, asyncio.Future[Any], Heed | None]] = []
        self._in_hand: Sequence[tuple[str, Any, asyncio.Future[Any], Heed | None]] = ()
        self._gathered = asyncio.Event()
        self._turn = asyncio.Lock()
        self._is_open = True
        self._pid = os.getpid()
        self._task = asyncio.create_task(self._write_gathered(), name="taskloop store writer")

    async def write(self, verb: str, work: Any, heed: Heed | None = None) -> Any:
        """Put work before the writer and wait until it is committed.

        `heed` hears of the answer also where nobody waits for it any more, but not of work that a close left unwritten.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((verb, work, answer, heed))
        self._gathered.set()
        if self._task.done():
            async with self._turn:  # all who write for themselves have one connection
                while self._queue:  # also for those who do not wait for their turn any more
                    await self._write_batch()
        return await answer

    async def close(self, within: float) -> None:
        """Write what is queued, in about `within` seconds; refuse the rest."""
        self._is_open = False
        try:
            if self._task.get_loop() is asyncio.get_running_loop():  # else the loop that had it is gone, and it with it
                self._gathered.set()
                await asyncio.wait({self._task}, timeout=within)
                self._task.cancel()
        finally:
            for _, _, answer, _ in (*self._in_hand, *self._queue):
                with suppress(RuntimeError):  # of a loop that is closed: nobody waits
                    if not answer.done():
                        answer.set_exception(self._closed_error())
            self._queue.clear()  # what is refused is not written after all, by a connection that nobody closes

    async def _write_gathered(self) -> None:
        """One batch after the other, until the store is closed and the queue is empty.

        A host that ends its loop cancels this task too. What is in hand is then still written and answered, and whoever
        writes afterwards, as the end of an attempt does, writes for itself.
        """
        try:
            while self._is_open or self._queue:
                await self._gathered.wait()
                self._gathered.clear()
                await self._write_batch()
        except asyncio.CancelledError:
            while self._queue:  # what gathers while the last batch is written would be nobody's
                with suppress(asyncio.CancelledError):
                    await self._write_batch()
            raise

    async def _write_batch(self) -> None:
        batch, self._queue = self._queue, []
        if not batch:
            return
        self._in_hand = batch
        parts = [(verb, work) for verb, work, _, _ in batch]
        try:
            self._answer(batch, await self._carried_out(parts))
        except asyncio.CancelledError:
            with shielded():  # a scope of the caller's would cancel each await
                while self._in_hand is batch and self._is_open and os.getpid() == self._pid:  # else given up, or a fork
                    # Cancelled once more, it may be: by a host that ends all tasks, and then its loop.
                    with suppress(asyncio.CancelledError):
                        self._answer(batch, await self._carried_out(parts))
            raise

    async def _carried_out(self, parts: Sequence[tuple[str, Any]]) -> Sequence[Any]:
        try:
            return await self._carry_out(parts)
        except Exception as error:  # whoever waits is not to wait for ever
            return [error] * len(parts)

    def _answer(self, batch: Sequence[Any], answers: Sequence[Any]) -> None:
        self._in_hand = ()
        for (_, _, future, heed), given in zip(batch, answers, strict=True):
            failed = isinstance(given, Exception)
            answer = self._explained(given) if failed else given
            if heed is not None:
                self._tell(heed, answer)
            if not future.done():
                future.set_exception(answer) if failed else future.set_result(answer)

    def _tell(self, heed: Heed, answer: Any) -> None:
        try:
            heed(answer)
        except Exception as error:  # the next batch must not depend on who hears of this one
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "taskloop: a store's answer was not taken", "exception": error})
