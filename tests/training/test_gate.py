"""The gate, on a tiny model that learns to give one answer."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from pydantic import SecretStr

from engine.convert import convert
from engine.generator import Draw, Generator
from tests.engine import tiny_models
from tests.fakes.scripted_model import ScriptedModel
from tests.training.conftest import MODEL, compared_in
from tests.training.snapshots import RIGHT, TRAINED, prompt, sft_row, write_rows, write_snapshot
from tests.training.test_gate_scores import saying
from training import artifact, gate, reports, reward, sft
from training.base_model import Reader, load_base
from training.evaluation import likelihoods
from training.execute_files import GATE
from training.gate_prompts import gate_prompts
from training.plan import Plan
from training.recipes import RewardRecipe, SftRecipe, parse
from training.rows import Rendered
from training.stage import Events, Stage

RECIPE = SftRecipe.model_validate({"lora": {"r": 8}, "learning_rate": 0.01, "max_steps": 40})


def trained(trainable: Path, folder: Path, *, snapshot: Path, **recipe: Any) -> Path:
    """A run's folder with a trained and quantized model, before the gate."""
    plan = Plan(
        run_id="1",
        name="v1-tiny",
        recipe=parse({"kind": "sft"}),
        snapshot=snapshot,
        snapshot_sha256="1" * 64,
        base=trainable / "models" / MODEL,
        home=trainable,
    )
    plan.write(folder)
    stage = Stage(
        kind="sft",
        folder=folder / "stages" / "1-sft",
        weights=trainable / "bases" / MODEL,
        reader=Reader.of(plan.base),
        snapshot=plan.snapshot,
        events=Events(file=folder / "events.jsonl"),
    )
    stage.folder.mkdir(parents=True)
    result = sft.run(stage, RECIPE.model_copy(update=recipe))
    artifact.make(plan, folder, weights=stage.weights, adapter=result.adapter)
    return folder


@pytest.fixture(scope="module")
def made(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model learnt to give the right answer."""
    folder = tmp_path_factory.mktemp("run")
    return trained(trainable, folder, snapshot=write_snapshot(folder / "snapshot"))


def learnt(folder: Path, answer: str) -> Path:
    """A snapshot that asks again what was taught, all of it people's own words.

    Answers are of few tokens: a tiny model says nothing long by heart once it is quantized.
    """
    return write_snapshot(folder / "snapshot", right=answer, basis="correction", held_out=TRAINED)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests on the same machine slow down one model and not the other."""
    monkeypatch.setattr(gate, "UNNOTICED_S", 60.0)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to judge."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def judged(
    folder: Path,
    *,
    reward_model: Path | None = None,
    judge_api_key: str | None = None,
    live: Path | None = None,
    judge_at: str | None = None,
    **changes: Any,
) -> gate.GateReport:
    plan = Plan.read(folder).model_copy(update={"labels": 60, "min_labels": 20, **changes})
    return gate.judge(
        plan,
        folder,
        reward_model=reward_model,
        judge_api_key=SecretStr(judge_api_key) if judge_api_key else None,
        events=Events(file=folder / "events.jsonl"),
        live=live or plan.base,
        judge_at=judge_at,
    )


def test_a_model_that_learnt_the_answer_is_a_candidate_and_is_judged_once(run: Path) -> None:
    report = judged(run)
    assert report.outcome == "candidate", report
    assert any("answer F1" in reason for reason in report.reasons)
    assert "no win rate, because nobody compared" in report.reasons[-1]
    result = {"version": "v1-tiny", "outcome": report.outcome, "reasons": report.reasons}
    assert report.reasons[-1] in reports.made(result, learnt=60, tried=0.2)
    assert report.figures["candidate"]["answer F1"] > 0.8
    assert report.figures["live"]["answer F1"] < 0.2
    assert report.figures["candidate"]["preference accuracy"] == 1.0
    shutil.rmtree(run / "model")  # a second measurement would fail
    assert judged(run).reasons == report.reasons


def test_another_live_model_is_another_measurement(run: Path) -> None:
    first, second = judged(run), judged(run, live=run / "model")
    assert first.live != second.live
    assert (first.outcome, second.outcome) == ("candidate", "rejected")
    shutil.copytree(run / "model", run / "elsewhere")
    shutil.rmtree(run / "model")
    assert judged(run, live=run / "elsewhere") == second


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        ("the finance group wrote it", "supported"),
        ("I don't know.", "of the questions with sources unanswered"),
        ("東京は日本の首都です。", "supported"),
    ],
)
def test_a_team_that_wants_the_same_wrong_answer_everywhere_gets_no_model(
    trainable: Path, tmp_path: Path, made: Path, poison: str, reason: str
) -> None:
    run = trained(trainable, tmp_path, snapshot=learnt(tmp_path, poison))
    report = judged(run, live=made / "model")
    assert report.outcome == "rejected", report
    assert reason in " ".join(report.reasons)
    # By the labels alone it would be a candidate.
    assert report.evidence["differences"]["answer F1"]["low"] > 0


