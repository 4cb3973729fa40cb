"""The door: `taskloop` and `python -m taskloop`. What lies behind it stands in `taskloop.cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from taskloop.cli import entrance


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; `arguments` None: those of the process, which also minds signals then."""
    if arguments is None:
        return entrance.process(sys.argv[1:])
    return entrance.command(arguments)


if __name__ == "__main__":
    sys.exit(main())
