"""Switches: what the intervals in which a job was on, off or held mean for it now and for a fire they held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskloop.switches import InForce, Switch, Switches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def switch(kind: Any = "disabled", job: str | None = "a", since: datetime = NOW, **changes: Any) -> Switch:
    return Switch(kind, job, since, **changes)


@pytest.mark.parametrize(
    ("one", "holds"),
    [
        (switch(), True),
        (switch(until=at(1)), True),
        (switch(until=NOW), False),
        (switch(ended_at=at(-1)), False),
    ],
)
def test_a_switch_holds_until_it_is_ended_or_runs_out(one, holds):
    assert one.holds(NOW) is holds


def test_the_last_switch_in_force_of_any_name_of_a_job_says_whether_it_is_on():
    off, on = switch(), switch("enabled", "old")
    assert Switches([off, on]).thrown(["a", "old"], NOW) is on
    assert Switches([on, off]).thrown(["a", "old"], NOW) is off
    assert InForce(Switches([off, on]), NOW).thrown(["a", "old"]) is on
    assert InForce(Switches([on, off, switch(until=NOW)]), NOW).thrown(["a", "old"]) is off
    assert InForce(Switches([off]), NOW).thrown(["b"]) is None
    assert Switches([off]).thrown(["b"], NOW) is None
    assert Switches([switch("paused")]).thrown(["a"], NOW) is None
    assert Switches([switch(until=NOW)]).thrown(["a"], NOW) is None
    assert Switches().thrown(["a"], NOW) is None


def test_a_job_is_held_by_its_own_pause_or_that_of_all():
    own, all_ = switch("paused"), switch("paused", None)
    assert Switches([own]).pause("a", NOW) is own
    assert Switches([own]).pause("b", NOW) is None
    assert Switches([all_]).pause("b", NOW) is all_
    assert [InForce(Switches([own]), NOW).pause(job) for job in "ab"] == [own, None]
    assert [InForce(Switches([all_, own]), NOW).pause(job) for job in "ab"] == [own, all_]
    assert Switches([own, all_]).pause(None, NOW) is all_
    assert Switches([switch()]).pause("a", NOW) is None
    assert Switches([switch("paused", until=NOW)]).pause("a", NOW) is None


class Name(str):
    """A name that counts how often it was compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)


def test_each_of_a_thousand_jobs_looks_at_its_own_switches_alone():
    """All of them ask at each switch that is thrown: with half of 4,000 paused that held the loop for 0.4 seconds."""
    names = [f"job-{number}" for number in range(1000)]
    switches = Switches(
        [switch("paused", Name(name)) for name in names] + [switch("tripped", Name(name)) for name in names]
    )
    for name in names:
        assert switches.pause(name, NOW).job == switches.tripped(name).job == switches.thrown([name], NOW).job == name
        assert not switches.over(name, NOW)
        assert switches.held_by(name, NOW) is None
        assert not switches.verdict([name, "old"], NOW, declared=True).on
    assert Name.compared < 30 * len(names)


def test_the_next_end_is_that_of_the_first_in_force_to_run_out():
    found = Switches([switch(until=at(9)), switch("paused", until=at(5)), switch(until=at(-1)), switch(job="b")])
    assert found.next_end(NOW) == at(5)
    assert Switches([switch()]).next_end(NOW) is None


@pytest.mark.parametrize(
    ("pause", "due", "watched"),
    [
        (switch("paused", ended_at=at(10), missed="all"), at(5), (at(10), "all")),
        (switch("paused", None, ended_at=at(10)), at(5), (at(10), None)),
        (switch("paused", until=at(10)), at(5), (at(10), None)),
        (switch("paused", ended_at=at(10)), NOW, (at(10), None)),
        (switch("paused", ended_at=at(10)), at(10), (NOW, None)),
        (switch("paused", ended_at=at(10)), at(-1), (NOW, None)),
        (switch("paused", "b", ended_at=at(10)), at(5), (NOW, None)),
        (switch("paused"), at(5), (NOW, None)),
        (switch(ended_at=at(10)), at(5), (NOW, None)),
    ],
)
def test_a_fire_that_a_pause_held_was_watched_from_its_end_on(pause, due, watched):
    assert Switches([pause]).settling("a", due, NOW) == watched


