"""Records as rows: what is written column by column is what would be written record by record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from taskloop.cli import glance
from taskloop.clock import EPOCH
from taskloop.fates import PLAIN_COLUMNS, SETTLED_COLUMNS, counted, plainly_settled, settled
from taskloop.rows import NEW_COLUMNS, RUN_COLUMNS, new_columns, read_run, read_schedule, schedule_columns, write_run
from taskloop.runs import Cause, Failure, Progress, Returned, Run, RunId, State, settle
from taskloop.schedules import Schedule
from taskloop.store_data import Settling
from taskloop.triggers import At, Cron, Every

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALIKE_NOT_SAME = some.sampled_from([{}, {"n": 1}, {"n": True}, {"n": 1.0}, {"n": None}])
INSTANTS = some.sampled_from([NOW, NOW + timedelta(microseconds=1), NOW - timedelta(days=400)])
RUNS = some.builds(
    Run,
    id=some.integers(1, 2**63 - 1),
    job=some.sampled_from(["a", "b"]),
    schedule=some.none() | some.sampled_from(["a", "s"]),
    state=some.sampled_from([State.WAITING, State.RUNNING]),
    cause=some.sampled_from(Cause),
    key=some.none() | some.just("k"),
    params=ALIKE_NOT_SAME,
    data=ALIKE_NOT_SAME,
    due_at=INSTANTS,
    ready_at=INSTANTS,
    created_at=INSTANTS,
    started_at=some.none() | INSTANTS,
    attempt_started_at=some.none() | INSTANTS,
    expires_at=some.none() | INSTANTS,
    worker=some.none() | some.just("w"),
    token=some.integers(0, 2),
    group=some.none() | some.just("g"),
)


@given(some.lists(RUNS, min_size=1, max_size=5))
def test_the_columns_of_new_runs_are_those_of_their_rows(runs):
    places = [RUN_COLUMNS.index(name) for name in NEW_COLUMNS]
    written = [write_run(run) for run in runs]
    assert list(map(repr, zip(*new_columns(runs), strict=True))) == [
        repr(tuple(row[place] for place in places)) for row in written
    ]
    assert list(map(repr, map(read_run, written))) == list(map(repr, runs))


@given(
    some.lists(RUNS.map(lambda run: run.changed(state=State.RUNNING)), min_size=1, max_size=5),
    some.sampled_from([None, 1, True, 1.0, "1"]) | some.lists(some.booleans(), max_size=2),
    INSTANTS,
)
def test_the_columns_of_plain_ends_are_those_of_their_rows(runs, result, now):
    outcome = Returned(result, "well")
    settlings = [Settling(run, settle(run, outcome, now=now, repeatable=False), outcome) for run in runs]
    places = [SETTLED_COLUMNS.index(name) for name in PLAIN_COLUMNS]
    assert list(map(repr, zip(*plainly_settled(settlings), strict=True))) == [
        repr(tuple(settled(one)[place] for place in places)) for one in settlings
    ]


def test_of_nothing_there_are_no_columns():
    assert new_columns([]) == plainly_settled([]) == []


def test_an_end_counts_for_its_day_in_utc_however_its_instant_is_written():
    there = timezone(timedelta(hours=14))
    began = datetime(1970, 1, 2, 5, tzinfo=there)
    run = Run(
        job="a", state=State.SUCCEEDED, due_at=NOW, ready_at=NOW, created_at=NOW, started_at=began, ended_at=began
    )
    assert counted([run]) == [(0, "a", "succeeded", 1, 0)]


@pytest.mark.parametrize(
    ("ends", "rows"),
    [
        ([], []),
        ([("a", 1.5, 1), ("a", 0.25, 1)], [(1, "a", "succeeded", 2, 1_750_000)]),
        ([("a", 1, 1), ("b", 1, 3), ("a", 86_400, 1)], [
            (1, "a", "succeeded", 1, 1_000_000), (1, "b", "succeeded", 3, 1_000_000), (2, "a", "succeeded", 1, 86_400_000_000)
        ]),
        ([("a", -1, 1)], [(0, "a", "succeeded", 1, 0)]),
        ([("a", None, 7)], [(1, "a", "succeeded", 7, 0)]),
    ],
)  # fmt: skip
def test_ends_are_counted_by_day_job_and_state_with_what_they_took(ends, rows):
    """What ended before it began, as by a clock that was set back, has taken nothing; what never began neither."""
    began = EPOCH + timedelta(days=1)
    runs = [
        Run(
            id=RunId(1), job=job, state=State.SUCCEEDED, due_at=began, ready_at=began, created_at=began, count=count,
            started_at=None if took is None else began, ended_at=began + timedelta(seconds=took or 0)
        )
        for job, took, count in ends
    ]  # fmt: skip
    assert counted(runs) == rows


SCHEDULES = some.builds(
    Schedule,
    id=some.sampled_from(["s", "another"]),
    job=some.just("a"),
    trigger=some.sampled_from([Every("1h"), Every("1h"), Every("1h", anchor=NOW), Cron("0 2 * * *"), At(NOW)]),
    params=ALIKE_NOT_SAME,
    next_due=some.none() | INSTANTS,
    last_due=some.none() | INSTANTS,
    anchor=some.none() | INSTANTS,
    seen_at=INSTANTS,
    enabled=some.booleans(),
    origin=some.sampled_from(["code", "file", "stored"]),
)


@given(some.lists(SCHEDULES, max_size=5))
def test_schedules_are_read_as_they_were_written(schedules):
    read = [read_schedule(row) for row in zip(*schedule_columns(schedules), strict=True)]
    assert list(map(repr, read)) == list(map(repr, schedules))


def test_what_a_later_version_tells_beside_the_rest_is_left_out():
    """Two versions run side by side during a roll-out, and of a row that could not be read there was no list."""
    run = Run(
        job="a", state=State.RUNNING, cause=Cause.MANUAL, due_at=NOW, ready_at=NOW, created_at=NOW,
        progress=Progress(1, 2, "two", None, None, 0.05), error=Failure("OSError", "no answer", "", "f1"),
    )  # fmt: skip
    row = dict(zip(RUN_COLUMNS, write_run(run), strict=True))
    for name in ("progress", "error"):
        row[name] = json.dumps([*json.loads(row[name]), "more"])
    assert read_run(list(row.values())) == run
    progress = glance._progress(*json.loads(row["progress"]))
    assert (progress["done"], progress["fraction"]) == (1, 0.55)
