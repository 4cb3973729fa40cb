"""An answer of a store: awaited by any number, or told by a call, once, whatever whoever hears it does."""

from __future__ import annotations

import asyncio
import gc

import pytest
from stores import ended, know, started

from taskloop.errors import StoreUnavailable
from taskloop.store_sqlite import SqliteStore
from taskloop.tasks import Answer, refused, undisturbed

pytestmark = pytest.mark.anyio


async def test_all_who_wait_get_what_is_answered_but_one_that_was_cancelled():
    answer = Answer()
    waiting = [asyncio.ensure_future(answer) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert not answer.done()
    answer.set_result("written")
    assert [await waiting[0], await waiting[2], await answer] == ["written"] * 3
    assert answer.done() and waiting[1].cancelled()


async def test_whoever_waits_for_what_is_refused_gets_the_error_each_time():
    answer = refused(StoreUnavailable("away"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="away"):
            await answer


async def test_who_is_told_hears_it_in_the_turn_of_the_answer_or_at_once_where_that_was_before():
    answer, heard = Answer(), []
    answer.tell(lambda *told: heard.append(told))
    assert heard == []
    answer.set_result(7)
    assert heard == [(7, None)]
    answer.tell(lambda *told: heard.append(told))
    assert heard == [(7, None)] * 2


async def test_what_goes_wrong_where_it_is_told_is_told_to_the_loop_and_keeps_nobody_else_from_it():
    answer, wrong = Answer(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(repr(context["exception"])))
    waits = asyncio.ensure_future(answer)
    await asyncio.sleep(0)
    answer.tell(lambda *_: 1 / 0)
    answer.set_result(7)
    assert await waits == 7 and wrong == ["ZeroDivisionError('division by zero')"]


async def test_an_answer_that_was_told_does_not_wait_for_the_garbage_collector():
    class Ours(Answer):
        """Told from those that other tests have left."""

    answer = Ours()
    answer.tell(lambda *_, itself=answer: None)
    gc.disable()
    try:
        answer.set_result(7)
        del answer
        assert not [one for one in gc.get_objects() if type(one) is Ours]
    finally:
        gc.enable()


async def test_an_end_that_nobody_waits_for_is_written_and_refused_by_a_store_that_is_closed(tmp_path):
    heard, store = [], SqliteStore(tmp_path / "a.db")
    await store.open()
    await know(store, "a")
    run = await started(store)
    store.settle(ended(run)).tell(lambda *told: heard.append(told))
    assert not heard
    await store.close()
    [(after, error)] = heard
    assert after.state == "succeeded" and error is None
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.settle(ended(run))


async def test_a_host_that_cancels_all_tasks_has_undisturbed_work_begun_anew_and_one_that_cancels_itself_not():
    begun, goes_on = [], asyncio.Event()

    async def works():
        begun.append(asyncio.current_task())
        await goes_on.wait()
        return len(begun)

    async def gives_up():
        raise asyncio.CancelledError

    waits = asyncio.ensure_future(undisturbed(works))
    for times in (1, 2):
        while len(begun) < times:
            await asyncio.sleep(0)
        for task in (waits, begun[-1]):
            task.cancel()
    goes_on.set()
    assert await waits == 3
    with pytest.raises(asyncio.CancelledError):
        await undisturbed(gives_up)
