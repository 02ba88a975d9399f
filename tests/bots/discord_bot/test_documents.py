"""Documents at Discord are listed, found, removed by whoever may, and replaced."""

import pytest

from bots.document_list import NOT_YOURS
from tests.bots.discord_bot.conftest import DocumentsOf, Running
from tests.bots.discord_bot.test_files import PLAN, status
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer


@pytest.mark.usefixtures("worker")
async def test_documents_are_listed_found_and_removed_by_whoever_may(
    discord_server: DiscordServer, discord_app: Running, discord_documents: DocumentsOf
) -> None:
    discord = discord_server
    staff = discord.add_role("staff", Permission.MANAGE_GUILD)
    ana, ben = discord.add_person("Ana"), discord.add_person("Ben")
    boss = discord.add_person("Boss", staff)
    team, other = discord.add_channel("team"), discord.add_channel("other")
    async with discord_app():
        nothing = await discord.told(discord.slash(ana, team, "documents"))
        assert "I know no documents here yet" in nothing
        files = [discord.attach(f"{name}.txt", PLAN + name.encode()) for name in ("one", "two")]
        discord.slash(ana, team, "upload", file=files[0], second=files[1])
        one = await status(discord, "one.txt**: Ready")
        await status(discord, "two.txt**: Ready")
        shown = await discord.told(discord.slash(ben, team, "documents"))
        assert "Documents here" in shown and "one.txt" in shown and "two.txt" in shown
        (choice,) = await discord.complete(ben, team, "documents", "name", "tw")
        assert choice["name"] == "two.txt"
        assert await discord.complete(ben, other, "documents", "name", "tw") == []
        forged = discord.slash(ben, other, "documents", name=choice["value"])
        assert "No document here has" in await discord.told(forged)
        assert await discord.told(discord.click(ben, one, "Remove")) == NOT_YOURS
        for person, name in ((ana, "one.txt"), (boss, "two.txt")):
            message = await status(discord, f"{name}**: Ready")
            sure = discord.click(person, message, "Remove")
            assert "deleted for good" in await discord.told(sure)
            discord.click(person, sure.messages[-1], "Remove")
            await status(discord, f"{name}**: Removed by")
    assert await discord_documents(team, ana) == []


@pytest.mark.usefixtures("worker")
async def test_a_document_is_replaced_by_a_file_of_its_kind(
    discord_server: DiscordServer, discord_app: Running, discord_documents: DocumentsOf
) -> None:
    discord = discord_server
    ana = discord.add_person("Ana")
    team = discord.add_channel("team")
    async with discord_app():
        discord.slash(ana, team, "upload", file=discord.attach("plan.txt", PLAN))
        first = await status(discord, "plan.txt**: Ready")
        click = discord.click(ana, first, "Replace")
        await discord.opened(click)
        wrong = discord.submit(click, {"file": [discord.attach("x.pdf", b"%PDF")]})
        assert "choose a .txt file" in await discord.told(wrong)
        click = discord.click(ana, first, "Replace")
        await discord.opened(click)
        discord.submit(click, {"file": [discord.attach("new.txt", PLAN * 2)]})
        await discord.until(
            lambda: len([m for m in team.living() if "plan.txt**: Ready" in m.content]) == 2,
            "the new file ready",
            within_s=30,
        )
    (document,) = await discord_documents(team, ana)
    assert (document.name, document.bytes) == ("plan.txt", 2 * len(PLAN))
