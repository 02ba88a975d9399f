"""Ratings: votes, corrections, comparisons and calls for help, each with its row in the outbox.

Whatever id comes in came from a button: every statement checks that the audience may read what the
id names. A row keeps whether person and place had agreed to training when it was written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, LiteralString, NewType
from uuid import UUID

from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from storage.answers import make_current
from storage.errors import MessageNotFound
from storage.identity import AnswerId, Audience, ChannelId, MemberId, MessageId, WorkspaceId
from storage.outbox import mark
from storage.pool import Connection, Pool, one_row

ComparisonId = NewType("ComparisonId", UUID)
VoteOutcome = Literal["recorded", "changed", "unchanged", "withdrawn"]
Winner = Literal["left", "right", "tie", "both_bad"]

CONSENT_SETTING = "consent_to_train"
"""The key of a channel's settings, and of a workspace's, that votes read: a channel's own word
counts, else its workspace's, else no."""


@dataclass(frozen=True, kw_only=True)
class ComparisonOutcome:
    """What a judgement made of a comparison.

    Attributes:
        models: that stood left and right.
        result: the judgement that now counts for its author.
        changed: whether the author had judged otherwise before.
    """

    models: tuple[str, str]
    result: Winner
    changed: bool


@dataclass(frozen=True, kw_only=True)
class MyVote:
    """A vote, for the person who gave it."""

    answer_id: AnswerId
    question: str
    value: Literal[-1, 1]
    reasons: Sequence[str]
    comment: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Battle:
    """One judgement of two answers by different models.

    Attributes:
        voter: who judged; the same person is the same id throughout a workspace. None for what
            curators decided.
        left_text, right_text: the two answers.
        question: what they answer.
    """

    comparison_id: ComparisonId
    left_model: str
    right_model: str
    winner: Winner
    voter: MemberId | None
    left_text: str
    right_text: str
    question: str


@dataclass(frozen=True, kw_only=True)
class ComparedPlace:
    """A channel in which models were compared.

    Attributes:
        channel_id: None for all direct messages of the workspace together.
        votes: that count there.
    """

    workspace_id: WorkspaceId
    platform: str
    channel_id: ChannelId | None
    votes: int


_JUDGED: Final = (
    "FROM comparison_votes v JOIN comparisons c ON c.id = v.comparison_id"
    " JOIN answers l ON l.id = c.left_answer"
    " JOIN answers r ON r.id = c.right_answer AND r.model <> l.model"
    " JOIN messages m ON m.id = c.message_id JOIN threads t ON t.id = m.thread_id"
    " JOIN members u ON u.id = v.member_id AND u.quarantined_at IS NULL"
)
"""The judgements that count: of different models, by people who are not quarantined."""


