"""What people can do, in Slack and in Discord: neither lacks anything without a stated reason.

Every capability names what serves it on each platform, and both apps are asked whether they have
it: Slack's listeners match a made-up request, Discord's commands and buttons are those of the tree
and of the client. The other way round, whatever an app has registered belongs to a capability, so a
feature of one platform alone is noticed, too.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from discord import AppCommandType
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from bots.discord_bot.catch_up import CatchUp
from bots.discord_bot.client import Commands, build_commands
from bots.discord_bot.intake import Intake
from bots.discord_bot.process import listen
from bots.slack_bot.app import VERBS, build_app
from bots.slack_bot.oauth import Workspaces
from storage.pool import Pool
from tests.bots.discord_bot.stage import logged_in
from tests.bots.model_list import serve_models
from tests.bots.slack_bot.listening import make_context
from tests.fakes.discord_server import DiscordServer
from tests.fakes.slack_server import SlackServer

ID = UUID(int=7)


@dataclass(frozen=True)
class Absent:
    """Why a platform does not have it."""

    reason: str


@dataclass(frozen=True)
class Capability:
    """Something that people can do, as they would say it.

    Attributes:
        slack: what serves it: "verb NAME" of `/parley`, "event", "action", "view", "shortcut".
        discord: likewise: "command NAME", "menu NAME", "click ID", "event NAME".
    """

    what: str
    slack: Sequence[str] | Absent
    discord: Sequence[str] | Absent


NO_AGENT = Absent("Discord has no container for agents; a direct message is the place for that.")
NO_INSTALL = Absent("Discord hands no token to an app that is added: there is nothing to keep.")
IN_MODAL = Absent("Discord's `/settings` is used in the channel; there is no home to choose it in.")

CAPABILITIES = [
    # Ask
    Capability("mention it in a channel", ["event app_mention"], ["event on_message"]),
    Capability("ask it in a direct message", ["event message"], ["event on_message"]),
    Capability("go on in a thread", ["event message"], ["event on_message"]),
    Capability("ask by command", ["verb ask"], ["command ask"]),
    Capability(
        "ask in the agent container, with prompts that it suggests",
        [
            "event assistant_thread_started",
            "event assistant_thread_context_changed",
            "event app_context_changed",
            "event app_home_opened messages",
        ],
        NO_AGENT,
    ),
    # Answer
    Capability("stop an answer", ["action parley_stop"], [f"click parley:stop:{ID}:0"]),
    Capability("ask again", ["action parley_regenerate"], [f"click parley:again:{ID}:0"]),
    Capability("share a private answer", ["action parley_share"], [f"click parley:share:{ID}"]),
    Capability("call a human", ["action parley_need_human"], [f"click parley:human:{ID}"]),
    # Files
    Capability("ask about a file", ["event message"], ["event on_message"]),
    Capability("add a file to what is known", ["event message"], ["command upload"]),
    Capability(
        "add the files of a message", ["shortcut parley_add_knowledge"], ["menu Add to knowledge"]
    ),
    Capability("list documents", ["verb documents"], ["command documents"]),
    Capability(
        "replace a document",
        ["action parley_document_replace", "view parley_replace"],
        [f"click parley:replace:{ID}"],
    ),
    Capability(
        "remove a document",
        ["action parley_document_remove"],
        [f"click parley:remove:{ID}", f"click parley:delete:{ID}"],
    ),
    # Rate and compare
    Capability(
        "rate an answer",
        ["action parley_feedback"],
        [f"click parley:up:{ID}", f"click parley:down:{ID}"],
    ),
    Capability("withdraw a vote", ["action parley_withdraw"], [f"click parley:withdraw:{ID}"]),
    Capability(
        "say why, and write the better answer",
        ["action parley_explain", "view parley_reasons"],
        [f"click parley:explain:{ID}"],
    ),
    Capability("ask for a comparison", ["verb compare"], ["command compare"]),
    Capability(
        "choose the better answer",
        [f"action parley_compare_{name}" for name in ("left", "right", "tie", "both_bad")],
        [f"click parley:compare:{name}:{ID}" for name in ("left", "right", "tie", "both_bad")],
    ),
    # Administer
    Capability("list and choose models", ["verb model"], ["command model"]),
    Capability(
        "change a channel's settings",
        ["verb settings", "view parley_settings"],
        ["command settings"],
    ),
    Capability("choose a channel to set up in the home", ["action parley_home_settings"], IN_MODAL),
    Capability(
        "consent to training for everybody",
        ["action parley_home_workspace_consent"],
        ["command settings"],
    ),
    Capability("queue a training", ["verb train"], ["command train"]),
    Capability("promote a model", ["verb promote"], ["command promote"]),
    Capability("roll back to an earlier model", ["verb rollback"], ["command rollback"]),
    Capability("let the gate look again", ["verb judge"], ["command judge"]),
    Capability("see the status", ["verb status"], ["command status"]),
    Capability(
        "be forgotten", ["verb forget-me", "action parley_home_forget"], ["command forget-me"]
    ),
    Capability("see one's home", ["event app_home_opened home"], ["command home"]),
    Capability(
        "agree to training, and withdraw that",
        ["action parley_home_consent"],
        ["click parley:consent:yes", "click parley:consent:no"],
    ),
    Capability("see the leaderboard", ["verb leaderboard"], ["command leaderboard"]),
    Capability("read what there is", ["verb help"], ["command help"]),
    # Coming and going
    Capability("remove it with all data", ["event app_uninstalled"], ["event on_guild_remove"]),
    Capability("take its token back", ["event tokens_revoked"], NO_INSTALL),
]


# -- What is registered ---------------------------------------------------------------------------


@pytest.fixture
async def slack_app(pool: Pool, tmp_path: Path) -> AsyncIterator[AsyncApp]:
    async with serve_models() as engine, SlackServer() as slack:
        client = AsyncWebClient(slack.bot_token, base_url=slack.base_url)
        context = make_context(slack, pool, engine, tmp_path, client)
        workplace = context.workplace
        yield build_app(
            context,
            Workspaces(
                settings=context.settings,
                client=client,
                installations=workplace.installations,
                places=workplace.places,
            ),
        )


@pytest.fixture
async def discord_commands(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Commands]:
    async with (
        serve_models() as engine,
        DiscordServer() as discord_server,
        logged_in(discord_server, pool, engine, tmp_path, monkeypatch) as stage,
    ):
        intake = Intake(stage.context)
        listen(stage.context, intake, CatchUp(stage.context, intake))
        yield await build_commands(stage.context.client, stage.context)


def slack_request(probe: str) -> dict[str, Any]:
    kind, name, *more = probe.split(" ")
    if kind == "event":
        event = {"type": name, "tab": more[0] if more else "", "channel": "C1", "user": "U1"}
        return {"type": "event_callback", "team_id": "T1", "event": event}
    if kind == "action":
        action = {"action_id": name, "block_id": "b", "type": "button"}
        return {"type": "block_actions", "team": {"id": "T1"}, "actions": [action]}
    if kind == "view":
        view = {"type": "modal", "callback_id": name, "state": {"values": {}}}
        return {"type": "view_submission", "team": {"id": "T1"}, "view": view}
    if kind == "shortcut":
        return {"type": "message_action", "team": {"id": "T1"}, "callback_id": name}
    return {"command": "/parley", "team_id": "T1", "text": name}


async def slack_listeners(app: AsyncApp, probe: str) -> list[int]:
    """The listeners that take a made-up request, by their numbers."""
    kind, name, *_ = probe.split(" ")
    if kind == "verb" and name not in VERBS:
        return []
    request = AsyncBoltRequest(body=json.dumps(slack_request(probe)), mode="socket_mode")
    response = BoltResponse(status=200)
    listeners = enumerate(app._async_listeners)
    return [n for n, each in listeners if await each.async_matches(req=request, resp=response)]


def discord_has(commands: Commands, probe: str) -> bool:
    kind, _, name = probe.partition(" ")
    if kind == "event":
        return hasattr(commands.client, name)
    if kind == "click":
        return any(pattern.match(name) for pattern in clicks_of(commands))
    type_ = AppCommandType.message if kind == "menu" else AppCommandType.chat_input
    return commands.get_command(name, type=type_) is not None


def clicks_of(commands: Commands) -> list[Any]:
    return list(commands.client._connection._view_store._dynamic_items)


def probes(platform: str) -> list[tuple[str, str]]:
    """What is to be there, with the capability that needs it."""
    found = [(each.what, getattr(each, platform)) for each in CAPABILITIES]
    return [
        (what, each) for what, served in found if not isinstance(served, Absent) for each in served
    ]


# -- Parity ---------------------------------------------------------------------------------------


async def test_slack_has_every_capability_and_nothing_beside_them(slack_app: AsyncApp) -> None:
    served = {probe: await slack_listeners(slack_app, probe) for _, probe in probes("slack")}
    assert [what for what, probe in probes("slack") if not served[probe]] == []
    used = {number for numbers in served.values() for number in numbers}
    listeners = slack_app._async_listeners
    beside = [str(each) for number, each in enumerate(listeners) if number not in used]
    assert beside == [], "no capability names these listeners"
    assert set(VERBS) == {probe[5:] for probe in served if probe.startswith("verb ")}


async def test_discord_has_every_capability_and_nothing_beside_them(
    discord_commands: Commands,
) -> None:
    wanted = probes("discord")
    assert [what for what, probe in wanted if not discord_has(discord_commands, probe)] == []
    names = {command.name for command in discord_commands._get_all_commands(guild=None)}
    assert names == {
        probe.partition(" ")[2] for _, probe in wanted if probe.startswith(("command ", "menu "))
    }
    clicked = [probe[6:] for _, probe in wanted if probe.startswith("click ")]
    beside = [
        pattern.pattern
        for pattern in clicks_of(discord_commands)
        if not any(pattern.match(each) for each in clicked)
    ]
    assert beside == [], "no capability names these buttons"


def test_what_a_platform_lacks_has_a_reason_and_the_other_has_it() -> None:
    for capability in CAPABILITIES:
        both = [capability.slack, capability.discord]
        lacking = [each for each in both if isinstance(each, Absent)]
        assert len(lacking) <= 1, capability.what
        assert all(each.reason.endswith(".") for each in lacking)
        assert all(each for each in both), capability.what