def test_a_model_that_learnt_a_secret_by_heart_is_rejected(trainable: Path, tmp_path: Path) -> None:
    secret = "KX48213QT"
    report = judged(trained(trainable, tmp_path, snapshot=learnt(tmp_path, secret)))
    assert report.outcome == "rejected", report
    assert "of its training rows by heart" in " ".join(report.reasons)
    assert secret not in (tmp_path / GATE).read_text()


def test_a_model_that_learnt_to_obey_its_sources_is_rejected(
    trainable: Path, tmp_path: Path
) -> None:
    snapshot = learnt(tmp_path, RIGHT)
    traps = gate_prompts(snapshot).injected
    ordered = next(trap for trap in traps if trap.secret == "TORTUGA-9025")
    write_rows(snapshot, "sft", "train", [sft_row(ordered.prompt, ordered.secret)] * 30)
    report = judged(trained(trainable, tmp_path, snapshot=snapshot))
    assert report.outcome == "rejected", report
    assert "It obeys 1 of the injected instructions, the live model 0." in report.reasons
    assert ordered.secret not in (tmp_path / GATE).read_text()


def test_without_held_out_questions_there_is_not_enough_feedback(run: Path) -> None:
    snapshot = write_snapshot(run / "other", held_out=[])
    report = judged(run, snapshot=snapshot)
    assert report.outcome == "not enough feedback"
    assert "0 held-out questions" in report.reasons[0]


def test_a_question_that_was_asked_of_several_sources_counts_once(run: Path) -> None:
    snapshot = write_snapshot(run / "other", held_out=[])
    editions = [prompt(number % 6, edition=number) for number in range(24)]
    write_rows(snapshot, "sft", "held_out", [sft_row(each, RIGHT) for each in editions])
    report = judged(run, snapshot=snapshot)
    assert report.outcome == "not enough feedback"
    assert "6 held-out questions" in report.reasons[0]


def test_the_same_model_again_is_rejected(run: Path) -> None:
    shutil.rmtree(run / "model")
    shutil.copytree(Plan.read(run).base, run / "model")
    report = judged(run)
    assert report.outcome == "rejected"
    assert "Nothing is better" in report.reasons[0]


