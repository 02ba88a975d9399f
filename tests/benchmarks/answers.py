"""Answers of the default model to XQuAD's questions, through whole turns: `… answers [--short]`.

Every turn is real: search in an ingested corpus, prompt, engine process, checked citations, stored
answer. `overhead` measures the same turns' time outside the engine.
"""

import asyncio
import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bots.assistant import Assistant
from bots.messages import Answer, Answered, Question
from bots.serving import ServingModels
from bots.settings import AssistantSettings
from engine.client import EngineClient
from storage.conversations import Conversations
from storage.documents import Documents
from storage.identity import Keys
from storage.model_versions import ModelVersions
from storage.pool import open_pool
from storage.settings import DatabaseSettings, DocumentsSettings, SearchSettings
from tests.benchmarks import Row
from tests.benchmarks.corpus import EMBEDDER, load_embedding, xquad
from tests.benchmarks.database import temporary_database
from tests.benchmarks.retrieval import ingest_all, layouts
from tests.engine.serving import EngineProcess
from training.metrics import contains, f1

MODEL = "smollm2-135m-instruct"
REFERENCE_CONTAINED = 0.244
"""Share of answers that hold the right one when the untrained model reads whole top-3 passages."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A turn's answer beside the right ones."""

    right: tuple[str, ...]
    answer: Answer


def run(*, short: bool) -> list[Row]:
    """About 100 questions, or eight."""
    told = asyncio.run(take_turns(step=80 if short else 6, max_answer_tokens=64))
    contained = float(np.mean([contains(case.answer.text, case.right) for case in told]))
    mean_f1 = np.mean([f1(case.answer.text, case.right) for case in told])
    first_ms = [case.answer.timings.first_token_ms for case in told if case.answer.found]
    return [
        Row(
            what=f"right answer in the answer, {len(told)} turns",
            reached=f"{contained:.3f}",
            target=f"> {REFERENCE_CONTAINED} (untrained, whole top 3)",
            ok=contained > REFERENCE_CONTAINED,
        ),
        Row(what="F1 of the whole text, quotes included", reached=f"{mean_f1:.3f}"),
        Row(what="something found", reached=f"{np.mean([case.answer.found for case in told]):.3f}"),
        Row(
            what="with a checked citation",
            reached=f"{np.mean([bool(case.answer.citations) for case in told]):.3f}",
        ),
        Row(what="first token, median", reached=f"{np.median(first_ms):.0f} ms"),
    ]


async def take_turns(*, step: int, max_answer_tokens: int) -> list[Told]:
    """Ask every `step`-th question of XQuAD, each in a thread of its own, one after the other."""
    articles = xquad()
    cases: list[dict[str, Any]] = [
        qa for article in articles for part in article["paragraphs"] for qa in part["qas"]
    ][::step]
    models = Path(os.environ.get("PARLEY_HOME", ".parley")) / "models"
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(temporary_database())
        pool = await stack.enter_async_context(open_pool(url, settings=DatabaseSettings()))
        files = layouts(articles)["article per file"]
        audience = await ingest_all(pool, home, "xquad", files, load_embedding())
        process = stack.enter_context(
            EngineProcess(
                home=home,
                models={MODEL: f"ctranslate2:{(models / MODEL).resolve()}"},
                live=MODEL,
                embedder=f"ctranslate2:{(models / EMBEDDER).resolve()}",
            )
        )
        engine = await stack.enter_async_context(EngineClient(url=process.url))
        assistant = Assistant(
            engine=engine,
            pool=pool,
            conversations=Conversations(pool=pool, keys=Keys.load(home=home, secret=None)),
            documents=Documents(pool=pool, files_dir=home, settings=DocumentsSettings()),
            serving=ServingModels(versions=ModelVersions(pool), engine=engine),
            search_settings=SearchSettings(),
            settings=AssistantSettings(max_answer_tokens=max_answer_tokens),
        )
        told = []
        for number, qa in enumerate(cases):
            question = Question(
                text=qa["question"],
                audience=audience,
                thread_ref=str(number),
                message_ref=str(number),
            )
            answer = await _answer(assistant, question)
            right = tuple(answer["text"] for answer in qa["answers"])
            told.append(Told(right=right, answer=answer))
        return told


async def _answer(assistant: Assistant, question: Question) -> Answer:
    async with contextlib.aclosing(assistant.answer(question)) as events:
        async for event in events:
            if isinstance(event, Answered):
                return event.answer
    raise AssertionError("a turn ends with an answer")
