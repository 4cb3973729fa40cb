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


def test_two_processes_beset_by_a_nemesis_fire_everything_once(product, tmp_path):
    [ending] = kept([nemesis.carry_out(product, Plot(2, 10.0, SEED, TIMELY), tmp_path / "two")])
    assert ending.fires > 330 and ending.calls > 330


def test_five_processes_beset_by_a_nemesis_fire_everything_once(product, tmp_path):
    [ending] = kept([nemesis.carry_out(product, Plot(5, 12.0, SEED + 2, TIMELY), tmp_path / "five")])
    assert ending.fires > 400 and sum(ending.done.values()) >= 6


def test_a_process_whose_clock_is_set_wrong_takes_no_run_from_others_and_silences_no_interval(product, tool, tmp_path):
    tool("gcc")
    plot = Plot(2, 7.0, SEED, ("clock", "clocks"), peace=4.0)
    [ending] = kept([nemesis.carry_out(product, plot, tmp_path / "clock")])
    assert sum(ending.done.values()) >= 3


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What each scene came to; they mostly wait, so two are played at a time."""
    folder = tmp_path_factory.mktemp("scenes")
    endings = torture.together(partial(scene, Taskloop(), folder / name) for name, scene in scenes.SCENES.items())
    return dict(zip(scenes.SCENES, endings, strict=True))


def test_a_clock_that_was_set_right_while_nobody_ran_silences_no_interval(tool, request):
    tool("gcc", "strace")
    kept([request.getfixturevalue("played")["corrected"]])


def test_a_process_of_the_earlier_version_beside_the_next_doubles_no_renamed_job(tool, request):
    tool("gcc", "strace")
    kept([request.getfixturevalue("played")["lagging"]])


def test_a_process_without_file_descriptors_takes_no_other_for_dead(tool, request):
    tool("gcc", "strace")
    [ending] = kept([request.getfixturevalue("played")["robbed"]])
    assert ending.done["calls failed"] > 0


def test_the_check_of_several_processes_catches_a_naive_scheduler(tmp_path):
    ending = nemesis.carry_out(Naive(), Plot(2, 4.0, SEED, ("switch", "volley"), peace=1.0), tmp_path / "naive")
    promises = {one.promise for one in ending.broken}
    assert promises >= {"unique", "fencing", "overlap", "limits", "liveness"}


def test_a_later_version_that_was_taken_for_dead_and_comes_back_doubles_no_renamed_job(tool, request):
    tool("gcc", "strace")
    kept([request.getfixturevalue("played")["returning"]])
