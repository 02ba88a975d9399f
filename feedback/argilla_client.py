"""Argilla as the relay uses it: its SDK defines data sets, its HTTP interface takes the records.

The only module that imports the SDK, and only in a process that ends when a data set is made: the
SDK brings pandas and pyarrow along, 180 MB of a process that should stay below 150. Records with
the responses of many people are upserted in bulk, which the SDK's record classes cannot do without
asking for each record first.
"""

import secrets
import warnings
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from feedback.argilla_http import ArgillaHttp, Conflict, Json, mapped, of_status
from feedback.curator_words import curated
from feedback.errors import (
    ArgillaMisconfigured,
    ArgillaUnavailable,
)
from feedback.own_process import in_own_process
from feedback.records import (
    DATASETS,
    LAYOUTS,
    MIN_CURATORS,
    MIN_RESPONSES,
    CurationRecord,
    Property,
    Question,
    voter_name,
)
from storage.curations import Curated
from storage.identity import MemberId
from storage.outbox import Kind

MAX_UPSERTED: Final = 500
"""Records of one request; Argilla's own limit."""
MAX_REMOVED: Final = 100
"""Records that one request deletes; Argilla's own limit."""
MAX_FOUND: Final = 250
"""Ids that one search names; Argilla's own limit."""
HEARD: Final = ("response.created", "response.updated", "response.deleted")
"""Events that tell of curators. The relay's own writes in bulk are none of them."""
MAKE_S: Final = 120.0
"""To start a process and make a data set."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """When somebody last responded by hand in one of the data sets.

    Attributes:
        workspace: its name.
        at: to be compared with an earlier one for equality.
    """

    workspace: str
    kind: Kind
    dataset_id: str
    at: str


class ArgillaClient:
    """One Argilla, as its owner; use as an async context manager.

    All methods raise ArgillaUnavailable (wait and retry) and ArgillaMisconfigured (the operator
    must mend something).

    Args of the constructor:
        url: address without a trailing slash.
        api_key: of an owner.
        timeout_s: deadline of one request.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 30.0) -> None:
        self.url = url
        self._api_key = api_key
        self._http = ArgillaHttp(url, api_key, timeout_s=timeout_s, failed=self._doubt)
        self._datasets: dict[tuple[str, Kind], str] = {}
        self._workspaces: dict[str, str] = {}
        self._voters: set[tuple[str, MemberId]] = set()
        self._users: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def check(self) -> None:
        """Ask Argilla who we are.

        Raises:
            ArgillaUnavailable: it does not answer well.
        """
        await self._http.request("GET", "me")

    async def prepare(self, workspace: str) -> bool:
        """See that a workspace and its data sets are there.

        Returns:
            Whether anything had to be made: it is new, or Argilla was wiped.
        """
        if all((workspace, kind) in self._datasets for kind in DATASETS):
            return False
        return await self._prepare(workspace)

    async def upsert(self, workspace: str, kind: Kind, records: Sequence[CurationRecord]) -> None:
        """Store records and their responses; others' responses to the same records stay.

        Args:
            workspace: prepared.

        Raises:
            RecordRefused: Argilla takes one of them not; none was stored.
        """
        for some in _cut(records, MAX_UPSERTED):
            await self._upsert(workspace, kind, some)

    async def remove_responses(
        self, workspace: str, kind: Kind, gone: Mapping[str, Collection[MemberId]]
    ) -> None:
        """Delete what people said of records, by the records' ids; curators' words stay."""
        found = await self._found(workspace, kind, list(gone), include="responses")
        for record in found:
            users = {str(voter) for voter in gone[record["external_id"]]}
            for response in record.get("responses") or ():
                if response["user_id"] in users:
                    await self._http.delete(f"responses/{response['id']}")

    async def remove_records(self, workspace: str, kind: Kind, ids: Sequence[str]) -> None:
        """Delete records with everything that was said of them."""
        found = [record["id"] for record in await self._found(workspace, kind, ids)]
        path = f"datasets/{self._datasets[workspace, kind]}/records"
        for some in _cut(found, MAX_REMOVED):
            await self._http.request("DELETE", path, params={"ids": ",".join(some)})

    async def ids(self, workspace: str, kind: Kind) -> AsyncIterator[str]:
        """Ids of all records that are there."""
        async for page in self._http.pages(self._datasets[workspace, kind]):
            for record in page:
                yield record["external_id"]

    async def forget(self, voter: MemberId) -> None:
        """Delete the user who stands for a person, with every response of theirs."""
        await self._http.delete(f"users/{voter}")
        self._voters = {(where, who) for where, who in self._voters if who != voter}

    async def activity(self) -> list[Activity]:
        """All data sets with our names, in whatever workspace."""
        workspaces = {each["id"]: each["name"] for each in await self._http.items("me/workspaces")}
        kinds = {name: kind for kind, name in DATASETS.items()}
        return [
            Activity(
                workspace=workspaces[each["workspace_id"]],
                kind=kinds[each["name"]],
                dataset_id=each["id"],
                at=each["last_activity_at"],
            )
            for each in await self._http.items("me/datasets")
            if each["name"] in kinds and each["workspace_id"] in workspaces
        ]

    async def curated(self, activity: Activity) -> AsyncIterator[list[Curated]]:
        """What curators say of the records of a data set, page by page."""
        async for page in self._http.pages(activity.dataset_id, include="responses"):
            responses = (each for record in page for each in record.get("responses") or ())
            if any(each["user_id"] not in self._users for each in responses):
                self._users = {
                    each["id"]: each["username"] for each in await self._http.items("users")
                }
            yield [curated(activity.kind, record, self._users) for record in page]

    async def gone(self, users: Collection[UUID]) -> set[UUID]:
        """Who of Argilla's users is a user no more."""
        there = {user: await self._http.get(f"users/{user}") for user in users}
        return {user for user, found in there.items() if found is None}

    async def webhook(self, url: str) -> str:
        """See that Argilla tells this address what people do by hand; the signing secret."""
        described = {"url": url, "events": HEARD}
        listed = [each for each in await self._http.items("webhooks") if each["url"] == url]
        if not listed:
            listed = [await self._http.request("POST", "webhooks", json=described)]
        ours, *twins = listed
        if not ours["enabled"] or set(ours["events"]) != set(HEARD):
            change = {"events": HEARD, "enabled": True}
            await self._http.request("PATCH", f"webhooks/{ours['id']}", json=change)
        for twin in twins:  # of two pages that came at once
            await self._http.delete(f"webhooks/{twin['id']}")
        return str(ours["secret"])

    async def has_webhook(self, url: str) -> bool:
        """Whether Argilla tells this address what people do by hand."""
        listed = await self._http.items("webhooks")
        return any(each["url"] == url and each["enabled"] for each in listed)

    # -- Data sets and voters ---------------------------------------------------------------------

    def _doubt(self) -> None:
        """After a failure nothing is believed to be there."""
        self._datasets.clear()
        self._workspaces.clear()
        self._voters.clear()

    async def _prepare(self, workspace: str) -> bool:
        made = False
        there = {each["name"]: each["id"] for each in await self._http.items("me/workspaces")}
        if workspace not in there:
            with suppress(Conflict):
                await self._http.request("POST", "workspaces", json={"name": workspace})
            made = True
            there = {each["name"]: each["id"] for each in await self._http.items("me/workspaces")}
        self._workspaces[workspace] = there[workspace]
        listed = await self._http.items("me/datasets", workspace_id=there[workspace])
        datasets = {each["name"]: each for each in listed}
        missing: list[Kind] = []
        for kind, name in DATASETS.items():
            dataset = datasets.get(name)
            if dataset is None:
                missing.append(kind)
            elif dataset["status"] != "ready":  # it was not made to the end
                await self._http.delete(f"datasets/{dataset['id']}")
                missing.append(kind)
            else:
                await self._migrate(kind, dataset["id"], f"{workspace}/{name}")
                self._datasets[workspace, kind] = dataset["id"]
        if missing:
            made_ids = await self._make(workspace, missing)
            self._datasets |= {(workspace, kind): made_ids[kind] for kind in missing}
        return made or bool(missing)

    async def _make(self, workspace: str, kinds: Sequence[Kind]) -> dict[Kind, str]:
        """Make data sets, in a process of their own; returns their ids."""
        status = await self._http.request("GET", "status")
        curators = status["search_engine"].get("completed_by") == "curators"
        completed_by = MIN_CURATORS if curators else MIN_RESPONSES
        try:
            return await in_own_process(
                MAKE_S, make_datasets, self.url, self._api_key, workspace, kinds, completed_by
            )
        except (TimeoutError, BrokenProcessPool) as error:
            raise ArgillaUnavailable(
                f"A data set was not made ({type(error).__name__})."
            ) from error

    async def _migrate(self, kind: Kind, dataset_id: str, name: str) -> None:
        """Add metadata that an older version did not know; refuse what lacks our questions."""
        layout = LAYOUTS[kind]
        listed = await self._http.items(f"datasets/{dataset_id}/questions")
        lacking = {question.name for question in layout.questions} - {q["name"] for q in listed}
        if lacking:
            raise ArgillaMisconfigured(
                f"Argilla's data set {name} lacks the questions {sorted(lacking)}: it is not ours. "
                "Rename or delete it there, and a new one is made."
            )
        path = f"me/datasets/{dataset_id}/metadata-properties"
        there = {each["name"] for each in await self._http.items(path)}
        for missing, what in layout.metadata.items():
            if missing not in there:
                await self._http.request(
                    "POST",
                    f"datasets/{dataset_id}/metadata-properties",
                    json={"name": missing, "title": missing, "settings": {"type": what}},
                )

    async def _upsert(self, workspace: str, kind: Kind, records: Sequence[CurationRecord]) -> None:
        await self._know({voter for record in records for voter in record.voters}, workspace)
        dataset_id = self._datasets[workspace, kind]
        items = [
            {
                "external_id": record.id,
                "fields": dict(record.fields),
                "metadata": dict(record.metadata),
                "responses": [
                    {
                        "user_id": str(response.voter),
                        "status": "submitted",
                        "values": {
                            name: {"value": value} for name, value in response.values.items()
                        },
                    }
                    for response in record.responses
                ],
            }
            for record in records
        ]
        await self._http.request(
            "PUT", f"datasets/{dataset_id}/records/bulk", json={"items": items}
        )

    async def _know(self, voters: Collection[MemberId], workspace: str) -> None:
        """See that the users who stand for people are there; nobody can log in as one."""
        for voter in voters:
            if (workspace, voter) in self._voters:
                continue
            with suppress(Conflict):
                await self._http.request(
                    "POST",
                    "users",
                    json={
                        "id": str(voter),
                        "username": voter_name(voter),
                        "first_name": voter_name(voter),
                        "role": "annotator",
                        "password": secrets.token_urlsafe(32),
                    },
                )
            with suppress(Conflict):
                await self._http.request(
                    "POST",
                    f"workspaces/{self._workspaces[workspace]}/users",
                    json={"user_id": str(voter)},
                )
            self._voters.add((workspace, voter))

    async def _found(
        self, workspace: str, kind: Kind, ids: Sequence[str], **parameters: str
    ) -> list[Json]:
        """The records of these ids that are there."""
        path = f"datasets/{self._datasets[workspace, kind]}/records/search"
        found: list[Json] = []
        for some in _cut(ids, MAX_FOUND):
            scope = {"entity": "record", "property": "external_id"}
            wanted = {"type": "terms", "scope": scope, "values": list(some)}
            body = {"filters": {"type": "and", "and": [wanted]}}
            answer = await self._http.request(
                "POST", path, json=body, params={"limit": MAX_FOUND, **parameters}
            )
            found += [item["record"] for item in answer["items"]]
        return found


