"""What systemd hears of a service, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import contextmanager

import pytest
from command_line import shop as shop

from taskloop.systemd import Notifier


@contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(20)
        yield heard


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_words_reach_the_socket_that_is_named(tmp_path, kind):
    name = str(tmp_path / "notify") if kind == "file" else f"@taskloop-test-{os.getpid()}"
    with listening(name.replace("@", "\0")) as heard:
        Notifier({"NOTIFY_SOCKET": name}).tell("READY=1", "STATUS=all well")
        assert heard.recv(1_000) == b"READY=1\nSTATUS=all well"


@pytest.mark.parametrize("address", ["", "/nobody/listens/here", "not absolute\0"])
def test_nobody_who_listens_is_no_trouble(address):
    Notifier({"NOTIFY_SOCKET": address}).tell("READY=1")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "nan"}, None),
        ({}, None),
    ],
)
def test_the_loop_beats_twice_in_the_time_that_systemd_gives_it(environ, seconds):
    assert Notifier({"NOTIFY_SOCKET": "/run/notify", **environ}).beat_seconds == seconds
    assert Notifier(environ).beat_seconds is None, "nobody listens"


async def first_second(notifier):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await notifier.beat()


def test_where_no_beat_is_wanted_none_is_told(tmp_path):
    with listening(str(tmp_path / "notify")) as heard:
        heard.setblocking(False)
        asyncio.run(first_second(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})))
        with pytest.raises(BlockingIOError):
            heard.recv(1_000)


def test_a_service_says_when_it_is_ready_that_its_loop_lives_and_when_it_stops(shop, tmp_path):
    address = str(tmp_path / "notify")
    with (
        listening(address) as heard,
        shop.start("run", "--jobs", "hourly", NOTIFY_SOCKET=address, WATCHDOG_USEC="100000") as running,
    ):
        words = [heard.recv(1_000).decode() for _ in range(4)]
        running.process.send_signal(signal.SIGTERM)
        while words[-1] != "STOPPING=1":
            words.append(heard.recv(1_000).decode())
        assert running.end() == 143
    assert words[0].startswith("READY=1\nSTATUS=") and words[1:4] == ["WATCHDOG=1"] * 3
