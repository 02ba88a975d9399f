"""Members: whether a person's words may train models, and how a person is forgotten."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from psycopg.sql import SQL

from storage.audit import add_entry
from storage.documents import delete_documents, remove_files
from storage.identity import MemberId, WorkspaceId
from storage.outbox import mark_rated
from storage.pool import Connection, Pool
from storage.ratings import withdraw_consent
from storage.shared_files import QUESTION_FILES


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """How much of a person was deleted; `questions` in channels stay, without their author."""

    votes: int
    corrections: int
    comparisons: int
    threads: int
    documents: int
    questions: int

    def __add__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(
            votes=self.votes + other.votes,
            corrections=self.corrections + other.corrections,
            comparisons=self.comparisons + other.comparisons,
            threads=self.threads + other.threads,
            documents=self.documents + other.documents,
            questions=self.questions + other.questions,
        )

    def __str__(self) -> str:
        return (
            f"Deleted: {self.votes} votes, {self.corrections} corrections,"
            f" {self.comparisons} judged comparisons, {self.threads} private conversations and"
            f" {self.documents} private documents. {self.questions} questions in channels no longer"
            " name their author."
        )


class Members:
    """The store of what people agreed to."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def consent(self, member_id: MemberId) -> bool:
        """Whether the person agrees that their feedback trains models; nobody does at first."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT consent FROM members WHERE id = %s", [member_id]
            )
            row = await found.fetchone()
            return row is not None and bool(row[0])

    async def set_consent(self, member_id: MemberId, consent: bool) -> None:
        """Change it, with a row in the audit.

        Consent is for what comes; its withdrawal is also for what was given before.
        """
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE members SET consent = %(consent)s WHERE id = %(id)s"
                " AND consent <> %(consent)s RETURNING workspace_id",
                {"id": member_id, "consent": consent},
            )
            row = await changed.fetchone()
            if row is None:
                return
            if not consent:
                await withdraw_consent(connection, "r.member_id = %s", [member_id])
            await add_entry(
                connection,
                workspace_id=WorkspaceId(row[0]),
                member_id=member_id,
                action="consent_given" if consent else "consent_withdrawn",
                subject_id=member_id,
                details={},
            )

    async def known(self, ids: Collection[MemberId]) -> frozenset[MemberId]:
        """Those of these people who have not been forgotten.

        Raises:
            StorageUnavailable: safe to retry.
        """
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT id FROM members WHERE id = ANY(%s)", [list(ids)]
            )
            return frozenset(MemberId(row[0]) for row in await found.fetchall())

    async def quarantined(self, workspace_id: WorkspaceId) -> frozenset[MemberId]:
        """People of a workspace whose ratings do not count."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT id FROM members WHERE workspace_id = %s AND quarantined_at IS NOT NULL",
                [workspace_id],
            )
            return frozenset(MemberId(row[0]) for row in await found.fetchall())

    async def quarantine(
        self, member_id: MemberId, *, workspace_id: WorkspaceId, on: bool, by: MemberId | None
    ) -> bool:
        """Let a person's ratings count no longer, or again, with a row in the audit.

        The ratings stay stored: rankings and training rows are made without them from now on.

        Args:
            by: the administrator; None for the operator of the machine.

        Returns:
            Whether it changed anything.
        """
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE members SET quarantined_at = CASE WHEN %(on)s THEN now() END"
                " WHERE id = %(id)s AND workspace_id = %(workspace)s"
                " AND (quarantined_at IS NOT NULL) <> %(on)s",
                {"id": member_id, "workspace": workspace_id, "on": on},
            )
            if changed.rowcount:
                await add_entry(
                    connection,
                    workspace_id=workspace_id,
                    member_id=by,
                    action="member_quarantined" if on else "member_released",
                    subject_id=member_id,
                    details={},
                )
            return bool(changed.rowcount)


async def forget(pool: Pool, member_id: MemberId, *, files_dir: Path) -> Forgotten:
    """Delete a person: the row itself, and everything that is theirs alone.

    Their votes, corrections and judgements, their direct messages with all answers, their own
    documents and the files of their questions, with all quotes. What they asked in channels stays
    there without their name. The audit keeps that somebody was forgotten, not who. A person who
    comes back is a new one.

    Raises:
        StorageUnavailable: nothing was deleted; safe to retry.
    """
    async with pool.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = '10min'")
        found = await connection.execute(
            "SELECT workspace_id FROM members WHERE id = %s FOR UPDATE", [member_id]
        )
        row = await found.fetchone()
        if row is None:
            return Forgotten(
                votes=0, corrections=0, comparisons=0, threads=0, documents=0, questions=0
            )
        await _mark(connection, member_id)
        documents = await delete_documents(
            connection, _OWN_DOCUMENTS, [member_id, member_id, QUESTION_FILES]
        )
        votes = await _delete(connection, "votes WHERE member_id = %s", member_id)
        corrections = await _delete(connection, "corrections WHERE member_id = %s", member_id)
        judged = await _delete(connection, "comparison_votes WHERE member_id = %s", member_id)
        await _delete(
            connection,
            "procrastinate_jobs WHERE status = 'todo' AND lock IN (SELECT m.id::text"
            " FROM messages m JOIN threads t ON t.id = m.thread_id WHERE t.scope_id = %s)",
            member_id,
        )
        threads = await _delete(connection, "threads WHERE scope_id = %s", member_id)
        questions = await connection.execute(
            "UPDATE messages SET member_id = NULL WHERE member_id = %s", [member_id]
        )
        await connection.execute(
            "UPDATE runs SET place = place - 'member' WHERE member_id = %s", [member_id]
        )
        await _delete(connection, "members WHERE id = %s", member_id)
        await add_entry(
            connection,
            workspace_id=WorkspaceId(row[0]),
            member_id=None,
            action="member_forgotten",
            subject_id=member_id,
            details={"votes": votes, "threads": threads, "documents": len(documents)},
        )
    remove_files(files_dir, documents)
    return Forgotten(
        votes=votes,
        corrections=corrections,
        comparisons=judged,
        threads=threads,
        documents=len(documents),
        questions=questions.rowcount,
    )


_OWN_DOCUMENTS: LiteralString = """
scope_id = %s OR id IN (
    SELECT f.document_id FROM shared_files f JOIN documents d ON d.id = f.document_id
    JOIN channels c ON c.id = d.scope_id
    WHERE f.member_id = %s AND starts_with(c.platform_id, %s))
"""
"""A person's documents, and the files that they attached to questions."""


async def _mark(connection: Connection, member_id: MemberId) -> None:
    """Note in the outbox all that is about to lose a rating, or to go altogether."""
    await mark_rated(
        connection,
        "t.scope_id = %(member)s"
        " OR a.id IN (SELECT answer_id FROM votes WHERE member_id = %(member)s)"
        " OR a.id IN (SELECT answer_id FROM corrections WHERE member_id = %(member)s)"
        " OR a.id IN (SELECT answer_id FROM help_requests WHERE member_id = %(member)s)"
        " OR m.member_id = %(member)s OR a.message_id IN (SELECT c.message_id FROM comparisons c"
        " JOIN comparison_votes v ON v.comparison_id = c.id WHERE v.member_id = %(member)s)",
        {"member": member_id},
    )


async def _delete(connection: Connection, what: LiteralString, member_id: MemberId) -> int:
    deleted = await connection.execute(SQL("DELETE FROM {}").format(SQL(what)), [member_id])
    return deleted.rowcount
