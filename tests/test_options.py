"""What a scheduler is told in code: what cannot be is refused, all of it at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskloop import Options
from taskloop.errors import BadSettings
from taskloop.options import Http

ZERO = timedelta(0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"keep": "10d"}, "keep is '10d'; a timedelta above zero is allowed, or None"),
        ({"lease": None}, "lease is None; a timedelta above zero is allowed"),
        ({"heartbeat": ZERO}, "heartbeat is datetime.timedelta(0); a timedelta above zero is allowed"),
        ({"grace": -timedelta(1)}, "grace is datetime.timedelta(days=-1); a timedelta of zero or more is allowed"),
        ({"max_running": 0}, "max_running is 0; a whole number from 1 is allowed"),
        ({"threads": "4"}, "threads is '4'; a whole number from 1 is allowed"),
        ({"threads": True}, "threads is True; a whole number from 1 is allowed"),
        ({"capture": -1}, "capture is -1; a whole number from 0 is allowed"),
        ({"statement_cache_size": "off"}, "statement_cache_size is 'off'; a whole number from 0 is allowed"),
        ({"groups": {"mail": 0}}, "groups['mail'] is 0; a whole number from 1 is allowed"),
        ({"groups": ["mail"]}, "groups is ['mail']; a mapping is allowed"),
        ({"enabled": "no"}, "enabled is 'no'; True or False is allowed"),
        ({"synchronous": "FULL"}, "synchronous is 'FULL'; 'full' or 'normal' is allowed"),
        ({"http": {"token": "x"}}, "http is a dict; Http(...) of taskloop.options is allowed"),
        ({"triggers": "5m"}, "triggers is '5m'; a mapping is allowed"),
        ({"store_url": None}, "store_url is None; a text is allowed"),
        ({"timezone": 1}, "timezone is 1; a text is allowed"),
        ({"heartbeat": timedelta(20)}, "lease is 0:00:15; longer than heartbeat, 20 days, 0:00:00, is allowed"),
    ],
)
def test_what_an_option_cannot_be_is_refused(given: dict[str, Any], text: str):
    with pytest.raises(BadSettings) as caught:
        Options(**given)
    assert caught.value.problems == [text]


def test_what_is_no_trigger_is_refused_with_the_job_that_it_is_for():
    with pytest.raises(BadSettings, match=r"^triggers\['report'\]: .*a str is no trigger; write Every\('5m'\)"):
        Options(triggers={"report": "5m"})


def test_one_name_in_the_place_of_a_list_of_hosts_is_refused():
    with pytest.raises(BadSettings, match=r"hosts is 'jobs\.example'; a list of names is allowed, such as"):
        Http(hosts="jobs.example")


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(BadSettings) as caught:
        Options(interval=ZERO, dev=ZERO, threads=0)
    assert len(caught.value.problems) == 3


def test_nothing_and_none_are_allowed_where_they_mean_something():
    some = Options(grace=ZERO, kill_grace=ZERO, keep=None, dev=None, max_runtime=None, loop_limit=None, capture=0)
    assert not some.grace and some.keep is None
