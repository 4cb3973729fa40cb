"""The command line on a store in PostgreSQL: it reads and acts through the store, like everything else."""

from __future__ import annotations

import re
import signal
from datetime import datetime, timedelta

from command_line import call, nothing_blocks_the_loop, shop
from servers import emptied, server

from taskloop.cli import output

__all__ = ["call", "nothing_blocks_the_loop", "shop"]


def test_commands_work_beside_a_running_process_on_the_same_database(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", emptied().store)
    assert call("once", "add", "a=1").code == 0
    with shop.start("run", TASKLOOP_STORE__URL=server().store) as running:
        running.hear("scheduler.started")
        assert call("submit", "add", "a=40", "--wait", "--format", "json").data["result"] == 42
        assert call("disable", "add", "--reason", "moving").code == 0
        [job] = [one for one in call("list", "--format", "json").items if one["name"] == "add"]
        assert (job["condition"], job["last_run"]["result"], job["switch"]["reason"]) == ("disabled", 42, "moving")
        assert call("status").code == call("next").code == call("why", "add").code == 0
        run = call("submit", "slow", "--format", "json").data["id"]
        assert call("cancel", str(run)).code == 0
        assert running.end(signal.SIGTERM) == 143
    found = call("db", "check", "--format", "json").data["problems"]
    assert [one for one in found if "fsync is off" not in one] == [], "the disk of the tests' server is not flushed"
    assert call("db", "upgrade").code == call("db", "prune").code == 0
    backup = call("db", "backup", "copy")
    assert backup.code == 8 and "pg_dump" in backup.err


class Later(datetime):
    """The clock of a host that is 200 days ahead."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + timedelta(days=200)


def test_a_prune_from_a_host_whose_clock_is_ahead_takes_nothing_that_is_young(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", emptied().store)
    assert call("once", "add", "a=1").code == call("once", "add", "a=2").code == 0
    monkeypatch.setattr(output, "datetime", Later)
    assert call("db", "prune", "--format", "json").data["deleted"] == 0
    assert [run["params"] for run in call("runs", "--format", "json").items] == [{"a": 2}, {"a": 1}]


def test_a_command_that_reads_makes_no_tables(shop, call, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", server().database("untouched"))
    done = call("runs")
    assert done.code == 8 and "without the tables of a store" in done.err
    assert server().query("SELECT 1 FROM pg_namespace WHERE nspname = 'taskloop'", "untouched") == []


def test_rights_that_a_user_lacks_are_told_by_the_doctor_and_by_db_check(shop, call, monkeypatch):
    place = emptied()
    monkeypatch.setenv("TASKLOOP_STORE__URL", re.sub("//[^@/]*@", "//weak@", place.store))
    few = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA taskloop TO weak;\n"
    few += "GRANT USAGE ON ALL SEQUENCES IN SCHEMA taskloop TO weak"

    def told():
        findings = [one for one in call("doctor", "--format", "json").items if one["name"] == "store"]
        said = [f"{one['text']} | {one['help']}" for one in findings if one["state"] == "problem"]
        checked = call("db", "check", "--format", "json").data["problems"]
        assert [one for one in checked if "fsync is off" not in one] == [one.replace(" | ", "; ") for one in said]
        return said

    place.execute("CREATE ROLE weak LOGIN;\nGRANT USAGE ON SCHEMA taskloop TO weak", "taskloop_tests")
    try:
        place.execute("GRANT SELECT ON ALL TABLES IN SCHEMA taskloop TO weak", "taskloop_tests")
        tables, sequence = told()
        assert tables.startswith(
            "user 'weak' lacks INSERT, UPDATE, DELETE on taskloop.attempts, taskloop.audit, taskloop."
        )
        assert "more | let the owner of the schema grant what docs/postgresql.md has under few rights" in tables
        assert sequence.startswith("user 'weak' lacks USAGE on taskloop.run_ids | ")
        place.execute(few, "taskloop_tests")
        place.execute("CREATE TABLE taskloop.runs_as_they_were AS SELECT * FROM taskloop.runs", "taskloop_tests")
        assert told() == [], "a table of somebody else's is none that it needs"
        place.execute("DROP TABLE taskloop.runs_as_they_were", "taskloop_tests")
        place.execute("REVOKE DELETE ON taskloop.wishes FROM weak", "taskloop_tests")
        [one] = told()
        assert one.startswith("user 'weak' lacks DELETE on taskloop.wishes | ")
        place.execute(f"{few};\nALTER SEQUENCE taskloop.run_ids RENAME TO gone", "taskloop_tests")
        assert call("doctor").code == 0, "what is not there is not what it lacks a right to"
        checked = call("db", "check", "--format", "json").data["problems"]
        assert "sequence taskloop.run_ids is not there; restore a backup" in checked
        place.execute("ALTER SEQUENCE taskloop.gone RENAME TO run_ids", "taskloop_tests")
        place.execute(f"{few};\nALTER ROLE weak SET default_transaction_read_only = on", "taskloop_tests")
        [one] = told()
        assert "default_transaction_read_only is on for user 'weak'" in one and "RESET" in one
    finally:
        place.execute("DROP OWNED BY weak;\nDROP ROLE weak", "taskloop_tests")
