"""Jobs of cron and APScheduler become tables that `taskloop check` accepts, and what will be different stands beside them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.cron import CronTrigger
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from command_line import surroundings

from taskloop import Cron
from taskloop.migrate import apscheduler, crontab
from taskloop.migrate.__main__ import main
from taskloop.migrate.tables import Moved, document

CRONTAB = r"""
# the jobs of a shop
SHELL=/bin/bash
PATH = "/usr/local/bin:/usr/bin"
MAILTO=ops@example.org
*/5 * * * *	/usr/local/bin/poll.sh --quiet >/dev/null 2>&1
MAILTO=""
0 2 * * 1-5 cd /srv/shop && python3 manage.py nightly
15 3 1,15 * FRI mail -s "100\% done" boss%Dear boss,%all is well.
@daily /usr/local/bin/poll.sh
CRON_TZ=Asia/Tokyo
HOME=/srv
@Reboot env FOO=1 nice -n 5 warm-up "it's; \"odd\""
30 1 * * * ./night
"""


def tables(text: str, **options) -> dict:
    moved = crontab.read(text, **{"system": False, "zone": "Europe/London", **options})
    return tomllib.loads(document(crontab.HEAD, moved))["jobs"]


def test_a_crontab_becomes_jobs_that_check_accepts(shop, call, capfd):
    shop.write("tab", CRONTAB)
    assert main(["crontab", "tab", "--timezone", "Europe/London"]) == 0
    said = capfd.readouterr()
    assert "6 jobs moved, 0 not" in said.err
    shop.write("config.toml", said.out)
    done = call("check")
    assert done.code == 0, done.err + done.out
    jobs = tomllib.loads(said.out)["jobs"]
    assert list(jobs) == ["poll", "manage", "mail", "poll-2", "warm-up", "night"]
    assert jobs["poll"]["cron"] == "*/5 * * * *" and jobs["poll"]["timezone"] == "Europe/London"
    assert jobs["poll"]["params"] == {
        "line": "/usr/local/bin/poll.sh --quiet >/dev/null 2>&1", "folder": "~", "shell": "/bin/bash",
        "environment": {"SHELL": "/bin/bash", "PATH": "/usr/local/bin:/usr/bin"},
    }  # fmt: skip
    assert jobs["mail"]["params"]["line"] == 'mail -s "100% done" boss'
    assert jobs["mail"]["params"]["stdin"] == "Dear boss,\nall is well.\n"
    assert (
        jobs["warm-up"]["on_start"] is True
        and "cron" not in jobs["warm-up"]
        and jobs["warm-up"]["params"]["folder"] == "/srv"
    )
    assert jobs["night"]["timezone"] == "Asia/Tokyo"
    text = said.out
    assert text.count("went to ops@example.org by mail") == 1 and "not when the machine does" in text
    assert 'overlap = "allow"' in text and "#   */5 * * * *\t/usr/local/bin/poll.sh" in text


def test_the_jobs_of_a_crontab_run(shop, call, capfd):
    shop.write("tab", f"HOME={shop.folder}\n@reboot cat > said; echo 50\\% done%one%two\n")
    assert main(["crontab", "tab"]) == 0
    shop.write("config.toml", capfd.readouterr().out)
    assert call("run", "--for", "1s").code == 0
    [run] = call("runs", "--job", "cat", "--format", "json").items
    assert run["params"]["environment"] == {"HOME": str(shop.folder)}, "as cron has it"
    assert (run["state"], run["summary"]) == ("succeeded", "50% done")
    assert (shop.folder / "said").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [("61 * * * * x", "minute is 61"), ("~ 4 * * * x", "random value"), ("@sometimes x", "'@sometimes' is none of"),
     ("0 0 30 2 * x", "30 2"), ("1 2 3", "no line of a crontab"), ("@daily", "no line of a crontab"), ("* * * * *", "no line")],
)  # fmt: skip
def test_a_line_that_cannot_be_moved_is_a_comment_with_the_reason(line, why, shop, capfd):
    shop.write("tab", f"{line}\n0 1 * * * good\n")
    assert main(["crontab", "tab"]) == 1
    said = capfd.readouterr()
    assert list(tomllib.loads(said.out)["jobs"]) == ["good"] and "1 job moved, 1 not" in said.err
    assert f"#   {line}" in said.out and why in said.out.partition("NOT MOVED: ")[2]


def test_a_crontab_of_the_system_names_users():
    moved = crontab.read("17 * * * * root cd / && run-parts /etc/cron.hourly\n", system=True, zone="UTC")
    [one] = moved
    assert one.keys["params"]["line"] == "cd / && run-parts /etc/cron.hourly" and one.name == "run-parts"
    assert "timezone" not in one.keys and any("it ran as root" in note for note in one.notes)
    [one] = crontab.read("17 * * * * x\n", system=False, zone=None)
    assert any("zone of this machine is not known" in note for note in one.notes)


@pytest.mark.parametrize(
    ("text", "named"),
    [("17 * * * * root cd / && x\n@daily\tnobody  y z\nA=1\n", "(nobody, root)"), ("17 * * * * root x\n* * * * * ./root y\n", None),
     ("* * * * * root\n", None), ("A=1\n", None), ("1 2 3\n", None)],
)  # fmt: skip
def test_what_looks_like_a_crontab_of_the_system_is_said_to(text, named, shop, capfd):
    shop.write("shop.cron", text)
    main(["crontab", "shop.cron"])
    said = capfd.readouterr().err
    assert (f"a user of this machine {named}, as in /etc/cron.d" in said and "add --system" in said) == bool(named)
    main(["crontab", "shop.cron", "--system"])
    assert "warning" not in capfd.readouterr().err


SCHEDULERS = """
from datetime import datetime, timezone
from apscheduler.schedulers.background import BackgroundScheduler

