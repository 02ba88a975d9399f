"""What a run leaves to be served or taken away: adapter, merged weights, the quantized model.

The quantized model is what the gate judges and the engine serves. The others are made when somebody
asks for them: from the adapter they can be had again at any time.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from engine.convert import convert, export
from engine.errors import ModelCorrupt
from engine.manifest import Manifest
from engine.pull import repository_of
from feedback.snapshot_files import MANIFEST
from training.base_model import base_weights
from training.errors import InputUnusable, TrainingError
from training.execute_files import GATE, RESULT
from training.plan import Plan

logger = logging.getLogger(__name__)

Form = Literal["adapter", "merged", "ctranslate2"]
MODEL: Final = "model"
_LIBRARIES: Final[Mapping[Form, str]] = {
    "adapter": "peft",
    "merged": "transformers",
    "ctranslate2": "ctranslate2",
}
CARD: Final = "README.md"
"""Where the Hugging Face Hub looks for a model's card."""


def make(plan: Plan, folder: Path, *, weights: Path, adapter: Path) -> Path:
    """Merge and quantize; return the run's model directory, which a run makes once.

    Raises:
        ModelUnsupported: the model has no counterpart in CTranslate2.
        ConversionFailed: the disk refuses.
    """
    out = folder / MODEL
    try:
        if Manifest.read(out).name == plan.name:
            return out
    except ModelCorrupt:
        logger.debug("%s is to be made", out, extra={"action": "artifact_missing"})
    base = Manifest.read(plan.base, verify=False)
    convert(
        weights,
        out=out,
        adapter=adapter,
        name=plan.name,
        base=base.base,
        origin=base.source,
        force=True,
    )
    return out


def take_away(folder: Path, out: Path, form: Form) -> Path:
    """Copy what a run made to a new directory, with its model card; return the directory.

    Args:
        folder: of the run.
        out: must not exist.

    Raises:
        InputUnusable: the run made no model, or `out` exists.
        TrainingError: the folder's plan cannot be read.
        OSError: the disk refuses.
        BaseUnusable: the base's tokenizer and weights cannot be had.
        ModelUnsupported, ConversionFailed: the weights cannot be merged.
    """
    plan = Plan.read(folder)
    if out.exists():
        raise InputUnusable(f"{out} exists already.", advice="Name another directory.")
    if not (folder / MODEL).is_dir():
        raise InputUnusable(f"The run {plan.run_id} made no model.")
    if form == "ctranslate2":
        shutil.copytree(folder / MODEL, out)
    else:
        weights = base_weights(plan.base, home=plan.home)
        if form == "adapter":
            shutil.copytree(_adapter(folder), out)
            _name_base(out / "adapter_config.json", _base_repository(plan))
        else:
            export(weights, out=out, adapter=_adapter(folder))
        _write_tokenizer(out, weights, served=folder / MODEL)
    (out / CARD).write_text(card(folder, form), "utf-8")
    return out


def push(folder: Path, repository: str, form: Form, *, endpoint: str | None = None) -> str:
    """Upload what a run made to the Hugging Face Hub, privately; return the commit's address.

    Args:
        repository: `<organisation>/<name>`, made if missing.
        endpoint: another hub than the public one.

    Raises:
        TrainingError: the hub refuses; the token is read by its client from `HF_TOKEN`.
        InputUnusable, OSError: as `take_away`.
    """
    import tempfile

    from httpx2 import HTTPError  # what the hub's client speaks HTTP with
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi(endpoint=endpoint)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        directory = take_away(folder, Path(work) / form, form)
        try:
            hub.create_repo(repository, private=True, exist_ok=True)
            made = hub.upload_folder(
                repo_id=repository,
                folder_path=directory,
                commit_message=f"Upload {Plan.read(folder).name}",
            )
        except (HfHubHTTPError, LocalTokenNotFoundError, ValueError) as error:
            raise TrainingError(
                f"The hub refuses {repository}: {_first_line(error)}",
                advice="Set HF_TOKEN to a token that may write there.",
            ) from error
        except (HTTPError, OSError) as error:
            raise TrainingError(
                f"The hub cannot be reached: {_first_line(error)}",
                advice="Check the network, and HF_ENDPOINT where the hub is another one.",
            ) from error
    return str(made.commit_url)


def card(folder: Path, form: Form) -> str:
    """The model card: what it was made of, how, how good it is, and under which licence.

    Nothing of what people wrote is in it: counts and figures only.
    """
    plan = Plan.read(folder)
    base = Manifest.read(plan.base, verify=False)
    about = _about(base.licence, _base_repository(plan), form)
    snapshot = _json(plan.snapshot / MANIFEST)
    gate = _json(folder / GATE)
    rows = "".join(f"| {name} | {count} |\n" for name, count in snapshot.get("rows", {}).items())
    reasons = "".join(f"- {reason}\n" for reason in gate.get("reasons", []))
    return f"""---
{about}
---

# {plan.name}

{base.base}, trained on a team's own ratings by Parley. It answers from numbered sources in its
prompt; it was not made to know anything by heart.

## Data

Snapshot `{plan.snapshot_sha256}`.

| rows | count |
|---|---|
{rows}
## Recipe

```json
{json.dumps(plan.recipe.model_dump(mode="json"), indent=2)}
```

Parent: {plan.parent or base.name}. Code: {plan.code}.
Versions: {json.dumps(plan.versions, sort_keys=True)}.

## Measured

Outcome of the gate: {gate.get("outcome", "not judged")}.

{reasons}
```json
{json.dumps(gate.get("figures", {}), indent=2)}
```

{_stages(folder)}
## Licence

{base.licence or "That of the base model, which does not name one."}
"""


def _about(licence: str | None, repository: str | None, form: Form) -> str:
    """What the hub reads of a card; it takes no `base_model` that is not one of its own."""
    lines = [f"license: {licence or 'other'}"]
    if repository is not None:
        lines.append(f"base_model: {repository}")
    return "\n".join([*lines, f"library_name: {_LIBRARIES[form]}", "tags: [parley, lora]"])


def _base_repository(plan: Plan) -> str | None:
    """Where everybody finds the base; None where its manifest names no place."""
    return repository_of(Manifest.read(plan.base, verify=False).source)


def _name_base(config: Path, repository: str | None) -> None:
    """Name the base in an adapter's configuration as others know it, not by this machine's path."""
    fields = json.loads(config.read_bytes()) | {"base_model_name_or_path": repository}
    config.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def _write_tokenizer(out: Path, weights: Path, *, served: Path) -> None:
    """Let who uses an export ask the model as it learnt to be asked: by the served template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    tokenizer.chat_template = Manifest.read(served, verify=False).chat_template
    tokenizer.save_pretrained(out)


def _stages(folder: Path) -> str:
    """Each stage's device and own figures, as a table."""
    lines = ["| stage | figure | value |", "|---|---|---|"]
    for file in sorted((folder / "stages").glob(f"*/{RESULT}")):
        told = _json(file)
        lines.append(f"| {file.parent.name} | device | {told.get('device', 'unknown')} |")
        for name, value in told.get("metrics", {}).items():
            lines.append(f"| {file.parent.name} | {name} | {value:.4g} |")
    return "\n".join(lines) + "\n"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _adapter(folder: Path) -> Path:
    """The adapter of the last stage that made a policy."""
    ended = sorted(
        (int(file.parent.name.partition("-")[0]), file.parent / "adapter")
        for file in (folder / "stages").glob(f"*/{RESULT}")
        if not file.parent.name.endswith("-reward")
    )
    if not ended:
        raise TrainingError(f"{folder} holds no adapter.")
    return ended[-1][1]


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
