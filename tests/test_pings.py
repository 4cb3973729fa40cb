"""Services that are told of a job's runs: a real one on loopback, one that is slow, one that is not there."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from taskloop import Options, Retry, TaskScheduler, pings
from taskloop.calls import call
from taskloop.errors import BadJob
from taskloop.policy import Policy
from taskloop.records import policy_record
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@contextmanager
def endless():
    """A service that answers byte by byte, and never comes to an end: its address."""
    over = threading.Event()

    def drip():
        with suppress(OSError):
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.05):
                    taken.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            over.set()
            thread.join(5)


@contextmanager
def service(*, status=200, holds=None, needs=None):
    """A health-check service: what it was told, as (path, body)."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            calls.append((self.path, body))
            if holds is not None:
                holds.wait(20)
            self.send_response(status if needs in (None, self.headers["Authorization"]) else 401)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ping/1234", calls
    finally:
        if holds is not None:
            holds.set()
        server.shutdown()
        thread.join()
        server.server_close()


async def told(calls, number):
    async with asyncio.timeout(15):
        while len(calls) < number:
            await asyncio.sleep(0.01)
    return sorted(calls)


async def test_a_service_hears_of_the_start_and_the_success_of_a_run():
    scheduler = TaskScheduler(":memory:", options=Options())
    with service() as (address, calls):

        @scheduler.job(ping=address)
        async def job() -> None: ...

        async with scheduler:
            await (await job.submit()).wait()
            assert await told(calls, 2) == [("/ping/1234", ""), ("/ping/1234/start", "")]


async def test_a_service_hears_once_of_the_start_and_the_failure_of_a_run_with_retries():
    scheduler = TaskScheduler(":memory:", options=Options())
    with service() as (address, calls):

        @scheduler.job(ping=f"{address}/", retry=Retry(3, first=0))
        def job() -> None:
            raise ValueError("bad lück")

        async with scheduler:
            run = await (await job.submit()).wait()
            assert await told(calls, 2) == [
                ("/ping/1234/fail", f"run {run.id} of job: ValueError: bad lück"), ("/ping/1234/start", "")
            ]  # fmt: skip
        assert len(calls) == 2


async def test_a_service_hears_of_a_job_that_is_added_while_the_scheduler_starts(tmp_path):
    class Asked(SqliteStore):
        async def declared_schedules(self):
            scheduler.add_job(job, name="late", ping=address)
            return await super().declared_schedules()

    async def job() -> None: ...

    with service() as (address, calls):
        scheduler = TaskScheduler(Asked(tmp_path / "a.db"), options=Options())
        async with scheduler:
            await (await scheduler.submit("late")).wait()
            assert len(await told(calls, 2)) == 2


async def test_a_service_hears_of_a_job_that_is_added_while_the_scheduler_runs():
    scheduler = TaskScheduler(":memory:", options=Options())

    async def job() -> None: ...

    with service() as (address, calls):
        async with scheduler:
            one = scheduler.add_job(job, ping=address)
            await (await one.submit()).wait()
            assert await told(calls, 2) == [("/ping/1234", ""), ("/ping/1234/start", "")]


async def test_only_the_addresses_that_are_named_are_called():
    scheduler = TaskScheduler(":memory:", options=Options())
    with service() as (address, calls):

        @scheduler.job(ping={"success": f"{address}?done"})
        async def job() -> None: ...

        @scheduler.job()
        async def quiet() -> None: ...

        async with scheduler:
            await (await quiet.submit()).wait()
            await (await job.submit()).wait()
            assert await told(calls, 1) == [("/ping/1234?done", "")]


async def test_a_service_that_hangs_costs_a_run_nothing_and_a_stop_little():
    scheduler = TaskScheduler(":memory:", options=Options())
    with service(holds=threading.Event()) as (address, calls):

        @scheduler.job(ping=address)
        async def job() -> None: ...

        async with scheduler:
            began = time.monotonic()
            for _ in range(20):
                await (await job.submit()).wait()
            assert time.monotonic() - began < 9
            await told(calls, 1)
            began = time.monotonic()
        assert time.monotonic() - began < 9


@pytest.mark.parametrize("kind", ["absent", "refuses"])
async def test_a_service_that_does_not_take_it_is_asked_again_and_then_told_of(kind, lines):
    scheduler = TaskScheduler(":memory:", options=Options())
    with service(status=503) as (address, calls):
        where = address if kind == "refuses" else "http://127.0.0.1:9/nobody"

        @scheduler.job(ping={"success": where})
        async def job() -> None: ...

        async with scheduler:
            await (await job.submit()).wait()
            async with asyncio.timeout(15):
                while "ping.failed" not in lines:
                    await asyncio.sleep(0.02)
        assert len(calls) == (3 if kind == "refuses" else 0)


