"""Online learning: the policy answers real prompts, and what the reward model likes gets likelier.

REINFORCE with the other answers to the same prompt as baseline (Ahmadian et al. 2024,
arxiv.org/abs/2402.14740). Rewards pay for the divergence from the policy that `sft` left, or from
the base where there was none, whichever stages stand between. A reward model can be fooled, most
often by length: a stage whose answers grow past the recipe's limit while they earn more ends there,
and says so.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

from training.base_model import (
    answering,
    as_trained,
    hold_on_to,
    load_policy,
    load_tokenizer,
    new_trainer,
)
from training.cores import add_gradients, map_on_cores
from training.errors import NotEnoughFeedback, TrainingError
from training.preferences import compared, once
from training.recipes import RlooRecipe
from training.reward import RewardModel
from training.rows import question_of, read_rows
from training.sampling import Drawing, draw
from training.shared_prompt import Group, Scorer
from training.stage import Stage, StageResult, arguments, train

MISSING_END_PENALTY: Final = 1.0
"""Taken from the reward of an answer that never ends: the reward model has seen none (Huang et al.
2024, "The N+ implementation details of RLHF with PPO", arxiv.org/abs/2403.17031)."""
WINDOW: Final = 5
"""Steps whose mean length and reward are compared."""
HELD_OUT_DRAWS: Final = 8
"""Answers to each held-out prompt, whose mean is what the policy earns there."""
_BASELINE_PROMPTS: Final = 8


def run(stage: Stage, recipe: RlooRecipe) -> StageResult:
    """Train the policy against the stage's reward model, on the snapshot's prompts.

    The held-out measure is `reward`, what the stage works for: the mean of what the reward model
    says of answers as they are drawn. Beside it stand `likeliest_reward`, of the answers that would
    be served, and `held_out_length`, which tells whether answers only grew.

    Raises:
        NotEnoughFeedback: there are fewer prompts that fit `max_length` than a step answers.
        BaseUnusable, RunCancelled, TrainingError: as their names say.
    """
    if stage.reward_model is None:
        raise TrainingError("Online learning needs a reward model: put a reward stage before it.")
    prompts = [prompt for prompt, _ in _prompts(stage, recipe, "train")]
    needed = _prompts_of_a_step(recipe)
    if len(prompts) < needed:
        raise NotEnoughFeedback(
            f"A step answers {needed} different questions, and {len(prompts)} fit max_length."
        )
    asked = _prompts(stage, recipe, "held_out")
    held_out = [prompt for prompt, _ in asked]
    policy = load_policy(
        stage.weights,
        lora=recipe.lora,
        precision=recipe,
        adapter=stage.policy,
        seed=recipe.seed,
    )
    loaded = RewardModel.load(stage.weights, stage.reward_model, precision=recipe)
    reward_model = loaded.sharing(_tried(prompts))
    judged = _Judged(stage=stage, recipe=recipe, reward_model=reward_model, policy=policy)
    some = prompts[:_BASELINE_PROMPTS]
    with as_trained(recipe):
        before = once(stage, "before", lambda: judged.measured(held_out))
        usual = once(stage, "usual_length", lambda: judged.usual_length(some))
    trainer = trainer_of(stage, recipe, judged, prompts)
    watch = length_watch(stage, limit=recipe.length_limit, usual_length=usual)
    trainer.add_callback(watch)
    train(trainer, stage)
    with as_trained(recipe):
        after = judged.measured(held_out)
    metrics = {"train_rows": float(len(prompts)), "held_out_rows": float(len(held_out))}
    questions = [question for _, question in asked]
    for name in ("reward", "likeliest_reward"):
        metrics |= compared(name, before[name], after[name], groups=questions)
    if held_out:
        metrics["held_out_length_before"] = statistics.fmean(before["length"])
        metrics["held_out_length"] = statistics.fmean(after["length"])
    metrics["ended_for_length"] = float(watch.ended)
    return stage.finish(trainer, rows=len(prompts), metrics=metrics)


def _answers_of_a_step(recipe: RlooRecipe) -> int:
    return recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps


def _prompts_of_a_step(recipe: RlooRecipe) -> int:
    return _answers_of_a_step(recipe) // recipe.num_generations


def _prompts(stage: Stage, recipe: RlooRecipe, split: Any) -> list[tuple[list[int], str]]:
    """Every prompt of the snapshot once, as it was served, as ids; each with its question."""
    found = {
        tuple(stage.reader.prompt(row.prompt)): question_of(row.prompt)
        for kind in ("sft", "preference", "unpaired")
        for row in read_rows(stage.snapshot, kind, split)
    }
    room = recipe.max_length - recipe.max_completion_length
    return sorted((list(prompt), each) for prompt, each in found.items() if len(prompt) <= room)


def _tried(prompts: list[list[int]]) -> list[Group]:
    """What tells whether answers may share a prompt: the longest one, with any answers."""
    longest = max(prompts, key=len)
    return [Group(prompt=longest, answers=[longest[-4:], longest[:4]])]


class _Judged:
    """Answers of the policy, and what the reward model says of them."""

    def __init__(
        self, *, stage: Stage, recipe: RlooRecipe, reward_model: RewardModel, policy: Any
    ) -> None:
        self.policy = policy
        self.ends = stage.reader.ends
        self._recipe = recipe
        self._reward_model = reward_model

    def drawn(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """One answer for each prompt; the same prompt several times gets several answers."""
        import torch

        counts: dict[tuple[int, ...], int] = {}
        for prompt in prompts:
            counts[tuple(prompt)] = counts.get(tuple(prompt), 0) + 1
        seeds = torch.randint(2**62, (len(counts),)).tolist()
        found = self._answers(
            [(*each, seed) for each, seed in zip(counts.items(), seeds, strict=True)],
            temperature=self._recipe.temperature,
        )
        answers = {prompt: iter(each) for prompt, each in zip(counts, found, strict=True)}
        return [next(answers[tuple(prompt)]) for prompt in prompts]

    def _answers(
        self, asked: Sequence[tuple[Sequence[int], int, int]], *, temperature: float | None
    ) -> list[list[list[int]]]:
        """Answers to each prompt.

        Args:
            asked: prompt, number of answers, and a seed of its own: answers do not depend on which
                core is faster.
        """
        drawing = Drawing(
            max_tokens=self._recipe.max_completion_length, ends=self.ends, temperature=temperature
        )
        with answering(self.policy):
            return map_on_cores(
                self.policy,
                lambda each: draw(self.policy, each[0], drawing, count=each[1], seed=each[2]),
                asked,
            )

    def rewards(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """What the reward model says, less the penalty of an answer without an end."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(tuple(prompt), []).append(place)
        groups = [
            Group(prompt=list(prompt), answers=[list(answers[place]) for place in each])
            for prompt, each in places.items()
        ]
        found = [0.0] * len(prompts)
        for each, rewards in zip(places.values(), self._reward_model.rewards(groups), strict=True):
            for place, reward in zip(each, rewards, strict=True):
                ended = answers[place][-1] in self.ends
                found[place] = reward - (0.0 if ended else MISSING_END_PENALTY)
        return found

    def measured(self, prompts: Sequence[Sequence[int]]) -> dict[str, list[float]]:
        """Of each prompt: mean reward and length of drawn answers, and the likeliest one's reward.

        The same seeds each time, so that what is compared differs by the policy alone.
        """
        asked = [(prompt, HELD_OUT_DRAWS, seed) for seed, prompt in enumerate(prompts)]
        drawn = self._answers(asked, temperature=self._recipe.temperature)
        likeliest = self._answers([(each, 1, 0) for each in prompts], temperature=None)
        answers = [[*first, *others] for first, others in zip(likeliest, drawn, strict=True)]
        size = 1 + HELD_OUT_DRAWS
        rewards = self.rewards(
            [prompt for prompt in prompts for _ in range(size)],
            [answer for each in answers for answer in each],
        )
        by_prompt = [rewards[start : start + size] for start in range(0, len(rewards), size)]
        return {
            "reward": [statistics.fmean(each[1:]) for each in by_prompt],
            "likeliest_reward": [each[0] for each in by_prompt],
            "length": [statistics.fmean(map(len, each)) for each in drawn],
        }

    def usual_length(self, prompts: Sequence[Sequence[int]]) -> float:
        """Mean tokens of the policy's answers as training draws them."""
        repeated = [prompt for prompt in prompts for _ in range(self._recipe.num_generations)]
        return statistics.fmean(map(len, self.drawn(repeated)))


