"""Calls of the addresses that a job wants to be told at its start, success and failure, for services that raise an alarm.

Level 4. A daemon thread for each service makes its calls, one after the other: a service that is slow or gone costs a
run nothing, nor any other service, and what cannot be told in time is dropped, with a line in the log. A call that
failed is made again while no other waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Full, Queue
from typing import Final

from taskloop import calls
from taskloop.events import Event, Feed
from taskloop.runs import Run

__all__ = ["Pings"]

CALL_SECONDS: Final = 10.0
TRIES: Final = 3
WAITING: Final = 1000
"""Calls of one service that may wait; beyond these the newest is dropped."""
LAST_SECONDS: Final = 1.0
"""How long the end waits for what is still to be told."""
_WORDS: Final[Mapping[str, str]] = {
    "started": "start",
    "succeeded": "success",
    "failed": "fail",
    "interrupted": "fail",
}


class Pings:
    """Tells services of the runs of those jobs that name an address."""

    def __init__(
        self, addresses: Callable[[str], Mapping[str, str] | None], complain: Callable[..., None], feed: Feed
    ) -> None:
        """`addresses` gives those of a job, by `start`, `success` and `fail`; None: it has none."""
        self._addresses = addresses
        self._complain = complain
        self._services: dict[str | None, _Service] = {}
        self._unsubscribe = feed.subscribe(self, *_WORDS)

    def __call__(self, event: Event) -> None:
        """Hear of a run; called by the feed, and returns at once."""
        if event.run is None or (event.name == "started" and event.run.attempt > 1):
            return
        address = (self._addresses(event.run.job) or {}).get(_WORDS[event.name])
        if address is None:
            return
        service = self._services.get(place := calls.host(address))
        if service is None:
            service = self._services[place] = _Service(self._complain)
        service.tell(address, event.run)

    def close(self) -> None:
        """Make the calls that wait, for LAST_SECONDS at most, without a second try; does not wait for them."""
        self._unsubscribe()
        services, self._services = self._services, {}
        for service in services.values():
            service.close()


class _Service:
    """One host, and the thread that calls it."""

    def __init__(self, complain: Callable[..., None]) -> None:
        self._complain = complain
        self._calls: Queue[tuple[str, Run] | None] = Queue(WAITING)
        self._ended = threading.Event()
        self._until = float("inf")
        threading.Thread(target=self._serve, name="taskloop pings", daemon=True).start()

    def tell(self, address: str, run: Run) -> None:
        """Call it, as soon as those before are made."""
        try:
            self._calls.put_nowait((address, run))
        except Full:
            self._complain("WARNING", "ping.dropped", job=run.job, run=run.id, waiting=WAITING)

    def close(self) -> None:
        self._until = time.monotonic() + LAST_SECONDS
        self._ended.set()
        with suppress(Full):  # then the thread sees by itself that its time is over
            self._calls.put_nowait(None)

    # -- in the thread

    def _serve(self) -> None:
        while time.monotonic() < self._until:
            call = self._calls.get()
            if call is None:
                return
            self._tell(*call)

    def _tell(self, address: str, run: Run) -> None:
        problem, body = "", None
        if run.error is not None and run.final:  # such services show why
            body = f"run {run.id} of {run.job}: {run.error.told()}"[:5000].encode(errors="replace")
        for attempt in range(TRIES):
            # Not again where other calls wait: they would come too late.
            if attempt and (not self._calls.empty() or self._ended.wait(2.0**attempt)):
                break
            try:
                calls.call(address, body, {}, within_seconds=CALL_SECONDS, redirects=True)
            except Exception as error:  # whatever the other side says, the next call is made
                problem = f"{type(error).__name__}: {error}"
            else:
                return
        self._complain("WARNING", "ping.failed", job=run.job, run=run.id, error=problem)
