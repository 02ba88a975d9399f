"""What people say, and what becomes of it: the whole app beside a real engine and database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from bots.listening import EMPTY, NOT_NOW
from bots.slack_bot.commands import ASK_USAGE
from bots.slack_bot.gate import OFF, OUTSIDERS
from bots.slack_bot.turn import NOT_HERE
from storage.conversations import Conversations
from storage.identity import Audience, Keys
from storage.places import Places
from storage.pool import Pool
from tests.bots.slack_bot.conftest import Know, Running
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.slack_server import SlackServer
from tests.fakes.slack_world import Channel, Message, Person
from tests.feedback.conftest import rows

HANDBOOK = """# Annual leave

Full-time employees of Marlow Tools receive 27 days of paid annual leave each calendar year.
"""
QUESTION = "How many days of paid annual leave do full-time employees receive?"
ANSWER = "Full-time employees of Marlow Tools receive 27 days of paid annual leave [1]."

AudienceOf = Callable[[Channel, Person | None], Awaitable[Audience]]
Settle = Callable[..., Awaitable[None]]


@pytest.fixture
def ana(slack: SlackServer) -> Person:
    return slack.add_person("Ana")


@pytest.fixture
async def team(slack: SlackServer, ana: Person, know: Know) -> Channel:
    """A channel with a handbook."""
    channel = slack.add_channel("team", ana)
    await know(channel, "handbook.md", HANDBOOK)
    return channel


@pytest.fixture(autouse=True)
async def app(slack_app: Running, model: ScriptedModel) -> AsyncIterator[None]:
    model.script = lambda prompt: ANSWER
    async with slack_app(edit_interval_s=0.05):
        yield


@pytest.fixture
def conversations(pool: Pool, keys: Keys) -> Conversations:
    return Conversations(pool=pool, keys=keys)


@pytest.fixture
def settle(pool: Pool, audience: AudienceOf, ana: Person) -> Settle:
    """Change a channel's settings."""

    async def settle(channel: Channel, **settings: object) -> None:
        here = await audience(channel, ana)
        assert here.channel_id is not None
        assert here.member_id is not None
        await Places(pool).save_channel_settings(here.channel_id, settings, by=here.member_id)

    return settle


async def acknowledged(slack: SlackServer) -> None:
    """Wait until the app has dealt with every event so far."""
    for delivery in list(slack.sockets.deliveries):
        await delivery.acknowledged()


async def asked_again(slack: SlackServer, ana: Person, team: Channel) -> None:
    """Another question, answered: whatever the app was to do before it, it has done."""
    await slack.answer_to(slack.say(ana, team, f"{slack.mention} {QUESTION}"))


def whispered(slack: SlackServer, channel: Channel, person: Person) -> list[str]:
    return [message.seen for message in slack.ephemerals(channel, person)]


def told(slack: SlackServer, channel: Channel, person: Person, text: str) -> bool:
    return text in whispered(slack, channel, person)


# ---------------------------------------------------------------- channels


