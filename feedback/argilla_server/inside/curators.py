"""Members' ratings complete no record: curators do.

Argilla counts a record as completed once enough people responded, and takes it out of everybody's
queue. The members' votes that Parley tells it are responses too; so just what many people rated, or
argued about, would never come before a curator. Here the users who stand for members are left out
of that count, and progress is how much is curated. Data sets without such users are as ever.
"""

from collections.abc import Sequence

from argilla_server.contexts import distribution
from argilla_server.enums import RecordStatus, ResponseStatus
from argilla_server.models import Record, Response, User
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload


def set_up(member: str) -> None:
    """Take Argilla's place where it decides what is completed.

    Args:
        member: how the names of users begin who stand for members.
    """

    async def decide(db: AsyncSession, records: Sequence[Record]) -> None:
        ids = [record.id for record in records]
        await db.execute(
            select(Record).where(Record.id.in_(ids)).options(selectinload(Record.dataset))
        )
        counted = await db.execute(
            select(Response.record_id, func.count())
            .join(User)
            .where(
                Response.record_id.in_(ids),
                Response.status == ResponseStatus.submitted,
                ~User.username.startswith(member, autoescape=True),
            )
            .group_by(Response.record_id)
        )
        submitted = {record_id: count for record_id, count in counted}
        for record in records:
            enough = submitted.get(record.id, 0) >= record.dataset.distribution["min_submitted"]
            record.status = RecordStatus.completed if enough else RecordStatus.pending

    async def decide_one(db: AsyncSession, record: Record) -> Record:
        await decide(db, [record])
        return record

    distribution.unsafe_update_records_status = decide
    distribution._update_record_status = decide_one
