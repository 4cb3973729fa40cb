"""The policy of a job: what is read, what is refused with which mend, and which layer wins."""

from __future__ import annotations

from datetime import timedelta
from typing import get_type_hints

import pytest

from taskloop.errors import BadJob
from taskloop.policy import OPTIONS, Policy, PolicyOptions, called_elsewhere, read_option
from taskloop.retry import Retry

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("timeout", "1m", MINUTE),
        ("timeout", 60, MINUTE),
        ("timeout", MINUTE, MINUTE),
        ("timeout", None, None),
        ("timeout", "off", None),
        ("retry", 3, Retry(attempts=3)),
        ("retry", Retry(attempts=2), Retry(attempts=2)),
        ("retry", {"attempts": 4, "first": "2s"}, Retry(attempts=4, first="2s")),
        ("overlap", "queue", "queue"),
        ("missed", "all", "all"),
        ("missed_limit", 1, 1),
        ("missed_limit", 100_000, 100_000),
        ("max_late", "1h", timedelta(hours=1)),
        ("on_crash", "fail", "fail"),
        ("on_crash", None, None),
        ("group", "worker", "worker"),
        ("group", None, None),
        ("max_running", 1, 1),
        ("max_running", None, None),
        ("first", "aligned", "aligned"),
        ("on_start", True, True),
        ("enabled", False, False),
        ("spread", "10m", timedelta(minutes=10)),
        ("executor", "thread", "thread"),
        ("priority", -5, -5),
        ("tags", ["a", "b"], ("a", "b")),
        ("tags", (), ()),
        ("title", "Nightly 🙂", "Nightly 🙂"),
        ("description", None, None),
        ("keep", "7d", timedelta(days=7)),
        ("keep", None, None),
        ("keep_runs", 10, 10),
        ("keep_runs", None, None),
        ("expect", "20m", 20 * MINUTE),
        ("pause_after", 5, 5),
        ("pause_after", None, None),
        ("trial_after", "10m", 10 * MINUTE),
        ("submit_limit", "5/1h", (5, 60 * MINUTE)),
        ("submit_limit", None, None),
        ("submit_limit", "off", None),
        ("group", "x" * 128, "x" * 128),
        ("ping", None, None),
        ("ping", "off", None),
        (
            "ping",
            "https://hc.example/a/",
            {
                "start": "https://hc.example/a/start",
                "success": "https://hc.example/a",
                "fail": "https://hc.example/a/fail",
            },
        ),
        (
            "ping",
            "http://hc.example/a?k=1",
            {
                "start": "http://hc.example/a/start?k=1",
                "success": "http://hc.example/a?k=1",
                "fail": "http://hc.example/a/fail?k=1",
            },
        ),
        ("ping", {"fail": "https://hc.example/x"}, {"fail": "https://hc.example/x"}),
        (
            "ping",
            {"success": "https://hc.example/b", "start": "https://hc.example/a", "fail": "https://hc.example/c"},
            {"start": "https://hc.example/a", "success": "https://hc.example/b", "fail": "https://hc.example/c"},
        ),
    ],
)
def test_an_option_is_read_in_each_of_its_forms(name, given, read):
    assert read_option(name, given) == read
    assert getattr(Policy.of("a", {name: given}), name) == read


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("timeout", 0, "a duration above zero is allowed, or None"),
        ("timeout", "0s", "a duration above zero"),
        ("timeout", -1, "timeout: duration -1"),
        ("timeout", "soon", "timeout: duration 'soon'"),
        ("timeout", True, "timeout: duration True"),
        ("retry", 0, "allowed 1 to 1000"),
        ("retry", {"atempts": 3}, "did you mean 'attempts'"),
        ("overlap", "skp", "allowed are 'skip', 'queue', 'replace', 'allow'; did you mean 'skip'"),
        ("overlap", None, "allowed are 'skip'"),
        ("overlap", ["skip"], "allowed are 'skip'"),
        ("missed", 3, "allowed are 'latest'"),
        ("missed", "never mind", "missed is 'never mind'; allowed are 'latest', 'all', 'skip'\n"),
        ("missed_limit", 0, "a whole number from 1 to 100000"),
        ("missed_limit", True, "a whole number"),
        ("missed_limit", 1.5, "a whole number"),
        ("max_running", 0, "a whole number from 1"),
        ("group", "", "a name of 1 to 128 characters"),
        ("group", "x" * 129, "a name of 1 to 128"),
        ("group", 3, "a name of 1 to 128"),
        ("enabled", "yes", "True or False"),
        ("on_start", 1, "True or False"),
        ("executor", "gpu", "allowed are"),
        ("priority", 10**7, "a whole number from -1000000 to 1000000"),
        ("priority", 2**63, "a whole number"),
        ("tags", "a,b", "a list of texts"),
        ("tags", [1], "a list of texts"),
        ("tags", 5, "a list of texts"),
        ("title", 5, "a text"),
        ("description", b"x", "a text"),
        ("keep", 0, "a duration above zero is allowed, or None for no limit"),
        ("keep_runs", 0, "a whole number from 1"),
        ("expect", "soon", "expect: duration 'soon'"),
        ("pause_after", 0, "a whole number from 1 to 1000000"),
        ("trial_after", None, "a duration above zero is allowed"),
        ("submit_limit", "5 an hour", "submit_limit: rate '5 an hour': allowed is a count from 1"),
        ("submit_limit", 5, 'such as "30/1m"'),
        ("ping", "hc.example/a", "an address such as"),
        ("ping", "https://hc.example/a b", "an address such as"),
        ("ping", "https://hc.example:port/a", "an address such as"),
        ("ping", "https://hc.example:99999/a", "an address such as"),
        ("ping", "https://hc.example:0/a", "an address such as"),
        ("ping", 5, "ping is 5; an address is allowed, or a table with some of start, success, fail"),
        ("ping", {"fail": 5}, "ping.fail is 5"),
        ("ping", {"end": "https://hc.example/x"}, "a table with some of start, success, fail"),
        ("ping", {}, "a table with some of"),
    ],
)
def test_what_an_option_cannot_be_is_refused_with_what_it_may_be(name, given, text):
    with pytest.raises(ValueError, match=name) as caught:
        read_option(name, given)
    assert isinstance(caught.value, BadJob)
    assert text in f"{caught.value}\n"


