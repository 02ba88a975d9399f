"""Files that people share become documents: once, whole, of the right people, whatever dies."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.identity import Keys
from storage.pool import Pool, one_row
from tests.bots.slack_bot.filing import Filing, filing
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.fakes.slack_server import SlackServer

PLAN = b"The cabin has twelve beds. The key lies under the third stone.\n"


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, home: Path) -> AsyncIterator[Filing]:
    async with filing(slack, pool, home) as stage:
        yield stage


async def count(pool: Pool, table: str) -> int:
    async with pool.connection() as connection:
        counted = await connection.execute(f"SELECT count(*) FROM {table}".encode())
        return int((await one_row(counted))[0])


async def test_a_shared_file_becomes_a_document_and_one_message_says_so(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team, other = slack.add_channel("team", ana), slack.add_channel("other", ana)
    async with stage.fetching():
        file, shared = slack.share_file(ana, team, "plan.txt", PLAN)
        await stage.status(shared, "Queued")
        async with stage.ingesting():
            status = await stage.status(shared, "Ready: 1 passage")
    assert [reply.ts for reply in slack.replies(shared)] == [status.ts]
    assert {"parley_document_remove", "parley_document_replace"} <= set(status.elements)
    (document,) = await stage.documents(team, ana)
    assert (document.name, document.status) == ("plan.txt", "ready")
    assert document.origin == {"permalink": file.permalink}
    assert await stage.documents(other, ana) == []
    assert await stage.documents(slack.direct(ana), ana) == []


async def test_a_file_in_direct_messages_is_that_persons_own(stage: Filing) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    async with stage.fetching(), stage.ingesting():
        _, shared = slack.share_file(ana, slack.direct(ana), "diary.txt", PLAN)
        await stage.status(shared, "Ready")
    assert [each.name for each in await stage.documents(slack.direct(ana), ana)] == ["diary.txt"]
    assert await stage.documents(slack.direct(ben), ben) == []
    assert await stage.documents(team, ana) == []


async def test_the_same_name_replaces_the_document(stage: Filing) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    async with stage.fetching(), stage.ingesting():
        _, first = slack.share_file(ana, team, "plan.txt", PLAN)
        await stage.status(first, "Ready")
        _, second = slack.share_file(ben, team, "plan.txt", PLAN * 2)
        await stage.status(second, "Ready")
    (document,) = await stage.documents(team, ana)
    assert document.bytes == 2 * len(PLAN)


async def test_a_message_its_mention_and_a_redelivery_are_one_file(
    stage: Filing, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching(), stage.ingesting():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN, text=slack.mention)
        await stage.status(shared, "Ready")
        for delivery in list(slack.sockets.deliveries):
            await slack.redeliver(delivery).acknowledged()
    assert await count(pool, "shared_files") == 1
    assert await count(pool, "procrastinate_jobs WHERE task_name = 'fetch_file'") == 0
    assert len(slack.file_host.downloads) == 1
    assert len([m for m in slack.replies(shared) if "plan.txt" in m.body["text"]]) == 1


async def test_a_file_is_noted_before_the_ack_and_fetched_by_whoever_comes_next(
    stage: Filing, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    _, shared = slack.share_file(ana, team, "plan.txt", PLAN)
    await slack.sockets.deliveries[-1].acknowledged()
    assert await count(pool, "shared_files") == 1
    assert slack.calls_of("chat.postMessage") == []
    async with stage.fetching(), stage.ingesting():
        await stage.status(shared, "Ready")
    (document,) = await stage.documents(team, ana)
    assert document.searchable


async def test_a_kill_after_the_ack_loses_no_file_and_no_status_message(
    slack: SlackServer, slack_process: SlackProcess, pool: Pool, keys: Keys, home: Path
) -> None:
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    lost = slack.fail("chat.postMessage", hang=True, after=True)  # posted, but nobody learns it
    async with slack_process:
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN)
        await slack.sockets.deliveries[-1].acknowledged()
        await slack.until(lambda: lost.met, "the status is posted")
        await slack_process.kill()
        assert slack.file_host.downloads == []
        await slack_process.start()
        stage = Filing(
            slack=slack,
            context=None,  # type: ignore[arg-type]  # the process has its own
            pool=pool,
            state=home,
        )
        async with stage.ingesting():
            status = await stage.status(shared, "Ready", within_s=60.0)
    assert [reply.ts for reply in slack.replies(shared)] == [status.ts]
    assert await count(pool, "documents") == 1


# -- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "{stranger}/files-pri/T-F/file",
        "http://files.slack.com/files-pri/T-F/file",
        "https://files.slack.com:8443/files-pri/T-F/file",
        "https://files.slack.com.evil.example/files-pri/T-F/file",
        "https://files.slack.com@{stranger_host}/files-pri/T-F/file",
        "http://me:secret@{host}/files-pri/T-F/file",
        "https://{host}/files-pri/T-F/file",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/file",
        "https://files.slack.com\\@{stranger_host}/file",
        "file:///etc/passwd",
        "not a url",
    ],
)
async def test_the_token_goes_to_slacks_file_hosts_only(url: str, stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    hostile = url.format(
        stranger=slack.stranger_root,
        stranger_host=slack.stranger_root.removeprefix("http://"),
        host=slack.root.removeprefix("http://"),
    )
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN, url=hostile)
        await stage.status(shared, "Failed: It lies outside of Slack")
    assert slack.stranger.requests == []
    assert slack.file_host.downloads == []
    assert await stage.documents(team, ana) == []


async def test_a_redirect_is_not_followed(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(
            ana, team, "plan.txt", PLAN, served="redirect", redirect_to=slack.stranger_root
        )
        await stage.status(shared, "Failed: Slack shows me a login page")
    assert slack.stranger.requests == []
    assert await stage.documents(team, ana) == []


@pytest.mark.parametrize("name", ["plan.txt", "plan.pdf", "page.html"])
async def test_a_login_page_is_never_the_document(name: str, stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, name, PLAN, served="html")
        await stage.status(shared, "Failed: Slack shows me a login page")
    assert await stage.documents(team, ana) == []
    assert list((stage.state / "files").iterdir()) == []


async def test_a_page_of_html_that_was_really_shared_is_read(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    page = b"<!DOCTYPE html><html><body><p>The cabin has twelve beds.</p></body></html>"
    async with stage.fetching(), stage.ingesting():
        _, shared = slack.share_file(ana, team, "cabin.html", page, mimetype="text/html")
        await stage.status(shared, "Ready")


async def test_too_large_a_file_is_not_begun(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN, size=200 * 2**20)
        await stage.status(shared, "Failed: The file is larger than 100 MB")
    assert slack.file_host.downloads == []


async def test_a_file_without_an_end_is_left_at_the_limit(
    slack: SlackServer, stage: Filing, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = stage.context.workplace.documents._settings.model_copy(update={"max_upload_mb": 1})
    monkeypatch.setattr(stage.context.workplace.documents, "_settings", small)
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN, served="endless")
        await stage.status(shared, "Failed: The file is larger than 1 MB")
    assert list((stage.state / "files").iterdir()) == []


async def test_what_cannot_be_read_says_why(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching(), stage.ingesting():
        _, song = slack.share_file(ana, team, "song.mp3", b"ID3", mimetype="audio/mpeg")
        _, program = slack.share_file(ana, team, "tool.exe", b"MZ" + bytes(range(256)))
        await stage.status(song, "Failed: I read no sound")
        await stage.status(program, "Failed: ")
    assert len(slack.file_host.downloads) == 1


async def test_a_deleted_file_says_so(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN, deleted=True)
        await stage.status(shared, "Failed: Slack no longer has this file")


async def test_a_guests_file_is_left_alone_without_a_word(stage: Filing, pool: Pool) -> None:
    slack = stage.slack
    ana, gus = slack.add_person("Ana"), slack.add_person("Gus", guest=True)
    team = slack.add_channel("team", ana, gus)
    async with stage.fetching():
        _, left = slack.share_file(gus, team, "spam.txt", PLAN)
        _, taken = slack.share_file(ana, team, "plan.txt", PLAN)
        await stage.status(taken, "Queued")
        async with stage.ingesting():
            await stage.status(taken, "Ready")
    assert slack.replies(left) == []
    assert [each.name for each in await stage.documents(team, ana)] == ["plan.txt"]


# -- The shortcut ---------------------------------------------------------------------------------


async def test_add_to_knowledge_takes_a_messages_text(stage: Filing) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    said = slack.say(ben, team, "Rooms &lt; 5 are in <https://x.example|the annex>.")
    async with stage.fetching(), stage.ingesting():
        used = slack.shortcut(ana, said, "parley_add_knowledge")
        await used.acknowledged()
        await stage.status(said, "Ready")
    (document,) = await stage.documents(team, ana)
    assert document.name.startswith("Message of ")
    assert document.origin == {"permalink": slack.permalink(team.id, said.ts)}
    (path,) = (stage.state / "files").iterdir()
    assert path.read_text() == "Rooms < 5 are in the annex (https://x.example)."


async def test_add_to_knowledge_takes_a_messages_files_again(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching(), stage.ingesting():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN)
        status = await stage.status(shared, "Ready")
        await slack.click(ana, status, "parley_document_remove").acknowledged()
        await stage.status(shared, "Removed by")
        await slack.shortcut(ana, shared, "parley_add_knowledge").acknowledged()
        await stage.status(shared, "Ready")
    assert [each.name for each in await stage.documents(team, ana)] == ["plan.txt"]


async def test_a_strangers_shortcut_adds_nothing_and_says_so(stage: Filing) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana"), slack.add_person("Eve", team_id="T0ELSEWHERE")
    team = slack.add_channel("team", ana, eve, shared=True)
    said = slack.say(ana, team, "The vault is open.")
    async with stage.fetching():
        await slack.shortcut(eve, said, "parley_add_knowledge").acknowledged()
        await stage.told(eve, team, "only members of this workspace")
    assert await stage.documents(team, ana) == []


# -- Slack in trouble -----------------------------------------------------------------------------


async def test_an_event_without_an_address_is_completed_by_asking(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    file = slack.file_host.add(
        "plan.txt", PLAN, mimetype="text/plain", user=ana.id, team_id=team.team_id
    )
    bare = [{"id": file.id, "name": "plan.txt", "file_access": "check_file_info"}]
    async with stage.fetching(), stage.ingesting():
        shared = slack.say(ana, team, "", extra={"subtype": "file_share", "files": bare})
        await stage.status(shared, "Ready")


async def test_a_status_that_slack_refuses_does_not_keep_the_file_out(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    refused = slack.fail("chat.postMessage", error="restricted_action", times=None)
    async with stage.fetching(), stage.ingesting():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN)
        await slack.until(lambda: refused.met >= 2, "two refused statuses")
    (document,) = await stage.documents(team, ana)
    assert document.name == "plan.txt"
    assert slack.replies(shared) == []


async def test_a_file_that_slack_does_not_hand_out_is_waited_for(stage: Filing) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching(), stage.ingesting():
        file, shared = slack.share_file(ana, team, "plan.txt", PLAN, served="away")
        waiting = await stage.status(shared, "Slack does not hand it out yet")
        file.served = "content"
        assert (await stage.status(shared, "Ready")).ts == waiting.ts


async def test_a_file_that_never_comes_is_given_up_after_an_hour(stage: Filing, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    _, shared = slack.share_file(ana, team, "plan.txt", PLAN, served="away")
    await slack.sockets.deliveries[-1].acknowledged()
    async with pool.connection() as connection:
        await connection.execute("UPDATE shared_files SET created_at = now() - interval '2 hours'")
    async with stage.fetching():
        await stage.status(shared, "Failed: Slack did not hand it out for an hour")


async def test_a_bug_ends_in_a_plain_sentence(
    stage: Filing, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("storage.shared_files.MAX_FILE_ATTEMPTS", 1)
    monkeypatch.setattr(stage.context.workplace.documents, "add", broken)
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    async with stage.fetching():
        _, shared = slack.share_file(ana, team, "plan.txt", PLAN)
        await stage.status(shared, "Failed: something went wrong on our side")
    assert len(slack.replies(shared)) == 1
    async with pool.connection() as connection:
        left = await connection.execute("SELECT source FROM shared_files")
        assert (await one_row(left))[0] == {}


def test_nothing_of_a_forged_file_is_believed() -> None:
    from bots.slack_bot.downloads import SlackFile

    forged = json.loads('{"id": null, "name": 7, "size": "many", "url_private": ["x"]}')
    read = SlackFile.read(forged)
    assert (read.id, read.bytes) == ("", 0)
