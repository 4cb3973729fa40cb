"""A job gets another name: what stood under the old one goes over, and nothing comes twice, whoever still runs it."""

from __future__ import annotations

from collections import Counter

import pytest
from stores import NOW, asked, at, database, ended, hourly, know, pair, put, shared, started, store, stored, stores
from stories import lasting, nothing, stamp, starts

from taskloop import Cron, Every, Options, State, TaskScheduler
from taskloop.declaring import declare
from taskloop.errors import BadJob, Conflict, NoSuchJob
from taskloop.runs import Reason
from taskloop.store_data import Definition, Query
from taskloop.switches import Switch

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio


async def test_an_earlier_version_fires_nothing_again_that_a_later_one_fired_by_a_clock_that_was_ahead(
    virtual_time, tmp_path
):
    """Under each name it is another schedule; what was decided under one is decided."""
    address = f"sqlite:///{tmp_path}/shared.db"
    later, earlier = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    later.add_job(nothing, Cron("* * * * *"), name="renamed", aliases=("before",))
    earlier.add_job(nothing, Cron("* * * * *"), name="before")
    async with virtual_time(later, store=address) as time:
        await time.advance("90s")
        time.step("10m")
        await time.advance("3m")
        await time.crash()
        time.step("-10m")
        await time.join(earlier, address)
        await time.advance("20m")
        await time.until(earlier.stop())
        dues = [run.due_at for run in await earlier.runs(limit=1000)]
        assert len(dues) == len(set(dues)) > 20


MINUTELY = Every("1m")


def named(name: str, *aliases: str, trigger: Every = MINUTELY) -> TaskScheduler:
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, trigger, name=name, aliases=aliases)
    return scheduler


# -- one worker after the other


