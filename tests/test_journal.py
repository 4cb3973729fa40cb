"""What disturbed a worker is kept until the store has it, and no more of it than there is room for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from stores import NOW, pair, shared, store, stores

from taskloop.errors import StoreUnavailable
from taskloop.clock import SystemClock
from taskloop.journal import MOST_A_DAY, Journal, StoreWatch

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio


async def kept(store):
    return [(one.kind, one.data["number"]) for one in reversed(await store.incidents(NOW, NOW, 5000))]


async def test_what_comes_while_the_store_writes_is_written_next_however_much_it_is(store):
    journal, asked = Journal("w"), store.note

    async def slowly(batch, heed):
        for number in range(600):
            journal.add("frozen", NOW, NOW, number=number)
        store.note = asked
        await asked(batch, heed)

    for number in range(900):
        journal.add("clock", NOW, NOW, number=number)
    store.note = slowly
    await journal.write(store)
    assert len(journal.unwritten()) == 600
    await journal.write(store)
    assert journal.unwritten() == []
    assert sorted(await kept(store)) == [*(("clock", n) for n in range(900)), *(("frozen", n) for n in range(600))]


async def test_what_the_store_does_not_take_is_given_to_it_again_in_its_order(store):
    journal, asked = Journal("w"), store.note

    async def away(batch, heed):
        journal.add("clock", NOW, NOW, number=2)
        heed(StoreUnavailable("away"))
        raise StoreUnavailable("away")

    journal.add("clock", NOW, NOW, number=0)
    journal.add("clock", NOW, NOW, number=1)
    store.note = away
    with pytest.raises(StoreUnavailable):
        await journal.write(store)
    store.note = asked
    assert [one.data["number"] for one in journal.unwritten()] == [0, 1, 2]
    await journal.write(store)
    assert await kept(store) == [("clock", 0), ("clock", 1), ("clock", 2)]


def test_of_one_kind_a_thousand_a_day_are_kept():
    journal = Journal("w")
    for number in range(MOST_A_DAY + 5):
        journal.add("blocked", NOW, NOW, number=number)
    assert [one.data["number"] for one in journal.unwritten()] == [*range(MOST_A_DAY)]


async def test_after_a_day_of_too_many_the_next_one_is_told_again(store):
    journal = Journal("w")
    for number in range(MOST_A_DAY + 5):
        journal.add("blocked", NOW, NOW, number=number)
    await journal.write(store)
    journal.add("blocked", NOW + timedelta(hours=23), NOW, number="the same day")
    journal.add("blocked", NOW + timedelta(days=1), NOW, number="the next")
    assert [one.data["number"] for one in journal.unwritten()] == ["the next"]


def test_who_asks_a_store_again_that_is_away_waits_longer_each_time_but_never_for_long():
    watch = StoreWatch(SystemClock(), lambda *_: None)
    waits = [watch.patience() for _ in range(50)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, [0.5, 1, 2, 4, *[5] * 46], strict=True))
    assert len({*waits}) > 40, "all who wait would ask at one moment"
