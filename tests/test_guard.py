"""The guard on the loop and on the worker: who held the loop is named, and a held loop costs no lease. In real time."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from loguru import logger
from stores import database

from taskloop import Every, Options, State, TaskScheduler, watchdog
from taskloop.clock import SystemClock
from taskloop.errors import StoreUnavailable
from taskloop.pulse import Pulse

pytestmark = pytest.mark.anyio

QUICK = Options(heartbeat=timedelta(milliseconds=100), lease=timedelta(seconds=1))


def hold(seconds):
    """Keep the interpreter busy, as a computation does that nobody thought would take so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def hold_the_loop(seconds: float = 0.8):
    hold(seconds)


@asynccontextmanager
async def watched(path=":memory:", options=QUICK):
    """A started scheduler, and the blocks it tells of."""
    scheduler, blocks = TaskScheduler(path, options=options), asyncio.Queue()
    scheduler.feed.subscribe(blocks.put_nowait, "loop_blocked")
    scheduler.add_job(hold_the_loop)
    async with scheduler:
        yield scheduler, blocks


async def heard(blocks, by=lambda event: True):
    """The next block that is told of; on a crowded machine there are others than those that a test makes."""
    async with asyncio.timeout(10):
        while not by(event := await blocks.get()):
            pass
        return event


async def test_a_job_that_holds_the_loop_is_named_with_its_run_and_its_line():
    async with watched() as (scheduler, blocks):
        run = await scheduler.submit("hold_the_loop")
        event = await heard(blocks, lambda event: event.job)
        assert (event.job, event.run.id if event.run else event.data["run"]) == ("hold_the_loop", run.id)
        assert 200 <= event.data["ms"] <= 10_000
        assert re.fullmatch(r"\S*test_guard\.py:\d+ hold", event.data["where"])
        for _ in range(2):  # at once, though it is not written yet; and once only when it is
            assert [one.data["run"] for one in await scheduler.incidents() if "run" in one.data] == [run.id]
            while scheduler._journal.unwritten():
                await asyncio.sleep(0.01)


async def test_a_job_that_holds_the_loop_at_once_after_a_quiet_time_is_seen_from_the_limit_on(monkeypatch):
    monkeypatch.setattr(watchdog, "QUIET_SECONDS", 20.0)
    async with watched() as (scheduler, blocks):
        dog = scheduler._guard._watchdog
        async with asyncio.timeout(10):
            while not dog._quiet:
                await asyncio.sleep(0.3)
        await scheduler.submit("hold_the_loop")
        await heard(blocks, lambda event: event.job == "hold_the_loop")


async def test_a_task_that_is_no_jobs_is_named_by_itself():
    async with watched() as (_, blocks):
        await asyncio.create_task(hold_the_loop(), name="web request 7")
        event = await heard(blocks, lambda event: "web" in event.data.get("task", ""))
        assert (event.job, event.run) == (None, None)
        assert event.data["task"] == "web request 7 (hold_the_loop)"


async def test_a_callback_that_holds_the_loop_is_named_by_its_line_alone():
    async with watched() as (_, blocks):
        asyncio.get_running_loop().call_soon(hold, 0.8)
        event = await heard(blocks, lambda event: "task" not in event.data)
        assert event.job is None and "test_guard.py" in event.data["where"]


async def test_what_is_quick_or_waits_is_no_block():
    async with watched() as (scheduler, blocks):
        for _ in range(20):
            await (await scheduler.submit("hold_the_loop", {"seconds": 0.002})).wait()
        await asyncio.sleep(0.3)
        assert blocks.qsize() < 5, "those of a crowded machine, not one for each run"


async def test_a_block_is_recorded_so_that_the_past_can_be_explained(tmp_path):
    async with watched(tmp_path / "app.db") as (scheduler, blocks):
        await scheduler.submit("hold_the_loop")
        await heard(blocks, lambda event: event.job == "hold_the_loop")
        since, found = scheduler._clock.now() - timedelta(1), []
        async with asyncio.timeout(10):
            while not found:
                await asyncio.sleep(0.05)
                incidents = await scheduler._store.incidents(since, scheduler._clock.now())
                found = [one for one in incidents if one.data.get("job") == "hold_the_loop"]
        [block] = found
        assert block.kind == "loop_blocked" and block.data["where"].endswith(" hold")
        assert any(line.endswith(" hold_the_loop") for line in block.data["stack"])
        assert 0.2 <= (block.until - block.since).total_seconds() <= 10


