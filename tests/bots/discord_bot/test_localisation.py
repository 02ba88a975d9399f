"""Every name, description, option, choice and context menu is there in every language."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from discord import Locale

from bots.discord_bot.client import build_commands
from bots.discord_bot.localisation import LANGUAGES, TEXTS
from bots.discord_bot.sync import wanted
from storage.pool import Pool
from tests.bots.discord_bot.stage import logged_in
from tests.bots.model_list import serve_models
from tests.fakes.discord_server import DiscordServer

Json = dict[str, Any]


@pytest.fixture
async def commands(
    discord_server: DiscordServer, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Json]]:
    """All commands as they are told to Discord."""
    async with (
        serve_models() as engine,
        logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
    ):
        yield await wanted(await build_commands(stage.context.client, stage.context))


def texts(part: Json) -> Iterator[tuple[str, str, Json]]:
    """Every text below a command: which it is, English, and by language."""
    for key in ("name", "description"):
        if part.get(key):
            yield key, part[key], part.get(f"{key}_localizations") or {}
    for inner in (*part.get("options", ()), *part.get("choices", ())):
        yield from texts(inner)


async def test_everything_people_read_of_commands_is_translated(commands: list[Json]) -> None:
    read = [found for command in commands for found in texts(command)]
    languages = {Locale.german, Locale.spain_spanish, Locale.french}
    assert languages <= set(LANGUAGES)
    missing = [
        (english, locale.value)
        for _, english, known in read
        for locale in languages
        if not known.get(locale.value)
    ]
    assert missing == []
    too_long = [
        text
        for key, _, known in read
        for text in known.values()
        if key == "description" and len(text) > 100
    ]
    assert too_long == []
    assert {english for _, english, _ in read} == set(TEXTS), "nothing is translated in vain"


async def test_no_two_commands_have_one_name_in_a_language(commands: list[Json]) -> None:
    for locale in LANGUAGES:
        names = [command["name_localizations"][locale.value] for command in commands]
        assert len(set(names)) == len(names)
