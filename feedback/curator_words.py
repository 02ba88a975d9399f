"""What curators said in Argilla, in our terms. Pure; the contrary of `feedback.records`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from feedback.records import PREFERENCES, RATINGS, VOTER
from storage.curations import Curated, Curation
from storage.outbox import Kind

_VALUES: Final[Mapping[Any, Any]] = {word: value for value, word in RATINGS.items()}
_WINNERS: Final[Mapping[Any, Any]] = {word: winner for winner, word in PREFERENCES.items()}


def curated(kind: Kind, record: Mapping[str, Any], users: Mapping[str, str]) -> Curated:
    """What curators say of a record, as Argilla lists it with its responses.

    Drafts and whatever members said are passed over.

    Args:
        users: names of Argilla's users by their ids.
    """
    said = [
        _word(response, users[response["user_id"]])
        for response in record.get("responses") or ()
        if response["status"] in ("submitted", "discarded")
        and not users.get(response["user_id"], VOTER).startswith(VOTER)
    ]
    return Curated(
        kind=kind,
        record_id=UUID(record["external_id"]),
        made_at=_utc(record["inserted_at"]),
        said=tuple(said),
    )


def _word(response: Mapping[str, Any], name: str) -> Curation:
    values = {question: said["value"] for question, said in (response["values"] or {}).items()}
    return Curation(
        curator_id=UUID(response["user_id"]),
        curator=name,
        status=response["status"],
        value=_VALUES.get(values.get("rating")),
        reasons=tuple(values.get("reasons") or ()),
        comment=values.get("comment") or values.get("reason"),
        correction=values.get("correction"),
        winner=_WINNERS.get(values.get("preference")),
        at=_utc(response["updated_at"]),
    )


def _utc(time: str) -> datetime:
    """Argilla's times are UTC and do not say so."""
    return datetime.fromisoformat(time).replace(tzinfo=UTC)
