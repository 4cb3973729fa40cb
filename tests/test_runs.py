"""The state machine of a run: the moves there are, and what every outcome leads to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskloop.runs import (
    ACTIVE,
    FINAL,
    MOVES,
    Cancelled,
    Failure,
    Lost,
    Progress,
    Raised,
    Reason,
    Returned,
    Run,
    RunId,
    ShutDown,
    State,
    first_line,
    settle,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
BAD = Failure("ValueError", "  no such user\nand more")


def running(**changes: object) -> Run:
    facts = {
        "id": RunId(7),
        "job": "a",
        "state": State.RUNNING,
        "attempt": 1,
        "attempts": 3,
        "due_at": NOW,
        "ready_at": NOW,
        "created_at": NOW,
        "started_at": NOW,
        "attempt_started_at": NOW,
        "worker": "w1",
        "token": 1,
        "actor": "ann",
    }
    return Run(**(facts | changes))


MOVED = {
    "waiting": "running cancelled skipped",
    "running": "succeeded failed cancelled interrupted waiting",
    "succeeded": "", "failed": "", "cancelled": "", "interrupted": "", "skipped": "",
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_the_moves_are_those_of_the_table(before, after):
    assert (after in MOVES[before]) is (after.value in MOVED[before.value].split())


def test_a_state_is_active_or_final_and_final_ones_have_no_move():
    assert set(State) == ACTIVE | FINAL
    assert not ACTIVE & FINAL
    assert {state for state in State if not MOVES[state]} == FINAL


@pytest.mark.parametrize(
    ("outcome", "repeatable", "attempt", "changes"),
    [
        (Returned({"n": 1}, "line"), False, 1,
         {"state": State.SUCCEEDED, "result": {"n": 1}, "summary": "line", "ended_at": LATER}),
        (Returned(), True, 3, {"state": State.SUCCEEDED, "ended_at": LATER}),
        (Raised(BAD, timedelta(seconds=9)), False, 2,
         {"state": State.WAITING, "ready_at": LATER + timedelta(seconds=9), "worker": None, "error": BAD}),
        (Raised(BAD, timedelta(seconds=9)), False, 3,
         {"state": State.FAILED, "ended_at": LATER, "error": BAD, "summary": "no such user"}),
        (Raised(BAD, None), False, 1,
         {"state": State.FAILED, "ended_at": LATER, "error": BAD, "summary": "no such user"}),
        (Cancelled("enough", "bob"), False, 1,
         {"state": State.CANCELLED, "ended_at": LATER, "reason": "enough", "data": {"cancelled_by": "bob"}}),
        (Cancelled(), True, 1, {"state": State.CANCELLED, "ended_at": LATER}),
        (ShutDown(), True, 1, {"state": State.WAITING, "ready_at": LATER, "worker": None, "attempt": 0}),
        (ShutDown(), True, 3, {"state": State.WAITING, "ready_at": LATER, "worker": None, "attempt": 2}),
        (ShutDown(), False, 1, {"state": State.INTERRUPTED, "ended_at": LATER, "reason": "shutting_down"}),
        (Lost(), True, 2,
         {"state": State.WAITING, "ready_at": LATER, "worker": None, "data": {"lost": "worker_died"}}),
        (Lost(), True, 3, {"state": State.INTERRUPTED, "ended_at": LATER, "reason": "worker_died"}),
        (Lost(), False, 1, {"state": State.INTERRUPTED, "ended_at": LATER, "reason": "worker_died"}),
        (Lost(Reason.ABANDONED), True, 1, {"state": State.INTERRUPTED, "ended_at": LATER, "reason": "abandoned"}),
    ],
    ids=str,
)  # fmt: skip
def test_every_outcome_leads_where_the_table_says_and_changes_nothing_else(outcome, repeatable, attempt, changes):
    before = running(attempt=attempt)
    assert settle(before, outcome, now=LATER, repeatable=repeatable) == replace(before, **changes)


def test_a_success_forgets_the_error_of_the_attempt_before():
    assert settle(running(error=BAD), Returned(), now=LATER, repeatable=True).error is None


@pytest.mark.parametrize("state", [state for state in State if state is not State.RUNNING])
def test_only_a_running_run_can_be_settled(state):
    with pytest.raises(ValueError, match=f"run 7 is {state}; only a running run can be settled"):
        settle(running(state=state), Returned(), now=LATER, repeatable=True)


def test_what_is_no_outcome_is_an_error():
    with pytest.raises(AssertionError):
        settle(running(), "succeeded", now=LATER, repeatable=True)


outcomes = st.one_of(
    st.builds(Returned, st.none() | st.integers(), st.none() | st.text()),
    st.builds(Raised, st.builds(Failure, st.text(), st.text()), st.none() | st.timedeltas(timedelta(0), timedelta(99))),
    st.builds(Cancelled, st.none() | st.text(), st.none() | st.text()),
    st.just(ShutDown()),
    st.builds(Lost, st.sampled_from([Reason.WORKER_DIED, Reason.ABANDONED])),
)


@given(outcomes, st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_no_outcome_makes_a_move_that_is_not_declared(outcome, attempt, attempts, repeatable):
    before = running(attempt=attempt, attempts=attempts)
    after = settle(before, outcome, now=LATER, repeatable=repeatable)
    assert after.state in MOVES[before.state]
    assert after.final is (after.ended_at == LATER)
    assert (after.worker is None) is (after.state is State.WAITING)
    assert attempt - 1 <= after.attempt <= attempt
    assert (after.id, after.job, after.token, after.due_at) == (before.id, before.job, before.token, before.due_at)


@pytest.mark.parametrize(
    ("state", "attempt", "status"),
    [
        (State.WAITING, 0, "PENDING"),
        (State.WAITING, 1, "RUNNING"),
        (State.RUNNING, 1, "RUNNING"),
        (State.SUCCEEDED, 1, "SUCCESS"),
        (State.FAILED, 1, "FAILED"),
        (State.INTERRUPTED, 1, "FAILED"),
        (State.CANCELLED, 1, "CANCELLED"),
        (State.SKIPPED, 0, "SKIPPED"),
    ],
)
def test_the_status_speaks_the_words_of_older_systems(state, attempt, status):
    assert running(state=state, attempt=attempt).status == status


@pytest.mark.parametrize(
    ("done", "total", "fraction"),
    [(5, 10, 0.5), (0, 10, 0), (11, 10, 1), (-1, 10, 0), (1, 0, 0), (1, -1, 0), (float("inf"), 10, 1)],
)
def test_the_fraction_stays_within_0_and_1(done, total, fraction):
    assert Progress(done, total).fraction == fraction


@pytest.mark.parametrize(
    ("text", "line"),
    [("", ""), ("\n\n one \ntwo", "one "), ("x" * 200, "x" * 200), ("x" * 201, "x" * 199 + "…"), ("a\r\nb", "a\r")],
)
def test_the_first_line_of_a_text_is_cut_to_what_a_list_shows(text, line):
    assert first_line(text) == line


def test_an_error_is_told_by_its_type_and_its_message_if_it_has_one():
    assert Failure("ValueError", "no such order").told() == "ValueError: no such order"
    assert f"{Failure('ValueError', 'no such order', 'Traceback ...')}" == "ValueError: no such order"
    assert Failure("ValueError", "no such order").told("no order") == "ValueError: no order"
    assert Failure("TimeoutError", "").told() == Failure("TimeoutError", "").told("") == "TimeoutError"
