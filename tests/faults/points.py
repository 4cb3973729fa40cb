"""Which rounds of the crash torture there are, and which of them make a sample.

A point is a pair (call, k): `kill_points` finds them all by a run of the script in which the calls are counted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torture
import tracing
from adapter import Scheduler
from torture import Blow, Round


def kill_points(scheduler: Scheduler, folder: Path) -> list[Blow]:
    """Every pair (call, k) of the script, and those of its stop."""
    one = Round(scheduler, Blow(part="counted"), folder)
    try:
        process = one.start(tracing.counting(scheduler.writing, folder / "trace"))
        torture.serve(one, process, torture.SCRIPT_SECONDS)
        process.stop(torture.STOP_SECONDS)
    finally:
        one.close()
    return [
        Blow(call, number, part=part)
        for part in ("running", "stopping")
        for call, most in tracing.counted(scheduler.writing, folder / "trace", part=part).items()
        for number in range(1, most + 1)
    ]


def sample(points: Sequence[Blow], number: int, chance: random.Random) -> list[Blow]:
    """So many points, spread over the kinds: rare calls would never come up among the many of a common one."""
    by_kind: dict[tuple[str, str], list[Blow]] = {}
    for point in points:
        by_kind.setdefault((point.part, point.call), []).append(point)
    for found in by_kind.values():
        chance.shuffle(found)
    chosen: list[Blow] = []
    while len(chosen) < min(number, len(points)):
        for (part, call), found in by_kind.items():
            share = 4 if call in ("pwrite64", "sendto") and part == "running" else 1
            chosen += [found.pop() for _ in range(min(share, len(found)))]
    return chosen[:number]


def with_second_kills(scheduler: Scheduler, blows: Sequence[Blow], chance: random.Random) -> list[Blow]:
    """The same, every tenth with a second kill during the recovery."""
    found = []
    for place, blow in enumerate(blows, 1):
        call, most = chance.choice(scheduler.recovery)
        found.append(replace(blow, again=(call, chance.randint(1, most))) if place % 10 == 0 else blow)
    return found


def at_random(number: int, chance: random.Random) -> list[Blow]:
    """Kills at moments spread evenly over a life, its start included."""
    return [Blow(after=round(chance.uniform(0.02, torture.SCRIPT_SECONDS + 0.4), 3)) for _ in range(number)]
