"""Processes of a scheduler under fire: started, watched, frozen, ended; and the commands beside them.

Every wait is bounded and says what it waited for. Only processes started here are ever signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from adapter import Scheduler
from facts import SLACK, Life, Use, now_us

T = TypeVar("T")
PATIENCE = 15.0 * SLACK
"""Seconds after which a process that neither gets ready nor ends is given up."""


class TooLong(Exception):
    """Something did not happen in the time it was given."""


def wait_until(holds: Callable[[], T], *, seconds: float, what: str, every: float = 0.02) -> T:
    """Poll until `holds` gives something true, and give it. Raises `TooLong`, which says what it waited for."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TooLong(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return found


@dataclass
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str
    asked: int
    done: int


class Process:
    """One process of the scheduler; its log is a file, so that it never waits for a reader."""

    def __init__(
        self,
        scheduler: Scheduler,
        folder: Path,
        name: str,
        *,
        version: str | None = None,
        before: Sequence[str] = (),
        **environ: str,
    ) -> None:
        self.scheduler = scheduler
        self.log_file = folder / f"{name}.log"
        self.began, self.ended, self.how = now_us(), None, ""
        self.ready: int | None = None
        self.place = 0
        """Which of a company's places it holds, or held."""
        with self.log_file.open("ab") as log:
            self._popen = subprocess.Popen(
                [*before, *scheduler.start(version=version)], cwd=folder, stdin=subprocess.DEVNULL,
                env={**scheduler.environment(folder), **environ}, stdout=subprocess.DEVNULL, stderr=log,
                process_group=0
            )  # fmt: skip
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal that killed it; None: it lives."""
        code = self._popen.poll()
        if code is not None and self.ended is None:
            self.ended, self.how = now_us(), self.how or "ended"
        return code

    @property
    def lives(self) -> bool:
        return self.code is None

    @property
    def life(self) -> Life:
        return Life(self.pid, self.began, self.ended, self.how, self.ready)

    def get_ready(self, seconds: float = PATIENCE) -> float:
        """Wait until it says that it is ready; gives the seconds since its start. Raises `TooLong`, also if it ends."""

        def holds() -> bool:
            if not self.notice() and not self.lives:
                raise TooLong(f"it ended with {self.code} before it was ready:\n{self.log[-1500:]}")
            return self.ready is not None

        wait_until(holds, seconds=seconds, what=f"process {self.pid} is ready:\n{self.log[-1500:]}", every=0.01)
        return ((self.ready or now_us()) - self.began) / 1e6

    def notice(self) -> bool:
        """Whether it has said by now that it is ready; the first time this is asked after that is taken for the moment."""
        if self.ready is None and self.scheduler.is_ready(self.log):
            self.ready = now_us()
        return self.ready is not None

    def send(self, number: int) -> None:
        if self.lives:
            self._popen.send_signal(number)

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for its end and give its code; killed where it does not come. Raises `TooLong`, then."""
        try:
            wait_until(lambda: not self.lives, seconds=seconds, what=f"process {self.pid} ends:\n{self.log[-800:]}")
        except TooLong:
            self.kill()
            raise
        return int(self._popen.wait())

    def stop(self, seconds: float = PATIENCE) -> tuple[int, float]:
        """Ask for an orderly end; gives the exit code and how many seconds it took."""
        began = time.monotonic()
        self.how = "stopped"
        self.send(signal.SIGTERM)
        code = self.end(seconds)
        return code, time.monotonic() - began

    def kill(self) -> int:
        """Kill its whole process group, wait until it is gone, and give its code."""
        self.how = self.how if self.ended else "killed"
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        code = int(self._popen.wait())
        self.ended = self.ended or now_us()
        return code

    def tracer(self) -> int:
        """The pid of what traces it; 0: nothing does, or not all of its threads yet."""
        try:
            tasks = [*Path(f"/proc/{self.pid}/task").iterdir()]
            found = [_field(task / "status", "TracerPid") for task in tasks]
        except OSError:
            return 0
        return min(found, default=0)

    def use(self) -> Use | None:
        """What it holds now; None: it is gone."""
        try:
            files = len(os.listdir(f"/proc/{self.pid}/fd"))
            status = Path(f"/proc/{self.pid}/status")
            return Use(self.pid, now_us(), files, _field(status, "Threads"), _field(status, "VmRSS"))
        except OSError:
            return None


def _field(status: Path, name: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def command(
    scheduler: Scheduler, folder: Path, words: Sequence[str], *, group: int | None = None, **environ: str
) -> Done:
    """A command beside the scheduler, as a process of its own, or, to die with it, of its process `group`."""
    asked = now_us()
    try:
        done = subprocess.run(
            list(words), cwd=folder, env={**scheduler.environment(folder), **environ}, capture_output=True, text=True,
            timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL, process_group=group
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Done(-1, "", f"no answer within {PATIENCE} s", asked, now_us())
    except OSError as error:  # the group is gone already
        return Done(-1, "", str(error), asked, now_us())
    return Done(done.returncode, done.stdout, done.stderr, asked, now_us())
