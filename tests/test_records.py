"""The records as command line, HTTP and events share them: the names of the keys are a promise."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from taskloop.jobs import Job
from taskloop.policy import OPTIONS, Policy
from taskloop.records import (
    Status,
    attempt_record,
    definition,
    instant_text,
    job_record,
    policy_record,
    run_record,
    schedule_record,
    standing,
    status_record,
    switch_record,
    trigger_text,
    worker_record,
)
from taskloop.retry import Retry
from taskloop.runs import Cause, Failure, Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.store_data import Attempt, Newest, Worker
from taskloop.switches import InForce, Switch, Switches
from taskloop.triggers import Every

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXT = "2026-03-01T12:00:00Z"
RUN = Run(id=RunId(7), job="a", due_at=NOW, ready_at=NOW, created_at=NOW)
PAUSE = Switch("paused", None, NOW, "ann", "deploy", NOW + timedelta(hours=1))


def plain(record: Any) -> Any:
    """The record, if it is JSON."""
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    return record


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (None, None),
        (NOW, TEXT),
        (NOW + timedelta(microseconds=5), "2026-03-01T12:00:00.000005Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (NOW.astimezone(timezone(timedelta(hours=1))), "2026-03-01T13:00:00+01:00"),
    ],
)
def test_an_instant_is_rfc_3339(instant, text):
    assert instant_text(instant) == text


def test_a_run_has_the_keys_of_the_contract():
    keys = (
        "id job schedule state status reason cause actor key params attempt attempts due_at ready_at created_at "
        "started_at ended_at worker progress summary result error rerun_of count existed"
    )
    assert set(keys.split()) <= set(plain(run_record(RUN)))
    assert run_record(RUN) == {
        "id": 7, "job": "a", "schedule": None, "state": "waiting", "status": "PENDING", "reason": None,
        "cause": "schedule", "actor": None, "key": None, "params": {}, "attempt": 0, "attempts": 1, "due_at": TEXT,
        "until_at": None, "ready_at": TEXT, "created_at": TEXT, "started_at": None, "ended_at": None, "worker": None,
        "priority": 0, "progress": None, "summary": None, "result": None, "error": None, "rerun_of": None, "count": 1,
        "data": {}, "existed": False,
    }  # fmt: skip


def test_a_run_with_progress_and_an_error_shows_both():
    run = replace(
        RUN, state=State.FAILED, cause=Cause.API, progress=Progress(1, 4, "m", 2.0, 1.5), started_at=NOW, ended_at=NOW,
        error=Failure("E", "m", "t", "f"), params={"n": [1]}, data={"x": 1}, existed=True,
    )  # fmt: skip
    record = plain(run_record(run))
    assert record["progress"] == {
        "fraction": 0.25, "done": 1, "total": 4, "message": "m", "rate": 2.0, "eta_seconds": 1.5,
    }  # fmt: skip
    assert record["error"] == {"type": "E", "message": "m", "traceback": "t", "fingerprint": "f"}
    assert (record["cause"], record["status"], record["ended_at"]) == ("api", "FAILED", TEXT)


def test_an_attempt():
    attempt = Attempt(2, NOW, None, "running", "w1")
    record = {
        "attempt": 2, "started_at": TEXT, "ended_at": None, "outcome": "running", "worker": "w1", "error": None,
    }  # fmt: skip
    assert plain(attempt_record(attempt)) == record
    assert attempt_record(replace(attempt, error={"type": "E"}))["error"] == {"type": "E"}


def test_a_schedule():
    schedule = Schedule(id="s", job="a", trigger=Every("5m"), params={"n": 1}, next_due=NOW)
    assert plain(schedule_record(schedule)) == {
        "id": "s", "job": "a", "trigger": "every 5m", "trigger_text": "every 5 minutes", "params": {"n": 1},
        "next_due": TEXT, "last_due": None, "enabled": True, "origin": "stored",
    }  # fmt: skip


def test_a_switch_a_worker_and_the_whole():
    assert switch_record(None) is None
    switch = {"kind": "paused", "by": "ann", "at": TEXT, "reason": "deploy", "until": "2026-03-01T13:00:00Z"}
    assert plain(switch_record(PAUSE)) == switch
    worker = Worker("w1", "shop", "h", 7, "p", NOW, NOW, None)
    record = plain(worker_record(worker))
    assert record == {
        "id": "w1", "name": "shop", "host": "h", "pid": 7, "started_at": TEXT, "beat_at": TEXT, "stopped_at": None,
    }  # fmt: skip
    status = Status(
        running=True, enabled=True, workers=[worker], paused=PAUSE, jobs=1, waiting=0, in_hand=1, active=[RUN],
        attention=[{"job": "a"}], loop_lag_ms=1.5, store="sqlite:///x",
    )  # fmt: skip
    assert plain(status_record(status)) == {
        "running": True, "enabled": True, "workers": [record], "paused": switch, "jobs": 1, "waiting": 0,
        "active": [run_record(RUN)], "attention": [{"job": "a"}], "loop_lag_ms": 1.5, "store": "sqlite:///x",
    }  # fmt: skip
    assert status_record(replace(status, paused=None))["paused"] is None


def test_a_policy_is_written_as_a_configuration_file_would_have_it_and_reads_back():
    policy = Policy.of(
        "a",
        {
            "timeout": "90s",
            "retry": Retry(3, "2s", max="10m", jitter=0.1),
            "tags": ["x"],
            "group": "g",
            "submit_limit": "5/1h",
        },
    )
    record = plain(policy_record(policy))
    assert list(record) == list(OPTIONS)
    assert (record["timeout"], record["tags"]) == ("1m30s", ["x"])
    assert record["retry"] == {"attempts": 3, "first": "2s", "factor": 2.0, "max": "10m", "jitter": 0.1}
    assert Policy.of("a", record) == policy


async def send(user: int, text: str = "hi") -> None:
    """Send a mail."""


def declared(**options: Any) -> Job[..., Any]:
    return Job(send, Every("5m"), params={"user": 1}, aliases=("old",), options=options)


def test_a_definition_is_what_a_job_declares_in_plain_json():
    found = definition(declared(title="Mail"), Every("5m"), NOW)
    assert (found.name, found.origin, found.seen_at) == ("send", "code", NOW)
    facts = plain(found.facts)
    assert (facts["title"], facts["description"], facts["kind"]) == ("Mail", "Send a mail.", "periodic")
    assert (facts["trigger"], facts["trigger_text"], facts["aliases"]) == ("every 5m", "every 5 minutes", ["old"])
    assert (facts["params_schema"]["required"], facts["params"]) == ([], {"user": 1})
    assert facts["params_schema"]["properties"]["user"]["default"] == 1
    assert facts["policy"]["enabled"] is True


def test_a_trigger_in_words():
    assert trigger_text(None) == "on demand"
    assert trigger_text(Every("1h")) == "every hour"
    assert definition(Job(send, None), None, NOW).facts["trigger"] is None


def stands(
    last: Run | None = None,
    *,
    switches: tuple[Switch, ...] = (),
    failures: int = 0,
    running: bool = False,
    **options: Any,
):
    return standing(
        "send", definition(declared(**options), Every("5m"), NOW).facts, next_due=NOW,
        newest=None if last is None else Newest(last.id, last.state, NOW, failures, None, None, last.attempt > 0),
        in_force=InForce(Switches(switches), NOW), running=running,
    )  # fmt: skip


OFF = Switch("disabled", "send", NOW, "ann")


@pytest.mark.parametrize(
    ("given", "condition", "enabled"),
    [
        ({}, "never_ran", True),
        ({"enabled": False}, "disabled", False),
        ({"switches": (OFF,)}, "disabled", False),
        ({"switches": (replace(OFF, job="old"),)}, "disabled", False),
        ({"switches": (replace(OFF, kind="enabled"),), "enabled": False}, "never_ran", True),
        ({"switches": (PAUSE,)}, "paused", True),
        ({"switches": (PAUSE, OFF)}, "disabled", False),
        ({"last": RUN}, "ok", True),
        ({"last": RUN, "failures": 2}, "failing", True),
        ({"last": RUN, "running": True}, "running", True),
        ({"last": replace(RUN, state=State.RUNNING)}, "running", True),
        ({"last": replace(RUN, state=State.SUCCEEDED)}, "ok", True),
        ({"last": replace(RUN, state=State.CANCELLED)}, "ok", True),
        ({"last": replace(RUN, state=State.FAILED)}, "failing", True),
        ({"last": replace(RUN, state=State.INTERRUPTED)}, "failing", True),
    ],
)
def test_a_job_stands_as_its_switch_its_pause_and_its_last_run_say(given, condition, enabled):
    found = stands(**given)
    assert (found.condition, found.enabled) == (condition, enabled)


@pytest.mark.parametrize(
    ("switches", "told"),
    [
        ((PAUSE,), PAUSE),
        ((PAUSE, replace(PAUSE, job="send")), replace(PAUSE, job="send")),
        ((PAUSE, OFF), OFF),
        ((replace(OFF, kind="enabled"), PAUSE), PAUSE),
        ((replace(OFF, kind="enabled"),), replace(OFF, kind="enabled")),
        ((replace(PAUSE, job="other"),), None),
    ],
)
def test_a_job_tells_by_which_switch_it_is_off_or_by_which_pause_it_is_held(switches, told):
    assert stands(switches=switches).switch == told


def test_a_job_has_the_keys_of_the_contract():
    last = replace(RUN, state=State.FAILED)
    record = plain(job_record(stands(last, failures=3, switches=(OFF,)).record(last)))
    assert (
        list(record)
        == (
            "name title description kind trigger trigger_text policy enabled switch condition next_due last_run "
            "last_success consecutive_failures params_schema"
        ).split()
    )
    assert (record["last_run"]["id"], record["last_success"], record["consecutive_failures"]) == (7, TEXT, 3)
    assert record["switch"]["by"] == "ann"
    assert job_record(stands().record(None))["last_run"] is None
