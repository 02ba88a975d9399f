"""Make a model directory from a Hugging Face directory, a GGUF file, or a base and a LoRA adapter.

In: weights that `transformers` can load and CTranslate2 has a converter for; generators (causal
    language models) and encoders of the BERT family. Out: a directory as `engine.manifest`
    describes it. Code that comes with a model is never run (`trust_remote_code` stays off).

The only module of the engine that imports torch and its friends, and only inside functions:
importing this module costs nothing.
"""

import argparse
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelUnsupported
from engine.manifest import Ancestor, Manifest, describe_files, now, weights_sha256
from engine.model_directory import publishing, refuse_existing
from engine.model_facts import LoadedModel, ModelKind, licence_of_card, manifest_facts

logger = logging.getLogger(__name__)

QUANTIZATIONS = (
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)
"""CTranslate2's names; int8 is the default because it decodes fastest on CPUs."""

_NEOX_ROPE_THETA = 10_000
_DIGIT_SPLITTING = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
_GPT2_SPLITTING = frozenset({"gpt-2", "phi-2", "mpt", "olmo"})
# Names of `tokenizer.ggml.pre`, as llama.cpp groups them by the way they split text before merging.


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where weights come from: a Hugging Face directory, or a GGUF file inside `directory`."""

    directory: Path
    gguf: Path | None
    weights: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.gguf.stem if self.gguf else self.directory.name


def convert(
    source: Path,
    *,
    out: Path,
    quantization: str = "int8",
    adapter: Path | None = None,
    name: str | None = None,
    base: str | None = None,
    origin: str | None = None,
    force: bool = False,
) -> Manifest:
    """Convert a model and return its manifest.

    Args:
        source: Hugging Face directory, `.gguf` file, or a directory that holds one `.gguf` file.
        out: the model directory to create; it appears complete or not at all.
        quantization: one of `QUANTIZATIONS`.
        adapter: PEFT directory of a LoRA adapter, merged into the source in float32.
        name: the model's name; default: the name of `out`.
        base: name of the model that `source` is; default: the name of its file or directory.
        origin: where `source` came from, for the manifest; default: `base`.
        force: replace `out` if it exists.

    Raises:
        ModelUnsupported: the source cannot be read or has no counterpart in CTranslate2.
        ConversionFailed: `out` exists without `force`, is being written, or the disk refuses.
    """
    if quantization not in QUANTIZATIONS:
        raise ModelUnsupported(
            f"No quantization {quantization!r}; choose one of {', '.join(QUANTIZATIONS)}."
        )
    refuse_existing(out, force=force)
    located = _locate(source.absolute())
    adapter_weights = _adapter_weights(adapter) if adapter else None
    base = base or located.name
    _quiet_libraries()
    with publishing(out.absolute(), force=force) as work:
        model_dir = work / "model"
        loaded = _write_weights(
            located, adapter=adapter, quantization=quantization, work=work, out=model_dir
        )
        lineage = [
            Ancestor(kind="base", source=origin or base, sha256=weights_sha256(located.weights))
        ]
        if adapter and adapter_weights:
            digest = weights_sha256([adapter_weights])
            lineage.append(Ancestor(kind="adapter", source=adapter.absolute().name, sha256=digest))
        with _unsupported(f"{located.name!r} cannot be served"):
            loaded.tokenizer.backend_tokenizer.save(str(model_dir / "tokenizer.json"))
            facts = manifest_facts(loaded, source_dir=located.directory, model_dir=model_dir)
            _prove_loadable(model_dir, loaded.kind)
        manifest = Manifest(
            name=name or out.absolute().name,
            kind=loaded.kind,
            base=base,
            lineage=tuple(lineage),
            architecture=loaded.architecture,
            quantization=quantization,
            licence=_licence(located),
            source=origin or base,
            created_at=now(),
            files=describe_files(model_dir),
            **facts,
        )
        manifest.write(model_dir)
    logger.info(
        "Wrote %s (%s, %s)", out, loaded.architecture, quantization, extra={"action": "converted"}
    )
    return manifest


def export(source: Path, *, out: Path, adapter: Path | None = None, force: bool = False) -> None:
    """Write a model as a Hugging Face directory of float32 weights: to train on, or to take away.

    Args:
        source, adapter, force: as for `convert`; generators only.
        out: the directory to create; it appears complete or not at all.

    Raises:
        ModelUnsupported, ConversionFailed: as `convert`.
    """
    import transformers

    located = _locate(source.absolute())
    _quiet_libraries()
    with publishing(out.absolute(), force=force) as work:
        with _unsupported(f"{located.name!r} cannot be read"):
            tokenizer = _load_tokenizer(located)
            config = _load_config(located)
            model = _load_model(located, transformers.AutoModelForCausalLM, dtype="float32")
        if adapter is not None:
            model = _merged(model, adapter)
        if located.gguf:
            # A model that was read from GGUF refuses to be saved: its weights move into a new one.
            weights = model.state_dict()
            model = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
            model.load_state_dict(weights)
        with _unsupported(f"{located.name!r} cannot be written"):
            model.save_pretrained(work / "model")
            tokenizer.save_pretrained(work / "model")
    logger.info("Wrote the weights of %s", out.name, extra={"action": "exported"})


def _locate(source: Path) -> _Source:
    if source.is_file() and source.suffix == ".gguf":
        return _Source(directory=source.parent, gguf=source, weights=(source,))
    if not source.is_dir():
        raise ModelUnsupported(
            f"{str(source)!r} is neither a directory nor a .gguf file; name a Hugging Face model "
            "directory or a GGUF file."
        )
    if (source / "config.json").is_file():
        weights = sorted(source.glob("*.safetensors")) or sorted(source.glob("pytorch_model*.bin"))
        if not weights:
            raise ModelUnsupported(
                f"{str(source)!r} has a config.json but no weights (*.safetensors); "
                "was the download complete?"
            )
        return _Source(directory=source, gguf=None, weights=tuple(weights))
    files = sorted(source.glob("*.gguf"))
    if len(files) == 1:
        return _Source(directory=source, gguf=files[0], weights=(files[0],))
    found = ", ".join(file.name for file in files) if files else "neither config.json nor .gguf"
    raise ModelUnsupported(
        f"{str(source)!r} holds {found}; name one Hugging Face directory or one GGUF file."
    )


def _adapter_weights(adapter: Path) -> Path:
    weights = adapter / "adapter_model.safetensors"
    if not (adapter / "adapter_config.json").is_file() or not weights.is_file():
        raise ModelUnsupported(
            f"{str(adapter)!r} is no PEFT adapter: it needs adapter_config.json and "
            "adapter_model.safetensors."
        )
    return weights


def _quiet_libraries() -> None:
    # Their bars and warnings speak of steps and options that nobody here chose.
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _unsupported(problem: str) -> Iterator[None]:
    # Loaders raise whatever they stumble over (OSError, KeyError, struct.error, ...): at this
    # border all of it means that the source is not one this engine can use.
    try:
        yield
    except ModelUnsupported:
        raise
    except MemoryError as error:
        raise ModelUnsupported(f"{problem}: not enough memory.") from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelUnsupported(f"{problem}: {reason[0].rstrip('.')}.") from error


def _write_weights(
    source: _Source, *, adapter: Path | None, quantization: str, work: Path, out: Path
) -> LoadedModel:
    """Load, merge, quantize and save CTranslate2's own files to `out`."""
    from ctranslate2.converters import TransformersConverter

    seen: dict[str, LoadedModel] = {}

    class Converter(TransformersConverter):  # type: ignore[misc]  # the library is untyped
        """CTranslate2's converter, with this module's ways of loading a model and a tokenizer."""

        def load_tokenizer(self, tokenizer_class: Any, path: str, **options: Any) -> Any:
            return tokenizer

        def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
            kind = _kind_of(model_class.__name__)
            if adapter and kind != "generator":
                raise ModelUnsupported("Adapters are merged into causal language models only.")
            if adapter or source.gguf:
                options["dtype"] = "float32"  # merging in half precision loses the adapter's digits
            model = _load_model(source, model_class, **options)
            seen["model"] = LoadedModel(
                kind=kind,
                architecture=type(model).__name__,
                config=model.config,
                end_token_ids=_end_token_ids(model),
                tokenizer=tokenizer,
            )
            return _merged(model, adapter) if adapter else model

        def _load(self) -> Any:
            spec = super()._load()
            _restore_rotary_scaling(spec, config)
            return spec

    logger.info("Reading %s", source.name, extra={"action": "convert_reading"})
    with _unsupported(f"{source.name!r} cannot be read"):
        tokenizer = _load_tokenizer(source)
        config = _load_config(source)
        config_dir = work / "config"
        config.save_pretrained(config_dir)  # the library wants to read it from a directory
    with _unsupported(f"{source.name!r} cannot be converted"):
        Converter(str(config_dir)).convert(str(out), quantization=quantization)
    return seen["model"]