async def test_no_instant_comes_again_if_the_clock_is_set_back_after_a_rename(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(named("old", trigger=Every("1m", anchor="2026-01-01T00:00Z")), store=address) as time:
        await time.advance("5m30s")
    after = named("new", "old", trigger=Every("1m", anchor="2026-01-01T00:00Z"))
    async with virtual_time(after, at="2026-01-01T00:05:40Z", store=address) as time:
        time.step("-3m")
        await time.advance("6m")
        dues = [run.due_at for run in await time.runs("new", state=list(State))]
        assert max(Counter(dues).values()) == 1
        assert [stamp(one) for one in dues[-3:]] == ["00:06", "00:07", "00:08"]


async def test_two_runs_of_one_key_under_both_names_are_one_after_a_rename(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    both = named("old")
    both.add_job(nothing, name="new")
    async with virtual_time(both, store=address):
        first = await both.submit("new", key="k")
        second = await both.submit("old", key="k", at="+10m")
        third = await both.submit("old", key="other", at="+10m")
    after = named("new", "old")
    async with virtual_time(after, at="2026-01-01T00:01Z", store=address) as time:
        assert (await after.run(first.id)).state is State.SUCCEEDED
        gone = await after.run(second.id)
        assert (gone.state, gone.reason, gone.job) == (State.CANCELLED, Reason.SUPERSEDED, "new")
        assert (await after.submit("new", key="other")).id == third.id
        await time.advance("10m")
        assert (await after.run(third.id)).state is State.SUCCEEDED


async def test_what_ran_under_the_old_name_counts_for_the_new_one(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(named("old"), store=address) as time:
        await time.advance("5m30s")
    async with virtual_time(named("new", "old"), at="2026-01-01T00:05:40Z", store=address) as time:
        await time.advance("10s")
        assert {(run.job, run.schedule) for run in await time.runs()} == {("new", "new")}
    with database(tmp_path / "app.db") as db:
        assert db.execute("SELECT job, sum(runs) FROM taskloop_daily GROUP BY job").fetchall() == [("new", 6)]
        assert db.execute("SELECT name FROM taskloop_jobs").fetchall() == [("new",)]


# -- two versions at a time


async def test_an_earlier_version_leaves_the_fires_to_a_live_one_that_knows_the_job_by_a_later_name(
    virtual_time, tmp_path
):
    address = f"sqlite:///{tmp_path}/app.db"
    later, earlier = named("new", "old"), named("old")
    async with virtual_time(later, store=address) as time:
        await time.join(earlier, address)
        assert earlier.start_plan.yielded == {"old": "new"}
        assert earlier.start_plan.told() == {"yielded": "old (to new)"}
        await time.advance("150s")
        assert {run.job for run in await time.runs()} == {"new"}
        assert len(await earlier.schedules()) == 1
        await time.until(later.stop())
        await time.advance("3m")
        found = await earlier.runs("old")
        assert [run.job for run in found].count("old") >= 2, "nobody else is there to fire"


async def test_why_of_a_job_that_a_later_version_has_under_another_name_is_asked_of_that(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    earlier, later = named("old"), named("new", "old")
    async with virtual_time(earlier, store=address) as time:
        await time.advance("90s")
        await time.join(later, address)
        await time.advance("1m")
        found = await earlier.why("old")
        assert (found.verdict, found.run.job, stamp(found.run.due_at)) == ("ran", "new", "00:02")
        await time.until(later.stop())
        await time.advance("2m")
        assert (await earlier.why("old")).run.job == "old"


async def test_what_an_earlier_version_was_asked_for_goes_over_when_it_is_gone(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    later, earlier = named("new", "old"), named("old")
    async with virtual_time(later, store=address) as time:
        await time.join(earlier, address)
        run = await earlier.submit("old", at="+2m")
        await time.until(earlier.stop())
        await time.advance("3m")
        assert ((await later.run(run.id)).job, (await later.run(run.id)).state) == ("new", State.SUCCEEDED)


async def test_a_run_that_an_earlier_version_has_in_hand_holds_back_the_next_of_its_schedule(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    later, earlier = named("new", "old"), TaskScheduler(options=Options())
    earlier.add_job(lasting(90), MINUTELY, name="old")
    async with virtual_time(earlier, store=address) as time:
        await time.advance("1s")
        await time.join(later, address)
        await time.advance("1m")
        skipped = await later.runs("new", state="skipped")
        assert [(run.reason, run.schedule) for run in skipped] == [(Reason.OVERLAP, "new")]
        await time.advance("1m")
        assert await starts(time) == ["00:00", "00:02"]


# -- what the store does


async def defined(store, *names):
    await store.define([Definition(name, {"aliases": list(more)}, "code", NOW) for name, more in names])


async def test_a_long_history_goes_over_in_parts_the_newest_first(store):
    await know(store, "a")
    for _ in range(5):
        assert await store.settle(ended(await started(store)))
    assert (await store.rename({"a": "b"}, NOW, 2)).more
    assert [run.job for run in await store.find(Query())] == ["b", "b", "a", "a", "a"]
    assert (await store.rename({"a": "b"}, NOW, 2)).more
    last = await store.rename({"a": "b"}, NOW, 2)
    assert (last.more, last.active, list(last.schedules)) == (False, False, [])
    assert {run.job for run in await store.find(Query())} == {"b"}


async def test_what_was_counted_by_day_goes_over_with_the_last_part_of_a_history_however_long_that_is(store):
    await know(store, "a", "b")
    for job in "aaaab":
        assert await store.settle(ended(await started(store, job=job)))
    await defined(store, ("a", ()))
    while (await store.rename({"a": "b"}, NOW, 2)).more:
        pass
    assert [one.runs for one in await store.days(["b"], NOW.date(), NOW.date())] == [5]
    assert not await store.days(["a"], NOW.date(), NOW.date())


async def test_a_declared_schedule_goes_on_under_its_new_id_unless_that_has_one(store):
    await put(store, hourly("a", "a", origin="code", next_due=at(7200)), hourly("mine", "a"))
    renamed = await store.rename({"a": "b"}, NOW, 10)
    assert list(renamed.schedules) == ["a"]
    moved = await stored(store, "b")
    assert (moved.job, moved.next_due) == ("b", at(7200))
    assert (await stored(store, "mine")).job == "b"
    await put(store, hourly("a", "a", origin="code"))
    assert list((await store.rename({"a": "b"}, NOW, 10)).schedules) == []
    assert [one.id for one in await store.schedules()] == ["b", "mine"]


@pytest.mark.parametrize(
    ("old", "new", "goes_on"),
    [
        ({"last_due": at(5)}, {"last_due": at(4)}, "old"),
        ({"last_due": at(5)}, {"last_due": None}, "old"),
        ({"last_due": at(4)}, {"last_due": at(5)}, "new"),
        ({"last_due": at(5)}, {"last_due": at(4), "trigger": Every("2h")}, "new"),
        ({"last_due": at(5), "origin": "stored"}, {"last_due": at(4)}, "new"),
    ],
)
async def test_of_two_names_under_which_a_schedule_has_fired_the_later_cursor_counts(store, old, new, goes_on):
    """As after a roll-out that was taken back for a while: what is on record under one is not fired under the other."""
    before = {
        "old": hourly("a", "a", **({"origin": "code", "next_due": at(6), "anchor": at(1)} | old)),
        "new": hourly("b", "b", **({"origin": "code", "next_due": at(7), "anchor": at(2)} | new)),
    }
    await put(store, *before.values())
    await store.rename({"a": "b"}, NOW, 10)
    told = await stored(store, "b")
    counts = before[goes_on]
    assert (told.next_due, told.last_due, told.anchor) == (counts.next_due, counts.last_due, counts.anchor)
    assert (told.job, told.trigger) == ("b", before["new"].trigger)


async def test_a_key_that_is_used_under_the_new_name_stays_with_that(store):
    await know(store, "a", "b")
    running = await started(store, key="k")
    assert await store.settle(ended(await started(store, key="done")))
    for key in ("k", "done"):
        await store.submit([asked("b", key=key)])
    assert (await store.rename({"a": "b"}, NOW, 10)).active
    assert (await store.run(running.id)).key is None
    assert await store.settle(ended(running))
    assert sorted(run.key or "" for run in await store.find(Query())) == ["", "", "done", "k"]


async def test_every_alias_is_told_with_the_job_that_has_it(store):
    await defined(store, ("b", ["a", "c"]), ("d", []))
    assert await store.aliases() == {"a": "b", "c": "b"}


# -- versions that go, and programs that do not fire


async def test_a_roll_out_that_is_taken_back_leaves_the_fires_to_the_version_that_was_there_all_the_time(
    virtual_time, tmp_path
):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = named("old"), named("new", "old")
    async with virtual_time(before, store=address) as time:
        await time.advance("90s")
        await time.join(after, address)
        await time.advance("1m")
        await time.until(after.stop())
        fired = len(await time.runs())
        await time.advance("5m")
        assert len(await time.runs()) - fired >= 4


async def test_an_earlier_version_that_takes_the_fires_back_by_an_old_look_leaves_none_for_both(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    later, earlier = named("new", "old"), named("old")
    async with virtual_time(later, store=address) as time:
        await time.join(earlier, address)
        await time.advance("150s")
        # It stood still between its look, when nobody had the new name yet, and what it makes of it.
        await declare(earlier, earlier._store, list(earlier), time.now, others=[])
        assert [one.id for one in await earlier.schedules()] == ["old"]
        await time.advance("5m")
        dues = Counter(run.due_at for run in await later.runs(limit=1000))
        assert set(dues.values()) == {1} and len(dues) >= 7
        assert [one.id for one in await earlier.schedules()] == ["new"]


async def test_no_fire_is_left_to_a_worker_that_does_not_fire(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    web, worker = TaskScheduler(options=Options(enabled=False)), named("old")
    web.add_job(nothing, MINUTELY, name="new", aliases=("old",))
    async with virtual_time(web, store=address) as time:
        await time.join(worker, address)
        assert worker.start_plan.yielded == {}
        await time.advance("150s")
        assert len(await worker.runs("old")) >= 2


async def test_what_stands_under_an_alias_goes_to_the_job_that_is_left_of_those_that_have_it(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    web, worker = TaskScheduler(options=Options(enabled=False)), TaskScheduler(options=Options())
    web.add_job(nothing, name="old")
    for name in ("first", "second"):
        worker.add_job(nothing, name=name, aliases=("old",))
    async with virtual_time(worker, store=address) as time:
        worker.remove_job("second")
        await time.join(web, address)
        run = await web.submit("old")
        await time.advance("30s")
        assert ((await worker.run(run.id)).job, (await worker.run(run.id)).state) == ("first", State.SUCCEEDED)
        assert (await worker.submit("old")).job == "first"


async def test_an_alias_that_is_the_name_of_another_job_is_refused():
    scheduler = named("old")
    scheduler.add_job(nothing, name="new", aliases=("old",))
    with pytest.raises(BadJob, match="there is a job of that name"):
        await scheduler.start()


async def test_verbs_know_a_job_by_the_name_it_had(virtual_time):
    scheduler = TaskScheduler(":memory:")
    scheduler.add_job(nothing, name="new", aliases=("old",))
    async with virtual_time(scheduler) as time:
        assert (await time.until((await scheduler.submit("old")).wait())).job == "new"
        await scheduler.schedule("old", MINUTELY, id="one")
        assert [one.job for one in await scheduler.schedules("old")] == ["new"]
        assert {run.id for run in await scheduler.runs("old")} >= {1}
        await scheduler.disable("old", reason="renamed, and off")
        with pytest.raises(Conflict, match="job 'new' is off"):
            await scheduler.submit("new")
        await scheduler.reset("old")
        await scheduler.pause("old")
        waits = await scheduler.submit("new")
        await time.advance("1m")
        assert (await scheduler.run(waits.id)).state == "waiting"
        await scheduler.resume("old")
        assert (await time.until(waits.wait())).state == "succeeded"
    with pytest.raises(NoSuchJob, match="no job 'older'"):
        await scheduler.submit("older")


async def test_a_switch_for_a_job_that_nobody_has_is_refused_and_one_of_another_program_is_thrown(
    virtual_time, tmp_path
):
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(named("new", "old"), store=address) as time:
        desk = TaskScheduler(address)
        desk.add_job(nothing, name="mine")
        for verb in (desk.disable, desk.enable, desk.reset, desk.pause, desk.resume):
            with pytest.raises(NoSuchJob, match="did you mean 'new'"):
                await time.until(verb("nww"))
        await time.until(desk.disable("old", reason="by another program"))
        assert [one.job for one in await time.until(desk._store.switches())] == ["new"]
        await time.until(desk.close())


async def test_a_job_that_was_taken_back_is_switched_by_its_own_name_again(virtual_time, tmp_path):
    """The store still knows the later name, whose alias it was."""
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(named("old"), store=address) as time:
        await time.advance("90s")
    async with virtual_time(named("new", "old"), at="2026-01-01T00:10Z", store=address) as time:
        await time.advance("90s")
    back = named("old")
    async with virtual_time(back, at="2026-01-01T00:20Z", store=address) as time:
        await time.advance("90s")
        desk = TaskScheduler(address)
        await time.until(desk.disable("old", reason="stop it"))
        await time.advance("5s")
        with pytest.raises(Conflict, match="stop it"):
            await back.submit("old")
        await time.until(desk.close())


async def test_what_an_earlier_version_threw_under_the_old_name_is_reset_under_any(virtual_time):
    scheduler = named("new", "old")
    async with virtual_time(scheduler, store=":memory:") as time:
        for name in ("old", "new"):
            await scheduler._store.switch(Switch("disabled", "old", time.now, "ann", None))
            await scheduler._refresh_switches(force=True)
            await scheduler.reset(name)
            assert (await scheduler.submit("new")).job == "new"


async def test_a_job_that_was_only_asked_for_so_far_can_be_held(tmp_path):
    asking, desk = TaskScheduler(tmp_path / "app.db"), TaskScheduler(tmp_path / "app.db")
    asking.add_job(nothing, name="remind")
    await asking.submit("remind")
    await desk.pause("remind")
    assert [one.job for one in await desk._store.switches()] == ["remind"]
    await desk.close()
    await asking.close()


async def test_a_worker_that_has_nothing_to_do_does_not_go_through_its_jobs_again_and_again(
    virtual_time, tmp_path, monkeypatch
):
    """Of a hundred thousand each time would hold the loop for ten milliseconds, twice a second."""
    walks: list[int] = []
    walk = TaskScheduler.__iter__
    scheduler = TaskScheduler(options=Options())
    for number in range(3):
        scheduler.add_job(nothing, name=f"idle-{number}", aliases=(f"before-{number}",) if number else ())
    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/app.db") as time:
        await time.advance("1s")
        monkeypatch.setattr(TaskScheduler, "__iter__", lambda self: walks.append(1) or walk(self))
        await time.advance("1m")
        monkeypatch.undo()
    assert walks == []


async def test_a_job_that_is_added_to_a_started_scheduler_is_refused_a_name_that_is_an_alias_of_another(virtual_time):
    """As at a start: it was taken, and all that it fired became the other's."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, name="new", aliases=("old",))
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadJob, match="'new' has the alias 'old', and there is a job of that name"):
            scheduler.add_job(nothing, Every("1m"), name="old")
        assert "old" not in scheduler and (await scheduler.submit("old")).job == "new"
        scheduler.remove_job("new")
        scheduler.add_job(nothing, Every("1m"), name="old")
        await time.advance("90s")
        assert len(await time.runs("old")) == 2


async def test_a_job_that_is_added_to_a_started_scheduler_is_refused_an_alias_that_is_the_name_of_another(virtual_time):
    """It was taken: the schedule of the other vanished, which fired no more, and the next start was refused."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="old")
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadJob, match="'new' has the alias 'old', and there is a job of that name"):
            scheduler.add_job(nothing, Every("1h"), name="new", aliases=("old",))
        assert "new" not in scheduler and [one.id for one in await scheduler.schedules()] == ["old"]
        await time.advance("90s")
        assert len(await time.runs("old")) == 2
