"""Files that lie, break or attack end with a reason, in bounded time and memory."""

import asyncio
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from storage.parsing import ParseLimits, parse
from storage.parsing.formats import BINARY_FORMATS, TEXT_FORMATS
from storage.parsing.supervisor import TOO_MUCH_MEMORY
from tests.storage.parsing_helpers import CHECKOUT, children_reading, outcome_of_bytes

EXTENSIONS = sorted(
    extension
    for known in (BINARY_FORMATS | TEXT_FORMATS).values()
    for extension in known.extensions
)
SIGNATURES = [
    b"", b"%PDF-1.7\n", b"PK\x03\x04", b"{\\rtf1 ", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"II*\x00", b"<html>", b"<?xml version='1.0'?><a>", b"{",
    b"From: a\nSubject: b\n\n", b"\xff\xfe", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP",
]  # fmt: skip


def small_pdf(**options: object) -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, **options)  # type: ignore[no-untyped-call,unused-ignore]
    canvas.drawString(72, 700, "A page with enough text to be read.")
    canvas.save()
    return buffer.getvalue()


def encryption() -> object:
    return StandardEncryption("secret", ownerPassword="owner")


def zip_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def zip_in_zips(depth: int) -> bytes:
    data = b"at the bottom"
    for level in range(depth):
        data = zip_of("a.txt" if level == 0 else "inner.zip", data)
    return data


def picture_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def billion_laughs() -> bytes:
    entities = '<!ENTITY l0 "lol">' + "".join(
        f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10)
    )
    return f'<?xml version="1.0"?><!DOCTYPE lolz [{entities}]><lolz>&l9;</lolz>'.encode()


