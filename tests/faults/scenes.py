"""Scenes of two or three processes that a nemesis plays too seldom, each by a fixed script.

`robbed`: a process runs out of file descriptors, which says nothing about the others. `corrected`: a clock was an hour
ahead, and is right again when the scheduler comes back. `lagging`: a job is renamed by a roll-out, and a process of the
earlier version starts once more beside the next one. `returning`: that next one is taken for dead, and comes back.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import company
import mishaps
import torture
import tracing
from adapter import Scheduler
from company import Company, Ending, Plot
from facts import Broken, now_us

HOUR = 3600.0


def robbed(scheduler: Scheduler, folder: Path) -> Ending:
    """The second process cannot open any file for a while; nothing may be taken from the first, which lives."""

    def happens(one: Company) -> None:
        first, second = one.posts
        trace = folder / "trace"
        tracer = torture.attach(tracing.failing("openat", "EMFILE", "1+", trace), second)
        time.sleep(4.0)  # the span of the fault
        mishaps.let_go(second)
        tracer.wait(timeout=10)
        one.ending.done["calls failed"] = tracing.injected(trace)
        books = scheduler.books(scheduler.store(folder), live=True)
        for worker in books.workers:
            if worker.pid == first.pid and worker.stopped is not None:
                one.ending.broken.append(Broken("robbed", f"worker {worker.id} lives and was declared dead"))
        taken = [f"run {run.id} of {run.job}" for run in books.runs if run.reason == "worker_died"]
        taken += [f"attempt {one.attempt} of run {one.run}" for one in books.attempts if one.outcome == "lost"]
        one.ending.broken += [Broken("robbed", f"{what} was taken from a worker that lives") for what in taken]

    return _play("robbed", scheduler, Plot(2, 0.0, 0, (), peace=1.0), folder, happens)


def corrected(scheduler: Scheduler, folder: Path) -> Ending:
    """The clock is set an hour ahead; the process is killed; the next one has the right time, and is not silent."""

    def happens(one: Company) -> None:
        one.set_clock(0, HOUR)
        time.sleep(2.0)  # let it fire by the wrong time
        one.posts[0].kill()
        one.start(0).get_ready()

    # A hundred missed fires of one schedule come one after the other.
    return _play("corrected", scheduler, Plot(1, 0.0, 0, ("clock",), peace=18.0), folder, happens)


def lagging(scheduler: Scheduler, folder: Path) -> Ending:
    """Two of the earlier version; one is replaced by the next; the other is killed and starts again as it was."""

    def happens(one: Company) -> None:
        one.versions[0] = "company_next"
        one.posts[0].stop(company.STOP_SECONDS)
        one.start(0).get_ready()
        one.posts[1].kill()
        one.start(1).get_ready()
        time.sleep(2.0)  # some fires of both

    return _play("lagging", scheduler, Plot(2, 0.0, 0, (), peace=0.0), folder, happens)


def returning(scheduler: Scheduler, folder: Path) -> Ending:
    """Of two versions the later one stands still beyond its lease; the earlier takes its fires back, and then it goes on."""

    def happens(one: Company) -> None:
        one.versions[1] = "company_next"
        one.posts[1].stop(company.STOP_SECONDS)
        one.start(1).get_ready()
        for _ in range(2):
            later = one.posts[1]
            one.frozen[later.pid] = now_us()
            later.send(signal.SIGSTOP)
            time.sleep(2.0 * company.LEASE)
            one.thaw(later)
            time.sleep(1.0)  # some fires of both

    return _play("returning", scheduler, Plot(2, 0.0, 0, (), peace=0.0), folder, happens)


def _play(name: str, scheduler: Scheduler, plot: Plot, folder: Path, happens: Callable[[Company], None]) -> Ending:
    one = Company(scheduler, plot, folder)
    one.ending = replace(one.ending, name=name)
    (folder / "round.json").write_text(json.dumps({"harness": "scenes", "scheduler": scheduler.name, "scene": name}))
    return company.play(one, happens)


SCENES: dict[str, Callable[[Scheduler, Path], Ending]] = {
    "robbed": robbed,
    "corrected": corrected,
    "lagging": lagging,
    "returning": returning,
}
