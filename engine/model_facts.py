"""The facts about a model that its manifest records, read from what was loaded for conversion.

Reads configurations and tokenizers that `engine.convert` hands in; imports no torch itself.
"""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2

from engine.errors import InvalidRequest, ModelUnsupported
from engine.prompt import PLAIN_TEMPLATE, ChatMessage, compile_template, render_chat
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_END_NAMES = frozenset(
    {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"}
)
"""Control tokens that end a turn or a document by their name, as llama.cpp takes them, too: models
often state only one of theirs, and what follows any of them is no part of the answer."""

ModelKind = Literal["generator", "embedder"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What `transformers` made of a model's files."""

    kind: ModelKind
    architecture: str
    config: Any
    """The model's `PretrainedConfig`."""
    end_token_ids: tuple[int, ...]
    """Ids that end a generated text, from its generation config."""
    tokenizer: Any
    """Its `PreTrainedTokenizerFast`."""


def manifest_facts(loaded: LoadedModel, *, source_dir: Path, model_dir: Path) -> dict[str, Any]:
    """Return the fields of `engine.manifest.Manifest` that depend on the kind of model.

    Also completes the converted `config.json`, which CTranslate2 reads its end token from.

    Args:
        loaded: the model as loaded.
        source_dir: directory that it was loaded from, for the files of sentence-transformers.
        model_dir: the converted model with its `tokenizer.json`.

    Raises:
        ModelUnsupported: tokenizer and weights do not fit, or something needed is not stated.
    """
    tokenizer = Tokenizer.read(model_dir / "tokenizer.json")
    _check_vocabulary(tokenizer, model_dir)
    if loaded.kind == "embedder":
        return {
            "context_length": _embedder_length(loaded, source_dir),
            "embedding_dim": int(loaded.config.hidden_size),
            "pooling": _pooling(source_dir),
        }
    template = _chat_template(loaded.tokenizer)
    stops = _stop_tokens(loaded, tokenizer, template)
    _complete_config(model_dir / "config.json", stops=stops)
    return {
        "context_length": _generator_length(loaded.config),
        "chat_template": template,
        "bos_token": loaded.tokenizer.bos_token,
        "eos_token": loaded.tokenizer.eos_token,
        "stop_tokens": stops,
    }


def licence_of_card(source_dir: Path) -> str | None:
    """Read `license:` from the front matter of a model card, if there is one."""
    card = source_dir / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", head, re.MULTILINE)
    return found[1] if found else None


def _check_vocabulary(tokenizer: Tokenizer, model_dir: Path) -> None:
    vocabulary = json.loads((model_dir / "vocabulary.json").read_text(encoding="utf-8"))
    for index, token in enumerate(vocabulary):
        known = tokenizer.token_of(index)
        if known is not None and known != token:
            raise ModelUnsupported(
                f"token {index} is {known!r} to the tokenizer and {token!r} to the model; "
                "tokenizer and weights belong to different models"
            )


def _chat_template(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is None:
        logger.warning(
            "The model has no chat template; chats are written as plain turns (User: / Assistant:)",
            extra={"action": "convert_plain_template"},
        )
        begins = tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        template = ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE
    try:
        compile_template(template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelUnsupported(f"its chat template is not valid Jinja: {error}") from error
    return str(template)


def _stop_tokens(loaded: LoadedModel, tokenizer: Tokenizer, template: str) -> tuple[str, ...]:
    """Every token that ends an answer, the one that the template writes after it first."""
    candidates = [_turn_end(loaded, tokenizer, template), loaded.tokenizer.eos_token]
    candidates += [tokenizer.token_of(index) for index in loaded.end_token_ids]
    candidates += sorted(tokenizer.special_tokens & _END_NAMES)
    stops = tuple(dict.fromkeys(token for token in candidates if token))
    if not stops:
        raise ModelUnsupported(
            "it names no token that ends a text; set eos_token in its tokenizer_config.json"
        )
    return stops


def _turn_end(loaded: LoadedModel, tokenizer: Tokenizer, template: str) -> str | None:
    # Some models state only the end of a document as eos_token, but were taught to end a turn by
    # another token: the one their template writes behind an answer.
    answer = "the answer"
    try:
        text = render_chat(
            template,
            [
                ChatMessage(role="user", content="the question"),
                ChatMessage(role="assistant", content=answer),
            ],
            bos_token=loaded.tokenizer.bos_token,
            eos_token=loaded.tokenizer.eos_token,
            add_generation_prompt=False,
        )
    except InvalidRequest:
        return None
    after = tokenizer.encode(text.rpartition(answer)[2].lstrip())[:1]
    return after[0] if after and after[0] in tokenizer.special_tokens else None


def _complete_config(path: Path, *, stops: tuple[str, ...]) -> None:
    # CTranslate2 reads these three as strings; a model without one of them writes null.
    config = json.loads(path.read_text(encoding="utf-8"))
    config["eos_token"] = stops[0]
    for key in ("bos_token", "unk_token"):
        config[key] = config.get(key) or stops[0]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _generator_length(config: Any) -> int:
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if length := getattr(config, key, None):
            return int(length)
    raise ModelUnsupported("its config.json does not say how many tokens it reads")


def _embedder_length(loaded: LoadedModel, source_dir: Path) -> int:
    config = loaded.config
    positions = int(config.max_position_embeddings)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # theirs start behind the padding index
    limits = [positions, int(loaded.tokenizer.model_max_length)]
    sentence = source_dir / "sentence_bert_config.json"
    if sentence.is_file():
        limits.append(int(json.loads(sentence.read_text())["max_seq_length"]))
    return min(limits)


def _pooling(source_dir: Path) -> Literal["mean", "cls"]:
    """Read how a sentence-transformers pipeline pools; without one, tokens are averaged."""
    pipeline = source_dir / "modules.json"
    if not pipeline.is_file():
        logger.warning(
            "The embedder does not say how it pools; its token vectors are averaged",
            extra={"action": "convert_mean_pooling"},
        )
        return "mean"
    modes: list[str] = []
    for module in json.loads(pipeline.read_text()):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            modes = _pooling_modes(source_dir / module["path"] / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ModelUnsupported(
                f"it ends in a {kind} layer, which CTranslate2 does not run; choose an embedder "
                "of Transformer, Pooling and Normalize only"
            )
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise ModelUnsupported(
        f"it pools by {', '.join(modes) or 'nothing'}; only mean and cls run here"
    )


def _pooling_modes(path: Path) -> list[str]:
    config = json.loads(path.read_text())
    if "pooling_mode" in config:  # as sentence-transformers 5.4 and later write it
        mode = config["pooling_mode"]
        return [mode] if isinstance(mode, str) else list(mode)
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return [
        names.get(key, key.removeprefix("pooling_mode_"))
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on is True
    ]
