"""The contract every store must pass, fifth part: tokens, and the secret of sessions."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stores import NOW, at, pair, shared, store, stores

from taskloop.errors import BadToken, Conflict
from taskloop.tokens import MOST_LIVE, Token, made, split

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)


def token(name="anna", scope="read", number=1, **more):
    found, _ = made(name, scope, number.to_bytes(38, "big"), now=more.pop("now", NOW), **more)
    return found


def numbered(number):
    """A token whose id differs for each number."""
    return Token(id=f"{number:012x}", name=f"n{number}", scope="read", digest=b"d" * 32, created_at=NOW)


async def ids(store, **asked):
    return [one.id for one in await store.tokens(**asked)]


# -- what a token is


def test_a_token_is_written_with_its_id_and_fits_by_its_secret_alone():
    kept, text = made("anna", "read", bytes(range(38)), now=NOW)
    identity, secret = split(text)
    assert text == f"tl_{kept.id}_{secret}" and identity == kept.id == "000102030405"
    assert kept.fits(secret)
    assert not kept.fits(secret[:-1] + "0") and not kept.fits("")
    assert secret not in repr(kept) and repr(kept.digest) not in repr(kept)


@pytest.mark.parametrize(
    "text", ["", "tl_", "tl_000102030405", "tl_000102030405_ab", "TL_000102030405_" + "a" * 64,
             "tl_000102030405_" + "a" * 64 + "\n", "tl_000102030405_" + "g" * 64, "tl_00010203040_" + "a" * 65]
)  # fmt: skip
def test_what_is_no_token_is_read_as_none(text):
    assert split(text) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "é", "x" * 65, "a/b"])
def test_a_name_that_would_not_read_well_as_an_actor_is_refused(name):
    with pytest.raises(BadToken, match="letters, digits"):
        token(name)


def test_a_scope_nobody_knows_and_an_expiry_that_is_past_are_refused():
    with pytest.raises(BadToken, match="read, operate or admin"):
        token(scope="root")
    with pytest.raises(BadToken, match="before it is made"):
        token(expires_at=NOW)


def test_the_state_of_a_token_is_that_of_the_instant():
    one = token(expires_at=NOW + DAY)
    assert [one.state(NOW), one.state(NOW + DAY), token().state(NOW + 9999 * DAY)] == ["live", "expired", "live"]


# -- what a store keeps of it


async def test_a_token_comes_back_as_it_was_kept(store):
    kept = token(expires_at=NOW + DAY, actor="tom", reason="for the graphs")
    await store.add_token(kept)
    assert await store.tokens() == [kept]


async def test_tokens_are_listed_newest_first_and_a_page_goes_on_by_id(store):
    made_ = [token(f"n{number}", number=number << 280, now=at(number)) for number in range(5)]
    for one in made_:
        await store.add_token(one)
    everything = [one.id for one in reversed(made_)]
    first = await ids(store, limit=2)
    assert first == everything[:2]
    assert await ids(store, before=first[-1]) == everything[2:]
    assert await ids(store, before="nobody") == []


async def test_only_tokens_that_are_valid_then_are_live(store):
    for number, more in enumerate([{}, {"expires_at": NOW + DAY}, {}]):
        await store.add_token(token(f"n{number}", number=number << 280, **more))
    await store.revoke_tokens("n2", NOW)
    assert {one.name for one in await store.tokens(live_at=NOW)} == {"n0", "n1"}
    assert {one.name for one in await store.tokens(live_at=NOW + DAY)} == {"n0"}


async def test_a_name_is_taken_while_a_token_of_it_is_valid(store):
    await store.add_token(token(number=1 << 280, expires_at=NOW + DAY))
    with pytest.raises(Conflict, match="'anna' is valid already"):
        await store.add_token(token(number=2 << 280))
    await store.add_token(token(number=3 << 280, now=NOW + DAY))  # the first has expired
    await store.revoke_tokens("anna", NOW + DAY)
    await store.add_token(token(number=4 << 280, now=NOW + DAY))
    assert len(await store.tokens()) == 3


async def test_of_two_that_ask_for_one_name_at_once_one_gets_it(pair):
    first, second = pair
    done = await asyncio.gather(
        first.add_token(token(number=1 << 280)), second.add_token(token(number=2 << 280)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in done) == ["Conflict", "NoneType"]


async def test_more_tokens_than_a_server_keeps_at_hand_are_refused(store):
    await asyncio.gather(*(store.add_token(numbered(number)) for number in range(MOST_LIVE)))
    with pytest.raises(Conflict, match="1000 tokens are valid"):
        await store.add_token(numbered(MOST_LIVE))
    await store.revoke_tokens("n7", NOW)
    await store.add_token(numbered(MOST_LIVE))


async def test_a_token_is_revoked_by_its_id_or_its_name_once(store):
    first, second = token(number=1 << 280), token("bob", number=2 << 280)
    await store.add_token(first)
    await store.add_token(second)
    [gone] = await store.revoke_tokens(first.id, at(5), actor="tom", reason="left")
    assert (gone.name, gone.revoked_at, gone.revoked_by, gone.revoked_because) == ("anna", at(5), "tom", "left")
    assert await store.revoke_tokens("anna", at(6)) == await store.revoke_tokens("nobody", at(6)) == []
    [other] = await store.revoke_tokens("bob", at(7))
    assert await store.tokens(named="bob") == [other] and await store.tokens(named=first.id) == [gone]


async def test_a_name_that_looks_like_an_id_takes_nothing_else_back(store):
    first = token(number=1 << 280)
    await store.add_token(first)
    await store.add_token(token(first.id, number=2 << 280))
    assert [one.name for one in await store.revoke_tokens(first.id, NOW)] == ["anna"]


async def test_a_use_is_noted_once_a_minute(store):
    one = token()
    await store.add_token(one)
    noted = []
    for second in (0, 30, 59, 60, 61):
        await store.use_token(one.id, at(second))
        noted.append((await store.tokens())[0].last_used_at)
    assert noted == [at(0)] * 3 + [at(60)] * 2
    await store.use_token(one.id, at(-3600))  # the clock was set back
    assert (await store.tokens())[0].last_used_at == at(-3600)


async def test_every_process_has_the_secret_that_was_kept_first(pair):
    first, second = pair
    assert await first.session_secret(b"a" * 32) == b"a" * 32
    assert await second.session_secret(b"b" * 32) == b"a" * 32 == await first.session_secret(b"c" * 32)


async def test_the_file_has_nothing_of_which_the_token_could_be_made(shared):
    store = await shared.make()
    kept, text = made("anna", "read", bytes(range(38)), now=NOW)
    await store.add_token(kept)
    secret = split(text)[1]
    await store.close()
    whole = shared.dump()
    assert b"anna" in whole and secret.encode() not in whole and bytes.fromhex(secret) not in whole
    [(digest,)] = shared.rows("SELECT digest FROM {}tokens")
    assert len(digest) == 32
