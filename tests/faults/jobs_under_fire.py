"""The module of jobs that the product loads. Each call says its beginning and its end to the witness.

`alone`, `company` and `company_next`, the next version of the program, are what `config.toml` may name as app.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import rules
from facts import Rule
from witness import Witness

from taskloop import Cron, Every, Jobs, Retry, RunContext
from taskloop.clock import microseconds

witness = Witness()


def token_of(run: RunContext) -> int:
    """The token of the claim. A job has no use for it, so the context does not show it; the witness has."""
    return run._run.token


def _begins(run: RunContext) -> None:
    witness.begin(
        job=run.job, schedule=run.schedule, due=microseconds(run.due_at), run=str(run.id), key=run.key,
        attempt=run.attempt, token=token_of(run), worker=run.worker
    )  # fmt: skip


def _ends(run: RunContext, rule: Rule) -> None:
    """The last line of a call; raises where the rule says that this attempt fails."""
    fails = run.attempt <= rule.fails
    witness.end(run=str(run.id), attempt=run.attempt, token=token_of(run), outcome="raised" if fails else "returned")
    if fails:
        raise ValueError(f"attempt {run.attempt} fails, as it should")


def _function(rule: Rule) -> Callable[..., Any]:
    async def on_the_loop(run: RunContext) -> None:
        _begins(run)
        try:
            await asyncio.sleep(rule.takes)
        except asyncio.CancelledError:
            witness.end(run=str(run.id), attempt=run.attempt, token=token_of(run), outcome="cancelled")
            raise
        _ends(run, rule)

    def in_a_thread(run: RunContext) -> None:
        _begins(run)
        time.sleep(rule.takes)
        _ends(run, rule)

    return in_a_thread if rule.thread else on_the_loop


def _policy(rule: Rule) -> dict[str, Any]:
    policy: dict[str, Any] = {"overlap": rule.overlap, "missed": rule.missed, "first": rule.first}
    if rule.attempts > 1:
        policy["retry"] = Retry(attempts=rule.attempts, first="50ms", factor=1.0)
    for name in ("on_crash", "group", "max_running"):
        if getattr(rule, name) is not None:
            policy[name] = getattr(rule, name)
    return policy


def declared(wanted: Iterable[Rule], *, version: int = 2) -> Jobs:
    """The jobs of these rules; in version 1 a job that was renamed has its earlier name."""
    found = Jobs()
    for rule in wanted:
        trigger = Every(rule.every) if rule.every else Cron(rule.cron) if rule.cron else None
        name, aliases = rule.name, (rule.formerly,) if rule.formerly else ()
        if version == 1 and rule.formerly:
            name, aliases = rule.formerly, ()
        found.add_job(_function(replace(rule)), trigger, name=name, aliases=aliases, **_policy(rule))
    return found


alone = declared(rules.ALONE.values())
company = declared(rules.COMPANY.values(), version=1)
company_next = declared(rules.COMPANY.values(), version=2)
