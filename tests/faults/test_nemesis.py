"""A sample of the stories of several processes: 45 seconds of them. `whole.py` does ten minutes of each."""

from __future__ import annotations

import nemesis
import pytest
from conftest import SEED, kept
from naive import Naive
from nemesis import Plot

pytestmark = pytest.mark.timeout(120)
WITHOUT_CLOCK = ("kill", "freeze", "deploy", "switch", "volley")


def test_two_processes_beset_by_a_nemesis_fire_everything_once(product, tmp_path):
    [ending] = kept([nemesis.carry_out(product, Plot(2, 20.0, SEED, WITHOUT_CLOCK), tmp_path / "two")])
    assert ending.fires > 500 and ending.calls > 500


def test_five_processes_beset_by_a_nemesis_fire_everything_once(product, tmp_path):
    [ending] = kept([nemesis.carry_out(product, Plot(5, 25.0, SEED + 2, WITHOUT_CLOCK), tmp_path / "five")])
    assert ending.fires > 600 and sum(ending.done.values()) >= 6


def test_a_process_whose_clock_is_set_wrong_takes_no_run_from_others_and_silences_no_interval(product, tool, tmp_path):
    tool("gcc")
    [ending] = kept([nemesis.carry_out(product, Plot(2, 8.0, SEED, ("clock",)), tmp_path / "clock")])
    assert ending.done["clock"] >= 2


def test_the_check_of_several_processes_catches_a_naive_scheduler(tmp_path):
    ending = nemesis.carry_out(Naive(), Plot(2, 4.0, SEED, ("switch", "volley")), tmp_path / "naive")
    promises = {one.promise for one in ending.broken}
    assert promises >= {"unique", "fencing", "overlap", "limits", "liveness"}