scheduler = BackgroundScheduler(timezone="Europe/London", job_defaults={"max_instances": 1})


def sync(batch, mail=True, day=None): ...
def tidy(): ...


scheduler.add_job(sync, "cron", [500], hour=2, day_of_week="mon-fri", id="nightly", misfire_grace_time=3600, kwargs={"mail": False, "day": None})
scheduler.add_job(tidy, "interval", minutes=5)
scheduler.add_job(tidy, "interval", weeks=2, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), id="two weeks", coalesce=False, jitter=30)
scheduler.add_job(tidy, "date", run_date=datetime(2099, 1, 1, tzinfo=timezone.utc), id="party", max_instances=3)
scheduler.add_job(tidy, "date", run_date=datetime(2001, 1, 1, tzinfo=timezone.utc), id="gone")
scheduler.add_job(sync, "cron", [object()], id="object")
scheduler.add_job(sync, "cron", [[{"a": None}]], id="null")
scheduler.add_job(tidy, "cron", year=2030, id="year")
scheduler.add_job(tidy, "cron", day="1-7", day_of_week="mon", id="both")
scheduler.add_job(lambda: 1, "interval", hours=1, id="lambda")
scheduler.add_job(tidy, "cron", second=30, minute="*/2", id="seconds", executor="processpool", next_run_time=None)


def build():
    return scheduler
"""


def test_the_jobs_of_a_scheduler_become_tables_that_check_accepts(shop, call):
    shop.write("shed.py", SCHEDULERS)
    done = subprocess.run(
        [sys.executable, "-m", "taskloop.migrate", "apscheduler", "shed:build"], cwd=shop.folder, env=surroundings({}),
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "5 jobs moved, 6 not" in done.stderr, done.stderr
    jobs = tomllib.loads(done.stdout)["jobs"]
    assert jobs == {
        "nightly": {"call": "shed:sync", "cron": "0 2 * * 1-5", "timezone": "Europe/London",
                    "params": {"batch": 500, "mail": False}, "max_late": "1h"},
        "tidy": {"call": "shed:tidy", "every": "5m", "first": "after"},
        "two_weeks": {"call": "shed:tidy", "every": "2w", "anchor": "2026-01-01T00:00:00+00:00", "missed": "all"},
        "party": {"call": "shed:tidy", "at": "2099-01-01T00:00:00+00:00", "overlap": "allow", "max_running": 3},
        "seconds": {"call": "shed:tidy", "cron": "30 */2 * * * *", "timezone": "Europe/London", "executor": "process",
                    "enabled": False},
    }  # fmt: skip
    reasons = done.stdout.split("NOT MOVED: ")[1:]
    for reason, text in zip(
        reasons,
        (
            "has passed",
            "object with what is no JSON",
            "list with what is no JSON",
            "year = '2030'",
            "must both fit",
            "cannot be imported",
        ),
        strict=True,
    ):
        assert text in reason.partition("\n\n")[0].replace("\n# ", " ")
    assert "jitter of 30 s is left out" in done.stdout
    shop.write("config.toml", done.stdout)
    assert call("check").code == 0


POOLS = """
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

