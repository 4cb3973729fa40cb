"""Cron against brute force: every answer is compared with looking at the clock minute by minute.

The rule is written here a second time, from Debian's manual and in the plainest way, and shares nothing with the
library. Changes of the clock are sought out: half of the spans looked at begin close before one.
"""

from __future__ import annotations

import calendar
import time
import zoneinfo
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from taskloop.cron import fields_of
from taskloop.errors import BadCron
from taskloop.triggers import Cron, parse

ZONES = sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})
CHANGING = [
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Santiago",
    "Pacific/Apia",
    "Africa/Cairo",
    "Asia/Beirut",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Asia/Tehran",
    "America/St_Johns",
    "Antarctica/Casey",
    "Pacific/Kwajalein",
]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "7"]
MONTHS = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@st.composite
def number_fields(draw, low, high, names=None):
    """One field as text, with the values that it means."""
    kind = draw(st.sampled_from(("star", "star step", "single", "range", "range step", "list", "star list")))
    one, other, step = (draw(st.integers(low, high)) for _ in range(3))
    first, last = min(one, other), max(one, other)
    step = max(1, step)
    name = (lambda value: names[value]) if names and draw(st.booleans()) else str
    return {
        "star": ("*", set(range(low, high + 1))),
        "star step": (f"*/{step}", set(range(low, high + 1, step))),
        "single": (name(one), {one}),
        "range": (f"{name(first)}-{name(last)}", set(range(first, last + 1))),
        "range step": (f"{first}-{last}/{step}", set(range(first, last + 1, step))),
        "list": (f"{name(other)},{first}-{last}/{step}", {other, *range(first, last + 1, step)}),
        "star list": (f"*/{step},{name(one)}", {one, *range(low, high + 1, step)}),
    }[kind]


def last_of(day):
    return calendar.monthrange(day.year, day.month)[1]


def is_last_weekday(day):
    later = (day + timedelta(n) for n in range(1, last_of(day) - day.day + 1))
    return day.weekday() < 5 and all(other.weekday() >= 5 for other in later)


@st.composite
def day_of_month_fields(draw):
    if draw(st.integers(0, 3)):
        text, values = draw(number_fields(1, 31))
        return text, lambda day: day.day in values
    return draw(st.sampled_from([("L", lambda day: day.day == last_of(day)), ("LW", is_last_weekday)]))


@st.composite
def day_of_week_fields(draw):
    if draw(st.integers(0, 3)):
        text, values = draw(number_fields(0, 7, WEEKDAYS))
        return text, lambda day: day.isoweekday() in values or day.isoweekday() % 7 in values
    weekday, nth = draw(st.integers(0, 7)), draw(st.integers(1, 5))
    if draw(st.booleans()):
        return f"{weekday}L", lambda day: day.isoweekday() % 7 == weekday % 7 and day.day + 7 > last_of(day)
    return f"{weekday}#{nth}", lambda day: day.isoweekday() % 7 == weekday % 7 and (day.day - 1) // 7 + 1 == nth


@st.composite
def day_fields(draw):
    """The three fields of the day as text, and the rule that says whether a date matches them."""
    of_month, month_day = draw(day_of_month_fields())
    months, in_months = draw(number_fields(1, 12, MONTHS))
    of_week, week_day = draw(day_of_week_fields())
    both = of_month.startswith("*") or of_week.startswith("*")

    def rule(day):
        if day.month not in in_months:
            return False
        return (month_day(day) and week_day(day)) if both else (month_day(day) or week_day(day))

    return f"{of_month} {months} {of_week}", rule


ANY_DAY = st.just(("* * *", lambda day: True))
DAYS = st.one_of(ANY_DAY, ANY_DAY, day_fields())


def offset(instant, zone):
    return instant.astimezone(zone).utcoffset()


