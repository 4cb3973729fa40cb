"""Parameters that are shown nowhere: kept for the job, and gone from records, pages, lines, events and errors."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType
from urllib.parse import urlencode

import pydantic
import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from loguru import logger
from pydantic import BaseModel, Field, SecretBytes, SecretStr
from stores import database

from taskloop import Every, Inject, Options, Retry, RunContext, TaskScheduler, current_run
from taskloop.errors import BadJob, BadParameters, KeyConflict
from taskloop.masking import MASK, Secret, clean_value, covered, read_params, scrubber, shown
from taskloop.parameters import Parameters
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


async def test_a_secret_that_is_a_default_of_the_function_is_shown_nowhere_either(virtual_time):
    scheduler = TaskScheduler(options=Options())

    @scheduler.job(secret=("key",))
    async def fail(password: SecretStr = SecretStr(PASSWORD), key: str = "a-key-of-the-function", loud: bool = True):
        if loud:
            raise ValueError(f"login failed with {password.get_secret_value()} and {key}")
        return [password.get_secret_value(), key]

    async with virtual_time(scheduler) as time:
        failed, well = await ended(time, fail.submit()), await ended(time, fail.submit(loud=False))
    assert failed.error.message == f"login failed with {MASK} and {MASK}" and well.result == [MASK, MASK]
    assert PASSWORD not in str(run_record(failed)) + str(run_record(well))


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


async def test_what_a_step_gives_is_masked_for_readers_and_clear_for_the_steps_after_it(virtual_time):
    scheduler = TaskScheduler(options=Options())
    flow = scheduler.flow("sealed", secret=("key",))

    @flow.step()
    async def opened(key: str) -> str:
        return f"by {key}"

    @flow.step()
    async def used(opened: str) -> int:
        return len(opened)

    async with virtual_time(scheduler) as time:
        run = await ended(time, flow.submit(key=PASSWORD))
        steps = {one.name: one.result for one in await scheduler.steps(run.id)}
        assert steps == {"opened": f"by {MASK}", "used": len(f"by {PASSWORD}")}
        assert run.result["steps"]["opened"]["result"] == f"by {MASK}"
        again = await ended(time, scheduler.rerun(run.id, from_step="used"))
        assert again.result["steps"]["used"]["result"] == len(f"by {PASSWORD}")


async def test_what_a_job_says_of_its_secrets_is_masked(secretive, virtual_time):
    told = []
    secretive.on("progress", "failed", "succeeded")(
        lambda event: told.append(repr(event) + json.dumps(event.run.params))
    )
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


async def test_no_name_of_a_step_and_no_complaint_of_a_provider_tells_it(virtual_time):
    scheduler, told, lines = TaskScheduler(options=Options()), [], []

    def broken(run: RunContext):
        try:
            yield run.params["key"].clear
        finally:
            raise OSError(f"logged out of {run.params['key'].clear}")

    @scheduler.job(secret=("key",))
    async def job(run: RunContext, key: str, session: str = Inject(broken)) -> None:
        await run.step(f"sign in by {key}", sign_in)
        raise ValueError

    async def sign_in() -> None:
        current_run().log("signed in")

    scheduler.on("step_started", "step_done")(lambda event: told.append(event.data["step"]))
    sink = logger.add(lambda message: lines.append(repr(message.record["extra"])), level=0)
    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit(key=PASSWORD))
        [line] = (await scheduler.log(run.id)).lines
    logger.remove(sink)
    assert line.step == f"sign in by {MASK}" and set(told) == {f"sign in by {MASK}"}
    assert any("logged out of" in one for one in lines) and PASSWORD not in repr(lines)


async def test_what_a_step_gave_is_shown_without_the_secret_and_the_run_goes_on_with_all_of_it(virtual_time):
    scheduler, used = TaskScheduler(options=Options()), []

    @scheduler.job(secret=("key",), retry=Retry(2, first="1s"))
    async def job(run: RunContext, key: str) -> None:
        used.append(await run.step(f"sign in by {key}", sign_in, key))
        if run.attempt == 1:
            raise ValueError

    async def sign_in(key: str) -> dict[str, str]:
        return {"token": f"for {key}"}

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit(key=PASSWORD))
        [step] = await scheduler.steps(run.id)
    assert used == [{"token": f"for {PASSWORD}"}] * 2
    assert step.name == f"sign in by {MASK}" and step.result == {"token": f"for {MASK}"}


def test_a_refusal_names_the_parameter_and_not_its_value(secretive):
    with pytest.raises(BadParameters) as refused:
        secretive["leak"].bind(password=[PASSWORD])
    assert PASSWORD not in str(refused.value) and f"got {MASK}" in str(refused.value)
    with pytest.raises(BadParameters, match=r"the key '\$secret' is kept for secrets"):
        untyped().bind({"$secret": 1})


def untyped():
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def job(facts) -> None: ...

    return job


def test_what_stands_for_a_secret_is_refused_in_its_place(secretive):
    for given in ({"key": MASK}, {"key": PASSWORD, "account": MASK}):
        with pytest.raises(BadParameters, match="stands for a secret, not the secret"):
            secretive["sign"].parameters.check(given)
    assert secretive["sign"].parameters.check({"key": PASSWORD, "text": MASK})["text"] == MASK


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
    sent = urlencode({"user": "ann", "password": "two words/1"})
    assert scrubber({"b": Secret("two words/1")})(sent) == f"user=ann&password={MASK}"
    assert repr(Secret("x")) == str(Secret("x")) == MASK and Secret("x") == Secret("x") != Secret("y")
    assert shown(read_params('{"a": {"$secret": 1}, "b": 2}')) == {"a": MASK, "b": 2}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"orders": [1, {"customer": object()}]}, "at facts.orders.1.customer: is no JSON.*, got <object"),
        ([float("inf")], "at facts.0: is not JSON compliant: a number must be finite, got inf"),
        ({(1, 2): 3}, "has a key that is no text"),
    ],
    ids=["object", "infinite", "key"],
)
def test_what_cannot_be_stored_is_refused_with_the_path_to_it(value, where):
    with pytest.raises(BadParameters, match=where):
        untyped().bind(value)


# -- what is hidden where it is hard to find


class Keys(BaseModel):
    other: list[Login] = []
    by_name: dict[str, pydantic.Secret[int]] = {}


class Ring(BaseModel):
    other: Ring | None = None
    words: list[SecretBytes] = []


class Odd:
    there: NoSuchName  # noqa: F821


Alias = NewType("Alias", SecretStr)


@pytest.mark.parametrize(
    ("hint", "hides"),
    [
        *((hint, True) for hint in (SecretStr, SecretStr | None, dict[str, Account], Keys, Ring, Login, Alias)),
        *((hint, True) for hint in (pydantic.Secret[int], Annotated[SecretStr, Field(min_length=3)])),
        *((hint, False) for hint in (list[int], Literal["a", 1], BaseModel, Odd, dict[str, Any], "later", None)),
    ],
    ids=str,
)
def test_a_secret_of_pydantics_is_found_wherever_an_annotation_has_it(hint, hides):
    assert covered(hint) is hides


def test_a_secret_of_any_type_is_rebuilt_for_the_call():
    def job(keys: Keys, ring: Ring) -> None: ...

    parameters = Parameters("job", job)
    given = {
        "keys": Keys(other=[Login(SecretStr("t"))], by_name={"a": pydantic.Secret[int](7)}),
        "ring": {"other": {"words": ["w"]}},
    }
    plain = parameters.check(given)
    assert plain["keys"].clear == {"other": [{"token": "t"}], "by_name": {"a": 7}}
    rebuilt = parameters.rebuild(plain)
    assert rebuilt["keys"] == given["keys"] and rebuilt["ring"].other.words == [SecretBytes(b"w")]
    assert parameters.check(rebuilt) == parameters.check(plain) == plain


class Pin(BaseModel):
    pin: Annotated[str, Field(json_schema_extra={"writeOnly": True})] = ""


def test_what_its_schema_says_is_only_written_is_secret_too():
    def job(pin: Pin) -> None: ...

    assert isinstance(Parameters("job", job).check({"pin": {"pin": "1"}})["pin"], Secret)


class Picky(BaseModel):
    word: SecretStr

    @pydantic.field_validator("word")
    @classmethod
    def refuse(cls, word: SecretStr) -> SecretStr:
        raise ValueError(f"{word.get_secret_value()} is too easy")


class Shapeless:
    """Nothing that could be stored."""

    def __repr__(self) -> str:
        return PASSWORD


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"account": {"user": 7, "password": PASSWORD}}, "at account.user: input should be a valid string, got"),
        ({"account": {"user": PASSWORD, "password": 7}}, "at account.password: input should be a valid string, got"),
        ({"account": {"user": PASSWORD}}, "at account.password: field required, got"),
        ({"picky": {"word": PASSWORD}}, "at picky.word: does not fit, got"),
        ({"pin": PASSWORD}, "input should be a valid integer"),
        ({"choice": PASSWORD}, "input should be 'a' or 'b', got"),
        ({"free": {PASSWORD}}, "is no JSON"),
        ({"free": {"$secret": PASSWORD}}, "the key '$secret' is kept for secrets"),
        ({"table": {"x": float("nan"), "y": PASSWORD}}, "at table.x: is not JSON compliant"),
        ({"shapeless": Shapeless()}, "is annotated Shapeless, which is no plain configuration"),
    ],
)
def test_no_refusal_tells_of_a_secret_wherever_the_fault_lies(given, text):
    def job(
        account: Account | None = None, picky: Picky | None = None, pin: int = 1, choice: Literal["a", "b"] = "a",
        table: Any = 1, free=None, shapeless: Shapeless = None,
    ) -> None: ...  # fmt: skip

    parameters = Parameters("job", job)
    parameters.keep_secret(["pin", "choice", "table", "free", "shapeless"])
    with pytest.raises(BadParameters) as refused:
        parameters.check(given)
    assert text in str(refused.value) and f"got {MASK}" in str(refused.value) and PASSWORD not in str(refused.value)


def test_a_stored_secret_that_fits_no_more_is_not_told_however_short():
    def job(pin: int, count: int = 1) -> None: ...

    parameters = Parameters("job", job)
    with pytest.raises(BadParameters) as refused:
        parameters.rebuild({"pin": Secret("xyz")})
    assert "xyz" not in str(refused.value) and MASK in str(refused.value)
    assert refused.value.__context__ is None, "what pydantic says of it has the secret"
    with pytest.raises(BadParameters, match="parameter 'count': input should be a valid integer.*got 'xyz'"):
        parameters.rebuild({"count": "xyz"})


def test_a_secret_is_found_as_others_write_it():
    scrub = scrubber({"a": Secret('pa"ss\\wörd/1\n'), "b": Secret(4711)})
    secret = 'pa"ss\\wörd/1\n'
    wrote = [secret, repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)]
    wrote += ["https://u:pa%22ss%5Cw%C3%B6rd%2F1%0A@host"]
    wrote += ["https://host/?to=pa%22ss%5Cw%C3%B6rd/1%0A"]
    assert [text for text in wrote if "rd" in scrub(text) or MASK not in scrub(text)] == []
    assert clean_value({"n": [4711, 14711.5, True, 4.5]}, scrub) == {"n": [MASK, 14711.5, True, 4.5]}


def test_half_a_secret_at_the_cut_of_a_text_is_masked_too():
    scrub = scrubber({"a": Secret(PASSWORD), "b": Secret("other")})
    assert scrub(f"x{PASSWORD[:9]}\n… 80 characters left out …\n{PASSWORD[-6:]}y") == (
        f"x{MASK}\n… 80 characters left out …\n{MASK}y"
    )
    assert scrub(f"no luck with {PASSWORD[:5]}…") == f"no luck with {MASK}…"
    assert scrub("hun…ore … and …") == "hun…ore … and …"
    assert scrubber({"a": Secret("x")})("x…") == "x…"


async def test_no_half_of_a_secret_is_left_where_a_record_is_cut(virtual_time):
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def job(run: RunContext, word: SecretStr):
        clear = word.get_secret_value()
        run.progress(1, message="x" * (1000 - 5) + clear)
        run.log("x" * (4000 - 5) + clear + "x" * 9000)
        raise OSError("x" * (2000 - 5) + clear + "x" * 4000)

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit(SecretStr(PASSWORD)))
        lines = await scheduler.log(run.id)
        for told in (run.error.message, run.error.traceback, run.progress.message, repr(lines)):
            assert PASSWORD[:5] not in told
        assert MASK in run.error.message and run.progress.message.endswith("x*****")


async def test_a_secret_handed_on_to_another_job_stays_one(virtual_time):
    scheduler, seen = TaskScheduler(options=Options()), []

    @scheduler.job()
    async def child(word: str):
        seen.append(word)

    @scheduler.job(secret=("word",))
    async def parent(run: RunContext, word: str):
        await child.submit(run.params["word"])

    async with virtual_time(scheduler) as time:
        await parent.submit(PASSWORD)
        await time.run_until_idle()
        [run] = await time.runs("child")
        assert isinstance(run.params["word"], Secret)
    assert seen == [PASSWORD]


def test_defaults_name_secrets_of_those_jobs_that_have_them():
    def job(token: str) -> None: ...

    one = TaskScheduler(options=Options()).add_job(job)
    one.configure({"secret": ("token", "password")}, {})
    assert isinstance(one.bind("t").params["token"], Secret)
    with pytest.raises(BadJob, match="'password'"):
        one.configure({}, {"secret": ("token", "password")})


PROGRAM = """
from pydantic import SecretStr
from taskloop import Jobs

