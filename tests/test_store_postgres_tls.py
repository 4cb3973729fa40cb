"""A store behind TLS: the connection that its address asks for, or a refusal that says why.

The server of these tests may be built without TLS, so something stands before it that ends it, as many hosts have it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest
from proxies import Line
from servers import emptied
from stores import asked

from taskloop.errors import BadStore, StoreUnavailable
from taskloop.store import open_store

pytestmark = pytest.mark.anyio

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16/"
"""What a client says first that wants TLS."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two servers' certificates that nobody has signed but they themselves; the key of the first."""
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("openssl is not installed here")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key",
             "-out", folder / f"{name}.crt"],
            check=True, capture_output=True, timeout=30
        )  # fmt: skip
    return folder


class TlsEnd(Line):
    """A port of loopback that speaks TLS, or says that it does not, and leads to the server."""

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        super().__init__(address)
        self._context = context
        self.encrypted = 0

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{re.search(r'[^/]+(?=[?])', self.url)[0]}"
        return self

    async def carry(self, client) -> None:
        reader, writer = client
        hello = await reader.readexactly(8)
        if hello != SSL_REQUEST:
            return
        writer.write(b"S" if self._context else b"N")
        await writer.drain()
        if self._context is None:
            return
        await writer.start_tls(self._context)
        self.encrypted += 1
        await super().carry(client)


@asynccontextmanager
async def tls_end(certificates):
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        await asyncio.to_thread(context.load_cert_chain, certificates / "one.crt", certificates / "one.key")
    async with TlsEnd(emptied().store, context) as end:
        yield end


async def works(url: str) -> bool:
    store = open_store(url)
    await store.open()
    try:
        [run] = await store.submit([asked()])
        return (await store.run(run.id)).job == "a"
    finally:
        await store.close()


async def test_a_server_that_vouches_for_itself_is_reached_where_tls_is_required_and_nobody_is_to_vouch(certificates):
    async with tls_end(certificates) as end:
        assert await works(f"{end.url}?sslmode=require")
        assert end.encrypted >= 2  # one that writes, one that reads
        assert await works(f"{end.url}?sslmode=verify-full&sslrootcert={certificates / 'one.crt'}")


async def test_a_server_that_nobody_vouches_for_is_refused_with_the_cause_and_the_mend(certificates):
    async with tls_end(certificates) as end:
        with pytest.raises(BadStore, match=r"self-signed certificate.*sslrootcert=.*sslmode=require"):
            await works(f"{end.url}?sslmode=verify-full&sslrootcert={certificates / 'other.crt'}")
        for missing in (str(certificates / "none.crt"), "system"):
            with pytest.raises(
                BadStore, match=f"files of certificates named in its address, sslrootcert={missing}: each is"
            ):
                await works(f"{end.url}?sslmode=verify-full&sslrootcert={missing}")
        with pytest.raises(BadStore, match="must be one of"):
            await works(f"{end.url}?sslmode=surely")


async def test_a_server_without_tls_is_refused_where_it_is_required(certificates):
    async with tls_end(None) as end:
        with pytest.raises(
            StoreUnavailable, match="has no TLS, which its sslmode asks for; set ssl = on at the server"
        ):
            await works(f"{end.url}?sslmode=require")
