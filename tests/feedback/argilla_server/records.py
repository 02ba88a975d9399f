"""A small data set of answers that two people have rated."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.feedback.argilla_server.sdk import rg

VECTORS = {
    "budget": [1.0, 0.0, 0.0],
    "launch": [0.0, 1.0, 0.0],
    "date": [0.1, 0.9, 0.0],
    "leave": [-1.0, 0.0, 0.0],
}
TEXTS = {
    "budget": ("How large is the budget?", "The budget is 140 euros, since October."),
    "launch": ("When is the launch?", "The launch is in October."),
    "date": ("Which launch date was agreed?", "The launch date is 2026-11-02, in version 2.8.0."),
    "leave": ("Wie viele Tage Überstunden?", "Zwölf Tage, sagt das Handbuch."),
    "chat": ("Who said hello?", "Nobody in particular."),
    "bare": ("What remains?", "Words-with-hyphens and under_scores remain."),
}
METADATA: dict[str, dict[str, object]] = {
    "budget": {"channel": "general", "length": 7, "certainty": 0.5},
    "launch": {"channel": "launches", "length": 5, "certainty": 0.25},
    "date": {"channel": ["launches", "general"], "length": 9, "certainty": 1.5},
    "leave": {"channel": "people", "length": -3},
    "chat": {"length": 10},
}
SUGGESTED: dict[str, list[tuple[str, object, float | None, str]]] = {
    "budget": [("rating", 4, 0.9, "judge"), ("verdict", "good", 0.2, "judge")],
    "launch": [("rating", 2, 0.4, "votes"), ("reasons", ["wrong", "too long"], None, "votes")],
    "date": [("rating", 5, 0.7, "judge")],
}
RATED: dict[str, dict[str, dict[str, object]]] = {
    "budget": {"mia": {"rating": 5, "verdict": "good"}, "noa": {"rating": 3, "verdict": "bad"}},
    "launch": {"mia": {"rating": 1, "reasons": ["wrong"]}},
    "date": {"noa": {"rating": 2}},
}


@dataclass(frozen=True)
class Team:
    """A workspace with two people, and their keys."""

    client: rg.Argilla
    workspace: rg.Workspace
    annotators: dict[str, rg.User]
    keys: dict[str, str]


@dataclass(frozen=True)
class Filled:
    """A data set; its records are called by their name."""

    team: Team
    dataset: rg.Dataset
    ids: dict[str, str]

    def names(self, *, query: rg.Query | str | None = None) -> list[str]:
        """Names of the records that a query of the SDK finds, in its order."""
        return [str(record.id) for record in self.dataset.records(query=query)]


@contextlib.contextmanager
def meet(client: rg.Argilla) -> Iterator[Team]:
    """A workspace and two people, removed at the end."""
    mark = uuid.uuid4().hex[:8]
    workspace = rg.Workspace(name=f"team-{mark}", client=client).create()
    annotators = {}
    for name in ("mia", "noa"):
        user = rg.User(
            username=f"{name}-{mark}", password="a long password", role="annotator", client=client
        ).create()
        annotators[name] = user.add_to_workspace(workspace)
    keys = {
        name: str(client.http_client.get(f"api/v1/users/{user.id}").json()["api_key"])
        for name, user in annotators.items()
    }
    yield Team(client, workspace, annotators, keys)
    for user in annotators.values():
        user.delete()
    workspace.delete()
    client.http_client.close()


@contextlib.contextmanager
def fill(team: Team) -> Iterator[Filled]:
    """A data set of the records below, removed at the end."""
    dataset = rg.Dataset(
        name=f"answers-{uuid.uuid4().hex[:8]}",
        workspace=team.workspace,
        settings=settings(),
        client=team.client,
    ).create()
    dataset.records.log([record(name, team.annotators) for name in TEXTS])
    ids = {str(found.id): str(found._server_id) for found in dataset.records}
    yield Filled(team, dataset, ids)
    dataset.delete()


def settings() -> rg.Settings:
    """Fields, questions, metadata and vectors of the data set."""
    return rg.Settings(
        fields=[
            rg.TextField(name="question"),
            rg.TextField(name="answer"),
            rg.ChatField(name="before", required=False),
        ],
        questions=[
            rg.RatingQuestion(name="rating", values=[1, 2, 3, 4, 5], required=False),
            rg.LabelQuestion(name="verdict", labels=["good", "bad"], required=False),
            rg.MultiLabelQuestion(
                name="reasons", labels=["wrong", "too long", "rude"], required=False
            ),
            rg.TextQuestion(name="correction", required=True),
        ],
        metadata=[
            rg.TermsMetadataProperty(name="channel"),
            rg.IntegerMetadataProperty(name="length"),
            rg.FloatMetadataProperty(name="certainty"),
        ],
        vectors=[rg.VectorField(name="meaning", dimensions=3)],
        distribution=rg.TaskDistribution(min_submitted=2),
    )


def record(name: str, annotators: dict[str, rg.User]) -> rg.Record:
    """One answer with what was said about it."""
    question, answer = TEXTS[name]
    fields: dict[str, object] = {"question": question, "answer": answer}
    if name == "chat":
        fields["before"] = [{"role": "user", "content": "Good morning, Æsop"}]
    responses = [
        rg.Response(
            question_name=asked, value=value, user_id=annotators[who].id, status="submitted"
        )
        for who, values in RATED.get(name, {}).items()
        for asked, value in {**values, "correction": "none"}.items()
    ]
    return rg.Record(
        id=name,
        fields=fields,
        metadata=METADATA.get(name, {}),
        vectors={"meaning": VECTORS[name]} if name in VECTORS else None,
        suggestions=[
            rg.Suggestion(question_name=asked, value=value, score=score, agent=agent)
            for asked, value, score, agent in SUGGESTED.get(name, [])
        ],
        responses=responses,
    )
