"""The contract every store must pass, third part: runs. Asking, claiming, settling, cancelling; many callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import (
    KINDS,
    NOW,
    Stores,
    asked,
    at,
    claimed,
    ended,
    finished,
    firing,
    hourly,
    ids,
    know,
    put,
    pair,
    shared,
    started,
    state,
    store,
    stores,
    submitted,
)

from taskloop.audit import Entry
from taskloop.errors import KeyConflict, TaskloopError
from taskloop.runs import (
    Cancelled,
    Cause,
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
    only_repeat_key,
    settle,
)
from taskloop.store import Store
from taskloop.store_data import Attempt, Query, Terms, Wish

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio

BAD = Failure("ValueError", "no\nmore 🙂", "Traceback …", "cafe")
FAILED = Raised(BAD, None)
AGAIN = Raised(BAD, timedelta(seconds=30))


async def found(store: Store, run: Run) -> Run:
    """The run as it stands in the store."""
    kept = await store.run(run.id)
    assert kept is not None
    return kept


# -- asking


async def test_ids_grow_in_the_order_of_the_asking(store):
    first = await submitted(store, asked(), asked("b"), asked())
    second = await submitted(store, asked())
    assert ids([*first, *second]) == [1, 2, 3, 4]


async def test_ids_of_two_processes_never_meet(pair):
    mine, other = pair
    answers = await asyncio.gather(*(one.submit([asked(), asked()]) for one in [mine, other] * 25))
    assert sorted(run.id for answer in answers for run in answer) == list(range(1, 101))


async def test_a_run_comes_back_as_it_was_asked_for(store):
    run = asked(
        actor="ann é🙂",
        key="k",
        cause=Cause.API,
        attempts=7,
        priority=-3,
        rerun_of=RunId(1),
        due_at=at(60),
        ready_at=at(60),
        params={"n": [1, None, 2.5, {"é": "🙂"}], "": False},
        data={"x": 1},
        created_at=datetime(1999, 1, 1, 0, 0, 0, 1, UTC),
    )
    [given] = await submitted(store, run)
    assert given == replace(run, id=given.id)
    assert await found(store, given) == given


async def test_a_run_that_its_worker_has_a_slot_for_is_written_running(store):
    run = asked(state=State.RUNNING, worker="w1", token=1, attempt=1, started_at=NOW, attempt_started_at=NOW)
    [given] = await submitted(store, run)
    assert list((await claimed(store)).started) == []
    assert await store.settle(ended(given))


async def test_the_same_value_asked_for_twice_is_two_runs_and_is_left_as_it_was(store):
    run = asked()
    assert ids(await store.submit([run, run])) == [1, 2]
    assert run.id == 0


async def test_asking_for_nothing_writes_nothing(store):
    assert list(await store.submit([])) == []
    assert list(await store.find(Query())) == []


async def test_a_key_that_is_taken_gives_the_earlier_run(store):
    [first] = await submitted(store, asked(key="k", params={"n": 1, "m": 2}))
    [second] = await submitted(store, asked(key="k", params={"m": 2, "n": 1}))
    assert second == replace(first, existed=True)
    assert len(await store.find(Query())) == 1


async def test_a_key_is_taken_within_a_call_and_within_a_batch_too(store):
    one, two = await store.submit([asked(key="k"), asked(key="k")])
    assert (one.id, one.existed, two.id, two.existed) == (1, False, 1, True)
    answers = await asyncio.gather(*(store.submit([asked(key="l")]) for _ in range(20)))
    assert {run.id for answer in answers for run in answer} == {2}
    assert sum(not run.existed for answer in answers for run in answer) == 1


async def test_a_key_belongs_to_its_job(store):
    one, two = await store.submit([asked("a", key="k"), asked("b", key="k")])
    assert not one.existed
    assert not two.existed


async def test_a_key_of_other_parameters_is_a_conflict_that_names_the_run(store):
    [first] = await submitted(store, asked(key="k", params={"n": 1}))
    with pytest.raises(KeyConflict, match="other parameters") as caught:
        await store.submit([asked(), asked(key="k", params={"n": 2}), asked()])
    assert (caught.value.job, caught.value.key, caught.value.run) == ("a", "k", first.id)
    assert ids(await store.find(Query())) == [first.id]


async def test_a_refused_call_takes_no_key_from_the_others_of_its_batch(store):
    await submitted(store, asked(key="taken", params={"n": 1}))
    refused, accepted = await asyncio.gather(
        store.submit([asked(key="k"), asked(key="taken", params={"n": 2})]),
        store.submit([asked(key="k")]),
        return_exceptions=True,
    )
    assert isinstance(refused, KeyConflict)
    assert not isinstance(accepted, BaseException)
    [run] = accepted
    assert not run.existed
    assert await found(store, run) == run


@pytest.mark.parametrize(
    "key", ["export readonly replica", "disk is full", "database is locked", "connection is closed"]
)
async def test_a_refused_call_that_sounds_like_an_error_of_the_disk_is_refused_alone(store, key):
    await submitted(store, asked(key=key, params={"n": 1}))
    run = await started(store)
    answers = await asyncio.gather(
        store.submit([asked(key=key, params={"n": 2})], None, Entry(NOW, "ann", "cli", "submit")),
        store.submit([asked()]),
        store.settle(ended(run)),
        return_exceptions=True,
    )
    assert [type(one) for one in answers if isinstance(one, BaseException)] == [KeyConflict]
    assert (await found(store, run)).state is State.SUCCEEDED


async def cancel_it(store: Store) -> None:
    [run] = await submitted(store, asked(key="k"))
    await store.cancel(run.id, actor=None, reason=None, now=NOW)


@pytest.mark.parametrize(
    ("way", "existed"),
    [
        (lambda store: finished(store, key="k"), True),
        (lambda store: finished(store, FAILED, key="k"), False),
        (lambda store: finished(store, Lost(), key="k"), False),
        (lambda store: finished(store, Cancelled(), key="k"), False),
        (lambda store: started(store, key="k"), True),
        (lambda store: finished(store, AGAIN, key="k", attempts=2), True),
        (cancel_it, False),
    ],
    ids=["succeeded", "failed", "interrupted", "cancelled while running", "running", "retrying", "cancelled"],
)
async def test_the_key_of_a_run_that_came_to_nothing_is_free_again(store, way, existed):
    await way(store)
    [run] = await submitted(store, asked(key="k", params={}))
    assert run.existed is existed


async def test_two_processes_that_ask_with_one_key_get_one_run(pair):
    mine, other = pair
    answers = await asyncio.gather(*(one.submit([asked(key="k")]) for one in [mine, other] * 10))
    assert {run.id for answer in answers for run in answer} == {1}
    assert sum(not run.existed for answer in answers for run in answer) == 1


async def test_the_only_repeat_of_a_run_is_the_first_whatever_came_of_it(store):
    old = await finished(store, FAILED)
    again = partial(asked, rerun_of=old.id, key=only_repeat_key(old.id))
    [first] = await submitted(store, again())
    await store.cancel(first.id, actor=None, reason=None, now=NOW)
    for params in ({}, {"n": 2}):
        [second] = await submitted(store, again(params=params))
        assert (second.id, second.existed, second.state) == (first.id, True, "cancelled")
    by_hand, other = await finished(store, FAILED), await finished(store, FAILED)
    [repeat] = await submitted(store, asked(rerun_of=by_hand.id, params={"n": 3}))
    both = [asked(rerun_of=one.id, key=only_repeat_key(one.id)) for one in (by_hand, other)]
    [known, fresh] = await submitted(store, *both)
    assert (known.id, known.existed, fresh.existed, fresh.rerun_of) == (repeat.id, True, False, other.id)


async def test_two_processes_that_repeat_a_run_at_once_make_one_though_it_fails_at_once(pair):
    """An end between the look of one process and its write would set a mere key free."""
    old = await finished(pair[0], FAILED)

    async def repeat_and_cancel(store):
        [run] = await store.submit([asked(rerun_of=old.id, key=only_repeat_key(old.id))])
        await store.cancel(run.id, actor=None, reason=None, now=NOW)
        return run

    runs = await asyncio.gather(*(repeat_and_cancel(one) for one in [*pair] * 10))
    assert len({run.id for run in runs}) == 1 and sum(not run.existed for run in runs) == 1


HOSTILE = [
    asked(params={"n": 2**63}),
    asked(params={"n": -(2**200)}),
    asked(params={"text": "\0 hidden"}),
    asked(key="k\0hidden"),
    asked(actor="é" * 1_000_000),
    asked(params={"text": "x" * 1_000_000}),
    asked(params={"'; DROP TABLE taskloop_runs; --": "\"'\\\n\r\t\u2028"}),
    asked(key="'; DROP TABLE taskloop_runs; --"),
    asked(summary="\x1b[31m<script>"),
    asked(due_at=datetime.max.replace(tzinfo=UTC), ready_at=datetime.min.replace(tzinfo=UTC)),
]


@pytest.mark.parametrize("run", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_values_come_back_as_they_were_given(store, run):
    given = (await asyncio.gather(submitted(store, asked()), submitted(store, run), submitted(store, asked())))[1][0]
    assert given == replace(run, id=given.id)
    assert await found(store, given) == given
    have = {one.id: one for one in (await claimed(store)).started}
    assert have[given.id].params == run.params


IMPOSSIBLE = [
    asked(priority=2**63),
    asked(attempts=-(2**64)),
    asked(params={"text": "\ud800"}),
    asked(params={"\udfff": 1}),
    asked(key="\ud800"),
    asked(actor="\udc80"),
    asked(params={"not": {1, 2}}),
    asked(params={"not": object()}),
]


@pytest.mark.parametrize("run", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
async def test_what_cannot_be_stored_is_refused_alone_and_clearly(store, run):
    answers = await asyncio.gather(
        submitted(store, asked()),
        submitted(store, asked(), run),
        submitted(store, asked()),
        store.counts(),
        put(store, hourly()),
        return_exceptions=True,
    )
    assert isinstance(answers[1], TaskloopError), repr(answers[1])
    assert not any(isinstance(one, BaseException) for place, one in enumerate(answers) if place != 1)
    assert len(await store.find(Query())) == 2
    assert len(await store.schedules()) == 1


async def test_what_cannot_be_stored_is_refused_alone_whatever_the_error(store):
    for run in IMPOSSIBLE:
        answers = await asyncio.gather(
            submitted(store, asked()),
            submitted(store, asked(), run),
            submitted(store, asked()),
            return_exceptions=True,
        )
        assert [isinstance(one, Exception) for one in answers] == [False, True, False]
    assert len(await store.find(Query())) == 2 * len(IMPOSSIBLE)


# -- claiming


async def test_a_claimed_run_is_running_and_its_workers_alone(store):
    [run] = await submitted(store, asked(expires_at=at(60), progress=Progress(1, 2)))
    have = await claimed(store, now=at(5))
    expected = replace(
        run,
        state=State.RUNNING,
        worker="w1",
        attempt=1,
        token=1,
        started_at=at(5),
        attempt_started_at=at(5),
        expires_at=None,
        progress=None,
    )
    assert list(have.started) == [expected]
    assert await found(store, run) == expected
    assert list((await claimed(store, "w2")).started) == []


async def test_each_waiting_run_is_claimed_by_one_of_two_processes(pair):
    mine, other = pair
    await submitted(mine, *(asked() for _ in range(100)))
    answers = await asyncio.gather(*(claimed(one, name, slots=7) for one, name in [(mine, "w1"), (other, "w2")] * 10))
    assert sorted(run.id for answer in answers for run in answer.started) == list(range(1, 101))
    assert {run.worker for answer in answers for run in answer.started} == {"w1", "w2"}


async def test_the_more_urgent_come_first_then_those_longest_ready_then_the_oldest(store):
    await submitted(
        store,
        asked(ready_at=at(-1)),
        asked(ready_at=at(-2)),
        asked(priority=1),
        asked(priority=-1, ready_at=at(-9)),
        asked(priority=1),
        asked("b", ready_at=at(-2)),
    )
    have = []
    for _ in range(6):
        have += (await claimed(store, slots=1)).started
    assert ids(have) == [3, 5, 2, 6, 1, 4]
    assert list((await claimed(store, slots=1)).started) == []


async def test_no_more_runs_are_claimed_than_there_are_slots(store):
    await submitted(store, *(asked() for _ in range(5)))
    first = await claimed(store, slots=2)
    assert (ids(first.started), first.more) == ([1, 2], True)
    assert ids((await claimed(store, slots=0)).started) == []
    rest = await claimed(store, slots=10)
    assert (ids(rest.started), rest.more) == ([3, 4, 5], False)


async def test_a_run_is_not_claimed_before_it_is_ready_and_its_instant_is_told(store):
    await submitted(store, asked(ready_at=at(9)), asked(ready_at=at(5)), asked(ready_at=at(7), priority=3))
    have = await claimed(store, now=at(4))
    assert (list(have.started), have.next_at) == ([], at(5))
    have = await claimed(store, now=at(5))
    assert (ids(have.started), have.next_at) == ([2], at(7))
    have = await claimed(store, now=at(9))
    assert (ids(have.started), have.next_at) == ([3, 1], None)


async def test_runs_of_unknown_and_held_jobs_are_left(store):
    await know(store, "a", Terms("b", held=True))
    await submitted(store, asked("a"), asked("b"), asked("c"))
    assert ids((await claimed(store)).started) == [1]
    await know(store, "b", "c")
    assert ids((await claimed(store)).started) == [2, 3]


async def test_a_job_runs_no_more_often_at_once_than_it_may(store):
    await know(store, Terms("a", max_running=2), "b")
    await submitted(store, *(asked() for _ in range(4)), asked("b"))
    have = await claimed(store)
    assert ids(have.started) == [1, 2, 5]
    assert list((await claimed(store)).started) == []
    await store.settle(ended(have.started[0]))
    assert ids((await claimed(store)).started) == [3]


async def test_jobs_of_a_group_share_its_places(store):
    await know(store, Terms("a", group="g", places=2), Terms("b", group="g", places=2), Terms("c", group="h"), "d")
    await submitted(store, *(asked(job) for job in "abacdcd"))
    have = await claimed(store)
    assert sorted(run.job for run in have.started) == ["a", "b", "c", "d", "d"]
    await store.settle(ended(next(run for run in have.started if run.job == "b")))
    assert [run.job for run in (await claimed(store)).started] == ["a"]


async def test_limits_hold_across_two_processes(pair):
    mine, other = pair
    for one in pair:
        await know(one, Terms("a", group="g", places=3), Terms("b", max_running=2))
    await submitted(mine, *(asked() for _ in range(20)), *(asked("b") for _ in range(20)))
    answers = await asyncio.gather(*(claimed(one, slots=2) for one in [mine, other] * 10))
    jobs = [run.job for answer in answers for run in answer.started]
    assert (jobs.count("a"), jobs.count("b")) == (3, 2)


async def test_a_group_is_full_of_jobs_that_this_process_does_not_know(pair):
    mine, other = pair
    await know(mine, Terms("a", group="g"))
    await know(other, Terms("b", group="g"))
    await submitted(mine, asked("a", group="g"), asked("b", group="g"))
    assert len((await claimed(mine, "w1")).started) == 1
    assert list((await claimed(other, "w2")).started) == []


async def test_a_run_takes_a_place_in_the_group_of_its_job_as_it_begins_whatever_that_was_when_it_was_asked_for(pair):
    mine, other = pair
    await know(mine, Terms("a", group="new"), "b")
    await know(other, Terms("c", group="new"))
    await submitted(
        mine, *(asked("a", group="old") for _ in range(3)), asked("b", group="new"), asked("c", group="new")
    )
    (one, free) = (await claimed(mine)).started
    assert (one.job, one.group, free.job, free.group) == ("a", "new", "b", None)
    assert [(await mine.run(each.id)).group for each in (one, free)] == ["new", None]
    assert not (await claimed(mine)).started and not (await claimed(other)).started
    await mine.settle(ended(one))
    assert ids((await claimed(other)).started) == [5]


async def test_what_a_full_group_holds_back_lets_others_pass(store):
    await know(store, Terms("a", group="g"), "b")
    await submitted(store, *(asked("a") for _ in range(50)), *(asked("b") for _ in range(3)))
    assert [run.job for run in (await claimed(store, slots=3)).started] == ["a", "b", "b"]


async def test_what_is_full_or_held_lets_others_pass_however_many_of_it_wait_before_them(store):
    """They are not gone through: each claim of a job with a limit took as long as all that waited was long."""
    await know(store, Terms("a", max_running=2), Terms("b", held=True), "c", "d", Terms("e", group="g", places=1))
    await store.submit([asked(job) for job in "ab" * 750])
    later = ("c", 9), ("d", 7), ("c", 8), ("e", 6), ("e", 5), ("d", 10)
    await submitted(store, *(asked(job, ready_at=at(seconds)) for job, seconds in later))
    await submitted(store, asked("c", ready_at=at(11), priority=1), asked("c", ready_at=at(30)))
    have = await claimed(store, now=at(20), slots=7)
    expected = [("c", 11), ("a", 0), ("a", 0), ("e", 5), ("d", 7), ("c", 8), ("c", 9)]
    assert [(run.job, (run.ready_at - NOW).total_seconds()) for run in have.started] == expected
    have = await claimed(store, now=at(20), slots=7)
    assert ([run.job for run in have.started], have.next_at) == (["d"], at(30))
    await store.settle(ended(next(run for run in [*(await store.find(Query(["e"], [State.RUNNING])))])))
    assert [run.job for run in (await claimed(store, now=at(20), slots=7)).started] == ["e"]


async def test_of_thousands_that_wait_in_a_queue_for_their_schedule_others_are_not_held_up(store):
    """A gated job's fires wait for the run of their own schedule; behind them another schedule's is found."""
    await know(store, Terms("a", gated=True))
    await submitted(store, asked("a", schedule="busy", due_at=at(-1), ready_at=at(-1)))
    assert len((await claimed(store)).started) == 1
    await store.submit([asked("a", schedule="busy", due_at=at(one / 1000), ready_at=at(0)) for one in range(1_200)])
    await submitted(store, asked("a", schedule="other", due_at=at(3), ready_at=at(3)))
    assert [run.schedule for run in (await claimed(store, now=at(9))).started] == ["other"]


async def test_a_fire_that_waits_is_claimed_together_with_a_run_of_no_schedule_that_goes_before_it(store):
    await know(store, Terms("a", gated=True))
    await submitted(store, asked("a", priority=1), asked("a", schedule="s", due_at=at(1)))
    assert [run.schedule for run in (await claimed(store, now=at(9))).started] == [None, "s"]


async def test_who_claimed_is_told_though_gone(store):
    await submitted(store)
    heard: list[Any] = []
    claiming = asyncio.create_task(store.claim("w1", NOW, 5, heard.append))
    await asyncio.sleep(0)
    claiming.cancel()
    await asyncio.wait({claiming})
    await store.leave("nobody", NOW)
    assert [ids(one.started) for one in heard] == [[1]]


# -- settling


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Returned({"n": [1, 2.5, None]}, "line"), {"result": {"n": [1, 2.5, None]}, "summary": "line"}),
        (Returned(0), {"result": 0}),
        (Returned(""), {"result": ""}),
        (Returned(False), {"result": False}),
        (Returned([]), {"result": []}),
        (Returned("🙂\0" * 100_000), {"result": "🙂\0" * 100_000}),
        (FAILED, {"error": BAD, "summary": "no"}),
        (Cancelled("enough", "ann\0"), {"reason": "enough", "actor": None, "data": {"cancelled_by": "ann\0"}}),
        (ShutDown(), {"reason": "shutting_down"}),
        (Lost(Reason.ABANDONED), {"reason": "abandoned", "data": {}}),
        (Lost(Reason.ABANDONED, "ann"), {"reason": "abandoned", "data": {"cancelled_by": "ann"}}),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_an_attempt_came_to_is_kept(store, outcome, expected):
    run = await finished(store, outcome, now=at(9))
    kept = await found(store, run)
    assert kept == run
    assert {name: getattr(kept, name) for name in expected} == expected
    assert (kept.final, kept.ended_at) == (True, at(9))


async def test_only_the_holder_of_the_token_settles(store):
    run = await started(store, attempts=3)
    assert await store.settle(ended(run, Lost(), repeatable=True))
    [again] = (await claimed(store, "w2")).started
    assert again.token == run.token + 1
    assert not await store.settle(ended(run))
    assert await found(store, run) == again
    assert await store.settle(ended(again))


async def test_a_run_is_settled_once(store):
    run = await started(store)
    first, second, third = await asyncio.gather(*(store.settle(ended(run, Returned(n))) for n in range(3)))
    assert [one is not None for one in (first, second, third)] == [True, False, False]
    assert (await found(store, run)).result == 0
    assert not await store.settle(ended(run, FAILED))
    assert (await found(store, run)).state is State.SUCCEEDED


async def test_a_settling_that_lost_leaves_no_attempt_and_no_count(pair, shared):
    store, _ = pair
    run = await started(store, attempts=3)
    await store.settle(ended(run, now=at(5)))
    for outcome in (AGAIN, FAILED):
        assert not await store.settle(ended(run, outcome, now=at(6)))
    assert await store.attempts(await found(store, run)) == [
        Attempt(1, NOW, at(5), "succeeded", "w1"),
    ]
    assert shared.rows("SELECT state, runs FROM {}daily") == [("succeeded", 1)]


async def test_lost_settlings_harm_none_of_their_batch(store):
    await submitted(store, *(asked() for _ in range(40)))
    runs = (await claimed(store)).started
    for run in runs[::2]:
        await store.settle(ended(run, Returned("first")))
    done = await asyncio.gather(*(store.settle(ended(run, Returned("second"))) for run in runs))
    assert [one is not None for one in done] == [False, True] * 20
    assert [(await found(store, run)).result for run in runs] == ["first", "second"] * 20


async def test_a_retry_waits_and_keeps_the_row_of_its_attempt(store):
    run = await started(store, attempts=3)
    assert await store.settle(ended(run, AGAIN, now=at(10)))
    waiting = await found(store, run)
    assert (waiting.state, waiting.ready_at, waiting.worker, waiting.error) == (State.WAITING, at(40), None, BAD)
    assert (await claimed(store, now=at(39))).next_at == at(40)
    [again] = (await claimed(store, "w2", now=at(40))).started
    assert (again.attempt, again.token, again.started_at, again.attempt_started_at) == (2, 2, NOW, at(40))
    error = {"type": "ValueError", "message": BAD.message, "traceback": BAD.traceback, "fingerprint": "cafe"}
    first = Attempt(1, NOW, at(10), "failed", "w1", error)
    assert list(await store.attempts(again))[0] == first
    running = list(await store.attempts(again))[1]
    assert (running.attempt, running.outcome, running.worker, running.ended_at) == (2, "running", "w2", None)
    await store.settle(ended(again, now=at(50)))
    last = Attempt(2, at(40), at(50), "succeeded", "w2")
    assert [replace(one, error=None) for one in await store.attempts(await found(store, run))] == [
        replace(first, error=None),
        last,
    ]


async def test_a_success_after_a_retry_has_no_error_in_its_last_attempt(store):
    run = await started(store, attempts=2)
    await store.settle(ended(run, AGAIN))
    [again] = (await claimed(store, now=at(60))).started
    await store.settle(ended(again, now=at(61)))
    assert (await store.attempts(await found(store, run)))[-1].error is None


async def test_a_running_attempt_has_no_error_yet(store):
    run = await started(store, attempts=2)
    await store.settle(ended(run, AGAIN))
    [again] = (await claimed(store, now=at(60))).started
    assert (await store.attempts(again))[-1].error is None


async def test_a_stop_gives_the_attempt_back_and_each_call_keeps_its_row(store):
    run = await started(store, attempts=2)
    await store.settle(ended(run, ShutDown(), now=at(3), repeatable=True))
    [again] = (await claimed(store, "w2", now=at(4))).started
    assert again.attempt == 1
    await store.settle(ended(again, Lost(), now=at(9), repeatable=True))
    [last] = (await claimed(store, "w3", now=at(10))).started
    await store.settle(ended(last, FAILED, now=at(11)))
    assert [
        (one.attempt, one.outcome, one.worker, one.ended_at) for one in await store.attempts(await found(store, run))
    ] == [(1, "shut_down", "w1", at(3)), (1, "lost", "w2", at(9)), (2, "failed", "w3", at(11))]


async def test_a_waiting_run_has_made_no_attempt(store):
    [run] = await submitted(store)
    assert list(await store.attempts(run)) == []
    await store.cancel(run.id, actor=None, reason=None, now=NOW)
    assert list(await store.attempts(await found(store, run))) == []


async def test_a_run_cancelled_between_attempts_has_the_attempts_that_were_made(store):
    run = await started(store, attempts=3)
    await store.settle(ended(run, AGAIN, now=at(10)))
    await store.cancel(run.id, actor="ann", reason=None, now=at(20))
    made = await store.attempts(await found(store, run))
    assert [(one.attempt, one.outcome, one.ended_at) for one in made] == [(1, "failed", at(10))]


# -- progress


async def test_progress_of_a_running_run_is_kept_to_its_end(store):
    run = await started(store)
    half = Progress(5, 10, "half é🙂", 0.5, 10.0)
    await store.progress([(run, half)])
    assert (await found(store, run)).progress == half
    await store.settle(ended(replace(run, progress=half)))
    assert (await found(store, run)).progress == half


async def test_progress_of_a_run_that_was_taken_or_ended_is_dropped(store):
    run = await started(store, attempts=2)
    await store.settle(ended(run, Lost(), repeatable=True))
    await store.progress([(run, Progress(1, 2))])
    assert (await found(store, run)).progress is None
    [again] = (await claimed(store, "w2")).started
    await store.progress([(run, Progress(1, 2)), (again, Progress(2, 2))])
    assert (await found(store, run)).progress == Progress(2, 2)
    await store.settle(ended(again))
    await store.progress([(again, Progress(0, 2))])
    assert (await found(store, run)).progress != Progress(0, 2)


async def test_no_progress_is_no_work(store):
    await store.progress([])


# -- cancelling


async def test_a_waiting_run_is_cancelled_at_once(store):
    [run] = await submitted(store, asked(actor="ann"))
    done = await store.cancel(run.id, actor="bob", reason="enough é🙂", now=at(5))
    assert done is not None
    assert (done.wished, done.run) == (
        False,
        replace(run, state=State.CANCELLED, data={"cancelled_by": "bob"}, reason="enough é🙂", ended_at=at(5)),
    )
    assert await found(store, run) == done.run
    assert list((await claimed(store)).started) == []


@pytest.mark.parametrize("who", [None, "bob"])
async def test_who_asked_for_a_run_stays_its_actor_whoever_cancels_it(store, who):
    running = await started(store, actor="ann")
    waiting = await submitted(store, asked(actor="ann", data={"asked_because": "x"}))
    for run in (*waiting, running):
        done = await store.cancel(run.id, actor=who, reason=None, now=at(5))
        if done.wished:
            await store.settle(ended(run, Cancelled(None, who)))
        kept = await found(store, run)
        assert (kept.state, kept.actor) == (State.CANCELLED, "ann")
        assert kept.data == run.data | ({"cancelled_by": who} if who else {})


async def test_a_running_run_is_left_to_its_worker_with_a_wish(store):
    run = await started(store, "w1")
    other = await started(store, "w2")
    done = await store.cancel(run.id, actor="ann", reason="enough", now=at(5))
    assert done is not None
    assert (done.wished, done.run) == (True, run)
    assert list(await store.wishes("w2")) == []
    assert list(await store.wishes("w1")) == [Wish(run.id, "ann", "enough")]
    assert list(await store.wishes("w1")) == []
    assert await state(store, other.id) is State.RUNNING


async def test_a_run_whose_end_was_asked_for_does_not_wait_for_another_attempt(store):
    """Its worker has not heard of it, and once the run waits nobody would."""
    run, other = await started(store), await started(store)
    assert (await store.cancel(run.id, actor="ann", reason="enough", now=at(3))).wished
    again = Raised(BAD, timedelta(seconds=5))
    stands = await store.settle(
        ended(run, again, now=at(4))._replace(after=settle(run.changed(attempts=2), again, now=at(4), repeatable=True))
    )
    assert (stands.state, stands.reason, stands.actor, stands.error) == (State.CANCELLED, "enough", None, BAD)
    assert stands.data == {"cancelled_by": "ann"}
    assert await found(store, run) == stands and stands.ended_at >= run.attempt_started_at
    waits = await store.settle(ended(other, ShutDown(), repeatable=True))
    assert waits.state is State.WAITING
    assert [one.id for one in (await claimed(store, now=at(60))).started] == [other.id]


async def test_a_wish_reaches_the_worker_in_another_process(pair):
    mine, other = pair
    run = await started(mine, "w1")
    await mine.changed()
    await other.cancel(run.id, actor=None, reason="enough", now=NOW)
    assert await mine.changed()
    assert [wish.run for wish in await mine.wishes("w1")] == [run.id]


async def test_a_final_run_stays_as_it_is(store):
    run = await finished(store)
    done = await store.cancel(run.id, actor="ann", reason=None, now=at(5))
    assert done is not None
    assert (done.wished, done.run) == (False, run)
    assert await found(store, run) == run


async def test_of_a_cancel_and_a_claim_at_once_one_wins(pair):
    mine, other = pair
    runs = await submitted(mine, *(asked() for _ in range(20)))
    *cancelled, claims = await asyncio.gather(
        *(other.cancel(run.id, actor=None, reason=None, now=NOW) for run in runs), claimed(mine)
    )
    taken = set(ids(claims.started))
    assert all(one is not None and one.wished is (one.run.id in taken) for one in cancelled)
    states = [await state(mine, run.id) for run in runs]
    assert states == [State.RUNNING if run.id in taken else State.CANCELLED for run in runs]


# -- many callers at once


async def test_a_hundred_callers_at_once_cost_few_commits(pair, shared):
    store, _ = pair
    before = shared.commits()
    await asyncio.gather(*(store.submit([asked()]) for _ in range(100)))
    assert shared.commits() - before <= 4
    runs = (await claimed(store)).started
    before = shared.commits()
    assert all(await asyncio.gather(*(store.settle(ended(run)) for run in runs)))
    assert shared.commits() - before <= 4


async def test_cancelling_a_caller_changes_nothing_about_its_write(store):
    heard: list[Any] = []
    calls = [asyncio.create_task(store.submit([asked()], heard.append)) for _ in range(30)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in answers] == [True, False] * 15
    assert len(await store.find(Query())) == 30
    assert sorted(run.id for answer in heard for run in answer) == list(range(1, 31))


async def test_who_is_gone_is_told_of_an_error_too(store):
    await submitted(store, asked(key="k", params={"n": 1}))
    heard: list[Any] = []
    call = asyncio.create_task(store.submit([asked(key="k", params={"n": 2})], heard.append))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    await store.leave("nobody", NOW)
    assert [type(one) for one in heard] == [KeyConflict]


async def test_who_cannot_bear_an_answer_harms_neither_his_own_call_nor_another(store):
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, facts: told.append(facts))

    def refuse(answer: Any) -> None:
        raise RuntimeError("not now")

    answers = await asyncio.gather(store.submit([asked()], refuse), store.submit([asked()]))
    assert [ids(answer) for answer in answers] == [[1], [2]]
    assert [str(facts["exception"]) for facts in told] == ["not now"]
    assert ids(await submitted(store)) == [3]


def write(store: Store) -> list[Callable[[], Awaitable[Any]]]:
    """One call of every verb that writes, each of which succeeds."""
    return [
        lambda: store.submit([asked()]),
        lambda: put(store, hourly("t")),
        lambda: store.leave("nobody", NOW),
        lambda: store.claim("w1", NOW, 0),
        lambda: store.fire([firing(hourly("nobody"))], "w1", NOW),
        lambda: store.progress([]),
        lambda: store.drop(["nobody"], NOW),
        lambda: store.wishes("w1"),
        lambda: store.prune(timedelta(0), now=NOW),
    ]


async def test_a_bad_call_of_any_verb_harms_no_other_of_its_batch(store):
    run = await started(store)

    def refuse(*_: object) -> Any:
        raise TaskloopError("not this one")

    bad: list[Awaitable[Any]] = [
        store.put([hourly("x")], refuse, NOW),
        store.settle(ended(run)._replace(after=replace(ended(run).after, result={1, 2}))),
        store.cancel(RunId(2**70), actor=None, reason=None, now=NOW),
        store.submit([asked(priority=2**70)]),
    ]
    good = [one() for one in write(store)]
    answers = await asyncio.gather(*bad, *good, return_exceptions=True)
    assert all(isinstance(one, Exception) for one in answers[:4])
    assert not any(isinstance(one, Exception) for one in answers[4:])
    assert [one.id for one in await store.schedules()] == ["t"]
    assert await store.settle(ended(run))


# -- against a model

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["a", "b"]), st.sampled_from([None, "k", "l"]), st.integers(0, 2)),
        st.tuples(st.just("claim"), st.sampled_from(["w1", "w2"]), st.integers(0, 3)),
        st.tuples(
            st.just("settle"), st.integers(0, 20), st.sampled_from(["return", "raise", "retry", "lost", "stale"])
        ),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("wishes"), st.sampled_from(["w1", "w2"])),
    ),
    max_size=30,
)


class Model:
    """What a store should hold: a dict of runs, changed by the same steps. Time stands still."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.wishes: list[int] = []

    def submit(self, job: str, key: str | None, priority: int) -> tuple[int, bool]:
        free = (State.FAILED, State.CANCELLED, State.INTERRUPTED)
        for run in self.runs.values():
            if key is not None and (run.job, run.key) == (job, key) and run.state not in free:
                return run.id, True
        run = asked(job, id=RunId(len(self.runs) + 1), key=key, priority=priority, attempts=2)
        self.runs[run.id] = run
        return run.id, False

    def claim(self, worker: str, slots: int) -> list[int]:
        waiting = [run for run in self.runs.values() if run.state is State.WAITING]
        chosen = sorted(waiting, key=lambda run: (-run.priority, run.id))[:slots]
        for run in chosen:
            self.runs[run.id] = replace(
                run, state=State.RUNNING, worker=worker, token=run.token + 1, attempt=run.attempt + 1
            )
        return sorted(ids(chosen))

    def pick(self, number: int) -> Run | None:
        return self.runs[1 + number % len(self.runs)] if self.runs else None


