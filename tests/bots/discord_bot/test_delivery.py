"""Turns as people see them in Discord, whatever Discord or the engine does meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import discord
import pytest

from bots.comparisons import order_of
from bots.discord_bot.delivery import discord_delivery
from bots.errors import Reply
from bots.messages import (
    Answered,
    Delayed,
    Queued,
    SourcesFound,
    TextDelta,
)
from storage.jobs import RetryLater, TurnKind
from storage.pool import Pool
from tests.bots.answers import cited
from tests.bots.app_process import eventually
from tests.bots.discord_bot.stage import EVERY_S, Stage, at_full_pace, logged_in
from tests.bots.discord_bot.test_markdown import assert_harmless
from tests.bots.model_list import serve_models
from tests.bots.turn_script import Step, Talk
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_permissions import Permission
from tests.fakes.discord_server import DiscordServer
from tests.fakes.discord_world import EPHEMERAL, Channel, Message, Person

SUPPRESS_EMBEDS = 1 << 2
RATED = {"Good answer", "Bad answer", "Answer again"}


class DiscordTalk(Talk):
    """One question in one place, delivered as often as a test likes."""

    def __init__(self, stage: Stage, person: Person, channel: Channel) -> None:
        self.stage, self.person, self.channel = stage, person, channel
        self.discord, self.stored_turns = stage.discord, stage.stored
        self.used: Interaction | None = None
        self.asked: Message
        self.delivery = discord_delivery(stage.context, typing_refresh_s=EVERY_S)

    async def ask(self) -> None:
        """Say something, as the listener stores it."""
        self.audience = await self.stage.audience(self.person, self.channel)
        self.asked, self.message_id = await self.stage.ask(
            self.person, self.channel, "How many days?"
        )

    async def use(self, *, ephemeral: bool = False) -> None:
        """Ask by a command, which is deferred."""
        self.audience = await self.stage.audience(self.person, self.channel)
        self.used = used = self.discord.slash(self.person, self.channel, "ask")
        ref = f"{self.discord.app_id}:interaction:{used.id}"
        self.message_id = await self.stored_turns.question(
            self.audience, "How many days?", thread_ref=ref, message_ref=ref
        )
        route = discord.http.Route(
            "POST", "/interactions/{id}/{token}/callback", id=used.id, token=used.token
        )
        data = {"flags": EPHEMERAL if ephemeral else 0}
        await self.stage.context.client.http.request(route, json={"type": 5, "data": data})

    async def deliver(
        self, *steps: Step, attempt: int = 0, kind: TurnKind = "answer", **place: str
    ) -> None:
        """Deliver the turn once."""
        guild = self.channel.guild
        where = {
            "platform": "discord",
            "workspace": guild.id if guild is not None else "@me",
            "channel": self.channel.id if guild is not None else "",
            "member": self.person.id,
            "reply_to": self.channel.id,
            "message": "" if self.used is not None else self.asked.id,
            "via": "message",
        }
        if self.used is not None:
            where |= {
                "via": "interaction",
                "application": self.discord.app_id,
                "token": self.used.token,
                "expires": str(time.time() + 870),
            }
        turn = self.turn(steps, place={**where, **place}, attempt=attempt, kind=kind)
        async with asyncio.timeout(30):
            await self.delivery.deliver(turn)

    @property
    def written(self) -> list[Message]:
        """What the app wrote in the place, for everybody."""
        return [each for each in self.channel.living() if each.author is self.discord.bot]

    def shows(self, part: str) -> Callable[[], Any]:
        """A step that waits until something that the app wrote says `part`."""
        places = [self.channel.ephemerals, self.channel.messages.values()]
        return lambda: self.discord.until(
            lambda: any(part in each.seen for place in places for each in place),
            f"{part!r}",
            within_s=10,
        )


@pytest.fixture
async def stage(
    discord_server: DiscordServer, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    async with (
        serve_models() as engine,
        logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
    ):
        yield stage


@pytest.fixture
async def team(stage: Stage) -> DiscordTalk:
    ana = stage.discord.add_person("Ana")
    talk = DiscordTalk(stage, ana, stage.discord.add_channel("team"))
    await talk.ask()
    return talk


@pytest.fixture
async def command(stage: Stage) -> DiscordTalk:
    ana = stage.discord.add_person("Ana")
    talk = DiscordTalk(stage, ana, stage.discord.add_channel("team"))
    await talk.use()
    return talk


# ---------------------------------------------------------------- messages


async def test_one_message_grows_into_the_answer(team: DiscordTalk) -> None:
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        SourcesFound(sources=()),
        TextDelta(text="Twenty-five"),
        team.shows("Twenty-five"),
        TextDelta(text=" days."),
        await team.answered("Twenty-five days."),
    )
    [reply] = team.written
    assert reply.content == "Twenty-five days."
    assert set(reply.buttons) == {*RATED, "I need a human"}
    assert reply.body["message_reference"]["message_id"] == team.asked.id
    assert reply.pings == []
    assert reply.posted["enforce_nonce"] is True
    assert len(reply.posted["nonce"]) <= 25
    posted = await team.stage.context.workplace.deliveries.get(team.message_id)
    assert [(each.ref, each.finished) for each in posted] == [
        (f"{team.channel.id}:{reply.id}", True)
    ]


async def test_it_can_be_stopped_while_it_is_written(team: DiscordTalk) -> None:
    async def stop_button() -> None:
        await team.shows("Twenty")()
        [reply] = team.written
        assert str(team.message_id) in reply.buttons["Stop"]

    stopped = await team.answered("Twenty", finish_reason="stopped")
    await team.deliver(team.searching, TextDelta(text="Twenty"), stop_button, stopped)
    [reply] = team.written
    assert "Stop" not in reply.buttons
    assert reply.content == "Twenty\n-# *Stopped.*"


async def test_who_waits_sees_typing_and_the_position(team: DiscordTalk) -> None:
    async def typing() -> None:
        await team.discord.until(lambda: len(team.channel.typing) >= 2, "typing, again")

    position = team.shows("number 3 in the queue")
    await team.deliver(Queued(position=3), position, typing, await team.answered("Yes."))
    assert [reply.content for reply in team.written] == ["Yes."]


async def others_go_on() -> None:
    """Let every task that can go on do so before the next event comes."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_edits_come_once_a_second_and_the_last_one_is_the_answer(team: DiscordTalk) -> None:
    team.delivery = discord_delivery(at_full_pace(team.stage))
    words = [TextDelta(text=f"word{n} ") for n in range(50)]

    async def remembered() -> None:
        async def known() -> bool:
            return bool(await team.stage.context.workplace.deliveries.get(team.message_id))

        await eventually(known, "the placeholder is remembered")

    await team.deliver(
        team.shows("Searching"),
        remembered,
        others_go_on,
        team.searching,
        others_go_on,
        TextDelta(text="First "),
        team.shows("First"),
        *words,
        await team.answered("All words."),
    )
    [reply] = team.written
    assert reply.content == "All words."
    edits = reply.times[1:]
    assert len(edits) >= 2
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(edits))
    assert edits[0] - reply.times[0] < 0.9  # the first words wait for nothing


