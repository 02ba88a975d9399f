"""One turn of conversation, for every surface: question in, streamed and cited answer out."""

from collections.abc import AsyncGenerator

from bots.messages import Question, TurnEvent
from bots.settings import AssistantSettings
from engine.client import EngineClient
from storage.conversations import Conversations
from storage.documents import Documents
from storage.identity import Audience, MessageId
from storage.pool import Pool
from storage.settings import SearchSettings


class Assistant:
    """Answers questions from the documents that an audience may read."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        pool: Pool,
        conversations: Conversations,
        documents: Documents,
        search_settings: SearchSettings,
        settings: AssistantSettings,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._conversations = conversations
        self._documents = documents
        self._search_settings = search_settings
        self._settings = settings

    def answer(self, question: Question) -> AsyncGenerator[TurnEvent, None]:
        """Answer a question once, streaming; see `bots.messages` for the order of events.

        Closing the iterator (or cancelling its consumer) stops the engine and stores the partial
        answer with `finish_reason="stopped"`.

        Raises:
            TurnFailed: while iterating; `reply` is for the asker, the question is kept.
        """
        raise NotImplementedError

    def retry(
        self, message_id: MessageId, *, audience: Audience
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer a stored question that got no answer; one that has an answer yields that one."""
        raise NotImplementedError
