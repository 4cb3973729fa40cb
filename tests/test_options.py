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
        ({"heartbeat": timedelta(20)}, "lease is 0:00:15; longer than heartbeat, 20 days, 0:00:00, is allowed"),
    ],
)
def test_what_an_option_cannot_be_is_refused(given: dict[str, Any], text: str):
    with pytest.raises(BadSettings) as caught:
        Options(**given)
    assert caught.value.problems == [text]


def test_one_name_in_the_place_of_a_list_of_hosts_is_refused():
    with pytest.raises(BadSettings, match=r"hosts is 'jobs\.example'; a list of names is allowed, such as"):
        Http(hosts="jobs.example")


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(BadSettings) as caught:
        Options(interval=ZERO, dev=ZERO, threads=0)
    assert len(caught.value.problems) == 3


def test_nothing_and_none_are_allowed_where_they_mean_something():
    some = Options(grace=ZERO, kill_grace=ZERO, keep=None, dev=None, max_runtime=None, loop_limit=None)
    assert not some.grace and some.keep is None
