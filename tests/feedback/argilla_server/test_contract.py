"""What Argilla calls a search engine for, through its SDK and its HTTP API.

Runs against our own engine, or against the Argilla that PARLEY_ARGILLA__URL names.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.feedback.argilla_server.conftest import Hooks, Server, eventually
from tests.feedback.argilla_server.records import TEXTS, Filled, Team, fill, settings
from tests.feedback.argilla_server.sdk import rg

pytestmark = pytest.mark.argilla

Body = dict[str, Any]


class Pages:
    """Searches as Argilla's own pages send them; a context that closes its connections."""

    def __init__(self, server: Server, filled: Filled) -> None:
        self.filled = filled
        self.clients = {
            name: server.http(key) for name, key in {"": server.api_key, **filled.team.keys}.items()
        }

    def __enter__(self) -> "Pages":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():
            client.close()

    def ask(self, body: Body | None = None, *, who: str = "", **page: int) -> httpx.Response:
        path = f"/datasets/{self.filled.dataset.id}/records/search"
        path = f"/me{path}" if who else path
        return self.clients[who].post(path, json=body or {}, params=page)

    def search(self, body: Body | None = None, *, who: str = "", **page: int) -> list[str]:
        """Names of the records found, in their order."""
        answer = self.ask(body, who=who, **page)
        assert answer.is_success, answer.text
        return [item["record"]["external_id"] for item in answer.json()["items"]]

    def get(self, path: str, *, who: str = "") -> Any:
        answer = self.clients[who].get(path)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="session")
def pages(argilla: Server, filled: Filled) -> Iterator[Pages]:
    with Pages(argilla, filled) as pages:
        yield pages


@pytest.fixture
def own(argilla: Server, people: Team) -> Iterator[Pages]:
    """A data set that one test alone changes."""
    with fill(people) as filled, Pages(argilla, filled) as pages:
        yield pages


def text(query: str, field: str | None = None) -> Body:
    return {"query": {"text": {"q": query, "field": field}}}


def terms(scope: Body, *values: object) -> Body:
    return {"type": "terms", "scope": scope, "values": list(values)}


def within(scope: Body, **bounds: object) -> Body:
    return {"type": "range", "scope": scope, **bounds}


def both(*filters: Body) -> Body:
    return {"filters": {"and": list(filters)}}


def metadata(name: str) -> Body:
    return {"entity": "metadata", "metadata_property": name}


def suggestion(question: str, about: str = "value") -> Body:
    return {"entity": "suggestion", "question": question, "property": about}


def response(question: str) -> Body:
    return {"entity": "response", "question": question}


def property_of(entity: str, name: str) -> Body:
    return {"entity": entity, "property": name}


STATUS = property_of("response", "status")
EVERYTHING = set(TEXTS)


