"""The runs of a span of time walked on paper: who starts, who waits for what, who is skipped, how many run at once.

Level 3, pure. By the rules of the engine: `admit` decides what a fire does beside earlier runs of its schedule; a run
takes a slot, a place of its group and one of its job; who waits starts by priority, then by age. All times are
microseconds from the start.

It goes hour by hour. An hour that begins as an earlier one began, with the same fires in it, goes the same way: what came
of that one is taken for it. So a thousand jobs a minute cost one hour, and not a month. Start at `rehearse`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush
from itertools import chain, pairwise
from typing import Any, Final, Literal, NamedTuple

from taskloop.policy import Policy
from taskloop.runs import State
from taskloop.schedules import Admission, admit

__all__ = ["HOUR", "Blocked", "Grid", "Lane", "Part", "Rehearsal", "Rule", "Tally", "Trouble", "rehearse"]

HOUR: Final = 3_600_000_000
MICROSECOND: Final = timedelta(microseconds=1)
GLANCE: Final = 100
"""Fires by which the shortest time between two is judged."""
TOGETHER: Final = 500
"""Fires between two breaths."""
MOST_IN_AN_HOUR: Final = 1_000_000
"""Fires of walked schedules in one hour; from where there are more of them on, none is walked: fires are only counted."""
MOST_OVERLAPS: Final = 2_000
"""Pairs of jobs in each other's way that are told apart; further ones are counted."""
MOST_MOMENTS: Final = 500
"""Single fires in trouble that are listed."""

Rule = Literal["self", "group", "max_running", "slots"]
"""What a fire finds taken: its own schedule, its group, its job, or the slots of the process."""