pools = {"default": ThreadPoolExecutor(1), "cpu": ProcessPoolExecutor(2), "process mail": ThreadPoolExecutor(3)}
scheduler = BackgroundScheduler(timezone="UTC", executors=pools)


def tidy(): ...


scheduler.add_job(tidy, "interval", minutes=5, id="one")
scheduler.add_job(tidy, "interval", minutes=5, id="two", executor="cpu")
scheduler.add_job(tidy, "interval", minutes=5, id="three", executor="process mail")
scheduler.add_listener(print)
scheduler.add_listener(repr)
"""


def test_a_job_of_a_process_pool_stays_one_and_what_its_pool_or_a_listener_did_is_said(shop, call):
    shop.write("pools.py", POOLS)
    done = subprocess.run(
        [sys.executable, "-m", "taskloop.migrate", "apscheduler", "pools"], cwd=shop.folder, env=surroundings({}),
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    jobs = tomllib.loads(done.stdout)["jobs"]
    assert {name: job.get("executor") for name, job in jobs.items()} == {"one": None, "two": "process", "three": None}
    said = done.stdout.replace("\n#   ", " ").replace("\n# ", " ")
    assert "its executor 'default' ran at most 1 of" in said
    assert "its executor 'cpu' ran at most 2 of" in said and 'group = "cpu" here, and cpu = 2 below [groups]' in said
    assert "its executor 'process mail' ran at most 3 of" in said and 'group = "process_mail" here' in said
    assert "its 2 listeners are NOT MOVED" in said
    shop.write("config.toml", done.stdout)
    assert call("check").code == 0


LATER = """
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.combining import AndTrigger
from apscheduler.triggers.cron import CronTrigger

scheduler = BackgroundScheduler(timezone="UTC")


class Size(Enum):
    LONG = "long"


def report(day: date, took: timedelta, size: Size, seen=None): ...


typed = [date(2026, 1, 5), timedelta(hours=2), Size.LONG]
scheduler.add_job(report, "cron", typed, hour=2, id="typed")
scheduler.add_job(report, "cron", [*typed, date(2026, 1, 5)], hour=2, id="untyped")
far, near = (datetime.now(timezone.utc) + timedelta(days=days) for days in (60, 5))
scheduler.add_job(report, "interval", typed, weeks=2, start_date=far, id="far")
scheduler.add_job(report, "interval", typed, weeks=2, start_date=near, id="near")
scheduler.add_job(report, AndTrigger([CronTrigger(hour=2), CronTrigger(day=3)]), typed, id="both")
"""


def test_what_an_annotation_reads_is_moved_and_a_start_that_is_far_is_told(shop, call):
    shop.write("later.py", LATER)
    done = subprocess.run(
        [sys.executable, "-m", "taskloop.migrate", "apscheduler", "later"], cwd=shop.folder, env=surroundings({}),
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    jobs = tomllib.loads(done.stdout)["jobs"]
    assert jobs["typed"]["params"] == {"day": "2026-01-05", "took": "PT2H", "size": "long"}, done.stderr
    assert list(jobs) == ["typed", "far", "near"]
    told = {part.partition("'")[0]: part.replace("\n# ", " ") for part in done.stdout.split("# job '")[1:]}
    assert "its argument 'seen' is a date with what is no JSON" in told["untyped"]
    assert "let it fire by one of them" in told["both"]
    assert "taskloop begins before, on the same grid" in told["far"] and "begin" not in told["near"]
    shop.write("config.toml", done.stdout)
    assert call("check").code == 0


UNFIT = """
import time
from apscheduler.schedulers.background import BackgroundScheduler

