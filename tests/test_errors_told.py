"""What goes wrong while all is written right: each is told with what was given, what stands in the way, and the mend.

Errors of what somebody wrote (expressions, names, parameters, settings) are with the stories of those parts; here are those
of a running system: a held file, a job that is busy, a server that is away, a token that may not, a held loop, a clock that
is wrong, a fire that came too late.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop.processes import this_process
from taskloop.store import open_store

BUSY = """
import asyncio, time
from datetime import UTC, datetime, timedelta
from taskloop import At, Jobs, RunContext

jobs = Jobs()

@jobs.job(group="worker")
async def report() -> None:
    await asyncio.sleep(60)

@jobs.job(max_late="400ms")
async def sync_orders() -> None: ...

@jobs.job()
async def resize(run: RunContext) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    await run.scheduler.schedule("sync_orders", At(soon), id="orders-once")
    time.sleep(1.6)
"""


def posted(address, path, body, **headers):
    """The status and the JSON of an answer."""
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def told(done, code):
    """The two lines of an error: what, and the mend; and nothing else, no traceback either."""
    assert (done.code, done.out) == (code, ""), done
    assert done.err.count("\n") == 2, done.err
    error, mend = lines = done.err.strip().splitlines()
    assert error.startswith("error: ") and mend.startswith("help: "), lines
    return error, mend


def test_a_running_scheduler_tells_what_is_busy_who_may_not_who_held_the_loop_and_what_came_too_late(shop, call):
    shop.write("shop.py", BUSY)
    with shop.start("run", "--http", "127.0.0.1:0") as running:
        running.hear(r"scheduler\.ready")
        address = re.search(r"http://127\.0\.0\.1:\d+", running.said)[0]

        # a job that is busy
        status, first = posted(address, "/tasks/report", {})
        assert status == 202
        status, second = posted(address, "/tasks/report", {})
        assert (status, second["code"]) == (409, "conflict")
        assert re.fullmatch(rf"run {first['id']} of 'report' is (waiting|running)", second["detail"])
        assert second["hint"] == "wait for its end, or cancel it"

        # a loop that was held, and the fire that came too late for it
        call("submit", "resize")
        running.hear(r'WARNING loop\.blocked job=resize run=\d+ .*ms=\d\d\d\d+ where="shop\.py:\d+ resize"')
        running.hear(r"WARNING run\.skipped job=sync_orders run=\d+ .*reason=too_late")
        late = re.search(r"run\.skipped job=sync_orders run=(\d+) .*reason=too_late", running.said)[1]
        why = call("why", late)
        assert (
            why.code == 10 and "max_late is 400ms" in why.out and "stood still for" in why.out and "resize" in why.out
        )
        doctor = call("doctor").out
        assert re.search(r"a loop stood still .* by job resize, at shop\.py:\d+ resize", doctor)
        assert "await asyncio.to_thread(function, ...)" in doctor

        # a token that may not
        token = call("token", "create", "grafana", "--scope", "read").out.strip()
        status, problem = posted(address, "/api/v1/jobs/report/disable", {}, Authorization=f"Bearer {token}")
        assert (status, problem["code"]) == (403, "forbidden")
        assert "needs the scope admin; that of 'grafana' is read" in problem["detail"]
        assert problem["hint"] == "`taskloop token create NAME --scope admin` makes a token that may"


HOLDS_THE_FILE = """
import sqlite3
db = sqlite3.connect("taskloop.db", isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
input()
"""


def test_a_file_that_another_program_holds_is_told_with_who_that_is(shop, call):
    call("once", "hourly")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_FILE], cwd=shop.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        other.send_signal(signal.SIGSTOP)
        error, mend = told(call("submit", "hourly"), 8)
        other.send_signal(signal.SIGCONT)
        other.communicate(b"\n")
    assert f"database is locked: held by pid {other.pid} ({sys.executable} -c " in error
    assert f"), which is stopped and goes on after `kill -CONT {other.pid}`" in error
    assert mend == "help: let the program that holds it end its transaction, or stop it, and see `taskloop db check`"


def test_a_server_that_does_not_answer_is_told_with_its_address(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", "postgresql://anna:hush@127.0.0.1:1/shop")
    for words in (["list"], ["submit", "hourly"], ["status"]):
        error, mend = told(call(*words), 8)
        assert "postgresql://" in error and "127.0.0.1:1/shop" in error and "hush" not in error
        assert mend == "help: see whether the server runs and can be reached from here"


def test_two_workers_whose_clocks_differ_are_told_by_how_much(shop, call):
    call("once", "hourly")

    async def plant():
        store = open_store("sqlite:///taskloop.db")
        await store.open()
        now = datetime.now(UTC)
        await store.enlist(this_process("api-1", now, time.monotonic()))
        ahead = this_process("api-2", now + timedelta(seconds=42), time.monotonic())
        await store.enlist(replace(ahead, id="ahead"))
        await store.close()

    asyncio.run(plant())
    done = call("doctor")
    assert done.code == 1 and re.search(r"clock .*4[12](\.\d)? s ahead of this one, allowed is 1 s", done.out), done.out
    assert "NTP" in done.out
