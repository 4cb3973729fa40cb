"""Jobs in processes of their own: real processes, real deaths."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time as real
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import process_jobs
import pytest
from anyio import BrokenWorkerProcess

from taskloop import Inject, Jobs, State
from taskloop.context import AttemptCancelled
from taskloop.errors import BadJob, ProcessDied
from taskloop.processing import InProcess, found, perform, pool
from taskloop.testing import run_context

pytestmark = pytest.mark.anyio


@pytest.fixture
def scheduler(scheduler):
    """A scheduler with the jobs that a process can find."""
    for job in process_jobs.jobs:
        scheduler._add(job)
        job.attach(scheduler)
    return scheduler


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """After a test no thread of ours lives; asyncio has one for each process, and for its files."""
    before = set(threading.enumerate())
    yield
    deadline = real.monotonic() + 10
    while left := {one.name for one in set(threading.enumerate()) - before if not one.name.startswith("asyncio")}:
        assert real.monotonic() < deadline, f"threads left behind: {left}"
        real.sleep(0.002)


@pytest.fixture(scope="module")
async def processes(anyio_backend):
    """One loop for all tests of this file, so that they share its processes; anyio keeps a task for these."""
    await pool().run_sync(os.getpid)


@pytest.fixture
async def at_work(scheduler, processes):
    """The scheduler, started, in real time: a process takes its own."""
    async with scheduler:
        yield scheduler


async def ran(scheduler, name, **params):
    return await (await scheduler.submit(name, params)).wait()


async def written(path):
    """The number that a job has written there."""
    while not await asyncio.to_thread(lambda: path.exists() and path.read_text()):
        await asyncio.sleep(0.01)
    return int(await asyncio.to_thread(path.read_text))


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_job_in_a_process_gets_its_parameters_and_its_context(at_work):
    run = await ran(at_work, "told", day="2026-03-01")
    assert run.state is State.SUCCEEDED, run.error
    told = run.result
    assert told.pop("pid") != os.getpid()
    assert told == {
        "day": 2026, "number": 2, "id": run.id, "job": "told", "attempt": 1, "key": f"told:{run.id}",
        "worker": run.worker, "params": {"day": "2026-03-01"}, "schedule": None, "main": True, "cancelled": False,
        "due_at": run.due_at.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip


async def test_a_job_there_gets_its_secret_and_nothing_of_it_is_left(at_work):
    good, bad = await ran(at_work, "hushed", word="hunter2"), await ran(at_work, "hushed", word="hunter2", fails=True)
    assert good.result == {"word": "********", "params": {"word": "********"}, "length": 7}
    assert bad.error.message == "no luck with ********"
    lines = [await at_work.log(run.id) for run in (good, bad)]
    assert "hunt" not in repr((good, bad, lines)) and "x*****" in good.progress.message and "x*****" in repr(lines)


async def test_a_process_is_used_again_and_is_not_ours(at_work):
    first, second = [(await ran(at_work, "pid")).result for _ in range(2)]
    assert first == second != os.getpid()


async def test_a_process_that_was_killed_while_it_was_idle_fails_nothing(at_work):
    first = (await ran(at_work, "pid")).result
    os.kill(first, signal.SIGKILL)
    run = await ran(at_work, "pid")
    assert run.state is State.SUCCEEDED and run.result != first


def carried_out(folder, program):
    script = folder / "program.py"
    script.write_text(program)
    return subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


def test_a_process_that_a_signal_made_speak_unasked_is_killed_and_its_answer_is_nobodys(tmp_path):
    done = carried_out(tmp_path, UNASKED)
    # Killed before it has begun with the call, which another one is given then, or after it.
    assert done.stdout in ("of another\n", "answered out of turn (KeyboardInterrupt) and was killed\n")
    assert not without_what_asyncio_says(done.stderr)


UNASKED = """
import asyncio, os, signal
import process_jobs
from taskloop.errors import ProcessDied
from taskloop.processing import InProcess, pool
from taskloop.testing import run_context

