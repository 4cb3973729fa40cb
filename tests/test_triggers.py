"""Triggers as values: what each answers, how it is written and read, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import doctest
import itertools
import pickle
import os
import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop.errors import BadCron, BadDuration, BadInstant, BadTrigger
from taskloop.triggers import At, Cron, Every, Trigger, Unreadable, as_mapping, from_mapping, parse

START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
FIVE = timedelta(minutes=5)

ALL = [
    Every(),
    Every("5m"),
    Every("2w", anchor="2026-01-01T00:00:00Z"),
    Every(anchor=START),
    Every("1us", anchor=START.replace(microsecond=7)),
    At("2026-03-01T02:00Z"),
    At("2026-03-01T02:00:00.5+01:00"),
    Cron("0 2 * * *"),
    Cron("0 2 * * *", timezone="Europe/London", gap="skip", fold="both"),
    Cron("30 0 9 * * mon-fri", timezone="UTC"),
    Cron("@weekly", timezone="Australia/Lord_Howe", fold="both"),
]


def at(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def fires(trigger, start, number):
    found = [at(start)]
    for _ in range(number):
        found.append(trigger.after(found[-1]))
    return found[1:]


def test_an_interval_without_an_anchor_is_counted_from_the_instant_asked_about():
    assert Every("5m").after(START) == START + FIVE
    assert Every(timedelta(minutes=5)) == Every(300) == Every("5m")


def test_an_anchored_interval_keeps_its_grid_on_both_sides_of_the_anchor():
    every = Every("5m", anchor=START)
    assert every.after(START) == START + FIVE
    assert every.after(START + FIVE / 2) == START + FIVE
    assert every.after(START - FIVE / 2) == START
    assert every.after(START - 2 * FIVE) == START - FIVE
    assert every.latest(START) == START
    assert every.latest(START - FIVE / 2) == START - FIVE
    assert every.latest(START + FIVE / 2) == START


def test_ten_thousand_fires_of_an_interval_do_not_drift():
    every = Every("7m", anchor=START)
    instant = START
    for _ in range(10_000):
        instant = every.after(instant + timedelta(seconds=3))
    assert instant == START + 10_000 * timedelta(minutes=7)


def test_an_interval_is_elapsed_time_across_a_change_of_the_clock():
    every = Every("24h", anchor="2026-03-28T12:00:00+00:00")
    assert every.after(at("2026-03-28T12:00+00:00")) == at("2026-03-29T13:00+01:00")


@given(
    st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525)),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
)
def test_the_grid_of_an_interval_is_counted_without_walking(interval, anchor, one, other):
    every = Every(interval, anchor=anchor)
    low, high = sorted((one, other))
    latest, following = every.latest(high), every.after(high)
    assert latest is None or (latest <= high and (latest - anchor) % interval == timedelta(0))
    assert following is None or (following > high and (following - anchor) % interval == timedelta(0))
    if latest and following:
        assert following - latest == interval
    count = every.count(low, high)
    assert abs(count - (high - low) / interval) <= 1 + 1e-9 * count
    assert every.count(high, low) == 0


def test_an_interval_ends_with_the_calendar_instead_of_overflowing():
    assert Every("1d").after(LAST) is None
    assert Every("2w", anchor=START).after(LAST) is None
    assert Every("2w", anchor=START).latest(FIRST) is None


def test_an_interval_to_be_given_later_says_where_it_comes_from():
    with pytest.raises(BadTrigger, match=r"the interval comes from start\(\)"):
        Every().after(START)
    assert dataclasses.replace(Every(), interval="2w") == Every("2w")


def test_an_interval_without_an_anchor_has_no_past():
    with pytest.raises(BadTrigger, match="bind an anchor first"):
        Every("5m").latest(START)
    with pytest.raises(BadTrigger, match="bind an anchor first"):
        Every("5m").count(START, START + FIVE)
    assert dataclasses.replace(Every("5m"), anchor=START).count(START, START + FIVE) == 1


def test_an_interval_or_anchor_that_cannot_be_is_refused():
    with pytest.raises(BadDuration, match="zero"):
        Every(0)
    with pytest.raises(BadDuration, match="months"):
        Every("1 month")
    with pytest.raises(BadInstant, match="names no zone"):
        Every("5m", anchor=datetime(2026, 1, 1))


def test_a_single_instant_is_due_once():
    once = At(START.astimezone(timezone(timedelta(hours=5))))
    assert once.instant.tzinfo is UTC
    assert once.after(START - FIVE) == START
    assert once.after(START) is None
    assert once.latest(START) == START
    assert once.latest(START - FIVE) is None
    assert [once.count(START - FIVE, START), once.count(START, START + FIVE)] == [1, 0]


@pytest.mark.parametrize("instant", ["2026-03-01T02:00", "+2h", "tomorrow", 5, None])
def test_a_single_instant_needs_a_zone_and_stands_by_itself(instant):
    with pytest.raises(BadInstant):
        At(instant)


@pytest.mark.parametrize("made", [At, lambda instant: Every("5m", anchor=instant)], ids=["At", "Every"])
@pytest.mark.parametrize("instant", ["+2h", "2h", "2026-03-01T02:00", timedelta(hours=2)], ids=str)
def test_a_time_from_now_is_refused_by_a_trigger_and_not_named_among_what_is_allowed(made, instant):
    with pytest.raises(BadInstant, match="give (an aware datetime or )?ISO 8601") as caught:
        made(instant)
    assert "or the time from now" not in str(caught.value)


@pytest.mark.parametrize("trigger", [Every("5m"), Every("5m", anchor=START), At(START), Cron("* * * * *")])
def test_every_trigger_refuses_a_naive_instant_and_takes_any_aware_one(trigger):
    with pytest.raises(BadInstant, match="names no zone"):
        trigger.after(datetime(2026, 1, 1))
    east, west = (timezone(timedelta(hours=hours)) for hours in (14, -12))
    assert trigger.after(datetime.min.replace(tzinfo=east)) > FIRST
    assert trigger.after(datetime.max.replace(tzinfo=west)) is None


@pytest.mark.parametrize("given", ["2026", "x", 5, None, START.date()], ids=str)
@pytest.mark.parametrize("trigger", [Every("5m", anchor=START), At(START), Cron("* * * * *")])
def test_every_trigger_refuses_what_is_no_instant_and_says_what_is(trigger, given):
    asked = (
        trigger.after,
        trigger.latest,
        lambda one: trigger.count(one, START),
        lambda one: trigger.count(START, one),
    )
    for ask in asked:
        with pytest.raises(BadInstant, match="^instant .*: .*; give (an aware datetime or )?ISO 8601"):
            ask(given)


@pytest.mark.parametrize("trigger", ALL, ids=str)
def test_a_trigger_is_a_value_with_a_text_and_a_table_that_read_back(trigger):
    assert isinstance(trigger, Trigger)
    assert parse(str(trigger)) == trigger
    assert str(parse(str(trigger))) == str(trigger)
    assert from_mapping(as_mapping(trigger)) == trigger
    assert all(isinstance(text, str) for text in as_mapping(trigger).values())
    assert pickle.loads(pickle.dumps(trigger)) == trigger
    assert hash(trigger) == hash(parse(str(trigger)))
    assert trigger.recurring is not isinstance(trigger, At)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(trigger, dataclasses.fields(trigger)[0].name, None)


@pytest.mark.parametrize(
    ("trigger", "text", "english"),
    [
        (Every(), "every", "at the interval given to start()"),
        (Every("14d"), "every 2w", "every 2 weeks"),
        (Every("5m"), "every 5m", "every 5 minutes"),
        (Every("1h"), "every 1h", "every hour"),
        (Every("90m"), "every 1h30m", "every 1 hour 30 minutes"),
        (
            Every("2w", anchor=START),
            "every 2w anchor 2026-01-01T00:00:00Z",
            "every 2 weeks, counted from 2026-01-01 00:00 UTC",
        ),
        (At("2026-03-01T02:00Z"), "at 2026-03-01T02:00:00Z", "once at 2026-03-01 02:00 UTC"),
        (At("2026-03-01T02:00:30Z"), "at 2026-03-01T02:00:30Z", "once at 2026-03-01 02:00:30 UTC"),
        (Cron("0 2 * * *"), "cron 0 2 * * *", "at 02:00 every day"),
        (Cron(" 0\t2  * * mon-fri "), "cron 0 2 * * MON-FRI", "at 02:00 on Monday through Friday"),
        (Cron("5-5/20 7 * * *"), "cron 5 7 * * *", "at 07:05 every day"),
        (Cron("@hourly"), "cron 0 * * * *", "at the start of every hour"),
        (
            Cron("0 2 * * *", timezone="Europe/London"),
            "cron 0 2 * * * timezone=Europe/London",
            "at 02:00 every day, Europe/London",
        ),
        (
            Cron("0 2 21,22,23 * *", gap="skip", fold="both"),
            "cron 0 2 21,22,23 * * gap=skip fold=both",
            "at 02:00 on the 21st, the 22nd, and the 23rd day of month; what a clock change skips is left out; "
            + "what a clock change repeats runs twice",
        ),
        (Cron("0 2 11-13 * *"), "cron 0 2 11-13 * *", "at 02:00 on every day of month from 11 through 13"),
        (Cron("0 2 1-31 * 1"), "cron 0 2 1-31 * 1", "at 02:00 every day"),
        (Cron("0 2 L 6 0-7"), "cron 0 2 L 6 0-7", "at 02:00 every day in June"),
        (Cron("0 2 */1 * 1"), "cron 0 2 */1 * 1", "at 02:00 on Monday"),
        (Cron("*/90 * * * *"), "cron */90 * * * *", "at the start of every hour"),  # it was told as every 90th minute
        (Cron("5/60 * * * *"), "cron 5/60 * * * *", "at minute 5 of every hour"),
        (Cron("0 12/12 31/5 * *"), "cron 0 12/12 31/5 * *", "at 12:00 on the 31st day of every month"),
        (Cron("0 0 */36 * * *"), "cron 0 0 */36 * * *", "at 00:00 every day"),
        (Cron("0 */24 */31 */12 *"), "cron 0 */24 */31 */12 *", "at 00:00 on January 1"),
        (Cron("*/30,7 0 * * *"), "cron */30,7 0 * * *", "at every 30th minute and minute 7 past hour 0"),
        (Cron("0 0 13 * 5"), "cron 0 0 13 * 5", "at 00:00 on the 13th day of month and on Friday"),
        (Cron("0 0 */31 * 5"), "cron 0 0 */31 * 5", "at 00:00 on every 31st day of month if it's on Friday"),
        (Cron("*/59 */23 * * *"), "cron */59 */23 * * *", "every 59th minute past every 23rd hour"),
    ],
)
def test_a_trigger_has_a_canonical_text_and_says_in_english_what_it_means(trigger, text, english):
    assert str(trigger) == text
    assert trigger.describe() == english


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evry 5m", "did you mean 'every'"),
        ("hourly", "write 'every 5m'"),
        ("", "write 'every 5m'"),
        ("x" * 401, "more than 400 characters"),
        (5, "a int is not a text"),
        ("cron 0 2 * * * zone=UTC", "beside 'cron' there is no 'zone'"),
        ("cron 0 2 * * * gap=skip gap=after", "twice"),
        ("cron 0 2 * * * cron=@daily", "twice"),
        ("cron 0 2 * * * at=x", "exactly one of"),
        ("cron 0 2 * * * gap=never", "gap is 'never', allowed 'after' or 'skip'"),
        ("cron 0 2 * *", "4 fields"),
        ("every soon", "soon"),
        ("every 5m anchor then", "then"),
        ("at", "cannot be read"),
    ],
)
def test_a_text_that_is_no_trigger_is_refused(text, says):
    with pytest.raises(ValueError, match=r"^(trigger|cron|duration|instant) ") as caught:
        parse(text)
    assert says in str(caught.value)


def test_a_table_is_read_as_in_config_toml_and_json():
    assert from_mapping({"every": 300}) == Every("5m")
    assert from_mapping({"every": None}) == from_mapping({"every": "start"}) == Every()
    assert from_mapping({"every": "5m", "anchor": START}) == Every("5m", anchor=START)
    assert from_mapping({"cron": "@daily", "timezone": None}) == Cron("0 0 * * *")
    assert from_mapping({"at": START}) == At(START)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "it has none of them, allowed exactly one of every, cron, at"),
        ({"every": "5m", "at": "2026-01-01T00:00Z"}, "it has every and at"),
        ({"cron": "@daily", "timezon": "UTC"}, "did you mean 'timezone'?"),
        ({"every": "5m", "timezone": "UTC"}, "there is no 'timezone', allowed 'anchor'"),
        ({"at": "2026-01-01T00:00Z", "anchor": "x"}, "allowed nothing"),
        ({"cron": 5}, "a int is not a text"),
        ("every 5m", "a str is no mapping"),
    ],
)
def test_a_table_that_is_no_trigger_is_refused(table, says):
    with pytest.raises(BadTrigger) as caught:
        from_mapping(table)
    assert says in str(caught.value)


def test_a_trigger_of_another_kind_has_no_table():
    with pytest.raises(BadTrigger, match="only Every, Cron and At"):
        as_mapping(object())


@pytest.mark.parametrize(
    ("expression", "field", "got", "allowed", "mend"),
    [
        ("61 * * * *", "minute", "61", "0-59", "Every('61m')"),
        ("* 25 * * *", "hour", "25", "0-23", ""),
        ("* 24 * * *", "hour", "24", "0-23", "for midnight write 0"),
        ("* 22-2 * * *", "hour", "22-2", "0-23", "write 22-23,0-2"),
        ("* 22-2/2 * * *", "hour", "22-2/2", "0-23", "a range does not wrap, write each of its values"),
        ("TZ=UTC 0 9 * * *", "second", "TZ=UTC", "0-59", "an option of its own, timezone = 'Europe/London'"),
        ("0 9 * * 1 America/Lima", "day-of-week", "AMERICA/LIMA", "0-7 or SUN-SAT", "an option of its own, timezone ="),
        ("0 0 * * fri-sun", "day-of-week", "FRI-SUN", "0-7 or SUN-SAT", "write 5-6,0"),
        ("0 0 * * 7-1", "day-of-week", "7-1", "0-7 or SUN-SAT", "where a range begins Sunday is 0, write 0-1"),
        ("0 0 * * 7-sun", "day-of-week", "7-SUN", "0-7 or SUN-SAT", "write 0"),
        ("0 0 * * sat-mon", "day-of-week", "SAT-MON", "0-7 or SUN-SAT", "write 6,0-1"),
        ("0 0 0 * *", "day-of-month", "0", "1-31", "counts from 1"),
        ("0 0 ? * *", "day-of-month", "?", "1-31", "write *"),
        ("0 0 15W * *", "day-of-month", "15W", "1-31", "LW is the last weekday"),
        ("0 0 L-3 * *", "day-of-month", "L-3", "1-31", ""),
        ("0 0 * 13 *", "month", "13", "1-12 or JAN-DEC", ""),
        ("0 0 * september *", "month", "SEPTEMBER", "1-12 or JAN-DEC", "write SEP"),
        ("0 0 * DEC-JAN *", "month", "DEC-JAN", "1-12 or JAN-DEC", "write 12,1"),
        ("0 0 * * L", "day-of-week", "L", "0-7 or SUN-SAT", "write 5L"),
        ("0 0 * * 8L", "day-of-week", "8L", "0-7 or SUN-SAT", "write 5L"),
        ("0 0 * * 1#6", "day-of-week", "1#6", "0-7 or SUN-SAT", ""),
        ("0 0 * * 9#1", "day-of-week", "9#1", "0-7 or SUN-SAT", ""),
        ("60 0 0 * * *", "second", "60", "0-59", "Every('60s')"),
        ("*/0 * * * *", "minute", "*/0", "a step of 1 or more", ""),
        ("1,,2 * * * *", "minute", "1,,2", "0-59", ""),
        ("1,99 * * * *", "minute", "99", "0-59", "Every('99m')"),
        ("1-2-3 * * * *", "minute", "1-2-3", "0-59", ""),
        ("1/2/3 * * * *", "minute", "1/2/3", "0-59", ""),
        ("-5 * * * *", "minute", "-5", "0-59", ""),
        ("0-99999999 * * * *", "minute", "0-99999999", "0-59", ""),
        ("99999999 * * * *", "minute", "99999999", "0-59", ""),
        ("*/99999999 * * * *", "minute", "*/99999999", "0-59", ""),
        (
            "0 0 30 2 *",
            "day-of-month",
            "30",
            "days that month 2 has",
            "never fire; for the last day of a month write L",
        ),
        ("0 0 31 2,4 *", "day-of-month", "31", "days that month 2,4 has", "never fire"),
        (
            "0 0 */31 * 1#5",
            "day-of-week",
            "1#5",
            "weekdays that meet day-of-month */31",
            "never fire; choose days that can meet",
        ),
        ("0 0 * 2 1#5,*/9", None, None, None, None),
        ("@reboot", None, "@reboot", "@hourly @daily", "on_start=True"),
        ("@every 5m", None, "@every", "@hourly @daily", "Every('5m')"),
        ("@fortnightly", None, "@fortnightly", "@hourly @daily", ""),
        ("* * * *", None, "4 fields", "minute hour", ""),
        ("5m", None, "1 field", "minute hour", "given to every, not to cron"),
        ("0 0 1 1 * 2026 x", None, "7 fields", "minute hour", "no field for the year"),
        ("", None, "0 fields", "minute hour", ""),
        ("* * * * *\n", None, "'* * * * *\\n'", "ASCII", ""),
        ("* * * * *\0", None, "'* * * * *\\x00'", "ASCII", ""),
        ("٣ * * * *", None, "'\\u0663 * * * *'", "ASCII", ""),
        ("*" * 201, None, "*" * 201, "at most 200 characters", ""),
    ],
)
def test_an_expression_that_cannot_be_names_its_field_what_was_given_what_is_allowed_and_the_mend(
    expression, field, got, allowed, mend
):
    if got is None:
        assert Cron(expression).after(START) is not None
        return
    with pytest.raises(BadCron) as caught:
        Cron(expression)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.expression, error.field, error.got) == (expression, field, got)
    assert allowed in error.allowed
    assert mend in str(error)


@pytest.mark.parametrize(
    ("place", "values"),
    [
        (0, [*range(60)]),
        (1, [*range(24)]),
        (2, [*range(1, 32)]),
        (3, [*range(1, 13), "jan", "Feb", "NOV", "dec"]),
        (4, [*range(8), "sun", "Mon", "TUE", "wed", "thu", "fri", "sat"]),
    ],
)
def test_what_is_advised_for_a_range_that_wraps_is_taken_itself(place, values):
    for first, last in itertools.product(values, repeat=2):
        fields = ["0", "0", "*", "*", "*"]
        fields[place] = f"{first}-{last}"
        try:
            Cron(" ".join(fields))
        except BadCron as error:
            advised = error.why.rpartition("write ")[2]
            assert advised, error
            fields[place] = advised
            assert Cron(" ".join(fields)).after(START)


@pytest.mark.parametrize("days", ["0-1", "sun-mon", "SUN-1"])
def test_a_range_that_begins_with_sunday_has_sunday_and_what_follows(days):
    cron, at = Cron(f"0 0 * * {days}"), START
    found = [at := cron.after(at) for _ in range(4)]
    assert [one.isoweekday() for one in found] == [7, 1, 7, 1]


def test_an_expression_that_is_no_text_is_refused():
    with pytest.raises(BadTrigger, match="a int is not a text"):
        Cron(5)


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Europe/Lodon", "did you mean 'Europe/London'?"),
        ("america/new_york", "did you mean 'America/New_York'?"),
        ("Mars/Olympus_Mons_Colony", "pip install tzdata"),
        ("Europe", "is not known"),
        ("../../etc/passwd", "is not known"),
        ("x" * 5000, "is not known"),
        ("Europe/" * 5000, "is not known"),
        ("\0", "'\\x00' is not known"),
        ("", "is not known"),
        (UTC, "timezone is no text"),
    ],
)
def test_an_unknown_zone_is_refused_when_the_trigger_is_made(zone, says):
    with pytest.raises(BadTrigger) as caught:
        Cron("0 2 * * *", timezone=zone)
    assert says in str(caught.value)


def test_where_no_zone_files_are_installed_the_error_says_what_to_install_and_utc_still_works(monkeypatch):
    for package in ("tzdata", "tzdata.zoneinfo", "tzdata.zoneinfo.Pacific"):
        monkeypatch.setitem(sys.modules, package, None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        with pytest.raises(BadTrigger, match="run: pip install tzdata"):
            Cron("0 2 * * *", timezone="Pacific/Pitcairn")
        assert Cron("0 2 * * *", timezone="UTC").after(START) == at("2026-01-01T02:00Z")
    finally:
        zoneinfo.reset_tzpath()


def test_a_zone_is_bound_where_none_was_given():
    bare = Cron("0 2 * * *", gap="skip", fold="both")
    bound = bare.bound("Asia/Kolkata")
    assert bound == Cron("0 2 * * *", timezone="Asia/Kolkata", gap="skip", fold="both")
    assert bound.bound("Europe/London") is bound
    assert bare.after(START) == at("2026-01-01T02:00Z")
    assert bound.after(START) == at("2026-01-02T02:00+05:30")


def test_the_words_for_gap_and_fold_are_checked():
    with pytest.raises(BadTrigger, match="fold is 'twice', allowed 'once' or 'both'"):
        Cron("0 2 * * *", fold="twice")


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("* * * * *", "2026-01-01T01:10:00.5Z", "2026-01-01T01:11:00Z"),
        ("* * * * *", "2026-01-01T01:10:00Z", "2026-01-01T01:11:00Z"),
        ("* * * * *", "2026-01-01T01:09:59.999999Z", "2026-01-01T01:10:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00Z", "2104-02-29T00:00Z"),
        ("0 0 31 * *", "2026-01-31T00:00Z", "2026-03-31T00:00Z"),
        ("0 0 29 2 */7", "2088-03-01T00:00Z", "2128-02-29T00:00Z"),
        ("0 0 L 2 *", "2026-01-01T00:00Z", "2026-02-28T00:00Z"),
        ("0 0 LW * *", "2026-05-01T00:00Z", "2026-05-29T00:00Z"),
        ("0 0 * * 5L", "2026-01-01T00:00Z", "2026-01-30T00:00Z"),
        ("0 0 * * 1#2", "2026-01-01T00:00Z", "2026-01-12T00:00Z"),
        ("0 0 * * 0", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("0 0 * * 7", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("0 0 13 * 5", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("0 0 */13 * 5", "2026-01-01T00:00Z", "2026-02-27T00:00Z"),
        ("@yearly", "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        ("@annually", "2026-06-01T00:00Z", "2027-01-01T00:00Z"),
        ("@monthly", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        ("@weekly", "2026-01-01T00:00Z", "2026-01-04T00:00Z"),
        ("@daily", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("@midnight", "2026-01-01T00:00Z", "2026-01-02T00:00Z"),
        ("@hourly", "2026-01-01T00:30Z", "2026-01-01T01:00Z"),
        ("*/20 * * * * *", "2026-01-01T00:00:41Z", "2026-01-01T00:01:00Z"),
        ("59 59 23 31 12 *", "2026-12-31T23:59:58Z", "2026-12-31T23:59:59Z"),
        ("*/90 * * * *", "2026-01-01T00:00Z", "2026-01-01T01:00Z"),
        ("10-10/15 * * * *", "2026-01-01T00:11Z", "2026-01-01T01:10Z"),
        ("0 0 * * MON-1/2", "2026-01-01T00:00Z", "2026-01-05T00:00Z"),
        ("5/15 * * * *", "2026-01-01T00:20Z", "2026-01-01T00:35Z"),
    ],
)
def test_the_next_fire_of_a_cron_expression(expression, start, expected):
    assert Cron(expression).after(at(start)) == at(expected)


def test_the_last_fire_of_a_cron_expression_is_at_or_before_the_instant():
    cron = Cron("0 2 * * 1-5")
    assert cron.latest(at("2026-01-05T02:00Z")) == at("2026-01-05T02:00Z")
    assert cron.latest(at("2026-01-05T01:59:59.9Z")) == at("2026-01-02T02:00Z")
    assert cron.latest(at("2026-01-04T12:00Z")) == at("2026-01-02T02:00Z")
    assert Cron("*/20 * * * * *").latest(at("2026-01-01T00:00:19.9Z")) == at("2026-01-01T00:00Z")


@pytest.mark.parametrize("zone", [None, "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_cron_ends_with_the_calendar_on_both_sides(zone):
    cron = Cron("0 12 * * *", timezone=zone)
    assert cron.after(LAST) is None
    assert cron.latest(FIRST) is None
    assert cron.count(FIRST, LAST) in (3_652_058, 3_652_059)
    yearly = Cron("30 23 31 12 *", timezone=zone)
    assert yearly.after(at("9999-12-31T23:59Z")) is None
    assert yearly.latest(at("0001-01-02T12:00Z")) is None
    assert cron.count(START, START) == cron.count(LAST, FIRST) == 0


def test_a_rare_day_ends_with_the_calendar_too():
    leap = Cron("0 0 29 2 *")
    assert leap.after(at("9999-01-01T00:00Z")) is None
    assert leap.latest(at("0004-01-01T00:00Z")) is None


def test_the_examples_of_the_manual_are_true():
    manual = Path(__file__).parent.parent / "docs" / "triggers.md"
    # The examples stand in fences, which doctest would take for output.
    text = manual.read_text(encoding="utf-8").replace("```", "")
    examples = doctest.DocTestParser().get_doctest(text, {}, manual.name, str(manual), 0)
    assert len(examples.examples) > 10
    said = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert said == []


def bare():
    """The environment without what would make coverage, and its imports, start in the child."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def test_importing_triggers_does_not_import_what_is_slow():
    code = (
        "import sys, taskloop.triggers, taskloop.retry; "
        "print([name for name in ('asyncio', 'anyio', 'loguru', 'pydantic', 'cronsim', 'zoneinfo') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, env=bare())
    assert done.stdout.strip() == "[]"


def table(text):
    return [line.split() for line in text.strip().splitlines()]


SPRING_AND_AUTUMN = """
    30_1_*_*_*      Europe/London        2026-03-28T12:00Z  2026-03-29T02:00+01:00  2026-03-30T01:30+01:00
    30_1_*_*_*      Europe/London        2026-10-24T12:00Z  2026-10-25T01:30+01:00  2026-10-26T01:30+00:00
    0,15_1_*_*_*    Europe/London        2026-03-28T12:00Z  2026-03-29T02:00+01:00  2026-03-30T01:00+01:00
    30_1,2_*_*_*    Europe/London        2026-03-28T12:00Z  2026-03-29T02:00+01:00  2026-03-29T02:30+01:00
    0_1,2_*_*_*     Europe/London        2026-03-28T12:00Z  2026-03-29T02:00+01:00  2026-03-30T01:00+01:00
    */30_1_*_*_*    Europe/London        2026-03-28T12:00Z  2026-03-30T01:00+01:00  2026-03-30T01:30+01:00
    */30_1_*_*_*    Europe/London        2026-10-25T00:00Z  2026-10-25T01:30+01:00  2026-10-25T01:00+00:00
    30_*_*_*_*      Europe/London        2026-10-25T00:00Z  2026-10-25T01:30+01:00  2026-10-25T01:30+00:00
    30_*_*_*_*      Europe/London        2026-03-29T00:00Z  2026-03-29T00:30+00:00  2026-03-29T02:30+01:00
    0_30_1_*_*_*    Europe/London        2026-03-28T12:00Z  2026-03-30T01:30+01:00  2026-03-31T01:30+01:00
    0_30_1_*_*_*    Europe/London        2026-10-24T12:00Z  2026-10-25T01:30+01:00  2026-10-25T01:30+00:00
    30_1_*_*_*      Europe/London        2026-10-25T01:10Z  2026-10-26T01:30+00:00  2026-10-27T01:30+00:00
    30_2_*_*_*      America/New_York     2026-03-07T12:00Z  2026-03-08T03:00-04:00  2026-03-09T02:30-04:00
    30_1_*_*_*      America/New_York     2026-10-31T12:00Z  2026-11-01T01:30-04:00  2026-11-02T01:30-05:00
    15_2_*_*_*      Australia/Lord_Howe  2026-10-03T06:00Z  2026-10-04T02:30+11:00  2026-10-05T02:15+11:00
    45_1_*_*_*      Australia/Lord_Howe  2026-04-04T06:00Z  2026-04-05T01:45+11:00  2026-04-06T01:45+10:30
    *_2_*_*_*       Australia/Lord_Howe  2026-04-04T15:00Z  2026-04-05T02:00+10:30  2026-04-05T02:01+10:30
    30_2_*_*_*      Antarctica/Troll     2026-03-28T12:00Z  2026-03-29T03:00+02:00  2026-03-30T02:30+02:00
    30_1_*_*_*      Antarctica/Troll     2026-10-24T12:00Z  2026-10-25T01:30+02:00  2026-10-26T01:30+00:00
    30_0_*_*_*      America/Santiago     2026-09-05T12:00Z  2026-09-06T01:00-03:00  2026-09-07T00:30-03:00
    30_23_*_*_*     America/Santiago     2026-04-04T12:00Z  2026-04-04T23:30-03:00  2026-04-05T23:30-04:00
    0_0_*_*_*       Africa/Cairo         2026-04-23T12:00Z  2026-04-24T01:00+03:00  2026-04-25T00:00+03:00
    30_23_*_*_*     Africa/Cairo         2026-10-29T12:00Z  2026-10-29T23:30+03:00  2026-10-30T23:30+02:00
    0_0_*_*_*       Asia/Beirut          2026-03-28T12:00Z  2026-03-29T01:00+03:00  2026-03-30T00:00+03:00
    30_23_*_*_*     Asia/Beirut          2026-10-24T12:00Z  2026-10-24T23:30+03:00  2026-10-25T23:30+02:00
    0_9_*_*_*       Pacific/Apia         2011-12-29T12:00Z  2011-12-29T09:00-10:00  2011-12-31T09:00+14:00
    0_9_30_12_*     Pacific/Apia         2011-12-01T00:00Z  2012-12-30T09:00+14:00  2013-12-30T09:00+14:00
"""


@pytest.mark.parametrize(("expression", "zone", "start", "one", "two"), table(SPRING_AND_AUTUMN))
def test_a_change_of_the_clock_keeps_the_rule(expression, zone, start, one, two):
    cron = Cron(expression.replace("_", " "), timezone=zone)
    assert fires(cron, start, 2) == [at(one), at(two)]
    assert cron.latest(at(two)) == at(two)
    assert cron.latest(at(two) - timedelta(microseconds=1)) == at(one)
    assert cron.count(at(start), at(two)) == 2


WITH_OPTIONS = """
    30_1_*_*_*    Europe/London     skip   once  2026-03-28T12:00Z  2026-03-30T01:30+01:00  2026-03-31T01:30+01:00
    30_1_*_*_*    Europe/London     after  both  2026-10-24T12:00Z  2026-10-25T01:30+01:00  2026-10-25T01:30+00:00
    0_1,2_*_*_*   Europe/London     skip   once  2026-03-28T12:00Z  2026-03-29T02:00+01:00  2026-03-30T01:00+01:00
    30_0_*_*_*    America/Santiago  skip   once  2026-09-05T12:00Z  2026-09-07T00:30-03:00  2026-09-08T00:30-03:00
    30_23_*_*_*   America/Santiago  after  both  2026-04-04T12:00Z  2026-04-04T23:30-03:00  2026-04-04T23:30-04:00
    30_*_*_*_*    Europe/London     after  once  2026-10-25T00:00Z  2026-10-25T01:30+01:00  2026-10-25T01:30+00:00
"""


@pytest.mark.parametrize(("expression", "zone", "gap", "fold", "start", "one", "two"), table(WITH_OPTIONS))
def test_gap_and_fold_choose_what_a_change_of_the_clock_does(expression, zone, gap, fold, start, one, two):
    cron = Cron(expression.replace("_", " "), timezone=zone, gap=gap, fold=fold)
    assert fires(cron, start, 2) == [at(one), at(two)]
    assert cron.latest(at(two) - timedelta(microseconds=1)) == at(one)
    assert cron.count(at(start), at(two)) == 2


def test_an_expression_that_always_falls_into_a_skipped_gap_is_never_due_again():
    cron = Cron("30 2 8-14 3 */7", timezone="America/New_York", gap="skip")
    assert cron.after(START) is None
    assert cron.latest(START) == at("2006-03-12T02:30-05:00")
    assert cron.count(START, LAST) == 0


# -- triggers that cannot be read


def test_a_trigger_that_cannot_be_read_is_never_due_and_keeps_its_text():
    one = Unreadable("cron 0 2 * * * timezone Mars/Olympus", "no such zone")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert isinstance(one, Trigger) and one.recurring
    assert (one.after(now), one.latest(now), one.count(now, now + timedelta(days=1))) == (None, None, 0)
    assert str(one) == "cron 0 2 * * * timezone Mars/Olympus"
    assert one.describe() == "not readable here: no such zone"
