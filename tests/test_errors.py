"""Every error says what was given, what is allowed and the mend; has a built-in parent; and survives a pickle."""

from __future__ import annotations

import copy
import pickle

import pytest

from taskloop import errors
from taskloop.errors import (
    BadCron,
    BadDuration,
    BadRate,
    BadInstant,
    BadJob,
    BadParameters,
    BadSettings,
    BadStore,
    BadToken,
    BadTrigger,
    BadValue,
    ClusterUnavailable,
    Conflict,
    KeyConflict,
    MissingExtra,
    NoCurrentRun,
    NoSuchJob,
    NoSuchRun,
    NoSuchSchedule,
    NoSuchStep,
    NoSuchToken,
    NotInjected,
    NotRunning,
    ProcessDied,
    RunFailed,
    StoreUnavailable,
    TakenOver,
    TaskloopError,
    Unstorable,
    nearest,
)
from taskloop.git_metrics import NothingRead
from taskloop.retry import Fatal, RetryAt

TABLE = [
    (BadDuration("3y", "years have no fixed length"), ValueError, {"got": "3y", "why": "years have no fixed length"},
     "duration '3y': years have no fixed length; write seconds as a number, or text such as '90s', '5m', '1h30m', "
     "'2w', 'PT1H30M', up to 100 years"),
    (BadRate("often", 9), ValueError, {"allowed": 'a count from 1 to 9 and a duration, such as "30/1m" or "5/1h"'},
     "rate 'often': allowed is a count from 1 to 9 and a duration, such as \"30/1m\" or \"5/1h\""),
    (BadInstant("noon", "it names no zone"), ValueError, {"got": "noon", "why": "it names no zone"},
     "instant 'noon': it names no zone; give ISO 8601 with an offset "
     "('2026-03-01T02:00:00+01:00'), or the time from now ('+2h')"),
    (BadInstant(7, "it is a number"), ValueError, {"got": 7, "why": "it is a number"},
     "instant 7: it is a number; give an aware datetime, ISO 8601 with an offset "
     "('2026-03-01T02:00:00+01:00'), or the time from now ('+2h')"),
    (BadTrigger("evry 5m", "did you mean 'every'?"), ValueError, {"got": "evry 5m", "why": "did you mean 'every'?"},
     "trigger 'evry 5m': did you mean 'every'?"),
    (BadCron("* 25 * * *", field="hour", got="25", allowed="0-23", mend="for midnight write 0"), BadTrigger,
     {"expression": "* 25 * * *", "field": "hour", "got": "25", "allowed": "0-23"},
     "cron '* 25 * * *': hour is 25, allowed 0-23; for midnight write 0"),
    (BadCron("* *", field=None, got="2 fields", allowed="five or six"), ValueError, {"field": None, "got": "2 fields"},
     "cron '* *': 2 fields, allowed five or six"),
    (BadValue("limit is -1; allowed is a whole number from 0 on"), ValueError, {},
     "limit is -1; allowed is a whole number from 0 on"),
    (NoCurrentRun("no run is executing here; ask inside a job"), LookupError, {},
     "no run is executing here; ask inside a job"),
    (BadJob("job 'a': no; write b"), ValueError, {}, "job 'a': no; write b"),
    (BadParameters("send", {"n": "is missing", "m": "is unknown"}), ValueError,
     {"job": "send", "problems": {"n": "is missing", "m": "is unknown"}},
     "job 'send': parameter 'n' is missing; parameter 'm' is unknown; `taskloop show send` lists its parameters"),
    (BadSettings(["one; mend", "two; mend"]), ValueError, {"problems": ["one; mend", "two; mend"]},
     "one; mend\ntwo; mend"),
    (NoSuchJob("reprot", "report"), LookupError, {"name": "reprot", "near": "report"},
     "no job 'reprot'; did you mean 'report'? `taskloop list` shows all"),
    (NoSuchJob("x"), LookupError, {"name": "x", "near": None}, "no job 'x'; `taskloop list` shows all"),
    (NoSuchJob("a-7", "a", schedule_of="b"), LookupError, {"name": "a-7", "near": "a"},
     "no job 'a-7'; it is a schedule of job 'b', and alone can be changed by reschedule(), or removed by unschedule() or "
     "`taskloop schedule remove`"),
    (NoSuchRun(7), LookupError, {"run": 7},
     "no run 7; it may have been pruned, `taskloop runs` shows what is kept"),
    (NoSuchRun("send"), LookupError, {"run": "send"},
     "no run send; a run has a number; those of a job are in `runs(job)`, and a new one is asked for by `submit`"),
    (NoSuchRun("7"), LookupError, {"run": "7"},
     "no run '7'; that is a text, and the id of a run is a number; give it as int(...)"),
    (NoSuchRun(None), LookupError, {"run": None},
     "no run None; a run has a number; those of a job are in `runs(job)`, and a new one is asked for by `submit`"),
    (NoSuchSchedule("s"), LookupError, {"schedule": "s"}, "no schedule 's'; `taskloop schedule list` shows all"),
    (NoSuchStep("s", "f", "t", ["t", "u"]), LookupError, {"step": "s"}, "job 'f' has no step 's'; did you mean 't'? steps are: t, u"),
    (NoSuchToken("t"), LookupError, {"token": "t"}, "no token 't'; `taskloop token list` shows all"),
    (BadToken("scope is 'root'", "read, operate or admin"), ValueError, {"allowed": "read, operate or admin"},
     "scope is 'root'; allowed is read, operate or admin"),
    (Conflict("job 'a' is off; enable it"), RuntimeError, {}, "job 'a' is off; enable it"),
    (KeyConflict("a", "k", 3), Conflict, {"job": "a", "key": "k", "run": 3},
     "job 'a': key 'k' belongs to run 3, which has other parameters; use another key, or the same parameters"),
    (RunFailed({"id": 3}, "run 3 failed: no"), RuntimeError, {"run": {"id": 3}}, "run 3 failed: no"),
    (NotRunning("start it first"), RuntimeError, {}, "start it first"),
    (NotInjected("a", ["db"]), TypeError, {"job": "a", "names": ["db"]},
     "job 'a' was called plainly, and 'db' is injected only where the scheduler runs it; give db=... yourself, or submit it"),
    (ProcessDied("it is gone"), RuntimeError, {}, "it is gone"),
    (BadStore("store x is a folder; name a file"), ValueError, {}, "store x is a folder; name a file"),
    (TakenOver("sqlite:///a.db", 6, 5), BadStore, {"schema": 6},
     "store sqlite:///a.db was brought to schema 6 by a newer taskloop, this one knows up to 5; restart this program with the "
     "newer version"),
    (Unstorable("a set is no JSON"), ValueError, {"why": "a set is no JSON"},
     "a value cannot be stored: a set is no JSON; give plain JSON: texts, numbers below 2**63, lists, tables"),
    (StoreUnavailable("store x is full; free some space"), OSError, {}, "store x is full; free some space"),
    (ClusterUnavailable("tcp://a:1", "it is gone"), ConnectionError, {"address": "tcp://a:1"},
     "Dask cluster at tcp://a:1: it is gone; see whether its scheduler runs there, and that [dask] address, or "
     "TASKLOOP_DASK__ADDRESS, names it"),
    (MissingExtra("aiohttp", "web"), ImportError, {"package": "aiohttp", "extra": "web"},
     "package 'aiohttp' is not installed; run: pip install \"taskloop[web]\""),
    (RetryAt("+2h"), TaskloopError, {"when": "+2h"}, "try again: +2h"),
    (Fatal("no such user"), TaskloopError, {"reason": "no such user"}, "no such user"),
    (NothingRead({"/x": "does not exist"}), RuntimeError, {"failed": {"/x": "does not exist"}},
     "no repository could be read; mend the table [git_metrics]\n/x: does not exist"),
]  # fmt: skip
ERRORS = [row[0] for row in TABLE]


