from datetime import UTC, datetime
from html.parser import HTMLParser
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bots.errors import Reply
from bots.web import render
from bots.web.entries import Entry, EntryState, Refusal, ShownSource
from storage.conversations import ThreadSummary
from storage.documents import Document, Status
from storage.identity import AnswerId, DocumentId, ThreadId

ATTACK = (
    "<img src=x onerror=alert(1)>\"'` onclick=x **a** `<b>` [1] ![i](http://evil/x.png) ${7*7}{{7}}"
)
NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


class _Shape(HTMLParser):
    """Tags with their attribute names: what a text must not be able to change."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _entry(text: str, state: EntryState, *, source: str = "plain") -> Entry:
    shown = ShownSource(number=1, document=source, place=source, quote=source, score=0.91)
    return Entry(
        key="k",
        thread_ref="t",
        author=source,
        text=text,
        asked_at=NOW,
        state=state,
        answer=text,
        sources=[shown],
        reply=Reply(text=text, retryable=True),
        note=text,
    )


def _document(name: str, status: Status = "ready", *, reason: str | None = None) -> Document:
    return Document(
        id=DocumentId(uuid4()),
        name=name,
        media_type="text/plain",
        bytes=1,
        sha256="0",
        status=status,
        reason=reason,
        pages=3,
        chunks=12,
        progress=0.5,
        searchable=status == "ready",
        scope_id=uuid4(),
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize("state", ["searching", "writing", "failed", "unanswered"])
@given(text=st.text())
@example(text=ATTACK)
def test_text_never_becomes_markup(state: EntryState, text: str) -> None:
    plain = _Shape(render.entry(_entry("plain", state)))
    shape = _Shape(render.entry(_entry(text, state, source=text or " x")))
    assert shape.tags == plain.tags


@given(text=st.text())
@example(text=ATTACK)
@example(text="[1](javascript:alert(1)) <a href='http://evil'>x</a>")
def test_an_answer_becomes_emphasis_code_and_citations_only(text: str) -> None:
    shape = _Shape(render.entry(_entry(text, "answered")))
    plain = _Shape(render.entry(_entry("plain", "answered")))
    added = list(shape.tags)
    for tag in plain.tags:
        added.remove(tag)
    cite = ("button", ("type", "class", "data-source", "aria-label"))
    assert set(added) <= {("strong", ()), ("code", ()), cite}


def test_an_answer_keeps_its_words() -> None:
    shape = _Shape(render.entry(_entry("Use **two** `keys` & <tags> [1], not [2].", "answered")))
    assert "Use two keys & <tags> 1, not [2]." in shape.text


@given(text=st.text())
@example(text=ATTACK)
def test_names_and_reasons_of_documents_never_become_markup(text: str) -> None:
    def shape(word: str) -> list[tuple[str, tuple[str, ...]]]:
        items = [
            _document(word),
            _document(word, "failed", reason=word),
            _document(word, "parsing"),
        ]
        refusals = [Refusal(name=word, reason=word)]
        return _Shape(render.documents(items, refusals=refusals, problem=word)).tags

    assert shape(text or " x") == shape("plain")


@given(text=st.text())
@example(text=ATTACK)
def test_thread_titles_never_become_markup(text: str) -> None:
    def shape(word: str) -> list[tuple[str, tuple[str, ...]]]:
        summary = ThreadSummary(
            thread_id=ThreadId(uuid4()), ref=word, title=word, questions=1, updated_at=NOW
        )
        return _Shape(render.threads([summary])).tags

    assert shape(text) == shape("plain")


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        ("queued", None, "queued"),
        ("parsing", None, "reading…"),
        ("embedding", None, "reading… 50%"),
        ("ready", None, "ready · 3 pages, 12 passages"),
        ("failed", "The file is encrypted.", "failed: The file is encrypted."),
    ],
)
def test_a_document_says_how_far_it_is(status: Status, reason: str | None, shown: str) -> None:
    html = render.documents([_document("a.txt", status, reason=reason)], refusals=[], problem=None)
    assert shown in _Shape(html).text


@pytest.mark.parametrize(
    ("state", "stored", "buttons"),
    [("writing", False, 0), ("failed", False, 0), ("answered", False, 0), ("answered", True, 1)],
)
def test_an_answer_that_is_done_and_stored_can_be_rated(
    state: EntryState, stored: bool, buttons: int
) -> None:
    item = _entry("Yes.", state)
    item.answer_id = AnswerId(uuid4()) if stored else None
    html = render.entry(item)
    assert html.count('aria-label="Good answer"') == html.count('class="rating"') == buttons
    assert html.count('aria-pressed="false"') == 2 * buttons


def test_an_empty_channel_says_what_to_do() -> None:
    assert "Drop a document, then ask" in render.thread([], any_document=False, problem=None)
    assert "Ask the first question" in render.thread([], any_document=True, problem=None)


def test_sources_show_place_quote_and_score() -> None:
    text = _Shape(render.entry(_entry("Yes [1].", "answered", source="handbook.pdf"))).text
    assert "handbook.pdf" in text
    assert "91 %" in text
