"""Ratings and consent as people give them: in a real browser, on a page that updates live."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from bots.settings import WebSettings
from bots.voting import BETTER_NOTE
from bots.web.rating import NAMELESS
from bots.web.server import build_app, parts_on
from bots.workplace import PLACE, Workplace
from engine.client import EngineClient
from storage.identity import Audience, Identities
from storage.pool import Pool
from tests.bots.conftest import Learn, make_workplace
from tests.e2e.handbook import HANDBOOK, QUESTION
from tests.fakes.scripted_model import ScriptedModel
from tests.feedback.conftest import Answers, rows

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STEP_DEADLINE_MS = 30_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed"),
]


@asynccontextmanager
async def served(workplace: Workplace) -> AsyncIterator[str]:
    """The page's address, while the test's own process serves it."""
    here = await workplace.identities.resolve(**PLACE, channel_open=True)
    app = build_app(parts_on(workplace, here), settings=WebSettings(), upload_bytes=2**20)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
async def address(pool: Pool, tmp_path: Path) -> AsyncIterator[str]:
    """Where the page is; no engine answers there."""
    async with (
        EngineClient(url="http://127.0.0.1:1") as engine,
        served(make_workplace(pool, engine, tmp_path)) as address,
    ):
        yield address


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def here(identities: Identities) -> Audience:
    """The page's channel."""
    return await identities.resolve(**PLACE, channel_open=True)


@asynccontextmanager
async def opened(browser: Browser, address: str, *, name: str | None = None) -> AsyncIterator[Page]:
    """The page in a browser of its own, as somebody or as a guest."""
    context = await browser.new_context()
    context.set_default_timeout(STEP_DEADLINE_MS)
    expect.set_options(timeout=STEP_DEADLINE_MS)
    page = await context.new_page()
    await page.goto(address)
    await expect(page.locator("html[data-live]")).to_be_attached()
    if name is not None:
        await page.get_by_role("textbox", name="Your name").fill(name)
        await page.wait_for_function("name => parley.name === name", arg=name)
    yield page
    await context.close()


