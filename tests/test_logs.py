"""Log lines: which event is told at which level."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from loguru import logger

from taskloop.events import Event
from taskloop.logs import Speaker
from taskloop.runs import Cause, Failure, Reason, Run, State, cancelled_by

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def lines() -> Iterator[list[tuple[str, str]]]:
    """Level and name of each line written."""
    written: list[tuple[str, str]] = []
    sink = logger.add(
        lambda message: written.append((message.record["level"].name, message.record["message"])), level=0
    )
    yield written
    logger.remove(sink)


@pytest.mark.parametrize(
    ("name", "data", "level"),
    [
        ("loop_blocked", {"ms": 999, "where": "a.py:1 f"}, "INFO"),
        ("loop_blocked", {"ms": 1000, "where": "a.py:1 f"}, "WARNING"),
        ("disabled", {"actor": "ann"}, "INFO"),
        ("disabled", {"actor": "taskloop", "reason": "5 failures"}, "WARNING"),
        ("overdue", {"condition": "stuck"}, "WARNING"),
        ("retrying", {"reason": "shutting_down"}, "INFO"),
        ("retrying", {"reason": "lease_lost"}, "WARNING"),
        ("retrying", {}, "WARNING"),
        ("store_lost", {"error": "disk is full"}, "ERROR"),
    ],
)
def test_a_line_is_as_loud_as_what_happened(lines: list[tuple[str, str]], name: str, data: dict[str, Any], level: str):
    for lowest in ("DEBUG", "WARNING"):
        speaker = Speaker(lowest)
        assert level == "INFO" or name in speaker.events()
        speaker(Event(name, NOW, job="job", data=data))
    assert [one for one, _ in lines] == [level] * (1 if level == "INFO" else 2)


def test_a_line_has_of_a_long_error_its_begin(lines: list[tuple[str, str]]):
    failed = Run(
        job="a", due_at=NOW, ready_at=NOW, created_at=NOW, state=State.FAILED, error=Failure("OSError", "no" * 2000)
    )
    Speaker()(Event("failed", NOW, failed, job="a"))
    [(_, text)] = lines
    assert 'error="OSError: nono' in text and len(text) < 500


def test_a_line_says_how_the_attempt_before_was_lost_and_who_asked_for_the_end(lines: list[tuple[str, str]]):
    facts = {"job": "a", "due_at": NOW, "ready_at": NOW, "created_at": NOW, "attempt": 1, "cause": Cause.CLI}
    run = Run(**facts, data={"lost": "lease_lost"})
    failed = run.changed(error=Failure("OSError", "no"))
    Speaker()(Event("retrying", NOW, run, job="a"))
    Speaker()(Event("retrying", NOW, failed, job="a"))
    Speaker()(Event("cancelled", NOW, cancelled_by("bob", run, "enough", NOW), job="a"))
    assert [text.partition("cause=cli")[2] for _, text in lines] == [
        " reason=lease_lost", ' error="OSError: no"', " reason=enough by=bob"
    ]  # fmt: skip


def test_a_run_that_waits_again_has_its_line_whatever_cut_short_an_attempt_before(lines: list[tuple[str, str]]):
    facts = {"job": "a", "due_at": NOW, "ready_at": NOW, "created_at": NOW, "attempt": 1, "cause": Cause.CLI}
    run = Run(**facts, data={"lost": "lease_lost"})
    Speaker("INFO")(Event("retrying", NOW, run, job="a", data={"reason": "lease_lost"}))
    Speaker("INFO")(Event("retrying", NOW, run, job="a", data={"reason": "shutting_down"}))
    assert [(level, text.partition("cause=cli ")[2]) for level, text in lines] == [
        ("WARNING", "reason=lease_lost"), ("INFO", "reason=shutting_down")
    ]  # fmt: skip


def test_that_a_job_which_is_off_does_not_fire_is_no_warning(lines: list[tuple[str, str]]):
    facts = {"job": "a", "due_at": NOW, "ready_at": NOW, "created_at": NOW, "state": State.SKIPPED}
    for reason in (Reason.DISABLED, Reason.MISSED):
        Speaker()(Event("skipped", NOW, Run(**facts, reason=reason), job="a"))
    assert [(level, text.rpartition("reason=")[2]) for level, text in lines] == [("WARNING", "missed")]


def test_what_is_below_the_level_is_not_even_subscribed_to():
    assert "started" not in Speaker("WARNING").events() and "started" in Speaker("INFO").events()
    assert Speaker("CRITICAL").events() == []


def test_the_message_has_the_fields_for_sinks_that_show_nothing_else(lines: list[tuple[str, str]]):
    Speaker().say("ERROR", "store.lost", took_ms=7, job="a", error='disk {full} "x"\n\x1b[2J')
    assert lines[-1][1] == 'store.lost took_ms=7 job=a error="disk {full} \\"x\\"\\n\\u001b[2J"'
