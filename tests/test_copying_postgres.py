"""`db copy` to a PostgreSQL server and back."""

from __future__ import annotations

import pytest
from servers import emptied
from stores import database
from test_copying import filled, made, rows, transferred

from taskloop import State
from taskloop.errors import Conflict
from taskloop.keyring import Keyring

pytestmark = pytest.mark.anyio


async def test_a_store_goes_to_a_server_and_back_and_a_scheduler_goes_on_there(virtual_time, tmp_path):
    first, back = tmp_path / "a.db", tmp_path / "b.db"
    server = emptied()
    scheduler = made()
    async with virtual_time(scheduler, store=f"sqlite:///{first}") as time:
        await filled(time, scheduler, first)
        with database(first) as db:  # what no text of PostgreSQL can hold
            db.execute("UPDATE taskloop_runs SET summary = 'a' || char(0) || 'b' || char(26) || '0' WHERE id = 2")
        await time.crash()
        sums = await transferred(first, server.store)
        assert await transferred(server.store, back) == sums
        assert rows(first) == rows(back)
        with pytest.raises(Conflict, match=r"is not empty \(4 in jobs, .*a copy keeps ids"):
            await transferred(first, server.store)
        now = time.now

    again = made()
    async with virtual_time(again, store=server.store, at=now) as time:
        newest = max(run.id for run in await again.runs())
        kept = await again.submit("steps", {"word": "hunter2"}, key="k")
        assert kept.existed and (await again.run(kept.id)).result == [{"a": 1}]
        assert (await again.log(kept.id)).lines[0].text == "begins" and len(await again.steps(kept.id)) == 1
        assert [one.name for one in await Keyring(again._opened, time.clock).live()] == ["ci"]
        await again.disable("steps")  # ids that the server gives go on after those that it was given
        await again.enable("steps")
        await again.submit("steps", {"word": "hunter3"})
        await time.advance("15m")
        assert [run.state for run in await again.runs("long")] == [State.RUNNING, State.INTERRUPTED]
        fired = [run for run in await again.runs("often") if run.id > newest]
        assert {run.schedule for run in fired} == {"often", "added"}
