"""How a scheduler begins: patient with a store that others hold, or that is starting too, and given up as soon as somebody
stops it.

Level 5. A running engine tries again by itself whatever the store could not take; a start would be refused by the first
word of it, and a stop that came meanwhile would wait for the end of that patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskloop.clock import Clock
from taskloop.errors import StoreUnavailable
from taskloop.journal import StoreWatch
from taskloop.processes import is_dead, unheard_seconds

if TYPE_CHECKING:
    from taskloop.store import Store

__all__ = ["left_behind", "opened", "patiently", "unless"]

T = TypeVar("T")
HELD_SECONDS: Final = 60.0
"""How long a start waits for a store that others hold, or whose server is starting too, for each of its parts."""
LATELY_SECONDS: Final = 60.0
"""A worker that has beaten since then may live, whatever its lease."""
_WILL_PASS: Final = ("is locked", "is not committed", "has not answered", "is starting or stopping")
"""What a store says then."""


async def patiently(clock: Clock, store_watch: StoreWatch, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, which can be done again; tried again as long as others hold the store, or its server starts.

    A program that stands still in the middle of a transaction holds the file; on a server a hundred others may start at
    the same moment, and with a whole machine the server itself does. Raises what `work` raises, at once for whatever
    waiting does not mend.
    """
    until = clock.monotonic() + HELD_SECONDS
    while True:
        try:
            done = await work()
        except StoreUnavailable as error:
            if not any(one in str(error) for one in _WILL_PASS) or clock.monotonic() > until:
                raise
            store_watch.lost(error)  # told once, with the process that holds it
            await asyncio.sleep(store_watch.patience())
        else:
            store_watch.well()
            return done


async def opened(clock: Clock, say: Callable[..., None], work: Callable[[], Awaitable[Store]]) -> Store:
    """The store that `work` opens, as patiently: another may just be bringing its schema up to date, which takes long where
    there is much. Nobody listens yet; it is said in the log, and so is that this program has brought it up to date.
    """

    def tell(name: str, data: Mapping[str, Any]) -> None:
        if name == "store_lost":
            say("ERROR", "store.lost", error=data["error"])
        else:
            say("WARNING", "store.back", away_seconds=round((clock.now() - data["since"]).total_seconds(), 1))

    store_watch = StoreWatch(clock, tell)
    store = await patiently(clock, store_watch, work)
    if store.upgraded_from is not None:
        behind = await patiently(clock, store_watch, partial(left_behind, store, clock))
        told = {"text": behind} if behind else {}
        say("WARNING", "store.upgraded", store=store.url, schema_before=store.upgraded_from, **told)
    return store


async def left_behind(store: Store, clock: Clock) -> str | None:
    """Which workers must be started anew, once opening the store has brought it to a newer schema; asked before this
    process is one of them. None: nobody has beaten of late.
    """
    tick, now = clock.monotonic(), clock.now()
    ahead = (await store.clock() or now) - now
    there = [
        one
        for one in await store.workers(living=True)
        if not is_dead(one) and unheard_seconds(one, tick, now, ahead) <= LATELY_SECONDS
    ]
    if not there:
        return None
    named = ", ".join(f"{one.host} pid {one.pid}" for one in there[:3])
    more = f" and {len(there) - 3} more" if len(there) > 3 else ""
    return f"workers of the older version record nothing any more, start them anew with this one: {named}{more}"


async def unless(told: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives, or None if `told` is set first: then it is cancelled. In any case it has ended by then."""
    doing, hearing = asyncio.ensure_future(work), asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({doing, hearing}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        hearing.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait({doing})
            if not doing.cancelled():
                doing.exception()  # of a start that nobody waits for any more