QUERIES: list[tuple[str, set[str]]] = [
    ("launch", {"launch", "date"}),
    ("LAUNCH", {"launch", "date"}),
    ("launch october", {"launch"}),
    ("launch + october", {"launch"}),
    ("launch | budget", {"launch", "date", "budget"}),
    ("october -launch", {"budget"}),
    ("(launch | budget) -version", {"launch", "budget"}),
    ('"launch date"', {"date"}),
    ('"date launch"', set()),
    ("vers*", {"date"}),
    ("vers", set()),
    ("zwölf ÜBERSTUNDEN", {"leave"}),
    ("140", {"budget"}),
    ("Æsop", {"chat"}),
    ("nowhere", set()),
    ('"', set()),
    ("(", set()),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
def test_text_is_searched_in_the_simple_query_syntax(
    pages: Pages, query: str, found: set[str]
) -> None:
    assert set(pages.search(text(query))) == found
    assert set(pages.filled.names(query=query)) == found


def test_text_is_searched_in_one_field_where_that_is_asked(pages: Pages) -> None:
    assert set(pages.search(text("october", "answer"))) == {"budget", "launch"}
    assert pages.search(text("october", "question")) == []
    assert set(pages.search(text("-october", "question"))) == EVERYTHING
    assert pages.search(text("morning", "before")) == ["chat"]
    assert pages.ask(text("october", "nonsense")).status_code == 422


def test_the_better_match_comes_first_and_has_the_higher_score(pages: Pages) -> None:
    items = pages.ask(text("launch | date")).json()["items"]
    assert [item["record"]["external_id"] for item in items] == ["date", "launch"]
    assert items[0]["query_score"] > items[1]["query_score"] > 0


FILTERS: list[tuple[list[Body], set[str]]] = [
    ([terms(metadata("channel"), "general")], {"budget", "date"}),
    ([terms(metadata("channel"), "people", "launches")], {"launch", "date", "leave"}),
    ([within(metadata("length"), ge=7)], {"budget", "date", "chat"}),
    ([within(metadata("length"), ge=-5, le=5)], {"launch", "leave"}),
    ([within(metadata("certainty"), le=0.5)], {"budget", "launch"}),
    ([terms(metadata("length"), 9)], {"date"}),
    ([within(suggestion("rating"), ge=4)], {"budget", "date"}),
    ([terms(suggestion("rating"), 2, 5)], {"launch", "date"}),
    ([terms(suggestion("verdict"), "good")], {"budget"}),
    ([terms(suggestion("reasons"), "rude", "too long")], {"launch"}),
    ([terms(suggestion("rating", "agent"), "judge")], {"budget", "date"}),
    ([within(suggestion("rating", "score"), ge=0.5, le=0.8)], {"date"}),
    ([terms(response("rating"), 5, 2)], {"budget", "date"}),
    ([within(response("rating"), le=2)], {"launch", "date"}),
    ([terms(response("verdict"), "bad")], {"budget"}),
    ([terms(response("reasons"), "wrong")], {"launch"}),
    ([terms(STATUS, "submitted")], {"budget", "launch", "date"}),
    ([terms(STATUS, "pending")], {"leave", "chat", "bare"}),
    ([terms(STATUS, "pending", "submitted")], EVERYTHING),
    ([terms(STATUS, "discarded")], set()),
    ([terms(property_of("record", "status"), "completed")], {"budget"}),
    ([terms(property_of("record", "external_id"), "chat", "bare")], {"chat", "bare"}),
    ([within(property_of("record", "inserted_at"), ge="2020-01-01T00:00:00")], EVERYTHING),
    ([within(property_of("record", "updated_at"), le="2020-01-01T00:00:00")], set()),
    (
        [terms(metadata("channel"), "general"), within(suggestion("rating"), ge=5)],
        {"date"},
    ),
]


@pytest.mark.parametrize(("filters", "found"), FILTERS)
def test_filters_keep_the_records_that_fulfil_all_of_them(
    pages: Pages, filters: list[Body], found: set[str]
) -> None:
    assert set(pages.search(both(*filters))) == found


def test_a_record_is_found_by_its_id(pages: Pages) -> None:
    wanted = terms(property_of("record", "id"), pages.filled.ids["date"])
    assert pages.search(both(wanted)) == ["date"]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (("metadata.channel", "==", "general"), ["budget", "date"]),
        (("rating.suggestion", ">=", 4), ["budget", "date"]),
        (("rating.response", "==", 5), ["budget"]),
        (("response.status", "==", "pending"), ["bare", "chat", "leave"]),
        (("status", "==", "completed"), ["budget"]),
        (("id", "==", "date"), ["date"]),
    ],
)
def test_the_sdk_filters(
    pages: Pages, condition: tuple[str, str, object], found: list[str]
) -> None:
    query = rg.Query(filter=rg.Filter([condition]))
    assert sorted(pages.filled.names(query=query)) == found


def test_text_and_filters_narrow_each_other(pages: Pages) -> None:
    asked = {**text("launch | budget"), **both(terms(metadata("channel"), "general"))}
    assert set(pages.search(asked)) == {"budget", "date"}


@pytest.mark.parametrize(
    ("who", "values", "found"),
    [
        ("mia", ["pending"], {"date", "leave", "chat", "bare"}),
        ("noa", ["pending"], {"launch", "leave", "chat", "bare"}),
        ("mia", ["submitted"], {"budget", "launch"}),
        ("noa", ["submitted", "pending"], EVERYTHING),
    ],
)
def test_everybody_has_a_queue_of_their_own(
    pages: Pages, who: str, values: list[str], found: set[str]
) -> None:
    assert set(pages.search(both(terms(STATUS, *values)), who=who)) == found


