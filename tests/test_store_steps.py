"""The contract every store must pass, fourth part: the steps of runs, and their logs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta

import pytest
from stores import asked, at, claimed, database, ended, finished, know, pair, shared, started, store, stores, submitted

from taskloop.errors import TaskloopError
from taskloop.runs import Failure, Raised, Returned, RunId, ShutDown
from taskloop.steps import LogLine, Step, StepState
from taskloop.store_sqlite import SqliteStore

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio

LOADED = Step(
    name="load", place=0, state=StepState.SUCCEEDED, attempt=2, started_at=at(1), ended_at=at(4), result={"rows": [1, "é"]},
    error=Failure("OSError", "gone", "Traceback …", "cafe"),
)  # fmt: skip
SENT = Step(name="send", place=1, state=StepState.RUNNING, attempt=1, started_at=at(4))


def line(text, second=0.0, **changes):
    return LogLine(at(second), **({"level": "info", "text": text} | changes))


async def lines(store, run, **asked):
    found, _ = await store.lines(run.id, **asked)
    return [one.text for one in found]


async def test_steps_come_back_as_they_were_written_in_their_order(store):
    run = await started(store)
    assert await store.step(run, [SENT, LOADED])
    assert await store.steps(run.id) == [LOADED, SENT]
    assert await store.steps(RunId(run.id + 1)) == []


async def test_a_step_that_is_written_again_stands_as_it_was_written_last(store):
    run = await started(store)
    await store.step(run, [SENT])
    failed = Step(name="send", place=1, state=StepState.FAILED, attempt=3, started_at=at(4), ended_at=at(9))
    await store.step(run, [failed])
    assert await store.steps(run.id) == [failed]


async def test_what_a_later_version_tells_beside_the_rest_of_why_a_step_or_an_attempt_failed_is_left_out(tmp_path):
    store = SqliteStore(tmp_path / "a.db")
    await store.open()
    await know(store, "a")
    run = await started(store, attempts=2)
    await store.step(run, [LOADED])
    assert await store.settle(ended(run, Raised(LOADED.error, timedelta(seconds=1))))
    with database(tmp_path / "a.db") as db:
        for table in ("steps", "attempts"):
            db.execute(f"UPDATE taskloop_{table} SET error = json_insert(error, '$[#]', 'more')")
    assert await store.steps(run.id) == [LOADED]
    [attempt] = await store.attempts(await store.run(run.id))
    assert attempt.error == asdict(LOADED.error)
    await store.close()


async def test_steps_of_a_run_that_another_worker_has_now_change_nothing(store):
    run = await started(store)
    await store.step(run, [LOADED])
    assert await store.settle(ended(run, ShutDown(), repeatable=True))
    [again] = (await claimed(store, "w2")).started
    assert not await store.step(run, [SENT])
    assert await store.step(again, [Step(name="mine")])
    assert [one.name for one in await store.steps(run.id)] == ["load", "mine"]


async def test_of_many_steps_written_at_once_those_of_a_lost_run_are_told_apart(store):
    lost, mine = await started(store), await started(store)
    assert await store.settle(ended(lost))
    answers = await asyncio.gather(*(store.step(run, [Step(name="s")]) for run in (lost, mine, lost)))
    assert answers == [False, True, False]
    assert await store.steps(lost.id) == []


async def test_a_step_that_cannot_be_stored_is_refused_and_harms_no_other(store):
    run = await started(store)
    with pytest.raises(TaskloopError):
        await store.step(run, [Step(name="bad \ud800")])
    assert await store.step(run, [LOADED])
    assert await store.steps(run.id) == [LOADED]


async def test_a_run_again_from_a_step_takes_over_what_had_succeeded(store):
    run = await started(store)
    other = Step(name="other", place=2, state=StepState.SUCCEEDED, attempt=1, started_at=at(1), ended_at=at(2))
    await store.step(run, [LOADED, SENT, other])
    await store.settle(ended(run))
    [again] = await submitted(store, asked(rerun_of=run.id, data={"from_step": "send"}))
    kept, _ = taken = await store.steps(again.id)
    assert [one.name for one in taken] == ["load", "other"]
    assert (kept.result, kept.kept, kept.attempt, kept.ended_at) == (LOADED.result, True, 2, LOADED.ended_at)
    [plain] = await submitted(store, asked(rerun_of=run.id))
    assert await store.steps(plain.id) == []


# -- logs


async def test_lines_of_a_log_come_back_in_the_order_they_were_written_and_a_reader_goes_on_where_it_stood(store):
    run, other = await started(store), await started(store)
    first = [line("one", 1, level="warning", step="load"), line("two\n🙂", 2)]
    await store.log([(run, first), (other, [line("elsewhere")])])
    found, part = await store.lines(run.id)
    assert list(found) == first
    assert await store.lines(run.id, after=part) == ([], part)
    await store.log([(run, [line("three")])])
    assert await lines(store, run, after=part) == ["three"]
    assert await lines(store, run, limit=1) == ["one"]


async def test_a_log_gives_as_many_lines_as_were_asked_for_and_loses_or_doubles_none_where_a_page_ends_in_a_part(store):
    run, other = await started(store), await started(store)
    for part in (("0", "1", "2"), ("3",), ("4", "5", "6", "7"), ("8", "9")):
        await store.log([(run, [line(text) for text in part]), (other, [line("elsewhere")])])
    for most in range(1, 12):
        pages, place = [], 0
        while True:
            found, place = await store.lines(run.id, after=place, limit=most)
            if not found:
                break
            pages.append([one.text for one in found])
        assert [text for page in pages for text in page] == [str(number) for number in range(10)]
        assert [len(page) for page in pages[:-1]] == [most] * (len(pages) - 1) and len(pages[-1]) <= most
    assert await store.lines(run.id, after=place, limit=0) == ([], place)
    await store.log([(run, [line("10"), line("11")])])
    assert await lines(store, run, after=place) == ["10", "11"]


async def test_the_last_lines_are_written_with_the_end_of_a_run(store):
    run = await started(store)
    await store.log([(run, [line("begun")])])
    assert await store.settle(ended(run, Returned(1))._replace(lines=[line("done")]))
    assert await lines(store, run) == ["begun", "done"]


async def test_lines_of_a_run_that_another_worker_has_now_are_not_kept(store):
    run = await started(store)
    await store.settle(ended(run, ShutDown(), repeatable=True))
    await claimed(store, "w2")
    await store.log([(run, [line("late")])])
    assert not await store.settle(ended(run)._replace(lines=[line("later")]))
    assert await lines(store, run) == []


async def test_of_many_attempts_those_of_the_newest_are_kept(store):
    run = await started(store)
    for number in range(8):
        await store.log([(run, [line(f"{number}")]), (run, [line(f"{number} too")])])
        await store.settle(ended(run, ShutDown(), repeatable=True))
        [run] = (await claimed(store)).started
    assert await lines(store, run) == [f"{number}{word}" for number in range(3, 8) for word in ("", " too")]


async def test_steps_and_lines_go_with_their_run(store):
    old = await finished(store)
    run = await started(store)
    await store.step(run, [LOADED])
    await store.log([(run, [line("kept")])])
    await store.settle(ended(run))
    await finished(store)  # the newest run of all stays
    assert old.id < run.id
    place = None
    while True:
        step = await store.prune(timedelta(days=1), now=at(3 * 86400), after=place)
        place = step.after
        if place is None:
            break
    assert await store.run(run.id) is None
    assert await store.steps(run.id) == [] and await lines(store, run) == []
