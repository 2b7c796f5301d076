"""Renders docs/web-form.png and docs/web-ringing.png: examples/web_callback on a telephone, from the real page.

It needs Chromium, and Noto Sans to look the same each time (on Debian: apt-get install chromium fonts-noto-core).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, async_playwright
from starlette.applications import Starlette

from tenios_async import Polling, TeniosClient
from tenios_async.batch import SQLiteLedger
from tenios_async.simulator import Script, Service, SimulatorServer

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from web_callback.app import create_app
from web_callback.numbers import Numbers
from web_callback.server import Server

_PHONE = {"width": 360, "height": 580}
_RINGING = Script((("CALLING_A", 0.0), ("CALLING_B", 0.0)))


class _Server(Server):
    def __init__(self, app: Starlette) -> None:
        super().__init__(app, port=0, log_level="warning")
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(self.servers[0].sockets[0].getsockname()[1])


async def _shoot(browser: Browser, url: str, folder: Path) -> None:
    context = await browser.new_context(viewport=_PHONE, device_scale_factor=1.5, color_scheme="light")
    page = await context.new_page()
    await page.goto(url)
    await page.get_by_label("Your phone number").fill("0221 123456")
    await page.screenshot(path=folder / "web-form.png", caret="hide")
    await page.get_by_role("button").click()
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.get_by_role("heading", name="Your phone is ringing").wait_for()
    await page.screenshot(path=folder / "web-ringing.png")
    await context.close()


async def render(folder: Path) -> None:
    """Makes the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("docs/web-*.png need Chromium (on Debian: apt-get install chromium)")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "calls.db")
        SQLiteLedger.create(path)
        async with SimulatorServer(Service(script=_RINGING)) as tenios, async_playwright() as playwright:
            app = create_app(
                "simulated",
                ledger=lambda: SQLiteLedger(path),
                numbers=Numbers(["DE"]),
                tenios=lambda: TeniosClient("simulated", base_url=tenios.base_url, polling=Polling.fixed(0.1)),
            )
            server = _Server(app)
            serving = asyncio.create_task(server.serve())
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            await _shoot(browser, f"http://127.0.0.1:{await server.ready}", folder)
            await browser.close()
            server.should_exit = True
            await serving


if __name__ == "__main__":
    asyncio.run(render(Path(sys.argv[1])))
