"""The modals: why an answer is bad and what would be better, and a channel's settings.

A modal comes back without the channel that it was opened in, so it carries ids in its
`private_metadata` (at most 3,000 characters, docs.slack.dev/reference/views). Whoever handles the
submission checks them again: against who submits, in which workspace.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from pydantic import ValidationError

from bots.channel_settings import CONSENT_CHOICES, ChannelSettings, consent_choice
from bots.slack_bot.blocks import Block, section
from bots.voting import (
    BETTER_HINT,
    BETTER_LABEL,
    BETTER_NOTE,
    COMMENT_HINT,
    COMMENT_LABEL,
    CRITICISM_TITLE,
    REASONS_LABEL,
    Criticism,
)
from feedback import REASONS

REASONS_MODAL = "parley_reasons"
SETTINGS_MODAL = "parley_settings"

MAX_METADATA_CHARACTERS = 3000
MAX_INPUT_CHARACTERS = 3000
"""Of a `plain_text_input` (docs.slack.dev/reference/block-kit/block-elements)."""
MAX_OPTIONS = 100
"""Of a select menu, likewise."""
MAX_OPTION_CHARACTERS = 75
MAX_VALUE_CHARACTERS = 150

_DEFAULT_MODEL = "-"
_GROUP = re.compile(r"\bS[A-Z0-9]{2,}\b")

View = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where something was clicked, by Slack's ids, and for which answer if for one.

    Attributes:
        message_ts: of the message that it was opened from, and
        thread_ts: of that message's thread; both empty where there is none.
    """

    team: str
    channel: str
    user: str
    message_ts: str = ""
    thread_ts: str = ""
    answer_id: str = ""

    def dump(self) -> str:
        """As `private_metadata`."""
        text = json.dumps(asdict(self))
        if len(text) > MAX_METADATA_CHARACTERS:
            raise ValueError("the ids are too long for a modal")
        return text

    @classmethod
    def load(cls, text: str) -> Self:
        """Read `private_metadata`.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            values = json.loads(text)
            return cls(**{name: str(value) for name, value in values.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError("the modal carries no ids of ours") from error


# -- Reasons --------------------------------------------------------------------------------------


def reasons_view(origin: Origin) -> View:
    """The modal behind a down-vote."""
    return {
        "type": "modal",
        "callback_id": REASONS_MODAL,
        "private_metadata": origin.dump(),
        "title": _plain(CRITICISM_TITLE),
        "submit": _plain("Send"),
        "close": _plain("Skip"),
        "blocks": [
            _input(
                "reasons",
                REASONS_LABEL,
                {
                    "type": "checkboxes",
                    "options": [_option(reason.capitalize(), reason) for reason in REASONS],
                },
            ),
            _input("comment", COMMENT_LABEL, _text_input(COMMENT_HINT)),
            _input(
                "better",
                BETTER_LABEL,
                _text_input(BETTER_HINT),
                hint=BETTER_NOTE,
            ),
        ],
    }


def read_criticism(view: Mapping[str, Any]) -> Criticism:
    """What was submitted; reasons that we never offered are dropped."""
    chosen = {option["value"] for option in _state(view, "reasons").get("selected_options") or ()}
    return Criticism(
        reasons=tuple(reason for reason in REASONS if reason in chosen),
        comment=_typed(view, "comment"),
        better=_typed(view, "better"),
    )


# -- Settings -------------------------------------------------------------------------------------

_SWITCHES = {
    "enabled": "Answer in this channel",
    "follow_ups": "Follow-ups in its threads need no new mention",
    "answer_bots": "Answer other bots too",
    "ephemeral": "Answer only to the asker, who may share it",
}
_WHEN = {"mention": "When it is mentioned", "always": "Every question"}
_CONSENT: Final = {
    "workspace": "As the workspace decides",
    "yes": "Yes, of people who agree too",
    "no": "No",
}
_WHO = {"members": "Members of this workspace", "everyone": "Guests and other companies too"}


def settings_view(origin: Origin, settings: ChannelSettings, models: Sequence[str]) -> View:
    """The modal of a channel's settings; `models` are the names that may answer."""
    switches = [_option(text, name) for name, text in _SWITCHES.items()]
    on = [option for option in switches if getattr(settings, option["value"])]
    people = [human for human in settings.humans if not _GROUP.fullmatch(human)]
    groups = [human for human in settings.humans if _GROUP.fullmatch(human)]
    names = [*models]
    if settings.model is not None and settings.model not in names:
        names.append(settings.model)  # not loaded now: saving must not change it silently
    choices = [_option("The workspace's model", _DEFAULT_MODEL)]
    choices += [_option(name, name) for name in names if len(name) <= MAX_VALUE_CHARACTERS]
    return {
        "type": "modal",
        "callback_id": SETTINGS_MODAL,
        "private_metadata": origin.dump(),
        "title": _plain("Parley in this channel"),
        "submit": _plain("Save"),
        "close": _plain("Cancel"),
        "blocks": [
            section(f"Settings of <#{origin.channel}>"),
            _input("switches", "Behaviour", _checked("checkboxes", switches, on)),
            _input("answer_when", "When to answer", _radio(_WHEN, settings.answer_when), need=True),
            _input("who", "Who may ask", _radio(_WHO, settings.who), need=True),
            _input(
                "consent_to_train",
                "Votes and corrections here may train models",
                _radio(_CONSENT, consent_choice(settings.consent_to_train)),
                need=True,
            ),
            _input("humans", "People to ask for help", _people_select(people)),
            _input(
                "groups",
                "User groups to ask for help",
                _text_input("S0123ABCD", initial=" ".join(groups), multiline=False),
                hint="Ids of user groups, separated by spaces.",
            ),
            _input(
                "comparison_share",
                "Questions answered twice for a comparison, in percent",
                {
                    "type": "number_input",
                    "is_decimal_allowed": True,
                    "min_value": "0",
                    "max_value": "100",
                    "initial_value": f"{100 * settings.comparison_share:g}",
                },
                need=True,
            ),
            _input("model", "Model", _model_select(choices[:MAX_OPTIONS], settings.model)),
        ],
    }


