"""Events as they happen, to many listeners over server-sent events.

The last thousand events are kept in a ring, so who comes back with the id it heard last misses none; an event is written
as text once, however many listen. Each listener has a queue with an end: who does not keep up is let go, and may come
back. Streams end by themselves when the scheduler stops, for a server that stops waits for what is open. `changes` is for
pages: not what happened, only of what, gathered once for all of them, so a scheduler of a thousand runs a second costs a
browser no more.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from taskloop.events import Event
from taskloop.records import instant_text, run_record
from taskloop.scheduler import TaskScheduler
from taskloop.web.core import least
from taskloop.web.discretion import facts
from taskloop.web.problems import Problem

__all__ = ["Live", "event_record"]

KEPT: Final = 1_000
"""Events that can be had again."""
KEPT_CHARACTERS: Final = 4_000_000
"""Of runs that came to much, or were given much, so many fewer as have together no more than this."""
QUEUE: Final = 500
"""Events that may wait for one listener."""
APART: Final = KEPT // 10
"""After so many events that a listener did not want it is told where they are."""
MOST_LISTENERS: Final = 100
BEAT_SECONDS: Final = 15.0
"""Silence after which a comment says that the stream still lives."""
LOOK_SECONDS: Final = 0.5
"""How often a silent stream looks whether it is to end, and whether its client is gone."""
GATHER_SECONDS: Final = 0.25
"""What happens within that is one change to a page."""
APART_SECONDS: Final = 0.003
"""Between two pages that are told the same, see `pages.sharing`; of very many all are told within half of the above."""
MOST_NAMED: Final = 50
"""Jobs, or runs, that a change names; more are all of them."""
LONGEST: Final = 64 * 1024
"""Characters of an event; what a longer one's run came to, and was given, is left out."""


def event_record(event: Event) -> dict[str, Any]:
    """An event as plain JSON."""
    return {
        "name": event.name,
        "at": instant_text(event.at),
        "job": event.job,
        "run": None if event.run is None else run_record(event.run),
        "data": dict(event.data),
    }


_CUT: Final[Mapping[str, Any]] = {"result": None, "params": {}, "data": {}, "error": None}


class _Told:
    """An event with its number; its text is made when somebody wants it."""

    __slots__ = ("_is_cut", "_texts", "event", "length", "number")

    def __init__(self, number: int, event: Event) -> None:
        self.number = number
        run = event.run
        self.length: int = 0 if run is None else least(run.result, run.params, most=LONGEST)
        """Characters of what its run came to, and was given, at least."""
        self._is_cut = self.length > LONGEST
        if run is not None and self._is_cut:  # now: until somebody wants the text it would be kept for nothing
            event, self.length = replace(event, run=run.changed(**_CUT)), 0
        self.event: Event = event
        self._texts: dict[bool, bytes] = {}

    def text(self, epoch: str, admin: bool) -> bytes:
        """`admin`: for one, who is told what the store says of itself."""
        admin = admin or self.event.run is not None  # of a run all are told the same, and it is written once
        if admin not in self._texts:
            record = event_record(self.event)
            if not admin:
                record["data"] = facts(self.event.name, record["data"])
            data = json.dumps(record, ensure_ascii=False, default=str)
            if record["run"] is not None and (self._is_cut or len(data) > LONGEST):
                record["run"] |= {**_CUT, "cut": True}
                data = json.dumps(record, ensure_ascii=False, default=str)
            self._texts[admin] = _message(f"{epoch}-{self.number}", self.event.name, data)
        return self._texts[admin]


def _message(number: str, name: str, data: str) -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode("utf-8", "backslashreplace")


def _place(epoch: str, number: int) -> bytes:
    """What a browser keeps, and sends when it comes back, without telling the page."""
    return f"id: {epoch}-{number}\n\n".encode()


class _Hears(Protocol):
    """One listener: what waits for it, as it is to be sent."""

    stirred: asyncio.Event
    is_behind: bool

    def taken(self, epoch: str) -> bytes:
        """What waits, which then waits no more; nothing: there is nothing."""

    def place(self, epoch: str, count: int) -> bytes:
        """Where it would go on, if nothing waits and that is far from where it was told last; nothing: it is not."""


