"""Files become documents of the right people, once; a question's are its thread's."""

import time

import pytest

from bots.discord_bot.files import NO_QUESTION, NOTHING
from storage.jobs import Ingest, run_worker
from storage.pool import Pool
from tests.bots.app_process import eventually
from tests.bots.conftest import running
from tests.bots.discord_bot.conftest import DocumentsOf, Running
from tests.bots.discord_bot.discord_process import DiscordProcess
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import Message, SentFile
from tests.fakes.scripted_model import ScriptedModel
from tests.feedback.conftest import rows

PLAN = b"The cabin has twelve beds. The key lies under the third stone.\n"
ADD = "Add to knowledge"


@pytest.fixture
def plan(discord_server: DiscordServer) -> SentFile:
    return discord_server.attach("plan.txt", PLAN)


def own(discord: DiscordServer) -> list[Message]:
    """Everything that the app wrote and that still stands."""
    every = [m for channel in discord.world.channels.values() for m in channel.living()]
    return [m for m in every if m.author is discord.bot and m.body["type"] != 21]


async def seen(discord: DiscordServer, used: Interaction, part: str) -> Message:
    """The message in answer to a command, once it says `part`."""

    def check() -> Message | None:
        return next((m for m in used.messages if part in m.seen), None)

    found = await discord.until(check, f"an answer with {part!r}")
    assert found is not None
    return found


async def status(discord: DiscordServer, part: str) -> Message:
    """The app's own message that says `part`."""

    def check() -> Message | None:
        return next((m for m in own(discord) if part in m.seen), None)

    found = await discord.until(check, f"a status with {part!r}")
    assert found is not None
    return found


# -- Files of a question --------------------------------------------------------------------------


@pytest.mark.usefixtures("worker")
async def test_an_attachment_is_read_for_its_question_and_thread_and_for_nothing_else(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_documents: DocumentsOf,
    plan: SentFile,
    model: ScriptedModel,
) -> None:
    discord = discord_server
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team = discord.add_channel("team")
    async with discord_app():
        asked = discord.say(ana, team, f"{discord.mention} How many beds?", files=[plan])
        answer = await discord.answer_to(asked)
        assert "plan.txt" in answer.seen
        assert any("Reading plan.txt" in version for version in answer.versions)
        assert "twelve beds" in str(model.prompts[-1])

        follow_up = discord.say(ben, answer.channel, f"{discord.mention} Where is the key?")
        assert "plan.txt" in (await discord.answer_to(follow_up)).seen

        asked_before = len(model.prompts)
        elsewhere = discord.say(ana, team, f"{discord.mention} How many beds in the cabin?")
        assert "plan.txt" not in (await discord.answer_to(elsewhere)).seen
        assert len(model.prompts) == asked_before  # nothing was found, so nobody was asked
    assert await discord_documents(team, ana) == []
    assert discord.cdn.authorized == []


