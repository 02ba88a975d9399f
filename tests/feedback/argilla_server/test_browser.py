"""Argilla's own pages on our search engine, used by a curator in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.feedback.argilla_server.conftest import Server
from tests.feedback.argilla_server.records import Filled, fill, meet

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
STEP_DEADLINE_MS = 20_000

pytestmark = [
    pytest.mark.argilla,
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed"),
]


@pytest.fixture
def rated(argilla: Server) -> Iterator[Filled]:
    with meet(argilla.sdk()) as team, fill(team) as filled:
        yield filled


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(STEP_DEADLINE_MS)
        expect.set_options(timeout=STEP_DEADLINE_MS)
        yield page
        page.screenshot(path=tmp_path / "last.png")
        browser.close()


def test_a_curator_logs_in_searches_filters_and_rates(
    argilla: Server, rated: Filled, page: Page
) -> None:
    server, outside = argilla, []
    own = (server.url, "data:", "blob:")
    page.on(
        "request",
        lambda request: None if request.url.startswith(own) else outside.append(request.url),
    )
    log_in(page, server)
    page.get_by_text(rated.dataset.name).first.click()
    expect(page.get_by_text("of 5")).to_be_visible()

    page.locator(".search-area__icon").first.click()
    search = page.locator("input[role=search]")
    search.fill("zwölf")
    search.press("Enter")
    expect(page.get_by_text("of 1")).to_be_visible()
    expect(page.get_by_text("Zwölf Tage, sagt das Handbuch.")).to_be_visible()
    search.fill("")
    search.press("Enter")
    expect(page.get_by_text("of 5")).to_be_visible()

    page.get_by_role("button", name="Filters").click()
    page.get_by_text("Metadata", exact=True).first.click()
    page.get_by_text("channel", exact=True).first.click()
    page.locator(".labels-selector__item").filter(has_text="launches").click()
    expect(page.get_by_text("of 2")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(".search-area__icon").first.click()
    search.fill("version")
    search.press("Enter")
    expect(page.get_by_text("of 1")).to_be_visible()
    expect(page.get_by_text("Which launch date was agreed?")).to_be_visible()

    page.locator("label[for=rating_4]").click()
    correction = page.locator(".content__text[contenteditable=true]")
    correction.click()
    page.keyboard.type("It is the second of November.")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Submitted 1")).to_be_visible()

    with server.http() as client:
        found = client.get(f"/datasets/{rated.dataset.id}/records", params={"include": "responses"})
    record = next(item for item in found.json()["items"] if item["external_id"] == "date")
    given = {
        (response["values"]["rating"]["value"], response["values"]["correction"]["value"])
        for response in record["responses"]
    }
    assert (4, "It is the second of November.") in given
    assert record["status"] == "completed"
    assert outside == []


def log_in(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.locator("input[name=Username]").fill(server.username)
    page.locator("input[name=Password]").fill(server.password)
    page.get_by_role("button", name="Sign in").click()
