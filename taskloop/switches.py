"""What was switched by hand: intervals in which a job was on, off or held, and what they mean for it.

Level 3, pure. A switch is stored as an interval, never overwritten, so that the past can be explained too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

from taskloop.durations import rfc3339

__all__ = ["InForce", "Missed", "Switch", "SwitchKind", "Switches", "Verdict", "kinds_of"]

SwitchKind = Literal["enabled", "disabled", "paused", "tripped"]
"""`tripped` is the circuit breaker's: off until `until`, and then on trial until a run has succeeded."""
Missed = Literal["skip", "latest", "all"]
_MOMENT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Switch:
    """An interval in which a job (None: every job) was switched by hand or held."""

    kind: SwitchKind
    job: str | None
    since: datetime
    actor: str | None = None
    reason: str | None = None
    until: datetime | None = None
    """Ends it without anybody's doing; None: lasts until somebody ends it."""
    ended_at: datetime | None = None
    ended_by: str | None = None
    missed: Missed | None = None
    """How the end of a pause settles the held fires; None: by each job's own policy."""
    ended_because: str | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is in force at `now`."""
        return self.ended_at is None and (self.until is None or now < self.until)

    def told(self, word: str) -> dict[str, Any]:
        """The facts about it that the record of a fire keeps: `disabled_by`, `disabled_since`, `disabled_reason`."""
        facts = {"by": self.actor, "since": rfc3339(self.since), "reason": self.reason}
        return {f"{word}_{name}": fact for name, fact in facts.items() if fact is not None}


def kinds_of(kind: SwitchKind) -> tuple[SwitchKind, ...]:
    """The kinds of the same subject: of them a job has one open switch."""
    return ("paused",) if kind == "paused" else ("enabled", "disabled", "tripped")


class Verdict(NamedTuple):
    """Whether a job is on, and what its records say of it if it is not."""

    on: bool
    trial: bool = False
    """Its breaker lets one run through."""
    because: Mapping[str, Any] = {}


class Switches(tuple[Switch, ...]):  # noqa: SLOT001 - it keeps what it was sorted into
    """The switches of a store as last read: the open ones, and of the ended pauses the newest of each job, and those
    that may have held what is not decided yet.
    """

    @cached_property
    def _by_job(self) -> Mapping[str | None, Sequence[tuple[int, Switch]]]:
        found: dict[str | None, list[tuple[int, Switch]]] = {}
        for place, one in enumerate(self):
            found.setdefault(one.job, []).append((place, one))
        return found

    def _of(self, *jobs: str | None) -> Sequence[Switch]:
        """Those of jobs, and with None among them those of all, in their order.

        Each of thousands of jobs asks, at each switch: a look at all of thousands of switches would hold the loop.
        """
        if not self:
            return ()
        by_job = self._by_job
        found = [by_job[job] for job in {*jobs} if job in by_job]
        numbered = found[0] if len(found) == 1 else sorted(chain(*found), key=lambda numbered: numbered[0])
        return [one for _, one in numbered]

    def thrown(self, jobs: Sequence[str], now: datetime) -> Switch | None:
        """The switch that says whether a job, known by any of these names, is on; None: its declaration does."""
        found = [one for one in self._of(*jobs) if one.kind != "paused" and one.holds(now)]
        return found[-1] if found else None

    def tripped(self, job: str) -> Switch | None:
        """The switch by which the breaker of a job has it off, or on trial; None: it has not."""
        return next((one for one in self._of(job) if one.kind == "tripped" and one.ended_at is None), None)

    def on_trial(self, jobs: Sequence[str], now: datetime) -> bool:
        """Whether a job's breaker lets one run through, to see whether it succeeds again."""
        return any(one.kind == "tripped" and one.ended_at is None for one in self._of(*jobs)) and (
            (thrown := self.thrown(jobs, now)) is None or thrown.kind != "tripped"
        )

    def verdict(self, jobs: Sequence[str], now: datetime, *, declared: bool) -> Verdict:
        """Whether a job, known by any of these names and `declared` on or off, is on."""
        switch = self.thrown(jobs, now) if self else None
        if switch is None:
            on, because = declared, {} if declared else {"disabled_by": "its declaration"}
        else:
            on, because = switch.kind == "enabled", switch.told("disabled")
        return Verdict(on, on and bool(self) and self.on_trial(jobs, now), {} if on else because)

    def pause(self, job: str | None, now: datetime) -> Switch | None:
        """The pause that holds a job, its own or that of all; None: none does."""
        for one in self._of(None, job):
            if one.kind == "paused" and one.holds(now):
                return one
        return None

    def own_pause(self, jobs: Sequence[str], now: datetime) -> Switch | None:
        """The pause of a job, known by any of these names, whatever pause of all there is; None: it has none."""
        return next((one for one in self._of(*jobs) if one.kind == "paused" and one.holds(now)), None)

    def next_end(self, now: datetime) -> datetime | None:
        """When the first of those in force ends by itself; None: none does."""
        return min((one.until for one in self if one.until is not None and one.holds(now)), default=None)

    def over(self, job: str, due_at: datetime) -> Switches:
        """The pauses of `job`, over by now, that ended after an instant: nearly always there are none."""
        return Switches(one for one in self._of(None, job) if _is_over(one) and _end(one) > due_at)

    def settling(self, job: str, due_at: datetime, since: datetime) -> tuple[datetime, Missed | None]:
        """Since when somebody was there to fire `job` at `due_at`, and how a fire that a pause held is settled.

        `since`: the start of the watch. An instant within a pause that is over was not watched until it was over.
        """
        over = self.held_by(job, due_at)
        return (since, None) if over is None else (max(since, _end(over)), over.missed)

    def alike_until(self, job: str, due_at: datetime, now: datetime, usual: Missed) -> datetime:
        """Up to when fires of `job` are settled by the same word as the one that is due at `due_at`; at most `now`.

        `usual`: the job's own word, which holds where no pause has another. What two pauses held that were resumed by
        different words, as after a skip another pause at once, is settled by two.
        """
        edges = {edge for one in self._of(None, job) if _is_over(one) for edge in (one.since, _end(one))}
        word = self._word(job, due_at, usual)
        turns = (edge for edge in edges if due_at < edge <= now and self._word(job, edge, usual) != word)
        turn = min(turns, default=None)
        return now if turn is None else turn - _MOMENT

    def held_by(self, job: str, due_at: datetime) -> Switch | None:
        """The pause, over by now, that held a fire of `job` due at that instant; of several the one that ended last."""
        held = [one for one in self._of(None, job) if _is_over(one) and one.since <= due_at < _end(one)]
        return max(held, key=_end, default=None)

    def _word(self, job: str, due_at: datetime, usual: Missed) -> Missed:
        over = self.held_by(job, due_at)
        return over.missed or usual if over is not None else usual


def _is_over(one: Switch) -> bool:
    """Whether it is a pause of which the end is known."""
    return one.kind == "paused" and (one.ended_at or one.until) is not None


def _end(one: Switch) -> datetime:
    end = one.ended_at or one.until
    assert end is not None
    return end


class InForce:
    """The switches that are in force at `now`, by job: each of a thousand jobs finds its own at once."""

    def __init__(self, switches: Switches, now: datetime) -> None:
        self.at = now
        self._thrown: dict[str | None, tuple[int, Switch]] = {}
        self._paused: dict[str | None, Switch] = {}
        for place, one in enumerate(switches):
            if not one.holds(now):
                continue
            if one.kind == "paused":
                self._paused[one.job] = one
            else:
                self._thrown[one.job] = (place, one)

    def thrown(self, jobs: Sequence[str]) -> Switch | None:
        """As `Switches.thrown`."""
        found = [self._thrown[name] for name in jobs if name in self._thrown]
        return max(found, key=lambda one: one[0])[1] if found else None

    def pause(self, job: str) -> Switch | None:
        """The pause that holds it, its own before that of all; None: none does."""
        return self._paused.get(job) or self._paused.get(None)
