"""Since when somebody has been there to fire a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from taskloop.attendance import Attendance
from taskloop.store_data import Worker

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def hours(number: float) -> datetime:
    return NOON + timedelta(hours=number)


def worker(id: str, *jobs: str, began: float = -5, beat: float = 0, ended: float | None = None, fires: bool = True):
    return Worker(
        id=id, name=None, host="h", pid=1, process="p", started_at=hours(began), beat_at=hours(beat), fires=fires,
        stopped_at=None if ended is None else hours(ended), jobs=frozenset(jobs) if jobs else None
    )  # fmt: skip


def test_nobody_else_was_there_before_the_first_start():
    alone = Attendance(NOON)
    assert alone.since(["a"]) == NOON
    assert alone.outage(["a"]) == {}


def test_the_watch_goes_back_to_the_start_of_those_who_were_there_already_and_know_the_job():
    beside = Attendance(NOON, others=[worker("w", "a", "old"), worker("v", "b", began=-9), worker("u", began=-1)])
    assert beside.since(["a"]) == hours(-5)
    assert beside.since(["new", "old"]) == hours(-5)
    assert beside.since(["b"]) == hours(-9)
    assert beside.since(["c"]) == hours(-1), "one that names no jobs may have any"
    assert Attendance(NOON, others=[worker("w", "a", fires=False)]).since(["a"]) == NOON


def test_the_outage_began_with_the_last_word_of_the_last_one_who_knew_the_job():
    gone = [worker("w", "a", ended=-2), worker("v", "a", beat=-1.5), worker("u", "b", ended=-0.5)]
    gone += [worker("t", "c", fires=False, ended=-0.1), worker("s", "d", ended=1)]
    after = Attendance(NOON, gone=gone)
    assert after.outage(["a"]) == {"down_since": "2026-01-01T10:30:00Z", "down_seconds": 5400.0}
    assert after.outage(["b"])["down_seconds"] == 1800.0
    assert after.outage(["c"]) == after.outage(["d"]) == {}


def test_after_a_sleep_nobody_was_there_for_what_is_still_due():
    attendance = Attendance(NOON, others=[worker("w", "a")])
    attendance.slept(hours(3), hours(1), 7200)
    assert attendance.since(["a"]) == hours(3)
    assert attendance.outage(["a"]) == {"down_since": "2026-01-01T13:00:00Z", "down_seconds": 7200}


def test_a_clock_that_is_set_back_makes_nobody_absent():
    attendance = Attendance(NOON)
    attendance.set_back(hours(-1))
    assert attendance.since(["a"]) == hours(-1)
    attendance.set_back(hours(2))
    assert attendance.since(["a"]) == hours(-1)
