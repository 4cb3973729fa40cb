"""The checks themselves: each keeps quiet about a story that kept its promise and tells of one that did not."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import invariants
import lost_writes
import points
import pytest
import side_by_side
import tracing
import witness
from adapter import OnFile
from facts import (
    SECOND,
    Apart,
    Attempt,
    Books,
    Call,
    Freeze,
    Life,
    Outage,
    Rule,
    Run,
    Said,
    Schedule,
    Step,
    Story,
    Switched,
    Use,
    Worker,
)
from lost_writes import CUT, DURABLE, WRITTEN, Record
from side_by_side import Excuses
from torture import Blow
from witness import Witness

T = 1_000 * SECOND
RULES = {
    "tick": Rule("tick", every=1.0, period=1.0, takes=0.1, attempts=3, formerly="tack"),
    "once": Rule("once", every=1.0, period=1.0, missed="skip", on_crash="fail"),
    "each": Rule("each", every=1.0, period=1.0, missed="all"),
    "pair": Rule("pair", every=1.0, period=1.0, overlap="allow", group="few"),
    "asked": Rule("asked"),
}
RUN = Run("1", "tick", "tick", "succeeded", T, attempt=1, attempts=3, attempt_started=T, worker="w", token=1)
CALL = Call("tick", "tick", T, "1", "tick:1", 1, 1, "w", 7, T + 1_000, T + 101_000, "returned")
BOOKS = Books([RUN], taken=T + 10 * SECOND)
LIFE = Life(7, T - SECOND, T + 9 * SECOND, "stopped", T)


def story(*runs: Run, calls=(CALL,), **more) -> Story:
    """One run of `tick` with its call, if nothing else is given."""
    books = {name: more.pop(name) for name in ("attempts", "workers", "schedules", "switched_to") if name in more}
    books["switched"] = books.pop("switched_to", {})
    found = Books(list(runs or (RUN,)), taken=T + 10 * SECOND, **books)
    return Story(**{"rules": RULES, "calls": calls, "books": found, "lives": [LIFE], "places": {"few": 2}} | more)


def promises(found) -> list[str]:
    return [one.promise for one in found]


def test_a_story_that_kept_every_promise_is_not_complained_of():
    assert invariants.broken(story(), settled=True) == []
    assert side_by_side.broken(story()) == []


@pytest.mark.parametrize(
    ("letter", "told"),
    [
        ("a", story(calls=(CALL, replace(CALL, run="2")))),
        ("a", story(calls=(CALL, replace(CALL, token=2)))),
        ("a", story(replace(RUN, attempt_started=T + SECOND))),
        ("b", story(replace(RUN, state="running"), workers=[Worker("w", 8, T, None)])),
        ("c", story(said=[Said("succeeded", "2", "tick")])),
        ("c", story(replace(RUN, state="interrupted"), said=[Said("succeeded", "1", "tick")])),
        ("c", story(said=[Said("retrying", "1", "tick", 1)])),
        ("c", story(said=[Said("submitted", "1", "tick", key="k", where="command")])),
        ("d", story(RUN, replace(RUN, id="2", schedule="tack"))),
        ("d", story(replace(RUN, key="k"), replace(RUN, id="2", due=T + SECOND, key="k"))),
        ("e", story(calls=(CALL, replace(CALL, pid=8)))),
        ("e", story(calls=tuple(replace(CALL, token=token) for token in range(1, 6)))),
        ("e", story(calls=(replace(CALL, job="once"), replace(CALL, job="once", token=2)), lives=[])),
        ("g", story(RUN, replace(RUN, id="3", due=T + 2 * SECOND))),
        ("g", story(replace(RUN, until=T + 5 * SECOND, count=5))),
        ("g", story(schedules=[Schedule("tick", "tick", T + 2 * SECOND)])),
        ("h", story(switched=[Switched("tick", "disabled", T, T, True)])),
        ("j", story(strangers=["jobs.db-journal.tmp"])),
        ("k", story(calls=())),
        ("k", story(replace(RUN, state="failed"))),
        ("k", story(attempts=[Attempt("1", 1, 1, T, "failed")])),
    ],
)
def test_each_promise_of_the_torture_that_is_broken_is_told(letter, told):
    assert letter in promises(invariants.broken(told, settled=True))


def test_what_may_be_is_not_complained_of():
    repeated = replace(RUN, token=2, attempt=2, attempt_started=T + SECOND)
    lost = Attempt("1", 1, 1, T, "lost")
    again = replace(CALL, token=2, attempt=2, began=T + SECOND, ended=T + 2 * SECOND)
    cut_short = replace(CALL, ended=None, outcome=None)
    for told in (
        story(repeated, calls=(cut_short, again), attempts=[lost]),
        story(replace(RUN, state="interrupted"), calls=(cut_short,)),
        story(
            replace(RUN, state="waiting", token=0, key="k"), calls=(), said=[Said("submitted", "1", "tick", key="k")]
        ),
        story(attempts=[], said=[Said("started", "1", "tick", 1), Said("succeeded", "1", "tick", 1)]),
        story(RUN, replace(RUN, id="2", due=T + SECOND, until=T + 3 * SECOND, count=3, state="skipped")),
        # Of a switch that was asked for and never acknowledged, nobody knows.
        story(switched=[Switched("tick", "disabled", T, T, False)], switched_to={("tick", "enabled"): "disabled"}),
    ):
        assert invariants.broken(told, settled=True) == []


def test_of_down_time_each_policy_has_its_due():
    lives = [replace(LIFE, ended=T + SECOND, how="killed"), Life(9, T + 6 * SECOND, None)]
    workers = [Worker("w", 7, T, None), Worker("v", 9, T + 6 * SECOND, None)]

    def of(name, *fates):
        rows = [
            replace(
                RUN, id=str(place), job=name, schedule=name, due=T + (2 + place) * SECOND, state=state, reason=reason
            )
            for place, (state, reason) in enumerate(fates)
        ]
        told = story(*rows, calls=(), lives=lives, workers=workers)
        return promises(invariants.down_time_by_policy(told))

    ran, missed = ("running", None), ("skipped", "missed")
    assert of("tick", missed, missed, ran) == [] and of("tick", ran, missed, ran) == ["g"]
    assert of("once", missed, missed) == [] and of("once", missed, ran) == ["g"]
    assert of("each", ran, ran, ran) == [] and of("each", missed, ran) == ["g"]


def test_what_was_final_stays_and_what_was_there_is_there():
    waits = replace(RUN, state="waiting", token=3)
    for before, after in (
        (RUN, replace(RUN, state="interrupted")),
        (waits, replace(waits, token=2)),
        (RUN, replace(RUN, id="2")),
    ):
        assert promises(invariants.never_undone(Books([before]), Books([after]))) == ["k"]
    assert list(invariants.never_undone(Books([waits]), Books([replace(waits, state="running", token=4)]))) == []


# -- several processes


def test_an_instant_called_under_two_records_is_told_whatever_the_job_was_called_then():
    other = replace(CALL, schedule="tack", job="tack", run="2", pid=8)
    assert "unique" in promises(
        side_by_side.broken(story(RUN, replace(RUN, id="2", schedule="tack"), calls=(CALL, other)))
    )


def test_a_result_written_under_an_older_claim_is_told():
    later = replace(CALL, token=2, attempt=2, pid=8, began=T + 2_000, ended=None, outcome=None)
    told = story(calls=(replace(CALL, ended=T + SECOND), later), attempts=[Attempt("1", 1, 1, T, "lost")])
    assert "fencing" in promises(side_by_side.broken(told))


def of_an_outlived_owner():
    """Its call ends a second after that of the next claim has begun."""
    run = replace(RUN, token=2, attempt=2, attempt_started=T + SECOND)
    calls = (
        replace(CALL, ended=T + 3 * SECOND),
        replace(CALL, token=2, attempt=2, pid=8, began=T + 2 * SECOND, ended=T + 4 * SECOND),
    )
    return story(run, calls=calls, attempts=[Attempt("1", 1, 1, T, "lost")])


def test_an_owner_that_was_outlived_must_say_so():
    told = of_an_outlived_owner()
    assert "fencing" in promises(side_by_side.fencing(told))
    assert list(side_by_side.fencing(replace(told, fenced=frozenset({"1"})))) == []


def test_an_owner_that_was_killed_as_it_was_outlived_says_nothing():
    told = of_an_outlived_owner()
    for seconds, how, expected in ((3.2, "killed", []), (4.2, "killed", ["fencing"]), (3.2, "stopped", ["fencing"])):
        lives = [replace(LIFE, ended=T + round(seconds * SECOND), how=how), replace(LIFE, pid=8)]
        assert promises(side_by_side.fencing(replace(told, lives=lives))) == expected


def test_two_calls_at_once_are_excused_only_by_an_owner_frozen_past_its_lease():
    first = replace(CALL, ended=T + 4 * SECOND)
    second = replace(CALL, run="2", due=T + SECOND, pid=8, began=T + 2 * SECOND, ended=T + 3 * SECOND)
    runs = (RUN, replace(RUN, id="2", due=T + SECOND))
    for freeze, expected in (
        ((), ["overlap"]),
        ((Freeze(7, T + 500_000, T + 800_000),), ["overlap"]),
        ((Freeze(7, T + 500_000, T + 3 * SECOND),), []),
        ((Freeze(8, T + 500_000, T + 3 * SECOND),), ["overlap"]),
        # Claimed, frozen, thawed, begun: it may not have heard yet. Frozen, thawed, claimed: it could know.
        ((Freeze(7, T - 2 * SECOND, T + 500),), []),
        ((Freeze(7, T - 2 * SECOND, T - 500),), ["overlap"]),
    ):
        excuses = Excuses()
        found = side_by_side.broken(story(*runs, calls=(first, second), freezes=freeze), excuses)
        assert promises(found) == expected and len(excuses) == (not expected)


def test_a_killed_owner_ends_its_calls():
    first = replace(CALL, ended=None, outcome=None)
    second = replace(CALL, run="2", due=T + SECOND, pid=8, began=T + 2 * SECOND, ended=T + 3 * SECOND)
    lives = [replace(LIFE, ended=T + SECOND, how="killed"), replace(LIFE, pid=8)]
    runs = (replace(RUN, state="interrupted"), replace(RUN, id="2", due=T + SECOND))
    assert side_by_side.broken(story(*runs, calls=(first, second), lives=lives)) == []
    assert "overlap" in promises(side_by_side.broken(story(*runs, calls=(first, second), lives=[LIFE])))


def test_more_calls_at_once_than_places_are_told():
    calls = tuple(
        replace(CALL, job="pair", schedule="pair", run=str(number), due=T + number * SECOND, ended=T + 5 * SECOND)
        for number in range(3)
    )
    assert promises(side_by_side.limits(story(calls=calls), Excuses())) == ["limits"]
    assert list(side_by_side.limits(story(calls=calls[:2]), Excuses())) == []


def test_what_is_stuck_late_or_silent_at_the_end_is_told():
    end = T + 30 * SECOND
    well = {"healed": T, "stopped": end, "lives": [replace(LIFE, ended=end + SECOND)]}
    late = replace(CALL, due=T + 20 * SECOND, began=T + 23 * SECOND)
    for told, promise in (
        (story(replace(RUN, state="running"), **well), "liveness"),
        (story(replace(RUN, state="waiting", ready=T), **well), "liveness"),
        (story(replace(RUN, state="waiting"), said=[Said("submitted", "1", "tick")], **well), "liveness"),
        (story(schedules=[Schedule("tick", "tick", T + SECOND)], **well), "liveness"),
        (story(schedules=[Schedule("tick", "tick", end + 60 * SECOND)], **well), "clock"),
        (story(replace(RUN, due=late.due), calls=(late,), **well), "liveness"),
    ):
        assert promise in promises(side_by_side.broken(told))
    assert side_by_side.broken(story(schedules=[Schedule("tick", "tick", T + SECOND)], **(well | {"stopped": T}))) == []


def test_a_job_that_is_silent_or_runs_wild_when_a_clock_is_set_is_told():
    def told(*seconds):
        calls = tuple(
            replace(CALL, run=str(at), due=T + round(at * SECOND), began=T + round(at * SECOND)) for at in seconds
        )
        return promises(side_by_side.clocks(story(calls=calls, steps=[Step(7, T, 120.0)])))

    assert told(0, 1, 2, 3, 4) == []
    assert told(0, 1, 5, 6) == ["clock"]
    assert told(*(place / 4 for place in range(60))) == ["clock"]


def test_silence_is_excused_by_who_was_stopped_while_it_held_the_file_if_others_said_so():
    def told(**more):
        calls = tuple(replace(CALL, run=str(at), due=T + at * SECOND, began=T + at * SECOND) for at in (0, 1, 9, 10))
        frozen = [Freeze(8, T + SECOND + 100_000, T + 9 * SECOND)]
        steps = [Step(7, T, 120.0)]
        return promises(side_by_side.clocks(story(calls=calls, freezes=frozen, steps=steps, **more)))

    assert told() == told(holding=frozenset({7})) == ["clock"]
    assert told(holding=frozenset({8})) == []


def test_silence_of_a_fixed_grid_is_excused_by_the_instants_that_are_on_record_already_and_by_no_others():
    base = -(-T // SECOND) * SECOND
    rule = replace(RULES["tick"], fixed_grid=True)

    def told(*decided, fixed=True):
        calls = tuple(
            replace(CALL, run=str(100 + at), due=base + at * SECOND, began=base + at * SECOND) for at in (0, 1, 9, 10)
        )
        ahead = [replace(RUN, id=str(at), due=base + at * SECOND) for at in decided]
        found = story(*ahead, calls=calls, steps=[Step(7, T, 120.0)], lives=[replace(LIFE, ended=base + 30 * SECOND)])
        return promises(side_by_side.clocks(replace(found, rules={"tick": replace(rule, fixed_grid=fixed)})))

    assert told(2, 3, 4, 5, 6, 7, 8) == []
    assert told(2, 3, 4) == ["clock"], "the others were to come"
    assert told(2, 3, 4, 5, 6, 7, 8, fixed=False) == ["clock"], "a grid of elapsed time goes back with the clock"


def test_a_job_that_is_off_and_called_is_told_unless_its_caller_was_frozen_meanwhile():
    off = [Switched("tick", "disabled", T, T, True), Switched("tick", "enabled", T + 9 * SECOND, T + 9 * SECOND, True)]
    call = replace(CALL, due=T + 4 * SECOND, began=T + 4 * SECOND)
    assert promises(side_by_side.silence(story(calls=(call,), switched=off))) == ["silence"]
    assert list(side_by_side.silence(story(calls=(replace(call, began=T + SECOND),), switched=off))) == []
    frozen = [Freeze(7, T - SECOND, T + 3 * SECOND)]
    assert list(side_by_side.silence(story(calls=(call,), switched=off, freezes=frozen))) == []


def test_only_a_thread_may_go_on_while_its_process_is_set_apart_from_the_server_beyond_its_lease():
    apart = [Apart(7, T + 10_000, T + 9 * SECOND)]
    first = replace(CALL, ended=T + 5 * SECOND)
    second = replace(CALL, run="2", due=T + 2 * SECOND, began=T + 2 * SECOND, ended=T + 3 * SECOND, pid=8)

    def told(*, thread: bool, **more) -> list[str]:
        rules = {"tick": replace(RULES["tick"], thread=thread)}
        found = story(RUN, replace(RUN, id="2", due=second.due), calls=(first, second), rules=rules, **more)
        return promises(side_by_side.overlaps(found, Excuses()))

    assert told(thread=False, aparts=apart) == ["overlap"]
    assert told(thread=True, aparts=apart) == []
    assert told(thread=True, aparts=[replace(apart[0], pid=8)]) == ["overlap"]
    assert told(thread=True, aparts=[replace(apart[0], since=T + 2 * SECOND)]) == ["overlap"], (
        "its lease was still good"
    )
    assert told(thread=False, outages=[Outage(T, T + 9 * SECOND)]) == ["overlap"]


def test_a_takeover_that_takes_longer_than_the_lease_and_two_seconds_is_told_unless_nobody_could():
    killed = replace(LIFE, ended=T + SECOND, how="killed")
    other = Life(8, T - SECOND, T + 30 * SECOND, "stopped", T)
    worker = Worker("w", 7, T - SECOND, T + SECOND)

    def told(seconds: float, silent: float = 0.5, **more) -> list[str]:
        at = T + SECOND + round(seconds * SECOND)
        lost = Attempt("1", 1, 1, T, "lost", at, "w")
        call = replace(CALL, pid=8, run="2", due=T, began=T + SECOND + round(silent * SECOND))
        facts = {"lives": [killed, other], "stopped": T + 29 * SECOND, "calls": (call,)} | more
        found = story(RUN, attempts=[lost], workers=[worker], **facts)
        return promises(side_by_side.taken_over(replace(found, rules={"tick": RULES["tick"]})))

    assert told(2.9) == []
    assert told(3.2) == ["takeover"]
    assert told(3.2, outages=[Outage(T + 2 * SECOND, T + 3 * SECOND)]) == []
    assert told(3.2, aparts=[Apart(8, T + 2 * SECOND, T + 3 * SECOND)]) == []
    assert told(3.2, aparts=[Apart(7, T + 2 * SECOND, T + 3 * SECOND)]) == ["takeover"]
    assert told(3.2, lives=[killed]) == []
    assert told(0, silent=3.9) == [] and told(0, silent=4.2) == ["takeover"]


def test_a_process_that_holds_ever_more_is_told():
    def uses(files, memory):
        return [Use(7, T + place, files(place), 5, memory(place)) for place in range(40)]

    assert list(side_by_side.leaks(story(uses=uses(lambda _: 9, lambda place: 30_000 + place)))) == []
    assert promises(side_by_side.leaks(story(uses=uses(lambda place: 9 + place, lambda _: 30_000)))) == ["leak"]
    assert promises(side_by_side.leaks(story(uses=uses(lambda _: 9, lambda place: 30_000 + 2_000 * place)))) == ["leak"]


# -- the tools


def test_the_witness_tells_calls_and_knows_a_line_that_was_cut(tmp_path):
    one = Witness(str(tmp_path))
    for attempt in (1, 2):
        one.begin(job="tick", schedule="tick", due=T, run="1", key="k", attempt=attempt, token=attempt, worker="w")
    one.end(run="1", attempt=1, token=1, outcome="raised")
    [file] = tmp_path.iterdir()
    seen = witness.read(tmp_path)
    assert [(call.token, call.outcome) for call in seen.calls] == [(1, "raised"), (2, None)] and not seen.torn
    text = file.read_bytes()
    file.write_bytes(text[:-9])
    seen = witness.read(tmp_path)
    assert [call.outcome for call in seen.calls] == [None, None] and seen.torn == 1 and not seen.damaged
    file.write_bytes(text.replace(b'"tick"', b'"tock"', 1))
    assert len(witness.read(tmp_path).damaged) == 1


def test_a_power_failure_undoes_what_was_not_flushed_and_nothing_else(tmp_path):
    file = tmp_path / "jobs.db"
    file.write_bytes(b"safe" + b"lost" + b"more")
    done = [
        Record(WRITTEN, str(file), 1, 0, 0, b"", b"safe"),
        Record(DURABLE, str(file), 2, 0, 0, b"", b""),
        Record(WRITTEN, str(file), 3, 4, 4, b"", b"lost"),
        Record(WRITTEN, str(file), 4, 8, 8, b"", b"more"),
    ]
    seen = set()
    for seed in range(40):
        file.write_bytes(b"safelostmore")
        assert lost_writes.fail_power(done, random.Random(seed)) == 2
        seen.add(file.read_bytes())
    assert seen == {b"safe", b"safelost", b"safe\0\0\0\0more", b"safelostmore"}


def test_a_truncation_that_was_not_flushed_may_be_undone(tmp_path):
    file = tmp_path / "jobs.db"
    seen = set()
    for seed in range(20):
        file.write_bytes(b"ab")
        lost_writes.fail_power([Record(CUT, str(file), 1, 2, 4, b"cd", b"")], random.Random(seed))
        seen.add(file.read_bytes())
    assert seen == {b"ab", b"abcd"}


def test_a_journal_cut_by_the_kill_is_read_up_to_there():
    head = struct.pack("<6I3Q", lost_writes.MAGIC, WRITTEN, 1, 0, 2, 0, 5, 0, 0)
    assert [one.after for one in lost_writes._parsed(head + b"f" + b"xy" + head + b"f" + b"x")] == [b"xy"]


def test_a_sample_has_every_kind_of_call_and_is_the_same_for_a_seed():
    every = [Blow("pwrite64", number) for number in range(1, 600)]
    every += [Blow("fdatasync", number) for number in range(1, 50)] + [Blow("unlink", 1, part="stopping")]
    first, second = (points.sample(every, 30, random.Random(5)) for _ in range(2))
    assert first == second and len(set(first)) == 30
    assert {one.call for one in first} == {"pwrite64", "fdatasync", "unlink"}
    assert sum(one.again is not None for one in points.with_second_kills(OnFile(), first, random.Random(5))) == 3


def test_calls_are_counted_for_the_busiest_thread_before_and_after_the_stop(tmp_path):
    trace = tmp_path / "trace"
    lines = [
        '11 write(2, "x", 1) = 1', '12 pwrite64(7, ""..., 24, 0 <unfinished ...>', "12 <... pwrite64 resumed>) = 24",
        '12 pwrite64(7, ""..., 24, 9) = 24', '13 pwrite64(8, ""..., 1, 0) = 1', "12 unlinkat(AT_FDCWD, ...) = 0",
        "11 --- SIGTERM {si_signo=SIGTERM} ---", '11 write(2, "y", 1) = 1',
    ]  # fmt: skip
    trace.write_text("\n".join(lines))
    assert tracing.counted(OnFile.writing, trace) == {"pwrite64": 2, "write": 1, "unlink": 1}
    assert tracing.counted(OnFile.writing, trace, part="stopping") == {"write": 1}
