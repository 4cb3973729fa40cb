"""What would happen: counted like the planner counts, walked like the engine walks, and twice the same."""

from __future__ import annotations

import random
from time import process_time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import lasting

from taskloop import At, Cron, Every, Options, State, TaskScheduler
from taskloop.policy import Policy
from taskloop.schedules import Schedule, bind
from taskloop.simulation import Setting, held_fires, quiet_hour, simulate, simulation_record, strip
from taskloop.switches import Switch, Switches

pytestmark = pytest.mark.anyio
MINUTE, SECOND, MICROSECOND = timedelta(minutes=1), timedelta(seconds=1), timedelta(microseconds=1)


def waited(run, now):
    """Seconds between an instant that was due and the start, if there was one or may yet be."""
    begun = run.started_at or (now if run.state is State.WAITING else run.ready_at)
    return (begun - run.ready_at).total_seconds()


async def told_and_done(time, span):
    """Of each job fires, skips, waits, seconds waited and cancelled runs: as foretold, and as they came."""
    scheduler = time.scheduler
    told = await scheduler.simulate(span)
    await time.advance(span)
    rows = await time.runs(state=list(State))
    done = {}
    for job in {run.job for run in rows}:
        own = [run for run in rows if run.job == job]
        late = [late for run in own if (late := waited(run, time.now))]
        done[job] = (
            sum(run.count for run in own), sum(run.count for run in own if run.state is State.SKIPPED),
            len(late), round(sum(late), 3), sum(run.state is State.CANCELLED for run in own),
        )  # fmt: skip
    said = {
        one.job: (one.fires, one.skipped, one.waits, round(one.waited.total_seconds(), 3), one.cancelled)
        for one in told.jobs
    }
    return said, done, told


async def test_the_engine_does_what_was_foretold(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=4, groups={"db": 1}))

    def add(name, trigger, minutes, **policy):
        apart = 1 + len(scheduler)  # an end and a fire at one instant may come in any order
        scheduler.add_job(
            lasting(60 * minutes + apart), trigger, name=name, first="aligned", expect=MINUTE * minutes + apart * SECOND,
            **policy,
        )  # fmt: skip

    add("backup", Cron("0 2 * * *"), 45, group="db", priority=1)
    add("archive", Cron("0 2 * * *"), 10, group="db")
    add("report", Every("1h"), 7, group="db", max_late="5m")
    add("crawl", Every("10m"), 11)
    add("mirror", Every("30m"), 40, overlap="queue")
    add("index", Every("2h"), 150, overlap="replace")
    add("poll", Every("15m"), 20, overlap="allow", max_running=1)
    add("mails", Every("20m"), 1, missed="all")
    add("sums", Every("20m"), 1, missed="latest")
    add("old", Every("20m"), 1)
    async with virtual_time(scheduler) as time:
        await scheduler.pause("mails", until="+3h5m")
        await scheduler.pause("sums", until="+3h5m")
        await scheduler.disable("old", until="+2h5m")
        said, done, told = await told_and_done(time, "4h31m")
    for job in ("mails", "sums"):  # what a pause held is late, but did not wait
        assert said.pop(job)[:2] == done.pop(job)[:2]
    assert said == done
    assert told.most == 4
    assert {one.rule for one in told.overlaps} == {"self", "group", "max_running", "slots"}
    assert told.warnings >= len(told.overlaps) > 5


@pytest.mark.parametrize("urgent", [{"priority": 1, "group": "db"}, {}], ids=["by priority", "by age"])
async def test_what_a_pause_held_begins_in_the_order_that_is_foretold(virtual_time, urgent):
    """Who begins first has the only slot for most of an hour, and fires of the other are skipped while it waits."""
    scheduler = TaskScheduler(options=Options(max_running=1))
    for name, every, minutes, policy in (("first", "30m", 47, {"overlap": "queue"}), ("second", "10m", 7, urgent)):
        scheduler.add_job(
            lasting(60 * minutes + 1),
            Every(every),
            name=name,
            first="after",
            expect=MINUTE * minutes + SECOND,
            **policy,
        )
    async with virtual_time(scheduler) as time:
        await scheduler.pause(until="+95m")
        said, done, _ = await told_and_done(time, "4h31m")
    assert {job: told[:2] for job, told in said.items()} == {job: told[:2] for job, told in done.items()}


