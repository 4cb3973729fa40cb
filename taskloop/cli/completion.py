"""`taskloop completion`: a script for a shell, written from the same parser that reads the command line.

A script holds the commands and options of this version; names of jobs, ids of runs and schedules it asks for each time,
by `taskloop completion jobs` and the like. Those answer within LIMIT_SECONDS or not at all, and never complain: whoever
is writing a command does not want to read of a store. Light, so that a key press is answered at once.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Action, Namespace
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from taskloop.cli.output import put
from taskloop.cli.parser import ALIASES, COMMANDS, FAMILIES, LIVE, options_of

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Option", "Word", "completion", "words"]

LIMIT_SECONDS: Final = 0.5
NEWEST: Final = 100
"""Runs that are offered, at most."""
_FILES: Final = "files"
_KINDS: Final = {
    "JOB": "jobs",
    "GLOB,…": "jobs",
    "RUN": "runs",
    "JOB|RUN": "jobs runs",
    "ID": "schedules",
    "FILE": _FILES,
}
"""What an argument is, by the word that stands for it in the help."""
_STATES: Final = ("waiting", "running", "succeeded", "failed", "cancelled", "interrupted", "skipped")


class Option(NamedTuple):
    """An option: its names, its help, and what follows it."""

    names: tuple[str, ...]
    help: str
    valued: bool
    """Whether a value must follow."""
    kind: str
    """`jobs`, `runs`, `schedules`, `files`, or words to choose from with blanks between; empty: nothing is known."""


class Word(NamedTuple):
    """A command: its sentence, its options, and what its other arguments are, as in `Option.kind`."""

    summary: str
    options: tuple[Option, ...]
    kind: str
    single: bool = False
    """Whether there is one such argument: what follows it is no other."""


def words() -> dict[str, Word]:
    """Every command with what it takes, aliases too; under the empty name what stands before a command."""
    found = {"": Word("", tuple(_options("")), "")}
    for name, command in COMMANDS.items():
        first = next((one for one in options_of(name) if not one.option_strings), None)
        kind, single = ("", False) if first is None else (_kind(first, name), first.nargs in (None, "?"))
        found[name] = Word(command.summary, tuple(_options(name)), kind, single)
    return found | {alias: found[name] for alias, name in ALIASES.items()}


def _options(name: str) -> Iterable[Option]:
    help_text = "show what it takes" if name else "show the commands"
    yield Option(("-h", "--help"), help_text, valued=False, kind="")
    for one in options_of(name):
        if one.option_strings:
            valued = one.nargs is None
            yield Option(tuple(one.option_strings), _sentence(one.help), valued, _kind(one, name))


def _kind(action: Action, command: str) -> str:
    if action.metavar == "SHELL":
        return "bash zsh fish"
    if action.metavar == "STATE,…":
        return " ".join(_STATES)
    kind = " ".join(action.choices) if action.choices else _KINDS.get(str(action.metavar), "")
    return "" if kind == "schedules" and not command.startswith("schedule") else kind


def _sentence(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")


# -- the command


def completion(args: Namespace) -> int:
    """Print the script of a shell; or what it asks for, a line each, with what it is behind a tab."""
    if args.what in LIVE:
        with suppress(Exception):
            _tell(args)
        return 0
    scripts: dict[str, Callable[[dict[str, Word]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    put(scripts[args.what](words()))
    return 0


def _tell(args: Namespace) -> None:
    import threading

    patience = threading.Timer(LIMIT_SECONDS, os._exit, (0,))  # a disk that hangs, a store that is locked
    patience.daemon = True
    patience.start()
    try:
        from taskloop.cli.output import clean

        lines = [f"{clean(name)}\t{clean(text)}\n" for name, text in _live(args).items()]
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
    finally:
        patience.cancel()


def _live(args: Namespace) -> dict[str, str]:
    from taskloop import address
    from taskloop.cli import reach

    found: dict[str, str] = {}
    path = reach.store_file(args)
    if path is not None:
        import sqlite3
        from pathlib import Path

        address_of_file = f"{Path(path).absolute().as_uri()}?mode=rw"
        with suppress(sqlite3.Error), closing(sqlite3.connect(address_of_file, uri=True, timeout=LIMIT_SECONDS)) as db:
            found = _stored(args.what, db)
    if args.what == "jobs":
        tables = address.gather(args.config).table.get("jobs")
        found = {**dict.fromkeys(tables if isinstance(tables, dict) else (), "in the configuration"), **found}
    return found


def _stored(kind: str, db: sqlite3.Connection) -> dict[str, str]:
    return {str(name): str(text or "") for name, text in db.execute(_STATEMENTS[kind]).fetchall()}


_STATEMENTS: Final = {
    "jobs": "SELECT name, json_extract(definition, '$.trigger_text') FROM taskloop_jobs ORDER BY name",
    "runs": f"SELECT id, job || ' ' || state FROM (SELECT id, job, state FROM taskloop_runs ORDER BY id DESC LIMIT 1000)"
    f" WHERE state <> 'skipped' LIMIT {NEWEST}",
    "schedules": "SELECT id, job || ' ' || trigger FROM taskloop_schedules ORDER BY id LIMIT 1000",
}


# -- the scripts


def _commands(found: dict[str, Word]) -> dict[str, str]:
    """The first words of commands, each with its sentence."""
    single = {name: one.summary for name, one in found.items() if name and " " not in name}
    return {**single, **FAMILIES, "help": "show what a command takes"}


def _members(family: str, found: dict[str, Word]) -> dict[str, str]:
    return {name.split()[1]: one.summary for name, one in found.items() if name.startswith(f"{family} ")}


def _chosen(found: dict[str, Word]) -> dict[str, dict[str, str]]:
    """Where words follow of which each has a sentence: at the beginning, after `help`, and after a family."""
    return {"": _commands(found), "help": _commands(found), **{name: _members(name, found) for name in FAMILIES}}


def _valued(found: dict[str, Word]) -> dict[str, str]:
    """What follows an option, by `command option`; by ` option` alone where it is the same at every command."""
    kinds: dict[str, dict[str, str]] = {}
    for command, word in found.items():
        for one in word.options:
            for name in one.names:
                kinds.setdefault(name, {})[command] = one.kind
    valued: dict[str, str] = {}
    for name, each in kinds.items():
        alike = len(set(each.values())) == 1
        valued |= {f" {name}": next(iter(each.values()))} if alike else {f"{one} {name}": each[one] for one in each}
    return {where: kind for where, kind in valued.items() if kind}


def _pattern(where: str) -> str:
    return ("*" if where[0] == " " else "") + _quote(where)


def _must(found: dict[str, Word]) -> list[str]:
    return sorted({name for word in found.values() for one in word.options if one.valued for name in one.names})


def _single(found: dict[str, Word]) -> list[str]:
    """The commands behind whose one argument nothing is offered."""
    return [name for name, word in found.items() if word.kind and word.single]


def _quote(text: str) -> str:
    """A text as bash and zsh take it literally."""
    return "'" + text.replace("'", "'\\''") + "'"


_BASH: Final = r"""# Completion of taskloop for bash, 3.2 or newer: eval "$(taskloop completion bash)"

