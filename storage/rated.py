"""What was rated, with all that made it: for curation, for training, for the ledger.

A record is read as it is now. Who rated is a member's id, which says nothing to anybody without the
database's keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.sql import SQL, Identifier

from storage.answers import OWN_WORDS, WEIGHTS
from storage.curations import WORDS, Curation, curation
from storage.identity import (
    AnswerId,
    ChannelId,
    ChunkId,
    DocumentId,
    MemberId,
    MessageId,
    WorkspaceId,
)
from storage.pool import Pool
from storage.ratings import ComparisonId, Winner

PAGE = 500
"""Records that are read at once."""

Readers = Literal["workspace", "open channel", "channel", "member"]
"""Whose a document is: the workspace's, a channel's that everybody there may read or that only some
may, a person's own."""


@dataclass(frozen=True, kw_only=True)
class RatedSource:
    """A chunk that the model was shown.

    Attributes:
        score: calibrated, 0 to 1.
        cited: whether the answer quotes it.
        readers: who may read its document.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    score: float
    cited: bool
    readers: Readers


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A person's vote; `consent`: whether it may train models."""

    voter: MemberId
    value: Literal[-1, 1]
    reasons: tuple[str, ...]
    comment: str | None
    consent: bool
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The better answer that a person wrote; `consent`: whether it may train models."""

    voter: MemberId
    text: str
    consent: bool
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A person's choice between two answers; `consent`: whether it may train models."""

    voter: MemberId
    winner: Winner
    consent: bool
    at: datetime


@dataclass(frozen=True, kw_only=True)
class RatedAnswer:
    """An answer with its ratings and everything that led to it.

    Attributes:
        channel_id: None in direct messages.
        open: whether everybody in the workspace may read the conversation.
        prompt: the messages that the model was served, history and excerpts included; None where
            no model was asked or a document that it quotes was deleted.
        params: how the model was asked, such as the temperature.
        current: whether it is the question's answer.
        called_for_help: whether somebody called people for it.
        curations: what curators say of it and have not taken back.
    """

    id: AnswerId
    message_id: MessageId
    workspace_id: WorkspaceId
    channel_id: ChannelId | None
    open: bool
    platform: str
    question: str
    prompt: tuple[Mapping[str, str], ...] | None
    text: str
    found: bool
    finish_reason: str
    model: str
    params: Mapping[str, Any]
    current: bool
    created_at: datetime
    sources: tuple[RatedSource, ...]
    votes: tuple[Vote, ...]
    corrections: tuple[Correction, ...]
    called_for_help: bool
    curations: tuple[Curation, ...] = ()

    @property
    def own_words(self) -> str:
        """What the model itself wrote; a passage that was quoted below it teaches no answer."""
        return self.text[: int(self.params.get(OWN_WORDS, len(self.text)))].strip()

    @property
    def weights(self) -> str:
        """The hash of the model's quantized weights; empty where the server named none."""
        return str(self.params.get(WEIGHTS, ""))


@dataclass(frozen=True, kw_only=True)
class RatedComparison:
    """Two answers to one question as they stood side by side, with everybody's choice.

    Attributes:
        curations: what curators say of it and have not taken back.
    """

    id: ComparisonId
    left: RatedAnswer
    right: RatedAnswer
    judgements: tuple[Judgement, ...]
    curations: tuple[Curation, ...] = ()


