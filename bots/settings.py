"""The settings of every `bots` process: one frozen object, composed of each room's section."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from engine.prompt import MAX_ANSWER_TOKENS
from engine.settings import EngineSettings, ProcessSettings, Section
from feedback.settings import ArgillaSettings
from storage.settings import DatabaseSettings, DocumentsSettings, SearchSettings, TrainingSettings


class AssistantSettings(Section):
    """`[assistant]`: how one turn is answered."""

    model: str = Field("live", description="Model or alias that answers.")
    max_source_tokens: int = Field(
        350, ge=50, description="Most prompt tokens that a turn's sources may take."
    )
    max_answer_tokens: int = Field(
        MAX_ANSWER_TOKENS, ge=1, description="Most tokens of one answer."
    )
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


class ChatSettings(Section):
    """What every chat platform has."""

    max_concurrent_turns: int = Field(
        4, ge=1, le=64, description="Questions answered at once; further ones see their position."
    )
    edit_interval_s: float = Field(
        1.0, gt=0, description="Shortest time between two edits of one streamed message."
    )
    request_timeout_s: float = Field(
        15.0, gt=0, description="Deadline of one call to the platform's API."
    )
    hello_timeout_s: float = Field(
        10.0, gt=0, description="Wait for a new socket's hello before another one is tried."
    )


class SlackSettings(ChatSettings):
    """`[slack]`: the Slack app. Socket Mode with two tokens is enough for one workspace."""

    bot_token: SecretStr | None = Field(
        None,
        description="Bot token (`xoxb-…`) of the one workspace that the app serves; unset = "
        "workspaces install it by OAuth. Environment only.",
    )
    app_token: SecretStr | None = Field(
        None, description="App-level token (`xapp-…`) for Socket Mode. Environment only."
    )
    signing_secret: SecretStr | None = Field(
        None,
        description="Signs what Slack sends in HTTP mode, which needs it. Environment only.",
    )
    client_id: str | None = Field(
        None, description="OAuth client; with `client_secret`, several workspaces may install."
    )
    client_secret: SecretStr | None = Field(
        None, description="Secret of the OAuth client. Environment only."
    )
    redirect_url: str | None = Field(
        None,
        description="Public address of `/slack/oauth_redirect`; unset = the one that the app's "
        "configuration at Slack names.",
    )
    mode: Literal["socket", "http"] = Field(
        "socket", description="How events arrive: over a WebSocket that we open, or by HTTP."
    )
    base_url: str = Field(
        "https://slack.com/api/", description="Root of Slack's Web API; another one in tests."
    )
    host: str = Field("127.0.0.1", description="Interface for events by HTTP and for OAuth.")
    port: int = Field(8802, ge=0, le=65535, description="Port for events by HTTP and for OAuth.")
    admins: tuple[str, ...] = Field(
        (), description="Slack user ids that may use admin verbs besides workspace admins."
    )
    file_hosts: tuple[str, ...] = Field(
        ("files.slack.com",), description="Hosts that shared files are downloaded from, by https."
    )
    ping_interval_s: float = Field(
        5.0, gt=0, description="Between pings of the socket; after four unanswered it is dead."
    )
    uninstall_grace_days: float = Field(
        7.0, ge=0, description="Between the app's removal from a workspace and its data's deletion."
    )

    @property
    def enabled(self) -> bool:
        """Whether the app can start: it is identified, and events have a way in."""
        identified = self.bot_token is not None or self.oauth
        way_in = self.app_token if self.mode == "socket" else self.signing_secret
        return identified and way_in is not None

    @property
    def oauth(self) -> bool:
        """Whether workspaces install the app by OAuth."""
        return self.client_id is not None and self.client_secret is not None

    @property
    def api_url(self) -> str:
        """`base_url` with one trailing slash."""
        return self.base_url.rstrip("/") + "/"


class DiscordSettings(ChatSettings):
    """`[discord]`: the Discord app. A bot token is enough."""

    token: SecretStr | None = Field(None, description="Bot token of the app. Environment only.")
    api_url: str = Field(
        "https://discord.com/api/v10",
        description="Root of Discord's REST API; another one for tests and proxies.",
    )
    gateway_url: str | None = Field(
        None, description="WebSocket for events; unset = the one that the REST API names."
    )
    message_content: bool = Field(
        False,
        description="Whether the app has the privileged message content intent, and so hears "
        "messages that neither mention it nor are direct.",
    )
    admin_roles: tuple[str, ...] = Field(
        (), description="Ids of roles that may use admin commands besides Manage Server."
    )
    cdn_hosts: tuple[str, ...] = Field(
        ("cdn.discordapp.com", "media.discordapp.net"),
        description="Hosts that attachments are downloaded from, by https.",
    )
    edit_interval_s: float = Field(
        1.0, ge=1.0, description="Shortest time between two edits of one streamed message."
    )
    request_timeout_s: float = Field(
        60.0,
        gt=0,
        description="Deadline of one call to Discord's REST API, the pauses that Discord demands "
        "included.",
    )
    catch_up_hours: float = Field(
        24.0, ge=0, description="Age of the oldest message that is answered after a time away."
    )
    removal_grace_days: float = Field(
        7.0, ge=0, description="Between the app's removal from a server and its data's deletion."
    )

    @property
    def enabled(self) -> bool:
        """Whether the app can start."""
        return self.token is not None

    @property
    def api_root(self) -> str:
        """`api_url` as a prefix of routes: with a version, without a trailing slash."""
        url = urlsplit(self.api_url.rstrip("/"))
        if url.path in ("", "/api"):
            return f"{url.scheme}://{url.netloc}/api/v10"
        return self.api_url.rstrip("/")


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
    slack: SlackSettings = Field(default_factory=SlackSettings)
    discord: DiscordSettings = Field(default_factory=DiscordSettings)
    argilla: ArgillaSettings = Field(default_factory=ArgillaSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
