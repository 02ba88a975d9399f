"""What the page shows, as plain data: one entry per question, stored or happening right now."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from bots.errors import Reply
from bots.messages import Answered, SourcesFound, TextDelta, TurnEvent, place_in_document
from storage.conversations import StoredTurn
from storage.identity import AnswerId, MessageId

SEARCHING = "Searching the documents…"

EntryState = Literal["searching", "writing", "answered", "failed", "unanswered"]


@dataclass(frozen=True, kw_only=True)
class ShownSource:
    """What an answer cites.

    Attributes:
        score: the source's calibrated relevance, 0 to 1; None for an answer that was found stored.
    """

    number: int
    document: str
    place: str
    quote: str
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that was not taken, and why."""

    name: str
    reason: str


@dataclass(kw_only=True)
class Entry:
    """One question and what became of it.

    Attributes:
        key: names the entry in every open page; stable from the first event to the last.
        thread_ref: the thread that it belongs to.
        message_id: the stored question; None until it is stored.
        answer_id: the stored answer, which can be rated; None until it is stored.
        note: what is going on while `state` is `searching` or `writing`.
        reply: what to tell the asker when `state` is `failed`.
    """

    key: str
    thread_ref: str
    author: str
    text: str
    asked_at: datetime
    message_id: MessageId | None = None
    answer_id: AnswerId | None = None
    state: EntryState = "searching"
    note: str = SEARCHING
    answer: str = ""
    finish_reason: str | None = None
    sources: list[ShownSource] = field(default_factory=list)
    reply: Reply | None = None
    _scores: dict[int, float] = field(default_factory=dict)

    @classmethod
    def stored(cls, turn: StoredTurn, *, thread_ref: str) -> "Entry":
        """A turn as storage has it."""
        entry = cls(
            key=turn.message_ref or str(turn.message_id),
            thread_ref=thread_ref,
            author=turn.author or "Somebody",
            text=turn.text,
            asked_at=turn.asked_at,
            message_id=turn.message_id,
            state="unanswered",
        )
        if turn.answer is not None:
            entry.state = "answered"
            entry.answer_id = turn.answer.id
            entry.answer = turn.answer.text
            entry.finish_reason = turn.answer.finish_reason
            entry.sources = [
                ShownSource(
                    number=source.number,
                    document=source.document,
                    place=place_in_document(page=source.page, heading=source.heading),
                    quote=source.quote,
                    score=source.score,
                )
                for source in turn.answer.sources
                if source.quote is not None
            ]
        return entry

    @property
    def running(self) -> bool:
        """Whether a turn is working on it."""
        return self.state in ("searching", "writing")

    def apply(self, event: TurnEvent) -> None:
        """Take in the next event of the turn."""
        match event:
            case SourcesFound(sources=sources):
                names = list(dict.fromkeys(source.document for source in sources))
                excerpts = "excerpt" if len(sources) == 1 else "excerpts"
                self.note = f"Reading {len(sources)} {excerpts} from {', '.join(names)}…"
                self._scores = {source.number: source.score for source in sources}
            case TextDelta(text=text):
                self.state = "writing"
                self.answer += text
            case Answered(answer=answer):
                self.state = "answered"
                self.answer_id = answer.id
                self.answer = answer.text
                self.finish_reason = answer.finish_reason
                self.sources = [
                    ShownSource(
                        number=citation.number,
                        document=citation.document,
                        place=place_in_document(page=citation.page, heading=citation.heading),
                        quote=citation.quote,
                        score=self._scores.get(citation.number),
                    )
                    for citation in answer.citations
                ]
            case _:
                self.message_id = event.message_id

    def fail(self, reply: Reply) -> None:
        """The turn ended without an answer."""
        self.state = "failed"
        self.reply = reply

    def stop(self) -> None:
        """The turn was stopped; what was written so far stays."""
        if self.running:
            self.state = "answered"
            self.finish_reason = "stopped"

    def restart(self) -> None:
        """The turn begins again."""
        self.state = "searching"
        self.note = SEARCHING
        self.answer = ""
        self.answer_id = None
        self.reply = None