def test_a_job_that_falls_behind_ever_more_is_walked_to_the_end():
    policy = Policy(overlap="allow", max_running=1, first="after")
    behind = many(1, Every("5m"), policy, takes=MINUTE * 45)
    found = simulate(replace(behind, end=behind.start + timedelta(days=3)))
    [job] = found.jobs
    assert (job.fires, job.waits, found.most) == (863, 862, 1)
    assert "cut" not in {one.kind for one in found.notes}


async def test_who_waits_in_vain_for_the_only_slot_is_foretold_as_it_comes(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(95 * 60), Every("2h"), name="long", first="aligned", priority=1, expect="95m")
    for name, every, policy in (("newest", "10m", {"overlap": "replace"}), ("late", "30m", {"max_late": "20m"})):
        job = lasting(61 + len(scheduler))
        scheduler.add_job(job, Every(every), name=name, first="aligned", expect=61 + len(scheduler), **policy)
    async with virtual_time(scheduler, at="2026-01-01T00:00:30Z") as time:
        said, done, told = await told_and_done(time, "12h")
    assert said == done
    _, skipped, waits, _, cancelled = said["newest"]
    assert skipped > 40 and waits and cancelled == 0  # none of those that gave way had begun
    assert f"of 72 fires {skipped} skipped" in next(
        one.text for one in told.overlaps if one.jobs == ("newest",) and one.skipped
    )
    assert said["late"][1]


@pytest.mark.parametrize("seed", range(4))
async def test_the_engine_does_what_was_foretold_of_jobs_drawn_by_lot(virtual_time, seed):
    lot = random.Random(seed)
    scheduler = TaskScheduler(options=Options(max_running=lot.choice((1, 2, 3)), groups={"db": 1}))
    for place in range(lot.randint(2, 4)):
        drawn = {
            "overlap": ("skip", "queue", "replace", "allow"),
            "missed": ("skip", "latest", "all"),
            "max_late": (None, None, "2m", "10m"),
            "group": (None, None, "db"),
            "max_running": (None, None, 1),
            "priority": (-1, 0, 1),
            "spread": (None, None, "2m"),
            "first": ("after", "aligned"),
        }
        takes = 60 * lot.choice((0, 1, 5, 12, 25, 50)) + 1 + 2 * place  # an end and a fire never come at one instant
        trigger = lot.choice((Every("5m"), Every("10m"), Every("20m"), Cron("*/7 * * * *"), Cron("0 * * * *")))
        policy = {name: lot.choice(values) for name, values in drawn.items()}
        scheduler.add_job(lasting(takes), trigger, name=f"job{place}", expect=takes, **policy)
    async with virtual_time(scheduler, at="2026-01-01T00:00:30Z") as time:
        for name in [job.name for job in scheduler if lot.random() < 0.2]:
            await scheduler.disable(name, until="+37m17s")
        said, done, _ = await told_and_done(time, "1h37m11s")
    assert {job: of_it for job, of_it in said.items() if of_it[0]} == done


TRIGGERS = st.one_of(
    st.sampled_from(
        ["30 2 * * *", "0 2 * * *", "*/5 * * * *", "7,19 1-3 * * *", "0 */6 * * mon-fri", "15 3 L * *", "59 23 13 * 5"]
    ).flatmap(
        lambda text: st.builds(
            lambda zone, gap, fold: Cron(text, timezone=zone, gap=gap, fold=fold),
            st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
            st.sampled_from(["after", "skip"]),
            st.sampled_from(["once", "both"]),
        )
    ),
    st.integers(1, 200_000).map(lambda seconds: Every(timedelta(seconds=seconds))),
    st.integers(-(10**6), 10**7).map(lambda seconds: At(NEAR_A_CHANGE + timedelta(seconds=seconds))),
)
NEAR_A_CHANGE = datetime(2026, 3, 27, 4, 5, 6, 789, tzinfo=UTC)


