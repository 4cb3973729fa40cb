"""The examples do what they say, over real HTTP and with real signals."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import ModuleType
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parent.parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_example_counts_until_it_is_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples" / "plain.py")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert line.endswith("count_to_ten succeeded: counted to ten\n")
    assert errors == ""
    assert process.returncode == 0


def test_the_example_without_a_loop_measures_while_it_works(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "plain_program.py")], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )  # fmt: skip
    # Where the machine is busy a measurement that would begin after the next is due is left out, which is said.
    assert done.returncode == 0 and all("run.skipped" in line for line in done.stderr.splitlines())
    runs = [line.partition(" ")[2] for line in done.stdout.splitlines()]
    assert len(runs) >= 2 and set(runs) - {"skipped None"} == {"succeeded cellar: 21.5 degrees"}


def test_the_flow_example_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "flow.py"), "oslo"]
    first = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not steps_done(tmp_path / "flow.db"):
        time.sleep(0.01)
    first.kill()
    first.wait()
    done = subprocess.run(command[:-1], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "resize    succeeded attempt 2  ['640/oslo-0.jpg'" in done.stdout
    assert "captions  failed    attempt 1  ConnectionError" in done.stdout
    assert done.stdout.splitlines()[-1] == "['320/oslo-0.jpg', '320/oslo-1.jpg', '320/oslo-2.jpg']"


@pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed; the test extra has it"
)
def test_the_fastapi_example_takes_an_order_and_shows_its_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "fastapi_app.py")], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "PORT": str(port)}
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{address}/taskloop/healthz")
        with urlopen(Request(f"{address}/reports?days=3", method="POST"), timeout=10) as answer:
            run = json.loads(answer.read())["run"]
        page = ""
        deadline = time.monotonic() + 10
        while "succeeded after" not in page and time.monotonic() < deadline:
            with urlopen(f"{address}/taskloop/runs/{run}", timeout=10) as answer:
                page = re.sub(r"<[^>]*>", "", answer.read().decode())
        assert "succeeded after" in page
        assert "read day 3" in page
        assert "manual by app" in page
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said.decode()


def test_the_demo_lives_through_its_past_and_shows_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "--history", "3d"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PORT": str(port)}
    )  # fmt: skip
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz")
        with urlopen(f"http://127.0.0.1:{port}/jobs", timeout=10) as answer:
            page = re.sub(r"<[^>]*>", "", answer.read().decode())
        assert "Fetch the orders" in page and "by tom: replaced by the new reports" in page
        with urlopen(f"http://127.0.0.1:{port}/api/v1/runs?job=sync_orders&limit=1000", timeout=10) as answer:
            assert len(json.loads(answer.read())["items"]) >= 70
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in said, "what failed in the past stands on the pages, a year of it fills no screen"


def wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urlopen(address, timeout=10):
                return
        except OSError:
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.05)


def steps_done(store: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT 1 FROM taskloop_steps WHERE state = 'succeeded'").fetchone())
    except sqlite3.OperationalError:  # not there yet
        return False


@pytest.mark.parametrize("page", ["flows", "parameters", "runs", "synchronous"])
def test_the_programs_of_a_page_print_what_they_say(page: str, tmp_path: Path) -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), re.M | re.S)
    assert programs
    for program in programs:
        (tmp_path / "program.py").write_text(program, "utf-8")
        done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        said = re.findall(r"print\(.*\)  # (.+)$", program, re.M)
        assert done.stdout.splitlines() == said


@pytest.mark.anyio
async def test_the_aiohttp_example_answers_quickly_while_it_reads_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="the web extra is not installed")
    from aiohttp import web

    example = load("aiohttp_server")
    monkeypatch.setenv("TASKLOOP_HTTP__TOKEN", "secret")
    runner = web.AppRunner(example.make_app(example.make_scheduler(f"sqlite:///{tmp_path}/server.db")))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as client:
            submit = f"{address}/taskloop/api/v1/jobs/git_metrics/submit"
            asked = await client.post(submit, json={}, headers={"Authorization": "Bearer secret"})
            assert asked.status == 202
            slowest, figures = 0.0, {}
            deadline = time.monotonic() + 60
            while not figures.get("repositories") and time.monotonic() < deadline:
                began = time.perf_counter()
                assert (await (await client.get(f"{address}/")).json())["hello"] == "world"
                slowest = max(slowest, time.perf_counter() - began)
                figures = await (await client.get(f"{address}/metrics")).json()
                await asyncio.sleep(0.01)
    finally:
        await runner.cleanup()
    assert next(iter(figures["repositories"].values()))["commits"] > 0
    assert slowest < 1.0