def _kind_of(model_class: str) -> ModelKind:
    if model_class.endswith(("ForCausalLM", "LMHeadModel")):
        return "generator"
    if model_class.endswith(("Model", "ForSequenceClassification")):
        return "embedder"
    raise ModelUnsupported(
        f"{model_class} is neither a causal language model nor a BERT-like encoder; "
        "choose a model of one of these two kinds."
    )


def _load_config(source: _Source) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        source.directory, trust_remote_code=False, **_gguf_option(source)
    )
    if source.gguf:
        vars(config).pop("quantization_config", None)  # the weights are dequantized on loading
    elif getattr(config, "quantization_config", None):
        raise ModelUnsupported(
            f"{source.name!r} is quantized already; convert the original, unquantized model."
        )
    return config


def _load_model(source: _Source, model_class: Any, **options: Any) -> Any:
    import transformers

    if source.gguf:
        model_class = transformers.AutoModelForCausalLM
    model, report = model_class.from_pretrained(
        source.directory, output_loading_info=True, **_gguf_option(source), **options
    )
    # A missing pooler or classifier is made up at random, but never used here.
    missing = sorted(
        key for key in report["missing_keys"] if not re.search(r"pooler|classifier", key)
    )
    if missing:
        raise ModelUnsupported(
            f"{source.name!r} lacks {len(missing)} weights, among them {missing[0]}; "
            "was the download complete?"
        )
    vars(model.config).pop("quantization_config", None)
    _restore_old_names(model)
    return model


