"""Every command: its words, its options, its help, and the function that does it.

Imports no command: `load` fetches the one that was asked for, and only its own parser is built. Start at `COMMANDS`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

__all__ = [
    "ALIASES",
    "COMMANDS",
    "ELSEWHERE",
    "FAMILIES",
    "LIVE",
    "Command",
    "Finished",
    "choices_of",
    "load",
    "options_of",
    "parse",
]

Parser = argparse.ArgumentParser
LIVE: Final = ("jobs", "runs", "schedules")
"""What the script of a shell asks `completion` for, beside its own text."""


class Finished(Exception):
    """Nothing is left to do but to end with `.code`."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        super().__init__(code)


class Command(NamedTuple):
    """One command. `options` adds what it takes to its parser."""

    group: str
    summary: str
    run: str
    options: Callable[[Parser], Any]
    examples: tuple[str, ...] = ()
    exits: str = "0 done"


# -- options, by what they belong to


def _everywhere(parser: Parser, *, default: Any = argparse.SUPPRESS) -> None:
    group = parser.add_argument_group("everywhere")
    group.add_argument("--config", metavar="FILE", default=default, help="instead of config.toml of this directory")
    group.add_argument("--app", metavar="MODULE:NAME", default=default, help="a TaskScheduler or Jobs to load")
    group.add_argument("--format", choices=("table", "json", "jsonl", "csv"), default=default, help="of the data")
    group.add_argument("--color", choices=("auto", "always", "never"), default=default)
    group.add_argument("--ascii", action="store_true", default=default, help="nothing beyond ASCII")
    group.add_argument("-v", "--verbose", action="store_true", default=default, help="tracebacks, and debug lines")


def _job(parser: Parser, *, many: bool = False, needed: bool = True) -> None:
    parser.add_argument("jobs" if many else "job", metavar="JOB", nargs=("+" if needed else "*") if many else None)


def _values(parser: Parser) -> None:
    parser.add_argument("values", nargs="*", metavar="k=v", help="a parameter; k:=json, @file.json or - (stdin) too")


