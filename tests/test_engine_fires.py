"""Fires: when a schedule comes due, and what becomes of instants that nobody was there for."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stories import START, fates, lasting, nothing, stamp, starts

from taskloop import At, Cron, Every, Options, State, TaskScheduler
from taskloop.cli.narrow import Narrow
from taskloop.firing import FireLoop
from taskloop.ledger import Ledger
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


async def again(time, trigger, after=0, **policy):
    """Deploy: stop, declare the job `job` with another trigger or policy, start `after` later."""
    scheduler = time.scheduler
    if scheduler.is_running:
        await time.until(scheduler.stop())
    await time.advance(after)
    scheduler.remove_job("job")
    scheduler.add_job(nothing, trigger, name="job", **policy)
    await time.start()


async def test_a_two_week_job_is_not_restarted_by_daily_deploys(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("2w"))
    async with virtual_time(scheduler, at=START) as time:
        for _ in range(30):
            await time.restart(after="23h59m")
            await time.advance("1m")
        assert await starts(time) == ["00:00", "+14d 00:00", "+28d 00:00"]


async def test_a_two_week_job_whose_time_passed_while_down_is_caught_up_once(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("2w"))
    async with virtual_time(scheduler) as time:
        await time.advance("13d")
        await time.restart(after="5d")
        await time.advance("9d")
        assert await starts(time) == ["00:00", "+18d 00:00"]
        await time.advance("1d")
        assert await fates(time) == ["00:00 succeeded", "+14d 00:00 succeeded", "+28d 00:00 succeeded"]


@pytest.mark.parametrize(
    ("first", "instants"),
    [
        ("now", ["00:07", "01:07", "02:07"]),
        ("after", ["01:07", "02:07"]),
        ("aligned", ["01:00", "02:00", "03:00"]),
    ],
)
async def test_an_every_seen_for_the_first_time_fires_as_first_says(scheduler, virtual_time, first, instants):
    scheduler.add_job(nothing, Every("1h"), first=first)
    async with virtual_time(scheduler, at="2026-01-01T00:07Z") as time:
        await time.advance("2h55m")
        assert await starts(time) == instants


async def test_first_counts_only_once_and_a_restart_continues_the_grid(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), first="after")
    async with virtual_time(scheduler) as time:
        for _ in range(4):
            await time.restart(after="25m")
        assert await fates(time) == ["01:00 succeeded"]
        await time.advance("20m")
        assert (await fates(time))[-1] == "02:00 succeeded"


async def test_fires_keep_to_a_grid_and_never_drift(scheduler, virtual_time):
    scheduler.add_job(lasting(0.4), Every("1s"))
    async with virtual_time(scheduler) as time:
        await time.advance("300s")
        runs = await time.runs()
    assert [run.due_at for run in runs] == [START + timedelta(seconds=number) for number in range(301)]
    assert all(run.started_at == run.due_at for run in runs)


async def test_a_changed_trigger_is_asked_anew_from_the_last_due_instant(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h10m")
        await again(time, Every("30m"))
        await time.advance("21m")
        assert (await starts(time))[-2:] == ["03:00", "03:30"]


async def test_a_trigger_made_longer_at_each_deploy_still_fires(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        for minutes in (61, 62, 63, 64):
            await again(time, Every(minutes * 60), after="20m")
        assert (await starts(time))[-1] == "01:20"


async def test_an_equal_trigger_declared_anew_keeps_the_cursor(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await again(time, Every(timedelta(minutes=60)), after="10m")
        assert await starts(time) == ["00:00"]
        await time.advance("40m")
        assert await starts(time) == ["00:00", "01:00"]


async def test_another_interval_given_to_start_is_a_changed_trigger(scheduler, virtual_time):
    scheduler.add_job(nothing, Every())
    async with virtual_time(scheduler, interval="1d") as time:
        await time.advance("1h")
        await time.restart(interval="2h")
        await time.advance("1h")
        assert await starts(time) == ["00:00", "02:00"]


async def test_cron_follows_the_clock_of_its_zone_or_the_schedulers(virtual_time):
    scheduler = TaskScheduler(options=Options(timezone="Europe/London"))
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="london")
    scheduler.add_job(nothing, Cron("30 4 * * *", timezone="Asia/Tokyo"), name="tokyo")
    async with virtual_time(scheduler, at="2026-07-01T00:00Z") as time:
        await time.advance("1d")
        assert [run.due_at.strftime("%d %H:%M") for run in await time.runs("london")] == ["01 01:00"]
        assert [run.due_at.strftime("%d %H:%M") for run in await time.runs("tokyo")] == ["01 19:30"]


async def test_a_cron_job_fires_once_in_the_night_the_clocks_go_back(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("30 1 * * *", timezone="Europe/London"))
    async with virtual_time(scheduler, at="2026-10-24T12:00Z") as time:
        await time.advance("1d")
        assert [run.due_at.strftime("%d %H:%M") for run in await time.runs()] == ["25 00:30"]


async def test_at_fires_once_and_not_again_after_a_restart(scheduler, virtual_time):
    scheduler.add_job(nothing, At("2026-01-01T05:00Z"))
    async with virtual_time(scheduler) as time:
        await time.advance("6h")
        await time.restart(after="1d")
        assert await fates(time) == ["05:00 succeeded"]


async def test_at_whose_instant_passed_while_down_is_caught_up(scheduler, virtual_time):
    scheduler.add_job(nothing, At("2026-01-01T05:00Z"))
    async with virtual_time(scheduler) as time:
        await time.restart(after="6h")
        assert await fates(time) == ["05:00 succeeded"]
        assert (await time.runs())[0].cause == "catch_up"


async def test_at_first_seen_after_its_instant_is_a_skip_missed(scheduler, virtual_time):
    scheduler.add_job(nothing, At("2025-12-31T23:00Z"))
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        assert await fates(time) == ["-1d 23:00 skipped missed"]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({}, ["00:00 succeeded", "01:00 skipped missed x4", "05:00 succeeded"]),
        ({"missed": "skip"}, ["00:00 succeeded", "01:00 skipped missed x5"]),
        ({"missed": "all", "overlap": "allow"}, [f"0{hour}:00 succeeded" for hour in range(6)]),
        (
            {"missed": "all", "missed_limit": 2, "overlap": "allow"},
            ["00:00 succeeded", "01:00 skipped missed x3", "04:00 succeeded", "05:00 succeeded"],
        ),
        ({"missed": "all"}, [f"0{hour}:00 succeeded" for hour in range(6)]),
    ],
    ids=["latest", "skip", "all", "all of two", "all with overlap skip"],
)
async def test_an_outage_of_five_and_a_half_hours(scheduler, virtual_time, policy, told):
    scheduler.add_job(nothing, Every("1h"), **policy)
    async with virtual_time(scheduler) as time:
        await time.restart(after="5h30m")
        await time.run_until_idle()
        assert await fates(time) == told
        await time.advance("30m")
        assert (await fates(time))[-1] == "06:00 succeeded"


async def test_what_is_caught_up_says_so_and_stands_for_the_last_missed_instant(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.restart(after="5h30m")
        late = (await time.runs())[-1]
        assert (late.cause, stamp(late.due_at), stamp(late.started_at)) == ("catch_up", "05:00", "05:30")
        row = (await time.runs(state="skipped"))[0]
        assert (row.count, stamp(row.due_at), stamp(row.until_at)) == (4, "01:00", "04:00")


async def test_one_instant_missed_is_one_late_run(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.restart(after="1h30m")
        assert await fates(time) == ["00:00 succeeded", "01:00 succeeded"]


async def test_a_year_of_missed_minutes_is_one_row_and_one_run(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1m"))
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop())
        time.clock.step(timedelta(days=365))
        await time.start()
        assert await fates(time) == [
            "00:00 succeeded",
            f"00:01 skipped missed x{365 * 1440 - 1}",
            "+365d 00:00 succeeded",
        ]


async def test_later_than_max_late_is_a_skip_too_late(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), max_late="10m")
    async with virtual_time(scheduler) as time:
        await time.restart(after="1h30m")
        await time.restart(after="35m")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped too_late", "02:00 succeeded"]


async def test_max_late_holds_for_a_wait_for_a_slot_too(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(3600), name="long")
    scheduler.add_job(nothing, Every("1d", anchor=START + timedelta(minutes=10)), name="late", max_late="20m")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("2h")
        assert await fates(time, "late") == ["00:10 skipped too_late"]


async def test_a_fire_that_waited_too_long_for_a_slot_is_in_no_later_ones_way(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(95 * 60), name="long")
    scheduler.add_job(nothing, Every("1h", anchor=START + timedelta(minutes=30)), name="late", max_late="20m")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("51m")  # the slot is still taken
        assert await fates(time, "late") == ["00:30 skipped too_late"]
        await time.advance("1h")
        assert await fates(time, "late") == ["00:30 skipped too_late", "01:30 succeeded"]
        assert await starts(time, "late") == ["01:35"]


async def test_spread_shifts_each_schedule_by_a_fixed_share(scheduler, virtual_time):
    for number in range(20):
        scheduler.add_job(nothing, Every("1h"), name=f"job-{number}", spread="30m")
    async with virtual_time(scheduler) as time:
        await time.restart(after="45m")
        await time.advance("50m")
        offsets = {}
        for run in await time.runs():
            offsets.setdefault(run.job, set()).add((run.due_at - START) % timedelta(hours=1))
    assert all(len(found) == 1 for found in offsets.values())
    shifts = {min(found) for found in offsets.values()}
    assert all(timedelta(0) <= shift < timedelta(minutes=30) for shift in shifts)
    assert len(shifts) == 20


async def test_on_start_fires_at_each_start_beside_the_grid(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), first="after", on_start=True)
    async with virtual_time(scheduler) as time:
        await time.restart(after="20m")
        assert [(run.cause, stamp(run.due_at)) for run in await time.runs()] == [
            ("on_start", "00:00"),
            ("on_start", "00:20"),
        ]
        await time.advance("40m")
        assert await starts(time) == ["00:00", "00:20", "01:00"]


async def test_on_start_together_with_first_is_one_fire(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), on_start=True)
    async with virtual_time(scheduler) as time:
        assert await starts(time) == ["00:00"]


async def test_on_start_together_with_a_catch_up_is_one_fire(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 * * * *"), on_start=True)
    async with virtual_time(scheduler) as time:
        await time.restart(after="1h30m")
        assert await fates(time) == ["00:00 succeeded", "01:00 succeeded"]


@pytest.mark.parametrize("policy", [{"missed": "skip"}, {"max_late": "1m"}])
async def test_on_start_fires_where_what_was_missed_comes_to_no_run(scheduler, virtual_time, policy):
    scheduler.add_job(nothing, Cron("30 * * * *"), on_start=True, **policy)
    async with virtual_time(scheduler) as time:
        await time.restart(after="3h")
        assert await starts(time) == ["00:00", "03:00"]
        assert [run.cause for run in await time.runs(state="succeeded")] == ["on_start", "on_start"]


async def test_on_start_does_nothing_while_another_worker_has_the_job(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(nothing, Every("1d"), name="job", first="after", on_start=True)
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.advance("5s")
        await time.join(second, address)
        await time.advance("5s")
        assert await starts(time) == ["00:00"]


async def test_on_start_fires_beside_a_worker_that_is_stopping(virtual_time, tmp_path):
    before, after = (TaskScheduler(options=Options()) for _ in range(2))
    for one in (before, after):
        one.add_job(nothing, name="job", on_start=True)
        one.add_job(lasting(25), name="long")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(before, store=address) as time:
        await before.submit("long")
        await time.advance("1s")
        stopping = asyncio.ensure_future(before.stop())
        await time.advance("10s")
        await time.join(after, address)
        assert len(await after.runs("job")) == 2
        await time.until(stopping)


async def test_on_start_asks_for_no_second_run_while_the_first_waits(scheduler, virtual_time):
    """As over several deploys in a pause: else each of them would add one, and all would begin at its end."""
    scheduler.add_job(nothing, name="bare", on_start=True)
    scheduler.add_job(nothing, Every("1h"), name="timed", first="after", on_start=True)
    async with virtual_time(scheduler, start=False) as time:
        await scheduler.pause()
        await time.start()
        await time.restart(after="10m")
        await time.restart(after="10m")
        await scheduler.resume()
        await time.run_until_idle(limit="1m")
        assert sorted(run.job for run in await time.runs(state="succeeded")) == ["bare", "timed"]
        await time.restart(after="10m")
        assert len(await time.runs("bare", state="succeeded")) == 2


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace", "allow"])
@pytest.mark.parametrize("end", ["stop", "crash"])
async def test_on_start_fires_none_beside_a_run_of_its_schedule_that_goes_on_unless_they_may_overlap(
    scheduler, virtual_time, overlap, end
):
    scheduler.add_job(lasting(300), Every("1h"), name="job", on_start=True, retry=2, overlap=overlap)
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        if end == "crash":
            await time.crash()
        await time.restart(after="1m")
        await time.advance("20m")
        assert [run.cause for run in await time.runs()] == ["schedule", "on_start"][: 1 + (overlap == "allow")]


async def test_on_start_fires_where_the_run_before_it_was_cut_short_for_good(scheduler, virtual_time):
    scheduler.add_job(lasting(300), Every("1h"), name="job", on_start=True)
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        await time.crash()
        await time.restart(after="1m")
        await time.advance("20m")
        assert [(run.cause, run.state) for run in await time.runs()] == [
            ("schedule", State.INTERRUPTED),
            ("on_start", State.SUCCEEDED),
        ]


async def test_max_late_holds_for_a_fire_of_a_start_too_and_the_next_start_fires_anew(scheduler, virtual_time):
    scheduler.add_job(nothing, name="bare", on_start=True, max_late="1m")
    scheduler.add_job(nothing, Cron("0 5 * * *"), name="timed", on_start=True, max_late="1m")
    async with virtual_time(scheduler, start=False) as time:
        await scheduler.pause()
        await time.start()
        await time.until(scheduler.stop())  # before they are too late
        await time.advance("10m")
        await time.start()
        await time.advance("30s")
        await scheduler.resume()
        await time.advance("1s")
        for job in ("bare", "timed"):
            assert await fates(time, job) == ["00:00 skipped too_late", "00:10 succeeded"]
        found = await scheduler.why("bare", START)
        assert found.code == "paused" and "was skipped (too_late): all jobs were paused" in found.text


async def test_on_start_fires_beside_a_worker_that_was_narrowed_to_other_jobs(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(nothing, Every("1d"), name="mail", first="after", on_start=True)
        scheduler.add_job(nothing, Every("1d"), name="report", first="after", on_start=True)
    stores = [
        Narrow(SqliteStore(tmp_path / "a.db"), only=[name], on_start=True).as_store() for name in ("mail", "report")
    ]
    async with virtual_time(first, store=stores[0]) as time:
        await time.advance("5s")
        await time.join(second, stores[1])
        await time.advance("5s")
        assert sorted(run.job for run in await time.runs()) == ["mail", "report"]


async def test_on_start_does_not_fire_a_job_that_is_off(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), first="after", on_start=True, enabled=False)
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        assert await starts(time) == []


async def test_five_hundred_schedules_due_together_fire_once_each(scheduler, virtual_time):
    for number in range(500):
        scheduler.add_job(nothing, Every("1h"), name=f"job-{number}")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        runs = await time.runs()
    assert len(runs) == len({(run.job, run.due_at) for run in runs}) == 1000


async def test_upcoming_tells_the_fires_that_then_happen(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("20m"), name="a")
    scheduler.add_job(nothing, Cron("5,50 * * * *"), name="b")
    async with virtual_time(scheduler) as time:
        told = [(stamp(at), schedule.id) for at, schedule in await scheduler.upcoming(until="+1h")]
        await time.advance("1h")
        assert told == sorted((stamp(run.due_at), run.schedule) for run in await time.runs() if run.id > 1)


async def test_upcoming_tells_of_one_job_and_with_its_spread_also_where_its_code_is_not_at_hand(
    scheduler, virtual_time
):
    scheduler.add_job(nothing, Every("1m"), name="often")
    scheduler.add_job(nothing, Every("20m"), name="spread", spread="15m")
    async with virtual_time(scheduler) as time:
        elsewhere = Ledger(scheduler._store, options=Options(), clock=time.clock)
        told = [stamp(at) for at, one in await elsewhere.upcoming(limit=3, job="spread") if one.job == "spread"]
        assert told == [stamp(at) for at, _ in await scheduler.upcoming(limit=3, job="spread")]
        await time.advance("80m")
        assert told == [stamp(run.due_at) for run in await time.runs("spread") if run.id > 1][:3]


async def test_what_is_overdue_stands_once_before_what_is_due_from_now_on(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("10m"), name="a")
    async with virtual_time(scheduler) as time:
        await time.advance("5m")
        await scheduler.pause("a")
        await time.advance("5h")
        told = [at - START for at, _ in await scheduler.upcoming(limit=3)]
        assert told == [timedelta(minutes=10), timedelta(hours=5, minutes=10), timedelta(hours=5, minutes=20)]


async def test_what_comes_due_at_one_instant_is_read_before_it_and_only_fired_then(scheduler, virtual_time, tmp_path):
    reads = []

    class Watched(SqliteStore):
        async def due(self, now, *more):
            reads.append(now - START)
            return await super().due(now, *more)

    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, store=Watched(tmp_path / "a.db")) as time:
        at = START + timedelta(minutes=5)
        await scheduler.schedule_many((job.bind(), Every("1h", anchor=at), f"s{n}") for n in range(1200))
        await time.advance("4m59.5s")
        reads.clear()
        await time.advance("20s")
        assert len(await time.runs("job")) == 1200
        late = [one for one in reads if timedelta(minutes=5) <= one < timedelta(minutes=5, seconds=5)]
        assert len(late) <= 1, "once for what comes after them, not for each five hundred"


@pytest.fixture
def sixty_four():
    """A scheduler that has as many slots: a go of what is due has no more."""
    return TaskScheduler("sqlite:///:memory:", options=Options(max_running=64))


async def many_at_once(time, job, number=300):
    """Schedules of one job, due at one instant in five minutes."""
    at = START + timedelta(minutes=5)
    await time.scheduler.schedule_many((job.bind(), Every("1h", anchor=at), f"s{n}") for n in range(number))


async def test_what_is_due_is_planned_while_the_disk_has_those_before_it(sixty_four, virtual_time, monkeypatch):
    planned = []
    plans = FireLoop._plans

    def watched(fires, due, now):
        planned.append((len(due), bool(sixty_four._store._writing._in_hand)))
        return plans(fires, due, now)

    job = sixty_four.add_job(nothing, name="job")
    async with virtual_time(sixty_four) as time:
        await many_at_once(time, job)
        monkeypatch.setattr(FireLoop, "_plans", watched)
        await time.advance("6m")
        assert len(await time.runs("job")) == 300
    assert [one for one, _ in planned if one] == [64, 64, 64, 64, 44]
    assert [busy for one, busy in planned if one][1:] == [True] * 4


async def test_a_pause_holds_what_was_planned_before_it_and_is_fired_after_it(sixty_four, virtual_time):
    called = []

    async def job():
        called.append(len(called))
        if len(called) == 1:
            await sixty_four.pause("job")

    declared = sixty_four.add_job(job, missed="all", max_late="1d")
    async with virtual_time(sixty_four) as time:
        await many_at_once(time, declared)
        await time.advance("6m")
        assert len(called) <= 3 * 64, "the go in hand, that which is written with the pause, and that while it is read"
        await sixty_four.resume("job")
        await time.advance("1m")
        runs = await time.runs("job")
        assert len(called) == len(runs) == len({run.schedule for run in runs}) == 300


async def test_of_what_is_planned_no_more_begins_than_there_are_slots(sixty_four, virtual_time):
    most, going, goes_on = [], set(), asyncio.Event()

    async def job():
        going.add(asyncio.current_task())
        most.append(len(going))
        if len(most) % 64 > 40:  # of each go some stay
            await goes_on.wait()
        going.discard(asyncio.current_task())

    declared = sixty_four.add_job(job)
    async with virtual_time(sixty_four) as time:
        await many_at_once(time, declared)
        await time.advance("6m")
        assert 64 < len(most) < 300 and max(most) == 64
        assert len(await time.runs("job", state=["waiting"])) == 300 - len(most)
        goes_on.set()
        await time.advance("1m")
        runs = await time.runs("job")
    assert [run.state for run in runs] == ["succeeded"] * 300 and max(most) == 64


async def test_a_job_that_is_removed_leaves_none_of_its_fires_that_are_planned(sixty_four, virtual_time, lines):
    called = []

    async def job():
        called.append(len(called))
        if len(called) == 1:
            sixty_four.remove_job("job")

    declared = sixty_four.add_job(job)
    sixty_four.add_job(nothing, Every("1m"), name="other")
    async with virtual_time(sixty_four) as time:
        await many_at_once(time, declared)
        await time.advance("10m")
        assert len(called) <= 3 * 64
        assert len(await time.runs("other")) == 11, "it fires on"
    assert lines.count("tick.failed") == 0


@pytest.mark.parametrize(("by", "later"), [("20m", 64), ("-20m", 300)])
async def test_what_is_planned_is_planned_anew_when_the_clock_was_set_meanwhile(sixty_four, virtual_time, by, later):
    called = []

    async def job():
        called.append(len(called))
        if len(called) == 1:
            time.step(by)

    declared = sixty_four.add_job(job, max_late="1m")
    async with virtual_time(sixty_four) as time:
        await many_at_once(time, declared)
        await time.advance("5m1s")
        assert len(called) == 64, "the go that was committed; the rest is too late, or has time"
        await time.advance("31m")
        assert len(called) == later


async def test_what_is_planned_is_planned_anew_when_it_took_long_to_claim_what_waits(
    sixty_four, virtual_time, monkeypatch
):
    goes_on, steps = asyncio.Event(), ["5s"]
    claim = SqliteStore.claim

    async def slow(store, *args):
        if goes_on.is_set() and steps:
            time.step(steps.pop())
        return await claim(store, *args)

    async def job():
        goes_on.set()

    async def other():
        await goes_on.wait()

    sixty_four.add_job(other, max_running=1)
    declared = sixty_four.add_job(job, max_late="2s")
    async with virtual_time(sixty_four) as time:
        await sixty_four.submit("other")
        await sixty_four.submit("other")
        await many_at_once(time, declared)
        monkeypatch.setattr(SqliteStore, "claim", slow)
        await time.advance("5m1s")
        runs = await time.runs("job", state=list(State))
        assert {run.state for run in runs if run.started_at is None} == {State.SKIPPED}
        assert max(run.started_at - run.due_at for run in runs if run.started_at is not None) < timedelta(seconds=2)


@pytest.mark.parametrize(
    ("options", "awaited"),
    [
        ({}, False),
        ({"overlap": "allow"}, False),
        ({"overlap": "queue"}, True),
        ({"overlap": "replace"}, True),
        ({"group": "one"}, True),
        ({"max_running": 3}, True),
        ({"pause_after": 3}, True),
    ],
)
async def test_an_end_is_awaited_where_something_may_start_after_it(
    scheduler, virtual_time, monkeypatch, options, awaited
):
    settled = []
    settle = SqliteStore.settle

    def watched(store, settling):
        settled.append(settling.awaited)
        return settle(store, settling)

    monkeypatch.setattr(SqliteStore, "settle", watched)
    scheduler.add_job(nothing, At(START + timedelta(minutes=1)), name="job", **options)
    async with virtual_time(scheduler) as time:
        await time.advance("2m")
    assert settled == [awaited]


# -- the clock changes


async def test_a_wall_clock_stepped_back_an_hour_fires_nothing_twice(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("5m"), name="every")
    scheduler.add_job(nothing, Cron("*/5 * * * *"), name="cron")
    async with virtual_time(scheduler) as time:
        await time.advance("2h1m")
        time.step("-1h")
        await time.advance("3h")
        for name in ("every", "cron"):
            instants = [run.due_at for run in await time.runs(name)]
            assert len(set(instants)) == len(instants)
            assert instants[-1] - timedelta(milliseconds=1) <= START + timedelta(hours=4) <= instants[-1]


async def test_a_wall_clock_stepped_forward_a_year_is_one_bounded_catch_up(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1m"))
    async with virtual_time(scheduler) as time:
        await time.advance("30s")
        time.step("365d")
        await time.advance("1m")
        runs = await time.runs(state=list(State))
        # It is seen a second before the next instant, when that is read: the newest of the year is caught up by then.
        assert [run.state for run in runs] == [State.SUCCEEDED, State.SKIPPED, State.SUCCEEDED, State.SUCCEEDED]
        assert sum(run.count for run in runs) == 365 * 1440 + 2
        assert stamp(runs[-1].due_at) == "+365d 00:01"


async def test_a_step_of_the_wall_clock_is_noticed_within_a_minute(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 12 * * *"))
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        time.step("11h")
        await time.advance("1m")
        assert await fates(time) == ["12:00 succeeded"]


async def test_a_suspend_of_ninety_seconds_is_noticed_and_what_fell_into_it_was_missed(scheduler, virtual_time, lines):
    scheduler.add_job(nothing, Every("10s"), missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("5s")
        await time.suspend("90s")
        assert await fates(time) == ["00:00 succeeded", "00:00:10 skipped missed x9"]
        await time.advance("5s")
        assert (await fates(time))[-1] == "00:01:40 succeeded"
    assert "clock.gap" in lines


async def test_a_timeout_does_not_mind_a_step_of_the_wall_clock(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="long", timeout="5m")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("long")
        await time.advance("1m")
        time.step("1h")
        await time.advance("3m59s")
        assert (await scheduler.run(run.id)).state is State.RUNNING
        await time.advance("1s")
        assert (await scheduler.run(run.id)).error.type == "Timeout"
