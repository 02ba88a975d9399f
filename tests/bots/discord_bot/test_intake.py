"""What people say becomes a question, in the right place, or nothing at all."""

from tests.bots.discord_bot.conftest import Know, Running
from tests.fakes.discord_server import DiscordServer

LEAVE = "Everybody has 30 days of leave a year."


async def test_a_mention_opens_a_thread_with_the_answer_and_a_follow_up_needs_no_mention(
    discord_server: DiscordServer, discord_app: Running, discord_know: Know
) -> None:
    ana = discord_server.add_person("Ana")
    team = discord_server.add_channel("team")
    await discord_know(team, "leave.md", LEAVE)
    async with discord_app():
        asked = discord_server.say(ana, team, f"{discord_server.mention} How many days of leave?")
        answer = await discord_server.answer_to(asked)
        assert answer.channel.name == "How many days of leave?"
        print(answer.content)
