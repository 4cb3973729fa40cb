"""The server of a PostgreSQL store: reached, refused, brought to the newest schema, and its errors in a user's words.

Level 5. The only room that knows the driver. What is refused is left untouched. Start at `connect` and `prepare`.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from taskloop.address import without_password
from taskloop.errors import BadStore, MissingExtra, StoreUnavailable, TaskloopError, Unstorable
from taskloop.rows_postgres import Db
from taskloop.store import Schema

if TYPE_CHECKING:
    import asyncpg

__all__ = [
    "BEAT",
    "BEGIN",
    "CONNECT_SECONDS",
    "GIVE_UP_SECONDS",
    "SNAPSHOT",
    "TRIES",
    "Server",
    "closed",
    "explained",
    "is_alone",
    "is_crossed",
    "is_lost",
    "lacks",
    "let_go",
    "migrations",
    "newest",
    "prepare",
    "probe",
    "problems",
    "transaction",
    "version",
]

CONNECT_SECONDS: Final = 10.0
SERVER_SECONDS: Final = 2.0
"""The same for each of several servers, before they are given what is left of it: a beat has five for all of them."""
SILENT_SECONDS: Final = 30.0
"""For how long one of several that said nothing is asked last: each connection would wait for it anew, four as one starts."""
MIGRATING: Final = 0x7461_736B_6C6F_6F00
"""The lock of whoever makes or changes the schema."""
FIRST_WAIT: Final = 0.1
IDLE_SECONDS: Final = 30.0
"""A connection that was not used for so long is tried before it is: what stands between may have forgotten it, and tells
nobody.
"""
DEAD_SECONDS: Final = 5
"""How long the other end of a line may take nothing of what was sent before the line is dead."""
ASK_SECONDS: Final = 15
"""After how long without a word the system asks whether it is still there."""
TRY_SECONDS: Final = 2.0
GIVE_UP_SECONDS: Final = 0.5
"""How long whoever gives up an answer takes to tell the server so: what waits there for a lock would else go on waiting, for
nobody, and of a server that is asked again and again there is in the end no connection left.
"""
LONGEST_WAIT: Final = 3.0
"""Seconds without a try after a connection could not be made; the more there were, the longer."""
LEASE_WAIT: Final = 1.0
"""The same for the connection that beats."""
_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 3000"
BEGIN: Final = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_IDLE}; SET LOCAL lock_timeout = '14s'"
"""Begins a transaction, whatever mode the database has otherwise. One whose process stands still, or can no longer reach
the server, loses what it has locked after 3 s, long before its lease is over: else all would wait for it. And who waits
for a lock is told so after 14 s, also where it gave up before and could not say so: a session whose client has gone would
stay in the queue, to be let through to nobody, and of such a server has in the end no connection left.
"""
BEAT: Final = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_IDLE}; SET LOCAL lock_timeout = '4s'"
"""The same for one that beats, which is given up sooner."""
SNAPSHOT: Final = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_IDLE}"
"""Begins one that only reads, and sees one state throughout."""
TRIES: Final = 5
"""Of a transaction that others cross, or whose connection is cut."""
_READ_ONLY: Final = "25006"
_NO_RIGHT: Final = "42501"
_OLDEST: Final = 13
"""The oldest server that can be asked what became of a transaction, and what it has assigned."""
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""Of databases that keep every text; SQL_ASCII takes the bytes as they come."""
_NAMELESS: Final = re.compile(r"^(\w+://[^/?]*)/\?")
"""An address whose database is named by an option: the driver takes the slash for an empty name, and then that of the user."""


