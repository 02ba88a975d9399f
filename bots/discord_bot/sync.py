"""Tells Discord of the app's commands: only when asked to, and only what has changed.

Why not at every start: Discord limits it, clients reload their commands, and two versions of the
app that run side by side would overwrite each other's.
https://docs.discord.com/developers/interactions/application-commands#bulk-overwrite-global-application-commands
"""

from collections.abc import Mapping, Sequence
from typing import Any

import discord
from discord.app_commands import CommandTree
from discord.http import Route

from bots.errors import ServiceMissing

Json = dict[str, Any]

_COMPARED = frozenset(
    {
        *("name", "description", "type", "options", "required", "choices", "value"),
        *("name_localizations", "description_localizations", "default_member_permissions"),
        *("contexts", "integration_types", "nsfw", "channel_types", "autocomplete"),
        *("min_value", "max_value", "min_length", "max_length"),
    }
)
"""What Discord keeps of a command as it was sent; the rest is Discord's own."""


async def wanted(tree: CommandTree[Any]) -> list[Json]:
    """The commands of this version, as they are sent, in all languages."""
    commands = tree._get_all_commands(guild=None)
    translator = tree.translator
    if translator is None:
        return [command.to_dict(tree) for command in commands]
    return [await command.get_translated_payload(tree, translator) for command in commands]


async def differing(client: discord.Client, tree: CommandTree[Any]) -> list[str]:
    """Names of the commands that Discord does not know, or knows otherwise; sorted.

    Raises:
        discord.HTTPException, aiohttp.ClientError, OSError: Discord does not say.
    """
    route = Route(
        "GET", "/applications/{application_id}/commands", application_id=client.application_id
    )
    known = await client.http.request(route, params={"with_localizations": "true"})
    theirs, ours = _by_name(known), _by_name(await wanted(tree))
    names = {*theirs, *ours}
    return sorted(
        {name for name, type_ in names if theirs.get((name, type_)) != ours.get((name, type_))}
    )


async def sync(client: discord.Client, tree: CommandTree[Any]) -> list[str]:
    """Make Discord's commands those of this version; returns the names of what changed.

    Raises:
        ServiceMissing: Discord refuses them.
        discord.HTTPException, aiohttp.ClientError, OSError: Discord does not answer.
    """
    changed = await differing(client, tree)
    if changed and client.application_id is not None:
        try:
            await client.http.bulk_upsert_global_commands(client.application_id, await wanted(tree))
        except discord.HTTPException as error:
            if error.status != 400:
                raise
            raise ServiceMissing(f"Discord refuses the commands: {error.text}") from None
    return changed


def _by_name(commands: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Json]:
    return {
        (str(command["name"]), int(command.get("type") or 1)): _essence(command)
        for command in commands
    }


def _essence(part: Mapping[str, Any]) -> Json:
    """What two descriptions of a command must have in common, defaults left out."""
    return {
        key: _plain(key, value)
        for key, value in part.items()
        if key in _COMPARED and value not in (None, False, "", [], {})
    }


def _plain(key: str, value: Any) -> Any:
    if key == "default_member_permissions":
        return str(value)
    if key in ("contexts", "integration_types", "channel_types"):
        return sorted(value)
    if isinstance(value, list):
        return [_essence(each) for each in value]
    if isinstance(value, Mapping):
        return {name: text for name, text in value.items() if text}
    return value