_Hearing = TypeVar("_Hearing", bound=_Hears)


class _Listener:
    def __init__(self, wanted: Callable[[Event], bool], admin: bool) -> None:
        self.wanted = wanted
        self.admin = admin
        self.waiting: deque[_Told] = deque()
        self.stirred = asyncio.Event()
        self.is_behind = False
        self.heard = 0
        """The number that it was told last."""

    def hear(self, told: _Told) -> None:
        if not self.wanted(told.event):
            return
        if len(self.waiting) >= QUEUE:
            self.is_behind = True
        else:
            self.waiting.append(told)
        self.stirred.set()

    def taken(self, epoch: str) -> bytes:
        told = [self.waiting.popleft() for _ in range(min(50, len(self.waiting)))]
        if told:
            self.heard = told[-1].number
        return b"".join([one.text(epoch, self.admin) for one in told])

    def place(self, epoch: str, count: int) -> bytes:
        # Who wants few of the events would else come back with a number long gone, and be told that it missed some.
        if self.waiting or count - self.heard < APART:
            return b""
        self.heard = count
        return _place(epoch, count)


class _Page:
    """A page that is open somewhere, and is to hear that something changed."""

    is_behind = False

    def __init__(self) -> None:
        self.word = b""
        self.stirred = asyncio.Event()

    def hear(self, word: bytes) -> None:
        self.word = _changed(None) if self.word else word  # who is slow to listen looks at all, once
        self.stirred.set()

    def taken(self, epoch: str) -> bytes:
        word, self.word = self.word, b""
        return word

    def place(self, epoch: str, count: int) -> bytes:
        return b""  # it looks at everything when it comes back


def _changed(said: Any) -> bytes:
    return f"event: changed\ndata: {json.dumps(said)}\n\n".encode()


