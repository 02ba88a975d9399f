"""Small snapshots for the gate, as `feedback.datasets.write` lays them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.prompt import ChatMessage, PromptSource, rag_messages
from feedback.rows import Basis

RIGHT = "the blue one"
WRONG = "No idea."
WORDS = ("garden", "kitchen", "office", "archive", "printer", "server", "parking", "budget")
TRAINED = range(100, 130)
HELD_OUT = range(136, 160)


def prompt(number: int, *, edition: int | None = None) -> list[ChatMessage]:
    """A question with the source that answers it.

    Args:
        edition: of the source, where one question is asked of several.
    """
    word = WORDS[number % len(WORDS)]
    title = "Handbook" if edition is None else f"Handbook {edition}"
    source = PromptSource(number=1, title=title, text=f"In {word} {number} take {RIGHT}.")
    return rag_messages(question=f"Which {word} {number}?", history=(), sources=[source])


def fields(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages as TRL's schemas hold them."""
    return [{"role": each.role, "content": each.content} for each in messages]


def said(text: str) -> list[dict[str, str]]:
    """An answer likewise."""
    return fields([ChatMessage(role="assistant", content=text)])


def sft_row(messages: Sequence[ChatMessage], answer: str) -> dict[str, Any]:
    """An answer to imitate."""
    return {"prompt": fields(messages), "completion": said(answer)}


def pair_row(messages: Sequence[ChatMessage], chosen: str, rejected: str) -> dict[str, Any]:
    """A preference."""
    return {"prompt": fields(messages), "chosen": said(chosen), "rejected": said(rejected)}


def write_snapshot(
    folder: Path,
    *,
    right: str = RIGHT,
    wrong: str = WRONG,
    basis: Basis = "comparison",
    held_out: Sequence[int] = HELD_OUT,
) -> Path:
    """Write a snapshot in which everybody wants the same answer to every question.

    Args:
        basis: of its pairs.
        held_out: numbers of the held-out questions.
    """
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"rows": {"sft.train": len(TRAINED)}}))
    (folder / "rows.jsonl").touch()
    for split, numbers in (("train", TRAINED), ("held_out", held_out)):
        asked = [prompt(number) for number in numbers]
        write_rows(folder, "sft", split, [sft_row(each, right) for each in asked])
        pairs = [pair_row(each, right, wrong) for each in asked]
        write_rows(folder, "preference", split, pairs, basis=basis)
        write_rows(folder, "unpaired", split, [])
    return folder


def write_rows(
    folder: Path,
    kind: str,
    split: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    basis: Basis | list[Basis] = "correction",
) -> None:
    """Replace a snapshot's rows of a kind and split, and what is told of where they come from.

    Args:
        basis: of all rows, or of each.
    """
    (folder / f"{kind}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    listed = folder / "rows.jsonl"
    others = [
        line
        for line in listed.read_text().splitlines()
        if (json.loads(line)["kind"], json.loads(line)["split"]) != (kind, split)
    ]
    bases = basis if isinstance(basis, list) else [basis] * len(rows)
    ours = [
        json.dumps({"id": f"{kind} {split} {n}", "kind": kind, "split": split, "basis": each})
        for n, each in enumerate(bases)
    ]
    listed.write_text("".join(f"{line}\n" for line in [*others, *ours]))
