"""One headless Chromium for all tests of this folder; each test opens windows of its own in it.

The server runs on the loop of the test, so a test asks the scheduler itself what came of a click. Whatever a window
complains about (a script, the policy, a file that is not there) or asks of another host fails its test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack

import pytest

from browser.dashboards import dashboard, lively

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE_MS = 10_000
"""How long playwright waits for what a test expects."""


def need(condition, what):
    """Skip without it, but fail where nothing may be left out."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the tests in a browser need {what}")


@pytest.fixture(scope="package")
async def chromium():
    try:
        from playwright.async_api import async_playwright, expect
    except ImportError:
        need(False, "the Python package playwright: pip install playwright")
    need(os.access(CHROMIUM, os.X_OK), f"Debian's package chromium, or CHROMIUM to name one: {CHROMIUM} is none")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage"],  # root has no sandbox, a container little shared memory
        )
        yield started
        await started.close()


@pytest.fixture
def no_test_takes_longer_than_this():
    """Playwright says itself what it waited for in vain; the timeout of all tests ends what hangs elsewhere."""


@pytest.fixture
def no_thread_is_left():
    """The loop lives as long as the browser, and with it the threads of its pool."""


@pytest.fixture
async def no_task_outlives_the_fixture():
    """As for every test, but a connection that the browser keeps belongs to the server, that looks after it."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    names = ("TestRunner.", "RequestHandler.")
    left = {one for one in asyncio.all_tasks() - before if not one.get_coro().__qualname__.startswith(names)}
    assert not left, f"tasks left behind: {left}"


@pytest.fixture
def complaints():
    """What windows complained about. A test that expects some takes them out."""
    return []


@pytest.fixture
async def window(chromium, complaints, no_task_outlives_the_fixture):
    """Opens a window as somebody has it who was never here. Options as for a context of playwright."""
    async with AsyncExitStack() as stack:

        async def window(**options):
            options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
            context = await chromium.new_context(**options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            listen(page, complaints)
            return page

        yield window
    assert complaints == []


def listen(page, complaints):
    def heard(message):
        # Of an answer that refuses, such as 422 for a form, the console tells as of a failure: `answered` judges it.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            complaints.append(f"console of {page.url}: {message.text}")

    def asked(request):
        origin = "/".join(page.url.split("/")[:3])
        if not request.is_navigation_request() and not request.url.startswith((origin, "data:")):
            complaints.append(f"{page.url} asks for {request.url}")

    def answered(response):
        if response.status >= 500 or (response.status >= 400 and not response.request.is_navigation_request()):
            complaints.append(f"{response.status} for {response.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"script of {page.url}: {error}"))
    page.on("request", asked)
    page.on("response", answered)


@pytest.fixture
async def open_dashboard(no_task_outlives_the_fixture):
    """Serves a scheduler until the test ends, and gives the address of its dashboard."""
    async with AsyncExitStack() as stack:

        async def open_dashboard(scheduler, **options):
            return await stack.enter_async_context(dashboard(scheduler, **options))

        yield open_dashboard


@pytest.fixture(scope="package")
async def lively_dashboard(tmp_path_factory, anyio_backend):
    """A dashboard of twelve jobs with a past, for tests that only look: `(scheduler, address)`."""
    async with lively(tmp_path_factory.mktemp("lively") / "shop.db") as pair:
        yield pair
