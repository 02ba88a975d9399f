"""Commands of administrators, checked on every call; forget-me, leaderboard, help for everybody.

Everybody sees the commands: Discord could hide them from who lacks Manage Server, but then the
configured roles would not find them either.
"""

import asyncio
import contextlib
import io
from collections.abc import Mapping
from typing import Literal

import discord
from discord.app_commands import (
    Choice,
    CommandTree,
    Range,
    allowed_installs,
    describe,
    guild_only,
    locale_str,
)

from bots.administration import Actor, answering_models
from bots.administration_wording import (
    NAME_CHARACTERS,
    help_text,
    leaderboard_text,
    model_set,
    models_text,
    status_text,
)
from bots.discord_bot.audience import spot_of_interaction
from bots.discord_bot.context import SURFACE, DiscordContext
from bots.discord_bot.interactions import Use, Voice, handle, suggest
from bots.discord_bot.markdown import MARKDOWN
from bots.discord_bot.messages import packed
from bots.discord_bot.rest import DiscordRefused
from bots.runs import ask_for_run
from feedback import picture
from storage.identity import Audience
from storage.runs import Recipe

DEFAULT = "default"
"""In the place of a model's name: the server's."""
MORE_COMMANDS = (
    ("upload", "add files to what is known here"),
    ("home", "your votes, your consent, what is known here"),
)
Name = Range[str, 1, NAME_CHARACTERS]