def waits(pid):  # how often it has begun to wait; None: it does not wait now
    said = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return int(said["voluntary_ctxt_switches"]) if said["State"].split()[0] == "S" else None

async def host():
    idle = await pool().run_sync(os.getpid)
    # Not by a job, and no signal is held back any more: Ctrl-C makes it answer as if it had been asked.
    await pool().run_sync(signal.pthread_sigmask, signal.SIG_UNBLOCK, [signal.SIGINT])
    while (before := waits(idle)) is None:  # not yet back at waiting: it would die
        await asyncio.sleep(0.01)
    os.kill(idle, signal.SIGINT)
    while waits(idle) in (None, before):  # what it is sent before it has heard the signal, that one answers
        await asyncio.sleep(0.01)
    executor = InProcess(1)
    try:
        answer = await executor.call(process_jobs.pid.function, run_context(), {})
        print("of another" if answer.result != idle else "of the same")
    except ProcessDied as error:
        print(str(error).removeprefix("the process ").partition(";")[0])
    executor.close()
    while os.path.exists(f"/proc/{idle}"):
        await asyncio.sleep(0.02)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(host())
"""


async def test_a_call_that_was_asked_to_end_before_it_began_begins_no_process(processes, tmp_path):
    executor, context = InProcess(1), run_context(params={"path": str(tmp_path / "pid")}, cancelled=True)
    with pytest.raises(AttemptCancelled):
        await executor.call(process_jobs.lasting.function, context, {})
    executor.close()
    assert not (tmp_path / "pid").exists()


async def test_a_function_that_is_no_decorated_one_is_found_too(scheduler, processes):
    scheduler.add_job(plain_function, executor="process", name="added")
    async with scheduler:
        assert (await ran(scheduler, "added", text="a")).result == "aa"


def plain_function(text: str = "x"):
    return text * 2


async def test_a_fork_of_a_job_that_goes_on_where_the_job_does_ends_there_and_answers_nobody(at_work):
    for fails in (False, True):
        run = await ran(at_work, "forking", fails=fails)
        assert run.state == "succeeded" and run.result == [(await ran(at_work, "pid")).result, int(fails)]


async def test_a_timeout_kills_the_process(at_work, tmp_path):
    job = at_work["lasting"]
    job.configure({}, {"timeout": "1.5s"})
    try:
        run = await ran(at_work, "lasting", path=str(tmp_path / "pid"))
    finally:
        job.configure({}, {})
    assert (run.state, run.error.type) == (State.FAILED, "Timeout")
    assert not lives(await written(tmp_path / "pid"))


async def test_a_cancel_kills_the_process(at_work, tmp_path):
    run = await at_work.submit("lasting", {"path": str(tmp_path / "pid")})
    pid = await written(tmp_path / "pid")
    assert lives(pid)
    await at_work.cancel(run.id, reason="enough", actor="me")
    assert (await run.wait()).state is State.CANCELLED and not lives(pid)


async def test_a_stop_kills_the_process(at_work, tmp_path):
    await at_work.submit("lasting", {"path": str(tmp_path / "pid")})
    pid = await written(tmp_path / "pid")
    await at_work.stop(grace=0)
    assert not lives(pid)


@pytest.mark.parametrize("how", ["exit", "kill", "fault"])
async def test_a_process_that_dies_fails_its_attempt_and_the_next_gets_another(at_work, how):
    heard = []
    at_work.on("retrying")(lambda event: heard.append(event.run))
    run = await ran(at_work, "dying", how=how)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 2)
    [failed] = heard
    assert failed.error.type == "ProcessDied"
    assert "ended before the job did: it called os._exit, was killed" in failed.error.message
    assert f"process {run.result} " not in failed.error.message
    if how == "fault":
        assert "Segmentation fault" in failed.error.message and "process_jobs.py" in failed.error.message


async def test_a_process_that_dies_is_heard_of_though_what_its_job_has_forked_lives(at_work, tmp_path):
    run = await ran(at_work, "orphaning", path=str(tmp_path / "pid"))
    fork = await written(tmp_path / "pid")
    assert lives(fork)
    os.kill(fork, signal.SIGKILL)
    assert run.error.type == "ProcessDied" and "ended before the job did" in run.error.message


@pytest.mark.parametrize("how", ["files", "modules"])
async def test_a_process_that_a_job_leaves_in_no_state_to_begin_another_is_replaced(at_work, how):
    spoiled = (await ran(at_work, "pid")).result
    await ran(at_work, "cramping", how=how)
    run = await ran(at_work, "pid")
    assert run.state is State.SUCCEEDED and run.result != spoiled and not lives(spoiled)


@pytest.mark.parametrize(
    ("what", "kind", "attempts"),
    [
        ("exit", "SystemExit", 1),
        ("interrupt", "KeyboardInterrupt", 1),
        ("stop", "StopIteration", 3),
        ("fatal", "Fatal", 1),
        ("local", "raising.<locals>.Local", 3),
        ("unwanted", "Unwanted", 3),
        ("group", "ExceptionGroup", 1),
    ],
)
async def test_what_a_job_raises_there_is_told_and_judged_as_if_it_were_here(at_work, what, kind, attempts):
    run = await ran(at_work, "raising", what=what)
    assert (run.state, run.error.type, run.attempt) == (State.FAILED, kind, attempts)
    assert "process_jobs.py" in run.error.traceback and "in raising" in run.error.traceback
    assert run.error.fingerprint


async def test_a_job_there_may_say_when_to_try_again(at_work):
    run = await at_work.submit("raising", {"what": "later"})
    while (now := await at_work.run(run.id)).error is None:
        await asyncio.sleep(0.01)
    assert now.state is State.WAITING and now.ready_at > now.created_at.replace(microsecond=0)
    assert 590 < (now.ready_at - now.created_at).total_seconds() < 660


@pytest.mark.parametrize("what", ["whenever", "never sent"])
async def test_an_error_that_cannot_say_when_to_try_again_has_failed_as_itself(at_work, what):
    pid = (await ran(at_work, "pid")).result
    run = await ran(at_work, "raising", what=what)
    assert (run.state, run.error.type, run.attempt) == (State.FAILED, "RetryWhenever", 1)
    assert (await ran(at_work, "pid")).result == pid


async def test_what_a_job_sets_in_a_context_variable_is_not_seen_by_the_next_one_there(at_work):
    first, second = [(await ran(at_work, "speaking", wanted=word)).result for word in ("fr", "de")]
    assert first == second and first[0] == "en"


async def test_what_a_module_sets_in_a_context_variable_as_it_is_imported_holds_for_all_of_its_jobs(at_work):
    """As a precision of `decimal` does: money would be reckoned by another one from the second run on."""
    assert [(await ran(at_work, "exact")).result for _ in range(2)] == ["to the cent"] * 2


@pytest.mark.parametrize(
    ("what", "note"), [("lock", "no JSON"), ("large", "more than the 1000000"), ("iterator", "iterator")]
)
async def test_a_result_that_cannot_be_kept_is_a_note_of_what_it_was(at_work, what, note):
    run = await ran(at_work, "odd_result", what=what)
    assert run.state is State.SUCCEEDED and note in run.result["note"]


async def test_what_a_job_and_its_commands_print_and_read_does_not_reach_the_parent(at_work):
    run = await ran(at_work, "noisy")
    assert run.state is State.SUCCEEDED, run.error
    assert run.result == [0, ""]
    assert (await ran(at_work, "pid")).state is State.SUCCEEDED


async def test_progress_reaches_the_run_while_the_job_goes_on(at_work, tmp_path):
    run = await at_work.submit("reporting", {"path": str(tmp_path / "go")})
    while (now := await at_work.run(run.id)).progress is None or now.progress.message != "half way":
        await asyncio.sleep(0.02)
        assert now.state in (State.WAITING, State.RUNNING)
    assert (now.progress.done, now.progress.total) == (10_000, 20_000)
    await asyncio.to_thread((tmp_path / "go").touch)
    run = await run.wait()
    assert (run.progress.done, run.progress.message) == (20_000, "done")


@pytest.mark.parametrize("verb", ["call", "step"])
async def test_a_job_there_has_no_loop_to_call_and_no_steps_and_is_told_so(at_work, verb):
    run = await ran(at_work, "calling", verb=verb)
    assert run.error.type == "Conflict" and run.error.message.startswith(f"{verb}() needs the scheduler's loop")


async def test_a_job_there_may_ask_whether_it_is_cancelled(at_work):
    assert (await ran(at_work, "checking")).result is False


async def test_what_is_injected_is_entered_and_left_there(at_work):
    run = await ran(at_work, "given")
    assert run.result == [True, f"open {run.id}", "job"]
    failed = await ran(at_work, "given", fails=True)
    assert (failed.state, failed.error.type) == (State.FAILED, "OSError")
    kept = (await ran(at_work, "tape")).result
    assert kept == [f"open {run.id}", "job", "close", f"open {failed.id}", "job", "close"]


async def test_log_lines_reach_a_context_that_takes_them_and_no_more_than_a_million_bytes(processes):
    class Context(type(run_context())):
        __slots__ = ("lines",)

        def log(self, text, level="info"):
            self.lines.append((level, text))

    context = Context(run_context()._run, monotonic=real.monotonic)
    context.lines = []
    executor = InProcess(1)
    await executor.call(process_jobs.jobs["chatting"].function, context, {})
    executor.close()
    assert 900 < len(context.lines) < 1_000
    assert context.lines[0] == ("info", f"line 0 {'x' * 1_000}")
    assert context.lines[-1] == ("warning", "the lines after this are left out")


async def test_no_more_processes_work_at_once_than_allowed(processes, tmp_path):
    executor = InProcess(1)
    first, second = (
        run_context(params={"path": str(tmp_path / "pid")}),
        run_context(params={"path": str(tmp_path / "2")}),
    )
    calls = [asyncio.create_task(executor.call(process_jobs.lasting.function, first, {}))]
    await written(tmp_path / "pid")  # else the second may come first: their files are made by two threads
    calls.append(asyncio.create_task(executor.call(process_jobs.lasting.function, second, {})))
    while len(executor._scopes) < 2:
        await asyncio.sleep(0.01)
    assert executor.in_flight == 2 and not (tmp_path / "2").exists()
    second.withdraw()
    await asyncio.wait({calls[1]})
    executor.close()
    await asyncio.wait(calls)
    assert [type(one.exception()).__name__ for one in calls] == ["AttemptCancelled"] * 2
    assert not lives(await written(tmp_path / "pid"))


async def test_a_call_that_waits_for_a_process_has_not_begun(processes, tmp_path):
    executor, began, begin = InProcess(1), [], asyncio.Event()
    first, second = (run_context(params={"path": str(tmp_path / name)}) for name in ("1", "2"))
    calls = [asyncio.create_task(executor.call(process_jobs.lasting.function, first, {}))]
    await written(tmp_path / "1")
    second.began = lambda: (began.append(second.entered), begin.set())
    calls.append(asyncio.create_task(executor.call(process_jobs.lasting.function, second, {})))
    while len(executor._scopes) < 2:
        await asyncio.sleep(0.01)
    assert not second.entered and not began
    first.withdraw()
    await begin.wait()
    assert lives(await written(tmp_path / "2")) and began == [True]
    executor.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_stop_gives_back_what_still_waits_for_a_process(at_work, tmp_path):
    heard = {}
    at_work.on("retrying", "interrupted")(lambda event: heard.update({event.run.params["path"]: event.run.state}))
    at_work._executors["process"] = executor = InProcess(1)
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    await at_work.submit("lasting", {"path": first})
    await written(tmp_path / "1")
    await at_work.submit("lasting", {"path": second})
    while len(executor._scopes) < 2:
        await asyncio.sleep(0.01)
    await at_work.stop(grace=0)
    assert heard == {first: State.INTERRUPTED, second: State.WAITING}


async def test_no_process_begins_a_call_while_it_is_in_doubt_whose_run_it_is(processes, tmp_path):
    """This process stood still since the call was queued; what turns out to be lost is withdrawn."""
    executor, sure = InProcess(1), threading.Event()
    first, lost, kept = (run_context(params={"path": str(tmp_path / name)}) for name in ("first", "lost", "kept"))
    lost.trusted = kept.trusted = sure.is_set
    sure.set()
    calls = []
    for number, one in enumerate((first, lost, kept), 1):
        calls.append(asyncio.create_task(executor.call(process_jobs.lasting.function, one, {})))
        while len(executor._scopes) < number:
            await asyncio.sleep(0.01)
    await written(tmp_path / "first")
    sure.clear()
    first.withdraw()
    await asyncio.gather(calls[0], return_exceptions=True)
    await asyncio.sleep(0.1)
    assert not lost.entered and not kept.entered
    lost.withdraw()
    with pytest.raises(AttemptCancelled):
        await calls[1]
    sure.set()
    assert lives(await written(tmp_path / "kept")) and not (tmp_path / "lost").exists()
    executor.close()
    await asyncio.gather(*calls, return_exceptions=True)


def children():
    return {int(pid) for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()}


@pytest.mark.parametrize("by", ["a withdrawal", "its task"])
async def test_a_process_that_is_not_ready_yet_when_its_call_is_given_up_is_ended(processes, tmp_path, by):
    executor, before = InProcess(3), children()
    busy = [run_context(params={"path": str(tmp_path / name)}) for name in ("1", "2")]
    calls = [asyncio.create_task(executor.call(process_jobs.lasting.function, one, {})) for one in busy]
    ours = {await written(tmp_path / name) for name in ("1", "2")}  # so that none is idle
    context = run_context(params={"path": str(tmp_path / "3")})
    call = asyncio.create_task(executor.call(process_jobs.lasting.function, context, {}))
    while not children() - before - ours:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)  # an interpreter takes longer until it says that it is ready
    context.withdraw() if by == "a withdrawal" else call.cancel()
    await asyncio.wait({call})
    assert call.cancelled() or type(call.exception()) is AttemptCancelled
    async with asyncio.timeout(10):  # until its end is noticed
        while children() - before - ours:
            await asyncio.sleep(0.01)
    executor.close()
    await asyncio.gather(*calls, return_exceptions=True)


def open_below(folder):
    """The files below a folder that this process has open."""
    names = []
    for one in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{one}"))
    return [name for name in names if name.startswith(str(folder))]


async def test_a_call_whose_task_is_cancelled_while_its_file_is_made_leaves_no_file(processes, tmp_path, monkeypatch):
    making, go = threading.Event(), threading.Event()

    def slow(**options):
        making.set()
        go.wait(10)
        return make(dir=tmp_path, **options)

    make = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", slow)
    executor = InProcess(1)
    call = asyncio.create_task(executor.call(process_jobs.pid.function, run_context(), {}))
    await asyncio.to_thread(making.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    go.set()
    executor.close()
    while any(one.name.startswith("taskloop job") for one in threading.enumerate()):
        await asyncio.sleep(0.01)
    assert not [*tmp_path.iterdir()] and not open_below(tmp_path)


async def test_a_process_that_comes_to_a_call_when_it_was_given_up_answers_nobody(processes, tmp_path):
    late = partial(perform, "process_jobs", "lasting", run_context()._run, str(tmp_path / "gone"))
    with pytest.raises(BrokenWorkerProcess):
        await pool().run_sync(late)


TALKATIVE = """
import asyncio, process_jobs
from taskloop import TaskScheduler

