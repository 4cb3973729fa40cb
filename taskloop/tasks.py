"""Tasks of asyncio: one whose end matters more than who cancels it.

Level 4, knows no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["undisturbed"]

T = TypeVar("T")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives or raises, in a task of its own: whoever cancels the one that waits here is not heard."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
