"""Group commit: what is written with whatever gathered meanwhile, also where a host ends the task that writes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from anyio import CancelScope

from taskloop.errors import StoreUnavailable
from taskloop.gathering import Gathering

pytestmark = pytest.mark.anyio


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


class Disk:
    """Takes batches, and writes one when it may."""

    def __init__(self):
        self.batches = []
        self.may = asyncio.Semaphore(0)

    async def carry_out(self, parts):
        batch = [work for _, work in parts]
        await self.may.acquire()
        self.batches.append(batch)
        return [work.upper() for work in batch]


@asynccontextmanager
async def gathered():
    disk = Disk()
    gathering = Gathering(
        disk.carry_out, explained=lambda error: error, closed=lambda: StoreUnavailable("it is closed")
    )
    yield disk, gathering
    disk.may.release()
    await gathering.close(1)


async def asked(gathering, *works):
    """Who waits for each, once they have put it before the writer."""
    waiting = [asyncio.ensure_future(gathering.write("do", work)) for work in works]
    await turns()
    return waiting


async def test_what_gathers_while_a_batch_is_written_is_the_next_batch():
    async with gathered() as (disk, gathering):
        waiting = await asked(gathering, "a")
        waiting += await asked(gathering, "b", "c")
        disk.may.release()
        disk.may.release()
        assert await asyncio.gather(*waiting) == ["A", "B", "C"]
        assert disk.batches == [["a"], ["b", "c"]]


@pytest.mark.parametrize("works", ["b", "bc"])
async def test_a_host_that_cancels_the_writer_leaves_nobody_waiting_who_asked_before_it_has_ended(works):
    async with gathered() as (disk, gathering):
        waiting = await asked(gathering, "a")
        gathering._task.cancel()
        for work in works:  # each while the batch before is written, and nobody asks after
            waiting += await asked(gathering, work)
            disk.may.release()
            await turns()
        disk.may.release()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == ["A", *works.upper()]
        await turns()
        assert gathering._task.done()
        [late] = await asked(gathering, "e")
        disk.may.release()
        assert await late == "E"


async def test_a_host_that_cancels_the_writer_again_and_again_leaves_nobody_waiting():
    """As one that ends all tasks, and then its loop: what was in hand was answered by nobody, not even by a close."""
    async with gathered() as (disk, gathering):
        waiting = await asked(gathering, "a")
        for work in "bc":
            gathering._task.cancel()
            waiting += await asked(gathering, work)
        gathering._task.cancel()
        for _ in range(3):
            disk.may.release()
            await turns()
            gathering._task.cancel()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == ["A", "B", "C"]


async def test_who_writes_for_itself_in_a_scope_that_is_given_up_leaves_nobody_waiting():
    async with gathered() as (disk, gathering):
        gathering._task.cancel()
        await turns()

        async def writes():
            with CancelScope() as scope:
                asyncio.get_running_loop().call_later(0.01, scope.cancel)
                await gathering.write("do", "a")
            return scope.cancelled_caught

        writing = asyncio.create_task(writes())
        await turns()
        waiting = await asked(gathering, "b")
        await asyncio.sleep(0.05)
        disk.may.release()
        disk.may.release()
        async with asyncio.timeout(5):
            assert await asyncio.gather(writing, *waiting) == [True, "B"]
        assert disk.batches == [["a"], ["b"]]
