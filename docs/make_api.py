"""Write docs/api.md from the docstrings of the public names: `python docs/make_api.py`.

A test compares the page with what this would write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import taskloop
from taskloop import durations, testing

PAGE = Path(__file__).with_name("api.md")
HEAD = """# Reference

Made from the docstrings by `docs/make_api.py`; every name below can be imported from `taskloop`, unless its module is named.

"""
GROUPS = {
    "The scheduler": ["TaskScheduler", "BackgroundTasks", "Options"],
    "Declaring": ["Jobs", "Job", "Call", "Flow", "Retry", "Inject"],
    "When": ["Trigger", "Every", "Cron", "At", "Schedule"],
    "Inside a job": ["RunContext", "current_run", "Fatal", "RetryAt"],
    "Records": ["RunHandle", "Run", "State", "Event"],
    "Errors": ["TaskloopError"],
}
OTHERS = {"taskloop.durations": durations, "taskloop.testing": testing}


def page() -> str:
    missing = set(taskloop.__all__) - {name for names in GROUPS.values() for name in names}
    if missing:
        raise SystemExit(f"these public names stand in no group of {Path(__file__).name}: {', '.join(sorted(missing))}")
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n\n")
        for name in names:
            parts += _entry(name, getattr(taskloop, name))
    for title, module in OTHERS.items():
        parts.append(f"## {title}\n\n")
        for name in module.__all__:
            if callable(getattr(module, name)) or inspect.isclass(getattr(module, name)):
                parts += _entry(name, getattr(module, name))
    return "".join(parts).rstrip() + "\n"


def _entry(name: str, what: Any) -> Iterator[str]:
    if not (inspect.isclass(what) or inspect.isroutine(what)):
        return
    yield f"### {name}\n\n"
    yield _signature(name, what)
    yield _text(what)
    if inspect.isclass(what):
        for member, found in _members(what):
            yield from _member(name, member, found)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public members with a docstring, of the class and of those of ours it comes from."""
    seen = set()
    for one in kind.__mro__:
        if not one.__module__.startswith("taskloop"):
            continue
        for name, found in vars(one).items():
            plain = found.__func__ if isinstance(found, classmethod | staticmethod) else found
            known = inspect.isroutine(plain) or isinstance(plain, property)
            if name.startswith("_") or name in seen or not known or not inspect.getdoc(plain):
                continue
            seen.add(name)
            yield name, found


def _member(of: str, name: str, found: Any) -> Iterator[str]:
    if isinstance(found, property):
        yield f"#### {of}.{name}\n\n"
    else:
        plain = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        yield f"#### {of}.{name}\n\n"
        yield _signature(name, plain)
    yield _text(found)


def _signature(name: str, what: Any) -> str:
    if isinstance(what, type) and issubclass(what, Enum):  # each Python shows another one
        return f"```text\n{name}(value)\n```\n\n"
    try:
        signature = str(inspect.signature(what))
    except (ValueError, TypeError):
        return ""
    signature = re.sub(
        r"\(self, /, |\(self, |\(cls, |\(self\)|\(cls\)", lambda m: "()" if m[0].endswith(")") else "(", signature
    )
    signature = re.sub(r" at 0x[0-9a-f]+", "", signature).replace("'", "")
    signature = signature.replace("*bare: Never", "*")  # there for who forgets the parentheses of a decorator
    signature = signature.replace(", **other: Never", "")  # and for who gives what it does not take
    waits = "await " if inspect.iscoroutinefunction(what) else ""
    return f"```text\n{waits}{name}{signature}\n```\n\n"


def _text(what: Any) -> str:
    text = inspect.getdoc(what) or ""
    if inspect.isclass(what) and text.startswith(f"{what.__name__}("):  # a dataclass without one
        return ""
    return re.sub(r"``([^`]+)``", r"`\1`", text) + "\n\n" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
