"""RTF: striprtf's text, its lines told apart into paragraphs and table rows."""

import itertools

from striprtf.striprtf import rtf_to_text

from storage.parsing.blocks import Drafts, paragraph, table
from storage.parsing.reading import Reading, Source


def read_rtf(source: Source, reading: Reading) -> Drafts:
    """Yield the paragraphs of an RTF file; striprtf marks the cells of a table row by `|`."""
    data = source.path.read_bytes().decode("latin-1")  # RTF is ASCII; other bytes are in escapes
    text = rtf_to_text(data, encoding="cp1252", errors="replace")  # type: ignore[no-untyped-call]
    for is_row, lines in itertools.groupby(text.split("\n"), key=lambda line: line.count("|") > 1):
        if is_row:
            yield table([line.strip().strip("|").split("|") for line in lines])
        else:
            for line in lines:
                yield paragraph(line)