async def host():
    scheduler = TaskScheduler(":memory:", jobs=[process_jobs.jobs])
    async with scheduler:
        runs = [await (await scheduler.submit("talkative")).wait("20s") for _ in range(2)]
        print(*(run.state for run in runs), len({run.result for run in runs}))

if __name__ == "__main__":
    asyncio.run(host())
"""


def test_what_a_job_prints_in_a_process_comes_out_at_the_programs_standard_error_however_much_it_is(tmp_path):
    done = carried_out(tmp_path, TALKATIVE)
    assert done.stdout == "succeeded succeeded 1\n"  # by the same process
    assert done.stderr.count("x" * 300_000) == 2


async def test_what_a_job_forks_is_ended_by_a_signal_as_anywhere(at_work):
    run = await ran(at_work, "parental")
    assert run.result == [-signal.SIGTERM, -signal.SIGINT]


def test_what_a_process_answers_is_plain_data(tmp_path):
    code = """
        import tempfile
        from taskloop.processing import perform
        from taskloop.testing import run_context

        def asked(name, **params):
            path = tempfile.mkstemp()[1]
            answer = perform("process_jobs", name, run_context(params=params)._run, path)
            assert answer[0] == path
            print(answer[1], *map(str, answer[2:])) if answer[1] == "returned" else print(answer[1], answer[2].type, answer[3][0], answer[4])
            return open(path).read()

        asked("given", fails=True)
        asked("raising", what="unwanted")
        asked("raising", what="later")
        asked("noisy")
        asked("calling", verb="step")
        asked("nowhere")
        assert len(asked("chatting")) < 1_100_000
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "raised OSError ('builtins', 'OSError') None",
        "raised Unwanted ('process_jobs', 'Unwanted') None",
        "raised RetryAt ('taskloop.retry', 'RetryAt') 10m",
        "returned [0, ''] None",
        "raised Conflict ('taskloop.errors', 'Conflict') None",
        "raised BadJob ('taskloop.errors', 'BadJob') None",
        "returned None None",
    ]


