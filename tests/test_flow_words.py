"""Small words about flows, steps and secrets that no story of theirs says."""

from __future__ import annotations

import re

import pytest

from taskloop import Flow, Jobs, Options, RunContext, TaskScheduler
from taskloop.errors import BadJob, BadParameters
from taskloop.masking import Secret, clean_value
from taskloop.parameters import Parameters
from taskloop.testing import run_context

pytestmark = pytest.mark.anyio


async def test_without_an_engine_a_step_is_a_plain_call():
    async def later(number):
        return number + 1

    run = run_context(step="one")
    assert await run.step("a", later, 1) == 2
    assert await run.step("b", len, "abc") == 3
    run.cancelled = True
    assert not run.cancelled, "only its run is asked to end"


@pytest.mark.parametrize(
    ("executor", "text"),
    [
        (
            "proces",
            "executor is 'proces'; allowed are 'loop', 'thread', 'process', 'dask', None; did you mean 'process'?",
        ),
        ("", "executor is ''; allowed are 'loop', 'thread', 'process', 'dask', None"),
        (5, "executor is 5; allowed are 'loop', 'thread', 'process', 'dask', None"),
    ],
)
def test_an_executor_that_nobody_has_is_refused_where_the_step_is_declared(executor, text):
    flow = Jobs().flow("f")
    with pytest.raises(BadJob, match=re.escape(text)):
        flow.step(executor=executor)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("timeout", "a step has no option 'timeout'; that is of the whole flow; within an async def write `async with"),
        ("retries", "a step has no option 'retries'; did you mean 'retry'? options of a step are: name, after, retry"),
        (
            "group",
            "a step has no option 'group'; options of a step are: name, after, retry, optional, executor; others",
        ),
    ],
)
def test_an_option_that_steps_do_not_have_is_refused_with_what_to_write(option, text):
    with pytest.raises(BadJob, match=re.escape(text)):
        Flow("one").step(**{option: "5s"})


def test_names_and_executors_of_steps_are_checked():
    flow = Flow("f")
    with pytest.raises(BadJob, match="step name"):
        flow.step(name="a b")(plain)
    with pytest.raises(BadJob, match="async def, which runs on the loop"):
        flow.step(executor="thread")(on_loop)
    flow.step()(on_loop)
    with pytest.raises(BadJob, match="no step 'on_lop'; did you mean 'on_loop'"):
        flow.downstream("on_lop")


def plain() -> None: ...


async def on_loop() -> None: ...


class Odd:
    def __eq__(self, _):
        raise RuntimeError("no")

    __hash__ = None


def test_defaults_that_cannot_be_compared_are_lived_with():
    flow = Flow("f")
    one, two = Odd(), Odd()

    @flow.step()
    async def first(a=one) -> None: ...

    @flow.step()
    async def second(a=two) -> None: ...

    with pytest.raises(BadJob, match="both take 'a'"):
        flow.bind()


def test_an_annotation_of_a_step_that_cannot_be_read_is_named():
    """It was said of another parameter, which both steps wrote alike, that it was not."""
    flow = Flow("f")

    @flow.step()
    async def first(a: int, b: Unknown = None) -> None: ...  # noqa: F821

    @flow.step()
    async def second(a: int) -> None: ...

    with pytest.raises(BadJob, match=r"job 'f\.first': the annotation of 'b' names 'Unknown', which cannot be found"):
        flow.bind(a=1)


async def test_a_step_skipped_by_two_that_failed_is_skipped_once(virtual_time):
    scheduler = TaskScheduler(options=Options())
    flow = scheduler.flow("f")

    @flow.step(retry=1)
    async def a() -> None:
        raise ValueError

    @flow.step(retry=1)
    async def b() -> None:
        raise ValueError

    @flow.step()
    async def c(a: None, b: None) -> None: ...

    async with virtual_time(scheduler) as time:
        run = await time.until((await flow.submit()).wait())
        assert run.result["steps"]["c"]["state"] == "skipped"


def test_secrets_in_lists_and_as_keys():
    assert clean_value(["a secret", {"a secret": 1}, 2], lambda text: text.replace("secret", "*")) == [
        "a *",
        {"a *": 1},
        2,
    ]
    assert len({Secret("x"), Secret("x")}) == 1


def test_values_of_any_shape_are_looked_through():
    def job(run: RunContext, value) -> None: ...

    parameters = Parameters("job", job)
    with pytest.raises(BadParameters, match="at value.1.2: is no JSON"):
        parameters.check({"value": [[1], [1, "a", object()]]})
    deep: list = []
    for _ in range(150):  # of the 200 there may be
        deep = [deep]
    deep[0].append(object())
    with pytest.raises(BadParameters, match="at value.0.1: is no JSON"):
        parameters.check({"value": deep})


def test_a_job_may_be_taken_from_another_collection():
    flow = Flow("f")
    scheduler = TaskScheduler(options=Options())
    scheduler.adopt(flow)
    assert scheduler["f"] is flow


class Shapeless:
    """Pydantic knows no schema of it."""


def test_a_type_without_a_schema_holds_no_secret():
    def job(value: Shapeless) -> None: ...

    assert not Parameters("job", job).is_secret("value")


def test_an_outcome_that_holds_no_words_is_left_as_it_is():
    from taskloop.masking import clean_outcome, tagged
    from taskloop.runs import Cancelled

    assert clean_outcome(Cancelled("enough"), str.upper) == Cancelled("enough")
    with pytest.raises(TypeError, match="not JSON"):
        tagged(object())


def test_one_step_to_come_after_may_be_named_alone():
    flow = Flow("alone")

    @flow.step()
    async def first(): ...

    @flow.step(after="first")
    async def second(): ...

    @flow.step(after=second)
    async def third(): ...

    assert flow.order() == [["first"], ["second"], ["third"]]


def test_a_step_that_no_other_can_need_is_declared_without_a_look_at_all_the_others():
    asked = []

    class Asked(Flow):
        def needs(self, name):
            asked.append(name)
            return super().needs(name)

    flow = Asked("long")

    async def work(): ...

    for number in range(300):
        flow.step(name=f"s{number}", after=[f"s{number - 1}"] if number else ())(work)
    assert len(asked) < 3_000
    assert flow.order() == [[f"s{number}"] for number in range(300)]


def test_layers_keep_the_order_in_which_steps_were_declared_whatever_they_come_after():
    flow = Flow("late")

    async def work(): ...

    for name, after in (("d", ("c", "a")), ("b", ()), ("c", ("b",)), ("a", ())):
        flow.step(name=name, after=after)(work)
    assert flow.order() == [["b", "a"], ["c"], ["d"]]
