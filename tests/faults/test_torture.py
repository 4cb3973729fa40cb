"""A sample of the crash torture: kills at writing calls and at random, lost writes, failing calls. `whole.py` does all."""

from __future__ import annotations

from functools import partial

import lost_writes
import mishaps
import points
import pytest
import torture
import tracing
from lost_writes import Loss
from mishaps import SPAN, Mishap, SlowStop
from naive import Naive
from verdict import SEED, THOROUGH, kept

pytestmark = pytest.mark.timeout(400)


def rounds(product, blows, folder):
    return torture.together(
        partial(torture.carry_out, product, blow, folder / f"{place}-{blow.name}", seed=SEED)
        for place, blow in enumerate(blows)
    )


def test_a_kill_at_any_writing_call_loses_nothing_and_repeats_nothing(product, tool, chance, tmp_path):
    tool("strace")
    every = points.kill_points(product, tmp_path / "counting")
    assert {(one.part, one.call) for one in every} >= {
        ("running", "pwrite64"), ("running", "fdatasync"), ("running", "write"), ("stopping", "pwrite64")
    }  # fmt: skip
    number = 12 if THOROUGH else 6
    some = points.with_second_kills(product, points.sample(every, number, chance), chance)
    outcomes = kept(rounds(product, some, tmp_path))
    assert sum(one.struck for one in outcomes) > 0.75 * number, "kills that did not happen prove nothing"
    assert sum(one.fires for one in outcomes) > 9 * number


def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(product, chance, tmp_path):
    blows = points.at_random(6 if THOROUGH else 3, chance)
    outcomes = kept(rounds(product, points.with_second_kills(product, blows, chance), tmp_path))
    assert all(one.struck for one in outcomes)


def test_the_torture_catches_a_naive_scheduler(chance, tmp_path):
    found = list(rounds(Naive(), [torture.Blow(after=2.0), torture.Blow(after=5.0)], tmp_path))
    promises = {one.promise for outcome in found for one in outcome.broken}
    # No record before a call, a word given too early, a key that holds nothing, a gap over the down time, a switch forgotten.
    assert promises >= {"a", "c", "d", "g", "h"}


# -- lost writes


def power_failures(product, folder, losses):
    shim = tracing.compiled(lost_writes.SHIM, folder)
    return torture.together(
        partial(lost_writes.carry_out, product, loss, folder / f"{place}-{loss.name}", library=shim, seed=SEED)
        for place, loss in enumerate(losses)
    )


def test_a_power_failure_loses_nothing_that_was_told_when_writes_are_flushed(product, tool, chance, tmp_path):
    tool("gcc")
    losses = [Loss(chance.randint(10, 400)) for _ in range(8 if THOROUGH else 4)]
    found = kept(power_failures(product, tmp_path, losses))
    assert any("0 writes" not in note for one in found for note in one.notes), "nothing was at stake"


def test_a_power_failure_leaves_a_sound_file_when_they_are_not_and_the_harness_sees_the_loss(
    product, tool, chance, tmp_path
):
    tool("gcc")
    losses = [Loss(chance.randint(150, 400), "normal") for _ in range(5)]
    assert sum(one.lost for one in kept(power_failures(product, tmp_path, losses))) > 0, "the shim loses no write"


# -- errors instead of death


def failures(product, folder, *given):
    return torture.together(
        partial(mishaps.carry_out, product, mishap, folder / f"{place}-{mishap.name}", seed=SEED)
        for place, mishap in enumerate(given if THOROUGH else given[::2])
    )


def test_a_disk_that_is_full_or_fails_for_a_while_is_lived_through_and_told(product, tool, tmp_path):
    tool("strace")
    found = kept(
        failures(
            product, tmp_path, Mishap("pwrite64", "ENOSPC", 7, SPAN, late=True),
            Mishap("pwrite64", "EIO", 10, SPAN, late=True), Mishap("fdatasync", "EIO", 2, SPAN, late=True),
            Mishap("openat", "EMFILE", 1, SPAN, late=True, anywhere=True),
        )
    )  # fmt: skip
    assert sum(one.struck for one in found) >= 3 * len(found) / 4


def test_one_write_that_fails_harms_nothing(product, tool, tmp_path):
    tool("strace")
    found = failures(
        product, tmp_path, Mishap("pwrite64", "EIO", 140), Mishap("pwrite64", "ENOSPC", 211),
        Mishap("fdatasync", "EIO", 15), Mishap("pwrite64", "EINTR", 40, times=50),
    )  # fmt: skip
    assert all(one.struck for one in kept(found))


def test_reads_that_fail_are_lived_through_and_no_run_is_said_to_have_failed_for_them(product, tool, tmp_path):
    tool("strace")
    found = failures(
        product, tmp_path, Mishap("pread64", "EIO", 21), Mishap("pread64", "EIO", 16, late=True),
        Mishap("pread64", "EIO", 1, SPAN, late=True), Mishap("pread64", "EIO", 3, SPAN, late=True),
    )  # fmt: skip
    kept(found)


def test_a_store_that_cannot_be_made_is_refused_with_the_cause(product, tool, tmp_path):
    tool("strace")
    found = failures(
        product, tmp_path, Mishap("pwrite64", "ENOSPC", 12), Mishap("fdatasync", "EIO", 2),
        Mishap("openat", "EMFILE", 1)
    )  # fmt: skip
    assert all(one.struck for one in kept(found))


def test_an_orderly_stop_at_any_moment_leaves_nothing_running_on_record_though_the_disk_is_slow(
    product, tool, chance, tmp_path
):
    tool("strace")
    stops = [SlowStop(round(chance.uniform(0.1, 1.2), 3)) for _ in range(5)]
    kept(
        torture.together(
            partial(mishaps.stop_slowly, product, stop, tmp_path / f"{place}-{stop.name}", seed=SEED)
            for place, stop in enumerate(stops)
        )
    )