jobs = Jobs()


@jobs.job(secret=("pin",))
async def login(user: str, password: SecretStr, pin: int = 1) -> str:
    return f"{user} {password.get_secret_value()}"
"""


def test_no_command_shows_a_secret(shop, call):
    shop.write("shop.py", PROGRAM)
    asked = call("submit", "login", "user=anna", f"password={PASSWORD}", "pin:=471147", "--format", "json")
    assert asked.data["params"] == {"user": "anna", "password": MASK, "pin": MASK}
    for wrong in (f'password:=["{PASSWORD}"]', f"password:={PASSWORD}"):
        refused = call("submit", "login", "user=anna", wrong)
        assert refused.code == 2 and PASSWORD not in refused.err and MASK in refused.err
    done = [call("once", "login", "user=anna", f"password={PASSWORD}", "pin=471147"), call("show", "1")]
    done += [call("show", "2"), call("runs"), call("runs", "--format", "json"), call("why", "2"), call("rerun", "2")]
    done += [call("show", "3"), call("show", "login"), call("show", "login", "--format", "json"), call("list")]
    assert PASSWORD not in repr(done) and "471147" not in repr(done)
    assert f"pin={MASK}" in done[1].out and f"anna {MASK}" in done[2].out


def test_a_file_says_which_parameters_are_secret(shop, call):
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.add]\nsecret = ["note"]\n')
    assert call("submit", "add", "a=1", "note=hi", "--format", "json").data["params"] == {"a": 1, "note": MASK}
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.add]\nsecret = ["notes"]\n')
    assert "did you mean 'note'" in call("submit", "add", "a=1").err
    shop.write("config.toml", '[scheduler]\napp = "shop:jobs"\n[jobs.add]\nsecret = "note"\n')
    assert call("submit", "add", "a=1").code == 7
