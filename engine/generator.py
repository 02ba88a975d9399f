"""A CTranslate2 generator: tokens in, tokens out, in the calling thread.

Knows nothing of queues or HTTP; `engine.scheduler` decides what runs together, `engine.local_chat`
turns tokens into text.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import ctranslate2

from engine.batching import CostModel
from engine.cores import cores_for_prompts, use_cores
from engine.errors import ModelCorrupt, ModelUnsupported
from engine.manifest import Manifest
from engine.memory import release_free_memory
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

OnToken = Callable[[int, int, bool], bool]
"""Called in a CTranslate2 thread per new token: (index in the batch, token id, whether it is the
sequence's last); returning True ends that sequence."""

_WARM_UP_TOKENS = 32
_WARM_UP_TIMEOUT_S = 60.0

_seed_lock = threading.Lock()
_UNSEEDED = 2**32 - 1
"""CTranslate2's own value for "seed each thread from the system"."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How tokens are drawn: the part of a request that all sequences of one batch must share.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: in (0, 1].
    """

    temperature: float = 0.0
    top_p: float = 1.0

    @property
    def options(self) -> dict[str, float | int]:
        """Arguments of `generate_batch`."""
        if self.temperature == 0:
            return {"sampling_topk": 1}
        # top-k 0 = the whole vocabulary.
        return {
            "sampling_topk": 0,
            "sampling_topp": self.top_p,
            "sampling_temperature": self.temperature,
        }


def _listen_no_more(_index: int, _token: int, _last: bool) -> bool:
    return True


class Generator:
    """One loaded chat model; `generate` may be called from `replicas` threads at once.

    Why a seed gets a generator of its own: CTranslate2 seeds a thread's random numbers once, at
    that thread's first draw, so a seed can only be honoured by a thread that has never drawn.
    """

    def __init__(
        self,
        *,
        directory: Path,
        manifest: Manifest,
        tokenizer: Tokenizer,
        model: ctranslate2.Generator,
        prompt_cores: int = 1,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._model = model
        self._prompt_cores = prompt_cores
        self.cost = CostModel()
        self._end_tokens = list(manifest.stop_tokens or (manifest.eos_token,))

    @classmethod
    def load(cls, directory: Path, *, replicas: int) -> Self:
        """Check a model directory against its manifest, load it and run it once.

        Raises:
            ModelCorrupt: the directory does not match its manifest or CTranslate2 refuses it.
            ModelUnsupported: the model is not a generator.
        """
        manifest = Manifest.read(directory)
        if manifest.kind != "generator":
            raise ModelUnsupported(f"Model {manifest.name!r} is an {manifest.kind}, no chat model.")
        tokenizer = Tokenizer.read(directory / manifest.tokenizer)
        prompt_cores = cores_for_prompts(replicas)
        try:
            model = ctranslate2.Generator(
                str(directory), device="cpu", inter_threads=replicas, intra_threads=prompt_cores
            )
        except RuntimeError as error:
            raise ModelCorrupt(directory, str(error)) from error
        generator = cls(
            directory=directory,
            manifest=manifest,
            tokenizer=tokenizer,
            model=model,
            prompt_cores=prompt_cores,
        )
        generator._warm_up(replicas)
        release_free_memory()
        return generator

    def generate(
        self,
        prompts: Sequence[list[str]],
        *,
        max_tokens: int,
        draw: Draw,
        on_token: OnToken,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """Generate for several prompts together; returns when all have ended.

        Args:
            prompts: tokens, best of equal length: only the shortest length is read in parallel.
            max_tokens: most new tokens of any sequence.
            draw: shared by all.
            on_token: see `OnToken`; must not raise.
            crowded: asked at the end: whether more work waits for the thread that computed. If so,
                it reads its next prompt on one core, as its neighbours need theirs.
        """
        self._run(self._model, prompts, max_tokens, draw, on_token, crowded)

    def generate_seeded(
        self,
        prompt: list[str],
        *,
        max_tokens: int,
        draw: Draw,
        seed: int,
        on_token: OnToken,
    ) -> None:
        """Generate for one prompt with reproducible draws; one such call runs at a time.

        Loads the weights a second time for as long as it runs (0.2 s and 140 MB for the default
        model).
        """
        with _seed_lock:
            model = ctranslate2.Generator(
                str(self.directory),
                device="cpu",
                inter_threads=1,
                intra_threads=self._prompt_cores,
            )

            def seeded(index: int, token: int, last: bool) -> bool:
                # The thread has drawn, so it is seeded; nobody else may be from here on.
                ctranslate2.set_random_seed(_UNSEEDED)
                return on_token(index, token, last)

            ctranslate2.set_random_seed(seed % _UNSEEDED)
            try:
                self._run(model, [prompt], max_tokens, draw, seeded, lambda: False)
            finally:
                ctranslate2.set_random_seed(_UNSEEDED)
                del model
                release_free_memory()

    def score(self, prompt: Sequence[str], answer: Sequence[str]) -> list[float]:
        """The log-probability of each token of an answer after a prompt, natural logarithm.

        Args:
            prompt: tokens, at least one.
            answer: tokens, its end included.
        """
        # Without the 0 the library cuts what is longer than 1,024 tokens and says nothing.
        (scores,) = self._model.score_batch([[*prompt, *answer]], max_input_length=0)
        scored = scores.log_probs
        return [float(each) for each in scored[len(scored) - len(answer) :]]

    def _run(
        self,
        model: ctranslate2.Generator,
        prompts: Sequence[list[str]],
        max_tokens: int,
        draw: Draw,
        on_token: OnToken,
        crowded: Callable[[], bool],
    ) -> None:
        running = len(prompts)
        prompt_read = False
        prompt_cores = self._prompt_cores

        def step(result: ctranslate2.GenerationStepResult) -> bool:
            nonlocal running, prompt_read
            if not prompt_read:
                prompt_read = True
                use_cores(1)
            ends = on_token(result.batch_id, result.token_id, result.is_last)
            running -= ends or result.is_last
            if not running:
                use_cores(1 if crowded() else prompt_cores)
            return ends

        try:
            model.generate_batch(
                list(prompts),
                max_length=max_tokens,
                end_token=self._end_tokens,
                include_prompt_in_result=False,
                callback=step,
                **draw.options,
            )
        finally:
            # CTranslate2's thread lets go of `step` a moment after this call's end. If that were
            # the last way to a model being unloaded, its thread would have to join itself: abort.
            on_token, crowded = _listen_no_more, bool

    def is_end(self, token_id: int) -> bool:
        """Whether a token ends an answer and is no part of its text."""
        return self.tokenizer.token_of(token_id) in self._end_tokens

    def _warm_up(self, replicas: int) -> None:
        """Run every replica once: first runs are slow, and first draws read the global seed."""
        everybody = threading.Barrier(replicas)

        def wait(_index: int, _token: int, _last: bool) -> bool:
            everybody.wait(_WARM_UP_TIMEOUT_S)  # so that no replica takes two turns
            return True

        prompt = [self._end_tokens[0] or ""] * _WARM_UP_TOKENS
        with _seed_lock:
            threads = [
                threading.Thread(
                    target=self.generate,
                    args=([prompt],),
                    kwargs={
                        "max_tokens": 1,
                        "draw": Draw(temperature=1.0),
                        "on_token": wait,
                    },
                )
                for _ in range(replicas)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