class Server:
    """Where a store lies, and how connections to it are made: after a failure with a pause that grows."""

    def __init__(
        self, url: str, *, statement_cache_size: int, call_seconds: float, longest_wait: float = LONGEST_WAIT
    ) -> None:
        self.call_seconds: float = call_seconds
        """After how long an answer is given up."""
        self.dsn: str = _NAMELESS.sub(r"\1?", url)
        self.shown: str = without_password(url)
        self.statement_cache_size: int = statement_cache_size
        self._longest_wait = longest_wait
        self._failures = 0
        self._failed_at = self._patient_until = 0.0
        self._error: BaseException | None = None
        self._reached = _Reached()
        self._used: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._given_up: set[asyncio.Task[bool]] = set()
        """Each ends a connection of which nobody awaits the answer any more."""

    def twin(self) -> Server:
        """The same place for another thread, with a patience of its own: less of it, for a lease hangs on it."""
        twin = Server(
            self.dsn,
            statement_cache_size=self.statement_cache_size,
            call_seconds=self.call_seconds,
            longest_wait=LEASE_WAIT,
        )
        twin._reached = self._reached
        return twin

    async def connect(self) -> asyncpg.Connection[Any]:
        """A new connection. Raises `StoreUnavailable`, at once within the pause after a failure, unless the server was
        reached since; `BadStore`, `MissingExtra`.
        """
        if self._error is not None and self._reached.at < self._failed_at and time.monotonic() < self._patient_until:
            raise self.explained(self._error) from self._error
        began = time.monotonic()
        try:
            connection = await self._connect()
        except Exception as error:
            if self._reached.at > began:  # another, begun later, found the server back: who comes next may try
                raise self.explained(error) from error
            self._failures += 1
            wait = min(self._longest_wait, FIRST_WAIT * 2.0 ** min(self._failures - 1, 10))
            self._failed_at = time.monotonic()
            self._patient_until = self._failed_at + wait * (0.5 + random.random() / 2)  # noqa: S311 - to spread those who wait
            self._error = error
            raise self.explained(error) from error
        self._failures, self._error = 0, None
        self._reached.at = time.monotonic()
        return connection

    async def usable(self, connection: Any) -> Any:
        """`connection`, if it is there and answers, else a new one. Raises what `connect` raises."""
        now = time.monotonic()
        if not closed(connection) and now - self._used.get(connection, now) > IDLE_SECONDS:
            await probe(connection)
        if closed(connection):
            connection = await self.connect()
        self._used[connection] = now
        return connection

    async def give_up(self, connection: Any) -> bool:
        """Close a connection whose answer nobody awaits any more, and have the server end what it does there; gives whether
        the server has heard of that, and so is there.

        In a task of its own: whoever gave up may be cancelled again, by a scope of anyio at each await.
        """
        ending = asyncio.create_task(let_go(connection, GIVE_UP_SECONDS))
        self._given_up.add(ending)
        ending.add_done_callback(self._given_up.discard)
        await asyncio.wait({ending})
        return not ending.cancelled() and ending.exception() is None and ending.result()

    def held(self, seconds: float) -> StoreUnavailable:
        """What is said of a call that was given up, though the server is there."""
        return StoreUnavailable(
            f"store {self.shown} has not answered for {seconds:g} s, though its server can be reached: another transaction holds "
            "a table or row of the store and is not committed, or the server is too busy; docs/postgresql.md has the query that "
            "names who holds it"
        )

    async def told(self, within: float) -> None:
        """Wait until all that was given up has ended, at most `within` seconds."""
        here = asyncio.get_running_loop()
        if left := [one for one in self._given_up if one.get_loop() is here]:
            await asyncio.wait(left, timeout=within)

    async def _reach(self, driver: Any) -> asyncpg.Connection[Any]:
        """A connection to the first of the servers that lets us in. The driver's own look at several would end with one that
        says nothing, as a machine that has failed: its time is that of all of them.
        """
        knock = partial(
            driver.connect,
            self.dsn,
            statement_cache_size=self.statement_cache_size,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": "taskloop"},
        )
        if not (servers := _servers(self.dsn)):
            alone: asyncpg.Connection[Any] = await knock(timeout=CONNECT_SECONDS)
            return alone
        failed: BaseException | None = None
        each = CONNECT_SECONDS / len(servers)
        first = min(SERVER_SECONDS, each / 2)
        for seconds in (first, each - first):  # a slow one has its chance, if no other takes us
            for host, port in sorted(servers, key=self._reached.was_silent):
                try:
                    reached: asyncpg.Connection[Any] = await knock(host=host, port=port, timeout=seconds)
                    return reached
                except (OSError, driver.TargetServerAttributeNotMatched, driver.CannotConnectNowError) as error:
                    failed = error
                    if isinstance(error, TimeoutError):
                        self._reached.silent[host, port] = time.monotonic()
        assert failed is not None
        raise failed

    async def _connect(self) -> asyncpg.Connection[Any]:
        driver = _driver()
        try:
            connection: asyncpg.Connection[Any] = await self._reach(driver)
        except driver.TargetServerAttributeNotMatched as error:
            raise StoreUnavailable(
                f"store {self.shown}: no server of its address is such a one as its target_session_attrs asks for; see "
                "whether one that takes writes runs, or a standby is to become one"
            ) from error
        except TimeoutError as error:
            raise StoreUnavailable(
                f"store {self.shown}: the server does not answer; see whether the server runs and can be reached from here, and "
                "of a pooler before it whether that has a session for each connection, seven a worker"
            ) from error
        except ValueError as error:  # an option of the address that the driver does not know; or whom it does not trust
            if (found := getattr(error, "verify_message", None)) is not None:
                raise BadStore(
                    f"store {self.shown}: the server's certificate is refused: {found}; name the file of who signed it by "
                    "sslrootcert= in the address, or write sslmode=require to encrypt without looking at it"
                ) from error
            raise BadStore(
                f"store {self.shown}: {' '.join(str(error).split())}; see the options in its address"
            ) from error
        except driver.PostgresError as error:  # an option that the driver has handed on, and the server does not know
            if not _is_of_settings(error):
                raise
            raise BadStore(
                f"store {self.shown}: {_said(error)}; see the options in its address, and leave out what only libpq knows, such as "
                "connect_timeout, keepalives or channel_binding"
            ) from error
        except FileNotFoundError as error:
            if not (named := re.findall(r"[?&](ssl(?:rootcert|cert|key|crl)=[^&]*)", self.dsn)):
                raise
            raise BadStore(
                f"store {self.shown}: {error}; see the files of certificates named in its address, {', '.join(named)}: each is "
                "the path of a file, for those of the system too, such as /etc/ssl/certs/ca-certificates.crt"
            ) from error
        except ConnectionError as error:
            if "rejected SSL upgrade" not in str(error):
                raise
            raise StoreUnavailable(
                f"store {self.shown}: its server has no TLS, which its sslmode asks for; set ssl = on at the server, or write "
                "sslmode=prefer, by which all is sent in clear as long as it has none"
            ) from error
        _watch(connection)
        if connection.get_server_version().major < _OLDEST:
            found = connection.get_server_version()
            await let_go(connection, 1.0)
            raise BadStore(
                f"store {self.shown} is PostgreSQL {found.major}.{found.minor}; taskloop needs {_OLDEST} or newer"
            )
        return connection

    def explained(self, error: BaseException) -> BaseException:
        return explained(error, self.shown)


