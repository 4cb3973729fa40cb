"""The jobs of the harnesses, whatever scheduler runs them: how often, how long, and under which policy.

`ALONE` is the script of the crash torture, `COMPANY` what several processes share. Durations in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from facts import SPAN, Rule

ASKED: Final = "asked"
"""Runs only when a command asks for it, with a key or without."""
TOGGLED: Final = "toggled"
"""Is switched off and on by commands."""
PAUSED: Final = "paused"
"""Is paused and resumed by commands."""


def ticking(name: str, every: float, **rest: object) -> Rule:
    return Rule(name, every=every, period=every, **rest)  # type: ignore[arg-type]


def _by_name(*rules: Rule) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules}


# A file's name is no place for spaces, so the four jobs of the script are called by what they are for.
ALONE: Final = _by_name(
    ticking("quick", 0.3, takes=0.01),
    ticking("retrying", 0.5, fails=2, attempts=3, overlap="allow", missed="all"),
    ticking("brittle", 0.4, takes=0.08, missed="skip", on_crash="fail"),
    ticking("threaded", 0.4, takes=0.06, attempts=4, thread=True),
    ticking(TOGGLED, 0.3),
    Rule(ASKED, takes=0.02, attempts=4),
)


def _company() -> Iterator[Rule]:
    for number in range(1, 9):
        yield ticking(f"tick-{number}", 1.0, takes=0.02, first="aligned", fixed_grid=True)
    for number in range(1, 5):
        yield ticking(f"queued-{number}", 1.0, takes=0.4, overlap="queue")
    for number in range(1, 4):
        yield ticking(f"crowded-{number}", 1.0, takes=1.5)
    for number in range(1, 3):
        yield ticking(f"replaced-{number}", 2.0, takes=3.0, overlap="replace")
        yield ticking(f"beside-{number}", 2.0, takes=2.5, overlap="allow", max_running=2)
        yield ticking(f"threaded-{number}", 1.0, takes=0.3, attempts=3, thread=True)
        yield ticking(f"retrying-{number}", 2.0, fails=1, attempts=4)
        yield ticking(f"brittle-{number}", 1.0, takes=0.1, on_crash="fail")
        yield Rule(f"minutely-{number}", cron="* * * * *", period=60.0, takes=0.1, fixed_grid=True)
    for number in range(1, 5):
        # Longer than the lease: a worker may be taken for dead for its silence only, never for the age of a run; and one
        # that cannot reach its server is to end it in time, for others begin it anew.
        yield ticking(f"long-{number}", 4.0, takes=6.0 * SPAN, attempts=6)
    for number in range(1, 4):
        yield ticking(f"grouped-{number}", 2.0, takes=0.5, overlap="queue", group="pair")
    yield Rule("every-ten", cron="*/10 * * * * *", period=10.0, takes=0.1, missed="all", fixed_grid=True)
    yield ticking("all-missed", 2.0, missed="all", overlap="allow", takes=0.05)
    yield ticking("none-missed", 2.0, missed="skip", takes=0.05)
    yield ticking("renamed", 1.0, takes=0.05, formerly="before", first="aligned", fixed_grid=True)
    yield ticking(TOGGLED, 1.0, takes=0.05)
    yield ticking(PAUSED, 1.0, takes=0.05)
    yield Rule(ASKED, takes=0.1, attempts=6)


COMPANY: Final = _by_name(*_company())
PLACES: Final = {"pair": 2}
"""Places of the groups."""
