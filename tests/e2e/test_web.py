"""The page as people use it: a real browser, server, database, worker and the default models."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Locator,
    Page,
    Request,
    WebSocket,
    expect,
    sync_playwright,
)

from storage.embedded import EmbeddedPostgres

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHECKOUT = Path(__file__).parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 15
TURN_DEADLINE_MS = 40_000
COMMANDS = {"engine": ("engine", "serve"), "worker": ("bots", "worker"), "web": ("bots", "web")}
UPLOAD_LIMIT_MB = 2
ATTACK = "<img src=x onerror=\"document.title='pwned'\">"
HANDBOOK = b"""# Staff handbook

## Annual leave

Full-time employees of Marlow Tools receive 27 days of paid annual leave each calendar year. Up to
five unused days may be carried over until the end of March.

## Expenses

Train tickets are refunded in second class. Hotel costs are refunded up to 140 euros per night in
Hamburg and up to 110 euros everywhere else.

## Workshop

The laser cutter may only be used by people who passed the safety course with Ingrid Halvorsen.
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed"),
]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _eventually(
    check: Callable[[], bool], what: str, *, deadline_s: float = START_DEADLINE_S
) -> None:
    end = time.monotonic() + deadline_s
    while not check():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


@dataclass(kw_only=True)
class House:
    """Parley's processes over one state folder, each of which a test may stop and start again."""

    home: Path
    environment: Mapping[str, str]
    web_url: str
    engine_url: str
    postgres: EmbeddedPostgres
    _parts: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *parts: str, **settings: str) -> None:
        """Start parts and wait until they answer; `settings` are added to their environment."""
        for part in parts:
            package, verb = COMMANDS[part]
            with (self.home / f"{part}.log").open("ab") as log:
                self._parts[part] = subprocess.Popen(
                    [sys.executable, "-m", package, verb],
                    env={**self.environment, **settings},
                    cwd=CHECKOUT,
                    stdout=log,
                    stderr=log,
                )
        for part, url in (("engine", self.engine_url), ("web", self.web_url)):
            if part in parts:
                _eventually(partial(_answers, f"{url}/healthz"), f"{part} is up")

    def stop(self, *parts: str) -> list[int]:
        """Ask parts to stop, as the supervisor does; returns their exit codes."""
        stopping = [self._parts.pop(part) for part in parts]
        for process in stopping:
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(STOP_DEADLINE_S) for process in stopping]
        finally:
            for process in stopping:
                process.kill()
                process.wait()

    def resident_mb(self, part: str) -> float:
        status = Path(f"/proc/{self._parts[part].pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) / 1024

    def close(self) -> None:
        """Stop everything; a part that takes too long is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop(*self._parts)


@pytest.fixture(scope="module")
def house(default_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Database, engine, worker and page, as `parley up` runs them."""
    home = tmp_path_factory.mktemp("house")
    (home / "models").mkdir()
    for model in default_models.iterdir():
        if model.is_dir():
            (home / "models" / model.name).symlink_to(model)
    web_port, engine_port = _free_port(), _free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    environment = {
        **kept,
        "PARLEY_HOME": str(home),
        "PARLEY_WEB__PORT": str(web_port),
        "PARLEY_ENGINE__PORT": str(engine_port),
        "PARLEY_DOCUMENTS__MAX_UPLOAD_MB": str(UPLOAD_LIMIT_MB),
        "PARLEY_DATABASE__CONNECT_TIMEOUT_S": "3",
    }
    postgres = EmbeddedPostgres(home)
    postgres.start()
    subprocess.run(
        [sys.executable, "-m", "bots", "migrate"], env=environment, cwd=CHECKOUT, check=True
    )
    house = House(
        home=home,
        environment=environment,
        web_url=f"http://127.0.0.1:{web_port}",
        engine_url=f"http://127.0.0.1:{engine_port}",
        postgres=postgres,
    )
    try:
        house.start(*COMMANDS)
        yield house
    finally:
        house.close()
        postgres.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass(kw_only=True)
class Person:
    """Somebody with a browser of their own."""

    page: Page
    outside: list[str]
    deltas: list[str]

    def ask(self, question: str) -> None:
        self.page.get_by_role("textbox", name="Question").fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()

    def add(self, *files: FilePayload) -> None:
        self.page.locator("input[type=file]").set_input_files(list(files))

    def document(self, name: str) -> Locator:
        return self.page.locator("#documents .document").filter(has_text=name)


Joins = Callable[[str], Person]


@pytest.fixture
def join(house: House, browser: Browser) -> Iterator[Joins]:
    """Open the page as somebody; everything that a page loads must come from the house."""
    contexts: list[BrowserContext] = []
    people: list[Person] = []

    def join(name: str) -> Person:
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        person = Person(page=page, outside=[], deltas=[])
        people.append(person)
        own = (house.web_url, house.web_url.replace("http", "ws", 1), "data:", "blob:")

        def note(request: Request) -> None:
            if not request.url.startswith(own):
                person.outside.append(request.url)

        def follow(live: WebSocket) -> None:
            live.on("framereceived", note_delta)

        def note_delta(frame: str | bytes) -> None:
            if '"delta"' in str(frame):
                person.deltas.append(str(frame))

        page.on("request", note)
        page.on("websocket", follow)
        page.goto(house.web_url)
        expect(page.locator("html[data-live]")).to_be_attached(timeout=20_000)
        page.get_by_role("textbox", name="Your name").fill(name)
        return person

    yield join
    for person in people:
        assert person.outside == [], "the page loaded something from outside"
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def handbook(house: House, browser: Browser) -> None:
    """The channel knows the handbook; it was dropped in the browser."""
    page = browser.new_page()
    page.goto(house.web_url)
    expect(page.locator("html[data-live]")).to_be_attached(timeout=20_000)
    page.locator("input[type=file]").set_input_files([_file("handbook.md", HANDBOOK)])
    row = page.locator("#documents .document").filter(has_text="handbook.md")
    expect(row).to_contain_text("ready", timeout=TURN_DEADLINE_MS)
    page.close()


def _file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_an_empty_channel_tells_what_to_do_and_a_dropped_file_shows_its_way(join: Joins) -> None:
    ana, ben = join("Ana"), join("Ben")
    expect(ana.page.get_by_text("Drop a document, then ask")).to_be_visible()
    ana.add(_file("leave.txt", b"The office is closed on 24 December."), _file("empty.txt", b""))
    for person in (ana, ben):
        expect(person.document("leave.txt")).to_contain_text("ready", timeout=TURN_DEADLINE_MS)
        expect(person.document("empty.txt")).to_contain_text("failed:", timeout=TURN_DEADLINE_MS)
    for name in ("leave.txt", "empty.txt"):
        remove = ben.page.get_by_role("button", name=f"Remove {name}")
        remove.click()
        remove.click()
        expect(ana.document(name)).to_have_count(0)


@pytest.mark.usefixtures("handbook")
def test_two_people_see_one_cited_answer_stream(house: House, join: Joins) -> None:
    ana, ben = join("Ana Lima"), join("Ben Okri")
    ana.ask("How many days of paid annual leave do full-time employees receive?")
    for person in (ana, ben):
        entry = person.page.locator(".entry").last
        expect(entry).to_contain_text("Ana Lima")
    for person in (ana, ben):
        entry = person.page.locator(".entry").last
        expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)
        expect(entry.locator(".answer .text")).to_contain_text("27")
        source = entry.locator(".sources details").first
        expect(source).to_contain_text("handbook.md")
        expect(source).to_contain_text("Annual leave")
        source.locator("summary").click()
        expect(source.locator("blockquote")).to_contain_text("27 days")
        assert len(person.deltas) > 1, "the answer did not stream"
    ben.page.reload()
    expect(ben.page.locator(".entry").last.locator(".sources")).to_contain_text("handbook.md")
    expect(ben.page.get_by_role("textbox", name="Your name")).to_have_value("Ben Okri")


