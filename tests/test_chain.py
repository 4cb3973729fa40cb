"""The chain of an explanation by itself: facts in, sentences out, for what an engine seldom leaves behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from stories import START

from taskloop import Cron, Every, Run, State
from taskloop.moments import Question
from taskloop.runs import Cause, Reason
from taskloop.schedules import Schedule
from taskloop.store_data import Evidence, Former, Incident, Window, Worker
from taskloop.switches import Switch, Switches
from taskloop.why import explain, explanation_record

HOUR = timedelta(hours=1)
NOON = START + 12 * HOUR
SOON = timedelta(minutes=1)
NOW = NOON + HOUR


def fires(trigger, **some):
    return Schedule(id="job", job="job", trigger=trigger, **some)


HOURLY = fires(Every("1h"), anchor=START, next_due=NOW)
WORKER = Worker(id="w", name=None, host="host", pid=7, process="p", started_at=START, beat_at=NOW)


def facts(**some):
    return Evidence(**{**dict.fromkeys(("schedules", "former", "rows", "asked", "active"), ()), **some})


def asked(at=NOON, *, policy=(), run=None, **some):
    window = None if at is None else Window(at, at, at + timedelta(minutes=1))
    return Question(
        job="job",
        names=frozenset({"job"}),
        window=window,
        run=run,
        now=NOW,
        policy=dict(policy),
        trigger_text="",
        **some,
    )


def skipped(reason, **data):
    return Run(
        job="job", schedule="job", state=State.SKIPPED, reason=reason, due_at=NOON, ready_at=NOON, created_at=NOON,
        ended_at=NOON, data=data,
    )  # fmt: skip


def ran(**some):
    begun = {"started_at": NOON, "attempt_started_at": NOON, "attempt": 1, "worker": "w"}
    return Run(job="job", due_at=NOON, ready_at=NOON, created_at=NOON, **{**begun, **some})


def links(answer):
    return {one.name: one.text for one in answer.checks}


def test_without_an_instant_what_is_due_and_has_no_record_comes_before_what_was_decided_last():
    late = fires(Every("1h"), anchor=START, next_due=NOON)
    answer = explain(asked(None), facts(schedules=[HOURLY, late], rows=[skipped("overlap")], workers=[]))
    assert (answer.verdict, answer.at) == ("unknown", NOON) and answer.run is None


def test_without_an_instant_and_without_anything_due_the_last_decision_is_told():
    paused = fires(Every("1h"), anchor=START, next_due=NOW + HOUR)
    answer = explain(asked(None), facts(schedules=[paused], rows=[ran(schedule="job", state=State.SUCCEEDED)]))
    assert (answer.verdict, answer.code) == ("ran", "ran")
    assert explain(asked(None), facts()).text == "no schedule of it fires; it runs when asked for"


def test_a_row_that_counts_several_instants_is_asked_for_one_of_them():
    row = skipped(Reason.MISSED, down_since="2026-01-01T09:00:00Z", down_seconds=10800)
    row = row.changed(due_at=NOON - 2 * HOUR, until_at=NOON, count=3)
    answer = explain(asked(), facts(schedules=[HOURLY], rows=[row]))
    assert answer.at == NOON and answer.code == "process_down"
    assert answer.text == (
        "it was due at 2026-01-01T12:00:00Z and was skipped (missed), one of 3 from 2026-01-01T10:00:00Z "
        "to 2026-01-01T12:00:00Z: nobody was there for 3h from 2026-01-01T09:00:00Z"
    )


def test_of_a_schedule_that_is_gone_a_count_tells_its_first_and_last_instant_only():
    row = skipped(Reason.MISSED).changed(due_at=NOON - 2 * HOUR, until_at=NOON, count=3)
    last = explain(asked(), facts(rows=[row], workers=[WORKER]))
    assert (last.verdict, last.at, last.evidence) == ("did_not_run", NOON, "full")
    assert links(last)["timetable"] == "schedule 'job' was due then, by this record; it is gone since"
    between = explain(asked(NOON - HOUR), facts(rows=[row]))
    assert (between.verdict, between.code, between.evidence) == ("unknown", "unknown_pruned", "partial")
    assert between.text == (
        "whether it was due at 2026-01-01T11:00:00Z is not on record; run 0 stands for 3 instants "
        "from 2026-01-01T10:00:00Z to 2026-01-01T12:00:00Z, skipped (missed)"
    )


def test_a_reason_of_another_program_and_a_miss_without_facts_are_told_as_they_stand():
    unknown = explain(asked(), facts(schedules=[HOURLY], rows=[skipped("weather")]))
    assert (unknown.code, unknown.text) == ("weather", "it was due at 2026-01-01T12:00:00Z and was skipped (weather)")
    missed = explain(asked(), facts(schedules=[HOURLY], rows=[skipped(Reason.MISSED)]))
    assert missed.code == "missed"


def test_what_a_pause_held_back_is_told_by_the_pause_even_where_a_store_was_away_too():
    pause = Switch("paused", None, NOON - HOUR, "ann", ended_at=NOON + HOUR / 2, missed="skip")
    away = Incident("w", "store", NOON, NOON + HOUR, {"error": "locked"})
    row = skipped(Reason.MISSED, paused_since="2026-01-01T11:00:00Z")
    known = facts(schedules=[HOURLY], rows=[row], switches=Switches([pause]), incidents=[away])
    assert explain(asked(), known).code == "paused"
    forgotten = explain(asked(), known._replace(switches=Switches()))
    assert forgotten.code == "paused" and forgotten.text.endswith("(missed): paused since 2026-01-01T11:00:00Z")


def test_a_schedule_that_was_replaced_twice_is_asked_as_it_stood():
    first = fires(Every("30m"), anchor=START, seen_at=START)
    second = fires(Every("7m"), anchor=START, seen_at=NOON + HOUR / 4)
    now = fires(Every("1h"), anchor=START, seen_at=NOON + HOUR / 2)
    former = [Former(second, NOON + HOUR / 2), Former(first, NOON + HOUR / 4)]
    known = facts(schedules=[now], former=former, workers=[WORKER])
    assert explain(asked(NOON + timedelta(minutes=21)), known).verdict == "not_due"  # of 7 minutes, from midnight
    assert "every 30 minutes" in explain(asked(NOON + timedelta(minutes=1)), known).text
    assert "every 7 minutes" in explain(asked(NOON + timedelta(minutes=20)), known).text


def test_a_cron_whose_instant_matches_says_so_and_a_switched_on_job_who_switched_it_on():
    daily = fires(Cron("0 12 * * *"), next_due=NOON + 24 * HOUR)
    on = Switch("enabled", "job", START, "ann", "season")
    answer = explain(asked(), facts(schedules=[daily], switches=Switches([on]), workers=[WORKER]))
    told = links(answer)
    assert told["timetable"].endswith("all fields match 2026-01-01T12:00:00Z")
    assert told["switch"] == 'switched on since 2026-01-01T00:00:00Z by ann: "season"'
    assert (answer.verdict, answer.code) == ("unknown", "unexplained")


def test_a_job_that_was_off_when_it_was_due_has_no_record_for_that_reason():
    off = Switch("disabled", "job", START, "ann", until=NOON + HOUR)
    open_breaker = Switch("tripped", "job", START, "taskloop", "3 failures", until=NOON + HOUR)
    trial = Switch("tripped", "job", START, "taskloop", "3 failures", until=NOON)
    known = facts(schedules=[HOURLY], workers=[WORKER])

    def told(*switches):
        return explain(asked(), known._replace(switches=Switches(switches)))

    assert told(off).code == "disabled"
    assert "switched off since 2026-01-01T00:00:00Z by ann, until 2026-01-01T13:00:00Z" in told(off).text
    assert "its circuit breaker was open" in told(open_breaker).text
    assert links(told(trial))["switch"] == "on trial after 3 failures"
    assert explain(asked(policy={"enabled": False}), known).text.endswith("off, as declared")


def test_the_record_of_a_run_that_fired_while_it_was_off_by_now_says_it_was_on():
    off = Switch("disabled", "job", START, "ann")
    row = ran(schedule="job", state=State.SUCCEEDED, ended_at=NOON)
    answer = explain(asked(), facts(schedules=[HOURLY], switches=Switches([off]), rows=[row]))
    assert links(answer)["switch"] == "on when it fired"


def test_what_a_record_says_of_a_switch_is_told_where_the_switch_is_forgotten():
    row = skipped(Reason.DISABLED, disabled_since="2026-01-01T09:00:00Z", disabled_by="ann", disabled_reason="moving")
    assert 'off since 2026-01-01T09:00:00Z by ann: "moving"' in explain(asked(), facts(rows=[row])).text
    trial = explain(asked(), facts(rows=[skipped(Reason.DISABLED, trial=9)])).text
    assert trial.endswith("off; its breaker's trial run 9 had not ended")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fires": False}, "worker w (host pid 7) lived, but fires nothing"),
        ({"jobs": frozenset({"other"})}, "worker w (host pid 7) lived, but does not know this job"),
        ({"started_at": NOON + HOUR / 2}, "no worker lived: the next one started at 2026-01-01T12:30:00Z: worker"),
        ({"stopped_at": NOON - HOUR, "ended": "stopped"}, "worker w (host pid 7) stopped at 2026-01-01T11:00:00Z"),
        ({"beat_at": NOON - HOUR}, "worker w (host pid 7) was last seen at 2026-01-01T11:00:00Z"),
    ],
)
def test_a_worker_that_could_not_have_fired_it_is_named(change, text):
    from dataclasses import replace

    answer = explain(asked(), facts(schedules=[HOURLY], workers=[replace(WORKER, **change)]))
    assert answer.verdict == "did_not_run" and text.removesuffix(": worker") in answer.text


def test_a_run_that_started_late_names_the_link_that_held_it_up_or_says_only_how_late():
    row = ran(schedule="job", state=State.SUCCEEDED, started_at=NOON + HOUR / 2, ended_at=NOON + HOUR / 2)
    known = facts(schedules=[HOURLY], workers=[WORKER], rows=[row])
    assert "30m late, and nothing on record says why; succeeded" in explain(asked(), known).text
    short = Switch("paused", "job", NOON + timedelta(minutes=5), "ann", ended_at=NOON + timedelta(minutes=6))
    assert "nothing on record says why" in explain(asked(), known._replace(switches=[short])).text
    frozen = Incident("w", "frozen", NOON, NOON + HOUR / 2)
    answer = explain(asked(), known._replace(incidents=[frozen]))
    assert answer.code == "ran_late"
    assert "because clock: the process stood still for 30m from 2026-01-01T12:00:00Z" in answer.text


def test_a_stall_of_the_engine_and_a_full_disk_are_told_with_their_length():
    known = facts(schedules=[HOURLY], workers=[WORKER])
    stall = Incident("w", "stalled", NOON, NOON + HOUR, {"schedule": "job"})
    assert explain(asked(), known._replace(incidents=[stall])).code == "stalled"
    full = Incident("w", "store", NOON, NOON + HOUR, {"error": "disk is full"})
    assert "store" in links(explain(asked(), known._replace(incidents=[full])))
    assert (
        "was away for 1h from 2026-01-01T12:00:00Z: disk is full"
        in explain(asked(), known._replace(incidents=[full])).text
    )


def test_of_several_outages_the_one_that_holds_the_instant_is_told_else_the_longest():
    def away(since, until):
        return Incident(
            "w", "store", NOON + timedelta(seconds=since), NOON + timedelta(seconds=until), {"error": "cut"}
        )

    missed = skipped(Reason.MISSED, late_seconds=12).changed(ended_at=NOON + timedelta(seconds=12))
    known = facts(schedules=[HOURLY], workers=[WORKER], rows=[missed])
    after, over = away(10, 11.2), away(-3, 10)
    for incidents in ([after, over], [over, after], [after, over, away(0, 1)]):
        assert (
            "was away for 13s from 2026-01-01T11:59:57Z" in explain(asked(), known._replace(incidents=incidents)).text
        )
    told = explain(asked(), known._replace(incidents=[after, away(2, 9)])).text
    assert "was away for 7s from 2026-01-01T12:00:02Z" in told


def test_a_block_by_a_callback_names_its_line():
    block = Incident("w", "loop_blocked", NOON, NOON + HOUR, {"ms": 3_600_000, "where": "app.py:3 read"})
    answer = explain(asked(), facts(schedules=[HOURLY], workers=[WORKER], incidents=[block]))
    assert answer.code == "loop_blocked" and "held by a callback at app.py:3 read" in answer.text


def test_a_run_asked_for_is_due_by_no_schedule():
    answer = explain(
        asked(None), facts(asked=[ran(cause=Cause.MANUAL, actor="ann", state=State.SUCCEEDED, ended_at=NOON)])
    )
    assert links(answer)["timetable"] == "asked for, by no schedule"
    assert ", asked for by ann, began at 2026-01-01T12:00:00Z; succeeded after 0s" in answer.text
    assert explanation_record(answer)["run"] == {
        "run": 0, "state": "succeeded", "reason": None, "due_at": "2026-01-01T12:00:00Z"
    }  # fmt: skip


# -- only what took its part of the delay is to blame


@pytest.mark.parametrize(
    ("kind", "link", "data"),
    [("loop_blocked", "loop", {"ms": 900}), ("frozen", "clock", {}), ("store", "store", {}), ("stalled", "store", {}),
     ("clock", "clock", {"step_seconds": 1.5})],
)  # fmt: skip
def test_a_blink_does_not_account_for_half_an_hour(kind, link, data):
    blink = Incident("w", kind, NOON, NOON + timedelta(seconds=0.9), {"where": "a.py:1 f", **data})
    late = ran(schedule="job", state=State.SUCCEEDED, started_at=NOON + HOUR / 2, ended_at=NOON + HOUR / 2)
    known = facts(schedules=[HOURLY], workers=[WORKER], incidents=[blink])
    answer = explain(asked(), known._replace(rows=[late]))
    assert answer.text.endswith("30m late, and nothing on record says why; succeeded after 0s")
    assert {one.name: one.ok for one in answer.checks}[link] is True
    on_time = explain(asked(), known._replace(rows=[ran(schedule="job", state=State.SUCCEEDED, ended_at=NOON)]))
    assert on_time.code == "ran" and all(one.ok for one in on_time.checks)
    expired = skipped(Reason.TOO_LATE, late_seconds=1800).changed(ended_at=NOON + HOUR / 2)
    assert explain(asked(), known._replace(rows=[expired])).code == "too_late"


def test_a_group_with_a_place_left_holds_nobody_up():
    waiting = ran(state=State.WAITING, started_at=None, attempt_started_at=None, attempt=0, worker=None, group="g")
    holder = ran(group="g", state=State.RUNNING).changed(job="other")
    known = facts(schedules=[HOURLY], workers=[WORKER], active=[waiting], group=[holder])
    living = frozenset({"w"})
    policy = {"group": "g"}
    assert explain(asked(None, policy=policy, living=living, places=1), known).code == "group"
    assert explain(asked(None, policy=policy, living=living), known).code == "group", "this program knows no better"
    assert explain(asked(None, policy=policy, living=living, places=2), known).code == "due_now"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"health": {"takes": "all"}}, "due_now"), ({}, "unknown_job")],
)
def test_a_worker_that_fires_nothing_but_takes_what_is_asked_for_is_one_that_may_start_it(changes, code):
    waiting = ran(state=State.WAITING, started_at=None, attempt_started_at=None, attempt=0, worker=None)
    known = facts(workers=[replace(WORKER, fires=False, **changes)], active=[waiting])
    assert explain(asked(None, living=frozenset({"w"})), known).code == code


@pytest.mark.parametrize(("jobs", "code"), [(["other"], "unknown_job"), (["other", "job"], "process_down")])
def test_that_a_worker_is_stopping_is_told_of_one_that_has_the_job(jobs, code):
    due = fires(Every("1h"), anchor=START, next_due=NOON)
    known = facts(schedules=[due], workers=[replace(WORKER, jobs=frozenset(jobs), health={"stopping": True})])
    assert explain(asked(living=frozenset({"w"})), known).code == code


@pytest.mark.parametrize(
    ("takes", "text"),
    [(["other"], "run other jobs only"), ([], "only fire"), (["other", "job"], "may start any moment")],
)
def test_a_run_that_no_worker_there_takes_is_not_about_to_start(takes, text):
    waiting = ran(state=State.WAITING, started_at=None, attempt_started_at=None, attempt=0, worker=None)
    known = facts(workers=[replace(WORKER, health={"takes": takes, "free": 8})], active=[waiting])
    answer = explain(asked(None, living=frozenset({"w"})), known)
    assert answer.text.endswith(text)
    full = replace(WORKER, id="f", health={"takes": "all", "free": 0})
    both = explain(asked(None, living=frozenset({"w", "f"})), known._replace(workers=[*known.workers, full]))
    assert both.code == ("due_now" if "job" in takes else "slots")


# -- what is not on record


def test_what_is_held_from_before_anything_is_known_is_not_laid_at_a_link():
    held = fires(Every("1h"), anchor=START, next_due=NOON)
    answer = explain(asked(), facts(schedules=[held], known_since=NOW))
    assert (answer.verdict, answer.code, answer.evidence) == ("unknown", "unknown_pruned", "partial")
    assert answer.text.endswith("what else is on record of that time does not tell why")
    assert {one.name for one in answer.checks if one.ok is None} == {"worker", "clock", "loop", "store"}


def test_a_limit_that_is_gone_by_now_is_not_quoted():
    late = skipped(Reason.TOO_LATE, late_seconds=1800)
    answer = explain(asked(), facts(schedules=[HOURLY], rows=[late], workers=[WORKER]))
    assert answer.text.endswith("30m late; the max_late of then was less; now there is none")


def test_what_the_timetable_names_is_not_taken_for_a_later_fire_of_a_job_spread_wider_than_its_interval():
    between = ran(schedule="job", state=State.SUCCEEDED).changed(due_at=NOON + timedelta(minutes=2))
    answer = explain(asked(spread=3 * HOUR), facts(schedules=[HOURLY], rows=[between], workers=[WORKER]))
    assert answer.verdict == "not_due" and "moved by" in answer.text


def test_a_late_run_took_the_place_of_none_that_had_ended_long_before():
    late = ran(
        id=2, schedule="job", state=State.SUCCEEDED, started_at=NOON + 10 * SOON, attempt_started_at=NOON + 10 * SOON
    )
    for ended_at, took in ((NOON + SOON, False), (NOON + 10 * SOON, True)):
        before = ran(id=1, schedule="job", state=State.SUCCEEDED, ended_at=ended_at)
        answer = explain(
            asked(policy={"max_running": 1}), facts(schedules=[HOURLY], rows=[late], freed=[before], workers=[WORKER])
        )
        assert ("run 1 of 'job' ended" in links(answer)["overlap"]) is took


def test_whether_a_schedule_that_was_changed_since_was_off_at_a_time_of_which_nothing_is_left_is_not_known():
    old = Former(fires(Every("1h"), anchor=START), NOW)
    answer = explain(asked(), facts(former=[old], schedules=[], workers=[WORKER], known_since=NOW))
    assert links(answer)["switch"] == "not on record any more"


def test_the_next_instant_of_an_interval_that_begins_only_after_its_anchor_is_a_whole_one_later():
    later = fires(Every("1h"), anchor=NOON + HOUR / 2, seen_at=START, next_due=NOON + 3 * HOUR / 2)
    answer = explain(asked(policy={"first": "after"}), facts(schedules=[later], workers=[WORKER]))
    assert "2026-01-01T13:30:00Z" in answer.text and "12:30" not in answer.text


def test_a_job_that_another_switch_kept_off_as_its_own_ended_was_not_on_again_then():
    first = Switch("disabled", "job", START, ended_at=NOON + HOUR / 4)
    second = Switch("disabled", "job", NOON + HOUR / 4, ended_at=NOON + HOUR / 2)
    for switches, told in (([first, second], "and it stayed off"), ([first], "on again at 2026-01-01T12:15:00Z")):
        answer = explain(
            asked(), facts(schedules=[HOURLY], rows=[skipped(Reason.DISABLED)], switches=switches, workers=[WORKER])
        )
        assert told in answer.text
