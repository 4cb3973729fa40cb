"""`taskloop doctor`: faults that were planted are found, each with what to do; where there are none it says so."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop import Cron, settings, shell
from taskloop.cli import checkup_host, checkup_program, checkup_store
from taskloop.cli.findings import guarded
from taskloop.processes import birth, this_process
from taskloop.store_data import Incident
from taskloop.store_sqlite import SqliteStore

WELL = """
[scheduler]
app = "shop:jobs"
timezone = "Europe/London"
loop_limit = "30s"
"""
MACHINE = ("system does not know", "a write to", "each command that needs them waits for")
"""Warnings that are the machine's, which may be busy."""


@pytest.fixture
def found(shop, call):
    """Calls the doctor; gives the exit code, and the findings that are not well by name."""
    shop.write("config.toml", WELL)

    def found(*words):
        done = call("doctor", "--format", "json", *words)
        for one in done.items:
            assert (one["state"] == "ok") == (one["help"] is None) and one["text"], one
            assert one["ok"] == (one["state"] != "problem")
        assert done.code == (0 if all(one["ok"] for one in done.items) else 1)
        unwell = [
            one for one in done.items if one["state"] != "ok" and not any(text in one["text"] for text in MACHINE)
        ]
        return done.code, [(one["name"], one["state"], f"{one['text']} | {one['help']}") for one in unwell]

    return found


def said(findings, name, *texts):
    """Whether one finding of this name holds all these texts."""
    return any(one == name and all(text in line for text in texts) for one, _, line in findings)


async def with_store(work) -> None:
    store = SqliteStore("taskloop.db")
    await store.open()
    try:
        await work(store)
    finally:
        await store.close()


def test_where_all_is_well_it_says_so_in_a_line_each_and_ends_with_0(shop, call, found):
    assert found() == (0, []) and "taskloop.db" not in shop.files
    call("once", "hourly")
    assert found() == (0, [])
    done = call("doctor")
    names = [line.split()[1] for line in done.out.splitlines() if line.startswith(("✓", "⚠"))]
    assert {"python", "config", "import", "jobs", "store", "workers", "disk", "port", "access", "time", "loop"} <= set(
        names
    )
    assert done.out.splitlines()[-1].startswith("0 problems, ")
    assert "Europe/London: clocks go " in done.out and "Traceback" not in done.err


def test_mistakes_in_the_configuration_are_told_and_the_rest_is_looked_at_all_the_same(shop, found):
    shop.write("config.toml", WELL.replace("London", "Londn") + "graace = '1s'\n")
    code, findings = found()
    assert code == 1 and said(findings, "config", "scheduler.graace is unknown", "did you mean 'grace'?")
    assert said(findings, "config", "Europe/Londn", "did you mean 'Europe/London'?")
    shop.write("config.toml", "[store]\nurl = 'nowhere/app.db'\n[dask]\naddress = 'tcp://x:1'\n")
    shop.write(".env", "TASKLOOP_STOR__URL=x\nTASKLOOP_DEV=0\n")
    code, findings = found()
    assert code == 1 and said(findings, "store", "nowhere does not exist", "mkdir -p")
    assert said(findings, "config", "TASKLOOP_STOR__URL is no setting", "did you mean")
    shop.write("config.toml", WELL + "[store]\nurl = 'sqlite:///:memory:'\n")
    assert said(found()[1], "store", "nothing is kept")


def test_a_program_that_cannot_be_loaded_or_whose_jobs_never_come_is_a_problem(shop, found):
    shop.write("shop.py", "import shopp\n")
    assert said(found()[1], "jobs", "No module named 'shopp'", "shop.py:1")
    for number, (program, texts) in enumerate({
        "@jobs.job(name='a')\ndef b(): ...\n": ("'a'", "a.py:"),
        "@jobs.cron('0 0 30 2 *')\ndef b(): ...\n": ("0 0 30 2 *",),
        "from taskloop import At\ndef c(): ...\njobs.add_job(c, At('2001-01-01T00:00Z'), name='b')\n": ("b: 'at", "will not fire any more"),
    }.items()):  # fmt: skip
        name = f"shop{number}"
        shop.write(
            f"{name}.py", f"from taskloop import Jobs\njobs = Jobs()\n\n\n@jobs.job()\ndef a(): ...\n\n\n{program}"
        )
        code, findings = found("--app", f"{name}:jobs")
        texts = [text.replace("a.py", f"{name}.py") for text in texts]
        assert code == 1 and said(findings, "jobs", *texts), (texts, findings)


