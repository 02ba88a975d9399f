"""Settings: the section `[argilla]`, and what the processes of `feedback` read."""

from pathlib import Path
from typing import Literal

from pydantic import Field, HttpUrl, SecretStr

from engine.settings import EngineSettings, ProcessSettings, Section, reachable_host
from storage.settings import DatabaseSettings


class ArgillaSettings(Section):
    """`[argilla]`: where curators work, an Argilla of our own or one that exists."""

    url: str | None = Field(
        None,
        description="Address of an existing Argilla 2.8; unset = the one that `parley up` or "
        "`parley argilla` starts on `host` and `port`.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="API key of an owner; unset = that of our own Argilla, made at first start in "
        "`<home>/argilla/api-key`. Environment only.",
    )
    webhook_url: HttpUrl | None = Field(
        None,
        description="Address at which Argilla reaches `/argilla/webhook` of the web page, to tell "
        "at once what curators do; unset = we ask every two seconds. With it the page registers "
        "itself there.",
    )
    enabled: bool = Field(
        True,
        description="Whether people's ratings are told to Argilla, and `parley up` starts one of "
        "our own where `url` names none.",
    )
    host: str = Field("127.0.0.1", description="Interface that our own Argilla listens on.")
    port: int = Field(8806, ge=1, le=65535, description="Port that our own Argilla listens on.")
    username: str = Field("parley", description="Name of our own Argilla's owner, to log in with.")
    password: SecretStr | None = Field(
        None,
        min_length=8,
        max_length=100,
        description="The owner's password; unset = made at first start in "
        "`<home>/argilla/password`. Environment only.",
    )
    store: Literal["postgres", "sqlite"] = Field(
        "postgres",
        description="Where our own Argilla keeps its data: in a database of its own on the "
        "Postgres server of `[database]`, or in `<home>/argilla/argilla.db`.",
    )
    database: str = Field(
        "argilla", description="Name of that database, which is created if it is missing."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis for our own Argilla's jobs; unset = one is started with it. "
        "Environment only.",
    )
    environment: Path | None = Field(
        None,
        description="Folder of the virtual environment that Argilla runs in, made when missing; "
        "unset = `<home>/argilla/venv`.",
    )

    @property
    def own(self) -> bool:
        """Whether `parley up` starts an Argilla of our own."""
        return self.enabled and self.url is None

    @property
    def own_url(self) -> str:
        """Address of the Argilla that we start with these settings."""
        return f"http://{reachable_host(self.host)}:{self.port}"

    @property
    def effective_url(self) -> str:
        """Address at which we reach Argilla, without a trailing slash."""
        return (self.url or self.own_url).rstrip("/")


class FeedbackSettings(ProcessSettings):
    """What `python -m feedback` reads from the shared `parley.toml`."""

    model_config = ProcessSettings.model_config | {"extra": "ignore"}

    home: Path = Field(Path(".parley"), description="State folder.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log record that is written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log records.")
    engine: EngineSettings = Field(default_factory=EngineSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    argilla: ArgillaSettings = Field(default_factory=ArgillaSettings)
