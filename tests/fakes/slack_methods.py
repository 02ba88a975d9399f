"""The Web API of the fake Slack: one function per method, registered with its scopes."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.slack_blocks import Json, SlackError, check_blocks, check_view
from tests.fakes.slack_world import Channel, Message, Status, Stream, Token, Workspace

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer

MAX_TEXT = 40_000
MAX_UPDATE_TEXT = 4_000
MAX_MARKDOWN = 12_000
MAX_METADATA = 8_192
MAX_SOCKETS = 10
_ENCODED = {
    "attachments",
    "blocks",
    "chunks",
    "files",
    "loading_messages",
    "metadata",
    "prompts",
    "view",
}
_POSTED_KEYS = {"unfurl_links", "unfurl_media", "mrkdwn", "parse", "link_names", "reply_broadcast"}


@dataclass(kw_only=True)
class Call:
    """One request to the Web API. `at` is `time.monotonic()`; `answer` is None before it left."""

    method: str
    token: Token | None
    args: Json
    at: float = field(default_factory=time.monotonic)
    status: int = 0
    answer: Json | None = None

    @property
    def workspace(self) -> Workspace:
        """The workspace that the token speaks for."""
        if self.token is None or self.token.workspace is None:
            raise SlackError("not_allowed_token_type")
        return self.token.workspace

    def need(self, *names: str) -> list[Any]:
        """Arguments that must be there.

        Raises:
            SlackError: `invalid_arguments`.
        """
        for name in names:
            if self.args.get(name) in (None, ""):
                raise SlackError("invalid_arguments", f"missing required field: {name}")
        return [self.args[name] for name in names]


Method = Callable[["SlackServer", Call], Awaitable[Json]]


@dataclass(frozen=True)
class Registered:
    """A method and the scopes of which the token needs one; None = needs no bot token."""

    run: Method
    scopes: tuple[str, ...] | None


METHODS: dict[str, Registered] = {}


def method(name: str, *scopes: str, bot_token: bool = True) -> Callable[[Method], Method]:
    """Register a method."""

    def register(run: Method) -> Method:
        METHODS[name] = Registered(run, scopes if bot_token else None)
        return run

    return register


def decode(args: Json) -> Json:
    """Arguments as they were meant: JSON inside a form field is read."""
    found: Json = {}
    for name, value in args.items():
        if name in _ENCODED and isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise SlackError(f"invalid_{name}_format") from None
        found[name] = value
    return found


def _truth(value: object) -> bool:
    return value in (True, 1, "1", "true", "True")


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
    if _truth(call.args.get("test")):
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


# ---------------------------------------------------------------- messages


def _writable(slack: "SlackServer", call: Call) -> Channel:
    """The channel of a call, in which the app may write."""
    named = str(call.need("channel")[0])
    if named.startswith(("U", "W")):
        return slack.world.direct(named, call.workspace)
    by_name = [c for c in slack.world.channels.values() if f"#{c.name}" == named]
    channel = by_name[0] if by_name else slack.world.channel(named)
    if channel.team_id != call.workspace.id:
        raise SlackError("channel_not_found")
    if call.workspace.bot_user_id not in channel.members:
        raise SlackError("not_in_channel" if channel.kind == "channel" else "channel_not_found")
    if channel.archived:
        raise SlackError("is_archived")
    return channel


def _content(call: Call) -> Json:
    """Text and blocks of a message, checked."""
    text, blocks = call.args.get("text"), call.args.get("blocks")
    if not text and not blocks and not call.args.get("attachments"):
        raise SlackError("no_text")
    content: Json = {"text": str(text or "")[:MAX_TEXT]}
    if blocks is not None:
        check_blocks(blocks)
        content["blocks"] = [
            {"block_id": f"b{number}", **block} for number, block in enumerate(blocks)
        ]
    if call.args.get("metadata"):
        content["metadata"] = _metadata(call.args["metadata"])
    return content


def _metadata(metadata: object) -> Json:
    if not isinstance(metadata, dict):
        raise SlackError("invalid_metadata_format")
    if not isinstance(metadata.get("event_type"), str) or not isinstance(
        metadata.get("event_payload"), dict
    ):
        raise SlackError("invalid_metadata_schema")
    if len(json.dumps(metadata)) > MAX_METADATA:
        raise SlackError("metadata_too_large")
    return metadata


def _app_body(slack: "SlackServer", call: Call, channel: Channel) -> Json:
    """The fields of every message by the app."""
    body: Json = {
        "type": "message",
        "ts": slack.world.new_ts(),
        "user": call.workspace.bot_user_id,
        "bot_id": call.workspace.bot_id,
        "app_id": slack.app_id,
        "team": call.workspace.id,
    }
    thread_ts = call.args.get("thread_ts")
    if thread_ts:
        parent = channel.messages.get(str(thread_ts))
        if parent is None:
            raise SlackError("thread_not_found")
        body |= {"thread_ts": parent.thread_ts or parent.ts, "parent_user_id": parent.user}
    return body


@method("chat.postMessage", "chat:write")
async def chat_post_message(slack: "SlackServer", call: Call) -> Json:
    channel = _writable(slack, call)
    body = _app_body(slack, call, channel) | _content(call)
    posted = {key: call.args[key] for key in _POSTED_KEYS if key in call.args}
    message = slack.world.add_message(channel, body, posted)
    _clear_status(slack, message)
    slack.tell_message(message)
    return {"channel": channel.id, "ts": message.ts, "message": message.wire()}


@method("chat.postEphemeral", "chat:write")
async def chat_post_ephemeral(slack: "SlackServer", call: Call) -> Json:
    channel = _writable(slack, call)
    reader = str(call.need("user")[0])
    if reader not in channel.members:
        raise SlackError("user_not_in_channel")
    if len(str(call.args.get("text") or "")) > MAX_TEXT:
        raise SlackError("msg_too_long")
    message = Message(
        channel=channel,
        body=_app_body(slack, call, channel) | _content(call),
        ephemeral_to=reader,
    )
    message.remember()
    channel.ephemerals.append(message)
    return {"message_ts": message.ts}


def _own_message(slack: "SlackServer", call: Call, refusal: str) -> Message:
    channel = slack.world.channel(call.need("channel")[0])
    message = channel.messages.get(str(call.need("ts")[0]))
    if message is None or message.deleted:
        raise SlackError("message_not_found")
    if message.body.get("bot_id") != call.workspace.bot_id:
        raise SlackError(refusal)
    return message


@method("chat.update", "chat:write")
async def chat_update(slack: "SlackServer", call: Call) -> Json:
    message = _own_message(slack, call, "cant_update_message")
    if message.stream is not None and slack.stream_state(message) == "streaming":
        raise SlackError("streaming_state_conflict")
    if len(str(call.args.get("text") or "")) > MAX_UPDATE_TEXT:
        raise SlackError("msg_too_long")
    before = message.wire()
    content = _content(call)
    if call.args.get("text") and call.args.get("blocks") is None:
        message.body.pop("blocks", None)
    message.stream = None
    message.body |= content
    message.body["edited"] = {"user": call.workspace.bot_user_id, "ts": slack.world.new_ts()}
    message.remember()
    slack.tell_change(message, before)
    return {"channel": message.channel.id, "ts": message.ts, "text": message.body["text"]}


@method("chat.delete", "chat:write")
async def chat_delete(slack: "SlackServer", call: Call) -> Json:
    message = _own_message(slack, call, "cant_delete_message")
    message.deleted = True
    slack.tell_deletion(message)
    return {"channel": message.channel.id, "ts": message.ts}


@method("chat.getPermalink")
async def chat_get_permalink(slack: "SlackServer", call: Call) -> Json:
    channel = slack.world.channel(call.need("channel")[0])
    ts = str(call.need("message_ts")[0])
    if ts not in channel.messages:
        raise SlackError("message_not_found")
    return {"channel": channel.id, "permalink": slack.permalink(channel.id, ts)}


# ---------------------------------------------------------------- streams


def _streamed(call: Call) -> tuple[str, list[Json]]:
    """What a call adds to a stream: text, blocks."""
    text = str(call.args.get("markdown_text") or "")
    blocks: list[Json] = []
    if text and call.args.get("chunks"):
        raise SlackError("invalid_arguments", "markdown_text and chunks exclude each other")
    for chunk in call.args.get("chunks") or ():
        match chunk.get("type"):
            case "markdown_text":
                text += chunk["text"]
            case "blocks":
                check_blocks(chunk["blocks"])
                blocks += chunk["blocks"]
            case "task_update" | "plan_update":
                pass
            case unknown:
                raise SlackError("invalid_chunks", f"unsupported chunk type: {unknown}")
    if len(text) > MAX_MARKDOWN:
        raise SlackError("msg_too_long")
    return text, blocks


@method("chat.startStream", "chat:write")
async def chat_start_stream(slack: "SlackServer", call: Call) -> Json:
    channel = _writable(slack, call)
    call.need("thread_ts")
    recipient = call.args.get("recipient_user_id")
    if channel.kind != "im":
        for name in ("recipient_team_id", "recipient_user_id"):
            if not call.args.get(name):
                raise SlackError(f"missing_{name}")
    text, blocks = _streamed(call)
    body = _app_body(slack, call, channel) | {"text": text, "blocks": blocks}
    message = Message(
        channel=channel, body=body, stream=Stream(recipient=recipient, first_chunk=text)
    )
    channel.messages[message.ts] = message
    message.remember()
    _clear_status(slack, message)
    slack.tell_message(message)
    return {"channel": channel.id, "ts": message.ts}


def _in_stream(slack: "SlackServer", call: Call) -> tuple[Message, Stream]:
    message = _own_message(slack, call, "message_not_owned_by_app")
    if message.stream is None or slack.stream_state(message) != "streaming":
        raise SlackError("message_not_in_streaming_state")
    return message, message.stream


def _append(call: Call, message: Message, stream: Stream) -> None:
    text, blocks = _streamed(call)
    if len(message.body["text"]) + len(text) > MAX_MARKDOWN:
        raise SlackError("msg_too_long")
    message.body["text"] += text
    message.body["blocks"] = [*message.blocks, *blocks]
    stream.last_at = time.monotonic()


@method("chat.appendStream", "chat:write")
async def chat_append_stream(slack: "SlackServer", call: Call) -> Json:
    message, stream = _in_stream(slack, call)
    if not call.args.get("markdown_text") and not call.args.get("chunks"):
        raise SlackError("no_text")
    _append(call, message, stream)
    message.remember()
    return {"channel": message.channel.id, "ts": message.ts}


@method("chat.stopStream", "chat:write")
async def chat_stop_stream(slack: "SlackServer", call: Call) -> Json:
    message, stream = _in_stream(slack, call)
    final = call.args.get("blocks") or []
    if final:
        check_blocks(final)
    metadata = _metadata(call.args["metadata"]) if call.args.get("metadata") else None
    before = message.wire()
    _append(call, message, stream)
    message.body["blocks"] = [
        {"block_id": f"b{number}", **block} for number, block in enumerate(message.blocks + final)
    ]
    if metadata is not None:
        message.body["metadata"] = metadata
    stream.state = "stopped"
    message.remember()
    slack.tell_change(message, before)
    return {"channel": message.channel.id, "ts": message.ts, "message": message.wire()}


# ---------------------------------------------------------------- the agent container


def _clear_status(slack: "SlackServer", message: Message) -> None:
    """A reply of the app ends the status of its thread."""
    thread_ts = message.thread_ts or message.ts
    if slack.world.current_status(message.channel.id, thread_ts):
        slack.world.statuses.append(
            Status(channel=message.channel.id, thread_ts=thread_ts, status="", loading_messages=[])
        )


@method("assistant.threads.setStatus", "assistant:write", "chat:write")
async def assistant_set_status(slack: "SlackServer", call: Call) -> Json:
    channel_id, thread_ts = call.need("channel_id", "thread_ts")
    channel = slack.world.channel(channel_id)
    if str(thread_ts) not in channel.messages:
        raise SlackError("invalid_thread_ts")
    loading = call.args.get("loading_messages") or []
    if len(loading) > 10 or "status" not in call.args:
        raise SlackError("invalid_arguments")
    slack.world.statuses.append(
        Status(
            channel=channel.id,
            thread_ts=str(thread_ts),
            status=str(call.args["status"]),
            loading_messages=loading,
        )
    )
    return {}


@method("assistant.threads.setTitle", "assistant:write")
async def assistant_set_title(slack: "SlackServer", call: Call) -> Json:
    channel_id, thread_ts, title = call.need("channel_id", "thread_ts", "title")
    if slack.world.channel(channel_id).kind != "im":
        raise SlackError("channel_not_found")
    slack.world.titles[(str(channel_id), str(thread_ts))] = str(title)
    return {}


@method("assistant.threads.setSuggestedPrompts", "assistant:write")
async def assistant_set_prompts(slack: "SlackServer", call: Call) -> Json:
    channel_id, prompts = call.need("channel_id", "prompts")
    if slack.world.channel(channel_id).kind != "im":
        raise SlackError("channel_not_found")
    if len(prompts) > 4 or not all(p.get("title") and p.get("message") for p in prompts):
        raise SlackError("invalid_arguments", "1 to 4 prompts with title and message")
    slack.world.prompts[str(channel_id)] = prompts
    return {}


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
    inclusive = _truth(call.args.get("inclusive"))
    kept = [
        m
        for m in found
        if not m.deleted and (oldest < m.ts < latest or (inclusive and m.ts in (oldest, latest)))
    ]
    page, more = _paged(call, kept)
    metadata = _truth(call.args.get("include_all_metadata"))
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
        channel = _writable(slack, call)
        text = str(call.args.get("initial_comment") or "")
        body = _app_body(slack, call, channel) | {"text": text}
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