def test_what_an_import_leaves_behind_is_told(shop, found, monkeypatch):
    shop.write(
        "shop.py",
        "import os, signal, socket, threading\nfrom taskloop import Jobs\nprint('hello')\njobs = Jobs()\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, daemon=True, name='ticker').start()\nheard = socket.socket()\n"
        "open('made.txt', 'w').close()\nformer = signal.signal(signal.SIGHUP, lambda *_: None)\nos.chdir('/')\n",
    )
    try:
        code, findings = found()
    finally:
        left = sys.modules.pop("shop")
        left.stop.set()
        left.heard.close()
        checkup_program.signal.signal(checkup_program.signal.SIGHUP, left.former)
    text = " ".join(line for name, state, line in findings if (name, state) == ("import", "warning"))
    for one in ("ticker", "1 sockets", "made.txt", "directory to /", "signals"):
        assert one in text, text


def test_a_store_that_cannot_be_used_as_it_is_is_a_problem(shop, call, found):
    call("once", "hourly")
    with closing(sqlite3.connect("taskloop.db")) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    code, findings = found()
    assert code == 1 and said(findings, "store", "journal mode of taskloop.db is 'delete'", "taskloop db upgrade")
    assert call("db", "upgrade").code == 0 and found() == (0, [])
    with closing(sqlite3.connect("taskloop.db", isolation_level=None)) as db:
        db.execute("UPDATE taskloop_meta SET value = '1' WHERE key = 'schema'")
        assert said(found()[1], "store", "has schema 1", "taskloop db upgrade")
        db.execute("UPDATE taskloop_meta SET value = '999' WHERE key = 'schema'")
        assert said(found()[1], "store", "has schema 999", "install the newer taskloop")
    shop.write("taskloop.db", "no database at all " * 20)
    assert said(found()[1], "store", "not")


def test_what_workers_say_of_clocks_and_loops_is_told(shop, call, found):
    call("once", "hourly")
    now = datetime.now(UTC)

    async def plant(store):
        ahead = this_process("ahead", now + timedelta(hours=1), time.monotonic())
        await store.enlist(replace(ahead, version="0.0.1"))
        still = replace(this_process("still", now, 0.0), pid=os.getppid(), beat_tick=time.monotonic() - 60)
        await store.enlist(replace(still, process=f"{still.process.rpartition(':')[0]}:{birth(os.getppid())}"))
        await store.beat(ahead, ahead.beat_at, time.monotonic(), {"blocked": {"ms": 5000, "where": "img.py:88"}})
        await store.note([
            Incident(ahead.id, "loop_blocked", now, now, {"ms": 1300, "job": "resize", "where": "img.py:88"}),
            Incident(ahead.id, "clock", now, now, {"step_seconds": -42}),
        ])  # fmt: skip

    asyncio.run(with_store(plant))
    code, findings = found()
    assert code == 1
    assert said(findings, "clock", "s ahead of this one, allowed is 1 s", "NTP"), findings
    assert said(findings, "workers", "is taskloop 0.0.1")
    silent = f"pid {os.getppid()} has not beaten for "
    assert said(findings, "workers", silent, "or it has the file open that stood here before this one")
    assert said(findings, "loop", f"pid {os.getpid()} stands still, at img.py:88", "asyncio.to_thread")
    assert said(findings, "loop", "at worst for 1300 ms by job resize, at img.py:88", "asyncio.to_thread")
    assert said(findings, "loop", "a loop stood still once within a day")
    assert said(findings, "clock", "set once within a day, last by -42 s")
    woken = Incident("ahead", "clock", now, now + timedelta(seconds=1), {"step_seconds": 90})
    asyncio.run(with_store(lambda store: store.note([woken])))
    assert said(found()[1], "clock", "set, or it slept, 2 times within a day, last by 90 s", "keep the machine awake")