def million_objects() -> bytes:
    head = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    head += b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    rest = b"".join(b"%d 0 obj<<>>endobj\n" % number for number in range(3, 1_000_003))
    return head + rest + b"trailer<</Root 1 0 R/Size 9>>\n%%EOF"


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zip bomb": ("a.zip", lambda: zip_of("a.txt", b"\0" * 200_000_000), "a ZIP bomb?"),
    "office bomb": ("a.docx", lambda: zip_of("word/x", b" " * 200_000_000), "its content is ZIP"),
    "archives within archives": ("a.zip", lambda: zip_in_zips(9), "nested deeper than 4"),
    "billion laughs": ("a.xml", billion_laughs, "an XML bomb?"),
    "million objects": ("a.pdf", million_objects, "objects or more; the limit is 500,000"),
    "picture bomb": ("a.png", lambda: picture_bomb(60_000), "60,000 x 60,000 pixels"),
    "deep JSON": ("a.json", lambda: b"[" * 300_000 + b"]" * 300_000, "nested more than"),
    "deep XML": ("a.xml", lambda: b"<a>" * 300_000 + b"x", "nested more than"),
    "million columns": ("a.csv", lambda: b"1," * 1_000_000, "1,000,001 cells"),
    "endless quote": ("a.csv", lambda: b'a,b\n"' + b"x,y\n" * 1_000_000, "quotation mark"),
    "encrypted PDF": (
        "a.pdf",
        lambda: small_pdf(encrypt=encryption()),
        "needs a password",
    ),
    "page loop": (
        "a.pdf",
        lambda: (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
            b"2 0 obj<</Type/Pages/Kids[2 0 R]/Count 99999999>>endobj\ntrailer<</Root 1 0 R>>"
        ),
        "",
    ),
    "PDF named as text": ("a.txt", small_pdf, "named .txt but its content is PDF"),
    "PDF named as Word": ("a.docx", small_pdf, "named .docx but its content is PDF"),
    "HTML named as PDF": ("a.pdf", lambda: b"<!DOCTYPE html><p>Hi", "its content is HTML"),
    "program named as text": ("a.txt", lambda: b"MZ" + bytes(range(256)) * 9, "a Windows program"),
    "noise named as PDF": ("a.pdf", lambda: bytes(range(256)) * 9, "not a valid PDF"),
    "cut PDF": ("a.pdf", lambda: small_pdf()[:300], "damaged"),
    "cut ZIP": ("a.zip", lambda: zip_of("a", os.urandom(5000))[:2000], "damaged"),
    "cut picture": ("a.png", lambda: picture_bomb(2000)[:500], "damaged"),
    "white space": ("a.txt", lambda: b" \n\t" * 500, "No text was found"),
    "gzip": ("a.gz", lambda: b"\x1f\x8b\x08" + bytes(range(200)), "a gzip archive"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
async def test_hostile_file_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    name, make, reason = HOSTILE[case]
    outcome = await outcome_of_bytes(tmp_path, name, make())
    assert outcome.reason is not None
    assert reason in outcome.reason


async def test_stray_nul_bytes_and_giant_lines_are_text(tmp_path: Path) -> None:
    stray = await outcome_of_bytes(tmp_path, "a.txt", b"hello wor\0ld, this is still a text")
    assert stray.text == "hello world, this is still a text"
    giant = await outcome_of_bytes(tmp_path, "a.txt", b"x" * 5_000_000)
    assert sum(len(block.text) for block in giant.blocks) == 5_000_000
    assert max(len(block.text) for block in giant.blocks) <= 50_000


@pytest.mark.parametrize(
    ("limits", "data", "reason"),
    [
        (ParseLimits(max_bytes=10), b"more than ten bytes", "too large"),
        (ParseLimits(max_characters=100), b"word " * 200, "more than 100 characters"),
        (ParseLimits(timeout_s=0.001), b"text", "took too long"),
    ],
)
async def test_limits_are_named(
    tmp_path: Path, limits: ParseLimits, data: bytes, reason: str
) -> None:
    outcome = await outcome_of_bytes(tmp_path, "a.txt", data, limits=limits)
    assert outcome.reason is not None
    assert reason in outcome.reason


async def test_too_many_pages_are_refused_before_the_first(tmp_path: Path) -> None:
    outcome = await outcome_of_bytes(
        tmp_path, "a.pdf", small_pdf(), limits=ParseLimits(max_pages=0)
    )
    assert outcome.reason == "It has 1 pages; the limit is 0."
    assert not outcome.blocks


async def test_memory_beyond_the_limit_is_named(tmp_path: Path) -> None:
    data = b"[" + b",".join(b'{"a": "%d"}' % number for number in range(400_000)) + b"]"
    limits = ParseLimits(memory_bytes=150 * 1024**2)
    outcome = await outcome_of_bytes(tmp_path, "a.json", data, limits=limits)
    assert outcome.reason == TOO_MUCH_MEMORY


def wait_until_gone(path: Path, deadline_s: float = 10) -> bool:
    until = time.monotonic() + deadline_s
    while children_reading(path):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


async def test_closing_the_generator_kills_the_child(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"A sentence of a long document.\n\n" * 500_000)
    blocks = parse(path, name="large.txt", limits=ParseLimits())
    await anext(blocks)
    assert children_reading(path)
    await blocks.aclose()
    assert not children_reading(path)


async def test_cancelling_the_consumer_kills_the_child(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"A sentence of a long document.\n\n" * 500_000)
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in parse(path, name="large.txt", limits=ParseLimits()):
            started.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children_reading(path)


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"A sentence of a long document.\n\n" * 500_000)
    program = """
import asyncio, sys
from pathlib import Path
from storage.parsing import ParseLimits, parse
async def main():
    async for block in parse(Path(sys.argv[1]), name="large.txt", limits=ParseLimits()):
        print("reading", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=CHECKOUT
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"reading\n"
        assert children_reading(path)
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone(path)


async def test_child_sees_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_TEST_SECRET", "hunter2")
    path = tmp_path / "large.txt"
    path.write_bytes(b"A sentence of a long document.\n\n" * 500_000)
    blocks = parse(path, name="large.txt", limits=ParseLimits())
    await anext(blocks)
    (child,) = children_reading(path)
    assert b"hunter2" not in (child / "environ").read_bytes()
    await blocks.aclose()


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    extension=st.sampled_from(EXTENSIONS),
    signature=st.sampled_from(SIGNATURES),
    data=st.binary(max_size=2000),
)
def test_random_bytes_end_with_blocks_or_a_reason(
    tmp_path: Path, extension: str, signature: bytes, data: bytes
) -> None:
    limits = ParseLimits(timeout_s=30, ocr_timeout_s=60)
    outcome = asyncio.run(
        outcome_of_bytes(tmp_path, f"a.{extension}", signature + data, limits=limits)
    )
    assert bool(outcome.blocks) or bool(outcome.reason)
