"""What the store says of itself is for admins: it names its file with the path, or its server.

Pure. Who may less is told that it does not answer, and where the rest stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from taskloop.attention import Item
from taskloop.chain import Check
from taskloop.store_data import Incident
from taskloop.why import Explanation

__all__ = ["UNTOLD", "explained", "facts", "incident", "item", "wanting"]

UNTOLD: Final = "the store does not answer; the log of the server says why"
_OF_THE_STORE: Final = ("store", "store_lost", "store_back")
_AWAY: Final = "is away: "


def facts(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an incident or an event of this kind."""
    return {**data, "error": UNTOLD} if kind in _OF_THE_STORE and "error" in data else dict(data)


def incident(one: Incident) -> Incident:
    """What disturbed a worker."""
    return Incident(one.worker, one.kind, one.since, one.until, facts(one.kind, one.data))


def wanting(one: Mapping[str, Any]) -> dict[str, Any]:
    """What needs a person, as the status has it."""
    return {**one, "text": UNTOLD} if one["condition"] in _OF_THE_STORE else dict(one)


def item(one: Item) -> Item:
    """The same as `attention` has it."""
    return replace(one, text=UNTOLD) if one.kind in _OF_THE_STORE else one


def explained(one: Explanation) -> Explanation:
    """Why a job ran or did not."""
    said = [
        str(check.data.get("error") or check.text.removeprefix(_AWAY))
        for check in one.checks
        if check.name == "store" and ("error" in check.data or check.text.startswith(_AWAY))
    ]

    def without(text: str) -> str:
        for error in said:
            text = text.replace(error, UNTOLD)
        return text

    checks = (
        Check(link.name, link.ok, without(link.text), facts(link.name, link.data), link.code) for link in one.checks
    )
    return replace(one, text=without(one.text), checks=tuple(checks))