async def test_a_block_that_lasts_is_told_while_it_lasts():
    said = []
    number = logger.add(lambda message: said.append((time.monotonic(), dict(message.record["extra"]))), level="WARNING")
    try:
        async with watched() as (_, blocks):
            await hold_the_loop(1.8)
            ended = time.monotonic()
            await heard(blocks)
    finally:
        logger.remove(number)
    early = [fields for at, fields in said if fields["event"] == "loop.blocked" and at < ended]
    assert [one["still"] for one in early] == [True]
    assert "hold" in early[0]["where"]


async def test_the_status_says_first_that_the_loop_stood_still():
    async with watched() as (scheduler, blocks):
        await scheduler.submit("hold_the_loop", {"seconds": 1.2})
        await heard(blocks)
        async with asyncio.timeout(10):
            while "hold_the_loop" not in str((status := await scheduler.status()).attention):
                await asyncio.sleep(0.05)
        assert status.attention[0]["condition"] == "loop_blocked"
        assert status.loop_lag_ms > 1000


async def test_a_block_in_a_file_whose_name_is_no_text_is_recorded_and_costs_no_lease(tmp_path):
    """No beat could be written that told of it, and after that none was."""
    found = {}
    text = "def held(now, until):\n    while now() < until:\n        pass\n"
    exec(compile(text, os.fsdecode(b"caf\xe9.py"), "exec"), found)  # noqa: S102 - our own text
    async with watched(tmp_path / "app.db") as (scheduler, blocks):
        found["held"](time.monotonic, time.monotonic() + 0.5)
        await heard(blocks, lambda event: "caf" in event.data["where"])
        async with asyncio.timeout(10):
            since = scheduler._clock.now() - timedelta(1)
            while not any(
                "held" in str(one.data) for one in await scheduler._store.incidents(since, scheduler._clock.now())
            ):
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)
        assert scheduler._guard.is_trusted()


async def test_a_watch_that_is_switched_off_watches_nothing():
    off = Options(loop_limit=None)
    async with watched(options=off) as (scheduler, blocks):
        assert not [one for one in threading.enumerate() if one.name == "taskloop watchdog"]
        await hold_the_loop()
        await asyncio.sleep(0.1)
        assert blocks.empty() and (await scheduler.status()).loop_lag_ms is None


# -- leases


async def test_a_beat_that_fails_for_whatever_reason_is_not_the_last():
    class Beater:
        beats = 0

        def beat(self, now, tick, health):
            self.beats += 1
            if self.beats == 2:
                raise MemoryError
            return True

        def close(self):
            pass

    beater, news = Beater(), asyncio.Queue()
    pulse = Pulse(beater, 0.01, gap_seconds=1.0, clock=SystemClock(), health=dict, heard=news.put_nowait)
    pulse.start()
    async with asyncio.timeout(10):
        first, second, third = [await news.get() for _ in range(3)]
    pulse.stop()
    await pulse.gone(3)
    assert (first, third) == (True, True) and "MemoryError" in str(second) and isinstance(second, StoreUnavailable)


async def test_while_beats_do_not_get_through_nobody_knows_who_lives_and_from_then_on_it_is_found_out_anew():
    class Ahead(SystemClock):
        seconds = 0.0

        def monotonic(self):
            return super().monotonic() + self.seconds

    class Held:
        waits, let_go = threading.Event(), threading.Event()
        beats = 0

        def beat(self, now, tick, health):
            self.beats += 1
            if self.beats == 2:
                self.waits.set()
                self.let_go.wait(10)
            return True

        def close(self):
            pass

    clock, beater, news = Ahead(), Held(), asyncio.Queue()
    pulse = Pulse(beater, 0.01, gap_seconds=100.0, clock=clock, health=dict, heard=news.put_nowait)
    begun = pulse.through_since()
    pulse.start()
    async with asyncio.timeout(10):
        await news.get()
        assert pulse.through_since() == begun
        await asyncio.to_thread(beater.waits.wait, 10)
        assert pulse.through_since() == begun
        clock.seconds = 200.0
        assert pulse.through_since() > begun + 199
        beater.let_go.set()
        for _ in range(3):  # a beat is told before it counts
            await news.get()
        through = pulse.through_since()
        clock.seconds = 250.0
        await news.get()
        assert begun + 199 < through == pulse.through_since() < begun + 220
    pulse.stop()
    await pulse.gone(3)