@pytest.mark.usefixtures("handbook")
def test_what_the_documents_do_not_say_is_not_answered(join: Joins) -> None:
    ana = join("Ana")
    ana.ask("Which volcano erupted in Iceland in 2010?")
    entry = ana.page.locator(".entry").last
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)
    expect(entry.locator(".sources")).to_have_count(0)
    expect(entry.locator(".answer .text")).to_contain_text(re.compile("nothing|not find|no answer"))


@pytest.mark.usefixtures("handbook")
def test_stop_ends_the_answer_for_everybody(house: House, join: Joins) -> None:
    ana, ben = join("Ana"), join("Ben")
    ana.ask("Summarise everything about expenses, hotels and train tickets in many long sentences.")
    entry = ben.page.locator(".entry").last
    expect(entry.locator(".live")).not_to_be_empty(timeout=TURN_DEADLINE_MS)
    ben.page.get_by_role("button", name="Stop").click()
    for person in (ana, ben):
        last = person.page.locator(".entry").last
        expect(last).to_have_class(re.compile("answered"))
        expect(last).to_contain_text("Stopped.")
    _eventually(lambda: _engine_is_still(house), "the engine is still", deadline_s=2)


@pytest.mark.usefixtures("handbook")
def test_a_turn_goes_on_when_its_browser_leaves(join: Joins) -> None:
    ana = join("Ana")
    ana.ask("Who teaches the safety course for the laser cutter?")
    expect(ana.page.locator(".entry").last).to_contain_text("laser cutter?")
    ana.page.context.close()
    ben = join("Ben")
    entry = ben.page.locator(".entry").filter(has_text="laser cutter?")
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)


