"""From ratings to training rows. Pure: what is read comes in, rows and reasons come out.

Corrections and strongly liked answers become SFT rows; comparisons, corrections against their
original and liked against disliked answers become preference pairs, from which reward models learn
too; single answers that people agree about become unpaired rows. What curators decide counts
before what members say. The schemas are those of TRL's
trainers (huggingface.co/docs/trl/dataset_formats), prompts as messages.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal
from uuid import UUID

from feedback.rules import Rules
from feedback.rulings import discarded, ruling
from storage.identity import AnswerId, MemberId
from storage.rated import RatedAnswer, RatedComparison

Kind = Literal["sft", "preference", "unpaired"]
Split = Literal["train", "held_out"]
Basis = Literal["correction", "votes", "comparison"]

Messages = tuple[Mapping[str, str], ...]

COMPLETE = ("stop",)
"""Ends of an answer that make it a model of an answer; a cut one may only be the worse of two."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training row with where it comes from.

    Attributes:
        id: of the same ratings the same, whatever else is stored.
        prompt: the messages as they were served.
        chosen: what is to be said; for an unpaired row, what was said.
        rejected: what is not; preference pairs only.
        label: whether `chosen` is liked; unpaired rows only.
        basis: what people did.
        answer_ids: whose ratings made it.
        voters: who, by their pseudonyms.
        curators: whose word it rests on; empty for a row of members' ratings alone.
        question: as it was asked, without what was served around it.
        question_sha256: of the normalised question, which decides the split.
    """

    id: str
    kind: Kind
    split: Split
    prompt: Messages
    chosen: str
    rejected: str | None = None
    label: bool | None = None
    basis: Basis
    answer_ids: tuple[AnswerId, ...]
    voters: tuple[MemberId, ...]
    curators: tuple[UUID, ...] = ()
    question: str
    question_sha256: str

    def trl(self) -> dict[str, Any]:
        """The row in the schema of TRL's SFT, DPO/reward or KTO trainer."""
        prompt = [dict(message) for message in self.prompt]
        chosen = [{"role": "assistant", "content": self.chosen}]
        if self.kind == "sft":
            return {"prompt": prompt, "completion": chosen}
        if self.kind == "unpaired":
            return {"prompt": prompt, "completion": chosen, "label": self.label}
        rejected = [{"role": "assistant", "content": self.rejected}]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