def test_an_annotator_filters_by_the_own_ratings_only(pages: Pages) -> None:
    high = both(within(response("rating"), ge=4))
    assert pages.search(high, who="mia") == ["budget"]
    assert pages.search(high, who="noa") == []


def test_without_an_order_a_persons_order_stays_the_same(pages: Pages) -> None:
    order = pages.search(who="mia")
    assert set(order) == EVERYTHING
    assert pages.search(who="mia") == order


ORDERS: list[tuple[Body, list[str], list[str]]] = [
    (metadata("length"), ["leave", "launch", "budget", "date", "chat"], ["bare"]),
    (metadata("certainty"), ["launch", "budget", "date"], ["leave", "chat", "bare"]),
    (suggestion("rating"), ["launch", "budget", "date"], ["leave", "chat", "bare"]),
    (suggestion("rating", "score"), ["launch", "date", "budget"], ["leave", "chat", "bare"]),
    (response("rating"), ["launch", "date", "budget"], ["leave", "chat", "bare"]),
]


@pytest.mark.parametrize(("scope", "upward", "last"), ORDERS)
def test_records_without_a_value_come_last_in_both_orders(
    pages: Pages, scope: Body, upward: list[str], last: list[str]
) -> None:
    check_order(pages, scope, upward, last)


def check_order(pages: Pages, scope: Body, upward: list[str], last: list[str]) -> None:
    for order, expected in (("asc", upward), ("desc", upward[::-1])):
        found = pages.search({"sort": [{"scope": scope, "order": order}]})
        assert found[: len(upward)] == expected
        assert set(found[len(upward) :]) == set(last)


def test_several_keys_sort_one_after_the_other(pages: Pages) -> None:
    sort = [
        {"scope": property_of("record", "status"), "order": "asc"},
        {"scope": metadata("length"), "order": "desc"},
    ]
    found = pages.search({"sort": sort})
    assert found == ["budget", "chat", "date", "launch", "leave", "bare"]


def test_records_sort_by_their_own_properties(pages: Pages) -> None:
    for name in ("external_id", "inserted_at", "updated_at", "id"):
        scope = property_of("record", name)
        upward = pages.search({"sort": [{"scope": scope, "order": "asc"}]})
        assert set(upward) == EVERYTHING
        if name == "external_id":
            assert upward == sorted(TEXTS)
        if name in ("external_id", "id"):
            down = pages.search({"sort": [{"scope": scope, "order": "desc"}]})
            assert down == upward[::-1]


def test_pages_are_disjoint_and_count_everything(pages: Pages) -> None:
    sort = {"sort": [{"scope": metadata("length"), "order": "asc"}]}
    parts = [pages.search(sort, offset=offset, limit=2) for offset in (0, 2, 4, 6)]
    assert [len(part) for part in parts] == [2, 2, 2, 0]
    assert {name for part in parts for name in part} == EVERYTHING
    assert pages.ask(sort, offset=4, limit=2).json()["total"] == len(TEXTS)
    assert pages.ask(text("launch"), limit=1).json()["total"] == 2


def test_progress_counts_records_and_responses(pages: Pages) -> None:
    check_progress(pages)


def check_progress(pages: Pages) -> None:
    dataset = pages.filled.dataset
    progress = dataset.progress(with_users_distribution=True)
    assert {name: progress[name] for name in ("total", "completed", "pending")} == {
        "total": 6,
        "completed": 1,
        "pending": 5,
    }
    metrics = pages.get(f"/me/datasets/{dataset.id}/metrics", who="mia")
    assert metrics["responses"] == {
        "total": 6,
        "submitted": 2,
        "discarded": 0,
        "draft": 0,
        "pending": 4,
    }


def test_metadata_has_metrics(pages: Pages) -> None:
    check_metrics(pages)


