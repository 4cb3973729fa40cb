"""How many calls of an executor can begin now, so that a worker claims no run which would only wait in it.

Level 4. A slot is not enough where functions are called in threads or processes: of these there are fewer. What a
worker claims beyond them would wait here for a turn while another worker is idle, be on record as running, and be lost
with this process. No locks: all is asked on the loop, and what is promised counts until it is launched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from taskloop.executors import Executors
from taskloop.jobs import Jobs

__all__ = ["Crowd"]

_LIMITED: Final = ("thread", "process")


class Crowd:
    """The room of the executors of one worker, and those for which runs wait in the store."""

    def __init__(self, executors: Executors, jobs: Jobs, freed: Callable[[], None]) -> None:
        """`freed`: called when an executor has room again for which runs wait."""
        self._executors = executors
        self._jobs = jobs
        self._freed = freed
        self._promised: Counter[str] = Counter()
        """Calls of runs that the store is asked to write as running here."""
        self._of: dict[str, str] = {}
        """By job which executor they were promised of: it may be removed meanwhile."""
        self._full: frozenset[str] = frozenset()
        """Executors for which runs wait: what is new does not overtake these. Read by the thread of the pulse too."""
        self._is_freed = False
        """Whether a call has ended since the store was last asked to claim."""
        executors.freed = self._ended

    def admits(self, job: str) -> bool:
        """Whether one more run of this job can begin, and overtakes nothing that waits."""
        executor = self._asked(job)
        return executor is None or (executor not in self._full and self._room(executor) > 0)

    def promise(self, job: str) -> None:
        """A run is to be written as running here."""
        if (executor := self._asked(job)) is not None:
            self._of[job] = executor
            self._promised[executor] += 1

    def answered(self, jobs: Iterable[str]) -> None:
        """The store has answered for as many runs that were promised: those that are ours are launched by now."""
        for job in jobs:
            if (executor := self._of.get(job)) is not None:
                self._promised[executor] -= 1
                self._ended(executor)

    def holds(self, job: str) -> bool:
        """Whether a run that waits does so for a call of ours to end, which is told: no claim would give it before."""
        executor = self._asked(job)
        if executor is None or self.admits(job):
            return False
        self._full |= {executor}
        return True

    def rooms(self) -> dict[str, int]:
        """How many runs a claim may give, by executor."""
        self._is_freed = False
        return {executor: self._room(executor) for executor in _LIMITED}

    def claimed(self, rooms: Mapping[str, int], jobs: Iterable[str], left: bool) -> None:
        """A claim has given a run of each of `jobs`; `left`: whether runs still wait."""
        taken = Counter(map(self._asked, jobs))
        self._full = frozenset(one for one, room in rooms.items() if left and room <= taken[one])
        if self._full and self._is_freed:
            self._freed()

    def full(self) -> list[str]:
        """The executors for which runs wait, by name."""
        return sorted(self._full)

    def _asked(self, job: str) -> str | None:
        """The executor whose room a run of this job needs; None: it needs none."""
        executor = self._jobs[job].executor if job in self._jobs else None
        return executor if executor in _LIMITED else None

    def _room(self, executor: str) -> int:
        return self._executors.room(executor) - self._promised[executor]

    def _ended(self, executor: str) -> None:
        self._is_freed = True
        if executor in self._full:
            self._freed()
