"""The limits of Block Kit, enforced as Slack does: a message that breaks one is refused.

Limits are those of the block reference and of chat.postMessage. The markdown limit is the
documented 12,000 characters over all markdown blocks of a message.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Json = dict[str, Any]

MAX_BLOCKS = 50
MAX_VIEW_BLOCKS = 100
MAX_MARKDOWN = 12_000
MAX_PRIVATE_METADATA = 3_000
MAX_ID = 255


class SlackError(Exception):
    """An answer `{"ok": false, "error": …}`.

    Args:
        error: Slack's code, such as `invalid_blocks`.
        messages: What `response_metadata.messages` says.
        extra: More fields of the answer.
    """

    def __init__(self, error: str, *messages: str, **extra: object) -> None:
        super().__init__(error)
        self.body: Json = {"ok": False, "error": error, **extra}
        if messages:
            self.body["errors"] = list(messages)
            self.body["response_metadata"] = {"messages": [f"[ERROR] {said}" for said in messages]}


class _Invalid(Exception):
    pass


_TEXT_ELEMENTS = {"plain_text", "mrkdwn"}
_BUTTONLIKE = {
    "button",
    "overflow",
    "datepicker",
    "timepicker",
    "static_select",
    "external_select",
    "users_select",
    "conversations_select",
    "channels_select",
    "multi_static_select",
    "multi_users_select",
    "multi_conversations_select",
    "multi_channels_select",
    "radio_buttons",
    "checkboxes",
    "workflow_button",
}
_INPUTS = _BUTTONLIKE - {"button", "overflow", "workflow_button"} | {
    "plain_text_input",
    "number_input",
    "email_text_input",
    "url_text_input",
    "rich_text_input",
    "file_input",
}
_MESSAGE_ONLY = {"markdown", "context_actions", "task_card", "plan", "table"}


def check_blocks(blocks: object, *, surface: str = "message") -> None:
    """Refuse what Slack refuses.

    Args:
        blocks: As posted.
        surface: `message`, `modal` or `home`.

    Raises:
        SlackError: `invalid_blocks`, `invalid_blocks_format` or `msg_blocks_too_long`.
    """
    if not isinstance(blocks, list):
        raise SlackError("invalid_blocks_format")
    most = MAX_BLOCKS if surface == "message" else MAX_VIEW_BLOCKS
    if len(blocks) > most:
        raise SlackError(
            "invalid_blocks", f"no more than {most} items allowed [json-pointer:/blocks]"
        )
    seen: set[str] = set()
    for number, block in enumerate(blocks):
        try:
            _check_block(block, surface, seen)
        except _Invalid as invalid:
            said = f"{invalid} [json-pointer:/blocks/{number}]"
            raise SlackError("invalid_blocks", said) from None
    markdown = sum(len(block["text"]) for block in blocks if block["type"] == "markdown")
    if markdown > MAX_MARKDOWN:
        raise SlackError("msg_blocks_too_long")


def check_view(view: Json) -> None:
    """Refuse a view that breaks a limit.

    Raises:
        SlackError: `invalid_arguments`, or what `check_blocks` raises.
    """
    kind = view.get("type")
    if kind not in ("modal", "home"):
        raise SlackError("invalid_arguments", "unsupported view type [json-pointer:/view/type]")
    blocks = view.get("blocks")
    try:
        check_blocks(blocks, surface=kind)
    except SlackError as refused:
        said = refused.body.get("errors", [refused.body["error"]])
        raise SlackError("invalid_arguments", *said) from None
    try:
        _limit(view, "private_metadata", MAX_PRIVATE_METADATA)
        _limit(view, "callback_id", MAX_ID)
        if kind == "modal":
            _text(view.get("title"), 24, plain=True)
            for key in ("submit", "close"):
                if view.get(key) is not None:
                    _text(view[key], 24, plain=True)
            has_input = any(block["type"] == "input" for block in blocks or ())
            if has_input and "submit" not in view:
                raise _Invalid("missing required field: submit")
    except _Invalid as invalid:
        raise SlackError("invalid_arguments", f"{invalid} [json-pointer:/view]") from None


def _check_block(block: object, surface: str, seen: set[str]) -> None:
    if not isinstance(block, dict):
        raise _Invalid("must be an object")
    kind = block.get("type")
    check = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        raise _Invalid(f"unsupported type: {kind}")
    if surface != "message" and kind in _MESSAGE_ONLY:
        raise _Invalid(f"unsupported type: {kind}")
    _limit(block, "block_id", MAX_ID)
    block_id = block.get("block_id")
    if block_id is not None:
        if block_id in seen:
            raise _Invalid(f"block_id {block_id} already exists")
        seen.add(block_id)
    check(block)
    ids = [element["action_id"] for element in elements_of(block) if element.get("action_id")]
    if len(ids) != len(set(ids)):
        raise _Invalid("action_id already exists")


def _limit(thing: Json, key: str, most: int) -> None:
    value = thing.get(key)
    if value is None:
        return
    if not isinstance(value, str):
        raise _Invalid(f"{key} must be a string")
    if len(value) > most:
        raise _Invalid(f"must be less than {most + 1} characters [{key}]")


def _text(thing: object, most: int, *, plain: bool = False, least: int = 1) -> None:
    if not isinstance(thing, dict) or thing.get("type") not in _TEXT_ELEMENTS:
        raise _Invalid("must provide a text object")
    if plain and thing["type"] != "plain_text":
        raise _Invalid("must be plain_text")
    if thing["type"] == "plain_text" and "verbatim" in thing:
        raise _Invalid("additional property: verbatim")
    if thing["type"] == "mrkdwn" and "emoji" in thing:
        raise _Invalid("additional property: emoji")
    value = thing.get("text")
    if not isinstance(value, str) or len(value) < least:
        raise _Invalid(f"must be more than {least - 1} characters")
    if len(value) > most:
        raise _Invalid(f"must be less than {most + 1} characters")


def _elements(block: Json, allowed: set[str], most: int) -> list[Json]:
    elements = block.get("elements")
    if not isinstance(elements, list) or not elements:
        raise _Invalid("must have at least 1 element")
    if len(elements) > most:
        raise _Invalid(f"no more than {most} items allowed")
    for element in elements:
        if not isinstance(element, dict) or element.get("type") not in allowed:
            raise _Invalid(f"unsupported element in {block['type']}")
    return elements


def _section(block: Json) -> None:
    if "text" not in block and "fields" not in block:
        raise _Invalid("missing required field: text or fields")
    if "text" in block:
        _text(block["text"], 3000)
    fields = block.get("fields", [])
    if len(fields) > 10:
        raise _Invalid("no more than 10 items allowed")
    for field in fields:
        _text(field, 2000)
    if "accessory" in block:
        _element(block["accessory"], _BUTTONLIKE | {"image"})


def _header(block: Json) -> None:
    _text(block.get("text"), 150, plain=True)


def _context(block: Json) -> None:
    for element in _elements(block, _TEXT_ELEMENTS | {"image"}, 10):
        if element["type"] == "image":
            _image(element)
        else:
            _text(element, 3000)


def _image(block: Json) -> None:
    if not block.get("alt_text"):
        raise _Invalid("missing required field: alt_text")
    _limit(block, "alt_text", 2000)
    _limit(block, "image_url", 3000)
    if not block.get("image_url") and not block.get("slack_file"):
        raise _Invalid("missing required field: image_url")


def _actions(block: Json) -> None:
    for element in _elements(block, _BUTTONLIKE, 25):
        _element(element, _BUTTONLIKE)


def _context_actions(block: Json) -> None:
    for element in _elements(block, {"feedback_buttons", "icon_button"}, 5):
        _limit(element, "action_id", MAX_ID)
        if element["type"] == "icon_button":
            _text(element.get("text"), 75, plain=True)
            _limit(element, "value", 2000)
            if element.get("icon") != "trash":
                raise _Invalid("unsupported icon")
            continue
        for side in ("positive_button", "negative_button"):
            button = element.get(side)
            if not isinstance(button, dict):
                raise _Invalid(f"missing required field: {side}")
            _text(button.get("text"), 75, plain=True)
            _limit(button, "value", 2000)
            _limit(button, "accessibility_label", 75)


def _element(element: object, allowed: set[str]) -> None:
    if not isinstance(element, dict) or element.get("type") not in allowed:
        raise _Invalid("unsupported element type")
    if element["type"] == "image":
        _image(element)
        return
    _limit(element, "action_id", MAX_ID)
    if element["type"] == "button":
        _text(element.get("text"), 75, plain=True)
        _limit(element, "value", 2000)
        _limit(element, "url", 3000)
        _limit(element, "accessibility_label", 75)
        if element.get("style") not in (None, "primary", "danger"):
            raise _Invalid("style must be primary or danger")
    if element.get("placeholder") is not None:
        _text(element["placeholder"], 150, plain=True)
    _options(element)
    if "confirm" in element:
        _confirm(element["confirm"])


def _options(element: Json) -> None:
    options = element.get("options")
    if options is None:
        if element["type"] in ("radio_buttons", "checkboxes", "overflow"):
            raise _Invalid("missing required field: options")
        return
    most = {"overflow": 5, "radio_buttons": 10, "checkboxes": 10}.get(element["type"], 100)
    if not 1 <= len(options) <= most:
        raise _Invalid(f"1 to {most} options allowed")
    for option in options:
        _text(option.get("text"), 75)
        _limit(option, "value", 150)
        if option.get("description") is not None:
            _text(option["description"], 75)
    chosen = element.get("initial_options") or [element.get("initial_option")]
    for option in chosen:
        if option is not None and option not in options:
            raise _Invalid("initial_option must be one of options")


def _confirm(confirm: Json) -> None:
    _text(confirm.get("title"), 100, plain=True)
    _text(confirm.get("text"), 300)
    _text(confirm.get("confirm"), 30, plain=True)
    _text(confirm.get("deny"), 30, plain=True)


def _input(block: Json) -> None:
    _text(block.get("label"), 2000, plain=True)
    if block.get("hint") is not None:
        _text(block["hint"], 2000, plain=True)
    element = block.get("element")
    _element(element, _INPUTS)
    assert isinstance(element, dict)
    if element["type"] == "plain_text_input":
        if not 0 < element.get("max_length", 3000) <= 3000:
            raise _Invalid("max_length must be between 1 and 3000")
        _limit(element, "initial_value", element.get("max_length", 3000))


def _markdown(block: Json) -> None:
    if not isinstance(block.get("text"), str) or not block["text"]:
        raise _Invalid("must be more than 0 characters")


def _table(block: Json) -> None:
    rows = block.get("rows")
    if not isinstance(rows, list) or not 1 <= len(rows) <= 100:
        raise _Invalid("1 to 100 rows allowed")
    if any(len(row) > 20 for row in rows):
        raise _Invalid("no more than 20 cells allowed")


def _anything(block: Json) -> None:
    """A block of which the fake knows only the name."""


_BLOCKS: dict[str, Callable[[Json], None]] = {
    "section": _section,
    "header": _header,
    "context": _context,
    "image": _image,
    "actions": _actions,
    "context_actions": _context_actions,
    "input": _input,
    "markdown": _markdown,
    "table": _table,
    "divider": _anything,
    "rich_text": _anything,
    "file": _anything,
    "video": _anything,
    "task_card": _anything,
    "plan": _anything,
    "alert": _anything,
    "card": _anything,
    "carousel": _anything,
}


def elements_of(block: Json) -> list[Json]:
    """The interactive elements of a block."""
    found = list(block.get("elements", ())) if block["type"] in _HOLDERS else []
    if block["type"] == "section" and "accessory" in block:
        found.append(block["accessory"])
    if block["type"] == "input":
        found.append(block["element"])
    return found


_HOLDERS = {"actions", "context_actions"}


def texts_of(blocks: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Every text that a reader sees, as (`mrkdwn` | `markdown` | `plain_text`, text), in order.

    The labels of buttons and selects are left out.
    """
    for block in blocks:
        if block["type"] == "markdown":
            yield "markdown", block["text"]
        elif block["type"] not in _HOLDERS:
            yield from _texts({k: v for k, v in block.items() if k != "accessory"})


def _texts(thing: object) -> Iterator[tuple[str, str]]:
    if isinstance(thing, list):
        for part in thing:
            yield from _texts(part)
    elif isinstance(thing, dict):
        if thing.get("type") in _TEXT_ELEMENTS and isinstance(thing.get("text"), str):
            yield thing["type"], thing["text"]
        elif thing.get("type") == "text" and isinstance(thing.get("text"), str):
            yield "plain_text", thing["text"]
        else:
            for part in thing.values():
                yield from _texts(part)