def _restore_old_names(model: Any) -> None:
    """Set what CTranslate2's converter reads and `transformers` 5 renamed or dropped."""
    config = model.config
    if config.model_type in ("bert", "roberta", "xlm-roberta", "camembert"):
        config.position_embedding_type = "absolute"
    if config.model_type == "gpt_neox":
        model.embed_out = model.lm_head
        config.rotary_pct = config.rope_parameters["partial_rotary_factor"]
        if config.rope_parameters["rope_theta"] != _NEOX_ROPE_THETA:
            raise ModelUnsupported(
                "CTranslate2 runs GPT-NeoX models with rotary base 10,000 only; this one has "
                f"{config.rope_parameters['rope_theta']:,}."
            )
    if config.model_type == "falcon" and config.new_decoder_architecture:
        config.multi_query = False  # a field of the old architecture, which models carry on


def _restore_rotary_scaling(spec: Any, config: Any) -> None:
    """Write what Llama 3.1 and its successors scale their rotations by, if the model is one.

    CTranslate2's converter writes it for linear scaling only and its runtime takes 1 for what is
    missing: the model would drift from its original with every token.
    """
    import numpy as np

    rotation = getattr(config, "rope_parameters", None) or {}
    if rotation.get("rope_type") != "llama3":
        return
    for layer in spec.decoder.layer:
        # Past a guard against attributes that the specification does not name.
        fields = vars(layer.self_attention)
        fields["rotary_scaling_factor"] = np.float32(rotation["factor"])
        fields["original_max_position_embeddings"] = np.int32(
            rotation["original_max_position_embeddings"]
        )