@cache
def _servers(dsn: str) -> list[tuple[str, int]]:
    """The hosts and ports of an address that names several; none: it names one."""
    place, _, options = dsn.partition("://")[2].partition("?")
    given = dict(option.partition("=")[::2] for option in options.split("&"))
    hosts = (place.partition("/")[0].rpartition("@")[2] or given.get("host", "")).split(",")
    if len(hosts) < 2:
        return []
    ports = given.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    found = [re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+))?", unquote(host)) for host in hosts]
    if len(ports) != len(hosts) or None in found:
        return []  # the driver says what is wrong with it
    return [(one[1].strip("[]"), int(one[2] or port or 5432)) for one, port in zip(found, ports, strict=True) if one]


class _Reached:
    """When a server was reached last, and when each of several said nothing, by the steady clock; of all threads."""

    def __init__(self) -> None:
        self.at: float = 0.0
        self.silent: dict[tuple[str, int], float] = {}

    def was_silent(self, place: tuple[str, int]) -> bool:
        """Whether it was lately."""
        return time.monotonic() - self.silent.get(place, -SILENT_SECONDS) < SILENT_SECONDS


@cache
def _driver() -> Any:
    try:
        import asyncpg
    except ImportError:
        raise MissingExtra("asyncpg", "postgres") from None
    return asyncpg


def _watch(connection: Any) -> None:
    """Have the system end a connection whose other end takes nothing any more, as of a machine that has failed: by itself it
    would send again for a quarter of an hour. One that says nothing is asked by the system whether it is there.
    """
    transport = getattr(connection, "_transport", None)  # the driver has no other way to it
    line = transport and transport.get_extra_info("socket")
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    seconds = {"TCP_USER_TIMEOUT": DEAD_SECONDS * 1000, "TCP_KEEPIDLE": ASK_SECONDS, "TCP_KEEPINTVL": DEAD_SECONDS}
    with suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in seconds.items():
            if (option := getattr(socket, name, None)) is not None:  # not every system has each
                line.setsockopt(socket.IPPROTO_TCP, option, value)


def closed(connection: Any) -> bool:
    return connection is None or bool(connection.is_closed())


async def probe(connection: Any) -> None:
    """See whether a connection answers; one that does not is dropped, and is `closed` from then on."""
    try:
        async with asyncio.timeout(TRY_SECONDS):
            await connection.execute("SELECT 1")
    except Exception:
        connection.terminate()