OUTCOMES = {"return": Returned(1), "raise": FAILED, "retry": Raised(BAD, timedelta(0)), "lost": Lost()}


def stands(run: Run, after: Run, token: int) -> bool:
    """Whether the record is just as a settling would have it: written before, by a call whose answer was lost."""
    facts = ("state", "ready_at", "ended_at", "worker", "summary", "result", "error")
    return 0 < run.token == token and all(getattr(run, fact) == getattr(after, fact) for fact in facts)


async def play(store: Store, model: Model, step: tuple[Any, ...]) -> None:
    """One step in both, and the same answer from both."""
    match step:
        case ("submit", job, key, priority):
            [run] = await store.submit([asked(job, key=key, priority=priority, attempts=2)])
            assert (run.id, run.existed) == model.submit(job, key, priority)
        case ("claim", worker, slots):
            assert sorted(ids((await store.claim(worker, NOW, slots)).started)) == model.claim(worker, slots)
        case ("settle", number, word) if run := model.pick(number):
            before = replace(run, token=run.token - (word == "stale"), state=State.RUNNING)
            settling = ended(before, OUTCOMES.get(word, Returned(2)), repeatable=True)
            won = run.state is State.RUNNING and word != "stale"
            after = settling.after
            if run.id in model.wishes and after.state is State.WAITING:  # it waits for no other attempt
                after = before.changed(state=State.CANCELLED, error=after.error)
            written = await store.settle(settling)
            assert (written is not None) is (won or stands(run, after, before.token))
            assert written is None or written.state is after.state
            if won:
                model.runs[run.id] = after
                model.wishes = [one for one in model.wishes if one != run.id]
        case ("cancel", number) if run := model.pick(number):
            done = await store.cancel(run.id, actor=None, reason=None, now=NOW)
            assert done is not None
            assert done.wished is (run.state is State.RUNNING)
            if run.state is State.WAITING:
                model.runs[run.id] = replace(run, state=State.CANCELLED)
            elif done.wished:
                model.wishes.append(run.id)
        case ("wishes", worker):
            mine = {one for one in model.wishes if model.runs[one].worker == worker}
            running = {one for one in mine if model.runs[one].state is State.RUNNING}
            got = {wish.run for wish in await store.wishes(worker)}
            assert running <= got <= set(model.wishes)
            assert all(model.runs[one].state is not State.RUNNING or one in mine for one in got)
            model.wishes = [one for one in model.wishes if one not in got]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
async def test_any_sequence_of_verbs_leaves_what_a_model_says(kind, steps, tmp_path_factory):
    async with Stores(kind, Path(tmp_path_factory.mktemp("model"))) as made:
        store, model = await made.make("a", "b"), Model()
        for step in steps:
            await play(store, model, step)
        runs = {run.id: run for run in await store.find(Query(limit=1000))}
        facts = ("job", "state", "key", "token", "attempt", "worker")
        assert {one: [getattr(run, fact) for fact in facts] for one, run in runs.items()} == {
            one: [getattr(run, fact) for fact in facts] for one, run in model.runs.items()
        }
        active = [run.state for run in model.runs.values() if not run.final]
        assert dict(await store.counts()) == {one: active.count(one) for one in (State.WAITING, State.RUNNING)}


async def test_the_runs_that_repeat_one_are_found_from_it(store):
    run, other = await finished(store), await finished(store)
    again = await submitted(store, asked(rerun_of=run.id), asked("b", rerun_of=run.id), asked(rerun_of=other.id))
    assert ids(await store.reruns(run.id)) == ids(again[:2])
    assert list(await store.reruns(again[0].id)) == []
