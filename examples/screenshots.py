"""The pictures of the documentation, made anew from the demo by a headless Chromium.

pip install "taskloop[web]" playwright     and Debian's package chromium
python examples/screenshots.py             writes docs/images/*.png
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def newest(address: str, job: str) -> int:
    """The newest run of a job."""
    with urlopen(f"{address}/api/v1/runs?job={job}&limit=1") as answer:
        return int(json.loads(answer.read())["items"][0]["id"])


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        demo = subprocess.Popen(
            [sys.executable, str(HERE / "demo.py"), "--history", "12w"], cwd=folder, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PORT": str(port)},
        )  # fmt: skip
        try:
            assert demo.stdout is not None
            while not demo.stdout.readline().startswith("open"):
                assert demo.poll() is None, "the demo ended"
            time.sleep(12)  # so that something has run, and something runs
            take(address)
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(20)


def take(address: str) -> None:
    pages = {
        "now": "/",
        "job": "/jobs/sync_orders",
        "run": f"/runs/{newest(address, 'video')}",
        "timeline": "/timeline?from=24h&to=24h",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, path in pages.items():
            page = browser.new_page(viewport={"width": 1200, "height": 750}, color_scheme="light")
            page.goto(address + path)
            page.screenshot(path=str(IMAGES / f"{name}.png"))
            print(f"{name}.png of {path}")
        browser.close()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    main()
