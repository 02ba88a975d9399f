"""Several answers to one prompt, with the prompt computed once.

Preferences compare answers to the same prompt, and a prompt with its sources is ten times as long
as an answer. The answers stand behind the prompt in one row of tokens; each sees the prompt and
itself, at the positions that it would have alone. Models for which that is not the same (windows,
attention by distance), or which refuse it, are found by trying it, and compute each answer alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from training.base_model import answering
from training.cores import map_on_cores

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE: Final = 1e-3
"""Of results with float32's weights, shared or not."""
COARSE_TOLERANCE: Final = 0.1
"""With weights of 16 bits or fewer, which round differently wherever anything else differs."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A prompt and its answers, as ids; no part of them is empty.

    Attributes:
        question: whose groups are one observation; see `training.rows.question_of`.
    """

    prompt: list[int]
    answers: list[list[int]]
    question: str = ""

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))

    def inputs(self, device: Any) -> dict[str, "Tensor"]:
        """Arguments of a model's `forward`, one row of `len(self)` tokens."""
        import torch

        ids, owners, positions = (
            list(self.prompt),
            [0] * len(self.prompt),
            [*range(len(self.prompt))],
        )
        for number, answer in enumerate(self.answers, start=1):
            ids += answer
            owners += [number] * len(answer)
            positions += range(len(self.prompt), len(self.prompt) + len(answer))
        found = {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
        }
        if len(self.answers) > 1:
            owner = torch.tensor(owners, device=device)
            seen = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
            found["attention_mask"] = seen.tril()[None, None]
        return found

    def predicting(self) -> list[list[int]]:
        """For each answer, the places of the tokens that its tokens follow."""
        places, begin = [], len(self.prompt)
        for answer in self.answers:
            places.append([len(self.prompt) - 1, *range(begin, begin + len(answer) - 1)])
            begin += len(answer)
        return places

    def ends(self) -> list[int]:
        """For each answer, the place of its last token."""
        places = []
        last = len(self.prompt) - 1
        for answer in self.answers:
            last += len(answer)
            places.append(last)
        return places


Compute = Callable[[Group], "Sequence[Tensor]"]
"""Something of each answer of a group, a tensor each."""


def of_each_answer(compute: Compute, group: Group, *, shared: bool) -> "list[Tensor]":
    """What is computed of each answer, together or one at a time."""
    if shared:
        return list(compute(group))
    return [compute(Group(prompt=group.prompt, answers=[each]))[0] for each in group.answers]