async def let_go(connection: Any, within: float) -> bool:
    """Close a connection, and have the server end what it still does there; one that does not answer is dropped. Gives
    whether the server has answered.
    """
    was_open = not closed(connection)
    try:
        async with asyncio.timeout(within):  # of the driver's own not all is within its time
            await connection.close(timeout=within)
    except BaseException as error:
        with suppress(Exception):  # its loop may be closed
            connection.terminate()
        if not isinstance(error, Exception):
            raise
        return False
    return was_open


@asynccontextmanager
async def transaction(connection: Any, begin: str = BEGIN) -> AsyncIterator[None]:
    """A transaction around what is done within. Whoever gives it up, because it takes too long or was cancelled, has to
    drop the connection: on a line that has gone silent the driver's own would wait for ever to roll it back.
    """
    await connection.execute(begin)
    try:
        yield
    except Exception as error:
        if not is_lost(error) and not closed(connection):
            with suppress(Exception):
                await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


# -- errors


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection is gone or of no use any more, or the server about to go."""
    if isinstance(error, TimeoutError | ConnectionError | EOFError):
        return True
    if isinstance(error, OSError) and not isinstance(error, TaskloopError):
        return True
    state = getattr(error, "sqlstate", None) or ""
    # 25006: of a server, or a session, that takes no writes; a new one may be of another server, or of another time.
    if state[:2] == "08" or state in (_READ_ONLY, "25P03", "57P01", "57P02", "57P03", "57P05"):
        return True
    if _has_lost_its_place(error):
        return True
    return type(error).__name__ == "InterfaceError" and "clos" in str(error)


def _has_lost_its_place(error: BaseException) -> bool:
    """Whether the driver does not know any more where it is in what is said, as when its line is cut between two words."""
    return type(error).__name__ == "InternalClientError"


def is_crossed(error: BaseException) -> bool:
    """Whether two transactions stood in each other's way, and this one may be tried again."""
    return (getattr(error, "sqlstate", None) or "") in ("40001", "40P01")


def is_alone(error: BaseException) -> bool:
    """Whether an error is of one part of a batch, which the others escape without it."""
    state = getattr(error, "sqlstate", None) or ""
    of_all = isinstance(error, StoreUnavailable | BadStore) or is_lost(error)
    return not of_all and state[:2] not in ("53", "55", "57", "58", "XX", "3D", "28")


def explained(error: BaseException, shown: str) -> BaseException:
    """An error of the server or of the driver in the words of a user, with the mend; one of ours as it is."""
    if isinstance(error, TaskloopError) or not isinstance(error, Exception):
        return error
    state, said = getattr(error, "sqlstate", None) or "", _said(error)
    if (
        state[:2] == "22"
        or type(error).__name__ == "DataError"
        or isinstance(error, OverflowError | ValueError | TypeError)
    ):
        return Unstorable(said)
    if state in ("3F000", "42P01"):
        return BadStore(f"store {shown} lacks a table it had: {said}; restore a backup, or name another database")
    mend = next((mend for begin, mend in _MENDS.items() if state.startswith(begin)), None)
    if mend is None and is_lost(error):
        said = "the server does not answer" if isinstance(error, TimeoutError) else said
        said = "the connection was cut" if _has_lost_its_place(error) else said
        mend = "see whether the server runs and can be reached from here"
        if isinstance(error, TimeoutError):
            mend += ", and pg_stat_activity for who holds it"
    if mend is None and state:
        mend = f"see what the server's log says of it (SQLSTATE {state})"
    if mend is None and not type(error).__module__.startswith("asyncpg"):
        return error
    return StoreUnavailable(f"store {shown}: {said}" + (f"; {mend}" if mend else ""))


_OF_A_POOLER: Final = "behind a pooler that gives each transaction another session say store.statement_cache_size = 0, see docs/postgresql.md"
_MENDS: Final = {
    "26000": _OF_A_POOLER,
    "28": "see the user and the password in its address",
    "3D000": "make it with `createdb`, or name another database",
    "42P05": _OF_A_POOLER,
    _NO_RIGHT: (
        "grant its user what docs/postgresql.md has under few rights, or where there is no store yet let the owner of the "
        "database write CREATE SCHEMA taskloop AUTHORIZATION …"
    ),
    "531": "see the server's disk",
    "533": (
        "see its max_connections, or the CONNECTION LIMIT of the role or database that is named, of which a worker needs seven, "
        "and pg_stat_activity for who has them"
    ),
    "53": "see the server's memory and disk",
    "55P03": (
        "another transaction holds a table or row of the store and is not committed: docs/postgresql.md has the query that "
        "names it, or see pg_stat_activity for one that is idle"
    ),
    "57P03": "it is starting or stopping: wait until it is up, its log says how far it is",
    "57014": "see the statement_timeout of its user and database, and whether somebody has cancelled it",
    _READ_ONLY: (
        "the server takes no writes: see whether it is a standby, or whether somebody has set "
        "default_transaction_read_only, for a full disk it may be"
    ),
}
"""What can be done, by how the state of an error begins."""


