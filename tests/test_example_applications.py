"""The five applications of the examples run whole, on real parts: mail over SMTP, OAuth over HTTP, git, media, kills."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import pytest
from test_examples import ROOT, load, wait_until_it_answers

EXAMPLES = ROOT / "examples"
TOKEN = {"Authorization": "Bearer secret"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def ask(address: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    told = {"Content-Type": "application/json", **(headers or {})}
    try:
        with urlopen(Request(address, data=data, headers=told), timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def until(fits: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := fits()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


@contextmanager
def program(*command: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def taskloop(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskloop", *words], cwd=cwd, capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), **environment},
    )  # fmt: skip


# 000: processors


@contextmanager
def mail_server() -> Iterator[tuple[int, list[Any]]]:
    controller_module = pytest.importorskip(
        "aiosmtpd.controller", reason="aiosmtpd is not installed; the test extra has it"
    )

    class Inbox:
        def __init__(self) -> None:
            self.letters: list[Any] = []

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            self.letters.append(envelope)
            return "250 taken"

    inbox = Inbox()
    controller = controller_module.Controller(inbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port, inbox.letters
    finally:
        controller.stop()


def test_the_processors_send_mail_and_are_switched_by_a_page(tmp_path: Path) -> None:
    port = free_port()
    with (
        mail_server() as (smtp, letters),
        program(
            "-m", "taskloop", "run", "--app", "processors:scheduler", "--http", f"127.0.0.1:{port}",
            cwd=tmp_path, SMTP_HOST="127.0.0.1", SMTP_PORT=str(smtp),
        ),
    ):  # fmt: skip
        here = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{here}/healthz")
        letter = {"receiver": "anna@example.org", "subject": "Hello", "body": "A first line"}
        assert ask(f"{here}/api/v1/jobs/queue_mail/submit", {"params": letter})[0] == 202
        until(lambda: letters)
        assert letters[0].rcpt_tos == ["anna@example.org"] and b"A first line" in letters[0].content

        assert ask(f"{here}/admin/control_processors/send_mail", {"enabled": False, "reason": "quiet"})[0] == 200
        states = {one["name"]: one for one in ask(f"{here}/admin/control_processors")[1]}
        assert not states["send_mail"]["enabled"] and states["send_mail"]["reason"] == "quiet"
        assert states["read_pictures"]["enabled"]
        done = taskloop(  # each processor alone, as supervisord starts it; one that is off says so and does nothing
            "process", "send_mail", "--every", "0", "--sleep", "50ms", "--max-runtime", "1s",
            "--app", "processors:scheduler", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0 and "reason=quiet" in done.stderr
        with urlopen(Request(f"{here}/admin/control_processors", headers={"Accept": "text/html"}), timeout=20) as page:
            assert b"Send the mail that waits" in page.read()

    done = taskloop("runs", "--job", "send_mail", "--format", "json", "--app", "processors:scheduler", cwd=tmp_path)
    said = {run["summary"] for run in json.loads(done.stdout)["items"]}
    assert "1 sent" in said


@pytest.mark.anyio
async def test_a_mail_server_that_is_away_loses_no_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    processors = load("processors")
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", str(free_port()))
    scheduler = processors.scheduler
    async with scheduler:
        evening = "2026-11-24T00:00:00Z"
        alert = await (await scheduler.submit("moon_alert", {"evening": evening})).wait()
        assert alert.summary == "Full moon at 14:53 UTC"
        failed = await (await scheduler.submit("send_mail")).wait()
        assert failed.error is not None and failed.error.type == "ConnectionRefusedError"
        with mail_server() as (smtp, letters):
            monkeypatch.setenv("SMTP_PORT", str(smtp))
            assert (await (await scheduler.submit("send_mail")).wait()).summary == "1 sent"
            assert (await (await scheduler.submit("send_mail")).wait()).summary == "no mail waits"
        assert [letter.rcpt_tos for letter in letters] == [["watchers@example.org"]]
        info = await (await scheduler.submit("system_info")).wait()
        assert info.result["disk_free_bytes"] > 0


@pytest.mark.anyio
async def test_text_in_pictures_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image, ImageDraw, ImageFont

    monkeypatch.chdir(tmp_path)
    processors = load("processors")
    picture = Image.new("L", (640, 120), "white")
    ImageDraw.Draw(picture).text((20, 20), "MEETING AT NOON", font=ImageFont.load_default(60), fill="black")
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "note.png")
    (tmp_path / "pictures" / "torn.png").write_bytes(b"no picture")
    async with processors.scheduler as scheduler:
        run = await (await scheduler.submit("read_pictures")).wait()
        again = await (await scheduler.submit("read_pictures")).wait()
    if shutil.which("tesseract") is None:
        assert run.summary == "tesseract is not installed; on Debian: apt install tesseract-ocr"
        return
    assert (run.summary, again.summary) in [("2 pictures read", "no new pictures"), ("no new pictures",) * 2]
    with closing(sqlite3.connect("site.db")) as db:
        assert dict(db.execute("SELECT name, text FROM picture_text")) == {
            "note.png": "MEETING AT NOON",
            "torn.png": "",
        }


def test_full_moons_are_where_the_almanac_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    monkeypatch.chdir(tmp_path)
    processors = load("processors")
    moment, found = datetime(2026, 1, 1, tzinfo=UTC), []
    for _ in range(13):
        found.append(moment := processors.next_full_moon(moment))
    known = ["01-03 10:03", "02-01 22:09", "03-03 11:38", "04-02 02:12", "05-01 17:23", "05-31 08:45", "06-29 23:57",
             "07-29 14:36", "08-28 04:18", "09-26 16:49", "10-26 04:12", "11-24 14:53", "12-24 01:28"]  # fmt: skip
    for one, text in zip(found, known, strict=True):
        assert abs(one - datetime.fromisoformat(f"2026-{text}+00:00")) < timedelta(minutes=3)


# 001: git metrics inside a server


def test_the_server_of_git_metrics_has_a_short_interval_in_dev_and_a_one_shot_for_cron(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the web extra is not installed")
    port = free_port()
    with program(
        str(EXAMPLES / "aiohttp_server.py"), cwd=tmp_path, PORT=str(port), TASKLOOP_HTTP__TOKEN="secret", TASKLOOP_DEV="300ms"
    ) as server:  # fmt: skip
        here = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{here}/")
        assert ask(f"{here}/taskloop/admin/tasks/run", {})[0] == 401
        status, told = ask(f"{here}/taskloop/admin/tasks/run", {}, TOKEN)
        assert status == 200 and told["status"] == "success"
        assert ask(f"{here}/metrics")[1]["repositories"]
        runs = until(
            lambda: (
                (
                    found := ask(f"{here}/taskloop/api/v1/runs?state=succeeded&cause=schedule", headers=TOKEN)[1][
                        "items"
                    ]
                )[1:]
                and found
            )
        )
        assert {run["job"] for run in runs} == {"git_metrics"}
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        assert server.returncode in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
    for said in ("1 due, 1 ok", "0 due"):
        once = taskloop("once", "--due", "--app", "aiohttp_server:scheduler", cwd=tmp_path)
        assert once.returncode == 0 and said in once.stdout + once.stderr, once.stdout + once.stderr


# 002: crons of a program without a loop


class OAuthServer(BaseHTTPRequestHandler):
    """Gives a new token for a refresh token, once: as RFC 6749 has it, an old one is void then."""

    asked: list[dict[str, list[str]]] = []

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        first = not any(form["refresh_token"] == one["refresh_token"] for one in self.asked)
        self.asked.append(form)
        body = (
            {"access_token": "new", "refresh_token": "second", "expires_in": 3600}
            if first
            else {"error": "invalid_grant"}
        )
        data = json.dumps(body).encode()
        self.send_response(200 if first else 400)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_the_crons_clean_and_renew_as_their_configuration_says(tmp_path: Path) -> None:
    example = load("crons")
    with ThreadingHTTPServer(("127.0.0.1", 0), OAuthServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        settings = example.CONFIGURATION.replace(":8081/", f":{server.server_port}/")
        settings = settings.replace("enable_test_crons = false", "enable_test_crons = true")
        settings = settings.replace("clean_verification = true", "clean_verification = false")
        (tmp_path / "config.toml").write_text(settings, "utf-8")
        soon, later = time.time() + 60, time.time() + 86400
        with closing(sqlite3.connect(tmp_path / "backend.db")) as db, db:
            db.executescript(example.SCHEMA)
            db.executemany("INSERT INTO tokens VALUES (?, ?, ?)", [("old", "anna", 1.0), ("good", "tom", later)])
            db.execute("INSERT INTO verification VALUES ('tom@example.org', '1234', 1.0)")
            db.execute("INSERT INTO oauth VALUES ('forge', 'old', 'first', ?)", (soon,))
            db.execute("INSERT INTO actions (due_at, text) VALUES (1.0, 'say hello')")
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "crons.py")], cwd=tmp_path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        said, errors = process.communicate(
            "run renew_oauth_tokens\nrun clean_tokens\nrun check_actions\nrun hello_world\n"
            "run clean_verification\npause\npause\nresume\nruns\n", timeout=50
        )  # fmt: skip
        server.shutdown()
    assert process.returncode == 0, errors
    assert "renew_oauth_tokens succeeded: 0 tokens renewed\nclean_tokens succeeded" in said  # the first fire renewed it
    assert "hello_world succeeded: hello world" in said
    assert "no job 'clean_verification'" in said
    assert "\npaused\nnot paused\ngoes on\n" in said and "background.refused verb=pause" in errors
    assert (
        " renew_oauth_tokens succeeded: 1 tokens renewed" in said and " check_actions succeeded: 1 actions done" in said
    )
    with closing(sqlite3.connect(tmp_path / "backend.db")) as db:
        assert db.execute("SELECT token FROM tokens").fetchall() == [("good",)]
        assert db.execute("SELECT count(*) FROM verification").fetchone() == (1,)
        assert db.execute("SELECT access_token, refresh_token FROM oauth").fetchone() == ("new", "second")
    assert [one["client_id"] for one in OAuthServer.asked] == [["backend"]]


# 003: an issue miner


def test_the_issue_miner_goes_on_after_a_kill_and_lets_one_work_at_a_time(tmp_path: Path) -> None:
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    start = dict(cwd=tmp_path, PORT=str(port), TASKLOOP_HTTP__TOKEN="secret")

    def state() -> Any:
        return ask(f"{here}/api/tasks/worker/status", headers=TOKEN)[1]

    def kept() -> list[str]:
        with closing(sqlite3.connect(f"file:{tmp_path}/issue_miner.db?mode=ro", uri=True)) as db:
            return [name for (name,) in db.execute("SELECT name FROM taskloop_steps WHERE state = 'succeeded'")]

    with program(str(EXAMPLES / "issue_miner.py"), **start):
        wait_until_it_answers(f"{here}/api/healthz")
        assert ask(f"{here}/api/tasks/pipeline", {})[0] == 401
        schedules = {one["id"]: one for one in ask(f"{here}/api/tasks/scheduler/status", headers=TOKEN)[1]}
        assert (
            schedules["daily_sync"]["name"] == "Daily ticket sync" and "0 2 * * *" in schedules["daily_sync"]["trigger"]
        )
        assert ask(f"{here}/api/tasks/pipeline", {"backfill_days": 90, "batch_size": 10}, TOKEN)[0] == 202
        assert ask(f"{here}/api/tasks/sync", {"backfill_days": 7}, TOKEN)[0] == 409
        until(lambda: state()["is_running"] or "sync" in kept())
        until(lambda: "sync" in kept())
    with program(str(EXAMPLES / "issue_miner.py"), **start):  # that one was killed
        wait_until_it_answers(f"{here}/api/healthz")
        done = until(lambda: (now := state())["status"] == "idle" and now)
        assert done["last_result"] == {
            "synced": 900,
            "analyzed": done["last_result"]["analyzed"],
            "clusters": 4,
            "trends": done["last_result"]["trends"],
        }
        assert kept().count("sync") == 1
        assert ask(f"{here}/api/tasks/sync", {"backfill_days": "many"}, TOKEN)[0] == 422
        answers = [
            ask(f"{here}/api/api/v1/jobs/sync/submit", {"params": {"backfill_days": 1}}, TOKEN)[0] for _ in range(5)
        ]
        assert answers[-1] == 429
    with closing(sqlite3.connect(tmp_path / "issues.db")) as db:
        found = dict(db.execute("SELECT category, count(*) FROM tickets GROUP BY 1"))
        assert set(found) == {"billing", "login", "speed", "other"} and sum(found.values()) == 900


# 004: a flow over media


def test_the_video_flow_does_nothing_twice_and_tries_uploads_again(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed; on Debian: apt install ffmpeg")
    port = str(free_port())
    outputs = []
    for _ in range(2):
        with program(str(EXAMPLES / "video.py"), cwd=tmp_path, PORT=port) as process:
            outputs.append(process.communicate(timeout=50)[0].decode())
            assert process.returncode == 0, outputs[-1]
    assert "upload    succeeded attempt 2" in outputs[0] and outputs[0].endswith("run 1 succeeded\n")
    assert outputs[1].endswith("run 1 succeeded\n")
    assert sorted(path.name for path in (tmp_path / "video-storage").iterdir()) == [
        "clip-v1-1.0.png", "clip-v1-120p.mp4", "clip-v1-360p.mp4"
    ]  # fmt: skip


@pytest.mark.anyio
async def test_a_video_flow_without_ffmpeg_says_what_is_missing_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    example = load("video")
    (tmp_path / "clip.mp4").write_bytes(b"no film")
    params = {
        "source": (tmp_path / "clip.mp4").as_uri(),
        "media": "clip",
        "version": 1,
        "storage": "http://127.0.0.1:1",
    }
    async with example.scheduler as scheduler:
        run = await (await scheduler.submit("video", params)).wait()
    assert (
        run.result["failed_steps"] == ["large", "small", "still"]
        and run.result["steps"]["upload"]["state"] == "skipped"
    )
    assert {error["message"] for error in run.result["errors"]} == {
        "Fatal: ffmpeg is not installed; on Debian: apt install ffmpeg"
    }
