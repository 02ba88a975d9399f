"""The methods of the Web API that do not write messages."""

import time
from typing import TYPE_CHECKING, Any

from tests.fakes.slack_blocks import Json, SlackError, check_view
from tests.fakes.slack_calls import Call, app_body, method, truth, writable
from tests.fakes.slack_world import Channel, Message

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer


# ---------------------------------------------------------------- auth, apps, OAuth


@method("api.test", bot_token=False)
async def api_test(slack: "SlackServer", call: Call) -> Json:
    return {"args": call.args}


@method("auth.test")
async def auth_test(slack: "SlackServer", call: Call) -> Json:
    workspace = call.workspace
    return {
        "url": f"{slack.root}/",
        "team": workspace.name,
        "user": "parley",
        "team_id": workspace.id,
        "user_id": workspace.bot_user_id,
        "bot_id": workspace.bot_id,
        "is_enterprise_install": False,
    }


@method("auth.revoke")
async def auth_revoke(slack: "SlackServer", call: Call) -> Json:
    if truth(call.args.get("test")):
        return {"revoked": False}
    assert call.token is not None
    call.token.revoked = True
    return {"revoked": True}


@method("apps.connections.open", bot_token=False)
async def apps_connections_open(slack: "SlackServer", call: Call) -> Json:
    if call.token is None or "connections:write" not in call.token.scopes:
        raise SlackError("not_allowed_token_type")
    return {"url": slack.sockets.issue_ticket()}


@method("apps.uninstall", bot_token=False)
async def apps_uninstall(slack: "SlackServer", call: Call) -> Json:
    if call.args.get("client_id") != slack.client_id:
        raise SlackError("invalid_client_id")
    slack.uninstall(call.workspace)
    return {}


@method("oauth.v2.access", bot_token=False)
async def oauth_v2_access(slack: "SlackServer", call: Call) -> Json:
    return slack.oauth.access(call.args)


@method("team.info", "team:read")
async def team_info(slack: "SlackServer", call: Call) -> Json:
    workspace = call.workspace
    return {"team": {"id": workspace.id, "name": workspace.name, "domain": workspace.name.lower()}}


@method("bots.info", "users:read")
async def bots_info(slack: "SlackServer", call: Call) -> Json:
    if call.args.get("bot") != call.workspace.bot_id:
        raise SlackError("bot_not_found")
    return {"bot": {"id": call.workspace.bot_id, "app_id": slack.app_id, "name": "parley"}}


# ---------------------------------------------------------------- conversations, people


def _readable(slack: "SlackServer", call: Call) -> Channel:
    channel = slack.world.channel(call.need("channel")[0])
    if channel.team_id != call.workspace.id:
        raise SlackError("channel_not_found")
    return channel


def _paged(call: Call, found: list[Any]) -> tuple[list[Any], Json]:
    """One page of a list and the cursor of the next."""
    limit = int(call.args.get("limit") or 100)
    start = int(call.args.get("cursor") or 0)
    more = start + limit < len(found)
    cursor = str(start + limit) if more else ""
    return found[start : start + limit], {
        "has_more": more,
        "response_metadata": {"next_cursor": cursor},
    }


_HISTORY = ("channels:history", "groups:history", "im:history", "mpim:history")
_READ = ("channels:read", "groups:read", "im:read", "mpim:read")


@method("conversations.replies", *_HISTORY)
async def conversations_replies(slack: "SlackServer", call: Call) -> Json:
    channel = _readable(slack, call)
    ts = str(call.need("ts")[0])
    if ts not in channel.messages:
        raise SlackError("thread_not_found")
    return _messages(call, channel.thread(ts))


@method("conversations.history", *_HISTORY)
async def conversations_history(slack: "SlackServer", call: Call) -> Json:
    channel = _readable(slack, call)
    if call.workspace.bot_user_id not in channel.members:
        raise SlackError("not_in_channel")
    found = [m for m in channel.messages.values() if m.thread_ts in (None, m.ts)]
    return _messages(call, sorted(found, key=lambda m: m.ts, reverse=True))


def _messages(call: Call, found: list[Message]) -> Json:
    oldest, latest = str(call.args.get("oldest") or "0"), str(call.args.get("latest") or "9")
    inclusive = truth(call.args.get("inclusive"))
    kept = [
        m
        for m in found
        if not m.deleted and (oldest < m.ts < latest or (inclusive and m.ts in (oldest, latest)))
    ]
    page, more = _paged(call, kept)
    metadata = truth(call.args.get("include_all_metadata"))
    return {"messages": [m.wire(metadata=metadata) for m in page], **more}


@method("conversations.info", *_READ)
async def conversations_info(slack: "SlackServer", call: Call) -> Json:
    channel = _readable(slack, call)
    member = call.workspace.bot_user_id in channel.members
    if not member and channel.kind != "channel":
        raise SlackError("channel_not_found")
    return {"channel": channel.wire() | {"is_member": member}}


@method("conversations.members", *_READ)
async def conversations_members(slack: "SlackServer", call: Call) -> Json:
    page, more = _paged(call, sorted(_readable(slack, call).members))
    return {"members": page, **more}


@method("conversations.list", *_READ)
async def conversations_list(slack: "SlackServer", call: Call) -> Json:
    page, more = _paged(call, [c for c in slack.world.channels.values() if c.kind != "im"])
    return {"channels": [channel.wire() for channel in page], **more}


@method("users.conversations", *_READ)
async def users_conversations(slack: "SlackServer", call: Call) -> Json:
    who = call.args.get("user") or call.workspace.bot_user_id
    found = [c for c in slack.world.channels.values() if who in c.members and c.kind != "im"]
    page, more = _paged(call, found)
    return {"channels": [channel.wire() for channel in page], **more}


