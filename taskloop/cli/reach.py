"""How a command reaches the records: which store, whether it is there yet, and the verbs on it.

A command that reads makes no file and leaves the one there as it is; it needs no more of the configuration than the
store's address. Only where `--app` names a program, or no store is at that address and the configuration names an app, is
that loaded, for it may bring its own store, which `run` would take. A command that changes something makes a store where there is none, and brings an older one up to
date; tables in a database of others are only made by `run`, `once` and `process`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from taskloop import address as addresses

if TYPE_CHECKING:
    from argparse import Namespace

    from taskloop.ledger import Ledger
    from taskloop.store import Schema, Store
    from taskloop.store_data import Worker

__all__ = [
    "actor",
    "address_of",
    "bare",
    "desk",
    "drive",
    "file_of",
    "has_code",
    "heeding",
    "known",
    "missing_worker",
    "names_app",
    "none_yet",
    "opened",
    "place",
    "reading",
    "store_file",
    "warn_of_strangers",
]

T = TypeVar("T")
LEFT_SECONDS: Final = 0.5
_LIKE_A_STORE: Final = ("TASKLOOPSTOR", "TASKLOOPURL", "TASKLOOPDB", "TASKLOOPDATABASE")
_OF_A_STORE: Final = frozenset(
    f"TASKLOOP_STORE__{key}" for key in ("URL", "SYNCHRONOUS", "KEEP", "STATEMENT_CACHE_SIZE")
)


def drive(work: Coroutine[Any, Any, T], *, channel: Literal["cli", "code"] = "cli") -> T:
    """Run a coroutine to its end; what jobs left on the loop, or in its threads, gets a moment to end and no more.

    `channel`: of what is changed meanwhile; of a command that runs somebody's program `code`.
    """
    import asyncio

    from taskloop.audit import through

    # asyncio.run would wait for tasks that swallow their cancellation, and for threads, as long as they like.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with through(channel):
            return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        left.add(loop.create_task(loop.shutdown_asyncgens()))
        loop.run_until_complete(asyncio.wait(left, timeout=LEFT_SECONDS))
        loop.set_exception_handler(lambda *_: None)  # of tasks that are left for good nothing more is to be said
        asyncio.set_event_loop(None)
        if not asyncio.all_tasks(loop):
            loop.close()


@contextmanager
def heeding() -> Iterator[list[int]]:
    """The signal that has asked for the end meanwhile, of a command that can end between two steps; a second one is not waited for."""
    asked: list[int] = []
    import threading

    here = threading.current_thread() is threading.main_thread()  # elsewhere nobody may ask for signals
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM) if here}
    before = {one: handler for one, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def back() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def heed(number: int, _frame: Any) -> None:
        asked.append(number)
        back()

    for one in before:
        signal.signal(one, heed)
    try:
        yield asked
    finally:
        back()


def file_of(address: str) -> str | None:
    """The file of an SQLite store; None: the store is none, or has no file."""
    if "://" not in address:
        return address
    scheme, _, path = address.partition(":///")
    return path if scheme == "sqlite" and path and path != ":memory:" else None


def store_file(args: Namespace) -> str | None:
    """The store's file by the configuration alone, if there is one already that may be opened. Raises `BadSettings`."""
    path = file_of(addresses.store_address(config=args.config))
    return path if path is not None and _has_file(path) and os.stat(path).st_nlink == 1 else None


def names_app(args: Namespace) -> bool:
    """Whether somebody names an app, or a job in the file: then the program may know more than the store."""
    if args.app:
        return True
    sources = addresses.gather(args.config)
    named = any(texts.get("TASKLOOP_SCHEDULER__APP") for _, texts in sources.texts())
    scheduler = sources.table.get("scheduler")
    return named or bool(isinstance(scheduler, dict) and scheduler.get("app"))


@asynccontextmanager
async def bare(args: Namespace, schema: Schema = "newest") -> AsyncIterator[Store | None]:
    """The store itself, open, whatever is done about an older `schema`; None: there is no store yet."""
    store = _existing(args)
    if store is None:
        yield None
        return
    await store.open(create=False, schema=schema)
    try:
        if store.upgraded_from is not None:
            await _tell_of_an_upgrade(args, store)
        yield store
    finally:
        await store.close()


async def _tell_of_an_upgrade(args: Namespace, store: Store) -> None:
    """Whom it leaves behind, for whoever only asked to pause a job, it may be, does not know."""
    from taskloop.cli.output import Output
    from taskloop.clock import SystemClock
    from taskloop.starting import left_behind

    if (behind := await left_behind(store, SystemClock())) is not None:
        Output(args).note(f"warning: the store had schema {store.upgraded_from}, and is up to date now; {behind}")


@asynccontextmanager
async def reading(args: Namespace, schema: Schema = "newest") -> AsyncIterator[Ledger | None]:
    """The verbs on the records; None: there is no store yet."""
    async with bare(args, schema) as store:
        if store is None:
            yield None
            return
        from taskloop.ledger import Ledger
        from taskloop.options import Options

        yield Ledger(store, options=Options())


@asynccontextmanager
async def desk(args: Namespace) -> AsyncIterator[Ledger]:
    """The verbs on the records, for a change: where there is no store yet, that of the program is made."""
    async with reading(args, "upgrade") as ledger:
        if ledger is not None:
            yield ledger
            return
    from taskloop.cli import program

    scheduler = program.compose(program.configured(args))
    try:
        yield scheduler
    finally:
        await scheduler.close()


