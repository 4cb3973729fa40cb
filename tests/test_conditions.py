"""What needs a person: decided from values, with no store and no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskloop import conditions
from taskloop.records import Condition, Standing
from taskloop.runs import Run, RunId, State
from taskloop.store_data import Incident, Newest, Worker
from taskloop.switches import Switch

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=5)
WORKER = Worker("w1", None, "here", 7, "p", EARLIER, NOW)
RUN = Run(id=RunId(12), job="send", due_at=EARLIER, ready_at=EARLIER, created_at=EARLIER, attempt_started_at=EARLIER)
FAILED = Newest(RunId(12), State.FAILED, None, 2, "OSError: no route", EARLIER, begun=True)


def standing(condition: Condition, **more: Any) -> Standing:
    facts: dict[str, Any] = {"title": "Send"}
    one = Standing("send", facts, enabled=True, switch=None, condition=condition, next_due=EARLIER, newest=None)
    return one._replace(**more)


def texts(items: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(one["condition"], one["text"]) for one in items]


def test_a_worker_says_what_is_wrong_with_it_the_worst_first_and_who_is_silent_comes_last():
    blocked = {"job": "send", "run": 3, "ms": 2500, "where": "app.py:9"}
    off = replace(WORKER, health={"skew_ms": -2100.0, "blocked": blocked})
    away = replace(WORKER, id="w2", pid=8, health={"store": "it is away", "stalled": "it stands still"})
    silent = replace(WORKER, id="w3", pid=9, beat_at=EARLIER)
    assert texts(conditions.of_workers([off, silent, away], [off, away])) == [
        ("store", "here pid 8: it is away"),
        ("stalled", "here pid 8: it stands still"),
        ("loop_blocked", "here pid 7: its loop stands still for 2500 ms, by job 'send', run 3, at app.py:9"),
        ("clock", "here pid 7: its clock is 2.1 s ahead of that of the store's server"),
        ("silent", "here pid 9 has not beaten since 2026-03-04T05:01:07Z"),
    ]
    well = replace(WORKER, health={"skew_ms": 2000.0, "store": None})
    assert conditions.of_workers([well], [well]) == []


def test_of_many_that_are_silent_five_are_named():
    many = [replace(WORKER, id=f"w{number}") for number in range(9)]
    assert len(conditions.of_workers(many, [])) == 5


def test_a_worker_that_the_store_has_among_the_dead_speaks_for_itself():
    health = {"store": "a newer program has it"}
    assert texts(conditions.of_this_worker(WORKER, health, [])) == [("store", "here pid 7: a newer program has it")]
    assert conditions.of_this_worker(WORKER, health, [WORKER]) == []
    assert conditions.of_this_worker(WORKER, {}, []) == []


def test_where_the_clock_of_this_machine_is_off_it_is_said_once():
    apart = timedelta(seconds=3)
    here = [("clock", "here, where this is asked: its clock is 3.0 s behind that of the store's server")]
    assert texts(conditions.of_this_clock("here", [], apart)) == here
    assert texts(conditions.of_this_clock("here", [replace(WORKER, health={"skew_ms": 1900})], apart)) == here
    assert conditions.of_this_clock("here", [replace(WORKER, health={"skew_ms": 3000})], apart) == []
    assert texts(conditions.of_this_clock("here", [replace(WORKER, host="b", health={"skew_ms": 3000})], apart)) == here
    assert conditions.of_this_clock("here", [], timedelta(seconds=-2)) == []


def test_of_what_disturbed_the_loop_the_worst_is_told_and_of_clocks_the_newest():
    def blocked(ms: int) -> Incident:
        return Incident("w1", "loop_blocked", EARLIER, EARLIER, {"ms": ms, "where": "app.py:9", "task": "Task-3"})

    def stepped(seconds: float) -> Incident:
        return Incident("w1", "clock", EARLIER, EARLIER, {"step_seconds": seconds})

    found = [stepped(-3600), blocked(1200), stepped(40), blocked(5000), blocked(3000)]
    assert texts(conditions.of_incidents(found)) == [
        ("loop_blocked", "the loop stood still for 5000 ms, by Task-3, at app.py:9"),
        ("clock", "the clock went back by 3600 s"),
    ]
    assert texts(conditions.of_incidents([stepped(31)])) == [("clock", "the clock went forward by 31 s")]
    assert conditions.of_incidents([blocked(999), stepped(30), Incident("w1", "fenced", NOW, NOW)]) == []


def test_the_jobs_that_fail_come_first_then_who_hangs_then_who_is_late_then_who_has_no_program():
    jobs = [
        standing("orphan", name="gone"),
        standing("overdue", name="late"),
        standing("overdue", name="queued", troubled=RUN),
        standing("stuck", name="hung", troubled=RUN),
        standing("failing", name="send", newest=FAILED),
        standing("ok", name="well", newest=FAILED._replace(state=State.SUCCEEDED, failures=0)),
    ]
    items = conditions.of_jobs(jobs, True, NOW)
    assert [(one["condition"], one["job"], one["failures"]) for one in items] == [
        ("failing", "send", 2), ("stuck", "hung", 0), ("overdue", "late", 0), ("overdue", "queued", 0), ("orphan", "gone", 0)
    ]  # fmt: skip
    assert {one["since"] for one in items} == {"2026-03-04T05:01:07Z", None}
    assert [one["text"] for one in items[:4]] == [
        "OSError: no route", "run 12 has been running for 5 minutes", "due since 2026-03-04T05:01:07Z",
        "run 12 waits since 2026-03-04T05:01:07Z",
    ]  # fmt: skip
    assert "taskloop disable gone" in items[-1]["text"]
    assert [one["text"] for one in conditions.of_jobs(jobs[1:3], False, NOW)] == [
        "due since 2026-03-04T05:01:07Z; no worker runs", "run 12 waits since 2026-03-04T05:01:07Z; no worker runs"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "needs"),
    [
        (standing("ok"), None),
        (standing("running"), None),
        (standing("disabled", newest=FAILED), None),
        (standing("failing", newest=FAILED), "failing"),
        (standing("running", newest=FAILED._replace(state=State.RUNNING)), "failing"),
        (standing("paused", newest=FAILED), "failing"),
        (standing("paused"), None),
        (standing("paused", troubled=RUN), "stuck"),
        (standing("running", newest=FAILED._replace(state=State.CANCELLED)), None),
        (standing("orphan"), "orphan"),
        (standing("orphan", enabled=False), None),
        (standing("orphan", next_due=None), None),
        (standing("orphan", next_due=None, newest=FAILED), "orphan"),
    ],
)
def test_a_job_needs_somebody(one: Standing, needs: str | None):
    assert conditions.needs(one) == needs


def test_a_breaker_is_told_while_it_is_open():
    tripped = Switch("tripped", "send", EARLIER, "taskloop", "3 failures", NOW + timedelta(hours=1))
    switches = [tripped, replace(tripped, ended_at=NOW), replace(tripped, until=NOW), replace(tripped, kind="paused")]
    assert texts(conditions.of_breakers(switches, NOW)) == [("tripped", "3 failures")]


def test_a_worker_whose_store_is_away_tells_of_that_first_and_once():
    health = {"store": "away", "stalled": "it stands still"}
    assert texts(conditions.of_store(OSError("no route"), health, EARLIER)) == [
        ("store", "no route"), ("stalled", "this worker: it stands still")
    ]  # fmt: skip
