"""`/ask` and `/compare`: the question is stored before Discord gets its deferral."""

import asyncio
from typing import Literal

import discord
from discord.app_commands import CommandTree, describe, locale_str
from discord.app_commands import Range as Length

from bots.channel_settings import ChannelSettings, load
from bots.comparisons import kind_for
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.intake import files_of, may_open_thread
from bots.discord_bot.interactions import ACK_S, Use, handle, refused, roles_of
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.turn import UNKNOWN_YET
from bots.listening import EMPTY
from bots.messages import Question

MAX_QUESTION_CHARACTERS = 4000


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add both commands."""

    @tree.command(
        name=locale_str("ask"), description=locale_str("Ask a question about the documents here")
    )
    @describe(question=locale_str("What you want to know"))
    async def ask(
        interaction: discord.Interaction, question: Length[str, 1, MAX_QUESTION_CHARACTERS]
    ) -> None:
        await handle(context, interaction, lambda use: _ask(use, question, None))

    @tree.command(
        name=locale_str("compare"),
        description=locale_str("Get two answers to a question and choose the better one"),
    )
    @describe(question=locale_str("What you want to know"))
    async def compare(
        interaction: discord.Interaction, question: Length[str, 1, MAX_QUESTION_CHARACTERS]
    ) -> None:
        await handle(context, interaction, lambda use: _ask(use, question, "compare"))


async def _ask(use: Use, text: str, kind: Literal["compare"] | None) -> None:
    """Take the question, then let its turn fill the response.

    Raises:
        StorageError, TimeoutError: nothing was stored.
    """
    if not text.strip():
        await use.tell(MARKDOWN.plain(EMPTY))
        return
    with use.context.deferrals.begun(str(use.interaction.id)):
        async with asyncio.timeout(ACK_S):
            place = await _accepted(use, text, kind)
        if place is not None:
            await use.hand_over(private=place["via"] == "ephemeral")


async def _accepted(use: Use, text: str, kind: Literal["compare"] | None) -> dict[str, str] | None:
    """Store the question; returns the place of its answer, None for who gets none and is told."""
    settings = await load(use.context.workplace.places, use.audience.channel_id)
    roles = roles_of(use.interaction.user)
    refusal = refused(settings, use.spot, roles=roles, bot=use.interaction.user.bot)
    if refusal is not None:
        await use.tell(refusal.text)
        return None
    place, thread = _place(use, settings)
    name = f"{use.interaction.application_id}:{UNKNOWN_YET}{use.interaction.id}"
    question = Question(
        text=text,
        audience=use.audience,
        thread_ref=thread,
        message_ref=name,
        author_id=use.audience.member_id,
    )
    await use.context.turns.accept(
        question, place=place, kind=kind or kind_for(settings.comparison_share, name)
    )
    return place


def _place(use: Use, settings: ChannelSettings) -> tuple[dict[str, str], str]:
    """Where the answer belongs, and what its conversation is called."""
    private = use.spot.foreign or (settings.ephemeral and not use.spot.direct)
    channel, interaction = use.interaction.channel, use.interaction
    opens = settings.answer_in == "thread" and not private and may_open_thread(channel)
    thread = f"{UNKNOWN_YET}{interaction.id}"
    if not private and (use.spot.direct or isinstance(channel, discord.Thread)):
        thread = str(interaction.channel_id)
    return use.place | {
        "also": f"{use.spot.also} {files_of(thread)}".strip(),
        "via": "ephemeral" if private else "interaction",
        "thread": "open" if opens else "",
        "message": "",
        "interaction": str(interaction.id),
    }, thread
