"""Settings of a channel and of a server in Discord's modals, checked again when they come back."""

import pytest

from bots.channel_settings import ChannelSettings, WorkspaceSettings, load, load_workspace
from bots.discord_bot import settings_panel
from tests.bots.discord_bot.stage import Stage, hearing
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_world import Channel, Person

stage = hearing(settings_panel)


async def settings_of(stage: Stage, person: Person, channel: Channel) -> ChannelSettings:
    audience = await stage.audience(person, channel)
    return await load(stage.context.workplace.places, audience.channel_id)


async def test_a_channels_behaviour_and_people_are_changed_in_two_modals(stage: Stage) -> None:
    discord = stage.discord
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, ben = discord.add_person("Ana", staff), discord.add_person("Ben")
    team = discord.add_channel("team")
    opened = discord.slash(ana, team, "settings")
    await discord.opened(opened)
    filled = {
        "Behaviour": ["enabled", "ephemeral"],
        "Where to answer": ["inline"],
        "Votes and corrections may train models": ["yes"],
        "comparison_share": "12,5 %",
    }
    assert "are saved" in await discord.told(discord.submit(opened, filled))
    opened = discord.slash(ana, team, "settings", part="people")
    await discord.opened(opened)
    chosen = {"Roles that may ask": [staff], "People and roles to call for help": [ben, staff]}
    assert "are saved" in await discord.told(discord.submit(opened, chosen))
    wanted = ChannelSettings(
        follow_ups=False,
        ephemeral=True,
        answer_in="inline",
        consent_to_train=True,
        comparison_share=0.125,
        roles=(staff.id,),
        humans=(ben.id, staff.id),
    )
    assert await settings_of(stage, ana, team) == wanted
    opened = discord.slash(ana, team, "settings")
    await discord.opened(opened)
    await discord.told(discord.submit(opened))
    assert await settings_of(stage, ana, team) == wanted, "saving what is shown changes nothing"


async def test_a_servers_settings_hold_in_channels_that_set_nothing_else(stage: Stage) -> None:
    discord = stage.discord
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, team = discord.add_person("Ana", staff), discord.add_channel("team")
    opened = discord.slash(ana, team, "settings", part="server")
    await discord.opened(opened)
    filled = {"Where to answer": ["inline"], "consent_to_train": ["yes"], "Model": ["large"]}
    assert "this server are saved" in await discord.told(discord.submit(opened, filled))
    places = stage.context.workplace.places
    audience = await stage.audience(ana, team)
    assert await load_workspace(places, audience.workspace_id) == WorkspaceSettings(
        answer_in="inline", consent_to_train=True, model="large"
    )
    settings = await settings_of(stage, ana, team)
    assert (settings.answer_in, settings.model) == ("inline", "large")


@pytest.mark.parametrize("part", ["channel", "people", "server"])
async def test_rights_that_end_while_a_modal_is_open_are_no_rights(part: str, stage: Stage) -> None:
    discord = stage.discord
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, team = discord.add_person("Ana", staff), discord.add_channel("team")
    opened = discord.slash(ana, team, "settings", part=part)
    await discord.opened(opened)
    discord.take(ana, staff)
    value = {"Roles that may ask": [staff]} if part == "people" else {"answer_in": ["inline"]}
    assert "Only administrators" in await discord.told(discord.submit(opened, value))
    assert await settings_of(stage, ana, team) == ChannelSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [("comparison_share", "101"), ("comparison_share", "x"), ("answer_in", ["everywhere"])],
)
async def test_an_impossible_value_is_said_and_nothing_is_saved(
    field: str, value: object, stage: Stage
) -> None:
    discord = stage.discord
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, team = discord.add_person("Ana", staff), discord.add_channel("team")
    opened = discord.slash(ana, team, "settings")
    await discord.opened(opened)
    told = await discord.told(discord.submit(opened, {"answer_when": ["always"], field: value}))
    assert "nothing was saved" in told
    assert await settings_of(stage, ana, team) == ChannelSettings()