async def test_a_call_that_failed_is_not_made_again_while_another_waits():
    scheduler, holds = TaskScheduler(":memory:", options=Options()), threading.Event()

    async def job() -> None: ...

    with service(status=503, holds=holds) as (address, calls):
        one, two = (scheduler.add_job(job, name=name, ping={"success": f"{address}/{name}"}) for name in ("one", "two"))
        async with scheduler:
            await (await one.submit()).wait()
            await told(calls, 1)
            await (await two.submit()).wait()
            holds.set()
            assert await told(calls, 2) == [("/ping/1234/one", ""), ("/ping/1234/two", "")]


async def test_a_service_that_is_gone_keeps_no_other_from_hearing_in_time():
    scheduler = TaskScheduler(":memory:", options=Options())

    async def job() -> None: ...

    with service() as (address, calls):
        gone = scheduler.add_job(job, name="gone", ping={"success": "http://127.0.0.1:9/nobody"})
        there = scheduler.add_job(job, name="there", ping={"success": address})
        async with scheduler:
            for _ in range(10):
                await (await gone.submit()).wait()
            await (await there.submit()).wait()
            assert await told(calls, 1) == [("/ping/1234", "")]


async def test_a_service_that_answers_without_end_keeps_no_other_from_hearing_and_is_given_up(monkeypatch, lines):
    monkeypatch.setattr(pings, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(pings, "TRIES", 1)
    scheduler = TaskScheduler(":memory:", options=Options())

    async def job() -> None: ...

    with service() as (address, calls), endless() as slow:
        held = scheduler.add_job(job, name="held", ping={"success": slow})
        there = scheduler.add_job(job, name="there", ping={"success": address})
        async with scheduler:
            await (await held.submit()).wait()
            await (await there.submit()).wait()
            assert await told(calls, 1) == [("/ping/1234", "")]
            assert "ping.failed" not in lines, "it did not wait for that"
            async with asyncio.timeout(10):
                while "ping.failed" not in lines:
                    await asyncio.sleep(0.02)


def test_a_call_is_over_in_time_too_where_the_name_of_its_host_was_found_too_late(monkeypatch):
    found = socket.getaddrinfo

    def late(*args, **options):
        threading.Event().wait(0.7)
        return found(*args, **options)

    with endless() as address:
        monkeypatch.setattr(socket, "getaddrinfo", late)
        # Long beside the time between two bytes: else the wait for the next one would end it, whatever we do.
        with pytest.raises(TimeoutError, match="no whole answer came within 0.5 s"):
            call(address, None, {}, within_seconds=0.5, redirects=True)


async def test_who_signs_in_by_the_address_does_and_is_in_no_log_line(lines):
    scheduler = TaskScheduler(":memory:", options=Options())
    with service(needs="Basic YW5uOnMgY3JldA==") as (address, calls):

        @scheduler.job(ping={"success": address.replace("//", "//ann:s%20cret@")})
        async def job() -> None: ...

        async with scheduler:
            await (await job.submit()).wait()
            assert await told(calls, 1) == [("/ping/1234", "")]
    assert "ping.failed" not in lines


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("https://a.example/1/", {"start": "https://a.example/1/start", "success": "https://a.example/1",
                                  "fail": "https://a.example/1/fail"}),
        ({"fail": "http://a.example"}, {"fail": "http://a.example"}),
        (None, None),
        ("off", None),
    ],
)  # fmt: skip
def test_a_ping_is_one_address_or_a_table_of_them(value, addresses):
    assert Policy.of("job", {"ping": value}).ping == addresses


@pytest.mark.parametrize(
    "value",
    [
        "ftp://a.example",
        "a.example",
        "http://",
        "http://a:b/",
        "http://a:0/",
        7,
        {},
        {"begin": "http://a.example"},
        {"start": 7},
        ["http://a"],
    ],
)
def test_what_is_no_address_of_the_web_is_refused(value):
    with pytest.raises(BadJob, match="ping"):
        Policy.of("job", {"ping": value})


def test_an_address_is_not_shown_for_who_knows_it_can_silence_the_alarm():
    shown = policy_record(Policy.of("job", {"ping": "https://ann:secret@a.example/1234"}))["ping"]
    assert shown == {word: "https://a.example/…" for word in ("start", "success", "fail")}
