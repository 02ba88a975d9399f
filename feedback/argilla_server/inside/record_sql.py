"""Argilla's filters, orders and queries as SQL over its own tables, for Postgres and SQLite.

Runs inside Argilla's environment.
"""

import contextlib
import functools
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from argilla_server.database import async_engine
from argilla_server.enums import RecordStatus, ResponseStatus, ResponseStatusFilter, SortOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Question, Record, Response, Suggestion, Vector
from argilla_server.search_engine import (
    AndFilter,
    Filter,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
    TextQuery,
)
from sqlalchemy import (
    ColumnElement,
    Float,
    Numeric,
    Text,
    and_,
    case,
    cast,
    event,
    exists,
    false,
    func,
    join,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    text,
    true,
)
from sqlalchemy import column as table_column
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.orm import aliased
from sqlalchemy.types import UserDefinedType
from text_query import Node, count_in, parse, to_tsquery, words_of

FIELD_END = "\ua7f8"
"""A letter that nobody writes: it keeps phrases from matching across two fields."""

_POSTGRES_SETUP = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    # Every text in a record's fields as words: runs of letters and digits. Pictures that are
    # written into a field are left out; the limit keeps a vector below the megabyte that it may be.
    # The cost makes Postgres ask the index instead of reading every record of a data set, which
    # takes 6 s and not 0.3 s for 20,000 of them.
    f"""
    CREATE OR REPLACE FUNCTION parley_words(content jsonb) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
        SELECT to_tsvector('pg_catalog.simple', left(regexp_replace(
            coalesce(string_agg(part #>> '{{}}', ' {FIELD_END} '), ''),
            '[^[:alnum:]]+', ' ', 'g'), 200000))
        FROM jsonb_path_query(content, 'strict $.**') AS part
        WHERE jsonb_typeof(part) = 'string' AND part #>> '{{}}' NOT LIKE 'data:image/%'
    $$
    """,  # noqa: S608 (a constant)
    "CREATE INDEX IF NOT EXISTS parley_records_words"
    " ON records USING gin (parley_words(fields::jsonb))",
)


async def set_up() -> None:
    """Give the database what searching needs; Argilla's own migrations must have run.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the extension `vector` may not be created, for one.
    """
    async with async_engine.begin() as connection:
        if async_engine.dialect.name == "sqlite":
            await connection.execute(text("PRAGMA journal_mode = WAL"))
            return
        # One process at a time: two at once would both create.
        await connection.execute(text("SELECT pg_advisory_xact_lock(5050)"))
        for statement in _POSTGRES_SETUP:
            await connection.execute(text(statement))


class _PgVector(UserDefinedType[str]):  # type: ignore[misc]
    """pgvector's type; a JSON list of numbers is how it writes a vector."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


class Elements:
    """The scalars at one place of a JSON column, a lone one and a list's alike, as rows."""

    def __init__(self, column: Any, *path: str) -> None:
        keys = "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in path)
        if async_engine.dialect.name == "sqlite":
            rows = func.json_each(column, f"${keys}").table_valued("value", "type")
            self.rows: Any = rows
            self.text = cast(rows.c.value, Text)
            self.number = case(
                (rows.c.type.in_(("integer", "real")), cast(rows.c.value, Float)), else_=null()
            )
            self.value = rows.c.value
            self.present = rows.c.type != "null"
        else:
            place = cast(f"${keys}[*]", JSONPATH)
            found = func.jsonb_path_query(cast(column, JSONB), place)
            rows = found.table_valued(table_column("value", JSONB)).render_derived()
            self.rows, value = rows, rows.c.value
            self.text = value.op("#>>")(literal_column("'{}'"))
            is_number = func.jsonb_typeof(value) == "number"
            self.number = case((is_number, cast(value, Numeric)), else_=null())
            self.value = value
            self.present = func.jsonb_typeof(value) != "null"