def test_nothing_that_people_or_documents_write_becomes_markup(house: House, join: Joins) -> None:
    ana = join(f"Eve {ATTACK}")
    ana.add(_file(f"{ATTACK.replace('/', '')}.txt", f"The password is {ATTACK}. ".encode() * 3))
    expect(ana.document("img src=x")).to_contain_text("ready", timeout=TURN_DEADLINE_MS)
    ana.ask(f"What is the password? {ATTACK}")
    entry = ana.page.locator(".entry").last
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)
    for details in entry.locator(".sources summary").all():
        details.click()
    expect(entry.locator(".question")).to_contain_text(ATTACK)
    expect(ana.page.locator("#parley img")).to_have_count(0)
    expect(ana.page).to_have_title("Parley")


def test_files_over_the_limit_are_refused_and_the_others_taken(join: Joins) -> None:
    ana = join("Ana")
    ana.add(
        _file("huge.txt", b"x" * ((UPLOAD_LIMIT_MB << 20) + 1)),
        _file("small.txt", b"Kitchen duty rotates every Monday."),
    )
    expect(ana.page.get_by_role("alert").filter(has_text="huge.txt")).to_contain_text("larger than")
    expect(ana.document("small.txt")).to_contain_text("ready", timeout=TURN_DEADLINE_MS)
    expect(ana.document("huge.txt")).to_have_count(0)


@pytest.mark.usefixtures("handbook")
def test_a_question_survives_an_engine_that_is_down(house: House, join: Joins) -> None:
    ana = join("Ana")
    house.stop("engine")
    ana.ask("What is the most that a hotel in Hamburg may cost?")
    entry = ana.page.locator(".entry").last
    expect(entry).to_have_class(re.compile("failed"), timeout=TURN_DEADLINE_MS)
    expect(entry.locator(".question")).to_contain_text("hotel in Hamburg")
    house.start("engine")
    entry.get_by_role("button", name="Retry").click()
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)
    expect(entry.locator(".sources")).to_contain_text("handbook.md")


