"""The feed: who hears what, and that nobody's trouble is another's."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from taskloop.errors import BadValue
from taskloop.events import EVENTS, Event, Feed
from taskloop.runs import Run

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(job="a", due_at=NOW, ready_at=NOW, created_at=NOW)


def test_a_subscriber_hears_the_events_of_its_names_in_order():
    feed, heard = Feed(), []
    feed.subscribe(heard.append, "failed", "started")
    feed.send("started", NOW, RUN)
    feed.send("succeeded", NOW, RUN)
    feed.send("failed", NOW, RUN, reason="no")
    assert heard == [Event("started", NOW, RUN, "a"), Event("failed", NOW, RUN, "a", {"reason": "no"})]


def test_who_names_none_hears_every_event():
    feed, heard = Feed(), []
    feed.subscribe(heard.append)
    for name in sorted(EVENTS):
        feed.send(name, NOW, job="b")
    assert [(event.name, event.run, event.job) for event in heard] == [(name, None, "b") for name in sorted(EVENTS)]


def test_subscribers_are_told_in_the_order_they_came():
    feed, heard = Feed(), []
    for number in range(3):
        feed.subscribe(lambda _, number=number: heard.append(number), "failed")
    feed.send("failed", NOW)
    assert heard == [0, 1, 2]


def test_what_a_subscriber_raises_concerns_nobody_else():
    feed, heard = Feed(), []

    def fail(event: Event) -> None:
        raise RuntimeError(event.name)

    feed.subscribe(fail)
    feed.subscribe(heard.append)
    feed.send("failed", NOW)
    assert len(heard) == 1


def test_an_unknown_event_is_refused_with_the_one_that_was_meant_and_nothing_is_subscribed():
    feed = Feed()
    with pytest.raises(BadValue, match=r"no event 'faild'; did you mean 'failed'\? events are: .*store_lost"):
        feed.subscribe(print, "started", "faild")
    with pytest.raises(TypeError, match=r"an event is named by a text, got list; write on\('failed', 'skipped'\)"):
        feed.subscribe(print, ["failed", "skipped"])
    with pytest.raises(BadValue, match="no event 'zzz'; events are"):
        feed.subscribe(print, "zzz")
    assert not any(feed.wanted(name) for name in EVENTS)


def test_an_event_is_wanted_as_long_as_somebody_listens():
    feed = Feed()
    assert not feed.wanted("failed")
    end = feed.subscribe(print, "failed")
    assert feed.wanted("failed")
    assert not feed.wanted("started")
    end()
    assert not feed.wanted("failed")
    end()


def test_ending_one_subscription_leaves_the_others_of_the_same_listener():
    feed, heard = Feed(), []
    listener = heard.append
    end = feed.subscribe(listener, "failed")
    feed.subscribe(listener, "started")
    end()
    feed.send("failed", NOW)
    feed.send("started", NOW)
    assert [event.name for event in heard] == ["started"]


def test_a_subscriber_may_leave_while_it_is_told():
    feed, heard = Feed(), []
    end = feed.subscribe(lambda event: (heard.append(event.name), end()), "failed")
    feed.subscribe(lambda event: heard.append("second"), "failed")
    feed.send("failed", NOW)
    feed.send("failed", NOW)
    assert heard == ["failed", "second", "second"]


def test_an_event_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Event("failed", NOW).name = "started"


def test_the_events_are_those_of_the_contract():
    assert (
        set(
            "submitted started progress step_started step_done step_kept succeeded failed retrying cancelled interrupted "
            "skipped overdue recovered paused resumed disabled enabled loop_blocked store_lost store_back".split()
        )
        == EVENTS
    )


def test_the_data_of_an_event_may_name_a_run_that_is_over():
    feed, heard = Feed(), []
    feed.subscribe(heard.append)
    feed.send("loop_blocked", NOW, None, "a", run=7, name="hold")
    assert (heard[0].run, heard[0].job, heard[0].data) == (None, "a", {"run": 7, "name": "hold"})