def names(value: object) -> str:
    return type(value).__name__ if isinstance(value, TaskloopError) else ""


@pytest.mark.parametrize(("error", "parent", "facts", "text"), TABLE, ids=names)
def test_an_error_has_its_facts_its_text_and_a_built_in_parent(error, parent, facts, text):
    assert isinstance(error, TaskloopError)
    assert isinstance(error, parent)
    assert {name: getattr(error, name) for name in facts} == facts
    assert str(error) == text


@pytest.mark.parametrize("error", ERRORS, ids=names)
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(2, 6))],
)
def test_an_error_that_was_pickled_or_copied_is_the_same_error(error, copied):
    found = copied(error)
    assert type(found) is type(error)
    assert (str(found), repr(found), found.args) == (str(error), repr(error), error.args)
    assert vars(found) == vars(error)


def test_every_error_class_of_the_package_is_in_the_table():
    declared = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)}
    assert declared - {TaskloopError} <= {type(error) for error in ERRORS}


def test_notes_survive_a_pickle():
    error = NoSuchJob("x")
    error.add_note("seen in the crontab")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen in the crontab"]


def test_what_cannot_be_pickled_arrives_as_the_text_it_is_shown_by():
    error = BadDuration(lambda: 3, "a function is no duration")
    found = pickle.loads(pickle.dumps(error))
    assert found.got.startswith("<function <lambda>") or found.got.startswith("<function test_what")
    assert (str(found), found.why) == (str(error), error.why)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __reduce__(self):
        raise RuntimeError("no")


def test_a_hostile_value_hides_no_error_and_no_pickle():
    error = BadDuration(Hostile(), "it is hostile")
    assert str(error).startswith("duration a Hostile: it is hostile")
    assert pickle.loads(pickle.dumps(error)).got == "a Hostile"


class Own(StoreUnavailable):
    """An error class of a user's own, with a constructor of its own."""

    def __init__(self, first: int, second: int) -> None:
        self.sum = first + second
        super().__init__(f"{first} and {second}")


def test_an_error_derived_from_ours_can_be_pickled_too():
    found = pickle.loads(pickle.dumps(Own(1, 2)))
    assert (type(found), str(found), found.sum) == (Own, "1 and 2", 3)


@pytest.mark.parametrize("make", [NoSuchJob, NoSuchSchedule, NoSuchRun, lambda text: KeyConflict("a", text, 1)])
def test_a_long_name_is_cut_in_the_text_and_whole_in_the_facts(make):
    error = make("x" * 100_000)
    assert len(str(error)) < 300
    assert "…" in str(error)
    assert "x" * 100_000 in vars(error).values()


@pytest.mark.parametrize(("name", "found"), [("reprot", "report"), ("report", "report"), ("zzz", None), ("", None)])
def test_the_nearest_name_is_told_when_it_is_near_enough_to_be_meant(name, found):
    assert nearest(name, ["report", "clean", "mail"]) == found
    assert nearest(name, []) is None
