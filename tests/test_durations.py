"""What people write for lengths of time and points in time, and what they are told when it cannot be read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop import durations
from taskloop.durations import LONGEST, absolute, ahead, instant, parse, parse_interval, rfc3339, since, words
from taskloop.errors import BadDuration, BadInstant

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (10, 10),
        (0, 0),
        (1.5, 1.5),
        (-0.0, 0),
        ("90", 90),
        (" 1.5 ", 1.5),
        (".5", 0.5),
        (timedelta(minutes=1), 60),
        ("2w", 1_209_600),
        ("14d", 1_209_600),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1 hour 30 minutes", 5400),
        ("5 minutes", 300),
        ("5 Minutes", 300),
        ("2W", 1_209_600),
        ("90s", 90),
        ("250ms", 0.25),
        ("7us", 0.000007),
        ("7µs", 0.000007),
        ("1.5h", 5400),
        ("0.1h0.2s", 360.2),
        ("2hrs 3secs", 7203),
        ("0s", 0),
        ("PT1H30M", 5400),
        ("PT5M", 300),
        ("P2W", 1_209_600),
        ("P1DT2H", 93_600),
        ("PT1.5S", 1.5),
        ("PT0,5H", 1800),
        ("36525d", 36_525 * 86_400),
    ],
)
def test_a_duration_is_read_in_every_form_of_the_contract(written, seconds):
    assert parse(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("-5m", "negative"),
        ("-PT5M", "negative"),
        (-1, "negative"),
        (-1e-9, "negative"),
        (-(10**400), "negative"),
        (timedelta(-1), "negative"),
        (timedelta.min, "negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        ("nan", "cannot be read"),
        (True, "a bool is not"),
        (None, "a NoneType is not"),
        ([5], "a list is not"),
        (b"5m", "a bytes is not"),
        ("36526d", "100 years"),
        (36_525 * 86_400 + 1, "100 years"),
        (10**400, "100 years"),
        ("9" * 99, "100 years"),
        ("P99999999999W", "100 years"),
        (timedelta.max, "100 years"),
        ("1" * 101, "100 characters"),
        ("1mo", "months and years"),
        ("3 months", "months and years"),
        ("1y", "months and years"),
        ("2 years", "months and years"),
        ("P1M", "months and years"),
        ("P1Y2M3D", "months and years"),
        ("5M", "for minutes write 'm'"),
        ("5 fortnights", "no unit 'fortnights'"),
        ("1h30", "cannot be read"),
        ("h", "cannot be read"),
        ("1:30:00", "cannot be read"),
        ("0 3 * * mon", "a cron expression is given to cron"),
        ("5m5m", "the largest first"),
        ("30m1h", "the largest first"),
        ("1h 60 minutes 2min", "the largest first"),
        ("+5m", "cannot be read"),
        ("1e3", "no unit 'e'"),
        ("٣d", "cannot be read"),
        ("P", "ISO 8601"),
        ("PT", "ISO 8601"),
        ("P1DT", "ISO 8601"),
        ("P1H", "ISO 8601"),
        ("PT1D", "ISO 8601"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason_and_the_accepted_forms(written, why):
    with pytest.raises(BadDuration, match="1h30m") as caught:
        parse(written)
    assert why in caught.value.why
    assert caught.value.got is written


def test_a_length_of_time_of_a_library_is_taken_as_the_plain_one():
    class Timedelta(timedelta):
        """As that of pandas."""

    assert type(parse(Timedelta(hours=1, microseconds=7))) is timedelta
    assert parse(Timedelta(hours=1, microseconds=7)) == timedelta(hours=1, microseconds=7)


def test_an_interval_of_zero_is_refused():
    assert parse_interval("5m") == timedelta(minutes=5)
    for zero in (0, "0s", "PT0S", timedelta(0), "0.0000001s"):
        with pytest.raises(BadDuration, match="zero"):
            parse_interval(zero)


@pytest.mark.parametrize(
    ("length", "text", "english"),
    [
        (timedelta(0), "0s", "0 seconds"),
        (timedelta(weeks=2), "2w", "2 weeks"),
        (timedelta(days=15), "15d", "15 days"),
        (timedelta(days=14, hours=1), "14d1h", "14 days 1 hour"),
        (timedelta(hours=1, minutes=30), "1h30m", "1 hour 30 minutes"),
        (timedelta(seconds=90), "1m30s", "1 minute 30 seconds"),
        (timedelta(milliseconds=250), "250ms", "250 milliseconds"),
        (timedelta(microseconds=1_000_001), "1s1us", "1 second 1 microsecond"),
    ],
)
def test_a_duration_is_written_in_the_largest_units_that_fit(length, text, english):
    assert durations.format(length) == text
    assert words(length) == english


@given(st.timedeltas(min_value=timedelta(0), max_value=LONGEST))
def test_what_was_written_is_read_back_to_the_very_microsecond(length):
    assert parse(durations.format(length)) == length
    assert parse(words(length)) == length


@given(
    st.one_of(st.text(max_size=120), st.text("0123456789.,PTWDHMSwdhmsu -+", max_size=40), st.floats(), st.integers())
)
def test_anything_at_all_is_read_within_bounds_or_refused_as_a_bad_duration(written):
    try:
        length = parse(written)
    except BadDuration:
        return
    assert timedelta(0) <= length <= LONGEST


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (NOW, NOW),
        (datetime(2026, 3, 1, 13, tzinfo=timezone(HOUR)), NOW),
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01t12:00:00z", NOW),
        (" 2026-03-01 13:00+01:00 ", NOW),
        ("20260301T1200Z", NOW),
        ("+2h", NOW + 2 * HOUR),
        ("+ 2 hours", NOW + 2 * HOUR),
        ("+90", NOW + timedelta(seconds=90)),
        (2 * HOUR, NOW + 2 * HOUR),
    ],
)
def test_an_instant_is_read_in_every_form_of_the_contract_and_comes_out_in_utc(written, expected):
    for read in (instant, ahead):
        assert read(written, NOW) == expected
        assert read(written, NOW).tzinfo is UTC


@pytest.mark.parametrize("written", ["24h", "86400", timedelta(days=1), 86_400, 86_400.0, "P1D"])
def test_a_bare_duration_means_back_for_since_and_on_for_ahead(written):
    assert since(written, NOW) == NOW - timedelta(days=1)
    assert ahead(written, NOW) == NOW + timedelta(days=1)


def test_since_also_takes_instants_and_an_explicit_plus():
    assert since("2026-03-01T12:00Z", NOW) == NOW
    assert since(NOW, NOW + HOUR) == NOW
    assert since("+1h", NOW) == NOW + HOUR


def test_the_two_passes_of_a_repeated_hour_are_two_instants():
    first, second = "2026-10-25T01:30+01:00", "2026-10-25T01:30+00:00"
    assert absolute(second) - absolute(first) == HOUR


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (datetime(2026, 3, 1), "names no zone"),
        ("2026-03-01T02:00", "append 'Z'"),
        ("2026-03-01", "names no zone"),
        ("20260301", "names no zone"),
        (date(2026, 3, 1), "a date is not"),
        (None, "a NoneType is not"),
        ([], "a list is not"),
        ("2026-03-01T02:00:60Z", "second must be in 0..59"),
        ("2026-02-30T02:00Z", "day "),  # in the words of this Python
        ("2026-03-01五02:00Z", "cannot be read"),
        ("2026-" + "0" * 200, "cannot be read"),
        ("tomorrow", "cannot be read"),
        ("", "cannot be read"),
        ("-2h", "cannot be read"),
        ("+-2h", "negative"),
        ("+", "empty"),
        (-HOUR, "negative"),
        ("0001-01-01T00:00+12:00", "years 1 to 9999"),
        ("9999-12-31T23:00-12:00", "years 1 to 9999"),
    ],
)
def test_what_is_no_instant_is_refused_with_the_reason_and_the_accepted_forms(written, why):
    with pytest.raises(BadInstant, match="give (an aware datetime, )?ISO 8601") as caught:
        instant(written, NOW)
    assert why in caught.value.why


def test_a_bare_duration_is_no_instant_and_the_error_says_how_to_write_it():
    with pytest.raises(BadInstant, match=r"write '\+2h'"):
        instant("2h", NOW)
    with pytest.raises(BadInstant, match="number"):
        instant(5, NOW)


def test_who_asks_for_a_time_in_the_past_is_told_how_that_is_written():
    for written in ("yesterday", "2 fortnights"):
        with pytest.raises(BadInstant, match=r"or the time back from now \('2h'\)$"):
            since(written, NOW)


def test_instants_beyond_the_calendar_are_refused_not_overflowed():
    end = datetime.max.replace(tzinfo=UTC)
    with pytest.raises(BadInstant, match="years 1 to 9999"):
        instant("+1h", end)
    with pytest.raises(BadInstant, match="years 1 to 9999"):
        since("100w", datetime(1, 1, 2, tzinfo=UTC))


@given(st.one_of(st.text(max_size=120), st.text("0123456789:TZ+-W ", max_size=30)))
def test_any_text_is_read_as_an_instant_in_utc_or_refused_as_a_bad_one(written):
    for read in (instant, since, ahead):
        try:
            assert read(written, NOW).tzinfo is UTC
        except BadInstant as error:
            assert error.got == written


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_written_as_rfc_3339_and_read_back(moment):
    assert absolute(rfc3339(moment)) == moment


def test_rfc_3339_has_a_z_and_a_fraction_only_where_there_is_one():
    assert rfc3339(NOW) == "2026-03-01T12:00:00Z"
    assert rfc3339(NOW.replace(microsecond=5)) == "2026-03-01T12:00:00.000005Z"