def _told(parser: Parser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why; kept with the change")
    parser.add_argument("--actor", metavar="NAME", help="who does it (default: the login name)")


def _waiting(parser: Parser) -> None:
    parser.add_argument("--wait", action="store_true", help="until the run has ended; its end is the exit code")
    parser.add_argument("--timeout", metavar="D", help="wait no longer")


def _page(parser: Parser, limit: int) -> None:
    parser.add_argument("--limit", metavar="N", default=str(limit), help=f"at most, 1 to 1000 (default {limit})")


def _engine(parser: Parser) -> None:
    parser.add_argument("--dev", metavar="D", nargs="?", const="1", help="every recurring job each D (default 10s)")
    parser.add_argument("--grace", metavar="D", help="given to running jobs at the end (default 30s)")
    parser.add_argument("--log-format", choices=("auto", "text", "json"), help="of the lines on stderr")


def _run(parser: Parser) -> None:
    parser.add_argument("--for", dest="span", metavar="D", help="stop after this long, with exit code 0")
    parser.add_argument("--http", metavar="HOST:PORT", nargs="?", const="", help="serve the admin API, 127.0.0.1:8700")
    parser.add_argument("--jobs", metavar="GLOB,…", help="only these")
    parser.add_argument("--reload", action="store_true", help="start again when a file changes; for development")
    role = parser.add_mutually_exclusive_group()
    role.add_argument("--no-fire", action="store_true", help="only run what is submitted")
    role.add_argument("--fire-only", action="store_true", help="run nothing: what fires waits for other workers")
    _engine(parser)


def _once(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", nargs="?")
    _values(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--due", action="store_true", help="what is due since the last recorded fire (default)")
    which.add_argument("--all", action="store_true", help="every enabled job that needs no parameters")
    parser.add_argument("--timeout", metavar="D", help="then cancel what is running, exit 9")
    _engine(parser)
    _told(parser)


def _process(parser: Parser) -> None:
    _job(parser)
    parser.add_argument("--every", metavar="D", required=True, help="0: again as soon as it ended")
    parser.add_argument("--sleep", metavar="D", default="0", help="at least, between an end and the next start")
    parser.add_argument("--max-runtime", metavar="D", help="end after the run in hand, with exit code 0")
    _engine(parser)
    _told(parser)


def _next(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", nargs="?", help="of this one only")
    parser.add_argument("--for", dest="span", metavar="D", help="no further ahead")
    _page(parser, 20)


def _runs(parser: Parser) -> None:
    parser.add_argument("--job", metavar="JOB")
    parser.add_argument("--state", metavar="STATE,…", help="skipped ones are shown only when named here")
    parser.add_argument("--since", metavar="T", help="24h back from now, or an instant")
    parser.add_argument("--before", metavar="RUN", help="only older ones: the next page")
    _page(parser, 20)


def _submit(parser: Parser) -> None:
    _job(parser)
    _values(parser)
    parser.add_argument("--at", metavar="T", help="not before: +2h, or an instant such as 2030-01-01T02:00:00Z")
    parser.add_argument(
        "--key", metavar="KEY", help="one run per job and key; one that failed or was cancelled frees it"
    )
    _waiting(parser)
    _told(parser)


def _rerun(parser: Parser) -> None:
    parser.add_argument("id", metavar="RUN")
    _values(parser)
    parser.add_argument("--from-step", metavar="STEP", help="take over the results of the steps before this one")
    _waiting(parser)
    _told(parser)


def _logs(parser: Parser) -> None:
    parser.add_argument("id", metavar="RUN")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")


def _one_run(parser: Parser) -> None:
    parser.add_argument("id", metavar="RUN")
    _told(parser)


def _enable(parser: Parser) -> None:
    _job(parser, many=True)
    _told(parser)


def _disable(parser: Parser) -> None:
    _enable(parser)
    parser.add_argument("--until", metavar="T", help="then on again: +2h, or an instant")


def _pause(parser: Parser) -> None:
    _job(parser, many=True, needed=False)
    parser.add_argument("--until", metavar="T", help="then go on: +2h, or an instant")
    _told(parser)


def _resume(parser: Parser) -> None:
    _job(parser, many=True, needed=False)
    parser.add_argument("--missed", choices=("skip", "latest", "all"), help="the held fires (default: each job's own)")
    _told(parser)


def _schedule_add(parser: Parser) -> None:
    _job(parser)
    _values(parser)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--every", metavar="D")
    kind.add_argument("--cron", metavar="EXPR")
    kind.add_argument("--at", metavar="T", help="+2h, or an instant to come")
    parser.add_argument("--timezone", metavar="ZONE", help="of --cron")
    parser.add_argument("--id", metavar="ID", help="its name; a known one is replaced (default: JOB and the trigger)")
    _told(parser)


def _schedule_list(parser: Parser) -> None:
    parser.add_argument("--job", metavar="JOB")
    parser.add_argument("--before", metavar="ID", help="the last id of the page before")
    _page(parser, 100)


def _schedule_remove(parser: Parser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+")
    _told(parser)


def _cron(parser: Parser) -> None:
    parser.add_argument("expression", metavar="EXPR", nargs="+", help="five fields, or six with leading seconds")
    parser.add_argument("--timezone", metavar="ZONE", help="default: UTC")
    parser.add_argument("--count", metavar="N", default="5", help="of fires, 1 to 1000 (default 5)")
    parser.add_argument("--from", dest="start", metavar="T", help="instead of now; without an offset: of --timezone")


def _simulate(parser: Parser) -> None:
    parser.add_argument("--for", dest="span", metavar="D", default="24h", help="how far, 366d at most (default 24h)")
    parser.add_argument("--from", dest="start", metavar="T", help="instead of now; without an offset: of --tz")
    parser.add_argument("--tz", metavar="ZONE", help="whose clock is shown (default: the scheduler's)")
    parser.add_argument("--duration", dest="durations", metavar="JOB=D", action="append", help="instead of its history")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there are warnings")
    parser.add_argument("--svg", metavar="FILE", help="also draw it")


def _prune(parser: Parser) -> None:
    parser.add_argument(
        "--keep", metavar="D", help="instead of store.keep of the configuration; off: only as jobs say themselves"
    )
    _told(parser)


def _backup(parser: Parser) -> None:
    parser.add_argument("target", metavar="FILE", help="a new file")


def _systemd(parser: Parser) -> None:
    parser.add_argument("--user", action="store_true", help="for your own manager, not the system's")
    parser.add_argument("--name", metavar="NAME", help="of the unit (default: taskloop- and the directory's name)")
    parser.add_argument(
        "--timer", metavar="CALENDAR", nargs="?", const="daily", help="run what is due then, and end (default daily)"
    )
    parser.add_argument("--write", action="store_true", help="where systemd looks, instead of printing it")
    parser.add_argument("--force", action="store_true", help="with --write: over a file that is there")


class _Shells(tuple[str, ...]):
    """The shells there are a script for; what the scripts themselves ask for is taken too, and offered to nobody."""

    __slots__ = ()

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or word in LIVE


def _completion(parser: Parser) -> None:
    parser.add_argument("what", metavar="SHELL", choices=_Shells(("bash", "zsh", "fish")), help="bash, zsh or fish")


def _copy(parser: Parser) -> None:
    parser.add_argument("source", metavar="FROM", help="a store: its address, or the path of its file")
    parser.add_argument("target", metavar="TO", help="an empty one, or one that is not there yet")


def _token_create(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="who uses it; stands as actor in the records")
    scopes = ("read", "operate", "admin")
    parser.add_argument("--scope", choices=scopes, required=True, help="each may what those before it may")
    parser.add_argument("--expires", metavar="D", help="90d from now, or an instant (default: never)")
    _told(parser)


def _token_list(parser: Parser) -> None:
    parser.add_argument("--before", metavar="ID", help="the last id of the page before")
    _page(parser, 100)


def _token_revoke(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME|ID", nargs="+")
    _told(parser)


def _one_subject(parser: Parser) -> None:
    parser.add_argument("subject", metavar="JOB|RUN")


def _why(parser: Parser) -> None:
    _one_subject(parser)
    parser.add_argument("--at", metavar="T", help="an instant, or the time back from now, such as 2h (default: now)")


def _none(parser: Parser) -> None:
    pass


# -- the commands

COMMANDS: Final[dict[str, Command]] = {
    "run": Command(
        "run",
        "Start the scheduler and keep it running.",
        "running:run",
        _run,
        ("taskloop run", "taskloop run --app shop.jobs:scheduler --http", "taskloop run --dev 2s --for 30s"),
        "0 --for or max_runtime is over · 7 configuration · 8 store · 130/143 stopped by a signal",
    ),
    "once": Command(
        "run",
        "Run what is due, one job or all jobs, then end.",
        "once:once",
        _once,
        ("taskloop once", "taskloop once report days=7", "taskloop once --all --timeout 10m"),
        "0 all succeeded or nothing due · 1 one failed · 4 off or paused · 9 timed out · 10 skipped",
    ),
    "process": Command(
        "run",
        "Run one job again and again in a process of its own, for supervisors.",
        "continual:process",
        _process,
        ("taskloop process mails --every 30s", "taskloop process mails --every 0 --sleep 1s --max-runtime 1h"),
        "0 max-runtime is over · 3 no such job · 130/143 stopped by a signal",
    ),
    "list": Command(
        "look",
        "Jobs: next fire, last run, state.",
        "listing:jobs",
        _none,
        ("taskloop list", "taskloop list --format json"),
    ),
    "status": Command(
        "look",
        "Is it running, what runs, what is wrong.",
        "look:status",
        _none,
        ("taskloop status",),
        "0 well · 1 something needs attention",
    ),
    "show": Command(
        "look",
        "One job, or one run with its attempts and its error.",
        "look:show",
        _one_subject,
        ("taskloop show report", "taskloop show 12"),
        "0 done · 3 no such job or run",
    ),
    "logs": Command(
        "look",
        "What a run said: its own log.",
        "runlogs:logs",
        _logs,
        ("taskloop logs 12", "taskloop logs 12 -f"),
        "0 done · 3 no such run",
    ),
    "why": Command(
        "look",
        "Why a job did or did not run at a time, or what became of a run.",
        "explain:why",
        _why,
        ("taskloop why report", "taskloop why report --at 2030-01-01T02:00:00Z", "taskloop why 12"),
        "0 it ran · 3 no such job or run · 10 it did not run",
    ),
    "runs": Command(
        "look",
        "The history, newest first.",
        "look:runs",
        _runs,
        (
            "taskloop runs --job report --since 24h",
            "taskloop runs --state failed,interrupted",
            "taskloop runs --state skipped --format csv",
        ),
    ),
    "next": Command(
        "look",
        "The coming fires, of all jobs or of one.",
        "look:upcoming",
        _next,
        ("taskloop next", "taskloop next report --for 2h"),
    ),
    "submit": Command(
        "change",
        "Ask for a run of a job.",
        "ask:submit",
        _submit,
        (
            "taskloop submit report days=7",
            "taskloop submit report options:='{\"mail\": false}' --wait",
            "taskloop submit remind user=7 --at +2h --key remind-7",
        ),
        "0 done · 2 wrong parameters · 3 no such job · 4 off, or the key is taken · with --wait: 0 succeeded · 1 failed"
        " · 5 nobody is there to run it · 9 timed out · 10 skipped",
    ),
    "rerun": Command(
        "change",
        "Ask for a run like an earlier one.",
        "ask:rerun",
        _rerun,
        ("taskloop rerun 12", "taskloop rerun 12 days=1 --wait", "taskloop rerun 12 --from-step publish"),
        "as of submit",
    ),
    "cancel": Command(
        "change",
        "Ask for the end of a run.",
        "ask:cancel",
        _one_run,
        ("taskloop cancel 12 --reason 'wrong day'",),
        "0 done · 3 no such run · 4 it has ended",
    ),
    "enable": Command(
        "change", "Switch jobs on.", "switch:enable", _enable, ("taskloop enable report",), "0 done · 3 no such job"
    ),
    "disable": Command(
        "change",
        "Switch jobs off: due fires are skipped, a submit is refused. Survives restarts.",
        "switch:disable",
        _disable,
        ("taskloop disable report --reason 'db migration' --until +2h",),
        "0 done · 3 no such job",
    ),
    "pause": Command(
        "change",
        "Hold jobs, none named: all. Nothing new starts, due fires are kept.",
        "switch:pause",
        _pause,
        ("taskloop pause", "taskloop pause report --until +1h"),
        "0 done · 3 no such job",
    ),
    "resume": Command(
        "change",
        "End a pause and settle the held fires.",
        "switch:resume",
        _resume,
        ("taskloop resume", "taskloop resume report --missed skip"),
        "0 done · 3 no such job",
    ),
    "schedule add": Command(
        "change",
        "Store a schedule for a job.",
        "timetable:add",
        _schedule_add,
        (
            "taskloop schedule add report days=7 --cron '0 6 * * mon' --timezone Europe/London",
            "taskloop schedule add mails --every 5m --id often",
        ),
        "0 done · 2 wrong trigger · 3 no such job · 4 id taken",
    ),
    "schedule list": Command("change", "Show the schedules.", "timetable:show", _schedule_list),
    "schedule remove": Command(
        "change",
        "Remove stored schedules, or declared ones of jobs that are gone; their runs stay.",
        "timetable:remove",
        _schedule_remove,
        ("taskloop schedule remove often",),
        "0 done · 3 no such schedule · 4 declared by code that is there",
    ),
    "cron": Command(
        "plan and check",
        "Explain a cron expression and list its fires.",
        "plan:cron",
        _cron,
        ("taskloop cron '0 2 * * *' --timezone Europe/London", "taskloop cron @weekly --count 3"),
        "0 done · 2 the expression cannot be",
    ),
    "simulate": Command(
        "plan and check",
        "What would happen: fires, overlaps, waits, load. Does none of it.",
        "simulate:run",
        _simulate,
        (
            "taskloop simulate --for 30d",
            "taskloop simulate --for 7d --from 2030-03-25 --tz Europe/Berlin --strict",
            "taskloop simulate --for 7d --duration report=20m --svg week.svg",
        ),
        "0 done · 1 with --strict: there are warnings · 2 the file cannot be there · 7 the configuration is wrong",
    ),
    "check": Command(
        "plan and check",
        "Check the configuration and the jobs; touches no store.",
        "plan:check",
        _none,
        ("taskloop check",),
        "0 well · 1 a problem · 7 the configuration is wrong",
    ),
    "doctor": Command(
        "plan and check",
        "Look at Python, jobs, store, clocks, zones, port, access, disk, and say what to mend.",
        "doctor:doctor",
        _none,
        ("taskloop doctor", "taskloop doctor --format json"),
        "0 well, or only warnings · 1 a problem",
    ),
    "init": Command(
        "operate",
        "Write a starter file and a configuration; overwrites nothing.",
        "plan:init",
        _none,
        ("taskloop init",),
        "0 done · 4 both files are there",
    ),
    "token create": Command(
        "operate",
        "Make a token for the admin API; it is shown once.",
        "token:create",
        _token_create,
        (
            "taskloop token create anna --scope admin",
            "taskloop token create grafana --scope read --expires 90d",
        ),
        "0 done · 2 no such scope or name · 4 a token of that name is valid",
    ),
    "token list": Command(
        "operate", "Show the tokens: who may what, used when, until when.", "token:show", _token_list
    ),
    "token revoke": Command(
        "operate",
        "Take tokens back: they open nothing any more, nor do their sessions.",
        "token:revoke",
        _token_revoke,
        ("taskloop token revoke grafana --reason 'seen in a log'",),
        "0 done · 3 no such token · 4 it is revoked already",
    ),
    "systemd": Command(
        "operate",
        "Print or write a systemd unit for this directory, or a timer for what is due.",
        "units:systemd",
        _systemd,
        (
            "taskloop systemd",
            "taskloop systemd --user --name shop-jobs --write",
            "taskloop systemd --timer --write",
        ),
        "0 done · 4 another file is there · 6 no right to write it · 7 the configuration is wrong",
    ),
    "completion": Command(
        "operate",
        "Print a script that completes commands, options, jobs and runs in a shell.",
        "completion:completion",
        _completion,
        (
            'eval "$(taskloop completion bash)"',
            'eval "$(taskloop completion zsh)"',
            "taskloop completion fish > ~/.config/fish/completions/taskloop.fish",
        ),
    ),
    "db upgrade": Command("operate", "Bring the store's schema up to date.", "house:upgrade", _none),
    "db prune": Command("operate", "Delete old runs.", "house:prune", _prune, ("taskloop db prune --keep 30d",)),
    "db check": Command("operate", "Look for damage in the store.", "house:check", _none, (), "0 well · 1 damaged"),
    "db backup": Command(
        "operate",
        "Copy the store while it is in use.",
        "house:backup",
        _backup,
        ("taskloop db backup copy.db",),
        "0 done · 4 the file exists",
    ),
    "db copy": Command(
        "operate",
        "Copy a store into an empty one, of any kind, while nothing runs.",
        "transfer:copy",
        _copy,
        ("taskloop db copy sqlite:///taskloop.db sqlite:////srv/taskloop.db",),
        "0 done · 4 the target is not empty, or a worker is running · 8 store",
    ),
}
ALIASES: Final = {"trigger": "submit", "ls": "list"}
ELSEWHERE: Final = {
    "backup": "db backup",
    "beat": "run",
    "call": "submit",
    "dashboard": "run --http",
    "describe": "show",
    "exec": "submit",
    "failures": "runs --state failed",
    "fire": "submit",
    "flower": "run --http",
    "history": "runs",
    "info": "show",
    "inspect": "show",
    "job": "show",
    "jobs": "list",
    "kill": "cancel",
    "log": "logs",
    "migrate": "db upgrade",
    "prune": "db prune",
    "ps": "runs --state running",
    "purge": "cancel",
    "result": "show",
    "retry": "rerun",
    "revoke": "cancel",
    "run-all": "once --all",
    "schedules": "schedule list",
    "serve": "run",
    "start": "run",
    "tail": "logs --follow",
    "tasks": "list",
    "tokens": "token list",
    "ui": "run --http",
    "upcoming": "next",
    "web": "run --http",
    "worker": "run",
    "workers": "status",
}
"""What is asked for by words that other programs, and the pages, have for it: none of them is a command here."""
_APP: Final = re.compile(r"[\w.]+:[\w.]+")
"""What other servers take without an option before it."""
FAMILIES: Final = {
    "schedule": "add, list, remove",
    "token": "create, list, revoke",
    "db": "upgrade, prune, check, backup, copy",
}
_GROUPS: Final = {
    "run": "run in the foreground",
    "look": "look",
    "change": "change",
    "plan and check": "plan and check",
    "operate": "operate",
}


class _Quiet(argparse.ArgumentParser):
    """A parser whose complaints are `Usage` errors."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.color = False  # Python 3.14 colours help by itself, whatever `--color` says

    def error(self, message: str) -> NoReturn:
        from taskloop.cli.failures import Usage

        raise Usage(message.replace(", k=v", ""), f"{self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise Finished(status)


def load(target: str) -> Callable[[argparse.Namespace], int]:
    """The function at `module:name` of this package."""
    from importlib import import_module

    module, _, name = target.partition(":")
    function: Callable[[argparse.Namespace], int] = getattr(import_module(f"taskloop.cli.{module}"), name)
    return function


def parse(arguments: list[str]) -> argparse.Namespace:
    """What the command line asks for. Raises `Usage`, and `Finished` where help or the version was all it asked for."""
    top = _Quiet("taskloop", add_help=False, allow_abbrev=False)
    _everywhere(top)
    top.add_argument("-h", "--help", action="store_true")
    top.add_argument("--version", action="store_true")
    top.add_argument("command", nargs="?")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    given, strange = top.parse_known_args(arguments)
    if given.version:
        from taskloop import __version__

        raise _said(f"taskloop {__version__}\n")
    if strange:
        _refuse_option(strange[0], top)
    if given.help or given.command in (None, "help"):
        raise _help(given.rest if given.command == "help" else [], asked=given.help or given.command is not None)
    name, rest = _named(given.command, given.rest)
    base = argparse.Namespace(config=None, app=None, format="table", color="auto", ascii=False, verbose=False)
    for key, value in vars(given).items():
        if key in vars(base):
            setattr(base, key, value)
    args, strange = _parser(name).parse_known_intermixed_args(rest, base)
    if strange:
        _refuse_option(strange[0], _parser(name))
    args.command, args.run, args.words = name, COMMANDS[name].run, arguments
    return args


def options_of(name: str) -> Sequence[argparse.Action]:
    """What a command takes; empty name: what all take."""
    return _options(name)._actions  # argparse has no public list of them


def choices_of(name: str) -> Sequence[Sequence[argparse.Action]]:
    """The options of a command of which one must be given, and no two can be."""
    return [one._group_actions for one in _options(name)._mutually_exclusive_groups if one.required]


def _options(name: str) -> Parser:
    parser = _Quiet(add_help=False)
    if name:
        COMMANDS[name].options(parser)
    _everywhere(parser)
    return parser


def _named(word: str, rest: list[str]) -> tuple[str, list[str]]:
    """The command that the first words name, and what is left of them."""
    from taskloop.cli.failures import Usage

    name = ALIASES.get(word, word)
    if name in FAMILIES:
        if rest and f"{name} {rest[0]}" in COMMANDS:
            return f"{name} {rest[0]}", rest[1:]
        if not rest or rest[0] in ("-h", "--help"):
            raise _family_help(name, 0 if rest else 2)
        raise Usage(f"no command '{name} {rest[0]}'; there are: {FAMILIES[name]}", f"taskloop {name} --help")
    if name not in COMMANDS:
        from taskloop.errors import nearest

        near = ELSEWHERE.get(word) or nearest(word, [*COMMANDS, *ALIASES, *FAMILIES])
        raise Usage(f"no command '{word}'" + (f". Did you mean '{near}'?" if near else ""), "taskloop --help")
    return name, rest


def _refuse_option(option: str, parser: Parser) -> NoReturn:
    from taskloop.cli.failures import Usage
    from taskloop.errors import nearest

    word = option.partition("=")[0]
    if not word.startswith("-"):
        meant = f". Did you mean '--app {option}'?" if _APP.fullmatch(option) else ""
        raise Usage(f"'{option}' is one word too many{meant}", f"{parser.prog} --help")
    known = parser._option_string_actions  # argparse has no public list of them
    near = "--app" if word == "-A" else nearest(word, known)
    raise Usage(f"no option '{word}'" + (f". Did you mean '{near}'?" if near else ""), f"{parser.prog} --help")


def _parser(name: str) -> Parser:
    command = COMMANDS[name]
    epilog = "".join(f"  {example}\n" for example in command.examples)
    epilog = (f"examples:\n{epilog}\n" if epilog else "") + f"exit: {command.exits}"
    parser = _Quiet(
        f"taskloop {name}",
        description=command.summary,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.options(parser)
    _everywhere(parser)
    return parser


# -- help


def _said(text: str, code: int = 0) -> Finished:
    if code == 0:
        from taskloop.cli.output import put

        put(text)
    else:
        sys.stderr.write(text)
    return Finished(code)


def _help(topic: list[str], *, asked: bool) -> Finished:
    if topic == ["exit-codes"]:
        from taskloop.cli.failures import CODES

        return _said("".join(f"{code:>4}  {meaning}\n" for code, meaning in CODES.items()))
    if topic:
        name, _ = _named(topic[0], topic[1:])
        return _said(_parser(name).format_help())
    lines = [
        "usage: taskloop [--config FILE] [--app MODULE:NAME] [--format table|json|jsonl|csv]",
        "                [--color auto|always|never] [--ascii] [-v] [--version] COMMAND ...",
        "",
    ]
    for group, title in _GROUPS.items():
        lines.append(title)
        lines += [f"  {name:<17}{one.summary}" for name, one in COMMANDS.items() if one.group == group]
    lines += [
        "",
        "`taskloop COMMAND --help` has the details, `taskloop help exit-codes` the exit codes.",
        "Durations: 90s, 5m, 1h30m, 2w. Data goes to stdout, everything else to stderr.",
        "",
    ]
    return _said("\n".join(lines), 0 if asked else 2)


def _family_help(family: str, code: int) -> Finished:
    lines = [f"usage: taskloop {family} {{{FAMILIES[family].replace(', ', ',')}}} ...", ""]
    lines += [f"  {name:<17}{one.summary}" for name, one in COMMANDS.items() if name.startswith(family + " ")]
    return _said("\n".join([*lines, "", f"`taskloop {family} COMMAND --help` has the details.", ""]), code)