async def test_a_long_answer_becomes_several_messages_with_code_in_fences(
    team: DiscordTalk,
) -> None:
    code = "\n".join(f"line_{n} = {n}" for n in range(400))
    text = f"Like this:\n\n```python\n{code}\n```\n\nThat is all."
    await team.deliver(team.searching, TextDelta(text=text), await team.answered(text))
    assert len(team.written) > 2
    for reply in team.written:
        assert len(reply.content) <= 2000
        assert reply.content.count("```") % 2 == 0
    shown = "\n".join(reply.content for reply in team.written)
    assert all(f"line_{n} = {n}\n" in shown for n in range(400))
    assert [bool(reply.buttons) for reply in team.written] == [False] * (len(team.written) - 1) + [
        True
    ]


async def test_a_source_is_a_link_to_where_it_was_shared(team: DiscordTalk) -> None:
    jump = "https://discord.com/channels/1/2/3"
    document = await team.stage.context.workplace.documents.add(
        "leave.md", b"Twenty-five.", audience=team.audience, origin={"permalink": jump}
    )
    known, deleted = cited(document_id=document.id), cited()
    await team.deliver(await team.answered("Yes [1].", citations=(known, deleted)))
    [reply] = team.written
    assert reply.content == f"Yes [1].\n-# [1] [leave.md](<{jump}>), Leave\n-# [1] leave.md, Leave"


