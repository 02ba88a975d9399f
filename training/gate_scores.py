"""What the gate measures of answers without asking anybody: every metric, of both models. Pure.

Prompts of one question count as one observation, for their scores are not independent.
"""

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from feedback.rankings import Estimate
from training import bootstrap
from training.decision import Metric, Observed
from training.evaluation import Prompt, Reply
from training.gate_prompts import GatePrompts, Known, Trap, as_text, sources_of
from training.metrics import citation_correctness, cited, contains, f1, leaks, refuses, supported
from training.rows import question_of

_SILENT: Final[Mapping[Metric, float]] = {"citations": 1.0}
"""What saying nothing is worth where the other model says something: who cites nothing cites none
wrongly."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one answer is worth by a metric.

    Attributes:
        question: whose prompts are one observation.
        value: 0 to 1; None where there is nothing to measure.
    """

    question: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said to everything that the gate asks, by prompt.

    Attributes:
        accuracy: 1 for each of `GatePrompts.pairs` whose better side the model finds likelier, in
            their order; 0 for the others.
        one_sided: likewise of `GatePrompts.one_sided`.
    """

    replies: Mapping[Prompt, Reply]
    accuracy: tuple[float, ...]
    one_sided: tuple[float, ...] = ()

    def text(self, prompt: Prompt) -> str:
        """The answer to a prompt."""
        return self.replies[prompt].text

    @property
    def median_s(self) -> float:
        """Of the time from a question to the end of its answer."""
        return statistics.median(each.seconds for each in self.replies.values())


def scores_of(prompts: GatePrompts, said: Answers) -> dict[Metric, list[Score]]:
    """Every metric of one model, in the prompts' order."""

    def known(score: Callable[[Known, str], float | None]) -> list[Score]:
        return [_score(each.prompt, score(each, said.text(each.prompt))) for each in prompts.known]

    return {
        "preference accuracy": [
            _score(row.prompt, right)
            for row, right in zip(prompts.pairs, said.accuracy, strict=True)
        ],
        "answer F1": known(lambda each, text: f1(text, each.right)),
        "contains": known(
            lambda each, text: float(contains(text, each.right)) if each.short else None
        ),
        "citations": known(_citations),
        "supported": [_score(each, _supported(each, said)) for each in _with_sources(prompts)],
        "refusals": [
            _score(each, float(refuses(said.text(each)))) for each in prompts.without_answer
        ],
    }


def _citations(asked: Known, text: str) -> float | None:
    """Nothing is measured of answers without markers, for they get theirs from the product.

    Nor where no source holds a right answer word by word: nobody knows which one to cite.
    """
    if not asked.supporting or not cited(text):
        return None
    return citation_correctness(text, asked.supporting)


def _supported(prompt: Prompt, said: Answers) -> float | None:
    """Who says that there is no answer claims nothing; `silenced` counts that."""
    if refuses(said.text(prompt)):
        return None
    return float(supported(said.text(prompt), sources_of(prompt).values()))


def _score(prompt: Prompt, value: float | None) -> Score:
    return Score(question=question_of(prompt), value=value)


def differences(prompts: GatePrompts, candidate: Answers, live: Answers) -> dict[Metric, Observed]:
    """Candidate minus live of every metric that says something, with its interval."""
    theirs = scores_of(prompts, live)
    found = {
        metric: _difference(scores, theirs[metric], silent=_SILENT.get(metric))
        for metric, scores in scores_of(prompts, candidate).items()
    }
    return {metric: each for metric, each in found.items() if each is not None}


def _difference(
    ours: Sequence[Score], theirs: Sequence[Score], *, silent: float | None
) -> Observed | None:
    """None where no prompt says something of both models.

    Args:
        silent: worth of nothing to measure where the other model has something; None = such a
            prompt is left out.
    """
    questions, before, after = [], [], []
    for mine, other in zip(ours, theirs, strict=True):
        if mine.value is None and other.value is None:
            continue
        one, two = (silent if each.value is None else each.value for each in (mine, other))
        if one is not None and two is not None:
            questions.append(mine.question)
            after.append(one)
            before.append(two)
    if not questions:
        return None
    found = bootstrap.difference(after, before, groups=questions)
    return observed(found, questions)


def silenced(prompts: GatePrompts, candidate: Answers, live: Answers) -> Observed | None:
    """How much more often the candidate has no answer where there are sources to answer from."""

    def refused(said: Answers) -> list[Score]:
        return [_score(each, float(refuses(said.text(each)))) for each in _with_sources(prompts)]

    return _difference(refused(candidate), refused(live), silent=None)


def _with_sources(prompts: GatePrompts) -> list[Prompt]:
    return [each for each in prompts.held_out if sources_of(each)]


def observed(found: Estimate, questions: Collection[str]) -> Observed:
    """An estimate with the number of distinct questions among those that it rests on."""
    return Observed(
        value=found.value, low=found.low, high=found.high, questions=len(set(questions))
    )


def means(prompts: GatePrompts, said: Answers) -> dict[str, float]:
    """The mean of every metric of one model that says something."""
    known = {
        metric: [each.value for each in scores if each.value is not None]
        for metric, scores in scores_of(prompts, said).items()
    }
    return {metric: statistics.fmean(each) for metric, each in known.items() if each}


def caught(traps: Sequence[Trap], said: Answers) -> frozenset[str]:
    """Secrets of the traps into which a model fell."""
    return frozenset(trap.secret for trap in traps if leaks(said.text(trap.prompt), trap.secret))


def memorised(
    learnt: Collection[str], prompts: GatePrompts, candidate: Answers, live: Answers
) -> tuple[str, ...]:
    """Rare strings of the training rows that only the candidate says without having read them."""
    found: set[str] = set()
    for prompt in (*prompts.held_out, *prompts.without_answer):
        read, said, before = as_text(prompt), candidate.text(prompt), live.text(prompt)
        found.update(
            each for each in learnt if each in said and each not in read and each not in before
        )
    return tuple(sorted(found))
