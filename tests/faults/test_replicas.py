"""A sample of the product on a PostgreSQL of its own: five replicas beset for five seconds, and a process killed at random.

`whole.py --store postgresql` does ten minutes of the one, and every kill point of the other.
"""

from __future__ import annotations

import random
from functools import partial

import nemesis
import points
import pytest
import torture
from adapter_postgres import TaskloopOnPostgres
from company import Plot
from verdict import SEED, kept

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What became of the replicas and of those that were killed; they mostly wait, so three are played at a time."""
    folder, scheduler, chance = tmp_path_factory.mktemp("replicas"), TaskloopOnPostgres(), random.Random(SEED)
    faults = tuple(one for one in nemesis.REPLICAS if one != "restart")  # the server is that of the others too
    blows = points.with_second_kills(scheduler, points.at_random(3, chance), chance)
    rounds = [partial(nemesis.carry_out, scheduler, Plot(5, 5.0, SEED, faults, peace=4.0), folder / "five")]
    rounds += [
        partial(torture.carry_out, scheduler, blow, folder / f"{place}-{blow.name}", seed=SEED)
        for place, blow in enumerate(blows)
    ]
    yield list(torture.together(rounds, at_once=3))
    scheduler.close()


def test_five_replicas_on_one_server_beset_by_a_nemesis_fire_everything_once(played, tool):
    tool("gcc", "strace")
    [five] = kept(played[:1])
    assert five.fires > 200 and sum(five.done.values()) >= 2


def test_a_replica_that_is_killed_at_any_moment_loses_nothing_and_repeats_nothing(played):
    assert all(one.struck for one in kept(played[1:]))
