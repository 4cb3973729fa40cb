"""An answer of a store: awaited by any number, or told by a call, once, whatever whoever hears it does. And what is made once
for all who ask, as the opening of a store.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from contextlib import closing

import pytest
from stores import asked, ended, know, started

from taskloop.errors import StoreUnavailable
from taskloop.store_sqlite import SqliteStore
from taskloop.tasks import Answer, MadeOnce, refused, undisturbed

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


# -- what has time


@pytest.fixture
async def store(tmp_path):
    opened = SqliteStore(tmp_path / "a.db", call_seconds=0.6)
    await opened.open()
    await know(opened, "a")
    yield opened
    await opened.close()


def noting(heard, what):
    """A call that says that it was called."""
    return lambda *_: heard.append(what)


@pytest.mark.parametrize("parts", [1, 40])
async def test_what_has_time_is_done_before_what_is_written_next_is_answered(store, parts):
    heard = []
    store.meanwhile(noting(heard, "what has time"))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(parts):
            tasks.create_task(store.submit([asked()], noting(heard, "written")))
    assert heard == ["what has time"] + ["written"] * parts


async def test_what_has_time_is_done_soon_where_nothing_is_written(store):
    heard = []
    store.meanwhile(noting(heard, "what has time"))
    store.meanwhile(noting(heard, "this too"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert heard == ["what has time", "this too"]


@pytest.mark.parametrize(("others", "told"), [(3, [0, 1, 2]), (40, [1, 0, 2])])
async def test_of_many_ends_those_for_which_nobody_waits_are_told_when_there_is_time(store, others, told):
    heard, runs = [], [await started(store) for _ in range(3)]

    async def end():
        for number, run in enumerate(runs):
            store.settle(ended(run)._replace(awaited=number == 1)).tell(noting(heard, number))

    await asyncio.gather(*(store.submit([asked()], noting(heard, "with them")) for _ in range(others)), end())
    await asyncio.gather(*(store.submit([asked()], noting(heard, "next")) for _ in range(others)))
    assert heard == ["with them"] * others + told + ["next"] * others


@pytest.mark.parametrize("parts", [1, 40])
async def test_what_has_time_is_done_though_what_is_written_next_is_refused(store, tmp_path, parts):
    heard = []
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    store.meanwhile(noting(heard, "what has time"))
    asking = [store.submit([asked()], noting(heard, "refused")) for _ in range(parts)]
    for error in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(error, StoreUnavailable)
    assert heard == ["what has time"] + ["refused"] * parts
    (tmp_path / "b.db").rename(tmp_path / "a.db")


async def test_what_has_time_is_done_though_the_disk_hangs_or_the_store_is_closed(store):
    heard, answers = [], threading.Event()
    stuck = asyncio.ensure_future(store._do(lambda _: answers.wait(20)))
    while not store._writing._in_hand:
        await asyncio.sleep(0)
    store.meanwhile(noting(heard, "while it hangs"))
    with pytest.raises(StoreUnavailable, match="has not answered"):
        await stuck
    assert heard == ["while it hangs"]
    store.meanwhile(noting(heard, "as it closes"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert heard == ["while it hangs"]
    await store.close(within=0.1)
    answers.set()
    assert heard == ["while it hangs", "as it closes"]
    store.meanwhile(noting(heard, "of a store that is closed"))
    await asyncio.sleep(0)
    assert heard[-1] == "of a store that is closed"


@pytest.mark.parametrize("parts", [1, 40])
async def test_what_has_time_does_not_wait_for_others_that_have_the_file(store, tmp_path, parts):
    told = asyncio.Event()
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(parts):
                tasks.create_task(store.submit([asked()]))
            while not store._writing._in_hand:
                await asyncio.sleep(0)
            store.meanwhile(told.set)
            async with asyncio.timeout(0.5):  # less than the store's own patience
                await told.wait()
            other.execute("ROLLBACK")


async def test_what_has_time_and_fails_is_told_to_the_loop_and_keeps_nothing_from_being_done(store):
    heard, wrong = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(repr(context["exception"])))
    store.meanwhile(lambda: 1 / 0)
    store.meanwhile(noting(heard, "behind it"))
    await store.submit([asked()])
    assert heard == ["behind it"] and wrong == ["ZeroDivisionError('division by zero')"]


# -- made once for all who ask


class Making:
    """Makes a number when it may, or fails."""

    def __init__(self, *, stops=False):
        self.made, self.taken, self.undone = 0, [], []
        self.may: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.shared: MadeOnce[int] = MadeOnce(self.taken.append, self.undo, stops=stops)

    async def make(self):
        if (error := await self.may.get()) is not None:
            raise error
        self.made += 1
        return self.made

    async def undo(self, number):
        self.undone.append(number)

    def ask(self):
        return asyncio.ensure_future(self.shared.make(self.make))


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_shared_is_made_and_taken_once_for_all_who_ask_meanwhile():
    one = Making()
    asking = [one.ask() for _ in range(3)]
    await turns()
    one.may.put_nowait(None)
    await asyncio.gather(*asking)
    assert (one.made, one.taken, one.undone) == (1, [1], [])


async def test_what_is_shared_is_taken_by_whoever_asks_last_of_those_who_were_not_cancelled():
    one = Making()
    first, second = one.ask(), one.ask()
    await turns()
    first.cancel()
    await turns()
    one.may.put_nowait(None)
    await second
    assert first.cancelled() and (one.taken, one.undone) == ([1], [])


@pytest.mark.parametrize("stops", [False, True])
async def test_what_all_who_asked_have_left_is_undone_beside_what_another_has_made_since(stops):
    one = Making(stops=stops)
    first = one.ask()
    await turns()
    first.cancel()
    await turns()
    second = one.ask()
    await turns()
    one.may.put_nowait(None)
    one.may.put_nowait(None)
    await second
    await asyncio.wait({first})
    assert first.cancelled()
    assert (one.taken, one.undone) == (([1], []) if stops else ([2], [1]))


async def test_what_nobody_waits_for_any_more_is_undone_however_often_who_asked_is_cancelled():
    one = Making()
    first = one.ask()
    await turns()
    for _ in range(3):
        first.cancel()
        await turns()
    assert first.cancelled() and one.undone == []
    one.may.put_nowait(None)
    await turns()
    assert (one.taken, one.undone) == ([], [1])


async def test_of_several_who_learn_that_it_failed_none_forgets_what_is_made_since():
    one = Making()

    async def insists():
        try:
            await one.shared.make(one.make)
        except StoreUnavailable:
            await one.shared.make(one.make)

    asking = [asyncio.ensure_future(insists()) for _ in range(3)]
    await turns()
    one.may.put_nowait(StoreUnavailable("away"))
    await turns()
    one.may.put_nowait(None)
    await asyncio.gather(*asking)
    assert (one.made, one.taken) == (1, [1])