def test_a_loop_that_no_function_of_the_program_held_is_no_fault_of_one():
    """Nobody can put the function of a built-in job into a thread."""

    def found(*places):
        now = datetime.now(UTC)
        return list(
            checkup_store.past([Incident("w", "loop_blocked", now, now, {"ms": 300, "where": at}) for at in places])
        )

    for at in (f"{shell.__file__}:57 call", f"{asyncio.__file__}:1 run", f"{pytest.__file__}:9 main"):
        [finding] = found(at, at)
        assert "2 times" in finding.text and "no function of the program was at work there" in finding.help
    for at in ("img.py:88 Shop.resize", f"{__file__}:12 found", "?:0 ?"):
        assert "asyncio.to_thread" in found(at)[0].help


def test_of_workers_elsewhere_those_count_that_beat_by_the_clock_of_the_server():
    now = datetime.now(UTC)

    def told(ahead, **seconds_ago):
        there = []
        for name, seconds in seconds_ago.items():
            one = this_process(name, now - timedelta(seconds=seconds), 0.0)  # by a clock that shows what ours does
            there.append(replace(one, host=name, process="m:b:p:1", beat_tick=None, health={"skew_ms": ahead * 1000.0}))
        found = checkup_store.workers(there, timedelta(seconds=15), now + timedelta(seconds=ahead))
        return [f"{one.state}: {one.text}" for one in found]

    pid = os.getpid()
    for ahead in (0, -3600, 3600):
        assert told(ahead, a=3, b=40) == [
            f"problem: worker b pid {pid} has not beaten for 40 s", f"ok: 1: a pid {pid}"
        ]  # fmt: skip
        assert told(ahead, a=40) == [f"problem: worker a pid {pid} has not beaten for 40 s"]
    assert told(0) == ["ok: none is running"]


def test_the_clock_of_another_machine_is_told_from_its_next_beat(shop):
    asyncio.run(with_store(beats_elsewhere))


async def beats_elsewhere(store):
    now = datetime.now(UTC)
    elsewhere = replace(
        this_process("far", now - timedelta(minutes=2), 0.0), host="far", process="m:b:p:1", beat_tick=None
    )
    right = replace(
        this_process("near", now - timedelta(seconds=3), 0.0), host="near", process="m:b:p:2", beat_tick=None
    )
    await store.enlist(elsewhere)
    await store.enlist(right)
    watching = asyncio.create_task(checkup_store.skews(store, await store.workers(living=True)))
    for one, minutes in ((elsewhere, 2), (right, 0)):
        await store.beat(one, datetime.now(UTC) - timedelta(minutes=minutes), 1.0, {})
    [finding] = await watching
    assert finding.state == "problem" and "worker far" in finding.text and "s behind this one" in finding.text


def test_a_port_that_is_taken_and_an_open_door_without_a_lock_are_problems(shop, call, found):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        shop.write("config.toml", WELL + f"[http]\nport = {port}\nenabled = true\n")
        code, findings = found()
        assert code == 1 and said(findings, "port", f"127.0.0.1:{port} is in use by pid {os.getpid()}", f":{port + 1}")
        [served] = checkup_host.port(settings.load(), [os.getpid()])
        assert served.state == "ok" and f"served by worker pid {os.getpid()}" in served.text
        shop.write("taskloop.db", "no database at all " * 20)
        assert said(found()[1], "port", f"in use by pid {os.getpid()}", "mend the store first")
        (shop.folder / "taskloop.db").unlink()
    assert found() == (0, [])
    shop.write("config.toml", WELL + f"[http]\nhost = '0.0.0.0'\nport = {port}\n")
    code, findings = found()
    assert code == 1 and said(findings, "access", "0.0.0.0", "taskloop token create")
    assert call("token", "create", "anna", "--scope", "admin").code == 0
    assert found()[0] == 0
    shop.write("config.toml", WELL + "[http]\nhost = 'no.such.host.invalid'\n")
    assert said(found()[1], "port", "nobody can listen on no.such.host.invalid:8700")


