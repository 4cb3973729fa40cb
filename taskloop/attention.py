"""What needs a person, item by item: told once when it comes up, when it turns into something else, and when it is over.

Level 6. `found` looks, `Bulletin` (pure) decides what is news, `Watch` carries it out in a thread of its own: what it tells
may be slow or gone, and neither the loop nor a run waits for it. Start at `watch_attention`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from taskloop import calls, durations
from taskloop.durations import rfc3339
from taskloop.errors import BadInstant, BadSettings, BadValue
from taskloop.events import Event

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["Change", "Item", "Watch", "Webhook", "found", "genuine", "signature", "watch_attention"]

Severity = Literal["critical", "warning"]
What = Literal["opened", "changed", "closed"]

CRITICAL: Final = ("store", "stalled", "silent", "failing", "overdue", "stuck")
"""Work is not done as it should be; the rest disturbed it, or somebody should have a look."""
LEAST_SECONDS: Final = 5.0
"""Between two looks, whatever happens."""
LONGEST_SECONDS: Final = 600.0
"""Between two tries to tell something."""
FAILURES: Final = 3
"""In a row, after which a listener is left alone until the next look: each may take as long as a call may."""
CALL_SECONDS: Final = 10.0
LISTENER_SECONDS: Final = 30.0
HUNG_SECONDS: Final = 120.0
"""A look that takes longer is given up: the loop that it waits for is gone."""
LEAST_SECRET: Final = 16
TOLERANCE_SECONDS: Final = 300.0
_STIR: Final = frozenset(
    ["failed", "interrupted", "overdue", "recovered", "disabled", "enabled", "paused", "resumed", "loop_blocked",
     "store_lost", "store_back"]
)  # fmt: skip
"""Events after which something may need a person, or nobody any more."""
_HEARD: Final = (*_STIR, "started", "succeeded")
_NUMBERS: Final = re.compile(
    r"\d[\d:.TZ-]*( ((milli)?second|minute|hour|day|week)s?)?( \d+ (second|minute|hour|day|week)s?)*"
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that needs a person. `key`: the same as long as it is the same trouble, whoever looks."""

    key: str
    kind: str
    """`failing overdue stuck orphan tripped`: of a job; `store stalled loop_blocked clock silent`: of a worker."""
    severity: Severity
    text: str
    job: str | None = None
    worker: str | None = None
    since: datetime | None = None
    """None: not known."""
    failures: int = 0
    """In a row."""

    def record(self) -> dict[str, Any]:
        """Its JSON."""
        names = ("key", "kind", "severity", "text", "job", "worker", "failures")
        return {**{name: getattr(self, name) for name in names}, "since": self.since and rfc3339(self.since)}


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an item. After `closed` it needs nobody any more."""

    what: What
    item: Item
    at: datetime

    def record(self) -> dict[str, Any]:
        """Its JSON."""
        return {"change": self.what, "at": rfc3339(self.at), "item": self.item.record()}


async def found(scheduler: TaskScheduler) -> list[Item]:
    """What needs a person now, the worst first; asks the store."""
    return _items((await scheduler.status()).attention)


def _items(attention: Iterable[Mapping[str, Any]]) -> list[Item]:
    items: dict[str, Item] = {}
    for one in attention:
        kind, whose = one["condition"], one["job"] or one.get("worker")
        key = f"{kind}:{whose}" if whose else kind
        if key in items:  # the first is the worst of its kind
            continue
        severity: Severity = "critical" if kind in CRITICAL else "warning"
        since = None if one["since"] is None else durations.absolute(one["since"])
        items[key] = Item(key, kind, severity, one["text"] or "", one["job"], one.get("worker"), since, one["failures"])
    return list(items.values())


class Bulletin:
    """What was told of which item, and which are muted. Pure: it never looks at a clock."""

    def __init__(self) -> None:
        self.told: dict[str, Item] = {}
        self._muted: dict[str, datetime] = {}
        self._anew: set[str] = set()
        """Of those whose mute is over: what still stands is told once more."""

    def mute(self, key: str, until: datetime) -> None:
        """Tell nothing of an item until then."""
        self._muted[key] = until

    def news(self, items: Iterable[Item], now: datetime) -> list[Change]:
        """What is to be told of what was found at `now`: what is over first.

        While this process cannot reach its store it sees nothing else, and then nothing is over.
        """
        for key in [key for key, until in list(self._muted.items()) if until <= now]:
            del self._muted[key]
            self._anew.add(key)
        there = {one.key: one for one in items if one.key not in self._muted}
        blind = any(one.kind == "store" and one.worker is None for one in there.values())
        gone = [one for key, one in self.told.items() if key not in there and key not in self._muted and not blind]
        changes = [Change("closed", one, now) for one in gone]
        for key, one in there.items():
            before = self.told.get(key)
            if before is None:
                changes.append(Change("opened", one if one.since else replace(one, since=now), now))
            elif key in self._anew or _gist(before) != _gist(one):
                changes.append(Change("changed", replace(one, since=before.since), now))
        return changes

    def heard(self, change: Change) -> None:
        """A change was told."""
        self._anew.discard(change.item.key)
        if change.what == "closed":
            self.told.pop(change.item.key, None)
        else:
            self.told[change.item.key] = change.item


def _gist(item: Item) -> tuple[str, str]:
    """What must differ for an item to be another: not how often, nor since when, which differs at each look."""
    return item.severity, _NUMBERS.sub("#", item.text)


Listener = Callable[[Change], Any]


def watch_attention(scheduler: TaskScheduler, listener: Listener, *, every: durations.Duration = 15) -> Watch:
    """Call `listener` with a `Change` whenever something comes to need a person, turns into something else, or is over.

    Looks `every` so often (seconds, a timedelta, a text) and after events that may matter, while the scheduler runs in
    this process. A plain function is called in a thread of the watch, an async one on the scheduler's loop for at most
    LISTENER_SECONDS. One that raises is called again with what is news of that item then, each time after a longer while;
    the other items do not wait for it. A process that starts anew tells again what stands then; of several processes
    each tells: `item.key` says what is the same.
    May be called before `start`. Raises `BadDuration`, `TypeError` for what cannot be called.
    """
    if not callable(listener):
        raise TypeError(f"a listener is a function that takes the change, got {type(listener).__name__}")
    return Watch(scheduler, listener, durations.parse_interval(every).total_seconds())


class Watch:
    """Looks again and again; see `watch_attention`."""

    def __init__(self, scheduler: TaskScheduler, listener: Listener, every_seconds: float) -> None:
        self._scheduler = scheduler
        self._listener = listener
        self._every = every_seconds
        self._least = min(LEAST_SECONDS, every_seconds)
        self._bulletin = Bulletin()
        self._jobs: frozenset[str | None] = frozenset()
        self._stirred, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._looks_since: float | None = None
        self._from = 0.0
        """When to look first, by the steady clock."""
        self._untold: dict[str, tuple[float, float]] = {}
        """By key: when what could not be told is tried again, and how long that was put off."""
        self._endings = [
            scheduler.feed.subscribe(self._hear, *_HEARD), scheduler.feed.at_start(self._hear_of_start)
        ]  # fmt: skip
        if scheduler.is_running:
            self._begin()

    def mute(self, key: str, *, until: durations.Instant, reason: str) -> None:
        """Tell nothing of an item until then; what still stands then is told anew. Raises `BadInstant`, `BadValue`.

        Holds in this process, until it ends.
        """
        now = datetime.now(UTC)
        end = durations.ahead(until, now)
        if end <= now:
            raise BadInstant(until, "it is already over")
        if not reason.strip():
            raise BadValue("reason is empty; say why nobody is to be told")
        self._bulletin.mute(key, end)
        self._scheduler.speaker.say("WARNING", "attention.muted", key=key, until=rfc3339(end), reason=reason)

    def close(self) -> None:
        """Look no more; does not wait for a listener."""
        for end in self._endings:
            end()
        self._closed.set()
        self._stirred.set()

    def _hear(self, event: Event) -> None:
        """Called by the feed, and returns at once."""
        if not self._begin_unless_there() and (event.name in _STIR or event.job in self._jobs):
            self._stirred.set()

    def _hear_of_start(self) -> None:
        """What fell due while nobody was there is overdue only if it still is once the start had time to catch up."""
        self._from = time.monotonic() + self._least
        self._begin_unless_there()

    def _begin_unless_there(self) -> bool:
        hung = self._looks_since is not None and time.monotonic() - self._looks_since > HUNG_SECONDS
        if self._thread is not None and not hung and self._thread.is_alive():  # in a fork it is not
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        self._looks_since = None
        self._stirred.set()
        self._thread = threading.Thread(target=self._serve, name="taskloop attention", daemon=True)
        self._thread.start()

    # -- in the thread

    def _serve(self) -> None:
        wait = 0.0
        while not self._closed.wait(wait) and self._thread is threading.current_thread():
            wait = self._round()

    def _round(self) -> float:
        """Look and tell; gives how long to wait before the next round at least."""
        least = self._least
        again = min((at for at, _ in self._untold.values()), default=float("inf"))
        self._stirred.wait(min(self._every, max(0.0, again - time.monotonic())))
        if self._closed.is_set() or not self._scheduler.is_running:
            return least
        if (rest := self._from - time.monotonic()) > 0:
            return rest
        self._stirred.clear()
        try:
            self._looks_since = time.monotonic()
            items = self._scheduler.call(found, self._scheduler)
        except Exception as error:  # the store is away, or the scheduler stops: try again
            self._complain(error)
            return least
        finally:
            self._looks_since = None
        self._tell_all(self._bulletin.news(items, datetime.now(UTC)), least)
        self._jobs = frozenset(one.job for one in self._bulletin.told.values() if one.job is not None)
        return least

    def _tell_all(self, changes: Sequence[Change], least: float) -> None:
        """Tell what is news. What could not be told is put off, and keeps nothing else from being told."""
        news = {one.item.key for one in changes}
        self._untold = {key: one for key, one in self._untold.items() if key in news}
        failures = 0
        for change in changes:
            key = change.item.key
            at, put_off = self._untold.get(key, (0.0, 0.0))
            if at > time.monotonic():
                continue
            try:
                self._tell(change)
            except Exception as error:  # the listener is broken, or whom it tells is away
                self._complain(error, key=key)
                put_off = min(LONGEST_SECONDS, max(least, 2 * put_off))
                self._untold[key] = time.monotonic() + put_off, put_off
                failures += 1
                if failures == FAILURES:
                    return self._stirred.set()  # for the others
            else:
                self._untold.pop(key, None)
                self._bulletin.heard(change)
                failures = 0

    def _complain(self, error: Exception, **of: Any) -> None:
        if self._scheduler.is_running:
            text = f"{type(error).__name__}: {error}"[:500]
            self._scheduler.speaker.say("WARNING", "attention.untold", **of, error=text)

    def _tell(self, change: Change) -> None:
        telling = self._listener(change)
        if not isawaitable(telling):
            return

        async def told() -> None:
            async with asyncio.timeout(LISTENER_SECONDS):
                await telling

        try:
            self._scheduler.call(told)
        finally:
            if iscoroutine(telling):  # one that was never begun: the scheduler has stopped meanwhile
                with suppress(RuntimeError, ValueError):
                    telling.close()


# -- over HTTP


class Webhook:
    """A listener that posts each change as JSON to an address, signed; see `genuine` for who receives it.

    `secret`: of 16 characters or more, known to both. Anything but a status of 200 to 299 within ten seconds is a failure,
    and then the watch tries again, later and later, at least every ten minutes: it may come twice. Raises `BadSettings`.
    """

    def __init__(self, address: str, secret: str) -> None:
        problems = []
        if not re.fullmatch(r"https?://[!-~]+", address if isinstance(address, str) else ""):
            problems.append(
                f"the address of a webhook is {str(address)[:80]!r}; allowed is one that begins with https:// or http://, "
                "in ASCII without spaces"
            )
        elif calls.host(address) is None or "@" in urlsplit(address).netloc:  # it is not shown: it may hold a password
            problems.append(
                "the address of a webhook has no host, a port that is no number, or a user in it; "
                "write https://HOST/PATH: the signature says who sends it"
            )
        if (length := len(secret) if isinstance(secret, str) else 0) < LEAST_SECRET:
            problems.append(
                f"the secret of a webhook has {length} characters, {LEAST_SECRET} or more are allowed; "
                "`openssl rand -hex 32` makes one"
            )
        if problems:
            raise BadSettings(problems)
        self._address, self._secret = address, secret

    def __call__(self, change: Change) -> None:
        """Post it; waits for the answer. Raises `OSError`, and what `http.client` raises of what is no HTTP."""
        body = json.dumps(change.record(), ensure_ascii=False).encode("utf-8", "backslashreplace")
        headers = {
            "Content-Type": "application/json",
            "Taskloop-Signature": signature(self._secret, body, int(time.time())),
        }
        # A redirected post would arrive as a GET without its body.
        calls.call(self._address, body, headers, within_seconds=CALL_SECONDS, redirects=False)


def signature(secret: str, body: bytes, at: int) -> str:
    """What stands in `Taskloop-Signature`: `t=SECONDS,v1=HEX`, the HMAC-SHA256 of `SECONDS.BODY`."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    return f"t={at},v1={mac}"


def genuine(secret: str, body: bytes, header: str | None, *, now: float | None = None) -> bool:
    """Whether a body came from who knows the secret, in the last five minutes.

    `header`: that of the request, None where it has none. `now`: in seconds; None: now.
    """
    sent = re.fullmatch(r"t=([0-9]{1,12}),v1=[0-9a-f]{64}", header or "")
    if header is None or sent is None or abs((time.time() if now is None else now) - int(sent[1])) > TOLERANCE_SECONDS:
        return False
    return hmac.compare_digest(signature(secret, body, int(sent[1])), header)