def check_metrics(pages: Pages) -> None:
    found = pages.get(f"/me/datasets/{pages.filled.dataset.id}/metadata-properties")["items"]
    metrics = {
        item["name"]: pages.get(f"/metadata-properties/{item['id']}/metrics") for item in found
    }
    counts = {value["term"]: value["count"] for value in metrics["channel"]["values"]}
    assert counts == {"general": 2, "launches": 2, "people": 1}
    assert metrics["channel"]["total"] == 5
    assert metrics["length"] == {"type": "integer", "min": -3, "max": 10}
    assert metrics["certainty"] == {"type": "float", "min": 0.25, "max": 1.5}


def similar(**wanted: object) -> Body:
    return {"query": {"vector": {"name": "meaning", **wanted}}}


def test_vectors_find_what_is_near_and_what_is_far(pages: Pages) -> None:
    check_vectors(pages)


def check_vectors(pages: Pages) -> None:
    near = pages.ask(similar(value=[0.0, 1.0, 0.0])).json()
    assert [item["record"]["external_id"] for item in near["items"]][:2] == ["launch", "date"]
    assert near["items"][0]["query_score"] == pytest.approx(1.0, abs=1e-4)
    assert near["items"][-1]["query_score"] == pytest.approx(0.5, abs=1e-4)
    far = pages.search(similar(value=[1.0, 0.0, 0.0], order="least_similar"))
    assert far[0] == "leave"
    assert far[-1] == "budget"


def test_vectors_find_what_is_near_a_record_but_not_itself(pages: Pages) -> None:
    assert pages.search(similar(record_id=pages.filled.ids["launch"]))[0] == "date"
    assert "launch" not in pages.search(similar(record_id=pages.filled.ids["launch"]))
    missing = pages.ask(similar(record_id=pages.filled.ids["chat"]))
    assert missing.status_code == 422


def test_vectors_are_narrowed_by_text_filters_and_limit(pages: Pages) -> None:
    wanted = similar(value=[0.0, 1.0, 0.0])
    filtered = {**wanted, **both(terms(metadata("channel"), "general"))}
    assert pages.search(filtered) == ["date", "budget"]
    wanted["query"]["text"] = {"q": "october"}
    assert pages.search(wanted) == ["launch", "budget"]
    assert pages.search(similar(value=[0.0, 1.0, 0.0]), limit=1) == ["launch"]
    assert pages.search(similar(value=[0.0, 1.0, 0.0]), limit=1, offset=1) == ["date"]


def test_the_sdk_searches_by_vector(pages: Pages) -> None:
    query = rg.Query(similar=rg.Similar("meaning", [0.0, 1.0, 0.0]))
    found = [record.id for record, _ in pages.filled.dataset.records(query=query, limit=2)]
    assert found == ["launch", "date"]


def test_what_is_written_is_found_at_once(own: Pages) -> None:
    ids, owner = own.filled.ids, own.clients[""]
    own.filled.dataset.records.log(
        [rg.Record(id="new", fields={"question": "Where is the lighthouse?", "answer": "Here."})]
    )
    assert own.search(text("lighthouse")) == ["new"]
    changed = {"metadata": {"channel": "harbour"}, "vectors": {"meaning": [0.0, 0.0, 1.0]}}
    assert owner.patch(f"/records/{ids['bare']}", json=changed).is_success
    assert own.search(both(terms(metadata("channel"), "harbour"))) == ["bare"]
    assert own.search(similar(value=[0.0, 0.0, 1.0]))[0] == "bare"
    assert owner.delete(f"/records/{ids['launch']}").is_success
    gone = {"ids": f"{ids['date']},{ids['leave']}"}
    assert owner.delete(f"/datasets/{own.filled.dataset.id}/records", params=gone).is_success
    assert set(own.search()) == {"budget", "chat", "bare", "new"}