def opened(address: Any, *, synchronous: Any = "full", statement_cache_size: int = 0) -> Store:
    """The store at an address, not open yet. Raises `BadSettings` for a scheme that nobody knows.

    Nothing is kept prepared by default: a command is soon over, and there may be a pooler, which only the whole
    configuration tells.
    """
    from taskloop.errors import BadSettings, BadStore
    from taskloop.store import open_store

    try:
        return open_store(address, synchronous=synchronous, statement_cache_size=statement_cache_size)
    except BadStore as error:
        raise BadSettings([str(error)]) from None


def warn_of_strangers(args: Namespace) -> None:
    """Of a variable that was to name the store and is none: another would be read, or written to, without a word.

    Once a command, and only where there is one, for who knows all names takes long to import.
    """
    if getattr(args, "has_warned", False):
        return
    args.has_warned = True
    for before, texts in addresses.gather(args.config).texts():
        if any(name.upper().replace("_", "").startswith(_LIKE_A_STORE) and name not in _OF_A_STORE for name in texts):
            from taskloop.cli.output import Output
            from taskloop.settings import strangers

            for text in strangers(texts, before):
                Output(args).note(f"warning: {text}")


def _existing(args: Namespace) -> Store | None:
    """The store, not open yet; None: there is none to open."""
    warn_of_strangers(args)
    address = place(args)
    return None if is_missing(address) else opened(address)


def place(args: Namespace) -> Any:
    """Where the store is, or would be: that of `run` with the same words, unless another stands at the configured address."""
    address: Any = addresses.store_address(config=args.config)
    if args.app or (is_missing(address) and names_app(args)):
        from taskloop.cli import program

        settings = program.configured(args)
        return program.place(program.compose(settings), settings)
    return address


def none_yet(args: Namespace) -> tuple[str, str]:
    """That there is no store, and where one would be; and what makes it."""
    where = addresses.without_password(address_of(place(args)))
    mend = "`taskloop run` or `taskloop once` makes one"
    if not names_app(args):
        mend += "; --app MODULE:NAME, or app below [scheduler] of config.toml, leads to that of a program"
    return f"there is no store yet at {where}", mend


def address_of(place: Any) -> str:
    """The address of a store that is named by its address, or is there itself."""
    return place if isinstance(place, str) else str(getattr(place, "url", place))


def is_same(one: Any, address: str) -> bool:
    """Whether a store is that of the address, however both are written."""
    files = file_of(address_of(one)), file_of(address)
    shown = [addresses.without_password(text) for text in (address_of(one), address)]  # an open store hides it
    return bool(shown[0] == shown[1] or (all(files) and len({os.path.realpath(str(file)) for file in files}) == 1))


def is_missing(address: Any) -> bool:
    if not isinstance(address, str):
        return False
    path = file_of(address)
    return address.endswith(":memory:") if path is None else not _has_file(path)


def _has_file(path: str) -> bool:
    """Whether something stands there; an empty file is as good as none."""
    return os.path.exists(path) and os.path.getsize(path) > 0


async def known(ledger: Ledger | None, args: Namespace, names: list[str]) -> None:
    """See that all these jobs exist, in the store or in the code. Raises `NoSuchJob`."""
    from taskloop import looking
    from taskloop.errors import NoSuchJob, nearest

    there = {one.name for one in await ledger.jobs()} if ledger is not None else set()
    if all(name in there for name in names):
        return
    from taskloop.cli import program

    declared = program.compose(program.configured(args))
    in_code = {job.name for job in declared}
    heirs = {alias: job.name for job in declared for alias in job.aliases}
    for name in names:
        if name not in there | in_code:
            near = heirs.get(name) or nearest(name, there | in_code)
            has_ids = ledger if name.isprintable() else None  # as the id of any schedule is
            stored = None if has_ids is None else await looking.schedule(has_ids, name)
            raise NoSuchJob(name, near, schedule_of=None if stored is None else stored.job)
    if ledger is not None:
        ledger.undeclared |= in_code


async def missing_worker(ledger: Ledger, job: str) -> str | None:
    """That nobody takes a run of `job`, and who is there nevertheless; None: somebody takes it."""
    there = await living(ledger)
    if any(_takes(one, job) for one in there):
        return None
    if not there:
        return "no worker is running"
    shown = ", ".join(f"{one.host} pid {one.pid}, which takes {_taken(one)}" for one in there[:3])
    return f"no worker takes it: there is {shown}" + (f" and {len(there) - 3} more" if len(there) > 3 else "")


async def living(ledger: Ledger) -> list[Worker]:
    """The workers that are there."""
    from taskloop.processes import is_dead

    return [one for one in (await ledger.status()).workers if not is_dead(one)]


async def has_code(ledger: Ledger, args: Namespace, job: str) -> bool:
    """Whether a worker that is there has the job, or may have it; where none is there, whether the program at hand has."""
    workers = await living(ledger)
    if workers:
        return any(one.jobs is None or job in one.jobs for one in workers)
    from taskloop.cli import program

    return job in program.compose(program.configured(args))


def _takes(worker: Worker, job: str) -> bool:
    told = worker.health.get("takes")
    if told is not None:  # a worker of the command line, maybe narrowed
        return bool(told == "all" or job in told) and (worker.jobs is None or job in worker.jobs)
    # One that does not fire is of a scheduler with `enabled = false`, which runs nothing.
    return worker.fires and (worker.jobs is None or job in worker.jobs)


def _taken(worker: Worker) -> str:
    told = worker.health.get("takes")
    if told is None and not worker.fires:
        return "nothing (enabled = false)"
    names = sorted(told) if isinstance(told, list) else sorted(worker.jobs or ())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def actor(args: Namespace) -> str:
    """Who does it: `--actor`, else the login name."""
    if args.actor:
        return str(args.actor)
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
