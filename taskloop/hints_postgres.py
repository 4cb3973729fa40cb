"""Hints between processes: NOTIFY when something was written that others may act on at once, and LISTEN for theirs.

Level 5. A hint is no more than that: whoever misses one finds the same by looking again a little later, as always. A
process that listens sends its own apart from its transactions, a crowd of them as one: a NOTIFY within one makes all
commits of the database wait for each other. Behind a transaction pooler, where nobody can listen, there is only the
looking. Start at `Hints.noted` and `Hints.wait`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from taskloop import audit_postgres as audit
from taskloop.runs import Run, RunId, State
from taskloop.server_postgres import IDLE_SECONDS, Server, closed, let_go, probe
from taskloop.store_data import Cancelling, Claimed

__all__ = ["CHANNEL", "NOTIFY", "Hints", "concerns_others"]

CHANNEL: Final = "taskloop"
NOTIFY: Final = "SELECT pg_notify($1, $2) WHERE pg_notification_queue_usage() < 0.9"
"""Says nothing while somebody who listens stays in a transaction for so long that the server has no room for more: it would refuse
the transaction, and with it what the hint is about.
"""
TOGETHER_SECONDS: Final = 0.02
"""What is to be told within this is told once; what this process does itself within it is not told at all."""
APART_SECONDS: Final = 0.05
"""Between two looks that hints cause."""
AGAIN_SECONDS: Final = 5.0
"""Until a connection that was lost, or could not be made, is tried again."""
MOST: Final = 500
"""Runs that are named in one hint: it may have 8,000 letters."""
REMEMBERED: Final = 10_000
"""Runs of which is known who asked for them; with more, whoever waits finds out by looking."""
_LOOK: Final = "look"
_ASKING: Final = ("submit", "ask")
"""Verbs that ask for runs."""


def concerns_others(part: tuple[str, Any], answer: Any) -> bool:
    """Whether another process may have something to do now that a part of a batch was carried out."""
    verb, work = part
    if verb in _ASKING:
        return not isinstance(answer, Exception) and any(map(_waits, answer))
    if isinstance(answer, Cancelling):
        return answer.wished
    return verb == "do" and work.func in (audit.put, audit.drop, audit.switch, audit.unswitch)


def _waits(run: Run) -> bool:
    return run.state is State.WAITING and not run.existed


class Hints:
    """One connection that listens, and tells; made when somebody first waits for a hint."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self._looked_at = 0.0
        self._telling = asyncio.Event()
        self._looks = False
        """Whether others are to be told to look."""
        self._ended: list[int] = []
        """Runs that ended here, and that others have asked for and may wait for."""
        self._ours: set[int] = set()
        self._theirs: set[int] = set()
        self.heed: Callable[[Sequence[RunId]], None] | None = None
        """Called with the runs that have ended in other processes."""
        self.look: str = f"{name} {_LOOK}"
        """What tells others to look."""

    @property
    def listening(self) -> bool:
        """Whether what is `noted` is told to others; else a hint is to be sent another way."""
        return not closed(self._connection)

    def noted(self, batch: Sequence[tuple[str, Any]], answers: Sequence[Any]) -> None:
        """A batch was committed: tell others what concerns them. Does not wait."""
        for part, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Claimed):
                self._claimed(answer)
            elif part[0] == "settle" and isinstance(answer, Run):
                if answer.final and answer.id in self._theirs:
                    self._theirs.discard(answer.id)
                    self._ended.append(answer.id)
            elif concerns_others(part, answer):
                self._looks = True
                if part[0] in _ASKING:
                    self._ours.update(run.id for run in answer if _waits(run))
        for known in (self._ours, self._theirs):
            if len(known) > REMEMBERED:
                known.clear()
        if self._looks or self._ended:
            self._telling.set()

    def _claimed(self, answer: Claimed) -> None:
        for run in answer.started:
            if run.schedule is None and run.id not in self._ours:
                self._theirs.add(run.id)
            self._ours.discard(run.id)
        if not answer.left:  # what others were to be told of is taken
            self._looks = False

    async def wait(self, seconds: float) -> None:
        """Wait for a hint of another process, at most so long."""
        if self._task is None and self._server.statement_cache_size:
            self._task = asyncio.create_task(self._carry_on(), name="taskloop store hints")
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
                await asyncio.sleep(self._looked_at + APART_SECONDS - loop.time())
        self._heard.clear()
        self._looked_at = loop.time()

    async def close(self, within: float) -> None:
        task, self._task = self._task, None
        try:
            if task is not None and task.get_loop() is asyncio.get_running_loop():
                task.cancel()
                await asyncio.wait({task}, timeout=within)
                if self.listening:
                    async with asyncio.timeout(within):
                        await self._tell()  # at once: no crowd comes any more
        except BaseException as error:
            if self._connection is not None:
                self._connection.terminate()  # who says nothing is not waited for once more
            if not isinstance(error, Exception):
                raise
        connection, self._connection = self._connection, None
        if connection is not None:
            await let_go(connection, within)

    async def _carry_on(self) -> None:
        while True:
            try:
                if closed(self._connection):
                    self._connection = await self._server.connect()
                    self._connection.add_termination_listener(self._cut)
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await self._connection.add_listener(CHANNEL, self._hear)
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self._telling.wait()
                        await asyncio.sleep(TOGETHER_SECONDS)
                self._telling.clear()
                async with asyncio.timeout(AGAIN_SECONDS):
                    if not await self._tell():
                        await probe(self._connection)  # else it might listen for ever on a line that is gone
            except Exception:  # a hint that is lost costs half a second
                if not closed(self._connection):
                    self._connection.terminate()
                await asyncio.sleep(AGAIN_SECONDS)

    def _cut(self, _connection: Any) -> None:
        """Once it is cut others are told by the writer, and nothing else would wake the task to listen again."""
        self._telling.set()

    async def _tell(self) -> bool:
        """Tell others what is to be told; gives whether there was anything. What is not out yet when this ends stays."""
        said = bool(self._ended or self._looks)
        while ended := self._ended[:MOST]:
            await self._say(",".join(map(str, ended)))
            del self._ended[: len(ended)]
        if self._looks:
            self._looks = False  # before it: what is written meanwhile is not told by this one
            try:
                await self._say(_LOOK)
            except BaseException:
                self._looks = True
                raise
        return said

    async def _say(self, word: str) -> None:
        await self._connection.execute(NOTIFY, CHANNEL, f"{self._name} {word}")

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        name, _, word = payload.partition(" ")
        if name == self._name:
            return
        if word == _LOOK or not word:
            self._heard.set()
        elif self.heed is not None:
            self.heed([RunId(int(one)) for one in word.split(",") if one.isdecimal()])
