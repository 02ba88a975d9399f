"""Real text and its real embeddings, for the benchmarks."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedder import Embedder
from engine.manifest import Manifest
from engine.metrics import Metrics
from engine.tokenizer import Tokenizer

EMBEDDER = "all-minilm-l6-v2"


def data_dir() -> Path:
    """Folder of the evaluation data."""
    return Path(os.environ.get("PARLEY_EVAL_DATA", "../shared/data"))


def xquad(path: Path | None = None) -> list[dict[str, Any]]:
    """Articles of XQuAD: `title` and `paragraphs` with `context` and `qas`."""
    file = path or data_dir() / "xquad" / "xquad.en.dev.json"
    articles: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["data"]
    return articles


def sentences() -> list[str]:
    """Sentences of XQuAD's passages."""
    found = []
    for article in xquad():
        for paragraph in article["paragraphs"]:
            found += [part.strip() for part in paragraph["context"].split(". ") if len(part) > 30]
    return found


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The default embedder in this process, and its tokenizer."""

    embedder: Embedder
    tokenizer: Tokenizer

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, in batches that the embedder's queue takes."""
        parts = [
            (await self.embedder.embed(texts[begin : begin + 64]))[0]
            for begin in range(0, len(texts), 64)
        ]
        return np.concatenate(parts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return self.tokenizer.count(texts)


def load_embedding() -> Embedding:
    """Load the default embedder from `PARLEY_HOME`, where `make up` puts it."""
    directory = Path(os.environ.get("PARLEY_HOME", ".parley")) / "models" / EMBEDDER
    manifest = Manifest.read(directory)
    return Embedding(
        embedder=Embedder.load(
            directory, name=EMBEDDER, replicas=2, max_queue=64, metrics=Metrics()
        ),
        tokenizer=Tokenizer.read(directory / manifest.tokenizer),
    )
