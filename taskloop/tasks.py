"""Tasks of asyncio: one whose end matters more than who cancels it, one that does not end, one for many, and those begun
later; an answer that needs none; a thing made once for all who ask; turns, and portions; and the loop they are of.

Level 4, knows no engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from taskloop.errors import BadStore, NotRunning, StoreUnavailable

__all__ = [
    "Answer",
    "Gathered",
    "MadeOnce",
    "Portions",
    "Turns",
    "disown",
    "gradually",
    "hold",
    "lazily",
    "outlast",
    "refused",
    "shielded",
    "this_loop",
    "undisturbed",
]

S = TypeVar("S")
T = TypeVar("T")
TURN: Final = 500
"""Values that are made in one turn of the loop: some milliseconds."""
NAMED: Final = 5
"""Of what could not be done, those that an error names; of more there is a count."""


class Answer(Generic[T]):
    """What is answered once, or an error: to whoever awaits it, as a future is, or by a call as it is answered.

    To wake a task costs as much as to begin one, and the end of each run is such an answer. `awaited`: whether
    somebody waits for it; else whoever answers may do so when there is time.
    """

    __slots__ = ("_about", "_answer", "_hear", "_waiters", "awaited")

    def __init__(self, *, awaited: bool = True) -> None:
        self.awaited: bool = awaited
        self._answer: tuple[T | None, BaseException | None] | None = None
        self._hear: Callable[..., object] | None = None
        self._about: tuple[Any, ...] = ()
        """What `_hear` is told besides."""
        self._waiters: list[asyncio.Future[None]] | None = None

    def done(self) -> bool:
        return self._answer is not None

    def set_result(self, value: T) -> None:
        self._settle(value, None)

    def set_exception(self, error: BaseException) -> None:
        self._settle(None, error)

    def tell(self, hear: Callable[..., object], *about: Any) -> None:
        """Have `hear(*about, value, error)` called when it is answered, at once where it is. One can be told so; it raises
        nothing.
        """
        if self._answer is None:
            self._hear, self._about = hear, about
        else:
            hear(*about, *self._answer)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        self._answer = value, error
        for one in self._waiters or ():
            if not one.done():  # else whoever waited was cancelled
                one.set_result(None)
        hear, about = self._hear, self._about
        self._hear, self._about = None, ()  # they may hold the answer: each would wait for the garbage collector
        if hear is not None:
            try:
                hear(*about, value, error)
            except Exception as wrong:  # what others are told next must not depend on who hears of this
                message = {"message": "taskloop: an answer was not taken", "exception": wrong}
                asyncio.get_running_loop().call_exception_handler(message)

    def __await__(self) -> Generator[Any, None, T]:
        if self._answer is None:
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            yield from waiter
        value, error = cast("tuple[T, BaseException | None]", self._answer)
        if error is not None:
            raise error
        return value


def refused(error: BaseException) -> Answer[Any]:
    """The answer to what is refused at once."""
    answer: Answer[Any] = Answer()
    answer.set_exception(error)
    return answer


class Gathered(Generic[T]):
    """Work on what is given bit by bit, in one go at a time: each takes all that was given until it began."""

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[None]], named: Callable[[T], str]) -> None:
        self._work = work
        self._named = named
        self._given: list[T] = []
        self._is_asked = False
        self._turn = asyncio.Lock()

    def give(self, *these: T) -> bool:
        """Whether `work` is to be called for them; else a call that has not begun yet takes them along."""
        self._given += these
        is_asked, self._is_asked = self._is_asked, True
        return not is_asked

    async def work(self) -> None:
        """Raises what the work does. Where that is a store that is away, whoever called is to call again, for the same.

        What fails otherwise is done in halves: one that cannot be done keeps none of the others from it, and is named
        with what it failed by.
        """
        async with self._turn:
            parts, self._given, self._is_asked = [self._given], [], False
            refused: list[T] = []
            errors: list[Exception] = []
            while parts:
                part = parts.pop()
                try:
                    await self._work(part)
                except (StoreUnavailable, BadStore):
                    self._given[:0] = [one for some in (refused, part, *reversed(parts)) for one in some]
                    self._is_asked = True
                    raise
                except Exception as error:
                    if not part:
                        raise
                    if len(part) < 2:
                        errors.append(error)
                        refused += part
                    else:
                        parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            if errors:
                more = f" and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
                raise ExceptionGroup(f"not done: {', '.join(map(self._named, refused[:NAMED]))}{more}", errors)


class MadeOnce(Generic[T]):
    """What is made once for all who ask for it meanwhile, and taken as soon as the first of them hears that it is made.

    If all of them are cancelled first it is undone, and whoever asks from then on has another one made: nobody is given
    what is being undone. `stops`: whether making it may be cancelled; else it is waited for.
    """

    def __init__(self, take: Callable[[T], None], undo: Callable[[T], Awaitable[None]], *, stops: bool) -> None:
        self._take = take
        self._undo = undo
        self._stops = stops
        self._making: asyncio.Task[T] | None = None
        self._undoing: set[asyncio.Task[None]] = set()
        self._asking: set[object] = set()

    async def make(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        if self._making is not None and self._making.get_loop().is_closed():
            left, self._making = self._making, None
            await self._taken_apart(left)
        if self._making is None:
            self._making, self._asking = asyncio.create_task(begin()), set()
        making, asking, me = self._making, self._asking, object()
        asking.add(me)
        try:
            made = await asyncio.shield(making)
        except GeneratorExit:  # of a loop that is closed; whoever asks next takes apart what it had begun
            raise
        except BaseException as error:
            asking.discard(me)
            if self._making is making and (isinstance(error, Exception) or not asking):
                self._making = None
                # In a task of its own: whoever asked may be cancelled again, by a scope of anyio at each await.
                undoing = asyncio.create_task(self._undone(making))
                self._undoing.add(undoing)
                undoing.add_done_callback(self._undoing.discard)
                await asyncio.shield(undoing)
            raise
        if self._making is making:
            self._making = None
            self._take(made)

    async def _taken_apart(self, left: asyncio.Task[T]) -> None:
        """Undo what a loop has begun that is closed: it will never be made, and Python would take it apart at any time."""
        if not left.done():
            disown([left])
            with suppress(RuntimeError):  # it cannot wait any more for what it tells to end
                left.get_coro().close()
        elif not left.cancelled() and left.exception() is None:
            await self._undo(left.result())

    async def _undone(self, making: asyncio.Task[T]) -> None:
        if self._stops:
            making.cancel()
        await asyncio.wait({making})
        if not making.cancelled() and making.exception() is None:
            await self._undo(making.result())


class Turns:
    """A context that one at a time is in, of those on the same loop: asyncio's own lock is for ever of the first loop on which
    somebody had to wait for it, and whatever is kept longer, as what an application is made with, may see several.
    """

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def __aenter__(self) -> None:
        await self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    async def __aexit__(self, *_: object) -> None:
        self._locks[asyncio.get_running_loop()].release()


class Portions:
    """Lets so many pass in a turn of the loop, and the others in the turns after it, as they came: a thousand tasks that are
    woken by one answer, or begun by one call, would else hold it up together.

    Twice as many at most, where some come in the very turn in which the last of others pass.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        """How many may still pass in this turn."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def my_turn(self) -> None:
        if self._left == self._most:  # the first of this turn
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._left > 0 and not self._waiting:
            self._left -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _next_turn(self) -> None:
        self._left = self._most
        while self._waiting and self._left:
            place = self._waiting.popleft()
            if not place.done():  # else who waited there was cancelled
                place.set_result(None)
                self._left -= 1
        if self._left < self._most:
            asyncio.get_running_loop().call_soon(self._next_turn)


def this_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs here. Raises `NotRunning` where there is none of asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotRunning(
            "no event loop of asyncio runs here, and the scheduler needs one; under trio, or without a loop, "
            "BackgroundTasks has it on a thread of its own"
        ) from None


async def undisturbed(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What `begin()` gives or raises, in a task of its own: whoever cancels the one that waits here is not heard.

    Nor is a host that ends its loop and cancels all tasks, that one too: then it is begun anew.
    """
    while True:
        task = asyncio.ensure_future(begin())
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not (task.cancelled() and task.cancelling()):
            return task.result()


