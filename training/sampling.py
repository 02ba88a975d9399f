"""Answers of a policy in training: a prompt is read once, however many answers are drawn to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How answers are drawn.

    Attributes:
        max_tokens: of an answer.
        ends: ids that end an answer, and belong to it.
        temperature: that the scores are divided by; None = the likeliest token each time.
    """

    max_tokens: int
    ends: Sequence[int]
    temperature: float | None


def draw(
    policy: Any, prompt: Sequence[int], drawing: Drawing, *, count: int, seed: int
) -> list[list[int]]:
    """So many answers to a prompt, as ids.

    Args:
        seed: of these answers alone; several calls at once do not disturb each other.
    """
    import torch

    device = next(policy.parameters()).device
    random = torch.Generator(device=device).manual_seed(seed)
    ends = torch.tensor(list(drawing.ends), device=device)
    answers: list[list[int]] = [[] for _ in range(count)]
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    with torch.no_grad():
        ids = torch.tensor([list(prompt)], device=device)
        read = policy(input_ids=ids, use_cache=True, logits_to_keep=1)
        read.past_key_values.batch_repeat_interleave(count)
        scores = read.logits[:, -1].expand(count, -1)
        for _ in range(drawing.max_tokens):
            if drawing.temperature is None:
                chosen = scores.argmax(-1)
            else:
                shares = (scores.float() / drawing.temperature).softmax(-1)
                chosen = torch.multinomial(shares, 1, generator=random)[:, 0]
            for answer, token, over in zip(answers, chosen.tolist(), ended.tolist(), strict=True):
                if not over:
                    answer.append(token)
            ended |= torch.isin(chosen, ends)
            if bool(ended.all()):
                break
            step = policy(
                input_ids=chosen[:, None],
                past_key_values=read.past_key_values,
                use_cache=True,
                logits_to_keep=1,
            )
            scores = step.logits[:, -1]
    return answers
