"""`/parley` for administrators: asked anew every time; and forget-me for everybody."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bots.channel_settings import ChannelSettings, load
from feedback.rankings import MIN_VOTES
from storage import audit
from storage.pool import Pool, one_row
from storage.runs import Runs
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import Stage, listening
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Person
from tests.feedback.conftest import answers_on, compared

REFUSED = "Only administrators of this workspace"
ADMIN_VERBS = [
    "model",
    "model large",
    "settings",
    "train",
    "promote",
    "rollback",
    "judge",
    "status",
]


@pytest.fixture
async def stage(slack: SlackServer, pool: Pool, tmp_path: Path) -> AsyncIterator[Stage]:
    async with serve_models() as engine, listening(slack, pool, engine, tmp_path) as stage:
        yield stage


async def actions(stage: Stage, person: Person, channel: Channel) -> list[str]:
    audience = await stage.audience(person, channel)
    entries = await audit.entries(
        stage.context.workplace.pool, workspace_id=audience.workspace_id, limit=50
    )
    return [entry.action for entry in reversed(entries)]


async def settings_of(stage: Stage, person: Person, channel: Channel) -> ChannelSettings:
    audience = await stage.audience(person, channel)
    return await load(stage.context.workplace.places, audience.channel_id)


# -- Who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ADMIN_VERBS)
async def test_others_are_refused_and_nothing_happens(verb: str, stage: Stage) -> None:
    slack = stage.slack
    eve = slack.add_person("Eve")
    team = slack.add_channel("team", eve)
    await slack.command(eve, team, "/parley", verb).acknowledged()
    await stage.told(eve, team, REFUSED)
    assert await actions(stage, eve, team) == []
    assert slack.world.views == {}
    assert team.messages == {}


async def test_rights_that_end_count_from_the_next_verb(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", "status").acknowledged()
    await stage.told(ana, team, "*Engine*")
    ana.is_admin = False
    await slack.command(ana, team, "/parley", "status").acknowledged()
    await stage.told(ana, team, REFUSED)
    assert await actions(stage, ana, team) == ["status_read"]
    assert len(slack.calls_of("users.info")) == 2


async def test_an_owner_administers_and_nobody_does_while_slack_does_not_say(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    ana.is_owner = True
    team = slack.add_channel("team", ana)
    slack.fail("users.info", error="user_not_found")
    await slack.command(ana, team, "/parley", "status").acknowledged()
    await stage.told(ana, team, REFUSED)
    await slack.command(ana, team, "/parley", "status").acknowledged()
    await stage.told(ana, team, "*Engine*")


async def test_an_administrator_of_another_company_administers_nothing(stage: Stage) -> None:
    slack = stage.slack
    sam = slack.add_person("Sam", admin=True, team_id="T0ELSEWHERE")
    team = slack.add_channel("team", sam, shared=True)
    await slack.command(sam, team, "/parley", "status").acknowledged()
    await stage.told(sam, team, REFUSED)


async def test_who_the_settings_name_administers_without_slacks_word(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    stage.context.people.admins = frozenset({ana.id})
    await slack.command(ana, team, "/parley", "status").acknowledged()
    await stage.told(ana, team, "*Engine*")
    assert slack.calls_of("users.info") == []


# -- Models ---------------------------------------------------------------------------------------


async def test_models_are_listed_and_set_for_the_channel_only(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team, other = slack.add_channel("team", ana), slack.add_channel("other", ana)
    await slack.command(ana, team, "/parley", "model large").acknowledged()
    await stage.told(ana, team, "`large` from now on")
    await slack.command(ana, team, "/parley", "model").acknowledged()
    listed = await stage.told(ana, team, "*Models*")
    assert "`large` (this channel's)" in listed.seen
    assert "mini" not in listed.seen
    assert (await settings_of(stage, ana, team)).model == "large"
    assert (await settings_of(stage, ana, other)).model is None
    await slack.command(ana, team, "/parley", "model default").acknowledged()
    await stage.told(ana, team, "the workspace's model from now on")
    assert (await settings_of(stage, ana, team)).model is None


async def test_a_model_that_is_not_loaded_is_refused(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", "model <!channel>").acknowledged()
    told = await stage.told(ana, team, "is not loaded")
    assert told.pings == []
    assert (await settings_of(stage, ana, team)).model is None


# -- Settings -------------------------------------------------------------------------------------


async def open_settings(stage: Stage, admin: Person, channel: Channel) -> dict[str, object]:
    slack = stage.slack
    opened = len(slack.world.views)
    await slack.command(admin, channel, "/parley", "settings").acknowledged()
    await slack.until(lambda: len(slack.world.views) > opened, "another modal", within_s=10)
    return await slack.modal(admin, "parley_settings")


async def test_the_settings_of_a_channel_are_changed_in_a_modal(stage: Stage) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana", admin=True), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    view = await open_settings(stage, ana, team)
    filled = {
        "switches": ["enabled", "ephemeral"],
        "consent_to_train": "yes",
        "answer_when": "always",
        "who": "everyone",
        "humans": [ben.id],
        "groups": "S0HELPDESK, S0LEGAL",
        "comparison_share": "12.5",
        "model": "large",
    }
    sent = await slack.submit(ana, view, filled).acknowledged()
    assert not sent.response
    await stage.told(ana, team, "are saved")
    wanted = ChannelSettings(
        enabled=True,
        answer_when="always",
        follow_ups=False,
        who="everyone",
        answer_bots=False,
        ephemeral=True,
        humans=(ben.id, "S0HELPDESK", "S0LEGAL"),
        comparison_share=0.125,
        consent_to_train=True,
        model="large",
    )
    assert await settings_of(stage, ana, team) == wanted
    assert await actions(stage, ana, team) == ["settings_read", "settings_changed"]
    again = await open_settings(stage, ana, team)
    await slack.submit(ana, again, {}).acknowledged()
    await slack.until(lambda: len(slack.ephemerals(team, ana)) == 2, "saved again")
    assert await settings_of(stage, ana, team) == wanted, "saving what is shown changes nothing"


async def test_rights_that_end_while_the_modal_is_open_are_no_rights(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    view = await open_settings(stage, ana, team)
    ana.is_admin = False
    sent = await slack.submit(ana, view, {"answer_when": "always"}).acknowledged()
    assert sent.response is not None and REFUSED in str(sent.response)
    assert await settings_of(stage, ana, team) == ChannelSettings()
    assert await actions(stage, ana, team) == ["settings_read"]


@pytest.mark.parametrize("changed", ["user", "team"])
async def test_a_modal_that_somebody_else_opened_is_refused(changed: str, stage: Stage) -> None:
    slack = stage.slack
    ana, eve = slack.add_person("Ana", admin=True), slack.add_person("Eve", admin=True)
    team = slack.add_channel("team", ana, eve)
    view = await open_settings(stage, ana, team)
    forged = json.loads(str(view["private_metadata"])) | {changed: "T0OTHER"}
    sender = eve if changed == "user" else ana
    if changed == "team":
        view = {**view, "private_metadata": json.dumps(forged)}
    sent = await slack.submit(sender, view, {"answer_when": "always"}).acknowledged()
    assert sent.response is not None and sent.response["response_action"] == "update"
    assert await settings_of(stage, ana, team) == ChannelSettings()


@pytest.mark.parametrize(
    ("block", "value"),
    [("groups", "everybody"), ("comparison_share", "101"), ("comparison_share", "x")],
)
async def test_an_impossible_value_is_said_at_its_field(
    block: str, value: str, stage: Stage
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    view = await open_settings(stage, ana, team)
    sent = await slack.submit(ana, view, {block: value}).acknowledged()
    assert sent.response is not None
    assert list(sent.response["errors"]) == [block]
    assert await settings_of(stage, ana, team) == ChannelSettings()


async def test_settings_belong_to_a_channel(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    direct = slack.direct(ana)
    await slack.command(ana, direct, "/parley", "settings").acknowledged()
    await stage.told(ana, direct, "belongs to a channel")


# -- Runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kind", "parameters"),
    [
        ("train", "train", {}),
        ("train DPO", "train", {"recipe": "dpo"}),
        ("promote small-3", "promote", {"version": "small-3"}),
        ("rollback", "rollback", {}),
        ("rollback base", "rollback", {"version": "base"}),
        ("judge v3", "judge", {"version": "v3"}),
    ],
)
async def test_a_run_is_queued_and_its_thread_says_that_it_waits(
    typed: str, kind: str, parameters: dict[str, str], stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", typed).acknowledged()

    def reported() -> bool:
        return any("I tell here how it ends" in m.seen for m in team.messages.values())

    await slack.until(reported, "a report", within_s=10)
    audience = await stage.audience(ana, team)
    (run,) = await Runs(pool).list(audience.workspace_id, limit=5)
    assert (run.kind, run.parameters, run.status) == (kind, parameters, "queued")
    head, report = sorted(team.messages.values(), key=lambda message: message.ts)
    assert report.thread_ts == head.ts == run.place["thread"]
    assert run.place["channel"] == team.id
    assert str(run.id) in report.seen
    assert head.pings == report.pings == []
    assert await actions(stage, ana, team) == [f"{kind}_queued"]
    async with pool.connection() as connection:
        queued = await connection.execute("SELECT queue_name, task_name FROM procrastinate_jobs")
        queue = "training" if kind in ("train", "judge") else "serving"
        assert await queued.fetchall() == [(queue, "run")]


async def test_a_method_that_nobody_knows_is_not_queued(stage: Stage, pool: Pool) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", "train ppo").acknowledged()
    await stage.told(ana, team, "sft, dpo, kto")
    assert await actions(stage, ana, team) == []


async def test_a_run_that_has_no_place_to_report_is_not_queued(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana, app_is_in=False)
    slack.fail("chat.postMessage", error="not_in_channel")
    await slack.command(ana, team, "/parley", "train").acknowledged()
    await stage.told(ana, team, "Am I in this channel?")
    assert await actions(stage, ana, team) == []


async def test_the_status_names_engine_documents_and_runs(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana", admin=True)
    team = slack.add_channel("team", ana)
    audience = await stage.audience(ana, team)
    await stage.context.workplace.documents.add("a.txt", b"text", audience=audience)
    await slack.command(ana, team, "/parley", "rollback").acknowledged()
    await slack.until(lambda: len(team.messages) == 2, "the run's thread")
    await slack.command(ana, team, "/parley", "status").acknowledged()
    told = await stage.told(ana, team, "*Engine*")
    assert "`live`, `small`, `large`" in told.seen
    assert "1 queued" in told.seen
    assert "no version is live" in told.seen
    assert "*Waiting* rollback" in told.seen


# -- For everybody --------------------------------------------------------------------------------


async def test_forget_me_deletes_what_is_the_persons_and_nothing_else(
    stage: Stage, pool: Pool
) -> None:
    slack = stage.slack
    ana, ben = slack.add_person("Ana"), slack.add_person("Ben")
    team = slack.add_channel("team", ana, ben)
    direct = slack.direct(ana)
    shared, answer = await stage.answered(ana, team, "asked in the channel")
    await stage.answered(ana, direct, "asked in private")
    own = await stage.audience(ana, direct)
    await stage.context.workplace.documents.add("diary.txt", b"mine", audience=own, owner="member")
    for person in (ana, ben):
        await slack.click(person, shared, "parley_feedback", side="positive").acknowledged()
    channel = await stage.audience(ana, team)
    await stage.context.workplace.feedback.correct(
        answer_id=answer.id, audience=channel, text="Thirty."
    )
    await slack.command(ana, team, "/parley", "forget-me").acknowledged()
    told = await stage.told(ana, team, "Deleted:")
    assert "1 votes" in told.seen and "1 private documents" in told.seen
    assert await texts(pool, "SELECT text FROM messages") == ["asked in the channel"]
    assert await texts(pool, "SELECT text FROM corrections") == []
    assert await texts(pool, "SELECT name FROM documents") == []
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT member_id FROM votes")
        ben_id = (await stage.audience(ben, team)).member_id
        assert await rows.fetchall() == [(ben_id,)]
        found = await connection.execute(
            "SELECT count(*) FROM members WHERE id = %s", [own.member_id]
        )
        assert (await one_row(found))[0] == 0
    assert list((stage.context.workplace.administration.files_dir).iterdir()) == []


async def texts(pool: Pool, statement: str) -> list[str]:
    async with pool.connection() as connection:
        rows = await connection.execute(statement.encode())
        return [row[0] for row in await rows.fetchall()]


async def test_the_leaderboard_says_how_it_begins(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", "leaderboard").acknowledged()
    await stage.told(ana, team, "No comparisons yet: `/parley compare QUESTION`")


async def test_a_leaderboard_is_shared_with_its_picture_when_asked_to(stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    audience = await stage.audience(ana, team)
    workplace = stage.context.workplace
    answered = answers_on(workplace.conversations)
    for _ in range(MIN_VOTES):
        asked = await answered(audience, "good@1", "bad@1")
        await compared(workplace.feedback, audience, asked, "left")
    await slack.command(ana, team, "/parley", "leaderboard").acknowledged()
    told = await stage.told(ana, team, "1. *good@1*")
    assert "`/parley leaderboard share`" in told.seen and not team.messages
    await slack.command(ana, team, "/parley", "leaderboard share").acknowledged()
    (posted,) = await slack.until(lambda: list(team.messages.values()), "the picture", within_s=30)
    assert "1. *good@1*" in posted.body["text"]
    (file,) = posted.body["files"]
    assert slack.world.files[file["id"]].content.startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["help", "", "nonsense"])
async def test_help_names_every_verb(text: str, stage: Stage) -> None:
    slack = stage.slack
    ana = slack.add_person("Ana")
    team = slack.add_channel("team", ana)
    await slack.command(ana, team, "/parley", text).acknowledged()
    told = await stage.told(ana, team, "What I can do")
    for verb in ("ask", "compare", "documents", "model", "settings", "train", "promote"):
        assert f"/parley {verb}" in told.seen
    for verb in ("rollback", "judge", "status", "leaderboard", "forget-me", "help"):
        assert f"/parley {verb}" in told.seen
