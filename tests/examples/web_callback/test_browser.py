"""The page in a real Chromium, on real sockets, against a simulated TENIOS whose clock the tests move by hand."""

import asyncio
import contextlib
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

from tenios_async.batch import SQLiteLedger
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
if CHROMIUM is None:
    pytest.skip("chromium is not installed (on Debian: apt-get install chromium)", allow_module_level=True)
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROGRAM = Path(__file__).with_name("program.py")
NUMBER, TYPED = "+49221123456", "0221 123456"

TALK = Script(tuple((state, 1.0) for state in ("ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED")))
NO_AGENT = Script(tuple((state, 1.0) for state in ("ACCEPTED", "CALLING_A", "CALL_A_FAILED")))
NO_CUSTOMER = Script(tuple((state, 1.0) for state in ("ACCEPTED", "CALLING_A", "CALLING_B", "CALL_B_FAILED")))
"""Each of a second a state: `world.step()` is the next one."""

TAKEN, AGENT, PHONE, TALKING, ENDED = (
    "We have your request",
    "We are getting somebody for you",
    "Your phone is ringing",
    "You are connected",
    "Thank you for the call",
)


class Heard(Service):
    """Tells who waits for it that it was asked something."""

    def __init__(self, **options):
        super().__init__(**options)
        self._heard = asyncio.Event()

    def handle(self, method, path, body):
        answer = super().handle(method, path, body)
        self._heard.set()
        return answer

    async def until(self, condition):
        while not condition():
            self._heard.clear()
            await self._heard.wait()


class World:
    """A simulated TENIOS, and the application as a process that can be killed and started again."""

    def __init__(self, folder):
        self.now = 0.0
        self.service = Heard(clock=lambda: self.now, script=TALK)
        self.tenios = SimulatorServer(self.service)
        self.ledger = folder / "calls.db"
        self.port = 0
        self.process = None
        SQLiteLedger.create(self.ledger)

    def step(self, states=1):
        self.now += states

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        arguments = map(str, (PROGRAM, self.port, self.ledger, self.tenios.base_url))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        self.port = int(await self.process.stdout.readline())

    async def stop(self, how=signal.SIGKILL):
        if self.process is None:  # where a promise is broken
            return ""
        process, self.process = self.process, None
        process.send_signal(how)
        _, said = await process.communicate()
        assert process.returncode == -how
        assert b"Traceback" not in said
        return said.decode()


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", str(PROGRAM.parents[3] / "examples"))
    made = World(tmp_path)
    async with made.tenios:
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser, world):
    """Opens the form as a visitor of its own; what the browser complains about fails the test."""
    complaints = []
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options):
            context = await browser.new_context(viewport={"width": 390, "height": 760}, **options)
            stack.push_async_callback(context.close)
            context.on("weberror", lambda error: complaints.append(str(error.error)))
            context.on("console", lambda said: complaints.append(said.text))
            page = await context.new_page()
            await page.goto(world.url)
            return page

        yield make
    assert [said for said in complaints if not said.startswith("Failed to load resource")] == []


async def ask(page, number=TYPED):
    await page.get_by_label("Your phone number").fill(number)
    await page.get_by_role("button", name="Call me now").click()


async def shows(page, title):
    """The news, and the title of the window, which is read in the list of tabs."""
    await expect(page.get_by_role("heading", level=1)).to_have_text(title)
    await expect(page).to_have_title(title)


async def test_a_call_from_the_form_to_the_end_as_it_happens(visit, world):
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    for title, step in [(AGENT, "One of us picks up"), (PHONE, "Your phone rings"), (TALKING, "We talk")]:
        world.step(2 if title == AGENT else 1)
        await shows(page, title)
        await expect(page.locator("[aria-current=step]")).to_have_text(step)
    world.step()
    await shows(page, ENDED)
    await expect(page.locator("li.done")).to_have_count(4)
    assert world.service.inits == {NUMBER: 1}


