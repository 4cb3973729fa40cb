"""`taskloop simulate`: what it shows, with which code it ends, twice the same bytes, and the store as it was."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
from xml.etree import ElementTree

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import on_a_terminal
from command_line import shop as shop

from taskloop.cli.picture import COLUMNS, LABEL

JOBS = """
from taskloop import Jobs

jobs = Jobs()

def declared(name, minutes, **policy):
    @jobs.cron("30 2 * * *", timezone="Europe/Berlin", name=name, expect=f"{minutes}m", **policy)
    def job(): ...

declared("backup", 20, group="db", priority=1)
declared("archive", 3, group="db")
declared("left_out", 3)

@jobs.every("10m", expect="11m")
def crawl(): ...

@jobs.every("5m")
def poll(): ...
"""
WEEK = ("simulate", "--for", "7d", "--from", "2026-03-25", "--tz", "Europe/Berlin")


@pytest.fixture
def plan(shop):
    """A directory with a program whose jobs are in each other's way in the week in which the clocks change."""
    shop.write("jobs.py", JOBS)
    shop.write("config.toml", '[scheduler]\napp = "jobs:jobs"\n[jobs.git_metrics]\nat = 2099-01-01T00:00:00Z\n')
    return shop


def test_a_week_with_its_overlaps_waits_and_clock_change_is_told_and_strict_minds(plan, call):
    done = call(*WEEK, "--strict")
    assert done.code == 1 and call(*WEEK).code == 0
    first, _, *rest = done.out.splitlines()
    assert (
        first == "6 jobs · 1 week from Wed 25 Mar 00:00:00 CET · 3,045 fires · 3d 23h of work · at most 3 at once of 64"
    )
    assert "archive finds group 'db' (1 place) full, behind backup: of 7 fires 7 wait up to 20m 0s" in done.out
    assert "crawl comes due while its previous run is still going: of 1,008 fires 504 skipped" in done.out
    assert "02:30 does not exist in Europe/Berlin: archive, backup, left_out will run right after the gap" in done.out
    assert "how long poll takes is not known" in done.out
    lane = next(line for line in rest if line.startswith("archive"))[LABEL:]
    assert lane.count("✗") == 7 and len(lane) <= COLUMNS
    plain = call("--ascii", "--color", "never", *WEEK).out
    assert plain.isascii() and plain.count("x") > 7
    assert plan.files == {"config.toml", "jobs.py", "shop.py"}


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_the_picture_and_what_stands_around_it_fit_the_terminal(plan, columns):
    code, said = on_a_terminal(plan, *WEEK, "--duration", "poll=5m", COLUMNS=str(columns), NO_COLOR="1")
    lines = said.splitlines()
    lines = lines[: next(place for place, line in enumerate(lines) if re.match(r"\S (overlap|dst)", line))]
    assert code == 0 and max(map(len, lines)) <= columns, said
    assert "at most 4 at once of 64" in said and "at most 4, 02:30:00 CET" in said, said
    lane = next(line for line in lines if line.startswith("poll"))[LABEL:]
    assert len(lane) == min(COLUMNS, columns - LABEL), "as wide as there is room for"
    axis = next(line for line in lines if line.startswith(" " * LABEL) and "Mar" in line)
    assert re.fullmatch(r"( +\d\d Mar){2,}", axis), axis


@pytest.mark.parametrize(
    ("span", "first", "second"),
    [("20s", "10:00:00", "10:00:05"), ("1m", "10:00:00", "10:00:10"), ("50m", "10:00", "10:10")],
)
def test_a_short_picture_has_a_clock_above_it_too(plan, call, span, first, second):
    said = call("simulate", "--for", span, "--from", "2026-03-25T10:00:00Z", "--tz", "UTC").out
    axis = next(line for line in said.splitlines() if line.startswith(" " * LABEL))
    assert axis.split()[:2] == [first, second]


