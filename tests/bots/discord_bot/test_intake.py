"""What people say becomes a question, in the right place, or nothing at all."""

from bots.channel_settings import ChannelSettings, save
from bots.discord_bot.intake import UNREAD
from bots.listening import EMPTY
from storage.places import Places
from storage.pool import Pool
from tests.bots.discord_bot.conftest import AudienceOf, Know, Running
from tests.fakes.discord_gateway import Intent
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Message
from tests.feedback.conftest import rows

LEAVE = "Everybody has 30 days of leave a year."


def posted(discord: DiscordServer) -> list[Message]:
    """Everything that the app wrote, channel by channel."""
    channels = discord.world.channels.values()
    found = [message for channel in channels for message in channel.living()]
    return [m for m in found if m.author is discord.bot and m.body["type"] != 21]


async def test_a_mention_opens_a_thread_where_a_follow_up_needs_no_mention(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    discord_server.allow(Intent.MESSAGE_CONTENT)
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app(message_content=True):
        asked = discord_server.say(ana, team, f"{discord_server.mention} How many days of leave?")
        answer = await discord_server.answer_to(asked)
        thread = answer.channel
        assert (thread.id, thread.name) == (asked.id, "How many days of leave?")
        bob = discord_server.add_person("Bob")
        discord_server.say(bob, thread, f"{ana.mention} is that so?")  # for somebody else
        discord_server.say(bob, team, "How many days of leave?")  # nobody was called
        second = discord_server.say(ana, thread, "And how many days of leave in a year?")
        again = await discord_server.answer_to(second)
        assert again.channel is thread
        assert len(posted(discord_server)) == 2


async def test_without_the_intent_a_reply_with_a_ping_is_heard_and_one_without_is_excused(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app():
        asked = discord_server.say(ana, team, f"<@{discord_server.bot.id}> How many days of leave?")
        answer = await discord_server.answer_to(asked)
        discord_server.say(ana, answer.channel, "And in a year?", reply_to=answer)
        await discord_server.until(lambda: len(posted(discord_server)) == 2, "a second answer")
        discord_server.say(ana, answer.channel, "And now?", reply_to=answer, ping=False)
        await discord_server.until(lambda: len(posted(discord_server)) == 3, "an excuse")
        assert posted(discord_server)[-1].content == UNREAD


async def test_direct_messages_are_answered_where_they_are_asked(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    eve = discord_server.add_person("Eve", outsider=True)
    own = discord_server.direct(eve)
    await discord_know(own, "diary.md", "The cat is called Mia.")
    async with discord_app():
        asked = discord_server.say(eve, own, "What is the cat called?")
        answer = await discord_server.answer_to(asked)
        assert answer.channel is own
        assert "diary" in answer.content
        discord_server.say(eve, own, " ")
        await discord_server.until(lambda: len(posted(discord_server)) == 2, "a remark")
        assert posted(discord_server)[-1].content == EMPTY


async def test_inline_answers_stand_in_the_channel_and_a_reply_goes_on(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_know: Know,
    discord_audience: AudienceOf,
    pool: Pool,
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    here = await discord_audience(team, ana)
    assert here.channel_id is not None and here.member_id is not None
    inline = ChannelSettings(answer_in="inline")
    await save(Places(pool), here.channel_id, inline, by=here.member_id)
    async with discord_app():
        asked = discord_server.say(ana, team, f"{discord_server.mention} How many days of leave?")
        answer = await discord_server.answer_to(asked)
        assert answer.channel is team
        second = discord_server.say(ana, team, "And in a year?", reply_to=answer)
        await discord_server.answer_to(second)
    threads = await rows(pool, "SELECT platform_ref FROM threads")
    assert threads == [(asked.id,)]


async def test_a_private_thread_reads_its_channel_and_a_forgotten_one_is_asked_for(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know, pool: Pool
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app():
        secret = discord_server.open_thread(
            team, "secret", owner=ana, private=True, members=[discord_server.bot]
        )
        asked = discord_server.say(ana, secret, f"{discord_server.mention} How many days of leave?")
        answer = await discord_server.answer_to(asked)
        assert answer.channel is secret
        assert "leave" in answer.content
    places = await rows(pool, "SELECT platform_id FROM channels ORDER BY created_at")
    assert places == [(team.id,), (secret.id,)]