def one_by_one(schedule, policy, start, end):
    """Every fire, as the planner gives one after the other."""
    from taskloop.schedules import next_due

    at, found = schedule.next_due, []
    while at is not None and at < end:
        found += [at] if at >= start else []
        at = next_due(schedule, policy, at)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(TRIGGERS, st.sampled_from([None, "45m"])), min_size=1, max_size=4),
    st.integers(0, 230 * 24 * 60),
    st.integers(1, 3 * 24 * 60),
)
def test_fires_are_those_of_the_planner_one_by_one_over_changes_of_the_clock(wanted, later, minutes):
    now = NEAR_A_CHANGE + MINUTE * later
    end = now + MINUTE * minutes
    policies = {str(number): Policy.of("", {"spread": spread}) for number, (_, spread) in enumerate(wanted)}
    schedules = [
        bind(Schedule(id=str(number), job=str(number), trigger=trigger), policies[str(number)], now)
        for number, (trigger, _) in enumerate(wanted)
    ]
    given_ = Setting(start=now, end=end, schedules=schedules, policies=policies)
    found = simulate(given_)
    for schedule, told in zip(schedules, found.jobs, strict=True):
        fires = one_by_one(schedule, policies[schedule.job], now, end)
        assert (told.fires, told.first, told.last) == (len(fires), *((fires[0], fires[-1]) if fires else (None, None)))
    assert sum(one.fires for one in found.load) == found.fires == sum(one.fires for one in found.jobs)
    assert sum(map(sum, strip(given_, [one.job for one in schedules], 7).values())) == found.fires


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 120), st.integers(1, 400), st.integers(0, 59), st.integers(1, 3 * 24 * 60))
def test_a_run_longer_than_its_interval_skips_as_many_as_it_covers(minutes, takes, after, length):
    start = NEAR_A_CHANGE + MINUTE * after
    policy = Policy(first="after")
    schedule = bind(Schedule(id="a", job="a", trigger=Every(MINUTE * minutes)), policy, start)
    end = start + MINUTE * length
    fires = one_by_one(schedule, policy, start, end)
    free, skipped = start, 0
    for at in fires:
        if at < free:
            skipped += 1
        else:
            free = at + MINUTE * takes
    given_ = Setting(start=start, end=end, schedules=[schedule], policies={"a": policy}, takes={"a": MINUTE * takes})
    found = simulate(given_)
    [job] = found.jobs
    assert (job.skipped, sum(one.skipped for one in found.overlaps)) == (skipped, skipped)
    assert job.busy == MINUTE * takes * (len(fires) - skipped)
    assert {one.kind for one in found.notes} == ({"slow"} if takes > minutes and len(fires) > 1 else set())


def many(number, trigger, policy=None, takes=timedelta(seconds=7), **more):
    policy = policy or Policy()
    names = [f"job{place:04}" for place in range(number)]
    return Setting(
        start=NEAR_A_CHANGE, end=NEAR_A_CHANGE + timedelta(days=30), policies=dict.fromkeys(names, policy),
        schedules=[bind(Schedule(id=name, job=name, trigger=trigger), policy, NEAR_A_CHANGE) for name in names],
        takes=dict.fromkeys(names, takes) if takes else {}, **more,
    )  # fmt: skip


def test_hundreds_of_jobs_a_minute_cost_as_much_as_one_hour_of_them():
    breaths = []
    found = simulate(many(300, Every("1m"), max_running=60), breathe=lambda: breaths.append(1))
    assert (found.fires, found.most, found.all_until) == (300 * 43_200, 60, found.end)
    assert len(breaths) < 1_000
    waits = sum(one.waits for one in found.jobs)
    assert waits == 43_200 * 240 and found.left_out + sum(one.count for one in found.overlaps) == waits
    assert simulation_record(found) == simulation_record(simulate(many(300, Every("1m"), max_running=60)))


def test_those_who_wait_until_it_is_too_late_cost_no_more_than_those_who_wait_on():
    """Each was looked for among all who waited: a page of an overloaded process took a minute instead of a second."""
    took = []
    for policy in ({}, {"max_late": "5m"}):
        began = process_time()
        late = Policy.of("j", {"overlap": "allow", **policy})
        simulate(many(400, Every("1m"), late, takes=timedelta(minutes=10)), most_work=4_000)
        took.append(process_time() - began)
    assert took[1] < 5 * took[0]


