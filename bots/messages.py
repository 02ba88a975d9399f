"""What travels between a chat surface and the assistant: frozen dataclasses, no chat SDK.

A surface turns its platform's event into a `Question`, iterates `Assistant.answer` and shows the
`TurnEvent`s. The order is always `Searching`, then `SourcesFound` when anything was found, then any
number of `TextDelta`s, then exactly one `Answered` (or the iterator raises
`bots.errors.TurnFailed`).

`Answered.answer.text` is the text that is stored. The deltas, joined, are the same text save for
the few cases that only the complete answer shows: a sentence that the model began to repeat, a link
that stands in no document that the answer cites. A surface therefore replaces what it streamed by
it.
"""

from dataclasses import dataclass, field
from typing import Literal

from bots.errors import Reply
from storage.conversations import AnswerSource
from storage.identity import AnswerId, Audience, ChunkId, DocumentId, MemberId, MessageId

FinishReason = Literal["stop", "length", "stopped", "not_found", "no_documents"]
"""Why an answer ended: by itself, at the token limit, by the asker, or before the model was
asked."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One message that asks the assistant something.

    Attributes:
        thread_ref: the platform's name of the conversation, unique within the audience's channel.
        message_ref: the platform's name of this message, unique within the workspace: a second
            `Question` with the same one (a redelivery, a retry) is answered once.
        author_id: who asked; None where the surface does not know people.
    """

    text: str
    audience: Audience
    thread_ref: str
    message_ref: str
    author_id: MemberId | None = None


def place_in_document(*, page: int | None, heading: str | None) -> str:
    """Where in a document something stands, for a person; may be empty."""
    return ", ".join(part for part in (f"page {page}" if page is not None else "", heading) if part)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A numbered excerpt that the model was shown.

    Attributes:
        number: 1 for the best hit; what `[1]` in the answer means.
        text: the excerpt, `…` where sentences were left out.
        score: calibrated probability of relevance, 0 to 1.
    """

    number: int
    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    page: int | None
    heading: str | None
    text: str
    score: float

    @property
    def place(self) -> str:
        """Where in the document the excerpt stands."""
        return place_in_document(page=self.page, heading=self.heading)


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A source that the answer uses and that supports it; `quote` is the supporting passage."""

    number: int
    chunk_id: ChunkId
    document_id: DocumentId
    document: str
    page: int | None
    heading: str | None
    quote: str

    @classmethod
    def of(cls, source: Source | AnswerSource, *, quote: str) -> "Citation":
        """The citation of a source, fresh or stored."""
        return cls(
            number=source.number,
            chunk_id=source.chunk_id,
            document_id=source.document_id,
            document=source.document,
            page=source.page,
            heading=source.heading,
            quote=quote,
        )


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where a turn's time went, in milliseconds of wall time.

    Attributes:
        search_ms: the search, the query's embedding included.
        first_token_ms: from the request to the engine to its first text; 0 without a model call.
        engine_ms: all waiting for the engine: embedding, counting, generation.
        total_ms: from the question's arrival to the stored answer.
    """

    search_ms: float = 0.0
    first_token_ms: float = 0.0
    engine_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A stored answer.

    Attributes:
        found: False when nothing readable was relevant and no model was asked.
        citations: the checked sources in order of their number.
        model: version that answered; empty without a model call.
    """

    id: AnswerId
    message_id: MessageId
    text: str
    found: bool
    finish_reason: FinishReason
    citations: tuple[Citation, ...] = ()
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, kw_only=True)
class Searching:
    """The question is stored and the documents are being searched."""

    message_id: MessageId


@dataclass(frozen=True, kw_only=True)
class SourcesFound:
    """The excerpts that the model is shown; the answer will cite some of them."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of the streamed preview."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The turn is complete and stored."""

    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Queued:
    """The turn waits for others; comes again whenever the position changes.

    Attributes:
        position: 1 for the one that is next.
    """

    position: int


@dataclass(frozen=True, kw_only=True)
class Delayed:
    """The answer does not come now, but it will: `reply` says so until then.

    Either more events follow, or the turn is tried again later from its beginning.
    """

    reply: Reply


TurnEvent = Searching | SourcesFound | TextDelta | Answered
"""What `Assistant` yields."""


@dataclass(frozen=True, kw_only=True)
class Preparing:
    """Something comes before the search, such as reading what the asker attached."""

    note: str


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something that the asker has to know, beside the answer."""

    text: str


PendingEvent = Queued | Delayed | Preparing | Remark | TurnEvent
"""What `bots.turns` yields, where turns wait for each other and for an engine that is down."""
