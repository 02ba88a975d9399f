"""The contract list, the manifest and the code must say the same."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack_bot import contract
from bots.slack_bot.files import ADD_SHORTCUT

CHECKOUT = Path(__file__).parents[3]
CODE = CHECKOUT / "bots" / "slack_bot"

STREAMS = {"chat.startStream", "chat.appendStream", "chat.stopStream"}
"""What `AsyncWebClient.chat_stream` and the object that it gives call."""
UPLOADS = {"files.getUploadURLExternal", "files.completeUploadExternal"}
"""What its `files_upload_v2` calls."""
MESSAGES = {"message.channels", "message.groups", "message.im", "message.mpim"}
NOT_METHODS = {"api_call", "chat_stream", "files_upload_v2", "base_url"}


def manifest() -> dict[str, Any]:
    found = yaml.safe_load((CHECKOUT / "deploy" / "slack-manifest.yaml").read_text())
    assert isinstance(found, dict)
    return found


def nodes() -> Iterator[ast.AST]:
    for path in sorted(CODE.glob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


def called_methods() -> set[str]:
    """The Web API methods that the code names, as the SDK's client calls them."""
    called = set()
    for node in nodes():
        if not isinstance(node, ast.Attribute):
            continue
        # Only real methods of the SDK's client count, whatever the object is called here.
        if node.attr in dir(AsyncWebClient) and "_" in node.attr.strip("_"):
            called.add(node.attr)
    found = {name.replace("_", ".") for name in called - NOT_METHODS}
    found |= STREAMS if "chat_stream" in called else set()
    return found | (UPLOADS if "files_upload_v2" in called else set())


def heard_events() -> set[str]:
    """The events that listeners are registered for."""
    heard = set()
    for node in nodes():
        if isinstance(node, ast.For) and ast.unparse(node.target) == "event":
            heard |= set(ast.literal_eval(node.iter))
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "app.event"
            and isinstance(node.args[0], ast.Constant)
        ):
            heard.add(str(node.args[0].value))
    return heard


def test_contract_lists_exactly_the_methods_that_the_code_calls() -> None:
    assert called_methods() == set(contract.METHODS)


def test_contract_lists_exactly_the_events_that_the_code_hears() -> None:
    events = {event if event not in MESSAGES else "message" for event in contract.EVENTS}
    assert heard_events() == events
    assert set(contract.EVENTS) >= MESSAGES


def test_manifest_asks_for_the_scopes_of_the_contract_and_no_more() -> None:
    assert manifest()["oauth_config"]["scopes"] == {"bot": contract.scopes()}


def test_manifest_subscribes_to_the_events_of_the_contract_and_no_more() -> None:
    subscriptions = manifest()["settings"]["event_subscriptions"]
    assert subscriptions == {"bot_events": sorted(contract.EVENTS)}


def test_manifest_offers_what_the_code_handles() -> None:
    features = manifest()["features"]
    assert [command["command"] for command in features["slash_commands"]] == [contract.COMMAND]
    assert [each["callback_id"] for each in features["shortcuts"]] == [ADD_SHORTCUT]
    assert features["app_home"]["messages_tab_read_only_enabled"] is False
    assert manifest()["settings"]["interactivity"] == {"is_enabled": True}
