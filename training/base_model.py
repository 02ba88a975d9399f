"""The model that is trained on: its weights, with an adapter, and how it reads a chat.

Prompts are made by the engine's own code from the base's manifest, so training sees the very tokens
that serving will.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import EngineError
from engine.manifest import Manifest
from engine.prompt import ChatMessage, prompt_tokens
from engine.pull import fetch_original
from engine.tokenizer import Tokenizer
from training.errors import BaseUnusable
from training.recipes import FLOAT32, LoraSettings, Precision, StageRecipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

REFERENCE: Final = "ref"
"""Name of the frozen adapter beside the one that learns; TRL's online trainer looks for it."""
_FUSED_ATTENTION: Final = "scaled_dot_product_attention"
"""What transformers names where it refuses a model, such as Gemma 2, its fast attention."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a served model turns messages into token ids."""

    manifest: Manifest
    tokenizer: Tokenizer

    @classmethod
    def of(cls, directory: Path) -> "Reader":
        """The reader of a model directory.

        Raises:
            ModelCorrupt: the directory is none.
        """
        manifest = Manifest.read(directory, verify=False)
        return cls(manifest=manifest, tokenizer=Tokenizer.read(directory / manifest.tokenizer))

    def prompt_tokens(self, messages: Sequence[ChatMessage]) -> list[str]:
        """The tokens of a chat, up to where the answer begins.

        Raises:
            InvalidRequest: the model's template refuses the messages.
        """
        return prompt_tokens(messages, manifest=self.manifest, tokenizer=self.tokenizer)

    def answer_tokens(self, text: str) -> list[str]:
        """The tokens of an answer, its end included: a model that never learns it has no end."""
        return [*self.tokenizer.encode(self.tokenizer.as_data(text)), self._ends[0]]

    @property
    def _ends(self) -> tuple[str, ...]:
        return self.manifest.stop_tokens or (self.manifest.eos_token or "",)

    @property
    def ends(self) -> list[int]:
        """The ids that end an answer, as the engine stops at them."""
        return self.tokenizer.ids(self._ends)

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """The ids of `prompt_tokens`."""
        return self.tokenizer.ids(self.prompt_tokens(messages))

    def answer(self, text: str) -> list[int]:
        """The ids of `answer_tokens`."""
        return self.tokenizer.ids(self.answer_tokens(text))


def base_weights(base: Path, *, home: Path) -> Path:
    """The Hugging Face directory of a served model's weights, fetched and kept where it is missing.

    Args:
        base: the model's directory, as the engine serves it.
        home: state folder; the weights are kept in `<home>/bases/<name>`.

    Raises:
        BaseUnusable: they cannot be had; the text says what to do.
    """
    try:
        manifest = Manifest.read(base, verify=False)
        return fetch_original(
            manifest.source,
            out=home / "bases" / manifest.name,
            downloads_dir=home / "downloads",
        )
    except EngineError as error:
        raise BaseUnusable(f"The weights to train on are missing: {error}") from error