# -- what cannot be found there


def refused(function, **policy):
    with pytest.raises(BadJob) as caught:
        Jobs().add_job(function, name="job", executor="process", **policy)
    return str(caught.value)


async def on_loop():
    pass


def in_worker(value=Inject(plain_function, scope="worker")):
    pass


def asynchronous(value=Inject(on_loop)):
    pass


def test_what_a_process_could_not_do_is_refused_when_declared():
    def inner():
        pass

    assert "it is an async def" in refused(on_loop)
    assert "stands inside of another" in refused(inner)
    assert "plain_function lives as long as the worker" in refused(in_worker)
    assert "on_loop needs a loop" in refused(asynchronous)


async def test_a_function_that_does_not_stand_under_its_name_is_refused(scheduler, processes):
    scheduler.add_job(process_jobs.plain.function, name="moved", executor="process")
    async with scheduler:
        run = await ran(scheduler, "moved")
    assert run.error.type == "BadJob" and "not what module process_jobs has under that name" in run.error.message


PROGRAM = """
import asyncio, os
from taskloop import TaskScheduler

scheduler = TaskScheduler("sqlite:///:memory:")

@scheduler.job(executor="process")
def work(number: int):
    return [number, os.getpid()]

async def main():
    async with scheduler:
        run = await (await work.submit(3)).wait()
    print(run.error.message if run.error else run.result[0])
    return run

"""


