"""What systemd is told of a service: that it is ready, that its loop lives, that it stops.

Level 6. One datagram each to the socket that systemd names (sd_notify(3)); without one, as everywhere else, nothing is
said. The beats come from the loop, so a loop that stands still is noticed by `WatchdogSec=`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import NoReturn

__all__ = ["Notifier"]


class Notifier:
    """Tells systemd; by `environ`, None: the environment of this process, as systemd has set it."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte with which names begin that are no files.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.beat_seconds: float | None = _beat_seconds(environ) if address else None
        """How often systemd wants to hear that the loop lives, halved; None: it does not."""

    def tell(self, *words: str) -> None:
        """Say some words such as `READY=1`. Never waits and raises nothing: a service lives without being heard."""
        if not self._address:
            return
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
            found.setblocking(False)
            found.sendto("\n".join(words).encode(), self._address)

    async def beat(self) -> NoReturn:
        """Say that the loop lives, again and again, as long as this is awaited."""
        while True:
            if self.beat_seconds is None:
                await asyncio.Event().wait()
            else:
                self.tell("WATCHDOG=1")
                await asyncio.sleep(self.beat_seconds)


def _beat_seconds(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process of the service
    try:
        seconds = float(environ.get("WATCHDOG_USEC", "")) / 2e6
    except ValueError:
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None
