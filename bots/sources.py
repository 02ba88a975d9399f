"""What the model gets to read: the spans of the best hits that most likely hold the answer. Pure.

Reading the prompt is most of the wait, so whole passages are too much. The best hit stays whole
where that leaves room; from the others come the sentences that share the question's rare terms, and
the sentences next to those, until the budget is spent. Terms are those of the lexical index, so
nothing here knows a language.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from bots.followups import log_odds
from bots.messages import Source, place_in_document
from storage.search import Hit
from storage.terms import query_terms
from storage.text_units import Span, line_spans, sentence_spans

MAX_HITS = 5
"""Hits that spans are taken from: hit@5 is 1.0 where hit@3 is 0.998 (XQuAD, `prompt_economy`)."""
LEAST_SCORE = 0.02
"""Hits after the first that score less only distract the model; no answer of XQuAD is lost."""
WHOLE_SHARE = 0.65
"""Most of the budget that the best hit may take as a whole."""
LONG_UNIT_CHARACTERS = 300
"""A longer "sentence" with line breaks is a table, a list or code, and is cut at its lines."""
NEIGHBOUR_SHARE = 0.5
"""What a sentence inherits from the better one next to it: answers often stand one sentence on."""
EVIDENCE_SHARE = 0.3
"""What one unit of a hit's evidence (log odds of its score) counts against the question's overlap;
the middle of the plateau, 0.25 to 0.4, where `prompt_economy` loses no answer."""
SOURCE_OVERHEAD_TOKENS = 8
"""Number, brackets and line breaks around one source in `engine.prompt.rag_messages`."""
GAP = " … "


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A sentence or line of a hit.

    Attributes:
        hit: index of its hit.
        position: its index within the hit.
    """

    hit: int
    position: int
    text: str


def title(hit: Hit | Source) -> str:
    """What the model and people are told about where a source comes from."""
    place = place_in_document(page=hit.page, heading=hit.heading)
    return f"{hit.document}, {place}" if place else hit.document


def units_of(hits: Sequence[Hit]) -> list[Unit]:
    """Cut the hits that are worth reading into sentences, and what has no sentences into lines."""
    return [
        Unit(hit=index, position=position, text=hit.text[start:end])
        for index, hit in enumerate(hits[:MAX_HITS])
        if index == 0 or hit.score >= LEAST_SCORE
        for position, (start, end) in enumerate(_spans(hit.text))
    ]


def select(
    question: str,
    hits: Sequence[Hit],
    units: Sequence[Unit],
    *,
    unit_tokens: Sequence[int],
    title_tokens: Sequence[int],
    max_tokens: int,
) -> tuple[Source, ...]:
    """Choose the units that the prompt holds and join them to numbered sources, best hit first.

    Args:
        question: what is asked, context of a follow-up included.
        hits: of the search, best first.
        units: of `units_of(hits)`.
        unit_tokens: the answering model's tokens of each unit.
        title_tokens: likewise of each hit's title.
        max_tokens: most tokens of all sources together, titles included.
    """
    values = _values(question, hits, units)
    chosen: set[int] = set()
    opened: set[int] = set()
    left = max_tokens

    def take(indices: Sequence[int]) -> bool:
        nonlocal left
        fresh = [index for index in indices if index not in chosen]
        new_hits = {units[index].hit for index in fresh} - opened
        cost = sum(unit_tokens[index] for index in fresh) + sum(
            title_tokens[hit] + SOURCE_OVERHEAD_TOKENS for hit in new_hits
        )
        if cost > left:
            return False
        left -= cost
        chosen.update(fresh)
        opened.update(new_hits)
        return True

    best = [index for index, unit in enumerate(units) if unit.hit == 0]
    if sum(unit_tokens[index] for index in best) <= WHOLE_SHARE * max_tokens:
        take(best)
    for index in sorted(range(len(units)), key=lambda index: -values[index]):
        take([index])
    if not chosen and units:
        # Not even one sentence fits: a part of the best one is better than nothing.
        return _joined(
            hits, [_cut(units[max(range(len(units)), key=values.__getitem__)], max_tokens)]
        )
    return _joined(hits, [units[index] for index in sorted(chosen)])


def _cut(unit: Unit, max_tokens: int) -> Unit:
    # No tokenizer has less than one character a token in ordinary text.
    return Unit(hit=unit.hit, position=unit.position, text=unit.text[:max_tokens])


def _joined(hits: Sequence[Hit], units: Sequence[Unit]) -> tuple[Source, ...]:
    sources = []
    for number, (index, group) in enumerate(groupby(units, key=lambda unit: unit.hit), start=1):
        hit = hits[index]
        sources.append(
            Source(
                number=number,
                chunk_id=hit.chunk_id,
                document_id=hit.document_id,
                document=hit.document,
                page=hit.page,
                heading=hit.heading,
                text=_with_gaps(list(group)),
                score=hit.score,
            )
        )
    return tuple(sources)


def _with_gaps(units: Sequence[Unit]) -> str:
    parts: list[str] = []
    for before, unit in zip([None, *units], units, strict=False):
        if before is not None and unit.position != before.position + 1:
            parts[-1] = parts[-1].rstrip()
            parts.append(GAP)
        parts.append(unit.text)
    return "".join(parts).strip()


def _spans(text: str) -> list[Span]:
    spans = []
    for start, end in sentence_spans(text, (0, len(text))):
        long = end - start > LONG_UNIT_CHARACTERS
        spans += line_spans(text, (start, end)) if long else [(start, end)]
    return spans


def _values(question: str, hits: Sequence[Hit], units: Sequence[Unit]) -> list[float]:
    """How likely each unit answers: overlap with the question, neighbours, its hit's evidence."""
    overlaps = overlaps_with(question, [unit.text for unit in units])
    values = []
    for index, unit in enumerate(units):
        near = [
            overlaps[other]
            for other in (index - 1, index + 1)
            if 0 <= other < len(units) and units[other].hit == unit.hit
        ]
        evidence = log_odds(hits[unit.hit].score) - log_odds(hits[0].score)
        overlap = max([overlaps[index], *(NEIGHBOUR_SHARE * value for value in near)])
        values.append(overlap + EVIDENCE_SHARE * evidence)
    return values


def overlaps_with(question: str, texts: Sequence[str]) -> list[float]:
    """Share of a question's terms in each text, 0 to 1, rare ones among the texts weighing more."""
    asked = query_terms(question)
    found = [asked.keys() & query_terms(text).keys() for text in texts]
    frequency = Counter(term for terms in found for term in terms)
    weights = {
        term: weight * math.log(1 + len(texts) / frequency[term])
        for term, weight in asked.items()
        if term in frequency
    }
    total = sum(weights.values()) or 1.0
    return [sum(weights[term] for term in terms) / total for terms in found]