class Rated:
    """Reads rated answers and comparisons."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def answers(
        self,
        *,
        workspace_id: WorkspaceId,
        after: AnswerId | None = None,
        limit: int,
    ) -> list[RatedAnswer]:
        """The answers of a workspace that have a rating, in the order of their ids.

        Args:
            after: go on behind this one.
            limit: at most so many.

        Raises:
            StorageUnavailable: safe to retry.
        """
        condition = SQL(
            "t.workspace_id = %(workspace)s AND (%(after)s::uuid IS NULL OR a.id > %(after)s)"
            " AND (EXISTS (SELECT FROM votes WHERE answer_id = a.id)"
            " OR EXISTS (SELECT FROM corrections WHERE answer_id = a.id)"
            " OR EXISTS (SELECT FROM help_requests WHERE answer_id = a.id)"
            " OR EXISTS (SELECT FROM comparisons c JOIN comparison_votes v"
            " ON v.comparison_id = c.id WHERE a.id IN (c.left_answer, c.right_answer)))"
        )
        values = {"workspace": workspace_id, "after": after, "limit": limit}
        return await self._read(condition, values)

    async def answers_of(self, ids: Sequence[AnswerId]) -> list[RatedAnswer]:
        """These answers, as far as they are stored, in the order of their ids."""
        return await self._read(SQL("a.id = ANY(%(ids)s)"), {"ids": list(ids), "limit": len(ids)})

    async def comparisons(
        self,
        *,
        workspace_id: WorkspaceId,
        after: ComparisonId | None = None,
        limit: int,
    ) -> list[RatedComparison]:
        """The comparisons of a workspace that somebody judged, in the order of their ids.

        Raises:
            StorageUnavailable: safe to retry.
        """
        condition = SQL(
            "t.workspace_id = %(workspace)s AND (%(after)s::uuid IS NULL OR c.id > %(after)s)"
        )
        values = {"workspace": workspace_id, "after": after, "limit": limit}
        return await self._read_comparisons(condition, values)

    async def comparisons_of(self, ids: Sequence[ComparisonId]) -> list[RatedComparison]:
        """These comparisons, as far as somebody judged them, in the order of their ids."""
        values = {"ids": list(ids), "limit": len(ids)}
        return await self._read_comparisons(SQL("c.id = ANY(%(ids)s)"), values)

    async def comparisons_with(self, ids: Sequence[AnswerId]) -> list[RatedComparison]:
        """The comparisons that somebody judged of any of these answers, in the order of their ids.

        A question has one comparison at most, so an answer has, too.
        """
        values = {"ids": list(ids), "limit": len(ids)}
        condition = SQL("(c.left_answer = ANY(%(ids)s) OR c.right_answer = ANY(%(ids)s))")
        return await self._read_comparisons(condition, values)

    async def _read_comparisons(
        self, condition: SQL, values: Mapping[str, object]
    ) -> list[RatedComparison]:
        async with self._pool.connection() as connection:
            curations = WORDS.format(Identifier("c", "id"))
            statement = _COMPARISONS.format(condition=condition, curations=curations)
            found = await connection.execute(statement, values)
            rows = await found.fetchall()
        ids = [AnswerId(answer) for row in rows for answer in row[1:3]]
        answers = {answer.id: answer for answer in await self.answers_of(ids)}
        return [
            RatedComparison(
                id=ComparisonId(row[0]),
                left=answers[AnswerId(row[1])],
                right=answers[AnswerId(row[2])],
                judgements=tuple(Judgement(**_given(each)) for each in row[3]),
                curations=tuple(curation(each) for each in row[4] or ()),
            )
            for row in rows
            if row[1] in answers and row[2] in answers  # else it was deleted between two reads
        ]

    async def everything(
        self, workspace_id: WorkspaceId
    ) -> tuple[list[RatedAnswer], list[RatedComparison]]:
        """All rated answers and judged comparisons of a workspace, read page by page."""
        answers: list[RatedAnswer] = []
        while page := await self.answers(
            workspace_id=workspace_id, after=answers[-1].id if answers else None, limit=PAGE
        ):
            answers += page
        judged: list[RatedComparison] = []
        while found := await self.comparisons(
            workspace_id=workspace_id, after=judged[-1].id if judged else None, limit=PAGE
        ):
            judged += found
        return answers, judged

    async def workspaces(self) -> list[tuple[WorkspaceId, str]]:
        """Workspaces in which somebody rated something, with their platforms; the oldest first."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT w.id, w.platform FROM workspaces w WHERE EXISTS (SELECT FROM members m"
                " WHERE m.workspace_id = w.id AND (EXISTS (SELECT FROM votes"
                " WHERE member_id = m.id) OR EXISTS (SELECT FROM corrections"
                " WHERE member_id = m.id) OR EXISTS (SELECT FROM comparison_votes"
                " WHERE member_id = m.id))) ORDER BY w.created_at, w.id"
            )
            return [(WorkspaceId(row[0]), row[1]) for row in await found.fetchall()]

    async def _read(self, condition: SQL, values: Mapping[str, object]) -> list[RatedAnswer]:
        async with self._pool.connection() as connection:
            curations = WORDS.format(Identifier("a", "id"))
            statement = _ANSWERS.format(condition=condition, curations=curations)
            found = await connection.execute(statement, values)
            return [_answer(row) for row in await found.fetchall()]