def _match(query: str, field: str | None) -> tuple[ColumnElement[bool], ColumnElement[float]]:
    """Condition and score of a text query over one field or all."""
    if query.strip() == "*":
        return true(), literal(1.0)
    node = parse(query)
    if node is None:
        return false(), literal(0.0)
    if async_engine.dialect.name == "sqlite":
        count = func.parley_count(cast(Record.fields, Text), field, query)
        return count > 0, cast(count, Float)
    wanted = func.to_tsquery(literal_column("'pg_catalog.simple'"), to_tsquery(node))
    fields = cast(Record.fields, JSONB)
    if field is not None:
        fields = fields.op("->", return_type=JSONB)(field)
    words = func.parley_words(fields)
    condition = words.op("@@")(wanted)
    if "!" not in to_tsquery(node):
        # The index knows whole records, of all data sets; asked first and once, because
        # reading one data set's records instead looks cheap while the statistics are old.
        indexed = aliased(Record)
        found = func.parley_words(cast(indexed.fields, JSONB)).op("@@")(wanted)
        ids = func.array(select(indexed.id).where(found).scalar_subquery())
        narrowed = Record.id == func.any(ids)
        condition = narrowed if field is None else and_(narrowed, condition)
    return condition, func.ts_rank(words, wanted)


def cosine_distance(value: list[float]) -> ColumnElement[float]:
    """1 - cosine between a record's vector and `value`; NaN or NULL where either has no length."""
    written = json.dumps(value)
    if async_engine.dialect.name == "sqlite":
        return func.parley_cosine_distance(cast(Vector.value, Text), written, type_=Float)
    stored = cast(cast(Vector.value, Text), _PgVector)
    wanted = cast(cast(written, Text), _PgVector)
    return stored.op("<=>", return_type=Float)(wanted)


def condition_of(wanted: Filter) -> ColumnElement[bool]:
    """What a record must fulfil."""
    if isinstance(wanted, AndFilter):
        return and_(true(), *(condition_of(part) for part in wanted.filters))
    scope = wanted.scope
    if isinstance(scope, RecordFilterScope):
        return _on_record(scope.property, wanted)
    if isinstance(scope, ResponseFilterScope):
        return _on_responses(scope, wanted)
    if isinstance(scope, MetadataFilterScope):
        elements = Elements(Record.metadata_, scope.metadata_property)
        return exists(select(1).select_from(elements.rows).where(_within(elements, wanted)))
    suggestions, elements = _suggestions(scope)
    return exists(suggestions.where(_within(elements, wanted)))


def _within(elements: Elements, wanted: TermsFilter | RangeFilter) -> ColumnElement[bool]:
    if isinstance(wanted, TermsFilter):
        return elements.text.in_([str(value) for value in wanted.values])
    bounds = []
    for compare, bound in ((operator.ge, wanted.ge), (operator.le, wanted.le)):
        if bound is None:
            continue
        with contextlib.suppress(ValueError):
            bound = float(bound)
        bounds.append(compare(elements.text if isinstance(bound, str) else elements.number, bound))
    return and_(true(), *bounds)


def _on_record(name: str, wanted: TermsFilter | RangeFilter) -> ColumnElement[bool]:
    column = getattr(Record, name)
    if isinstance(wanted, TermsFilter):
        values = [_record_value(name, value) for value in wanted.values]
        return column.in_([value for value in values if value is not None])
    ge, le = _record_value(name, wanted.ge), _record_value(name, wanted.le)
    if (wanted.ge is None) != (ge is None) or (wanted.le is None) != (le is None):
        raise UnprocessableEntityError(f"A bound of `{name}` cannot be read.")
    return and_(true(), *([column >= ge] if ge else []), *([column <= le] if le else []))


