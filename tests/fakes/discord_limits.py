"""What Discord refuses: limits of messages, components, modals and commands, with its codes.

Sources: https://discord.com/developers/docs/resources/message (2,000 characters, 10 embeds),
/components/reference (custom_id 100, label 80, 5 rows, 40 components),
/interactions/application-commands (names, 25 options), /topics/opcodes-and-status-codes (codes).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from tests.fakes.wire import Json

CONTENT_LIMIT = 2_000
NONCE_LIMIT = 25
V2 = 1 << 15
ROW, BUTTON, TEXT_INPUT, TEXT_DISPLAY, LABEL = 1, 2, 4, 10, 18
SELECTS = (3, 5, 6, 7, 8)
INPUTS = (TEXT_INPUT, *SELECTS, 19, 21, 22, 23)
_NAME = re.compile(r"^[-_'\w]{1,32}$")


class DiscordError(Exception):
    """A refusal: HTTP status, Discord's code and message, errors by path."""

    def __init__(self, status: int, code: int, message: str, errors: Json | None = None) -> None:
        super().__init__(f"{status} {code} {message} {errors or ''}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors

    @property
    def body(self) -> Json:
        """The JSON of the answer."""
        body: Json = {"message": self.message, "code": self.code}
        return {**body, "errors": self.errors} if self.errors else body


def invalid(path: str, code: str, message: str) -> DiscordError:
    """Invalid Form Body, naming a field (`components.0.label`)."""
    errors: Json = {"_errors": [{"code": code, "message": message}]}
    for part in reversed(path.split(".")):
        errors = {part: errors}
    return DiscordError(400, 50035, "Invalid Form Body", errors)


def check_length(path: str, text: object, low: int, high: int) -> None:
    """Refuse a text that is too short or too long.

    Raises:
        DiscordError: It is.
    """
    if not isinstance(text, str):
        raise invalid(path, "BASE_TYPE_REQUIRED", "This field is required")
    if not low <= len(text) <= high:
        raise invalid(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {low} and {high} in length.")


def at_most(path: str, things: Sequence[object], high: int, low: int = 0) -> None:
    """Refuse a list that is too short or too long.

    Raises:
        DiscordError: It is.
    """
    if not low <= len(things) <= high:
        raise invalid(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {low} and {high} in length.")


# ---------------------------------------------------------------- messages


def check_message(body: Mapping[str, object], *, empty: bool = False) -> None:
    """Refuse what a message may not be.

    Args:
        body: Fields of the call.
        empty: Whether nothing at all may be in it (an edit).

    Raises:
        DiscordError: Invalid Form Body, or Cannot send an empty message.
    """
    content = str(body.get("content") or "")
    embeds, components = _list(body, "embeds"), _list(body, "components")
    if len(content) > CONTENT_LIMIT:
        raise invalid("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.")
    if len(str(body.get("nonce") or "")) > NONCE_LIMIT:
        raise invalid("nonce", "NONCE_TYPE_TOO_LONG", "Nonces must be 25 characters or fewer.")
    at_most("embeds", embeds, 10)
    _check_embeds(embeds)
    flags = body.get("flags")
    if isinstance(flags, int) and flags & V2:
        if content or embeds:
            raise invalid("content", "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", "No.")
        _check_v2(components)
    else:
        check_rows(components)
    if not (empty or content.strip() or embeds or components or body.get("attachments")):
        raise DiscordError(400, 50006, "Cannot send an empty message")


def _list(body: Mapping[str, object], name: str) -> list[Json]:
    found = body.get(name) or []
    if not isinstance(found, list):
        raise invalid(name, "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    return found


def _check_embeds(embeds: Sequence[Json]) -> None:
    total = 0
    for number, embed in enumerate(embeds):
        at_most(f"embeds.{number}.fields", embed.get("fields") or [], 25)
        for name, limit in (("title", 256), ("description", 4096)):
            text = embed.get(name) or ""
            check_length(f"embeds.{number}.{name}", text, 0, limit)
            total += len(text)
        for place, shown in enumerate(embed.get("fields") or []):
            check_length(f"embeds.{number}.fields.{place}.name", shown["name"], 1, 256)
            check_length(f"embeds.{number}.fields.{place}.value", shown["value"], 1, 1024)
            total += len(shown["name"]) + len(shown["value"])
    if total > 6_000:
        raise invalid("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum of 6000")


# ---------------------------------------------------------------- components


def check_rows(components: Sequence[Json]) -> None:
    """Refuse rows that Discord refuses.

    Raises:
        DiscordError: Invalid Form Body.
    """
    at_most("components", components, 5)
    for number, row in enumerate(components):
        if row.get("type") != ROW:
            raise invalid(f"components.{number}", "UNION_TYPE_CHOICES", "Must be an action row.")
        _check_row(row, f"components.{number}")
    _check_custom_ids(components)


def _check_row(row: Json, path: str) -> None:
    inside = row.get("components") or []
    at_most(f"{path}.components", inside, 5, low=1)
    if any(element["type"] in SELECTS for element in inside) and len(inside) > 1:
        raise invalid(path, "COMPONENT_LAYOUT_WIDTH_EXCEEDED", "The width is exceeded.")
    for place, element in enumerate(inside):
        _check_element(element, f"{path}.components.{place}")


def _check_element(element: Json, path: str) -> None:
    if element["type"] == BUTTON:
        _check_button(element, path)
    elif element["type"] in SELECTS:
        _check_select(element, path)
    else:
        raise invalid(path, "UNION_TYPE_CHOICES", f"type {element['type']} may not be here.")


def _check_button(button: Json, path: str) -> None:
    check_length(f"{path}.label", button.get("label") or "", 0, 80)
    if not (button.get("label") or button.get("emoji")):
        raise invalid(path, "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED", "A label is required.")
    if button.get("style") not in range(1, 7):
        raise invalid(f"{path}.style", "BASE_TYPE_CHOICES", "Value must be one of 1-6.")
    if button["style"] == 5:
        check_length(f"{path}.url", button.get("url"), 1, 512)
    elif button["style"] != 6:
        check_length(f"{path}.custom_id", button.get("custom_id"), 1, 100)


def _check_select(select: Json, path: str) -> None:
    check_length(f"{path}.custom_id", select.get("custom_id"), 1, 100)
    check_length(f"{path}.placeholder", select.get("placeholder") or "", 0, 150)
    if select["type"] != 3:
        return
    options = select.get("options") or []
    at_most(f"{path}.options", options, 25, low=1)
    for place, option in enumerate(options):
        check_length(f"{path}.options.{place}.label", option.get("label"), 1, 100)
        check_length(f"{path}.options.{place}.value", option.get("value"), 1, 100)
        check_length(f"{path}.options.{place}.description", option.get("description") or "", 0, 100)
    values = [option["value"] for option in options]
    if len(set(values)) != len(values):
        raise invalid(f"{path}.options", "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", "Duplicated.")


def _check_v2(components: Sequence[Json]) -> None:
    every = list(_every(components))
    at_most("components", every, 40, low=1)
    if sum(len(found.get("content") or "") for found in every) > 4_000:
        raise invalid("components", "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED", "Over 4000.")
    for number, found in enumerate(every):
        if found["type"] == ROW:
            _check_row(found, f"components.{number}")
    _check_custom_ids(components)


def _check_custom_ids(components: Sequence[Json]) -> None:
    found = [element["custom_id"] for element in elements_of(components)]
    if len(set(found)) != len(found):
        raise invalid("components", "COMPONENT_CUSTOM_ID_DUPLICATED", "Duplicated custom id.")


def _every(components: Sequence[Json]) -> Iterator[Json]:
    for component in components:
        yield component
        inside = [component[name] for name in ("component", "accessory") if component.get(name)]
        yield from _every([*inside, *(component.get("components") or [])])


def elements_of(components: Sequence[Json]) -> list[Json]:
    """The components with a custom id, however deep."""
    return [found for found in _every(components) if found.get("custom_id")]


def texts_of(components: Sequence[Json]) -> list[str]:
    """The texts that components display."""
    return [str(found["content"]) for found in _every(components) if found.get("content")]


# ---------------------------------------------------------------- modals


def check_modal(modal: Json) -> None:
    """Refuse what a modal may not be.

    Raises:
        DiscordError: Invalid Form Body.
    """
    check_length("data.title", modal.get("title"), 1, 45)
    check_length("data.custom_id", modal.get("custom_id"), 1, 100)
    components = modal.get("components") or []
    at_most("data.components", components, 5, low=1)
    for number, component in enumerate(components):
        path = f"data.components.{number}"
        if component["type"] == LABEL:
            check_length(f"{path}.label", component.get("label"), 1, 45)
            check_length(f"{path}.description", component.get("description") or "", 0, 100)
            _check_input(component["component"], f"{path}.component")
        elif component["type"] == ROW:
            at_most(f"{path}.components", component["components"], 1, low=1)
            check_length(f"{path}.label", component["components"][0].get("label"), 1, 45)
            _check_input(component["components"][0], f"{path}.components.0")
        elif component["type"] != TEXT_DISPLAY:
            raise invalid(path, "UNION_TYPE_CHOICES", f"type {component['type']} in a modal.")
    _check_custom_ids(components)


def _check_input(element: Json, path: str) -> None:
    if element["type"] not in INPUTS:
        raise invalid(path, "UNION_TYPE_CHOICES", f"type {element['type']} in a modal.")
    check_length(f"{path}.custom_id", element.get("custom_id"), 1, 100)
    check_length(f"{path}.placeholder", element.get("placeholder") or "", 0, 150)
    if element["type"] in SELECTS:
        _check_select(element, path)
    if element["type"] == TEXT_INPUT:
        check_length(f"{path}.placeholder", element.get("placeholder") or "", 0, 100)
        check_length(f"{path}.value", element.get("value") or "", 0, 4_000)
        if not 1 <= (element.get("max_length") or 4_000) <= 4_000:
            raise invalid(f"{path}.max_length", "NUMBER_TYPE_MAX", "Must be at most 4000.")


# ---------------------------------------------------------------- commands


def check_command(command: Json, path: str) -> None:
    """Refuse what a command may not be.

    Raises:
        DiscordError: Invalid Form Body.
    """
    slash = command.get("type", 1) == 1
    for where, name in _names(command, f"{path}.name"):
        check_length(where, name, 1, 32)
        if slash and (not _NAME.match(name) or name != name.lower()):
            raise invalid(where, "APPLICATION_COMMAND_INVALID_NAME", f"{name!r} is not allowed.")
    if slash:
        _check_described(command, path)
        _check_options(command, path)


def _names(thing: Json, path: str) -> list[tuple[str, str]]:
    name, others = str(thing.get("name")), thing.get("name_localizations") or {}
    return [(path, name), *((f"{path}_localizations.{where}", n) for where, n in others.items())]


def _check_described(thing: Json, path: str) -> None:
    check_length(f"{path}.description", thing.get("description"), 1, 100)
    for where, text in (thing.get("description_localizations") or {}).items():
        check_length(f"{path}.description_localizations.{where}", text, 1, 100)


def _check_options(command: Json, path: str) -> None:
    options = command.get("options") or []
    at_most(f"{path}.options", options, 25)
    for number, option in enumerate(options):
        here = f"{path}.options.{number}"
        for where, name in _names(option, f"{here}.name"):
            if not _NAME.match(name) or name != name.lower():
                raise invalid(where, "APPLICATION_COMMAND_INVALID_NAME", f"{name!r}")
        _check_described(option, here)
        choices = option.get("choices") or []
        at_most(f"{here}.choices", choices, 25)
        check_choices(choices, f"{here}.choices")
        _check_options(option, here)


def check_choices(choices: Sequence[Json], path: str) -> None:
    """Refuse choices that are too many or too long.

    Raises:
        DiscordError: Invalid Form Body.
    """
    at_most(path, choices, 25)
    for number, choice in enumerate(choices):
        for where, name in _names(choice, f"{path}.{number}.name"):
            check_length(where, name, 1, 100)
        check_length(f"{path}.{number}.value", str(choice["value"]), 0, 100)
