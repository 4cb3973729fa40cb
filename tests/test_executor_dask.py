"""Jobs on a Dask cluster: a real one of two workers, on loopback."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time as real
from contextlib import contextmanager
from datetime import timedelta

import dask_jobs
import pytest
from distributed import Client

from taskloop import Options, State, TaskScheduler
from taskloop.errors import BadJob, ClusterUnavailable
from taskloop.executor_dask import EMPTY_SECONDS, OnDask
from taskloop.testing import run_context

pytestmark = pytest.mark.anyio
HERE = os.path.dirname(__file__)
BRIEF = timedelta(milliseconds=100)
CLUSTER = """
import asyncio, sys
from distributed import LocalCluster

async def main(port, failures, workers):
    import dask
    dask.config.set({"distributed.scheduler.allowed-failures": failures})
    async with LocalCluster(
        n_workers=workers, threads_per_worker=2, processes=True, asynchronous=True, dashboard_address="127.0.0.1:0",
        host="127.0.0.1", scheduler_port=port, silence_logs=60,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        await asyncio.to_thread(sys.stdin.read)

if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
"""


@contextmanager
def cluster(folder, *, port=0, failures=0, workers=2):
    """The address of a cluster in processes of its own, and the process that holds it."""
    script = folder / "cluster.py"
    script.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(port), str(failures), str(workers)],
        env={**os.environ, "PYTHONPATH": HERE}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process.stdout.readline().strip(), process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as (address, _):
        yield address


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """After a test no thread of ours lives; Dask has some of its own for the whole process."""
    yield
    deadline = real.monotonic() + 10
    while left := [one.name for one in threading.enumerate() if one.name.startswith("taskloop")]:
        assert real.monotonic() < deadline, f"threads left behind: {left}"
        real.sleep(0.002)


@pytest.fixture(autouse=True)
def dask_may_block_its_own_loop(guard):
    """Which is in a thread of its own; in the host's loop nothing may."""
    before = {function: list(function.can_block_functions) for function in guard.functions.values()}
    for function in before:
        function.can_block_in("taskloop/loop_thread.py", {"_turn", "_end"})
    yield
    for function, places in before.items():
        function.can_block_functions[:] = places


@contextmanager
def attached(address, **options):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(dask=address, **options))
    for job in dask_jobs.jobs:
        scheduler._add(job)
        job.attach(scheduler)
    yield scheduler


@pytest.fixture
async def at_work(address):
    with attached(address) as scheduler:
        async with scheduler:
            yield scheduler


async def ran(scheduler, name, **params):
    return await (await scheduler.submit(name, params)).wait()


async def said(scheduler, run):
    return [(line.level, line.text) for line in (await scheduler.log(run.id, limit=1_000)).lines]


async def there(path):
    while not await asyncio.to_thread(path.exists):
        await asyncio.sleep(0.01)


async def test_a_job_there_gets_what_it_is_to_and_tells_how_far_it_is(at_work):
    run = await ran(at_work, "told", day="2026-03-01", word="hunter2")
    assert run.state is State.SUCCEEDED, run.error
    told = run.result
    pid = told.pop("pid")
    assert pid != os.getpid()
    assert told == {"year": 2026, "run": run.id, "given": run.id, "attempt": 1, "word": "********"}
    assert (run.progress.done, run.progress.total, run.progress.message) == (1, 4, "a quarter ********")
    assert await said(at_work, run) == [("info", f"open {pid}"), ("warning", "hears ********"), ("info", "closed")]


async def test_a_line_that_no_encoding_takes_costs_no_worker_its_life(at_work):
    first, second = [await (await at_work.submit("lists")).wait(60) for _ in range(2)]
    assert (first.state, second.state) == ("succeeded", "succeeded")
    assert [text for _, text in await said(at_work, first)] == ["reading caf?.txt"]


async def test_what_a_job_raises_there_is_told_and_judged_as_if_it_were_here(at_work):
    run = await ran(at_work, "raising", what="it")
    assert (run.state, run.error.type, run.error.message, run.attempt) == (State.FAILED, "Unwanted", "unwanted it", 2)
    assert "dask_jobs.py" in run.error.traceback and "in raising" in run.error.traceback
    run = await ran(at_work, "raising", what="exit")
    assert (run.state, run.error.type, run.attempt) == (State.FAILED, "SystemExit", 1)
    run = await ran(at_work, "talking")
    assert run.error.type == "Conflict" and "call() needs the scheduler's loop" in run.error.message
    assert [text.partition(" x")[0] for _, text in await said(at_work, run)] == [f"line {n}" for n in range(300)]