class Grid:
    """The fires of all schedules that share a timetable, handed out in their order."""

    __slots__ = ("_at", "_chunk", "_chunks", "gap", "lanes", "next")

    def __init__(self, chunks: Iterator[Sequence[int]]) -> None:
        self._chunks = chunks
        self._chunk: Sequence[int] = ()
        self._at = 0
        self.lanes: list[int] = []
        self.next: int | None = None
        self._advance()
        self.gap: int | None = self._least_gap()
        """The shortest time from one fire to the next, as far as one chunk of them tells; None: there is but one."""

    def _least_gap(self) -> int | None:
        chunk = self._chunk
        if isinstance(chunk, range) and len(chunk) > 1:
            return chunk.step
        following = next(self._chunks, ())
        if following:
            self._chunks = chain([following], self._chunks)
        return min((later - sooner for sooner, later in pairwise([*chunk, *following[:GLANCE]])), default=None)

    def _advance(self) -> None:
        while self._at >= len(self._chunk):
            following = next(self._chunks, None)
            if following is None:
                self.next = None
                return
            self._chunk, self._at = following, 0
        self.next = self._chunk[self._at]

    def until(self, end: int) -> Sequence[int]:
        """The fires before `end` that were not given yet."""
        found: Sequence[int] = ()
        while self.next is not None and self.next < end:
            some = self._given(self.next, end)
            found = [*found, *some] if found else some
        return found

    def _given(self, first: int, end: int) -> Sequence[int]:
        chunk, at = self._chunk, self._at
        if isinstance(chunk, range):  # no search: of these there may be a thousand in each hour
            step = chunk.step
            stop = at + (end - first + step - 1) // step
            if stop < len(chunk):
                self._at = stop
                self.next = first + (stop - at) * step
                return range(first, self.next, step)
            stop = len(chunk)
        else:
            stop = bisect_left(chunk, end, at)
        found, self._at = chunk[at:stop], stop
        self._advance()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One schedule as it is walked."""

    job: str
    policy: Policy
    takes: int
    """How long each run takes; 0: it takes no slot either."""
    tight: bool
    """Whether it is likely to meet itself or others, and so is walked to the end."""


@dataclass(slots=True)
class Tally:
    """What became of the fires of a schedule that did not simply run."""

    skipped: int = 0
    waits: int = 0
    waited: int = 0
    longest: int = 0
    cancelled: int = 0
    """Runs that were ended for a newer one; those that gave way to it before they had begun are skipped."""
    cut: int = 0
    """The time that was not run, because a newer one came."""

    def add(self, other: Tally, times: int = 1) -> None:
        """Add what came of other fires, or as often the same."""
        self.skipped += other.skipped * times
        self.waits += other.waits * times
        self.waited += other.waited * times
        self.longest = max(self.longest, other.longest)
        self.cancelled += other.cancelled * times
        self.cut += other.cut * times


@dataclass(slots=True)
class Blocked:
    """How often, and when, a schedule found something taken by another."""

    first: int
    last: int
    skipped: int = 0
    waits: int = 0
    cancelled: int = 0
    longest: int = 0

    def add(self, other: Blocked, first: int = 0, last: int = 0, times: int = 1) -> None:
        """Add what came of other fires; or of so many hours like that, the first and the last of which began then."""
        self.first = min(self.first, first + other.first)
        self.last = max(self.last, last + other.last)
        self.skipped += other.skipped * times
        self.waits += other.waits * times
        self.cancelled += other.cancelled * times
        self.longest = max(self.longest, other.longest)


class Trouble(NamedTuple):
    """One fire in trouble: `skipped`, `waits` so long, or `cancels` the run before it."""

    at: int
    lane: int
    fate: Literal["skipped", "waits", "cancels"]
    rule: Rule
    waited: int = 0


class _Waiting(NamedTuple):
    """A run that waits; in the order in which they are to start."""

    rank: int
    """Its priority, the other way round."""
    ready: int
    number: int
    lane: int
    expires: int | None
    rule: Rule
    by: int
    since: int
    """When it became a run: later than it was ready, if a pause held it."""

    def seen(self, at: int) -> _Waiting:
        """The same as seen from `at`; the number is that of an hour, and says nothing in the next."""
        expires = None if self.expires is None else self.expires - at
        return self._replace(ready=self.ready - at, number=0, expires=expires, since=self.since - at)


Key = tuple[Rule, int, int]
"""A rule, the lane that fired, and the lane in its way (-1: many)."""
_State = tuple[tuple[tuple[int, int], ...], tuple[_Waiting, ...]]
"""Who runs and who waits, as seen from the moment."""
_NOBODY: Final[_State] = ((), ())


class _Hour(NamedTuple):
    """What came of an hour, as seen from its start."""

    tallies: dict[int, Tally]
    blocked: dict[Key, Blocked]
    left_out: int
    moments: list[Trouble]
    most: int
    most_at: int
    state: _State
    work: int


@dataclass(slots=True)
class Rehearsal:
    """What came of the whole."""

    tallies: dict[int, Tally] = field(default_factory=dict)
    blocked: dict[Key, Blocked] = field(default_factory=dict)
    left_out: int = 0
    """How often a fire was in trouble with another that is not in `blocked`, for there were too many."""
    moments: list[Trouble] = field(default_factory=list)
    fires: list[int] = field(default_factory=list)
    """By hour, of all grids."""
    most: list[int] = field(default_factory=list)
    """By hour: runs at once."""
    busy: list[int] = field(default_factory=list)
    """By hour: the time that the runs of its fires take, skips not counted out."""
    troubled: dict[int, list[int]] = field(default_factory=dict)
    """By lane the hours in which something of it did not simply run."""
    peak: tuple[int, int] = (0, 0)
    """The most runs at once, and when first."""
    all_until: int = 0
    """Up to here every run was walked."""
    tight_until: int = 0
    """Up to here those that are likely to be in each other's way were."""

    def take(self, one: _Hour, began: Sequence[tuple[int, int]]) -> None:
        """Add an hour, given every number and instant with which such a one began."""
        times, (first, last) = len(began), (began[0][1], began[-1][1])
        hours = [number for number, _ in began]
        for lane, tally in one.tallies.items():
            self.tallies.setdefault(lane, Tally()).add(tally, times)
            self.troubled.setdefault(lane, []).extend(hours)
        self.left_out += one.left_out * times
        for key, blocked in one.blocked.items():
            if key not in self.blocked and len(self.blocked) >= MOST_OVERLAPS:
                self.left_out += times * (blocked.skipped + blocked.waits + blocked.cancelled)
                continue
            known = self.blocked.setdefault(key, Blocked(first + blocked.first, last + blocked.last))
            known.add(blocked, first, last, times)


