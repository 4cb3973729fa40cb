"""How long before which attempt, and what a job can say about it."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop.errors import BadDuration, BadInstant, BadJob, TaskloopError
from taskloop.retry import Fatal, Retry, RetryAt

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def seconds(*values):
    return [timedelta(seconds=value) for value in values]


def test_without_a_word_a_job_is_called_once():
    assert Retry() == Retry(1, "1s", 2.0, "1h", 0.0, Exception)
    assert Retry().attempts == 1


def test_the_waits_grow_by_the_factor_up_to_max():
    retry = Retry(attempts=9, first="2s", factor=3, max="1m")
    assert [retry.delay(n) for n in range(1, 7)] == seconds(2, 6, 18, 54, 60, 60)


def test_a_factor_of_one_waits_the_same_each_time():
    retry = Retry(attempts=3, first="5s", factor=1)
    assert [retry.delay(n) for n in (1, 2, 10**6, 10**400)] == seconds(5, 5, 5, 5)


def test_max_may_be_less_than_first():
    assert Retry(first="1h", max="1m").delay(1) == timedelta(minutes=1)
    assert Retry(first="1h", max="1m", factor=1).delay(10**400) == timedelta(minutes=1)


def test_a_first_wait_of_zero_stays_zero():
    assert Retry(first=0).delay(10**400) == timedelta(0)


@given(
    st.integers(1, 10**400),
    st.timedeltas(timedelta(0), timedelta(days=36_525)),
    st.floats(1, 1.7e308),
    st.timedeltas(timedelta(0), timedelta(days=36_525)),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_no_attempt_overflows_and_jitter_stays_within_its_share(n, first, factor, longest, jitter, chance):
    retry = Retry(attempts=2, first=first, factor=factor, max=longest, jitter=jitter)
    wait = retry.delay(n)
    assert timedelta(0) <= wait <= longest
    spread = retry.jittered(n, chance)
    assert timedelta(0) <= spread
    assert abs(spread - wait) <= wait * jitter + timedelta(microseconds=1)


def test_jitter_reaches_from_its_lower_to_its_upper_end():
    retry = Retry(attempts=2, first="10s", jitter=0.5)
    assert [retry.jittered(1, chance) for chance in (0, 0.5, 0.75)] == seconds(5, 10, 12.5)


@pytest.mark.parametrize("chance", [-0.1, 1, 2, float("nan")])
def test_a_chance_outside_its_range_is_a_mistake_of_the_caller(chance):
    with pytest.raises(ValueError, match="chance"):
        Retry().jittered(1, chance)


def test_attempts_are_counted_from_one():
    with pytest.raises(ValueError, match="counted from 1"):
        Retry().delay(0)


class HostileError(Exception):
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "retry attempts is 0, allowed 1 to 1000"),
        ({"attempts": 1001}, "attempts is 1001"),
        ({"attempts": True}, "attempts is True"),
        ({"attempts": 2.0}, "attempts is 2.0"),
        ({"attempts": "3"}, "attempts is '3'"),
        ({"attempts": HostileError()}, "attempts is a HostileError"),
        ({"attempts": 10**5000}, "attempts is a int"),
        ({"factor": 0.5}, "retry factor is 0.5, allowed a finite number from 1"),
        ({"factor": float("inf")}, "factor is inf"),
        ({"factor": float("nan")}, "factor is nan"),
        ({"factor": 10**400}, "factor is 1000"),
        ({"factor": True}, "factor is True"),
        ({"factor": "2"}, "factor is '2'"),
        ({"jitter": -0.1}, "retry jitter is -0.1, allowed a finite number from 0 to 1"),
        ({"jitter": 1.1}, "jitter is 1.1"),
        ({"on": "ValueError"}, "on is 'ValueError', allowed an exception class"),
        ({"on": ()}, "on is (), allowed"),
        ({"on": (ValueError, int)}, "allowed an exception class"),
        ({"on": KeyboardInterrupt}, "allowed an exception class"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_the_field_the_value_and_what_is_allowed(options, says):
    with pytest.raises(BadJob) as caught:
        Retry(**options)
    assert says in str(caught.value)


def test_a_bad_wait_is_a_bad_duration():
    with pytest.raises(BadDuration):
        Retry(first="soon")
    with pytest.raises(BadDuration):
        Retry(max=-1)


def test_short_forms_stand_for_a_policy():
    retry = Retry(attempts=3, first="2s")
    assert Retry.of(3) == Retry(attempts=3)
    assert Retry.of(None) == Retry()
    assert Retry.of(retry) is retry
    assert Retry.of({"attempts": 3, "first": "2s"}) == retry
    assert Retry.of({"on": "ValueError"}) == Retry(on=ValueError)
    assert Retry.of({"on": ["ValueError", "OSError", KeyError]}) == Retry(on=(ValueError, OSError, KeyError))
    with pytest.raises(BadJob, match="attempts is 'three'"):
        Retry.of("three")


def test_a_table_with_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(BadJob, match=r"retry has no 'atempts', allowed attempts, .*; did you mean 'attempts'\?"):
        Retry.of({"atempts": 3})
    with pytest.raises(BadJob, match="max, jitter, on$"):
        Retry.of({"zzz": 3})


@pytest.mark.parametrize("name", ["shop.Error", "print", "int", "KeyboardInterrupt"])
def test_a_table_can_name_built_in_exceptions_only(name):
    with pytest.raises(BadJob, match="built-in exception"):
        Retry.of({"on": name})


def test_a_policy_is_a_value():
    retry = Retry(attempts=3, on=(ValueError,))
    assert pickle.loads(pickle.dumps(retry)) == retry
    assert hash(retry) == hash(Retry(attempts=3, on=ValueError))
    with pytest.raises(AttributeError):
        retry.attempts = 4


@pytest.mark.parametrize("when", ["5m", "+5m", 300, timedelta(minutes=5), NOW + timedelta(minutes=5)])
def test_a_job_can_say_when_to_try_again(when):
    word = RetryAt(when)
    assert word.when == when
    assert word.resolve(NOW) == NOW + timedelta(minutes=5)
    assert word.resolve(NOW).tzinfo is UTC
    assert str(when) in str(word)


def test_a_job_may_name_the_instant_in_its_own_zone_and_one_that_has_passed():
    here = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))
    assert RetryAt(here).resolve(NOW) == NOW - timedelta(hours=1)
    assert RetryAt("2026-03-01T11:00Z").resolve(NOW) == NOW - timedelta(hours=1)


@pytest.mark.parametrize("when", ["soon", datetime(2026, 3, 1), None, -5, True])
def test_a_word_that_cannot_be_read_fails_where_it_is_raised(when):
    with pytest.raises(BadInstant):
        RetryAt(when)


def test_the_words_of_a_job_come_home_from_another_process():
    word, end = (pickle.loads(pickle.dumps(one)) for one in (RetryAt("5m"), Fatal("no such customer")))
    assert word.resolve(NOW) == NOW + timedelta(minutes=5)
    assert (end.reason, str(end)) == ("no such customer", "no such customer")
    assert isinstance(word, TaskloopError)
    assert isinstance(end, TaskloopError)
    assert str(Fatal()) == ""
