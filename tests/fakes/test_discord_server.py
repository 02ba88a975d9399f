"""The fake Discord's REST API and interactions, driven by the real discord.py."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import aiohttp
import discord
import pytest
from discord import app_commands, ui

from tests.fakes.discord_listener import Listener, listening
from tests.fakes.discord_permissions import Permission as P
from tests.fakes.discord_permissions import in_channel
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel, Person


@pytest.fixture
async def client(discord_server: DiscordServer) -> AsyncIterator[Listener]:
    async with listening(discord_server) as listener:
        yield listener


@pytest.fixture
def ana(discord_server: DiscordServer) -> Person:
    return discord_server.add_person("Ana")


@pytest.fixture
def team(discord_server: DiscordServer) -> Channel:
    return discord_server.add_channel("team")


def rows(*custom_ids: str, label: str = "x", row: int | None = None) -> ui.View:
    view = ui.View(timeout=None)
    for custom_id in custom_ids:
        view.add_item(ui.Button(label=label, custom_id=custom_id, row=row))
    return view


# ---------------------------------------------------------------- permissions


def overwrites(discord_server: DiscordServer) -> Iterator[tuple[str, bool]]:
    """What each overwrite does to a member with two roles, one after the other."""
    server = discord_server
    role, other = server.add_role("a"), server.add_role("b")
    ana, room = server.add_person("Ana", role, other), server.add_channel("room")

    def sees() -> bool:
        return bool(in_channel(room, ana.id) & P.VIEW_CHANNEL)

    yield "by default", sees()
    server.overwrite(room, server.home.everyone, deny=P.VIEW_CHANNEL)
    yield "denied to everyone", sees()
    server.overwrite(room, role, allow=P.VIEW_CHANNEL)
    yield "allowed to a role", sees()
    server.overwrite(room, other, deny=P.VIEW_CHANNEL)
    yield "allowed to a role, denied to another", sees()
    server.overwrite(room, ana, deny=P.VIEW_CHANNEL)
    yield "denied to the member", sees()
    server.change_role(other, P.ADMINISTRATOR)
    yield "denied to the member, who administers", sees()
    server.take(ana, other)
    yield "who administers no more", sees()
    server.overwrite(room, ana, allow=P.VIEW_CHANNEL)
    yield "allowed to the member", sees()


async def test_overwrites_apply_in_discords_order(discord_server: DiscordServer) -> None:
    assert list(overwrites(discord_server)) == [
        ("by default", True),
        ("denied to everyone", False),
        ("allowed to a role", True),
        ("allowed to a role, denied to another", True),
        ("denied to the member", False),
        ("denied to the member, who administers", True),
        ("who administers no more", False),
        ("allowed to the member", True),
    ]


async def test_a_thread_is_seen_as_its_channel_and_a_private_one_by_its_members(
    discord_server: DiscordServer, client: Listener, ana: Person
) -> None:
    bob = discord_server.add_person("Bob")
    room = discord_server.add_channel("room", only=[ana])
    public = discord_server.open_thread(room, "public", owner=ana)
    private = discord_server.open_thread(room, "private", owner=ana, private=True)
    assert not in_channel(public, bob.id) & P.VIEW_CHANNEL
    assert in_channel(public, ana.id) & P.VIEW_CHANNEL
    assert in_channel(private, ana.id) & P.VIEW_CHANNEL
    with pytest.raises(discord.Forbidden) as refused:
        await client.place(private.id).send("hello")
    assert refused.value.code == 50001
    discord_server.let_in(private, discord_server.bot)
    await client.place(private.id).send("hello")


async def test_discord_py_computes_the_same_permissions(
    discord_server: DiscordServer, client: Listener, ana: Person
) -> None:
    role = discord_server.add_role("staff", P.MANAGE_GUILD)
    room = discord_server.add_channel("room", only=[role])
    discord_server.give(ana, role)
    discord_server.overwrite(room, ana, deny=P.SEND_MESSAGES)
    await discord_server.until(lambda: "CHANNEL_UPDATE" in client.events, "the overwrite")
    guild = client.guilds[0]
    member = discord.Member(
        data=cast(Any, discord_server.home.members[ana.id].wire()),
        guild=guild,
        state=client._connection,
    )
    shown = guild.get_channel(int(room.id))
    assert shown is not None
    theirs, ours = shown.permissions_for(member), in_channel(room, ana.id)
    for bit in P:
        assert bool(theirs.value & bit) == bool(ours & bit), bit


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("content", "view", "code"),
    [
        ("x" * 2001, None, 50035),
        ("  ", None, 50006),
        ("x", rows("a" * 101), 50035),
        ("x", rows("a", label="y" * 81), 50035),
        ("x", rows("a", "a"), 50035),
    ],
    ids=["content", "empty", "custom id", "label", "duplicate"],
)
async def test_what_is_too_long_is_refused_in_discords_words(
    client: Listener, team: Channel, content: str, view: ui.View | None, code: int
) -> None:
    with pytest.raises(discord.HTTPException) as refused:
        await client.place(team.id).send(content, view=view or discord.utils.MISSING)
    assert refused.value.status == 400
    assert refused.value.code == code
    assert team.messages == {}


async def test_a_nonce_posts_once(client: Listener, team: Channel) -> None:
    first = await client.place(team.id).send("hello", nonce="turn-1")
    again = await client.place(team.id).send("hello", nonce="turn-1")
    assert first.id == again.id
    assert len(team.messages) == 1
    await client.place(team.id).send("other", nonce="turn-2")
    assert len(team.messages) == 2


async def test_messages_are_listed_around_a_message(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    said = [discord_server.say(ana, team, f"{discord_server.mention} {n}") for n in range(5)]
    third = discord.Object(int(said[2].id))
    after = [m async for m in client.place(team.id).history(after=third)]
    before = [m async for m in client.place(team.id).history(before=third)]
    assert [str(m.id) for m in after] == [said[3].id, said[4].id]
    assert [str(m.id) for m in before] == [said[1].id, said[0].id]


async def test_a_message_has_one_thread_with_its_own_id(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    asked = discord_server.say(ana, team, f"{discord_server.mention} hello")
    await client.contents(1)
    thread = await client.heard[0].create_thread(name="Hello")
    assert str(thread.id) == asked.id
    answer = await thread.send("in it")
    assert [reply.id for reply in discord_server.replies(asked)] == [str(answer.id)]
    with pytest.raises(discord.HTTPException) as refused:
        await client.heard[0].create_thread(name="Once more")
    assert refused.value.code == 160004
    [starter] = [m async for m in thread.history() if m.type.value == 21]
    assert starter.content == ""


@pytest.mark.parametrize(
    ("denied", "code"), [(P.VIEW_CHANNEL, 50001), (P.SEND_MESSAGES, 50013)], ids=str
)
async def test_the_bot_may_do_what_its_overwrites_let_it(
    discord_server: DiscordServer, client: Listener, team: Channel, denied: P, code: int
) -> None:
    discord_server.overwrite(team, discord_server.bot, deny=denied)
    with pytest.raises(discord.Forbidden) as refused:
        await client.place(team.id).send("hello")
    assert refused.value.code == code


async def test_other_peoples_and_deleted_messages_cannot_be_edited(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    asked = discord_server.say(ana, team, "hello")
    with pytest.raises(discord.Forbidden) as refused:
        await client.place(team.id).get_partial_message(int(asked.id)).edit(content="x")
    assert refused.value.code == 50005
    mine = await client.place(team.id).send("hello")
    discord_server.remove(team.messages[str(mine.id)])
    with pytest.raises(discord.NotFound) as gone:
        await mine.edit(content="x")
    assert gone.value.code == 10008


async def test_it_tells_who_is_pinged_and_what_is_unfurled(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    text = f"{ana.mention} @everyone https://a.example <https://b.example> `https://c.example`"
    quiet = await client.place(team.id).send(text, suppress_embeds=True)
    loud = await client.place(team.id).send(text, allowed_mentions=discord.AllowedMentions.all())
    shown = team.messages
    assert (shown[str(quiet.id)].pings, shown[str(quiet.id)].unfurls) == ([], [])
    assert shown[str(loud.id)].pings == [ana.mention]
    assert shown[str(loud.id)].unfurls == ["https://a.example"]
    discord_server.change_role(discord_server.home.everyone, P.MENTION_EVERYONE | P(3072))
    again = await client.place(team.id).send(text, allowed_mentions=discord.AllowedMentions.all())
    assert shown[str(again.id)].pings == ["@everyone", ana.mention]


async def test_files_go_both_ways(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    sent = await client.place(team.id).send(file=discord.File(io.BytesIO(b"table"), "t.csv"))
    assert await sent.attachments[0].read() == b"table"
    file = discord_server.attach("a.md", b"# A")
    discord_server.say(ana, team, discord_server.mention, files=[file])
    await client.contents(1)
    [attachment] = client.heard[0].attachments
    assert (attachment.filename, attachment.size, await attachment.read()) == ("a.md", 3, b"# A")
    file.served = "gone"
    with pytest.raises(discord.NotFound):
        await attachment.read()
    async with aiohttp.ClientSession() as session, session.get(file.url + "0") as forged:
        assert forged.status == 404
    assert [status for _, status in discord_server.cdn.downloads] == [200, 200, 404, 404]


# ---------------------------------------------------------------- faults


async def test_a_429_with_via_is_waited_for_and_one_without_is_a_ban(
    discord_server: DiscordServer, client: Listener, team: Channel
) -> None:
    fault = discord_server.fail("POST /channels", channel=team.id, status=429, retry_after_s=0.05)
    await client.place(team.id).send("hello")
    assert fault.met == 1
    discord_server.fail("POST /channels", channel=team.id, status=429, via=False)
    with pytest.raises(discord.HTTPException) as refused:
        await client.place(team.id).send("hello")
    assert refused.value.status == 429
    elsewhere = discord_server.add_channel("elsewhere")
    discord_server.fail("POST /channels", channel=elsewhere.id, status=503)
    await client.place(team.id).send("passes")


async def test_an_answer_may_be_lost_after_it_took_effect(
    discord_server: DiscordServer, client: Listener, team: Channel
) -> None:
    discord_server.fail("POST /channels", status=503, after=True)
    with pytest.raises(discord.DiscordServerError):
        await client.place(team.id).send("hello")
    assert [message.content for message in team.living()] == ["hello"]


async def test_a_bucket_limits_each_channel(
    discord_server: DiscordServer, client: Listener, team: Channel
) -> None:
    discord_server.limit("POST /channels/{channel}/messages", 2, per_s=0.2)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.place(team.id).send(str(n)) for n in range(5)))
    assert asyncio.get_running_loop().time() - began > 0.3
    assert len(team.messages) == 5


# ---------------------------------------------------------------- interactions


async def test_a_deferred_command_thinks_and_then_says(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    used = discord_server.slash(ana, team, "ask", question="why?")
    got = await client.interaction()
    await got.response.defer(thinking=True)
    assert used.deferred
    assert used.text == ""
    await got.followup.send("because")
    assert await discord_server.told(used) == "because"
    assert used.original is not None
    assert used.followups == []
    await got.followup.send("and only you know", ephemeral=True)
    [secret] = discord_server.ephemerals(ana)
    assert secret.content == "and only you know"
    assert secret.id not in team.messages
    with pytest.raises(discord.HTTPException) as refused:
        await client.http.request(
            discord.http.Route("POST", f"/interactions/{got.id}/{got.token}/callback"),
            json={"type": 5},
        )
    assert refused.value.code == 40060


async def test_an_interaction_is_unknown_after_three_seconds_and_dead_after_fifteen_minutes(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    discord_server.callback_lag_s = 3.0
    discord_server.slash(ana, team, "ask", question="why?")
    with pytest.raises(discord.NotFound) as late:
        await (await client.interaction()).response.defer()
    assert late.value.code == 10062
    discord_server.callback_lag_s = 0.0
    used = discord_server.slash(ana, team, "ask", question="why?")
    got = await client.interaction(2)
    await got.response.defer()
    used.expire()
    with pytest.raises(discord.HTTPException) as dead:
        await got.edit_original_response(content="because")
    assert (dead.value.status, dead.value.code) == (401, 50027)


class Why(ui.Modal, title="Why?"):
    """One question."""

    reason: ui.Label[ui.View] = ui.Label(
        text="Reason", component=ui.TextInput(custom_id="reason", required=False)
    )


async def test_buttons_open_modals_that_people_fill_in(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    sent = await client.place(team.id).send("hello", view=rows("parley:why:1", label="Why"))
    message = team.messages[str(sent.id)]
    clicked = discord_server.click(ana, message, "Why")
    await (await client.interaction()).response.send_modal(Why())
    assert (await discord_server.opened(clicked))["title"] == "Why?"
    sent_in = discord_server.submit(clicked, {"Reason": "because"})
    got = await client.interaction(2)
    assert got.data is not None
    assert got.data["components"][0]["component"]["value"] == "because"  # type: ignore[typeddict-item]
    await got.response.send_message("thank you", ephemeral=True)
    assert await discord_server.told(sent_in) == "thank you"
    assert sent_in.ephemeral
    with pytest.raises(AssertionError):
        discord_server.click(ana, message, "No such button")


async def test_commands_are_kept_by_name_and_offer_choices(
    discord_server: DiscordServer, client: Listener, ana: Person, team: Channel
) -> None:
    tree = app_commands.CommandTree(client)

    async def choices(
        interaction: discord.Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{current}ly", value="parley")]

    @tree.command(name="model", description="Choose a model")
    @app_commands.autocomplete(name=choices)
    async def model(interaction: discord.Interaction, name: str) -> None:
        await interaction.response.send_message(name)

    [first] = await tree.sync()
    [again] = await tree.sync()
    assert first.id == again.id
    [kept] = discord_server.commands[None]
    assert kept["id"] == str(first.id)
    offered = await discord_server.complete(ana, team, "model", "name", "par")
    assert offered == [{"name": "parly", "value": "parley"}]
    used = discord_server.slash(ana, team, "model", name="parley")
    assert await discord_server.told(used) == "parley"
    with pytest.raises(AssertionError):
        discord_server.slash(ana, team, "unknown")


async def test_a_foreign_place_is_told_as_such(
    discord_server: DiscordServer, client: Listener, ana: Person
) -> None:
    foreign = discord_server.add_guild("Foreign", has_app=False)
    discord_server.join(ana, foreign)
    discord_server.slash(ana, discord_server.add_channel("x", guild=foreign), "ask", question="?")
    got = await client.interaction()
    assert not got.is_guild_integration()
    assert got.is_user_integration()
    discord_server.slash(ana, discord_server.direct(ana), "ask", question="?")
    direct = await client.interaction(2)
    assert direct.context.dm_channel
    assert direct.user.id == int(ana.id)