_UNDECIDED: Final[tuple[Rule, int]] = ("slots", -2)


def _order(entry: _Waiting) -> tuple[int, int, int]:
    """What tells where a run that waits stands among the others; no two have the same."""
    return entry.rank, entry.ready, entry.number


class _Stage:
    """Who runs and who waits; moved from one event to the next."""

    def __init__(self, lanes: Sequence[Lane], slots: int, places: Mapping[str, int], state: _State) -> None:
        self._lanes, self._slots, self._places = lanes, slots, places
        self._free = slots
        self._runs: dict[int, dict[int, int]] = {}  # by lane: number and end of each run
        self._waits: dict[int, int] = {}
        self._holders: dict[str, list[int]] = {}
        self._jobs: dict[str, int] = {}
        self._queue: list[_Waiting] = []
        self._queued: dict[int, tuple[int, int, int]] = {}
        """By number where each of these stands: of thousands that wait none is looked for one by one."""
        self._events: list[tuple[int, int, int]] = []
        self._number = self._aside = 0
        self._undecided = False
        self.work = 0
        self.left_out = 0
        self.tallies: dict[int, Tally] = {}
        self.blocked: dict[Key, Blocked] = {}
        self.moments: list[Trouble] = []
        self.most = self.most_at = 0
        for left, lane in state[0]:
            self._occupy(left, lane)
        for entry in state[1]:
            self._wait(entry)
        self.most = slots - self._free

    def _occupy(self, end: int, place: int) -> None:
        lane = self._lanes[place]
        self._free -= 1
        self._number += 1
        self._runs.setdefault(place, {})[self._number] = end
        if lane.policy.group:
            self._holders.setdefault(lane.policy.group, []).append(place)
        if lane.policy.max_running is not None:
            self._jobs[lane.job] = self._jobs.get(lane.job, 0) + 1
        heappush(self._events, (end, self._number, place))

    def _wait(self, entry: _Waiting) -> None:
        self._number += 1
        place, expires = entry.lane, entry.expires
        self._waits[place] = self._waits.get(place, 0) + 1
        entry = entry._replace(number=self._number)
        self._queued[self._number] = _order(entry)
        insort(self._queue, entry)
        if expires is not None:
            heappush(self._events, (expires, self._number, place))

    def fire(self, at: int, place: int) -> None:
        """A schedule comes due. As the engine does, it sets a slot aside for every fire, while there are any."""
        self.until(at)
        self.work += 1
        lane = self._lanes[place]
        has_slot = self._free > self._aside
        self._aside += has_slot
        if (place in self._runs or place in self._waits) and not self._is_admitted(at, place, lane, 1):
            return
        self._admit(at, place, lane, at, has_slot)

    def resume(self, place: int, dues: Sequence[int]) -> None:
        """A pause ends that held these fires: one look at who runs counts for all of them, and one slot is set aside."""
        self.work += len(dues)
        lane = self._lanes[place]
        has_slot = self._free > self._aside
        self._aside += has_slot
        if (place in self._runs or place in self._waits) and not self._is_admitted(0, place, lane, len(dues)):
            return
        for number, due in enumerate(dues):
            self._admit(0, place, lane, due, has_slot and number == 0)

    def _admit(self, at: int, place: int, lane: Lane, due: int, has_slot: bool) -> None:
        if has_slot and not lane.policy.constrained and self._taken(place, lane) is None:
            self._aside -= self._aside > 0
            self._start(at, place, lane)
            return
        late = lane.policy.max_late
        expires = None if late is None else due + late // MICROSECOND + 1
        self._undecided = True
        self._wait(_Waiting(-lane.policy.priority, due, 0, place, expires, *_UNDECIDED, at))

    def choose(self, at: int) -> None:
        """All fires of `at` are there: who could not start at once starts now in the order of those that wait, or waits."""
        self._aside = 0
        if not self._undecided:
            return
        self._undecided = False
        self._claim(at)
        for place, entry in enumerate(self._queue):
            if entry.by == _UNDECIDED[1]:
                rule, by = self._taken(entry.lane, self._lanes[entry.lane]) or ("slots", -1)
                self._queue[place] = entry._replace(rule=rule, by=by)

    def _is_admitted(self, at: int, place: int, lane: Lane, number: int) -> bool:
        runs, waits = self._runs.get(place, {}), self._waits.get(place, 0)
        answer = admit(lane.policy, [State.RUNNING] * len(runs) + [State.WAITING] * waits)
        if answer is Admission.ADMIT:
            return True
        if answer is Admission.SKIP:
            for _ in range(number):
                self._skip(at, place, "self", place)
            return False
        for entry in (one for one in self._queue if one.lane == place):
            self._skip(entry.ready, place, "self", place)
        self._forget({entry.number for entry in self._queue if entry.lane == place})
        if runs:
            tally = self._tally(place)
            tally.cancelled += len(runs)
            tally.cut += sum(end - at for end in runs.values())
            self._meet(at, place, "self", place).cancelled += 1
            self._tell(Trouble(at, place, "cancels", "self"))
        for ended in list(runs):
            self._release(ended, place)
            self._aside += 1  # it ends a moment later: no other fire of this instant has its slot
        return True

    def _taken(self, place: int, lane: Lane) -> tuple[Rule, int] | None:
        """What a run would have to wait for, and who has it; None: it can start."""
        policy = lane.policy
        if policy.overlap != "allow" and place in self._runs:
            return "self", place
        holders = self._holders.get(policy.group) if policy.group else None
        if policy.group and holders and len(holders) >= self._places.get(policy.group, 1):
            return "group", holders[0]
        if policy.max_running is not None and self._jobs.get(lane.job, 0) >= policy.max_running:
            return "max_running", place
        if self._free <= 0 and lane.takes:
            return "slots", -1
        return None

    def _start(self, at: int, place: int, lane: Lane) -> None:
        if not lane.takes:
            return
        self._occupy(at + lane.takes, place)
        if self._slots - self._free > self.most:
            self.most, self.most_at = self._slots - self._free, at

    def until(self, at: int) -> None:
        """Let runs end, and waiting ones become too late, up to and including `at`."""
        events = self._events
        while events and events[0][0] <= at:
            when, number, place = heappop(events)
            if number in self._queued:
                entry = self._queue.pop(bisect_left(self._queue, self._queued.pop(number), key=_order))
                self._less_waiting(place)
                self._skip(entry.ready, place, entry.rule, entry.by)
            elif place in self._runs and number in self._runs[place]:
                self._release(number, place)
                if self._queue:
                    self._claim(when)

    def _release(self, number: int, place: int) -> None:
        lane, runs = self._lanes[place], self._runs[place]
        del runs[number]
        if not runs:
            del self._runs[place]
        self._free += 1
        if lane.policy.group:
            self._holders[lane.policy.group].remove(place)
        if lane.policy.max_running is not None:
            self._jobs[lane.job] -= 1

    def _forget(self, numbers: set[int]) -> None:
        for entry in self._queue:
            if entry.number in numbers:
                self._less_waiting(entry.lane)
                del self._queued[entry.number]
        self._queue = [entry for entry in self._queue if entry.number not in numbers]

    def _less_waiting(self, place: int) -> None:
        self._waits[place] -= 1
        if not self._waits[place]:
            del self._waits[place]

    def _claim(self, at: int) -> None:
        """Start what waits and can, in its order."""
        kept: list[_Waiting] = []
        full: set[str | None] = set()
        full_jobs: set[str] = set()
        queue = self._queue
        for number, entry in enumerate(queue):
            if self._free <= 0:
                kept += queue[number:]
                break
            place = entry.lane
            lane = self._lanes[place]
            if lane.policy.group in full or lane.job in full_jobs:
                kept.append(entry)
                continue
            self.work += 1
            taken = self._taken(place, lane)
            if taken is not None:
                kept.append(entry)
                if taken[0] == "group":
                    full.add(lane.policy.group)
                elif taken[0] == "max_running":
                    full_jobs.add(lane.job)
                continue
            del self._queued[entry.number]
            self._less_waiting(place)
            self._waited(at, entry)
            self._start(at, place, lane)
        self._queue = kept

    # -- what is told of it

    def _waited(self, at: int, entry: _Waiting) -> None:
        place, waited = entry.lane, at - entry.since
        if waited <= 0:
            return
        tally, met = self._tally(place), self._meet(entry.since, place, entry.rule, entry.by)
        tally.waits += 1
        tally.waited += waited
        tally.longest = max(tally.longest, waited)
        met.waits += 1
        met.longest = max(met.longest, waited)
        self._tell(Trouble(entry.since, place, "waits", entry.rule, waited))

    def _skip(self, at: int, place: int, rule: Rule, by: int) -> None:
        self._tally(place).skipped += 1
        self._meet(at, place, rule, by).skipped += 1
        self._tell(Trouble(at, place, "skipped", rule))

    def _tally(self, place: int) -> Tally:
        if place not in self.tallies:
            self.tallies[place] = Tally()
        return self.tallies[place]

    def _meet(self, at: int, place: int, rule: Rule, by: int) -> Blocked:
        key = (rule, place, by)
        if key not in self.blocked:
            if len(self.blocked) >= MOST_OVERLAPS:
                self.left_out += 1
                return Blocked(at, at)
            self.blocked[key] = Blocked(at, at)
        found = self.blocked[key]
        found.last = max(found.last, at)
        return found

    def _tell(self, moment: Trouble) -> None:
        if len(self.moments) < MOST_MOMENTS:
            self.moments.append(moment)

    def leave(self, length: int) -> _State:
        """Who runs and who waits, as seen from the end of the hour."""
        running = sorted((end - length, place) for place, runs in self._runs.items() for end in runs.values())
        return tuple(running), tuple(entry.seen(length) for entry in self._queue)

    def told(self, length: int) -> _Hour:
        """What came of it, `length` after it began."""
        return _Hour(
            self.tallies,
            self.blocked,
            self.left_out,
            self.moments,
            self.most,
            self.most_at,
            self.leave(length),
            self.work,
        )

    def still_waiting(self) -> None:
        """Count those who wait at the very end, as if they were let go now."""
        for entry in self._queue:
            self._waited(0, entry)