def shielded() -> AbstractContextManager[Any]:
    """A context for the last of what has an end of its own: a scope of anyio's around it, once it is given up, would cancel
    each await in it, in each turn of the loop. `Task.cancel` does so still.
    """
    from anyio import CancelScope

    return CancelScope(shield=True)


async def outlast(these: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until they have ended, whoever cancels meanwhile."""
    ends = set(these)
    with shielded():
        while not all(one.done() for one in ends):
            with suppress(asyncio.CancelledError):
                await asyncio.wait(ends)


async def gradually(make: Callable[[S], T], these: Iterable[S]) -> list[T]:
    """What `make` gives of each. The loop has its turns meanwhile: a hundred thousand would hold it for a second."""
    made: list[T] = []
    for one in these:
        made.append(make(one))
        if len(made) % TURN == 0:
            await asyncio.sleep(0)
    return made


def disown(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Take tasks that do not end off asyncio's list of those that `asyncio.run` would wait for, for ever."""
    for task in tasks:
        if not task.done():
            asyncio._unregister_task(task)
            # Python would complain of it at the end, and who disowns it has told. No public name does this.
            task._log_destroy_pending = False  # type: ignore[attr-defined]


_HELD: Final[list[asyncio.Task[Any]]] = []


def hold(task: asyncio.Task[Any]) -> None:
    """Keep a task whose loop is gone for ever. Python would take it apart at any time, and its `finally`, which ends what it is
    the life of, would end the life after it.
    """
    _HELD.append(task)


@contextmanager
def lazily(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Tasks that are made meanwhile begin in a later turn of the loop, whatever the host's task factory does.

    A group of anyio's knows asyncio's own `eager_task_factory` and passes it by; in the wrapping of some tracer it does
    not, and is at odds with a task that begins as it is made.
    """
    factory = loop.get_task_factory()
    if factory is None or getattr(factory, "__module__", "").startswith(
        "taskloop."
    ):  # virtual time, which minds it itself
        yield
        return
    loop.set_task_factory(None)
    try:
        yield
    finally:
        loop.set_task_factory(factory)
