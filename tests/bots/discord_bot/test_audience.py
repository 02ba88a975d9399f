"""Who may read what, by Discord's own permissions: for commands, messages and late answers."""

import pytest

from bots.channel_settings import ChannelSettings, save
from storage.conversations import Conversations
from storage.identity import Keys
from storage.places import Places
from storage.pool import Pool
from tests.bots.app_process import eventually
from tests.bots.discord_bot.conftest import AudienceOf, Know, Running
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Channel, ChannelType, Person
from tests.feedback.conftest import rows

LEAVE = "Everybody has 30 days of leave a year."
QUESTION = "How many days of leave?"
LONG_AGO = "1700000000"


async def nothing_found(discord: DiscordServer, asked: Interaction) -> None:
    """Wait for an answer that says so."""
    await discord.until(
        lambda: [
            m for m in discord.replies(asked) if "found nothing" in m.content or NO in m.content
        ],
        "an answer without documents",
        within_s=10,
    )


async def settled(pool: Pool) -> None:
    """Wait until nothing is to be answered any more."""

    async def nothing_left() -> bool:
        turns = "SELECT 1 FROM procrastinate_jobs WHERE queue_name = 'discord'"
        return await rows(pool, turns) == []

    await eventually(nothing_left, "no turn left")


NO = "There are no documents here yet"