async def test_a_program_that_the_cluster_does_not_have_is_told_with_where_it_is_missing(
    address, tmp_path, monkeypatch
):
    (tmp_path / "of_here_alone.py").write_text("def told(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from of_here_alone import told

    with attached(address) as scheduler:
        job = scheduler.add_job(told, name="alone", executor="dask")
        async with scheduler:
            run = await (await job.submit()).wait()
    assert (run.state, run.error.type) == (State.FAILED, "BadJob")
    assert run.error.message == (
        "a worker of the Dask cluster cannot find told of module of_here_alone: ModuleNotFoundError: No module named "
        "'of_here_alone'; each of them needs the program, in the same version as here: install it there, or name its folder "
        "in PYTHONPATH"
    )


async def test_a_worker_that_is_killed_fails_its_attempt_and_the_next_one_gets_another(at_work, tmp_path):
    heard = []
    at_work.on("retrying")(lambda event: heard.append(event.run.error))
    run = await ran(at_work, "dying", path=str(tmp_path / "calls"))
    assert (run.state, run.attempt) == (State.SUCCEEDED, 2), run.error
    [error] = heard
    assert error.type == "ProcessDied" and error.message.startswith("Dask worker tcp://127.0.0.1:")
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [attempt for attempt, _ in calls] == ["1", "2"] and calls[0][1] != calls[1][1] == str(run.result)


async def test_a_job_that_is_cancelled_hears_of_it_where_it_asks_and_one_that_waits_is_taken_back(at_work, tmp_path):
    paths = [tmp_path / f"{number}" for number in range(5)]
    runs = [await at_work.submit("lasting", {"path": str(path)}) for path in paths[:4]]
    for path in paths[:4]:
        await there(path)
    while (now := await at_work.run(runs[0].id)).progress is None or now.progress.message != "round 19999":
        await asyncio.sleep(0.02)  # it reaches the run while the job goes on
    waiting = await at_work.submit("lasting", {"path": str(paths[4])})  # two workers of two threads: there is no place
    while len(at_work._executors["dask"]._calls) < 5:
        await asyncio.sleep(0.01)
    await at_work.cancel(waiting.id, reason="enough", actor="me")
    assert (await waiting.wait()).state is State.CANCELLED and not paths[4].exists()
    [line] = await said(at_work, waiting)
    assert line == ("warning", "taken back from the Dask cluster: no worker there had begun with it")
    await at_work.cancel(runs[0].id, reason="enough", actor="me")
    run = await runs[0].wait()
    assert (run.state, run.attempt) == (State.CANCELLED, 1) and paths[0].with_suffix(".heard").exists()
    assert await said(at_work, run) == [("info", "half way")]
    for path in paths[:4]:
        path.unlink()
    assert [(await run.wait()).result for run in runs[1:]] == ["done"] * 3


async def test_a_job_that_hears_nothing_is_abandoned_and_holds_up_no_stop(address, tmp_path):
    with attached(address, kill_grace=BRIEF) as scheduler:
        before = asyncio.all_tasks()
        await scheduler.start()
        run = await scheduler.submit("lasting", {"path": str(tmp_path / "a"), "deaf": True})
        await there(tmp_path / "a")
        await scheduler.cancel(run.id, reason="enough", actor="me")
        run = await run.wait()
        assert (run.state, run.reason) == (State.INTERRUPTED, "abandoned")
        assert scheduler._slots.free == scheduler.options.max_running - 1  # it goes on there
        began = real.monotonic()
        await scheduler.stop(grace=0)
        assert real.monotonic() - began < 10
        while asyncio.all_tasks() != before:  # the attempt's, which nobody waits for any more
            await asyncio.sleep(0)
        (tmp_path / "a").unlink()


async def test_a_step_of_a_flow_runs_there_with_what_the_step_before_it_gave(at_work):
    run = await ran(at_work, "planned", number=5)
    assert run.state is State.SUCCEEDED, run.error
    steps = run.result["steps"]
    assert steps["doubled"]["attempt"] == 2 and steps["doubled"]["result"][:2] == [4, "doubled"]
    assert (
        steps["added"]["result"] == [*steps["doubled"]["result"], "here"]
        and os.getpid() not in steps["added"]["result"]
    )
    assert await said(at_work, run) == [("info", "call 1"), ("info", "call 2")]


async def test_a_cluster_that_begins_lost_tasks_again_calls_no_job_twice_and_one_that_goes_and_comes_back_is_used_again(
    tmp_path, lines
):
    with (
        cluster(tmp_path, failures=3, workers=1) as (address, process),
        attached(address, kill_grace=BRIEF) as scheduler,
    ):
        scheduler.speaker.level = "INFO"
        await scheduler.start()
        executor = scheduler._executors["dask"] = OnDask(address, scheduler.speaker.say, connect_seconds=1)
        run = await ran(scheduler, "dying", path=str(tmp_path / "calls"))
        calls = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
        assert (run.state, run.attempt, calls) == (State.SUCCEEDED, 2, ["1", "2"]), run.error
        assert lines.count("dask.begins_again") == 1

        heard = []
        scheduler.on("retrying")(lambda event: heard.append(event.run.error))
        run = await scheduler.submit("lasting", {"path": str(tmp_path / "lost")})
        await there(tmp_path / "lost")
        os.killpg(process.pid, signal.SIGKILL)
        run = await run.wait()
        assert (run.state, run.error.type, run.attempt) == (State.FAILED, "ClusterUnavailable", 2)
        assert "the connection was lost while the job was there" in heard[0].message
        assert f"Dask cluster at {address}: it does not answer within 1 s; see whether" in run.error.message

        with cluster(tmp_path, port=int(address.rpartition(":")[2]), workers=1) as (again, process):
            assert again == address
            assert (await ran(scheduler, "told", day="2026-03-01")).state is State.SUCCEEDED
            assert lines.count("dask.connected") == 2 and lines.count("dask.begins_again") == 1
            await scheduler.submit("lasting", {"path": str(tmp_path / "frozen")})
            await there(tmp_path / "frozen")
            os.killpg(process.pid, signal.SIGSTOP)
            began = real.monotonic()
            await scheduler.stop(grace=0)
            assert real.monotonic() - began < 10
            while executor.in_flight:
                await asyncio.sleep(0)


PROGRAM = """
from __future__ import annotations
import asyncio, os, sys, time
from pathlib import Path
from taskloop import Options, RunContext, TaskScheduler

scheduler = TaskScheduler("sqlite:///:memory:", options=Options(dask=sys.argv[1]))

@scheduler.job(executor="dask")
def twice(run: RunContext, number: int) -> list[int]:
    run.log("there")
    return [number * 2, os.getpid()]

@scheduler.job(executor="dask")
def lasting(run: RunContext, path: str):
    Path(path).touch()
    while not run.cancelled:
        time.sleep(0.01)
    Path(path).with_suffix(".heard").touch()

async def main():
    async with scheduler:
        value = await (await twice.submit(number=4)).value()
        print(value[0], value[1] != os.getpid(), flush=True)
        if len(sys.argv) > 2:
            await lasting.submit(path=sys.argv[2])
            await asyncio.sleep(60)

if __name__ == "__main__":
    assert "distributed" not in sys.modules
    asyncio.run(main())
"""


async def test_a_function_of_the_main_file_goes_there_itself_and_one_whose_scheduler_was_killed_is_told(
    address, tmp_path
):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    begun = tmp_path / "begun"
    quiet = asyncio.create_subprocess_exec(sys.executable, str(script), address, stdout=-1, stderr=-1)
    killed = asyncio.create_subprocess_exec(sys.executable, str(script), address, str(begun), stdout=-1, stderr=-1)
    quiet, killed = await asyncio.gather(quiet, killed)
    assert await quiet.communicate() == (b"8 True\n", b"")
    await there(begun)
    killed.kill()
    await killed.communicate()
    await there(begun.with_suffix(".heard"))


async def test_a_cluster_whose_last_worker_has_gone_is_told_once_when_a_job_waits_there(lines, tmp_path):
    with cluster(tmp_path, workers=1) as (address, _), attached(address, kill_grace=BRIEF) as scheduler:
        async with scheduler:
            assert (await ran(scheduler, "told", day="2026-03-01")).state is State.SUCCEEDED
            async with Client(address, asynchronous=True, set_as_default=False) as client:
                await client.retire_workers(close_workers=True, remove=True)
            assert lines.count("dask.no_worker") == 0
            waiting = await scheduler.submit("told", {"day": "2026-03-01"})
            async with asyncio.timeout(20):
                while not lines.count("dask.no_worker"):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2 * EMPTY_SECONDS + 0.5)
            assert lines.count("dask.no_worker") == 1
            await scheduler.cancel(waiting.id)
            assert (await waiting.wait()).state is State.CANCELLED


