"""What administrators, and whoever asks for help, read in a chat."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Final

from bots.administration import ModelChoice, Status
from bots.dialect import Dialect
from bots.training_status import lines
from feedback import Leaderboard, Ranked
from feedback.rankings import MIN_VOTES
from storage.runs import Recipe, RunId

METHODS: Final = ("sft", "dpo", "kto", "reward", "rloo", "pipeline")
"""How a model may be trained; where none is named it is as `training.recipe` says."""
NAME_CHARACTERS = 100
"""Of a model's or a version's name, as people type it."""
MODELS_SHOWN = 10
STATUS_CHARACTERS = 400
"""Of a line of the status; `parley status` and `parley runs show` say all of it."""

_EVERYBODY: Final = (
    ("ask QUESTION", "answer from the documents of this channel"),
    ("compare QUESTION", "two answers, blind; you choose the better one"),
    ("documents", "what I have read for this channel"),
    ("leaderboard", "which model people prefer here"),
    ("forget-me", "delete what I know of you, for good"),
    ("help", "this"),
)
_ADMINISTRATORS: Final = (
    ("model [NAME | default]", "list the models, or set this channel's"),
    ("settings", "how I behave in this channel"),
    ("train [METHOD]", "queue a training; without a method, by the recipe of the settings"),
    (
        "promote [VERSION]",
        "a trained version answers everybody; without one, the tried one or the newest candidate",
    ),
    (
        "rollback [VERSION | base]",
        "this version, or the base model, answers instead; without one, a version that is tried "
        "ends its trial, or else the version before the live one answers again",
    ),
    (
        "judge [VERSION]",
        "the gate looks again at a version that it could not decide about; without one, the newest",
    ),
    ("status", "engine, documents, who answers, and how trainings go"),
)
_RUNS: Final = {
    "train": "A training run",
    "promote": "A promotion",
    "rollback": "A rollback",
    "judge": "Another look of the gate",
}

NOT_QUEUED = "It could not be queued: the database does not answer. Please ask again later."
WORKSPACE_CONSENT: Final = {
    True: "Votes and corrections of this workspace may train models: in every channel that does "
    "not say otherwise, and only of people who have agreed themselves.",
    False: "Votes and corrections of this workspace do not train models, but in channels whose own "
    "settings say so.",
}
"""By whether the workspace has consented."""


def help_text(dialect: Dialect, *, more: Sequence[tuple[str, str]] = ()) -> str:
    """Every command; `more` are those that only this platform has."""

    def listed(commands: Sequence[tuple[str, str]]) -> list[str]:
        return [f"• {dialect.command(words)}: {text}" for words, text in commands]

    return "\n".join(
        [
            dialect.bold("What I can do"),
            *listed([*_EVERYBODY[:-1], *more, _EVERYBODY[-1]]),
            dialect.bold("For administrators"),
            *listed(_ADMINISTRATORS),
        ]
    )


def models_text(choice: ModelChoice, dialect: Dialect) -> str:
    """The models, and which of them answers here."""
    lines = [
        f"• {dialect.code(model.name)}"
        + (" (this channel's)" if model.name == choice.chosen else "")
        for model in choice.models
    ]
    own = [] if choice.chosen else ["This channel uses the workspace's model."]
    return "\n".join([dialect.bold("Models"), *lines, *own])


def model_set(name: str | None, dialect: Dialect) -> str:
    """What was chosen; None is the workspace's model."""
    who = "the workspace's model" if name is None else dialect.code(name)
    return f"This channel is answered by {who} from now on."


def status_text(now: Status, dialect: Dialect) -> str:
    """How the parts are."""
    names = ", ".join(dialect.code(model.name) for model in now.models) or "none"
    engine = f"answers; models: {names}" if now.engine_trouble is None else "does not answer"
    documents = ", ".join(f"{count} {status}" for status, count in now.documents.items()) or "none"
    return "\n".join(
        [
            f"{dialect.bold('Engine')} {engine}",
            f"{dialect.bold('Documents here')} {documents}",
            *(
                f"{dialect.bold(label)} {dialect.plain(_line(text))}"
                for label, text in lines(now.training)
            ),
        ]
    )


def _line(text: str) -> str:
    return shorten(text, STATUS_CHARACTERS, placeholder=" …")


def run_asked(recipe: Recipe, person: str, dialect: Dialect) -> str:
    """What the head of a run's thread says; `person` is the name of who asked, as plain text."""
    named = "".join(
        f" ({key} {dialect.code(str(value))})" for key, value in recipe.parameters.items()
    )
    return f"{_RUNS[recipe.kind]}{named} was asked for by {dialect.plain(person)}."


def run_queued(run_id: RunId, dialect: Dialect) -> str:
    """The first report of a run."""
    return (
        f"Queued as run {dialect.code(str(run_id))}. I tell here how it ends; "
        f"{dialect.command('status')} shows where it stands."
    )


def leaderboard_lines(board: Leaderboard, dialect: Dialect) -> list[str]:
    """The models that people compared, the best first."""
    return [_ranked_line(model, dialect) for model in board.models[:MODELS_SHOWN]]


def leaderboard_text(board: Leaderboard, dialect: Dialect) -> str:
    """The same as a message of its own."""
    start = f"No comparisons yet: {dialect.command('compare QUESTION')} starts one."
    lines = [f"• {line}" for line in leaderboard_lines(board, dialect)]
    return "\n".join([dialect.bold("Leaderboard"), *(lines or [start])])


def _ranked_line(model: Ranked, dialect: Dialect) -> str:
    name = dialect.bold(model.model[:NAME_CHARACTERS])
    record = f"{model.wins} won, {model.losses} lost, {model.ties} tied, {model.votes} votes"
    rate = model.win_rate
    if rate is None:
        return (
            f"{name}: {record}; not enough votes yet: a model is ranked from {MIN_VOTES} votes on"
        )
    preferred = f"preferred {rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%})"
    return f"{model.rank}. {name}: {preferred}; {record}"
