"""Both rankings, one audience, no duplicates, in any language."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from storage.identity import ChannelId
from storage.pool import Pool
from storage.search import Hit, collapsed
from storage.settings import SearchSettings
from storage.terms import document_terms, query_terms, term_id
from tests.storage.conftest import Finds, Puts, Team

NO_EXACT_SCAN = SearchSettings(exact_below=0)
"""Takes the way of large collections: both indexes."""
EXACT_VECTORS_ONLY = SearchSettings(exact_below=8)
"""The way between: for the 31 chunks below, exact vectors and the index of words."""
WAYS = pytest.mark.parametrize(
    "settings",
    [SearchSettings(), EXACT_VECTORS_ONLY, NO_EXACT_SCAN],
    ids=["exact", "exact vectors", "indexes"],
)


@WAYS
async def test_the_best_chunk_comes_first_and_scores_fall(
    put: Puts, find: Finds, team: Team, settings: SearchSettings
) -> None:
    halls = (f"Machine {n} stands in hall {n * 7}, far from others. " * 8 for n in range(30))
    await put("halls.txt", "\n\n".join(halls), team.general)
    await put("tea.txt", "Tea is served in the kitchen at four.", team.general)
    hits = await find("When is tea served?", team.general, limit=5, settings=settings)
    assert hits[0].document == "tea.txt" and hits[0].score > settings.threshold
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and len(hits) == 5


@WAYS
async def test_an_audience_with_one_chunk_among_many_finds_it(
    put: Puts, find: Finds, team: Team, settings: SearchSettings
) -> None:
    many = "\n\n".join(f"The budget of team {n} is {n} euros. " * 12 for n in range(200))
    await put("many.txt", many, team.general)
    await put("one.txt", "The garden is watered on Mondays.", team.secret)
    (hit,) = await find("What is the budget of team 7?", team.secret, settings=settings)
    assert hit.document == "one.txt" and hit.score < settings.threshold
    stranger = team.secret.__class__(
        workspace_id=team.secret.workspace_id, channel_id=ChannelId(uuid4())
    )
    assert await find("budget", stranger, settings=settings) == []
    assert team.secret.channel_id is not None
    guest = replace(stranger, also=(team.secret.channel_id,))
    assert [hit.document for hit in await find("garden", guest, settings=settings)] == ["one.txt"]


async def test_a_search_is_one_round_trip(
    put: Puts, find: Finds, team: Team, pool: Pool, tmp_path: Path
) -> None:
    await put("tea.txt", "Tea is served at four.", team.general)
    await find("tea", team.general)
    trace = tmp_path / "trace"
    with trace.open("wb") as file:
        async with pool.connection() as connection:
            connection.pgconn.trace(file.fileno())
        await find("tea", team.general)
        async with pool.connection() as connection:
            connection.pgconn.untrace()
    sent = [line.split("\t") for line in trace.read_text().splitlines()]
    asked = [line[3] for line in sent if line[1] == "F" and line[3] in ("Query", "Sync")]
    assert asked.count("Sync") == 1
    assert asked.count("Query") <= 1  # ends the transaction that switched the trace off


async def test_near_duplicates_are_collapsed_but_other_numbers_are_not(
    put: Puts, find: Finds, team: Team
) -> None:
    policy = "Employees have 27 days of leave each year, to be taken before the end of March. " * 2
    await put("policy.txt", policy, team.general)
    await put("copy.txt", policy.replace("Employees", "employees"), team.general)
    await put("older.txt", policy.replace("27", "25"), team.general)
    hits = await find("days of leave", team.general)
    assert len(hits) == 2
    assert {("27" in hit.text, "25" in hit.text) for hit in hits} == {(True, False), (False, True)}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Die Kündigungsfristen betragen drei Monate.", "Kündigungsfrist?"),
        ("Ο χρόνος παράδοσης είναι τρεις ημέρες.", "χρονος παραδοσης"),
        ("Договоры подписывает директор.", "кто подписывает договор?"),
        ("会议室在三楼的东侧。", "会议室在哪里?"),
        ("ห้องประชุมอยู่ชั้นสาม", "ห้องประชุมอยู่ที่ไหน"),
        ("बैठक कक्ष तीसरी मंज़िल पर है।", "बैठक कक्ष कहाँ है?"),
        ("يقع مكتب الاستقبال في الطابق الثالث.", "أين يقع مكتب الاستقبال؟"),
        ("회의실은 삼층에 있습니다.", "회의실은 어디에 있습니까?"),
    ],
)
def test_words_meet_across_inflection_accents_and_scripts(text: str, query: str) -> None:
    assert document_terms(text).keys() & query_terms(query).keys()


def test_term_ids_fit_a_sparse_vector_and_frequency_saturates() -> None:
    once, thrice = document_terms("tea"), document_terms("tea tea tea")
    (term,) = once
    assert term == term_id("tea") and 1 <= term <= 10**9
    assert once[term] < thrice[term] < 3 * once[term]
    assert document_terms("") == {}


async def test_a_question_of_symbols_or_endless_text_is_answered_by_vectors_alone(
    put: Puts, find: Finds, team: Team
) -> None:
    await put("tea.txt", "Tea is served at four.", team.general)
    assert len(await find("?!", team.general)) == 1
    assert len(await find("tea " * 5000, team.general)) == 1


def hit(text: str) -> Hit:
    return Hit(
        chunk_id=uuid4(),  # type: ignore[arg-type]
        document_id=uuid4(),  # type: ignore[arg-type]
        document="d",
        page=None,
        heading=None,
        offset=0,
        ordinal=0,
        text=text,
        score=0.5,
        cosine=0.5,
        bm25=1.0,
    )


def test_collapsing_works_without_spaces_and_on_empty_texts() -> None:
    sentence = "会议室在三楼的东侧，请提前一天预订，谢谢合作。" * 2
    assert len(collapsed([hit(sentence), hit(sentence + "。")])) == 1
    assert len(collapsed([hit(sentence), hit("食堂在一楼。")])) == 2
    assert len(collapsed([hit(""), hit("")])) == 1