@st.composite
def spans(draw, length):
    """A zone and an instant in it, as often as not within `length` before a change of its clock."""
    name = draw(st.one_of(st.sampled_from(CHANGING), st.sampled_from(ZONES)))
    zone = zoneinfo.ZoneInfo(name)
    start = datetime(draw(st.integers(1975, 2037)), 1, 1, tzinfo=UTC) + draw(st.integers(0, 525_599)) * MINUTE
    if draw(st.booleans()):
        day = timedelta(days=1)
        changes = [n for n in range(366) if offset(start + n * day, zone) != offset(start + (n + 1) * day, zone)]
        if changes:
            start += changes[0] * day - draw(st.integers(0, int(length / MINUTE) // 2)) * MINUTE
    return name, start


def looked_up(rule, fields, span, *, fixed, gap, fold, unit, length):
    """Every fire after the start of the span, by looking at the clock at each `unit` of time."""
    seconds, minutes, hours = fields
    name, start = span
    zone = zoneinfo.ZoneInfo(name)
    days = {}

    def matches(shown):
        if shown.minute not in minutes or shown.hour not in hours or shown.second not in seconds:
            return False
        return days.setdefault(shown.date(), rule(shown.date()))

    before = start.astimezone(zone)
    for n in range(1, length // unit + 1):
        instant = start + n * unit
        local = instant.astimezone(zone)
        missed = local.replace(tzinfo=None) - before.replace(tzinfo=None) - unit
        skipped = [local.replace(tzinfo=None) - k * unit for k in range(1, missed // unit + 1)]
        makes_up = fixed and gap == "after" and missed < timedelta(days=1) and any(map(matches, skipped))
        if makes_up or (matches(local) and not (fixed and fold == "once" and local.fold)):
            yield instant
        before = local


def assert_agrees(cron, span, expected, length, probes):
    _, start = span
    end = start + length
    found = []
    instant = cron.after(start)
    while instant is not None and instant <= end:
        assert not found or instant > found[-1]
        assert instant.tzinfo is UTC
        found.append(instant)
        instant = cron.after(instant)
    assert found == expected
    assert cron.count(start, end) == len(expected)
    for probe in probes:
        inside = start + probe * length
        earlier = [fire for fire in expected if fire <= inside]
        assert cron.count(start, inside) == len(earlier)
        latest = cron.latest(inside)
        assert latest == earlier[-1] if earlier else latest is None or latest <= start


PROBES = st.lists(st.floats(0, 1), min_size=3, max_size=3)
GAPS, FOLDS = st.sampled_from(("after", "skip")), st.sampled_from(("once", "both"))
CHANGES = timedelta(hours=40)


@settings(max_examples=200, deadline=None)
@given(spans(CHANGES), number_fields(0, 59), number_fields(0, 23), DAYS, GAPS, FOLDS, PROBES)
def test_five_fields_fire_exactly_when_looking_at_the_clock_each_minute_says_so(
    span, minute, hour, days, gap, fold, probes
):
    expression = f"{minute[0]} {hour[0]} {days[0]}"
    fixed = not minute[0].startswith("*") and not hour[0].startswith("*")
    try:
        cron = Cron(expression, timezone=span[0], gap=gap, fold=fold)
    except BadCron as error:
        assert "never fire" in str(error)
        assume(False)
    fields = ({0}, minute[1], hour[1])
    walk = looked_up(days[1], fields, span, fixed=fixed, gap=gap, fold=fold, unit=MINUTE, length=CHANGES)
    assert_agrees(cron, span, list(walk), CHANGES, probes)


AN_HOUR_OR_SO = timedelta(minutes=100)


@settings(max_examples=50, deadline=None)
@given(spans(AN_HOUR_OR_SO), number_fields(0, 59), number_fields(0, 59), number_fields(0, 23), PROBES)
def test_six_fields_follow_the_clock_second_by_second(span, second, minute, hour, probes):
    cron = Cron(f"{second[0]} {minute[0]} {hour[0]} * * *", timezone=span[0])
    fields = (second[1], minute[1], hour[1])
    walk = looked_up(
        lambda day: True, fields, span, fixed=False, gap="skip", fold="both", unit=SECOND, length=AN_HOUR_OR_SO
    )
    assert_agrees(cron, span, list(walk), AN_HOUR_OR_SO, probes)


@settings(max_examples=60, deadline=None)
@given(day_fields(), day_fields(), st.integers(0, 59), st.integers(0, 23))
def test_the_days_are_found_once_for_all_times_of_day(days, others, minute, hour):
    """A thousand crons took 0.6 s to make and ask, nearly all of it to find the same days again, and kept each their own."""
    (text, _), (other, _) = days, others
    with suppress(BadCron):
        found = fields_of(Cron(f"0 0 {text}").expression).days_of(2026)
        assert fields_of(Cron(f"{minute} {hour} {text}").expression).days_of(2026) is found
        assert fields_of(Cron(f"7 {minute} {hour} {text}").expression).days_of(2026) is found
        at_others = fields_of(Cron(f"0 0 {other}").expression).days_of(2026)
        assert (at_others is found) == (Cron(f"0 0 {text}") == Cron(f"0 0 {other}"))


@settings(max_examples=150, deadline=None)
@given(day_fields(), st.integers(2, 9990))
@example(("29 2 *", lambda day: (day.month, day.day) == (2, 29)), 1896)
def test_the_days_are_those_of_the_vixie_rule_and_what_never_matches_is_refused(days, year):
    text, rule = days
    start, end = date(year, 1, 1), date(year + 8, 1, 1)
    expected = [day for n in range((end - start).days) if rule(day := start + timedelta(n))]
    try:
        cron = Cron(f"0 0 {text}")
    except BadCron as error:
        assert "never fire" in str(error)
        assert not expected
        return
    low, high = (datetime(day.year, 1, 1, tzinfo=UTC) - SECOND for day in (start, end))
    assert cron.count(low, high) == len(expected)
    assert cron.describe()
    instant = low
    for day in expected[:50]:
        instant = cron.after(instant)
        assert instant.date() == day
    assert parse(str(cron)) == cron


INSTANTS = st.datetimes(timezones=st.just(UTC))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES), number_fields(0, 59), number_fields(0, 23), DAYS, GAPS, FOLDS, INSTANTS)
def test_in_every_zone_and_year_the_three_questions_agree(zone, minute, hour, days, gap, fold, instant):
    try:
        cron = Cron(f"{minute[0]} {hour[0]} {days[0]}", timezone=zone, gap=gap, fold=fold)
    except BadCron:
        assume(False)
    following, latest = cron.after(instant), cron.latest(instant)
    if following is not None:
        assert following > instant
        assert cron.latest(following) == following
        assert cron.latest(following - SECOND / 2) == latest
        assert cron.count(instant, following) == 1
    if latest is not None:
        assert latest <= instant
        assert cron.after(latest) == following
        assert cron.count(latest, instant) == 0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(CHANGING), number_fields(0, 23), st.integers(1975, 2200), GAPS, FOLDS)
def test_a_count_over_years_is_the_number_of_steps_of_a_walk(zone, hour, year, gap, fold):
    cron = Cron(f"30 {hour[0]} */9 * *", timezone=zone, gap=gap, fold=fold)
    start, end = (datetime(y, 3, 7, 12, tzinfo=UTC) for y in (year, year + 2))
    steps, instant = 0, cron.after(start)
    while instant <= end:
        steps, instant = steps + 1, cron.after(instant)
    assert cron.count(start, end) == steps


@pytest.mark.parametrize("zone", ["Europe/London", "Africa/Casablanca", "Asia/Gaza", "America/Santiago", "Asia/Tokyo"])
def test_a_count_over_many_centuries_is_the_sum_of_its_parts(zone):
    cron = Cron("17 1,23 * * *", timezone=zone, gap="skip", fold="both")
    ends = [datetime(year, 5, 5, tzinfo=UTC) for year in (1990, 2026, 2090, 2400, 2600, 2999)]
    parts = [cron.count(low, high) for low, high in pairwise(ends)]
    assert sum(parts) == cron.count(ends[0], ends[-1])


def test_every_zone_of_the_system_can_be_used():
    start = datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)
    for zone in ZONES:
        cron = Cron("*/30 * * * *", timezone=zone)
        assert timedelta(0) < cron.after(start) - start <= 30 * MINUTE


def test_no_zone_has_rules_where_none_are_looked_for():
    """Holds for any tzdata: nothing before 1800, and after 2100 the rules of each zone repeat every 400 years."""
    for name in ZONES:
        zone = zoneinfo.ZoneInfo(name)
        assert offset(datetime(1, 1, 3, tzinfo=UTC), zone) == offset(datetime(1800, 1, 1, tzinfo=UTC), zone)
        for month in range(1, 13):
            late = datetime(2100, month, 15, tzinfo=UTC)
            assert offset(late, zone) == offset(late.replace(year=2500), zone) == offset(late.replace(year=9700), zone)


def test_no_zone_is_changed_there_and_back_between_two_glances():
    """Holds for any tzdata: three days apart up to the year 2100, two weeks apart after it."""
    for name in CHANGING:
        zone = zoneinfo.ZoneInfo(name)
        for year, glance in ((2010, 3), (2026, 3), (2100, 14), (2401, 14)):
            offsets = [offset(datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=n), zone) for n in range(366)]
            for n in range(len(offsets) - glance):
                if offsets[n] == offsets[n + glance]:
                    assert set(offsets[n : n + glance]) == {offsets[n]}


