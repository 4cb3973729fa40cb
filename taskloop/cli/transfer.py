"""`db copy`: one store into another, whatever kinds they are."""

from __future__ import annotations

import os
import secrets
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from taskloop.address import without_password
from taskloop.cli import reach
from taskloop.cli.entrance import before_exit
from taskloop.cli.failures import Failed
from taskloop.cli.output import Output, clean

if TYPE_CHECKING:
    from taskloop.store import Schema

__all__ = ["copy"]

_STOP: Final = "stop it first: `taskloop status` shows who is there"


def copy(args: Namespace) -> int:
    """Copy FROM into TO, and say for each table how many rows, and their checksum."""
    return reach.drive(_copy(args, Output(args)))


async def _copy(args: Namespace, out: Output) -> int:
    from taskloop import copying

    async with _opened(args.source, create=False, schema="newest") as source:
        await _refuse_the_living(source, "from")
        with _part(args.target, args.source) as part:
            # In a file that holds other things only a start makes tables.
            create = part is not None or reach.file_of(args.target) is None or reach.is_missing(args.target)
            async with _opened(part or args.target, create=create, schema="upgrade") as target:
                await _refuse_the_living(target, "to")
                sums = await copying.copied(source, target)
                addresses = [without_password(one.url) for one in (source, target)]
            when = "while it was copied; what it has done since is not in the copy"
            await _refuse_the_living(source, "from", when)
            if differing := await copying.changed(source, sums):
                told = f"it was changed while it was copied, in {', '.join(differing)}"
                mend = "stop all that writes there, and copy again" + ("" if part else " into an empty store")
                raise Failed(4, f"store {addresses[0]}, to copy from: {told}", mend)
            if part:
                addresses[1] = _published(part, args.target)
    total = sum(one.rows for one in sums.values())
    tables = {table: {"rows": one.rows, "checksum": one.checksum} for table, one in sums.items()}

    def shown() -> None:
        out.table(["table", "rows", "checksum"], [[name, str(one.rows), one.checksum] for name, one in sums.items()])
        out.line(
            clean(f"store {addresses[0]} is copied to {addresses[1]}: {total} rows, read again and found the same")
        )

    out.record({"from": addresses[0], "to": addresses[1], "tables": tables}, shown)
    return 0


@contextmanager
def _part(address: str, source: str) -> Iterator[Path | None]:
    """Beside a file that is not there yet the one to copy into: what stands at `address` is whole, or somebody else's.

    Whatever becomes of the copy, nothing stays of that name.
    """
    from taskloop.copying_sqlite import begun

    file = reach.file_of(address)
    real = None if file is None else os.path.realpath(file)
    if real is None or os.path.lexists(real):
        yield None
        return
    part = f"{real}.{secrets.token_hex(4)}.part"

    def remove() -> None:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                Path(part + end).unlink()

    before_exit.append(remove)
    try:
        with suppress(OSError):  # opening it says why
            begun(Path(part), reach.file_of(source))
        yield Path(part)
    finally:
        before_exit.remove(remove)
        remove()


def _published(part: Path, address: str) -> str:
    """Give the copy its name; gives its address. What somebody else has put there meanwhile stays."""
    from taskloop.copying_sqlite import published

    file = str(reach.file_of(address))
    try:
        published(part, Path(os.path.realpath(file)))
    except FileExistsError:
        raise Failed(
            4, f"file {file} was made by somebody else meanwhile; it was left as it is", "name a new file"
        ) from None
    return f"sqlite:///{file}"


@asynccontextmanager
async def _opened(address: str | Path, *, create: bool, schema: Schema) -> AsyncIterator[Any]:
    if isinstance(address, Path):
        from taskloop.store_sqlite import SqliteStore

        store: Any = SqliteStore(address)
    elif not create and reach.is_missing(address):
        raise Failed(8, f"there is no store {without_password(address)}", "name one that is there")
    else:
        store = reach.opened(address)
        if not hasattr(store, "take_in"):
            raise Failed(8, f"store {without_password(address)} is of a kind that cannot be copied")
    await store.open(create=create, schema=schema)
    try:
        yield store
    finally:
        await store.close()


async def _refuse_the_living(store: Any, way: Literal["from", "to"], when: str = "now") -> None:
    from taskloop.ledger import Ledger
    from taskloop.options import Options

    there = await reach.living(Ledger(store, options=Options()))
    if there:
        who = ", ".join(f"{one.host} pid {one.pid}" for one in there[:3])
        running = f"a worker is running on it {when}" if when == "now" else f"a worker was started on it {when}"
        raise Failed(4, f"store {without_password(store.url)}, to copy {way}: {running} ({who})", _STOP)
