"""`taskloop token`: made, listed, taken back, and in nothing that is shown afterwards."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop.ledger import Ledger
from taskloop.tokens import split

MADE = re.compile(r"tl_[0-9a-f]{12}_[0-9a-f]{64}\n")


@pytest.fixture
def made(shop, call):
    """Makes a token; gives how it is written."""

    def made(name, scope="read", *words):
        done = call("token", "create", name, "--scope", scope, *words)
        assert done.code == 0, done.err
        return done.out.strip()

    return made


def test_a_token_is_the_only_thing_on_stdout_and_makes_the_store(shop, call):
    done = call("token", "create", "anna", "--scope", "admin")
    assert done.code == 0 and MADE.fullmatch(done.out)
    assert "scope admin, for good" in done.err and done.out.strip() not in done.err
    assert "taskloop.db" in shop.files


def test_its_record_names_who_made_it_and_why_and_not_the_token(shop, call, made):
    words = ("--actor", "tom", "--reason", "for the graphs", "--expires", "90d")
    text = made("grafana", "read", *words)
    listed = call("token", "list", "--format", "json")
    [one] = listed.items
    assert (one["name"], one["scope"], one["state"], one["by"]) == ("grafana", "read", "live", "tom")
    assert (one["reason"], one["last_used_at"], one["revoked_at"]) == ("for the graphs", None, None)
    assert one["expires_at"] > one["created_at"] and one["id"] == split(text)[0]
    assert split(text)[1] not in listed.out and "digest" not in one
    assert list(one) == [
        "id", "name", "scope", "state", "created_at", "by", "reason", "expires_at", "last_used_at", "revoked_at",
        "revoked_by", "revoked_because",
    ]  # fmt: skip


def test_created_as_json_the_record_has_the_token_this_once(shop, call):
    data = call("token", "create", "anna", "--scope", "operate", "--format", "json").data
    assert MADE.fullmatch(data.pop("token") + "\n")
    assert call("token", "list", "--format", "json").items == [data]


def test_the_file_keeps_no_token(shop, made):
    text = made("anna")
    with closing(sqlite3.connect(shop.folder / "taskloop.db")) as db, db:
        dump = "\n".join(db.iterdump())
    db.close()
    assert "anna" in dump and split(text)[1] not in dump


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "anna"], 2, "--scope"), (["create", "anna", "--scope", "root"], 2, "invalid choice"),
        (["create", "a b", "--scope", "read"], 2, "letters, digits"), (["create", "--scope", "read"], 2, "NAME"),
        (["create", "anna", "--scope", "read", "--expires", "soon"], 2, "soon"),
        (["create", "anna", "--scope", "read", "--expires", "2020-01-01T00:00:00Z"], 2, "before it is made"),
        (["revoke", "anna"], 3, "no token 'anna'"), (["list", "--limit", "0"], 2, "--limit"), ([], 2, "token create"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(shop, call, words, code, said):
    done = call("token", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not done.out


def test_a_name_is_given_once_while_its_token_is_valid(shop, call, made):
    made("anna")
    again = call("token", "create", "anna", "--scope", "read")
    assert again.code == 4 and "valid already" in again.err and not again.out
    assert call("token", "revoke", "anna").code == 0
    made("anna", "operate")


@pytest.mark.parametrize("by", ["name", "id", "the token itself"])
def test_a_token_is_taken_back_by_its_name_its_id_or_itself(shop, call, made, by):
    text = made("anna")
    which = {"name": "anna", "id": split(text)[0], "the token itself": text}[by]
    done = call("token", "revoke", which, "--actor", "tom", "--reason", "seen in a log", "--format", "json")
    [one] = done.items
    assert (one["state"], one["revoked_by"], one["revoked_because"]) == ("revoked", "tom", "seen in a log")
    again = call("token", "revoke", which)
    assert again.code == 4 and "by tom" in again.err and split(text)[1] not in again.err + done.out


def test_the_list_says_in_words_who_may_what_and_who_took_it_back(shop, call, made):
    made("anna", "admin", "--actor", "tom")
    made("bob", "read", "--expires", "1h")
    call("token", "revoke", "anna", "--actor", "eve", "--reason", "left")
    done = call("token", "list")
    bob, anna = done.out.splitlines()[1:]
    assert done.out.startswith("NAME") and "read" in bob and "live" in bob
    assert "by tom" in anna and 'revoked by eve: "left"' in anna and "never" in anna


def test_the_list_pages_by_id(shop, call, made):
    for name in ("a", "b", "c"):
        made(name)
    first = call("token", "list", "--limit", "2", "--format", "json").data
    assert [one["name"] for one in first["items"]] == ["c", "b"]
    rest = call("token", "list", "--before", first["next"], "--format", "json").data
    assert [one["name"] for one in rest["items"]] == ["a"] and rest["next"] is None


def test_an_empty_list_without_a_store_makes_none(shop, call):
    done = call("token", "list", "--format", "json")
    assert done.code == 0 and done.data == {"items": [], "next": None} and "no store yet" in done.err
    assert shop.files == {"config.toml", "shop.py"}


def test_a_program_may_do_all_of_it(shop, made):
    text = made("anna")

    async def story():
        ledger = Ledger("taskloop.db")
        try:
            token, other = await ledger.keyring.create("bob", "operate", expires="1h")
            assert other.startswith(f"tl_{token.id}_")
            assert {one.name for one in await ledger.keyring.live()} == {"anna", "bob"}
            await ledger.keyring.revoke(text)
            return [one.name for one in await ledger.keyring.live()]
        finally:
            await ledger.close()

    assert asyncio.run(story()) == ["bob"]
