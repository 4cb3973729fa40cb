"""Virtual time and the world outside of its loop."""

from __future__ import annotations

import aiosqlite
import pytest

from taskloop import Options, State, TaskScheduler
from taskloop.errors import BadStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def scheduler():
    return TaskScheduler("sqlite:///never-made.db", options=Options())


async def nothing():
    """A job that does nothing."""


async def test_a_submit_within_a_transaction_is_tested_on_the_file_that_the_application_has(
    scheduler, virtual_time, tmp_path
):
    scheduler.add_job(nothing)
    async with aiosqlite.connect(tmp_path / "shop.db") as db:
        async with virtual_time(scheduler):
            with pytest.raises(BadStore, match=r"in a test by virtual_time\(scheduler, store=\"sqlite:///FILE\"\)"):
                await scheduler.submit("nothing", connection=db)
        async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/shop.db") as time:
            for ends in (db.rollback, db.commit):
                await db.execute("BEGIN")
                await scheduler.submit("nothing", connection=db)
                await ends()
            await time.run_until_idle()
            assert [run.state for run in await time.runs()] == [State.SUCCEEDED]
