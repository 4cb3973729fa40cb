"""The commands that read and change records, called in this process, each test in a directory of its own."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from command_line import SHOP
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop import Every, Jobs, Options, Retry, TaskScheduler
from taskloop.cli import columns, glance, once, reach
from taskloop.cli.repositories import table
from taskloop.file_sqlite import migrations
from taskloop.ledger import Ledger
from taskloop.records import job_record, run_record

READING = ["list", "runs", "next", "status", "schedule list"]


@pytest.fixture
def done(shop, call):
    """A shop with one run that succeeded, of `add`, and one that failed."""
    assert call("once", "add", "a=1", "note=hi", "--actor", "anna", "--reason", "try").code == 0
    assert call("once", "fails").code == 1
    return shop


# -- before there is a store


@pytest.mark.parametrize("command", READING)
def test_reading_before_there_is_a_store_succeeds_and_makes_no_file(shop, call, command):
    done = call(*command.split())
    assert done.code == 0
    assert command == "list" or "no store yet" in done.err
    assert shop.files == {"config.toml", "shop.py"}


def test_an_empty_list_has_the_shape_of_any_other(shop, call):
    assert call("runs", "--format", "json").data == {"items": [], "next": None}
    assert call("runs", "--format", "jsonl").out == ""


def test_an_empty_list_has_the_columns_of_any_other(shop, call):
    """A program that reads it by name found no such column, and one that counts lines took nothing for a failure."""
    lists = ["runs", "next", "schedule list", "token list"]
    empty = [call(*words.split(), "--format", "csv").out for words in lists]
    call("once", "add", "a=1")
    call("schedule", "add", "add", "--every", "1h", "a=1")
    call("token", "create", "ci", "--scope", "read")
    full = [call(*words.split(), "--format", "csv").out for words in lists]
    assert [text.splitlines() for text in empty] == [text.splitlines()[:1] for text in full]
    assert all(text.count("\n") > 1 for text in full)
    once, again = call("once", "--due", "--format", "csv"), call("once", "--due", "--format", "csv")
    assert once.out.count("\n") == 3 and again.out == empty[0]
    assert call("logs", "1", "--format", "csv").out == "at,level,text,step\n"
    assert call("list", "--format", "csv").out.splitlines()[0] == ",".join(columns.JOB)
    assert call("simulate", "--format", "csv").out.splitlines()[0] == ",".join(columns.FORECAST)
    call("once", "talks")
    assert call("logs", "3", "--format", "csv").out.splitlines()[0] == ",".join(columns.LINE)


def test_a_list_has_the_columns_of_all_its_rows_in_csv(shop, call):
    shop.write("shop.py", SHOP + '\nreport = jobs.flow("report")\n\n@report.step()\ndef first() -> int: return 1\n')
    rows = list(csv.DictReader(io.StringIO(call("list", "--format", "csv").out)))
    assert {row["name"]: json.loads(row["steps"] or "[]") != [] for row in rows if row["name"] in ("add", "report")} == {
        "add": False, "report": True
    }  # fmt: skip


def test_the_declared_jobs_are_listed_before_anything_ran(shop, call):
    jobs = {one["name"]: one for one in call("list", "--format", "json").items}
    assert set(jobs) == {
        "add", "fails", "slow", "stubborn", "talks", "hourly", "nightly", "order", "git_metrics", "heartbeat", "current_date",
    }  # fmt: skip
    assert jobs["hourly"]["condition"] == "never_ran" and jobs["hourly"]["trigger"] == "every 1h"
    assert jobs["heartbeat"]["condition"] == "disabled"
    assert shop.files == {"config.toml", "shop.py"}


def test_a_job_can_be_shown_before_anything_ran(shop, call):
    done = call("show", "order")
    assert done.code == 0 and "day: date (needed)" in done.out and "one of small, large" in done.out
    assert call("show", "ordr").code == 3 and "did you mean 'order'" in call("show", "ordr").err
    assert call("show", "5").code == 3


def test_what_a_job_takes_is_told_to_the_inside_and_what_a_run_was_given_as_it_is_written_again(shop, call):
    shop.write(
        "shop.py",
        SHOP
        + """
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated
from pydantic import Field

@dataclass
class Period:
    first: date
    last: date | None = None

@jobs.job()
def report(period: Period, rows: list[Period], share: Annotated[int, Field(ge=1, le=9)] = 3, dry: bool | None = None):
    return 1
""",
    )
    told = call("show", "report").out
    assert "period: object {first: date, last?: date or null} (needed)" in told
    assert "rows: array of object {first: date, last?: date or null} (needed)" in told
    assert "share: integer from 1 to 9 = 3" in told and "dry: boolean or null = null" in told
    given = ["share=7", 'period:={"first": "2026-03-01", "last": null}', "rows:=[]", "dry=true"]
    said = next(line for line in call("once", "report", *given).out.splitlines() if line.startswith("params:"))
    assert all(one in said for one in given), said


@pytest.mark.parametrize("command", [["cancel", "1"], ["rerun", "1"], ["schedule", "remove", "x"]])
def test_what_cannot_be_found_without_a_store_is_code_3(shop, call, command):
    assert call(*command).code == 3


@pytest.mark.parametrize("command", ["check", "upgrade", "backup copy.db", "prune --keep 1d"])
def test_keeping_house_without_a_store_is_code_8_and_makes_none(shop, call, command):
    done = call("db", *command.split())
    assert done.code == 8 and "no store yet" in done.err
    assert shop.files == {"config.toml", "shop.py"}


def test_an_app_that_is_named_is_listed_beside_what_the_store_knows(done, call):
    done.write("more.py", "from taskloop import Jobs\njobs = Jobs()\n@jobs.job()\ndef extra(): ...\n")
    jobs = {one["name"]: one for one in call("--app", "more:jobs", "list", "--format", "json").items}
    assert jobs["extra"]["condition"] == "never_ran" and jobs["add"]["condition"] == "ok"


# -- once


def test_once_runs_a_job_with_its_parameters_and_shows_the_record(shop, call):
    done = call("once", "add", "a=1", "b=5", "--format", "json")
    assert done.code == 0
    assert done.data["result"] == 6 and done.data["state"] == "succeeded" and done.data["cause"] == "cli"
    assert done.data == call("show", str(done.data["id"]), "--format", "json").data
    assert "run.succeeded" in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fails"], 1, "ValueError"), (["nobody"], 3, "no job 'nobody'"), (["add"], 2, "parameter 'a' is missing"),
        (["add", "a=x"], 2, "integer"), (["add", "a=1", "bb=2"], 2, "did you mean 'b'"), (["heartbeat"], 4, "is off"),
        (["slow", "--timeout", "200ms"], 9, "slow"), (["order", "day=tomorrow"], 2, "date"),
    ],
)  # fmt: skip
def test_once_ends_with_what_the_run_came_to(shop, call, words, code, said):
    done = call("once", *words)
    assert (done.code, said in done.err + done.out) == (code, True)
    assert "Traceback" not in done.err


def test_a_timed_out_run_is_cancelled_on_record(shop, call):
    call("once", "slow", "--timeout", "200ms")
    run = call("runs", "--format", "json").items[0]
    assert (run["state"], run["reason"]) == ("cancelled", "timed out")


def test_a_command_whose_time_is_up_shows_the_runs_it_has_cancelled(shop, call):
    shop.write("shop.py", SHOP + '\n@jobs.every("1h")\nasync def sleeps() -> None:\n    await asyncio.sleep(60)\n')
    done = call("once", "slow", "--timeout", "200ms", "--format", "json")
    assert done.code == 9 and (done.data["id"], done.data["state"], done.data["reason"]) == (
        1,
        "cancelled",
        "timed out",
    )
    done = call("once", "--due", "--timeout", "1s", "--format", "json")
    assert done.code == 9
    assert {one["job"]: one["state"] for one in done.items} == {"hourly": "succeeded", "sleeps": "cancelled"}


def test_a_command_whose_time_is_up_names_as_cancelled_only_what_it_has_cancelled(shop, call):
    """What waited for its retry, and went on to do so, was named too, and what had failed before."""
    jobs = """