def actor_of(use: Use) -> Actor:
    """Who uses a verb, with the rights that this very interaction carries."""
    return Actor(audience=use.audience, administers=use.administers)


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add the commands."""
    _register_model(tree, context)
    _register_runs(tree, context)
    _register_everybodys(tree, context)

    @tree.command(
        name=locale_str("status"),
        description=locale_str("Engine, documents, who answers, and training runs"),
    )
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def status(interaction: discord.Interaction) -> None:
        await handle(context, interaction, _status)


async def _status(use: Use) -> None:
    now = await use.context.administration.status(actor_of(use))
    for part in packed([], status_text(now, MARKDOWN).splitlines()):
        await use.tell(part)


# -- Models ---------------------------------------------------------------------------------------


def _register_model(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    @tree.command(
        name=locale_str("model"),
        description=locale_str("List the models, or choose the one that answers in this channel"),
    )
    @describe(name=locale_str("The model; “default” is the server's"))
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def model(interaction: discord.Interaction, name: Name | None = None) -> None:
        await handle(context, interaction, lambda use: _model(use, name))

    @model.autocomplete("name")
    async def names(interaction: discord.Interaction, current: str) -> list[Choice[str]]:
        async def find(audience: Audience) -> list[tuple[str, str]]:
            use = Use(
                context=context,
                interaction=interaction,
                audience=audience,
                spot=spot_of_interaction(interaction),
                voice=Voice(context, interaction),
            )
            if not use.administers:
                return []
            served = await answering_models(context.workplace.engine, use.audience.workspace_id)
            known = [DEFAULT, *(each.name for each in served)]
            return [(each, each) for each in known if current.casefold() in each.casefold()]

        return await suggest(context, interaction, find)


async def _model(use: Use, name: str | None) -> None:
    administration, actor = use.context.administration, actor_of(use)
    if name is None:
        await use.tell(models_text(await administration.models(actor), MARKDOWN))
        return
    wanted = None if name == DEFAULT else name
    await administration.set_model(actor, wanted)
    await use.tell(model_set(wanted, MARKDOWN))


# -- Runs -----------------------------------------------------------------------------------------


def _register_runs(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    @tree.command(name=locale_str("train"), description=locale_str("Queue a training run"))
    @describe(method=locale_str("How; without one, by the recipe of the settings"))
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def train(
        interaction: discord.Interaction,
        method: Literal["sft", "dpo", "kto", "reward", "rloo", "pipeline"] | None = None,
    ) -> None:
        recipe = Recipe(kind="train", parameters={"recipe": method} if method else {})
        await handle(context, interaction, lambda use: _run(use, recipe))

    @tree.command(
        name=locale_str("promote"), description=locale_str("Let a trained model answer from now on")
    )
    @describe(version=locale_str("Which; without one, the tried one or the newest candidate"))
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def promote(interaction: discord.Interaction, version: Name | None = None) -> None:
        recipe = Recipe(kind="promote", parameters={"version": version} if version else {})
        await handle(context, interaction, lambda use: _run(use, recipe))

    @tree.command(
        name=locale_str("rollback"), description=locale_str("Let an earlier model answer again")
    )
    @describe(
        version=locale_str(
            "Which, or “base”; without one, a trial ends, or the version before answers"
        )
    )
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def rollback(interaction: discord.Interaction, version: Name | None = None) -> None:
        recipe = Recipe(kind="rollback", parameters={"version": version} if version else {})
        await handle(context, interaction, lambda use: _run(use, recipe))

    @tree.command(
        name=locale_str("judge"),
        description=locale_str(
            "Let the gate look again at a version that it could not decide about"
        ),
    )
    @describe(version=locale_str("Which; without one, the newest undecided one"))
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def judge(interaction: discord.Interaction, version: Name | None = None) -> None:
        recipe = Recipe(kind="judge", parameters={"version": version} if version else {})
        await handle(context, interaction, lambda use: _run(use, recipe))


async def _run(use: Use, recipe: Recipe) -> None:
    thread = _Thread(use, f"{recipe.kind} {recipe.parameters.get('version', '')}".strip())
    await ask_for_run(
        use.context.administration,
        actor_of(use),
        recipe,
        person=use.interaction.user.display_name,
        thread=thread,
        dialect=MARKDOWN,
    )
    await use.tell(f"I report on it in <#{thread.id}>.")


class _Thread:
    """The thread of a run: on a message in the channel, or the thread that the command came from.

    Attributes:
        id: of the thread; of the channel where no thread can be opened.
    """

    def __init__(self, use: Use, name: str) -> None:
        self._use = use
        self._name = name
        self.id = str(use.interaction.channel_id)

    async def open(self, text: str) -> Mapping[str, str]:
        rest, inside = self._use.context.rest, self._use.interaction.channel
        head = await rest.send(self.id, content=text)
        if not isinstance(inside, discord.Thread):
            # Without the right to open threads, or where there are none, the channel hears of it.
            with contextlib.suppress(DiscordRefused):
                self.id = await rest.open_thread(self.id, head, self._name)
        return {
            "platform": SURFACE,
            "workspace": self._use.spot.workspace,
            "channel": self._use.spot.channel,
            "member": str(self._use.interaction.user.id),
            "thread": self.id,
        }

    async def report(self, text: str) -> None:
        await self._use.context.rest.send(self.id, content=text)


# -- For everybody --------------------------------------------------------------------------------


def _register_everybodys(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    drawing = asyncio.Lock()

    @tree.command(
        name=locale_str("forget-me"),
        description=locale_str("Delete everything that is stored of you, for good"),
    )
    async def forget_me(interaction: discord.Interaction) -> None:
        await handle(context, interaction, _forget)

    @tree.command(
        name=locale_str("leaderboard"), description=locale_str("Which model people prefer here")
    )
    async def leaderboard(interaction: discord.Interaction) -> None:
        await handle(context, interaction, lambda use: _leaderboard(use, drawing))

    @tree.command(name=locale_str("help"), description=locale_str("What I can do"))
    async def help_(interaction: discord.Interaction) -> None:
        await handle(
            context, interaction, lambda use: use.tell(help_text(MARKDOWN, more=MORE_COMMANDS))
        )


async def _forget(use: Use) -> None:
    """Forget the person in every server and in direct messages."""
    identities = use.context.workplace.identities
    everywhere = await identities.everywhere(SURFACE, str(use.interaction.user.id))
    forgotten = await use.context.administration.forget(use.audience, also=everywhere)
    await use.tell(MARKDOWN.plain(str(forgotten)))


async def _leaderboard(use: Use, drawing: asyncio.Lock) -> None:
    """The table at once; the picture, which takes a process and a second or two, after it."""
    workspace = use.audience.workspace_id
    board = await use.context.workplace.feedback.ranking(workspace_id=workspace)
    await use.tell(leaderboard_text(board, MARKDOWN))
    if not board.enough:
        return
    async with drawing:
        drawn = await picture(board, title="Leaderboard")
    await use.context.rest.follow_up(
        str(use.interaction.application_id),
        use.interaction.token,
        content="",
        file=discord.File(io.BytesIO(drawn), "leaderboard.png"),
        ephemeral=True,
    )
