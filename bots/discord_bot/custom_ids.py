"""The ids of everything that can be clicked: all state is in them, so a restart forgets nothing.

Discord takes 100 characters; `parley:` and a name of ours leave room for two ids of the database.
https://docs.discord.com/developers/components/reference#anatomy-of-a-component-custom-id
"""

from typing import Final

from feedback import ComparisonId, Winner
from storage.identity import AnswerId, DocumentId, MessageId

MAX_CUSTOM_ID_CHARACTERS = 100

_ID = r"(?P<id>[0-9a-f-]{36})"
_PART = r"(?::(?P<part>\d{1,4}))?"

UP_TEMPLATE: Final = f"parley:up:{_ID}"
DOWN_TEMPLATE: Final = f"parley:down:{_ID}"
WITHDRAW_TEMPLATE: Final = f"parley:withdraw:{_ID}"
EXPLAIN_TEMPLATE: Final = f"parley:explain:{_ID}"
CRITICISM_TEMPLATE: Final = f"parley:criticism:{_ID}"
STOP_TEMPLATE: Final = f"parley:stop:{_ID}{_PART}"
AGAIN_TEMPLATE: Final = f"parley:again:{_ID}{_PART}"
SHARE_TEMPLATE: Final = f"parley:share:{_ID}"
HUMAN_TEMPLATE: Final = f"parley:human:{_ID}"
COMPARE_TEMPLATE: Final = f"parley:compare:(?P<winner>left|right|tie|both_bad):{_ID}"
REPLACE_TEMPLATE: Final = f"parley:replace:{_ID}"
REPLACEMENT_TEMPLATE: Final = f"parley:replacement:{_ID}"
REMOVE_TEMPLATE: Final = f"parley:remove:{_ID}"
DELETE_TEMPLATE: Final = f"parley:delete:{_ID}"
CONSENT_TEMPLATE: Final = "parley:consent:(?P<to>yes|no)"
SETTINGS_TEMPLATE: Final = "parley:settings:(?P<part>channel|people|server)"
"""For `discord.ui.DynamicItem`; "id" is the id in the database."""


def up(answer_id: AnswerId) -> str:
    """A good answer."""
    return f"parley:up:{answer_id}"


def down(answer_id: AnswerId) -> str:
    """A bad answer."""
    return f"parley:down:{answer_id}"


def withdraw(answer_id: AnswerId) -> str:
    """Take a vote back."""
    return f"parley:withdraw:{answer_id}"


def explain(answer_id: AnswerId) -> str:
    """Say why an answer is bad, or write a better one."""
    return f"parley:explain:{answer_id}"


def criticism(answer_id: AnswerId) -> str:
    """The modal behind a down-vote."""
    return f"parley:criticism:{answer_id}"


def stop(message_id: MessageId, part: int) -> str:
    """End an answer that is being written; names the message that it stands in."""
    return f"parley:stop:{message_id}:{part}"


def again(message_id: MessageId, part: int) -> str:
    """Ask for another answer; names the message that it stands in."""
    return f"parley:again:{message_id}:{part}"


def share(answer_id: AnswerId) -> str:
    """Show a private answer to everybody."""
    return f"parley:share:{answer_id}"


def human(answer_id: AnswerId) -> str:
    """Call people."""
    return f"parley:human:{answer_id}"


def compare(winner: Winner, comparison_id: ComparisonId) -> str:
    """Vote on two answers."""
    return f"parley:compare:{winner}:{comparison_id}"


def replace_document(document_id: DocumentId) -> str:
    """Put another file in a document's place."""
    return f"parley:replace:{document_id}"


def replacement(document_id: DocumentId) -> str:
    """The form that takes the other file."""
    return f"parley:replacement:{document_id}"


def remove_document(document_id: DocumentId) -> str:
    """Remove a document, if the person means it."""
    return f"parley:remove:{document_id}"


def delete_document(document_id: DocumentId) -> str:
    """Remove a document; the person means it."""
    return f"parley:delete:{document_id}"


def consent(to: str) -> str:
    """Agree to training, or no longer: "yes" or "no"."""
    return f"parley:consent:{to}"


def settings(part: str) -> str:
    """A modal of settings: "channel", "people" or "server"."""
    return f"parley:settings:{part}"


def part_of(custom_id: str, message_id: MessageId) -> int | None:
    """Which part of a question's answer carries this id; None for that of another question."""
    kind, _, rest = custom_id.removeprefix("parley:").partition(":")
    asked, _, part = rest.partition(":")
    if kind not in ("stop", "again") or asked != str(message_id):
        return None
    return int(part) if part.isdecimal() else 0