async def test_nobody_is_pinged_and_nothing_unfurls_whatever_is_said(team: DiscordTalk) -> None:
    hostile = "@everyone <@1> [1](https://evil.example/a) https://evil.example\n-# [1] leave.md"
    source = cited(document=f"{hostile}.pdf")
    await team.deliver(
        team.searching,
        TextDelta(text=hostile),
        team.shows("evil"),
        await team.answered(hostile, citations=(source,)),
    )
    calls = [call for call in team.discord.calls if "content" in call.body]
    assert len(calls) >= 2
    for call in calls:
        assert call.body["allowed_mentions"]["parse"] == []
        assert call.body["flags"] & SUPPRESS_EMBEDS
    [reply] = team.written
    assert reply.pings == []
    assert not reply.unfurls
    said, _, foot = reply.content.rpartition("\n-# ")
    assert_harmless(said)
    assert_harmless(foot)


async def test_a_failure_is_said_in_the_message_that_was_waited_for(team: DiscordTalk) -> None:
    fail = team.fail("This question is too long.")
    await team.deliver(team.searching, team.shows("Searching"), fail)
    assert [reply.content for reply in team.written] == ["This question is too long."]


# ---------------------------------------------------------------- Discord in trouble


async def test_an_answer_waits_until_discord_takes_it(team: DiscordTalk) -> None:
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        lambda: team.discord.fail("PATCH", status=429, retry_after_s=0.2, times=2),
        await team.answered("Yes."),
    )
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_while_discord_is_away_the_turn_is_put_off(team: DiscordTalk) -> None:
    fault = team.discord.fail("POST", status=503, times=None)
    with pytest.raises(RetryLater):
        await team.deliver(team.searching, await team.answered("Yes."))
    fault.stop()
    await team.deliver(await team.again(), attempt=1)
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_a_message_that_somebody_deleted_is_posted_again(team: DiscordTalk) -> None:
    async def delete() -> None:
        await team.shows("Searching")()
        team.discord.remove(team.written[0])

    await team.deliver(team.searching, delete, await team.answered("Yes."))
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_without_the_right_to_read_the_history_it_is_no_reply(team: DiscordTalk) -> None:
    everyone = team.discord.home.everyone
    team.discord.overwrite(team.channel, everyone, deny=Permission.READ_MESSAGE_HISTORY)
    await team.deliver(team.searching, await team.answered("Yes."), attempt=1)
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_a_place_that_is_gone_ends_the_turn(team: DiscordTalk) -> None:
    team.discord.remove_channel(team.channel)
    await team.deliver(team.searching, await team.answered("Yes."))


# ---------------------------------------------------------------- again and again


async def test_a_finished_answer_is_not_delivered_twice(team: DiscordTalk) -> None:
    await team.deliver(await team.answered("Yes."))
    calls = len(team.discord.calls)
    await team.deliver(await team.again(), attempt=1)
    assert len(team.discord.calls) == calls