async def test_no_address_and_a_wrong_one_are_told_in_the_record_of_the_run(lines):
    with attached("") as scheduler:
        async with scheduler:
            assert lines.count("advice.no_cluster") == 1
            run = await ran(scheduler, "raising", what="it")
            assert (run.state, run.error.type) == (State.FAILED, "BadJob") and "set [dask] address" in run.error.message
            scheduler._executors["dask"] = OnDask("tcp://127.0.0.1:1", print, connect_seconds=0.2)
            run = await ran(scheduler, "told", day="2026-03-01")
            assert (run.state, run.error.type) == (State.FAILED, "ClusterUnavailable")
            assert run.error.message.startswith("Dask cluster at tcp://127.0.0.1:1: it does not answer within 0.2 s")
            assert "direct cause" not in run.error.traceback and "During handling" not in run.error.traceback
            scheduler._executors["dask"].close()
            scheduler._executors["dask"] = OnDask("nonsense://x", print, connect_seconds=0.2)
            run = await ran(scheduler, "told", day="2026-03-01")
            assert run.error.type == "ClusterUnavailable" and "nonsense" in run.error.message


async def test_a_stop_waits_for_no_cluster_that_says_nothing():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with attached(f"tcp://127.0.0.1:{deaf.getsockname()[1]}", kill_grace=BRIEF) as scheduler:
            await scheduler.start()
            waiting, _ = [await scheduler.submit("told", {"day": "2026-03-01"}) for _ in range(2)]
            while scheduler._executors["dask"].in_flight < 2:
                await asyncio.sleep(0)
            await scheduler.cancel(waiting.id, reason="enough", actor="me")
            assert (await waiting.wait()).state is State.CANCELLED
            began = real.monotonic()
            await scheduler.stop(grace=0)
            assert real.monotonic() - began < 10
