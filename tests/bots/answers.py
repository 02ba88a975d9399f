"""Answers and their sources, made up, for tests of what they look like."""

from uuid import UUID, uuid4

from bots.messages import Answer, Citation, FinishReason
from storage.identity import AnswerId, ChunkId, DocumentId, MessageId

MESSAGE = MessageId(UUID(int=7))


def cited(
    number: int = 1,
    *,
    document: str = "leave.md",
    page: int | None = None,
    heading: str | None = "Leave",
    document_id: DocumentId | None = None,
) -> Citation:
    """A source; without `document_id` that of its number."""
    return Citation(
        number=number,
        chunk_id=ChunkId(uuid4()),
        document_id=document_id or DocumentId(UUID(int=number)),
        document=document,
        page=page,
        heading=heading,
        quote="Twenty-five days.",
    )


def an_answer(
    text: str, *citations: Citation, finish: FinishReason = "stop", found: bool = True
) -> Answer:
    """An answer to `MESSAGE`."""
    return Answer(
        id=AnswerId(UUID(int=9)),
        message_id=MESSAGE,
        text=text,
        found=found,
        finish_reason=finish,
        citations=citations,
    )
