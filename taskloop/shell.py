"""A job that is a command line of the shell, as a crontab has them: `call = "taskloop.shell:command"` in config.toml.

Level 6. What it writes stands in the run's log; an exit code other than 0 is a failed run. A cancel, a timeout and a stop
end the command with all that it started: SIGTERM to its process group, and SIGKILL to what stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Final

from taskloop.context import RunContext
from taskloop.errors import TaskloopError
from taskloop.parameters import RESERVED

__all__ = ["CommandFailed", "command"]

LONGEST: Final = 4_000
"""Characters of a line, as many as a line of a run's log has; a longer one becomes several."""
TURN: Final = 500
"""Lines that are taken over in one turn of the loop: a few milliseconds."""
KILL_SECONDS: Final = 3.0
"""What an ended command has before it is killed: less than `scheduler.kill_grace`, after which nobody waits for it."""
LAST_SECONDS: Final = 1.0
"""How long the output is read on after the command has ended: what it left in the background may hold it for ever."""


class CommandFailed(TaskloopError, RuntimeError):
    """A command ended with another exit code than 0; `.code` is below 0 where a signal ended it."""

    def __init__(self, code: int, last: str) -> None:
        self.code = code
        how = f"exit code {code}" if code >= 0 else f"ended by {_signal_name(-code)}"
        super().__init__(f"{how}: {last}" if last else how)


async def command(
    run: RunContext,
    line: Annotated[str, RESERVED],
    folder: Annotated[str | None, RESERVED] = None,
    environment: Annotated[Mapping[str, str] | None, RESERVED] = None,
    stdin: Annotated[str, RESERVED] = "",
    shell: Annotated[str, RESERVED] = "/bin/sh",
) -> str | None:
    """Run `line` by the shell, and give the last line that it wrote.

    What its declaration gives nobody who asks for a run can change: else all who may submit could run any command.

    `folder`: where it runs, `~` is this user's home; None: where the scheduler runs. `environment`: laid over the
    scheduler's own. `stdin`: what it reads. Raises `CommandFailed`, and `OSError` where shell or folder are missing.
    """
    environ, where = {**os.environ, **(environment or {})}, _folder(folder)
    with TemporaryFile() as given:
        given.write(stdin.encode())
        given.seek(0)
        # A pipe of our own: of asyncio's, wait() also waits until what runs in the background has closed it.
        output, theirs = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                shell, "-c", line, cwd=where, env=environ, stdin=given, stdout=theirs, stderr=theirs, start_new_session=True
            )  # fmt: skip
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(theirs)
    said = _Output(run)
    try:
        async with said.read(output):
            code = await child.wait()
    finally:
        await _end(child)
    if code:
        raise CommandFailed(code, said.last)
    return said.last or None


def _folder(name: str | None) -> Path | None:
    return None if name is None else Path(name).expanduser()


class _Output:
    """What a command writes, on its way into the run's log."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.last = ""
        """The last line that was not empty."""

    @asynccontextmanager
    async def read(self, descriptor: int) -> AsyncIterator[None]:
        """Read a pipe while the context is open, and up to LAST_SECONDS after a good end of it."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
        )
        reading = asyncio.ensure_future(self._log(stream))
        try:
            yield
            await asyncio.wait({reading}, timeout=LAST_SECONDS)
        finally:
            reading.cancel()
            transport.close()

    async def _log(self, stream: asyncio.StreamReader) -> None:
        count = 0
        async for text in _lines(stream):
            self._run.log(text)
            self.last = text.strip() or self.last
            count += 1
            if count % TURN == 0:  # what writes without end fills the pipe as fast as it is read
                await asyncio.sleep(0)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    decoder, rest = getincrementaldecoder("utf-8")("replace"), ""
    while chunk := await stream.read(65_536):
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        while len(rest) > LONGEST:
            whole.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        for one in whole:
            for at in range(0, max(1, len(one)), LONGEST):
                yield one[at : at + LONGEST].rstrip("\r")
    if rest := rest + decoder.decode(b"", final=True):
        yield rest


async def _end(child: asyncio.subprocess.Process) -> None:
    """End what is left of a command that was not let go on; what it has sent into the background by itself stays."""
    if child.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(KILL_SECONDS):
            while await asyncio.to_thread(_lives, child.pid):  # the shell may be gone before what it has started
                await asyncio.sleep(0.02)  # nobody tells of the end of a group
    except TimeoutError:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), KILL_SECONDS)


def _lives(group: int) -> bool:
    """Whether any process of a group is at work. One that has ended and waits for its parent to notice is not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):  # Linux
        with suppress(OSError):
            state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            states += [state] if int(its_group) == group else []
    return not states or any(state not in "ZX" for state in states)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
