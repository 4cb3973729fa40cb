"""`taskloop systemd`: units that systemd itself finds right, and that are never written over what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from datetime import timedelta

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop.cli.units import Program, service


def read(text: str) -> ConfigParser:
    """A unit; of a key that stands there twice the last counts here."""
    found = ConfigParser(strict=False, interpolation=None)
    found.optionxform = str
    found.read_string(text)
    return found


def verify(*words: str, folder) -> str:
    """What systemd finds wrong with units."""
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing; it is in Debian's package systemd"
        pytest.skip("systemd-analyze is not here")
    environ = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *words], env=environ, capture_output=True, text=True
    )
    return done.stderr + ("" if done.returncode == 0 else f"exit {done.returncode}")


def test_the_units_pass_systemds_own_check_whatever_signs_the_folder_has(shop, call, tmp_path, monkeypatch):
    odd = tmp_path / 'a b%h $HOME "c"'
    shutil.copytree(shop.folder, odd)
    monkeypatch.chdir(odd)
    units = tmp_path / "units"
    units.mkdir()
    for words in (["--user"], ["--user", "--timer"], [], ["--timer", "Mon *-*-* 02:00"]):
        items = call("systemd", "--name", "shop", *words, "--config", "config.toml", "--format", "json").items
        paths = []
        for one in items:
            paths.append(units / one["file"])
            paths[-1].write_text(one["text"])
        assert verify(*words[:1] if words[:1] == ["--user"] else [], *map(str, paths), folder=tmp_path) == ""
    assert read(paths[1].read_text())["Timer"]["OnCalendar"] == "Mon *-*-* 02:00"


def test_a_unit_says_what_the_configuration_says(shop, call):
    shop.write("config.toml", "[scheduler]\ngrace = '90s'\nkill_grace = '20s'\nmax_runtime = '1d'\n")
    unit = read(call("systemd", "--user", "--app", "shop:jobs").out)["Service"]
    assert unit["TimeoutStopSec"] == "120" and unit["Restart"] == "always"
    assert unit["ExecStart"] == f"{sys.executable} -m taskloop run --app shop:jobs"
    assert (unit["Type"], unit["WatchdogSec"], unit["SuccessExitStatus"]) == ("notify", "30", "130 143")
    plain = Program(
        name="shop", folder="/srv/shop", python="/usr/bin/python3", grace=timedelta(seconds=30.2), user="shop"
    )
    assert {"TimeoutStopSec=46", "Restart=on-failure", "User=shop"} <= set(service(plain).splitlines())


def test_a_unit_is_written_once_and_another_one_is_left_as_it_is(shop, call, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    file = tmp_path / "home" / "systemd" / "user" / "taskloop-shop.service"
    done = call("systemd", "--user", "--write")
    assert (done.code, done.out) == (0, f"{file} written\n") and "enable --now taskloop-shop.service" in done.err
    assert call("systemd", "--user", "--write").out == f"{file} is up to date\n"
    file.write_text(mine := file.read_text().replace("WatchdogSec=30", "WatchdogSec=60"))
    done = call("systemd", "--user", "--write")
    assert done.code == 4 and "help: --force" in done.err and file.read_text() == mine
    assert call("systemd", "--user", "--write", "--force").code == 0 and file.read_text() != mine
    assert [
        one["file"].rpartition(".")[2]
        for one in call("systemd", "--user", "--timer", "--name", "due", "--write", "--format", "json").items
    ] == ["service", "timer"]


CALENDARS = [
    "daily", "hourly UTC", "Mon..Fri 09:00", "Sat *-*-1..7 18:00:00 Europe/London", "*:0/15", "*-02~03", "2030-01-01",
    "Mon", "Mon,Tue 10:00:30", "@1395716396", "08:00:00/10",
]  # fmt: skip


def test_a_user_without_a_home_is_told_so_and_doctor_looks_elsewhere(shop, call, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # as in a container that names a number
    refused = call("systemd", "--user", "--write")
    assert refused.code == 7 and "this user has no home" in refused.err and not (shop.folder / "~").exists()
    assert "unexpected" not in call("doctor").out


@pytest.mark.parametrize("found", [True, False], ids=["systemd is there", "no systemd"])
def test_a_timer_takes_what_systemd_takes_and_nothing_else(shop, call, tmp_path, monkeypatch, found):
    if not found:
        monkeypatch.setenv("PATH", str(tmp_path))
    for text in CALENDARS:
        assert f"OnCalendar={text}\n" in call("systemd", "--timer", text).out
    wrong = ["nonsense", "0 2 * * *", "every 5m", "Mon at noon", "5", "x" * 300]
    for text in [*wrong, *(["25:00", "02:00 Nowhere/Town"] if found and shutil.which("systemd-analyze") else [])]:
        done = call("systemd", "--timer", text)
        assert (
            (done.code, done.out) == (2, "") and f"--timer is '{text}'; allowed is" in done.err and "help:" in done.err
        )


@pytest.mark.parametrize(("words", "said"), [(["--name", "../x"], "--name is"), (["--timer", "a\nb"], "--timer is")])
def test_what_may_not_stand_in_a_unit_is_refused(shop, call, words, said):
    done = call("systemd", *words)
    assert done.code == 2 and said in done.err and not done.out
