"""What jobs are given beside their parameters: declared, entered, used, left."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated

import pytest
from anyio import create_task_group, fail_after
from loguru import logger
from stories import lasting, stamp, threads_ended

from taskloop import Inject, Jobs, Retry, RunContext, State, current_run
from taskloop.errors import BadJob, BadParameters, NoCurrentRun, NotInjected
from taskloop.inject import Injected, InjectionPlan

pytestmark = pytest.mark.anyio


def number():
    return 7


async def later():
    await asyncio.sleep(0)
    return 7


def yielding():
    yield 7


async def yielding_later():
    yield 7


@contextmanager
def managed():
    yield 7


@asynccontextmanager
async def managed_later():
    yield 7


class Managed:
    def __enter__(self):
        return 7

    def __exit__(self, *error):
        return None


class ManagedLater:
    async def __aenter__(self):
        return 7

    async def __aexit__(self, *error):
        return None


class Callable:
    async def __call__(self):
        return 7


FORMS = {
    "function": number,
    "coroutine": later,
    "generator": yielding,
    "async generator": yielding_later,
    "context manager": managed,
    "async context manager": managed_later,
    "class": Managed,
    "async class": ManagedLater,
    "lambda": lambda: 7,
    "lambda of a coroutine": lambda: later(),
    "lambda of a generator": lambda: yielding(),
    "partial": functools.partial(lambda given: given, 7),
    "partial of a class": functools.partial(Managed),
    "object": Callable(),
    "built-in": functools.partial(int, "7"),
}


def declared(function, **policy):
    return Jobs().add_job(function, name="job", **policy)


async def ran(time, job, **params):
    """The final record of one run of a job that was declared meanwhile."""
    return await time.until((await time.scheduler.submit(job, params)).wait())


# -- declaring


def test_an_injected_parameter_is_no_parameter_of_a_run():
    def job(batch: int = 100, value: int = Inject(number)):
        pass

    job = declared(job)
    assert list(job.parameters.names) == list(job.parameters.schema()["properties"]) == ["batch"]
    assert job.bind(batch=3).params == {"batch": 3}
    with pytest.raises(BadParameters, match="parameter 'value' is injected; leave it out"):
        job.bind(value=3)
    with pytest.raises(BadParameters, match="at most 1 can be taken"):
        job.bind(1, 2)


def test_a_plain_call_without_what_is_injected_says_so():
    def job(batch: int = 100, value: int = Inject(number)):
        return batch + value

    job = declared(job)
    with pytest.raises(NotInjected, match=r"'value' is injected only .* give value=\.\.\. yourself") as caught:
        job(5)
    assert caught.value.names == ["value"] and isinstance(caught.value, TypeError)
    assert job(5, 6) == job(5, value=6) == 11


def test_a_marker_cannot_be_changed():
    with pytest.raises(AttributeError):
        Inject(number).scope = "worker"
    assert Inject(number, "worker") == Injected(number, "worker")


@pytest.mark.parametrize(
    ("provider", "scope", "text"),
    [
        (number, "workr", "scope is 'workr'; allowed are 'attempt' and 'worker'; did you mean 'worker'"),
        (number, 3, "scope is 3; allowed are 'attempt' and 'worker'$"),
        (7, "attempt", "a int cannot be called; give a function"),
        (managed(), "attempt", r"give the function itself, without \(\)"),
    ],
)
def test_what_is_no_provider_is_refused(provider, scope, text):
    with pytest.raises(BadJob, match=text):
        Inject(provider, scope)


def test_a_provider_with_a_parameter_that_nobody_gives_is_refused():
    def needy(path):
        return path

    def job(value=Inject(needy)):
        pass

    with pytest.raises(BadJob, match=r"provider .*needy has a parameter 'path' that nobody gives"):
        declared(job)


def test_a_provider_for_the_worker_may_need_nothing_of_an_attempt():
    def short(value=Inject(number)):
        return value

    def of_run(run: RunContext):
        return run.id

    def one(value=Inject(short, scope="worker")):
        pass

    def other(value=Inject(of_run, scope="worker")):
        pass

    with pytest.raises(BadJob, match="short lives as long as the worker and needs number"):
        declared(one)
    with pytest.raises(BadJob, match="there is no run for its parameter 'run'"):
        declared(other)


def test_providers_that_need_each_other_are_refused():
    def first(value=None):
        return value

    def second(value=Inject(first)):
        return value

    first.__defaults__ = (Inject(second),)

    def job(value=Inject(first)):
        pass

    with pytest.raises(BadJob, match=r"first needs itself \(.*first -> .*second -> .*first\); break the ring"):
        declared(job)


def test_a_plan_has_each_provider_once_after_what_it_needs():
    def deep(value=Inject(number)):
        return value

    async def wide(one=Inject(deep), other=Inject(number)):
        return one + other

    def apart(value=Inject(deep), *rest, **more):
        return value

    plan = InjectionPlan.of("job", {"a": Inject(apart), "b": Inject(wide), "c": Inject(number)})
    names = [one.name.rpartition(".")[2] for one in plan.order]
    assert names == ["number", "deep", "apart", "wide"]
    assert [one.name.rpartition(".")[2] for one in plan.outside] == ["number", "deep", "wide"]
    assert [one.name.rpartition(".")[2] for one in plan.inside] == ["apart"]
    assert plan.arguments["c"] is plan.order[0]


def test_a_provider_without_a_hash_or_a_signature_will_do():
    class Odd:
        __hash__ = None

        def __call__(self) -> Missing:  # noqa: F821
            return 1

    odd = Odd()
    assert len(InjectionPlan.of("job", {"a": Inject(odd), "b": Inject(odd), "c": Inject(dict)}).order) == 2


# -- entering and leaving


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_of_a_provider_gives_its_value_to_an_async_job(form, scheduler, virtual_time):
    @scheduler.job()
    async def job(value: int = Inject(FORMS[form])):
        return value

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 7


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_of_a_provider_gives_its_value_to_a_job_in_a_thread(form, scheduler, virtual_time):
    @scheduler.job()
    def job(value: int = Inject(FORMS[form])):
        return value

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 7


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_of_a_provider_gives_its_value_for_the_worker(form, scheduler, virtual_time):
    @scheduler.job()
    def job(value: int = Inject(FORMS[form], scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 7


async def test_what_a_function_returns_is_given_as_it_is(scheduler, virtual_time):
    shared = Managed()

    @scheduler.job()
    async def job(value=Inject(lambda: shared)):
        return value is shared

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result is True


async def test_a_connection_is_made_used_and_left_in_the_thread_of_its_job(scheduler, virtual_time):
    left = []

    def connection():
        with sqlite3.connect(":memory:") as made:
            yield made
        made.close()
        left.append(threading.get_ident())

    def cursor(made=Inject(connection)):
        return made.cursor()

    @scheduler.job()
    def job(base: int, value=Inject(cursor), made=Inject(connection)):
        assert value.connection is made
        return [value.execute("SELECT 41 + ?", [base]).fetchone()[0], threading.get_ident()]

    async with virtual_time(scheduler) as time:
        run = await ran(time, job, base=1)
        assert run.result == [42, left[0]] and left[0] != threading.get_ident()
        assert run.params == {"base": 1}


async def test_async_providers_of_a_job_in_a_thread_are_entered_and_left_on_the_loop(scheduler, virtual_time):
    here = threading.get_ident()
    tape = []

    def plain():
        tape.append(("plain", threading.get_ident() == here))
        yield 1
        tape.append(("plain", threading.get_ident() == here))

    async def pool(value=Inject(plain)):
        tape.append(("pool", threading.get_ident() == here, asyncio.current_task()))
        yield value + 1
        tape.append(("pool", threading.get_ident() == here, asyncio.current_task()))

    def last(value=Inject(pool)):
        tape.append(("last", threading.get_ident() == here))
        return value + 1

    @scheduler.job()
    def job(value=Inject(last)):
        return value

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 3
        assert [one[:2] for one in tape] == [
            ("plain", False), ("pool", True), ("last", False), ("pool", True), ("plain", False)
        ]  # fmt: skip
        assert tape[1][2] is tape[3][2]


async def test_a_plain_provider_of_an_async_job_does_not_block_the_loop(scheduler, virtual_time):
    here = threading.get_ident()

    def plain():
        assert current_run().job == "job"
        yield threading.get_ident()

    @scheduler.job()
    async def job(value=Inject(plain)):
        return value

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result != here


async def test_one_provider_is_entered_once_an_attempt_and_left_after_what_needs_it(scheduler, virtual_time):
    tape = []

    async def first(run: RunContext):
        tape.append(f"enter {run.attempt}")
        yield run.attempt
        tape.append(f"leave {run.attempt}")

    async def second(value=Inject(first)):
        yield value
        tape.append("leave second")

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(value=Inject(second), other=Inject(first)):
        assert value == other
        if value == 1:
            raise OSError

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.state, run.attempt) == (State.SUCCEEDED, 2)
        assert tape == ["enter 1", "enter 2", "leave second", "leave 2"]


@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_a_provider_sees_the_error_of_the_attempt_and_cannot_swallow_it(place, scheduler, virtual_time):
    seen = []

    def swallowing(*_):
        try:
            yield
        except KeyError as error:
            seen.append(error)

    async def swallowing_later(value=Inject(swallowing)):
        try:
            yield
        except KeyError as error:
            seen.append(error)

    def job(value=Inject(swallowing_later), other=Inject(swallowing)):
        raise KeyError("lost")

    async def job_later(value=Inject(swallowing_later), other=Inject(swallowing)):
        raise KeyError("lost")

    job = scheduler.add_job(job if place == "thread" else job_later, name="job")
    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.state, run.error.type, run.error.message) == (State.FAILED, "KeyError", "'lost'")
        assert len(seen) == 2 and seen[0] is seen[1]


@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_a_provider_that_fails_on_leaving_makes_a_success_a_failure_and_no_other(
    place, scheduler, virtual_time, lines
):
    seen = []

    def outer():
        try:
            yield
        except Exception as error:
            seen.append(type(error).__name__)
            raise

    def failing(value=Inject(outer)):
        try:
            yield
        finally:
            raise OSError("no commit")

    def job(fails: bool, value=Inject(failing)):
        if fails:
            raise KeyError("its own")

    async def job_later(fails: bool, value=Inject(failing)):
        job.function(fails, None)

    job = scheduler.add_job(job, name="job")
    asked = scheduler.add_job(job_later, name="later") if place == "loop" else job
    async with virtual_time(scheduler) as time:
        run = await ran(time, asked, fails=False)
        assert (run.state, run.error.type, run.error.message) == (State.FAILED, "OSError", "no commit")
        run = await ran(time, asked, fails=True)
        assert (run.state, run.error.type) == (State.FAILED, "KeyError")
        assert seen == ["OSError", "KeyError"]
        assert lines.count("provider.failed") == 2


async def fails_later():
    await asyncio.sleep(60)
    raise OSError("gone")


async def within_a_time_limit():
    async with asyncio.timeout(60):
        yield


async def within_a_scope_of_anyio():
    with fail_after(60):
        yield


async def beside_a_task():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fails_later())
        yield


async def beside_a_task_of_anyio():
    async with create_task_group() as tasks:
        tasks.start_soon(fails_later)
        yield


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        (within_a_time_limit, "TimeoutError"),
        (within_a_scope_of_anyio, "TimeoutError"),
        (beside_a_task, "ExceptionGroup"),
        (beside_a_task_of_anyio, "ExceptionGroup"),
    ],
)
async def test_what_a_provider_cancels_the_attempt_for_is_its_error_and_is_retried(
    provider, kind, scheduler, virtual_time, lines
):
    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(value=Inject(provider)):
        await asyncio.sleep(3600)

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.state, run.attempt, run.error.type) == (State.FAILED, 2, kind)
        assert lines.count("provider.failed") == 2


async def test_what_a_provider_of_the_worker_ends_by_is_told_and_who_asks_next_gets_another(
    scheduler, virtual_time, lines
):
    entered = []

    async def connected():
        entered.append(len(entered))
        async with asyncio.TaskGroup() as tasks:
            if len(entered) == 1:
                tasks.create_task(fails_later())
            yield entered[-1]

    @scheduler.job()
    async def job(number=Inject(connected, scope="worker")):
        return number

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 0
        await time.advance("2m")
        assert lines.count("provider.failed") == 1
        assert (await ran(time, job)).result == 1


async def test_a_provider_that_fails_where_the_attempt_was_asked_to_end_says_nothing_of_it(scheduler, virtual_time):
    async def limited():
        try:
            async with asyncio.timeout(3600):
                yield
        finally:
            raise OSError("no rollback")

    @scheduler.job(retry=2)
    async def job(value=Inject(limited)):
        await asyncio.sleep(600)

    async with virtual_time(scheduler) as time:
        handle = await job.submit()
        await time.advance("1m")
        await scheduler.cancel(handle.id)
        assert (await time.until(handle.wait())).state is State.CANCELLED


@pytest.mark.parametrize("raised", [OSError, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("place", ["loop", "thread", "pool"])
async def test_an_error_on_entering_is_the_attempts_and_is_retried(raised, place, scheduler, virtual_time):
    tries, left = [], []

    def before():
        yield
        left.append(1)

    def plain(value=Inject(before)):
        tries.append(1)
        if len(tries) == 1:
            raise raised("not yet")

    async def on_loop(value=Inject(before)):
        plain()

    @scheduler.job(retry=Retry(2, first="1s"))
    async def job(value=Inject(on_loop if place == "loop" else plain)):
        pass

    @scheduler.job(retry=Retry(2, first="1s"))
    def in_thread(value=Inject(plain)):
        pass

    async with virtual_time(scheduler) as time:
        run = await ran(time, in_thread if place == "thread" else job)
        ends = {OSError: (State.SUCCEEDED, 2), SystemExit: (State.FAILED, 1), asyncio.CancelledError: (State.FAILED, 1)}
        assert (run.state, run.attempt) == ends[raised]
        assert scheduler.is_running and len(left) == (raised is OSError)


@pytest.mark.parametrize("place", ["loop", "thread"])
async def test_a_timeout_includes_entering_and_what_was_entered_is_left(place, scheduler, virtual_time):
    seen = []

    def before():
        try:
            yield
        except BaseException as error:
            seen.append(type(error).__name__)

    async def hanging(value=Inject(before)):
        await asyncio.sleep(600)

    async def job(value=Inject(hanging)):
        seen.append("called")

    def in_thread(value=Inject(hanging)):
        seen.append("called")

    job = scheduler.add_job(job if place == "loop" else in_thread, name="job", timeout="1m")
    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.state, run.error.type, stamp(run.ended_at)) == (State.FAILED, "Timeout", "00:01")
        assert seen == ["CancelledError"]


async def test_a_cancelled_attempt_leaves_what_it_entered(scheduler, virtual_time):
    seen = []

    async def provider():
        try:
            yield
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            seen.append("left")
            raise

    @scheduler.job()
    async def job(value=Inject(provider)):
        await asyncio.sleep(600)

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        await time.advance("1m")
        await scheduler.cancel(run.id, reason="enough", actor="me")
        assert (await time.until(run.wait())).state is State.CANCELLED and seen == ["left"]


async def test_a_thread_that_is_left_behind_commits_nothing(scheduler, virtual_time):
    enough, seen = threading.Event(), []

    def provider():
        try:
            yield
            seen.append("commit")
        except BaseException as error:
            seen.append(type(error).__name__)

    @scheduler.job()
    def job(value=Inject(provider)):
        enough.wait(10)

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await job.submit()
        await time.advance("1s")
        await scheduler.cancel(run.id, reason="enough", actor="me")
        await time.advance("10s")
        assert (await scheduler.run(run.id)).state in (State.CANCELLED, State.INTERRUPTED)
        enough.set()
        await threads_ended(time)
        assert seen == ["AttemptCancelled"]


async def test_a_thread_that_enters_a_provider_is_waited_for_in_peace_where_a_scope_of_anyio_is_given_up(
    scheduler, virtual_time, monkeypatch
):
    """Such a scope cancels in each turn of the loop: each would begin to wait anew, a third of a processor all in all."""
    entering, may_end, waits = threading.Event(), threading.Event(), []

    def provider():
        entering.set()
        may_end.wait(5)
        try:
            yield
        finally:
            waits.append("left")

    async def step(value=Inject(provider)):
        raise AssertionError("it was given up before")

    @scheduler.job()
    async def job(run: RunContext):
        async with create_task_group() as group:
            group.start_soon(run.step, "step", step)
            await asyncio.to_thread(entering.wait, 5)
            wait = asyncio.wait
            monkeypatch.setattr(
                asyncio, "wait", lambda *args, **options: waits.append("wait") or wait(*args, **options)
            )
            threading.Timer(0.2, may_end.set).start()
            raise OSError("gone")

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.state, "left" in waits, len(waits) < 50) == (State.FAILED, True, True)


async def test_what_returns_after_its_timeout_commits_nothing(scheduler, virtual_time):
    seen = []

    async def provider():
        try:
            yield
            seen.append("commit")
        except TimeoutError:
            seen.append("rollback")

    @scheduler.job(timeout="1m")
    async def job(value=Inject(provider)):
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            return

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.error.type, seen) == ("Timeout", ["rollback"])


async def test_a_cancelled_entry_in_a_thread_is_left_once_it_is_done(scheduler, virtual_time):
    entering, enough, seen = threading.Event(), threading.Event(), []

    def slow():
        entering.set()
        enough.wait(10)
        try:
            yield
        except asyncio.CancelledError:
            seen.append("left")

    @scheduler.job()
    async def job(value=Inject(slow)):
        seen.append("called")

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await job.submit()
        await time.advance()
        assert entering.is_set()
        await scheduler.cancel(run.id, reason="enough", actor="me")
        enough.set()
        assert (await time.until(run.wait())).state is State.CANCELLED
        assert seen == ["left"]


async def test_a_plain_provider_finds_the_run_in_its_thread_and_one_for_the_worker_none(scheduler, virtual_time):
    def mine():
        return current_run().id

    async def shared():
        with suppress(NoCurrentRun):
            return current_run().id

    @scheduler.job()
    async def job(run: RunContext, own=Inject(mine), worker=Inject(shared, scope="worker")):
        return [own == run.id, worker]

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == [True, None]


async def test_what_a_plain_provider_returns_to_be_awaited_is_not_begun_where_the_attempt_was_cancelled_meanwhile(
    scheduler, virtual_time
):
    entering, enough, seen = threading.Event(), threading.Event(), []

    async def opened():
        seen.append("opened")

    def slow():
        entering.set()
        enough.wait(10)
        return opened()

    @scheduler.job()
    async def job(value=Inject(slow)):
        seen.append("called")

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await job.submit()
        await time.advance()
        assert entering.is_set()
        await scheduler.cancel(run.id, reason="enough", actor="me")
        enough.set()
        assert (await time.until(run.wait())).state is State.CANCELLED
        assert seen == []


async def test_a_provider_that_fails_on_leaving_tells_no_secret_of_its_run(scheduler, virtual_time):
    def connection():
        try:
            yield 1
        finally:
            raise OSError("cannot log out with hunter-22-long")

    @scheduler.job(secret=("key",))
    def job(key: str, value=Inject(connection)):
        raise ValueError("first")

    told = []
    number = logger.add(lambda message: told.append(repr(message.record["extra"])), level=0)
    async with virtual_time(scheduler) as time:
        assert (await time.until((await job.submit(key="hunter-22-long")).wait())).error.message == "first"
    logger.remove(number)
    assert any("provider.failed" in line and "cannot log out" in line for line in told)
    assert not any("hunter" in line for line in told)


# -- for the worker


async def test_a_provider_for_the_worker_is_entered_once_and_left_at_the_stop_in_reverse_order(scheduler, virtual_time):
    tape = []

    async def settings():
        await asyncio.sleep(5)
        tape.append("enter settings")
        yield 1
        tape.append("leave settings")

    def client(value=Inject(settings, scope="worker")):
        tape.append("enter client")
        yield value + 1
        tape.append("leave client")

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    @scheduler.job()
    def other(value=Inject(client, scope="worker"), more=Inject(settings, scope="worker")):
        return value + more

    async with virtual_time(scheduler) as time:
        runs = [await one.submit() for one in (job, other, job)]
        assert [(await time.until(run.wait())).result for run in runs] == [2, 3, 2]
        assert tape == ["enter settings", "enter client"]
        await time.until(scheduler.stop())
        assert tape[2:] == ["leave client", "leave settings"]
        await time.start()
        assert (await ran(time, job)).result == 2 and tape[4:] == ["enter settings", "enter client"]


async def test_a_provider_for_the_worker_that_failed_is_tried_again_by_the_next_attempt(scheduler, virtual_time):
    tries = []

    async def client():
        tries.append(1)
        await asyncio.sleep(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return 7

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        both = [await job.submit(), await job.submit()]
        assert [(await time.until(run.wait())).error.message for run in both] == ["not yet"] * 2
        assert (await ran(time, job)).result == 7 and len(tries) == 2


async def test_a_provider_for_the_worker_that_hangs_is_begun_anew_once_nobody_waits(scheduler, virtual_time):
    tries = []

    async def client():
        tries.append(1)
        await asyncio.sleep(600 if len(tries) == 1 else 1)
        return 7

    @scheduler.job(timeout="1m", retry=Retry(2, first="1s"))
    async def job(value=Inject(client, scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert (run.result, run.attempt, len(tries)) == (7, 2, 2)


async def test_a_provider_for_the_worker_that_does_not_leave_holds_no_stop(scheduler, virtual_time, lines):
    async def client():
        yield 7
        await asyncio.sleep(3600)

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        await ran(time, job)
        before = time.now
        await time.until(scheduler.stop(grace=0))
        assert (time.now - before).total_seconds() < 7
        assert "provider.not_left" in lines


async def test_many_providers_for_the_worker_that_hear_nothing_hold_no_stop(scheduler, virtual_time):
    enough = asyncio.Event()

    def deaf(number):
        async def client():
            yield number
            while not enough.is_set():
                with suppress(asyncio.CancelledError):
                    await enough.wait()

        return client

    async with virtual_time(scheduler) as time:
        for number in range(40):

            async def job(value=Inject(deaf(number), scope="worker")):
                return value

            await ran(time, scheduler.add_job(job, name=f"job-{number}"))
        before = time.now
        await time.until(scheduler.stop(grace=0))
        assert (time.now - before).total_seconds() < 7
        enough.set()
        await time.advance()


async def test_a_second_stop_with_no_grace_waits_no_longer_for_a_provider_either(scheduler, virtual_time):
    async def client():
        yield 7
        await asyncio.sleep(3600)

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        await ran(time, job)
        before, stopping = time.now, asyncio.ensure_future(scheduler.stop(grace="10m"))
        await time.advance("1s")
        await time.until(scheduler.stop(grace=0))
        await time.until(stopping)
        assert (time.now - before).total_seconds() < 8


def test_a_provider_for_the_worker_is_left_when_the_host_ends_its_loop(scheduler):
    seen = []

    async def client():
        try:
            yield 7
        finally:
            await asyncio.sleep(0)
            seen.append("left")

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    async def host():
        await scheduler.start()
        assert await (await job.submit()).value() == 7

    asyncio.run(host())
    assert seen == ["left"]


async def test_a_provider_for_the_worker_that_enters_during_a_stop_is_given_up_and_what_it_needs_is_left(
    scheduler, virtual_time
):
    seen = []

    async def settings():
        yield
        seen.append("left")

    async def client(value=Inject(settings, scope="worker")):
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("given up")
            raise

    @scheduler.job()
    async def job(value=Inject(client, scope="worker")):
        return value

    async with virtual_time(scheduler) as time:
        await job.submit()
        await time.advance("1s")
        await time.until(scheduler.stop(grace=0))
        assert seen == ["given up", "left"]


async def test_a_deaf_attempt_does_not_keep_a_provider_from_being_left(scheduler, virtual_time):
    enough, seen = threading.Event(), []

    def client():
        yield 7
        seen.append("left")

    @scheduler.job()
    def job(value=Inject(client, scope="worker")):
        enough.wait(10)

    async with virtual_time(scheduler, patience="50ms") as time:
        await job.submit()
        await time.advance("1s")
        await time.until(scheduler.stop(grace=0))
        assert seen == ["left"]
        enough.set()


async def test_what_only_a_loop_can_enter_is_refused_in_a_thread_with_the_mend(scheduler, virtual_time):
    @scheduler.job()
    def job(value=Inject(lambda: yielding_later())):
        return value

    @scheduler.job()
    async def other(value=Inject(lambda: yielding_later())):
        return value

    async with virtual_time(scheduler) as time:
        run = await ran(time, job)
        assert run.error.type == "TypeError" and "write it as an async def that yields" in run.error.message
        assert (await ran(time, other)).result == 7


async def test_a_generator_that_yields_nothing_or_twice_fails_the_attempt(scheduler, virtual_time):
    def never():
        return
        yield

    def twice():
        yield 1
        yield 2

    @scheduler.job()
    async def job(value=Inject(never)):
        pass

    @scheduler.job()
    def other(value=Inject(twice)):
        pass

    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).error.message == "generator didn't yield"
        assert (await ran(time, other)).error.message == "generator didn't stop"


# -- in tests


async def test_a_provider_is_overridden_wherever_it_is_injected(scheduler, virtual_time):
    def nested(value=Inject(number)):
        return value * 10

    async def fake():
        yield 1

    @scheduler.job()
    async def job(value=Inject(nested), other=Inject(number)):
        return value + other

    @scheduler.job()
    def kept(value=Inject(nested, scope="attempt"), other=Inject(number, scope="worker")):
        return value + other

    async with virtual_time(scheduler) as time:
        time.override(number, fake)
        assert (await ran(time, job)).result == (await ran(time, kept)).result == 11
        with pytest.raises(BadJob):
            time.override(number, 5)
    async with virtual_time(scheduler) as time:
        assert (await ran(time, job)).result == 77


async def test_an_override_does_not_reach_a_process(scheduler, virtual_time):
    job = scheduler.add_job(module_level, name="job", executor="process")
    async with virtual_time(scheduler) as time:
        time.override(yielding, number)
        run = await ran(time, job)
        assert run.error.type == "Conflict" and "which no override reaches: yielding" in run.error.message


def module_level(value=Inject(yielding)):
    return value


async def test_a_job_that_is_given_nothing_runs_as_ever(scheduler, virtual_time):
    scheduler.add_job(lasting(5), name="job")
    async with virtual_time(scheduler) as time:
        assert (await ran(time, "job")).state is State.SUCCEEDED


# -- the run


async def test_the_run_is_given_where_it_may_be_none_and_where_something_is_said_of_it(scheduler, virtual_time):
    @scheduler.job()
    async def optional(user: int, run: RunContext | None = None):
        return [user, run.job]

    @scheduler.job()
    def annotated(run: Annotated[RunContext, "the run"], user: int):
        return [user, run.job]

    flow = scheduler.flow("flow")

    @flow.step()
    async def step(user: int, run: Annotated[RunContext | None, "the run"] = None):
        return [user, run.job]

    async with virtual_time(scheduler):
        assert (await (await optional.submit(1)).wait()).result == [1, "optional"]
        assert (await (await scheduler.submit("annotated", {"user": 2})).wait()).result == [2, "annotated"]
        run = await (await scheduler.submit("flow", {"user": 3})).wait()
        assert run.result["steps"]["step"]["result"] == [3, "flow"]
    assert all(list(job.parameters.schema()["properties"]) == ["user"] for job in scheduler)


def test_who_asks_for_the_run_twice_is_refused_when_declared():
    def job(run: RunContext, user: int, again: RunContext | None = None): ...

    def provider(run: RunContext, again: RunContext):
        return run.id

    def given(run: RunContext, value=Inject(provider)): ...

    def replaced(run: RunContext, other: RunContext = Inject(number)): ...

    with pytest.raises(BadJob, match="job takes the run twice, as 'run' and as 'again'; leave one of them out"):
        declared(job)
    with pytest.raises(BadJob, match="takes the run twice, as 'run' and as 'again'"):
        Jobs().flow("f").step()(job)
    with pytest.raises(BadJob, match="provider .*provider takes the run twice, as 'run' and as 'again'"):
        declared(given)
    assert declared(replaced)
