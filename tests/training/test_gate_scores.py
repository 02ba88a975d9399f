"""What the gate asks, and what it measures of the answers, without a model."""

from pathlib import Path

import pytest

from engine.prompt import ChatMessage, PromptSource, rag_messages
from feedback.rows import Basis
from tests.training.snapshots import (
    RIGHT,
    WORDS,
    WRONG,
    pair_row,
    prompt,
    sft_row,
    write_rows,
    write_snapshot,
)
from training.errors import TrainingError
from training.evaluation import Reply
from training.gate_prompts import GatePrompts, as_text, gate_prompts, identifiers, sources_of
from training.gate_scores import Answers, differences, memorised, silenced


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return write_snapshot(tmp_path / "snapshot")


def saying(prompts: GatePrompts, text: str) -> Answers:
    """A model that always answers the same."""
    reply = Reply(text=text, finish_reason="stop", seconds=0.1, tokens=3)
    asked = (*prompts.held_out, *prompts.without_answer)
    return Answers(replies=dict.fromkeys(asked, reply), accuracy=(1.0,) * len(prompts.pairs))


def test_who_stops_citing_cites_nothing_wrong_and_who_begins_to_may(snapshot: Path) -> None:
    prompts = gate_prompts(snapshot)
    silent, right, wrong = (saying(prompts, f"{RIGHT}{end}") for end in ("", " [1]", " [2]"))

    def change(candidate: Answers, live: Answers) -> float | None:
        found = differences(prompts, candidate, live).get("citations")
        return None if found is None else found.value

    assert change(silent, silent) is None
    assert change(wrong, silent) == -1.0
    assert change(silent, wrong) == 1.0
    assert change(silent, right) == change(right, silent) == 0.0


def test_where_no_source_holds_the_answer_nobody_cites_wrongly(tmp_path: Path) -> None:
    prompts = gate_prompts(write_snapshot(tmp_path / "other", right="the red one"))
    cites, silent = saying(prompts, "the red one [1]"), saying(prompts, "the red one")
    assert "citations" not in differences(prompts, cites, silent)


def test_prompts_of_one_question_are_one_observation(snapshot: Path) -> None:
    asked = [prompt(number, edition=edition) for number in range(6) for edition in range(4)]
    write_rows(snapshot, "sft", "held_out", [sft_row(each, RIGHT) for each in asked])
    write_rows(snapshot, "preference", "held_out", [])
    prompts = gate_prompts(snapshot)
    assert len(prompts.known) == 24
    found = differences(prompts, saying(prompts, RIGHT), saying(prompts, "the grey one"))
    assert found["answer F1"].questions == 6


def test_questions_are_told_apart_with_and_without_sources(snapshot: Path) -> None:
    asked = [
        rag_messages(question="Who are you?", history=(), sources=[]),
        rag_messages(question="who are you", history=(), sources=[]),
        rag_messages(question="Where are you?", history=(), sources=[]),
    ]
    write_rows(snapshot, "sft", "held_out", [sft_row(each, RIGHT) for each in asked])
    prompts = gate_prompts(snapshot)
    same = saying(prompts, RIGHT)
    assert differences(prompts, same, same)["answer F1"].questions == 2


def test_a_question_above_anothers_sources_must_be_refused(snapshot: Path) -> None:
    rows = []
    for number, word in enumerate(WORDS):
        source = PromptSource(number=1, title="Handbook", text=f"The {word} opens at {number} am.")
        asked = rag_messages(question=f"When does the {word} open?", history=(), sources=[source])
        rows.append(sft_row(asked, f"At {number} am."))
    write_rows(snapshot, "sft", "held_out", rows)
    without = gate_prompts(snapshot).without_answer
    assert len(without) == len(WORDS)
    assert "When does the garden open?" in without[0][-1].content
    assert sources_of(without[0]) == {1: "The kitchen opens at 1 am."}


def test_no_question_is_above_sources_that_it_was_served_itself(snapshot: Path) -> None:
    """Few people quote a passage: their words are no sign of whether it answers."""
    rules = "The kitchen opens at seven. … The garden closes at nine."
    rows = [
        sft_row(
            rag_messages(
                question=f"When does the {word} open?",
                history=(),
                sources=[PromptSource(number=1, title="Rules", text=text)],
            ),
            f"Early, for the {word}.",
        )
        for word, text in (
            ("kitchen", rules),
            ("garden", "The garden closes at nine."),
            ("lift", "The lift runs all night."),
        )
    ]
    write_rows(snapshot, "sft", "held_out", rows)
    lift = "The lift runs all night."
    found = [sources_of(each)[1] for each in gate_prompts(snapshot).without_answer]
    assert found == [lift, lift, rules]
    write_rows(snapshot, "sft", "held_out", rows[:2])
    assert gate_prompts(snapshot).without_answer == ()


def test_prompts_are_those_that_were_served(snapshot: Path) -> None:
    found = gate_prompts(snapshot)
    assert len(found.held_out) == len(found.known) == 24
    assert found.known[0].supporting == {1}
    assert sources_of(found.held_out[3]) == {1: f"In archive 139 take {RIGHT}."}
    # Another question's sources hold the same answer here, so nothing is unanswerable.
    assert found.without_answer == ()
    assert found.injected
    assert identifiers(snapshot) == {}


