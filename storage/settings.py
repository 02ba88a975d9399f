"""The sections of storage: `[database]`, `[documents]`, `[search]` and `[training]`."""

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from storage import chunking
from storage.parsing.blocks import ParseLimits


class Section(BaseModel):
    """Base of storage's sections: frozen, and a misspelt key is an error.

    Why a second one beside `engine.settings`: engine and storage never import each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(Section):
    """`[database]`: where Postgres is and how it is used."""

    url: SecretStr | None = Field(
        None,
        description="Postgres 15 or newer with pgvector 0.8; unset = the embedded one under "
        "`<home>/postgres`. Environment only.",
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="Comma-separated Fernet keys for people's platform ids, newest first; unset = "
        "the file `<home>/keys`, made at first start. Environment only.",
    )
    pool_size: int = Field(
        8, ge=2, le=100, description="Most connections of one process; 8 callers saturate 2 cores."
    )
    connect_timeout_s: float = Field(
        5.0, gt=0, description="Longest wait for a connection before the database counts as down."
    )
    statement_timeout_s: float = Field(
        30.0, gt=0, description="Longest that one SQL statement of a bot may run."
    )
    embedding_dim: int = Field(
        384,
        ge=1,
        le=2000,
        description="Dimension of the embedder's vectors (384 = all-MiniLM-L6-v2); fixed when the "
        "database is first migrated. 2000 is the most that an HNSW index holds.",
    )
    hnsw_ef_search: int = Field(
        120,
        ge=10,
        le=1000,
        description="Nodes that a vector search keeps in view: recall@10 against milliseconds; the "
        "default comes from `tests.benchmarks search`.",
    )


class SearchSettings(Section):
    """`[search]`: how documents are found, and what counts as found.

    The three numbers of the calibration are a logistic regression of "the best hit answers" over
    questions whose article is ingested or not (XQuAD, English; `tests.benchmarks retrieval`).
    """

    threshold: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Score of the best hit below which nothing counts as found; at the default "
        "98 % of answerable questions pass and about 3 % of unanswerable ones.",
    )
    cosine_weight: float = Field(
        18.0, ge=0, description="Evidence per unit of cosine similarity; belongs to the embedder."
    )
    coverage_weight: float = Field(
        13.5,
        ge=0,
        description="Evidence for a chunk that holds every word of the question, by their rarity.",
    )
    bias: float = Field(12.3, description="Evidence at which a score is one half.")
    candidates: int = Field(
        40,
        ge=10,
        le=1000,
        description="Chunks that each of the two rankings proposes; the rest is not compared.",
    )
    lexical_budget: int = Field(
        400,
        ge=100,
        le=100_000,
        description="Most chunks read for a question's rarest words; about 2 µs each.",
    )
    exact_below: int = Field(
        2500,
        ge=0,
        le=100_000,
        description="Readable chunks up to which all are compared exactly, without an index.",
    )


class DocumentsSettings(Section):
    """`[documents]`: what an upload may cost, and how its text is cut."""

    max_upload_mb: int = Field(
        100, ge=1, le=4096, description="Largest file taken; about a 5,000-page PDF without scans."
    )
    parse_timeout_s: float = Field(
        300.0, gt=0, description="Longest that reading one document may take; a minute is a lot."
    )
    ocr_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="The same once text recognition is needed, at about 4.4 s a page on two cores.",
    )
    parse_memory_mb: int = Field(
        1024, ge=256, description="Most memory (address space) for reading one document."
    )
    ocr_memory_mb: int = Field(
        6144,
        ge=2048,
        description="The same with text recognition, which reserves more than it uses.",
    )
    max_pages: int = Field(5_000, ge=1, description="Most pages of one document.")
    max_ocr_pages: int = Field(
        500, ge=0, description="Most scanned pages of one document: about 40 minutes on two cores."
    )
    max_characters: int = Field(
        50_000_000, ge=1_000, description="Most text of one document; 25,000 printed pages."
    )
    max_expanded_mb: int = Field(
        512, ge=1, description="Most that an archive or an office file may unpack to."
    )
    chunk_max_tokens: int = Field(
        chunking.MAX_TOKENS,
        ge=32,
        le=8192,
        description="Most embedder tokens of a chunk with its headings; the default reads 256.",
    )
    chunk_small_tokens: int = Field(
        chunking.SMALL_TOKENS,
        ge=0,
        description="Paragraphs below it are merged with small neighbours under the same heading.",
    )
    chunk_target_tokens: int = Field(
        chunking.TARGET_TOKENS, ge=1, description="Small neighbours are merged up to this size."
    )

    @property
    def parse_limits(self) -> ParseLimits:
        """The limits of one parsing child."""
        return ParseLimits(
            max_bytes=self.max_upload_mb * 2**20,
            timeout_s=self.parse_timeout_s,
            ocr_timeout_s=self.ocr_timeout_s,
            memory_bytes=self.parse_memory_mb * 2**20,
            ocr_memory_bytes=self.ocr_memory_mb * 2**20,
            max_pages=self.max_pages,
            max_ocr_pages=self.max_ocr_pages,
            max_characters=self.max_characters,
            max_expanded_bytes=self.max_expanded_mb * 2**20,
        )


class TrainingSettings(Section):
    """`[training]`: what runs may use, and what becomes of the models that they make.

    Why here: bots queue runs and show these settings, training carries runs out, and neither may
    import the other; what both read of runs lies in storage.
    """

    base: str | None = Field(
        None,
        description="Name of the model of `[engine.models]` that runs train; unset = "
        "`engine.live`.",
    )
    recipe: Literal["sft", "dpo", "kto", "reward", "rloo", "pipeline"] = Field(
        "sft", description="Recipe of runs that are queued without naming one."
    )
    min_labels: int = Field(
        30,
        ge=1,
        description="Fewest pieces of feedback to train on; with fewer, a run says so and does "
        "nothing. A LoRA on a small model learns a manner of answering from a few dozen examples.",
    )
    memory_mb: int = Field(
        8192, ge=512, description="Most memory of a run; one that needs more fails with advice."
    )
    time_limit_h: float = Field(12.0, gt=0, description="Longest time of a run.")
    judge_url: str | None = Field(
        None,
        description="OpenAI-compatible server whose model judges answers for the gate; unset = "
        "no judge.",
    )
    judge_model: str | None = Field(None, description="Name of the judge's model.")
    judge_api_key: SecretStr | None = Field(
        None, description="The judge's API key. Environment only."
    )
    canary_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of threads that a candidate answers; 0 = none, and never all: votes on "
        "the live model's answers are what its own are compared with.",
    )
    promote: Literal["ask", "auto"] = Field(
        "ask",
        description="What becomes of a candidate whose live votes are better: an administrator is "
        "asked, or it answers everybody.",
    )
    every_new_ratings: int | None = Field(
        None,
        ge=1,
        description="New ratings after which a run is queued by itself; unset = never. A version "
        "that is tried has two weeks first.",
    )
    every_hours: float | None = Field(
        None,
        gt=0,
        description="Hours after the last run when the next is queued; unset = never. A version "
        "that is tried has two weeks first.",
    )

    @field_validator("judge_url")
    @classmethod
    def _judge_has_an_address(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            # Reading the port refuses one that is no number.
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError("write an address such as http://judge:8000/v1")
        return url

    @model_validator(mode="after")
    def _judge_is_whole(self) -> Self:
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError("judge_url and judge_model are set together or not at all")
        return self
