"""What must hold after a round of the crash torture, as pure functions of a `Story`; each gives the promises broken.

A promise is named by its letter in the list of the harness:

    a  every call has a record that existed before it
    b  no record is running with a dead owner
    c  what somebody was told is still there
    d  one record for a due instant, one run for a key
    e  calls of a record stay within what its policy allows, and a claim is called once
    f  a committed step of a flow is not called again
    g  every due instant has a fate, and those of down time the one their policy says
    h  a switch stands as last acknowledged
    i  a restart is quick and needs no hand             (the driver's own measure)
    j  no other file appears beside the store
    k  the tables are sound and claim nothing that the witness denies

Start at `broken`. `side_by_side` has the checks of several processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from facts import SECOND, Attempt, Books, Broken, Call, Run, Story, in_words

BOUNDARY = 2_000
"""Microseconds by which the clocks of two writers of one moment may differ."""


def broken(story: Story, *, settled: bool, skipping: str = "") -> list[Broken]:
    """Every promise broken. `settled`: the scheduler had its time to mend; `skipping`: letters not to be checked."""
    checks = [*ALWAYS, *(ONCE_SETTLED if settled else ())]
    return [one for check in checks for one in check(story) if one.promise not in skipping]


def records_before_calls(story: Story) -> Iterator[Broken]:
    """(a) The record of each call is there, was claimed for it, and was so before the call began."""
    runs = story.books.by_id()
    ended = {(one.run, one.token): one for one in story.books.attempts}
    for call in story.calls:
        run = runs.get(call.run)
        if call.began > story.books.taken:
            continue  # witnessed after the tables were read
        if run is None:
            yield Broken("a", f"{_call(call)} has no record")
            continue
        past = ended.get((call.run, call.token or 0))
        if run.token != call.token and past is None:
            yield Broken("a", f"{_call(call)} has no attempt on record; {_run(run)}")
            continue
        since = run.attempt_started if run.token == call.token else past.started if past else None
        if call.pid not in story.shifted and (since is None or since > call.began + BOUNDARY):
            yield Broken("a", f"{_call(call)} began at {in_words(call.began)}, its record says {in_words(since)}")


def no_run_of_the_dead(story: Story) -> Iterator[Broken]:
    """(b) Whoever has a running run, lives."""
    alive = {one.pid for one in story.lives if one.ended is None or one.ended > story.books.taken}
    owners = {one.id: one.pid for one in story.books.workers}
    for run in story.books.runs:
        if run.state == "running" and owners.get(run.worker or "") not in alive:
            yield Broken("b", f"{_run(run)} is running, its worker {run.worker} is dead")


def what_was_told(story: Story) -> Iterator[Broken]:
    """(c) A state that the log or a command told is still on record; a final one is still that state."""
    runs = story.books.by_id()
    attempts = {(one.run, one.attempt) for one in story.books.attempts}
    for said in story.said:
        run = runs.get(said.run)
        told = f"the {said.where} said that run {said.run} of {said.job} is {said.word}"
        if run is None:
            yield Broken("c", f"{told}; it has no record")
        elif said.word in ("succeeded", "failed", "cancelled", "interrupted", "skipped") and run.state != said.word:
            yield Broken("c", f"{told}; {_run(run)}")
        elif said.word == "retrying" and not attempts & {(said.run, said.attempt), (said.run, said.attempt + 1)}:
            # One more, because a stop gives the attempt back before it tells of it.
            yield Broken("c", f"{told} after attempt {said.attempt}; no such attempt is on record")
        elif said.word == "submitted" and (run.key, run.job) != (said.key, said.job):
            yield Broken("c", f"{told} with key {said.key}; {_run(run)} has {run.key}")


def one_record(story: Story) -> Iterator[Broken]:
    """(d) One record for a due instant of a schedule, whatever the job was called then; one run for a key."""
    dues: dict[tuple[str, int], list[Run]] = defaultdict(list)
    keys: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in story.books.runs:
        if run.schedule is not None:
            dues[story.canonical(run.schedule), run.due].append(run)
        if run.key is not None and run.state not in ("failed", "cancelled", "interrupted", "skipped"):
            keys[run.job, run.key].append(run)
    for (schedule, due), found in dues.items():
        if len(found) > 1:
            yield Broken("d", f"{schedule} due {in_words(due)} has {len(found)} records: {_ids(found)}")
    for (job, key), found in keys.items():
        if len(found) > 1:
            yield Broken("d", f"key {key} of {job} has {len(found)} runs: {_ids(found)}")


def calls_within_policy(story: Story) -> Iterator[Broken]:
    """(e) A run is called as often as its attempts allow, and once where a crash forbids a repeat; a claim once.

    A stop that a job heeded gives the attempt back, so each orderly stop may add one.
    """
    stops = sum(one.how == "stopped" for one in story.lives)
    by_run: dict[str, list[Call]] = defaultdict(list)
    for call in story.calls:
        by_run[call.run].append(call)
    for run, calls in by_run.items():
        rule = story.rule(calls[0].job)
        if rule is None:
            continue
        forbidden = rule.on_crash == "fail" and rule.attempts == 1
        allowed = 1 if forbidden else rule.attempts + (stops if rule.attempts > 1 else 0)
        if len(calls) > allowed:
            yield Broken("e", f"run {run} of {rule.name} was called {len(calls)} times, {allowed} are allowed")
        for token, number in Counter(call.token for call in calls if call.token is not None).items():
            if number > 1:
                yield Broken("e", f"run {run} of {rule.name} was called {number} times under claim {token}")


def kept_steps(story: Story) -> Iterator[Broken]:
    """(f) No step of a flow whose result is committed begins again in the same run.

    The product has no flows yet. When it has: a flow of three steps into `rules.ALONE`, a line of the witness for each
    step, and here: of the lines `begin` of one (run, step), none after the step's row says that it succeeded.
    """
    yield from ()


def every_instant_has_a_fate(story: Story) -> Iterator[Broken]:
    """(g) The records of a schedule lie on its grid without a gap, counted skips included, up to its cursor."""
    rows: dict[str, list[Run]] = defaultdict(list)
    for run in story.books.runs:
        if run.schedule is not None and run.schedule != "":
            rows[story.canonical(run.schedule)].append(run)
    cursors = {story.canonical(one.id): one.next_due for one in story.books.schedules}
    for name, found in rows.items():
        rule = story.rules.get(name)
        if rule is not None and rule.period:
            yield from _gaps(sorted(found, key=lambda run: run.due), round(rule.period * SECOND), cursors.get(name))


def _gaps(rows: list[Run], period: int, cursor: int | None) -> Iterator[Broken]:
    expected = rows[0].due
    for run in rows:
        if run.due != expected:
            yield Broken(
                "g", f"{run.schedule}: after {in_words(expected - period)} comes {_run(run)}, period {period} µs"
            )
        if run.last_due - run.due != (run.count - 1) * period:
            yield Broken("g", f"{_run(run)} counts {run.count} from {in_words(run.due)} to {in_words(run.last_due)}")
        expected = run.last_due + period
    if cursor is not None and cursor != expected:
        yield Broken("g", f"{rows[-1].schedule}: {in_words(expected)} has no fate; the cursor is {in_words(cursor)}")


def down_time_by_policy(story: Story) -> Iterator[Broken]:
    """(g) Of the instants of a down time `latest` runs one at most, `skip` none, `all` each; the others are counted."""
    for since, until in down_times(story):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for run in story.books.runs:
            if run.schedule is not None and since < run.due and run.last_due < until:
                fate = run.reason or "" if run.state == "skipped" else "ran"
                counts[story.canonical(run.schedule)][fate] += 1
        for name, fates in counts.items():
            rule = story.rules.get(name)
            most = {"latest": 1, "skip": 0}.get(rule.missed) if rule is not None else None
            span = f"between {in_words(since)} and {in_words(until)}, when nobody was there"
            if most is not None and fates["ran"] > most:
                yield Broken("g", f"{name} has {fates['ran']} runs due {span}; '{rule.missed}' allows {most}")
            if rule is not None and rule.missed == "all" and fates["missed"]:
                yield Broken("g", f"{name} left out instants {span}, though its policy is 'all'")


def down_times(story: Story) -> list[tuple[int, int]]:
    """Spans in which no process lived, each up to the moment from which the next one counts itself as there."""
    lives = sorted(story.lives, key=lambda one: one.began)
    spans, edge = [], None
    for life in lives:
        watching = min((one.started for one in story.books.workers if one.pid == life.pid), default=None)
        if edge is not None and watching is not None and watching > edge:
            spans.append((edge, watching))
        if watching is not None and life.ended is not None:
            edge = max(edge or 0, life.ended)
    return spans


def switches_stand(story: Story) -> Iterator[Broken]:
    """(h) Each switch stands as last acknowledged; one asked for later without an answer may have come through."""
    for (job, kind), stands in _expected_switches(story).items():
        found = story.books.switched.get((job, kind), "enabled" if kind == "enabled" else "resumed")
        if found not in stands:
            yield Broken("h", f"{job} is {found}; acknowledged was {' or '.join(sorted(stands))}")


def _expected_switches(story: Story) -> dict[tuple[str, str], set[str]]:
    stands: dict[tuple[str, str], set[str]] = {}
    for one in sorted(story.switched, key=lambda one: one.asked):
        place = (one.job, one.kind)
        before = stands.get(place, {"enabled" if one.kind == "enabled" else "resumed"})
        stands[place] = {one.word} if one.acknowledged else before | {one.word}
    return stands


def no_strange_files(story: Story) -> Iterator[Broken]:
    """(j) Nothing lies beside the store that is not its own."""
    for name in story.strangers:
        yield Broken("j", f"a file '{name}' appeared")


def claims_are_true(story: Story) -> Iterator[Broken]:
    """(k) A run that succeeded returned, one that failed raised, under the very claim that its record names."""
    calls = {(one.run, one.token): one for one in story.calls}
    for run in story.books.runs:
        rule = story.rule(run.job)
        if rule is None or run.state not in ("succeeded", "failed"):
            continue
        call = calls.get((run.id, run.token))
        came_to = "nothing: it was not called" if call is None else call.outcome or "no end"
        if came_to != {"succeeded": "returned", "failed": "raised"}[run.state]:
            yield Broken("k", f"{_run(run)}, but under claim {run.token} it came to {came_to}")


def attempts_are_true(story: Story) -> Iterator[Broken]:
    """(k) An attempt on record as failed raised."""
    calls = {(one.run, one.token): one for one in story.calls}
    for one in story.books.attempts:
        call = calls.get((one.run, one.token))
        if one.outcome == "failed" and (call is None or call.outcome != "raised"):
            yield Broken("k", f"attempt {one.attempt} of run {one.run} failed on record, not by the witness")


ALWAYS: tuple[Callable[[Story], Iterator[Broken]], ...] = (
    records_before_calls, what_was_told, one_record, calls_within_policy, kept_steps, every_instant_has_a_fate,
    switches_stand, no_strange_files, claims_are_true, attempts_are_true,
)  # fmt: skip
ONCE_SETTLED: tuple[Callable[[Story], Iterator[Broken]], ...] = (no_run_of_the_dead, down_time_by_policy)


def never_undone(before: Books, after: Books) -> Iterator[Broken]:
    """(k) Between two looks no final state changed, no token fell and no record or attempt went away."""
    later, attempts = after.by_id(), {(one.run, one.token) for one in after.attempts}
    for run in before.runs:
        now = later.get(run.id)
        if now is None:
            yield Broken("k", f"{_run(run)} is gone")
        elif run.state in ("succeeded", "failed", "cancelled", "interrupted", "skipped") and now.state != run.state:
            yield Broken("k", f"{_run(run)} became {now.state}")
        elif (now.token or 0) < (run.token or 0):
            yield Broken("k", f"the token of {_run(run)} fell from {run.token} to {now.token}")
    for one in before.attempts:
        if (one.run, one.token) not in attempts:
            yield Broken("k", f"{_attempt(one)} is gone")


def _call(call: Call) -> str:
    return f"call of {call.job}, run {call.run}, attempt {call.attempt}, claim {call.token}, pid {call.pid}"


def _run(run: Run) -> str:
    reason = f" ({run.reason})" if run.reason else ""
    return f"run {run.id} of {run.job} due {in_words(run.due)}, {run.state}{reason}, claim {run.token}"


def _attempt(one: Attempt) -> str:
    return f"attempt {one.attempt} of run {one.run}, claim {one.token}"


def _ids(runs: list[Run]) -> str:
    return ", ".join(f"{run.id} {run.state}" for run in runs)