def test_an_unknown_option_is_refused_with_the_one_that_was_meant():
    with pytest.raises(BadJob, match=r"unknown option 'timout'; did you mean 'timeout'\? options are: .*timeout"):
        read_option("timout", 5)
    with pytest.raises(BadJob, match="unknown option 'zzz'; options are"):
        read_option("zzz", 5)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("misfire_grace_time", "max_late="),
        ("max_instances", "max_running="),
        ("args", "params="),
        ("minutes", "'1h30m'"),
        ("max_retries", "retry=3"),
        ("trigger", "every or cron"),
        ("every", "@scheduler.every('5m')"),
        ("cron", "every or cron"),
        ("time_limit", "timeout="),
        ("timezone", "of a cron alone"),
    ],
)
def test_an_option_of_another_scheduler_is_refused_with_what_it_is_here(name, here):
    with pytest.raises(BadJob, match=f"unknown option '{name}'; ") as caught:
        read_option(name, 5)
    assert here in str(caught.value).partition("options are")[0]
    assert "did you mean" not in str(caught.value)


def test_no_word_of_other_schedulers_is_an_option_here():
    assert [name for name in OPTIONS if called_elsewhere(name)] == []


def test_every_mistake_of_a_declaration_is_told_at_once():
    with pytest.raises(BadJob) as caught:
        Policy.of("mail", {"timeout": 0, "overlap": "x", "zzz": 1, "tags": 5})
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("job 'mail': ") for line in lines)


def test_a_later_layer_wins_and_what_it_does_not_say_stays():
    policy = Policy.of("a", {"timeout": "1m", "priority": 1}, {"timeout": "2m"}, {"timeout": None, "group": "g"})
    assert policy == Policy(timeout=None, priority=1, group="g")
    assert Policy.of("a") == Policy()


def test_to_repeat_after_a_crash_needs_an_attempt_to_repeat_with():
    with pytest.raises(
        BadJob, match=r"job 'a': on_crash='retry' needs an attempt.*retry=2 or more, or on_crash='fail'"
    ):
        Policy.of("a", {"on_crash": "retry"})
    with pytest.raises(BadJob, match="on_crash='retry'"):
        Policy.of("a", {"on_crash": "retry", "retry": 3}, {"retry": 1})
    assert Policy.of("a", {"on_crash": "retry"}, {"retry": 2}).repeatable


@pytest.mark.parametrize(
    ("options", "repeatable"),
    [
        ({}, False),
        ({"retry": 2}, True),
        ({"retry": 2, "on_crash": "fail"}, False),
        ({"retry": 2, "on_crash": "retry"}, True),
    ],
)
def test_an_attempt_that_was_cut_short_is_made_again_where_attempts_are_left_to_make(options, repeatable):
    assert Policy.of("a", options).repeatable is repeatable


@pytest.mark.parametrize(("options", "constrained"), [({}, False), ({"group": "g"}, True), ({"max_running": 1}, True)])
def test_a_job_is_constrained_by_its_group_and_its_own_limit(options, constrained):
    assert Policy.of("a", options).constrained is constrained


def test_the_typed_options_of_the_decorators_are_those_of_the_policy():
    assert set(PolicyOptions.__annotations__) == set(OPTIONS)
    assert set(get_type_hints(PolicyOptions)) == set(OPTIONS)
