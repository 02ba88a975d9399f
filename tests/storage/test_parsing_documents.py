"""Every evaluation document ends searchable, with its text in order, or with its reason."""

import pytest

from tests.storage.parsing_helpers import DOCUMENTS, needs_documents, outcome_of

READY = {
    "README.md": "- `example-10k.html` - A 10-K SEC filing in HTML format",
    "book-war-and-peace-1p.txt": "the speaker was the well-known Anna Pavlovna\nScherer",
    "codeblock.md": "<body>Don't forget me this weekend!</body>",
    "docx-tables.docx": "Header Col 1 | Header Col 2\nLorem ipsum | A link example",
    "embedded-images-tables.pdf": "2 | 1.9460 | 0.0596 | 0.8276 | 0.0002 | 121.440 | 1.5054",
    "eng_spa_mult.md": "dotados como están de razón y conciencia",
    "example-10k-1p.html": "Common stock | GLXZ | OTCQB marketplace",
    "fake-doc.rtf": "Column 1 | Column 2\nRow 1, Cell 1 | Row 1, Cell 2",
    "fake-email-attachment.eml": "Hey this is a fake attachment!",
    "fake-email.msg": "This is a test email to use for unit tests.",
    "fake-html.html": "- A test list\n  - With sub-bullets!\n  - And another\n- Back at the root",
    "fake-memo.pdf": "on January 23, 2023. A total of 3 trucks were used for 15 hours.",
    "fake-power-point-malformed.pptx": "Test Slide",
    "fake-power-point.pptx": "- Use _TextFrame.text for first bullet",
    "fake.odt": "Color | Blue | Red | Green",
    "fake_table.docx": "Dolor sit amet",
    "family-day.eml": "There will be face painting, a petting zoo, funnel cake and more.",
    "handbook-1p.docx": "The standing trustee has a fiduciary responsibility",
    "korean-text-with-tables.pdf": "할인점 | 이마트, 이마트 트레이더스, 롯데마트, 홈플러스",
    "layout-parser-paper-fast.pdf": "complicate the easy reuse of important innovations",
    "layout-parser-paper-fast.jpg": "library for streamlining the usage of DL in DIA research",
    "multi-column-2p.pdf": "Dense retrieval methods have thus never be shown to outperform TF-IDF",
    "pdf-with-ocr-text.pdf": "The Katicm! Sugar defining",
    "sample-presentation.pptx": "Table | A | B | C\n1 | A1 | B1 | C1",
    "semicolon-delimited.csv": "Lorem, ipsum | dolor sit | amet",
    "simple.docx": "DOYLESTOWN, PA 18901",
    "simple.zip": "Blues | STL | 1",
    "stanley-cups.csv": "Team | Location | Stanley Cups\nBlues | STL | 1",
    "stanley-cups.xlsx": "Maple Leafs | TOR | 13",
    "umlauts-non-utf8.md": "äöüß",
    "vodafone.xlsx": "Quarterly revenue | Nine quarters to 30 June 2023",
    "winter-sports.epub": "The Sun-seeker",
}
FAILED = {
    "empty.txt": "The file is empty.",
    "empty.xlsx": "No text was found in it",
    "password.pdf": "encrypted",
    "password_protected.xlsx": "protected by a password",
}
HEADINGS = {
    "README.md": ["Example Docs", "XBRL 10-K"],
    "fake-email.msg": ["Test Email"],
    "fake-html.html": ["My First Heading", "My Second Heading", "A Third Heading"],
    "layout-parser-paper-fast.pdf": [
        "LayoutParser: A Unified Toolkit for Deep Learning Based Document Image Analysis",
        "1 Introduction",
    ],
    "multi-column-2p.pdf": [
        "Dense Passage Retrieval for Open-Domain Question Answering",
        "Abstract",
        "1 Introduction",
        "2 Background",
        "3 Dense Passage Retriever (DPR)",
        "3.1 Overview",
    ],
    "sample-presentation.pptx": [
        "Title Slide",
        "This is the first content slide",
        "This is the second content slide",
        "This is kinda backwards, huh?",
    ],
    "stanley-cups.xlsx": ["Stanley Cups", "Stanley Cups Since 67"],
}

pytestmark = [needs_documents, pytest.mark.evaluation]


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="no evaluation documents")
def test_every_evaluation_document_has_an_expectation() -> None:
    assert {path.name for path in DOCUMENTS.iterdir()} == READY.keys() | FAILED.keys()


@pytest.mark.parametrize("name", sorted(READY))
async def test_document_is_ready_with_its_text_and_offsets(name: str) -> None:
    outcome = await outcome_of(DOCUMENTS / name)
    assert outcome.reason is None
    assert READY[name] in outcome.text
    for block in outcome.blocks:
        assert outcome.text.startswith(block.text, block.offset)
    for title in HEADINGS.get(name, []):
        assert title in outcome.of("heading")


@pytest.mark.parametrize("name", sorted(FAILED))
async def test_document_fails_with_its_reason(name: str) -> None:
    outcome = await outcome_of(DOCUMENTS / name)
    assert outcome.reason is not None
    assert FAILED[name] in outcome.reason
    assert not outcome.blocks


async def test_pdf_and_slides_keep_their_pages_and_report_progress() -> None:
    paper = await outcome_of(DOCUMENTS / "multi-column-2p.pdf")
    assert {block.page for block in paper.blocks} == {1, 2}
    assert [(step.pages_done, step.pages_total) for step in paper.progress] == [
        (0, 2), (1, 2), (2, 2),
    ]  # fmt: skip
    slides = await outcome_of(DOCUMENTS / "sample-presentation.pptx")
    assert [block.page for block in slides.blocks if block.kind == "heading"] == [1, 2, 3, 4]


async def test_columns_of_a_page_are_read_one_after_the_other() -> None:
    text = (await outcome_of(DOCUMENTS / "multi-column-2p.pdf")).text
    phrases = [
        "We focus our research",
        "In this paper, we address the question",
        "Retrieval in open-domain QA is usually implemented",
        "Open-domain question answering relies on efficient passage retrieval",
    ]
    places = [text.index(phrase) for phrase in reversed(phrases)]
    assert places == sorted(places)