_taskloop_offer() {  # words to choose from
    local one
    for one in $1; do
        [[ $one == "$cur"* ]] && COMPREPLY+=("$one")
    done
}

_taskloop_ask() {  # jobs, runs or schedules, as the store has them
    local one rest
    while IFS=$'\t' read -r one rest; do
        [[ $one == "$cur"* ]] && COMPREPLY+=("$(printf '%q' "$one")")
    done < <("$program" ${config:+--config "$config"} completion "$1" 2>/dev/null)
}

_taskloop_files() {
    local one
    while IFS= read -r one; do
        COMPREPLY+=("$one")
    done < <(compgen -f -- "$cur")
}

_taskloop_kind() {
    local one
    case $1 in
        files) compopt -o filenames 2>/dev/null; _taskloop_files ;;
        jobs|runs|schedules|'jobs runs') for one in $1; do _taskloop_ask "$one"; done ;;
        *) _taskloop_offer "$1" ;;
    esac
}

_taskloop() {
    local line=${COMP_LINE:0:COMP_POINT} cur prev program word command='' config='' skip='' given='' i last prefix
    local -a words
    COMPREPLY=()
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    last=$((${#words[@]} - 1))
    program=${words[0]} cur=${words[last]} prev=${words[last - 1]}
    [[ $program == '~/'* ]] && program=$HOME/${program:2}
    for ((i = 1; i < last; i++)); do
        word=${words[i]}
        if [[ $skip ]]; then
            [[ $skip == --config ]] && config=$word
            skip=''
            continue
        fi
        case $word in
            @MUST@) skip=$word ;;
            -*) ;;
            *)
                case $command in
                    '') command=$word ;;
                    @FAMILIES@) command="$command $word" ;;
                    @SINGLE@) given=$word ;;
                esac
                ;;
        esac
    done
    case "$command $prev" in