def length_watch(stage: Stage, *, limit: float, usual_length: float) -> Any:
    """The callback that ends a stage whose answers grow while they earn more.

    Args:
        limit: of the ratio of mean lengths, over the last `WINDOW` steps.
        usual_length: tokens of an answer before training.
    """
    from transformers import TrainerCallback

    class LengthWatch(TrainerCallback):
        ended = False

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps = [each for each in state.log_history if "completions/mean_length" in each]
            if len(steps) < 2 * WINDOW or self.ended:
                return
            first, last = steps[:WINDOW], steps[-WINDOW:]
            length = statistics.fmean(each["completions/mean_length"] for each in last)
            earned = statistics.fmean(each["reward"] for each in last)
            begun = statistics.fmean(each["reward"] for each in first)
            if length > limit * usual_length and earned > begun:
                self.ended = control.should_training_stop = True
                stage.note(
                    f"Ended at step {state.global_step}: answers grew from {usual_length:.0f} to "
                    f"{length:.0f} tokens while they earned more, so the reward model is fooled."
                )

    return LengthWatch()


def whole_steps(count: int, *, of_a_step: int, answers: int, seed: int) -> Any:
    """The order in which an epoch asks: every prompt once, and some twice to fill its last step.

    TRL's leaves out the prompts that fill no step.

    Args:
        count: prompts, no fewer than those of a step.
        of_a_step: different prompts that a step answers.
        answers: to each prompt.
        seed: with the epoch's number it decides on the order, which a run that goes on in a later
            epoch has not drawn from the beginning.
    """
    import torch

    class WholeSteps(torch.utils.data.Sampler[int]):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return (count + -count % of_a_step) * answers

        def __iter__(self) -> Iterator[int]:
            order = torch.randperm(
                count, generator=torch.Generator().manual_seed(seed + self.epoch)
            )
            places = order.tolist() + order[: -count % of_a_step].tolist()
            return iter([place for place in places for _ in range(answers)])

    return WholeSteps()


