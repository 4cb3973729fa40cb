"""The API as OpenAPI 3.1, made of the table of routes; and of each job what it takes.

A job's own address stands beside the general one, `…/jobs/report/submit` beside `…/jobs/{job}/submit`, with the schema of
its parameters: so a form, or a client, can be made of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from taskloop import __version__
from taskloop.jobs import Job
from taskloop.tasks import Turns
from taskloop.web.core import breathing, written
from taskloop.web.problems import TITLES
from taskloop.web.routes import Parameter, Route

__all__ = ["Described", "describe"]

MOST_JOBS: Final = 500
"""Jobs with an address of their own in the description."""
MOST_PREFIXES: Final = 4
"""Places of mount whose description is kept: what is in front of the server may say them as it likes."""

_TEXT: Final = {"type": ["string", "null"]}
_INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
_NUMBER: Final = {"type": ["integer", "null"]}


class Described:
    """The description as it is sent, kept until another job is there or one has gone: hundreds of schemas take a tenth of a
    second to write, and hardly ever change.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [one for one in routes if not one.page]
        self._kept: dict[str, tuple[list[Job[..., Any]], bytes]] = {}
        """By prefix: of which jobs, and the JSON."""
        self._turns = Turns()

    async def text(self, jobs: Iterable[Job[..., Any]], prefix: str) -> bytes:
        """The JSON for who asks at this prefix. Made in a thread; whoever asks meanwhile waits for the same."""
        here = list(jobs)[:MOST_JOBS]
        async with self._turns:
            known, text = self._kept.get(prefix, ([], b""))
            if not text or len(known) != len(here) or any(one is not old for one, old in zip(here, known, strict=True)):
                text = await written(await asyncio.to_thread(describe, self._routes, here, prefix))
                while len(self._kept) >= MOST_PREFIXES:
                    del self._kept[next(iter(self._kept))]
                self._kept[prefix] = (here, text)
            return text


def describe(routes: Sequence[Route], jobs: Iterable[Job[..., Any]] = (), prefix: str = "") -> dict[str, Any]:
    """The description. `jobs`: whose parameters it shows; `prefix`: where it is mounted."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    params: dict[str, Any] = {}
    submit = next(one for one in routes if one.name == "submit")
    for job in breathing(jobs):
        # Without dots, which makers of clients take for modules, and told apart by what they leave in a name.
        base = name = f"params_{re.sub('[^A-Za-z0-9_-]', '_', job.name)}"
        number = 1
        while name in params:  # as of 'a:b' beside 'a_b'
            number += 1
            name = f"{base}_{number}"
        params[name] = _alone(job.parameters.schema(), f"urn:taskloop:params:{job.name}")
        paths[submit.path.replace("{job}", job.name)] = {"post": _submit_of(submit, job, name)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "taskloop", "version": __version__, "description": "Background jobs: look, ask, switch."},
        "servers": [{"url": prefix or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**_SCHEMAS, **params},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "problem": {
                    "description": "What went wrong",
                    "content": {"application/problem+json": {"schema": _ref("Problem")}},
                }
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", route.path)
        ),
        *(_parameter(one, "query") for one in route.query),
        *(_parameter(one, "header") for one in route.headers),
    ]
    body = _body(route)
    needed = {"required": True} if body and "required" in body else {}
    return {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [_tag(route)],
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": {**needed, "content": {"application/json": {"schema": body}}}} if body else {}),
        "responses": {
            **{str(status): _response(kind) for status, kind in route.gives.items()},
            "default": {"$ref": "#/components/responses/problem"},
        },
        **({"security": []} if route.scope is None else {"x-scope": route.scope.name}),
    }


def _submit_of(submit: Route, job: Job[..., Any], schema: str) -> dict[str, Any]:
    """The submit of one job."""
    operation = _operation(submit)
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    params = _ref(schema) if job.parameters.required else _or_null(_ref(schema))
    properties = {**body["properties"], "params": params}
    needed = {"required": ["params"]} if job.parameters.required else {}
    return {
        **operation,
        "operationId": f"submit:{job.name}",
        "summary": f"Ask for a run of {job.name}",
        "description": job.description,
        "parameters": [one for one in operation["parameters"] if one["in"] != "path"],
        "requestBody": {
            "required": bool(needed),
            "content": {"application/json": {"schema": {**body, "properties": properties, **needed}}},
        },
    }


def _tag(route: Route) -> str:
    parts = route.path.removeprefix("/api/v1").strip("/").split("/")
    return parts[0] if route.path.startswith("/api/") or parts[0] in ("tasks", "admin") else "health"


def _parameter(one: Parameter, where: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": where,
        "required": one.required,
        "description": one.summary,
        "schema": dict(one.kind.schema),
        **({"allowEmptyValue": True} if where == "query" else {}),  # as if it were left out: what a form sends
    }


def _body(route: Route) -> dict[str, Any] | None:
    if route.free_body is not None:
        return {"type": "object", "description": route.free_body}
    if not route.body:
        return None
    needed = [one.name for one in route.body if one.required]
    return {
        "type": "object",
        "properties": {
            one.name: {**(one.kind.schema if one.required else _or_null(one.kind.schema)), "description": one.summary}
            for one in route.body
        },
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
    }


def _response(kind: str) -> dict[str, Any]:
    if kind == "nothing":
        return {"description": "Nothing comes with it"}
    if kind == "stream":
        return {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    if kind == "text":
        return {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    if kind == "file":
        files = ("text/csv", "application/jsonl")
        return {"description": "A file", "content": {one: {"schema": {"type": "string"}} for one in files}}
    known = kind in _SCHEMAS
    schema: dict[str, Any] = _ref(kind) if known else {} if kind == "any" else {"type": "object"}
    return {"description": kind if known else "JSON", "content": {"application/json": {"schema": schema}}}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Null is as if it were left out."""
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else {}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _alone(schema: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """A schema whose references to definitions of its own stay right wherever it stands: it gets an identity."""
    made = {
        key: {name: _alone(one, f"{identity}:{name}") for name, one in value.items()} if key == "properties" else value
        for key, value in schema.items()
    }
    return {"$id": identity, **made} if "$defs" in schema else made


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties)}


