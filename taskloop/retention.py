"""Which records are kept, and how far a round of pruning has come: values that every store goes by.

Level 5, pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from taskloop import durations
from taskloop.clock import EPOCH, microseconds
from taskloop.errors import BadDuration

__all__ = [
    "COUNTED",
    "NO_LANDMARKS",
    "NO_RULE",
    "RUNS_DONE",
    "SPARED",
    "TOGETHER",
    "Expired",
    "Landmarks",
    "Place",
    "Rule",
    "rule_of",
]

SPARED: Final = timedelta(days=1)
"""A fire that was due within this stays, whatever anybody says: a clock that is set back asks it what was decided."""
COUNTED: Final = ("succeeded", "failed", "cancelled", "interrupted")
"""States of the runs that a number of kept runs counts: what waits or runs has its turn later, and a skip is no run."""
TOGETHER: Final = 1000
"""Rows that are passed by with one statement, and of each other table those that go with one."""


class Place(NamedTuple):
    """How far a round has come: the rows of one job in one state up to an id."""

    job: str = ""
    state: str = ""
    id: int | None = None
    """None: all rows of this job and state are done."""
    beyond: int | None = None
    """The newest run of the job that is beyond its number; None: none is."""


RUNS_DONE: Final = Place("\U0010ffff")
"""After all jobs: the other tables are left."""


class Expired(NamedTuple):
    """What one look found: runs to delete, and where to go on (None: there are no other runs)."""

    ids: Sequence[int]
    after: Place | None


class Rule(NamedTuple):
    """How long the runs of a job are kept. None: without end."""

    before: int | None
    """What ended earlier goes."""
    runs: int | None
    """How many of the newest that have ended stay at most, skips not counted."""
    failures: int = 1
    """How many of its failures in a row are landmarks: those its circuit breaker counts."""


NO_RULE: Final = Rule(None, None)


class Landmarks(NamedTuple):
    """What stays of a job that somebody has, whatever its rule: the runs that tell how it stands.

    Without them a job that runs once a year looks as if it had never run, and one that fails once a month never fails
    three times in a row.
    """

    newest: int
    """Its newest run, skips not counted; 0: none."""
    success: int
    """Its newest success; 0: none."""
    failures: frozenset[int]
    """Its newest failures since, as many as its rule says."""

    def may_go(self, id: int) -> bool:
        """Whether a run of the job is none of them."""
        return id not in (self.newest, self.success) and id not in self.failures


NO_LANDMARKS: Final = Landmarks(0, 0, frozenset())


def rule_of(policy: Any, keep: timedelta | None, now: datetime) -> Rule:
    """How long the runs of a job are kept: as the policy in its definition says, None: nothing, else as long as `keep`."""
    if policy is None:
        policy = {}
    if not isinstance(policy, Mapping):  # another version's, like the words of one below
        return NO_RULE
    span, breaker = policy.get("keep"), policy.get("pause_after")
    try:
        length = keep if span is None else durations.parse(span)
    except BadDuration:  # the words of another version: delete nothing that we do not understand
        return NO_RULE
    before = None if length is None or length > now - EPOCH else microseconds(now - length)
    return Rule(before, policy.get("keep_runs"), breaker if isinstance(breaker, int) and breaker > 0 else 1)