@pytest.mark.parametrize(
    ("script", "end", "failed"),
    [
        (NO_AGENT, "Nobody was free to talk", "One of us picks up"),
        (NO_CUSTOMER, "We did not reach you", "Your phone rings"),
    ],
)
async def test_a_call_that_fails_says_where_and_offers_another(visit, world, script, end, failed):
    world.service.script(NUMBER, script)
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    world.step(9)
    await shows(page, end)
    await expect(page.locator("li.failed")).to_contain_text(failed)
    await page.get_by_role("link", name="Ask for another call").click()
    await expect(page.get_by_label("Your phone number")).to_be_visible()


async def test_a_doubt_offers_no_second_call(visit, world):
    world.service.fail_init(Fault.lost())
    page = await visit()
    await ask(page)
    await shows(page, "We may be calling you already")
    await page.reload()
    await shows(page, "We may be calling you already")
    assert await page.get_by_role("link").count() == 0
    assert world.service.inits == {NUMBER: 1}


async def test_a_call_that_cannot_be_asked_for_says_that_it_goes_on(visit, world):
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    world.service.fail_status(Fault(403))
    await shows(page, "We cannot see your call any more")
    assert await page.get_by_role("link").count() == 0
    world.step(3)
    await page.reload()
    await shows(page, PHONE)
    assert world.service.inits == {NUMBER: 1}


@pytest.mark.parametrize(
    ("fault", "says"),
    [(Fault(400), "This number cannot be called."), (Fault(403), "We cannot place calls at the moment.")],
)
async def test_a_refusal_is_read_out_and_the_form_can_be_sent_again(visit, world, fault, says):
    world.service.fail_init(fault)
    page = await visit()
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text(says)
    await expect(page.get_by_label("Your phone number")).to_have_value(TYPED)
    await page.get_by_role("button").click()
    await shows(page, TAKEN)


async def test_no_connection_says_that_nothing_was_sent(visit, world):
    await world.tenios.__aexit__(None, None, None)
    page = await visit()
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was sent, and your phone will not ring")
    await world.tenios.__aenter__()
    await page.get_by_role("button").click()
    await shows(page, TAKEN)
    assert world.service.inits == {NUMBER: 1}


async def test_a_wrong_number_is_explained_and_the_field_has_the_focus(visit, world):
    page = await visit()
    await ask(page, "12")
    field = page.get_by_label("Your phone number")
    await expect(page.get_by_role("alert")).to_contain_text("There is no such phone number")
    await expect(field).to_be_focused()
    await expect(field).to_have_accessible_description(re.compile("There is no such phone number.*Such as 030"))
    await field.fill(TYPED)
    await field.press("Enter")
    await shows(page, TAKEN)


async def test_too_soon_again_is_said_in_the_page(visit, world):
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    await page.goto(world.url)
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text("We were asked to call this number a moment ago.")
    assert world.service.inits == {NUMBER: 1}


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_double_click_rings_once(visit, world, javascript):
    world.service.latency = 0.2
    page = await visit(java_script_enabled=javascript)
    await page.get_by_label("Your phone number").fill(TYPED)
    await page.get_by_role("button", name="Call me now").dblclick()
    await shows(page, TAKEN)
    await page.go_back()
    await expect(page.get_by_role("button", name="Call me now")).to_be_enabled()
    assert world.service.inits == {NUMBER: 1}