def test_damage_in_the_middle_of_a_file_is_told_and_of_one_that_takes_long_to_read_nothing_is_claimed(
    shop, call, found, monkeypatch
):
    assert call("once", "add", "a=1").code == 0 and found() == (0, [])
    with open("taskloop.db", "r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 12)
    assert said(found()[1], "store", "taskloop.db is damaged: ", "put a backup back")
    with closing(sqlite3.connect("taskloop.db")) as db:
        monkeypatch.setattr("threading.Timer", partial(_AtOnce, db))
        assert checkup_store._damage(db) is None
        db.set_progress_handler(None, 0)
        assert db.execute("SELECT 1").fetchone() == (1,), "the connection is as it was"


class _AtOnce:
    """A timer that goes off within the first statement of a connection."""

    def __init__(self, db, _, call):
        self.start = partial(db.set_progress_handler, call, 1)

    def cancel(self):
        pass


def test_of_a_file_that_this_user_may_not_write_it_is_told_once_whose_it_is(shop, call, found, monkeypatch):
    assert call("once", "add", "a=1").code == 0
    (shop.folder / "taskloop.db").chmod(0o640)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith(".db") and access(path, mode))
    [told] = [text for name, _, text in found()[1] if name == "store"]
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert f"this user ({name}) may not write taskloop.db ({name}'s, mode 640) | give this user" in told


def test_files_that_others_may_change_or_read_secrets_in_are_told(shop, call, found, monkeypatch):
    with TemporaryDirectory(dir="/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        monkeypatch.chdir(open_to_all)
        Path("config.toml").write_text("[jobs.git_metrics]\nat = 2099-01-01T00:00:00Z\n")
        assert call("once").code == 0
        Path("taskloop.db").chmod(0o666)
        assert said(found()[1], "permissions", "may change taskloop.db", "chmod o-w taskloop.db")
        Path("taskloop.db").chmod(0o644)
        assert found() == (0, [])
        call("token", "create", "anna", "--scope", "admin")
        Path(".env").write_text("TASKLOOP_HTTP__TOKEN=short\n")
        Path(".env").chmod(0o644)
        Path("taskloop.env").write_text("BANK_PASSWORD=short\n")
        Path("taskloop.env").chmod(0o644)
        code, findings = found()
        assert code == 0 and said(findings, "permissions", "may read taskloop.db", "chmod o-r")
        assert said(findings, "permissions", "may read taskloop.env", "chmod o-r taskloop.env")
        assert said(findings, "permissions", "may read .env") and said(findings, "access", "has 5 characters")
        Path(open_to_all).chmod(0o777)
        assert said(found()[1], "permissions", "in the place of those in", "chmod o-w")


def test_missing_zone_files_are_a_problem_where_a_zone_is_needed(shop):
    (shop.folder / "tzdata").mkdir()  # instead of the package of this name
    shop.write("tzdata/__init__.py", "")
    shop.write("config.toml", WELL.replace("Europe/London", "UTC"))
    done = shop.process("doctor", PYTHONTZPATH="/nowhere")
    assert done.code == 0 and "no zone files are installed" in done.out and "help: pip install tzdata" in done.out
    shop.write("config.toml", WELL)
    done = shop.process("doctor", PYTHONTZPATH="/nowhere")
    assert done.code == 1 and "✗ time zone" in done.out and done.out.count("pip install tzdata") > 1


def test_zone_files_of_years_ago_are_told():
    files = checkup_host.ZoneFiles("/usr/share/zoneinfo", "2024b")
    assert checkup_host.zone_rules(files, datetime(2025, 12, 1, tzinfo=UTC), needed=True).state == "ok"
    assert "update the system's package" in (
        checkup_host.zone_rules(files, datetime(2026, 1, 1, tzinfo=UTC), needed=True).help or ""
    )


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        ("30 1 * * *", True, True),
        ("30 2 * * *", False, False),
        ("0 2 * * *", False, False),
        ("*/5 * * * *", False, False),
    ],
)
def test_the_next_change_of_a_clock_is_known_and_which_jobs_it_touches(expression, spring, autumn):
    london = ZoneInfo("Europe/London")
    first = checkup_program.next_change(london, datetime(2026, 1, 1, tzinfo=UTC))
    assert first is not None and first.text == "forward Sun 29 Mar 2026 01:00 to 02:00"
    second = checkup_program.next_change(london, first.at)
    assert second is not None and second.text == "back Sun 25 Oct 2026 02:00 to 01:00"
    cron = Cron(expression, timezone="Europe/London")
    assert (checkup_program.shows_within(cron, first), checkup_program.shows_within(cron, second)) == (spring, autumn)
    assert checkup_program.next_change(ZoneInfo("Asia/Tokyo"), first.at) is None