def _all(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: dict(schema) for name in names}


def _list(item: Mapping[str, Any]) -> dict[str, Any]:
    """What makes clients wants to know of what a list is, and leaves out what has one of anything."""
    return {"type": "array", "items": dict(item)}


def _page(name: str, following: Mapping[str, Any] = _TEXT) -> dict[str, Any]:
    return _object(
        {"items": _list(_ref(name)), "next": {**following, "description": "`before` of the next page, or null"}}
    )


def _schemas() -> dict[str, Any]:
    run: dict[str, Any] = {
        **_all({"type": "integer"}, "id", "attempt", "attempts", "count", "priority"),
        **_all({"type": "string"}, "job", "state", "status", "cause"),
        **_all(_TEXT, "schedule", "reason", "actor", "key", "worker", "summary"),
        **_all(_INSTANT, "due_at", "until_at", "ready_at", "created_at", "started_at", "ended_at"),
        **_all({"type": ["object", "null"]}, "progress", "error"),
        **_all({"type": "object"}, "params", "data"),
        "rerun_of": _NUMBER,
        "result": {},
        "existed": {"type": "boolean"},
    }
    job: dict[str, Any] = {
        **_all({"type": "string"}, "name", "title", "description", "kind", "trigger_text", "condition"),
        **_all({"type": "object"}, "policy", "params_schema"),
        "trigger": _TEXT,
        "enabled": {"type": "boolean"},
        "switch": {"type": ["object", "null"]},
        **_all(_INSTANT, "next_due", "last_success"),
        "last_run": {"oneOf": [_ref("Run"), {"type": "null"}]},
        "consecutive_failures": {"type": "integer"},
    }
    schedule = {
        **_all({"type": "string"}, "id", "job", "trigger", "trigger_text"),
        "params": {"type": "object"},
        **_all(_INSTANT, "next_due", "last_due"),
        "enabled": {"type": "boolean"},
        "origin": {"enum": ["code", "file", "stored"]},
    }
    status = {
        **_all({"type": "boolean"}, "running", "enabled"),
        **_all({"type": "integer"}, "jobs", "waiting"),
        **_all(_list({"type": "object"}), "workers", "attention"),
        "active": _list(_ref("Run")),
        "paused": {"type": ["object", "null"]},
        "loop_lag_ms": {"type": ["number", "null"]},
        "store": {"type": "string"},
    }
    explanation = {
        **_all({"type": "string"}, "verdict", "code", "text", "evidence"),
        "at": _INSTANT,
        "checks": _list({"type": "object"}),
        "remedies": _list({"type": "string"}),
        **_all({"type": ["object", "null"]}, "run", "previous", "next"),
    }
    entry = {
        "id": {"type": "integer"},
        "at": _INSTANT,
        **_all({"type": "string"}, "actor", "channel", "action", "kind"),
        **_all(_TEXT, "object", "job", "reason", "request_id"),
        **_all({"type": ["object", "null"]}, "before", "after"),
    }
    problem = {
        **_all({"type": "string"}, "type", "title", "detail", "request_id"),
        "status": {"type": "integer"},
        "code": {"enum": list(TITLES)},
        "hint": _TEXT,
        "errors": _list({"type": "object"}),
    }
    return {
        "Run": _object(run),
        "Runs": _page("Run", _NUMBER),
        "Job": _object(job),
        "Jobs": _page("Job"),
        "Schedule": _object(schedule),
        "Schedules": _page("Schedule"),
        "Status": _object(status),
        "Explanation": _object(explanation),
        "Entry": _object(entry),
        "Entries": _page("Entry", _NUMBER),
        "Health": _object({"status": {"type": "string"}, "checks": {"type": "object"}}),
        "Problem": _object(problem),
    }


_SCHEMAS: Final = _schemas()