def test_too_many_different_hours_are_counted_to_the_end_and_it_is_said_where_the_walk_ended():
    found = simulate(many(20, Every("7m"), max_running=2), most_work=1000)
    assert found.fires == 20 * len(range(0, 30 * 24 * 60, 7))
    assert found.all_until < found.end and [one.kind for one in found.notes] == ["cut"]


def notes(trigger, policy=None, days=3, **more):
    policy = policy or Policy()
    schedule = bind(Schedule(id="a", job="a", trigger=trigger), policy, NEAR_A_CHANGE)
    end = NEAR_A_CHANGE + timedelta(days=days)
    given_ = Setting(
        start=NEAR_A_CHANGE, end=end, schedules=[schedule], policies={"a": policy}, takes={"a": MINUTE}, **more
    )
    return [(one.level, one.kind, one.text) for one in simulate(given_).notes]


def test_notes_say_what_a_change_of_the_clock_does():
    berlin = {"timezone": "Europe/Berlin"}
    at = "2026-03-29T01:00:00Z"
    assert notes(Cron("30 2 * * *", **berlin)) == [
        ("warning", "dst", f"on Sun 29 Mar 2026 02:30 does not exist in Europe/Berlin: a will run right after the gap, at {at}")
    ]  # fmt: skip
    assert "will not run for it" in notes(Cron("30 2 * * *", gap="skip", **berlin))[0][2]
    [(level, _, text)] = notes(Cron("*/5 * * * *", **berlin))
    assert level == "info" and text.endswith("a follows them, 12 fires fewer")
    assert notes(Cron("30 4 * * *", **berlin)) == notes(Cron("30 2 * * *")) == []
    autumn = timedelta(days=213)
    assert "once, in the first pass" in notes(Cron("30 2 * * *", **berlin), days=autumn.days)[1][2]
    assert "both times" in notes(Cron("30 2 * * *", fold="both", **berlin), days=autumn.days)[1][2]


def test_notes_say_what_is_off_held_and_unknown():
    until = NEAR_A_CHANGE + timedelta(hours=5)
    off = Switches([Switch("disabled", "a", NEAR_A_CHANGE, until=until)])
    assert notes(Every("1h"), switches=off) == [
        ("info", "disabled", "a is off, so its fires are skipped, until 2026-03-27T09:05:06.000789Z")
    ]
    paused = Switches([Switch("paused", None, NEAR_A_CHANGE)])
    held = ("info", "paused", "a is paused, so its fires are held, to the end")
    assert notes(Every("1h"), switches=paused) == [held]
    of_two = Switches([Switch("paused", "a", NEAR_A_CHANGE), Switch("disabled", "b", NEAR_A_CHANGE, until=until)])
    assert notes(Every("1h"), switches=of_two) == [held], "until another job is on again is not until it is itself"
    never = simulate(Setting(start=NEAR_A_CHANGE, end=until, schedules=[Schedule(id="x", job="x", trigger=Every("1h"))],
                             policies={}))  # fmt: skip
    assert [(one.level, one.kind) for one in never.notes] == [("warning", "never")]
    unknown = simulate(many(5, Every("1h"), takes=None)).notes
    assert unknown[0].text.startswith("how long job0000, job0001, job0002 and 2 more take is not known")
    with pytest.raises(ValueError, match="up to 366 days"):
        simulate(Setting(start=NEAR_A_CHANGE, end=NEAR_A_CHANGE + timedelta(days=367), schedules=[], policies={}))