def load_tokenizer(weights: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer, as TRL's trainers want one; a pad token is made of the end where none is."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(weights)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    weights: Path,
    *,
    lora: LoraSettings,
    precision: Precision = FLOAT32,
    adapter: Path | None = None,
    seed: int = 17,
) -> "PeftModel":
    """The base with a trainable adapter; the base's own weights never change.

    Args:
        weights: from `base_weights`.
        precision: of the base; a stage's recipe is one.
        adapter: PEFT directory to go on from; None = a new adapter, which changes nothing yet.
        seed: of a new adapter's first weights.

    Raises:
        BaseUnusable: the weights cannot be loaded, or the adapter does not fit them.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    base = load_base(weights, precision=precision)
    torch.manual_seed(seed)
    try:
        if adapter is not None:
            return PeftModel.from_pretrained(base, adapter, is_trainable=True)
        config = LoraConfig(task_type="CAUSAL_LM", **lora_fields(lora))
        policy: PeftModel = get_peft_model(base, config)
    except (ValueError, OSError, RuntimeError) as error:
        raise BaseUnusable(f"The adapter does not fit {weights.name}: {error}") from error
    return policy


def hold_on_to(policy: Any, reference: Path | None) -> None:
    """Put the adapter of a reference beside the one that learns, in the place of any before.

    It shares the base's weights, of which there is no second copy. TRL's online trainer takes it
    for its reference, and the base where there is none.

    Args:
        reference: PEFT directory; None = the base, which needs none.
    """
    if REFERENCE in policy.peft_config:
        policy.delete_adapter(REFERENCE)
    if reference is not None:
        policy.load_adapter(reference, REFERENCE)


@contextmanager
def being(policy: Any, reference: Path | None) -> Iterator[None]:
    """Let a policy answer as its reference does.

    Args:
        reference: as for `hold_on_to`.
    """
    from trl.trainer.utils import use_adapter

    with answering(policy):
        hold_on_to(policy, reference)
        try:
            with use_adapter(policy, None if reference is None else REFERENCE):
                yield
        finally:
            hold_on_to(policy, None)


def load_base(
    weights: Path,
    *,
    precision: Precision = FLOAT32,
    model_class: str = "AutoModelForCausalLM",
    **options: Any,
) -> "PreTrainedModel":
    """The base's weights, frozen, on the GPU where there is one.

    8-bit and 4-bit ones are made by bitsandbytes.

    Args:
        model_class: of transformers' `Auto…` classes.
        options: further ones of its `from_pretrained`.

    Raises:
        BaseUnusable: they cannot be loaded.
    """
    import torch
    import transformers

    from training.frozen_linear import freeze_linear_layers

    options["trust_remote_code"] = False
    options["dtype"] = getattr(torch, precision.dtype)
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    quantized = precision.load_in_8bit or precision.load_in_4bit
    if quantized:
        options["quantization_config"] = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=precision.load_in_8bit,
            load_in_4bit=precision.load_in_4bit,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    loader = getattr(transformers, model_class)
    try:
        try:
            loaded = loader.from_pretrained(weights, attn_implementation="sdpa", **options)
        except ValueError as error:
            if _FUSED_ATTENTION not in str(error):
                raise
            loaded = loader.from_pretrained(weights, attn_implementation="eager", **options)
    except (ValueError, OSError, ImportError) as error:
        raise BaseUnusable(f"{weights} cannot be loaded: {error}") from error
    if quantized:
        from peft import prepare_model_for_kbit_training

        loaded = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            loaded, use_gradient_checkpointing=False
        )
    model: PreTrainedModel = loaded
    model.config.use_cache = False
    freeze_linear_layers(model)
    return model


def lora_fields(lora: LoraSettings) -> dict[str, Any]:
    """Arguments of `peft.LoraConfig`, without the task."""
    fields = lora.model_dump()
    if not isinstance(lora.target_modules, str):
        fields["target_modules"] = list(lora.target_modules)
    return fields


def new_trainer(trainer_class: Any, *, model: Any, **options: Any) -> Any:
    """One of TRL's trainers, around an adapter that stays as it was loaded, in float32.

    TRL turns adapters on 8-bit and 4-bit weights into bfloat16, which rounds the policy that a
    stage begins with and rounds away what small updates add. A checkpoint is read back in float32:
    a run that goes on would be another.
    """
    import torch

    loaded = [(each, each.data) for each in model.parameters() if each.requires_grad]
    trainer = trainer_class(model=model, **options)
    for parameter, data in loaded:
        parameter.data = data.to(parameter.device, torch.float32)
    return trainer


def as_trained(recipe: StageRecipe) -> AbstractContextManager[Any]:
    """Compute as a stage's trainer does, so that what is measured is what it trains."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=recipe.bf16)


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Let a model that learns only answer, without dropout or gradients kept for later.

    Layers of 8 and 4 bits stay as they are. Of those that do not train, bitsandbytes computes the
    first otherwise on a CPU. It repacks the others' weights on CPUs that have bfloat16, and
    repacked ones pass no gradient on when training goes on.
    """
    was_training = model.training
    model.eval()
    for layer in model.modules():
        if type(layer).__name__ in ("Linear8bitLt", "Linear4bit"):
            layer.training = True
    try:
        yield
    finally:
        model.train(was_training)
