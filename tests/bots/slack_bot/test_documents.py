"""Documents are listed, removed and replaced by those who may, where they belong."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bots.document_list import LISTED
from storage.pool import Pool
from tests.bots.slack_bot.filing import Filing, filing
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

PLAN = b"The cabin has twelve beds. The key lies under the third stone.\n"
REMOVE, REPLACE = "parley_document_remove", "parley_document_replace"


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, home: Path) -> AsyncIterator[Filing]:
    async with filing(slack, pool, home) as stage, stage.fetching(), stage.ingesting():
        yield stage


async def shared(stage: Filing, person: Person, channel: Channel, name: str) -> Message:
    """The status message of a file that is ready."""
    _, message = stage.slack.share_file(person, channel, name, PLAN)
    return await stage.status(message, "Ready")


async def names(stage: Filing, person: Person, channel: Channel) -> list[str]:
    return [document.name for document in await stage.documents(channel, person)]


async def test_whoever_shared_a_document_removes_it_and_its_status_says_so(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    status = await shared(stage, ana, team, "plan.txt")
    await slack.click(ana, status, REMOVE).acknowledged()
    await stage.told(ana, team, "is removed")
    assert status.body["text"] == f"*plan.txt*: Removed by <@{ana.id}>."
    assert status.elements == {}
    assert await names(stage, ana, team) == []
    assert list((stage.state / "files").iterdir()) == []


async def test_others_cannot_remove_it_but_administrators_can(stage: Filing) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    boss = slack.add_person("Bo", admin=True)
    team = slack.add_channel("team", ana, ben, boss)
    status = await shared(stage, ana, team, "plan.txt")
    await slack.click(ben, status, REMOVE).acknowledged()
    await stage.told(ben, team, "Only whoever shared this document")
    assert await names(stage, ana, team) == ["plan.txt"]
    await slack.click(boss, status, REMOVE).acknowledged()
    await stage.told(boss, team, "is removed")
    assert await names(stage, ana, team) == []


@pytest.mark.parametrize("action", [REMOVE, REPLACE])
async def test_an_id_from_another_channel_is_refused(action: str, stage: Filing) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve", admin=True)
    secret, lobby = slack.add_channel("secret", ana), slack.add_channel("lobby", eve)
    await shared(stage, ana, secret, "secret.txt")
    own = await shared(stage, eve, lobby, "own.txt")
    (hidden,) = await stage.documents(secret, ana)
    await slack.click(eve, own, action, value=str(hidden.id)).acknowledged()
    await stage.told(eve, lobby, "belongs to another conversation")
    assert await names(stage, ana, secret) == ["secret.txt"]
    assert slack.world.views == {}


async def test_the_replace_form_gives_the_document_new_bytes(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    status = await shared(stage, ana, team, "plan.txt")
    (before,) = await stage.documents(team, ana)
    await slack.click(ana, status, REPLACE).acknowledged()
    view = await slack.modal(ana, "parley_replace")
    new = slack.file_host.add(
        "plan of may.txt", PLAN * 3, mimetype="text/plain", user=ana.id, team_id=team.team_id
    )
    sent = await slack.submit(ana, view, {"file": [new]}).acknowledged()
    assert not sent.response
    parent = team.messages[str(status.thread_ts)]

    def replaced() -> bool:
        ready = [m for m in slack.replies(parent) if "Ready" in m.body["text"]]
        return len(ready) == 2

    await slack.until(replaced, "a second ready status")
    (after,) = await stage.documents(team, ana)
    assert (after.id, after.name, after.bytes) == (before.id, "plan.txt", 3 * len(PLAN))


async def test_another_kind_of_file_is_no_replacement(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    status = await shared(stage, ana, team, "plan.txt")
    await slack.click(ana, status, REPLACE).acknowledged()
    view = await slack.modal(ana, "parley_replace")
    new = slack.file_host.add(
        "plan.pdf", b"%PDF", mimetype="application/pdf", user=ana.id, team_id=team.team_id
    )
    for files, said in (([new], ".txt file"), ([], "choose the new file")):
        sent = await slack.submit(ana, view, {"file": files}).acknowledged()
        assert sent.response is not None
        assert said in sent.response["errors"]["file"]


async def test_a_form_that_does_not_open_leaves_another_way(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    status = await shared(stage, ana, team, "plan.txt")
    slack.fail("views.open", error="expired_trigger_id")
    await slack.click(ana, status, REPLACE).acknowledged()
    await stage.told(ana, team, "Share a file named *plan.txt* here")


async def test_the_list_shows_what_may_be_read_here_and_finds_by_name(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team, other = slack.add_channel("team", ana), slack.add_channel("other", ana)
    await shared(stage, ana, team, "plan.txt")
    await shared(stage, ana, team, "menu.txt")
    await slack.command(ana, team, "/parley", "documents").acknowledged()
    listed = await stage.told(ana, team, "plan.txt")
    assert "menu.txt" in listed.seen
    assert "Ready: 1 passage" in listed.seen
    await slack.command(ana, team, "/parley", "documents MENU").acknowledged()
    found = await stage.told(ana, team, "(1)")
    assert "plan.txt" not in found.seen
    await slack.command(ana, other, "/parley", "documents").acknowledged()
    await stage.told(ana, other, "I know no documents here yet")


async def test_a_document_can_be_removed_from_the_list(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    status = await shared(stage, ana, team, "plan.txt")
    await slack.command(ana, team, "/parley", "documents").acknowledged()
    listed = await stage.told(ana, team, "plan.txt")
    await slack.click(ana, listed, REMOVE).acknowledged()
    await stage.told(ana, team, "is removed")
    assert "Removed by" in status.body["text"]
    assert await names(stage, ana, team) == []


async def test_a_long_list_stays_within_a_message(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    audience = await stage.audience(team, ana)
    for number in range(LISTED + 5):
        name = f"<!channel> & {number} " + "x" * 230 + ".txt"
        await stage.context.workplace.documents.add(name, b"x", audience=audience)
    await slack.command(ana, team, "/parley", "documents").acknowledged()
    listed = await stage.told(ana, team, "And 5 more")
    assert "<!channel>" not in str(listed.body)
