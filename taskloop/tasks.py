"""Tasks of asyncio: one whose end matters more than who cancels it, and one that does not end.

Level 4, knows no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["disown", "undisturbed"]

T = TypeVar("T")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives or raises, in a task of its own: whoever cancels the one that waits here is not heard."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


def disown(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Take tasks that do not end off asyncio's list of those that `asyncio.run` would wait for, for ever."""
    for task in tasks:
        if not task.done():
            asyncio._unregister_task(task)
            # Python would complain of it at the end, and who disowns it has told. No public name does this.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