@VALUES@
    esac
    if [[ ! $skip && ${#COMPREPLY[@]} == 0 ]]; then
        if [[ $cur == -* ]]; then
            case $command in
@OPTIONS@
            esac
        elif [[ ! $given ]]; then
            case $command in
                '') _taskloop_offer @COMMANDS@ ;;
@RESTS@
            esac
        fi
    fi
    # bash replaces only what follows the last of these signs.
    if [[ $cur == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then
        prefix=${cur%"${cur##*[:=]}"}
        for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do
            COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}
        done
    fi
}

complete -F _taskloop taskloop
"""


def _bash(found: dict[str, Word]) -> str:
    values = [f"        {_pattern(one)}) _taskloop_kind {_quote(kind)} ;;" for one, kind in _valued(found).items()]
    options = [
        f"                {_quote(name)}) _taskloop_offer {_quote(_joined(one.options))} ;;"
        for name, one in found.items()
    ]
    rests = [
        f"                {_quote(name)}) _taskloop_kind {_quote(one.kind)} ;;"
        for name, one in found.items()
        if one.kind
    ]
    rests += [
        f"                {name}) _taskloop_offer {_quote(' '.join(_members(name, found)))} ;;" for name in FAMILIES
    ]
    rests += [f"                help) _taskloop_offer {_quote(' '.join(_commands(found)))} ;;"]
    return (
        _BASH.replace("@MUST@", "|".join(_must(found)))
        .replace("@FAMILIES@", "|".join(FAMILIES))
        .replace("@SINGLE@", "|".join(map(_quote, _single(found))))
        .replace("@VALUES@", "\n".join(values))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@COMMANDS@", _quote(" ".join(_commands(found))))
        .replace("@RESTS@", "\n".join(rests))
    )


def _joined(options: Iterable[Option]) -> str:
    return " ".join(name for one in options for name in one.names)


_ZSH: Final = r"""#compdef taskloop
# Completion of taskloop for zsh: eval "$(taskloop completion zsh)", or as _taskloop in a folder of $fpath.

_taskloop_ask() {  # jobs, runs or schedules, as the store has them
    local -a lines
    lines=(${(f)"$($program $config completion $1 2>/dev/null)"})
    lines=(${${lines//:/\\:}//$'\t'/:})
    _describe -V "$1" lines
}

_taskloop_kind() {
    local one
    case $1 in
        files) _files ;;
        jobs|runs|schedules|'jobs runs') for one in ${=1}; do _taskloop_ask $one; done ;;
        *) compadd -- ${=1} ;;
    esac
}

_taskloop() {
    local program=${words[1]} word command='' skip='' given='' i
    local -a config options members
    program=${program/#\~\//$HOME/}
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        if [[ -n $skip ]]; then
            [[ $skip == --config ]] && config=(--config ${(Q)word})
            skip=''
            continue
        fi
        case $word in
            @MUST@) skip=$word ;;
            -*) ;;
            *)
                case $command in
                    '') command=$word ;;
                    @FAMILIES@) command="$command $word" ;;
                    @SINGLE@) given=$word ;;
                esac
                ;;
        esac
    done
    if [[ -n $skip || ${words[CURRENT]} != -* ]]; then
        case "$command ${words[CURRENT - 1]}" in
@VALUES@
        esac
        [[ -n $skip ]] && return
    fi
    if [[ ${words[CURRENT]} == -* ]]; then
        case $command in
@OPTIONS@
        esac
        _describe -o option options
    elif [[ -z $given ]]; then
        case $command in
