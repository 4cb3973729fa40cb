"""The files in `deploy/` are what their tools read, the commands in them are ours, and a stop has its time everywhere."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from supervisor.options import ServerOptions, UnhosedConfigParser

from taskloop import durations, settings
from taskloop.cli.parser import parse

DEPLOY = Path(__file__).parent.parent / "deploy"
STOP = timedelta(seconds=45)
"""`scheduler.grace` and 15 s, as in the unit of systemd."""


def instructions() -> dict[str, list[str]]:
    """The lines of the Dockerfile by their first word."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip():
            word, rest = line.split(None, 1)
            found.setdefault(word, []).append(rest)
    return found


def manifests() -> dict[str, dict]:
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def container() -> dict:
    [found] = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def programs() -> dict:
    """What supervisord makes of its file."""
    parser = UnhosedConfigParser()
    parser.read_string((DEPLOY / "supervisord.conf").read_text())
    groups = ServerOptions().process_groups_from_parser(parser)
    return {group.name: one for group in groups for one in group.process_configs}


def test_the_commands_in_them_are_ours():
    image = instructions()
    entry, command = json.loads(image["ENTRYPOINT"][0]), json.loads(image["CMD"][0])
    assert entry == ["taskloop"] and parse(command).http == "0.0.0.0:8700"
    assert parse(container()["args"]).log_format == "json" and container()["args"][:3] == command
    for one in programs().values():
        words = shlex.split(one.command)
        assert words[1:3] == ["-m", "taskloop"] and parse(words[3:]).command in ("run", "process")


def test_the_image_has_what_it_copies_and_runs_as_nobody_in_particular():
    image = instructions()
    assert set(image) <= set("FROM WORKDIR COPY RUN ENV USER VOLUME EXPOSE HEALTHCHECK ENTRYPOINT CMD".split())
    for line in image["COPY"]:
        *sources, _ = (word for word in line.split() if not word.startswith("--"))
        assert all((DEPLOY.parent / one).exists() for one in sources if not one.startswith("/")), line
    assert image["USER"] == ["10001"] and "EXPOSE" in image
    assert image["VOLUME"] == ["/data"] and image["WORKDIR"][-1] == "/app"


def test_a_stop_has_its_time_everywhere():
    [service] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    assert durations.parse(service["stop_grace_period"]) == STOP
    assert (
        timedelta(seconds=manifests()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        == STOP
    )
    for one in programs().values():
        assert (timedelta(seconds=one.stopwaitsecs), one.stopsignal) == (STOP, signal.SIGTERM)
        assert one.exitcodes == [0, 130, 143] and not one.stopasgroup and one.killasgroup


def test_compose_builds_the_image_and_keeps_the_records(tmp_path):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    [service] = compose["services"].values()
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert [one.split(":") for one in service["volumes"]] == [["data", "/data"]] and "data" in compose["volumes"]
    assert service["ports"] == ["127.0.0.1:8700:8700"] and service["init"] is True


def test_the_manifests_name_each_other_and_the_configuration_in_them_is_right(tmp_path):
    found = manifests()
    assert set(found) == {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"}
    spec = found["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    assert (
        spec["selector"]["matchLabels"]
        == spec["template"]["metadata"]["labels"]
        == found["Service"]["spec"]["selector"]
    )
    assert {one["name"] for one in container()["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert {found[kind]["metadata"]["name"] for kind in found} == {"jobs"}
    probes = {
        name: container()[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    [port] = container()["ports"]
    assert port["name"] == "http" and found["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    (tmp_path / "config.toml").write_text(found["ConfigMap"]["data"]["config.toml"])
    for folder in (tmp_path, DEPLOY):
        assert settings.load(directory=folder, environ={}).store.url == "sqlite:////data/taskloop.db"
        assert settings.load(directory=folder, environ={}).scheduler.grace < STOP


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_probe_of_the_image_tells_a_scheduler_that_answers_from_none(shop, path):
    line = instructions()["HEALTHCHECK"][0]
    command = json.loads(line[line.index("[") :])
    assert command[0] == "python"
    with shop.start("run", "--no-fire", "--http", "127.0.0.1:0") as running:
        running.hear("scheduler.ready")
        running.hear("http.listening")
        port = re.search(r"http\.listening url=\S+:(\d+)", running.said)[1]
        probe = [sys.executable, "-c", command[2].replace("8700", port).replace("/healthz", path)]
        assert subprocess.run(probe, timeout=30, check=False, stderr=subprocess.DEVNULL).returncode == 0
        assert running.end(signal.SIGTERM) == 143
    assert subprocess.run(probe, timeout=30, check=False, stderr=subprocess.DEVNULL).returncode != 0
