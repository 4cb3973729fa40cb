"""Whether a task waits for the world outside of its loop: for a socket, a program, a thread of another library.

Level 4; asked by virtual time, which must not go on while an answer is under way. No future says who is to bring its
result, so the code tells that waits for it: what waits in asyncio's own sleeps, locks, queues and groups waits for a
timer or for another task, and the engine knows what it waits for itself. Everything else is a driver of something.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["awaited_outside"]

_WITHIN: Final = {"asyncio.locks", "asyncio.queues", "asyncio.taskgroups", "asyncio.tasks", "asyncio.timeouts"}
_OPAQUE: Final = {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
"""Awaitables of the interpreter that do not say what they wait for; the collector knows."""


def awaited_outside(task: asyncio.Task[Any], sockets: bool) -> asyncio.Future[Any] | None:
    """The future that something outside of the loop is to bring to this task; None: it waits for no such thing.

    `sockets`: whether the loop watches any. Without them an `Event`, by which anyio waits for its own, is one of tasks.
    """
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done() or isinstance(future, asyncio.Task) or _stands_for_tasks(future):
        return None
    waiting = list(_waiting(task.get_coro()))
    if not waiting:
        return None
    module, name = waiting[-1]
    if module in _WITHIN:
        is_asked = any(module.partition(".")[0] not in {"taskloop", "asyncio", "anyio"} for module, _ in waiting)
        return future if sockets and is_asked and name == "Event.wait" else None
    return None if module.partition(".")[0] in {"taskloop", "anyio"} else future


def _stands_for_tasks(future: Any) -> bool:
    """Whether it is what `gather` or `shield` gives: the tasks behind it are looked at themselves."""
    if type(future).__name__ == "_GatheringFuture":
        return True
    return any(getattr(one[0], "__qualname__", "").startswith("shield.") for one in future._callbacks or ())


def _waiting(coroutine: Any) -> Iterator[tuple[str, str]]:
    """Module and name of the functions that wait for one another, the outermost first."""
    while coroutine is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(coroutine, f"{kind}_code")), None)
        if kind is not None:
            frame = getattr(coroutine, f"{kind}_frame")
            module = frame.f_globals.get("__name__", "") if frame is not None else ""
            yield module, getattr(coroutine, f"{kind}_code").co_qualname
            coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        elif type(coroutine).__name__ in _OPAQUE:
            behind = gc.get_referents(coroutine)
            coroutine = next((one for one in behind if hasattr(one, "cr_code") or hasattr(one, "ag_code")), None)
        else:
            coroutine = None
