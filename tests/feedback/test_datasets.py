"""A snapshot is clean, reproducible, and ready for the trainers."""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feedback import Feedback
from feedback.datasets import LEFTOVER_AFTER_S, Snapshot, compiled_snapshot, snapshot, write
from feedback.near_duplicates import without_near_duplicates
from feedback.rows import compile_rows
from feedback.rules import Rules
from feedback.scrubbing import Scrubbed
from storage.identity import WorkspaceId
from storage.members import Members, forget
from storage.places import Places
from storage.pool import Pool
from tests.conftest import files_limited_to
from tests.feedback.conftest import Answers
from tests.feedback.test_rows import ANA, BEN, answer, correction, vote
from tests.storage.conftest import Team

WORDS = (
    *("handbook", "travel", "invoice", "server", "garden", "contract", "holiday", "printer"),
    *("budget", "meeting", "launch", "office", "parking", "kitchen", "security", "training"),
    *("supplier", "warranty", "shipment", "archive"),
)


def scrub(text: str) -> Scrubbed:
    """As the scrubber does, for one word."""
    return Scrubbed(
        text=text.replace("ana@example.com", "<EMAIL_ADDRESS>"),
        found=Counter({"EMAIL_ADDRESS": text.count("ana@example.com")})
        if "ana@example.com" in text
        else Counter(),
    )


def made(*answers: Any, **rules: Any) -> Snapshot:
    return compiled_snapshot(
        answers, [], workspace_id=WorkspaceId(ANA), rules=Rules(**rules), scrub=scrub
    )


def corrected(number: int) -> Any:
    word = WORDS[number % len(WORDS)]
    return answer(
        number,
        f"It is about the {word}.",
        question=f"What does page {number} say about the {word}?",
        prompt=({"role": "user", "content": f"What does page {number} say about the {word}?"},),
        corrections=(correction(ANA, f"Page {number} explains how the {word} is handled here."),),
    )


def test_the_same_ratings_have_the_same_hash_and_other_rules_another() -> None:
    answers = [corrected(number) for number in range(1, 21)]
    first, second = made(*answers), made(*reversed(answers))
    assert first.sha256 == second.sha256 and first.rows == second.rows and first.rows
    assert made(*answers[1:]).sha256 != first.sha256
    assert made(*answers, min_voters=2).sha256 != first.sha256


def test_every_question_is_on_one_side_of_the_split() -> None:
    found = made(*(corrected(number) for number in range(1, 41)), near_duplicate=1.0)
    sides = {
        split: {row.question for row in found.rows if row.split == split}
        for split in ("train", "held_out")
    }
    assert sides["train"] and sides["held_out"] and not sides["train"] & sides["held_out"]


def test_a_row_that_would_teach_personal_data_is_left_out_and_prompts_are_cleaned() -> None:
    telling = answer(1, "Mail ana@example.com.", votes=(vote(ANA, 1),))
    asking = answer(
        2,
        "In October.",
        prompt=({"role": "user", "content": "I am ana@example.com. When?"},),
        votes=(vote(ANA, 1),),
    )
    found = made(telling, asking)
    (row,) = found.rows
    assert row.prompt[0]["content"] == "I am <EMAIL_ADDRESS>. When?"
    assert found.scrubbed == {"EMAIL_ADDRESS": 1}
    assert found.left_out == {"it would teach personal data or a secret": 1}


def test_nearly_the_same_row_is_kept_once_and_corrections_go_first() -> None:
    long = "The handbook says that every employee has thirty days of paid leave in each year"
    rows = compile_rows(
        [
            answer(1, f"{long}, and no more.", votes=(vote(ANA, 1),)),
            answer(2, "No idea.", corrections=(correction(BEN, f"{long}, and never more."),)),
            answer(3, "Something else entirely is said here.", votes=(vote(ANA, 1),)),
        ],
        [],
        rules=Rules(),
    ).rows
    unpaired = [row for row in rows if row.kind == "unpaired"]
    left_out: Counter[str] = Counter()
    kept = without_near_duplicates(unpaired, threshold=0.7, left_out=left_out)
    assert {row.basis for row in kept if row.chosen.startswith("The handbook")} == {"correction"}
    assert len(kept) == 2 and left_out["nearly the same row"] == 1


def test_a_question_that_is_nearly_held_out_is_not_trained_on() -> None:
    base = "how many days of paid leave does an employee of the company have in each full year"
    answers = [
        answer(
            n, f"Answer number {n} differs.", question=f"{base} {WORDS[n]}", votes=(vote(ANA, 1),)
        )
        for n in range(len(WORDS))
    ]
    assert {row.split for row in compile_rows(answers, [], rules=Rules()).rows} == {
        "train",
        "held_out",
    }
    found = made(*answers, near_duplicate=0.8)
    assert {row.split for row in found.rows} == {"held_out"}
    assert found.left_out["its question is nearly one that is held out"] > 5