@method("conversations.open", "im:write", "mpim:write")
async def conversations_open(slack: "SlackServer", call: Call) -> Json:
    if call.args.get("channel"):
        return {"channel": {"id": _readable(slack, call).id}}
    users = str(call.need("users")[0])
    return {"channel": {"id": slack.world.direct(users, call.workspace).id}}


@method("conversations.join", "channels:join")
async def conversations_join(slack: "SlackServer", call: Call) -> Json:
    channel = _readable(slack, call)
    channel.members.add(call.workspace.bot_user_id)
    return {"channel": channel.wire()}


@method("users.info", "users:read")
async def users_info(slack: "SlackServer", call: Call) -> Json:
    person = slack.world.people.get(str(call.need("user")[0]))
    if person is None:
        raise SlackError("user_not_found")
    return {"user": person.wire(call.workspace.id)}


@method("users.list", "users:read")
async def users_list(slack: "SlackServer", call: Call) -> Json:
    team = call.workspace.id
    page, more = _paged(call, [p for p in slack.world.people.values() if p.team_id == team])
    return {"members": [person.wire(team) for person in page], **more}


@method("usergroups.users.list", "usergroups:read")
async def usergroups_users_list(slack: "SlackServer", call: Call) -> Json:
    found = slack.world.usergroups.get(str(call.need("usergroup")[0]))
    if found is None:
        raise SlackError("no_such_subteam")
    return {"users": found}


@method("reactions.add", "reactions:write")
async def reactions_add(slack: "SlackServer", call: Call) -> Json:
    channel, name, ts = call.need("channel", "name", "timestamp")
    if (channel, ts, name) in slack.world.reactions:
        raise SlackError("already_reacted")
    slack.world.reactions.append((channel, ts, name))
    return {}


@method("reactions.remove", "reactions:write")
async def reactions_remove(slack: "SlackServer", call: Call) -> Json:
    channel, name, ts = call.need("channel", "name", "timestamp")
    if (channel, ts, name) not in slack.world.reactions:
        raise SlackError("no_reaction")
    slack.world.reactions.remove((channel, ts, name))
    return {}


# ---------------------------------------------------------------- files


@method("files.info", "files:read")
async def files_info(slack: "SlackServer", call: Call) -> Json:
    file = slack.world.files.get(str(call.need("file")[0]))
    if file is None or file.deleted:
        raise SlackError("file_deleted" if file else "file_not_found")
    return {"file": file.wire()}


@method("files.getUploadURLExternal", "files:write")
async def files_get_upload_url(slack: "SlackServer", call: Call) -> Json:
    name, length = call.need("filename", "length")
    return slack.file_host.begin_upload(str(name), int(length), call.workspace)


@method("files.completeUploadExternal", "files:write")
async def files_complete_upload(slack: "SlackServer", call: Call) -> Json:
    named = call.need("files")[0]
    files = [slack.file_host.complete_upload(str(entry["id"])) for entry in named]
    if call.args.get("channel_id"):
        call.args["channel"] = call.args["channel_id"]
        channel = writable(slack, call)
        text = str(call.args.get("initial_comment") or "")
        body = app_body(slack, call, channel) | {"text": text}
        body |= {"subtype": "file_share", "files": [file.wire() for file in files]}
        slack.tell_message(slack.world.add_message(channel, body))
    return {"files": [{"id": file.id, "title": file.name} for file in files]}


# ---------------------------------------------------------------- views


def _view(slack: "SlackServer", call: Call, kind: str) -> Json:
    view = call.need("view")[0]
    if not isinstance(view, dict):
        raise SlackError("invalid_arguments", "view must be an object")
    check_view(view)
    if view["type"] != kind:
        raise SlackError("invalid_arguments", f"must be a {kind} view")
    return slack.adopt_view(view, call.workspace)


@method("views.open")
async def views_open(slack: "SlackServer", call: Call) -> Json:
    return _open_view(slack, call, previous=None)


@method("views.push")
async def views_push(slack: "SlackServer", call: Call) -> Json:
    return _open_view(slack, call, previous="any")


def _open_view(slack: "SlackServer", call: Call, previous: str | None) -> Json:
    trigger = slack.world.triggers.get(str(call.need("trigger_id")[0]))
    if trigger is None or trigger.workspace is not call.workspace:
        raise SlackError("invalid_trigger_id")
    if time.monotonic() > trigger.expires_at:
        raise SlackError("expired_trigger_id")
    if trigger.used:
        raise SlackError("exchanged_trigger_id")
    view = _view(slack, call, "modal")
    trigger.used = True
    slack.show_view(view, trigger.person)
    return {"view": view | {"previous_view_id": previous}}


@method("views.update")
async def views_update(slack: "SlackServer", call: Call) -> Json:
    wanted = call.args.get("view_id") or call.args.get("external_id")
    old = slack.world.views.get(str(wanted))
    if old is None:
        raise SlackError("not_found")
    if call.args.get("hash") not in (None, old["hash"]):
        raise SlackError("hash_conflict")
    view = _view(slack, call, old["type"])
    return {"view": slack.replace_view(old, view)}


@method("views.publish")
async def views_publish(slack: "SlackServer", call: Call) -> Json:
    user = str(call.need("user_id")[0])
    if user not in slack.world.people:
        raise SlackError("invalid_user_id")
    old = slack.world.homes.get(user)
    if old is not None and call.args.get("hash") not in (None, old["hash"]):
        raise SlackError("hash_conflict")
    view = _view(slack, call, "home")
    slack.world.homes[user] = view
    return {"view": view}