class Ratings:
    """The store of ratings."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def vote(
        self,
        *,
        answer_id: AnswerId,
        audience: Audience,
        member_id: MemberId,
        value: Literal[-1, 1],
        reasons: Sequence[str],
        comment: str | None,
    ) -> VoteOutcome:
        """Store a person's one vote on an answer; without reasons, the same value keeps the old.

        Raises:
            MessageNotFound: no such answer for this audience.
        """
        async with self._pool.connection() as connection:
            consent = await _consented(connection, audience, member_id)
            await _hold_answer(connection, answer_id, audience)
            stored = await connection.execute(
                "INSERT INTO votes (answer_id, member_id, value, reasons, comment, consent)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (answer_id, member_id) DO UPDATE"
                " SET value = excluded.value, reasons = excluded.reasons,"
                " comment = excluded.comment, consent = excluded.consent, updated_at = now()"
                " WHERE votes.value <> excluded.value"
                " OR ((excluded.reasons <> '{}' OR excluded.comment IS NOT NULL)"
                " AND (votes.reasons, votes.comment)"
                " IS DISTINCT FROM (excluded.reasons, excluded.comment))"
                " RETURNING created_at = updated_at",
                [answer_id, member_id, value, list(reasons), comment, consent],
            )
            row = await stored.fetchone()
            if row is None:
                return "unchanged"
            await mark(connection, "answer", answer_id, workspace_id=audience.workspace_id)
            return "recorded" if row[0] else "changed"

    async def withdraw_vote(
        self, *, answer_id: AnswerId, audience: Audience, member_id: MemberId
    ) -> VoteOutcome:
        """Delete a person's vote on an answer.

        Raises:
            MessageNotFound: no such answer for this audience.
        """
        async with self._pool.connection() as connection:
            await _hold_answer(connection, answer_id, audience)
            deleted = await connection.execute(
                "DELETE FROM votes WHERE answer_id = %s AND member_id = %s", [answer_id, member_id]
            )
            if deleted.rowcount == 0:
                return "unchanged"
            await mark(connection, "answer", answer_id, workspace_id=audience.workspace_id)
            return "withdrawn"

    async def correct(
        self, *, answer_id: AnswerId, audience: Audience, member_id: MemberId, text: str
    ) -> None:
        """Store the better answer that a person wrote, in place of an earlier one of theirs.

        Raises:
            MessageNotFound: no such answer for this audience.
        """
        async with self._pool.connection() as connection:
            consent = await _consented(connection, audience, member_id)
            await _hold_answer(connection, answer_id, audience)
            stored = await connection.execute(
                "INSERT INTO corrections (answer_id, member_id, text, consent)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (answer_id, member_id) DO UPDATE"
                " SET text = excluded.text, consent = excluded.consent, updated_at = now()"
                " WHERE corrections.text <> excluded.text",
                [answer_id, member_id, text, consent],
            )
            if stored.rowcount:
                await mark(connection, "answer", answer_id, workspace_id=audience.workspace_id)

    async def call_for_help(
        self, *, answer_id: AnswerId, audience: Audience, member_id: MemberId
    ) -> bool:
        """Note that people are called for an answer; whether nobody had called them before.

        Raises:
            MessageNotFound: no such answer for this audience.
        """
        async with self._pool.connection() as connection:
            await _hold_answer(connection, answer_id, audience)
            stored = await connection.execute(
                "INSERT INTO help_requests (answer_id, member_id) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                [answer_id, member_id],
            )
            if stored.rowcount:
                await mark(connection, "answer", answer_id, workspace_id=audience.workspace_id)
            return stored.rowcount == 1

    async def open_comparison(
        self, *, message_id: MessageId, audience: Audience, left: AnswerId, right: AnswerId
    ) -> ComparisonId:
        """Store how two answers stand side by side; a question is compared once.

        Raises:
            MessageNotFound: not both of these answers to this question for this audience.
        """
        async with self._pool.connection() as connection:
            for answer_id in (left, right):
                if await _hold_answer(connection, answer_id, audience) != message_id:
                    raise MessageNotFound(answer_id)
            await connection.execute(
                "INSERT INTO comparisons (message_id, left_answer, right_answer)"
                " VALUES (%s, %s, %s) ON CONFLICT ON CONSTRAINT comparisons_message DO NOTHING",
                [message_id, left, right],
            )
            opened = await connection.execute(
                "SELECT id FROM comparisons WHERE message_id = %s", [message_id]
            )
            return ComparisonId((await one_row(opened))[0])

    async def compare(
        self,
        *,
        comparison_id: ComparisonId,
        audience: Audience,
        member_id: MemberId,
        winner: Winner,
    ) -> ComparisonOutcome:
        """Store a person's one judgement; the answer that more people prefer becomes current.

        At a draw nothing changes, nor where the question was answered anew since.

        Raises:
            MessageNotFound: no such comparison for this audience.
        """
        async with self._pool.connection() as connection:
            consent = await _consented(connection, audience, member_id)
            found = await connection.execute(
                "SELECT c.left_answer, c.right_answer, l.model, r.model FROM comparisons c"
                " JOIN answers l ON l.id = c.left_answer JOIN answers r ON r.id = c.right_answer"
                " JOIN messages m ON m.id = c.message_id JOIN threads t ON t.id = m.thread_id"
                " WHERE c.id = %s AND t.scope_id = %s FOR NO KEY UPDATE OF m",
                [comparison_id, audience.place_id],
            )
            row = await found.fetchone()
            if row is None:
                raise MessageNotFound(comparison_id)
            left, right, *models = row
            stored = await connection.execute(
                "INSERT INTO comparison_votes (comparison_id, member_id, winner, consent)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (comparison_id, member_id) DO UPDATE"
                " SET winner = excluded.winner, consent = excluded.consent, updated_at = now()"
                " WHERE comparison_votes.winner <> excluded.winner"
                " RETURNING created_at <> updated_at",
                [comparison_id, member_id, winner, consent],
            )
            change = await stored.fetchone()
            if change is not None:
                await mark(
                    connection, "comparison", comparison_id, workspace_id=audience.workspace_id
                )
                await _let_preferred_count(connection, comparison_id, left, right)
            return ComparisonOutcome(
                models=(models[0], models[1]),
                result=winner,
                changed=change is not None and bool(change[0]),
            )

    async def mine(
        self, *, workspace_id: WorkspaceId, member_id: MemberId, limit: int
    ) -> list[MyVote]:
        """A person's votes, the newest first."""
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(MyVote))
            await cursor.execute(
                "SELECT v.answer_id, m.text AS question, v.value, v.reasons, v.comment,"
                " v.updated_at AS at FROM votes v JOIN answers a ON a.id = v.answer_id"
                " JOIN messages m ON m.id = a.message_id JOIN threads t ON t.id = m.thread_id"
                " WHERE v.member_id = %s AND t.workspace_id = %s"
                " ORDER BY v.updated_at DESC, v.answer_id LIMIT %s",
                [member_id, workspace_id, limit],
            )
            return await cursor.fetchall()

    async def battles(
        self, *, workspace_id: WorkspaceId, channel_id: ChannelId | None = None
    ) -> list[Battle]:
        """The judgements of a workspace, or of one channel, that count; the oldest first.

        Raises:
            StorageUnavailable: safe to retry.
        """
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Battle))
            await cursor.execute(
                "SELECT c.id AS comparison_id, l.model AS left_model, r.model AS right_model,"
                " v.winner, v.member_id AS voter, l.text AS left_text, r.text AS right_text,"
                f" m.text AS question {_JUDGED} WHERE t.workspace_id = %(workspace)s"
                " AND (%(channel)s::uuid IS NULL OR t.scope_id = %(channel)s)"
                " ORDER BY v.created_at, v.comparison_id, v.member_id",
                {"workspace": workspace_id, "channel": channel_id},
            )
            return await cursor.fetchall()

    async def compared_places(self) -> list[ComparedPlace]:
        """Where models were compared, workspaces by their age, in each the most votes first.

        Raises:
            StorageUnavailable: safe to retry.
        """
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ComparedPlace))
            await cursor.execute(
                "SELECT w.id AS workspace_id, w.platform, p.id AS channel_id, count(*) AS votes"
                f" {_JUDGED} JOIN workspaces w ON w.id = t.workspace_id"
                " LEFT JOIN channels p ON p.id = t.scope_id"
                " GROUP BY w.id, p.id ORDER BY w.created_at, w.id, votes DESC, p.id"
            )
            return await cursor.fetchall()