def thumb(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


async def test_a_vote_outlives_a_reload_and_a_second_click_takes_it_back(
    browser: Browser, address: str, here: Audience, answered: Answers, pool: Pool
) -> None:
    (answer_id,) = (await answered(here)).answers
    async with opened(browser, address, name="Ana") as page:
        good = thumb(page, "Good answer")
        await good.focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Your vote 👍 is recorded.")).to_be_visible()
        await expect(good).to_have_attribute("aria-pressed", "true")
        await thumb(page, "Bad answer").click(click_count=3)  # three clicks while one is stored
        await expect(thumb(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
        assert await rows(pool, "SELECT answer_id, value FROM votes") == [(answer_id, -1)]
        await page.reload()
        bad = thumb(page, "Bad answer")
        await expect(bad).to_have_attribute("aria-pressed", "true")
        async with opened(browser, address, name="Ben") as bens:
            await expect(thumb(bens, "Bad answer")).to_have_attribute("aria-pressed", "false")
        await bad.click()
        await expect(bad).to_have_attribute("aria-pressed", "false")
        assert await rows(pool, "SELECT 1 FROM votes") == []


async def test_a_vote_and_a_better_answer_are_kept_with_the_consent_that_was_given(
    browser: Browser, address: str, here: Audience, answered: Answers, pool: Pool
) -> None:
    await answered(here)
    async with (
        opened(browser, address, name="Ana") as page,
        opened(browser, address, name="Ben") as bens,
    ):
        own = page.get_by_label("My ratings may train this team's model")
        everybodys = "Ratings given here may train models"
        await expect(own).not_to_be_checked()
        await expect(page.get_by_label(everybodys)).not_to_be_checked()
        await own.check()
        await page.get_by_label(everybodys).check()
        await expect(bens.get_by_label(everybodys)).to_be_checked()
        await expect(bens.get_by_label("My ratings may train")).not_to_be_checked()

        await thumb(page, "Bad answer").click()
        text = page.get_by_label("Write the better answer")
        await expect(page.get_by_text(BETTER_NOTE)).to_be_visible()
        await text.fill("In November, says the plan.")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("what you wrote is kept")).to_be_visible()
        await expect(text).to_be_hidden()
        await page.reload()
        await expect(page.get_by_label("My ratings may train")).to_be_checked()

    assert await rows(pool, "SELECT consent FROM votes") == [(True,)]
    assert await rows(pool, "SELECT text, consent FROM corrections") == [
        ("In November, says the plan.", True)
    ]


@pytest.mark.parametrize("given", [True, False])
async def test_consent_is_shown_as_it_was_stored_though_the_page_read_it_meanwhile(
    browser: Browser, address: str, here: Audience, answered: Answers, pool: Pool, given: bool
) -> None:
    await answered(here)
    may_go_on = asyncio.Event()

    async def wait(route: Route) -> None:
        await may_go_on.wait()
        await route.continue_()

    async with opened(browser, address, name="Ana") as page:
        own = page.get_by_label("My ratings may train this team's model")
        busy = page.locator("[data-consent=person][aria-busy]")
        if not given:
            await own.check()
            await expect(busy).to_have_count(0)
        await page.route("**/feedback/consent/person", wait)
        await own.click()
        async with page.expect_response("**/feedback/mine") as read:
            await page.locator("#threads a").click()
        await (await read.value).finished()
        await expect(busy).to_have_count(1)
        may_go_on.set()
        await expect(busy).to_have_count(0)
        await expect(own).to_be_checked(checked=given)
    assert await rows(pool, "SELECT consent FROM members WHERE consent") == [(True,)] * given


async def test_a_guest_is_asked_for_a_name_and_nothing_is_stored(
    browser: Browser, address: str, here: Audience, answered: Answers, pool: Pool
) -> None:
    await answered(here)
    async with opened(browser, address) as page:
        await thumb(page, "Good answer").click()
        await expect(page.get_by_role("alert").filter(has_text=NAMELESS)).to_be_visible()
        await expect(page.get_by_role("textbox", name="Your name")).to_be_focused()
        own = page.get_by_label("My ratings may train this team's model")
        await own.click()
        await expect(own).not_to_be_checked()
        assert await rows(pool, "SELECT 1 FROM votes UNION SELECT 1 FROM members") == []


@pytest.mark.parametrize("stopped", [False, True])
async def test_an_answer_can_be_rated_as_soon_as_it_has_ended(
    browser: Browser,
    chat_engine_url: str,
    here: Audience,
    home: Path,
    learn: Learn,
    model: ScriptedModel,
    pool: Pool,
    stopped: bool,
) -> None:
    await learn(here, "handbook.md", HANDBOOK, "channel")
    async with (
        EngineClient(url=chat_engine_url) as engine,
        served(make_workplace(pool, engine, home)) as address,
        opened(browser, address, name="Ana") as page,
    ):
        model.may_end.clear()
        await page.get_by_role("textbox", name="Question").fill(QUESTION)
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.locator(".entry .live")).not_to_be_empty()
        await expect(page.locator(".rating")).to_have_count(0)
        if stopped:
            await page.get_by_role("button", name="Stop").click()
        else:
            model.may_end.set()
        await thumb(page, "Good answer").click()
        await expect(thumb(page, "Good answer")).to_have_attribute("aria-pressed", "true")
        model.may_end.set()
        voted = "SELECT value, finish_reason FROM votes JOIN answers a ON a.id = answer_id"
        assert await rows(pool, voted) == [(1, "stopped" if stopped else "stop")]


async def test_what_is_being_written_outlives_a_thread_that_is_shown_anew(
    browser: Browser, address: str, here: Audience, answered: Answers
) -> None:
    await answered(here)
    async with opened(browser, address, name="Ana") as page:
        await thumb(page, "Better answer").click()
        text = page.get_by_label("Write the better answer")
        await text.fill("In November, I th")
        await page.locator(".entry").evaluate("entry => entry.classList.add('old')")
        await page.locator("#threads a").click()
        await expect(page.locator(".old")).to_have_count(0)
        await expect(text).to_have_value("In November, I th")
        await thumb(page, "Better answer").click()
        await expect(text).to_be_hidden()
        await thumb(page, "Better answer").click()
        await expect(text).to_have_value("In November, I th")
        await page.get_by_role("button", name="Cancel").click()
        await expect(text).to_be_hidden()
        await thumb(page, "Better answer").click()
        await expect(text).to_have_value("")
