"""Write docs/commands.md from the table of commands: `python docs/make_commands.py`.

A test compares the page with what this would write.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from taskloop.cli.parser import COMMANDS, choices_of, options_of

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Every command

Made from the table of commands by `docs/make_commands.py`; [the page on the command line](command-line.md) says how they work together.
"""


def page() -> str:
    everywhere = [one for one in options_of("") if not isinstance(one, argparse._HelpAction)]
    known = {one.dest for one in everywhere}
    parts = [HEAD, "\n## Options of all\n\n", *_table(everywhere)]
    for name, command in COMMANDS.items():
        actions = [
            one for one in options_of(name) if one.dest not in known and not isinstance(one, argparse._HelpAction)
        ]
        usage = " ".join(["taskloop", name, *_usages(name, actions)])
        parts.append(f"\n## {name}\n\n{command.summary}\n\n```text\n{usage}\n```\n")
        if actions:
            parts += ["\n", *_table(actions)]
        if command.examples:
            parts.append("\n```sh\n" + "\n".join(command.examples) + "\n```\n")
        if command.exits:
            parts.append(f"\nExit codes: {command.exits}\n")
    return "".join(parts)


def _usages(name: str, actions: list[argparse.Action]) -> Iterator[str]:
    """Each option as it stands in the usage; of those of which one must be given all together, where the first stands."""
    groups = {one.dest: group for group in choices_of(name) for one in group}
    for one in actions:
        group = groups.get(one.dest)
        if group is None:
            yield _usage(one)
        elif one.dest == group[0].dest:
            yield f"({' | '.join(map(_word, group))})"


def _usage(action: argparse.Action) -> str:
    needed = action.required if action.option_strings else action.nargs not in ("?", "*")
    return _word(action) if needed else f"[{_word(action)}]"


def _word(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest.upper())
    longest = max(action.option_strings, key=len)
    if action.nargs == 0:
        return longest
    value = str(action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper()))
    return f"{longest} [{value}]" if action.nargs == "?" else f"{longest} {value}"


def _table(actions: list[argparse.Action]) -> Iterator[str]:
    yield "| | |\n|---|---|\n"
    for one in actions:
        words = ", ".join([*sorted(one.option_strings, key=len)[:-1], _word(one)])
        told = (one.help or "").replace("|", "\\|")
        yield f"| `{words}` | {told} |\n".replace("`" + words + "`", "`" + words.replace("|", "\\|") + "`")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
