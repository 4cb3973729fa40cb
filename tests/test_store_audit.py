"""The contract every store must pass, sixth part: the audit.

A verb that is given an entry writes it in the transaction of its change, completed by what was there before; where it
changes nothing, or is refused, it writes none; and without an entry nothing is written at all.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from stores import NOW, as_declared, asked, at, finished, hourly, ids, put, started, store, stores, submitted

from taskloop.audit import Entry
from taskloop.errors import Conflict, KeyConflict
from taskloop.masking import MASK, Secret
from taskloop.runs import Cause
from taskloop.store import Switch
from taskloop.tokens import made
from taskloop.triggers import Every

__all__ = ["store", "stores"]

pytestmark = pytest.mark.anyio


def known(action, actor="anna", reason="because", **more):
    """What a verb knows of a change before it is made."""
    return Entry(more.pop("now", NOW), actor, "api", action, reason=reason, request_id="r1", **more)


async def told(store, **asked_for):
    """Of each entry, the oldest first, what was done to what, and what was and is there."""
    found = reversed(await store.audit(**asked_for))
    return [(one.action, one.object, one.job, one.before, one.after) for one in found]


async def test_a_switch_leaves_what_it_replaced_and_what_it_put_there(store):
    await store.switch(Switch("disabled", "a", NOW, "tom", "move", at(60)), known("disable", "tom"))
    await store.switch(Switch("enabled", "a", at(1), "anna"), known("enable"))
    await store.switch(Switch("paused", None, at(2), "anna"), known("pause"))
    old = {"switch": "disabled", "until": "2026-03-01T12:01:00Z"}
    assert await told(store) == [
        ("disable", "a", "a", None, old),
        ("enable", "a", "a", {**old, "by": "tom", "reason": "move"}, {"switch": "enabled"}),
        ("pause", None, None, None, {"switch": "paused"}),
    ]
    [last, *_, first] = await store.audit()
    assert (first.at, first.actor, first.channel, first.reason, first.request_id) == (
        NOW,
        "tom",
        "api",
        "because",
        "r1",
    )
    assert last.id > first.id > 0


async def test_the_end_of_a_pause_says_which_one_and_how_its_fires_are_settled(store):
    ended = {"kinds": ("paused",), "now": at(5), "actor": "anna", "missed": "skip"}
    assert await store.unswitch("a", **ended, entry=known("resume")) == 0
    await store.switch(Switch("paused", "a", NOW, "tom"))
    assert await store.unswitch("a", **ended, entry=known("resume")) == 1
    assert await told(store) == [("resume", "a", "a", {"switch": "paused", "by": "tom"}, {"missed": "skip"})]


async def test_a_schedule_leaves_how_it_was_and_how_it_is_its_secrets_masked(store):
    one = hourly(params={"key": Secret("hush-hush"), "text": "x" * 5000})
    for new in (one, one, hourly(trigger=Every("2h"), params={"n": 1})):
        await store.put([new], as_declared, NOW, known("schedule"))
    assert await store.drop(["s", "nobody"], NOW, known("unschedule")) == 1
    [first, second, third] = await told(store)
    assert first[:4] == ("schedule", "s", "a", None)
    assert first[4]["params"]["key"] == MASK and len(first[4]["params"]["text"]) == 200
    assert second == ("schedule", "s", "a", first[4], {"trigger": "every 2h", "params": {"n": 1}})
    assert third == ("unschedule", "s", "a", second[4], None)


async def test_a_submit_leaves_one_entry_for_each_job_and_none_for_what_was_there_already(store):
    key = asked(key="k", params={"n": 1})
    await store.submit([key], None, known("submit"))
    await store.submit([key], None, known("submit"))
    await store.submit([asked(), asked("b", ready_at=at(60)), asked()], None, known("submit"))
    await store.submit([asked(cause=Cause.RERUN, rerun_of=1)], None, known("rerun"))
    with pytest.raises(KeyConflict):
        await store.submit([asked(), asked(key="k", params={"n": 2})], None, known("submit"))
    assert await told(store) == [
        ("submit", "1", "a", None, {"params": {"n": 1}, "key": "k"}),
        ("submit", "2", "a", None, {"runs": 2, "last": 4}),
        ("submit", "3", "b", None, {"at": "2026-03-01T12:01:00Z"}),
        ("rerun", "5", "a", None, {"rerun_of": 1}),
    ]


async def test_a_cancel_leaves_what_the_run_was_doing_and_none_where_it_had_ended(store):
    over, runs, [waits] = await finished(store), await started(store), await submitted(store)
    for one in (over, runs, waits):
        await store.cancel(one.id, actor="anna", reason="no", now=NOW, entry=known("cancel"))
    await store.cancel(99, actor="anna", reason="no", now=NOW, entry=known("cancel"))
    assert await told(store) == [
        ("cancel", str(runs.id), "a", {"state": "running"}, {"asked": "to end"}),
        ("cancel", str(waits.id), "a", {"state": "waiting"}, {"state": "cancelled"}),
    ]


async def test_a_token_that_is_made_or_revoked_is_named_and_what_is_refused_leaves_no_entry(store):
    one, text = made("grafana", "read", bytes(range(38)), now=NOW)
    await store.add_token(one, known("create_token"))
    with pytest.raises(Conflict):
        await store.add_token(made("grafana", "admin", bytes(38), now=NOW)[0], known("create_token"))
    for _ in range(2):
        await store.revoke_tokens("grafana", NOW, entry=known("revoke_token"))
    facts = {"id": one.id, "scope": "read"}
    assert await told(store) == [
        ("create_token", "grafana", None, None, facts),
        ("revoke_token", "grafana", None, facts, None),
    ]
    assert text.rpartition("_")[2] not in repr(await store.audit())


async def test_without_an_entry_nothing_is_written(store):
    await store.switch(Switch("disabled", "a", NOW, "tom"))
    await store.unswitch("a", ("disabled",), NOW, actor="tom")
    await put(store, hourly())
    await store.drop(["s"], NOW)
    [run] = await submitted(store, asked(actor="tom"))
    await store.cancel(run.id, actor="tom", reason="no", now=NOW)
    assert await store.audit() == []


async def test_entries_are_found_newest_first_by_actor_and_jobs_page_by_page(store):
    await store.record([known("prune", "tom" if n % 2 else "anna", job="abc"[n % 3], object=str(n)) for n in range(12)])
    assert ids(await store.audit()) == list(range(12, 0, -1))
    assert ids(await store.audit(limit=2, before=5)) == [4, 3]
    assert ids(await store.audit(actor="tom", limit=3)) == [12, 10, 8]
    assert ids(await store.audit(jobs=["a"])) == [10, 7, 4, 1]
    assert ids(await store.audit(jobs=["a", "b"], actor="tom", before=11)) == [10, 8, 4, 2]
    assert await store.audit(jobs=[]) == await store.audit(jobs=["nobody"]) == await store.audit(actor="nobody") == []


async def test_entries_go_when_they_are_older_than_the_store_keeps_anything(store):
    await store.record([known("prune", object=str(day), now=NOW + timedelta(days=day)) for day in range(4)])
    await store.prune(None, now=NOW + timedelta(days=10))
    assert len(await store.audit()) == 4
    await store.prune(timedelta(days=8), now=NOW + timedelta(days=10))
    assert [one.object for one in await store.audit()] == ["3", "2"]
