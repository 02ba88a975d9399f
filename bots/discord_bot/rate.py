"""Votes in Discord: stored before the ack, confirmed to the voter alone, explained in a modal."""

import re
from typing import Any, Final, Literal, get_args
from uuid import UUID

import discord
from discord.app_commands import CommandTree

from bots.discord_bot import custom_ids
from bots.discord_bot.clicks import Clicked, on_click
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import Use
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.messages import Button, Post
from bots.discord_bot.modals import MAX_INPUT_CHARACTERS, Values, modal, on_submit, text_of
from bots.voting import (
    BETTER_HINT,
    BETTER_LABEL,
    BETTER_NOTE,
    COMMENT_HINT,
    COMMENT_LABEL,
    CRITICISM_TITLE,
    EXPLAIN,
    REASONS_LABEL,
    WITHDRAW,
    Criticism,
    choose,
    criticise,
    vote,
    withdraw,
)
from feedback import REASONS, ComparisonId, Winner
from storage.identity import AnswerId

_WINNERS: Final[dict[str, Winner]] = {winner: winner for winner in get_args(Winner)}


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Handle votes, their withdrawal, the modal behind a down-vote, and votes on comparisons."""
    on_click(context, custom_ids.UP_TEMPLATE, _voter(1))
    on_click(context, custom_ids.DOWN_TEMPLATE, _voter(-1))
    on_click(context, custom_ids.WITHDRAW_TEMPLATE, _withdraw)
    on_click(context, custom_ids.EXPLAIN_TEMPLATE, _explain)
    on_click(context, custom_ids.COMPARE_TEMPLATE, _choose)
    on_submit(context, custom_ids.CRITICISM_TEMPLATE, _criticise)


def _voter(value: Literal[-1, 1]) -> Clicked:
    async def voted(use: Use, match: re.Match[str]) -> None:
        answer_id = _answer_id(match)
        done = await vote(
            use.context.workplace.feedback, answer_id, audience=use.audience, value=value
        )
        if value < 0 and done.new:  # a modal must be the first response; its button opens it later
            await use.voice.open(_criticism_modal(answer_id))
        buttons = [Button(label=WITHDRAW, custom_id=custom_ids.withdraw(answer_id))]
        if value < 0:
            explain = Button(label=EXPLAIN, custom_id=custom_ids.explain(answer_id))
            buttons.insert(0, explain)
        confirmed = Post(content=MARKDOWN.plain(done.text), buttons=tuple(buttons))
        await use.tell(confirmed.content, view=confirmed.view())

    return voted


async def _withdraw(use: Use, match: re.Match[str]) -> None:
    feedback = use.context.workplace.feedback
    said = await withdraw(feedback, _answer_id(match), audience=use.audience)
    await use.tell(MARKDOWN.plain(said))


async def _explain(use: Use, match: re.Match[str]) -> None:
    """Open the modal again; the answer's id is checked here and when it comes back."""
    answer_id = _answer_id(match)
    await use.context.workplace.conversations.answer(answer_id, audience=use.audience)
    await use.open(_criticism_modal(answer_id))


async def _criticise(use: Use, match: re.Match[str], values: Values) -> None:
    said = await criticise(
        use.context.workplace.feedback,
        _answer_id(match),
        audience=use.audience,
        criticism=Criticism(
            reasons=tuple(reason for reason in REASONS if reason in values.get("reasons", ())),
            comment=text_of(values, "comment"),
            better=text_of(values, "better"),
        ),
    )
    await use.tell(MARKDOWN.plain(said))


async def _choose(use: Use, match: re.Match[str]) -> None:
    said = await choose(
        use.context.workplace.feedback,
        ComparisonId(UUID(match["id"])),
        audience=use.audience,
        winner=_WINNERS[match["winner"]],
        dialect=MARKDOWN,
    )
    await use.tell(said)


def _criticism_modal(answer_id: AnswerId) -> discord.ui.Modal:
    """Why the answer is bad, and what would be better."""
    reasons: discord.ui.Select[Any] = discord.ui.Select(
        custom_id="reasons",
        options=[discord.SelectOption(label=each.capitalize(), value=each) for each in REASONS],
        min_values=0,
        max_values=len(REASONS),
        required=False,
    )
    return modal(
        CRITICISM_TITLE,
        custom_ids.criticism(answer_id),
        discord.ui.Label(text=REASONS_LABEL, component=reasons),
        discord.ui.Label(text=COMMENT_LABEL, component=_text_input("comment", COMMENT_HINT)),
        discord.ui.Label(
            text=BETTER_LABEL,
            description=BETTER_NOTE,
            component=_text_input("better", BETTER_HINT),
        ),
    )


def _text_input(custom_id: str, hint: str) -> discord.ui.TextInput[Any]:
    return discord.ui.TextInput(
        custom_id=custom_id,
        style=discord.TextStyle.paragraph,
        placeholder=hint,
        required=False,
        max_length=MAX_INPUT_CHARACTERS,
    )


def _answer_id(match: re.Match[str]) -> AnswerId:
    return AnswerId(UUID(match["id"]))