def _gguf_option(source: _Source) -> dict[str, str]:
    return {"gguf_file": source.gguf.name} if source.gguf else {}


def _load_tokenizer(source: _Source) -> Any:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source.directory, trust_remote_code=False, **_gguf_option(source)
        )
    except Exception as error:  # any reason is the same news: there is no usable tokenizer
        raise ModelUnsupported(
            f"{source.name!r} has no tokenizer that can be read; put its tokenizer.json beside the "
            f"weights ({str(error).strip().splitlines()[0] if str(error).strip() else error!r})."
        ) from error
    if not tokenizer.is_fast:
        raise ModelUnsupported(
            f"{source.name!r} has a tokenizer without a fast form; add a tokenizer.json to it."
        )
    if source.gguf:
        _restore_splitting(tokenizer, source.gguf)
    return tokenizer


def _restore_splitting(tokenizer: Any, gguf: Path) -> None:
    """Give a byte-level tokenizer from GGUF the splitting rule that the file names.

    `transformers` knows the rules of some names and gives all others GPT-2's, under which numbers
    behind white space become other tokens than those the model was trained on.
    """
    from tokenizers import pre_tokenizers

    if not isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        return
    rule = _gguf_text(gguf, "tokenizer.ggml.pre")
    if rule in _DIGIT_SPLITTING:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif rule not in _GPT2_SPLITTING:
        raise ModelUnsupported(
            f"The tokenizer of {gguf.name!r} splits text in a way that is not known here "
            f"({rule or 'unnamed'}); convert the model's Hugging Face directory instead."
        )


def _gguf_text(gguf: Path, key: str) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get(key)
    return str(field.contents()) if field else None


def _end_token_ids(model: Any) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    ids = getattr(generation, "eos_token_id", None)
    if ids is None:
        ids = model.config.eos_token_id
    return tuple(ids) if isinstance(ids, list) else (() if ids is None else (ids,))


def _merged(model: Any, adapter: Path) -> Any:
    """Return the model with a LoRA adapter's weights added to its own."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    logger.info("Merging %s", adapter.name, extra={"action": "convert_merging"})
    problem = f"Adapter {adapter.name!r} does not fit this model; was it trained on another base?"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of (missing keys) is checked below
            tuned = PeftModel.from_pretrained(model, adapter)
        with safe_open(_adapter_weights(adapter), framework="pt") as file:
            saved = set(file.keys())
        used = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
        if saved != used:
            raise ModelUnsupported(f"{problem} ({len(saved ^ used)} of its weights have no place.)")
        return tuned.merge_and_unload(safe_merge=True)
    except ModelUnsupported:
        raise
    except Exception as error:  # size mismatches, unknown modules, kinds that cannot be merged
        detail = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelUnsupported(f"{problem} ({detail[-1] if detail else error!r})") from error


def _prove_loadable(model_dir: Path, kind: ModelKind) -> None:
    import ctranslate2

    opener = ctranslate2.Generator if kind == "generator" else ctranslate2.Encoder
    opener(str(model_dir), device="cpu", compute_type="default")


def _licence(source: _Source) -> str | None:
    if source.gguf:
        return _gguf_text(source.gguf, "general.license")
    return licence_of_card(source.directory)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `engine convert`."""
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="Hugging Face directory or .gguf file"
    )
    parser.add_argument("--out", type=Path, required=True, help="model directory to create")
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, default="int8", help="default: %(default)s"
    )
    parser.add_argument("--adapter", type=Path, help="PEFT directory of a LoRA adapter to merge")
    parser.add_argument("--name", help="the model's name (default: the name of --out)")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")


def run(arguments: argparse.Namespace, *, home: Path) -> None:
    """Run `engine convert`; raises what `convert` raises. Its paths do not depend on `home`."""
    convert(
        arguments.source,
        out=arguments.out,
        quantization=arguments.quantization,
        adapter=arguments.adapter,
        name=arguments.name,
        force=arguments.force,
    )
