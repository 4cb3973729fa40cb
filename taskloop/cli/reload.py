"""`taskloop run --reload`: the same command in a child, started again whenever a file changes. For development.

The child runs as it would without the option, in a process group of its own: a Ctrl-C is heard here and passed on once,
so the child is not hurried by hearing it twice; Ctrl-Z and SIGQUIT are passed on too. It is stopped as by SIGTERM, with its
grace, before it is started again; so nothing that it wrote is cut off. One that cannot start is told of, and tried again
at the next change.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from taskloop import address
from taskloop.errors import MissingExtra

if TYPE_CHECKING:
    from watchfiles import Change

__all__ = ["child", "reload"]

LOOK_MS: Final = 250
"""How often a child that ended by itself is noticed."""
STOP_SECONDS: Final = 1.0
"""How long a child that a Ctrl-Z has reached may take until it has stopped."""
TOGETHER_MS: Final = 100
"""Changes that come this close together are one."""
ENDINGS: Final = (".py", ".toml")
ASIDE: Final = frozenset(
    [".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"]
)
_FINAL: Final = (0, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)
"""Ends of a child that a changed file would not make another."""
_CHILD: Final = "import sys; from taskloop.cli.reload import child; sys.exit(child(sys.argv[1:]))"


def reload(args: Namespace, words: Sequence[str]) -> int:
    """Run `words` again and again, until it ends for good or a signal ends it; gives its exit code.

    Raises `MissingExtra` without watchfiles.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtra("watchfiles", "reload") from error
    folder, stop = Path.cwd(), Event()
    files = {address.ENV_FILE, *([args.config] if args.config else [])}
    extra = frozenset(str(Path(one).absolute()) for one in files)

    def counts(_change: Change, path: str) -> bool:
        return _counts(path, folder, extra)

    child = _Child(words)
    with child.heeding(stop):
        child.start()
        changes = watch(
            folder, watch_filter=counts, debounce=TOGETHER_MS, stop_event=stop, rust_timeout=LOOK_MS,
            yield_on_timeout=True, raise_interrupt=False,
        )  # fmt: skip
        for changed in changes:
            if changed:
                # A terminal is the child's until it has ended: it would take what is said there for its bars.
                said, waits = f"reload: {_named(changed, folder)} changed", sys.stderr.isatty()
                if not waits:
                    _say(said)
                child.end()
                if waits:
                    _say(said)
                if stop.is_set():
                    break
                child.start()
            elif child.told_end():
                break
        return child.wait()


def _counts(path: str, folder: Path, extra: frozenset[str]) -> bool:
    """Whether a change of this file matters."""
    if path in extra:
        return True
    try:
        inside = Path(path).relative_to(folder)
    except ValueError:
        return False
    return inside.suffix in ENDINGS and not ASIDE & set(inside.parts)


def _named(changed: Iterable[tuple[Any, str]], folder: Path) -> str:
    names = sorted(
        {str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path for _, path in changed}
    )
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _say(text: str) -> None:
    from taskloop.cli.output import clean

    # What a child that was killed has left on a terminal may stand there: what is said begins a line of its own.
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(start + clean(text), file=sys.stderr, flush=True)


class _Child:
    """The process that runs the command; the signals that come here go on to it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def start(self) -> None:
        self._told = False
        self._process = subprocess.Popen([sys.executable, "-c", _CHILD, *self._words], process_group=0)

    def end(self) -> None:
        """Stop it as a service is stopped, and wait: its runs have their grace."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def wait(self) -> int:
        assert self._process is not None
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def told_end(self) -> bool:
        """Whether it has ended for good; of an end that a change may mend it is told once."""
        assert self._process is not None
        if self._process.poll() is None:
            return False
        code = self.wait()
        if code in _FINAL:
            return True
        if not self._told:
            self._told = True
            _say(f"reload: ended with code {code}; it is started again when a file changes")
        return False

    def _tell(self, number: int) -> None:
        """The child, and what its jobs have started, as the terminal would; a stop is waited for, for it gives that back."""
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(ProcessLookupError, ChildProcessError):
            os.killpg(self._process.pid, number)
            until = monotonic() + STOP_SECONDS
            look = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
            while number == signal.SIGTSTP and monotonic() < until:
                if os.waitid(os.P_PID, self._process.pid, look) is not None:
                    return
                sleep(0.01)

    @contextmanager
    def heeding(self, stop: Event) -> Iterator[None]:
        """Let signals end what is watched, and reach the child."""

        def heed(number: int, _frame: object) -> None:
            stop.set()
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

        def obey(number: int, _frame: object) -> None:
            self._tell(number)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            signal.signal(number, obey)  # after a `fg`
            self._tell(signal.SIGCONT)

        ends = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), heed)
        wanted = {**ends, signal.SIGTSTP: obey, signal.SIGQUIT: obey}
        # What was ignored when we began is ignored by the child too: whoever started us meant it, as nohup does.
        there = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, wanted[number]) for number in there}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


def child(words: Sequence[str]) -> int:
    """What the child does: the command, and an end as by SIGTERM should its parent be killed, for nobody would know of it."""
    import ctypes

    from taskloop.cli import entrance

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, of Linux
    return entrance.process(words)
