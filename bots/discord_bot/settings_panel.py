"""`/settings`: a channel's settings and the server's, in modals that are checked when they return.

Whoever sends a modal back is judged anew, by the rights that the submission itself carries, and it
changes the channel that it is sent from.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import discord
from discord.app_commands import (
    Choice,
    CommandTree,
    allowed_installs,
    choices,
    describe,
    guild_only,
    locale_str,
)
from discord.ui import Label

from bots.administration import AdministrationError, answering_models
from bots.channel_settings import (
    CONSENT_CHOICES,
    MAX_HUMANS,
    ChannelSettings,
    WorkspaceSettings,
    consent_choice,
    load,
    load_workspace,
)
from bots.discord_bot import custom_ids
from bots.discord_bot.administer import actor_of
from bots.discord_bot.context import DiscordContext
from bots.discord_bot.interactions import Use, handle
from bots.discord_bot.modals import Values, modal, on_submit, text_of
from engine.errors import EngineError

S = TypeVar("S", ChannelSettings, WorkspaceSettings)

SWITCHES: Final = {
    "enabled": "Answer in this channel",
    "follow_ups": "Follow-ups in threads need no new mention",
    "answer_bots": "Answer other bots too",
    "ephemeral": "Answer commands to the asker alone",
}
WHEN: Final = {"mention": "When I am mentioned", "always": "Every question"}
WHERE: Final = {"thread": "In a thread of its own", "inline": "In the channel"}
CONSENT: Final = {
    "workspace": "As the server decides",
    "yes": "Yes, of people who agree too",
    "no": "No",
}
SERVER_CONSENT: Final = {"yes": "Yes, of people who agree too", "no": "No"}
DEFAULT_MODEL = "-"
MAX_OPTIONS = 25
MAX_OPTION_CHARACTERS = 100
"""Of a select menu (docs.discord.com/developers/components/reference#string-select)."""


class SettingRefused(AdministrationError):
    """A submitted value cannot be."""


def register(tree: CommandTree[discord.Client], context: DiscordContext) -> None:
    """Add the command and take what its modals bring."""

    @tree.command(
        name=locale_str("settings"),
        description=locale_str("How I behave in this channel or on this server"),
    )
    @describe(part=locale_str("Which settings; without a choice, this channel's"))
    @choices(
        part=[
            Choice(name=locale_str("This channel"), value="channel"),
            Choice(name=locale_str("People of this channel"), value="people"),
            Choice(name=locale_str("This server"), value="server"),
        ]
    )
    @guild_only()
    @allowed_installs(guilds=True, users=False)
    async def settings(interaction: discord.Interaction, part: Choice[str] | None = None) -> None:
        wanted = part.value if part is not None else "channel"
        await handle(context, interaction, lambda use: _open(use, wanted))

    on_submit(context, custom_ids.SETTINGS_TEMPLATE, _submitted)


async def _open(use: Use, part: str) -> None:
    administration, actor = use.context.administration, actor_of(use)
    if part == "server":
        now = await administration.workspace_settings(actor)
        await use.open(server_modal(now, await _models(use, now.model)))
        return
    settings = await administration.settings(actor)
    guild = use.interaction.guild
    roles = {str(role.id) for role in guild.roles} if guild is not None else set()
    await use.open(people_modal(settings, roles) if part == "people" else channel_modal(settings))


async def _submitted(use: Use, match: re.Match[str], values: Values) -> None:
    administration, actor = use.context.administration, actor_of(use)
    places = use.context.workplace.places
    if match["part"] == "server":
        before = await load_workspace(places, use.audience.workspace_id)
        await administration.save_workspace_settings(actor, read_server(before, values))
        await use.tell("The settings of this server are saved.")
        return
    now = await load(places, use.audience.channel_id)
    read = read_people if match["part"] == "people" else read_channel
    await administration.save_settings(actor, read(now, values))
    await use.tell(f"The settings of <#{use.spot.channel}> are saved.")


async def _models(use: Use, chosen: str | None) -> list[str]:
    """The names that may answer; without the engine, the chosen one."""
    try:
        served = await answering_models(use.context.workplace.engine, use.audience.workspace_id)
        models = [each.name for each in served]
    except EngineError:
        models = []
    return models if chosen is None or chosen in models else [*models, chosen]


# -- What they look like --------------------------------------------------------------------------


def channel_modal(now: ChannelSettings) -> discord.ui.Modal:
    """How the assistant behaves in a channel."""
    on = [name for name in SWITCHES if getattr(now, name)]
    return modal(
        "Parley in this channel",
        custom_ids.settings("channel"),
        Label(text="Behaviour", component=_select("switches", SWITCHES, on, several=True)),
        Label(text="When to answer", component=_select("answer_when", WHEN, [now.answer_when])),
        Label(text="Where to answer", component=_select("answer_in", WHERE, [now.answer_in])),
        Label(
            text="Votes and corrections may train models",
            component=_select("consent_to_train", CONSENT, [consent_choice(now.consent_to_train)]),
        ),
        _share(now.comparison_share),
    )


def people_modal(now: ChannelSettings, roles: set[str]) -> discord.ui.Modal:
    """Who may ask, and whom to call; `roles` are the ids of the server's roles."""
    asking = [discord.Object(int(id_), type=discord.Role) for id_ in now.roles if id_.isdecimal()]
    humans = [
        discord.Object(int(id_), type=discord.Role if id_ in roles else discord.User)
        for id_ in now.humans
        if id_.isdecimal()
    ]
    return modal(
        "People of this channel",
        custom_ids.settings("people"),
        Label(
            text="Roles that may ask",
            description="Nobody chosen: everybody who can read the channel.",
            component=discord.ui.RoleSelect(
                custom_id="roles",
                default_values=asking,
                min_values=0,
                max_values=MAX_HUMANS,
                required=False,
            ),
        ),
        Label(
            text="People and roles to call for help",
            component=discord.ui.MentionableSelect(
                custom_id="humans",
                default_values=humans,
                min_values=0,
                max_values=MAX_HUMANS,
                required=False,
            ),
        ),
    )


def server_modal(now: WorkspaceSettings, models: Sequence[str]) -> discord.ui.Modal:
    """What holds in every channel that sets nothing else, and the server's consent."""
    fitting = [name for name in models if len(name) <= MAX_OPTION_CHARACTERS]
    names = {DEFAULT_MODEL: "The engine's own choice"} | {
        name: name for name in fitting[: MAX_OPTIONS - 1]
    }
    return modal(
        "Parley on this server",
        custom_ids.settings("server"),
        Label(text="When to answer", component=_select("answer_when", WHEN, [now.answer_when])),
        Label(text="Where to answer", component=_select("answer_in", WHERE, [now.answer_in])),
        Label(
            text="Votes and corrections may train models",
            component=_select(
                "consent_to_train", SERVER_CONSENT, ["yes" if now.consent_to_train else "no"]
            ),
        ),
        _share(now.comparison_share),
        Label(text="Model", component=_select("model", names, [now.model or DEFAULT_MODEL])),
    )


def _select(
    custom_id: str, options: Mapping[str, str], chosen: Sequence[str], *, several: bool = False
) -> discord.ui.Select[Any]:
    return discord.ui.Select(
        custom_id=custom_id,
        options=[
            discord.SelectOption(label=label, value=value, default=value in chosen)
            for value, label in options.items()
        ],
        min_values=0 if several else 1,
        max_values=len(options) if several else 1,
        required=not several,
    )


def _share(share: float) -> Label[Any]:
    return Label(
        text="Questions answered twice, in percent",
        description="For a blind comparison of two answers.",
        component=discord.ui.TextInput(
            custom_id="comparison_share", default=f"{100 * share:g}", max_length=8
        ),
    )


# -- What they bring ------------------------------------------------------------------------------


def read_channel(now: ChannelSettings, values: Values) -> ChannelSettings:
    """What the first modal says.

    Raises:
        SettingRefused: something of it cannot be.
    """
    on = values.get("switches", ())
    return _valid(
        now,
        {name: name in on for name in SWITCHES}
        | _choices(values, answer_when=WHEN, answer_in=WHERE)
        | {
            "consent_to_train": CONSENT_CHOICES[_one(values, "consent_to_train", CONSENT)],
            "comparison_share": _fraction(values),
        },
    )


def read_people(now: ChannelSettings, values: Values) -> ChannelSettings:
    """What the second modal says.

    Raises:
        SettingRefused: something of it cannot be.
    """
    return _valid(now, {name: values.get(name, ()) for name in ("roles", "humans")})


def read_server(now: WorkspaceSettings, values: Values) -> WorkspaceSettings:
    """What the server's modal says.

    Raises:
        SettingRefused: something of it cannot be.
    """
    model = text_of(values, "model")
    return _valid(
        now,
        _choices(values, answer_when=WHEN, answer_in=WHERE)
        | {
            "consent_to_train": _one(values, "consent_to_train", SERVER_CONSENT) == "yes",
            "comparison_share": _fraction(values),
            "model": None if model == DEFAULT_MODEL else model,
        },
    )


def _valid(now: S, changes: Mapping[str, Any]) -> S:
    try:
        return type(now).model_validate(now.model_dump() | dict(changes))
    except ValueError as error:
        raise SettingRefused("One of these values is not possible; nothing was saved.") from error


def _choices(values: Values, **offered: Mapping[str, str]) -> dict[str, str]:
    return {name: _one(values, name, options) for name, options in offered.items()}


def _one(values: Values, name: str, options: Mapping[str, str]) -> str:
    chosen = text_of(values, name)
    if chosen is None or chosen not in options:
        raise SettingRefused("Something that I did not offer was chosen; nothing was saved.")
    return chosen


def _fraction(values: Values) -> float:
    try:
        share = float((text_of(values, "comparison_share") or "0").rstrip("% ").replace(",", "."))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise SettingRefused(
            "The share of questions answered twice is a number from 0 to 100; nothing was saved."
        )
    return share / 100
