"""Formats and structures that the evaluation documents lack, made here."""

import io
import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from openpyxl import Workbook
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from storage.parsing import ParseLimits
from tests.storage.parsing_helpers import outcome_of_bytes

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
CONTENT_TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def zipped(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def word_file(body: str, styles: str = "") -> bytes:
    relationship = f'<Relationship Id="{{0}}" Type="{OFFICE}/{{1}}" Target="{{2}}"/>'
    wrap = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
    return zipped({
        "[Content_Types].xml": CONTENT_TYPES,
        "_rels/.rels": wrap.format(relationship.format("a", "officeDocument", "word/document.xml")),
        "word/_rels/document.xml.rels": wrap.format(
            relationship.format("s", "styles", "styles.xml")
        ),
        "word/styles.xml": f"<w:styles {WORD}>{styles}</w:styles>",
        "word/document.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>",
    })  # fmt: skip


def word_paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def picture_of(text: str) -> Image.Image:
    picture = Image.new("RGB", (900, 160), "white")
    ImageDraw.Draw(picture).text((20, 50), text, "black", ImageFont.load_default(size=42))
    return picture


async def test_word_keeps_styles_lists_insertions_and_merged_cells(tmp_path: Path) -> None:
    cell = "<w:tc><w:tcPr>{1}</w:tcPr><w:p><w:r><w:t>{0}</w:t></w:r></w:p></w:tc>"
    rows = [
        cell.format("Team", "") + cell.format("Name", ""),
        cell.format("Blue", '<w:vMerge w:val="restart"/>') + cell.format("Ann", ""),
        cell.format("", "<w:vMerge/>") + cell.format("Bob", ""),
    ]
    body = (
        word_paragraph("Reise", '<w:pStyle w:val="berschrift1"/>')
        + "<w:p><w:ins><w:r><w:t>kept</w:t></w:r></w:ins>"
        + "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
        + word_paragraph("one", '<w:numPr><w:ilvl w:val="0"/></w:numPr>')
        + word_paragraph("two", '<w:numPr><w:ilvl w:val="1"/></w:numPr>')
        + "<w:sdt><w:sdtContent>"
        + word_paragraph("in a control")
        + "</w:sdtContent></w:sdt>"
        + "<w:tbl>"
        + "".join(f"<w:tr>{row}</w:tr>" for row in rows)
        + "</w:tbl>"
    )
    style = '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    outcome = await outcome_of_bytes(tmp_path, "trip.docx", word_file(body, style))
    assert [(block.kind, block.text) for block in outcome.blocks] == [
        ("heading", "Reise"),
        ("paragraph", "kept"),
        ("list", "- one\n  - two"),
        ("paragraph", "in a control"),
        ("table", "Team | Name\nBlue | Ann\nBlue | Bob"),
    ]


async def test_html_tells_data_from_layout_and_repeats_spanning_cells(tmp_path: Path) -> None:
    page = """<html><head><title>T</title><script>var x = "no";</script></head><body>
      <table><tr><td><h2>Left</h2><p>Prose<br><br>More</p></td></tr></table>
      <table><tr><th>Year</th><th>Plan</th></tr><tr><td rowspan=2>2023</td><td>a</td></tr>
      <tr><td>b</td></tr></table><pre>x = 1\n  y = 2</pre></body></html>"""
    outcome = await outcome_of_bytes(tmp_path, "a.html", page.encode())
    assert [(block.kind, block.text) for block in outcome.blocks] == [
        ("heading", "T"),
        ("heading", "Left"),
        ("paragraph", "Prose"),
        ("paragraph", "More"),
        ("table", "Year | Plan\n2023 | a\n2023 | b"),
        ("code", "x = 1\n  y = 2"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
async def test_csv_of_any_delimiter_and_encoding(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    rows = [["Größe", "Straße"], ["12", 'a "quoted, one"; x'], ["13", "über"]]
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    outcome = await outcome_of_bytes(tmp_path, "a.csv", "\n".join(quoted).encode(encoding))
    assert outcome.of("table") == ['Größe | Straße\n12 | a "quoted, one"; x\n13 | über']


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-32", "Fünf Äpfel kosten Geld."),
        ("utf-16-be", "Fünf Äpfel kosten Geld."),
        ("latin-1", "Fünf größere Äpfel"),
        ("cp1251", "Привет мир, это проверка кодировки документа. " * 5),
        ("shift_jis", "これは日本語のテキストです。文字コードの検出を試します。" * 4),
        ("gb18030", "这是一个中文文档。用于测试编码检测功能。" * 5),
        ("euc-kr", "이것은 한국어 문서입니다. 인코딩 감지를 테스트합니다. " * 4),
    ],
)
async def test_text_encodings_are_recognised(tmp_path: Path, encoding: str, text: str) -> None:
    outcome = await outcome_of_bytes(tmp_path, "a.txt", text.encode(encoding))
    assert outcome.text == text.strip()


async def test_workbook_parts_tables_at_empty_rows(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Costs"
    rows: list[list[str | float]] = [["Title"], ["", "Item", "Price"], ["", "Bolt", 1.5]]
    rows += [[], ["Total"], ["x", 2]]
    for row in rows:
        sheet.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    outcome = await outcome_of_bytes(tmp_path, "a.xlsx", buffer.getvalue())
    assert [(block.kind, block.text) for block in outcome.blocks] == [
        ("heading", "Costs"),
        ("paragraph", "Title"),
        ("table", "Item | Price\nBolt | 1.5"),
        ("paragraph", "Total"),
        ("paragraph", "x | 2"),
    ]


async def test_mail_prefers_plain_text_and_reads_attachments(tmp_path: Path) -> None:
    inner = EmailMessage()
    inner["Subject"] = "Forwarded"
    inner.set_content("The budget is 70,000 euros.")
    mail = EmailMessage()
    mail["Subject"] = "Grüße"
    mail["From"] = "ann@example.org"
    mail.set_content("Hello")
    mail.add_alternative("<p>Hello in HTML</p>", subtype="html")
    mail.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="t.csv")
    mail.add_attachment(b"\0\1\2\3" * 50, maintype="application", subtype="x", filename="t.bin")
    mail.add_attachment(inner)
    outcome = await outcome_of_bytes(tmp_path, "a.eml", mail.as_bytes())
    assert outcome.reason is None
    assert outcome.of("heading")[0] == "Grüße"
    assert "Hello" in outcome.of("paragraph")
    assert "Hello in HTML" not in outcome.text
    assert outcome.of("table") == ["a | b\n1 | 2"]
    assert "(t.bin was not read: " in outcome.text
    assert "The budget is 70,000 euros." in outcome.text


async def test_json_values_carry_the_names_that_lead_to_them(tmp_path: Path) -> None:
    value = {"site": "Oslo", "people": [{"name": "Ann", "pets": [{"kind": "cat"}]}]}
    outcome = await outcome_of_bytes(tmp_path, "a.json", json.dumps(value).encode())
    assert [(block.kind, block.text) for block in outcome.blocks] == [
        ("paragraph", "site: Oslo"),
        ("heading", "people"),
        ("paragraph", "name: Ann\npets[1].kind: cat"),
    ]
    lines = await outcome_of_bytes(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": 2}\nnot json\n')
    assert lines.of("paragraph") == ["a: 1", "a: 2", "not json"]


async def test_archive_gives_each_file_its_name(tmp_path: Path) -> None:
    archive = zipped({
        "docs/plan.md": "# Plan\n\nShip it.",
        "inner.zip": zipped({"deep.txt": "Found in the depth."}),
        "tool.exe": b"MZ" + bytes(range(256)),
    })  # fmt: skip
    outcome = await outcome_of_bytes(tmp_path, "a.zip", archive)
    assert outcome.of("heading") == ["docs/plan.md", "Plan", "inner.zip", "deep.txt", "tool.exe"]
    assert "Found in the depth." in outcome.text
    assert "(tool.exe was not read: Files of this type are not supported" in outcome.text


async def test_archive_without_one_readable_file_is_rejected(tmp_path: Path) -> None:
    outcome = await outcome_of_bytes(tmp_path, "a.zip", zipped({"a.txt": b"", "b.txt": b""}))
    assert outcome.reason == ("None of the files in it can be read; the first: The file is empty.")


async def test_pdf_joins_lines_mends_hyphens_and_drops_running_titles(tmp_path: Path) -> None:
    canvas = Canvas(str(tmp_path / "report.pdf"), pagesize=A4)
    for page in range(1, 6):
        canvas.setFont("Helvetica", 8)
        canvas.drawString(72, 800, "Annual report 2024")
        canvas.drawString(280, 30, f"Page {page} of 5")
        canvas.setFont("Helvetica-Bold", 16)
        canvas.drawString(72, 760, f"Chapter {'ABCDE'[page - 1]}")
        text = canvas.beginText(72, 730)
        text.setFont("Helvetica", 10)
        for line in (
            "The committee found the reports con-",
            f"vincing on sheet {page}, and said so.",
        ):
            text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    outcome = await outcome_of_bytes(tmp_path, "r.pdf", (tmp_path / "report.pdf").read_bytes())
    assert [(block.kind, block.page, block.text) for block in outcome.blocks[:2]] == [
        ("heading", 1, "Chapter A"),
        ("paragraph", 1, "The committee found the reports convincing on sheet 1, and said so."),
    ]
    assert "Annual report" not in outcome.text
    assert "of 5" not in outcome.text


async def test_scanned_page_is_recognised_and_text_page_is_not(tmp_path: Path) -> None:
    picture_of("Invoice number 4711").save(tmp_path / "scan.png")
    canvas = Canvas(str(tmp_path / "mixed.pdf"), pagesize=A4)
    canvas.drawString(72, 700, "This page has a text layer of its own.")
    canvas.showPage()
    canvas.drawImage(str(tmp_path / "scan.png"), 72, 600, width=450, height=80)
    canvas.showPage()
    canvas.save()
    outcome = await outcome_of_bytes(tmp_path, "m.pdf", (tmp_path / "mixed.pdf").read_bytes())
    assert [block.page for block in outcome.blocks] == [1, 2]
    assert "4711" in outcome.blocks[1].text
    refused = await outcome_of_bytes(
        tmp_path,
        "m.pdf",
        (tmp_path / "mixed.pdf").read_bytes(),
        limits=ParseLimits(max_ocr_pages=0),
    )
    assert refused.reason is not None
    assert "More than 0 of its pages are scans" in refused.reason


async def test_code_is_cut_at_definitions_and_keeps_its_indentation(tmp_path: Path) -> None:
    function = "def f_{0}(x):\n    if x:\n        return {0}\n\n\n"
    source = "".join(function.format(number) for number in range(200))
    outcome = await outcome_of_bytes(tmp_path, "a.py", source.encode())
    assert all(text.startswith("def f_") for text in outcome.of("code"))
    assert "    if x:\n        return 199" in outcome.text