def test_a_watch_that_began_after_the_pause_began_then():
    pause = switch("paused", since=at(-60), ended_at=at(-30), missed="skip")
    assert Switches([pause]).settling("a", at(-45), NOW) == (NOW, "skip")


# -- verdicts and breakers


def test_a_job_is_on_as_declared_unless_it_was_switched():
    assert Switches().verdict(["a"], NOW, declared=True) == (True, False, {})
    assert Switches().verdict(["a"], NOW, declared=False) == (False, False, {"disabled_by": "its declaration"})
    assert Switches([switch("enabled")]).verdict(["a"], NOW, declared=False).on


def test_the_verdict_on_a_job_that_is_off_says_who_and_why():
    off = switch(actor="tom", reason="migration")
    assert Switches([off]).verdict(["a"], NOW, declared=True).because == {
        "disabled_by": "tom", "disabled_since": "2026-03-01T12:00:00Z", "disabled_reason": "migration"
    }  # fmt: skip


def test_a_breaker_is_off_until_its_time_and_then_on_trial_until_it_is_ended():
    tripped = switch("tripped", actor="taskloop", until=at(60))
    assert Switches([tripped]).verdict(["a"], at(59), declared=True)[:2] == (False, False)
    assert Switches([tripped]).verdict(["a"], at(60), declared=True)[:2] == (True, True)
    assert Switches([tripped]).verdict(["a"], at(60), declared=False)[:2] == (False, False)
    assert Switches([switch("tripped", until=at(60), ended_at=at(61))]).verdict(["a"], at(62), declared=True)[:2] == (
        True,
        False,
    )
    assert not Switches([tripped]).on_trial(["b"], at(60))


def test_of_several_pauses_that_held_a_fire_the_one_that_ended_last_counts():
    one, two = switch("paused", ended_at=at(10)), switch("paused", None, ended_at=at(20), actor="eve")
    assert Switches([one, two]).held_by("a", at(5)) is two
    assert Switches([two, one]).held_by("a", at(5)) is two
    assert Switches([one]).held_by("a", at(15)) is None
    assert two.told("paused") == {"paused_by": "eve", "paused_since": "2026-03-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("pauses", "due", "upto"),
    [
        ([], 5, 60),
        ([switch("paused", ended_at=at(10))], 5, 60),
        ([switch("paused", ended_at=at(10), missed="latest")], 5, 60),
        ([switch("paused", ended_at=at(10), missed="skip")], 5, 10),
        ([switch("paused", ended_at=at(10), missed="skip")], 15, 60),
        ([switch("paused", ended_at=at(10), missed="skip"), switch("paused", since=at(10), ended_at=at(30))], 5, 10),
        (
            [
                switch("paused", ended_at=at(10), missed="skip"),
                switch("paused", None, since=at(8), ended_at=at(30), missed="skip"),
            ],
            5,
            30,
        ),
        (
            [
                switch("paused", ended_at=at(10), missed="all"),
                switch("paused", None, since=at(8), ended_at=at(30), missed="skip"),
            ],
            5,
            8,
        ),
        ([switch("paused", since=at(20), ended_at=at(30), missed="skip")], 5, 20),
        ([switch("paused", "b", ended_at=at(10), missed="skip"), switch(ended_at=at(10))], 5, 60),
    ],
)
def test_fires_are_settled_together_as_far_as_they_are_by_the_same_word(pauses, due, upto):
    found = Switches(pauses).alike_until("a", at(due), at(60), "latest")
    assert found == (at(60) if upto == 60 else at(upto) - timedelta(microseconds=1))


def test_a_pause_that_ended_before_an_instant_has_nothing_to_say_of_it():
    before, after = switch("paused", ended_at=at(5)), switch("paused", None, since=at(8), ended_at=at(10))
    assert Switches([before, after, switch("paused"), switch("paused", "b", ended_at=at(10))]).over("a", at(5)) == (
        after,
    )
