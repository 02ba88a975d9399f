"""Taking votes, comparisons, corrections and calls for help from any surface."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

from feedback.fair_battles import fair
from feedback.rankings import Leaderboard, leaderboard
from storage.curations import Curation, Curations
from storage.identity import AnswerId, Audience, ChannelId, MemberId, MessageId, WorkspaceId
from storage.pool import Pool
from storage.ratings import (
    Battle,
    ComparedPlace,
    ComparisonId,
    ComparisonOutcome,
    MyVote,
    Ratings,
    VoteOutcome,
    Winner,
)

REASONS = ("wrong", "incomplete", "not in the sources", "outdated", "too long", "other")
"""What may be named as the reason of a down-vote."""
MAX_TEXT_CHARACTERS = 20_000
"""Of a comment or a correction; more than any surface's field takes. The rest is cut off."""
MAX_VOTER_WEIGHT = 50.0
"""What one person's comparisons count as at the most, in votes, however many they are."""


class Feedback:
    """What people do with an answer.

    In every method `audience` is who acts and where, as the surface derived it from the click, not
    from the button; ids that this audience may not read raise `MessageNotFound`.
    """

    def __init__(self, pool: Pool) -> None:
        self._ratings = Ratings(pool)
        self._curations = Curations(pool)

    async def vote(
        self,
        *,
        answer_id: AnswerId,
        audience: Audience,
        value: Literal[-1, 1] | None,
        reasons: Sequence[str] = (),
        comment: str | None = None,
    ) -> VoteOutcome:
        """Store, change or withdraw the acting person's one vote on an answer.

        Args:
            value: None withdraws.
            reasons: of `REASONS`. The same vote without reasons and comment keeps earlier ones.
            comment: free text.

        Returns:
            "unchanged" also where there is nothing to withdraw.

        Raises:
            MessageNotFound: no such answer for this audience.
            ValueError: an unknown reason, or an audience without a person.
            StorageUnavailable: nothing was stored; safe to retry.
        """
        if unknown := set(reasons) - set(REASONS):
            raise ValueError(f"unknown reasons for a vote: {sorted(unknown)}")
        member_id = _voter(audience)
        if value is None:
            return await self._ratings.withdraw_vote(
                answer_id=answer_id, audience=audience, member_id=member_id
            )
        return await self._ratings.vote(
            answer_id=answer_id,
            audience=audience,
            member_id=member_id,
            value=value,
            reasons=[reason for reason in REASONS if reason in reasons],
            comment=_text(comment) or None,
        )

    async def correct(self, *, answer_id: AnswerId, audience: Audience, text: str) -> None:
        """Store the better answer that the acting person wrote, in place of an earlier one.

        Raises:
            MessageNotFound: no such answer for this audience.
            ValueError: an empty text, or an audience without a person.
            StorageUnavailable: nothing was stored; safe to retry.
        """
        if not (better := _text(text)):
            raise ValueError("an empty text corrects nothing")
        await self._ratings.correct(
            answer_id=answer_id, audience=audience, member_id=_voter(audience), text=better
        )

    async def open_comparison(
        self,
        *,
        message_id: MessageId,
        audience: Audience,
        answers: tuple[AnswerId, AnswerId],
        shown_order: tuple[int, int],
    ) -> ComparisonId:
        """Store how two answers to a question are shown, before anybody can judge them.

        A question is compared once: opening it again changes nothing.

        Args:
            answers: in the order of the models.
            shown_order: indices into `answers`, the left one first.

        Raises:
            MessageNotFound: not both of these answers to this question for this audience.
            ValueError: `shown_order` is no order of two.
            StorageUnavailable: nothing was stored; safe to retry.
        """
        if sorted(shown_order) != [0, 1]:
            raise ValueError(f"not an order of two answers: {shown_order}")
        left, right = (answers[index] for index in shown_order)
        return await self._ratings.open_comparison(
            message_id=message_id, audience=audience, left=left, right=right
        )

    async def compare(
        self, *, comparison_id: ComparisonId, audience: Audience, winner: Winner
    ) -> ComparisonOutcome:
        """Store the acting person's one judgement, and say which models stood there.

        The answer that more people prefer becomes the question's answer.

        Raises:
            MessageNotFound: no such comparison for this audience.
            ValueError: an audience without a person.
            StorageUnavailable: nothing was stored; safe to retry.
        """
        return await self._ratings.compare(
            comparison_id=comparison_id,
            audience=audience,
            member_id=_voter(audience),
            winner=winner,
        )

    async def need_human(self, *, answer_id: AnswerId, audience: Audience) -> bool:
        """Note that the acting person calls people for an answer.

        Returns:
            Whether they are to be called now; False where they were before.

        Raises:
            MessageNotFound: no such answer for this audience.
            ValueError: an audience without a person.
            StorageUnavailable: nothing was stored; safe to retry.
        """
        return await self._ratings.call_for_help(
            answer_id=answer_id, audience=audience, member_id=_voter(audience)
        )

    async def mine(self, *, audience: Audience, limit: int) -> list[MyVote]:
        """The acting person's votes in the workspace, the newest first; only for their eyes."""
        return await self._ratings.mine(
            workspace_id=audience.workspace_id, member_id=_voter(audience), limit=limit
        )

    async def ranking(
        self, *, workspace_id: WorkspaceId, channel_id: ChannelId | None = None
    ) -> Leaderboard:
        """How the models fare in the workspace's comparisons, or in one channel's.

        What curators decide of a comparison counts in place of its votes.

        Raises:
            StorageUnavailable: safe to retry.
        """
        battles = await self._ratings.battles(workspace_id=workspace_id, channel_id=channel_id)
        curations = await self._curations.of_comparisons(workspace_id)
        return await asyncio.to_thread(_ranked, battles, curations)

    async def compared_places(self) -> list[ComparedPlace]:
        """The channels, of all workspaces, that have a ranking of their own.

        Raises:
            StorageUnavailable: safe to retry.
        """
        return await self._ratings.compared_places()


def _ranked(
    battles: Sequence[Battle], curations: Mapping[ComparisonId, Sequence[Curation]]
) -> Leaderboard:
    """Leave out what may not count, and fit the rest; some tenths of a second of work."""
    counted, left_out = fair(battles, curations)
    return leaderboard(counted, max_weight=MAX_VOTER_WEIGHT, excluded=left_out)


def _voter(audience: Audience) -> MemberId:
    if audience.member_id is None:
        raise ValueError("only a person gives feedback")
    return audience.member_id


def _text(text: str | None) -> str:
    """What Postgres can store of a text, of bounded length."""
    return (text or "").replace("\0", " ").strip()[:MAX_TEXT_CHARACTERS]
