"""Rows that say nearly the same: one of them is enough, and none may leak what is held out.

Similarity is estimated by MinHash over word trigrams (datasketch), so thousands of rows take
seconds.
"""

import re
from collections import Counter
from collections.abc import Sequence

from datasketch import MinHash, MinHashLSH

from feedback.rows import Basis, Row

PERMUTATIONS = 128
"""Of a MinHash; its standard error is at most 1 / (2 * sqrt(128)) = 0.044."""
INDEX_MARGIN = 0.1
"""Two of its standard errors."""
WORDS_AT_ONCE = 3

_PRIORITY: dict[Basis, int] = {"correction": 0, "comparison": 1, "votes": 2}


def without_near_duplicates(
    rows: Sequence[Row], *, threshold: float, left_out: Counter[str]
) -> list[Row]:
    """Keep one of each group of like rows of a kind, and no training row with a held-out question.

    Args:
        threshold: Jaccard similarity from which two texts are alike, 0 to 1.
        left_out: counts what goes.
    """
    best_first = sorted(rows, key=lambda row: (_PRIORITY[row.basis], -len(row.voters), row.id))
    held_out = _Seen(threshold)
    for row in rows:
        if row.split == "held_out":
            held_out.add(row.question)
    groups: dict[object, _Seen] = {}
    kept = []
    for row in best_first:
        if row.split == "train" and held_out.has(row.question):
            left_out["its question is nearly one that is held out"] += 1
            continue
        group = groups.setdefault((row.kind, row.split, row.label), _Seen(threshold))
        said = "\n".join(filter(None, (row.question, row.chosen, row.rejected)))
        if group.has(said):
            left_out["nearly the same row"] += 1
            continue
        group.add(said)
        kept.append(row)
    return sorted(kept, key=lambda row: row.id)


class _Seen:
    """Texts, and whether one is like any of them."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        # Misses cost more than candidates, which are compared exactly anyhow.
        nearby = min(max(threshold - INDEX_MARGIN, 0.0), 0.9)
        self._index = MinHashLSH(threshold=nearby, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
        self._texts: list[frozenset[str]] = []

    def add(self, text: str) -> None:
        pieces = _pieces(text)
        self._index.insert(str(len(self._texts)), _hashed(pieces))
        self._texts.append(pieces)

    def has(self, text: str) -> bool:
        """Candidates come from the index; the similarity that decides is exact."""
        pieces = _pieces(text)
        candidates = self._index.query(_hashed(pieces))
        return any(self._like(pieces, self._texts[int(each)]) for each in candidates)

    def _like(self, first: frozenset[str], second: frozenset[str]) -> bool:
        union = len(first | second)
        return union == 0 or len(first & second) / union >= self._threshold


def _pieces(text: str) -> frozenset[str]:
    words = re.findall(r"\w+", text.casefold())
    last = max(1, len(words) - WORDS_AT_ONCE + 1)
    return frozenset(" ".join(words[at : at + WORDS_AT_ONCE]) for at in range(last))


def _hashed(pieces: frozenset[str]) -> MinHash:
    hashed = MinHash(num_perm=PERMUTATIONS, seed=1)
    hashed.update_batch([piece.encode() for piece in sorted(pieces)])
    return hashed