async def test_a_loop_that_is_held_for_longer_than_the_lease_loses_no_run(tmp_path):
    path, other_may_end, lives = tmp_path / "app.db", threading.Event(), threading.Event()

    def other():
        async def live():
            async with TaskScheduler(path, options=QUICK) as second:
                second.add_job(hold_the_loop)
                lives.set()
                while not other_may_end.is_set():
                    await asyncio.sleep(0.05)

        asyncio.run(live())

    thread = threading.Thread(target=other)
    async with watched(path) as (scheduler, _):
        thread.start()
        while not lives.is_set():
            await asyncio.sleep(0.01)
        run = await (await scheduler.submit("hold_the_loop", {"seconds": 2.5})).wait("20s")
        other_may_end.set()
        assert (run.state, run.attempt, run.reason) == ("succeeded", 1, None)
        kinds = [one.kind for one in await scheduler._store.incidents(run.created_at, scheduler._clock.now())]
        assert "taken_for_dead" not in kinds and "fenced" not in kinds
    await asyncio.to_thread(thread.join)


async def test_a_worker_taken_for_dead_lets_go_of_its_runs_and_records_nothing_of_them(tmp_path):
    begun, ended, path = asyncio.Event(), [], tmp_path / "app.db"
    scheduler = TaskScheduler(path, options=QUICK)

    @scheduler.job()
    async def long() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("asked to end")
            return "too late"
        return "done"

    async with scheduler:
        run = await long.submit()
        await begun.wait()
        with database(path) as db:  # what another worker does that has not heard of this one for a lease
            db.execute("UPDATE taskloop_workers SET stopped_at = beat_at, ended = 'died'")
            db.execute(
                "UPDATE taskloop_runs SET state = 'interrupted', reason = 'worker_died', ended_at = 0, token = token + 1"
            )
        async with asyncio.timeout(10):
            while not ended or not await scheduler._store.incidents(run.created_at, scheduler._clock.now()):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        assert (await scheduler.run(run.id)).state == "interrupted"
        kinds = {one.kind: one.data for one in await scheduler._store.incidents(run.created_at, scheduler._clock.now())}
        assert set(kinds) == {"taken_for_dead", "fenced"} and kinds["fenced"]["run"] == run.id
        assert (await scheduler.status()).running


BRIEF = Options(heartbeat=timedelta(milliseconds=200), lease=timedelta(seconds=2))
PROGRAM = """
import asyncio, sys
from datetime import timedelta
from taskloop import Options, TaskScheduler
scheduler = TaskScheduler("app.db", options=Options(heartbeat=timedelta(milliseconds=200), lease=timedelta(seconds=2)))

@scheduler.job(retry=5)
async def work(seconds: float = 3.0) -> int:
    print("begin", flush=True)
    await asyncio.sleep(seconds)
    return {number}

async def main():
    async with scheduler:
        print("lives", flush=True)
        if {number} == 1:
            await work.submit()
        await asyncio.sleep(60)

asyncio.run(main())
"""


