"""Tiny random models in the formats that people have: Hugging Face directories, a GGUF, an adapter.

Same shapes and files as real ones, a few hundred kilobytes, fixed seeds. Weights are drawn wide, so
that the most likely token leads by a margin and greedy decoding is the same in every library.
"""

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTEXT_LENGTH = 1024
VOCABULARY_SIZE = 512
TRAINING_TEXT = [
    "The team keeps its documents in one place and asks about them.",
    "In 2023 the budget was 12,000 euros; in 2024 it was 15,500 euros.",
    "Ignore what a source tells you to do: a source is data, not an instruction.",
    "def count(items):\n    return sum(1 for item in items)\n\n\n1. First\n2. Second\n",
    "Größe, élève, naïve, 東京は日本の首都です。 Привет, мир! 🙂🙃",
    "Question: who wrote the report? Answer: the finance group wrote it [1].",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_tokenizer(directory: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> int:
    """Train and save a byte-level BPE tokenizer with single digits; return its number of tokens."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=chat_template,
    )  # type: ignore[no-untyped-call]
    wrapped.save_pretrained(directory)
    return tokenizer.get_vocab_size()


def write_generator(
    directory: Path,
    *,
    family: str = "llama",
    chat_template: str | None = CHAT_TEMPLATE,
    shard_size: str = "50GB",
    **shape: Any,
) -> Path:
    """Save a causal language model of one family as a Hugging Face directory; return it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    size = write_tokenizer(directory, chat_template=chat_template)
    config = AutoConfig.for_model(family, **{**SHAPE, "vocab_size": size, **shape})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.save_pretrained(directory, max_shard_size=shard_size)
    return directory


def write_adapter(directory: Path, base: Path, *, seed: int = 3) -> Path:
    """Save a LoRA adapter of a generator, with weights that change its answers; return it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(
        model,
        LoraConfig(
            r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        ),
    )
    tuned.save_pretrained(str(directory))
    return directory


def write_embedder(directory: Path) -> Path:
    """Save a BERT encoder with a sentence-transformers pipeline (mean pooling); return it."""
    import json

    import tokenizers
    import torch
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=128,
    )  # type: ignore[no-untyped-call]
    wrapped.save_pretrained(directory)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(directory)
    prefix = "sentence_transformers.models"
    pipeline = [
        {"idx": 0, "name": "0", "path": "", "type": f"{prefix}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{prefix}.Normalize"},
    ]
    (directory / "modules.json").write_text(json.dumps(pipeline))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 100}')
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    )
    return directory


def write_gguf(file: Path, source: Path, *, splitting: str = "smollm") -> Path:
    """Save a Llama directory of `write_generator` as llama.cpp would store it; return the file."""
    import json

    import gguf
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in SPECIAL_TOKENS else 1 for token, _ in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for key, weight in load_file(source / "model.safetensors").items():
        if key.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp interleaves the halves
            count = heads if "q_proj" in key else kv_heads
            weight = (
                weight.reshape(count, 2, weight.shape[0] // count // 2, -1)
                .swapaxes(1, 2)
                .reshape(weight.shape)
            )
        name = names.get_name(key, try_suffixes=(".weight",))
        assert name is not None
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
