"""Jobs: what can be one, how they are collected, and what their types promise."""

from __future__ import annotations

import functools
import pickle
import re
import sys
from typing import Annotated, Any

import pytest

from taskloop.context import RunContext, running
from taskloop.errors import BadCron, BadJob, BadParameters, Conflict, NoSuchJob
from taskloop.inject import Inject
from taskloop.jobs import Call, Job, Jobs
from taskloop.runs import Run, RunId
from taskloop.triggers import At, Cron, Every

pytestmark = pytest.mark.anyio


async def mail(user: int, text: str = "hi") -> str:
    """Send a mail."""
    return f"{user}: {text}"


def clean(days: int = 3) -> int:
    return days


shop = Jobs("shop.")


@shop.job()
async def pack(order: int) -> int:
    return order


class Holder:
    @staticmethod
    @shop.every("5m")
    def sweep() -> None: ...

    def method(self) -> None: ...


# -- what can be a job


async def rows():
    yield 1


def marked(size: Annotated[int, Inject(clean)]) -> None: ...


def told_of(size: Annotated[int, "no Inject"]) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: None, "a lambda cannot be a job, it has no name; write a def"),
        (Holder().method, "Holder.method is a bound method, which no other process could find again"),
        (Holder.method, "Holder.method is a method, and nobody would give it what it belongs to; write a function"),
        (
            marked,
            "marked has Inject(...) in the annotation of 'size', where it is no default: write size: ... = Inject(...)",
        ),
        (functools.partial(clean, 3), "must be a function (def or async def), got partial; wrap it in a def"),
        (Holder, "must be a function (def or async def), got type"),
        (print, "must be a function (def or async def), got builtin_function_or_method"),
        (None, "must be a function (def or async def), got NoneType"),
        (
            Jobs().add_job(clean),
            "'clean' is a job already; it gets a further schedule by `await scheduler.schedule('clean', trigger, id=",
        ),
        ("shop:clean", "got the text 'shop:clean'; import it and give it itself, or name it in config.toml: call ="),
        (rows, "rows yields, and nobody would read what it yields; return one value instead"),
    ],
)
def test_what_cannot_be_a_job_is_refused_with_the_mend(function, text):
    with pytest.raises(BadJob, match=re.escape(text)):
        Jobs().add_job(function)


def test_a_word_in_an_annotation_injects_nothing():
    assert Jobs().add_job(told_of).parameters.required == ("size",)


def test_a_lambda_is_refused_by_the_name_it_was_given():
    with pytest.raises(BadJob, match="a lambda named 'x' cannot be a job"):
        Jobs().add_job(lambda: None, name="x")


def test_a_function_that_takes_any_arguments_cannot_be_a_job():
    def job(*args: int) -> None: ...

    with pytest.raises(BadJob, match=r"takes '\*args"):
        Jobs().add_job(job)


@pytest.mark.parametrize("name", ["a", "A1", "x" * 128, "a.b:c-d_e", "9lives"])
def test_a_name_may_have_letters_digits_and_a_few_signs(name):
    assert Jobs().add_job(mail, name=name).name == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "-x", ".x", "_x", "x" * 129, "x y", "x\n", "x\0", "<b>", "../x", "é", "х", "a/b", "a'b", "x" * 10_000],  # noqa: RUF001
)
def test_other_names_are_refused_with_the_mend(name):
    with pytest.raises(BadJob, match="allowed are 1 to 128 letters, digits and '._:-'.*give name=") as caught:
        Jobs().add_job(mail, name=name)
    assert len(str(caught.value)) < 400
    with pytest.raises(BadJob, match="job name"):
        Jobs().add_job(mail, aliases=(name,))


@pytest.mark.parametrize("option", ["aliases", "tags", "secret"])
def test_one_text_in_the_place_of_a_list_is_refused_as_it_would_be_taken_letter_by_letter(option):
    text = re.escape(f"{option} is 'text'; a list of texts is allowed")
    with pytest.raises(BadJob, match=text):
        Jobs().add_job(mail, **{option: "text"})
    with pytest.raises(BadJob, match=text):
        Jobs().flow("f", **{option: "text"})