def _said(error: BaseException) -> str:
    """The first line of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _is_of_settings(error: BaseException) -> bool:
    """Whether a connection was refused for a setting that it asked for: one that is not known, or not to be had."""
    return (getattr(error, "sqlstate", None) or "") in ("42704", "55P02", "22023")


# -- the schema


@cache
def migrations() -> list[tuple[int, str]]:
    """Every schema change there is, by number: the files of `schema/postgres`."""
    folder = resources.files("taskloop") / "schema" / "postgres"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".sql")), key=lambda one: one.name)
    return [(int(one.name[:3]), one.read_text("utf-8")) for one in files]


@cache
def newest() -> int:
    """The newest schema that this version knows."""
    return migrations()[-1][0]


async def version(db: Db, shown: str) -> int:
    """The number of the last schema change in the database; 0: none of ours. Raises `BadStore` for a foreign schema."""
    tables = await db.fetchval(
        "SELECT array_agg(c.relname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'taskloop' AND c.relkind IN ('r', 'v', 'p')"
    )
    if not tables:
        return 0
    if "meta" not in tables:
        raise BadStore(
            f"store {shown} has a schema 'taskloop' with tables that are not ours; it was left as it is, name another database"
        )
    found = await db.fetchval("SELECT value FROM taskloop.meta WHERE key = 'schema'")
    if found is None or not str(found).isdecimal():
        raise BadStore(
            f"store {shown} names no schema version; it was left as it is, restore a backup or name another database"
        )
    return int(found)


def _narrow(connection: Any) -> str | None:
    """What is wrong with the encoding of a database that does not keep every text; None: it does."""
    encoding = connection.get_settings().server_encoding
    if encoding in _ENCODINGS:
        return None
    return (
        f"its database has the encoding {encoding}, which has no place for many texts: a run whose result, error "
        "or log has one could not be recorded; make one with `createdb --encoding=UTF8 --template=template0`"
    )


def refuse(found: int, shown: str, *, create: bool, schema: Schema) -> None:
    """Raise `BadStore` for a schema that this version or this caller cannot go on with."""
    if found > newest():
        raise BadStore(
            f"store {shown} has schema {found}, this taskloop knows up to {newest()}; it was left as it is, "
            "install the newer taskloop that wrote it"
        )
    if not found and not create:
        raise BadStore(
            f"store {shown} is a database without the tables of a store; it was left as it is, name another database, or "
            "let `taskloop run` make them there"
        )
    if 0 < found < newest() and schema == "newest":
        raise BadStore(
            f"store {shown} has schema {found}, this taskloop needs {newest()}; it was left as it is, "
            "run `taskloop db upgrade` (and before it, for a copy, `pg_dump -n taskloop`)"
        )


async def prepare(
    connection: Any, shown: str, *, create: bool, schema: Schema, read: Callable[[], list[tuple[int, str]]] = migrations
) -> int | None:
    """See that the schema is there and of this version, as far as it is asked for; touches nothing it refuses.

    Gives the older schema that it brought up to date, if there was one. Of several processes that find an empty database at once one makes the tables, and the others wait for it.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        found = await version(connection, shown)
    if schema == "upgrade" and (narrow := _narrow(connection)):
        raise BadStore(f"store {shown}: {narrow}")
    refuse(found, shown, create=create, schema=schema)
    if found == newest() or schema != "upgrade":
        return None
    left = TRIES
    while True:
        left -= 1
        try:
            async with transaction(connection):
                return await _migrate(connection, shown, create=create, schema=schema, read=read)
        except Exception as error:  # by whoever works on it just now, and locks its tables in another order
            if found and getattr(error, "sqlstate", None) == _NO_RIGHT:
                raise BadStore(
                    f"store {shown} has schema {found}, this taskloop needs {newest()}, and its user may not change the tables: "
                    f"{_said(error)}; let the owner of the schema run `taskloop db upgrade`, and grant anew what "
                    "docs/postgresql.md has under few rights"
                ) from error
            if not left or not is_crossed(error):
                raise
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - so that the two do not meet again


