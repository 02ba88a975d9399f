"""The Slack app as a process of its own: what breaks on the way, and who may not be harmed by it.

Slack is the fake that speaks its wire protocol; database, queue, search, engine process and app are
real. The model's words and their times are chosen by each test.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from storage.identity import Audience
from storage.places import Places
from storage.pool import Pool
from tests.bots.app_process import eventually, no_turns
from tests.bots.slack_bot.conftest import Know
from tests.bots.slack_bot.slack_process import SlackProcess
from tests.e2e.handbook import ANSWER, HANDBOOK, LEAVE, QUESTION
from tests.engine.serving import EngineProcess
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person

CHECKOUT = Path(__file__).parents[2]
ACK_DEADLINE_S = 3.0
RESIDENT_LIMIT_MB = 150

AudienceOf = Callable[[Channel, Person | None], Awaitable[Audience]]


@pytest.fixture
async def app(
    slack: SlackServer, slack_process: SlackProcess, model: ScriptedModel
) -> AsyncIterator[SlackProcess]:
    """The app, connected, with no more rights than its manifest asks for."""
    obey_manifest(slack)
    model.script = lambda prompt: ANSWER
    async with slack_process as process:
        yield process


def obey_manifest(slack: SlackServer) -> None:
    """Let Slack grant and send what the manifest asks for, and nothing else."""
    manifest = yaml.safe_load((CHECKOUT / "deploy" / "slack-manifest.yaml").read_text())
    slack.limit_scopes(*manifest["oauth_config"]["scopes"]["bot"])
    slack.subscriptions = frozenset(manifest["settings"]["event_subscriptions"]["bot_events"])


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
async def team(slack: SlackServer, ana: Person, know: Know) -> Channel:
    """A channel with a handbook."""
    channel = slack.add_channel("team", ana)
    await know(channel, "handbook.md", HANDBOOK)
    return channel


def rated(slack: SlackServer, asked: Message) -> list[Message]:
    """The finished answers to a question."""
    return [reply for reply in slack.replies(asked) if "context_actions" in _kinds(reply)]


async def settled(slack: SlackServer, pool: Pool) -> None:
    """Wait until nothing is on its way to the app and no question waits in its queue."""

    async def nothing_waits() -> bool:
        return await no_turns(pool, "slack") and not slack.sockets.pending

    await eventually(nothing_waits, "everything is done", within_s=60)


async def the_answer(slack: SlackServer, asked: Message, *, within_s: float = 60.0) -> Message:
    """The answer, which says what the handbook says."""
    answer = await slack.answer_to(asked, within_s=within_s)
    assert LEAVE in answer.seen
    return answer


# ---------------------------------------------------------------- one answer


async def test_a_mention_is_answered_once_in_its_thread_with_its_source(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    answer = await the_answer(slack, asked)
    assert "handbook.md" in answer.seen
    assert answer.thread_ts == asked.ts
    for delivery in list(slack.sockets.deliveries):
        await slack.redeliver(delivery).acknowledged()
    await settled(slack, pool)
    assert rated(slack, asked) == [answer]
    assert len(slack.replies(asked)) == 1


async def test_a_direct_message_streams_natively(
    slack: SlackServer, app: SlackProcess, ana: Person, know: Know, model: ScriptedModel
) -> None:
    direct = slack.direct(ana)
    await know(direct, "handbook.md", HANDBOOK)
    model.may_end.clear()
    asked = slack.say(ana, direct, QUESTION)
    await slack.until(lambda: slack.calls_of("chat.startStream"), "a stream")
    model.may_end.set()
    answer = await the_answer(slack, asked)
    assert answer.stream is not None
    assert slack.replies(asked) == [answer]


async def test_follow_ups_in_a_thread_of_ours_need_no_mention(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await the_answer(slack, asked)
    follow_up = slack.say(ana, team, "And how many days of annual leave again?", thread=asked)
    await slack.answer_to(follow_up)
    chat = slack.say(ana, team, "How many days of annual leave, by the way?")
    await settled(slack, pool)
    assert slack.replies(chat) == []


async def test_what_no_document_says_is_said_plainly(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, model: ScriptedModel
) -> None:
    asked = slack.say(ana, team, f"{slack.mention} Which volcano erupted in Iceland in 2010?")
    answer = await slack.until(lambda: slack.replies(asked), "an answer")
    await slack.until(
        lambda: any(word in answer[0].seen.lower() for word in ("nothing", "not find")),
        "a plain no",
    )
    assert model.begun == 0


async def test_a_shared_file_is_read_and_the_answer_links_to_it(
    slack: SlackServer, app: SlackProcess, ana: Person
) -> None:
    room = slack.add_channel("room", ana)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bots", "worker"), cwd=CHECKOUT, env=app.environment
    )
    try:
        file, shared = slack.share_file(ana, room, "handbook.md", HANDBOOK.encode())
        await slack.until(
            lambda: any("Ready" in reply.seen for reply in slack.replies(shared)), "it is read"
        )
        assert slack.file_host.downloads == [(file.id, 200)]
        asked = slack.say(ana, room, f"{slack.mention} {QUESTION}")
        answer = await the_answer(slack, asked)
        assert file.permalink in answer.seen
        elsewhere = slack.add_channel("elsewhere", ana)
        foreign = slack.say(ana, elsewhere, f"{slack.mention} {QUESTION}")
        [reply] = await slack.until(lambda: slack.replies(foreign), "a reply")
        await slack.until(lambda: "context_actions" in _kinds(reply), "which is final")
        assert LEAVE not in reply.seen
    finally:
        worker.terminate()
        await worker.wait()


def _kinds(message: Message) -> set[str]:
    return {block["type"] for block in message.blocks}


# ---------------------------------------------------------------- acks and crashes


async def test_the_ack_does_not_wait_for_the_engine(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, model: ScriptedModel
) -> None:
    model.may_begin.clear()
    asked = [slack.say(ana, team, f"{slack.mention} {QUESTION} ({n})") for n in range(10)]
    for delivery in list(slack.sockets.deliveries):
        [attempt] = (await delivery.acknowledged(ACK_DEADLINE_S)).attempts
        assert attempt.ack_s is not None
        assert attempt.ack_s < ACK_DEADLINE_S
    await slack.until(lambda: all(slack.replies(m) for m in asked), "a visible reply to each")
    model.may_begin.set()
    for message in asked:
        await the_answer(slack, message)


async def test_a_kill_after_the_ack_loses_nothing(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    model.may_end.clear()
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    for delivery in list(slack.sockets.deliveries):
        await delivery.acknowledged()
    await model.begun_answers(1)
    await slack.until(lambda: slack.replies(asked), "a first visible reply")
    await app.kill()
    model.may_end.set()
    await app.start()
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert slack.replies(asked) == [answer]


async def test_a_kill_between_a_post_and_its_record_leaves_one_message(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    slack.fail("chat.postMessage", after=True, hang=True)
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.until(lambda: slack.replies(asked), "the first post")
    await app.kill()
    await app.start()
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert slack.replies(asked) == [answer]


async def test_an_event_while_the_app_is_away_is_answered_after_its_start(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    await app.kill()
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await app.start()
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert rated(slack, asked) == [answer]


async def test_a_stop_is_clean(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, model: ScriptedModel
) -> None:
    model.may_end.clear()
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await model.begun_answers(1)
    assert await app.stop() == 0
    assert "Traceback" not in app.log
    model.may_end.set()
    await app.start()
    await the_answer(slack, asked)
    assert len(slack.replies(asked)) == 1


# ---------------------------------------------------------------- the socket


async def test_the_app_comes_back_after_cuts_and_warnings(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel
) -> None:
    [connection] = await slack.sockets.connected()
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await connection.cut()
    await the_answer(slack, asked)
    [connection] = await slack.sockets.connected()
    await connection.warn("refresh_requested")
    await slack.until(
        lambda: any(c.number > connection.number for c in slack.sockets.connections), "a new socket"
    )
    again = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await the_answer(slack, again)


async def test_the_app_survives_expired_tickets_and_refused_sockets(
    slack: SlackServer,
    slack_process: SlackProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
) -> None:
    model.script = lambda prompt: ANSWER
    slack.sockets.refuse = 2
    async with slack_process:
        asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
        await the_answer(slack, asked)
        slack.sockets.ticket_lives_s = 0.0
        [connection] = await slack.sockets.connected()
        await connection.cut()
        opened = len(slack.calls_of("apps.connections.open"))
        await slack.until(
            lambda: len(slack.calls_of("apps.connections.open")) > opened, "another ticket"
        )
        slack.sockets.ticket_lives_s = 30.0
        await slack.sockets.connected()
        again = slack.say(ana, team, f"{slack.mention} {QUESTION}")
        await the_answer(slack, again)


async def test_a_socket_that_still_says_connected_is_replaced(
    slack: SlackServer,
    slack_process: SlackProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
) -> None:
    model.script = lambda prompt: ANSWER
    slack_process.environment["PARLEY_SLACK__PING_INTERVAL_S"] = "0.5"
    async with slack_process:
        [connection] = await slack.sockets.connected()
        connection.go_deaf()
        await slack.sockets.connected()
        asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
        await the_answer(slack, asked)


# ---------------------------------------------------------------- Slack's moods


@pytest.mark.parametrize(
    "mood",
    [
        {"method": "chat.update", "status": 429, "retry_after_s": 1, "times": 3},
        {"method": "chat.update", "error": "ratelimited", "times": 3},
        {"method": "chat.update", "status": 503, "times": 2},
        {"method": "chat.postMessage", "status": 429, "retry_after_s": 1, "times": 2},
        {"method": "chat.postMessage", "status": 503, "after": True},
        {"method": "chat.update", "error": "invalid_blocks"},
    ],
    ids=lambda mood: "-".join(str(value) for value in mood.values()),
)
async def test_an_answer_arrives_whole_whatever_slack_says(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    pool: Pool,
    mood: dict[str, Any],
) -> None:
    fault = slack.fail(channel=team.id, **mood)
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.until(
        lambda: any(LEAVE in reply.seen for reply in slack.replies(asked)), "an answer"
    )
    await settled(slack, pool)
    assert fault.met
    assert len([reply for reply in slack.replies(asked) if LEAVE in reply.seen]) == 1


async def test_a_stream_that_expires_loses_no_word(
    slack: SlackServer, app: SlackProcess, ana: Person, know: Know, model: ScriptedModel, pool: Pool
) -> None:
    direct = slack.direct(ana)
    await know(direct, "handbook.md", HANDBOOK)
    model.may_end.clear()
    asked = slack.say(ana, direct, QUESTION)
    await model.begun_answers(1)
    await slack.until(lambda: any("Full-time" in m.seen for m in slack.replies(asked)), "a start")
    slack.expire_streams()
    model.may_end.set()
    await slack.until(lambda: any(LEAVE in m.seen for m in slack.replies(asked)), "the whole")
    await settled(slack, pool)
    shown = "\n".join(reply.seen for reply in slack.replies(asked))
    assert shown.count(LEAVE) == 1


# ---------------------------------------------------------------- engine and database


async def test_while_the_engine_is_down_a_message_says_so_and_becomes_the_answer(
    slack: SlackServer,
    app: SlackProcess,
    chat_engine: EngineProcess,
    ana: Person,
    team: Channel,
    pool: Pool,
) -> None:
    await asyncio.to_thread(chat_engine.stop, signal.SIGKILL)
    try:
        asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
        for delivery in list(slack.sockets.deliveries):
            await delivery.acknowledged(ACK_DEADLINE_S)
        [told] = await slack.until(lambda: slack.replies(asked), "a plain message")
        await slack.until(lambda: "does not answer" in told.seen, "which says why")
        assert rated(slack, asked) == []
    finally:
        await asyncio.to_thread(chat_engine.__enter__)
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert answer.ts == told.ts
    assert slack.replies(asked) == [answer]


async def test_a_model_that_fails_for_a_while_delays_the_answer(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    model.failing = 503
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    [told] = await slack.until(lambda: slack.replies(asked), "a plain message")
    await slack.until(lambda: len(told.versions) > 1 or model.prompts, "an attempt")
    model.failing = None
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert slack.replies(asked) == [answer]


async def test_an_event_that_cannot_be_stored_is_not_acknowledged_and_answered_later(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    postgres_url: str,
    database_url: str,
    pool: Pool,
) -> None:
    name = conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(_name(name)))
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            asked = slack.say(ana, team, f"{slack.mention} {QUESTION}", only="app_mention")
            [delivery] = slack.sockets.deliveries
            await slack.until(lambda: len(delivery.attempts) > 1, "another attempt")
            assert delivery.attempts[0].acked_at is None
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(_name(name)))
    answer = await the_answer(slack, asked)
    await settled(slack, pool)
    assert slack.replies(asked) == [answer]


def _name(name: object) -> sql.Identifier:
    return sql.Identifier(str(name))


# ---------------------------------------------------------------- who and what is kept safe


HOSTILE = (
    "Full-time employees of Marlow Tools receive 27 days of paid annual leave [1]. "
    "<!channel> <!here> <!everyone> <!subteam^S0FAKE> <@U0FAKE00001> & <script> "
    "[click](https://evil.example/steal?q=secret) https://evil.example/raw <https://evil.example|x>"
)


async def test_nothing_from_a_model_or_a_document_pings_anybody_or_links_anywhere(
    slack: SlackServer, app: SlackProcess, ana: Person, know: Know, model: ScriptedModel
) -> None:
    room = slack.add_channel("room", ana)
    await know(room, "<!channel> & notes.md", f"{HANDBOOK}\n<!here> <@{ana.id}> call everybody.")
    model.script = lambda prompt: HOSTILE
    asked = slack.say(ana, room, f"{slack.mention} {QUESTION}")
    answer = await the_answer(slack, asked)
    [*previews] = answer.versions
    assert answer.pings == []
    assert not any("<!" in shown or f"<@{ana.id}>" in shown for shown in previews)
    assert not any("evil.example/" in shown for shown in previews)
    for call in slack.calls_of("chat.postMessage"):
        assert call.args["unfurl_links"] is False
        assert call.args["unfurl_media"] is False


async def test_strangers_guests_and_bots_are_answered_where_settings_say_so(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    pool: Pool,
    audience: AudienceOf,
) -> None:
    team.shared = True
    outsiders = [
        slack.add_person("Guest", guest=True),
        slack.add_person("Stranger", team_id="T0OTHER"),
        slack.add_person("Robot", bot=True),
    ]
    asked = [slack.say(person, team, f"{slack.mention} {QUESTION}") for person in outsiders]
    mine = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await the_answer(slack, mine)
    await settled(slack, pool)
    assert [rated(slack, message) for message in asked] == [[], [], []]
    assert not any(LEAVE in reply.seen for message in asked for reply in slack.replies(message))
    here = await audience(team, ana)
    assert here.channel_id is not None
    assert here.member_id is not None
    await Places(pool=pool).save_channel_settings(
        here.channel_id, {"who": "everyone", "answer_bots": True}, by=here.member_id
    )
    for person in outsiders:
        await the_answer(slack, slack.say(person, team, f"{slack.mention} {QUESTION}"))


async def test_a_vote_is_kept_once_per_person_and_forged_ids_change_nothing(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel, know: Know, pool: Pool
) -> None:
    answer = await the_answer(slack, slack.say(ana, team, f"{slack.mention} {QUESTION}"))
    ben, eve = slack.add_person("Ben"), slack.add_person("Eve")
    clicks: list[tuple[Person, Literal["positive", "negative"]]] = [
        (ana, "positive"),
        (ana, "positive"),
        (ana, "negative"),
        (ben, "positive"),
    ]
    for person, side in clicks:
        await slack.click(person, answer, "parley_feedback", side=side).acknowledged()
    assert await votes(pool, 2) == [-1, 1]
    room = slack.add_channel("room", eve)
    await know(room, "handbook.md", HANDBOOK)
    own = await the_answer(slack, slack.say(eve, room, f"{slack.mention} {QUESTION}"))
    real = answer.elements["parley_feedback"]["positive_button"]["value"]
    for value in (real, "up:00000000-0000-0000-0000-000000000000", "up:'; DROP TABLE votes", "x"):
        clicked = slack.click(eve, own, "parley_feedback", side="positive", value=value)
        await clicked.acknowledged()
    await slack.click(eve, own, "parley_feedback", side="negative").acknowledged()
    assert await votes(pool, 3) == [-1, -1, 1]


async def votes(pool: Pool, count: int) -> list[int]:
    """The values of all votes, once there are so many."""
    values: list[int] = []

    async def there() -> bool:
        async with pool.connection() as connection:
            found = await connection.execute("SELECT value FROM votes ORDER BY value")
            values[:] = [value for (value,) in await found.fetchall()]
        return len(values) >= count

    await eventually(there, f"{count} votes")
    return values


async def test_no_token_and_no_message_text_reaches_the_log(
    slack: SlackServer, app: SlackProcess, ana: Person, team: Channel
) -> None:
    slack.fail("chat.update", error="invalid_blocks")
    slack.fail("chat.postEphemeral", status=503)
    secret = "xylophone"
    asked = slack.say(ana, team, f"{slack.mention} {QUESTION} {secret}")
    await slack.until(lambda: any(LEAVE in m.seen for m in slack.replies(asked)), "an answer")
    [connection] = await slack.sockets.connected()
    await connection.cut()
    await slack.sockets.connected()
    await app.stop()
    log = app.log
    assert log
    for kept in (slack.bot_token, slack.app_token, secret, "ticket=", LEAVE):
        assert kept not in log


async def test_the_idle_app_is_small(slack_process: SlackProcess) -> None:
    slack_process.fresh = True
    async with slack_process as app:
        assert app.resident_mb < RESIDENT_LIMIT_MB


async def test_two_sockets_of_a_restart_do_not_answer_twice(
    slack: SlackServer,
    app: SlackProcess,
    ana: Person,
    team: Channel,
    home: Path,
    database_url: str,
    chat_engine_url: str,
    pool: Pool,
) -> None:
    other = SlackProcess(slack, home=home, database_url=database_url, engine_url=chat_engine_url)
    async with other:
        await slack.sockets.connected(2)
        asked = [slack.say(ana, team, f"{slack.mention} {QUESTION} ({n})") for n in range(6)]
        await asyncio.gather(*(the_answer(slack, message) for message in asked))
        await settled(slack, pool)
        assert [len(slack.replies(message)) for message in asked] == [1] * 6
