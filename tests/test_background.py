"""Background tasks for programs without a loop: real threads, real time, real ends of processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from loguru import logger
from test_forks_and_loops import in_a_fork

import taskloop
from taskloop import At, BackgroundTasks, Cron, Every, Options, RunContext
from taskloop.background import _trigger
from taskloop.errors import BadJob, BadParameters, BadTrigger, Conflict, NotRunning


def until(seen, seconds=10):
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


def test_a_task_runs_by_its_interval_with_its_arguments():
    called = []

    def greet(name: str, times: int = 1) -> None:
        called.append((name, times, threading.current_thread() is not threading.main_thread()))

    with BackgroundTasks() as tasks:
        job = tasks.add_task(greet, ("ann",), {"times": 2}, seconds=0.05)
        assert str(job.trigger) == "every 50ms" and tasks.is_running
        until(lambda: len(called) >= 3)
    assert not tasks.is_running and set(called) == {("ann", 2, True)}
    number = len(called)
    time.sleep(0.15)
    assert len(called) == number


def test_tasks_are_added_before_the_start_and_from_tasks_and_threads():
    called = []
    tasks = BackgroundTasks()

    def first() -> None:
        called.append("first")
        if "second" not in called:
            tasks.safe_add_task(second)

    def second() -> None:
        called.append("second")

    async def third() -> None:
        called.append("third")
        tasks.add_task(fourth)

    def fourth() -> None:
        called.append("fourth")

    tasks.add_task(first)
    tasks.start()
    threading.Thread(target=tasks.add_task, args=(third,)).start()
    until(lambda: set(called) == {"first", "second", "third", "fourth"})
    tasks.stop()


def test_the_scheduler_itself_takes_jobs_and_lets_go_of_them_from_any_thread():
    """It made a task of its loop there: nothing woke that loop, and its debug mode refused it."""
    called = threading.Event()

    def late() -> None:
        called.set()

    tasks = BackgroundTasks()
    with tasks:
        tasks.call(_in_debug_mode)
        tasks.scheduler.add_job(late, Every("1h"))
        assert called.wait(5)
        tasks.scheduler.remove_job("late")
        assert "late" not in [job.name for job in tasks.scheduler]


async def _in_debug_mode():
    asyncio.get_running_loop().set_debug(True)


@pytest.fixture
def said():
    """The lines of the log."""
    lines = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level=0)
    yield lines
    logger.remove(sink)


def test_the_safe_verbs_give_a_number_and_say_why_in_the_log(said):
    tasks = BackgroundTasks(success=1, error=-1)

    def job() -> None: ...

    assert tasks.safe_pause() == tasks.safe_resume() == tasks.safe_stop() == -1
    assert tasks.safe_start() == 1
    assert tasks.safe_start() == -1, "nothing changed"
    assert tasks.safe_pause() == 1
    assert tasks.safe_pause() == -1
    assert tasks.safe_resume() == 1
    assert tasks.safe_resume() == -1
    assert tasks.safe_add_task(lambda: None) == -1
    assert tasks.safe_add_task(job, ("too many",)) == -1
    assert tasks.safe_add_task(job).name == "job"
    assert tasks.safe_add_task(job, trigger="intervall") == -1
    assert tasks.safe_stop() == 1
    assert tasks.safe_stop() == -1
    refused = [line for line in said if line.startswith("background.refused ")]
    assert len(refused) == 10, "a sink that shows the message alone shows the reason"
    assert refused[0].startswith("background.refused verb=pause error=") and "NotRunning" in refused[0]


def test_without_safe_they_raise():
    tasks = BackgroundTasks()

    def job(number: int) -> None: ...

    with pytest.raises(BadParameters, match="number"):
        tasks.add_task(job, ("three",))
    with pytest.raises(BadTrigger, match="did you mean 'interval'"):
        tasks.add_task(job, (3,), trigger="intervall")
    tasks.add_task(job, (3,), name="one")
    with pytest.raises(BadJob, match="two jobs are named 'one'"):
        tasks.add_task(lambda_named(), (3,), name="one")
    with pytest.raises(NotRunning):
        tasks.stop()
    with pytest.raises(NotRunning):
        tasks.call(tasks.scheduler.status)
    with tasks:
        with pytest.raises(Conflict, match="running already"):
            tasks.start()
        with pytest.raises(TypeError, match=r"apart; write call\(TaskScheduler.status, ...\)"):
            tasks.call(tasks.scheduler.status())
        with pytest.raises(TypeError, match="is for async functions, .*job gave NoneType; call it directly"):
            tasks.call(job, 3)


def lambda_named():
    def other(number: int) -> None: ...

    return other


def test_a_pause_holds_and_a_resume_lets_go():
    called = []

    def job() -> None:
        called.append(time.monotonic())

    with BackgroundTasks() as tasks:
        tasks.pause()
        tasks.add_task(job, seconds=0.05)
        time.sleep(0.2)
        assert called == []
        tasks.resume()
        until(lambda: called)


def test_a_task_that_stops_them_and_starts_them_again_is_refused_at_once_and_ends_well():
    answers = []

    def again() -> str:
        tasks.stop()
        answers.append((tasks.safe_start(), time.monotonic() - began))
        return "done"

    began, tasks = time.monotonic(), BackgroundTasks()
    job = tasks.add_task(again, trigger="cron", hour=5)
    tasks.start()
    tasks.call(job.submit)
    until(lambda: answers and not tasks._host.is_alive)
    assert answers[0][0] == 84 and answers[0][1] < 10
    tasks.start()
    tasks.stop()


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "x"])
def test_an_interval_that_is_no_length_of_time_is_told_as_one(seconds):
    with pytest.raises(BadTrigger, match="allowed are numbers for"):
        BackgroundTasks().add_task(print, name="p", seconds=seconds)


def test_of_threads_that_pause_at_once_one_does_it_and_the_others_are_told():
    with BackgroundTasks() as tasks, ThreadPoolExecutor(4) as threads:
        for verb in (tasks.safe_pause, tasks.safe_resume) * 3:
            answers = [one.result() for one in [threads.submit(verb) for _ in range(4)]]
            assert sorted(answers) == [0, 84, 84, 84]


def test_views_call_the_verbs_of_the_loop_and_get_what_they_give(tmp_path):
    def add(a: int, b: int) -> int:
        return a + b

    with BackgroundTasks(store=tmp_path / "tasks.db") as tasks:
        job = tasks.add_task(add, (1, 2), trigger="date", run_date="2099-01-01T00:00:00Z")
        run = tasks.call(job.submit, 2, 3)
        assert tasks.call(run.value) == 5
        with pytest.raises(BadParameters):
            tasks.call(job.submit, 2, b="three")
    with BackgroundTasks(store=tmp_path / "tasks.db") as again:
        assert [one.result for one in again.call(again.scheduler.runs, "add")] == [5]


def test_it_may_be_started_again_and_stopped_from_a_task():
    called = []
    tasks = BackgroundTasks()

    def job(run: RunContext) -> None:
        called.append(run.id)
        tasks.stop()

    tasks.add_task(job)
    for number in (1, 2):
        tasks.start()
        until(lambda: not tasks.is_running)
        assert len(called) == number


def test_a_stop_waits_for_a_task_in_hand_and_without_wait_for_none():
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        may_end.wait(20)
        ended.append(True)

    tasks = BackgroundTasks()
    tasks.add_task(slow)
    tasks.start()
    assert begun.wait(20)
    threading.Timer(0.2, may_end.set).start()
    tasks.stop()
    assert ended == [True]
    begun.clear()
    may_end.clear()
    tasks.start()
    assert begun.wait(20)
    tasks.stop(wait=False)
    assert ended == [True]
    may_end.set()
    tasks._host.join(20)


def test_a_start_that_fails_can_be_tried_again(tmp_path):
    folder = tmp_path / "not there"
    tasks = BackgroundTasks(store=folder / "tasks.db")
    assert tasks.safe_start() == 84
    folder.mkdir()
    assert tasks.safe_start() == 0
    assert tasks.safe_stop() == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trigger": "interval"}, "every 5s"),
        ({"trigger": "interval", "hours": 1, "minutes": 30}, "every 1h30m"),
        ({"trigger": "interval", "weeks": 2}, "every 2w"),
        ({"trigger": "cron", "expression": "0 2 * * *"}, "cron 0 2 * * *"),
        ({"trigger": "cron", "minute": "*/5"}, "cron */5 * * * *"),
        ({"trigger": "cron", "hour": 5}, "cron 0 5 * * *"),
        ({"trigger": "cron", "day": 1}, "cron 0 0 1 * *"),
        ({"trigger": "cron", "month": 3}, "cron 0 0 1 3 *"),
        ({"trigger": "cron", "day_of_week": "mon"}, "cron 0 0 * * MON"),
        ({"trigger": "cron", "hour": 5, "day_of_week": "mon", "minute": "30"}, "cron 30 5 * * MON"),
    ],
    ids=str,
)
def test_words_and_fields_make_triggers(options, expected):
    given = dict(options)
    trigger, rest = _trigger(given.pop("trigger"), given)
    assert str(trigger).startswith(expected) and rest == {}


def test_dates_zones_and_triggers_themselves():
    at = datetime(2099, 1, 1, tzinfo=UTC)
    assert _trigger("date", {"run_date": at})[0] == At(at)
    assert _trigger("cron", {"hour": 5, "timezone": "Europe/London"})[0] == Cron("0 5 * * *", timezone="Europe/London")
    assert _trigger(Every("5m"), {"name": "x"}) == (Every("5m"), {"name": "x"})
    for kind, options, mend in (
        ("date", {"run_date": datetime(2099, 1, 1)}, "offset|aware|zone"),
        ("date", {}, "needs run_date="),
        ("cron", {}, "give either expression="),
        (
            "cron",
            {"expression": "0 2 * * *", "hour": 3, "name": "x"},
            "give either expression=.*, got expression, hour",
        ),
        ("cron", {"second": 5, "name": "x", "timeout": "1m"}, "give either expression=.*, got second$"),
        ("interval", {"minute": 5}, "did you mean minutes="),
        ("interval", {"seconds": "five"}, "allowed are numbers"),
        ("interval", {"seconds": 0}, "zero|above"),
        ("interval", {"seconds": True}, "allowed are numbers.*true and false are none"),
    ):
        with pytest.raises(ValueError, match=mend):
            _trigger(kind, options)
    assert timedelta(seconds=5) == _trigger("interval", {})[0].interval


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"args": 5}, "'args' allowed is a tuple, a list or another sequence of values, got int"),
        ({"args": "a"}, "'args' allowed is a tuple, a list or another sequence of values, got str"),
        ({"args": "interval"}, "got str; a trigger is given by its name: trigger="),
        ({"args": Every("5m")}, "got Every; a trigger is given by its name: trigger="),
        ({"kwargs": [("a", 1)]}, "'kwargs' allowed is a dict"),
        ({"kwargs": {1: 2}}, "'kwargs' allowed is a dict"),
        ({"params": {"a": 1}}, "'params' is none of add_task; give args="),
    ],
)
def test_arguments_in_no_form_that_a_task_takes_are_told_as_such(given, mend):
    with pytest.raises(BadParameters, match=mend):
        BackgroundTasks().add_task(lambda a: None, **given, name="task")
    assert BackgroundTasks().safe_add_task(lambda a: None, **given, name="task") == 84


def test_arguments_of_a_task_may_be_any_sequence():
    def task(a: int) -> None: ...

    assert BackgroundTasks().add_task(task, range(7, 8)).params == {"a": 7}


def test_the_end_of_the_interpreter_stops_it_and_never_hangs(tmp_path):
    program = (
        "import time\n"
        "from taskloop import BackgroundTasks\n"
        "tasks = BackgroundTasks(store='tasks.db')\n"
        "def for_ever():\n"
        "    while True: time.sleep(60)\n"
        "def quick(): return 'done'\n"
        "tasks.add_task(for_ever); tasks.add_task(quick, seconds=60)\n"
        "tasks.start(); time.sleep(0.3)\n"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))}
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("debug", [True, False])
def test_debug_says_what_happens(said, debug):
    with BackgroundTasks(debug=debug):
        pass
    assert any(line.startswith("scheduler.started ") for line in said) is debug


# -- what would make it hang


@pytest.fixture
def reasons():
    """Name and error of each line of ours."""
    lines = []
    sink = logger.add(lambda message: lines.append(message.record["extra"]), level=0)
    yield lambda event: [one.get("error", "") for one in lines if one.get("event") == event]
    logger.remove(sink)


def test_a_stop_says_that_a_job_holds_the_loop_instead_of_hanging(monkeypatch):
    monkeypatch.setattr("taskloop.background.SPARE_SECONDS", 0.1)
    tasks, begun, may_end = BackgroundTasks(), threading.Event(), threading.Event()
    tasks.scheduler.configure(Options(grace=timedelta(0), kill_grace=timedelta(0), loop_limit=None))

    async def blocks() -> None:
        begun.set()
        may_end.wait(10)

    tasks.add_task(blocks, hours=1)
    tasks.start()
    assert begun.wait(10)
    with pytest.raises(Conflict, match="an async job is blocking it"):
        tasks.stop()
    with pytest.raises(Conflict, match="stop before has not ended"):
        tasks.start()
    may_end.set()
    assert tasks._host.join(10)


def test_what_a_job_throws_at_the_loop_is_logged_and_the_loop_turns_on(reasons):
    async def hostile() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(sys.exit, 3)
        loop.call_soon(loop.stop)

    with BackgroundTasks() as tasks:
        tasks.add_task(hostile, hours=1)
        until(lambda: reasons("background.loop_failed"))
        assert tasks.is_running and tasks.call(tasks.scheduler.status).running
    assert reasons("background.loop_failed")[0] == "SystemExit: 3"


def test_a_call_that_waits_when_it_stops_is_told_so():
    tasks, waits, heard = BackgroundTasks(), threading.Event(), []

    async def for_ever() -> None:
        waits.set()
        await asyncio.Event().wait()

    def wait() -> None:
        with pytest.raises(NotRunning, match="stopped before that was done"):
            tasks.call(for_ever)
        heard.append(True)

    tasks.start()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(10)
    tasks.stop()
    thread.join(10)
    assert heard


@pytest.mark.parametrize("turns", range(6))
def test_a_call_that_opens_the_store_again_while_all_ends_is_told_so_and_leaves_no_thread_behind(
    tmp_path, monkeypatch, turns
):
    threw: list[object] = []
    monkeypatch.setattr(threading, "excepthook", threw.append)
    tasks = BackgroundTasks(store=tmp_path / "tasks.db")

    async def late() -> None:
        await tasks.scheduler.stop()
        for _ in range(turns):
            await asyncio.sleep(0)
        await tasks.scheduler.runs()

    for _ in range(2):
        tasks.start()
        threads = set(threading.enumerate())
        with pytest.raises(NotRunning, match="stopped before that was done"):
            tasks.call(late)
        until(lambda: not tasks._host.is_alive)
    until(lambda: set(threading.enumerate()) <= threads)
    assert not threw


def test_a_task_on_the_loop_adds_one_while_another_thread_waits_for_the_loop_to_add_its_own():
    tasks, begun = BackgroundTasks(), threading.Event()

    def nothing() -> None: ...

    async def adds() -> None:
        begun.set()
        time.sleep(0.2)  # the other thread waits for the loop now, which nobody turns
        tasks.add_task(nothing, name="from-the-loop")

    tasks.add_task(adds, hours=1)
    tasks.start()
    assert begun.wait(10)
    thread = threading.Thread(target=lambda: tasks.add_task(nothing, name="from-a-thread"), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    until(lambda: {"from-the-loop", "from-a-thread"} <= {job.name for job in tasks.scheduler})
    tasks.stop()


def test_on_its_own_loop_nothing_waits_for_the_loop():
    with BackgroundTasks() as tasks:

        async def inside() -> None:
            for verb in (lambda: tasks.call(tasks.scheduler.status), tasks.pause, tasks.resume, tasks.start):
                with pytest.raises(Conflict, match="the loop|own loop"):
                    verb()

        tasks.call(inside)
        with pytest.raises(TypeError, match="call it directly"):
            tasks.call(time.monotonic)


def test_a_signal_handler_may_stop_it_in_the_middle_of_its_start():
    """The same thread holds the lock then."""
    said = []
    tasks = BackgroundTasks()
    before = signal.signal(signal.SIGUSR1, lambda *_: said.append((tasks.safe_start(), tasks.safe_stop())))

    class Store(type(taskloop.store.open_store("sqlite:///:memory:"))):
        async def open(self, *args, **kwargs):
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.1)
            return await super().open(*args, **kwargs)

    tasks.scheduler.furnish(store=Store(":memory:"))
    try:
        tasks.safe_start()
        until(lambda: said)
        assert said == [(84, 0)] and not tasks.is_running
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_fork_of_its_process_it_says_so_and_waits_for_no_lock_of_the_parent(tmp_path):
    async def job() -> str:
        return "done"

    with BackgroundTasks(store=tmp_path / "app.db") as tasks:
        made = tasks.add_task(job, trigger="date", run_date="2099-01-01T00:00:00Z")
        held, may_end = threading.Event(), threading.Event()

        def hold() -> None:
            with tasks._lock:
                held.set()
                may_end.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        assert in_a_fork(lambda: (tasks.is_running, tasks.safe_stop())) == "(False, 84)"
        for verb in (
            tasks.start,
            lambda: tasks.call(made.submit),
        ):  # a web server that forks its workers has a view call it
            assert in_a_fork(verb).startswith("NotRunning: the scheduler was open in process")
        assert in_a_fork(taskloop.background._stop_all) == "None"
        may_end.set()
        thread.join()
        assert tasks.call(tasks.call(made.submit).value) == "done"


NEVER_ENDING = {
    "a thread of asyncio": "async def job():\n    begun.set(); await asyncio.to_thread(time.sleep, 3600)",
    "the loop": "async def job():\n    begun.set(); time.sleep(3600)",
}


@pytest.mark.parametrize("what", NEVER_ENDING)
def test_no_job_holds_up_the_end_of_the_interpreter(tmp_path, what):
    program = (
        "import asyncio, threading, time\nfrom taskloop import BackgroundTasks\nbegun = threading.Event()\n"
        f"{NEVER_ENDING[what]}\n"
        "tasks = BackgroundTasks()\ntasks.add_task(job)\nassert tasks.safe_start() == 0\n"
        "assert begun.wait(10)\nprint(time.time(), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=20,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))}
    )  # fmt: skip
    assert done.returncode == 0 and time.time() - float(done.stdout) < 8, done.stderr
