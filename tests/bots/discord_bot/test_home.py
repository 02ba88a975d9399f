"""`/home`: the person's own votes, consent and what is known here, for their eyes alone."""

from datetime import UTC, datetime
from uuid import uuid4

from bots.channel_settings import WorkspaceSettings
from bots.discord_bot import home, rate
from bots.discord_bot.markdown import units
from bots.home import Home
from feedback import Leaderboard, MyVote, Ranked
from storage.identity import AnswerId
from tests.bots.discord_bot.stage import Stage, hearing

stage = hearing(home, rate)


async def test_the_home_shows_the_persons_own_and_nothing_of_others(stage: Stage) -> None:
    discord = stage.discord
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team, secret = discord.add_channel("team"), discord.add_channel("secret")
    answer, _ = await stage.answered(ana, team)
    await discord.told(discord.click(ana, answer, "Good answer"))
    documents = stage.context.workplace.documents
    for channel, name in ((team, "here.txt"), (secret, "secret.txt")):
        await documents.add(name, b"text", audience=await stage.audience(ana, channel))
    shown = discord.slash(ana, team, "home")
    text = await discord.told(shown)
    assert shown.ephemeral
    assert "👍" in text and "here.txt" in text and "secret.txt" not in text
    assert "You have not voted yet." in await discord.told(discord.slash(ben, team, "home"))


async def test_consent_is_off_and_can_be_given_and_withdrawn(stage: Stage) -> None:
    discord = stage.discord
    ana, team = discord.add_person("Ana"), discord.add_channel("team")
    member = (await stage.audience(ana, team)).member_id
    assert member is not None
    members = stage.context.workplace.members
    shown = discord.slash(ana, team, "home")
    assert "do not train" in await discord.told(shown)
    agreed = discord.click(ana, shown.messages[0], "I agree")
    assert "have agreed" in await discord.told(agreed)
    assert await members.consent(member)
    withdrawn = discord.click(ana, agreed.messages[0], "Withdraw my consent")
    assert "do not train" in await discord.told(withdrawn)
    assert not await members.consent(member)


def test_the_longest_home_is_one_message_of_discords() -> None:
    row = Ranked(model="*" * 500, rank=None, strength=None, win_rate=None, wins=1, losses=2, ties=3)
    vote = MyVote(
        answer_id=AnswerId(uuid4()),
        question="😀" * 500,
        value=1,
        reasons=(),
        comment=None,
        at=datetime.now(UTC),
    )
    full = Home(
        consents=True,
        votes=[vote] * 10,
        documents=[],
        leaderboard=Leaderboard(
            models=(row,) * 50, position=None, length=None, votes=6, excluded={}
        ),
        settings=WorkspaceSettings(),
    )
    post = home.home_post(full)
    assert units(post.content) <= 2000
    assert "😀" in post.content