def read_settings(view: Mapping[str, Any]) -> ChannelSettings:
    """What was submitted.

    Raises:
        SettingsRefused: something of it cannot be.
    """
    on = {option["value"] for option in _state(view, "switches").get("selected_options") or ()}
    model = (_state(view, "model").get("selected_option") or {}).get("value", _DEFAULT_MODEL)
    groups = (_typed(view, "groups") or "").replace(",", " ").split()
    if unknown := [group for group in groups if not _GROUP.fullmatch(group)]:
        raise SettingsRefused("groups", f"{unknown[0][:40]!r} is no id of a user group.")
    try:
        share = float(_state(view, "comparison_share").get("value") or 0) / 100
    except ValueError:
        raise SettingsRefused("comparison_share", "Please give a number.") from None
    try:
        return ChannelSettings(
            **{name: name in on for name in _SWITCHES},
            consent_to_train=CONSENT_CHOICES[
                _state(view, "consent_to_train")["selected_option"]["value"]
            ],
            answer_when=_state(view, "answer_when")["selected_option"]["value"],
            who=_state(view, "who")["selected_option"]["value"],
            humans=(*(_state(view, "humans").get("selected_users") or ()), *groups),
            comparison_share=share,
            model=None if model == _DEFAULT_MODEL else model,
        )
    except (ValidationError, KeyError, TypeError) as error:
        field = "comparison_share"
        if isinstance(error, ValidationError):
            named = str(error.errors()[0]["loc"][0])
            field = named if named not in _SWITCHES else "switches"
        raise SettingsRefused(field, "This value is not possible.") from error


class SettingsRefused(Exception):
    """A submitted value cannot be; Slack shows the text at the block."""

    def __init__(self, block_id: str, text: str) -> None:
        self.errors = {block_id: text}
        super().__init__(text)


# -- Parts ----------------------------------------------------------------------------------------


def notice_view(text: str) -> View:
    """A modal that only says something, in place of one whose submission was refused."""
    return {
        "type": "modal",
        "title": _plain("Parley"),
        "close": _plain("Close"),
        "blocks": [{"type": "section", "text": _plain(text)}],
    }


def _state(view: Mapping[str, Any], block_id: str) -> dict[str, Any]:
    """The state of a block's one element, whose action id is the block's id."""
    found = view.get("state", {}).get("values", {}).get(block_id, {}).get(block_id)
    return found if isinstance(found, dict) else {}


def _typed(view: Mapping[str, Any], block_id: str) -> str | None:
    text = (_state(view, block_id).get("value") or "").strip()
    return text[:MAX_INPUT_CHARACTERS] or None


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def _option(text: str, value: str) -> Block:
    return {"text": _plain(text[:MAX_OPTION_CHARACTERS]), "value": value}


def _input(
    name: str, label: str, element: Block, *, need: bool = False, hint: str | None = None
) -> Block:
    block: Block = {
        "type": "input",
        "block_id": name,
        "label": _plain(label),
        "element": {**element, "action_id": name},
        "optional": not need,
    }
    return block if hint is None else {**block, "hint": _plain(hint)}


def _text_input(placeholder: str, *, initial: str = "", multiline: bool = True) -> Block:
    element = {
        "type": "plain_text_input",
        "multiline": multiline,
        "max_length": MAX_INPUT_CHARACTERS,
        "placeholder": _plain(placeholder),
    }
    return {**element, "initial_value": initial} if initial else element


def _checked(kind: str, options: Sequence[Block], on: Sequence[Block]) -> Block:
    element: Block = {"type": kind, "options": list(options)}
    return {**element, "initial_options": list(on)} if on else element


def _radio(choices: Mapping[str, str], chosen: str) -> Block:
    return {
        "type": "radio_buttons",
        "options": [_option(text, value) for value, text in choices.items()],
        "initial_option": _option(choices[chosen], chosen),
    }


def _people_select(people: Sequence[str]) -> Block:
    element: Block = {"type": "multi_users_select"}
    return {**element, "initial_users": list(people)} if people else element


def _model_select(choices: Sequence[Block], chosen: str | None) -> Block:
    wanted = chosen or _DEFAULT_MODEL
    initial = next((choice for choice in choices if choice["value"] == wanted), choices[0])
    return {"type": "static_select", "options": list(choices), "initial_option": initial}
