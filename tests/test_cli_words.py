"""The words of the command line: help, mistakes, forms of output, and text that is made harmless."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
from argparse import Namespace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from hypothesis import given
from hypothesis import strategies as st

from taskloop import __version__
from taskloop.cli import lines, output
from taskloop.cli.ask import values
from taskloop.cli.failures import Usage
from taskloop.cli.output import Output
from taskloop.cli.parser import ALIASES, COMMANDS, ELSEWHERE, FAMILIES, load
from taskloop.signs import item_text, readable

ANY_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]")


def test_the_version_is_one_line(call):
    assert call("--version").out == f"taskloop {__version__}\n"


def test_help_names_every_command_with_one_sentence(call):
    done = call("--help")
    assert done.code == 0 and not done.err
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.out and command.summary in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_exit_codes(call, name):
    done = call(*name.split(), "--help")
    assert done.code == 0 and not done.err
    assert COMMANDS[name].summary in done.out
    assert ("exit: as of submit" if name == "rerun" else "exit: 0") in done.out
    assert "--config" in done.out and "--format" in done.out
    assert callable(load(COMMANDS[name].run))


@pytest.mark.parametrize(
    "name", [name for name, one in COMMANDS.items() if one.group == "change" and "list" not in name]
)
def test_every_changing_command_takes_a_reason_and_an_actor(call, name):
    assert {"--reason", "--actor"} <= set(re.findall(r"--\w+", call(*name.split(), "--help").out))


def test_help_of_a_command_can_be_asked_for_by_help(call):
    assert call("help", "runs").out == call("runs", "--help").out
    assert "143" in call("help", "exit-codes").out


def test_without_a_command_help_goes_to_stderr_with_code_2(call):
    done = call()
    assert done.code == 2 and not done.out and "usage: taskloop" in done.err
    assert call("db").code == 2 and call("db", "--help").code == 0


@pytest.mark.parametrize(
    ("words", "said", "meant"),
    [
        (["lsit"], "no command 'lsit'", "'list'"),
        (["jobs"], "no command 'jobs'", "'list'"),
        (["failures"], "no command 'failures'", "'runs --state failed'"),
        (["run-all"], "no command 'run-all'", "'once --all'"),
        (["schedule", "ad"], "no command 'schedule ad'", "add, list, remove"),
        (["runs", "--stat", "failed"], "no option '--stat'", "'--state'"),
        (["--formt", "json", "list"], "no option '--formt'", "'--format'"),
        (["list", "more"], "'more' is one word too many", "taskloop list --help"),
        (["run", "shop:scheduler"], "'shop:scheduler' is one word too many", "'--app shop:scheduler'"),
        (["run", "-A", "shop"], "no option '-A'", "'--app'"),
        (["call", "add"], "no command 'call'", "'submit'"),
        (["submit"], "required: JOB\n", "taskloop submit --help"),
        (["list", "--format", "xml"], "invalid choice: 'xml'", "table"),
        (["runs", "--limit", "0"], "--limit is '0'", "1 to 1000"),
        (["runs", "--limit", "1001"], "--limit is '1001'", "1 to 1000"),
        (["runs", "--before", "x"], "--before is 'x'", "whole number"),
        (["runs", "--since", "yesterday"], "yesterday", "ISO 8601"),
        (["run", "--for", "0"], "duration '0'", "interval of zero"),
        (["process", "hourly", "--every", "often"], "duration 'often'", "'90s'"),
        (["process", "hourly"], "required: --every", "--help"),
        (["once", "add", "--all"], "'add' and --all", "one of them"),
        (["cron", "61 * * * *"], "minute is 61", "allowed 0-59"),
        (["cron", "0 0 30 2 *"], "30 2", ""),
        (["cron", "@daily", "--timezone", "Europe/Londn"], "Europe/Londn", "'Europe/London'"),
        (["schedule", "add", "add", "a=1"], "--every --cron --at is required", ""),
        (["schedule", "add", "add", "a=1", "--every", "1h", "--timezone", "UTC"], "--timezone belongs to --cron", ""),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_error_with_its_mend_and_code_2(shop, call, words, said, meant):
    done = call(*words)
    assert done.code == 2 and not done.out
    assert done.err.startswith("error: ") and said in done.err and meant in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("word", sorted(ELSEWHERE))
def test_a_word_of_other_programs_leads_to_a_command_that_there_is(call, word):
    meant = ELSEWHERE[word].split()
    name = next(one for one in (" ".join(meant[:2]), meant[0]) if one in COMMANDS)
    assert word not in {*COMMANDS, *ALIASES, *FAMILIES}
    assert call(*meant, "--help").out == call(*name.split(), "--help").out


def test_an_expression_in_which_the_shell_has_put_names_of_files_is_to_be_quoted(shop, call):
    shop.write("7", "")
    shop.write("notes.txt", "")
    done = call("cron", "0", "2", "notes.txt", "notes.txt", "mon")
    assert done.code == 2 and "day-of-month is NOTES.TXT" in done.err and "quote the expression" in done.err
    assert "quote" not in call("cron", "7", "77", "7", "7", "7").err, "a file may have the name of a number"


def test_options_for_all_commands_may_stand_before_or_after_the_command(shop, call):
    assert call("--format", "json", "list").items == call("list", "--format", "json").items
    assert call("--config", "none.toml", "list").code == 7 == call("list", "--config", "none.toml").code


def test_parameters_may_stand_among_the_options(shop, call):
    assert call("once", "add", "a=1", "--format", "json", "b=5").data["result"] == 6


# -- values


SCHEMA = {
    "properties": {
        "count": {"type": "integer"}, "share": {"type": "number"}, "on": {"type": "boolean"},
        "text": {"type": "string"}, "many": {"type": "array"}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "size": {"enum": ["s", "l"]}, "level": {"enum": [1, 2]}, "box": {"$ref": "#/$defs/Box", "$defs": {"Box": {"type": "object"}}},
        "bare": {"default": 3}, "open": {},
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("count=5", 5), ("count=five", "five"), ("count=true", "true"), ("share=0.5", 0.5), ("on=true", True),
        ("on=1", "1"), ("text=5", "5"), ("text=", ""), ("text=a=b", "a=b"), ("many=[1, 2]", [1, 2]), ("maybe=5", 5),
        ("maybe=null", None), ("size=s", "s"), ("level=2", 2), ('box={"a": 1}', {"a": 1}), ("bare=4", 4),
        ("open=5", "5"), ("open:=5", 5), ('text:={"a": [true]}', {"a": [True]}), ("unknown=1", "1"),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_type_of_its_parameter(word, value):
    assert list(values([word], SCHEMA).values()) == [value]


@pytest.mark.parametrize("word", ["count", "=5", ":=5", "text:=no json", "@missing.json"])
def test_what_is_no_parameter_is_refused_with_the_mend(word):
    with pytest.raises(Usage, match="write|cannot be read|no JSON"):
        values([word], SCHEMA)


@pytest.mark.parametrize("words", [["count=4", "count=5"], ["count=4", "text=x", "count:=4"]])
def test_a_parameter_that_is_given_twice_is_refused_instead_of_the_last_value_taken(words):
    with pytest.raises(Usage, match="parameter 'count' is given twice; give it once"):
        values(words, SCHEMA)


def test_parameters_may_come_from_a_file(tmp_path):
    file = tmp_path / "given.json"
    file.write_text('{"count": 3, "text": "x"}')
    assert values([f"@{file}", "text=y"], SCHEMA) == {"count": 3, "text": "y"}
    file.write_text("[1]")
    with pytest.raises(Usage, match="no object"):
        values([f"@{file}"], SCHEMA)


# -- harmless text


@given(st.text())
def test_no_text_from_outside_reaches_a_terminal_as_a_command(text):
    assert not ANY_CONTROL.search(output.clean(text))
    assert not ANY_CONTROL.search(output.json_text({text: text}).replace("\n", ""))
    assert json.loads(output.json_text(text)) == text.encode("utf-16", "surrogatepass").decode(
        "utf-16", "surrogatepass"
    )


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("\r=1", "'\\r=1"),
        ("-", "'-"),
        ("-12", "-12"),
        ("+1.5e-3", "+1.5e-3"),
        ("a=1", "a=1"),
        (-3, "-3"),
        (None, ""),
    ],
)
def test_no_cell_is_a_formula_of_a_spreadsheet(capsys, value, cell):
    Output(SimpleNamespace(format="csv", color="never", ascii=False)).items([{"text": value}], lambda: None)
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [["text"], [cell]] or (value, cell) == (None, "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0123, "12 ms"), (1, "1.0 s"), (9.94, "9.9 s"), (41, "41 s"), (60, "1m 0s"), (3599, "59m 59s"),
     (3600, "1h 0m"), (90061, "1d 1h")],
)  # fmt: skip
def test_a_span_is_told_in_two_units_at_most(seconds, text):
    assert output.span_text(seconds) == text


def test_what_only_looks_like_an_instant_stays_as_it_is():
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    text = "due at 2026-03-01T12:30:00Z, and at 2026-13-01T12:30:00Z"
    assert readable(text, now, UTC) == "due at 12:30:00 UTC, and at 2026-13-01T12:30:00Z"


def test_an_instant_that_somebody_else_wrote_stays_as_it_was_written():
    now, at = datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:30:00Z"
    names = f"schedule 'many_001:at_{at}' and '{at}': once, due at {at}"
    assert readable(names, now, UTC) == f"schedule 'many_001:at_{at}' and '{at}': once, due at 12:30:00 UTC"
    error = f"no rates since {at}"
    text = f"attempt 2 begins at {at} after ValueError: {error}"
    assert readable(text, now, UTC, [error]) == f"attempt 2 begins at 12:30:00 UTC after ValueError: {error}"
    assert item_text({"condition": "failing", "text": error}, now, UTC) == error
    assert item_text({"condition": "overdue", "text": f"due since {at}"}, now, UTC) == "due since 12:30:00 UTC"


def test_an_instant_is_local_with_its_zone_and_as_short_as_the_day_allows():
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    zone = now.astimezone().strftime("%Z")
    assert output.when(None, now) == "–"
    assert re.fullmatch(rf"\d\d:\d\d:30 {zone}", output.when("2026-03-01T12:00:30Z", now))
    assert re.match(r"\w{3} \d\d Mar ", output.when("2026-03-09T12:00:30Z", now))
    assert output.when("2028-03-09T12:00:30Z", now).startswith("2028-03-09")


class Stream:
    encoding = "utf-8"

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        self.isatty = lambda: terminal
        self.encoding = encoding


@pytest.mark.parametrize(
    ("environ", "terminal", "wish", "colored"),
    [
        ({}, True, "auto", True), ({}, False, "auto", False), ({"NO_COLOR": "1"}, True, "auto", False),
        ({"NO_COLOR": ""}, True, "auto", True), ({"FORCE_COLOR": "1"}, False, "auto", True),
        ({"FORCE_COLOR": "0"}, False, "auto", False), ({"TERM": "dumb"}, True, "auto", False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, "auto", False), ({"NO_COLOR": "1"}, False, "always", True),
        ({"FORCE_COLOR": "1"}, True, "never", False),
    ],
)  # fmt: skip
def test_colours_follow_the_option_then_the_environment_then_the_terminal(
    monkeypatch, environ, terminal, wish, colored
):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert output.has_color(Stream(terminal=terminal), wish) is colored


@pytest.mark.parametrize(
    ("environ", "encoding", "glyphs"),
    [
        ({"LANG": "en_US.UTF-8"}, "utf-8", True), ({}, "utf-8", True), ({"LC_ALL": "C"}, "utf-8", False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", False), ({"LANG": "C.UTF-8"}, "UTF-8", True),
        ({"LANG": "de_DE"}, "iso-8859-1", False), ({"LANG": "C.UTF-8"}, "ascii", False),
    ],
)  # fmt: skip
def test_glyphs_need_a_locale_that_has_them(monkeypatch, environ, encoding, glyphs):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert output.has_glyphs(Stream(terminal=True, encoding=encoding)) is glyphs
    assert output.has_glyphs(Stream(terminal=True, encoding=encoding), ascii_only=True) is False


def test_a_table_stays_aligned_with_wide_letters_and_without_colour_says_all(capsys):
    out = output.Output(Namespace(format="table", color="never", ascii=False))
    out.table(("A", "B"), [["日本", out.state("failed")], ["xyz", "plain"]])
    assert capsys.readouterr().out == "A     B\n日本  ✗ failed\nxyz   plain\n"
    out.glyphs = False
    out.table(("A", "B"), [["…", out.state("failed")], ["é", "\x1b[2J"]])
    assert capsys.readouterr().out == "A     B\n...   x failed\n\\xe9  \\x1b[2J\n"


HEADS = ("RUN", "JOB", "STATE", "DUE", "TOOK", "TRY", "CAUSE", "RESULT")


@pytest.mark.parametrize("columns", range(40, 130, 5))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_row_of_a_table_is_wider_than_the_terminal(monkeypatch, capsys, columns, ascii_only):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = output.Output(Namespace(format="table", color="never", ascii=ascii_only))
    out.is_terminal = True
    row = ["12345", "日本" * 9, out.state("failed"), "Sun 01 Mar 02:00:00 UTC", "3m 12s", "1/3", "manual", "x" * 80]
    out.table(HEADS, [row, row[::-1]], spare=("CAUSE", "TRY", "TOOK"))
    head, *lines = capsys.readouterr().out.splitlines()
    assert all(output.width(one) <= columns for one in (head, *lines))
    shown = head.split()
    assert shown == [one for one in HEADS if one in shown] and {"RUN", "JOB", "STATE"} <= {*shown}, "those in any case"
    assert ("CAUSE" in shown) <= ("TRY" in shown) <= ("TOOK" in shown) <= ("RESULT" in shown), "by and by"
    assert (columns < 80) or shown == [*HEADS]


def test_names_and_instants_are_whole_or_not_there_at_the_width_that_terminals_have(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    out = output.Output(Namespace(format="table", color="never", ascii=False))
    out.is_terminal = True
    row = ["import_orders", "every 20 seconds", "Tue 01 Dec 05:00:00 UTC", "20h 34m", "6m 7s ago", "✓ ok", "y" * 40]
    heads = ("JOB", "SCHEDULE", "NEXT", "LEFT", "LAST", "STATE", "RESULT")
    out.table(heads, [row], spare=("SCHEDULE", "LAST", "NEXT"), whole=("JOB", "NEXT"))
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["JOB", "NEXT", "LEFT", "LAST", "STATE", "RESULT"]
    assert {"import_orders", "Tue 01 Dec 05:00:00 UTC"} <= {*re.split("  +", line)} and output.width(line) <= 80


def test_in_a_pipe_a_table_has_all_columns_however_narrow_the_terminal_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    output.Output(Namespace(format="table", color="never", ascii=False)).table(HEADS, [["x" * 20] * 8], spare=HEADS)
    assert capsys.readouterr().out.splitlines()[1] == "  ".join(["x" * 20] * 8)


# -- log lines


PAIR = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|\S*)(?: |$)')


def taken_apart(line: str) -> dict[str, str]:
    """A logfmt line as a stranger reads it."""
    stamp, level, event, *rest = line.split(" ", 3)
    pairs = PAIR.findall(rest[0]) if rest else []
    assert "".join(f"{key}={value} " for key, value in pairs) == (rest[0] + " " if rest else "")
    read = {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
    return {"time": datetime.fromisoformat(stamp).isoformat(), "level": level, "event": event, **read}


def log(wanted: str) -> lines.Log:
    return lines.Log(Namespace(ascii=False, color="never"), wanted)


@given(st.dictionaries(st.sampled_from(["job", "error", "text"]), st.text()))
def test_every_line_can_be_taken_apart_whatever_jobs_say(fields):
    text = log("text").text(datetime(2026, 3, 1, tzinfo=UTC), "INFO", "run.failed", fields)
    assert not ANY_CONTROL.search(text) and "\n" not in text
    read = taken_apart(text)
    assert read["event"] == "run.failed" and read["level"] == "INFO"
    assert {name: read[name] for name in fields} == {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        for name, value in fields.items()
    }


def test_lines_are_logfmt_json_or_for_the_journal(monkeypatch, tmp_path):
    at = datetime(2026, 3, 1, 12, 0, 0, 3000, tzinfo=UTC)
    fields = {"job": "a b", "run": 3, "took_ms": 12}
    assert log("text").text(at, "INFO", "run.succeeded", fields) == (
        '2026-03-01T12:00:00.003Z INFO run.succeeded job="a b" run=3 took_ms=12'
    )
    assert json.loads(log("json").text(at, "WARNING", "run.skipped", fields)) == {
        "time": "2026-03-01T12:00:00.003Z", "level": "warning", "event": "run.skipped", **fields
    }  # fmt: skip
    with (tmp_path / "journal").open("w") as journal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", journal)
        stream = os.fstat(journal.fileno())
        patch.setenv("JOURNAL_STREAM", f"{stream.st_dev}:{stream.st_ino}")
        assert log("auto").text(at, "ERROR", "run.failed", fields) == '<3>run.failed job="a b" run=3 took_ms=12'
        patch.setenv("JOURNAL_STREAM", "8:1234")  # of whoever started it
        assert log("auto").form == "text"


def test_a_log_that_found_no_room_goes_on_when_there_is_some_again(tmp_path, monkeypatch):
    with (tmp_path / "said.txt").open("w") as said:
        monkeypatch.setattr("sys.stderr", said)
        log = lines.Log(Namespace(ascii=False, color="never"), "text")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            for number in range(1000):
                log.write(f"{number} while there is none")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.write("afterwards")
    assert (tmp_path / "said.txt").read_text().endswith("\nafterwards\n")