@pytest.mark.usefixtures("handbook")
def test_a_question_survives_a_database_that_is_down(house: House, join: Joins) -> None:
    ana = join("Ana")
    house.postgres.stop()
    try:
        ana.ask("Until when may unused days be carried over?")
        entry = ana.page.locator(".entry").last
        expect(entry).to_have_class(re.compile("failed"), timeout=TURN_DEADLINE_MS)
        expect(entry.locator(".question")).to_contain_text("carried over")
    finally:
        house.postgres.start()
    entry.get_by_role("button", name="Retry").click()
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)


@pytest.mark.usefixtures("handbook")
def test_threads_keep_apart_and_the_page_comes_back_after_a_restart(
    house: House, join: Joins
) -> None:
    ana = join("Ana")
    ana.page.get_by_role("button", name="New thread").click()
    expect(ana.page.locator(".entry")).to_have_count(0)
    ana.ask("In which class are train tickets refunded?")
    entry = ana.page.locator(".entry")
    expect(entry).to_have_count(1)
    expect(entry).to_have_class(re.compile("answered"), timeout=TURN_DEADLINE_MS)
    expect(ana.page.locator("#threads a[aria-current]")).to_contain_text("train tickets")

    assert house.resident_mb("web") < 200
    started = time.monotonic()
    assert house.stop("web") == [0]
    assert time.monotonic() - started < 8
    expect(ana.page.get_by_text("Connection lost")).to_be_visible()
    house.start("web")
    expect(ana.page.get_by_text("Connection lost")).to_be_hidden(timeout=10_000)
    expect(ana.page.locator(".entry")).to_have_count(1)
    expect(ana.page.locator(".entry")).to_contain_text("train tickets")
    ana.page.get_by_role("button", name="New thread").click()
    expect(ana.page.locator(".entry")).to_have_count(0)


def test_a_foreign_website_cannot_post(house: House) -> None:
    foreign = {"Origin": "https://evil.example"}
    url = f"{house.web_url}/gradio_api/upload"
    files = {"files": ("a.txt", b"x")}
    assert httpx.post(url, files=files, headers=foreign).status_code == 403
    assert httpx.get(house.web_url, headers={"Host": "evil.example"}).status_code == 403


def test_a_page_for_other_machines_needs_a_password(house: House, browser: Browser) -> None:
    house.stop("web")
    command = [sys.executable, "-m", *COMMANDS["web"]]
    open_to_all = {**house.environment, "PARLEY_WEB__HOST": "0.0.0.0"}
    refused = subprocess.Popen(
        command, env=open_to_all, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    house.start("web", PARLEY_WEB__HOST="0.0.0.0", PARLEY_WEB__PASSWORD="s3cret")
    _, said = refused.communicate(timeout=START_DEADLINE_S)
    assert refused.returncode == 78
    assert "PARLEY_WEB__PASSWORD" in said
    with browser.new_page() as page:
        page.goto(f"{house.web_url}/healthz")
        live = f"new WebSocket('{house.web_url.replace('http', 'ws', 1)}/live')"
        assert page.evaluate(f"new Promise(end => {live}.onclose = () => end('refused'))")
        page.goto(f"{house.web_url}/leaderboard")  # which leads to the door
        page.get_by_label("username").fill("ana")
        page.get_by_label("password").fill("s3cret")
        page.get_by_role("button", name="Login").click()
        expect(page.locator("html[data-live]")).to_be_attached(timeout=20_000)
        page.get_by_role("link", name="Which model people prefer").click()
        expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible()


def _engine_is_still(house: House) -> bool:
    """Whether no sequence takes a decoding step for longer than any step takes."""
    before = _engine_steps(house)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        if _engine_steps(house) != before:
            return False
    return True


def _engine_steps(house: House) -> float:
    metrics = httpx.get(f"{house.engine_url}/metrics").text
    match = re.search(r"^parley_engine_steps_total (\S+)$", metrics, re.M)
    assert match is not None
    return float(match[1])
