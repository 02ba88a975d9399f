"""Ratings as curators see them: one record per rated answer or judged comparison. Pure.

A record has the id of what it is about, and each person's rating is that person's own response, so
telling Argilla twice is telling it once. Nobody is named: people are their pseudonyms. What made
the answer in full (the served prompt, the parameters) stays in our database under the record's id.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from feedback.collect import REASONS
from storage.identity import MemberId, WorkspaceId
from storage.outbox import Kind
from storage.rated import RatedAnswer, RatedComparison

DATASETS: Final[Mapping[Kind, str]] = {"answer": "answers", "comparison": "comparisons"}
"""Names of the data sets."""
Property = Literal["terms", "integer"]
"""What a metadata property holds."""
RATINGS: Final = {1: "good", -1: "bad"}
UNRATED: Final = "unrated"
"""The rating of somebody who wrote a better answer without a vote; Argilla requires one."""
PREFERENCES: Final = {"left": "a", "right": "b", "tie": "tie", "both_bad": "both_bad"}
UNKNOWN: Final = "unknown"
"""The weights of a model of which its server told nothing."""
SPLIT: Final = "split"
"""What most say where no view has more friends than the others."""
NO_SOURCES: Final = "(no sources)"
VOTER: Final = "voter-"
"""How the names of Argilla users begin who stand for members; everybody else is a curator."""
MIN_CURATORS: Final = 1
"""Curators whose response completes a record in our own Argilla."""
MIN_RESPONSES: Final = 100
"""The same where Argilla counts members' ratings too: what it counts as completed leaves the queue
of every curator, so it should be more than rate one answer."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What one person said of a record: values by the names of questions."""

    voter: MemberId
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CurationRecord:
    """A record; fields, metadata and questions are those of its data set."""

    id: str
    fields: Mapping[str, str]
    metadata: Mapping[str, Any]
    responses: tuple[Response, ...]

    @property
    def voters(self) -> frozenset[MemberId]:
        """Who responded."""
        return frozenset(response.voter for response in self.responses)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of everybody who looks at a record.

    Attributes:
        labels: to choose from, with what they are called; empty for free text.
        many: whether several may be chosen.
    """

    name: str
    title: str
    labels: Mapping[str, str]
    many: bool = False
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a data set consists of; every field holds Markdown."""

    fields: Mapping[str, str]
    questions: Sequence[Question]
    metadata: Mapping[str, Property]
    guidelines: str


_METADATA: Final[Mapping[str, Property]] = {
    "platform": "terms",
    "place": "terms",
    "channel": "terms",
    "model": "terms",
    "weights": "terms",
    "consent": "terms",
    "help": "terms",
    "finish": "terms",
    "characters": "integer",
    "raters": "integer",
    "agreement": "integer",
    "majority": "terms",
}
LAYOUTS: Final[Mapping[Kind, Layout]] = {
    "answer": Layout(
        fields={"question": "Question", "sources": "Sources", "answer": "Answer"},
        questions=(
            Question(
                name="rating",
                title="Is the answer good?",
                labels={"good": "Good", "bad": "Bad", UNRATED: "Not rated"},
                required=True,
            ),
            Question(
                name="reasons",
                title="What is wrong with it?",
                labels={reason: reason for reason in REASONS},
                many=True,
            ),
            Question(name="comment", title="Comment", labels={}),
            Question(name="correction", title="The better answer", labels={}),
        ),
        metadata=_METADATA,
        guidelines="Answers that people rated. Submit your own verdict, or the better answer: it "
        "counts before theirs. Discard what nothing should be learnt from. Sort by `agreement` to "
        "see first what people argue about; `majority` is what most of them say.",
    ),
    "comparison": Layout(
        fields={"question": "Question", "a": "A", "b": "B"},
        questions=(
            Question(
                name="preference",
                title="Which answer is better?",
                labels={"a": "A", "b": "B", "tie": "Tie", "both_bad": "Both are bad"},
                required=True,
            ),
            Question(name="reason", title="Why?", labels={}),
        ),
        metadata={**_METADATA, "model_b": "terms", "weights_b": "terms"},
        guidelines="Two answers that stood side by side, as people saw them. Submit your own "
        "choice: it counts before theirs. Discard what nothing should be learnt from. Sort by "
        "`agreement` to see first what people argue about; `majority` is what most of them say.",
    ),
}


