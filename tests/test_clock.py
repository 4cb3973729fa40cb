"""The clocks, and instants as whole microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop.clock import EPOCH, Clock, ClockWatch, SystemClock, from_microseconds, later, microseconds

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "count"),
    [
        (EPOCH, 0),
        (EPOCH + timedelta(microseconds=1), 1),
        (EPOCH - timedelta(microseconds=1), -1),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), 2**31 * 1_000_000),
    ],
)
def test_an_instant_is_whole_microseconds_since_1970(instant, count):
    assert microseconds(instant) == count
    assert from_microseconds(count) == instant
    assert from_microseconds(count).tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_instant_comes_back_exactly_and_fits_64_bits(instant):
    assert from_microseconds(microseconds(instant)) == instant
    assert -(2**63) <= microseconds(instant) < 2**63


def test_the_clocks_of_this_machine_are_aware_and_go_forward():
    clock: Clock = SystemClock()
    before, first = datetime.now(UTC), clock.monotonic()
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().tzinfo is UTC
    assert first <= clock.monotonic()


def test_an_instant_beyond_all_years_is_the_last_one():
    last = datetime.max.replace(tzinfo=UTC)
    assert later(NOW, timedelta(days=1)) == NOW + timedelta(days=1)
    assert later(last - timedelta(days=1), timedelta(days=2)) == last


@pytest.mark.parametrize(
    ("wall", "steady", "step"),
    [(60, 60, 0), (61, 60, 1), (-3540, 60, -3600), (3660, 60, 3600), (60, 0, 60)],
)
def test_a_watch_of_both_clocks_tells_how_far_the_wall_clock_went_beyond_the_steady_one(wall, steady, step):
    watch = ClockWatch(NOW, 100.0)
    look = watch.look(NOW + timedelta(seconds=wall), 100.0 + steady)
    assert (look.before, look.since, look.elapsed, look.step) == (NOW, 100.0, steady, step)
    again = watch.look(NOW + timedelta(seconds=wall + 5), 105.0 + steady)
    assert (again.since, again.elapsed, again.step) == (100.0 + steady, 5, 0)


def test_a_clock_that_was_set_between_two_looks_was_right_from_the_first_at_the_earliest():
    watch = ClockWatch(NOW, 0.0)
    now = NOW - timedelta(hours=1) + timedelta(seconds=50)
    look = watch.look(now, 50.0)
    assert look.lived_from(now) == NOW - timedelta(hours=1)
    assert look.lived_from(now - timedelta(days=1)) == now - timedelta(days=1), "set back once more meanwhile"
    assert look._replace(step=-1e12).lived_from(now) == now, "before all years"