scheduler = BackgroundScheduler(timezone="UTC")


class Shop:
    def close(self): ...


def named(**options): ...
def several(*numbers): ...
def placed(number, /): ...
def yields():
    yield 1
def typed(number: int): ...
async def on_loop(): ...
def good(): ...


for function, options in (
    (print, {}), (time.sleep, {"args": [1]}), (Shop, {}), (Shop().close, {}), (named, {}), (named, {"kwargs": {"a": 1}}), (several, {}),
    (placed, {"args": [1]}), (yields, {}), (typed, {"args": ["one"]}), (on_loop, {"executor": "processpool"}), (good, {}),
):
    scheduler.add_job(function, "interval", minutes=5, **options)
"""


def test_a_job_whose_table_would_be_refused_is_a_comment_with_the_reason(shop, call):
    shop.write("unfit.py", UNFIT)
    done = subprocess.run(
        [sys.executable, "-m", "taskloop.migrate", "apscheduler", "unfit"], cwd=shop.folder, env=surroundings({}),
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "1 job moved, 11 not" in done.stderr, done.stderr
    assert list(tomllib.loads(done.stdout)["jobs"]) == ["good"]
    said = done.stdout.replace("\n# ", " ")
    for reason in (
        "got builtin_function_or_method; wrap it in a def", "got type; wrap it in a def", "close is a bound method",
        "takes '**options', which cannot be stored by name", "takes '*numbers'", "takes 'number'", "yields yields",
        "parameter 'number': input should be a valid integer", "cannot run in a process: it is an async def",
    ):  # fmt: skip
        assert reason in said
    shop.write("config.toml", done.stdout)
    assert call("check").code == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"day_of_week": "mon-fri", "hour": 2}, {"day_of_week": 6}, {"day_of_week": "sat-sun", "minute": "*/10"}, {"day": "last"},
        {"day_of_week": "*/2"}, {"day_of_week": "tue,5-6"}, {"day": "2nd fri", "hour": "8-18/5"}, {"day": "last sun"},
        {"month": "jan,jun", "day": "1,15"}, {"day": "*/10", "hour": "*/6"}, {"second": "*/20", "hour": 3, "minute": 59},
        {"day_of_week": "mon-fri/2"},
    ],
)  # fmt: skip
def test_a_cron_fires_when_apscheduler_would(fields):
    theirs = CronTrigger(**fields, timezone="UTC")
    keys, _, refused = apscheduler._cron(theirs)
    assert refused is None
    ours, at = Cron(keys["cron"], timezone=keys["timezone"]), datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(30):
        following = theirs.get_next_fire_time(at, at + timedelta(seconds=1))
        at = ours.after(at)
        assert at == following


def test_what_is_no_file_or_no_scheduler_is_said(shop, capfd):
    shop.write("nothing.py", "x = 3\n")
    for words, text in (
        (["crontab", "missing"], "missing"),
        (["apscheduler", "no_such_module:x"], "no_such_module"),
        (["apscheduler", "nothing:y"], "has no 'y'"),
        (["apscheduler", "nothing:x"], "is a int, and no scheduler"),
    ):
        assert main(words) == 3
        assert text in capfd.readouterr().err


def test_any_text_is_a_value_of_toml_again():
    odd = 'quote " back \\ tab \t line \n del \x7f esc \x1b ünï 😀 #'
    keys = {"call": odd, "params": {odd: [1, 2.5, True, {"a": odd}], "empty": {}}}
    text = document(["head"], [Moved(name="a.b", origin=f"x\n{odd}", keys=keys, notes=[odd])])
    assert tomllib.loads(text) == {"jobs": {"a.b": keys}}
