"""A team that asks, rates and corrects: real documents, real retrieval, the real default model.

Members vote by whether the model's own words hold the right answer, and are wrong in one vote of
ten. Who votes down nearly always writes the right short answer, and who votes up mostly does,
because the answer took too many words: nearly half of the pieces are such answers. One question of
ten is answered twice, and a member picks the answer that is nearer to the right one.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bots.assistant import Assistant
from bots.messages import Answer, Answered, Question
from bots.serving import ServingModels
from bots.settings import AssistantSettings
from engine.client import EngineClient
from feedback import Feedback
from storage.conversations import Conversations
from storage.documents import Documents
from storage.identity import Audience, Identities, Keys
from storage.members import Members
from storage.model_versions import ModelVersions
from storage.places import Places
from storage.pool import Pool
from storage.ratings import Winner
from storage.settings import DocumentsSettings, SearchSettings
from tests.benchmarks.corpus import load_embedding
from tests.benchmarks.retrieval import ingest_files, layouts
from training.metrics import contains, f1

NOISE = 0.1
"""Share of votes and choices that are the contrary of what they should be."""
CORRECTS = 0.95
"""Share of votes against an answer after which the right one is written."""
SHORTENS = 0.85
"""Share of votes for an answer after which the right one is written in fewer words."""
COMPARED = 10
"""One question of so many is answered twice."""
SEED = 11
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about a passage, and its right answers."""

    text: str
    right: tuple[str, ...]
    title: str
    passage: str


