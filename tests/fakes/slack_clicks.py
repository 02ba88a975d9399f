"""What people do with what the app shows in the fake Slack: click, choose, fill in, call."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from tests.fakes.slack_blocks import Json, elements_of
from tests.fakes.slack_people import People
from tests.fakes.slack_sockets import Delivery
from tests.fakes.slack_world import Channel, Message, Person, Trigger, Workspace

TRIGGER_LIVES_S = 3.0


class Clicks(People):
    """Interactions; each one ends in a payload for the app, which Slack sends once."""

    def _interaction(self, kind: str, person: Person, workspace: Workspace) -> Json:
        return {
            "type": kind,
            "user": {
                "id": person.id,
                "username": person.name.lower(),
                "name": person.name.lower(),
                "team_id": person.team_id,
            },
            "api_app_id": self.app_id,
            "token": "verification-token",
            "team": {"id": workspace.id, "domain": workspace.name.lower()},
            "enterprise": None,
            "is_enterprise_install": False,
            "trigger_id": self.new_trigger(person, workspace),
        }

    def new_trigger(self, person: Person, workspace: Workspace) -> str:
        """A trigger id, good for one modal within 3 s."""
        trigger_id = f"trigger.{self.world.number()}"
        self.world.triggers[trigger_id] = Trigger(
            person=person, workspace=workspace, expires_at=time.monotonic() + TRIGGER_LIVES_S
        )
        return trigger_id

    def response_url(self, channel: Channel, person: Person, message: Message | None) -> str:
        """An address for answers to one interaction."""
        raise NotImplementedError

    def click(
        self,
        person: Person,
        message: Message,
        action_id: str,
        *,
        value: str | None = None,
        side: Literal["positive", "negative"] | None = None,
        chosen: object = None,
        channel: Channel | None = None,
    ) -> Delivery:
        """Use an element of a message.

        Args:
            person: Who clicks.
            message: The message; the element must be in it.
            action_id: The element.
            value: A forged value instead of the element's own.
            side: Which of two `feedback_buttons`.
            chosen: What is chosen in a select: an option's value, or a user or channel id.
            channel: A forged channel.
        """
        element = message.elements.get(action_id)
        assert element is not None, f"no {action_id} in {sorted(message.elements)}"
        where = channel or message.channel
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": where.id,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        payload = self._interaction("block_actions", person, self.workspace_of(where))
        payload |= {
            "container": container,
            "channel": {"id": where.id, "name": where.name or "directmessage"},
            "state": {"values": {}},
            "response_url": self.response_url(where, person, message),
            "actions": [_action(element, value, side, chosen) | {"action_ts": message.ts}],
        }
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        if message.ephemeral_to is None:
            payload["message"] = message.wire()
        return self.sockets.deliver("interactive", payload)

    def click_in_view(
        self, person: Person, view: Json, action_id: str, *, chosen: object = None
    ) -> Delivery:
        """Use an element of a modal or of the app's home."""
        element = next(
            {**element, "block_id": block["block_id"]}
            for block in view["blocks"]
            for element in elements_of(block)
            if element.get("action_id") == action_id
        )
        workspace = self.world.workspaces[view["team_id"]]
        payload = self._interaction("block_actions", person, workspace) | {
            "container": {"type": "view", "view_id": view["id"]},
            "view": view,
            "actions": [_action(element, None, None, chosen) | {"action_ts": self.world.new_ts()}],
        }
        return self.sockets.deliver("interactive", payload)

    def command(self, person: Person, channel: Channel, command: str, text: str = "") -> Delivery:
        """Type a slash command."""
        workspace = self.workspace_of(channel)
        payload = {
            "token": "verification-token",
            "team_id": workspace.id,
            "team_domain": workspace.name.lower(),
            "channel_id": channel.id,
            "channel_name": channel.name or "directmessage",
            "user_id": person.id,
            "user_name": person.name.lower(),
            "command": command,
            "text": text,
            "api_app_id": self.app_id,
            "is_enterprise_install": "false",
            "response_url": self.response_url(channel, person, None),
            "trigger_id": self.new_trigger(person, workspace),
        }
        return self.sockets.deliver("slash_commands", payload)

    def shortcut(self, person: Person, message: Message, callback_id: str) -> Delivery:
        """Use a message shortcut."""
        channel = message.channel
        payload = self._interaction("message_action", person, self.workspace_of(channel)) | {
            "callback_id": callback_id,
            "channel": {"id": channel.id, "name": channel.name or "directmessage"},
            "message": message.wire(),
            "message_ts": message.ts,
            "action_ts": self.world.new_ts(),
            "response_url": self.response_url(channel, person, message),
        }
        return self.sockets.deliver("interactive", payload)

    def submit(self, person: Person, view: Json, values: Mapping[str, object]) -> Delivery:
        """Send a modal's form.

        Args:
            person: Who.
            view: As `views` holds it.
            values: What is filled in, by action id: a text, an option's value, ids, a list,
                `SlackFile`s.
                What is not named keeps its initial value.
        """
        state: Json = {}
        for block in view["blocks"]:
            if block["type"] == "input":
                element = block["element"]
                filled = _filled(element, values.get(element["action_id"]))
                state.setdefault(block["block_id"], {})[element["action_id"]] = filled
        workspace = self.world.workspaces[view["team_id"]]
        payload = self._interaction("view_submission", person, workspace) | {
            "view": view | {"state": {"values": state}},
            "response_urls": [],
        }
        return self.sockets.deliver("interactive", payload)


def _option(element: Json, value: object) -> Json:
    found = [option for option in element["options"] if option["value"] == value]
    assert found, f"no option {value!r} in {element['action_id']}"
    return dict(found[0])


def _filled(element: Json, value: object) -> Json:
    """State of one element, as `view.state` holds it."""
    kind = element["type"]
    filled: Json = {"type": kind}
    match kind:
        case "plain_text_input" | "number_input" | "email_text_input" | "url_text_input":
            filled["value"] = value if value is not None else element.get("initial_value")
        case "checkboxes" | "multi_static_select":
            chosen = element.get("initial_options", [])
            if isinstance(value, Sequence):
                chosen = [_option(element, entry) for entry in value]
            filled["selected_options"] = chosen
        case "static_select" | "radio_buttons":
            chosen = _option(element, value) if value else element.get("initial_option")
            filled["selected_option"] = chosen
        case "file_input":
            files = value if isinstance(value, Sequence) else ()
            filled["files"] = [file.wire() for file in files]
        case _:
            many = kind.startswith("multi_")
            thing = kind.removeprefix("multi_").removesuffix("_select")
            thing = thing if many else thing.removesuffix("s")
            initial = element.get(f"initial_{thing}")
            filled[f"selected_{thing}"] = value if value is not None else initial
    return filled


def _action(element: Json, value: str | None, side: str | None, chosen: object) -> Json:
    """One entry of `actions`."""
    action: Json = {key: element[key] for key in ("action_id", "block_id", "type")}
    if element["type"] == "feedback_buttons":
        assert side is not None, "feedback_buttons need a side"
        button = element[f"{side}_button"]
        return action | {"text": button["text"], "value": value or button.get("value")}
    if element["type"] in ("button", "icon_button", "workflow_button"):
        return action | {"text": element.get("text"), "value": value or element.get("value")}
    return action | _filled(element, chosen)