def test_responses_are_found_until_they_are_withdrawn(own: Pages) -> None:
    mia, record = own.clients["mia"], own.filled.ids["bare"]
    values: dict[str, Body] = {"rating": {"value": 4}, "correction": {"value": "better"}}
    submitted = mia.post(
        f"/records/{record}/responses", json={"status": "submitted", "values": values}
    )
    assert submitted.is_success, submitted.text
    four = both(terms(response("rating"), 4))
    assert own.search(four) == ["bare"]
    path = f"/responses/{submitted.json()['id']}"
    values["rating"]["value"] = 1
    assert mia.put(path, json={"status": "submitted", "values": values}).is_success
    assert own.search(four) == []
    assert mia.put(path, json={"status": "discarded"}).is_success
    assert own.search(both(terms(STATUS, "discarded")), who="mia") == ["bare"]
    assert mia.delete(path).is_success
    assert "bare" in own.search(both(terms(STATUS, "pending")), who="mia")


def test_a_record_is_completed_by_enough_responses(own: Pages) -> None:
    values = {"correction": {"value": "none"}}
    answer = own.clients["noa"].post(
        f"/records/{own.filled.ids['launch']}/responses",
        json={"status": "submitted", "values": values},
    )
    assert answer.is_success, answer.text
    completed = both(terms(property_of("record", "status"), "completed"))
    assert set(own.search(completed)) == {"budget", "launch"}
    assert own.filled.dataset.progress()["completed"] == 2


def test_suggestions_are_found_until_they_are_removed(own: Pages) -> None:
    owner, record = own.clients[""], own.filled.ids["bare"]
    questions = own.get(f"/datasets/{own.filled.dataset.id}/questions")["items"]
    rating = next(question["id"] for question in questions if question["name"] == "rating")
    path = f"/records/{record}/suggestions"
    for value in (3, 1):
        assert owner.put(path, json={"question_id": rating, "value": value}).is_success
        assert own.search(both(terms(suggestion("rating"), value))) == ["bare"]
    stored = own.get(path)["items"][0]["id"]
    assert owner.delete(path, params={"ids": stored}).is_success
    assert own.search(both(terms(suggestion("rating"), 1))) == []


def test_a_published_data_set_takes_new_metadata_and_vectors(own: Pages) -> None:
    owner, dataset = own.clients[""], own.filled.dataset.id
    added: Body = {"name": "page", "title": "Page", "settings": {"type": "integer"}}
    assert owner.post(f"/datasets/{dataset}/metadata-properties", json=added).is_success
    added = {"name": "tone", "title": "Tone", "dimensions": 2}
    assert owner.post(f"/datasets/{dataset}/vectors-settings", json=added).is_success
    changed = {"metadata": {"page": 12}, "vectors": {"tone": [1.0, 1.0]}}
    assert owner.patch(f"/records/{own.filled.ids['chat']}", json=changed).is_success
    assert own.search(both(terms(metadata("page"), 12))) == ["chat"]
    asked = {"query": {"vector": {"name": "tone", "value": [1.0, 1.0]}}}
    assert own.search(asked) == ["chat"]


def test_a_removed_data_set_can_be_made_again(people: Team) -> None:
    client, workspace = people.client, people.workspace
    second = rg.Dataset(name="again", workspace=workspace, settings=settings(), client=client)
    second.create()
    second.records.log([rg.Record(id="1", fields={"question": "First?", "answer": "Yes."})])
    second.delete()
    third = rg.Dataset(name="again", workspace=workspace, settings=settings(), client=client)
    third.create()
    assert list(third.records(query="first")) == []
    third.delete()


def test_the_status_page_asks_the_engine(argilla: Server) -> None:
    with argilla.http() as client:
        status = client.get("/status").json()
    assert status["version"].startswith("2.8")
    assert status["search_engine"]


def test_the_worker_delivers_webhooks(own: Pages, hooks: Hooks) -> None:
    hook = {"url": hooks.url, "events": ["response.created"], "description": "test"}
    owner = own.clients[""]
    made = owner.post("/webhooks", json=hook)
    assert made.is_success, made.text
    try:
        values = {"correction": {"value": "none"}}
        own.clients["mia"].post(
            f"/records/{own.filled.ids['chat']}/responses",
            json={"status": "submitted", "values": values},
        )
        eventually(
            lambda: bool(hooks.received),
            lambda: "no webhook came",
            deadline_s=15,
        )
        assert hooks.received[0]["type"] == "response.created"
    finally:
        owner.delete(f"/webhooks/{made.json()['id']}")