def test_jobs_whose_zone_nobody_has_said_are_named(shop, found):
    shop.write("config.toml", "[scheduler]\napp = 'shop:jobs'\n")
    assert found() == (0, [("time zone", "warning", next(iter(line for _, _, line in found()[1])))])
    assert said(found()[1], "time zone", "1 of the jobs names no zone and follows UTC: nightly")


def test_a_server_that_takes_seconds_to_answer_is_told():
    assert checkup_store.opening("shown", 0.9, remote=True).state == "ok"
    slow = checkup_store.opening("shown", 9.17, remote=True)
    assert (slow.state, slow.text) == ("warning", "shown opens in 9170 ms") and "pg_stat_activity" in slow.help


def test_the_disk_is_held_against_what_the_store_will_hold():
    day, gb = timedelta(days=1), 10**9
    grown = checkup_store.Growth(size=gb, days=10)
    assert checkup_store.room(10**8, None, day).state == "problem"
    assert checkup_store.room(100 * gb, grown, 90 * day).text == (
        "100.0 GB free; the store has 1.0 GB and grew 100.0 MB a day; runs are kept 90d"
    )
    assert checkup_store.room(5 * gb, grown, 90 * day).state == "warning"
    assert checkup_store.room(5 * gb, grown, 10 * day).state == "ok"
    assert "full in 50 days" in checkup_store.room(5 * gb, grown, None).text
    assert checkup_store.room(5 * gb, checkup_store.Growth(gb, 0.1), None).state == "ok"


def test_a_unit_of_systemd_that_no_longer_fits_is_told(shop, call, found, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert call("systemd", "--user", "--name", "shop", "--write").code == 0
    assert call("systemd", "--user", "--name", "due", "--timer", "Mon 02:00", "--write").code == 0
    unit = tmp_path / "home" / "systemd" / "user" / "shop.service"
    assert found() == (0, []) and "shop.service fits" in call("doctor").out
    shop.write("config.toml", WELL + "grace = '2m'\n")
    assert said(
        found()[1],
        "systemd",
        "it kills 45 s after a stop",
        "125 s",
        "taskloop systemd --user --name shop --write --force",
    )
    mend = "taskloop systemd --user --timer 'Mon 02:00' --name due --write --force"
    assert said(found()[1], "systemd", "due.service is out of date", mend)
    (unit.parent / "due.service").unlink()
    unit.write_text(unit.read_text().replace(sys.executable, "/nowhere/python").replace("130 143", "0"))
    assert said(found()[1], "systemd", "/nowhere/python is not there", "takes a clean stop for a failure")
    of_somebody = f"WorkingDirectory={shop.folder}\nExecStart=/bin/sh -c 'exec taskloop run \\\n --http'\n"
    unit.write_text(f"[Service]\n{of_somebody}SuccessExitStatus=143\n")
    assert "shop.service fits" in call("doctor").out
    unit.write_text(f"[Service]\n{of_somebody}")
    _, found_wrong = found()
    assert said(found_wrong, "systemd", "does not fit", "takes a clean stop for a failure", "mend it")
    assert "--force" not in str(found_wrong)  # a unit that somebody wrote by hand is not to be replaced


def test_a_check_that_fails_itself_is_a_finding():
    [one] = guarded("store", lambda: 1 / 0)
    assert one.state == "problem" and "ZeroDivisionError" in one.text
