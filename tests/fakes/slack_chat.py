"""Messages, streams and the agent container: the methods of the Web API that write."""

import json
import time
from typing import TYPE_CHECKING

from tests.fakes.slack_blocks import MAX_MARKDOWN, Json, SlackError, check_blocks
from tests.fakes.slack_calls import Call, app_body, method, writable
from tests.fakes.slack_world import Message, Status, Stream

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer

MAX_TEXT = 40_000
MAX_UPDATE_TEXT = 4_000
MAX_METADATA = 8_192
_POSTED_KEYS = {"unfurl_links", "unfurl_media", "mrkdwn", "parse", "link_names", "reply_broadcast"}


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


@method("chat.postMessage", "chat:write")
async def chat_post_message(slack: "SlackServer", call: Call) -> Json:
    channel = writable(slack, call)
    body = app_body(slack, call, channel) | _content(call)
    posted = {key: call.args[key] for key in _POSTED_KEYS if key in call.args}
    message = slack.world.add_message(channel, body, posted)
    _clear_status(slack, message)
    slack.tell_message(message)
    return {"channel": channel.id, "ts": message.ts, "message": message.wire()}


@method("chat.postEphemeral", "chat:write")
async def chat_post_ephemeral(slack: "SlackServer", call: Call) -> Json:
    channel = writable(slack, call)
    reader = str(call.need("user")[0])
    if reader not in channel.members:
        raise SlackError("user_not_in_channel")
    if len(str(call.args.get("text") or "")) > MAX_TEXT:
        raise SlackError("msg_too_long")
    message = Message(
        channel=channel,
        body=app_body(slack, call, channel) | _content(call),
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
    channel = writable(slack, call)
    call.need("thread_ts")
    recipient = call.args.get("recipient_user_id")
    if channel.kind != "im":
        for name in ("recipient_team_id", "recipient_user_id"):
            if not call.args.get(name):
                raise SlackError(f"missing_{name}")
    text, blocks = _streamed(call)
    body = app_body(slack, call, channel) | {"text": text, "blocks": blocks}
    message = Message(
        channel=channel, body=body, stream=Stream(recipient=recipient, first_chunk=text)
    )
    channel.add(message)
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
