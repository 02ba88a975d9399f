"""Application commands of the fake Discord's REST API: listed, written singly or all at once."""

from typing import TYPE_CHECKING

from tests.fakes.discord_calls import Answer, Call, route
from tests.fakes.discord_limits import DiscordError, check_command
from tests.fakes.wire import Json

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer

LIMITS = {1: 100, 2: 15, 3: 15}
"""Commands per type: slash, user menu, message menu."""
_GLOBAL = "/applications/{application}/commands"
_GUILD = "/applications/{application}/guilds/{guild}/commands"


@route("GET /oauth2/applications/@me")
async def application(discord: "DiscordServer", call: Call) -> Answer:
    """The application."""
    return discord.application()


@route("GET /applications/@me")
async def same_application(discord: "DiscordServer", call: Call) -> Answer:
    """The application."""
    return discord.application()


def _commands(discord: "DiscordServer", call: Call) -> list[Json]:
    if call.path["application"] != discord.app_id:
        raise DiscordError(403, 20012, "You are not authorized to perform this action")
    return discord.commands.setdefault(call.path.get("guild"), [])


@route(f"GET {_GLOBAL}")
@route(f"GET {_GUILD}")
async def listed(discord: "DiscordServer", call: Call) -> Answer:
    """All commands; localisations only where they are asked for."""
    shown = call.query.get("with_localizations") in ("1", "true", "True")
    return [found if shown else _unlocalised(found) for found in _commands(discord, call)]


def _unlocalised(thing: Json) -> Json:
    left = {key: value for key, value in thing.items() if not key.endswith("_localizations")}
    for name in ("options", "choices"):
        if left.get(name):
            left[name] = [_unlocalised(inner) for inner in left[name]]
    return left


@route(f"PUT {_GLOBAL}")
@route(f"PUT {_GUILD}")
async def overwrite(discord: "DiscordServer", call: Call) -> Answer:
    """All commands at once; the ones with a known name keep their id."""
    known = _commands(discord, call)
    for kind, limit in LIMITS.items():
        if sum(command.get("type", 1) == kind for command in call.commands) > limit:
            raise DiscordError(400, 30032, "Maximum number of application commands reached")
    keys = [(command.get("type", 1), command["name"]) for command in call.commands]
    if len(set(keys)) != len(keys):
        raise DiscordError(400, 50035, "Invalid Form Body")
    for number, command in enumerate(call.commands):
        check_command(command, str(number))
    known[:] = [_kept(discord, command, known) for command in call.commands]
    return list(known)


@route(f"POST {_GLOBAL}")
@route(f"POST {_GUILD}")
async def create(discord: "DiscordServer", call: Call) -> Answer:
    """One command; replaces the one with its name."""
    known = _commands(discord, call)
    check_command(call.body, "0")
    kept = _kept(discord, call.body, known)
    known[:] = [*(other for other in known if other["id"] != kept["id"]), kept]
    return kept


@route(f"DELETE {_GLOBAL}/{{command}}")
@route(f"DELETE {_GUILD}/{{command}}")
async def remove(discord: "DiscordServer", call: Call) -> Answer:
    """Remove one command."""
    known = _commands(discord, call)
    left = [command for command in known if command["id"] != call.path["command"]]
    if len(left) == len(known):
        raise DiscordError(404, 10063, "Unknown application command")
    known[:] = left
    return None


def _kept(discord: "DiscordServer", command: Json, known: list[Json]) -> Json:
    """A command as Discord gives it back: with ids, its own defaults, without what is default."""
    kind = command.get("type", 1)
    before = [old for old in known if (old["type"], old["name"]) == (kind, command["name"])]
    same = before[0]["id"] if before else discord.world.new_id()
    kept: Json = {
        "description": "",
        "default_member_permissions": None,
        "contexts": None,
        "integration_types": [0],
        "nsfw": False,
        "dm_permission": True,
        **_plain(command),
        "id": same,
        "application_id": discord.app_id,
        "version": discord.world.new_id(),
        "type": kind,
    }
    changed = [{**old, "version": ""} for old in before] != [{**kept, "version": ""}]
    return kept if changed else before[0]


def _plain(thing: Json) -> Json:
    left = {
        key: value
        for key, value in thing.items()
        if value is not None
        and not (key in ("required", "autocomplete") and value is False)
        and not (key in ("options", "choices") and not value)
    }
    for name in ("options", "choices"):
        if name in left:
            left[name] = [_plain(inner) for inner in left[name]]
    return left
