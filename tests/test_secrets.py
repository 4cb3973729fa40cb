"""Parameters that are shown nowhere: kept for the job, and gone from records, pages, lines, events and errors."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, SecretStr
from stores import database

from taskloop import Every, Options, RunContext, TaskScheduler
from taskloop.errors import BadJob, BadParameters, KeyConflict
from taskloop.masking import MASK, Secret, read_params, scrubber, shown
from taskloop.records import run_record, schedule_record

pytestmark = pytest.mark.anyio

PASSWORD = "hunter2-and-more"  # noqa: S105 - of a test


class Account(BaseModel):
    user: str
    password: SecretStr


@dataclass
class Login:
    token: SecretStr


async def ended(time, asking):
    return await time.until((await asking).wait())


@pytest.fixture
def seen():
    return []


@pytest.fixture
def secretive(seen):
    scheduler = TaskScheduler(options=Options())

    @scheduler.job(secret=("key",))
    async def sign(
        key: str, text: str = "x", *, account: Account | None = None, login: list[Login] | None = None
    ) -> str:
        seen.append(
            (key, text, account and account.password.get_secret_value(), login and login[0].token.get_secret_value())
        )
        return "signed"

    @scheduler.job()
    async def leak(password: SecretStr, run: RunContext, fails: bool = True) -> dict[str, str]:
        clear = password.get_secret_value()
        run.log(f"with {clear}")
        logging.getLogger("leaky").error("with %s", clear)
        run.progress(1, 2, f"using {clear}")
        if fails:
            raise ValueError(f"{clear} was refused")
        return {"used": f"it was {clear}"}

    return scheduler


async def test_the_job_gets_what_was_given_and_nobody_else_sees_it(secretive, seen, virtual_time, tmp_path):
    async with virtual_time(secretive, store=f"sqlite:///{tmp_path}/a.db") as time:
        account = Account(user="ann", password=SecretStr("account-secret"))
        given = {"key": PASSWORD, "account": account, "login": [Login(SecretStr("login-secret"))]}
        handle = await secretive.submit("sign", given)
        run = await time.until(handle.wait())
        assert run.state == "succeeded" and seen == [(PASSWORD, "x", "account-secret", "login-secret")]
        record = run_record(await secretive.run(handle.id))
        assert record["params"] == {"key": MASK, "account": MASK, "login": MASK}
        assert "secret" not in json.dumps(record) and PASSWORD not in repr(handle.run) + repr(run) + str(run.params)
    with database(tmp_path / "a.db") as db:
        [text] = db.execute("SELECT params FROM taskloop_runs").fetchone()
        assert json.loads(text)["key"] == {"$secret": PASSWORD}, "the job needs it"


async def test_what_a_job_says_of_its_secrets_is_masked(secretive, virtual_time):
    told = []
    secretive.on("progress", "failed", "succeeded")(lambda event: told.append(repr(event)))
    async with virtual_time(secretive) as time:
        run = await ended(time, secretive.submit("leak", {"password": PASSWORD}))
        assert run.error.message == f"{MASK} was refused" and PASSWORD not in run.error.traceback
        assert run.progress.message == f"using {MASK}" and run.summary == f"{MASK} was refused"
        assert [line.text for line in (await secretive.log(run.id)).lines] == [f"with {MASK}"] * 2
        good = await ended(time, secretive.submit("leak", {"password": PASSWORD, "fails": False}))
        assert good.result == {"used": f"it was {MASK}"}
    assert told and not any(PASSWORD in one for one in told)


async def test_a_run_again_keeps_the_secret_and_a_key_compares_it(secretive, seen, virtual_time):
    async with virtual_time(secretive) as time:
        sign = secretive["sign"]
        first = await sign.bind(key=PASSWORD).submit(key="once")
        await time.until(first.wait())
        assert (await sign.bind(key=PASSWORD).submit(key="once")).existed
        with pytest.raises(KeyConflict):
            await sign.bind(key="another").submit(key="once")
        await ended(time, secretive.rerun(first.id, {"text": "y"}))
        assert seen[-1][:2] == (PASSWORD, "y")


async def test_a_schedule_fires_with_the_secret_and_shows_none(secretive, seen, virtual_time):
    async with virtual_time(secretive) as time:
        await secretive.schedule("sign", Every("1h"), id="hourly", params={"key": PASSWORD})
        await time.advance("1m")
        [schedule] = await secretive.schedules()
        assert schedule_record(schedule)["params"] == {"key": MASK} and PASSWORD not in repr(schedule)
        assert seen == [(PASSWORD, "x", None, None)]


async def test_steps_of_a_flow_get_it_and_their_errors_do_not_tell_it(virtual_time):
    scheduler = TaskScheduler(options=Options())
    flow = scheduler.flow("signing", secret=("key",))

    @flow.step(retry=1)
    async def sign(key: str) -> None:
        raise ValueError(f"{key} is wrong")

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(key=PASSWORD))
        assert run.error.message == f"step 'sign': {MASK} is wrong"
        assert PASSWORD not in json.dumps(run_record(run)) and PASSWORD not in repr(await scheduler.steps(run.id))


def test_a_refusal_names_the_parameter_and_not_its_value(secretive):
    with pytest.raises(BadParameters) as refused:
        secretive["leak"].bind(password=[PASSWORD])
    assert PASSWORD not in str(refused.value) and f"got {MASK}" in str(refused.value)
    with pytest.raises(BadParameters, match=r"has the key '\$secret'"):
        untyped().bind({"$secret": 1})


def untyped():
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def job(facts) -> None: ...

    return job


def test_the_schema_says_that_it_is_only_written(secretive):
    schema = secretive["sign"].parameters.schema()["properties"]
    assert {name: one.get("writeOnly", False) for name, one in schema.items()} == {
        "key": True, "text": False, "account": True, "login": True
    }  # fmt: skip


def test_a_secret_that_is_no_parameter_is_refused_when_declared():
    scheduler = TaskScheduler(options=Options())
    with pytest.raises(BadJob, match="secret names 'pasword', which is no parameter of it; did you mean 'password'"):

        @scheduler.job(secret=["pasword"])
        async def job(password: str) -> None: ...


def test_short_secrets_are_not_searched_for_in_what_a_job_says():
    assert scrubber({"pin": Secret("12")})("12 of 12") == "12 of 12"
    assert scrubber({"pin": Secret({"a": ["12345", None, True]})})("pin 12345") == f"pin {MASK}"
    assert scrubber({"name": "ann"}) is None
    assert repr(Secret("x")) == str(Secret("x")) == MASK and Secret("x") == Secret("x") != Secret("y")
    assert shown(read_params('{"a": {"$secret": 1}, "b": 2}')) == {"a": MASK, "b": 2}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"orders": [1, {"customer": object()}]}, "at orders.1.customer: a object is no JSON"),
        ([float("inf")], "at 0: inf is no JSON"),
        ({(1, 2): 3}, "a tuple cannot be a key of JSON"),
    ],
    ids=["object", "infinite", "key"],
)
def test_what_cannot_be_stored_is_refused_with_the_path_to_it(value, where):
    with pytest.raises(BadParameters, match=where):
        untyped().bind(value)
