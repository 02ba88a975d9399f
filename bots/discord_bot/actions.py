"""The buttons of an answer: stop, answer again, share with the channel, call people."""

import logging
import re
from collections.abc import Sequence
from uuid import UUID

import discord
from discord.app_commands import CommandTree

from bots.answer_actions import again, call_people, called, share, stop
from bots.channel_settings import load
from bots.discord_bot import custom_ids
from bots.discord_bot.board import Board
from bots.discord_bot.clicks import on_click
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.intake import files_of
from bots.discord_bot.interactions import Use, refused, roles_of
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.messages import Post, answer_posts
from bots.discord_bot.rest import DiscordTrouble
from bots.discord_bot.ways import Place
from bots.gate import Refusal
from bots.messages import Answer
from bots.screens import Links, Reach
from storage.identity import AnswerId, MessageId

logger = logging.getLogger(__name__)


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Handle the buttons."""
    on_click(context, custom_ids.STOP_TEMPLATE, _stop)
    on_click(context, custom_ids.AGAIN_TEMPLATE, _again)
    on_click(context, custom_ids.SHARE_TEMPLATE, _share)
    on_click(context, custom_ids.HUMAN_TEMPLATE, _need_human)


async def _stop(use: Use, match: re.Match[str]) -> None:
    context, message_id = use.context, MessageId(UUID(match["id"]))
    await _end(use, await stop(context.workplace, context.turns, message_id, audience=use.audience))


async def _again(use: Use, match: re.Match[str]) -> None:
    context, message_id = use.context, MessageId(UUID(match["id"]))
    if (refusal := await _may_not_ask(use)) is not None:
        await _end(use, refusal.text)
        return
    place = await _place_of_turn(use, message_id)
    with context.deferrals.begun(place["interaction"]):
        sentence = await again(
            context.workplace, context.turns, message_id, audience=use.audience, place=place
        )
        await _end(use, sentence)


async def _share(use: Use, match: re.Match[str]) -> None:
    answer_id = AnswerId(UUID(match["id"]))
    beside = await _beside(use, answer_id)
    refusal = await share(use.context.workplace, answer_id, audience=use.audience, beside=beside)
    await _end(use, refusal)
    if refusal is None and _is_private(use):
        await _remove_clicked(use)


async def _need_human(use: Use, match: re.Match[str]) -> None:
    answer_id = AnswerId(UUID(match["id"]))
    beside = await _beside(use, answer_id)
    workplace, audience = use.context.workplace, use.audience
    refusal = await call_people(
        workplace, answer_id, audience=audience, beside=beside, dialect=MARKDOWN
    )
    await _end(use, refusal)


async def _may_not_ask(use: Use) -> Refusal | None:
    user = use.interaction.user
    settings = await load(use.context.workplace.places, use.audience.channel_id)
    return refused(settings, use.spot, roles=roles_of(user), bot=user.bot)


async def _end(use: Use, sentence: str | None) -> None:
    """Acknowledge what is done by now, by a sentence where there is one."""
    if sentence is None:
        await use.done()
    else:
        await use.tell(sentence)


async def _remove_clicked(use: Use) -> None:
    """Take away the message that was clicked, which only the clicker sees; it may stay, too."""
    interaction = use.interaction
    try:
        await use.context.rest.delete_response(str(interaction.application_id), interaction.token)
    except DiscordTrouble as error:
        logger.info("a response stays: %s", error, extra={"action": "response_stays"})


def _is_private(use: Use) -> bool:
    """Whether only the clicker sees what was clicked."""
    message = use.interaction.message
    return message is not None and message.flags.ephemeral


async def _place_of_turn(use: Use, message_id: MessageId) -> dict[str, str]:
    """Where the answer stands, with the files that belong to its conversation."""
    thread = await use.context.workplace.conversations.thread_of(message_id, audience=use.audience)
    return use.place | {
        "also": f"{use.spot.also} {files_of(thread) if thread else ''}".strip(),
        "via": "ephemeral" if _is_private(use) else "message",
        "message": "",
        "interaction": str(use.interaction.id),
    }


class DiscordBeside:
    """What stands beside an answer; see `bots.answer_actions.Beside`.

    Args of the constructor:
        guild: whose roles may be among those who are called.
    """

    trouble = DiscordTrouble

    def __init__(self, board: Board, guild: discord.Guild | None) -> None:
        self._board = board
        self._guild = guild
        self.knows = board.knows
        self.recover = board.recover

    async def post(self, part: int, post: Post) -> None:
        """Post it where the answer stands, a call in reply to it."""
        await self._board.show(part, post, final=True)

    def shared(self, answer: Answer, links: Links) -> list[Post]:
        """The answer, to be rated by all."""
        return answer_posts(answer, links=links, reach=Reach.SHARED)

    def call(self, humans: Sequence[str]) -> Post:
        """Mentions them; nobody else can be called by that message."""
        ids = [self._known(human) for human in humans]
        text = called([MARKDOWN.person(id_) for id_ in ids], MARKDOWN.person(self._member))
        calls = tuple(id_ for id_ in ids if id_ != self._everyone)
        return Post(content=text, calls=calls)

    @property
    def _member(self) -> str:
        return self._board.place.member

    @property
    def _everyone(self) -> str:
        """The role that all have is a role like any other, but nobody may call a whole server."""
        return f"&{self._guild.id}" if self._guild is not None else ""

    def _known(self, human: str) -> str:
        """With `&` where it is a role's; the settings hold bare ids."""
        role = self._guild is not None and self._guild.get_role(int(human)) is not None
        return f"&{human}" if role else human


async def _beside(use: Use, answer_id: AnswerId) -> DiscordBeside:
    """Where the clicked answer stands.

    Raises:
        MessageNotFound: no such answer here.
    """
    context, clicked = use.context, use.interaction.message
    stored = await context.workplace.conversations.answer(answer_id, audience=use.audience)
    under = str(clicked.id) if clicked is not None and not _is_private(use) else ""
    # Posted as a member of the channel: without the click's token, which ends in 15 minutes.
    place = use.place | {"via": "message", "message": under, "token": "", "expires": ""}
    board = Board(
        rest=context.rest,
        deliveries=context.workplace.deliveries,
        place=Place.of(place),
        message_id=stored.message_id,
        audience=use.audience,
        edit_interval_s=context.settings.edit_interval_s,
    )
    await board.load(again=False)
    return DiscordBeside(board, use.interaction.guild)