class _Gathering:
    """Of which jobs and runs there were events since the last word to the pages, which all are told the same."""

    def __init__(self) -> None:
        self.pages: set[_Page] = set()
        self._jobs: set[str] = set()
        self._runs: set[int] = set()
        self._concerns_all = False
        self._timer: asyncio.TimerHandle | None = None
        """What will tell the pages; None: they were told nothing for a while, so the next word goes out at once."""

    def hear(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        run, job = event.run, event.job
        if not self._concerns_all:
            if run is not None:
                self._runs.add(run.id)
            if job is not None:
                self._jobs.add(job)
            self._concerns_all = (run is None and job is None) or max(len(self._jobs), len(self._runs)) > MOST_NAMED
        if self._timer is None:
            self._timer = loop.call_later(0.0, self._tell, loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not (self._jobs or self._runs or self._concerns_all):
            return
        said = None if self._concerns_all else {"jobs": sorted(self._jobs), "runs": sorted(self._runs)}
        self._jobs.clear()
        self._runs.clear()
        self._concerns_all = False
        self._timer = loop.call_later(GATHER_SECONDS, self._tell, loop)
        if pages := [*self.pages]:
            most = GATHER_SECONDS / 2
            apart, until = min(APART_SECONDS, most / len(pages)), loop.time() + most
            self._hand_out(_changed(said), iter(pages), apart, until, loop)

    def _hand_out(
        self, word: bytes, pages: Iterator[_Page], apart: float, until: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        """One page after the other, a little apart: what the host has to answer meanwhile comes between two of them. Timers
        come late, so who is left at `until` is told in the turns of the loop that follow.
        """
        page = next(pages, None)
        if page is not None:
            page.hear(word)
            later = apart if loop.time() < until else 0.0
            loop.call_later(later, self._hand_out, word, pages, apart, until, loop)


class Live:
    """The events of one scheduler, in the process where they happen. Listens only once somebody has asked."""

    def __init__(self, scheduler: TaskScheduler) -> None:
        self._scheduler = scheduler
        self._epoch = secrets.token_hex(4)
        """Tells the numbers of this process from those of another."""
        self._count = 0
        self._ring: deque[_Told] = deque()
        self._length = 0
        """Characters of what is in the ring, as its events have it."""
        self._listeners: set[_Listener] = set()
        self._gathering = _Gathering()
        self._unsubscribe: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def stream(
        self,
        last_id: str | None = None,
        *,
        names: Collection[str] | None = None,
        job: str | None = None,
        run: int | None = None,
        admin: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """What to send to one listener, until it is over. `last_id`: what it heard last; None: it comes for the first time.

        `admin`: whether it is told what the store says of itself. Raises `Problem` when it is closed, or too many listen.
        """
        self._begin()

        def wanted(event: Event) -> bool:
            return (
                (not names or event.name in names)
                and (job is None or event.job == job)
                and (run is None or (event.run is not None and event.run.id == run))
            )

        listener = _Listener(wanted, admin)
        return self._sent(listener, self._listeners, lambda: self._first(listener, last_id))

    def changes(self) -> AsyncGenerator[bytes, None]:
        """Of which jobs and runs something happened, as `{"jobs": [...], "runs": [...]}`, or null: of all.

        At most one word in a quarter of a second. Raises `Problem` as `stream` does.
        """
        self._begin()
        return self._sent(_Page(), self._gathering.pages, lambda: b"retry: 2000\n\n")

    def open(self) -> None:
        """Let listeners come again after `close`."""
        self._is_closed = False

    def close(self) -> None:
        """End all streams, and listen no more."""
        self._is_closed = True
        hearing: list[_Hears] = [*self._listeners, *self._gathering.pages]
        for one in hearing:
            one.stirred.set()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _begin(self) -> None:
        if self._is_closed:
            raise Problem(503, "not-running", "the server is stopping", headers={"retry-after": "5"})
        if self._is_full():
            raise Problem(
                429, "rate-limited", f"{MOST_LISTENERS} listen already", headers={"retry-after": str(int(BEAT_SECONDS))}
            )
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._gathering = loop, _Gathering()
        if self._unsubscribe is None:
            self._unsubscribe = self._scheduler.feed.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:
            self._keep(event)
        else:
            loop.call_soon_threadsafe(self._keep, event)

    def _keep(self, event: Event) -> None:
        self._count += 1
        told = _Told(self._count, event)
        self._ring.append(told)
        self._length += told.length
        while len(self._ring) > KEPT or self._length > KEPT_CHARACTERS:
            self._length -= self._ring.popleft().length
        for listener in self._listeners:
            listener.hear(told)
        if self._gathering.pages and self._loop is not None:
            self._gathering.hear(event, self._loop)

    def _is_full(self) -> bool:
        return len(self._listeners) + len(self._gathering.pages) >= MOST_LISTENERS

    async def _sent(
        self, listener: _Hearing, among: set[_Hearing], first: Callable[[], bytes]
    ) -> AsyncGenerator[bytes, None]:
        if self._is_full():  # many came at once, and none was counted before it began to listen
            yield f"retry: {BEAT_SECONDS * 1000:.0f}\n\n".encode()
            return
        among.add(listener)
        ran, quiet = False, 0.0
        try:
            yield first()
            while True:
                if said := listener.taken(self._epoch):
                    quiet = 0.0
                    yield said
                    continue
                ran |= self._scheduler.is_running
                if self._is_closed or listener.is_behind or (ran and not self._scheduler.is_running):
                    return
                listener.stirred.clear()
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await listener.stirred.wait()
                except TimeoutError:
                    quiet += LOOK_SECONDS
                    beat = b": still here\n\n" if quiet >= BEAT_SECONDS else b""
                    yield listener.place(self._epoch, self._count) + beat
                    quiet %= BEAT_SECONDS
        finally:
            among.discard(listener)

    def _first(self, listener: _Listener, last_id: str | None) -> bytes:
        """How long to wait before coming back, and where we are; then what was missed goes to the queue, or a word that
        it cannot be had any more.
        """
        begin, listener.heard = b"retry: 2000\n" + _place(self._epoch, self._count), self._count
        if last_id is None:
            return begin
        epoch, _, text = last_id.rpartition("-")
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else -1
        if epoch != self._epoch or not self._count - len(self._ring) <= number <= self._count:
            return begin + _message(f"{self._epoch}-{self._count}", "gap", json.dumps({"after": last_id[:100]}))
        listener.heard = number
        # All of them, though they be more than a queue may have: they are in memory anyway.
        listener.waiting.extend(one for one in self._ring if one.number > number and listener.wanted(one.event))
        return b"retry: 2000\n" + _place(epoch, number)