@pytest.mark.parametrize("trigger", [None, Every("5m")])
def test_parameters_without_names_are_refused_when_declared(trigger):
    with pytest.raises(BadParameters, match=r"'\*' is a list; a dict of names and their values is allowed"):
        Jobs().add_job(mail, trigger, params=[1])
    with pytest.raises(BadParameters, match="is a list"):
        Jobs().flow("f", trigger, params=[1])


class StepContext:
    """A class of the program's own, whose name is ours too."""


def test_a_class_of_the_same_name_as_the_context_is_none():
    jobs = Jobs()

    @jobs.job()
    def mail_step(run: RunContext, step: StepContext | None = None) -> None: ...

    assert jobs["mail_step"].parameters.context_name == "run" and mail_step in jobs


def test_a_decorator_is_told_to_take_a_name_by_its_name():
    with pytest.raises(TypeError, match=r"a decorator takes what is given by name, got 'mail'; write name=\.\.\."):
        Jobs().job("mail")


def ship(order: Below = None) -> None: ...  # noqa: F821


def test_parameters_of_a_type_that_stands_below_the_job_are_checked_when_it_is_configured():
    job = Jobs().add_job(ship, Every("1h"), params={"order": {"number": "7"}})
    assert job.params == {}
    with pytest.raises(BadJob, match="annotation of 'order' names 'Below', which cannot be found"):
        job.configure({}, {})
    ship.__globals__["Below"] = dict[str, int]
    try:
        job.configure({}, {})
        assert job.params == {"order": {"number": 7}}
    finally:
        del ship.__globals__["Below"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is one of Python 3.12")
def test_a_type_parameter_of_a_function_is_found():
    known: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef job[T: int](x: T) -> Nowhere: ...", known)  # noqa: S102
    assert Jobs().add_job(known["job"]).parameters.check({"x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    ("decorator", "text"),
    [
        (Jobs().job, "@scheduler.job()"),
        (Jobs().every, "@scheduler.every()"),
        (Jobs().cron, "@scheduler.cron('0 2 * * *')"),
        (Jobs().flow("f").step, "@flow.step()"),
    ],
)
def test_a_decorator_without_its_parentheses_is_told_to_have_them(decorator, text):
    with pytest.raises(TypeError, match=re.escape(f"a decorator needs its parentheses; write {text}")):
        decorator(clean)


def test_aliases_may_be_a_list():
    assert Jobs().add_job(mail, aliases=["post", "letter"]).aliases == ("post", "letter")


@pytest.mark.parametrize(
    ("function", "executor", "text"),
    [
        (clean, "loop", "job 'clean' is a plain def, which would block the loop; write async def"),
        (mail, "thread", "job 'mail' is an async def, which runs on the loop; write def"),
    ],
)
def test_an_executor_that_contradicts_the_function_is_refused(function, executor, text):
    with pytest.raises(BadJob, match=text):
        Jobs().add_job(function, executor=executor)
    job = Jobs().add_job(function)
    with pytest.raises(BadJob, match=text):
        job.configure({}, {"executor": executor})


@pytest.mark.parametrize(("function", "executor"), [(clean, "thread"), (mail, "loop"), (clean, None), (mail, None)])
def test_an_executor_that_fits_the_function_is_taken(function, executor):
    assert Jobs().add_job(function, executor=executor).policy.executor == executor


def test_options_are_checked_at_the_line_that_wrote_them():
    jobs = Jobs()
    with pytest.raises(BadJob, match="did you mean 'timeout'"):
        jobs.every("5m", timout="1m")
    with pytest.raises(BadJob, match="job 'clean': on_crash='retry' needs"):
        jobs.job(on_crash="retry")(clean)
    with pytest.raises(BadCron):
        jobs.cron("* 25 * * *")
    assert len(jobs) == 0


def test_parameters_of_a_schedule_are_checked_when_it_is_declared():
    with pytest.raises(BadParameters, match="'user' is missing"):
        Jobs().add_job(mail, Every("5m"))
    assert Jobs().add_job(mail, Every("5m"), params={"user": "7"}).params == {"user": 7}
    assert Jobs().add_job(mail).params == {}


# -- declaring


def test_each_decorator_declares_a_job_with_its_trigger():
    jobs = Jobs()
    every = jobs.every("5m", name="every", timeout="1m", tags=["x"])(clean)
    start = jobs.every(name="start")(clean)
    cron = jobs.cron("0 2 * * *", timezone="Europe/London", gap="skip", fold="both", name="cron")(clean)
    asked = jobs.job(name="asked", aliases=("old",))(clean)
    added = jobs.add_job(clean, At("2026-03-01T00:00Z"), name="added", params={"days": 1})
    assert [job.trigger for job in jobs] == [
        Every("5m"),
        Every(),
        Cron("0 2 * * *", timezone="Europe/London", gap="skip", fold="both"),
        None,
        At("2026-03-01T00:00Z"),
    ]
    assert list(jobs) == [every, start, cron, asked, added]
    assert [job.kind for job in jobs] == ["periodic", "periodic", "periodic", "on_demand", "periodic"]
    assert (every.policy.timeout.total_seconds(), every.policy.tags) == (60, ("x",))
    assert (asked.aliases, added.params) == (("old",), {"days": 1})


def test_a_prefix_is_a_part_of_the_name():
    assert pack.name == "shop.pack"
    assert "shop.pack" in shop
    assert "pack" not in shop
    assert shop["shop.pack"] is pack


def test_jobs_are_a_collection_by_name():
    jobs = Jobs()
    jobs.add_job(clean)
    assert (len(jobs), repr(jobs), "clean" in jobs, 5 in jobs) == (1, "<Jobs of 1 jobs>", True, False)
    with pytest.raises(NoSuchJob, match="no job 'claen'; did you mean 'clean'"):
        jobs["claen"]
    jobs.remove_job("clean")
    assert list(jobs) == []
    with pytest.raises(NoSuchJob):
        jobs.remove_job("clean")


def test_jobs_may_be_taken_out_while_they_are_looked_through():
    jobs = Jobs()
    for name in "abc":
        jobs.add_job(clean, name=name)
    for job in jobs:
        jobs.remove_job(job.name)
    assert len(jobs) == 0


def test_two_jobs_of_one_name_are_refused_with_both_places():
    jobs = Jobs()
    jobs.add_job(clean)

    def other() -> None: ...

    with pytest.raises(
        BadJob, match=r"two jobs are named 'clean': .*test_jobs\.py:\d+ and .*test_jobs\.py:\d+"
    ) as caught:
        jobs.add_job(other, name="clean")
    assert len(set(re.findall(r"\.py:\d+", str(caught.value)))) == 2
    assert "remove_job" not in str(caught.value)
    with pytest.raises(BadJob, match=r"or remove_job\('clean'\) first if it takes the place of the one before"):
        jobs.add_job(clean, Every("5m"))
    assert jobs["clean"].function is clean


def test_a_job_knows_its_words():
    job = Jobs().add_job(mail)
    assert (job.title, job.description) == ("mail", "Send a mail.")
    assert repr(job) == "<job mail>"
    named = Jobs().add_job(clean, Every("5m"), title="Clean up", description="All of it.")
    assert (named.title, named.description, repr(named)) == ("Clean up", "All of it.", "<job clean every 5m>")
    assert Jobs().add_job(clean).description == ""
    assert re.fullmatch(r".*test_jobs\.py:\d+", job.place)


async def test_a_decorated_function_stays_callable():
    assert Jobs().job()(clean)(5) == 5
    assert await Jobs().job()(mail)(7, text="x") == "7: x"


# -- the configuration file


def test_the_file_is_laid_around_what_the_declaration_said():
    job = Jobs().add_job(clean, Every("5m"), timeout="1m", priority=1, params={"days": 1})
    job.configure({"timeout": "9m", "group": "g"}, {"priority": 2})
    assert (job.policy.timeout.total_seconds(), job.policy.group, job.policy.priority) == (60, "g", 2)
    job.configure({}, {}, Every("1h"), {"days": "7"})
    assert (job.policy.group, job.policy.priority, job.trigger, job.params) == (None, 1, Every("1h"), {"days": 7})
    job.configure({}, {})
    assert (job.trigger, job.params) == (Every("5m"), {"days": 1})


def test_a_file_may_give_a_trigger_to_a_job_that_has_none():
    job = Jobs().add_job(clean)
    job.configure({}, {}, Every("1h"))
    assert (job.kind, job.params) == ("periodic", {})
    job.configure({}, {})
    assert job.kind == "on_demand"
    with pytest.raises(BadParameters):
        job.configure({}, {}, Every("1h"), {"dais": 1})


# -- asking


class Desk:
    """A scheduler that writes down what it is asked."""

    _is_configured, is_running = True, False

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def _submit_call(self, call: Call[Any], at: Any, key: str | None, actor: str | None) -> str:
        self.asked.append((call.job.name, call.params, at, key, actor))
        return "handle"

    async def schedule(self, job: Any, trigger: Any, *, id: str, params: Any = None) -> str:
        self.asked.append((job.name, trigger, id, params))
        return "schedule"


async def test_a_bound_call_is_checked_and_asked_of_the_desk():
    job, desk = Jobs().add_job(mail), Desk()
    job.attach(desk)
    job.attach(desk)
    call = job.bind(7, text="x")
    assert repr(call) == "<call of mail with ['text', 'user']>"
    assert await call.submit(at="+2h", key="k", actor="ann") == "handle"
    assert await job.submit(8) == "handle"
    assert await call.schedule(Every("5m"), id="s") == "schedule"
    assert desk.asked == [
        ("mail", {"user": 7, "text": "x"}, "+2h", "k", "ann"),
        ("mail", {"user": 8}, None, None, None),
        ("mail", Every("5m"), "s", {"user": 7, "text": "x"}),
    ]
    with pytest.raises(BadParameters):
        await job.submit("seven")
    with pytest.raises(BadParameters):
        job.bind(user=1, zzz=2)


async def test_a_job_of_no_scheduler_or_of_several_says_what_to_write():
    job = Jobs().add_job(mail)
    with pytest.raises(Conflict, match=r"'mail' belongs to no scheduler; give its Jobs to TaskScheduler\(jobs="):
        await job.submit(7)
    one, other = Desk(), Desk()
    job.attach(one)
    job.attach(other)
    with pytest.raises(Conflict, match=r"belongs to several schedulers; call scheduler\.submit\('mail', \.\.\.\)"):
        await job.submit(7)
    del other  # an application made anew, or a test, leaves the scheduler before it to the garbage collector
    await job.submit(7)
    assert len(one.asked) == 1
    del one
    with pytest.raises(Conflict, match=r"'mail' belongs to no scheduler"):
        await job.submit(7)


async def test_inside_a_run_its_own_scheduler_is_asked():
    job, mine = Jobs().add_job(mail), Desk()
    job.attach(Desk())
    job.attach(mine)
    run = Run(id=RunId(1), job="mail", due_at=None, ready_at=None, created_at=None)
    token = running.set(RunContext(run, monotonic=lambda: 0.0, scheduler=mine))
    try:
        await job.submit(7)
    finally:
        running.reset(token)
    assert len(mine.asked) == 1


# -- pickling


def test_a_job_pickles_by_module_and_name():
    assert pickle.loads(pickle.dumps(pack)) is pack
    assert pickle.loads(pickle.dumps(Holder.sweep)) is Holder.sweep
    call = pickle.loads(pickle.dumps(pack.bind(3)))
    assert (call.job, call.params) == (pack, {"order": 3})


def test_a_job_added_without_a_decorator_pickles_as_what_stands_there():
    assert pickle.loads(pickle.dumps(Jobs().add_job(clean))) is clean


def test_a_job_is_what_a_decorator_gives():
    assert isinstance(pack, Job)