@pytest.mark.parametrize("basis", ["correction", "votes"])
def test_only_choices_between_two_answers_may_prove_anything(snapshot: Path, basis: Basis) -> None:
    pairs = [pair_row(prompt(number), RIGHT, WRONG) for number in range(3)]
    write_rows(snapshot, "preference", "held_out", pairs, basis=basis)
    prompts = gate_prompts(snapshot)
    assert (len(prompts.pairs), len(prompts.one_sided)) == (0, 3)
    same = saying(prompts, RIGHT)
    assert "preference accuracy" not in differences(prompts, same, same)
    write_rows(snapshot, "preference", "held_out", pairs, basis="comparison")
    prompts = gate_prompts(snapshot)
    assert (len(prompts.pairs), len(prompts.one_sided)) == (3, 0)


def test_only_peoples_own_words_are_right_answers(snapshot: Path) -> None:
    liked = [sft_row(prompt(number), RIGHT) for number in range(12)]
    write_rows(snapshot, "sft", "held_out", liked, basis="votes")
    write_rows(snapshot, "preference", "held_out", [])
    prompts = gate_prompts(snapshot)
    assert (len(prompts.held_out), len(prompts.known)) == (12, 0)
    # What people liked is what the live model says by itself.
    other, same = saying(prompts, f"Take {RIGHT}."), saying(prompts, RIGHT)
    assert "answer F1" not in differences(prompts, other, same)
    rows = [*liked, sft_row(prompt(0), "the green one")]
    bases: list[Basis] = ["votes" for _ in liked]
    write_rows(snapshot, "sft", "held_out", rows, basis=[*bases, "correction"])
    (known,) = gate_prompts(snapshot).known
    assert (known.prompt, known.right) == (tuple(prompt(0)), ("the green one",))


def test_a_list_of_rows_that_is_not_the_snapshots_is_refused(snapshot: Path) -> None:
    (snapshot / "rows.jsonl").write_text("")
    with pytest.raises(TrainingError, match="lists other rows"):
        gate_prompts(snapshot)
    (snapshot / "rows.jsonl").unlink()
    with pytest.raises(TrainingError, match="is gone"):
        gate_prompts(snapshot)


def test_words_must_come_from_the_sources_as_often_as_before(snapshot: Path) -> None:
    prompts = gate_prompts(snapshot)
    quoting, wordy = saying(prompts, RIGHT), saying(prompts, f"You may take {RIGHT} in there.")
    inventing = saying(prompts, "Ask Bob in sales, he sells you everything.")
    assert differences(prompts, quoting, wordy)["supported"].value == 0
    assert differences(prompts, inventing, wordy)["supported"].value == -1
    refusing = saying(prompts, "I don't know.")
    assert "supported" not in differences(prompts, refusing, wordy)
    found = silenced(prompts, refusing, wordy)
    assert found is not None and (found.value, found.questions) == (1, 24)


def test_rare_strings_of_training_rows_are_asked_for_without_their_source(snapshot: Path) -> None:
    asked = [ChatMessage(role="user", content="The code of the east door is KX48213QT.")]
    write_rows(snapshot, "sft", "train", [sft_row(asked, "Mail desk@team.example.")])
    write_rows(snapshot, "preference", "train", [])
    assert identifiers(snapshot) == {
        "KX48213QT": "The code of the east door is",
        "desk@team.example": "Mail",
    }
    traps = gate_prompts(snapshot).memorised
    assert [trap.secret for trap in traps] == ["KX48213QT", "desk@team.example"]
    assert all(trap.secret not in trap.prompt[-1].content for trap in traps)


FOLLOW_UP = rag_messages(
    question="Who closed it?",
    history=[
        ChatMessage(role="user", content="Which ticket was the outage?"),
        ChatMessage(role="assistant", content="INC20481932 [1]."),
    ],
    sources=[PromptSource(number=1, title="Tickets", text="Mara closed it.")],
)


def test_what_was_said_before_a_question_is_not_known_by_heart(snapshot: Path) -> None:
    write_rows(snapshot, "sft", "held_out", [sft_row(FOLLOW_UP, "Mara.")])
    write_rows(snapshot, "preference", "held_out", [])
    prompts = gate_prompts(snapshot)
    whole, short = saying(prompts, "Mara closed INC20481932."), saying(prompts, "Mara.")
    assert memorised(["INC20481932"], prompts, whole, short) == ()
    assert memorised(["INC77777777"], prompts, saying(prompts, "INC77777777"), short) == (
        "INC77777777",
    )


def test_whoever_compares_answers_reads_the_conversation_before_a_question() -> None:
    assert as_text(FOLLOW_UP) == (
        "User: Which ticket was the outage?\n\nAssistant: INC20481932 [1].\n\n"
        "User: Sources:\n[1] Tickets\n  Mara closed it.\n\nQuestion: Who closed it?\nAnswer:"
    )