_LASTS: Final = (
    "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')"
)
"""Lets a change of the schema last as long as it takes: an index of many runs is built in no time that is meant for a page, and
each start would begin it anew. A server that does not know one of these settings has no need of it.
"""


async def _migrate(
    connection: Any, shown: str, *, create: bool, schema: Schema, read: Callable[[], list[tuple[int, str]]]
) -> int | None:
    await connection.fetch(_LASTS)
    await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
    found = await version(connection, shown)  # asked again: another may have been at work while this one waited
    refuse(found, shown, create=create, schema=schema)
    if found == newest():
        return None
    if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = 'taskloop'"):
        await connection.execute("CREATE SCHEMA taskloop")
    for number, script in read():
        if number > found:
            await connection.execute(script)
    await connection.execute(  # so that a connection of the application's is known to be to the same store
        "INSERT INTO taskloop.meta VALUES ('store', gen_random_uuid()::text) ON CONFLICT (key) DO NOTHING"
    )
    await connection.execute(
        "INSERT INTO taskloop.meta VALUES ('schema', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        str(newest()),
    )
    return found or None


async def problems(db: Db) -> list[str]:
    """What a store may lack that the server would not miss: indexes that were built by halves, settings that lose commits."""
    found = [
        f"index {name} is not valid: it was built by halves; write REINDEX INDEX {name}"
        for (name,) in await db.fetch(
            "SELECT indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'taskloop' AND NOT i.indisvalid"
        )
    ]
    rows = await db.fetch(
        "SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'taskloop' AND relkind IN ('r', 'p', 'S')"
    )
    there = {row[0] for row in rows}
    has = int(await db.fetchval("SELECT value FROM taskloop.meta WHERE key = 'schema'"))
    missing = sorted(one for one in _made(has) if one[1] not in there)
    found += [f"{kind.lower()} taskloop.{name} is not there; restore a backup" for kind, name in missing]
    found += await lacks(db)
    for setting in ("fsync", "synchronous_commit"):
        value = await db.fetchval("SELECT current_setting($1)", setting)
        if value == "off":
            found.append(f"the server's setting {setting} is off: a power cut may take what was reported as done")
    return found


@cache
def _made(schema: int) -> frozenset[tuple[str, str]]:
    """The tables and sequences that the schema changes up to this number make, each with its kind."""
    changes = [script for number, script in migrations() if number <= schema]
    return frozenset(
        one for script in changes for one in re.findall(r"CREATE (TABLE|SEQUENCE) taskloop\.(\w+)", script)
    )


_LACKS: Final = """
    SELECT string_agg(might, ', ' ORDER BY place), name FROM (
        SELECT 'taskloop.' || c.relname AS name, might, place FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY rights(might, place)
        WHERE n.nspname = 'taskloop' AND c.relname::text = ANY($1) AND NOT has_table_privilege(c.oid, might)
        UNION ALL SELECT 'taskloop.run_ids', 'USAGE', 1
        WHERE NOT has_sequence_privilege(to_regclass('taskloop.run_ids'), 'USAGE, UPDATE')
    ) missing GROUP BY name ORDER BY name
"""
_NAMED: Final = 3


async def lacks(db: Db) -> list[str]:
    """What a store needs and our user, or the database, does not give it, each with the mend; empty: nothing."""
    user, is_standby, mode = await db.fetchrow(
        "SELECT current_user::text, pg_is_in_recovery(), current_setting('transaction_read_only')"
    )
    found = [narrow] if (narrow := _narrow(db)) else []
    if is_standby:
        found.append(
            "the server is a standby, which takes no writes; name the one that does in the address of the store"
        )
    elif mode == "on":
        found.append(
            f"nothing can be written: default_transaction_read_only is on for user '{user}', for the database or the whole "
            "server; see who has set it, for a full disk it may be, and ALTER ROLE, ALTER DATABASE or ALTER SYSTEM … RESET it"
        )
    missing: dict[str, list[str]] = {}
    ours = [name for kind, name in _made(newest()) if kind == "TABLE"]  # a copy of one may stand beside them
    for rights, name in await db.fetch(_LACKS, ours):
        missing.setdefault(rights, []).append(name)
    for rights, names in missing.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        found.append(
            f"user '{user}' lacks {rights} on {', '.join(names[:_NAMED])}{more}; let the owner of the schema grant what "
            "docs/postgresql.md has under few rights"
        )
    return found
