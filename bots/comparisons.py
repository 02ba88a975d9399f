"""Comparisons: two answers side by side, blind, and whoever votes learns the models afterwards.

Why the order comes from the question's id: it is random, nobody chose it, and it is stored before
anything is shown. So a restart in the middle shows the same answer on the same side, and the votes
that come in mean the same thing.
"""

import hashlib
from typing import Literal

from feedback import ComparisonId, Feedback
from storage.identity import AnswerId, Audience, MessageId


def kind_for(share: float, message_ref: str) -> Literal["answer", "compare"]:
    """Whether a question becomes a comparison, given a channel's share of them, 0 to 1.

    The message's name decides, so that a redelivered question is decided the same way.
    """
    number = int.from_bytes(hashlib.sha256(message_ref.encode()).digest()[:8])
    return "compare" if number < share * 2**64 else "answer"


def order_of(message_id: MessageId) -> tuple[int, int]:
    """Which of the two answers stands left, and which right."""
    return (0, 1) if message_id.int % 2 == 0 else (1, 0)


async def open_shown(
    feedback: Feedback,
    *,
    message_id: MessageId,
    audience: Audience,
    answers: tuple[AnswerId, AnswerId],
) -> ComparisonId:
    """Store a comparison as it is shown, before anybody can vote; storing it again is no change.

    Args:
        answers: in the order of the models, not of the sides.
    """
    left, right = order_of(message_id)
    return await feedback.open_comparison(
        message_id=message_id,
        audience=audience,
        answers=answers,
        shown_order=(left, right),
    )
