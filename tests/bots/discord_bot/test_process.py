"""Starting the app: clear errors, commands registered when asked to, a connection that is kept."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from bots.check import parts_health
from bots.discord_bot import gateway, process
from bots.discord_bot.process import run, sync_commands
from bots.discord_bot.redaction import TOKENS
from bots.errors import ServiceMissing
from bots.redaction import redact
from bots.settings import DiscordSettings, Settings
from bots.supervisor import parts_of
from engine.errors import SettingsInvalid
from storage.settings import DatabaseSettings
from tests.bots.conftest import free_port
from tests.bots.discord_bot.conftest import Running
from tests.fakes.discord_server import DiscordServer


@pytest.fixture
def settings(discord_server: DiscordServer, home: Path, database_url: str) -> Settings:
    """The settings of the app beside the fake Discord."""
    return Settings(
        home=home,
        database=DatabaseSettings(url=SecretStr(database_url)),
        discord=DiscordSettings(
            token=SecretStr(discord_server.token),
            api_url=discord_server.api_url,
            gateway_url=discord_server.gateway_url,
        ),
    )


def with_discord(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"discord": settings.discord.model_copy(update=changes)})


async def test_a_missing_or_wrong_token_and_a_missing_intent_are_settings_to_correct(
    settings: Settings,
) -> None:
    with pytest.raises(SettingsInvalid, match="PARLEY_DISCORD__TOKEN"):
        await run(with_discord(settings, token=None))
    with pytest.raises(SettingsInvalid, match="refuses the token"):
        await run(with_discord(settings, token=SecretStr("wrong")))
    with pytest.raises(SettingsInvalid, match="message content intent"):
        await run(with_discord(settings, message_content=True))


async def test_a_discord_that_is_away_is_a_service_that_is_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_PAUSE_S", 0.01)
    nowhere = with_discord(settings, api_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServiceMissing, match="Discord does not answer"):
        await run(nowhere)
    [part] = [part for part in await parts_health(nowhere) if part.part == "discord"]
    assert not part.healthy
    [part] = [part for part in await parts_health(settings) if part.part == "discord"]
    assert part.healthy and part.detail.startswith("parley")


async def test_commands_are_registered_when_asked_to_and_only_once(
    discord_server: DiscordServer, settings: Settings
) -> None:
    changed = await sync_commands(settings)
    assert {"ask", "compare"} <= set(changed)
    registered = discord_server.commands[None]
    assert {tuple(sorted(command["contexts"])) for command in registered} >= {(0, 1, 2)}
    assert await sync_commands(settings) == []
    assert len(discord_server.calls_of("PUT /applications/{application}/commands")) == 1
    registered[0]["description"] = "something else"
    assert await sync_commands(settings) == [registered[0]["name"]]


async def test_a_start_registers_nothing_and_says_what_differs(
    discord_server: DiscordServer, discord_app: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with discord_app():
        await discord_server.until(
            lambda: (
                any("parley discord sync" in text for text in caplog.messages)
                or discord_server.calls_of("GET /applications/{application}/commands")
            ),
            "a look at the commands",
        )
    assert discord_server.calls_of("PUT /applications/{application}/commands") == []


async def test_a_gateway_that_closes_at_once_or_talks_nonsense_is_tried_again_with_pauses(
    discord_server: DiscordServer, discord_app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "FIRST_PAUSE_S", 0.1)
    async with discord_app(gateway_url=None):  # the REST API names it
        connection = await discord_server.gateway.connected()
        discord_server.gateway.refuse = 3
        await connection.close(4000)
        await discord_server.until(lambda: discord_server.gateway.refuse == 0, "three attempts")
        await discord_server.gateway.connected()
        discord_server.gateway.emit("MESSAGE_CREATE", lambda intents: {"odd": True})
        ana = discord_server.add_person("Ana")
        asked = discord_server.slash(ana, discord_server.direct(ana), "ask", question="Leave?")
        await discord_server.acknowledged(asked)


def test_no_token_of_a_bot_or_an_interaction_is_written() -> None:
    bot = "MTA4NTMyNDEyMzQ1Njc4OTAxMg.GabCde.abcdefghijklmnopqrstuvwxyz0123456789AB"
    interaction = "aW50ZXJhY3Rpb246MTIzOmFiYw"
    for text in (
        f"Authorization: Bot {bot}",
        f"POST https://x/api/v10/interactions/1/{interaction}/callback",
        f"PATCH /webhooks/1/{interaction}/messages/@original",
        f"{{'id': '1', 'token': '{interaction}'}}",
    ):
        shown = redact(text, TOKENS)
        assert bot not in shown and interaction not in shown
    plain = "the gateway closed (4000); Shard ID None has connected to Gateway"
    assert redact(plain, TOKENS) == plain


async def test_up_runs_the_app_where_there_is_a_token(settings: Settings) -> None:
    def names(settings: Settings) -> list[str]:
        return [part.name for part in parts_of(settings, own_engine=False)]

    assert "discord" in names(settings)
    assert "discord" not in names(with_discord(settings, token=None))
