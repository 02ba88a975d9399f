"""A search engine for Argilla that queries Argilla's own tables; no Elasticsearch.

Runs inside Argilla's environment and is imported by nothing of Parley's. Argilla calls an engine to
write into an index and to search it. Here its tables are the index, so writing has nothing to do
and what is committed is found at once; searching is SQL, in Postgres or SQLite.

The meaning of a search is that of Argilla's own engine on Elasticsearch: text in the language of
`simple_query_string` with AND between words, filters that match any of their values, records
without a value last in both orders, cosine similarity as (1 + cosine) / 2. Differences: fuzziness
and slop (`~`) are read and ignored, and a search without query or order gives every person an order
of their own that stays the same (Elasticsearch's changes when records do).
"""

import math
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import (
    Dataset,
    MetadataProperty,
    Record,
    Response,
    Suggestion,
    User,
    Vector,
    VectorSettings,
)
from argilla_server.search_engine import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from record_sql import Elements, condition_of, cosine_distance, keys_of, text_condition
from sqlalchemy import ColumnElement, Text, cast, func, join, literal_column, null, select, true

NAME = "sql"


@SearchEngine.register(NAME)
class SqlSearchEngine(SearchEngine):  # type: ignore[misc]
    """Argilla's search engine over Argilla's tables."""

    @classmethod
    async def new_instance(cls) -> "SqlSearchEngine":
        """Argilla makes one for each request."""
        return cls()

    async def close(self) -> None:
        """Connections belong to Argilla's own pool."""

    async def ping(self) -> bool:
        """Whether the database answers."""
        return bool(await self.info())

    async def info(self) -> dict[str, Any]:
        """What `/api/v1/status` shows; it fails when the database is away."""
        async with AsyncSessionLocal() as db:
            records = await db.scalar(select(func.count()).select_from(Record))
        return {
            "engine": NAME,
            "database": async_engine.dialect.name,
            "records": records,
            "completed_by": "curators",
        }

    async def create_index(self, dataset: Dataset) -> None:
        """Nothing to do, as for every method that writes: the tables are the index."""

    async def delete_index(self, dataset: Dataset) -> None:
        """Nothing to do."""

    async def configure_metadata_property(
        self, dataset: Dataset, metadata_property: MetadataProperty
    ) -> None:
        """Nothing to do."""

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None:
        """Nothing to do."""

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Nothing to do."""

    async def partial_record_update(self, record: Record, **update: Any) -> None:
        """Nothing to do."""

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Nothing to do."""

    async def update_record_response(self, response: Response) -> None:
        """Nothing to do."""

    async def delete_record_response(self, response: Response) -> None:
        """Nothing to do."""

    async def update_record_suggestion(self, suggestion: Suggestion) -> None:
        """Nothing to do."""

    async def delete_record_suggestion(self, suggestion: Suggestion) -> None:
        """Nothing to do."""

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """Records by status, and their total; empty for a draft."""
        if dataset.is_draft:
            return {}
        counts = await _counts(
            select(Record.status, func.count())
            .where(Record.dataset_id == dataset.id)
            .group_by(Record.status)
        )
        return {"total": sum(counts.values()), **counts}

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """One person's responses by status, and their total; empty for a draft."""
        if dataset.is_draft:
            return {}
        counts = await _counts(
            select(Response.status, func.count())
            .join(Record)
            .where(Record.dataset_id == dataset.id, Response.user_id == user.id)
            .group_by(Response.status)
        )
        return {"total": sum(counts.values()), **counts}

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | str | None = None,
    ) -> SearchResponses:
        """The records of a dataset that fulfil query and filter, a page of them."""
        conditions = [Record.dataset_id == dataset.id]
        score: ColumnElement[Any] = null()
        keys: list[Any] = [key for order in sort or () for key in keys_of(order)]
        if query is not None:
            condition, score = text_condition(query)
            conditions.append(condition)
            keys = keys or [score.desc()]
        elif user_id is not None:
            keys = keys or [func.md5(cast(Record.id, Text) + str(user_id))]
        if filter is not None:
            conditions.append(condition_of(filter))
        page = (
            select(Record.id, score.label("score"))
            .where(*conditions)
            .order_by(*keys, Record.inserted_at, Record.id)
            .offset(offset)
            .limit(limit)
        )
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(page)).all()
            total = await db.scalar(select(func.count()).select_from(Record).where(*conditions))
        items = [SearchResponseItem(record_id=row.id, score=row.score) for row in rows]
        return SearchResponses(items=items, total=total or 0)

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """The records nearest to a vector or to another record, or farthest from it; exact."""
        if bool(value) == bool(record):
            raise ValueError("Either a vector or a record must be given.")
        wanted = value or (record and record.vector_value_by_vector_settings(vector_settings))
        if not wanted:
            raise ValueError("The record has no vector of that name.")
        if len(wanted) != vector_settings.dimensions:
            raise UnprocessableEntityError(
                f"Vector `{vector_settings.name}` has {vector_settings.dimensions} dimensions,"
                f" not {len(wanted)}."
            )
        distance = cosine_distance(wanted)
        if order == SimilarityOrder.least_similar:
            distance = 2 - distance
        conditions = [
            Record.dataset_id == dataset.id,
            Vector.vector_settings_id == vector_settings.id,
        ]
        if record is not None:
            conditions.append(Record.id != record.id)
        if query is not None:
            conditions.append(text_condition(query)[0])
        if filter is not None:
            conditions.append(condition_of(filter))
        # Named once, so that Postgres computes it once for each record.
        nearest = (
            select(Record.id, distance.label("distance"))
            .join(Vector, Vector.record_id == Record.id)
            .where(*conditions)
            .order_by(literal_column("distance").asc().nulls_last(), Record.id)
            .limit(max_results)
        )
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(nearest)).all()
        scores = {
            row.id: 1 - row.distance / 2
            for row in rows
            if row.distance is not None and not math.isnan(row.distance)
        }
        items = [
            SearchResponseItem(record_id=found, score=score)
            for found, score in scores.items()
            if threshold is None or score >= threshold
        ]
        return SearchResponses(items=items, total=len(items))

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """How often each term occurs, or the range of a number."""
        elements = Elements(Record.metadata_, metadata_property.name)
        source = join(Record, elements.rows, true())
        of_dataset = Record.dataset_id == metadata_property.dataset_id
        async with AsyncSessionLocal() as db:
            if metadata_property.type == MetadataPropertyType.terms:
                rows = await db.execute(
                    select(elements.text, func.count())
                    .select_from(source)
                    .where(of_dataset, elements.present)
                    .group_by(elements.text)
                    .order_by(func.count().desc(), elements.text)
                )
                counts = [TermsMetrics.TermCount(term=term, count=count) for term, count in rows]
                return TermsMetrics(total=sum(count.count for count in counts), values=counts)
            bounds = select(func.min(elements.number), func.max(elements.number))
            low, high = (await db.execute(bounds.select_from(source).where(of_dataset))).one()
        if metadata_property.type == MetadataPropertyType.integer:
            return IntegerMetadataMetrics(min=low, max=high)
        return FloatMetadataMetrics(min=low, max=high)


async def _counts(statement: Any) -> dict[str, int]:
    async with AsyncSessionLocal() as db:
        return {status.value: count for status, count in await db.execute(statement)}