def test_beyond_the_last_year_there_is_nothing_to_plan(plan, call):
    refused = call("simulate", "--from", "9999-12-31T00:00:00Z")
    assert refused.code == 2 and "after the year 9999" in refused.err


def test_its_json_has_every_job_and_the_same_totals_everywhere(plan, call):
    data = call(*WEEK, "--format", "json").data
    assert (
        data["fires"] == sum(one["fires"] for one in data["jobs"]) == sum(one["fires"] for one in data["load"]) == 3045
    )
    [backup] = [one for one in data["jobs"] if one["job"] == "backup"]
    assert (backup["fires"], backup["first"], backup["last"]) == (7, "2026-03-25T01:30:00Z", "2026-03-31T00:30:00Z")
    assert [(one["kind"], one["jobs"], one["count"]) for one in data["overlaps"]] == [
        ("self", ["crawl"], 504), ("group", ["archive", "backup"], 7),
    ]  # fmt: skip
    assert data["warnings"] == len(data["overlaps"]) + sum(one["level"] == "warning" for one in data["notes"])
    assert [one["job"] for one in map(json.loads, call(*WEEK, "--format", "jsonl").out.splitlines())] == [
        one["job"] for one in data["jobs"]
    ]
    shorter = call(*WEEK, "--duration", "backup=1m", "--duration", "crawl=10s", "--format", "json").data
    assert [(one["kind"], one["expected_wait_seconds"]) for one in shorter["overlaps"]] == [("group", 60.0)]


def test_twice_the_same_bytes_also_in_other_processes_and_as_a_picture(plan, call):
    once, again = (
        plan.process(*WEEK, "--format", "json", "--svg", f"{seed}.svg", PYTHONHASHSEED=seed).out for seed in ("1", "2")
    )
    assert once == again and once
    assert call(*WEEK).out == call(*WEEK).out
    svg = (plan.folder / "1.svg").read_text()
    assert svg == (plan.folder / "2.svg").read_text()
    drawn = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert {one.get("class") for one in drawn.iter() if one.tag.endswith("rect")} >= {"fires", "trouble", "load"}


def test_it_works_beside_a_running_process_and_leaves_the_store_as_it_was(plan, call):
    with plan.start("run", "--for", "30s") as running:
        running.hear("scheduler.started")
        beside = call("simulate", "--for", "1d", "--format", "json").data
        assert {one["job"]: one["fires"] for one in beside["jobs"]}["poll"] in (287, 288)
        assert running.end(signal.SIGTERM) == 143
    files = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in plan.folder.glob("taskloop.db*")}
    alone = call("simulate", "--for", "1d", "--format", "json").data
    assert alone["fires"] == pytest.approx(beside["fires"], abs=3)
    assert files == {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in plan.folder.glob("taskloop.db*")}
    plan.write("config.toml", "")  # without the code, by what the store knows of it
    known = call("simulate", "--for", "1d", "--format", "json").data
    assert [one["job"] for one in known["jobs"]] == [one["job"] for one in alone["jobs"]]
    assert [one["kind"] for one in known["overlaps"]] == [one["kind"] for one in alone["overlaps"]]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--for", "367d"), 2, "366d"),
        (("--for", "0"), 2, "zero"),
        (("--from", "2026-03-25"), 2, "offset"),
        (("--tz", "Europe/Berln"), 2, "Europe/Berlin"),
        (("--duration", "backup"), 2, "JOB=D"),
        (("--duration", "bakup=3m"), 3, "backup"),
        (("--svg", "no/such/folder.svg"), 2, "cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(plan, call, words, code, said):
    done = call("simulate", *words)
    assert (done.code, done.out) == (code, "") and said in done.err


def test_a_history_says_how_long_runs_take(shop, call):
    assert call("once", "hourly").code == 0
    told = call("simulate", "--for", "3h", "--format", "json").data
    takes = {one["job"]: one["takes_seconds"] for one in told["jobs"]}
    assert takes["hourly"] is not None and takes["nightly"] is None