def test_a_preference_for_length_is_reported() -> None:
    pairs = []
    for number in range(1, 9):
        question = f"Question {number} about the {WORDS[number]}?"
        prompt = ({"role": "user", "content": question},)
        common: dict[str, Any] = {"question": question, "prompt": prompt}
        good = answer(number, f"{WORDS[number]} " * 9, votes=(vote(ANA, 1),), **common)
        bad = answer(50 + number, "No.", votes=(vote(BEN, -1),), **common)
        pairs += [good, bad]
    bias = made(*pairs).length_bias
    assert bias.pairs == 8 and bias.longer_chosen == 1.0
    assert bias.mean_difference is not None and bias.mean_difference > 30
    assert made(corrected(1)).length_bias.longer_chosen is None


def test_a_snapshot_is_written_whole_once_and_read_by_datasets(tmp_path: Path) -> None:
    found = made(*(corrected(number) for number in range(1, 21)))
    folder = write(found, tmp_path)
    assert folder.name == found.sha256 and write(found, tmp_path) == folder
    assert [each.name for each in tmp_path.iterdir()] == [found.sha256]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sha256"] == found.sha256
    assert sum(manifest["rows"].values()) == len(found.rows)
    listed = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in listed] == [row.id for row in found.rows]
    lines = (folder / "preference.train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        row.trl() for row in found.of("preference", "train")
    ]
    dataset = found.dataset("preference", "train")
    assert dataset.column_names == ["prompt", "chosen", "rejected", "id"]
    assert [dict(row)["id"] for row in dataset] == [
        row.id for row in found.of("preference", "train")
    ]


def test_signs_that_end_lines_in_documents_end_none_of_a_snapshot(tmp_path: Path) -> None:
    text = "On floor 3,\u2028behind\u0085the \u201cgreen\u201d door."
    found = made(answer(corrections=(correction(ANA, text),)))
    for row in found.rows:
        lines = (write(found, tmp_path) / f"{row.kind}.{row.split}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [row.trl()]


@pytest.mark.parametrize("name", ["preference.train.jsonl", "rows.jsonl", "manifest.json"])
def test_a_snapshot_that_a_power_cut_tore_is_written_anew(tmp_path: Path, name: str) -> None:
    found = made(*(corrected(number) for number in range(1, 21)))
    torn = write(found, tmp_path) / name
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    assert write(found, tmp_path) == torn.parent
    assert len(torn.read_bytes()) == len(whole)
    assert [each.name for each in tmp_path.iterdir()] == [found.sha256]


def test_a_snapshot_that_cannot_be_written_leaves_nobodys_words(tmp_path: Path) -> None:
    found = made(*(corrected(number) for number in range(1, 21)))
    with pytest.raises(OSError, match="too large"), files_limited_to(2**10):
        write(found, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_of_a_snapshot_is_removed_and_nothing_else(
    tmp_path: Path,
) -> None:
    old, being_written = f".{'0a' * 32}.17", f".{'0b' * 32}.17"
    others = {".venv3.11", ".config.old", f".{'0a' * 32}.bak"}
    for name in (old, being_written, *others):
        (tmp_path / name).mkdir()
        then = time.time() - (0.0 if name == being_written else 2 * LEFTOVER_AFTER_S)
        os.utime(tmp_path / name, (then, then))
    folder = write(made(corrected(1)), tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {being_written, folder.name, *others}


@pytest.mark.parametrize("agrees", [True, False])
async def test_ratings_in_the_database_become_rows_until_their_author_is_forgotten(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool, tmp_path: Path, agrees: bool
) -> None:
    assert team.general.member_id is not None and team.general.channel_id is not None
    await Members(pool).set_consent(team.general.member_id, agrees)
    await Places(pool).save_channel_settings(
        team.general.channel_id, {"consent_to_train": True}, by=team.general.member_id
    )
    (given,) = (await answered(team.general)).answers
    await feedback.correct(answer_id=given, audience=team.general, text="In November.")
    rules, workspace_id = Rules(), team.general.workspace_id
    found = await snapshot(pool, workspace_id=workspace_id, rules=rules)
    assert {row.chosen for row in found.rows} == ({"In November."} if agrees else set())
    await forget(pool, team.general.member_id, files_dir=tmp_path)
    later = await snapshot(pool, workspace_id=workspace_id, rules=rules)
    assert later.rows == () and (later.sha256 != found.sha256) is agrees
