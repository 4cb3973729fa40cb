"""A sample of the stories of several processes: three quarters of a minute of them. `whole.py` does ten minutes of each."""

from __future__ import annotations

from functools import partial

import nemesis
import pytest
import scenes
import torture
from adapter import Taskloop
from company import Plot
from naive import Naive
from verdict import SEED, kept

pytestmark = pytest.mark.timeout(240)
TIMELY = ("kill", "freeze", "deploy", "switch", "volley")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What each scene and company came to; they mostly wait, so three are played at a time."""
    folder = tmp_path_factory.mktemp("played")
    plots = {
        "two": Plot(2, 10.0, SEED, TIMELY),
        "five": Plot(5, 12.0, SEED + 2, TIMELY),
        "clocks": Plot(2, 7.0, SEED, ("clock", "clocks"), peace=4.0),
    }
    rounds = {name: partial(scene, Taskloop(), folder / name) for name, scene in scenes.SCENES.items()}
    rounds |= {name: partial(nemesis.carry_out, Taskloop(), plot, folder / name) for name, plot in plots.items()}
    return dict(zip(rounds, torture.together(rounds.values(), at_once=3), strict=True))


@pytest.fixture
def ending(tool, request):
    """What one of them came to, of which nothing is broken."""
    tool("gcc", "strace")

    def given(name):
        [found] = kept([request.getfixturevalue("played")[name]])
        return found

    return given


def test_two_processes_beset_by_a_nemesis_fire_everything_once(ending):
    found = ending("two")
    assert found.fires > 330 and found.calls > 330


def test_five_processes_beset_by_a_nemesis_fire_everything_once(ending):
    found = ending("five")
    assert found.fires > 400 and sum(found.done.values()) >= 6


def test_a_process_whose_clock_is_set_wrong_takes_no_run_from_others_and_silences_no_interval(ending):
    assert sum(ending("clocks").done.values()) >= 3


def test_a_clock_that_was_set_right_while_nobody_ran_silences_no_interval(ending):
    ending("corrected")


def test_a_process_of_the_earlier_version_beside_the_next_doubles_no_renamed_job(ending):
    ending("lagging")


def test_a_process_without_file_descriptors_takes_no_other_for_dead(ending):
    assert ending("robbed").done["calls failed"] > 0


def test_a_later_version_that_was_taken_for_dead_and_comes_back_doubles_no_renamed_job(ending):
    ending("returning")


def test_the_check_of_several_processes_catches_a_naive_scheduler(tmp_path):
    ending = nemesis.carry_out(Naive(), Plot(2, 4.0, SEED, ("switch", "volley"), peace=1.0), tmp_path / "naive")
    promises = {one.promise for one in ending.broken}
    assert promises >= {"unique", "fencing", "overlap", "limits", "liveness"}
