"""The configuration: what counts, what is refused and how it is told; and the light reader of the store's address."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import dotenv
import pytest
from hypothesis import example, given
from hypothesis import settings as runs
from hypothesis import strategies as st

from taskloop import address, policy
from taskloop.errors import BadSettings, BadStore
from taskloop.jobs import Job, Jobs
from taskloop.options import Options
from taskloop.retry import Retry
from taskloop.file_jobs import FileJob
from taskloop.settings import Settings, load
from taskloop.targets import load_app, load_job
from taskloop.store import open_store
from taskloop.triggers import At, Cron, Every

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def read(folder, toml="", env="", environ=None, **more):
    """The settings of a folder that holds these two files, unless they are empty."""
    for name, text in (("config.toml", toml), (".env", env)):
        if text:
            (folder / name).write_text(text, encoding="utf-8")
    return load(directory=folder, environ=environ or {}, **more)


def problems(folder, toml="", env="", environ=None, **more):
    with pytest.raises(BadSettings) as caught:
        read(folder, toml, env, environ, **more)
    return caught.value.problems


def only(found):
    assert len(found) == 1, found
    return found[0]


def values(settings):
    return settings.model_dump(exclude={"jobs"})


def test_without_any_source_all_is_as_the_contract_says(folder):
    settings = read(folder)
    assert settings.options() == Options(groups={"worker": 1})
    assert settings.store.statement_cache_size == 100
    assert (settings.http.enabled, settings.http.host, settings.http.port) == (False, "127.0.0.1", 8700)
    assert (settings.http.token, settings.http.hosts) == ("", ())
    assert settings.http.submit_limit == (30, timedelta(minutes=1))
    assert settings.http.request_limit == (1200, timedelta(minutes=1))
    assert (settings.log.level, settings.log.format, settings.log.capture) == ("INFO", "auto", 200_000)
    assert (settings.dask.address, settings.git_metrics.repositories) == ("", (".",))
    assert (settings.app, settings.dev, settings.banner, settings.warnings) == (None, None, None, [])
    assert (settings.file_jobs(), settings.defaults, settings.directory) == ([], {}, folder.absolute())


def test_the_config_file_of_the_repository_says_the_defaults_and_registers_git_metrics(folder):
    settings = load(ROOT / "config.toml", environ={}, directory=folder)
    assert values(settings) == values(read(folder))
    assert settings.file_jobs() == [FileJob(name="git_metrics")]
    assert settings.git_metrics.repositories == (".",)


def keys():
    sections = {name: one.annotation for name, one in Settings.model_fields.items()}
    return [(name, key) for name, one in sections.items() for key in getattr(one, "model_fields", ())]


def test_the_config_file_of_the_repository_and_the_page_name_every_key(folder):
    settings = load(ROOT / "config.toml", environ={}, directory=folder)
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for section, key in keys():
        assert settings.is_given(section, key), key
        assert f"| `{key}` |" in page or f"| `{key}` ¹ |" in page, key
    assert settings.warnings == []


def test_what_the_config_file_of_the_repository_has_commented_out_can_be_read(folder):
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    text = re.sub(r"^# (?=\[jobs|\w+ = )", "", text, flags=re.MULTILINE)
    jobs = {job.name: job for job in read(folder, text).file_jobs()}
    assert jobs["nightly"].trigger == Cron("0 2 * * *", timezone="Europe/London")
    assert jobs["prune_history"].trigger == Cron("0 4 * * *")
    assert set(jobs) == {"git_metrics", "prune_history", "heartbeat", "current_date", "send_mail", "nightly"}


def test_the_example_of_an_env_file_is_understood(folder):
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    settings = read(folder, env=re.sub(r"^# (?=TASK)", "", text, flags=re.MULTILINE))
    assert settings.warnings == []
    assert settings.http.hosts == ("jobs.example.org", "jobs.internal")
    assert settings.dev == timedelta(seconds=10)


SAMPLE = """
[scheduler]
grace = "-5s"
port = 9
[jobs.nightly]
cron = "0 2 * * *"
timezone = "Europe/Londn"
"""


def test_the_mistakes_on_the_page_are_told_as_they_stand_there(folder):
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sample = page.partition("```text\n")[2].partition("```")[0].splitlines()
    found = problems(folder, SAMPLE, "\n\nTASKLOOP_DEV='1\n", {"TASKLOOP_HTTP__PORT": "70000"})
    assert sorted(found) == sorted(sample)


# Which source counts.

FULL = {
    "arguments": {"arguments": {"scheduler": {"interval": "1s"}}},
    "environment": {"environ": {"TASKLOOP_SCHEDULER__INTERVAL": "2s"}},
    "environment, older name": {"environ": {"TASK_SCHEDULER_INTERVAL": "3s"}},
    ".env": {"env": "TASKLOOP_SCHEDULER__INTERVAL=4s\n"},
    ".env, older name": {"env": "TASK_SCHEDULER_INTERVAL=5s\n"},
    "file": {"toml": 'scheduler.interval = "6s"\n'},
}


@pytest.mark.parametrize("strongest", range(7))
def test_the_strongest_source_that_speaks_counts(folder, strongest):
    given = {"arguments": {}, "environ": {}, "env": "", "toml": ""}
    for source in list(FULL.values())[strongest:]:
        for kind, what in source.items():
            given[kind] = given[kind] + what if isinstance(what, str) else {**given[kind], **what}
    expected = timedelta(seconds=strongest + 1) if strongest < 6 else timedelta(weeks=2)
    assert read(folder, **given).scheduler.interval == expected


def test_sources_are_laid_over_each_other_key_by_key(folder):
    settings = read(
        folder,
        '[scheduler]\nthreads = 3\ngrace = "1s"\n[groups]\na = 2\nb = 2\n[jobs.x]\ntimeout = 5\npriority = 1\n',
        "TASKLOOP_GROUPS__B=3\nTASKLOOP_SCHEDULER__GRACE=2s\n",
        {"TASKLOOP_SCHEDULER__GRACE": "3s"},
        arguments={"jobs": {"x": {"priority": 2}}, "scheduler.max_running": 7, "scheduler": {"timezone": None}},
    )
    assert (settings.scheduler.threads, settings.scheduler.grace) == (3, timedelta(seconds=3))
    assert (settings.scheduler.max_running, settings.scheduler.timezone) == (7, "UTC")
    assert settings.groups == {"a": 2, "b": 3}
    assert settings.options().jobs == {"x": {"timeout": timedelta(seconds=5), "priority": 2}}


def test_arguments_are_tables_or_dotted_names_and_none_is_not_given(folder):
    arguments = {"store.url": "a.db", "store": {"keep": "1d"}, "http": None, "http.port": None, "log.level": "debug"}
    settings = read(folder, arguments=arguments)
    assert (settings.store.url, settings.store.keep) == ("a.db", timedelta(days=1))
    assert (settings.http.port, settings.log.level) == (8700, "DEBUG")
    assert settings.is_given("log", "level")
    assert not settings.is_given("http", "port")


def test_an_empty_variable_counts_as_not_given(folder):
    settings = read(folder, "http.token = 'abc'", environ={"TASKLOOP_HTTP__TOKEN": "", "TASKLOOP_GROUPS__A": ""})
    assert settings.http.token == "abc"
    assert settings.groups == {"worker": 1}


def test_only_the_table_taskloop_is_read_where_the_file_has_one(folder):
    settings = read(folder, '[taskloop.scheduler]\ngrace = "1s"\n[scheduler]\nnothing_of_ours = 1\n[tool]\nx = 1\n')
    assert settings.scheduler.grace == timedelta(seconds=1)
    found = only(problems(folder, '[taskloop.scheduler]\ngrace = "soon"\n'))
    assert found.startswith("config.toml: taskloop.scheduler.grace is 'soon'")
    assert only(problems(folder, "taskloop = 5")).startswith("config.toml: taskloop is 5; allowed is a table")


def test_without_files_only_the_environment_and_arguments_are_read(folder):
    settings = read(
        folder,
        "nonsense",
        "TASKLOOP_DEV=1",
        {"TASKLOOP_SCHEDULER__THREADS": "2"},
        files=False,
        arguments={"http.port": 1},
    )
    assert (settings.scheduler.threads, settings.http.port, settings.dev) == (2, 1, None)
    with pytest.raises(ValueError, match="files=False"):
        load("x.toml", files=False)


def test_the_process_environment_and_the_current_directory_are_the_usual_ones(folder, monkeypatch):
    (folder / "config.toml").write_text("scheduler.threads = 2\nhttp.port = 1\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TASKLOOP_HTTP__PORT", "2")
    settings = load()
    assert (settings.scheduler.threads, settings.http.port, settings.directory) == (2, 2, folder)
    assert address.store_address() == "sqlite:///taskloop.db"


def test_another_file_is_named_from_the_directory_on_and_must_exist(folder):
    (folder / "other.toml").write_text("scheduler.threads = 2\n")
    assert read(folder, "nonsense", config="other.toml").scheduler.threads == 2
    assert read(folder, config=folder / "other.toml").scheduler.threads == 2
    found = only(problems(folder, config="missing.toml"))
    assert found == f"missing.toml: there is no such file; looked for {folder / 'missing.toml'}"
    assert "no such file" in only(problems(folder, config="other.toml/x.toml"))


ENVIRONMENT = {
    "SCHEDULER__ENABLED": ("no", lambda one: one.scheduler.enabled, False),
    "SCHEDULER__MAX_RUNNING": (" 7 ", lambda one: one.scheduler.max_running, 7),
    "SCHEDULER__GRACE": ("0", lambda one: one.scheduler.grace, timedelta(0)),
    "SCHEDULER__LOOP_LIMIT": ("off", lambda one: one.scheduler.loop_limit, None),
    "SCHEDULER__MAX_RUNTIME": ("12h", lambda one: one.scheduler.max_runtime, timedelta(hours=12)),
    "SCHEDULER__APP": ("a.b:c", lambda one: one.app, "a.b:c"),
    "STORE__KEEP": ("off", lambda one: one.store.keep, None),
    "STORE__SYNCHRONOUS": ("normal", lambda one: one.store.synchronous, "normal"),
    "HTTP__ENABLED": ("ON", lambda one: one.http.enabled, True),
    "HTTP__PREFIX": ("/a/b.c/", lambda one: one.http.prefix, "/a/b.c"),
    "HTTP__HOSTS": ("a, b", lambda one: one.http.hosts, ("a", "b")),
    "HTTP__SUBMIT_LIMIT": ("5/1h", lambda one: one.http.submit_limit, (5, timedelta(hours=1))),
    "HTTP__REQUEST_LIMIT": ("9/1s", lambda one: one.options().http.request_limit, (9, timedelta(seconds=1))),
    "LOG__CAPTURE": ("1000", lambda one: one.log.capture, 1000),
    "DASK__ADDRESS": ("tcp://a:1", lambda one: one.dask.address, "tcp://a:1"),
    "GIT_METRICS__REPOSITORIES": ('["a,b", "c"]', lambda one: one.git_metrics.repositories, ("a,b", "c")),
    "GROUPS__MAIL": ("2", lambda one: one.groups, {"mail": 2}),
    "DEFAULTS__RETRY": ("3", lambda one: one.defaults, {"retry": Retry(3)}),
    "DEFAULTS__TIMEOUT": ("5m", lambda one: one.defaults, {"timeout": timedelta(minutes=5)}),
    "DEFAULTS__ON_START": ("true", lambda one: one.defaults, {"on_start": True}),
    "DEFAULTS__TAGS": ('["a"]', lambda one: one.defaults, {"tags": ("a",)}),
    "DEFAULTS__TITLE": ("a\nb = 1", lambda one: one.defaults, {"title": "a\nb = 1"}),
    "DEFAULTS__DESCRIPTION": ("1\nb = 1", lambda one: one.defaults, {"description": "1\nb = 1"}),
}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_a_variable_is_read_as_the_text_it_is(folder, name):
    text, ask, expected = ENVIRONMENT[name]
    assert ask(read(folder, environ={f"TASKLOOP_{name}": text})) == expected


IN_THE_FILE = [
    ('log.capture = "1MB"', lambda one: one.log.capture, 1_000_000),
    ('log.capture = "1.5 kiB"', lambda one: one.log.capture, 1536),
    ("log.capture = 5", lambda one: one.log.capture, 5),
    ('log.capture = "off"', lambda one: one.log.capture, None),
    ('log.level = "success"', lambda one: one.log.level, "SUCCESS"),
    ('http.submit_limit = "off"', lambda one: one.http.submit_limit, None),
    ("http.port = 0", lambda one: one.http.port, 0),
    ('scheduler.app = ""', lambda one: one.app, None),
    ("scheduler.grace = 1.5", lambda one: one.scheduler.grace, timedelta(seconds=1.5)),
    ('scheduler.grace = "5"', lambda one: one.scheduler.grace, timedelta(seconds=5)),
    ('scheduler.interval = "36525d"', lambda one: one.scheduler.interval, timedelta(days=36_525)),
    ('store.url = "data/app.db"', lambda one: one.store.url, "data/app.db"),
    ('store.url = "C:/app.db"', lambda one: one.store.url, "C:/app.db"),
    ('store.url = "sqlite:///what?mode=ro.db"', lambda one: one.store.url, "sqlite:///what?mode=ro.db"),
    ("groups = {}", lambda one: one.groups, {}),
    ('\ufeff[scheduler]\r\ntimezone = "Asia/Tokyo"\r\n', lambda one: one.scheduler.timezone, "Asia/Tokyo"),
]


@pytest.mark.parametrize(("toml", "ask", "expected"), IN_THE_FILE)
def test_a_value_of_the_file_is_read(folder, toml, ask, expected):
    assert ask(read(folder, toml)) == expected


# What is refused: the line, the key it must name, and two texts that the message must hold.

DURATION = "seconds as a number"
BAD = [
    ('scheduler.enabled = "yes"', "scheduler.enabled", "'yes'", "true or false"),
    ("scheduler.enabled = 1", "scheduler.enabled", " 1;", "true or false"),
    ("scheduler.interval = 0", "scheduler.interval", " 0;", "above zero"),
    ("scheduler.interval = -1", "scheduler.interval", "-1: it is negative", DURATION),
    ("scheduler.interval = nan", "scheduler.interval", "nan: it is not a finite", DURATION),
    ("scheduler.interval = inf", "scheduler.interval", "inf", DURATION),
    ("scheduler.interval = true", "scheduler.interval", "true: a bool", DURATION),
    ('scheduler.interval = "101y"', "scheduler.interval", "'101y'", DURATION),
    ('scheduler.interval = "36526d"', "scheduler.interval", "'36526d'", "longer than 100 years"),
    (f"scheduler.interval = 0x{'f' * 6000}", "scheduler.interval", "many digits", DURATION),
    ('scheduler.interval = "off"', "scheduler.interval", "'off'", DURATION),
    ('scheduler.max_runtime = "of"', "scheduler.max_runtime", "'of'", 'or "off"'),
    ('scheduler.timezone = "Europe/Londn"', "scheduler.timezone", "'Europe/Londn'", "did you mean 'Europe/London'"),
    ("scheduler.timezone = 1", "scheduler.timezone", " 1;", "a text"),
    ('scheduler.max_running = "5"', "scheduler.max_running", "'5'", "from 1 to 1000000, without quotes"),
    ("scheduler.max_running = true", "scheduler.max_running", "true", "whole number"),
    ("scheduler.max_running = 5.0", "scheduler.max_running", "5.0", "whole number"),
    ("scheduler.threads = 0", "scheduler.threads", " 0;", "from 1 to 10000"),
    ("scheduler.threads = 10001", "scheduler.threads", "10001", "from 1 to 10000"),
    ("scheduler.grace = []", "scheduler.grace", "[]", DURATION),
    ("scheduler.heartbeat = 0.001", "scheduler.heartbeat", "0.001", "10ms or more"),
    ('scheduler.heartbeat = "10s"', "scheduler.lease, by default,", "'15s'", "20s or more, twice scheduler.heartbeat"),
    ('scheduler.lease = "9s"', "scheduler.lease", "'9s'", "10s or more, twice scheduler.heartbeat (5s)"),
    ("scheduler.lease = -9", "scheduler.lease", "-9", DURATION),
    ('scheduler.app = "shop"', "scheduler.app", "'shop'", "'module:name'"),
    ('scheduler.app = "shop.1:x"', "scheduler.app", "'shop.1:x'", "'module:name'"),
    ('scheduler.graze = "1s"', "scheduler.graze", "did you mean 'grace'?", "known here are app"),
    ("scheduler.port = 1", "scheduler.port", "unknown", "belongs below [http]"),
    ("scheduler.xyzzy = 1", "scheduler.xyzzy", "unknown", "; known here are app"),
    ("scheduler = 5", "scheduler", "a number", "write [scheduler]"),
    (
        'store.url = "postgres://u:secret@h?password=other"',
        "store.url",
        "postgres://u:***@h?password=***",
        "names no database",
    ),
    (
        'store.url = "postgres://h/a?port=1&dbname=b"',
        "store.url",
        "names two databases, 'a' and 'b'",
        "leave one out",
    ),
    ('store.url = "mysql://h"', "store.url", "'mysql' is unknown", "sqlite:///file.db"),
    ('store.url = "sqlite://app.db"', "store.url", "names no file", "sqlite:///file.db"),
    ('store.url = "sqlite:///"', "store.url", "names no file", ":memory:"),
    (
        'store.url = "postgresql://u@h:abc/db"',
        "store.url",
        "u@h:abc/db', whose port is 'abc'",
        "from 1 to 65535, or none",
    ),
    ('store.url = "postgres://h:1,[::1]:65536/db"', "store.url", "whose port is '65536'", "from 1 to 65535, or none"),
    ('store.url = "postgres:///db?host=/run&port=x"', "store.url", "whose port is 'x'", "from 1 to 65535, or none"),
    ('store.url = "postgresql:"', "store.url", "which cannot be read", "sqlite:///file.db"),
    ('store.url = "sqlite:///a.db?mode=ro"', "store.url", "no options such as 'mode'", "from the '?' on"),
    ('store.url = " sqlite:///a.db"', "store.url", "begins with a blank", "sqlite:///file.db"),
    ('store.url = " "', "store.url", "' '", "sqlite:///file.db"),
    ("store.url = 5", "store.url", "5, no text", "sqlite:///file.db"),
    ('store.synchronous = "ful"', "store.synchronous", "'ful'", "did you mean 'full'?"),
    ("store.synchronous = 1", "store.synchronous", " 1;", "'full' or 'normal'"),
    ("store.keep = 0", "store.keep", " 0;", 'or "off"'),
    ("store.statement_cache_size = -1", "store.statement_cache_size", "-1", "from 0 to 100000"),
    ("http.port = 65536", "http.port", "65536", "0 to 65535"),
    ('http.host = "http://h/"', "http.host", "'http://h/'", "127.0.0.1"),
    ("http.host = 1", "http.host", " 1;", "a text"),
    ('http.prefix = "a b"', "http.prefix", "'a b'", "a path such as '/taskloop'"),
    ('http.token = "se cret"', "http.token", "*** (a text)", "without blanks"),
    ("http.token = 5551234", "http.token", "*** (a number)", "without blanks"),
    ("http.token = 2001-02-03", "http.token", "*** (a date)", "without blanks"),
    ('http.hosts = "a"', "http.hosts", "'a'", "a list of texts"),
    ("http.hosts = ['*.example']", "http.hosts", "['*.example']", "without a scheme, a path or a *"),
    ("http.hosts = [1]", "http.hosts", "[1]: value 1 of 1 is 1", "a list of texts"),
    ('http.submit_limit = "30"', "http.submit_limit", "'30'", '"30/1m"'),
    ('http.submit_limit = "0/1m"', "http.submit_limit", "'0/1m'", '"30/1m"'),
    ("http.submit_limit = 30", "http.submit_limit", " 30;", '"30/1m"'),
    ('log.level = "DEBUGG"', "log.level", "'DEBUGG'", "did you mean 'DEBUG'?"),
    ("log.level = 10", "log.level", " 10;", "TRACE, DEBUG"),
    ('log.format = "jsn"', "log.format", "'jsn'", "did you mean 'json'?"),
    ('log.capture = "200xB"', "log.capture", "'200xB'", '"200kB"'),
    ('log.capture = "200"', "log.capture", "'200'", '"200kB"'),
    ('log.capture = "2GB"', "log.capture", "'2GB'", "to 1 GB"),
    ("log.capture = true", "log.capture", "true", "1 B"),
    ('dask.address = "scheduler"', "dask.address", "'scheduler'", "tcp://scheduler:8786"),
    ("dask.address = 5", "dask.address", " 5;", "a text"),
    ('defaults.timeot = "1s"', "defaults.timeot", "did you mean 'timeout'?", "known here are"),
    ("defaults.timeout = -1", "defaults.timeout", "-1", "negative"),
    ("defaults.timeout = 0", "defaults.timeout", " 0;", 'above zero is allowed, or "off"'),
    ('defaults.overlap = "skp"', "defaults.overlap", "'skp'", "did you mean 'skip'?"),
    ("defaults.retry = 0", "defaults.retry", " 0:", "1 to 1000"),
    ("defaults.retry = { atempts = 3 }", "defaults.retry", "atempts", "did you mean 'attempts'?"),
    ("defaults.retry = true", "defaults.retry", "True", "1 to 1000"),
    ("defaults.tags = 5", "defaults.tags", " 5;", "a list of texts"),
    ('defaults.every = "1s"', "defaults.every", "unknown", "the job's own table"),
    ("groups.worker = 0", "groups.worker", " 0;", "from 1 to"),
    ('groups."" = 1', "groups.''", "name", "1 to 128 characters"),
    ("groups = []", "groups", "a list", "write [groups]"),
    ('git_metrics.repositories = "."', "git_metrics.repositories", "'.'", "a list of texts"),
    (f"git_metrics.repositories = {['a'] * 40 + ['']}", "git_metrics.repositories", "41 of 41 is ''", "list of texts"),
    ('interval = "2w"', "interval", "unknown", "belongs below [scheduler]"),
    ("[shceduler]\na = 1", "shceduler", "unknown", "did you mean 'scheduler'?"),
    ('"a\\nb" = 1', "'a\\nb'", "unknown", "known here are"),
    ("jobs = true", "jobs", "true or false", "[jobs]"),
    ("jobs.a = 1", "jobs.a", "a number", "table [jobs.a]"),
    ('jobs."a b" = {}', "jobs.'a b'", "name", "letters, digits"),
    ('jobs.a.every = "5 parsecs"', "jobs.a.every", "'5 parsecs'", DURATION),
    ("jobs.a.every = 0", "jobs.a.every", " 0:", "interval of zero"),
    ('jobs.a.cron = "61 * * * *"', "jobs.a.cron", "61", "0-59"),
    ('jobs.a.cron = "0 0 30 2 *"', "jobs.a.cron", "30", "can never fire"),
    ("jobs.a.cron = 5", "jobs.a.cron", "5", "'0 2 * * *'"),
    ("jobs.a.at = 2030-01-01T00:00:00", "jobs.a.at", "2030", "no zone"),
    ('jobs.a.at = "+2h"', "jobs.a.at", "'+2h'", "ISO 8601"),
    ('jobs.a = { every = 5, anchor = "x" }', "jobs.a.anchor", "'x'", "ISO 8601"),
    ('jobs.a = { every = 5, cron = "* * * * *" }', "jobs.a", "has every and cron", "allowed is one of every, cron, at"),
    ('jobs.a.timezone = "UTC"', "jobs.a.timezone", "'UTC'", "has no cron"),
    ('jobs.a = { cron = "@daily", anchor = 2030-01-01T00:00:00Z }', "jobs.a.anchor", "2030", "has no every"),
    ('jobs.a = { cron = "@daily", timezone = "Mars" }', "jobs.a.timezone", "'Mars'", "Europe/London"),
    ('jobs.a = { cron = "@daily", gap = "befor" }', "jobs.a.gap", "'befor'", "'after' or 'skip'"),
    ('jobs.a = { cron = "@daily", fold = "bth" }', "jobs.a.fold", "'bth'", "did you mean 'both'?"),
    ('jobs.a.evry = "5s"', "jobs.a.evry", "unknown", "did you mean 'every'?"),
    ('jobs.a.command = "ls"', "jobs.a.command", "unknown here", 'call = "taskloop.shell:command"'),
    ("jobs.a.tiemout = 5", "jobs.a.tiemout", "unknown", "did you mean 'timeout'?"),
    ('jobs.a.call = "shop.jobs"', "jobs.a.call", "'shop.jobs'", "'module:name'"),
    ("jobs.a.call = 5", "jobs.a.call", " 5;", "a text"),
    ("jobs.a.params = [1]", "jobs.a.params", "[1]", "a table such as"),
    ('jobs.a.enabled = "no"', "jobs.a.enabled", "'no'", "true or false"),
    ('jobs."a.b".max_running = 0', "jobs.a.b.max_running", " 0;", "from 1 to"),
]


@pytest.mark.parametrize(("toml", "key", "shown", "allowed"), BAD, ids=[row[0][:40] for row in BAD])
def test_a_bad_value_is_told_with_its_key_what_was_given_and_what_is_allowed(folder, toml, key, shown, allowed):
    found = only(problems(folder, toml))
    before = "" if "by default" in key else "config.toml: "
    assert re.match(re.escape(before + key) + r"[ :]", found), found
    assert shown in found
    assert allowed in found
    assert "secret" not in found.replace("retry, secret, spread", "")  # the name of an option
    assert "5551234" not in found
    assert "\n" not in found


BAD_TEXTS = [
    ("TASKLOOP_SCHEDULER__ENABLED", "maybe", "true or false"),
    ("TASK_SCHEDULER_ENABLED", "2", "true or false"),
    ("TASK_SCHEDULER_INTERVAL", "0", "above zero"),
    ("TASKLOOP_SCHEDULER__THREADS", "4.5", "a whole number from 1 to 10000"),
    ("TASKLOOP_SCHEDULER__THREADS", "9" * 50, "a whole number from 1 to 10000"),
    ("TASKLOOP_SCHEDULER__INTERVAL", "nan", DURATION),
    ("TASKLOOP_HTTP__HOSTS", "a,,b", "a, b or"),
    ("TASKLOOP_HTTP__HOSTS", "[1", "a, b or"),
    ("TASKLOOP_GROUPS__MAIL", "x", "a whole number"),
    ("TASKLOOP_DEFAULTS__RETRY", "many", "1 to 1000"),
    ("TASKLOOP_LOG__CAPTURE", "much", '"200kB"'),
    ("TASKLOOP_STORE__URL", "mysql://h", "sqlite:///file.db"),
    ("TASKLOOP_DEV", "soon", "allowed is 1 (every 10 seconds)"),
    ("TASKLOOP_DEV", "0s", "allowed is 1 (every 10 seconds)"),
]


@pytest.mark.parametrize(("name", "text", "allowed"), BAD_TEXTS)
def test_a_bad_variable_is_told_by_its_own_name(folder, name, text, allowed):
    found = only(problems(folder, environ={name: text}))
    assert found.startswith(f"{name} is "), found
    assert text[:40] in found
    assert allowed in found
    assert only(problems(folder, env=f"{name}={text}\n")) == f".env: {found}"


def test_a_bad_argument_is_told_as_one(folder):
    assert only(problems(folder, arguments={"http.port": -1})).startswith("argument http.port is -1; allowed")
    assert only(problems(folder, arguments={"htp": {"port": 1}})).startswith("argument htp is unknown; did you mean")
    assert only(problems(folder, arguments={"dev": "soon"})).startswith("argument dev is 'soon'")


def test_all_mistakes_of_all_sources_are_told_at_once(folder):
    toml = "jobs.b = 1\n[scheduler]\ngrace = -1\nthreds = 1\n[jobs.a]\nevery = 0\ncron = 'x'\ntimeout = -1\nfoo = 1\n"
    found = problems(
        folder,
        toml,
        "TASKLOOP_HTTP__PORT=x\nTASKLOOP_LOG__LEVEL='\n",
        {"TASKLOOP_DEV": "x"},
        arguments={"dask.address": 1},
    )
    expected = [
        "jobs.b",
        "grace",
        "threds",
        "every is|every:",
        "cron:",
        "timeout",
        "foo",
        "every and cron",
        "HTTP__PORT",
    ]
    expected += [".env: line 2", "TASKLOOP_DEV", "argument dask.address"]
    assert len(found) == len(expected), found
    for pattern in expected:
        assert any(re.search(pattern, one) for one in found), pattern


def test_a_bad_value_that_does_not_count_stops_nobody(folder):
    settings = read(folder, "scheduler.grace = -1", environ={"TASKLOOP_SCHEDULER__GRACE": "1s"})
    assert settings.scheduler.grace == timedelta(seconds=1)


def test_a_section_made_by_the_program_is_checked_too():
    with pytest.raises(ValueError, match="the value is -1"):
        type(Settings().scheduler)(grace=-1)


# Files that cannot be read.

BROKEN = [
    (b"[scheduler]\ngrace = = 1\n", "config.toml: line 2, column 9: invalid value"),
    (b"[scheduler]\ngrace = [1,\n", "config.toml: line 3, column 1: "),
    (b"[scheduler\n", "config.toml: line 1, column 11: expected ']'"),
    (b"a = 1\na = 2\n", "config.toml: line 2, column 6: cannot overwrite"),
    (b"a = " + b"9" * 5000, "config.toml: it is no TOML: Exceeds the limit"),
    (b"a = " + b"[" * 50_000, "config.toml: its tables or lists lie too deep"),
    (b"a = 1\nb = '\xe9'\n", "config.toml: line 2: byte 0xe9 is no UTF-8"),
    (b"#" * 1_000_001, "config.toml: it has more than 1000 kB"),
]


@pytest.mark.parametrize(("content", "expected"), BROKEN)
def test_a_broken_file_is_one_problem_with_its_place(folder, content, expected):
    (folder / "config.toml").write_bytes(content)
    assert only(problems(folder)).startswith(expected)
    with pytest.raises(BadSettings) as caught:
        address.store_address(directory=folder, environ={})
    assert only(caught.value.problems).startswith(expected)


def test_a_folder_or_a_nameless_file_is_a_problem_and_no_traceback(folder):
    (folder / "config.toml").mkdir()
    assert only(problems(folder)) == "config.toml: it cannot be read: is a directory"
    assert "null byte" in only(problems(folder, config="a\0b"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read all")
def test_a_file_of_others_is_a_problem(folder):
    (folder / ".env").write_text("A=1")
    (folder / ".env").chmod(0)
    assert only(problems(folder)) == ".env: it cannot be read: permission denied; give this user the right to read it"


def test_an_env_file_that_is_no_text_is_a_problem(folder):
    (folder / ".env").write_bytes(b"A=1\n\nB=\xff\n")
    assert only(problems(folder)).startswith(".env: line 3: byte 0xff is no UTF-8")


def test_a_folder_named_env_is_a_virtual_environment_and_left_alone(folder):
    (folder / ".env").mkdir()
    assert read(folder).warnings == []


def test_a_line_of_others_that_cannot_be_read_is_a_warning_that_does_not_show_it(folder):
    settings = read(folder, env="A=1\nPASSWORD='hunter2\nTASKLOOP_SCHEDULER__THREADS=1\n")
    assert settings.warnings == [
        '.env: line 2 cannot be read; write NAME=value, or NAME="value" with the quotes closed'
    ]
    assert settings.scheduler.threads == 1


# Unknown variables.

STRANGERS = [
    ("TASKLOOP_SCHEDULER__GRAZE", "did you mean TASKLOOP_SCHEDULER__GRACE?"),
    ("TASKLOOP_SCHEDULER_GRACE", "did you mean TASKLOOP_SCHEDULER__GRACE?"),
    ("taskloop_http__port", "did you mean TASKLOOP_HTTP__PORT?"),
    ("TASKLOOP_JOBS__NIGHTLY__EVERY", "a job is set in config.toml, below [jobs.NAME]"),
    ("TASKLOOP_XYZZY", "docs/configuration.md lists all names"),
]


@pytest.mark.parametrize(("name", "mend"), STRANGERS)
def test_an_unknown_variable_is_a_warning_that_does_not_show_its_value(folder, name, mend):
    settings = read(folder, environ={name: "hunter2"}, env=f"{name}=hunter2\n")
    assert settings.warnings == [
        f"{before}{name} is no setting and changes nothing; {mend}" for before in ("", ".env: ")
    ]


def test_known_variables_that_are_no_settings_are_no_warning(folder):
    environ = {"TASKLOOP_DEV": "0", "TASKLOOP_URL": "http://h", "TASK_SCHEDULER_FOO": "1", "PATH": "x"}
    assert read(folder, environ=environ).warnings == []


def test_a_setting_that_the_store_does_not_go_by_is_a_warning_unless_it_is_as_by_default(folder):
    file, server = "sqlite:///a.db", "postgresql://h/d"
    both = "store = {{ url = '{}', synchronous = '{}', statement_cache_size = {} }}\n"
    assert read(folder, both.format(file, "normal", 0)).warnings == [
        "config.toml: store.statement_cache_size changes nothing with a store in SQLite: it has no such cache; take it out"
    ]
    assert read(folder, both.format(server, "normal", 0)).warnings == [
        "config.toml: store.synchronous changes nothing with a store in PostgreSQL: its server says that itself; take it out"
    ]
    assert read(folder, both.format(server, "full", 0)).options().statement_cache_size == 0
    for given in (both.format(server, "full", 0), both.format(file, "normal", 100)):
        assert read(folder, given).warnings == []
    # A program may have a store of its own: which that is stands nowhere here.
    assert read(folder, "[store]", environ={"TASKLOOP_STORE__STATEMENT_CACHE_SIZE": "0"}).warnings == []


# Dev mode.

DEV = [
    ({"TASKLOOP_DEV": "1"}, "", None, 10),
    ({"TASKLOOP_DEV": "on"}, "", None, 10),
    ({"TASKLOOP_DEV": " 2s "}, "", None, 2),
    ({}, "TASKLOOP_DEV=3s", None, 3),
    ({"TASKLOOP_DEV": "4"}, "TASKLOOP_DEV=3s", None, 4),
    ({"TASKLOOP_DEV": ""}, "TASKLOOP_DEV=3s", None, None),
    ({"TASKLOOP_DEV": "0"}, "", None, None),
    ({"TASKLOOP_DEV": "Off"}, "", None, None),
    ({"TASKLOOP_DEV": "false"}, "", None, None),
    ({"TASKLOOP_DEV": "no"}, "", None, None),
    ({"TASKLOOP_DEV": "4"}, "", True, 10),
    ({"TASKLOOP_DEV": "4"}, "", False, None),
    ({}, "", timedelta(seconds=5), 5),
    ({}, "", 1, 10),
    ({}, "", 1.0, 1),
    ({}, "", None, None),
]


@pytest.mark.parametrize(("environ", "env", "argument", "seconds"), DEV)
def test_dev_mode_is_asked_for_by_argument_environment_or_env_file(folder, environ, env, argument, seconds):
    settings = read(folder, "store.url = 'a.db'", env, environ, arguments={"dev": argument})
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert settings.dev == settings.options().dev == expected
    assert settings.store.url == ("a.db" if seconds is None else "sqlite:///taskloop.dev.db")


def test_dev_mode_outranks_all_but_a_store_of_the_real_environment(folder):
    toml = "[store]\nurl = 'file.db'\n[log]\nlevel = 'ERROR'\n"
    env = "TASKLOOP_STORE__URL=env.db\nTASKLOOP_DEV=2s\n"
    settings = read(folder, toml, env, arguments={"store.url": "argument.db", "log.level": "INFO"})
    assert (settings.store.url, settings.log.level) == ("sqlite:///taskloop.dev.db", "DEBUG")
    assert settings.banner == (
        "DEV MODE by .env: TASKLOOP_DEV: every recurring job fires each 2s, store sqlite:///taskloop.dev.db, "
        "log level DEBUG"
    )
    settings = read(folder, toml, env, {"TASKLOOP_STORE__URL": "real.db"})
    assert settings.store.url == "real.db" and "store real.db" in settings.banner


def test_no_secret_is_in_the_text_of_the_settings(folder):
    settings = read(folder, "http.token = 'hunter2'\nstore.url = 'hunter2.db'\n")
    assert "hunter2" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hunter2@h",
        "postgresql://u:hun@hunter2@h/d",
        "postgresql://u:a/hunter2@h/d",
        "postgresql://u/v:hunter2@h/d",
        "postgresql://u:a?b#hunter2@h/d",
        "postgresql:/u:hunter2@h/d",
        "postgresql:u:hunter2@h/d",
        " postgresql://u:hunter2@h/d",
        "postgres://h?user=u&password=hunter2",
        "PostgreSQL+asyncpg://u:hunter2@h/d?sslpassword=hunter2",
        "mysql://u:hunter2@h",
        "sqlite://u:hunter2@h",
        "sqlite:///a.db?key=hunter2",
    ],
)
def test_no_password_of_an_address_is_in_a_message(folder, address):
    assert "hunter2" not in only(problems(folder, environ={"TASKLOOP_STORE__URL": address}))
    with pytest.raises(BadStore) as caught:
        open_store(address)
    assert "hunter2" not in str(caught.value)


# Jobs of the file.


def test_a_table_of_a_job_gives_trigger_params_and_policy(folder):
    toml = """
    defaults.priority = 1
    [jobs.a]
    call = "shop.jobs:sync"
    cron = "0 2 * * *"
    timezone = "Europe/London"
    fold = "both"
    params = { batch_size = 500 }
    timeout = "1m"
    retry = { attempts = 3, first = "2s" }
    group = "off"
    max_running = "off"
    max_late = "off"
    """
    assert read(folder, toml).file_jobs() == [
        FileJob(
            name="a",
            call="shop.jobs:sync",
            trigger=Cron("0 2 * * *", timezone="Europe/London", fold="both"),
            params={"batch_size": 500},
            options={
                "timeout": timedelta(minutes=1),
                "retry": Retry(3, "2s"),
                "group": None,
                "max_running": None,
                "max_late": None,
            },
            defaults={"priority": 1},
        )
    ]


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TRIGGERS = [
    ('every = "5m"', Every("5m")),
    ("every = 5", Every(5)),
    ('every = "start"', Every()),
    ("every = 5\nanchor = 2030-01-01T12:00:00Z", Every(5, anchor=NOON)),
    ("at = 2030-01-01T13:00:00+01:00", At(NOON)),
    ('at = "2030-01-01T12:00:00Z"', At(NOON)),
    ('cron = "@daily"\ngap = "skip"', Cron("@daily", gap="skip")),
    ("timeout = 5", None),
]


@pytest.mark.parametrize(("toml", "trigger"), TRIGGERS)
def test_a_job_has_one_trigger_or_none(folder, toml, trigger):
    assert read(folder, f"[jobs.a]\n{toml}\n").file_jobs()[0].trigger == trigger


MODULE = """
from taskloop.jobs import Jobs
jobs = Jobs()
limit = 5
class Holder:
    jobs = jobs