HOSTILE = [
    "0-99999999 * * * *",
    "99999999999999999999 * * * *",
    "*/99999999 * * * *",
    "* * * * " + ",".join("0" * 100),
    "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *",
    "0 0 */31 * 1#5",
    "0 0 30,31 2 */7",
    "59 59 23 */31 2-12/12 1#5",
    "* * * * * * * * * *",
    "\0",
    "@" * 200,
    "," * 200,
    "/" * 200,
    "-" * 200,
    "0 0 * * 1#" + "1" * 150,
    "０ ０ * * *",
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_a_hostile_expression_is_refused_in_no_time(expression):
    Cron("* * * * *")
    started = time.process_time()
    with pytest.raises(BadCron):
        Cron(expression)
    assert time.process_time() - started < 0.5  # a collection of garbage may fall into it


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text("0123456789*/,-#LW? SUNMOJA@", max_size=30),
        st.text("0123*/,-L# ", max_size=20).map("0 0 {} * *".format),
    )
)
def test_any_text_at_all_is_an_expression_that_fires_or_is_refused_as_a_bad_one(text):
    try:
        cron = Cron(text)
    except BadCron as error:
        assert error.expression == text
        return
    assert cron.after(datetime(2026, 1, 1, tzinfo=UTC)) is not None
    assert cron.describe()


@pytest.mark.parametrize(
    ("expression", "gap"),
    [("* * * * * *", "after"), ("0 0 29 2 */7", "after"), ("30 2 8-14 3 */7", "skip")],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Australia/Lord_Howe"])
def test_no_question_takes_longer_than_a_second(expression, gap, zone):
    cron = Cron(expression, timezone=zone, gap=gap)
    low, high = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for question in (
        lambda: cron.count(low, high),
        lambda: cron.after(datetime(2026, 1, 1, tzinfo=UTC)),
        lambda: cron.after(low),
        lambda: cron.latest(high),
    ):
        started = time.process_time()
        question()
        assert time.process_time() - started < 1