@dataclass(kw_only=True)
class Compiled:
    """Rows, and what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the people who count think of an answer; both may be empty."""

    up: frozenset[MemberId]
    down: frozenset[MemberId]


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What is held of an answer, and by whom: by curators, or else by members.

    Attributes:
        side: `first` = it is good, `second` = it is bad; `corrected` = a curator wrote a better one
            without rating it.
        strong: good enough to be imitated as it is.
    """

    side: Literal["first", "second", "contradictory", "too few", "corrected"]
    strong: bool = False
    voters: frozenset[MemberId] = frozenset()
    curators: tuple[UUID, ...] = ()


def compile_rows(
    answers: Iterable[RatedAnswer], comparisons: Iterable[RatedComparison], *, rules: Rules
) -> Compiled:
    """Apply the rules; the same ratings give the same rows in the same order."""
    compiled = Compiled()
    usable = [
        each
        for each in answers
        if _usable(each, rules, compiled.left_out) and _undisputed(each, rules, compiled.left_out)
    ]
    found: list[Row] = []
    for answer in usable:
        found += _of_corrections(answer, rules)
        found += _of_votes(answer, rules, compiled.left_out)
    found += _liked_against_disliked(usable, rules)
    for comparison in comparisons:
        found += _of_judgements(comparison, rules, compiled.left_out)
    distinct = _distinct(found, compiled.left_out)
    compiled.rows = _varied(_capped(distinct, rules, compiled.left_out), rules, compiled.left_out)
    return compiled


# -- What counts ----------------------------------------------------------------------------------


def _usable(answer: RatedAnswer, rules: Rules, left_out: Counter[str]) -> bool:
    if discarded(answer):
        left_out["curators discarded it"] += 1
        return False
    if answer.prompt is None:
        left_out["nothing that was served is stored"] += 1
        return False
    if not readable_by_all(answer, rules):
        left_out["not everybody may read its sources"] += 1
        return False
    return True


def _undisputed(
    record: RatedAnswer | RatedComparison, rules: Rules, left_out: Counter[str]
) -> bool:
    decided = ruling(record, rules)
    if decided is not None and decided.disputed:
        left_out["curators disagree"] += 1
        return False
    return True


def readable_by_all(answer: RatedAnswer, rules: Rules) -> bool:
    """Whether everybody whom the model will answer may read all that the row would hold.

    That is the excerpts in the prompt, and the conversation itself. What a platform did not say to
    be open is closed.
    """
    readers = {source.readers for source in answer.sources}
    if rules.channel_id is not None:
        return answer.channel_id == rules.channel_id and "member" not in readers
    return answer.open and readers <= {"workspace", "open channel"}


def verdict(answer: RatedAnswer, rules: Rules) -> Verdict:
    """The votes that may train models, by people who are not quarantined."""
    counted = [
        vote for vote in answer.votes if vote.consent and vote.voter not in rules.quarantined
    ]
    return Verdict(
        up=frozenset(vote.voter for vote in counted if vote.value > 0),
        down=frozenset(vote.voter for vote in counted if vote.value < 0),
    )


def opinion(answer: RatedAnswer, rules: Rules) -> Opinion:
    """What counts of an undisputed answer: a curator's rating or correction, else the votes."""
    decided = ruling(answer, rules)
    if decided is not None and decided.value is not None:
        return Opinion(
            side="first" if decided.value > 0 else "second",
            strong=decided.value > 0 and not decided.corrections,
            curators=decided.curators,
        )
    if decided is not None and decided.corrections:
        return Opinion(side="corrected")
    votes = verdict(answer, rules)
    side = majority(votes.up, votes.down, rules)
    voters = {"first": votes.up, "second": votes.down}.get(side, votes.up | votes.down)
    strong = side == "first" and len(votes.up) >= rules.strong_voters
    return Opinion(side=side, strong=strong, voters=voters)


def majority(
    first: frozenset[MemberId], second: frozenset[MemberId], rules: Rules
) -> Literal["first", "second", "contradictory", "too few"]:
    """Which side has it."""
    total = len(first) + len(second)
    if total < rules.min_voters or total == 0:
        return "too few"
    more = max(len(first), len(second))
    # A share that is reached exactly is reached, whatever a division makes of it.
    if more + 1e-9 < rules.min_majority * total or len(first) == len(second):
        return "contradictory"
    return "first" if len(first) > len(second) else "second"


# -- Rows -----------------------------------------------------------------------------------------


def _of_corrections(answer: RatedAnswer, rules: Rules) -> list[Row]:
    """The better answer to imitate, and the pair of it and the original."""
    decided = ruling(answer, rules)
    better: list[tuple[str, list[MemberId], tuple[UUID, ...]]] = [
        (correction.text.strip(), [correction.voter], ())
        for correction in answer.corrections
        if correction.consent and correction.voter not in rules.quarantined
    ]
    if decided is not None and decided.corrections:
        better = [(text, [], decided.curators) for text in decided.corrections]
    rows = []
    for text, voters, curators in better:
        if not text.strip():
            continue
        common = _common(answer, rules, basis="correction", voters=voters, curators=curators)
        rows.append(_row(kind="sft", chosen=text, **common))
        rows.append(_row(kind="unpaired", chosen=text, label=True, **common))
        if text != answer.own_words:
            rows.append(_row(kind="preference", chosen=text, rejected=answer.own_words, **common))
    return rows


def _of_votes(answer: RatedAnswer, rules: Rules, left_out: Counter[str]) -> list[Row]:
    held = opinion(answer, rules)
    if held.side not in ("first", "second"):
        if held.voters:
            left_out[f"votes are {held.side}"] += 1
        return []
    liked = held.side == "first"
    if not answer.own_words.strip():
        left_out["the model wrote nothing itself"] += 1
        return []
    if liked and answer.finish_reason not in COMPLETE:
        left_out["a liked answer was cut"] += 1
        return []
    common = _common(
        answer, rules, basis="votes", voters=sorted(held.voters), curators=held.curators
    )
    rows = [_row(kind="unpaired", chosen=answer.own_words, label=liked, **common)]
    if held.strong:
        rows.append(_row(kind="sft", chosen=answer.own_words, **common))
    return rows