def trainer_of(stage: Stage, recipe: RlooRecipe, judged: _Judged, prompts: list[list[int]]) -> Any:
    """TRL's RLOO trainer with our answers and log probabilities."""
    import torch
    from datasets import Dataset
    from trl.trainer.rloo_config import RLOOConfig
    from trl.trainer.rloo_trainer import RLOOTrainer

    # What is tried only has to be as long as it gets: any answers will do.
    sample = [Group(prompt=max(prompts, key=len), answers=[[end, end] for end in judged.ends * 2])]
    scorer = Scorer.of(judged.policy, sample, temperature=recipe.temperature)

    def reward_model(
        prompts: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float | None]:
        return [*judged.rewards(prompts, completion_ids)]

    class SharedPromptTrainer(RLOOTrainer):
        def _tokenize_prompts(self, prompts: Any) -> Any:
            return prompts, None, {}  # they are ids already

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return whole_steps(
                len(prompts),
                of_a_step=_prompts_of_a_step(recipe),
                answers=recipe.num_generations,
                seed=recipe.seed,
            )

        def _generate_single_turn(self, prompt_ids: Any, *others: Any) -> Any:
            if self.args.device.type != "cpu":
                return super()._generate_single_turn(  # type: ignore[no-untyped-call]
                    prompt_ids, *others
                )
            return judged.drawn(prompt_ids)

        def _get_per_token_logps_and_entropies(
            self,
            model: Any,
            input_ids: Any,
            attention_mask: Any,
            logits_to_keep: int,
            *_: Any,
            **__: Any,
        ) -> Any:
            labels = input_ids.masked_fill(attention_mask == 0, -100)
            labels[:, :-logits_to_keep] = -100
            with self.accelerator.autocast():
                found = scorer(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
            return found.log_probs[:, -logits_to_keep:], found.entropy[:, -logits_to_keep:], None

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            if self.args.device.type != "cpu":
                return super().training_step(  # type: ignore[no-untyped-call]
                    model, inputs, num_items_in_batch
                )
            model.train()
            inputs = self._prepare_inputs(inputs)
            parts = _by_prompt(inputs)
            count = len(inputs["advantages"])

            def loss_of(part: dict[str, Any]) -> Any:
                loss = self.compute_loss(model, part)
                return loss * len(part["advantages"]) / count

            loss = add_gradients(model, loss_of, parts)
            self._step += 1
            return loss

    def _by_prompt(batch: dict[str, Any]) -> list[dict[str, Any]]:
        _, owners = torch.unique(batch["prompt_ids"], dim=0, return_inverse=True)
        return [
            {key: values[owners == owner] for key, values in batch.items()}
            for owner in owners.unique()
        ]

    given = arguments(stage, recipe) | {
        # One batch holds a step's answers, so that those to one prompt stay together.
        "per_device_train_batch_size": _answers_of_a_step(recipe),
        "gradient_accumulation_steps": 1,
        "disable_dropout": True,
        "router_aux_loss_coef": 0.0,
    }
    trainer = new_trainer(
        SharedPromptTrainer,
        model=judged.policy,
        reward_funcs=[reward_model],
        args=RLOOConfig(
            **{key: given[key] for key in given.keys() - {"max_length", "length_limit"}}
        ),
        train_dataset=Dataset.from_list([{"prompt": list(prompt)} for prompt in prompts]),
        processing_class=load_tokenizer(stage.weights),
    )
    if stage.reference != stage.policy:
        # TRL made its reference of the policy that it was given.
        hold_on_to(judged.policy, stage.reference)
    trainer.eos_token_ids = judged.ends
    return trainer