async def test_what_comes_each_microsecond_is_counted_and_no_more(virtual_time):
    """Billions in an hour: as a list they would take the memory of the machine."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(lasting(1), Every(MICROSECOND), name="mad", expect="1s")
    scheduler.add_job(lasting(1), Every("1h"), name="sane", expect="1s")
    async with virtual_time(scheduler, start=False):
        found = await scheduler.simulate("2h")
    assert {one.job: one.fires for one in found.jobs} == {"mad": 2 * 3600 * 10**6, "sane": 2}
    assert found.all_until == found.start


async def test_the_last_hour_of_the_calendar_can_be_foretold():
    scheduler = TaskScheduler(":memory:", options=Options())
    scheduler.add_job(lasting(1), Every("1s"), name="job")
    found = await scheduler.simulate("3d", start="9999-12-31T23:59:57Z")
    await scheduler.close()
    assert (found.fires, found.end.isoformat()) == (3, "9999-12-31T23:59:59.999999+00:00")


# -- corners


START = datetime(2026, 3, 2, tzinfo=UTC)


def setting(*schedules, hours=6, start=START, policies=None, takes=None, **more):
    """Schedules given as a job and a trigger, or as they are; `takes` in minutes."""
    policies = policies or {}
    made = [
        one if isinstance(one, Schedule)
        else bind(Schedule(id=f"{one[0]}-{place}", job=one[0], trigger=one[1]), policies.get(one[0], Policy()), start)
        for place, one in enumerate(schedules)
    ]  # fmt: skip
    took = {job: MINUTE * minutes for job, minutes in (takes or {}).items()}
    return Setting(
        start=start, end=start + timedelta(hours=hours), schedules=made, policies=policies, takes=took, **more
    )


class Weekly:
    """A trigger of somebody's own: noon of each Friday."""

    recurring = True

    def after(self, instant):
        noon = instant.replace(hour=12, minute=0, second=0, microsecond=0)
        days = (4 - noon.weekday()) % 7
        return noon + timedelta(days=days if days or noon > instant else 7)

    def latest(self, instant):
        return self.after(instant - timedelta(days=7))

    def count(self, after, until):
        return max(0, (self.after(until) - self.after(after)) // timedelta(days=7))

    def describe(self):
        return "at noon of each Friday"


def test_a_trigger_of_somebodys_own_is_asked_for_one_instant_after_the_other():
    found = simulate(setting(("a", Weekly()), hours=24 * 21, takes={"a": 5}))
    [job] = found.jobs
    assert (job.fires, job.first, job.busy) == (3, datetime(2026, 3, 6, 12, tzinfo=UTC), 15 * MINUTE)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata"])
def test_uneven_minutes_are_walked_as_they_are_counted(zone):
    cron = Cron("1,2,5,40 * * * *", timezone=zone)
    found = simulate(setting(("a", cron), start=START + timedelta(minutes=3), hours=49, takes={"a": 2}))
    [job] = found.jobs
    assert (job.fires, job.skipped) == (49 * 4, 49)


def test_a_strip_leaves_out_what_it_was_not_asked_for():
    assert strip(setting(("a", Every("1h")), ("b", Every("1h"))), ["a"], 3) == {"a": [2, 2, 2]}


def test_notes_of_one_kind_are_told_up_to_a_number_and_timetables_are_gone_through_with_breaths():
    breaths = []
    jobs = [(f"job{place}", Every(MINUTE * (10 + place))) for place in range(45)]
    found = simulate(setting(*jobs, takes={job: 60 for job, _ in jobs}), breathe=lambda: breaths.append(1))
    slow = [one for one in found.notes if one.kind == "slow"]
    assert len(slow) == 21 and slow[-1].text == "and 25 more notes of this kind"
    assert len(breaths) >= 2
    partial = simulate(setting(("a", Every("1h")), partial=True))
    assert any("only the 1 that fire first" in one.text for one in partial.notes)


def test_where_even_those_that_meet_themselves_are_too_many_it_is_said_from_where_nothing_is_told():
    found = simulate(many(20, Every("7m"), takes=8 * MINUTE), most_work=1000)
    assert found.all_until < found.end
    assert any("no waits and no skips are told at all" in one.text for one in found.notes)


def test_two_schedules_of_a_job_share_what_is_told_of_it():
    found = simulate(setting(("a", Every("10m")), ("a", Every("20m")), takes={"a": 25}))
    [overlap] = found.overlaps
    assert (overlap.rule, overlap.jobs, overlap.skipped) == ("self", ("a",), found.jobs[0].skipped)


def test_a_change_of_the_clock_before_the_first_fire_concerns_nobody():
    cron = Cron("30 2 * * *", timezone="Europe/Berlin")
    later = Schedule(id="b", job="b", trigger=cron, next_due=datetime(2026, 4, 2, 0, 30, tzinfo=UTC))
    found = simulate(setting(("a", cron), later, start=datetime(2026, 3, 28, tzinfo=UTC), hours=24 * 7))
    assert [one.jobs for one in found.notes if one.kind == "dst"] == [("a",)]


def test_the_quietest_hour_of_a_part_of_a_day_is_not_known():
    assert quiet_hour(simulate(setting(("a", Every("1h")))), UTC) is None
    assert quiet_hour(simulate(setting(("a", Cron("5 1-23 * * *")), hours=24)), UTC) == 0


def test_more_overlaps_than_are_told_apart_are_counted():
    jobs = [
        (f"job{hour}-{place}", Cron(f"0,5 {hour} * * *"))
        for hour in range(3)
        for place in range((900, 1200, 2100)[hour])
    ]
    found = simulate(setting(*jobs, hours=3, takes=dict.fromkeys((job for job, _ in jobs), 11), max_running=10_000))
    assert found.left_out + sum(one.count for one in found.overlaps) == sum(
        one.skipped + one.waits for one in found.jobs
    )
    assert found.left_out > 0


def paused(job, since, until, **more):
    return Switches([Switch("paused", job, since, None, None, until, **more)])


def test_what_a_pause_held_is_skipped_where_an_earlier_run_still_runs():
    policies = {"a": Policy(missed="all")}
    schedule = bind(Schedule(id="a", job="a", trigger=Every("1h")), policies["a"], START)
    found = simulate(setting(
        schedule, policies=policies, takes={"a": 600}, running={"a": START - MINUTE},
        switches=paused("a", START, START + timedelta(hours=3, minutes=1)),
    ))  # fmt: skip
    [job] = found.jobs
    assert (job.fires, job.skipped) == (6, 6)


@pytest.mark.parametrize(("begins", "minutes"), [(0, 1), (10, 20)])
def test_a_pause_that_ends_before_the_first_fire_holds_nothing(begins, minutes):
    policies = {"a": Policy(missed="all")}
    schedule = Schedule(id="a", job="a", trigger=Every("1h"), next_due=START + 50 * MINUTE, anchor=START + 50 * MINUTE)
    since = START + MINUTE * begins
    found = simulate(setting(schedule, policies=policies, switches=paused("a", since, since + MINUTE * minutes)))
    [job] = found.jobs
    assert (job.fires, job.skipped, job.held) == (6, 0, 0)


def test_fires_off_their_grid_and_runs_that_take_no_time_are_walked_too():
    schedule = Schedule(id="a", job="a", trigger=Every("1h"), next_due=START + 50 * MINUTE, anchor=START)
    found = simulate(setting(schedule, running={"a": START - MINUTE, "gone": START}, hours=2))
    assert (found.fires, found.jobs[0].first) == (2, START + 50 * MINUTE)
    assert simulate(setting(schedule, hours=1)).fires == 1
    assert held_fires([schedule], {}, START + 61 * MINUTE) == 2


def test_what_takes_no_time_is_resumed_and_started_without_a_slot():
    policies = {"a": Policy(missed="all"), "b": Policy(group="g")}
    found = simulate(setting(
        ("a", Every("1h")), ("b", Every("1h")), policies=policies,
        switches=paused("a", START, START + timedelta(hours=3, minutes=1)),
    ))  # fmt: skip
    assert {one.job: (one.fires, one.skipped, one.waits) for one in found.jobs} == {"a": (6, 0, 0), "b": (6, 0, 0)}
    assert found.most == 0


def test_runs_of_one_schedule_beside_each_other_end_one_by_one():
    found = simulate(setting(("a", Every("10m")), policies={"a": Policy(overlap="allow")}, takes={"a": 15}))
    assert (found.most, found.jobs[0].busy) == (2, 36 * 15 * MINUTE)


def test_who_waits_for_a_full_group_is_asked_once_at_each_end():
    policies = {job: Policy(group="g") for job in "abc"}
    found = simulate(setting(
        ("a", Cron("0 * * * *")), ("b", Cron("1 * * * *")), ("c", Cron("2 * * * *")), ("d", Cron("3 * * * *")),
        policies=policies, takes={"a": 10, "b": 10, "c": 10, "d": 2}, hours=1, start=START - MINUTE,
    ))  # fmt: skip
    assert {one.job: one.waited // MINUTE for one in found.jobs} == {"a": 0, "b": 9, "c": 18, "d": 0}
