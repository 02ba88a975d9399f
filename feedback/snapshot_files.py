"""What a snapshot's folder holds, by name; known to whoever trains on it."""

from typing import Final

from feedback.rows import Kind, Split

MANIFEST: Final = "manifest.json"
LISTED: Final = "rows.jsonl"
"""Where each row comes from, in the order of the rows of its kind and split."""


def rows_file(kind: Kind, split: Split) -> str:
    """The file of the rows of a kind and split, in TRL's schema."""
    return f"{kind}.{split}.jsonl"