async def withdraw_consent(
    connection: Connection, condition: LiteralString, values: Sequence[object]
) -> None:
    """Take back the consent of ratings `r` that `condition` selects, as far as it was given.

    `condition` may speak of the thread `t` that was rated, too.
    """
    for table, message in (
        ("votes", "(SELECT message_id FROM answers WHERE id = r.answer_id)"),
        ("corrections", "(SELECT message_id FROM answers WHERE id = r.answer_id)"),
        ("comparison_votes", "(SELECT message_id FROM comparisons WHERE id = r.comparison_id)"),
    ):
        await connection.execute(
            SQL(
                "UPDATE {} r SET consent = false FROM messages m JOIN threads t"
                " ON t.id = m.thread_id WHERE r.consent AND m.id = {} AND ({})"
            ).format(Identifier(table), SQL(message), SQL(condition)),
            values,
        )


async def _hold_answer(
    connection: Connection, answer_id: AnswerId, audience: Audience
) -> MessageId:
    """Keep an answer from being deleted until the transaction ends; its question.

    Raises:
        MessageNotFound: no such answer for this audience.
    """
    found = await connection.execute(
        "SELECT m.id FROM answers a JOIN messages m ON m.id = a.message_id"
        " JOIN threads t ON t.id = m.thread_id"
        " WHERE a.id = %s AND t.scope_id = %s FOR KEY SHARE OF a",
        [answer_id, audience.place_id],
    )
    row = await found.fetchone()
    if row is None:
        raise MessageNotFound(answer_id)
    return MessageId(row[0])


async def _consented(connection: Connection, audience: Audience, member_id: MemberId) -> bool:
    """Whether person and place agree to training, which stays so until the transaction ends.

    Who withdraws waits until then: a rating that is not committed yet, which they could not see,
    would keep its consent for good. Whoever withdraws or deletes locks these rows first, and so
    does this: it must come before all other statements of the transaction.
    """
    for table, id_ in (
        ("workspaces", audience.workspace_id),
        ("channels", audience.channel_id),
        ("members", member_id),
    ):
        statement = SQL("SELECT FROM {} WHERE id = %s FOR SHARE").format(Identifier(table))
        await connection.execute(statement, [id_])
    found = await connection.execute(
        "SELECT u.consent AND coalesce((c.settings->>%(key)s)::boolean,"
        " (w.settings->>%(key)s)::boolean, false)"
        " FROM members u JOIN workspaces w ON w.id = u.workspace_id"
        " LEFT JOIN channels c ON c.id = %(channel)s"
        " WHERE u.id = %(member)s AND w.id = %(workspace)s",
        {
            "key": CONSENT_SETTING,
            "channel": audience.channel_id,
            "member": member_id,
            "workspace": audience.workspace_id,
        },
    )
    row = await found.fetchone()
    return row is not None and bool(row[0])


async def _let_preferred_count(
    connection: Connection, comparison_id: ComparisonId, left: AnswerId, right: AnswerId
) -> None:
    found = await connection.execute(
        "SELECT count(*) FILTER (WHERE winner = 'left') - count(*) FILTER (WHERE winner = 'right'),"
        " EXISTS (SELECT FROM answers WHERE current AND id IN (%s, %s))"
        " FROM comparison_votes WHERE comparison_id = %s",
        [left, right, comparison_id],
    )
    lead, untouched = await one_row(found)
    if lead and untouched:
        await make_current(connection, left if lead > 0 else right)