@pytest.mark.parametrize("remembered", [True, False])
async def test_after_a_crash_the_placeholder_becomes_the_answer(
    team: DiscordTalk, remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.discord_messages.NONCE_LIVES_S", 0.0)
    await team.deliver(team.searching, team.shows("Searching"))  # the process ends here
    if not remembered:
        await team.stage.context.workplace.deliveries.remove(team.message_id, part=0)
    await team.deliver(team.searching, await team.answered("Yes."), attempt=1)
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_no_part_of_a_long_answer_is_posted_twice(
    team: DiscordTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.discord_messages.NONCE_LIVES_S", 0.0)
    text = "\n\n".join(f"Paragraph {n} says a little more than the others." for n in range(100))
    deliveries = team.stage.context.workplace.deliveries
    await team.deliver(await team.answered(text))
    before = [reply.id for reply in team.written]
    assert len(before) == 3
    for part in range(3):  # a crash before any of them was remembered
        await deliveries.remove(team.message_id, part=part)
    await team.deliver(await team.again(), attempt=1)
    assert [reply.id for reply in team.written] == before


async def test_an_engine_that_is_down_is_said_once_and_becomes_the_answer(
    team: DiscordTalk,
) -> None:
    down = Delayed(reply=Reply(text="The model does not answer right now.", retryable=True))
    await team.deliver(team.searching, down)
    await team.deliver(team.searching, Queued(position=1), down, attempt=1)
    [reply] = team.written
    assert reply.versions.count("The model does not answer right now.") == 1
    await team.deliver(team.searching, await team.answered("Yes."), attempt=2)
    assert [reply.content for reply in team.written] == ["Yes."]


async def test_another_answer_takes_the_place_of_the_first(team: DiscordTalk) -> None:
    await team.deliver(await team.answered("A sentence that is not short at all. " * 100))
    first, *_ = team.written
    await team.deliver(team.searching, await team.again("Shorter."), kind="regenerate")
    assert [(reply.id, reply.content) for reply in team.written] == [(first.id, "Shorter.")]


async def test_the_answer_stays_where_another_one_fails(team: DiscordTalk) -> None:
    await team.deliver(await team.answered("Yes."))
    click = team.discord.click(team.person, team.written[0], "Answer again")
    route = discord.http.Route(
        "POST", "/interactions/{id}/{token}/callback", id=click.id, token=click.token
    )
    await team.stage.context.client.http.request(route, json={"type": 6})
    await team.deliver(
        team.searching,
        team.shows("Searching"),
        team.fail("No luck."),
        kind="regenerate",
        application=team.discord.app_id,
        token=click.token,
        expires=str(time.time() + 800),
    )
    [reply] = team.written
    assert reply.content == "Yes."
    assert "Good answer" in reply.buttons
    assert [each.content for each in team.discord.ephemerals(team.person)] == ["No luck."]


# ---------------------------------------------------------------- interactions


async def test_the_response_grows_into_the_answer(command: DiscordTalk) -> None:
    text = "A sentence. " * 300
    await command.deliver(
        command.searching,
        command.shows("Searching"),
        TextDelta(text="A sentence. "),
        command.shows("A sentence."),
        await command.answered(text),
    )
    assert command.used is not None
    assert [each.id for each in command.used.messages] == [each.id for each in command.written]
    assert not command.written[0].loading
    assert command.discord.calls_of("POST /channels") == []
    assert "Good answer" in command.written[-1].buttons


@pytest.mark.parametrize("ends", ["before", "meanwhile"])
async def test_when_the_token_ends_the_answer_comes_in_the_channel(
    command: DiscordTalk, ends: str
) -> None:
    used = command.used
    assert used is not None
    if ends == "before":
        used.expire()
    await command.deliver(
        command.searching,
        command.shows("Searching"),
        used.expire,
        await command.answered("Yes."),
    )
    assert [each.content for each in command.written if not each.loading] == ["Yes."]


async def test_after_a_crash_the_response_becomes_the_answer_without_a_token(
    command: DiscordTalk,
) -> None:
    await command.deliver(command.searching, command.shows("Searching"))
    await command.deliver(await command.answered("Yes."), attempt=1, expires="1")
    assert [each.content for each in command.written] == ["Yes."]
    assert command.discord.calls_of("POST /channels") == []


async def test_a_private_answer_is_seen_by_its_asker_alone(stage: Stage) -> None:
    ana = stage.discord.add_person("Ana")
    talk = DiscordTalk(stage, ana, stage.discord.add_channel("team"))
    await talk.use(ephemeral=True)
    text = "A sentence. " * 300
    await talk.deliver(
        talk.searching, talk.shows("Searching"), await talk.answered(text), via="ephemeral"
    )
    assert talk.written == []
    told = stage.discord.ephemerals(ana)
    assert len(told) == 2
    assert {"Good answer", "Share with channel"} <= set(told[-1].buttons)


async def test_a_private_answer_that_comes_late_comes_as_a_direct_message(stage: Stage) -> None:
    ana = stage.discord.add_person("Ana")
    talk = DiscordTalk(stage, ana, stage.discord.add_channel("team"))
    await talk.use(ephemeral=True)
    assert talk.used is not None
    talk.used.expire()
    await talk.deliver(talk.searching, await talk.answered("Yes."), via="ephemeral")
    assert talk.written == []
    [told] = stage.discord.direct(ana).living()
    assert told.content == "Yes."
    assert told.buttons == {}


async def test_in_a_foreign_place_nothing_is_said_once_the_token_ended(stage: Stage) -> None:
    ana = stage.discord.add_person("Ana")
    foreign = stage.discord.add_guild("Elsewhere", has_app=False)
    stage.discord.join(ana, foreign)
    talk = DiscordTalk(stage, ana, stage.discord.add_channel("lounge", guild=foreign))
    await talk.use(ephemeral=True)
    assert talk.used is not None
    talk.used.expire()
    answer = await talk.answered("Yes.")
    await talk.deliver(talk.searching, answer, via="ephemeral", workspace="@me", channel="")
    assert stage.discord.calls_of("POST /channels") == []
    assert stage.discord.direct(ana).living() == []


# ---------------------------------------------------------------- comparisons


@pytest.mark.parametrize("crashed", [False, True])
async def test_two_answers_stand_side_by_side_blind_and_can_be_voted_on(
    team: DiscordTalk, crashed: bool
) -> None:
    one, two = await team.two()
    begun: list[Step] = [(0, TextDelta(text="First ")), (1, TextDelta(text="Second "))]
    shown = [team.shows("First"), team.shows("Second")]
    end: list[Step] = [(0, Answered(answer=one)), (1, Answered(answer=two))]
    if crashed:
        await team.deliver(*begun, *shown, kind="compare")
        await team.deliver(*end, kind="compare", attempt=1)
    else:
        await team.deliver(*begun, *shown, *end, kind="compare")
    left, right, vote = team.written
    texts = [(one, two)[which].text for which in order_of(team.message_id)]
    assert [left.content, right.content] == [f"**A**\n{texts[0]}", f"**B**\n{texts[1]}"]
    assert list(vote.buttons) == ["A is better", "B is better", "Tie", "Both bad"]
    assert left.buttons == right.buttons == {}
    everything = str([call.body for call in team.discord.calls])
    assert "small-model" not in everything
    assert "large-model" not in everything


async def test_long_answers_are_compared_whole(team: DiscordTalk) -> None:
    one, two = await team.two()
    long = "A sentence. " * 300
    steps = [(n, Answered(answer=replace(each, text=long))) for n, each in enumerate((one, two))]
    await team.deliver(*steps, kind="compare")
    names = [reply.content.split("\n")[0] for reply in team.written]
    assert names[:-1] == ["**A**", "**B**", "**A**", "**B**"]
    assert "Tie" in team.written[-1].buttons
    assert sum(reply.content.count("A sentence.") for reply in team.written) == 600


async def test_where_nothing_is_found_there_is_nothing_to_compare(team: DiscordTalk) -> None:
    nothing = await team.answered("I found nothing.", found=False, finish_reason="not_found")
    await team.deliver((0, team.searching), (0, nothing), kind="compare")
    [reply] = team.written
    assert reply.content == "I found nothing."
    assert "Good answer" in reply.buttons