def _record_value(name: str, value: Any) -> Any:
    """A filter's value in the type of a record's column; None = no record can have it."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        if name == "id":
            return UUID(str(value))
        if name == "status":
            return RecordStatus(value)
        if name == "external_id":
            return str(value)
        with contextlib.suppress(ValueError):  # Elasticsearch counts milliseconds
            return datetime.fromtimestamp(float(value) / 1000, UTC).replace(tzinfo=None)
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return None


def _on_responses(
    scope: ResponseFilterScope, wanted: TermsFilter | RangeFilter
) -> ColumnElement[bool]:
    theirs = [Response.record_id == Record.id]
    if scope.user is not None:
        theirs.append(Response.user_id == scope.user.id)
    if scope.question is not None:
        elements = Elements(Response.values, scope.question, "value")
        source = join(Response, elements.rows, true())
        return exists(select(1).select_from(source).where(*theirs, _within(elements, wanted)))
    if not isinstance(wanted, TermsFilter):
        raise UnprocessableEntityError("A response's status has no range.")
    statuses = {str(value) for value in wanted.values}
    known = [status for status in ResponseStatus if status.value in statuses]
    found = exists(select(1).where(*theirs, Response.status.in_(known)))
    if ResponseStatusFilter.pending.value in statuses:
        return or_(found, not_(exists(select(1).where(*theirs))))
    return found


def _suggestions(scope: SuggestionFilterScope) -> tuple[Any, Elements]:
    """The current record's suggestions for one question, by the rows of one property's values."""
    name = "value" if scope.property in (None, "None") else scope.property
    if name in ("value", "score"):
        elements = Elements(getattr(Suggestion, name))
        source = join(Suggestion, elements.rows, true())
    else:
        elements = Elements.__new__(Elements)
        elements.text = elements.value = cast(getattr(Suggestion, name), Text)
        elements.number = null()
        elements.present = elements.text.is_not(None)
        source = Suggestion.__table__
    of_record = (Suggestion.record_id == Record.id, Question.name == scope.question)
    rows = (
        select(literal(1)).select_from(source).join(Question, Question.id == Suggestion.question_id)
    )
    return rows.where(*of_record), elements


def _upward(key: Any) -> Any:
    return key.asc().nulls_last()


def _downward(key: Any) -> Any:
    return key.desc().nulls_last()


def keys_of(wanted: Order) -> list[ColumnElement[Any]]:
    """Sort keys; records without a value come last in both orders."""
    turn = _downward if wanted.order == SortOrder.desc else _upward
    scope = wanted.scope
    if isinstance(scope, RecordFilterScope):
        column = getattr(Record, scope.property)
        return [turn(cast(column, Text) if scope.property == "status" else column)]
    if isinstance(scope, ResponseFilterScope):
        return [turn(key) for key in _response_keys(scope)]
    if isinstance(scope, MetadataFilterScope):
        elements = Elements(Record.metadata_, scope.metadata_property)
        rows = select(elements.value).select_from(elements.rows)
    else:
        suggestions, elements = _suggestions(scope)
        rows = suggestions.with_only_columns(elements.value)
    # The smallest value of several counts upwards, the largest downwards.
    first = rows.where(elements.present).order_by(turn(elements.value)).limit(1)
    return [turn(first.correlate(Record).scalar_subquery())]


def _response_keys(scope: ResponseFilterScope) -> list[ColumnElement[Any]]:
    """The mean of the numbers that people gave, then the first of their words."""
    theirs = [Response.record_id == Record.id]
    if scope.user is not None:
        theirs.append(Response.user_id == scope.user.id)
    if scope.question is None:
        status = func.min(cast(Response.status, Text))
        return [select(status).where(*theirs).correlate(Record).scalar_subquery()]
    elements = Elements(Response.values, scope.question, "value")
    source = join(Response, elements.rows, true())
    return [
        select(key).select_from(source).where(*theirs).correlate(Record).scalar_subquery()
        for key in (func.avg(elements.number), func.min(elements.text))
    ]


def text_condition(query: TextQuery | str) -> tuple[ColumnElement[bool], ColumnElement[float]]:
    """Condition and score of a text query, over one field or all."""
    asked = query if isinstance(query, TextQuery) else TextQuery(q=query)
    return _match(asked.q, asked.field)


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        if not content.startswith("data:image/"):
            yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _strings(part)


_parsed: Callable[[str], Node | None] = functools.lru_cache(maxsize=64)(parse)


def _count_in_fields(fields: str, field: str | None, query: str) -> int:
    """SQLite's `parley_count`: how often a text query matches a record's fields."""
    content = json.loads(fields)
    if field is not None:
        content = content.get(field)
    node = _parsed(query)
    return count_in(node, words_of(f" {FIELD_END} ".join(_strings(content)))) if node else 0


def _distance_of(stored: str, wanted: str) -> float | None:
    """SQLite's `parley_cosine_distance`: 1 - cosine; None for a zero vector."""
    left, right = json.loads(stored), json.loads(wanted)
    lengths = math.hypot(*left) * math.hypot(*right)
    return 1 - sum(map(operator.mul, left, right)) / lengths if lengths else None


if async_engine.dialect.name == "sqlite":

    def _add_functions(connection: Any, _: Any) -> None:
        def md5(content: str) -> str:
            return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()

        connection.create_function("parley_count", 3, _count_in_fields, deterministic=True)
        connection.create_function("parley_cosine_distance", 2, _distance_of, deterministic=True)
        connection.create_function("md5", 1, md5, deterministic=True)

    event.listen(async_engine.sync_engine, "connect", _add_functions)