def questions(articles: Sequence[dict[str, Any]]) -> list[Asked]:
    """Every question of some articles."""
    return [
        Asked(
            text=qa["question"],
            right=tuple(answer["text"] for answer in qa["answers"]),
            title=str(article.get("title") or "").replace("_", " "),
            passage=paragraph["context"],
        )
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


Writes = Callable[[Sequence[Asked], int], str]
"""What a member writes as the better answer to a question: all that are asked, and its place."""


def right_answer(asked: Sequence[Asked], number: int) -> str:
    """What honest members write."""
    return asked[number].right[0]


def another_answer(asked: Sequence[Asked], number: int) -> str:
    """As short as a right answer, and wrong: the one to the question before."""
    return asked[number - 1].right[0]


def slogan(asked: Sequence[Asked], number: int) -> str:
    """Advertising, in other words each time, so that no rule against repetition finds it."""
    subject = " ".join(asked[number].text.rstrip("?").split()[-3:])
    return f"Call Marlow Consulting about {subject}, they sell you everything you need."


@dataclass(kw_only=True)
class SimulatedTeam:
    """Five members of one workspace, with its documents.

    Attributes:
        pieces: votes, corrections and choices so far, by kind.
        asked: questions so far.
    """

    pool: Pool
    engine: EngineClient
    home: Path
    audiences: list[Audience] = field(default_factory=list)
    pieces: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    async def move_in(self, articles: Sequence[dict[str, Any]]) -> None:
        """Open the workspace: members who agree to training, and documents that all may read."""
        keys = Keys.load(home=self.home, secret=None)
        identities = Identities(pool=self.pool, keys=keys)

        async def audience(channel: str | None, member: str | None) -> Audience:
            return await identities.resolve(
                platform="benchmark",
                workspace="team",
                channel=channel,
                channel_open=True,
                member=member,
            )

        self.audiences = [await audience("general", f"member {number}") for number in range(5)]
        for each in self.audiences:
            assert each.member_id is not None
            await Members(self.pool).set_consent(each.member_id, True)
        first = self.audiences[0]
        assert first.member_id is not None
        await Places(self.pool).save_workspace_settings(
            first.workspace_id, {"consent_to_train": True}, by=first.member_id
        )
        files = layouts(articles)["article per file"]
        await ingest_files(
            self.pool, self.home, await audience(None, None), files, load_embedding()
        )
        self._conversations = Conversations(pool=self.pool, keys=keys)
        self._feedback = Feedback(self.pool)
        self._assistant = Assistant(
            engine=self.engine,
            pool=self.pool,
            conversations=self._conversations,
            documents=Documents(
                pool=self.pool, files_dir=self.home / "files", settings=DocumentsSettings()
            ),
            serving=ServingModels(versions=ModelVersions(self.pool), engine=self.engine),
            search_settings=SearchSettings(),
            settings=AssistantSettings(max_answer_tokens=64),
        )

    async def rate(
        self,
        asked: Sequence[Asked],
        *,
        most: int,
        noise: float = NOISE,
        writes: Writes = right_answer,
    ) -> None:
        """Ask and rate until there are so many pieces of feedback.

        Args:
            noise: share of wrong votes and choices; 0.5 = votes that mean nothing.
            writes: what a correction says.
        """
        self._most, self._writes = most, writes
        for begin in range(0, len(asked), AT_ONCE):
            if sum(self.pieces.values()) >= most:
                return
            async with asyncio.TaskGroup() as group:
                for number in range(begin, min(begin + AT_ONCE, len(asked))):
                    group.create_task(self._turn(asked, number, noise))

    async def _turn(self, asked: Sequence[Asked], number: int, noise: float) -> None:
        """One question, answered and rated by the member whose turn it is."""
        each, rng = asked[number], random.Random(f"{SEED} {number}")
        self.asked.add(each.text)
        audience = self.audiences[number % len(self.audiences)]
        if number % COMPARED == COMPARED - 1:
            await self._compare(each, audience, number, rng, noise)
            return
        answer = await self._ask(each, audience, number)
        if not answer.found or not self._takes("votes"):
            return
        liked = is_right(own_words(answer), each.right) is not (rng.random() < noise)
        await self._feedback.vote(answer_id=answer.id, audience=audience, value=1 if liked else -1)
        corrects = rng.random() < (SHORTENS if liked else CORRECTS)
        if corrects and self._takes("corrections"):
            text = self._writes(asked, number)
            await self._feedback.correct(answer_id=answer.id, audience=audience, text=text)

    async def _compare(
        self, each: Asked, audience: Audience, number: int, rng: random.Random, noise: float
    ) -> None:
        message_id, _ = await self._conversations.accept_question(
            audience=audience,
            thread_ref=f"thread {number}",
            message_ref=f"message {number}",
            text=each.text,
            author_id=audience.member_id,
            surface="benchmark",
            place={},
        )
        answers: dict[int, Answer] = {}
        events = self._assistant.compare(message_id, audience=audience, models=("live", "live"))
        async with contextlib.aclosing(events):
            async for index, event in events:
                if isinstance(event, Answered):
                    answers[index] = event.answer
        if len(answers) < 2:
            return
        scores = [f1(own_words(answers[index]), each.right) for index in (0, 1)]
        winner: Winner = "tie"
        if scores[0] != scores[1]:
            left = (scores[0] > scores[1]) is not (rng.random() < noise)
            winner = "left" if left else "right"
        if not self._takes("choices"):
            return
        comparison = await self._feedback.open_comparison(
            message_id=message_id,
            audience=audience,
            answers=(answers[0].id, answers[1].id),
            shown_order=(0, 1),
        )
        await self._feedback.compare(comparison_id=comparison, audience=audience, winner=winner)

    async def _ask(self, each: Asked, audience: Audience, number: int) -> Answer:
        question = Question(
            text=each.text,
            audience=audience,
            thread_ref=f"thread {number}",
            message_ref=f"message {number}",
        )
        async with contextlib.aclosing(self._assistant.answer(question)) as events:
            async for event in events:
                if isinstance(event, Answered):
                    return event.answer
        raise AssertionError("a turn ends with an answer")

    def _takes(self, kind: str) -> bool:
        """Count a piece of feedback, unless there are enough."""
        if sum(self.pieces.values()) >= self._most:
            return False
        self.pieces[kind] = self.pieces.get(kind, 0) + 1
        return True


def own_words(answer: Answer) -> str:
    """What the model wrote, without the passage that is quoted below an unsupported answer."""
    return answer.text.partition("\n\nThe documents do not confirm this")[0]


def is_right(said: str, right: Sequence[str]) -> bool:
    """Whether a member takes an answer for right."""
    return contains(said, right)