def told(tmp_path, text):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM) + text)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=40)
    return done.stdout.strip(), without_what_asyncio_says(done.stderr)


def without_what_asyncio_says(errors):
    """It tells of an idle process that ends in the very moment in which its loop closes; each Python in other words."""
    return "".join(line for line in errors.splitlines(True) if not re.match(r"(Unknown )?child process pid", line))


def test_a_function_given_on_the_command_line_is_refused_when_declared(tmp_path):
    code = 'from taskloop import Jobs\n\n@Jobs().job(executor="process")\ndef job(): pass\n'
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert "was typed in or given with -c; write it into a file" in done.stderr


def test_a_function_in_the_main_file_of_an_archive_is_refused_when_declared(tmp_path):
    done = run_as_archive(tmp_path, PROGRAM)
    assert "program.pyz/__main__.py, which is no file of its own; write it into a module" in done.stderr


def test_a_main_file_that_was_not_loaded_there_is_not_started_by_an_import(tmp_path, monkeypatch):
    (tmp_path / "__main__.py").write_text("open(__file__ + '.begun', 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "__main__")
    with pytest.raises(BadJob, match="the main file of the program is no file of its own"):
        found("__main__", "work")
    assert not (tmp_path / "__main__.py.begun").exists()


def run_as_archive(folder, text):
    with zipfile.ZipFile(folder / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", textwrap.dedent(text))
    return subprocess.run([sys.executable, "program.pyz"], cwd=folder, capture_output=True, text=True, timeout=40)


def test_a_program_that_is_frozen_into_one_file_is_told_that_it_can_start_no_process(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)  # as those who freeze programs set it
    with pytest.raises(BadJob, match="has no interpreter to start for jobs; use executor='thread'"):
        Jobs().add_job(process_jobs.pid.function, executor="process")


def test_a_script_with_the_usual_guard_works_and_leaves_no_process(tmp_path):
    out, errors = told(
        tmp_path,
        'if __name__ == "__main__":\n    run = asyncio.run(main())\n'
        "    try:\n        os.kill(run.result[1], 0)\n    except ProcessLookupError:\n        print('gone')\n",
    )
    assert out == "3\ngone" and errors == ""


def test_a_script_without_the_guard_is_told_so(tmp_path):
    out, errors = told(tmp_path, "asyncio.run(main())\n")
    assert "would start the program there once more; put what starts the program below `if __name__" in out
    assert errors.count("\n") == 1  # the log line of the failed run


def test_a_script_whose_guard_does_not_hold_does_not_start_itself_again(tmp_path):
    out, _ = told(tmp_path, 'if __name__ == "__main__":\n    pass\nasyncio.run(main())\n')
    assert "no process for the job could be started" in out and "put what starts the program below" in out


def test_what_a_process_takes_to_load_the_program_takes_nothing_of_a_timeout(tmp_path):
    out, errors = told(
        tmp_path,
        'if __name__ == "__main__":\n    work.configure({}, {"timeout": "500ms"})\n    asyncio.run(main())\n'
        "else:\n    import time\n    time.sleep(1)\n",
    )
    assert out == "3" and errors == ""


def test_a_main_file_that_cannot_be_loaded_is_told(tmp_path):
    out, _ = told(
        tmp_path, 'if __name__ == "__main__":\n    asyncio.run(main())\nelse:\n    raise OSError("not here")\n'
    )
    assert "no process for the job could be started: OSError: not here" in out


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("import sys\n    sys.executable = __file__", "PermissionError: [Errno 13] Permission denied"),
        ("import tempfile\n    tempfile.tempdir = '/nowhere'", "could not be made: FileNotFoundError: [Errno 2]"),
    ],
    ids=["no process to be had", "nowhere to write"],
)
def test_where_the_system_gives_no_process_what_it_said_and_the_mend_are_told(tmp_path, without, says):
    out, _ = told(tmp_path, f'if __name__ == "__main__":\n    {without}\n    asyncio.run(main())\n')
    assert "no process for the job could be started" in out and says in out
    assert "see the limits on processes and memory" in out or "give the program a TMPDIR" in out


def test_a_killed_parent_takes_its_process_along_and_what_that_wrote_into(tmp_path):
    script = tmp_path / "program.py"
    text = PROGRAM.replace(
        "return [number",
        f"import time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60); return [number",
    )
    script.write_text(text + 'if __name__ == "__main__":\n    asyncio.run(main())\n')
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)}
    )  # fmt: skip
    try:
        pid = asyncio.run(written(tmp_path / "pid"))
        assert lives(pid) and [*tmp_path.glob("*.told")]
    finally:
        process.kill()
        process.wait()
    deadline = real.monotonic() + 10
    while lives(pid) and real.monotonic() < deadline:
        real.sleep(0.02)
    assert not lives(pid) and not [*tmp_path.glob("*.told")]