async def test_the_button_waits_and_is_there_again_for_who_comes_back(visit):
    page = await visit()

    async def no_page(route):
        await route.fulfill(status=204)

    await page.route("**/calls", no_page)
    await page.get_by_label("Your phone number").fill(TYPED)
    button = page.get_by_role("button")
    await button.click()
    await expect(button).to_be_disabled()
    await expect(button).to_have_text("One moment ...")
    await page.evaluate("() => void dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    await expect(button).to_be_enabled()
    await expect(button).to_have_text("Call me now")


async def test_a_form_that_is_resent_leads_to_the_same_call(visit, world):
    page = await visit()
    handle = await page.locator("input[name=handle]").input_value()
    await ask(page)
    await shows(page, TAKEN)
    world.step(2)
    await shows(page, AGENT)
    form = {"handle": handle, "number": TYPED}
    for _ in range(3):
        answer = await page.request.post(f"{world.url}/calls", form=form)
        assert answer.url == page.url
    assert world.service.inits == {NUMBER: 1}


async def test_a_reload_and_a_second_tab_follow_the_same_call(visit, world):
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    world.step(2)
    await shows(page, AGENT)
    await page.reload()
    await shows(page, AGENT)
    second = await page.context.new_page()
    await second.goto(page.url)
    await shows(second, AGENT)
    for title in (PHONE, TALKING, ENDED):
        world.step()
        await shows(page, title)
        await shows(second, title)
    assert world.service.inits == {NUMBER: 1}


async def test_the_last_tab_to_close_stops_the_polling(visit, world):
    """How long is long enough is told by another call, which is asked for as often."""
    polls, until = world.service.polls, world.service.until
    page, other = await visit(), await visit()
    await ask(page)
    await shows(page, TAKEN)
    await ask(other, "0221 123457")
    await shows(other, TAKEN)
    second = await page.context.new_page()
    await second.goto(page.url)
    await shows(second, TAKEN)
    await page.close()
    asked = polls[10]
    await until(lambda: polls[10] > asked + 10)
    address = second.url
    await second.close()
    closed = None
    while polls[10] != closed:
        closed, going_on = polls[10], polls[11]
        await until(lambda: polls[11] > going_on + 10)  # noqa: B023  # it is awaited here
    world.step(3)
    again = await other.context.new_page()
    await again.goto(address)
    await shows(again, PHONE)
    asked = polls[10]
    await until(lambda: polls[10] > asked + 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("away", [0, 3])
async def test_the_server_ends_in_the_middle_and_the_page_goes_on(visit, world, away, how):
    """With a tab open it ends at once, and without a word when it is asked to."""
    page = await visit()
    await ask(page)
    await shows(page, TAKEN)
    world.step(2)
    await shows(page, AGENT)
    assert await world.stop(how) == ""
    await expect(page.get_by_text("The connection is lost")).to_be_visible()
    world.step(away)
    await world.start()
    await expect(page.get_by_text("The connection is lost")).to_be_hidden()
    if not away:
        await shows(page, AGENT)
        world.step(3)
    await shows(page, ENDED)
    assert world.service.inits == {NUMBER: 1}


async def test_a_proxy_that_answers_for_a_server_that_is_away(visit, world):
    """Browsers do not ask again after such an answer; the page does."""
    page = await visit()

    async def away(route):
        await route.fulfill(status=502, body="Bad Gateway")

    await page.route("**/events", away)
    await ask(page)
    await expect(page.get_by_text("The connection is lost")).to_be_visible()
    world.step(3)
    await page.unroute("**/events")
    await shows(page, PHONE)
    await expect(page.get_by_text("The connection is lost")).to_be_hidden()


async def test_a_connection_that_died_in_silence_is_made_anew(visit, world):
    page = await visit()
    await page.clock.install()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    await ask(page)
    world.step(2)
    await shows(page, AGENT)
    world.process.send_signal(signal.SIGSTOP)
    await page.clock.run_for(39_000)
    assert len([url for url in asked if url.endswith("/events")]) == 1
    async with page.expect_request("**/events"):
        await page.clock.run_for(3_000)
    world.step()
    world.process.send_signal(signal.SIGCONT)
    await shows(page, PHONE)


async def test_the_server_is_killed_while_it_places_the_call(visit, world):
    """Nobody knows then, and the form that the browser sends again does not ring a second time."""
    world.service.fail_init(Fault.lost(Manner.STALL))
    page = await visit()
    handle = await page.locator("input[name=handle]").input_value()
    asking = asyncio.create_task(ask(page))
    await world.service.until(lambda: world.service.inits)
    await world.stop()
    await asyncio.gather(asking, return_exceptions=True)  # the browser shows an error of its own
    await world.start()
    answer = await page.request.post(f"{world.url}/calls", form={"handle": handle, "number": TYPED})
    await page.goto(answer.url)
    await shows(page, "We may be calling you already")
    assert world.service.inits == {NUMBER: 1}


async def test_without_javascript(visit, world):
    page = await visit(java_script_enabled=False)
    await ask(page, "12")
    await expect(page.get_by_role("alert")).to_contain_text("There is no such phone number")
    await ask(page)
    await shows(page, TAKEN)
    for title in (AGENT, PHONE, TALKING):
        world.step(2 if title == AGENT else 1)
        await page.get_by_role("link", name="Reload this page").click()
        await shows(page, title)
    world.step()
    await page.reload()
    await shows(page, ENDED)
    assert await page.get_by_role("link").count() == 0
    assert world.service.inits == {NUMBER: 1}


async def test_by_keyboard_alone(visit, world):
    page = await visit()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Your phone number")).to_be_focused()
    await page.keyboard.type(TYPED)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button")).to_be_focused()
    await page.keyboard.press("Space")
    await shows(page, TAKEN)


async def test_news_is_read_out(visit, world):
    """The status region stays the same element, or screen readers would not tell what changes in it."""
    page = await visit()
    await ask(page)
    region = await page.get_by_role("status").filter(has_text=TAKEN).element_handle()
    world.step(3)
    await shows(page, PHONE)
    assert PHONE in await region.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_read(visit, world, scheme):
    """4.5 to 1 at least (WCAG 2.2, 1.4.3), and nothing moves for whoever asked for that."""
    world.service.script(NUMBER, NO_AGENT)
    page = await visit(color_scheme=scheme, reduced_motion="reduce")
    await ask(page, "12")
    found = await contrasts(page)
    await ask(page)
    await shows(page, TAKEN)
    found |= await contrasts(page)
    world.step(2)
    await shows(page, AGENT)
    assert await page.evaluate("() => document.getAnimations().length") == 0
    found |= await contrasts(page)
    world.step(9)
    await shows(page, "Nobody was free to talk")
    found |= await contrasts(page)
    assert len(found) > 15
    assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


async def contrasts(page):
    """Of every text to what is behind it."""
    return await page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          const luminance = (colors) => {
            for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
              const part = value / 255;
              return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const found = {};
          for (const element of document.querySelectorAll("h1, p, label, button, a, li, input")) {
            if (!element.checkVisibility()) continue;
            const behind = [];
            for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
            const [one, other] = [luminance(behind), luminance([...behind, getComputedStyle(element).color])];
            const text = element.value || element.textContent.trim();
            if (text) found[text] = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
          }
          return found;
        }"""
    )


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_is_wider_than_the_screen(visit, world, width):
    page = await visit()
    await page.set_viewport_size({"width": width, "height": 568})

    async def overflow():
        return await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")

    assert await overflow() <= 0
    field = await page.get_by_label("Your phone number").evaluate(
        "field => parseFloat(getComputedStyle(field).fontSize)"
    )
    assert field >= 16, "telephones zoom into smaller fields"
    await ask(page)
    await shows(page, TAKEN)
    world.step(3)
    await shows(page, PHONE)
    assert await overflow() <= 0


async def test_the_page_asks_nobody_else(visit, world):
    asked = []
    page = await visit()
    page.on("request", lambda request: asked.append(request.url))
    await page.reload()
    await ask(page)
    await shows(page, TAKEN)
    assert len(asked) >= 4
    assert {url for url in asked if not url.startswith((world.url, "data:"))} == set()
