"""The settings of every `bots` process: one frozen object, composed of each room's section."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from engine.settings import EngineSettings, ProcessSettings, Section
from storage.settings import DatabaseSettings, DocumentsSettings, SearchSettings


class AssistantSettings(Section):
    """`[assistant]`: how one turn is answered."""

    model: str = Field("live", description="Model or alias that answers.")
    max_source_tokens: int = Field(
        350, ge=50, description="Most prompt tokens that a turn's sources may take."
    )
    max_answer_tokens: int = Field(160, ge=1, description="Most tokens of one answer.")
    history_turns: int = Field(
        2, ge=0, le=20, description="Earlier questions of the thread that the model sees."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature; 0 = greedy.")


class WebSettings(Section):
    """`[web]`: the browser surface."""

    host: str = Field("127.0.0.1", description="Interface that the page listens on.")
    port: int = Field(8800, ge=0, le=65535, description="Port that the page listens on.")
    password: SecretStr | None = Field(
        None,
        description="Password of the page; required when `host` is not a loopback address. "
        "Environment only.",
    )


class Settings(ProcessSettings):
    """Everything that can be set, env over `parley.toml` over defaults."""

    home: Path = Field(
        Path(".parley"), description="State: database, models, uploaded files, logs."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log record that is written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log records.")
    engine: EngineSettings = Field(default_factory=EngineSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    documents: DocumentsSettings = Field(default_factory=DocumentsSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    assistant: AssistantSettings = Field(default_factory=AssistantSettings)
    web: WebSettings = Field(default_factory=WebSettings)