@RESTS@
        esac
    fi
}

if [[ ${funcstack[1]} == _taskloop ]]; then
    _taskloop "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _taskloop taskloop
fi
"""


def _zsh(found: dict[str, Word]) -> str:
    values = [
        f"            {_pattern(one)}) _taskloop_kind {_quote(kind)}; return ;;" for one, kind in _valued(found).items()
    ]
    options = [
        f"            {_quote(name)}) options=("
        + " ".join(_described(each, option.help) for option in one.options for each in option.names)
        + ") ;;"
        for name, one in found.items()
    ]
    rests = [
        f"            {_quote(name)}) _taskloop_kind {_quote(one.kind)} ;;" for name, one in found.items() if one.kind
    ]
    rests += [
        f"            {_quote(name)}) members=("
        + " ".join(_described(one, text) for one, text in members.items())
        + "); _describe command members ;;"
        for name, members in _chosen(found).items()
    ]
    return (
        _ZSH.replace("@MUST@", "|".join(_must(found)))
        .replace("@FAMILIES@", "|".join(FAMILIES))
        .replace("@SINGLE@", "|".join(map(_quote, _single(found))))
        .replace("@VALUES@", "\n".join(values))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@RESTS@", "\n".join(rests))
    )


def _described(name: str, text: str) -> str:
    return _quote(f"{name}:{text}" if text else name)


_FISH: Final = r"""# Completion of taskloop for fish: taskloop completion fish > ~/.config/fish/completions/taskloop.fish

function __taskloop_ask  # jobs, runs or schedules, as the store has them
    set -l words (commandline -opc)
    set -l config
    if set -l at (contains -i -- --config $words)
        set config --config $words[(math $at + 1)]
    end
    $words[1] $config completion $argv[1] 2>/dev/null
end

function __taskloop_kind
    switch $argv[1]
        case files
            __fish_complete_path (commandline -ct)
        case jobs runs schedules 'jobs runs'
            for one in (string split ' ' $argv[1])
                __taskloop_ask $one
            end
        case '*'
            string split ' ' $argv[1]
    end
end

function __taskloop
    set -l command
    set -l given
    set -l skip
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test -n "$skip"
            set skip
            continue
        end
        switch $word
            case @MUST@
                set skip $word
            case '-*'
            case '*'
                switch "$command"
                    case ''
                        set command $word
                    case @FAMILIES@
                        set command "$command $word"
                    case @SINGLE@
                        set given $word
                end
        end
    end
    set -l current (commandline -ct)
    if test -n "$skip"; or not string match -q -- '-*' "$current"
        switch "$command $words[-1]"
@VALUES@
        end
        test -n "$skip"; and return
    end
    if string match -q -- '-*' "$current"
        switch "$command"
@OPTIONS@
        end
        return
    end
    test -n "$given"; and return
    switch "$command"
@RESTS@
    end
end

complete -c taskloop -f -a '(__taskloop)'
"""


def _fish(found: dict[str, Word]) -> str:
    values = [
        f"            case {_fished(f'*{one}' if one[0] == ' ' else one)}\n                __taskloop_kind {_fished(kind)}\n                return"
        for one, kind in _valued(found).items()
    ]
    options = [
        f"            case {_fished(name)}\n                printf '%s\\t%s\\n' "
        + " ".join(f"{each} {_fished(option.help)}" for option in one.options for each in option.names)
        for name, one in found.items()
    ]
    rests = [
        f"        case {_fished(name)}\n            __taskloop_kind {_fished(one.kind)}"
        for name, one in found.items()
        if one.kind
    ]
    rests += [
        f"        case {_fished(name)}\n            printf '%s\\t%s\\n' "
        + " ".join(f"{one} {_fished(text)}" for one, text in members.items())
        for name, members in _chosen(found).items()
    ]
    return (
        _FISH.replace("@MUST@", " ".join(_must(found)))
        .replace("@FAMILIES@", " ".join(FAMILIES))
        .replace("@SINGLE@", " ".join(map(_fished, _single(found))))
        .replace("@VALUES@", "\n".join(values))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@RESTS@", "\n".join(rests))
    )


def _fished(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