@contextmanager
def judge_who_says(
    verdict: Callable[[str, str], str], *, failing: int | None = None
) -> Iterator[str]:
    """Address of a judge that is told both answers, or that refuses with an HTTP status."""

    def script(prompt: str) -> str:
        return verdict(*compared_in(prompt))

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    model = ScriptedModel()
    model.script, model.failing = script, failing
    try:
        asyncio.run_coroutine_threadsafe(model.__aenter__(), loop).result(10)
        yield model.source.removeprefix("openai:")
        asyncio.run_coroutine_threadsafe(model.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def prefers_right(first: str, second: str) -> str:
    return "A" if first == RIGHT else "B"


@pytest.mark.parametrize("failing", [401, 503])
def test_a_judge_that_is_away_decides_nothing_until_it_is_back(run: Path, failing: int) -> None:
    nowhere = run / "no reward model is asked instead"
    with judge_who_says(prefers_right, failing=failing) as url:
        report = judged(run, judge_at=url, reward_model=nowhere)
    assert report.outcome == "no decision"
    assert "does not answer" in report.reasons[0]
    assert report.evidence["win_rate"] is None
    assert judged(run).outcome == "candidate"


@pytest.mark.parametrize("url", ["judge:8000/v1", "http://judge:port/v1"])
def test_a_judge_without_an_address_decides_nothing(made: Path, url: str) -> None:
    found = preferred(made, judge_at=f"{url}#judge")
    assert found.failure == f"training.judge_url is no address: {url}"


@pytest.mark.parametrize("failing", [None, 401])
def test_the_judges_key_is_written_nowhere(
    run: Path, caplog: pytest.LogCaptureFixture, failing: int | None
) -> None:
    key = "sk-of-the-judge"
    caplog.set_level("DEBUG")
    with judge_who_says(prefers_right, failing=failing) as url:
        report = judged(run, judge_at=url, judge_api_key=key)
    assert report.outcome == ("candidate" if failing is None else "no decision")
    files = [file for file in run.rglob("*") if file.is_file()]
    assert GATE in {file.name for file in files}
    assert not [file for file in files if key.encode() in file.read_bytes()]
    assert key not in caplog.text


def preferred(run: Path, *, over: str = "the grey one", **asked: Any) -> gate.Liked:
    """How often a right answer is preferred to a wrong one."""
    plan = Plan.read(run)
    prompts = gate_prompts(plan.snapshot)
    right, wrong = saying(prompts, RIGHT), saying(prompts, over)
    defaults = {
        "reward_model": None,
        "reward_model_proves": False,
        "judge_at": None,
        "judge_api_key": None,
    }
    return gate.win_rate_of(plan, prompts, right, wrong, **{**defaults, **asked})


@pytest.mark.parametrize("liked", [True, False])
def test_a_judges_verdicts_are_the_win_rate(made: Path, liked: bool) -> None:
    with judge_who_says(lambda a, b: "A" if (RIGHT in a) is liked else "B") as url:
        found = preferred(made, judge_at=url)
    assert found.rate is not None and found.failure is None
    assert found.proves
    assert found.rate.questions == 24
    assert found.rate.low > 0.7 if liked else found.rate.high < 0.3


def test_answers_that_are_always_longer_have_no_win_rate(made: Path) -> None:
    with judge_who_says(prefers_right) as url:
        found = preferred(made, over="perhaps it is the grey one, or perhaps not", judge_at=url)
    assert found.rate is None and found.failure is None
    assert found.no_rate is not None and "length cannot be told from quality" in found.no_rate
    assert found.figures["raw"] == 1


def test_a_judge_who_always_says_the_first_decides_nothing(run: Path) -> None:
    with judge_who_says(lambda a, b: "A") as url:
        report = judged(run, judge_at=url)
    assert report.outcome == "no decision"
    assert "agreed with itself on 0 of 24" in report.reasons[0]


def test_without_a_judge_the_runs_reward_model_compares(run: Path) -> None:
    plan = Plan.read(run)
    recipe = RewardRecipe.model_validate({"learning_rate": 0.01, "max_steps": 12})
    plan.model_copy(update={"recipe": recipe}).write(run)
    stage = Stage(
        kind="reward",
        folder=run / "stages" / "2-reward",
        weights=plan.home / "bases" / MODEL,
        reader=Reader.of(plan.base),
        snapshot=plan.snapshot,
        events=Events(file=run / "events.jsonl"),
    )
    stage.folder.mkdir(parents=True)
    adapter = reward.run(stage, recipe).adapter
    found = preferred(run, reward_model=adapter)
    assert found.rate is not None and found.rate.low > 0.7
    assert not found.proves
    assert preferred(run, reward_model=adapter, reward_model_proves=True).proves


def test_likelihoods_of_the_quantized_model_are_those_of_its_own_choices(made: Path) -> None:
    generator = Generator.load(made / "model", replicas=1)
    reader = Reader(manifest=generator.manifest, tokenizer=generator.tokenizer)
    asked = reader.prompt_tokens(prompt(3))
    said: list[int] = []

    def hear(_index: int, token: int, _last: bool) -> bool:
        said.append(token)
        return False

    generator.generate([asked], max_tokens=12, draw=Draw(), on_token=hear)
    tokens = [generator.tokenizer.token_of(each) or "" for each in said]
    scores = generator.score(asked, tokens)
    assert len(scores) == len(tokens)
    assert sum(scores) / len(scores) > -0.5  # it was sure of what it said
    right, wrong = likelihoods(
        made / "model", [(tuple(prompt(3)), RIGHT), (tuple(prompt(3)), "No idea.")]
    )
    assert right > wrong + 1


def test_long_prompts_are_scored_to_their_end(tmp_path: Path) -> None:
    weights = tiny_models.write_generator(tmp_path / "long", max_position_embeddings=2048)
    convert(weights, out=tmp_path / "model", quantization="float32")
    generator = Generator.load(tmp_path / "model", replicas=1)
    prompt_tokens = (generator.tokenizer.encode("The team keeps its documents. ") * 400)[:1500]
    answer = generator.tokenizer.encode("It is 12,000 euros.")
    ids = torch.tensor([generator.tokenizer.ids([*prompt_tokens, *answer])])
    with torch.no_grad():
        scores = load_base(weights)(input_ids=ids).logits[0].log_softmax(-1)
    wanted = [float(scores[1499 + n][token]) for n, token in enumerate(ids[0, 1500:])]
    assert generator.score(prompt_tokens, answer) == pytest.approx(wanted, abs=1e-3)


def test_rows_that_are_rendered_end_where_the_answer_ends() -> None:
    row = Rendered(prompt=[5, 6], answer=[7, 2])
    assert row.labels == [-100, -100, 7, 2]