async def test_a_follow_up_in_a_thread_of_ours_needs_no_mention(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    root = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.answer_to(root)
    follow_up = slack.say(ana, team, QUESTION, thread=root)
    answer = await slack.answer_to(follow_up)
    assert answer.body["thread_ts"] == root.ts
    assert slack.calls_of("conversations.replies") == [], "our own store has the whole thread"


async def test_what_is_said_elsewhere_or_to_others_is_not_answered(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    ben = slack.add_person("Ben")
    root = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.answer_to(root)
    said = [
        slack.say(ana, team, QUESTION),
        slack.say(ana, team, f"<@{ben.id}> {QUESTION}", thread=root),
    ]
    await acknowledged(slack)
    await asked_again(slack, ana, team)
    assert slack.replies(said[0]) == []
    assert [each for each in slack.replies(root) if each.ts > said[1].ts] == []


async def test_settings_decide_about_follow_ups_and_every_question(
    slack: SlackServer, ana: Person, team: Channel, settle: Settle
) -> None:
    root = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.answer_to(root)
    await settle(team, follow_ups=False, answer_when="always")
    ignored = slack.say(ana, team, QUESTION, thread=root)
    await acknowledged(slack)
    await slack.answer_to(slack.say(ana, team, QUESTION))
    assert [each for each in slack.replies(root) if each.ts > ignored.ts] == []


async def test_a_question_in_a_foreign_thread_is_understood_from_what_was_said_there(
    slack: SlackServer,
    ana: Person,
    team: Channel,
    conversations: Conversations,
    audience: AudienceOf,
) -> None:
    ben = slack.add_person("Ben")
    root = slack.say(ben, team, "Is the annual leave of full-time employees long enough?")
    slack.say(ana, team, "Ask <@U0BEN|the bot> &amp; see", thread=root)
    await acknowledged(slack)
    question = slack.say(ana, team, f"{slack.mention} {QUESTION}", thread=root)
    await slack.answer_to(question)
    turns = await conversations.view(root.ts, audience=await audience(team, ana), limit=10)
    assert [turn.text for turn in turns] == [
        "Is the annual leave of full-time employees long enough?",
        "Ask @the bot & see",
        QUESTION,
    ]
    assert len(slack.calls_of("conversations.replies")) == 1


async def test_a_thread_whose_claims_are_forgotten_is_not_imported_a_second_time(
    slack: SlackServer,
    ana: Person,
    team: Channel,
    conversations: Conversations,
    audience: AudienceOf,
    pool: Pool,
    settle: Settle,
) -> None:
    await settle(team, follow_ups=False)
    root = slack.say(ana, team, "Is the annual leave long enough?")
    first = slack.say(ana, team, f"{slack.mention} {QUESTION}", thread=root)
    await slack.answer_to(first)
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM handled_events")
        stored_at = float(first.ts) + 0.001
        await connection.execute("UPDATE messages SET created_at = to_timestamp(%s)", [stored_at])
    slack.say(ana, team, "I have another one.", thread=root)
    await slack.answer_to(slack.say(ana, team, f"{slack.mention} And unpaid?", thread=root))
    turns = await conversations.view(root.ts, audience=await audience(team, ana), limit=10)
    assert [turn.text for turn in turns] == [
        *("Is the annual leave long enough?", QUESTION),
        *("I have another one.", "And unpaid?"),
    ]


async def test_a_thread_that_cannot_be_read_does_not_prevent_the_answer(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    root = slack.say(ana, team, "Something else")
    await acknowledged(slack)
    slack.fail("conversations.replies", error="missing_scope", times=None)
    await slack.answer_to(slack.say(ana, team, f"{slack.mention} {QUESTION}", thread=root))


async def test_a_mention_without_a_question_gets_a_hint(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    slack.say(ana, team, slack.mention)
    await slack.until(lambda: EMPTY in whispered(slack, team, ana), "a hint")


async def test_edits_arrivals_and_own_words_are_no_questions(
    slack: SlackServer, ana: Person, team: Channel, pool: Pool
) -> None:
    base = {"type": "message", "channel": team.id, "channel_type": "channel", "user": ana.id}
    message = {"text": f"{slack.mention} {QUESTION}", "user": ana.id, "ts": "1.0"}
    changed = {"subtype": "message_changed", "hidden": True, "message": message}
    slack.emit({**base, **changed, "ts": "1.1"}, channel=team)
    slack.emit({**base, "subtype": "channel_join", "text": "joined", "ts": "1.2"}, channel=team)
    own = {"app_id": slack.app_id, "bot_id": slack.home.bot_id, "user": slack.home.bot_user_id}
    slack.emit({**base, **own, "text": f"{slack.mention} hi", "ts": "1.3"}, channel=team)
    await acknowledged(slack)
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM messages")
        assert await found.fetchone() == (0,)


async def test_an_event_that_cannot_be_stored_at_slacks_last_attempt_is_answered_plainly(
    slack: SlackServer, ana: Person, team: Channel, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would deliver it again, so silence would last."""
    monkeypatch.setattr("bots.slack_bot.ask.BEFORE_ACK_S", 0.5)
    slack.sockets.ack_within_s = 0.3
    slack.sockets.retry_after_s = (0.0, 0.0, 0.0)
    async with pool.connection() as connection:
        await connection.execute("LOCK TABLE workspaces, members IN ACCESS EXCLUSIVE MODE")
        asked = slack.say(ana, team, f"{slack.mention} {QUESTION}", only="app_mention")
        await slack.until(lambda: told(slack, team, ana, NOT_NOW), "a plain reply", within_s=20.0)
    assert slack.replies(asked) == []


# ---------------------------------------------------------------- who may ask


async def test_whoever_only_speaks_where_the_app_listens_is_not_stored(
    slack: SlackServer, ana: Person, team: Channel, pool: Pool
) -> None:
    root = slack.say(ana, team, "Good morning")
    slack.say(ana, team, "Good morning to you", thread=root)
    await acknowledged(slack)
    async with pool.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM members")
        assert await found.fetchone() == (0,)


@pytest.mark.parametrize(
    ("private", "shared", "is_open"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
async def test_a_message_tells_whether_everybody_may_read_its_channel(
    slack: SlackServer, ana: Person, pool: Pool, private: bool, shared: bool, is_open: bool
) -> None:
    channel = slack.add_channel("somewhere", ana, private=private, shared=shared)
    said = slack.say(ana, channel, f"{slack.mention} {QUESTION}")
    await slack.answer_to(said)
    assert await rows(pool, f"SELECT open FROM channels WHERE platform_id = '{channel.id}'") == [
        (is_open,)
    ]


async def test_outsiders_who_talk_in_a_thread_of_ours_are_left_in_peace(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    guest = slack.add_person("Guest", guest=True)
    root = slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.answer_to(root)
    said = slack.say(guest, team, QUESTION, thread=root)
    await acknowledged(slack)
    await asked_again(slack, ana, team)
    assert whispered(slack, team, guest) == []
    assert [each for each in slack.replies(root) if each.ts > said.ts] == []


async def test_outsiders_are_told_why_and_bots_are_not(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    guest = slack.add_person("Guest", guest=True)
    stranger = slack.add_person("Stranger", team_id="T0OTHER")
    robot = slack.add_person("Robot", bot=True)
    for person in (guest, stranger, robot):
        slack.say(person, team, f"{slack.mention} {QUESTION}")
    for person in (guest, stranger):
        await slack.until(partial(told, slack, team, person, OUTSIDERS), "a reason")
    await asked_again(slack, ana, team)
    assert whispered(slack, team, robot) == []
    assert len(slack.calls_of("chat.postMessage")) == 1


async def test_a_channel_that_is_switched_off_says_so(
    slack: SlackServer, ana: Person, team: Channel, settle: Settle
) -> None:
    await settle(team, enabled=False)
    slack.say(ana, team, f"{slack.mention} {QUESTION}")
    await slack.until(lambda: OFF in whispered(slack, team, ana), "that it is off")


# ---------------------------------------------------------------- direct messages, agent container


async def test_a_direct_question_is_answered_and_names_its_thread(
    slack: SlackServer, ana: Person
) -> None:
    direct = slack.direct(ana)
    asked = slack.say(ana, direct, QUESTION)
    await slack.until(lambda: slack.replies(asked), "a reply")
    title = await slack.until(
        lambda: slack.calls_of("assistant.threads.setTitle"), "the thread's title"
    )
    assert title[0].args["title"] == f"{QUESTION[:59].rstrip()}…"


async def test_opening_the_messages_suggests_prompts(slack: SlackServer, ana: Person) -> None:
    slack.open_home(ana, tab="messages")
    [call] = await slack.until(
        lambda: slack.calls_of("assistant.threads.setSuggestedPrompts"), "prompts"
    )
    assert 1 <= len(call.args["prompts"]) <= 4
    assert call.args.get("thread_ts") is None


async def test_the_older_assistant_events_are_handled(slack: SlackServer, ana: Person) -> None:
    direct = slack.direct(ana)
    thread = {"user_id": ana.id, "channel_id": direct.id, "thread_ts": "1.5", "context": {}}
    for kind in ("assistant_thread_started", "assistant_thread_context_changed"):
        slack.emit({"type": kind, "assistant_thread": thread})
    slack.emit({"type": "app_context_changed", "user": ana.id})
    await acknowledged(slack)
    [call] = await slack.until(
        lambda: slack.calls_of("assistant.threads.setSuggestedPrompts"), "prompts"
    )
    assert call.args["thread_ts"] == "1.5"


# ---------------------------------------------------------------- commands


async def test_a_command_asks_and_its_answer_begins_a_thread_of_ours(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    await slack.command(ana, team, "/parley", f"ask {QUESTION}").acknowledged()

    def answered() -> list[Message]:
        kinds = [(m, {block["type"] for block in m.blocks}) for m in slack.world.written_by_app()]
        return [message for message, found in kinds if "context_actions" in found]

    [answer] = await slack.until(answered, "an answer in the channel", within_s=60.0)
    assert "27 days" in answer.seen
    follow_up = slack.say(ana, team, QUESTION, thread=answer)
    await slack.answer_to(follow_up)


async def test_a_command_where_the_app_is_not_in_the_channel_gets_a_reason(
    slack: SlackServer, ana: Person
) -> None:
    elsewhere = slack.add_channel("elsewhere", ana, app_is_in=False)
    await slack.command(ana, elsewhere, "/parley", f"ask {QUESTION}").acknowledged()
    await slack.until(
        lambda: any(body.get("text") == NOT_HERE for body in slack.response_calls), "a reason"
    )


@pytest.mark.parametrize("text", ["", "help", "nonsense and more"])
async def test_whoever_does_not_know_what_to_type_gets_help(
    slack: SlackServer, ana: Person, team: Channel, text: str
) -> None:
    await slack.command(ana, team, "/parley", text).acknowledged()
    await slack.until(
        lambda: any("/parley ask" in str(body.get("text")) for body in slack.response_calls), "help"
    )


async def test_asking_nothing_explains_how_to_ask(
    slack: SlackServer, ana: Person, team: Channel
) -> None:
    delivery = await slack.command(ana, team, "/parley", "ask").acknowledged()
    assert delivery.response is not None
    assert delivery.response["text"] == ASK_USAGE