_COMPARISONS = SQL("""
SELECT c.id, c.left_answer, c.right_answer, j.judgements, {curations} FROM comparisons c
JOIN messages m ON m.id = c.message_id JOIN threads t ON t.id = m.thread_id
JOIN LATERAL (SELECT jsonb_agg(jsonb_build_object('voter', member_id, 'winner', winner,
        'consent', consent, 'at', updated_at) ORDER BY updated_at, member_id) AS judgements
    FROM comparison_votes WHERE comparison_id = c.id) j ON j.judgements IS NOT NULL
WHERE {condition} ORDER BY c.id LIMIT %(limit)s
""")
_ANSWERS = SQL("""
SELECT a.id, a.message_id, t.workspace_id,
       place.id, coalesce(place.open, false), w.platform, m.text, a.prompt,
       a.text, a.found, a.finish_reason, a.model, a.params, a.current, a.created_at,
       (SELECT jsonb_agg(jsonb_build_object('chunk_id', s.chunk_id, 'document_id', s.document_id,
                'document', s.document, 'score', s.score, 'cited', s.quote IS NOT NULL, 'readers',
                CASE WHEN d.scope_id = t.workspace_id THEN 'workspace'
                     WHEN EXISTS (SELECT FROM members WHERE id = d.scope_id) THEN 'member'
                     WHEN owner.open THEN 'open channel'
                     ELSE 'channel' END) ORDER BY s.number)
        FROM answer_sources s JOIN documents d ON d.id = s.document_id
        LEFT JOIN channels owner ON owner.id = d.scope_id WHERE s.answer_id = a.id),
       (SELECT jsonb_agg(jsonb_build_object('voter', member_id, 'value', value, 'reasons', reasons,
                'comment', comment, 'consent', consent, 'at', updated_at)
                ORDER BY updated_at, member_id)
        FROM votes WHERE answer_id = a.id),
       (SELECT jsonb_agg(jsonb_build_object('voter', member_id, 'text', text, 'consent', consent,
                'at', updated_at) ORDER BY updated_at, member_id)
        FROM corrections WHERE answer_id = a.id),
       EXISTS (SELECT FROM help_requests WHERE answer_id = a.id), {curations}
FROM answers a JOIN messages m ON m.id = a.message_id JOIN threads t ON t.id = m.thread_id
JOIN workspaces w ON w.id = t.workspace_id
LEFT JOIN channels place ON place.id = t.scope_id
WHERE {condition} ORDER BY a.id LIMIT %(limit)s
""")


def _answer(row: Sequence[Any]) -> RatedAnswer:
    sources, votes, corrections, called, curations = row[15:]
    return RatedAnswer(
        id=AnswerId(row[0]),
        message_id=MessageId(row[1]),
        workspace_id=WorkspaceId(row[2]),
        channel_id=ChannelId(row[3]) if row[3] is not None else None,
        open=row[4],
        platform=row[5],
        question=row[6],
        prompt=tuple(row[7]) if row[7] is not None else None,
        text=row[8],
        found=row[9],
        finish_reason=row[10],
        model=row[11],
        params=row[12],
        current=row[13],
        created_at=row[14],
        sources=tuple(_source(each) for each in sources or ()),
        votes=tuple(
            Vote(**{**_given(each), "reasons": tuple(each["reasons"])}) for each in votes or ()
        ),
        corrections=tuple(Correction(**_given(each)) for each in corrections or ()),
        called_for_help=called,
        curations=tuple(curation(each) for each in curations or ()),
    )


def _source(values: Mapping[str, Any]) -> RatedSource:
    return RatedSource(
        **{
            **values,
            "chunk_id": ChunkId(UUID(values["chunk_id"])),
            "document_id": DocumentId(UUID(values["document_id"])),
        }
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """A rating; JSON has neither ids nor times."""
    return {
        **values,
        "voter": MemberId(UUID(values["voter"])),
        "at": datetime.fromisoformat(values["at"]),
    }
