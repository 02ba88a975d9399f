"""Text to lexical terms, for any language: words, stems, and pairs of characters. Pure.

No stop words and no stemmer: how often a term occurs tells its weight, and the first letters of a
word are its stem in most languages that inflect at the end. Scripts without spaces between words
give overlapping pairs of characters instead.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

TERM_SPACE = 1_000_000_000
"""Term ids are 1 to this, the most dimensions of pgvector's `sparsevec`: hashes rarely meet."""

K1 = 1.2
B = 0.5
"""BM25's usual saturation; length counts for less than the usual 0.75, because chunks are of
similar length by construction."""
TYPICAL_WORDS = 120
"""Words of a typical chunk. A constant, not the average of the collection: a chunk's weights then
never change when others come and go."""
STEM_LETTERS = 5
STEM_WEIGHT = 0.4
"""What sharing a stem counts against sharing the word; `tests.benchmarks retrieval` chose both."""


def _ranges(code_points: Iterable[int]) -> str:
    """A regular expression's class of code points, as ranges."""
    ranges: list[list[int]] = []
    for point in code_points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges)


_MARKS = _ranges(
    # The planes that have marks: to look through all takes every process 0.15 s at its start.
    point
    for point in chain(range(0x20000), range(0xE0000, 0xE1000))
    if unicodedata.category(chr(point))[0] == "M"
)
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_WORD = re.compile(rf"[^\W_][\w{_MARKS}]*")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+")
_ACCENTS = re.compile("[\u0300-\u036f\u064b-\u065f\u0640\u0670]+")
"""Accents of Latin, Greek and Cyrillic letters, and the Arabic signs that writers leave out."""


def document_terms(text: str) -> dict[int, float]:
    """Each term's part of BM25 in a text: saturated frequency, length taken into account.

    The BM25 score of a text for a query is the sum over the query's terms of this times
    `query_terms` times the term's inverse document frequency.
    """
    counts: Counter[int] = Counter()
    words = 0
    for term, is_word in _terms(text):
        counts[term_id(term)] += 1
        words += is_word
    norm = K1 * (1 - B + B * words / TYPICAL_WORDS)
    return {term: count * (K1 + 1) / (count + norm) for term, count in counts.items()}


def query_terms(text: str) -> dict[int, float]:
    """Each term of a query with the weight of its kind."""
    return {term_id(term): 1.0 if is_word else STEM_WEIGHT for term, is_word in _terms(text)}


def term_id(term: str) -> int:
    """A term's number, 1 to `TERM_SPACE`."""
    return zlib.crc32(term.encode("utf-8", "surrogatepass")) % TERM_SPACE + 1


def _terms(text: str) -> Iterator[tuple[str, bool]]:
    """Yield terms with whether each is a word (or pair of characters) rather than a stem."""
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = match[0]
        start = 0
        for run in _UNSPACED_RUN.finditer(word):
            if run.start() > start:
                yield from _word_terms(word[start : run.start()])
            yield from _pairs(run[0])
            start = run.end()
        if start < len(word):
            yield from _word_terms(word[start:])


def _pairs(run: str) -> Iterator[tuple[str, bool]]:
    if len(run) == 1:
        yield run, True
    for first, second in pairwise(run):
        yield first + second, True


def _word_terms(word: str) -> Iterator[tuple[str, bool]]:
    plain = word if word.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", word))
    yield plain, True
    if len(plain) > STEM_LETTERS and not plain.isdigit():
        yield f"{plain[:STEM_LETTERS]}~", False
