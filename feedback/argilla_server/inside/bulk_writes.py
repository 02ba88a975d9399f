"""Argilla's bulk writes without the work that nobody asked for.

For every record that it writes Argilla loads the whole data set to describe an event, whether or
not a webhook is there to be told: seven queries a record. Here it is asked once a request whether
anybody listens. And for every value of a record it compiles the schema of the question's or the
property's settings anew, which is three quarters of what is left: here each is compiled once.
"""

from functools import cache

from argilla_server.bulk.records_bulk import UpsertRecordsBulk
from argilla_server.contexts import webhooks
from argilla_server.models import Record, database
from argilla_server.webhooks.v1.enums import RecordEvent
from pydantic import TypeAdapter


def set_up() -> None:
    """Take Argilla's place where it writes records in bulk."""
    UpsertRecordsBulk._notify_upsert_record_events = _notify_where_heard
    database.TypeAdapter = cache(TypeAdapter)


_notify = UpsertRecordsBulk._notify_upsert_record_events


async def _notify_where_heard(self: UpsertRecordsBulk, records: list[Record]) -> None:
    hooks = await webhooks.list_enabled_webhooks(self._db)
    if any(event.value in hook.events for hook in hooks for event in RecordEvent):
        await _notify(self, records)
