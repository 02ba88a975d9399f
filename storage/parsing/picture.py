"""Text recognition on pictures and scanned pages, with the models inside the rapidocr wheel."""

import functools
import logging
from typing import Any

import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from storage.errors import DocumentRejected
from storage.parsing.blocks import Drafts
from storage.parsing.page_layout import Survey, page_drafts
from storage.parsing.page_order import in_reading_order, recognised_line
from storage.parsing.reading import LimitExceeded, Reading, Source

RENDER_DPI = 150
"""10-point print is then 21 pixels high, above the 12 or so that recognition needs."""
MAX_SIDE_PIXELS = 3_000
"""Longer sides are scaled down: detection costs grow with the area, legibility does not."""
MIN_SIDE_PIXELS = 1_000
"""Small pictures are doubled; screenshots have letters of 8 pixels."""
MIN_CONFIDENCE = 0.5
"""rapidocr's own default for `text_score`."""
THREADS = 2


def read_picture(source: Source, reading: Reading) -> Drafts:
    """Yield the text in a picture; each frame of a TIFF is a page."""
    Image.MAX_IMAGE_PIXELS = None  # checked below, with a reason
    with source.path.open("rb") as file:
        is_heif = file.read(12)[4:8] == b"ftyp"
    if is_heif:
        import pi_heif  # type: ignore[import-untyped,unused-ignore]

        pi_heif.register_heif_opener()
    try:
        with Image.open(source.path) as picture:
            width, height = picture.size
            if width * height > reading.limits.max_pixels:
                raise LimitExceeded(
                    f"The picture is too large: {width:,} x {height:,} pixels; "
                    f"the limit is {reading.limits.max_pixels / 1e6:.0f} million."
                )
            count = getattr(picture, "n_frames", 1) if picture.format in ("TIFF", "MPO") else 1
            reading.check_pages(count)
            for index, frame in enumerate(ImageSequence.Iterator(picture)):
                if index == count:
                    break
                reading.progress(index, count)
                upright = ImageOps.exif_transpose(frame).convert("RGB")
                yield from _page_drafts(upright, index + 1 if count > 1 else None, reading)
            reading.progress(count, count)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DocumentRejected("The picture is damaged: it cannot be decoded.") from error


def recognise_page(page: pdfium.PdfPage, number: int, reading: Reading) -> Drafts:
    """Yield the text that a PDF page shows but does not contain."""
    width, height = page.get_size()
    scale = min(RENDER_DPI / 72, MAX_SIDE_PIXELS / max(width, height, 1))
    picture = page.render(scale=scale).to_pil().convert("RGB")
    yield from _page_drafts(picture, number, reading)


def _page_drafts(picture: Image.Image, page: int | None, reading: Reading) -> Drafts:
    reading.begin_ocr_page()
    longest = max(picture.size)
    factor = MAX_SIDE_PIXELS / longest if longest > MAX_SIDE_PIXELS else 1.0
    if longest < MIN_SIDE_PIXELS:
        factor = 2.0
    if factor != 1.0:
        size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    result = _engine()(np.asarray(picture)[:, :, ::-1])
    if result.boxes is None:
        return
    found = [
        recognised_line(box, text, picture.height)
        for box, text, score in zip(result.boxes, result.txts, result.scores, strict=True)
        if score >= MIN_CONFIDENCE and text.strip()
    ]
    lines = in_reading_order(found)
    if not lines:
        return
    sizes = sorted(line.size for line in lines)
    survey = Survey(body_size=sizes[len(sizes) // 2], margins=frozenset())
    yield from page_drafts(lines, page, survey, (0, picture.height))


@functools.cache
def _engine() -> Any:
    """Load the models once a process; they are part of the wheel, nothing is downloaded."""
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Global.log_level": "error",
        }
    )
