"""Which source supports which sentence of an answer. Pure.

The model's own markers are claims to check, and a small model rarely writes any. So every sentence
is compared with the sources: a marker stays, or is added, only where one passage of that source
holds the sentence's words by their weight, and all of its numbers and names.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bots.followups import log_odds
from bots.messages import Citation, Source
from bots.sources import EVIDENCE_SHARE, GAP, overlaps_with
from storage.terms import STEM_LETTERS, query_terms
from storage.text_units import sentence_spans

SUPPORTED_SHARE = 0.6
"""Share of a sentence's terms, by their rarity among the sources, that one passage must hold."""
FEW_WORDS = 2
"""A sentence with fewer telling words ("The answer is 13.") says nothing without its question."""
MAX_QUOTE_CHARACTERS = 400

_MARKERS = re.compile(r"\s*\[\s*\d{1,3}(?:\s*[,;]\s*\d{1,3})*\s*\]")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NAME = re.compile(r"(?<=\s)[^\W\d_]\w*")


@dataclass(frozen=True, kw_only=True)
class Cited:
    """An answer whose markers are all supported, and the sources that they name."""

    text: str
    citations: tuple[Citation, ...]


class Citer:
    """Checks one answer against its sources, while it is written and when it is complete."""

    def __init__(self, *, question: str, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._judge = _Judge(question, sources)

    def cite(self, answer: str, *, complete: bool = True) -> Cited:
        """Check the answer's markers, and mark what the model left unmarked.

        Markers of sources that do not exist or do not support their sentence are removed.

        Args:
            answer: what the model wrote, cut between words.
            complete: whether the last sentence has ended; before that it gets no marker, so that
                every longer answer begins with this one's text.
        """
        parts: list[str] = []
        quotes: dict[int, str] = {}
        sentences = _sentences(answer)
        for index, (sentence, claimed) in enumerate(sentences):
            numbers: list[int] = []
            if complete or index + 1 < len(sentences):
                supported = self._judge.quotes(sentence)
                numbers = [number for number in claimed if number in supported]
                numbers = numbers or list(supported)[:1]
                for number in numbers:
                    quotes.setdefault(number, supported[number])
            parts.append(_marked(sentence, numbers))
        text = "".join(parts).strip()
        return Cited(text=text, citations=_citations(self._sources, quotes))


def closest(question: str, sources: Sequence[Source]) -> Citation:
    """The passage that most likely answers, for an answer that no source supports.

    It holds the answer to 89 % of XQuAD's questions, at 250 characters on average.
    """
    passages = [(source, text) for source in sources for text in _passages(source)]
    values = [
        overlap + EVIDENCE_SHARE * log_odds(source.score)
        for overlap, (source, _) in zip(
            overlaps_with(question, [text for _, text in passages]), passages, strict=True
        )
    ]
    source, text = passages[max(range(len(passages)), key=values.__getitem__)]
    return _citations([source], {source.number: text})[0]


def _sentences(answer: str) -> list[tuple[str, list[int]]]:
    """Sentences without their markers, and the numbers that each was marked with.

    A marker behind the full stop belongs to the sentence before it.
    """
    found: list[tuple[str, list[int]]] = []
    for start, end in sentence_spans(answer, (0, len(answer))):
        sentence, numbers = answer[start:end], []
        while found and (leading := _MARKERS.match(sentence)):
            found[-1][1].extend(_numbers(leading[0]))
            sentence = sentence[leading.end() :].lstrip()
        for marker in _MARKERS.finditer(sentence):
            numbers += _numbers(marker[0])
        sentence = _MARKERS.sub("", sentence)
        if found and not sentence.strip():
            found[-1] = (found[-1][0] + sentence, [*found[-1][1], *numbers])
        else:
            found.append((sentence, numbers))
    return found


def _numbers(marker: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", marker)]


def _marked(sentence: str, numbers: Sequence[int]) -> str:
    """Put the markers behind the sentence, where a stream can still add them."""
    if not numbers:
        return sentence
    body = sentence.rstrip()
    markers = "".join(f"[{number}]" for number in sorted(set(numbers)))
    return f"{body} {markers}{sentence[len(body) :]}"


class _Judge:
    """Knows what the sources say."""

    def __init__(self, question: str, sources: Sequence[Source]) -> None:
        self._known: dict[str, dict[int, str]] = {}
        self._question = question
        self._passages = [
            (source, text, query_terms(text).keys() | query_terms(_above(source)).keys())
            for source in sources
            for text in _passages(source)
        ]
        self._frequency = Counter(term for *_, terms in self._passages for term in terms)

    def quotes(self, sentence: str) -> dict[int, str]:
        """The sources that support a sentence, the best one first, with their passages."""
        sentence = sentence.strip()
        if sentence not in self._known:
            self._known[sentence] = self._quotes(sentence)
        return self._known[sentence]

    def _quotes(self, sentence: str) -> dict[int, str]:
        words = query_terms(sentence)
        if not words:
            return {}
        rare = [
            term
            for term, weight in words.items()
            if weight == 1.0 and 0 < self._frequency[term] <= len(self._passages) / 2
        ]
        few = len(rare) < FEW_WORDS
        asked = query_terms(self._question) if few else {}
        scored = []
        for source, text, terms in self._passages:
            if asked and not words.keys() <= terms:
                continue
            share = self._share({**asked, **words}, terms)
            if share >= SUPPORTED_SHARE and _same_facts(sentence, f"{text} {_above(source)}"):
                # A shorter passage that says the same is the better quote.
                scored.append((share, -len(text), -source.number, text))
        quotes: dict[int, str] = {}
        for _, _, number, text in sorted(scored, reverse=True):
            quotes.setdefault(-number, text)
        return quotes

    def _share(self, words: dict[int, float], terms: set[int]) -> float:
        weights = {
            term: weight * math.log(1 + len(self._passages) / (self._frequency[term] or 0.5))
            for term, weight in words.items()
        }
        return sum(weights[term] for term in words.keys() & terms) / sum(weights.values())


def _passages(source: Source) -> list[str]:
    """Every sentence of a source, and every two neighbours."""
    passages: list[str] = []
    for part in source.text.split(GAP.strip()):
        sentences = [part[start:end].strip() for start, end in sentence_spans(part, (0, len(part)))]
        sentences = [sentence for sentence in sentences if sentence]
        passages += sentences
        passages += [f"{one} {two}" for one, two in pairwise(sentences)]
    return passages or [source.text]


def _above(source: Source) -> str:
    """What stands above a passage and may be named in a sentence about it."""
    return f"{source.document} {source.heading or ''}"


def _same_facts(sentence: str, passage: str) -> bool:
    """Whether all numbers and names of a sentence stand in the passage."""
    numbers = {number.replace(",", "") for number in _NUMBER.findall(passage)}
    if any(number.replace(",", "") not in numbers for number in _NUMBER.findall(sentence)):
        return False
    folded = passage.casefold()
    return all(
        name[:STEM_LETTERS].casefold() in folded
        for name in _NAME.findall(sentence.strip())
        if name[0].isupper()
    )


def _citations(sources: Sequence[Source], quotes: dict[int, str]) -> tuple[Citation, ...]:
    return tuple(
        Citation.of(source, quote=_shortened(quotes[source.number]))
        for source in sources
        if source.number in quotes
    )


def _shortened(quote: str) -> str:
    if len(quote) <= MAX_QUOTE_CHARACTERS:
        return quote
    return quote[:MAX_QUOTE_CHARACTERS].rsplit(None, 1)[0] + " …"
