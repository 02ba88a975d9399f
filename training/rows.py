"""Training rows as a snapshot holds them, and as token ids of the served prompt.

A snapshot's folder holds TRL's own schemas (`feedback.datasets`); here they become ids by the
engine's own template and tokenizer, because TRL's rendering knows nothing of text that only looks
like a control token.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.prompt import ChatMessage
from feedback.rows import Basis, Kind, Split, question_sha256
from feedback.snapshot_files import LISTED, rows_file
from training.base_model import Reader
from training.errors import TrainingError

_QUESTION: Final = re.compile(r"(?:^|\n)Question: (.*)\nAnswer:$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One row of a snapshot.

    Attributes:
        chosen: the answer to imitate or judge.
        rejected: the worse one; preference pairs only.
        label: whether `chosen` is liked; unpaired rows only.
    """

    prompt: tuple[ChatMessage, ...]
    chosen: str
    rejected: str | None = None
    label: bool | None = None


def read_rows(snapshot: Path, kind: Kind, split: Split) -> list[TrainingRow]:
    """The rows of a kind and split, in the snapshot's order.

    Raises:
        TrainingError: the folder is no snapshot, or a line of it is damaged.
    """
    file = snapshot / rows_file(kind, split)
    try:
        lines = file.read_text("utf-8").splitlines()
        return [_row(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise _unreadable(file, repr(error)) from error


def read_rows_with_basis(
    snapshot: Path, kind: Kind, split: Split
) -> list[tuple[TrainingRow, Basis]]:
    """The same, each row with what people did for it.

    Raises:
        TrainingError: as `read_rows`, or the list of where rows come from is damaged.
    """
    rows, file = read_rows(snapshot, kind, split), snapshot / LISTED
    try:
        listed = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        bases = [row["basis"] for row in listed if (row["kind"], row["split"]) == (kind, split)]
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file, repr(error)) from error
    if len(bases) != len(rows):
        raise _unreadable(file, "it lists other rows than there are")
    return list(zip(rows, bases, strict=True))


def _unreadable(file: Path, why: str) -> TrainingError:
    text = f"{file} cannot be read: {why}."
    if not file.exists():
        text = f"{file} is gone: rows go when somebody whose ratings made them is forgotten."
    return TrainingError(text, advice="Start a new run: it writes a new snapshot.")


def _row(fields: Mapping[str, Any]) -> TrainingRow:
    chosen = fields["chosen"] if "chosen" in fields else fields["completion"]
    rejected = fields.get("rejected")
    return TrainingRow(
        prompt=tuple(
            ChatMessage(role=each["role"], content=each["content"]) for each in fields["prompt"]
        ),
        chosen=chosen[0]["content"],
        rejected=rejected[0]["content"] if rejected else None,
        label=fields.get("label"),
    )


def asked_in(prompt: Sequence[ChatMessage]) -> str | None:
    """The question of a served prompt, without its sources; None = it is no such prompt."""
    found = _QUESTION.search(prompt[-1].content)
    return found[1] if found else None


def question_of(prompt: Sequence[ChatMessage]) -> str:
    """What tells questions apart, as people mean them, whatever sources stand above them."""
    asked = asked_in(prompt)
    return question_sha256(prompt[-1].content if asked is None else asked)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A prompt and an answer to it, as ids.

    Attributes:
        question: whose rows are one observation; see `question_of`.
    """

    prompt: list[int]
    answer: list[int]
    question: str = ""

    @property
    def labels(self) -> list[int]:
        """What is learnt at each position: the answer, nothing (-100) of the prompt."""
        return [-100] * len(self.prompt) + self.answer


def rendered(
    reader: Reader, pairs: Sequence[tuple[Sequence[ChatMessage], str]], *, max_length: int
) -> list[Rendered]:
    """Prompts and answers as ids; one that is too long is left out, never cut.

    A prompt without its question, or an answer without its end, would teach something else.
    """
    return list(_rendered(reader, pairs, max_length))


def _rendered(
    reader: Reader, pairs: Sequence[tuple[Sequence[ChatMessage], str]], max_length: int
) -> Iterator[Rendered]:
    for messages, answer in pairs:
        one = Rendered(
            prompt=reader.prompt(messages),
            answer=reader.answer(answer),
            question=question_of(messages),
        )
        if len(one.prompt) + len(one.answer) <= max_length:
            yield one