class Program:
    """A worker in a process of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        source = PROGRAM.replace("{number}", str(number))
        self.log = (folder / f"{number}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", source], cwd=folder, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip

    def hear(self, word: str) -> None:
        while (line := self.process.stdout.readline().strip()) != word:
            assert line, (word, self.said)

    @property
    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


def test_a_process_that_stood_still_beyond_its_lease_changes_nothing_when_it_goes_on(tmp_path):
    one, two = Program(tmp_path, 1), None
    try:
        one.hear("lives")
        one.hear("begin")
        two = Program(tmp_path, 2)
        two.hear("lives")
        one.process.send_signal(signal.SIGSTOP)
        two.hear("begin")  # taken over: the lease was over
        one.process.send_signal(signal.SIGCONT)

        def ended():
            with database(tmp_path / "app.db") as db:
                return db.execute(
                    "SELECT state, result, attempt FROM taskloop_runs WHERE state = 'succeeded'"
                ).fetchall()

        deadline = time.monotonic() + 15
        while not ended() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ended() == [("succeeded", "2", 2)]
        with database(tmp_path / "app.db") as db:
            kinds = [row[0] for row in db.execute("SELECT DISTINCT kind FROM taskloop_incidents ORDER BY kind")]
        assert {"fenced", "frozen", "taken_for_dead"} <= set(kinds), (kinds, one.said)
        assert "run.fenced" in one.said and "process.frozen" in one.said
    finally:
        one.process.send_signal(signal.SIGCONT)
        for program in (one, two):
            if program is not None:
                program.end()


async def test_who_begins_as_a_held_file_is_let_go_takes_nobody_for_dead_who_could_not_beat_either(tmp_path):
    one, run_of_one = Program(tmp_path, 1), "SELECT state, attempt, result FROM taskloop_runs"
    try:
        one.hear("lives")
        one.hear("begin")
        with database(tmp_path / "app.db") as db:
            held_at = time.monotonic()
            db.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(2.3)
            scheduler = TaskScheduler(tmp_path / "app.db", options=BRIEF)
            starting = asyncio.create_task(scheduler.start())
            while time.monotonic() < held_at + 2.6:
                await asyncio.sleep(0.05)
            one.process.send_signal(signal.SIGSTOP)  # so that it is not the quicker of the two
            db.rollback()
        await starting
        with database(tmp_path / "app.db") as db:
            assert db.execute(run_of_one).fetchall() == [("running", 1, None)]
        one.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(15):
            while True:
                with database(tmp_path / "app.db") as db:
                    if (found := db.execute(run_of_one).fetchall()) != [("running", 1, None)]:
                        break
                await asyncio.sleep(0.05)
        assert found == [("succeeded", 1, "1")]
        await scheduler.stop()
    finally:
        one.process.send_signal(signal.SIGCONT)
        one.end()


async def test_who_sees_no_beat_of_another_container_while_the_file_is_held_does_not_take_it_for_dead(tmp_path):
    path = tmp_path / "app.db"
    scheduler = TaskScheduler(path, options=Options(heartbeat=timedelta(seconds=1.5), lease=timedelta(seconds=3.5)))
    async with scheduler:
        with database(path) as db:

            def told(what, of="other"):
                return db.execute(f"SELECT {what} FROM taskloop_workers WHERE id = ?", (of,)).fetchone()[0]

            before = told("beat_at", scheduler.worker.id)
            async with asyncio.timeout(10):
                while told("beat_at", scheduler.worker.id) == before:
                    await asyncio.sleep(0.02)
            await scheduler._store.enlist(replace(scheduler.worker, id="other", host="elsewhere", process="m:b:1:2"))
            await asyncio.sleep(1.1)  # what was written is seen by now: of what comes next a beat is the first
            db.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(3.8)
            db.rollback()
            await asyncio.sleep(1.0)
            assert told("stopped_at") is None, "as long as it is not known that it could beat"
            async with asyncio.timeout(10):
                while told("stopped_at") is None:
                    await asyncio.sleep(0.05)
            assert told("ended") == "died"


SLOW = Options(heartbeat=timedelta(seconds=10), lease=timedelta(seconds=30))
BRISK = Options(heartbeat=timedelta(milliseconds=300), lease=timedelta(seconds=30))


async def nap():
    await asyncio.sleep(0)


async def test_a_run_that_was_claimed_before_the_process_stood_still_begins_where_it_is_still_ours(tmp_path):
    async with watched(tmp_path / "app.db", BRISK) as (scheduler, _):
        scheduler.add_job(nap)
        scheduler._guard._pulse.good_at -= 60  # as if the last good beat were older than the lease
        handle = await scheduler.submit("nap")
        assert (await handle.wait(10)).state == "succeeded"


async def test_a_run_that_became_anothers_while_the_process_stood_still_is_not_begun(tmp_path):
    async with watched(tmp_path / "app.db", BRISK) as (scheduler, _):
        called = []

        @scheduler.job()
        def job() -> None:
            called.append(1)

        handle = await scheduler.submit("job", at="+1h")
        run = (await scheduler.run(handle.id)).changed(state=State.RUNNING, worker="other", token=7)
        scheduler._guard._pulse.good_at -= 60
        scheduler._slots.launch(run)
        clock = scheduler._clock
        while not (found := await scheduler._store.incidents(run.created_at, clock.now())):
            await asyncio.sleep(0.02)
        assert (found[0].kind, found[0].data["run"]) == ("fenced", handle.id) and not called
        assert (await scheduler.run(handle.id)).state == "waiting" and scheduler._slots.free == 64


async def test_a_schedule_that_is_due_and_does_not_move_is_told_until_it_moves(tmp_path):
    async with watched(tmp_path / "app.db", SLOW) as (scheduler, _):
        scheduler.add_job(nap)
        schedule = await scheduler.schedule("nap", Every("1h"), id="nap")
        scheduler._guard.stalled(replace(schedule, next_due=schedule.seen_at))
        assert "is due since" in scheduler._guard.health()["stalled"]
        attention = ()
        while not attention:  # the guard looks again meanwhile, and finds nothing
            scheduler._guard.stalled(replace(schedule, next_due=schedule.seen_at))
            attention = (await scheduler.status()).attention
        assert attention[0]["condition"] == "stalled"
        scheduler._guard.stalled(None)
        assert "stalled" not in scheduler._guard.health()
