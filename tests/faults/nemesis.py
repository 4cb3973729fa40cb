"""A nemesis with a seed that befalls one of several processes every one to three seconds.

Kill and start again, SIGSTOP for half a lease up to three, SIGTERM and a new process of the next version, switches,
volleys of requests for the same run, a clock that is two minutes wrong: that of one process, or of all. Where a server
has the store: a process that is set apart from it, lines that are cut or slow, a commit whose answer is lost, all sessions
thrown out, a server that fails and starts again. The story lives in a folder; `round.json` there says how to repeat it.
Start at `carry_out`.
"""

from __future__ import annotations

import heapq
import random
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import company
from adapter import Network, Scheduler
from company import LEASE, WORDS, Company, Ending, Plot
from facts import now_us
from lives import Process

SHIFT = 120.0
"""Seconds by which a clock is set wrong."""


WEIGHTS = {
    "kill": 3, "freeze": 4, "deploy": 2, "switch": 2, "volley": 3, "clock": 1, "clocks": 1,
    "apart": 4, "cut": 2, "unheard": 2, "slow": 1, "terminate": 1, "restart": 1,
}  # fmt: skip
"""How often each befalls, beside the others."""
REPLICAS = (
    "kill", "freeze", "deploy", "lag", "switch", "volley", "apart", "cut", "unheard", "slow", "terminate", "restart"
)  # fmt: skip
"""What befalls a company whose store is on a server."""
BY_ONE = ("kill", "freeze", "deploy", "clock", "apart")
"""Those that befall a process that lives and goes about its work."""


class Nemesis:
    """Picks what befalls whom, by a seed."""

    def __init__(self, company_: Company) -> None:
        self.company = company_
        self.chance = random.Random(company_.plot.seed)
        faults = [one for one in company_.plot.faults if one != "lag"]
        self.faults, self.weights = faults, [WEIGHTS[one] for one in faults]

    def strike(self) -> None:
        fault = self.chance.choices(self.faults, self.weights)[0]
        place = self.chance.randrange(1 if fault in ("kill", "deploy") else 0, self.company.plot.processes)
        process = self.company.posts[place]
        busy = {*self.company.frozen, *(self.company.parted if fault in ("freeze", "apart") else ())}
        if fault in BY_ONE and (not process.lives or process.pid in busy):
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

    def apart(self, place: int, process: Process) -> None:
        """Nothing comes through to the server or back, or no answer; afterwards what was held back, or a dead line."""
        self.company.set_apart(place, answers_only=self.chance.random() < 0.3)
        how = self.chance.choice(("late", "cut", "forgotten"))
        self.company.after(self.chance.uniform(0.3, 3.0) * LEASE, lambda: self.company.join(place, how))

    def cut(self, place: int, process: Process) -> None:
        self._network.cut(place)

    def unheard(self, place: int, process: Process) -> None:
        """The line is cut after a message that the server gets and does."""
        self._network.cut(place, unheard=self.chance.randrange(8))

    def slow(self, place: int, process: Process) -> None:
        self._network.slow(place, self.chance.uniform(0.005, 0.05))
        self.company.after(self.chance.uniform(1, 4), lambda: self._network.slow(place, 0.0))

    def terminate(self, place: int, process: Process) -> None:
        self.company.outage(self._network.terminate)

    def restart(self, place: int, process: Process) -> None:
        self.company.outage(self._network.restart)

    @property
    def _network(self) -> Network:
        assert self.company.network is not None, "there is no server that has the store"
        return self.company.network

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
        for place, process in enumerate(one.posts):
            process.notice()
            if one.was_refused(process):  # whoever started it starts it again
                one.after(0.5, partial(one.replace, place, process))
        if now >= strikes and one.plot.faults:
            nemesis.strike()
            strikes = time.monotonic() + nemesis.chance.uniform(1, 3)
        if now >= looks:
            one.look()
            looks = time.monotonic() + 1.0
        time.sleep(0.02)
