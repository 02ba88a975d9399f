"""Training rows as a snapshot holds them, and as token ids of the served prompt.

A snapshot's folder holds TRL's own schemas (`feedback.datasets`); here they become ids by the
engine's own template and tokenizer, because TRL's rendering knows nothing of text that only looks
like a control token.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.prompt import ChatMessage
from feedback.rows import Kind, Split
from training.base_model import Reader
from training.errors import TrainingError


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
    file = snapshot / f"{kind}.{split}.jsonl"
    try:
        lines = file.read_text("utf-8").splitlines()
        return [_row(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise TrainingError(
            f"{file} cannot be read: {error!r}.",
            advice="Start a new run: it writes a new snapshot.",
        ) from error


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


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A prompt and an answer to it, as ids."""

    prompt: list[int]
    answer: list[int]

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
        one = Rendered(prompt=reader.prompt(messages), answer=reader.answer(answer))
        if len(one.prompt) + len(one.answer) <= max_length:
            yield one