def sync(batch_size: int = 1): return batch_size
def needs(user: int): ...
@jobs.every("1h", priority=3, timeout="1m", params={"user": 7})
def declared(user: int): return user
"""


@pytest.fixture
def shop(folder):
    """The package `shop` in the folder, forgotten afterwards."""
    package = folder / "shop"
    package.mkdir()
    sources = {
        "__init__": "",
        "jobs": MODULE,
        "needy": "import shop.jobs\nimport nowhere_to_be_found\n",
        "torn": "def sync(:\n",
        "loud": "def work():\n    raise KeyError('x')\nwork()\n",
        "script": "raise SystemExit(3)\n",
        "unread": "# prices\nimport json\njson.loads('{')\n",
        "misled": "from taskloop.errors import BadSettings\nraise BadSettings(['as it is'])\n",
        "empty": "",
        "starred": "from taskloop import *\ns = Jobs()\n",
        "threaded": "from taskloop import BackgroundTasks\ntasks = BackgroundTasks()\n",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    (folder / "single.py").write_text("")
    before = list(sys.path)
    yield folder
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "single")]:
        del sys.modules[name]


def loaded(folder, toml):
    return load_job(read(folder, toml).file_jobs()[0])


def refused(make):
    with pytest.raises(BadSettings) as caught:
        make()
    return only(caught.value.problems)


def test_a_job_of_the_file_alone_is_made_of_an_importable_function(shop):
    job = loaded(
        shop,
        "defaults.priority = 2\n[jobs.nightly]\ncall = 'shop.jobs:sync'\nevery = '5m'\n"
        "params.batch_size = 5\ntimeout = 9\n",
    )
    assert isinstance(job, Job)
    assert (job.name, job.trigger, job.params, job.origin) == ("nightly", Every("5m"), {"batch_size": 5}, "file")
    assert (job.policy.timeout, job.policy.priority) == (timedelta(seconds=9), 2)
    assert job(batch_size=3) == 3


def test_a_job_may_be_made_of_a_decorated_function_whose_policy_lies_beneath(shop):
    job = loaded(shop, "[jobs.other]\ncall = 'shop.jobs:declared'\ntimeout = 9\n")
    assert (job.name, job.trigger, job.params) == ("other", None, {"user": 7})
    assert (job.policy.timeout, job.policy.priority) == (timedelta(seconds=9), 3)


def test_a_directory_that_is_searched_already_is_left_where_it_is(shop, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(shop)])
    assert loaded(shop, "jobs.a.call = 'shop.jobs:sync'").name == "a"
    assert sys.path[-1] == str(shop)
    monkeypatch.undo()


CALLS = [
    ("shops.jobs:sync", "no module 'shops', neither in", "did you mean 'shop'?"),
    ("shop.jbs:sync", "no module 'shop.jbs', neither in", "did you mean 'jobs'?"),
    ("single.py:sync", "no module 'single.py'", "not its file: write 'single'"),
    ("single.jobs:sync", "no module 'single.jobs'", "or install it"),
    (
        "shop.needy:sync",
        "needy.py:2: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        "or install it for /",
    ),
    ("shop.torn:sync", "cannot be read: invalid syntax", "torn.py:1)"),
    ("shop.loud:sync", "is there, but importing it failed at ", "loud.py:2: KeyError: 'x'; mend that"),
    ("shop.script:sync", "SystemExit: 3", "script.py:1:"),
    ("shop.unread:sync", "unread.py:3: JSONDecodeError", "mend that"),
    ("shop.jobs:snc", "module 'shop.jobs' has no 'snc'", "did you mean 'sync'?"),
    ("shop.jobs:Holder.jbs", "'shop.jobs:Holder' has no 'jbs'", "did you mean 'jobs'?"),
    ("shop.jobs:limit.sync", "'shop.jobs:limit' has no 'sync'", ""),
]


@pytest.mark.parametrize(("call", "why", "mend"), CALLS)
def test_a_call_that_leads_nowhere_is_told_with_what_is_missing(shop, call, why, mend):
    found = refused(lambda: loaded(shop, f"jobs.a.call = '{call}'"))
    assert found.startswith(f"config.toml: jobs.a.call is '{call}': ")
    assert why in found
    assert mend in found


JOBS = [
    ("call = 'shop.jobs:limit'", "a job must be a function (def or async def), got int"),
    ("call = 'shop.jobs:needs'\nevery = 5", "parameter 'user' is missing"),
    ("call = 'shop.jobs:sync'\nparams = { batch_size = 'x' }", "parameter 'batch_size'"),
    ("call = 'shop.jobs:sync'\nexecutor = 'loop'", "plain def"),
    ("call = 'shop.jobs:sync'\non_crash = 'retry'", "needs an attempt to repeat with"),
    ("timeout = 5", 'no code declares a job of this name; add call = "module:function"'),
]


@pytest.mark.parametrize(("toml", "why"), JOBS)
def test_a_job_that_cannot_be_made_is_told_with_its_table(shop, toml, why):
    found = refused(lambda: loaded(shop, f"[jobs.a]\n{toml}\n"))
    assert found.startswith("config.toml: jobs.a: ")
    assert why in found
    assert refused(lambda: load_job(FileJob(name="a"))).startswith("jobs.a: no code declares")


def test_a_table_of_no_job_names_the_one_that_may_be_meant():
    jobs = Jobs()

    @jobs.job(aliases=("fetch",))
    def poll(): ...

    for name, near in (("pol", "poll"), ("fetch", "poll"), ("other", None)):
        found = refused(partial(load_job, FileJob(name=name), jobs))
        assert ("did you mean [jobs.poll]?" in found) == (near is not None)
        assert 'add call = "module:function"' in found
        assert found.endswith("; if that job is gone, or another program's, take the table out")


def test_what_defaults_grant_a_job_of_the_file_may_use(shop):
    toml = "defaults.retry = 3\n[jobs.a]\ncall = 'shop.jobs:sync'\non_crash = 'retry'\n"
    assert loaded(shop, toml).policy.repeatable


def test_the_app_is_a_scheduler_or_jobs(shop):
    assert isinstance(load_app("shop.jobs:jobs", shop), Jobs)
    assert load_app("shop.jobs:Holder.jobs", shop) is load_app("shop.jobs:jobs", shop)


APPS = [
    ("shop.jobs:limit", "app is 'shop.jobs:limit', a int; allowed is a TaskScheduler or Jobs; 'shop.jobs' has jobs"),
    ("shop.jobs:Holder", "app is 'shop.jobs:Holder', the Holder class; allowed is a TaskScheduler"),
    ("shop.empty:__name__", "; 'shop.empty' has none"),
    (
        "shop.threaded:tasks",
        "a BackgroundTasks; allowed is a TaskScheduler or Jobs; 'shop.threaded' has tasks.scheduler",
    ),
    ("shop.jobs", "app is 'shop.jobs'; allowed is 'module:name'"),
    ("", "app is ''; allowed is 'module:name'"),
    ("shop.jobs:jbs", "app is 'shop.jobs:jbs': module 'shop.jobs' has no 'jbs'; did you mean 'jobs'?"),
    ("shop.threaded:app", "module 'shop.threaded' has no 'app'; 'shop.threaded' has tasks.scheduler"),
    ("shop.starred:Jbs", "module 'shop.starred' has no 'Jbs'; 'shop.starred' has s"),
    ("nowhere_to_be_found:x", "no module 'nowhere_to_be_found'"),
    ("nowhere.to.be.found:x", "no module 'nowhere'"),
    ("shop.misled:x", "as it is"),
]


@pytest.mark.parametrize(("app", "expected"), APPS)
def test_an_app_that_is_none_is_told(shop, app, expected):
    assert expected in refused(lambda: load_app(app, shop))


def test_an_app_is_looked_for_in_the_current_directory(shop, monkeypatch):
    monkeypatch.chdir(shop)
    assert len(load_app("shop.jobs:jobs")) == 1
    assert "did you mean 'shop'?" in refused(lambda: load_app("shoop:x"))
    assert "no module 'shop.gone'" in refused(lambda: load_app("shop.gone.deeper:x"))


# Nothing happens.


def test_loading_creates_nothing_on_disk(folder):
    read(folder, SAMPLE.replace("-5s", "5s").replace("port = 9", "").replace("Londn", "London"), "A=1\n")
    problems(folder, SAMPLE)
    address.store_address(directory=folder, environ={"TASKLOOP_DEV": "1"})
    assert sorted(one.name for one in folder.iterdir()) == [".env", "config.toml"]


def test_the_light_reader_imports_no_pydantic():
    code = "import sys, taskloop.address as a; print(a.store_address(environ={})); print('pydantic' in sys.modules)"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split() == ["sqlite:///taskloop.db", "False"]


# The light reader and the settings see the same store.

ADDRESSES = [
    ("", "", {}, "sqlite:///taskloop.db"),
    ("store.url = 'file.db'", "", {}, "file.db"),
    ("taskloop.store.url = 'file.db'\nstore.url = 'x.db'", "", {}, "file.db"),
    ("store.keep = '1d'", "", {}, "sqlite:///taskloop.db"),
    ("store.url = 'file.db'", "TASKLOOP_STORE__URL=env.db", {}, "env.db"),
    ("store.url = 'file.db'", "TASKLOOP_STORE__URL=", {}, "file.db"),
    ("", "NAME=x\nTASKLOOP_STORE__URL=${NAME}-${HOST:-h}-${HOME}.db", {"HOME": "real"}, "x-h-real.db"),
    ("", "TASKLOOP_STORE__URL=env.db", {"TASKLOOP_STORE__URL": "real.db"}, "real.db"),
    ("", "TASKLOOP_STORE__URL=env.db", {"TASKLOOP_STORE__URL": ""}, "env.db"),
    ("store.url = 'file.db'", "TASKLOOP_STORE__URL=env.db", {"TASKLOOP_DEV": "1"}, "sqlite:///taskloop.dev.db"),
    ("", "TASKLOOP_DEV=5s", {"TASKLOOP_STORE__URL": "real.db"}, "real.db"),
    ("", "TASKLOOP_DEV=5s", {"TASKLOOP_DEV": ""}, "sqlite:///taskloop.db"),
    ("store.url = ''", "", {}, BadSettings),
    ("store.url = 5", "", {}, BadSettings),
    (f"store.url = 0x{'f' * 6000}", "", {}, BadSettings),
    ("store = 5", "", {}, BadSettings),
    ("taskloop = 5", "", {}, BadSettings),
    ("store.url = 'mysql://h'", "", {}, BadSettings),
    ("store.url = 'file.db'", "", {"TASKLOOP_DEV": "soon"}, BadSettings),
    ("store.url = 'mysql://h'", "", {"TASKLOOP_DEV": "1"}, "sqlite:///taskloop.dev.db"),
    ("", "TASKLOOP_STORE__URL='env.db\n", {}, BadSettings),
    ("", "", {"TASKLOOP_STORE__URL": "a\0b"}, BadSettings),
]


@pytest.mark.parametrize(("toml", "env", "environ", "expected"), ADDRESSES)
def test_the_light_reader_and_the_settings_see_the_same_store(folder, toml, env, environ, expected):
    def light():
        return address.store_address(directory=folder, environ=environ)

    if expected is BadSettings:
        told = problems(folder, toml, env, environ)
        with pytest.raises(BadSettings) as caught:
            light()
        assert [one.partition(";")[0][:30] for one in caught.value.problems] == [
            one.partition(";")[0][:30] for one in told
        ]
    else:
        assert read(folder, toml, env, environ).store.url == expected == light()
    if not toml and not env:
        assert address.gather(directory=folder, environ=environ).table == {}


# `.env` is read as python-dotenv reads it.

ENV_FILES = [
    "A=1\nB=2\n",
    "export A=1\nexport\tB = 2 \n",
    "A='it\\'s' # c\nB=\"x\\ny\\\\\\q\"\n",
    "# a comment\n\n   # another\nA=1 # c\nB=1#2\nC=#d\n",
    "A=\nB= \nC\nD=3\n",
    "A=1\r\nB='two\r\nlines'\rC=3",
    'A="open\nB=2\n',
    "A='x' y\nB=2\n",
    "=1\nA B=2\nC=3\n",
    "'A B'=1\n'C=2\nD=3\n",
    "A=1\nA=2\nexport=5\nexport =5\nB=7",
    "A=a b  c \nB='  x  '\nÄ=ö\n",
    "A=x\nB=${A}y${A:-z}${NOWHERE_AT_ALL:-w}${NOWHERE_AT_ALL}$A\nC='${A}'\n",
    'A==1\nB={"a": 1}\nC=$\n',
    "",
    "\n\n",
    "\x0b A=1 \x0c\n",
]


def by_dotenv(text):
    found = dotenv.dotenv_values(stream=io.StringIO(text, newline=""))
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("text", ENV_FILES)
def test_an_env_file_is_read_as_python_dotenv_does(text):
    assert address.parse_env(text, os.environ)[0] == by_dotenv(text)


PIECES = [
    "A",
    "B",
    "=",
    "=",
    "'",
    '"',
    "#",
    " ",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\\",
    "export ",
    "\t",
    "\x0b",
    "\u2028",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
@example("A='x\ny' z='\nB=1")
@example("A=1\nA")
@runs(max_examples=400, deadline=None)
def test_any_text_is_read_as_python_dotenv_does(text):
    assert address.parse_env(text, {})[0] == by_dotenv(text)


def test_an_unread_line_is_told_with_its_number():
    _, unread = address.parse_env("A='two\nlines'\r\n\r\nB='open\n\n=1\nC=1", {})
    assert unread == [(4, "B='open"), (6, "=1")]


def test_the_options_of_a_policy_all_have_a_variable(folder):
    environ = {f"TASKLOOP_DEFAULTS__{name.upper()}": "" for name in policy.OPTIONS}
    assert read(folder, environ=environ).warnings == []
