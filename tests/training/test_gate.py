"""The gate and what a run leaves, on a tiny model that learns to give one answer."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from engine.convert import convert
from engine.generator import Draw, Generator
from engine.manifest import Manifest
from engine.prompt import ChatMessage, PromptSource, rag_messages
from feedback.rankings import Estimate
from tests.engine import tiny_models
from tests.fakes.scripted_model import NAME, ScriptedModel
from tests.training.conftest import MODEL
from training import artifact, gate, reward, sft
from training.base_model import Reader, load_base
from training.errors import TrainingError
from training.evaluation import Reply, likelihoods
from training.gate_prompts import GatePrompts, gate_prompts, identifiers, sources_of
from training.plan import Plan
from training.recipes import RewardRecipe, SftRecipe, parse
from training.rows import Rendered
from training.stage import Events, Stage

RIGHT = "the blue one"
RECIPE = SftRecipe.model_validate(
    {"lora": {"r": 8}, "learning_rate": 0.02, "max_steps": 60, "lr_scheduler_type": "constant"}
)
WORDS = ("garden", "kitchen", "office", "archive", "printer", "server", "parking", "budget")


def prompt(number: int) -> list[ChatMessage]:
    word = WORDS[number % len(WORDS)]
    source = PromptSource(number=1, title="Handbook", text=f"In {word} {number} take {RIGHT}.")
    return rag_messages(question=f"Which {word} {number}?", history=(), sources=[source])


def write_snapshot(folder: Path) -> Path:
    folder.mkdir()
    for split, numbers in (("train", range(100, 130)), ("held_out", range(24))):
        sft_rows, pairs = [], []
        for number in numbers:
            asked = [{"role": each.role, "content": each.content} for each in prompt(number)]
            good, bad = ([{"role": "assistant", "content": text}] for text in (RIGHT, "No idea."))
            sft_rows.append({"prompt": asked, "completion": good})
            pairs.append({"prompt": asked, "chosen": good, "rejected": bad})
        for kind, rows in (("sft", sft_rows), ("preference", pairs), ("unpaired", [])):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.{split}.jsonl").write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"rows": {"sft.train": 30}}))
    return folder


@pytest.fixture(scope="module")
def made(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a trained and quantized model, before the gate."""
    folder = tmp_path_factory.mktemp("run")
    plan = Plan(
        run_id="1",
        name="v1-tiny",
        recipe=parse({"kind": "sft"}),
        snapshot=write_snapshot(folder / "snapshot"),
        snapshot_sha256="1" * 64,
        base=trainable / "models" / MODEL,
        live=trainable / "models" / MODEL,
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
    result = sft.run(stage, RECIPE)
    artifact.make(plan, folder, weights=stage.weights, adapter=result.adapter)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to judge."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def judged(folder: Path, *, reward_model: Path | None = None, **changes: Any) -> gate.GateReport:
    plan = Plan.read(folder).model_copy(update={"min_labels": 20, **changes})
    return gate.judge(
        plan,
        folder,
        labels=60,
        reward_model=reward_model,
        judge_api_key=None,
        events=Events(file=folder / "events.jsonl"),
    )


def test_a_model_that_learnt_the_answer_is_a_candidate_and_is_judged_once(run: Path) -> None:
    report = judged(run)
    assert report.outcome == "candidate", report
    assert any("answer F1" in reason for reason in report.reasons)
    assert report.figures["candidate"]["answer F1"] > 0.8
    assert report.figures["live"]["answer F1"] < 0.2
    assert report.figures["candidate"]["preference accuracy"] == 1.0
    shutil.rmtree(run / "model")  # a second measurement would fail
    assert judged(run).reasons == report.reasons


def test_the_same_model_again_is_rejected(run: Path) -> None:
    shutil.rmtree(run / "model")
    shutil.copytree(Plan.read(run).base, run / "model")
    report = judged(run)
    assert report.outcome == "rejected"
    assert "Nothing is better" in report.reasons[0]


def test_a_judge_that_is_away_decides_nothing(run: Path) -> None:
    report = judged(run, judge_url="http://127.0.0.1:9/v1", judge_model="judge")
    assert report.outcome == "no decision"
    assert "does not answer" in report.reasons[0]


@contextmanager
def judge_who_says(verdict: Callable[[str, str], str]) -> Iterator[str]:
    """Address of a judge that is told both answers."""

    def script(prompt: str) -> str:
        first, _, rest = prompt.rpartition("\n\nAnswer A:\n")[2].partition("\n\nAnswer B:\n")
        return verdict(first, rest.removesuffix("\n\nWhich is better?"))

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    model = ScriptedModel()
    model.script = script
    try:
        asyncio.run_coroutine_threadsafe(model.__aenter__(), loop).result(10)
        yield model.source.removeprefix("openai:").partition("#")[0]
        asyncio.run_coroutine_threadsafe(model.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def saying(prompts: GatePrompts, text: str) -> gate.Answers:
    """A model that always answers the same."""
    reply = Reply(text=text, finish_reason="stop", seconds=0.1, tokens=3)
    asked = (*prompts.held_out, *prompts.without_answer)
    return gate.Answers(replies=dict.fromkeys(asked, reply), accuracy=(1.0,) * len(prompts.pairs))


def preferred(
    run: Path, *, url: str | None = None, reward_model: Path | None = None
) -> tuple[Estimate | None, str | None]:
    """The win rate of a right answer over a wrong one of the same length, and why there is none."""
    plan = Plan.read(run).model_copy(update={"judge_url": url, "judge_model": NAME})
    prompts = gate_prompts(plan.snapshot)
    right, wrong = saying(prompts, RIGHT), saying(prompts, "the grey one")
    return gate.win_rate_of(
        plan, prompts, right, wrong, reward_model=reward_model, judge_api_key=None
    )


@pytest.mark.parametrize("liked", [True, False])
def test_a_judges_verdicts_are_the_win_rate(made: Path, liked: bool) -> None:
    with judge_who_says(lambda a, b: "A" if (RIGHT in a) is liked else "B") as url:
        rate, failure = preferred(made, url=url)
    assert rate is not None and failure is None
    assert rate.low > 0.7 if liked else rate.high < 0.3


def test_a_judge_who_always_says_the_first_decides_nothing(run: Path) -> None:
    with judge_who_says(lambda a, b: "A") as url:
        report = judged(run, judge_url=url, judge_model=NAME)
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
    rate, _ = preferred(run, reward_model=reward.run(stage, recipe).adapter)
    assert rate is not None and rate.low > 0.7


def test_who_stops_citing_cites_nothing_wrong_and_who_begins_to_may(made: Path) -> None:
    prompts = gate_prompts(made / "snapshot")
    silent, right, wrong = (saying(prompts, f"{RIGHT}{end}") for end in ("", " [1]", " [2]"))

    def change(candidate: gate.Answers, live: gate.Answers) -> float | None:
        found = gate.differences(prompts, candidate, live).get("citations")
        return None if found is None else found.value

    assert change(silent, silent) is None
    assert change(wrong, silent) == -1.0
    assert change(silent, wrong) == 1.0
    assert change(silent, right) == change(right, silent) == 0.0


def test_a_question_above_anothers_sources_must_be_refused(made: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    shutil.copytree(made / "snapshot", snapshot)
    rows = []
    for number, word in enumerate(WORDS):
        source = PromptSource(number=1, title="Handbook", text=f"The {word} opens at {number} am.")
        asked = rag_messages(question=f"When does the {word} open?", history=(), sources=[source])
        rows.append(
            {
                "prompt": [{"role": each.role, "content": each.content} for each in asked],
                "completion": [{"role": "assistant", "content": f"At {number} am."}],
            }
        )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (snapshot / "sft.held_out.jsonl").write_text(text)
    without = gate_prompts(snapshot).without_answer
    assert len(without) == len(WORDS)
    assert "When does the garden open?" in without[0][-1].content
    assert sources_of(without[0]) == {1: "The kitchen opens at 1 am."}


def test_prompts_are_those_that_were_served(made: Path) -> None:
    found = gate_prompts(made / "snapshot")
    assert len(found.held_out) == len(found.known) == 24
    assert found.known[0].supporting == {1}
    assert sources_of(found.held_out[3]) == {1: f"In archive 3 take {RIGHT}."}
    # Another question's sources hold the same answer here, so nothing is unanswerable.
    assert found.without_answer == ()
    assert found.injected
    assert identifiers(made / "snapshot") == {}


def test_rare_strings_of_training_rows_are_asked_for_without_their_source(
    made: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshot"
    shutil.copytree(made / "snapshot", snapshot)
    row = {
        "prompt": [{"role": "user", "content": "The code of the east door is KX48213QT."}],
        "completion": [{"role": "assistant", "content": "Mail desk@team.example."}],
    }
    (snapshot / "sft.train.jsonl").write_text(json.dumps(row) + "\n")
    for kind in ("preference", "unpaired"):
        (snapshot / f"{kind}.train.jsonl").write_text("")
    assert identifiers(snapshot) == {
        "KX48213QT": "The code of the east door is",
        "desk@team.example": "Mail",
    }
    traps = gate_prompts(snapshot).memorised
    assert [trap.secret for trap in traps] == ["KX48213QT", "desk@team.example"]
    assert all(trap.secret not in trap.prompt[-1].content for trap in traps)


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


@pytest.mark.parametrize("form", ["adapter", "merged", "ctranslate2"])
def test_what_a_run_made_can_be_taken_away_with_its_card(
    made: Path, tmp_path: Path, form: artifact.Form
) -> None:
    out = artifact.take_away(made, tmp_path / "out", form)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: ") and "v1-tiny" in card and "| sft.train | 30 |" in card
    assert "| 1-sft | held_out_loss | " in card
    assert RIGHT not in card
    if form == "ctranslate2":
        assert Manifest.read(out).name == "v1-tiny"
    elif form == "merged":
        base = load_file(Plan.read(made).home / "bases" / MODEL / "model.safetensors")
        merged = load_file(out / "model.safetensors")
        assert {name for name in base if not base[name].equal(merged[name])}
    else:
        assert (out / "adapter_model.safetensors").is_file()
    with pytest.raises(TrainingError, match="exists already"):
        artifact.take_away(made, out, form)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload of small files asks for."""

    seen: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.path, self.headers["Authorization"], body))
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            answer = {"url": f"http://{self.headers['Host']}/team/model", "name": "team/model"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            answer = {"files": [{"path": each["path"], **regular} for each in files]}
        elif "/commit/" in self.path:
            answer = {
                "commitUrl": "https://huggingface.co/team/model/commit/1",
                "commitOid": "1",
                "success": True,
            }
        self._answer(answer)

    def do_GET(self) -> None:
        self._answer({"id": "team/model", "sha": "0", "siblings": []})

    def _answer(self, fields: dict[str, Any]) -> None:
        text = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_adapter_is_pushed_to_the_hub_with_its_card(
    made: Path, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    address = artifact.push(made, "team/model", "adapter", endpoint=hub)
    assert address.endswith("/commit/1")
    created = json.loads(Hub.seen[0][2])
    assert created.get("private") or created.get("visibility") == "private"
    assert {authorization for _, authorization, _ in Hub.seen} == {"Bearer hf_secret"}
    committed = next(body for path, _, body in Hub.seen if "/commit/" in path)
    paths = [json.loads(line)["value"].get("path") for line in committed.splitlines()]
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(paths)


def test_a_hub_that_is_away_is_said_to_be(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(TrainingError, match="cannot be reached"):
        artifact.push(made, "team/model", "adapter", endpoint="http://127.0.0.1:9")


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