async def test_a_channel_s_documents_are_found_by_those_who_see_it_and_only_there(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    staff = discord_server.add_role("staff")
    ana, bob = discord_server.add_person("Ana", staff), discord_server.add_person("Bob")
    board = discord_server.add_channel("board", only=[staff])
    team = discord_server.add_channel("team")
    await discord_know(board, "leave.md", LEAVE)
    async with discord_app():
        asked = discord_server.slash(ana, board, "ask", question=QUESTION)
        assert "leave.md" in (await discord_server.answer_to(asked)).content
        elsewhere = discord_server.slash(ana, team, "ask", question=QUESTION)
        await nothing_found(discord_server, elsewhere)
        refused = discord_server.slash(bob, board, "ask", question=QUESTION)
        assert "may not read" in await discord_server.told(refused)
        assert refused.ephemeral
        discord_server.take(ana, staff)
        lost = discord_server.slash(ana, board, "ask", question=QUESTION)
        assert "may not read" in await discord_server.told(lost)
        discord_server.give(ana, staff)
        discord_server.overwrite(board, ana, deny=Permission.VIEW_CHANNEL)
        denied = discord_server.slash(ana, board, "ask", question=QUESTION)
        assert "may not read" in await discord_server.told(denied)


async def test_a_channel_is_open_as_long_as_everyone_sees_it(
    discord_server: DiscordServer, discord_app: Running, pool: Pool
) -> None:
    staff = discord_server.add_role("staff")
    ana = discord_server.add_person("Ana", staff)
    board = discord_server.add_channel("board", only=[staff])
    team = discord_server.add_channel("team")

    async def is_open(channel: Channel) -> list[tuple[bool]]:
        await nothing_found(discord_server, discord_server.slash(ana, channel, "ask", question="?"))
        return await rows(pool, f"SELECT open FROM channels WHERE platform_id = '{channel.id}'")

    async with discord_app():
        assert await is_open(board) == [(False,)]
        assert await is_open(team) == [(True,)]


@pytest.mark.parametrize("has_role", [True, False])
async def test_a_late_answer_asks_discord_for_the_roles_of_its_asker(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    discord_audience: AudienceOf,
    pool: Pool,
    keys: Keys,
    has_role: bool,
) -> None:
    staff = discord_server.add_role("staff")
    ana = discord_server.add_person("Ana", *([staff] if has_role else []))
    board = discord_server.add_channel("board", only=[staff])
    await discord_know(board, "leave.md", LEAVE)
    asked = discord_server.say(ana, board, QUESTION, deliver=False)
    here = await discord_audience(board, ana)
    await Conversations(pool=pool, keys=keys).accept_question(
        audience=here,
        thread_ref=asked.id,
        message_ref=asked.id,
        text=QUESTION,
        author_id=here.member_id,
        surface="discord",
        place=left_behind(discord_server, board, ana, asked.id) | {"roles": staff.id},
    )
    async with discord_app():
        if has_role:
            assert "leave.md" in (await discord_server.answer_to(asked)).content
            return
        await settled(pool)
    assert discord_server.replies(asked) == []


@pytest.mark.parametrize("still_in", [True, False])
async def test_a_late_answer_in_a_private_thread_is_for_its_members(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    discord_audience: AudienceOf,
    pool: Pool,
    keys: Keys,
    still_in: bool,
) -> None:
    ana, bob = discord_server.add_person("Ana"), discord_server.add_person("Bob")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    secret = discord_server.open_thread(
        team, "secret", owner=bob, private=True, members=[discord_server.bot]
    )
    asked = discord_server.say(ana, secret, QUESTION, deliver=False)
    here = await discord_audience(secret, ana)
    place = left_behind(discord_server, secret, ana, asked.id) | {"also": team.id}
    await Conversations(pool=pool, keys=keys).accept_question(
        audience=here,
        thread_ref=secret.id,
        message_ref=asked.id,
        text=QUESTION,
        author_id=here.member_id,
        surface="discord",
        place=place,
    )
    if not still_in:
        secret.members.discard(ana.id)
    async with discord_app():
        if still_in:
            assert "leave.md" in (await discord_server.answer_to(asked)).content
            return
        await settled(pool)
    assert discord_server.replies(asked) == []


def left_behind(
    discord: DiscordServer, channel: Channel, person: Person, message: str
) -> dict[str, str]:
    """The place of a question that a process before this one took."""
    return {
        "platform": "discord",
        "workspace": discord.home.id,
        "channel": channel.id,
        "member": person.id,
        "asked": LONG_AGO,
        "reply_to": channel.id,
        "message": message,
        "via": "message",
    }


async def test_whoever_brings_the_app_along_is_answered_alone_and_without_the_server_s_documents(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    foreign = discord_server.add_guild("Foreign", has_app=False)
    lobby = discord_server.add_channel("lobby", guild=foreign)
    ana = discord_server.add_person("Ana", guild=foreign)
    await discord_know(lobby, "leave.md", LEAVE)
    await discord_know(discord_server.direct(ana), "diary.md", "The cat is called Mia.")
    async with discord_app():
        asked = discord_server.slash(ana, lobby, "ask", question=QUESTION)
        await discord_server.until(lambda: asked.text, "an answer", within_s=10)
        own = discord_server.slash(ana, lobby, "ask", question="What is the cat called?")
        await discord_server.until(lambda: "diary.md" in own.text, "an answer", within_s=10)
        assert asked.ephemeral and own.ephemeral
        assert "leave.md" not in asked.text
        group = discord_server.world.add_channel(
            type=ChannelType.GROUP_DM, name="friends", recipients=[ana]
        )
        among = discord_server.slash(ana, group, "ask", question="What is the cat called?")
        await discord_server.until(lambda: "diary.md" in among.text, "an answer", within_s=10)
        assert among.ephemeral


async def test_a_channel_answers_only_the_roles_that_its_settings_name(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_audience: AudienceOf,
    pool: Pool,
) -> None:
    chosen = discord_server.add_role("chosen")
    ana, bob = discord_server.add_person("Ana", chosen), discord_server.add_person("Bob")
    team = discord_server.add_channel("team")
    here = await discord_audience(team, ana)
    assert here.channel_id is not None and here.member_id is not None
    only = ChannelSettings(roles=(chosen.id,))
    await save(Places(pool), here.channel_id, only, by=here.member_id)
    async with discord_app():
        refused = discord_server.slash(bob, team, "ask", question=QUESTION)
        assert "certain roles" in await discord_server.told(refused)
        asked = discord_server.slash(ana, team, "ask", question=QUESTION)
        await nothing_found(discord_server, asked)
        said = discord_server.say(bob, team, f"{discord_server.mention} {QUESTION}")
        told = await discord_server.until(lambda: discord_server.replies(said), "a refusal")
        assert "certain roles" in told[0].content