def may_share(model: Any, compute: Compute, groups: Sequence[Group]) -> bool:
    """Whether answers that share a prompt get what they get alone; tried on the longest group.

    Args:
        model: that computes.
    """
    import torch

    groups = [each for each in groups if len(each.answers) > 1]
    if not groups:
        return False
    longest = max(groups, key=len)
    with torch.no_grad():
        alone = of_each_answer(compute, longest, shared=False)
        try:
            together = of_each_answer(compute, longest, shared=True)
        except Exception:  # models refuse a mask of their answers' own with whatever it breaks
            return False
    exact = all(each.dtype == torch.float32 for each in model.parameters())
    tolerance = TOLERANCE if exact else COARSE_TOLERANCE
    return all(
        torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        for ours, theirs in zip(together, alone, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """The log probabilities that a policy gives to answers, scored only where the answers are.

    Calling it is calling a model that TRL gave its fused head, so TRL's losses run on it unchanged.

    Attributes:
        shared: whether answers to one prompt are computed together; see `may_share`.
        temperature: that answers are drawn with; 1 = the model's own probabilities.
    """

    policy: Any
    shared: bool
    temperature: float = 1.0

    @classmethod
    def of(cls, policy: Any, groups: Sequence[Group], *, temperature: float = 1.0) -> "Scorer":
        """A scorer that shares prompts where the policy allows it."""
        alone = cls(policy=policy, shared=False, temperature=temperature)
        with answering(policy):
            shared = may_share(policy, alone.log_probs, groups)
        return cls(policy=policy, shared=shared, temperature=temperature)

    def _logits(self, group: Group) -> "list[Tensor]":
        """Of each answer, the vocabulary's scores: shape (tokens of the answer, vocabulary)."""
        import torch

        device = next(self.policy.parameters()).device
        places = group.predicting()
        wanted = sorted({place for each in places for place in each})
        found = self.policy(
            **group.inputs(device),
            logits_to_keep=torch.tensor(wanted, device=device),
            use_cache=False,
        ).logits[0]
        row_of = {place: row for row, place in enumerate(wanted)}
        return [
            found[[row_of[place] for place in each]].float() / self.temperature for each in places
        ]

    def log_probs(self, group: Group) -> "list[Tensor]":
        """Of each token of each answer, given what stands before it."""
        import torch

        return [
            logits.log_softmax(-1).gather(-1, torch.tensor(answer, device=logits.device)[:, None])[
                :, 0
            ]
            for logits, answer in zip(self._logits(group), group.answers, strict=True)
        ]

    def totals(self, groups: Sequence[Group]) -> list[list[float]]:
        """The log probability of each answer of each group, without training."""
        import torch

        def of(group: Group) -> list[float]:
            with torch.no_grad():
                found = of_each_answer(self.log_probs, group, shared=self.shared)
            return [float(each.sum()) for each in found]

        with answering(self.policy):
            return map_on_cores(self.policy, of, groups)

    def __call__(
        self, *, input_ids: "Tensor", attention_mask: "Tensor", labels: "Tensor", **_: Any
    ) -> Any:
        """Of each position of a padded batch, as `trl.trainer.utils.FusedCausalLMOutput` has it.

        Args:
            input_ids, attention_mask, labels: of shape (N, T); labels are -100 but for answers.

        Returns:
            Fields of shape (N, T - 1), zero where nothing is learnt.
        """
        import torch
        from trl.trainer.utils import FusedCausalLMOutput

        learnt = labels[:, 1:] != -100
        fields: dict[str, list[Tensor]] = {}
        for row, logits in enumerate(self._of_rows(input_ids, attention_mask, labels)):
            scores = logits.log_softmax(-1)
            detached = scores.detach()
            targets = labels[row, 1:][learnt[row]]
            found = {
                "log_probs": scores.gather(-1, targets[:, None])[:, 0],
                "entropy": -(detached.exp() * detached).sum(-1),
                "mean_logits": logits.detach().mean(-1),
                "is_top1": (detached.argmax(-1) == targets).float(),
            }
            for name, values in found.items():
                empty = torch.zeros(learnt.shape[1], device=values.device)
                fields.setdefault(name, []).append(empty.masked_scatter(learnt[row], values))
        whole = {name: torch.stack(rows) for name, rows in fields.items()}
        whole["is_top1"] = whole["is_top1"].bool()
        return FusedCausalLMOutput(**whole)

    def _of_rows(self, ids: "Tensor", mask: "Tensor", labels: "Tensor") -> "list[Tensor]":
        """Scores for each row's answer; rows with one prompt are computed together."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        answers: list[list[int]] = []
        for row in range(len(ids)):
            is_answer = labels[row] != -100
            is_prompt = mask[row].bool() & ~is_answer
            rows_of.setdefault(tuple(ids[row][is_prompt].tolist()), []).append(row)
            answers.append(ids[row][is_answer].tolist())
        groups = [
            Group(prompt=list(prompt), answers=[answers[row] for row in rows])
            for prompt, rows in rows_of.items()
        ]
        found: dict[int, Tensor] = {}
        for rows, logits in zip(rows_of.values(), self._of_groups(groups), strict=True):
            found.update(zip(rows, logits, strict=True))
        return [found[row] for row in range(len(ids))]

    def _of_groups(self, groups: Sequence[Group]) -> "list[list[Tensor]]":
        """Scores for each group's answers; without gradients, groups are computed at once."""
        import torch

        def of(group: Group) -> "list[Tensor]":
            return of_each_answer(self._logits, group, shared=self.shared)

        if torch.is_grad_enabled():
            return [of(group) for group in groups]
        return map_on_cores(self.policy, torch.no_grad()(of), groups)
