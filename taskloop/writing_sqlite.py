"""The writing side of the SQLite store: calls gather while the transaction before is committed, and go as one.

Level 5. No task does this, only callbacks: of the loop when something is wanted written, of the connection's thread when
a transaction is over. So no caller's cancellation, nor that of all tasks by a host that ends its loop, comes between a
transaction and those who are to hear of it; and a fire costs half the turns of the loop that a task between the two cost.
Start at `Writing.write`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from taskloop.batches_sqlite import transact
from taskloop.errors import StoreUnavailable
from taskloop.file_sqlite import FilePlace
from taskloop.store import Heed
from taskloop.tasks import Answer, refused
from taskloop.threads_sqlite import Connection, call

__all__ = ["Writing"]

Part = tuple[str, Any, asyncio.Future[Any] | Answer[Any], Heed | None]
MANY: Final = 16
"""Parts from which on the loop does what has time when a transaction comes to its commit: a third of the writing thread's
time goes by in commits, in which it leaves the interpreter to others, and all before would be held up by whoever has it.
Ten thousand fires at one instant end 6 to 13 % sooner. For few the word costs more than it brings.
"""
MEANWHILE_SECONDS: Final = 0.25
"""How long the loop puts off what has time, where a transaction comes to no commit: others have the file, or its disk hangs."""


class _Answered:
    """Parts of a transaction, and what each is answered: as two lists, for a pair of each would be one thing more to count
    and to look at for Python's collector of garbage.
    """

    __slots__ = ("given", "parts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.given: list[Any] = []


class Writing:
    """What callers want written by one connection, until it is closed."""

    def __init__(
        self,
        connection: Connection,
        place: FilePlace | None,
        *,
        seconds: float,
        explained: Callable[[BaseException], BaseException],
        silent: Callable[[], StoreUnavailable],
        closed: Callable[[], StoreUnavailable],
    ) -> None:
        """`seconds`: how long a caller waits for an answer, then `silent` is raised; `closed`: of a store that is."""
        self._connection = connection
        self._place = place
        self._seconds = seconds
        self._explained = explained
        self._silent = silent
        self._closed_error = closed
        self._loop = asyncio.get_running_loop()
        self._queue: list[Part] = []
        self._in_hand: Sequence[Part] = ()
        self._patience: asyncio.TimerHandle | None = None
        self._is_called = False
        """Whether the loop is to begin a transaction in its next turn: whoever asks in this one takes part."""
        self._meanwhile: list[Callable[[], object]] = []
        """What has time until the disk is busy."""
        self._put_off: asyncio.TimerHandle | None = None
        self._hangs = False
        """Whether a transaction is in hand that nobody expects an answer of any more."""
        self._drained: asyncio.Future[None] | None = None

    @property
    def in_flight(self) -> int:
        return len(self._queue) + len(self._in_hand)

    def write(self, verb: str, work: Any, heed: Heed | None = None) -> asyncio.Future[Any]:
        """Have work written; gives what to wait for until it is committed.

        `heed` hears of the answer also where nobody waits for it any more, but not of work that a close left unwritten.
        """
        if self._hangs or self._drained is not None:
            if heed is not None:
                self._tell(heed, self._refusal())
            raise self._refusal()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._put((verb, work, answer, heed))
        return answer

    def note(self, verb: str, work: Any, *, awaited: bool) -> Answer[Any]:
        """As `write`, for who need not be woken to hear of it. Raises nothing: a refusal is an answer too.

        All answers of one transaction are given in one turn of the loop; of many those that are not `awaited` `meanwhile`.
        """
        if self._hangs or self._drained is not None:
            return refused(self._refusal())
        answer: Answer[Any] = Answer(awaited=awaited)
        self._put((verb, work, answer, None))
        return answer

    def meanwhile(self, call: Callable[[], object]) -> None:
        """Have the loop call what has time, while the disk is busy with what is written next, before that is answered;
        where nothing is to be written in a turn or two, and where the disk is not reached, in MEANWHILE_SECONDS.
        """
        self._meanwhile.append(call)
        if len(self._meanwhile) == 1:
            self._loop.call_soon(self._unless_busy, True)

    def _unless_busy(self, again: bool) -> None:
        if again:  # what is begun in this turn of the loop may have something written
            self._loop.call_soon(self._unless_busy, False)
        elif not self._is_called and not self._in_hand:
            self._do_meanwhile()
        elif self._meanwhile and self._put_off is None:
            self._put_off = self._loop.call_later(MEANWHILE_SECONDS, self._do_meanwhile)

    def _do_meanwhile(self) -> None:
        if self._put_off is not None:
            self._put_off.cancel()
            self._put_off = None
        these, self._meanwhile = self._meanwhile, []
        for one in these:
            try:
                one()
            except Exception as error:  # those behind it must not depend on it
                self._loop.call_exception_handler({"message": "taskloop: what had time failed", "exception": error})

    def _refusal(self) -> StoreUnavailable:
        return self._silent() if self._hangs else self._closed_error()

    def _put(self, part: Part) -> None:
        if not self._in_hand and not self._is_called:
            self._loop.call_soon(self._begin)  # in a job that recurses too deep this may raise: noted when it has not
            self._is_called = True
        self._queue.append(part)

    async def close(self, within: float) -> None:
        """Write what is wanted, in about `within` seconds; refuse the rest."""
        self._drained = asyncio.get_running_loop().create_future()
        try:
            if self._loop is asyncio.get_running_loop() and self.in_flight:  # else the loop that had it is gone
                await asyncio.wait({self._drained}, timeout=within)
        finally:
            left, self._queue, self._in_hand = (*self._in_hand, *self._queue), [], ()
            self._refuse(left, self._closed_error())
            self._do_meanwhile()

    # -- a transaction after the other

    def _begin(self) -> None:
        self._is_called = False
        if self._in_hand or not self._queue:
            return
        batch, self._queue = self._queue, []
        self._in_hand = batch
        verbs, works = [part[0] for part in batch], [part[1] for part in batch]
        self._patience = self._loop.call_later(self._seconds, self._give_up, batch)
        committing = self._committing if len(batch) >= MANY else None
        work = partial(transact, place=self._place, verbs=verbs, works=works, committing=committing)
        try:
            call(self._connection, work, partial(self._landed, batch))
        except StoreUnavailable as error:  # closed meanwhile
            self._landed(batch, None, error)
            return
        if committing is None:
            self._do_meanwhile()

    def _committing(self) -> None:
        """Called on the connection's thread."""
        if self._meanwhile:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._do_meanwhile)

    def _landed(self, batch: Sequence[Part], answers: Sequence[Any] | None, error: BaseException | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._hangs = False
        if self._in_hand is batch:
            self._in_hand = ()
        self._begin()  # first: the disk is busy while we tell
        self._do_meanwhile()  # what was to be done before this answer, and a transaction that failed did not come to
        self._answer(batch, [error] * len(batch) if answers is None else answers)
        if self._drained is not None and not self.in_flight and not self._drained.done():
            self._drained.set_result(None)

    def _give_up(self, batch: Sequence[Part]) -> None:
        """Let those go who wait for a batch that the disk does not answer: what it still does, it does.

        What waits behind it is not carried out any more: who is refused may ask again.
        """
        self._hangs = True
        self._do_meanwhile()
        behind, self._queue = self._queue, []
        self._refuse((*batch, *behind), self._silent())
        for _, _, _, heed in behind:
            if heed is not None:
                self._tell(heed, self._silent())

    def _refuse(self, parts: Sequence[Part], error: StoreUnavailable) -> None:
        for _, _, answer, _ in parts:
            with suppress(RuntimeError):  # of a loop that is closed: nobody waits
                if not answer.done():
                    answer.set_exception(error)

    def _answer(self, batch: Sequence[Part], answers: Sequence[Any]) -> None:
        others, notes, late = _Answered(), _Answered(), _Answered()
        is_few = len(batch) < MANY
        for part, given in zip(batch, answers, strict=True):
            answer = part[2]
            kind = others if not isinstance(answer, Answer) else notes if answer.awaited or is_few else late
            kind.parts.append(part)
            kind.given.append(given)
        # Runs that are begun by these come first: who hears of an end and asks for more does so once the short ones among
        # them have given their slots back, and all is written as one. The other way round P2 had twice as many transactions.
        self._give(others)
        self._give(notes)
        if late.parts:
            self.meanwhile(partial(self._give, late))

    def _give(self, these: _Answered) -> None:
        for (_, _, answer, heed), given in zip(these.parts, these.given, strict=True):
            failed = isinstance(given, BaseException)
            value = self._explained(given) if failed else given
            if heed is not None:
                self._tell(heed, value)
            if not answer.done():
                answer.set_exception(value) if failed else answer.set_result(value)

    def _tell(self, heed: Heed, answer: Any) -> None:
        try:
            heed(answer)
        except Exception as error:  # the next batch must not depend on who hears of this one
            self._loop.call_exception_handler(
                {"message": "taskloop: a store's answer was not taken", "exception": error}
            )