@jobs.job(retry=Retry(attempts=2, first="1h"))
async def again() -> None:
    raise OSError
"""
    shop.write("shop.py", "from taskloop import Retry\n" + SHOP + jobs)
    done = call("once", "again", "--timeout", "1s")
    assert done.code == 9 and "not done after 1s; cancelled: nothing; still waiting: 1 of again" in done.err
    assert call("runs", "--format", "json").items[0]["state"] == "waiting"
    assert "cancelled: 2 of slow\n" in call("once", "slow", "--timeout", "200ms").err


def test_once_due_runs_what_is_due_and_nothing_the_second_time(shop, call):
    first, second = call("once"), call("once", "--due", "--format", "json")
    assert first.code == 0 and "once: 1 due, 1 ok, 0 failed, 0 skipped in" in first.err
    assert "hourly" in first.out and "ticked" in first.out
    assert second.code == 0 and "once: 0 due" in second.err and second.items == []


def test_once_due_says_what_a_pause_holds_instead_of_that_nothing_is_due(shop, call):
    call("pause", "hourly")
    assert (
        "once: 0 due" in (done := call("once")).err
        and "; 'hourly' is paused, which holds 1 fire; `taskloop resume hourly` ends that" in done.err
    )
    call("pause")
    done = call("once")
    assert done.code == 0 and done.err.rstrip().endswith(
        "; all jobs are paused, which holds 1 fire; `taskloop resume` ends that"
    )
    call("resume")
    call("resume", "hourly")
    assert "paused" not in call("once").err


def test_once_due_waits_for_no_run_of_a_job_that_is_both_paused_and_off(shop, call):
    """It is off is all that its condition says, and the command waited until the pause was over."""
    call("submit", "hourly")
    call("pause", "hourly")
    call("disable", "hourly")
    assert call("once", "--due", "--timeout", "5s").code == 0
    call("resume", "hourly")
    call("pause")
    assert call("once", "--due", "--timeout", "5s").code == 0
    call("resume")
    assert "hourly" in call("once", "--due", "--timeout", "5s").out


def test_once_refuses_a_paused_job_with_the_command_that_ends_the_pause(shop, call):
    call("pause", "hourly")
    assert "`taskloop resume hourly`, or" in call("once", "hourly").err
    call("resume", "hourly")
    call("pause")
    assert "`taskloop resume`, or" in call("once", "hourly").err


def test_once_due_also_runs_what_was_submitted_and_tells_of_failures(shop, call):
    assert "no worker" in call("submit", "fails").err
    done = call("once")
    assert done.code == 1 and "once: 2 due, 1 ok, 1 failed" in done.err


def chores() -> None: ...


def test_once_due_sees_a_run_that_is_ready_behind_more_than_a_page_of_later_ones(tmp_path):
    async def both():
        async with TaskScheduler(tmp_path / "shop.db", options=Options(enabled=False)) as scheduler:
            job = scheduler.add_job(chores)
            ready = await job.submit()
            await asyncio.gather(*(job.bind().submit(at=timedelta(hours=1)) for _ in range(1001)))
            found = await once._ready(scheduler)
            await scheduler.cancel(ready.id)
            return found, await once._ready(scheduler)

    assert asyncio.run(both()) == (True, False)


def test_of_the_hot_files_as_many_are_named_as_a_terminal_has_room_for():
    hot = [{"path": f"package/module_{number}.py", "changes": 9 - number} for number in range(5)]
    found = {".": {"commits": 971, "commits_30d": 971, "authors": 2, "churn_30d": 203054, "hot_files": hot}}
    for columns, names in ((160, 3), (110, 2), (80, 1), (20, 1)):
        lines = table(found, columns)
        assert lines[1].count("module_") == names
        assert columns == 20 or all(len(line) <= columns for line in lines)
    assert table({}, 80) == []


def test_of_a_hot_file_with_a_long_path_the_end_is_named():
    hot = [{"path": "a" * 4_000 + "/module.py", "changes": 9}, {"path": "b" * 60, "changes": 8}]
    found = {".": {"commits": 971, "commits_30d": 971, "authors": 2, "churn_30d": 203054, "hot_files": hot}}
    heads, row = table(found, 200)
    assert row.endswith(f"  ...{'a' * 47}/module.py (9), {'b' * 60} (8)")


def test_beside_an_app_in_a_folder_that_is_no_clone_there_is_no_git_metrics_unless_it_is_named(shop, call):
    def is_there():
        return "git_metrics" in [one["name"] for one in call("list", "--format", "json").items]

    app = '[scheduler]\napp = "shop:jobs"\n'
    shop.write("config.toml", app)
    assert not is_there()
    shop.write("config.toml", app + "[jobs.git_metrics]\n")
    assert is_there()
    shop.write("config.toml", app + '[git_metrics]\nrepositories = ["."]\n')
    assert is_there()
    shop.write("config.toml", app)
    shop.folder.joinpath(".git").mkdir()
    assert is_there()


def test_once_all_runs_every_enabled_job_that_needs_nothing(shop, call):
    shop.write(
        "shop.py", "from taskloop import Jobs\njobs = Jobs()\n@jobs.job()\ndef a(): ...\n@jobs.job()\ndef b(): ...\n"
    )
    done = call("once", "--all", "--format", "json")
    assert {one["job"] for one in done.items} == {"a", "b", "git_metrics"}, "and not prune_history, beside an app"
    assert {one["cause"] for one in done.items} == {"cli"}
    assert "once: 3 jobs" in done.err


def test_why_finds_nothing_wrong_with_the_worker_of_a_run_that_fired_nothing_and_ran_it(shop, call):
    call("once", "add", "a=1")
    found = call("why", "add", "--format", "json").data
    [worker] = [check for check in found["checks"] if check["name"] == "worker"]
    assert found["verdict"] == "ran" and worker["ok"] and "fires nothing" not in worker["text"]


def test_once_of_one_job_touches_no_schedule_and_no_other_submit(shop, call):
    call("submit", "add", "a=1")
    assert call("once", "fails").code == 1
    states = {one["job"]: one["state"] for one in call("runs", "--format", "json").items}
    assert states == {"add": "waiting", "fails": "failed"}


@pytest.mark.parametrize(
    "words",
    [("once", "hourly"), ("once", "--all"), ("once", "--due"), ("process", "hourly", "--every", "1s")],
    ids=lambda words: " ".join(words),
)
def test_what_runs_nothing_waits_for_no_run(shop, call, monkeypatch, words):
    """It stood there for ever: a line of cron piled up processes."""
    monkeypatch.setenv("TASKLOOP_SCHEDULER__ENABLED", "false")
    done = call(*words)
    assert done.code == 4 and "scheduler.enabled is false" in done.err


def test_a_paused_job_is_not_waited_for(shop, call):
    call("pause")
    done = call("once", "add", "a=1")
    assert done.code == 4 and "paused" in done.err
    assert call("runs", "--format", "json").items == []


# -- submit, rerun, cancel


def test_a_submit_without_a_worker_is_kept_with_a_warning(shop, call):
    done = call("submit", "add", "a=1", "--at", "+2h", "--key", "k", "--actor", "anna", "--format", "json")
    assert done.code == 0 and "warning: no worker" in done.err
    assert (done.data["state"], done.data["actor"], done.data["cause"], done.data["key"]) == (
        "waiting",
        "anna",
        "cli",
        "k",
    )
    assert call("trigger", "add", "a=1", "--key", "k", "--format", "json").data["existed"] is True
    again = call("submit", "add", "a=2", "--key", "k")
    assert again.code == 4 and "belongs to run 1" in again.err


def test_waiting_without_a_worker_is_code_5_and_submits_nothing(shop, call):
    done = call("submit", "add", "a=1", "--wait")
    assert done.code == 5 and "taskloop run" in done.err
    assert call("runs", "--format", "json").items == []


def test_a_scheduler_that_is_off_takes_no_runs(shop):
    made = Jobs()

    @made.job()
    def add() -> None: ...

    async def asked() -> str | None:
        async with TaskScheduler("taskloop.db", jobs=[made], options=Options(enabled=False)):
            ledger = Ledger("taskloop.db", options=Options())
            try:
                return await reach.missing_worker(ledger, "add")
            finally:
                await ledger.close()

    assert "which takes nothing (enabled = false)" in asyncio.run(asked())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody"], 3), (["add"], 2), (["add", "a=x"], 2), (["add", "a=1", "--at", "12:00"], 2), (["heartbeat"], 4),
        (["add", "a=1", "--key", ""], 2),  # all that are asked for by a variable of the shell that is empty would be one
        (["add", "a=1", "--timeout", "5m"], 2),  # which is no limit of the run
    ],
)  # fmt: skip
def test_a_refused_submit_leaves_no_record(shop, call, words, code):
    assert call("submit", *words).code == code
    assert call("runs", "--format", "json").items == []


def test_a_parameter_that_is_given_twice_asks_for_nothing(shop, call):
    for verb in ("submit", "once"):
        twice = call(verb, "add", "a=1", "a=2")
        assert twice.code == 2 and "parameter 'a' is given twice; give it once" in twice.err
    assert call("runs", "--format", "json").items == []


def test_a_job_whose_code_is_elsewhere_is_submitted_by_what_the_store_knows(done, call):
    call("once", "hourly")
    done.write("config.toml", "")
    run = call("submit", "add", "a=5", "note=7", "--format", "json").data
    assert run["params"] == {"a": 5, "note": "7"}
    for wrong in (("a=x",), ("a:=1.5",), ("a=1", "c=1")):
        assert call("submit", "add", *wrong).code == 2
    assert call("submit", "add").code == 2
    assert call("submit", "order", "day=2026-03-01").code == 0
    assert call("submit", "order", "day=soon").code == 2
    assert call("submit", "order", "day=2026-03-01", "size=huge").code == 2
    assert call("submit", "ad").code == 3 and "did you mean 'add'" in call("submit", "ad").err
    assert call("rerun", "1", "a=9", "--format", "json").data["params"] == {"a": 9, "note": "hi"}


def test_a_job_whose_code_is_not_at_hand_is_submitted_as_its_worker_has_it(shop, call):
    table = '[jobs.report]\ncall = "quiet:quiet"\ngroup = "db"\nretry = 3\npriority = 7\n'
    shop.write("quiet.py", "def quiet(rows: int = 1) -> int:\n    return rows\n")
    shop.write("config.toml", table)
    assert call("once", "report").code == 0
    shop.write("config.toml", "")
    run = call("submit", "report", "rows=2", "--format", "json").data
    assert run["params"] == {"rows": 2} and run["attempts"] == 3 and run["priority"] == 7
    with closing(sqlite3.connect(shop.folder / "taskloop.db")) as db:
        assert db.execute('SELECT "group" FROM taskloop_runs WHERE id = ?', (run["id"],)).fetchone() == ("db",)
    assert call("submit", "report", "rows=many").code == 2


def test_rerun_lays_parameters_over_those_of_the_run_it_names(done, call):
    run = call("rerun", "1", "b=10", "--format", "json").data
    assert run["params"] == {"a": 1, "b": 10, "note": "hi"} and run["rerun_of"] == 1 and run["cause"] == "rerun"
    assert call("rerun", "77").code == 3


def test_a_waiting_run_says_what_it_waits_for(shop, call):
    call("submit", "add", "a=1", "--at", "2099-01-01T00:00Z")
    assert "waits:       it may begin at " in call("show", "1").out
    call("once", "hourly")
    call("submit", "add", "a=1")
    assert "waits:       it may begin at " in call("show", "1").out
    assert "waits:       no worker runs" in call("show", "3").out
    call("pause", "add", "--actor", "anna")
    assert re.search("waits:       paused since .* by anna", call("show", "3").out)
    assert "waits:" not in call("cancel", "3").out + call("show", "3").out


def test_a_waiting_run_is_cancelled_and_an_ended_one_is_a_conflict(done, call):
    run = call("submit", "slow", "--actor", "ann", "--format", "json").data["id"]
    assert "is cancelled" in call("cancel", str(run), "--reason", "no", "--actor", "tom").out
    record = call("show", str(run), "--format", "json").data
    assert (record["state"], record["reason"], record["actor"]) == ("cancelled", "no", "ann")
    assert record["data"]["cancelled_by"] == "tom"
    shown = call("show", str(run)).out
    assert "cause:       cli by ann" in shown and "cancelled:   by tom" in shown
    again = call("cancel", str(run))
    assert again.code == 4 and "cancelled already" in again.err
    assert call("cancel", "99").code == 3
    assert call("cancel", "x").code == 2


# -- switches


def test_a_job_is_switched_off_and_on_with_reason_actor_and_end(done, call):
    said = call("disable", "hourly", "--reason", "move", "--actor", "tom", "--until", "+2h", "--format", "json")
    switch = said.items[0]["switch"]
    assert (switch["kind"], switch["by"], switch["reason"]) == ("disabled", "tom", "move") and switch["until"]
    assert 'off by tom: "move"' in call("list").out
    assert call("once", "hourly").code == call("submit", "hourly").code == 4
    assert call("enable", "hourly").out == "hourly is on\n"
    assert call("once", "hourly").code == 0


def test_a_job_that_is_held_tells_who_holds_it_why_and_how_long(done, call):
    call("pause", "--reason", "deploy", "--actor", "ann")
    call("pause", "hourly", "--reason", "move", "--actor", "tom", "--until", "+2h")
    jobs = {one["name"]: one for one in call("list", "--format", "json").items}
    told = {name: jobs[name]["switch"] for name in ("add", "hourly", "heartbeat")}
    assert [told["add"][key] for key in ("kind", "by", "reason", "until")] == ["paused", "ann", "deploy", None]
    assert [told["hourly"][key] for key in ("kind", "by", "reason")] == ["paused", "tom", "move"]
    assert told["hourly"]["until"] and told["heartbeat"] is None, "a pause does not say why a job is off"
    for name in told:
        assert call("show", name, "--format", "json").data == jobs[name]
    assert 'paused by tom: "move"' in call("list").out and 'paused by ann: "deploy"' in call("list").out
    assert re.search(r'switched: +paused by tom at .*: "move", until ', call("show", "hourly").out)


@pytest.mark.parametrize("verb", ["enable", "disable", "pause", "resume"])
def test_an_unknown_job_is_not_switched_and_neither_are_the_others(done, call, verb):
    result = call(verb, "hourly", "hourli")
    assert result.code == 3 and "did you mean 'hourly'" in result.err
    assert {one["condition"] for one in call("list", "--format", "json").items} <= {
        "ok",
        "failing",
        "never_ran",
        "disabled",
    }


def test_a_job_can_be_switched_before_it_ever_ran(shop, call):
    assert call("disable", "hourly").code == 0
    assert call("once", "hourly").code == 4


def test_a_switch_says_what_else_stands_in_the_way_of_its_job(done, call):
    """`hourly is on` was all that was said of one that a pause held; of a paused one, that its fires are kept, though it was off."""
    call("pause", "hourly")
    assert call("disable", "hourly", "--until", "+2h").err == ""
    assert (
        "hourly is off, so its fires are skipped when the pause ends; `taskloop enable" in call("pause", "hourly").err
    )
    assert "hourly is paused, so it does not start yet; `taskloop resume hourly`" in call("enable", "hourly").err
    call("disable", "hourly")
    assert "hourly is off, so its fires are skipped; `taskloop enable hourly`" in call("resume", "hourly").err
    assert call("enable", "hourly").err == ""
    call("enable", "heartbeat")
    declared = call("disable", "heartbeat", "--until", "+2h")
    assert "heartbeat is off by its declaration too, so it stays off then; `taskloop enable heartbeat`" in declared.err


def test_everything_is_paused_and_resumed(done, call):
    assert "all jobs are paused" in call("pause", "--reason", "night").out
    assert "night" in call("status").out
    assert {one["condition"] for one in call("list", "--format", "json").items} == {"paused", "disabled"}
    assert call("resume", "--missed", "skip").code == 0
    assert "paused" not in call("list").out


def test_the_actor_is_the_login_name_unless_given(shop, call, monkeypatch):
    monkeypatch.setenv("LOGNAME", "maria")
    assert call("submit", "add", "a=1", "--format", "json").data["actor"] == "maria"


# -- schedules


def test_schedules_are_added_listed_replaced_and_removed(done, call):
    call("once", "hourly")
    added = call(
        "schedule", "add", "add", "a=3", "--cron", "0 6 * * mon", "--timezone", "Europe/London", "--format", "json"
    )
    assert added.code == 0 and added.data["params"] == {"a": 3} and added.data["origin"] == "stored"
    assert added.data["id"] == "add:cron_0_6_*_*_MON_timezone=Europe/London"
    assert call("schedule", "add", "add", "a=4", "--every", "5m", "--id", "often").code == 0
    assert call("schedule", "add", "add", "a=5", "--every", "5m", "--id", "often").code == 0
    page = call("schedule", "list", "--job", "add", "--format", "json").items
    assert [one["params"] for one in page] == [{"a": 3}, {"a": 5}]
    assert call("schedule", "remove", "often").code == 0
    assert call("schedule", "remove", "often").code == 3
    for job in ("add", "hourly"):
        assert (
            call("schedule", "add", job, *(["a=1"] if job == "add" else []), "--at", "+1h", "--id", "hourly").code == 4
        )
    assert call("schedule", "remove", "hourly").code == 4


def test_a_page_of_schedules_names_the_next(done, call):
    for name in "abc":
        call("schedule", "add", "add", "a=1", "--every", "1h", "--id", name)
    first = call("schedule", "list", "--job", "add", "--limit", "2", "--format", "json").data
    rest = call("schedule", "list", "--job", "add", "--before", first["next"], "--format", "json").data
    assert [one["id"] for one in (*first["items"], *rest["items"])] == ["a", "b", "c"] and rest["next"] is None


@pytest.mark.parametrize("words", [["--every", "0"], ["--cron", "* *"], ["--at", "noon"], ["--cron", "0 0 30 2 *"]])
def test_a_schedule_that_cannot_be_is_code_2(done, call, words):
    assert call("schedule", "add", "add", "a=1", *words).code == 2


def test_a_schedule_of_an_instant_that_has_passed_is_refused_and_not_stored(done, call):
    """It was said to be stored, and came to nothing but a skipped row."""
    said = call("schedule", "add", "add", "a=1", "--at", "2020-01-01T00:00:00Z")
    assert said.code == 2 and "which has passed" in said.err and "taskloop submit add" in said.err
    assert "add:at" not in call("schedule", "list").out
    assert call("schedule", "add", "add", "a=1", "--at", "+1h").code == 0


def test_the_id_of_a_schedule_that_cannot_be_is_told_as_such(done, call):
    for name in ("", "a\nb", "x" * 201):
        said = call("schedule", "add", "add", "a=1", "--every", "5m", "--id", name)
        assert said.code == 2 and said.err.startswith("error: schedule id '"), said
        assert "allowed is a text of 1 to 200 printable characters" in said.err


def test_what_can_never_fire_is_told_with_what_could(done, call):
    for words in (["cron"], ["schedule", "add", "add", "--cron"]):
        said = call(*words, "0 0 30 2 *")
        assert (
            said.code == 2
            and "day-of-month is 30, allowed days that month 2 has; as it is it can never fire" in said.err
        )
        assert "help: for the last day of a month write L" in said.err


def test_who_asks_for_a_schedule_as_for_a_job_is_told_of_which_job_it_is_one(done, call):
    assert call("schedule", "add", "add", "a=1", "b=2", "--every", "5m", "--id", "often").code == 0
    for command in (["pause", "often"], ["why", "often"], ["show", "often"], ["runs", "--job", "often"]):
        said = call(*command)
        assert (
            said.code == 3 and "it is a schedule of job 'add'" in said.err and "`taskloop schedule remove`" in said.err
        )
    assert call("pause", "\udcff").code == 3  # what no store takes is no id


def test_a_declared_schedule_is_removed_when_nobody_has_its_job_any_more(done, call):
    said = call("schedule", "remove", "hourly")
    assert said.code == 4 and "is declared by code" in said.err
    shop = done
    shop.write("other.py", "from taskloop import Jobs\njobs = Jobs()\n")
    shop.write("config.toml", '[scheduler]\napp = "other:jobs"\n')
    assert call("schedule", "remove", "hourly").code == 0
    assert "hourly" not in call("schedule", "list").out


def test_the_coming_fires_are_those_of_one_job_where_it_is_named(done, call):
    assert {one["job"] for one in call("next", "nightly", "--limit", "3", "--format", "json").items} == {"nightly"}
    assert len(call("next", "nightly", "--limit", "3", "--format", "json").items) == 3
    assert call("next", "nightl").code == 3


def test_next_says_of_a_job_that_no_worker_has_any_more_that_nobody_will_start_it(done, call):
    assert {one["held"] for one in call("next", "--format", "json").items} == {None}

    async def beside_a_worker_without_it():
        async with TaskScheduler(str(done.folder / "taskloop.db"), options=Options(keep=None)):
            return [await asyncio.to_thread(call, "next", *form) for form in (["--format", "json"], [])]

    records, table = asyncio.run(beside_a_worker_without_it())
    assert {one["held"] for one in records.items if one["job"] == "hourly"} == {"orphan"}
    assert "? orphan" in table.out


def test_next_says_that_no_scheduler_has_told_the_store_what_is_to_come(shop, call):
    assert call("submit", "add", "a=1").code == 0  # makes the store; nobody has started on it
    none = call("next")
    assert (none.code, none.out) == (0, "") and "no schedule is in the store; those of a program come there" in none.err
    assert call("once", "add", "a=1").code == 0
    assert "hourly" in call("next").out


def test_next_says_so_where_no_fire_is_to_come_and_json_stays_a_list(done, call):
    none = call("next", "add")
    assert (none.code, none.out) == (0, "") and "no fire of 'add' is to come" in none.err
    assert "no fire of 'git_metrics' is to come within 1h" in call("next", "git_metrics", "--for", "1h").err
    asked = call("next", "add", "--format", "json")
    assert (asked.data, asked.err) == ({"items": [], "next": None}, "")


def test_what_was_skipped_has_no_attempt_to_be_shown(shop, call):
    shop.write("shop.py", SHOP + "\n@jobs.every('1h', retry=3, first='now')\ndef often() -> None: ...\n")
    call("disable", "often")
    call("once", "often")
    said = call("once")
    assert "attempt=0" not in said.err
    assert "0/3" not in call("runs", "--state", "skipped").out


def test_the_coming_fires_are_told_in_order(done, call):
    call("once")
    fires = call("next", "--for", "3h", "--limit", "50", "--format", "json").items
    assert [one["job"] for one in fires if one["job"] != "nightly"] == ["hourly"] * 3
    assert [one["at"] for one in fires] == sorted(one["at"] for one in fires)
    assert "every hour" in call("next").out


# -- looking


def test_json_is_exactly_the_records(done, call):
    async def expected():
        ledger = Ledger("sqlite:///taskloop.db", options=Options())
        try:
            return [run_record(one) for one in await ledger.runs()], [job_record(one) for one in await ledger.jobs()]
        finally:
            await ledger.close()

    runs, jobs = asyncio.run(expected())
    assert call("runs", "--format", "json").data == {"items": json.loads(json.dumps(runs)), "next": None}
    assert call("list", "--format", "json").data == {"items": json.loads(json.dumps(jobs)), "next": None}
    assert call("show", "1", "--format", "json").data == json.loads(json.dumps(runs[-1]))
    assert call("show", "add", "--format", "json").data in call("list", "--format", "json").items


def test_lines_and_csv_hold_the_same_records(done, call):
    items = call("runs", "--format", "json").items
    assert [json.loads(line) for line in call("runs", "--format", "jsonl").out.splitlines()] == items
    rows = list(csv.DictReader(io.StringIO(call("runs", "--format", "csv").out)))
    assert [row["id"] for row in rows] == [str(one["id"]) for one in items]
    assert json.loads(rows[-1]["params"]) == {"a": 1, "note": "hi"} and rows[-1]["schedule"] == ""


def test_history_is_filtered_and_paged_by_id(done, call):
    for number in range(4):
        call("submit", "add", f"a={number}")
    first = call("runs", "--job", "add", "--limit", "3", "--format", "json").data
    rest = call("runs", "--job", "add", "--before", str(first["next"]), "--format", "json").data
    assert [one["id"] for one in (*first["items"], *rest["items"])] == [6, 5, 4, 3, 1] and rest["next"] is None
    assert "more: --before 4" in call("runs", "--job", "add", "--limit", "3").err
    assert [one["job"] for one in call("runs", "--state", "failed,interrupted", "--format", "json").items] == ["fails"]
    assert len(call("runs", "--since", "1h", "--format", "json").items) == 6
    assert call("runs", "--since", "2020-01-01T00:00:00Z", "--state", "waiting", "--format", "json").items[0]["id"] == 6
    wrong = call("runs", "--state", "faild")
    assert wrong.code == 2 and "did you mean 'failed'" in wrong.err
    assert call("runs", "--job", "ad").code == 3


def test_a_run_is_shown_with_who_why_error_and_traceback(done, call):
    text = call("show", "1").out
    assert "cause:       cli by anna" in text and "asked:       try" in text and "params:      a=1 note=hi" in text
    text = call("show", "2").out
    assert "ValueError: bad \\x1b[31m luck\nsecond line" in text and 'shop.py", line' in text
    assert "\x1b" not in text


def test_text_of_jobs_is_harmless_everywhere(done, call):
    for words in (
        ["list"],
        ["runs"],
        ["show", "2"],
        ["status"],
        ["runs", "--format", "json"],
        ["list", "--format", "csv"],
    ):
        assert "\x1b" not in call(*words, "--color", "never").out


def test_status_is_a_probe(done, call):
    failing = call("status")
    assert failing.code == 1 and "fails" in failing.out and "failing 1x" in failing.out
    assert call("status", "--format", "json").data["attention"][0]["job"] == "fails"
    call("disable", "fails")
    assert call("status").code == 0


def test_status_puts_no_tick_before_a_store_where_nobody_runs_anything(call):
    async def asked():
        async with TaskScheduler("taskloop.db", options=Options(enabled=False)):
            return await asyncio.to_thread(call, "status")

    with_one, without = asyncio.run(asked()), call("status")
    assert with_one.out.startswith("◌ no worker runs, 1 only submits ·"), with_one
    assert without.out.startswith("◌ no worker runs ·") and with_one.code == without.code == 0
    assert "`taskloop doctor` tells what would keep it from its work" in without.out


def test_status_notices_fires_that_nobody_makes(done, call):
    call("once")
    call("disable", "fails")
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute("UPDATE taskloop_schedules SET next_due = next_due - 7200000000 WHERE id = 'hourly'")
    db.close()
    said = call("status")
    assert said.code == 1 and "overdue" in said.out and "no worker runs" in said.out


def test_status_tells_when_a_silent_worker_was_last_heard_on_the_clock_of_who_reads(done):
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute(
            "UPDATE taskloop_workers SET host = 'elsewhere', process = 'elsewhere', stopped_at = NULL, "
            "beat_at = 1767225600000000 WHERE started_at = (SELECT max(started_at) FROM taskloop_workers)"
        )
    db.close()
    said = done.process("status", TZ="XYZ-5:45")
    assert said.code == 1 and "has not beaten since" in said.out and "05:45" in said.out and "XYZ" in said.out
    assert "2026-01-01T00:00:00Z" not in said.out
    told = json.loads(done.process("status", "--format", "json", TZ="XYZ-5:45").out)["attention"]
    assert "since 2026-01-01T00:00:00Z" in str([one["text"] for one in told]), "JSON is in UTC"


def test_glyphs_and_colour_are_taken_away_without_loss(done, call):
    assert "✓ succeeded" in call("runs").out
    plain = call("runs", "--ascii").out
    assert "ok succeeded" in plain and "x failed" in plain and plain.isascii()
    assert "\x1b[31m✗ failed\x1b[0m" in call("runs", "--color", "always").out


# -- `list` reads the file itself: it must say what the ledger says


def test_the_quick_list_says_what_the_ledger_says(tmp_path):
    jobs = Jobs()
    for name in ("ok", "bad", "off", "paused", "waiting", "fresh", "again", "cancelled", "between"):

        def function(times: int = 0) -> str:
            if times:
                raise ValueError("no")
            return "fine"

        retry = {"bad": 2, "between": Retry(2, first="1h")}.get(name, 1)
        jobs.add_job(function, name=name, tags=["t"], retry=retry)
    path = tmp_path / "a.db"

    async def scenario():
        scheduler = TaskScheduler(str(path), jobs=[jobs], options=Options())
        async with scheduler:
            for name, times in (
                ("ok", 0),
                ("bad", 0),
                ("bad", 1),
                ("again", 1),
                ("again", 0),
                ("off", 0),
                ("paused", 1),
            ):
                await (await scheduler.submit(name, {"times": times})).wait()
            for name in ("waiting", "ok", "bad"):
                await scheduler.submit(name, at="+1h", key="k")
            run = await scheduler.submit("cancelled", at="+1h")
            await scheduler.cancel(run.id, reason="why", actor="tom")
            tried = await scheduler.submit("between", {"times": 1})
            while (await scheduler.run(tried.id)).error is None:
                await asyncio.sleep(0.01)
            await scheduler.disable("off", reason="r", actor="anna", until="+1h")
            await scheduler.pause("paused")
            await scheduler.schedule("ok", __import__("taskloop").Every("1h"), id="s", params={"times": 0})
        ledger = Ledger(str(path), options=Options())
        try:
            return [job_record(one) for one in await ledger.jobs()]
        finally:
            await ledger.close()

    expected = asyncio.run(scenario())
    assert {one["condition"] for one in expected} == {
        "ok", "failing", "disabled", "paused", "never_ran", "running"
    }  # fmt: skip
    words = {one["name"]: one["condition"] for one in expected}
    assert [words[name] for name in ("waiting", "ok", "bad", "between")] == ["never_ran", "ok", "failing", "running"], (
        "what waits does not run"
    )
    assert glance.jobs(str(path), datetime.now(UTC)) == json.loads(json.dumps(expected))


def test_the_quick_list_and_the_ledger_judge_trouble_alike(tmp_path):
    path, jobs = tmp_path / "a.db", Jobs()
    for name in ("stuck", "expected", "late", "waits", "tripped", "tried", "old", "busy"):
        jobs.add_job(lambda_named(name), name=name, **({"expect": "1m"} if name == "expected" else {}))

    async def scenario():
        scheduler = TaskScheduler(str(path), jobs=[jobs], options=Options(enabled=False, keep=None))
        async with scheduler:
            await scheduler.schedule("late", Every("1h"), id="hourly")
            with closing(sqlite3.connect(path)) as db, db:
                long_ago = "(strftime('%s') - 3600) * 1000000"
                row = "(job, state, cause, attempt, attempts, due_at, ready_at, created_at, attempt_started_at, ended_at, token, priority, count, worker)"
                ours = "(SELECT id FROM taskloop_workers)"
                for job, state, began in [
                    ("stuck", "running", 1),
                    ("expected", "running", 1),
                    ("waits", "waiting", 0),
                    ("busy", "running", 1),
                ]:
                    db.execute(
                        f"INSERT INTO taskloop_runs {row} VALUES (?, ?, 'manual', ?, 1, {long_ago}, {long_ago}, {long_ago}, "
                        f"{long_ago if began else 'NULL'}, NULL, 1, 0, 1, {ours})", (job, state, began)
                    )  # fmt: skip
                for _ in range(100):  # before what waits of another job
                    db.execute(
                        f"INSERT INTO taskloop_runs {row} VALUES ('stuck', 'waiting', 'manual', 0, 1, 0, 0, 0, NULL, NULL, 1, 0, 1, {ours})"
                    )
                for _ in range(25):
                    db.execute(
                        f"INSERT INTO taskloop_runs {row} VALUES ('stuck', 'succeeded', 'manual', 1, 1, 0, 0, 0, 0, 1000000, 1, 0, 1, {ours})"
                    )
                switch = "INSERT INTO taskloop_switches (job, kind, actor, reason, since, until) VALUES"
                later, before = "(strftime('%s') + 3600) * 1000000", "(strftime('%s') - 60) * 1000000"
                db.execute(f"{switch} ('tripped', 'tripped', 'taskloop', '3 failures', 0, {later})")
                db.execute(f"{switch} ('tried', 'tripped', 'taskloop', '3 failures', 0, {before})")
                db.execute(f"UPDATE taskloop_schedules SET next_due = {long_ago} WHERE id = 'hourly'")
                known = json.dumps([name for name in jobs_of(jobs) if name != "old"])
                db.execute("UPDATE taskloop_workers SET jobs = ?", (known,))
            db.close()
            await scheduler.submit("busy", at="+1h")
            ledger = Ledger(str(path), options=Options())
            try:
                return [job_record(one) for one in await ledger.jobs()], glance.jobs(str(path), datetime.now(UTC))
            finally:
                await ledger.close()

    expected, found = asyncio.run(scenario())
    assert {one["name"]: one["condition"] for one in expected} == {
        "stuck": "stuck", "expected": "stuck", "late": "overdue", "waits": "overdue", "tripped": "disabled",
        "tried": "never_ran", "old": "orphan", "busy": "running",
    }  # fmt: skip
    assert found == json.loads(json.dumps(expected))


def jobs_of(jobs):
    return [job.name for job in jobs]


def lambda_named(name):
    async def function() -> None: ...

    function.__name__ = name
    return function


# -- why


def test_why_says_that_a_run_ran_and_gives_0(done, call):
    said = call("why", "1")
    assert said.code == 0 and said.out.startswith("✓ run 1, asked for on the command line by anna, began at ")
    assert "1 ✓ timetable  asked for, by no schedule" in said.out
    assert call("why", "add").out == said.out


def test_why_gives_10_for_what_did_not_run_and_names_the_reason(done, call):
    call("once")
    call("disable", "hourly", "--actor", "tom", "--reason", "db migration")
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute("UPDATE taskloop_schedules SET next_due = last_due + 1000 WHERE id = 'hourly'")
    db.close()
    call("once")
    said = call("why", "hourly")
    assert said.code == 10 and 'by tom: "db migration"' in said.out and "✗ switch" in said.out
    assert "What can be done: taskloop enable hourly" in said.out and "Nearest fires: " in said.out
    record = call("why", "hourly", "--format", "json").data
    assert (record["verdict"], record["code"]) == ("did_not_run", "disabled")
    assert "switch" in [one["name"] for one in record["checks"] if one["ok"] is False]


def test_why_takes_an_instant_or_the_time_back_from_now(done, call):
    call("once")
    assert call("why", "nightly", "--at", "2030-01-01T03:15:00Z").code == 10
    assert "minute 15 does not match" in call("why", "nightly", "--at", "2030-01-01T03:15:00Z").out
    assert call("why", "hourly", "--at", "1h").code == 10
    assert call("why", "hourly", "--at", "noon").code == 2


def test_why_knows_what_is_not_there(shop, call):
    assert call("why", "hourly").code == 3
    assert call("why", "nobody").code == 3
    call("once", "add", "a=1")
    assert call("why", "99").code == 3
    assert "did you mean 'hourly'" in call("why", "hourli").err
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.later]\ncall = "shop:slow"\n')
    assert "no worker has told the store" in call("why", "later").err


def test_a_schema_the_quick_list_does_not_know_is_left_to_the_ledger(done, call):
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute("UPDATE taskloop_meta SET value = '99' WHERE key = 'schema'")
    db.close()
    assert glance.jobs("taskloop.db", datetime.now(UTC)) is None
    said = call("list")
    assert said.code == 8 and "schema 99" in said.err


def test_a_file_that_is_no_store_is_code_8_and_stays_as_it_is(shop, call):
    shop.write("taskloop.db", "this is a diary, not a database")
    for command in ("list", "runs", "status", "once", "run"):
        done = call(*command.split())
        assert done.code == 8 and "not an SQLite database" in done.err, done
    assert (shop.folder / "taskloop.db").read_text() == "this is a diary, not a database"


def test_a_status_has_all_its_fields_before_there_is_a_store(shop, call):
    before = json.loads(call("status", "--format", "json").out)
    call("once", "add", "a=1")
    after = json.loads(call("status", "--format", "json").out)
    assert [*before] == [*after]
    assert (before["running"], before["workers"], before["jobs"], before["store"]) == (False, [], 0, after["store"])


def test_an_empty_file_is_no_store_yet(shop, call):
    (shop.folder / "taskloop.db").touch()
    assert call("runs").code == call("list").code == 0 and "no store yet" in call("status").err
    assert call("db", "upgrade").code == 8
    assert (shop.folder / "taskloop.db").stat().st_size == 0
    assert call("submit", "add", "a=1").code == call("runs").code == 0


def test_a_store_of_two_names_is_refused_by_the_quick_list_too(done, call):
    (done.folder / "other.db").hardlink_to(done.folder / "taskloop.db")
    said = call("list")
    assert said.code == 8 and "has 2 names (hard links)" in said.err


LOOKING = [*READING, "show hourly", "show 1", "why hourly", "why 1", "db check", "db prune --keep 1d", "db upgrade",
           "schedule remove x"]  # fmt: skip


@pytest.mark.parametrize("command", [*LOOKING, "cancel 1", "disable hourly", "pause", "submit hourly"])
def test_tables_in_a_database_of_others_are_made_by_no_command_that_runs_nothing(shop, call, command):
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute("CREATE TABLE theirs (id)")
    db.close()
    before = (shop.folder / "taskloop.db").read_bytes()
    said = call(*command.split())
    assert said.code == 8 and "is a database without the tables of a store" in said.err and not said.out
    assert "`taskloop run`" in said.err
    assert (shop.folder / "taskloop.db").read_bytes() == before
    assert shop.files == {"config.toml", "shop.py", "taskloop.db"}
    assert call("once", "hourly").code == 0 and call("list").code == 0


def an_older_store(name="taskloop.db"):
    with closing(sqlite3.connect(name)) as db, db:
        db.executescript(migrations()[0][1])
        db.execute("INSERT OR REPLACE INTO taskloop_meta (key, value) VALUES ('schema', '1')")
    db.close()


@pytest.mark.parametrize("command", [one for one in LOOKING if one not in ("db check", "db upgrade")])
def test_an_older_store_is_brought_up_to_date_by_no_command_that_looks(shop, call, command):
    an_older_store()
    before = (shop.folder / "taskloop.db").read_bytes()
    said = call(*command.split())
    assert said.code == 8 and "has schema 1" in said.err and "`taskloop db upgrade`" in said.err and not said.out
    assert (shop.folder / "taskloop.db").read_bytes() == before


def test_an_older_store_can_be_checked_and_copied_before_it_is_brought_up_to_date(shop, call):
    an_older_store()
    assert call("db", "check").code == call("db", "backup", "copy.db").code == 0
    assert call("list").code == 8
    upgraded = call("db", "upgrade")
    assert upgraded.code == call("list").code == 0 and "had schema 1, and is up to date now" in upgraded.out
    shop.write("config.toml", '[store]\nurl = "sqlite:///copy.db"\n')
    assert call("list").code == 8
    assert call("pause").code == call("list").code == 0  # a command that changes records does so too


@pytest.mark.parametrize("command", ["db upgrade", "pause", "once --due"])
def test_who_brings_a_store_up_to_date_is_told_whom_that_leaves_behind(shop, call, command):
    an_older_store()
    alone = call(*command.split())
    assert alone.code == 0 and "of the older version" not in alone.err
    (shop.folder / "taskloop.db").unlink()
    an_older_store()
    now = time.time_ns() // 1000
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        row = ("w", "far", 7, "m:b:p:1", now, now)
        db.execute(
            "INSERT INTO taskloop_workers (id, host, pid, process, started_at, beat_at) VALUES (?, ?, ?, ?, ?, ?)", row
        )
    said = call(*command.split())
    assert said.code == 0 and "start them anew with this one: far pid 7" in said.err
    assert "far pid 7" not in call(*command.split()).err


# -- configuration


def test_all_mistakes_of_the_configuration_are_told_at_once_with_code_7(shop, call):
    shop.write("config.toml", '[scheduler]\ngrace = "-5s"\nintervall = "1w"\n[jobs.x]\nevery = "often"\n')
    for command in (["check"], ["once"], ["run"], ["list"]):
        done = call(*command)
        assert done.code == 7 and not done.out
        assert all(text in done.err for text in ("scheduler.grace", "did you mean 'interval'", "jobs.x.every"))
        assert all(line.startswith(("error: ", "help: ")) for line in done.err.splitlines())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "none.toml", "runs"], "no such file"),
        (["--app", "shop:job", "check"], "did you mean 'jobs'"),
        (["--app", "shp:jobs", "once"], "no module 'shp'"),
    ],
)
def test_what_is_named_and_not_there_is_code_7(shop, call, words, said):
    done = call(*words)
    assert done.code == 7 and said in done.err


def test_an_unknown_scheme_of_the_store_is_code_7(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", "sqlit:///a.db")
    for command in ("list", "runs", "run", "check"):
        done = call(command)
        assert done.code == 7 and "did you mean 'sqlite'" in done.err


def test_a_server_that_is_not_there_is_said_to_be_missing_without_the_password(shop, call, monkeypatch):
    url = "postgresql://u:hunter2@/d?host=/nonexistent"
    monkeypatch.setenv("TASKLOOP_STORE__URL", url)
    for words in (["list"], ["runs"], ["run"], ["db", "check"], ["status", "--format", "json"]):
        done = call(*words)
        assert done.code == 8 and "see whether the server runs" in done.err, done
        assert "hunter2" not in done.out + done.err
    monkeypatch.delenv("TASKLOOP_STORE__URL")
    shop.write("own.py", f"from taskloop import TaskScheduler\nown = TaskScheduler('{url}')\n")
    for words in (["run"], ["list"]):
        done = call("--app", "own:own", *words)
        assert done.code == 8 and "see whether the server runs" in done.err, done
        assert "hunter2" not in done.out + done.err


def test_check_finds_what_a_start_would_trip_over(shop, call):
    assert call("check").code == 0
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.hourly]\nat = 2001-01-01T00:00:00Z\n')
    done = call("check", "--format", "json")
    assert done.code == 1
    assert [one["name"] for one in done.items if not one["ok"]] == ["job hourly"]
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.add]\nevery = "1h"\n')
    assert call("check").code == 7 and "parameter 'a' is missing" in call("check").err
    shop.write("config.toml", '[jobs.ghost]\nevery = "1h"\n')
    assert call("check").code == 7 and "no code declares" in call("check").err


def test_the_file_adds_jobs_and_changes_their_triggers(shop, call):
    shop.write(
        "config.toml",
        '[scheduler]\napp = "shop:jobs"\n[jobs.hourly]\nevery = "5m"\n[jobs.heartbeat]\nenabled = true\n'
        '[jobs.sum]\ncall = "shop:add"\ncron = "0 4 * * *"\nparams = { a = 7 }\n[jobs.git_metrics]\nenabled = false\n',
    )
    jobs = {one["name"]: one for one in call("list", "--format", "json").items}
    assert jobs["hourly"]["trigger"] == "every 5m" and jobs["heartbeat"]["trigger"] == "every 30s"
    assert jobs["heartbeat"]["enabled"] and not jobs["git_metrics"]["enabled"]
    assert jobs["sum"]["trigger_text"] == "at 04:00 every day, UTC"
    assert call("once", "sum", "a=1", "b=1", "--format", "json").data["result"] == 2
    assert call("once", "heartbeat", "--format", "json").data["result"] == "alive"


def test_dev_mode_has_a_store_of_its_own_for_every_command(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_DEV", "2s")
    done = call("once", "add", "a=1")
    assert done.code == 0 and "DEV MODE" in done.err
    assert "taskloop.dev.db" in shop.files and "taskloop.db" not in shop.files
    assert len(call("runs", "--format", "json").items) == 1
    monkeypatch.delenv("TASKLOOP_DEV")
    assert call("runs", "--format", "json").items == []


def test_a_store_named_in_the_code_is_found_by_every_command(shop, call):
    shop.write(
        "own.py",
        "from taskloop import TaskScheduler\nscheduler = TaskScheduler('sqlite:///own.db')\n"
        "@scheduler.job()\ndef greet(name: str = 'you') -> str:\n    return 'hi ' + name\n",
    )
    shop.write("config.toml", '[scheduler]\napp = "own:scheduler"\n[jobs.git_metrics]\nat = 2099-01-01T00:00:00Z\n')
    assert call("once", "greet").code == 0
    assert "own.db" in shop.files and "taskloop.db" not in shop.files
    assert call("runs", "--format", "json").items[0]["summary"] == "hi you"
    assert {"greet", "git_metrics"} <= {one["name"] for one in call("list", "--format", "json").items}
    assert call("submit", "greet", "name=bob").code == 0
    assert call("disable", "greet").code == 0 and call("once", "greet").code == 4


# -- init, cron, db


def test_init_writes_a_program_that_works_and_overwrites_nothing(tmp_path, monkeypatch, call, shop):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    monkeypatch.chdir(fresh)
    assert call("init").code == 0
    assert call("check").code == 0
    assert call("once", "hello", "name=you", "--format", "json").data["result"] == "hello you"
    (fresh / "tasks.py").write_text("mine")
    again = call("init")
    assert again.code == 4 and "tasks.py exists" in again.err and (fresh / "tasks.py").read_text() == "mine"
    (fresh / "config.toml").unlink()
    half = call("init")
    assert half.code == 0 and (fresh / "tasks.py").read_text() == "mine"
    assert "hello" not in half.err, "who knows which jobs that file has"


def test_what_init_says_to_do_next_works_beside_a_configuration_of_another_app(call, shop):
    told = call("init")
    assert told.out == "tasks.py written\n" and "config.toml exists" in told.err
    assert call("once", "hello").code == 3, "the app of the file is another one"
    words = re.search("next: taskloop ([^;\n]*);", told.err)[1].split()
    assert call(*words, "--format", "json").data["result"] == "hello you"
    config = shop.folder / "config.toml"
    config.write_text(config.read_text().replace("shop:jobs", "tasks:jobs"))
    assert call("once", "hello").code == 0, "and so does the other thing it says"


def test_cron_explains_and_lists_fires_in_the_zone_asked_for(call, shop):
    words = ["cron", "30 1 * * *", "--timezone", "Europe/London", "--from", "2026-03-27T00:00:00Z", "--count", "3"]
    assert "01:30 every day" in call(*words).out and "BST" in call(*words).out
    found = call(*words, "--format", "json").data
    assert [one["at"] for one in found["items"]] == [
        "2026-03-27T01:30:00Z", "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"
    ]  # fmt: skip
    assert call(*words, "--format", "csv").out.splitlines()[0] == "at"
    words[words.index("2026-03-27T00:00:00Z")] = "2026-03-28 02:00"  # of that zone
    assert call(*words, "--format", "json").data["items"][0]["at"] == "2026-03-29T01:00:00Z"
    assert "names no zone" in call("cron", "0 2 * * *", "--from", "2026-03-28").err
    assert call("cron", "0", "2", "*", "*", "*").code == 0


def test_the_store_is_checked_pruned_and_copied(done, call):
    assert "is sound" in call("db", "check").out
    assert call("db", "check", "--format", "json").data["problems"] == []
    assert "was up to date" in call("db", "upgrade").out
    assert call("db", "upgrade", "--format", "json").data["upgraded"] is False
    assert call("db", "backup", "copy.db").code == 0
    exists = call("db", "backup", "copy.db")
    assert exists.code == 4 and "exists" in exists.err
    assert call("db", "backup", "none/copy.db").code == call("db", "backup", "").code == 2
    assert call("db", "prune", "--format", "json").data["deleted"] == 0
    assert call("db", "prune", "--keep", "0", "--format", "json").data["deleted"] == 1
    with closing(sqlite3.connect("copy.db")) as db, db:
        assert db.execute("SELECT count(*) FROM taskloop_runs").fetchone() == (2,)
    db.close()


def test_pruning_by_hand_keeps_to_what_a_job_says_of_its_own_records(done, call):
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.execute("UPDATE taskloop_jobs SET definition = json_set(definition, '$.policy.keep', '260w5d')")
    db.close()
    assert call("db", "prune", "--keep", "0", "--format", "json").data["deleted"] == 0


def test_pruning_by_hand_goes_by_the_jobs_alone_where_the_store_keeps_everything(done, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__KEEP", "off")
    assert "had 0 runs more than are kept (as each job says); now deleted" in call("db", "prune").out


def test_pruning_by_hand_says_what_it_goes_by(done, call):
    assert "had 0 runs more than are kept (as each job says)" in call("db", "prune", "--keep", "off").out
    assert "had 0 runs more than are kept (for 1d, or as a job says)" in call("db", "prune", "--keep", "1d").out
    assert (
        "had 1 run more than is kept (for 0s, or as a job says); now deleted" in call("db", "prune", "--keep", "0").out
    )
    refused = call("db", "prune", "--keep", "")
    assert refused.code == 2 and "duration ''" in refused.err


# -- mistakes nobody foresaw


def test_an_unexpected_error_is_one_line_and_with_v_a_traceback(shop, call, monkeypatch):
    monkeypatch.setattr(glance, "jobs", lambda *_: 1 / 0)
    call("once", "add", "a=1")
    done = call("list")
    assert done.code == 1 and done.err.startswith("error: unexpected ZeroDivisionError: division by zero (")
    assert "-v shows" in done.err and "Traceback" not in done.err
    assert "Traceback" in call("-v", "list").err


# -- logs


def test_logs_shows_what_a_run_said_and_obeys_none_of_it(shop, call):
    call("once", "talks")
    said = call("logs", "1")
    first, second, third = said.out.splitlines()
    assert said.code == 0 and first.endswith("info     begun")
    assert second.endswith("error    bad \\x1b[31m luck") and third.strip() == "second line"
    records = call("logs", "1", "--format", "json").data["items"]
    assert [(one["level"], one["text"], one["step"]) for one in records] == [
        ("info", "begun", None), ("error", "bad \x1b[31m luck\nsecond line", None)
    ]  # fmt: skip
    assert call("logs", "1", "-f", "--format", "jsonl").out.count("\n") == 2
    there = shop.process("logs", "1", TZ="XYZ-5:45").out.splitlines()
    at = datetime.fromisoformat(records[0]["at"]).astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert f"{at:%H:%M:%S} XYZ info     begun" in there[0]


def test_logs_of_no_run_gives_3_and_of_a_silent_one_says_so(shop, call):
    assert call("logs", "7").code == 3
    call("once", "add", "a=1")
    said = call("logs", "1")
    assert said.code == 0 and said.out == "" and "run 1 of add has said nothing" in said.err
    assert call("logs", "8").code == 3
    assert call("logs", "x").code == 2


def test_a_run_and_the_one_that_repeats_it_name_each_other(shop, call):
    call("once", "add", "a=1")
    call("rerun", "1", "b=5")
    assert "run again:   run 2 (waiting)" in call("show", "1").out
    assert "again for run 1" in call("show", "2").out


def test_a_flow_that_failed_is_shown_with_how_it_goes_on_and_rerun_does_so(shop, call):
    flow = """