def _liked_against_disliked(answers: Sequence[RatedAnswer], rules: Rules) -> list[Row]:
    """Pairs of answers to the very same prompt that people agree about."""
    held = {answer.id: opinion(answer, rules) for answer in answers}
    liked: dict[str, list[RatedAnswer]] = {}
    disliked: dict[str, list[RatedAnswer]] = {}
    for answer in answers:
        if held[answer.id].side in ("first", "second"):
            group = liked if held[answer.id].side == "first" else disliked
            group.setdefault(_digest(answer.prompt), []).append(answer)
    rows = []
    for prompt, good_ones in liked.items():
        for good, bad in product(good_ones, disliked.get(prompt, ())):
            if good.own_words == bad.own_words or good.finish_reason not in COMPLETE:
                continue
            common = _common(
                good,
                rules,
                basis="votes",
                voters=sorted(held[good.id].voters | held[bad.id].voters),
                curators=tuple(sorted({*held[good.id].curators, *held[bad.id].curators})),
                others=[bad.id],
            )
            rows.append(
                _row(kind="preference", chosen=good.own_words, rejected=bad.own_words, **common)
            )
    return rows


def _of_judgements(comparison: RatedComparison, rules: Rules, left_out: Counter[str]) -> list[Row]:
    left, right = comparison.left, comparison.right
    if not (_usable(left, rules, left_out) and _usable(right, rules, left_out)):
        return []
    if left.prompt != right.prompt:
        left_out["two answers read different sources"] += 1
        return []
    if discarded(comparison):
        left_out["curators discarded it"] += 1
        return []
    if not _undisputed(comparison, rules, left_out):
        return []
    side, voters, curators = _preferred(comparison, rules)
    if side not in ("first", "second"):
        left_out[f"judgements are {side}"] += 1
        return []
    good, bad = (left, right) if side == "first" else (right, left)
    if not good.own_words.strip():
        left_out["the model wrote nothing itself"] += 1
        return []
    if good.own_words == bad.own_words or good.finish_reason not in COMPLETE:
        left_out["the better answer is the same, or was cut"] += 1
        return []
    common = _common(
        good,
        rules,
        basis="comparison",
        voters=sorted(voters),
        curators=curators,
        others=[bad.id],
    )
    return [_row(kind="preference", chosen=good.own_words, rejected=bad.own_words, **common)]


def _preferred(
    comparison: RatedComparison, rules: Rules
) -> tuple[str, frozenset[MemberId], tuple[UUID, ...]]:
    """The better side, and who says so: curators, or else the members' majority."""
    decided = ruling(comparison, rules)
    if decided is not None and decided.winner is not None:
        side = {"left": "first", "right": "second"}.get(decided.winner, "undecided")
        return side, frozenset(), decided.curators
    counted = [
        each
        for each in comparison.judgements
        if each.consent and each.voter not in rules.quarantined
    ]
    for_left = frozenset(each.voter for each in counted if each.winner == "left")
    for_right = frozenset(each.voter for each in counted if each.winner == "right")
    side = majority(for_left, for_right, rules)
    return side, for_left if side == "first" else for_right, ()


def _common(
    answer: RatedAnswer,
    rules: Rules,
    *,
    basis: Basis,
    voters: Sequence[MemberId],
    curators: tuple[UUID, ...] = (),
    others: Sequence[AnswerId] = (),
) -> dict[str, Any]:
    question = question_sha256(answer.question)
    return {
        "question": answer.question,
        "prompt": answer.prompt,
        "basis": basis,
        "answer_ids": (answer.id, *others),
        "voters": tuple(voters),
        "curators": curators,
        "question_sha256": question,
        "split": split_of(question, held_out_share=rules.held_out_share),
    }


