"""The Discord app as a process of its own: what breaks on the way, and who may not be harmed by it.

Discord is the fake that speaks its wire protocol; database, queue, search, engine process and app
are real. The model's words and their times are chosen by each test.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from storage.places import Places
from storage.pool import Pool
from tests.bots.app_process import CHECKOUT, eventually, no_turns
from tests.bots.discord_bot.conftest import AudienceOf, Know
from tests.bots.discord_bot.discord_process import DiscordProcess
from tests.e2e.handbook import ANSWER, HANDBOOK, LEAVE, QUESTION
from tests.engine.serving import EngineProcess
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer, is_rated
from tests.fakes.discord_world import SUPPRESS_EMBEDS, Channel, Message, Person
from tests.fakes.scripted_model import ScriptedModel

RESIDENT_LIMIT_MB = 150
ACK_DEADLINE_S = 3.0


@pytest.fixture
async def app(
    discord_process: DiscordProcess, model: ScriptedModel
) -> AsyncIterator[DiscordProcess]:
    """The app, connected, without any privileged intent."""
    model.script = lambda prompt: ANSWER
    async with discord_process as process:
        yield process


@pytest.fixture
def discord(discord_server: DiscordServer) -> DiscordServer:
    return discord_server


@pytest.fixture
def ana(discord: DiscordServer) -> Person:
    return discord.add_person("Ana")


@pytest.fixture
async def team(discord: DiscordServer, discord_know: Know) -> Channel:
    """A channel with a handbook."""
    channel = discord.add_channel("team")
    await discord_know(channel, "handbook.md", HANDBOOK)
    return channel


def ask(discord: DiscordServer, person: Person, channel: Channel, more: str = "") -> Message:
    """Mention the app with the question."""
    return discord.say(person, channel, f"{discord.mention} {QUESTION} {more}".strip())


def rated(discord: DiscordServer, asked: Message | Interaction) -> list[Message]:
    """The finished answers to a question."""
    return [reply for reply in discord.replies(asked) if is_rated(reply)]


async def settled(pool: Pool) -> None:
    """Wait until no question waits."""
    await eventually(lambda: no_turns(pool, "discord"), "everything is done", within_s=60)


async def the_answer(discord: DiscordServer, asked: Message | Interaction) -> Message:
    """The answer, which says what the handbook says."""
    answer = await discord.answer_to(asked)
    assert LEAVE in answer.seen
    return answer


async def answered_once(
    discord: DiscordServer, asked: Message | Interaction, pool: Pool
) -> Message:
    """The only thing that the app wrote in answer, when everything is done."""
    answer = await the_answer(discord, asked)
    await settled(pool)
    assert rated(discord, asked) == [answer]
    assert sum(LEAVE in reply.seen for reply in discord.replies(asked)) == 1
    return answer


async def inline(channel: Channel, person: Person, pool: Pool, audience: AudienceOf) -> None:
    """Let answers stay in the channel instead of opening threads."""
    here = await audience(channel, person)
    assert here.channel_id is not None
    assert here.member_id is not None
    await Places(pool=pool).save_channel_settings(
        here.channel_id, {"answer_in": "inline"}, by=here.member_id
    )


# ---------------------------------------------------------------- one answer


async def test_a_mention_is_answered_once_in_a_thread_with_its_source(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    asked = ask(discord, ana, team)
    discord.repeat(asked)
    answer = await answered_once(discord, asked, pool)
    discord.repeat(asked)
    await settled(pool)
    assert discord.replies(asked) == [answer]
    assert answer.channel is asked.thread
    assert "handbook.md" in answer.seen
    follow_up = discord.say(ana, answer.channel, f"{discord.mention} And again?")
    await discord.answer_to(follow_up)


async def test_a_command_is_deferred_at_once_and_answered_once(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    model.may_begin.clear()
    used = [discord.slash(ana, team, "ask", question=f"{QUESTION} ({n})") for n in range(10)]
    for interaction in used:
        await discord.acknowledged(interaction, within_s=ACK_DEADLINE_S)
        assert interaction.deferred
    model.may_begin.set()
    for interaction in used:
        await answered_once(discord, interaction, pool)


# ---------------------------------------------------------------- the gateway


async def test_nothing_is_lost_or_answered_twice_when_sessions_are_resumed(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    gateway = discord.gateway
    gateway.replay_seen = 5
    asked = [ask(discord, ana, team, "(1)")]
    (await gateway.connected()).reconnect()
    await discord.until(lambda: gateway.resumed == 1, "op 7 is followed")
    asked.append(ask(discord, ana, team, "(2)"))
    await (await gateway.connected()).cut()
    asked.append(ask(discord, ana, team, "(3)"))
    used = discord.slash(ana, team, "ask", question=f"{QUESTION} (4)")
    await discord.until(lambda: gateway.resumed == 2, "the cut is mended")
    await (await gateway.connected()).close(4000)
    asked.append(ask(discord, ana, team, "(5)"))
    for question in asked:
        await answered_once(discord, question, pool)
    await answered_once(discord, used, pool)
    assert gateway.identified == 1


async def test_what_a_lost_session_did_not_tell_is_read_and_answered(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    gateway = discord.gateway
    before = ask(discord, ana, team, "(before)")
    known = discord.say(ana, discord.direct(ana), "Is anybody there?")
    await answered_once(discord, before, pool)
    await discord.until(lambda: discord.replies(known), "a reply to the direct message")
    await settled(pool)
    (await gateway.connected()).invalidate()
    lost = ask(discord, ana, team, "(lost)")
    direct = discord.say(ana, discord.direct(ana), "And now?")
    in_thread = discord.say(ana, _thread(before), f"{discord.mention} {QUESTION} (thread)")
    await discord.until(lambda: gateway.identified == 2, "a new session")
    await answered_once(discord, lost, pool)
    await answered_once(discord, in_thread, pool)
    await discord.until(lambda: discord.replies(direct), "a reply to the other one")
    await settled(pool)
    assert len(rated(discord, before)) == 2  # its own and the one in its thread


def _thread(message: Message) -> Channel:
    assert message.thread is not None
    return message.thread


async def test_a_gateway_that_ends_mid_answer_does_not_touch_the_answer(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    for number, how in enumerate(("cut", "closed", "invalidated"), start=1):
        model.may_end.clear()
        asked = ask(discord, ana, team, how)
        await model.begun_answers(number)
        connection = await discord.gateway.connected()
        if how == "cut":
            await connection.cut()
        elif how == "closed":
            await connection.close(4000)
        else:
            connection.invalidate()
        model.may_end.set()
        answer = await answered_once(discord, asked, pool)
        assert discord.replies(asked) == [answer]


async def test_a_gateway_that_refuses_and_forgets_is_tried_again(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    gateway = discord.gateway
    gateway.refuse = 2
    gateway.forget_sessions()
    await (await gateway.connected()).cut()
    asked = ask(discord, ana, team)
    await answered_once(discord, asked, pool)
    assert gateway.identified == 2


# ---------------------------------------------------------------- Discord's moods

POST, EDIT = "POST /channels/{channel}/messages", "PATCH /channels/{channel}/messages"
THREAD = "POST /channels/{channel}/messages/{message}/threads"


MOODS: tuple[dict[str, Any], ...] = (
    {"route": EDIT, "status": 429, "retry_after_s": 0.3, "times": 3},
    {"route": POST, "status": 429, "retry_after_s": 0.3, "times": 2},
    {"route": POST, "status": 429, "retry_after_s": 0.3, "everywhere": True},
    {"route": POST, "status": 429, "via": False},
    {"route": EDIT, "status": 503, "times": 2},
    {"route": POST, "status": 502, "after": True},
    {"route": POST, "status": 503, "after": True},
    {"route": THREAD, "status": 503, "after": True},
    {"route": THREAD, "status": 403, "code": 50013},
)


async def test_an_answer_arrives_whole_and_once_whatever_discord_says(
    discord: DiscordServer, app: DiscordProcess, ana: Person, discord_know: Know, pool: Pool
) -> None:
    asked, faults = [], []
    for number, mood in enumerate(MOODS):
        room = discord.add_channel(f"room-{number}")
        await discord_know(room, "handbook.md", HANDBOOK)
        asked.append(ask(discord, ana, room))
        # A thread that is opened on a message has its id.
        place = room.id if mood["route"] == THREAD else asked[-1].id
        faults.append(discord.fail(**mood, channel=place))
    for question, fault in zip(asked, faults, strict=True):
        answer = await answered_once(discord, question, pool)
        assert fault.met, fault
        assert discord.replies(question) == [answer], fault


async def test_discords_own_limits_are_kept_by_waiting(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    discord.limit("POST /channels/{channel}/messages/{message}/threads", 2, per_s=0.5)
    discord.limit("PATCH /channels/{channel}/messages", 3, per_s=0.5)
    asked = [ask(discord, ana, team, f"({n})") for n in range(4)]
    for question in asked:
        await answered_once(discord, question, pool)
    assert (
        max(_most_edits_in_a_second(message) for a in asked for message in discord.replies(a)) <= 2
    )


def _most_edits_in_a_second(message: Message) -> int:
    times = message.times[1:]
    return max((sum(at <= t < at + 0.95 for t in times) for at in times), default=0)


# ---------------------------------------------------------------- interactions that expire


async def test_a_dead_token_is_followed_by_a_message_in_the_channel(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
    discord_audience: AudienceOf,
) -> None:
    await inline(team, ana, pool, discord_audience)
    model.may_end.clear()
    used = discord.slash(ana, team, "ask", question=QUESTION)
    await model.begun_answers(1)
    used.expire()
    model.may_end.set()
    answer = await answered_once(discord, used, pool)
    assert answer.channel is team


async def test_a_question_whose_ack_came_too_late_is_answered_in_the_channel(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    pool: Pool,
    discord_know: Know,
    discord_audience: AudienceOf,
) -> None:
    room = discord.add_channel("room")
    await discord_know(room, "handbook.md", HANDBOOK)
    await inline(room, ana, pool, discord_audience)
    discord.callback_lag_s = 3.0
    for place in (team, room):
        used = discord.slash(ana, place, "ask", question=QUESTION)
        used.expire()
        await answered_once(discord, used, pool)
        assert used.acked_at is None


# ---------------------------------------------------------------- crashes


async def test_a_kill_after_the_first_words_leaves_one_answer(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    model.may_end.clear()
    asked = ask(discord, ana, team)
    used = discord.slash(ana, team, "ask", question=f"{QUESTION} (command)")
    await model.begun_answers(2)
    await discord.until(lambda: discord.replies(asked), "a first visible reply")
    await discord.acknowledged(used)
    await app.kill()
    model.may_end.set()
    await app.start()
    answer = await answered_once(discord, asked, pool)
    assert discord.replies(asked) == [answer]
    await answered_once(discord, used, pool)


async def test_a_kill_between_a_call_and_its_record_leaves_one_answer(
    discord: DiscordServer, app: DiscordProcess, ana: Person, discord_know: Know, pool: Pool
) -> None:
    asked, faults = [], []
    for route in (POST, THREAD):
        room = discord.add_channel("room")
        await discord_know(room, "handbook.md", HANDBOOK)
        asked.append(ask(discord, ana, room))
        place = room.id if route == THREAD else asked[-1].id
        faults.append(discord.fail(route, channel=place, after=True, hang=True))
    await discord.until(lambda: all(fault.met for fault in faults), "the calls")
    await app.kill()
    await app.start()
    for question in asked:
        answer = await answered_once(discord, question, pool)
        assert discord.replies(question) == [answer]


async def test_a_command_killed_before_its_ack_is_answered_in_the_channel(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    fault = discord.fail("callback", hang=True)
    used = discord.slash(ana, team, "ask", question=QUESTION)
    await discord.until(lambda: fault.met, "the callback")
    await app.kill()
    used.expire()
    await app.start()
    await answered_once(discord, used, pool)


async def test_what_was_said_while_the_app_was_away_is_answered_after_its_start(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    before = ask(discord, ana, team, "(before)")
    await answered_once(discord, before, pool)
    await app.kill()
    discord.gateway.forget_sessions()
    asked = ask(discord, ana, team)
    await app.start()
    await answered_once(discord, asked, pool)
    assert rated(discord, before) == rated(discord, before)[:1]


async def test_a_stop_is_clean(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    model.may_end.clear()
    asked = ask(discord, ana, team)
    await model.begun_answers(1)
    assert await app.stop() == 0
    assert "Traceback" not in app.log
    model.may_end.set()
    await app.start()
    answer = await answered_once(discord, asked, pool)
    assert discord.replies(asked) == [answer]


async def test_while_the_engine_is_down_a_message_says_so_and_becomes_the_answer(
    discord: DiscordServer,
    app: DiscordProcess,
    chat_engine: EngineProcess,
    ana: Person,
    team: Channel,
    pool: Pool,
) -> None:
    await asyncio.to_thread(chat_engine.stop, signal.SIGKILL)
    try:
        asked = ask(discord, ana, team)
        [told] = await discord.until(lambda: discord.replies(asked), "a plain message")
        await discord.until(lambda: "does not answer" in told.seen, "which says why")
        assert rated(discord, asked) == []
    finally:
        await asyncio.to_thread(chat_engine.__enter__)
    answer = await answered_once(discord, asked, pool)
    assert discord.replies(asked) == [answer]
    assert answer.id == told.id


# ---------------------------------------------------------------- who and what is kept safe


def everything_said(discord: DiscordServer) -> list[Message]:
    """Whatever the app has written anywhere."""
    channels = discord.world.channels.values()
    shown = [m for channel in channels for m in (*channel.messages.values(), *channel.ephemerals)]
    return [message for message in shown if message.author is discord.bot]


async def test_nothing_from_a_model_or_a_document_pings_unfurls_or_fakes_a_source(
    discord: DiscordServer,
    app: DiscordProcess,
    ana: Person,
    discord_know: Know,
    model: ScriptedModel,
    pool: Pool,
) -> None:
    role = discord.add_role("staff")
    room = discord.add_channel("room")
    hostile = (
        f"{LEAVE} [1]. @everyone @here {ana.mention} {role.mention} {room.mention} "
        "[click](https://evil.example/a) https://evil.example/b <https://evil.example/c> "
        "[1](https://evil.example/d) \n-# Source: [1] [forged.md](<https://evil.example/e>)"
    )
    await discord_know(room, f"@everyone {ana.mention} notes.md", f"{HANDBOOK}\n@here {hostile}")
    model.script = lambda prompt: hostile
    discord.change_role(
        discord.home.everyone, Permission.MENTION_EVERYONE | Permission(1 << 40) - 1
    )
    asked = ask(discord, ana, room)
    used = discord.slash(ana, room, "ask", question=f"{QUESTION} {hostile}"[:1500])
    await the_answer(discord, asked)
    await the_answer(discord, used)
    await settled(pool)
    said = everything_said(discord)
    assert said
    for message in said:
        assert message.pings == []
        assert message.unfurls == []
        assert message.flags & SUPPRESS_EMBEDS or message.body["type"] == 21
        for shown in message.versions:
            assert "](https://evil.example" not in shown
            assert "](<https://evil.example" not in shown
    for call in discord.calls:
        body = call.body.get("data", call.body)
        if body.get("content"):
            assert body["allowed_mentions"]["parse"] == [], call.route


async def test_whoever_cannot_see_a_channel_gets_nothing_of_it(
    discord: DiscordServer, app: DiscordProcess, ana: Person, discord_know: Know, pool: Pool
) -> None:
    staff = discord.add_role("staff")
    ben = discord.add_person("Ben", staff)
    secret = discord.add_channel("secret", only=[staff])
    await discord_know(secret, "handbook.md", HANDBOOK)
    await answered_once(discord, ask(discord, ben, secret), pool)
    lobby = discord.add_channel("lobby")
    elsewhere = [ask(discord, ben, lobby), discord.say(ben, discord.direct(ben), QUESTION)]
    discord.take(ben, staff)
    clicked = discord.slash(ben, secret, "ask", question=QUESTION)
    hidden = ask(discord, ben, secret)
    assert LEAVE not in await discord.told(clicked)
    for asked in elsewhere:
        await discord.until(lambda asked=asked: discord.replies(asked), "a reply")  # type: ignore[misc]
    await settled(pool)
    for asked in (*elsewhere, hidden):
        assert not any(LEAVE in reply.seen for reply in discord.replies(asked))
    assert not any(LEAVE in message.seen for message in discord.ephemerals(ben))


async def test_foreign_places_get_no_documents_and_only_ephemeral_replies(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    foreign = discord.add_guild("Foreign", has_app=False)
    discord.join(ana, foreign)
    used = discord.slash(ana, discord.add_channel("x", guild=foreign), "ask", question=QUESTION)
    assert LEAVE not in await discord.told(used)
    await settled(pool)
    assert used.ephemeral
    assert LEAVE not in used.text


async def test_a_vote_is_kept_once_per_person_also_after_a_restart(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    answer = await the_answer(discord, ask(discord, ana, team))
    ben = discord.add_person("Ben")
    for person, side in ((ana, "up"), (ana, "up"), (ana, "down")):
        assert await discord.told(discord.click(person, answer, f"parley:{side}:"))
    await app.kill()
    await app.start()
    clicked = discord.click(ben, answer, "parley:up:")
    await discord.told(clicked)
    assert clicked.ephemeral
    for forged in ("parley:up:00000000-0000-0000-0000-000000000000", "parley:up:x", "parley:?"):
        await discord.acknowledged(discord.click_id(ben, answer, forged))
    async with pool.connection() as connection:
        found = await connection.execute("SELECT value FROM votes ORDER BY value")
        assert [value for (value,) in await found.fetchall()] == [-1, 1]


async def test_commands_are_synced_only_when_told_so_and_only_once(
    discord: DiscordServer, app: DiscordProcess
) -> None:
    async def sync() -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bots", "discord", "sync"), cwd=CHECKOUT, env=app.environment
        )
        return await process.wait()

    assert not discord.commands.get(None)
    assert await sync() == 0
    kept = [dict(command) for command in discord.commands[None]]
    assert {"ask", "compare"} <= {command["name"] for command in kept}
    written = [call for call in discord.calls_of("/commands") if not call.route.startswith("GET")]
    assert await sync() == 0
    again = [call for call in discord.calls_of("/commands") if not call.route.startswith("GET")]
    assert discord.commands[None] == kept
    assert again == written


def _says(discord: DiscordServer, asked: Message | Interaction) -> bool:
    return any(LEAVE in reply.seen for reply in discord.replies(asked))


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_no_token_and_no_message_text_reaches_the_log(
    discord: DiscordServer,
    discord_process: DiscordProcess,
    ana: Person,
    team: Channel,
    model: ScriptedModel,
    level: str,
) -> None:
    discord_process.environment["PARLEY_LOG_LEVEL"] = level
    model.script = lambda prompt: ANSWER
    secret = "xylophone"
    async with discord_process as app:
        discord.fail(EDIT, status=400, code=50035)
        discord.fail(POST, status=503)
        asked = ask(discord, ana, team, secret)
        used = discord.slash(ana, team, "ask", question=f"{QUESTION} {secret}")
        broken = discord.slash(ana, team, "unheard-of", question=secret)
        await discord.told(broken)
        for question in (asked, used):
            await discord.until(partial(_says, discord, question), "an answer")
        await (await discord.gateway.connected()).cut()
        await discord.gateway.connected()
    assert app.log
    kept = [discord.token, used.token, broken.token]
    kept += [secret, LEAVE] if level == "INFO" else []
    assert [word for word in kept if word in app.log] == []


async def test_the_idle_app_is_small(discord_process: DiscordProcess) -> None:
    discord_process.fresh = True
    async with discord_process as app:
        assert app.resident_mb < RESIDENT_LIMIT_MB


async def test_two_processes_of_a_restart_do_not_answer_twice(
    discord: DiscordServer, app: DiscordProcess, ana: Person, team: Channel, pool: Pool
) -> None:
    other = DiscordProcess(
        discord,
        home=app.home,
        database_url=app.environment["PARLEY_DATABASE__URL"],
        engine_url=app.environment["PARLEY_ENGINE__URL"],
    )
    async with other:
        await discord.until(lambda: len(discord.gateway.connections) == 2, "two sockets")
        asked = [ask(discord, ana, team, f"({n})") for n in range(4)]
        used = discord.slash(ana, team, "ask", question=QUESTION)
        for question in asked:
            await answered_once(discord, question, pool)
        await answered_once(discord, used, pool)
