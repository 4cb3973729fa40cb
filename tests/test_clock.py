"""The clocks, and instants as whole microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop.clock import EPOCH, Clock, SystemClock, from_microseconds, microseconds


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