report = jobs.flow("report")

@report.step()
def first(days: int = 1) -> int: return days

@report.step(optional=True, retry=1)
def weather() -> None: raise OSError("rain")

@report.step(retry=1)
def second(first: int, share: int = 0) -> float: return first / share

@report.step()
def third(second: float) -> float: return second
"""
    shop.write("shop.py", SHOP + flow)
    assert call("once", "report").code == 1
    go_on = "go on:       taskloop rerun 1 --from-step second"
    assert go_on in call("show", "1").out
    waits = call("rerun", "1", "--from-step", "second", "--wait")
    assert waits.code == 5 and "or leave --wait out, and run what waits here: taskloop once" in waits.err
    assert call("rerun", "1", "share=2", "--from-step", "second").code == call("once").code == 0
    assert "go on:" not in call("show", "1").out and "go on:" not in call("show", "2").out
    assert [line.split()[:3] for line in call("show", "2").out.splitlines()[-4:]] == [
        ["first", "✓", "kept"], ["weather", "✗", "failed"], ["second", "✓", "succeeded"], ["third", "✓", "succeeded"]
    ]  # fmt: skip


def test_a_run_again_from_a_step_names_it(shop, call):
    flow = '\nreport = jobs.flow("report")\n\n@report.step()\ndef first(days: int = 1) -> int: return days\n'
    shop.write("shop.py", SHOP + flow)
    call("once", "report")
    call("rerun", "1", "days=2", "--from-step", "first")
    assert "again for run 1 from step first" in call("show", "2").out
