import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest

from engine.convert import convert
from engine.errors import ConversionFailed, ModelCorrupt, ModelUnsupported
from engine.manifest import Manifest, file_sha256
from engine.prompt import ChatMessage, render_chat
from engine.tokenizer import Tokenizer
from tests.engine import tiny_models

# What peft says while it looks at a model.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CHAT = [ChatMessage(role="user", content="What was the budget in 2023?")]
NEW_TOKENS = 24
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "llama, far rotation": {
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    },
    "llama, tied and biased": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
    "llama, 3.1": {
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,  # as short as an answer, which then tells
        },
    },
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "gemma": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,  # CTranslate2 does not cap the scores of wider attention
    },
    "gpt_neox": {},
    "falcon": {"ffn_hidden_size": 128},
    "falcon, several groups of keys": {
        "ffn_hidden_size": 128,
        "new_decoder_architecture": True,
        "multi_query": True,
        "num_kv_heads": 2,
        "num_ln_in_parallel_attn": 2,
    },
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face directory of a tiny Llama. Copy it before changing it."""
    return tiny_models.write_generator(
        tmp_path_factory.mktemp("llama") / "tiny-llama", num_key_value_heads=2
    )


@pytest.fixture
def source(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "source"))


@pytest.fixture(scope="module")
def gguf(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", llama)


def _edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def _answer(model_dir: Path) -> list[int]:
    """Ids that a converted model answers `CHAT` with, greedily, as the engine asks it."""
    manifest = Manifest.read(model_dir)
    assert manifest.chat_template is not None
    prompt = render_chat(
        manifest.chat_template, CHAT, bos_token=manifest.bos_token, eos_token=manifest.eos_token
    )
    generator = ctranslate2.Generator(str(model_dir), device="cpu")
    (result,) = generator.generate_batch(
        [Tokenizer.read(model_dir / "tokenizer.json").encode(prompt)],
        max_length=NEW_TOKENS,
        sampling_topk=1,
        include_prompt_in_result=False,
        end_token=list(manifest.stop_tokens),
    )
    return list(result.sequences_ids[0])


def _expected_answer(model: Any, tokenizer: Any) -> list[int]:
    """The same from `transformers`."""
    plain = [{"role": message.role, "content": message.content} for message in CHAT]
    prompt = tokenizer.apply_chat_template(
        plain, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(
        **prompt, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=2, pad_token_id=0
    )
    ids: list[int] = output[0, prompt["input_ids"].shape[1] :].tolist()
    return ids[:-1] if ids[-1] == 2 else ids


def _reference(source: Path, adapter: Path | None = None) -> list[int]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    return _expected_answer(model, AutoTokenizer.from_pretrained(source))


@pytest.mark.parametrize("family", FAMILIES)
def test_converted_model_answers_as_transformers_does(family: str, tmp_path: Path) -> None:
    source = tiny_models.write_generator(
        tmp_path / "source", family=family.partition(",")[0], **FAMILIES[family]
    )
    convert(source, out=tmp_path / "model", quantization="float32")
    answer = _answer(tmp_path / "model")
    assert len(answer) > 4
    assert answer == _reference(source)


def test_manifest_tells_what_the_model_is_and_came_from(llama: Path, tmp_path: Path) -> None:
    (card := llama / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny")
    written = convert(llama, out=tmp_path / "tiny-chat")
    card.unlink()
    manifest = Manifest.read(tmp_path / "tiny-chat")
    assert manifest == written
    assert (manifest.name, manifest.kind, manifest.base) == ("tiny-chat", "generator", "tiny-llama")
    assert (manifest.architecture, manifest.quantization) == ("LlamaForCausalLM", "int8")
    assert manifest.context_length == tiny_models.CONTEXT_LENGTH
    assert manifest.chat_template == tiny_models.CHAT_TEMPLATE
    assert (manifest.bos_token, manifest.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert manifest.stop_tokens == ("<|im_end|>", "<|endoftext|>")
    assert manifest.licence == "apache-2.0"
    (base,) = manifest.lineage
    assert (base.kind, base.source) == ("base", "tiny-llama")
    assert base.sha256 == file_sha256(llama / "model.safetensors")


@pytest.mark.parametrize("quantization", ["int8", "int8_float16", "int16", "bfloat16"])
def test_quantized_model_loads_and_answers(llama: Path, tmp_path: Path, quantization: str) -> None:
    manifest = convert(llama, out=tmp_path / "model", quantization=quantization)
    assert manifest.quantization == quantization
    assert len(_answer(tmp_path / "model")) > 4


def test_sharded_weights_convert_to_the_same_model(llama: Path, tmp_path: Path) -> None:
    source = tiny_models.write_generator(
        tmp_path / "sharded", num_key_value_heads=2, shard_size="100KB"
    )
    assert len(list(source.glob("*.safetensors"))) > 1
    convert(source, out=tmp_path / "from-shards")
    convert(llama, out=tmp_path / "from-one")
    weights = [file_sha256(tmp_path / name / "model.bin") for name in ("from-shards", "from-one")]
    assert weights[0] == weights[1]


def test_turn_end_stops_a_model_that_names_only_its_document_end(
    source: Path, tmp_path: Path
) -> None:
    _edit(source / "tokenizer_config.json", eos_token="<|endoftext|>")
    _edit(source / "generation_config.json", eos_token_id=[0])
    manifest = convert(source, out=tmp_path / "model")
    assert manifest.stop_tokens == ("<|im_end|>", "<|endoftext|>")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["eos_token"] == "<|im_end|>"


def test_model_without_template_gets_plain_turns_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tiny_models.write_generator(tmp_path / "source", chat_template=None)
    manifest = convert(source, out=tmp_path / "model")
    assert "has no chat template" in caplog.text
    assert manifest.chat_template is not None
    assert render_chat(manifest.chat_template, CHAT) == (
        "User: What was the budget in 2023?\n\nAssistant:"
    )


# Adapters


def test_adapter_is_merged_into_its_base(llama: Path, tmp_path: Path) -> None:
    adapter = tiny_models.write_adapter(tmp_path / "adapter", llama)
    manifest = convert(llama, out=tmp_path / "tuned", adapter=adapter, quantization="float32")
    answer = _answer(tmp_path / "tuned")
    assert answer == _reference(llama, adapter)
    assert answer != _reference(llama)
    assert [(item.kind, item.source) for item in manifest.lineage] == [
        ("base", "tiny-llama"),
        ("adapter", "adapter"),
    ]
    merged = file_sha256(adapter / "adapter_model.safetensors")
    assert manifest.lineage[1].sha256 == merged
    weights = file_sha256(tmp_path / "tuned" / "model.bin")
    assert manifest.fingerprint == f"float32-{weights[:16]}-{merged[:16]}"


@pytest.mark.parametrize("shape", [{"hidden_size": 32}, {"num_hidden_layers": 3}])
def test_adapter_of_another_base_is_refused(
    llama: Path, tmp_path: Path, shape: dict[str, Any]
) -> None:
    other = tiny_models.write_generator(tmp_path / "other", num_key_value_heads=2, **shape)
    adapter = tiny_models.write_adapter(tmp_path / "adapter", other)
    with pytest.raises(ModelUnsupported, match="was it trained on another base"):
        convert(llama, out=tmp_path / "model", adapter=adapter)
    assert not (tmp_path / "model").exists()


def test_directory_that_is_no_adapter_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"needs adapter_config\.json"):
        convert(llama, out=tmp_path / "model", adapter=tmp_path)


# GGUF


@pytest.mark.parametrize("whole_directory", [True, False])
def test_gguf_answers_as_the_model_it_was_made_from(
    llama: Path, gguf: Path, tmp_path: Path, whole_directory: bool
) -> None:
    source = gguf.parent if whole_directory else gguf
    manifest = convert(source, out=tmp_path / "model", quantization="float32")
    assert _answer(tmp_path / "model") == _reference(llama)
    assert manifest.chat_template == tiny_models.CHAT_TEMPLATE
    assert manifest.stop_tokens == ("<|im_end|>", "<|endoftext|>")
    assert manifest.context_length == tiny_models.CONTEXT_LENGTH
    assert manifest.licence == "apache-2.0"
    assert manifest.lineage[0].sha256 == file_sha256(gguf)


def test_gguf_tokenizer_splits_text_as_the_original_does(
    llama: Path, gguf: Path, tmp_path: Path
) -> None:
    convert(gguf, out=tmp_path / "model")
    converted = Tokenizer.read(tmp_path / "model" / "tokenizer.json")
    original = Tokenizer.read(llama / "tokenizer.json")
    texts = [*tiny_models.TRAINING_TEXT, " x", "\n\n1. a\n  22", "<|im_start|>user\n", "it's 5%"]
    assert [converted.encode(text) for text in texts] == [original.encode(text) for text in texts]
    assert converted.special_tokens == original.special_tokens


def test_gguf_with_unknown_splitting_is_refused(llama: Path, tmp_path: Path) -> None:
    file = tiny_models.write_gguf(tmp_path / "odd.gguf", llama, splitting="someday")
    with pytest.raises(ModelUnsupported, match=r"not known here \(someday\); convert the model's"):
        convert(file, out=tmp_path / "model")


@pytest.mark.parametrize("kept", [0, 3, 2000, 0.5, 0.999])
def test_truncated_gguf_is_refused(gguf: Path, tmp_path: Path, kept: float) -> None:
    data = gguf.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ModelUnsupported, match="'broken'"):
        convert(broken, out=tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


# Embedders


def test_embedder_keeps_its_vectors_and_its_limits(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertModel

    source = tiny_models.write_embedder(tmp_path / "source")
    manifest = convert(source, out=tmp_path / "model", quantization="float32")
    assert (manifest.kind, manifest.pooling, manifest.embedding_dim) == ("embedder", "mean", 64)
    assert manifest.context_length == 100
    text = "The team keeps its documents in one place."
    (ids,) = Tokenizer.read(tmp_path / "model" / "tokenizer.json").encode_passages(
        [text], max_tokens=manifest.context_length
    )
    encoder = ctranslate2.Encoder(str(tmp_path / "model"), device="cpu")
    found = np.array(encoder.forward_batch([ids]).last_hidden_state)[0].mean(axis=0)
    inputs = AutoTokenizer.from_pretrained(source)(text, return_tensors="pt")
    with torch.no_grad():
        hidden = BertModel.from_pretrained(source)(**inputs).last_hidden_state
    np.testing.assert_allclose(found, hidden[0].mean(dim=0).numpy(), atol=1e-4)


def test_embedder_with_another_head_is_refused(tmp_path: Path) -> None:
    source = tiny_models.write_embedder(tmp_path / "source")
    pipeline = json.loads((source / "modules.json").read_text())
    pipeline.append({"idx": 3, "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (source / "modules.json").write_text(json.dumps(pipeline))
    with pytest.raises(ModelUnsupported, match="ends in a Dense layer"):
        convert(source, out=tmp_path / "model")


# What cannot be converted


def test_unsupported_architecture_is_named(tmp_path: Path) -> None:
    from transformers import MambaConfig

    tiny_models.write_tokenizer(tmp_path / "source")
    MambaConfig(num_hidden_layers=1).save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnsupported, match="MambaConfig"):
        convert(tmp_path / "source", out=tmp_path / "model")


def test_sequence_to_sequence_model_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    from transformers import T5Config

    tiny_models.write_tokenizer(tmp_path / "source")
    T5Config().save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelUnsupported, match="neither a causal language model nor"):
        convert(tmp_path / "source", out=tmp_path / "model")


def test_code_that_comes_with_a_model_never_runs(source: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    (source / "configuration_evil.py").write_text(f"open({str(trace)!r}, 'w')\n")
    _edit(
        source / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "configuration_evil.EvilConfig"},
    )
    with pytest.raises(ModelUnsupported, match="'source'"):
        convert(source, out=tmp_path / "model")
    assert not trace.exists()


def test_missing_tokenizer_is_named(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(ModelUnsupported, match=r"no tokenizer.*put its tokenizer\.json"):
        convert(source, out=tmp_path / "model")


def test_tokenizer_whose_ids_are_not_the_model_s_is_refused(tmp_path: Path) -> None:
    source = tiny_models.write_generator(tmp_path / "source", vocab_size=600)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last] += 50  # a hole in the ids, over which the converter's list would close
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelUnsupported, match="belong to different models"):
        convert(source, out=tmp_path / "model")


def test_missing_weights_are_named(source: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(source / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnsupported, match=r"lacks 1 weights, among them .*up_proj"):
        convert(source, out=tmp_path / "model")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelUnsupported, match="no weights"):
        convert(source, out=tmp_path / "model")


def test_model_that_is_quantized_already_is_refused(source: Path, tmp_path: Path) -> None:
    _edit(source / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelUnsupported, match="convert the original, unquantized model"):
        convert(source, out=tmp_path / "model")


def test_broken_template_is_refused(tmp_path: Path) -> None:
    source = tiny_models.write_generator(tmp_path / "source", chat_template="{% for %}")
    with pytest.raises(ModelUnsupported, match="not valid Jinja"):
        convert(source, out=tmp_path / "model")


def test_nothing_to_convert_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match="neither a directory nor"):
        convert(tmp_path / "missing", out=tmp_path / "model")
    with pytest.raises(ModelUnsupported, match="name one Hugging Face directory or one GGUF"):
        convert(tmp_path, out=tmp_path / "model")


# The destination


def test_existing_directory_is_replaced_only_by_force(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "precious").touch()
    with pytest.raises(ConversionFailed, match="exists already"):
        convert(llama, out=out)
    assert (out / "precious").exists()
    convert(llama, out=out, force=True)
    assert Manifest.read(out).name == "model"
    assert not (out / "precious").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_conversion_leaves_the_old_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    with pytest.raises(ModelUnsupported):
        convert(tmp_path, out=out, force=True)
    Manifest.read(out)


def test_destination_that_cannot_be_written_is_one_sentence(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConversionFailed, match="cannot be written: Not a directory"):
        convert(llama, out=tmp_path / "file" / "model")


def test_killed_conversion_leaves_no_half_model(llama: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "model", tmp_path / ".model.partial"
    command = [sys.executable, "-m", "engine", "convert", str(llama), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(partial.glob("model/*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if out.exists():  # the kill came after the rename: then it must be whole
        Manifest.read(out)
    else:
        with pytest.raises(ModelCorrupt):
            Manifest.read(out)
    convert(llama, out=out, force=True)
    Manifest.read(out)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