def make_datasets(
    url: str, api_key: str, workspace: str, kinds: Sequence[Kind], completed_by: int
) -> dict[Kind, str]:
    """Make data sets with the SDK, which this process then holds; returns their ids.

    Args:
        completed_by: responses that complete a record.

    Raises:
        FeedbackError: as the client's methods.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic's older ways
        import argilla as rg
        from argilla._exceptions import ArgillaError

        try:
            with mapped():
                client = rg.Argilla(api_url=url, api_key=api_key, trust_env=False)
                return {
                    kind: _make_dataset(rg, client, workspace, kind, completed_by) for kind in kinds
                }
        except ArgillaError as error:
            raise of_status(getattr(error, "status_code", 401), str(error)) from None


# -- What Argilla calls what we have --------------------------------------------------------------


def _make_dataset(rg: Any, client: Any, workspace: str, kind: Kind, completed_by: int) -> str:
    layout = LAYOUTS[kind]
    settings = rg.Settings(
        guidelines=layout.guidelines,
        fields=[
            rg.TextField(name=name, title=title, use_markdown=True)
            for name, title in layout.fields.items()
        ],
        questions=[_asked(rg, question) for question in layout.questions],
        metadata=[_property(rg, name, what) for name, what in layout.metadata.items()],
        distribution=rg.TaskDistribution(min_submitted=completed_by),
    )
    dataset = rg.Dataset(name=DATASETS[kind], workspace=workspace, settings=settings, client=client)
    return str(dataset.create().id)


def _asked(rg: Any, question: Question) -> Any:
    described = {
        "name": question.name,
        "title": question.title,
        "required": question.required,
    }
    if not question.labels:
        return rg.TextQuestion(**described)
    if question.many:
        return rg.MultiLabelQuestion(labels=dict(question.labels), **described)
    return rg.LabelQuestion(labels=dict(question.labels), **described)


def _property(rg: Any, name: str, what: Property) -> Any:
    if what == "integer":
        return rg.IntegerMetadataProperty(name=name)
    return rg.TermsMetadataProperty(name=name)


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in runs of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