@pytest.mark.usefixtures("worker")
async def test_an_answer_tells_which_attachments_could_not_be_read(
    discord_server: DiscordServer, discord_app: Running, plan: SentFile
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    song = discord.attach("song.mp3", b"ID3", mimetype="audio/mpeg")
    async with discord_app():
        asked = discord.say(ana, discord.direct(ana), "How many beds?", files=[song, plan])
        answer = await discord.answer_to(asked)
        assert "plan.txt" in answer.seen
        await status(discord, "song.mp3: Failed: I read no sound")
        discord.say(ana, discord.direct(ana), "", files=[discord.attach("a.txt", PLAN)])
        await status(discord, NO_QUESTION.split("/")[0])


@pytest.mark.usefixtures("worker")
async def test_a_kill_while_attachments_are_read_loses_neither_them_nor_the_question(
    discord_server: DiscordServer, discord_process: DiscordProcess, plan: SentFile, pool: Pool
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team = discord.add_channel("team")
    plan.served = "away"
    async with discord_process:
        asked = discord.say(ana, team, f"{discord.mention} How many beds?", files=[plan])
        await discord.until(lambda: discord.cdn.downloads, "a download")
        await discord_process.kill()
        plan.served = "content"
        await discord_process.start()
        answer = await discord.answer_to(asked)
        assert "plan.txt" in answer.seen
    assert len(own(discord)) == 1
    assert await rows(pool, "SELECT count(*) FROM documents") == [(1,)]


# -- /upload --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("worker")
async def test_uploads_become_the_channels_documents_and_each_says_so_in_one_message(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_documents: DocumentsOf,
    plan: SentFile,
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team, other = discord.add_channel("team"), discord.add_channel("other")
    menu = discord.attach("menu.txt", b"On Monday there is soup.\n")
    # Discord may learn of the ack long after the files were stored and fetched
    discord.fail("callback", delay_s=0.5)
    async with discord_app():
        used = discord.slash(ana, team, "upload", file=plan, second=menu)
        first = await seen(discord, used, "**plan.txt**: Ready: 1 passage")
        second = await status(discord, "**menu.txt**: Ready: 1 passage")
    assert used.original is first
    assert [message.id for message in used.messages] == [first.id]
    assert {message.id for message in own(discord)} == {first.id, second.id}
    assert first.ephemeral_to is None
    assert list(first.buttons) == ["Replace", "Remove"]
    documents = await discord_documents(team, ana)
    assert sorted(each.name for each in documents) == ["menu.txt", "plan.txt"]
    where = f"https://discord.com/channels/{discord.home.id}/{team.id}"
    links = {each.name: each.origin for each in documents}
    assert links["plan.txt"] == {"permalink": f"{where}/{first.id}"}
    assert await discord_documents(other, ana) == []
    assert await discord_documents(discord.direct(ana), ana) == []


async def test_a_foreign_place_is_told_privately_and_the_file_is_its_owners_alone(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_documents: DocumentsOf,
    plan: SentFile,
    worker: None,
) -> None:
    discord = discord_server
    foreign = discord.add_guild("Foreign", has_app=False)
    lobby = discord.add_channel("lobby", guild=foreign)
    ana = discord.add_person("Ana")
    discord.join(ana, foreign)
    async with discord_app():
        used = discord.slash(ana, lobby, "upload", file=plan)
        said = await seen(discord, used, "Ready")
    assert said.ephemeral_to == ana.id
    (document,) = await discord_documents(discord.direct(ana), ana)
    assert document.name == "plan.txt"


async def test_a_kill_after_the_ack_loses_no_upload_and_no_status(
    discord_server: DiscordServer,
    discord_process: DiscordProcess,
    plan: SentFile,
    pool: Pool,
    worker: None,
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team = discord.add_channel("team")
    lost = discord.fail("PATCH /webhooks", hang=True, after=True)  # shown, but nobody learns it
    async with discord_process:
        used = discord.slash(ana, team, "upload", file=plan)
        await discord.until(lambda: lost.met, "a status")
        await discord_process.kill()
        assert discord.cdn.downloads == []
        await discord_process.start()
        ready = await seen(discord, used, "Ready")
    assert [message.id for message in own(discord)] == [ready.id]
    assert await rows(pool, "SELECT count(*) FROM documents") == [(1,)]


async def test_a_status_goes_on_after_the_commands_token_has_ended(
    discord_server: DiscordServer,
    discord_app: Running,
    plan: SentFile,
    pool: Pool,
    read_in: Ingest,
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team = discord.add_channel("team")
    async with discord_app():
        used = discord.slash(ana, team, "upload", file=plan)
        first = await seen(discord, used, "Queued")
        used.expire()
        async with running(run_worker(pool, ingest=read_in)):
            await discord.until(lambda: "Ready" in first.seen, "a status that goes on")
    assert own(discord) == [first]


# -- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "{stranger}/attachments/1/2/plan.txt"}, "It lies outside of Discord"),
        ({"url": "http://cdn.discordapp.com/attachments/1/2/plan.txt"}, "It lies outside"),
        ({"served": "redirect", "redirect_to": "{stranger}"}, "Discord no longer has this file"),
        ({"served": "gone"}, "Discord no longer has this file"),
        ({"size": 200 * 2**20}, "The file is larger than 100 MB"),
    ],
)
async def test_what_is_not_discords_or_too_large_is_not_fetched(
    change: dict[str, str | int],
    said: str,
    discord_server: DiscordServer,
    discord_app: Running,
    discord_documents: DocumentsOf,
    plan: SentFile,
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team = discord.add_channel("team")
    for name, value in change.items():
        text = value.format(stranger=discord.stranger_root) if isinstance(value, str) else value
        setattr(plan, name, text)
    async with discord_app():
        used = discord.slash(ana, team, "upload", file=plan)
        await seen(discord, used, f"**plan.txt**: Failed: {said}")
    assert discord.stranger.requests == []
    assert [status for _, status in discord.cdn.downloads if status == 200] == []
    assert await discord_documents(team, ana) == []


async def test_a_file_of_somebody_who_may_no_longer_read_there_is_not_taken(
    discord_server: DiscordServer,
    discord_process: DiscordProcess,
    discord_documents: DocumentsOf,
    plan: SentFile,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    discord = discord_server
    ana, staff = discord.add_person("Ana"), discord.add_role("staff")
    discord.give(ana, staff)
    secret = discord.add_channel("secret", only=[staff])
    plan.served = "away"
    async with discord_process:
        discord.slash(ana, secret, "upload", file=plan)
        await discord.until(lambda: discord.cdn.downloads, "a download")
        await discord_process.kill()
        discord.take(ana, staff)
        plan.served = "content"
        long_ago = str(int(time.time()) - 60)
        async with pool.connection() as connection:  # the roles that came along are not news
            await connection.execute(
                "UPDATE procrastinate_jobs SET args = jsonb_set(args, '{place,asked}', %s)"
                " WHERE task_name = 'fetch_file'",
                [f'"{long_ago}"'],
            )
        await discord_process.start()

        async def given_up() -> bool:
            return await rows(pool, "SELECT source FROM shared_files") == [({},)]

        await eventually(given_up, "the file is given up")
    assert await discord_documents(secret, ana) == []


# -- The context menu -----------------------------------------------------------------------------


@pytest.mark.usefixtures("worker")
async def test_add_to_knowledge_takes_a_messages_files_else_its_text(
    discord_server: DiscordServer,
    discord_app: Running,
    discord_documents: DocumentsOf,
    plan: SentFile,
) -> None:
    discord = discord_server
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    team = discord.add_channel("team")
    where = f"https://discord.com/channels/{discord.home.id}/{team.id}"
    shared = discord.say(ben, team, "Look", files=[plan])
    said = discord.say(ben, team, f"{ana.mention} has the key.")
    empty = discord.say(ben, team, "")
    async with discord_app():
        discord.use_on(ana, shared, ADD)
        await status(discord, "**plan.txt**: Ready")
        (document,) = await discord_documents(team, ana)
        assert document.origin == {"permalink": f"{where}/{shared.id}"}
        discord.use_on(ana, said, ADD)
        text = await status(discord, f"({said.id}).txt**: Ready")
        assert text.body["message_reference"]["message_id"] == said.id
        nothing = discord.use_on(ana, empty, ADD)
        assert await discord.told(nothing) == NOTHING
        assert nothing.ephemeral
    names = {each.name: each.origin["permalink"] for each in await discord_documents(team, ana)}
    assert len(names) == 2
    assert f"{where}/{said.id}" in names.values()
    assert len(own(discord)) == 2