def _row(
    *,
    kind: Kind,
    chosen: str,
    rejected: str | None = None,
    label: bool | None = None,
    **values: Any,
) -> Row:
    said, other = chosen.strip(), rejected.strip() if rejected is not None else None
    return Row(
        id=_id(kind, values["prompt"], said, other, label),
        kind=kind,
        chosen=said,
        rejected=other,
        label=label,
        **values,
    )


def _id(kind: Kind, prompt: Messages, chosen: str, rejected: str | None, label: bool | None) -> str:
    return _digest((kind, prompt, chosen, rejected, label))[:32]


def question_sha256(question: str) -> str:
    """The hash of a question as people mean it: without case, accents of width, or punctuation."""
    return hashlib.sha256(_words(question).encode()).hexdigest()


def _words(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain))


def split_of(question: str, *, held_out_share: float) -> Split:
    """Where a question belongs, for ever: a larger share keeps what a smaller one held out."""
    place = int(question[:16], 16) / 2**64
    return "held_out" if place < held_out_share else "train"


# -- Too much of the same -------------------------------------------------------------------------


def _distinct(rows: Iterable[Row], left_out: Counter[str]) -> list[Row]:
    """Each row once, with everybody who vouches for it.

    The same completion may not be both liked and disliked, nor chosen and rejected against the same
    other one: who wrote that contradicts each other. A curator's word stands against members'.
    """
    merged: dict[str, Row] = {}
    for row in rows:
        known = merged.get(row.id)
        if known is not None:
            left_out["the same row again"] += 1
            row = _merged(known, row)
        merged[row.id] = row
    opposite = {_opposite(row): row for row in merged.values() if row.kind != "sft"}
    kept = [
        row
        for row in merged.values()
        if row.kind == "sft"
        or row.id not in opposite
        or (row.curators and not opposite[row.id].curators)
    ]
    left_out["rows contradict each other"] += len(merged) - len(kept)
    return sorted(kept, key=lambda row: row.id)


def _merged(first: Row, second: Row) -> Row:
    return Row(
        **{
            **vars(first),
            "basis": "correction" if "correction" in (first.basis, second.basis) else first.basis,
            "voters": tuple(sorted({*first.voters, *second.voters})),
            "curators": tuple(sorted({*first.curators, *second.curators})),
            "answer_ids": tuple(dict.fromkeys((*first.answer_ids, *second.answer_ids))),
        }
    )


def _opposite(row: Row) -> str:
    """The id of the row that says the contrary."""
    if row.rejected is not None:
        return _id(row.kind, row.prompt, row.rejected, row.chosen, None)
    return _id(row.kind, row.prompt, row.chosen, None, not row.label)


def _capped(rows: Sequence[Row], rules: Rules, left_out: Counter[str]) -> list[Row]:
    """No more rows of a kind on the word of one person alone than allowed; by id, so by chance."""
    kept: list[Row] = []
    alone: Counter[tuple[Kind, MemberId]] = Counter()
    for row in rows:
        if len(row.voters) == 1 and not row.curators:
            key = (row.kind, row.voters[0])
            alone[key] += 1
            if alone[key] > rules.max_rows_per_voter:
                left_out["too many rows on one person's word"] += 1
                continue
        kept.append(row)
    return kept


def _varied(rows: Sequence[Row], rules: Rules, left_out: Counter[str]) -> list[Row]:
    """No more rows that teach the same answer than allowed; by id, so by chance."""
    kept: list[Row] = []
    taught: Counter[tuple[Kind, Split, str]] = Counter()
    for row in rows:
        if row.label is not False:  # what is disliked is not taught
            key = (row.kind, row.split, _words(row.chosen) or row.chosen)
            taught[key] += 1
            if taught[key] > rules.max_rows_per_answer:
                left_out["too many questions with the same answer"] += 1
                continue
        kept.append(row)
    return kept


def _digest(value: object) -> str:
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()


def _plain(value: object) -> object:
    """Mappings as sorted pairs, so that equal values have equal text."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, _plain(each)) for key, each in value.items()))
    if isinstance(value, tuple | list):
        return tuple(_plain(each) for each in value)
    return value