class Part(NamedTuple):
    """A span in which no switch is thrown."""

    start: int
    off: frozenset[int] = frozenset()
    """Lanes whose fires make no runs, or are held."""
    resumed: Sequence[tuple[int, Sequence[int]]] = ()
    """Lanes of which a pause ends as the part begins, and the instants it held and that shall run, as seen from there."""


def rehearse(
    lanes: Sequence[Lane],
    grids: Sequence[Grid],
    parts: Sequence[Part],
    *,
    end: int,
    hour: int,
    slots: int,
    places: Mapping[str, int],
    running: Iterable[tuple[int, int]],
    most_work: int,
    breathe: Callable[[], object],
) -> Rehearsal:
    """Walk to `end`. `hour`: how long it is to the first whole hour; `running`: ends and lanes of what runs at first.

    Lanes that take no time and are not tight only count as fires. After `most_work` fires only the tight lanes are walked
    on, and after as many of those none. `breathe` is called after every few fires.
    """
    return _Walk(lanes, grids, parts, end, hour, slots, places, most_work, breathe).to_the_end(running)


class _Walk:
    """The way from the start to the end, a piece at a time: to the next whole hour, or the next part."""

    def __init__(
        self, lanes: Sequence[Lane], grids: Sequence[Grid], parts: Sequence[Part], end: int, hour: int, slots: int,
        places: Mapping[str, int], most_work: int, breathe: Callable[[], object],
    ) -> None:  # fmt: skip
        self._lanes, self._grids, self._parts, self._end = lanes, grids, parts, end
        self._slots, self._places, self._breathe = slots, places, breathe
        self._often = [place for place, one in enumerate(grids) if one.gap is not None and one.gap <= HOUR]
        self._seldom = sorted(
            (one.next, place)
            for place, one in enumerate(grids)
            if one.next is not None and (one.gap is None or one.gap > HOUR)
        )
        """The others by their next fire: there may be thousands that come once a month."""
        self._hour_end = hour
        self._part = -1
        self._walked = frozenset(place for place, one in enumerate(lanes) if one.tight or one.takes)
        self._most_work = self._work_left = most_work
        self._members: list[list[int]] = []
        self._takes: list[int] = []
        self._resumed: Sequence[tuple[int, Sequence[int]]] = ()
        self._known: dict[Any, _Hour] = {}
        self._began: dict[int, tuple[_Hour, list[tuple[int, int]]]] = {}
        self.found = Rehearsal(all_until=end, tight_until=end)

    def to_the_end(self, running: Iterable[tuple[int, int]]) -> Rehearsal:
        at = 0
        state: _State = (tuple(sorted(running)), ())
        found = self.found
        self._begin_hour()
        while at < self._end:
            if at == self._hour_end:
                self._hour_end += HOUR
                self._begin_hour()
            if self._part + 1 < len(self._parts) and self._parts[self._part + 1].start == at:
                self._part += 1
                self._resumed = self._parts[self._part].resumed
                self._cast()
            coming = self._parts[self._part + 1].start if self._part + 1 < len(self._parts) else self._end
            until = min(self._hour_end, coming, self._end)
            one = self._piece(at, until, state)
            self._note(one, at)
            at, state = until, self._narrowed(one, until)
        stage = self._stage(state)
        stage.still_waiting()
        self._note(stage.told(0), at)
        for one, began in self._began.values():
            found.take(one, began)
        return found

    def _note(self, one: _Hour, at: int) -> None:
        """An hour like this begins; what came of it is added at the end, for all that were like it at once."""
        found = self.found
        self._began.setdefault(id(one), (one, []))[1].append((len(found.fires) - 1, at))
        found.most[-1] = max(found.most[-1], one.most)
        if one.most > found.peak[0]:
            found.peak = (one.most, at + one.most_at)
        for moment in one.moments[: max(0, MOST_MOMENTS - len(found.moments))]:
            found.moments.append(moment._replace(at=at + moment.at))

    def _begin_hour(self) -> None:
        for row in (self.found.fires, self.found.most, self.found.busy):
            row.append(0)

    def _cast(self) -> None:
        """Who of each grid is walked now, and how long the runs of one of its fires take."""
        off = self._parts[self._part].off
        self._members = [[one for one in grid.lanes if one in self._walked and one not in off] for grid in self._grids]
        self._takes = [sum(self._lanes[one].takes for one in grid.lanes if one not in off) for grid in self._grids]
        self._known.clear()

    def _piece(self, at: int, until: int, state: _State) -> _Hour:
        fires: list[tuple[list[int], Sequence[int]]] = []
        key: list[Any] = [until - at, state]
        number = busy = 0
        for place in self._due(until):
            grid = self._grids[place]
            given = grid.until(until)
            number += len(given) * len(grid.lanes)
            busy += len(given) * self._takes[place]
            if self._members[place]:
                fires.append((self._members[place], given))
                key += (place, _shape(given, at))
        if sum(len(lanes) * len(given) for lanes, given in fires) > MOST_IN_AN_HOUR:
            self.found.all_until, self.found.tight_until = (
                min(self.found.all_until, at),
                min(self.found.tight_until, at),
            )
            self._walked, state, fires, key = frozenset(), _NOBODY, [], [until - at, _NOBODY]
            self._cast()
        self.found.fires[-1] += number
        self.found.busy[-1] += busy
        resumed, self._resumed = self._resumed, ()
        known = None if resumed else self._known.get(whole := tuple(key))
        if known is None:
            known = self._went(at, until, state, fires, resumed)
            self._work_left -= known.work
            if not resumed:
                self._known[whole] = known
        self._breathe()
        return known

    def _due(self, until: int) -> Iterator[int]:
        """The grids with fires before `until`, in an order that only depends on which they are."""
        for place in self._often:
            at = self._grids[place].next
            if at is not None and at < until:
                yield place
        awake = []
        while self._seldom and self._seldom[0][0] < until:
            awake.append(heappop(self._seldom)[1])
        for place in sorted(awake):
            yield place
            at = self._grids[place].next
            if at is not None:
                heappush(self._seldom, (at, place))

    def _went(
        self,
        at: int,
        until: int,
        state: _State,
        fires: Sequence[tuple[list[int], Sequence[int]]],
        resumed: Sequence[tuple[int, Sequence[int]]],
    ) -> _Hour:
        stage = self._stage(state)
        for lane, dues in resumed:
            if lane in self._walked:
                stage.resume(lane, dues)
        last = 0
        for together in _in_order(at, until, fires):
            for instant, lane in together:
                if instant > last:
                    stage.choose(last)
                    last = instant
                stage.fire(instant, lane)
            self._breathe()
        stage.choose(last)
        stage.until(until - at - 1)
        return stage.told(until - at)

    def _stage(self, state: _State) -> _Stage:
        return _Stage(self._lanes, self._slots, self._places, state)

    def _narrowed(self, one: _Hour, at: int) -> _State:
        """Who runs and waits from `at` on; after too much work only those that are likely to be in each other's way."""
        if self._work_left > 0 or at == self._end or not self._walked:
            return one.state
        self.found.all_until = min(self.found.all_until, at)
        tight = frozenset(place for place in self._walked if self._lanes[place].tight)
        if tight == self._walked:
            self.found.tight_until, tight = at, frozenset()
        self._walked, self._work_left = tight, self._most_work
        self._cast()
        running, waiting = one.state
        return (
            tuple(entry for entry in running if entry[1] in self._walked),
            tuple(entry for entry in waiting if entry.lane in self._walked),
        )


def _in_order(at: int, until: int, fires: Sequence[tuple[list[int], Sequence[int]]]) -> Iterator[list[tuple[int, int]]]:
    """Instants, as seen from `at`, with their lanes; a few hundred at a time: to sort many at once holds up every thread."""
    number = sum(len(lanes) * len(given) for lanes, given in fires)
    parts: list[list[tuple[int, int]]] = [[] for _ in range(1 + number // TOGETHER)]
    length, span = len(parts), until - at
    for lanes, given in fires:
        for one in given:
            part = parts[(one - at) * length // span]
            for lane in lanes:
                part.append((one - at, lane))
    for part in parts:
        part.sort()
        yield part


def _shape(fires: Sequence[int], start: int) -> tuple[int, ...]:
    """The fires as seen from `start`; equal for equal ones of one grid."""
    if isinstance(fires, range):
        return (fires.start - start, fires.step, len(fires))
    return tuple([one - start for one in fires])