def workspace_name(workspace_id: WorkspaceId) -> str:
    """Name of the Argilla workspace of a chat's workspace."""
    return f"parley-{workspace_id.hex[:12]}"


def voter_name(voter: MemberId) -> str:
    """Name of the Argilla user who stands for a person."""
    return f"{VOTER}{voter.hex}"


def of_answer(answer: RatedAnswer) -> CurationRecord | None:
    """The record of an answer; None where no rating is left."""
    if not (answer.votes or answer.corrections or answer.called_for_help):
        return None
    said: dict[MemberId, dict[str, Any]] = {}
    for vote in answer.votes:
        said[vote.voter] = {"rating": RATINGS[vote.value]}
        if vote.reasons:
            said[vote.voter]["reasons"] = list(vote.reasons)
        if vote.comment:
            said[vote.voter]["comment"] = vote.comment
    for correction in answer.corrections:
        said.setdefault(correction.voter, {"rating": UNRATED})["correction"] = correction.text
    consents = [vote.consent for vote in answer.votes]
    consents += [correction.consent for correction in answer.corrections]
    return CurationRecord(
        id=str(answer.id),
        fields={
            "question": _shown(answer.question),
            "sources": sources_shown(answer),
            "answer": _shown(answer.text),
        },
        metadata=_metadata(answer, consents)
        | _agreement([RATINGS[vote.value] for vote in answer.votes]),
        responses=tuple(Response(voter=voter, values=values) for voter, values in said.items()),
    )


def of_comparison(comparison: RatedComparison) -> CurationRecord | None:
    """The record of a comparison; None where no judgement is left."""
    if not comparison.judgements:
        return None
    left, right = comparison.left, comparison.right
    return CurationRecord(
        id=str(comparison.id),
        fields={
            "question": _shown(left.question),
            "a": _shown(left.text),
            "b": _shown(right.text),
        },
        metadata=_metadata(left, [each.consent for each in comparison.judgements])
        | _agreement([PREFERENCES[each.winner] for each in comparison.judgements])
        | {"model_b": right.model, "weights_b": right.weights or UNKNOWN},
        responses=tuple(
            Response(voter=each.voter, values={"preference": PREFERENCES[each.winner]})
            for each in comparison.judgements
        ),
    )


def sources_shown(answer: RatedAnswer) -> str:
    """The excerpts as the model was served them, with the question's turn taken off."""
    if not answer.prompt or not answer.sources:
        return NO_SOURCES
    served, _, _ = answer.prompt[-1]["content"].rpartition("\n\nQuestion:")
    return _shown(served.removeprefix("Sources:\n")) if served else NO_SOURCES


def _metadata(answer: RatedAnswer, consents: Sequence[bool]) -> dict[str, Any]:
    return {
        "platform": answer.platform,
        "place": "channel" if answer.channel_id else "direct",
        "channel": str(answer.channel_id) if answer.channel_id else "direct",
        "model": answer.model,
        "weights": answer.weights or UNKNOWN,
        "consent": "all" if consents and all(consents) else "some" if any(consents) else "none",
        "help": "called" if answer.called_for_help else "not called",
        "finish": answer.finish_reason,
        "characters": len(answer.text),
    }


def _agreement(said: Sequence[str]) -> dict[str, Any]:
    """How many rated, what most of them say, and how many in a hundred these are.

    Argilla's pages show nobody else's responses, and have no view of agreement: by these curators
    sort and filter.
    """
    if not said:
        return {}
    (word, most), *others = Counter(said).most_common()
    split = bool(others) and others[0][1] == most
    return {
        "raters": len(said),
        "agreement": round(100 * most / len(said)),
        "majority": SPLIT if split else word,
    }


def _shown(text: str) -> str:
    """A field, which Argilla wants to hold something."""
    return text if text.strip() else "(empty)"
