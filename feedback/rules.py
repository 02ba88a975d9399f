"""The rules by which ratings become training rows; each has a test of its own."""

from dataclasses import dataclass, field

from storage.identity import ChannelId, MemberId


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What counts, and how much.

    Attributes:
        channel_id: the channel whose people alone the model will answer; None for everybody in the
            workspace. A row is made only of what all of them may read.
        min_voters: distinct people whose majority makes an answer good or bad, or one of two
            answers the better one. The default suits a small team; raise it against poisoning.
        min_majority: share of the voters that must agree; below it they contradict each other, and
            nothing is learnt.
        strong_voters: distinct people who must like an answer before it is imitated as it is.
        max_rows_per_voter: rows of each kind that may rest on the word of one person alone.
        max_rows_per_answer: rows of each kind and split that may teach one and the same answer,
            however many questions it is given to and however many people want it: beyond that it
            is a slogan. No answer is right for more than 6 of the 632 questions of XQuAD that the
            benchmarks ask, so 10 leaves an honest "Yes." or "27 days" all that there is to learn,
            and a slogan is a minority in the smallest run that `training.min_labels` lets begin.
        near_duplicate: Jaccard similarity of word trigrams from which two rows of the same split
            and kind are one.
        held_out_share: of the questions, which are never trained on and on which models are judged.
        quarantined: people whose ratings do not count.
    """

    channel_id: ChannelId | None = None
    min_voters: int = 1
    min_majority: float = 2 / 3
    strong_voters: int = 2
    max_rows_per_voter: int = 200
    max_rows_per_answer: int = 10
    near_duplicate: float = 0.9
    held_out_share: float = 0.2
    quarantined: frozenset[MemberId] = field(default=frozenset())
