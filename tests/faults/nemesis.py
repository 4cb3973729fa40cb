"""A nemesis with a seed that befalls one of several processes every one to three seconds.

Kill and start again, SIGSTOP for half a lease up to three, SIGTERM and a new process of the next version, switches,
volleys of requests for the same run, a clock that is two minutes wrong: that of one process, or of all. The story lives
in a folder; `round.json` there says how to repeat it. Start at `carry_out`.
"""

from __future__ import annotations

import heapq
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import company
from adapter import Scheduler
from company import LEASE, WORDS, Company, Ending, Plot
from facts import now_us
from lives import Process

SHIFT = 120.0
"""Seconds by which a clock is set wrong."""


class Nemesis:
    """Picks what befalls whom, by a seed."""

    def __init__(self, company_: Company) -> None:
        self.company = company_
        self.chance = random.Random(company_.plot.seed)
        faults = [one for one in company_.plot.faults if one != "lag"]
        weights = {"kill": 3, "freeze": 4, "deploy": 2, "switch": 2, "volley": 3, "clock": 1, "clocks": 1}
        self.faults, self.weights = faults, [weights[one] for one in faults]

    def strike(self) -> None:
        fault = self.chance.choices(self.faults, self.weights)[0]
        place = self.chance.randrange(0 if fault in ("freeze", "clock") else 1, self.company.plot.processes)
        process = self.company.posts[place]
        if fault in ("kill", "freeze", "deploy", "clock") and (not process.lives or process.pid in self.company.frozen):
            return
        self.company.count(fault)
        getattr(self, fault)(place, process)

    def kill(self, place: int, process: Process) -> None:
        process.kill()
        self.company.ending.kills += 1
        self.company.after(self.chance.uniform(0, 1.5), lambda: self.company.replace(place, process))

    def freeze(self, place: int, process: Process) -> None:
        self.company.frozen[process.pid] = now_us()
        process.send(signal.SIGSTOP)
        self.company.after(self.chance.uniform(0.5, 3.0) * LEASE, lambda: self.company.thaw(process))

    def deploy(self, place: int, process: Process) -> None:
        """SIGTERM, and a process of the next version beside the one that is stopping."""
        process.how = "stopped"
        process.send(signal.SIGTERM)
        self.company.versions[place] = "company_next"
        if "lag" not in self.company.plot.faults:
            self.company.versions = ["company_next"] * self.company.plot.processes
        self.company.replace(place, process)

    def switch(self, place: int, process: Process) -> None:
        self.company.throw(self.chance.choice(sorted(WORDS)))

    def volley(self, place: int, process: Process) -> None:
        self.company.volley(self.company.plot.processes)

    def clock(self, place: int, process: Process) -> None:
        """The clock of one process is set wrong, and set right again a few seconds later."""
        self._set_clocks([place])

    def clocks(self, place: int, process: Process) -> None:
        """So are those of all at once: the clock of the machine."""
        self._set_clocks(list(range(self.company.plot.processes)))

    def _set_clocks(self, places: Sequence[int]) -> None:
        seconds = self.chance.choice((SHIFT, -SHIFT))

        def set_to(wrong: float) -> None:
            for place in places:
                self.company.set_clock(place, wrong)

        set_to(seconds)
        self.company.after(self.chance.uniform(3, 8), lambda: set_to(0))


def carry_out(scheduler: Scheduler, plot: Plot, folder: Path, *, keep: bool = False) -> Ending:
    """Let a story happen and check it; its folder is removed again unless something was broken."""
    return company.play(Company(scheduler, plot, folder), _befall, keep=keep)


def _befall(one: Company) -> None:
    nemesis = Nemesis(one)
    ends = time.monotonic() + one.plot.seconds
    strikes, looks = time.monotonic() + 1.0, time.monotonic()
    while time.monotonic() < ends:
        now = time.monotonic()
        while one.later and one.later[0][0] <= now:
            heapq.heappop(one.later)[2]()
        for process in one.posts:
            process.notice()
        if now >= strikes and one.plot.faults:
            nemesis.strike()
            strikes = time.monotonic() + nemesis.chance.uniform(1, 3)
        if now >= looks:
            one.look()
            looks = time.monotonic() + 1.0
        time.sleep(0.02)
