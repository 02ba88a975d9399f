"""`parley train`, `runs`, `status`, `versions` and `ledger` as an operator types them."""

import asyncio
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from bots.__main__ import main
from bots.run_comparison import CELL_WIDTH, NAME_WIDTH
from storage.curations import Curated, Curation, Curations
from storage.identity import WorkspaceId
from storage.model_versions import ModelVersions
from storage.notices import NewNotice, Notices
from storage.pool import Pool, open_pool
from storage.queue import workers_of
from storage.rated import Rated, RatedComparison
from storage.runs import Recipe, RunId, RunRow, Runs
from storage.settings import DatabaseSettings
from tests.bots.test_feedback_console import _rate

ENOUGH_S = 30.0
README = Path(__file__).parents[2] / "README.md"


class Told(NamedTuple):
    """What a command left on stdout and stderr."""

    out: str
    err: str


Parley = Callable[..., Told]


@pytest.fixture
def parley(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Parley:
    """The command line, on a database with a rated answer; checks the exit code."""
    monkeypatch.setenv("PARLEY_DATABASE__URL", database_url)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    asyncio.run(_rate(database_url))

    def run(*arguments: str, code: int = 0) -> Told:
        capsys.readouterr()
        assert main(arguments) == code, capsys.readouterr().err
        return Told(*capsys.readouterr())

    return run


def _runs(parley: Parley) -> list[Any]:
    found: list[Any] = json.loads(parley("runs", "list", "--json").out)
    return found


def test_a_run_is_queued_listed_followed_back_to_its_answers_and_cancelled(
    parley: Parley, database_url: str, tmp_path: Path
) -> None:
    queued = parley("train", "--json")
    assert "No training worker runs" in queued.err
    run_id = json.loads(queued.out)["run_id"]
    answer_id = asyncio.run(_made(database_url, RunId(UUID(run_id))))

    (listed,) = _runs(parley)
    # The worker knows which recipe `training.recipe` names.
    assert (listed["id"], listed["parameters"]) == (run_id, {})
    (version,) = json.loads(parley("versions", "--json").out)
    shown = parley("versions").out
    assert version["id"] in shown and run_id in shown and "v1" in shown
    for known in (run_id, answer_id, "ab" * 16, version["id"], "v1", version["name"]):
        found = json.loads(parley("ledger", str(known), "--json").out)
        assert found["answers"][0]["answer_id"] == str(answer_id)
        assert found["answers"][0]["corrections"]
        assert [each["row_id"] for each in found["rows"]] == ["ab" * 16]
        assert [each["run_id"] for each in found["runs"]] == [run_id]
        assert [each["name"] for each in found["versions"]] == [version["name"]]
    assert "In November" not in parley("ledger", run_id).out
    image = tmp_path / "curves.png"
    assert parley("runs", "picture", str(image), run_id).out == f"Drawn: {image}\n"
    drawn = json.loads(parley("runs", "picture", str(image), run_id, "--json").out)
    assert drawn == {"picture": str(image)}
    assert image.read_bytes().startswith(b"\x89PNG")
    assert "had not begun" in parley("runs", "cancel", run_id).out
    assert parley("runs", "watch", run_id, code=1).out.endswith("\ncancelled.\n")
    ended = json.loads(parley("runs", "cancel", run_id, "--json", code=1).out)
    assert ended == {"cancelled": False, "status": "cancelled"}


def test_the_ledger_says_who_chose_what_and_what_curators_ruled_both_ways(
    parley: Parley, database_url: str
) -> None:
    run_id = RunId(UUID(json.loads(parley("train", "--json").out)["run_id"]))
    asyncio.run(_made(database_url, run_id))
    compared = asyncio.run(_learnt_from_a_comparison(database_url, run_id))
    (choice,) = compared.judgements
    for known in (compared.left.id, compared.right.id, "cd" * 16, run_id, "v1"):
        found = json.loads(parley("ledger", str(known), "--json").out)
        (comparison,) = found["comparisons"]
        assert comparison["comparison_id"] == str(compared.id)
        assert comparison["left"] == str(compared.left.id)
        (chosen,) = comparison["choices"]
        assert (chosen["member"], chosen["winner"]) == (str(choice.voter), "left")
        assert chosen["consent"] is True
        (ruled,) = comparison["curations"]
        assert (ruled["curator"], ruled["winner"]) == ("eve", "right")
        assert [row["basis"] for row in found["rows"]] == ["comparison"]
        assert [each["name"] for each in found["versions"]] == ["v1-00c0ffee"]
        ruled_answers = {each["answer_id"]: each["curations"] for each in found["answers"]}
        assert str(known) in (*ruled_answers, "cd" * 16, str(run_id), "v1")
        told = parley("ledger", str(known)).out
        assert f"chosen left by {choice.voter}; curator eve: right\n" in told
        if str(compared.left.id) in ruled_answers:
            (word,) = ruled_answers[str(compared.left.id)]
            assert (word["value"], word["corrected"]) == (-1, True)
            assert "1 corrections; curator eve: -1, corrected\n" in told
        assert "In December" not in told and "In December" not in json.dumps(found)


async def _learnt_from_a_comparison(url: str, run_id: RunId) -> RatedComparison:
    """Let a run's only row come from the judged comparison, of which a curator thinks otherwise."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        workspace_id = await _workspace(pool)
        (compared,) = await Rated(pool).comparisons(workspace_id=workspace_id, limit=2)
        now = datetime.now(UTC)
        said: dict[str, Any] = {
            "curator_id": uuid4(),
            "curator": "eve",
            "status": "submitted",
            "at": now,
        }
        of_answer = Curation(**said, value=-1, correction="In December.")
        of_comparison = Curation(**said, winner="right")
        await Curations(pool).keep(
            [
                Curated(kind="answer", record_id=compared.left.id, made_at=now, said=(of_answer,)),
                Curated(
                    kind="comparison", record_id=compared.id, made_at=now, said=(of_comparison,)
                ),
            ]
        )
        row = RunRow(
            row_id="cd" * 16,
            kind="preference",
            split="train",
            basis="comparison",
            answer_ids=[compared.left.id, compared.right.id],
        )
        await Runs(pool).learn_from(run_id, snapshot_sha256="1" * 64, rows=[row])
        return compared


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("dop", "There is no recipe 'dop'. Name one of sft, dpo, kto"),
        ("missing.toml", "There is no file 'missing.toml'."),
        ("broken.toml", "is no TOML"),
        ("broken.json", "is no JSON"),
        ("unknown.toml", "learning_rat"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_before_anything_is_queued(
    named: str, says: str, parley: Parley, tmp_path: Path
) -> None:
    (tmp_path / "broken.toml").write_text('kind = "sft\n')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "unknown.toml").write_text('kind = "sft"\nlearning_rat = 1e-3\n')
    file = tmp_path / named
    told = parley("train", "--recipe", str(file) if file.exists() else named, code=2)
    assert says in told.err and "Traceback" not in told.err
    assert _runs(parley) == []


@pytest.mark.parametrize("number", [0, 1])
def test_the_readmes_recipes_are_queued_with_the_fields_that_they_name(
    number: int, parley: Parley, tmp_path: Path
) -> None:
    shown = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[number]
    file = tmp_path / "mine.toml"
    file.write_text(shown)
    parley("train", "--recipe", str(file))
    (run,) = _runs(parley)
    assert run["parameters"] == {"recipe": tomllib.loads(shown)}


def test_promote_rollback_and_judge_take_the_version_that_is_meant(parley: Parley) -> None:
    for arguments in (["promote", "v2"], ["rollback"], ["rollback", "base"], ["judge", "v3"]):
        parley(*arguments)
    asked = [(run["kind"], run["parameters"]) for run in reversed(_runs(parley))]
    assert asked == [
        ("promote", {"version": "v2"}),
        ("rollback", {}),
        ("rollback", {"version": "base"}),
        ("judge", {"version": "v3"}),
    ]


@pytest.mark.parametrize("verb", ["train", "promote", "rollback", "judge", "status", "versions"])
def test_a_workspace_that_nobody_knows_is_refused_with_those_that_are(
    verb: str, parley: Parley
) -> None:
    told = parley(verb, "--workspace", str(uuid4()), code=2)
    assert "There is no workspace" in told.err and "(slack)" in told.err


def test_a_picture_of_no_run_or_in_no_folder_is_refused(parley: Parley, tmp_path: Path) -> None:
    image = tmp_path / "curves.png"
    assert "There is no run" in parley("runs", "picture", str(image), str(uuid4()), code=2).err
    assert not image.exists()
    run_id = json.loads(parley("train", "--json").out)["run_id"]
    nowhere = tmp_path / "missing" / "curves.png"
    assert "there is no folder" in parley("runs", "picture", str(nowhere), run_id, code=2).err


def test_whoever_waits_for_a_run_is_told_that_nobody_works(
    parley: Parley, database_url: str
) -> None:
    for verb in ("train", "promote", "rollback", "judge"):
        assert "No training worker runs" in parley(verb, "--wait", code=69).err
    assert _runs(parley) == [], "the same command works once there is a worker"


def test_whoever_waits_is_told_when_the_worker_goes_away(
    parley: Parley, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.training_console.WORKER_PATIENCE_S", 1.0)
    asyncio.run(_sign_of_life(database_url, "training"))
    assert "No training worker runs" in parley("train", "--wait", code=69).err
    (run,) = _runs(parley)
    assert run["status"] == "queued"


def test_watching_says_once_that_nobody_works_and_shows_notes_and_what_was_left_out(
    parley: Parley, database_url: str
) -> None:
    run_id = json.loads(parley("train", "--json").out)["run_id"]
    told = asyncio.run(_watched(database_url, parley, RunId(UUID(run_id))))
    assert told.err.count("No training worker runs") == 1
    assert "dpo: Left out: 0 pairs." in told.err
    assert "sft 1/4  loss 2.0000  30 s left" in told.out
    assert "succeeded: v1-x candidate Better. dpo was left out: 0 pairs." in told.out


async def _watched(url: str, parley: Parley, run_id: RunId) -> Told:
    """Watch in a thread while a worker, who gave no sign of life, tells of a run."""
    async with open_pool(url, settings=DatabaseSettings()) as pool, asyncio.timeout(ENOUGH_S):
        runs = Runs(pool)
        watching = asyncio.create_task(asyncio.to_thread(parley, "runs", "watch", str(run_id)))
        await runs.start(run_id)
        values = {"loss": 2.0, "of_steps": 4.0, "eta_s": 30.0}
        await runs.tell(run_id, stage="sft", metrics=[("sft", 1, values)])
        await asyncio.sleep(2.5)
        await runs.tell(run_id, stage="dpo", note="Left out: 0 pairs.")
        await asyncio.sleep(2.5)
        result = {
            "version": "v1-x",
            "outcome": "candidate",
            "reasons": ["Better."],
            "stages": {"sft": {"rows": 3}, "dpo": {"left_out": "0 pairs."}},
        }
        await runs.end(run_id, "succeeded", result=result)
        return await watching


def test_the_status_says_who_answers_what_was_made_and_how_the_runs_go(
    parley: Parley, database_url: str
) -> None:
    told = parley("status").out
    assert "the base model" in told and "none" not in told
    run_id = json.loads(parley("train", "--json").out)["run_id"]
    assert f"Waiting    train {run_id}" in parley("status").out
    asyncio.run(_made(database_url, RunId(UUID(run_id))))
    asyncio.run(_serving(database_url, RunId(UUID(run_id))))
    told = parley("status").out
    assert "Tried      v1, on 20% of the threads\n" in told
    assert "v1         canary (candidate): Better." in told
    step = "step 1 of 4, loss 2.0000, learning rate 1.00e-03, 50 tokens/s, 2 min left"
    assert f"Running    train {run_id}: sft; {step}; Halfway." in told
    assert "Last run   promote" in told and "There is none." in told
    data = json.loads(parley("status", "--json").out)
    assert data["tried"]["number"] == 1 and data["live"] is None
    assert data["running"][0]["run"]["id"] == run_id
    assert data["ended"]["failure"] == "There is none."
    asyncio.run(_liked(database_url, RunId(UUID(run_id))))
    told = parley("status").out
    assert "Tried      v1, on 20% of the threads; people like it better: promote v1\n" in told


async def _liked(url: str, run_id: RunId) -> None:
    """A verdict that no chat is there to hear."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        run = await Runs(pool).get(run_id)
        assert run is not None
        place = {"platform": "local", "workspace": "page", "channel": "general"}
        liked = NewNotice(run=replace(run, place=place), text="Better.", about="better")
        assert await Notices(pool).add(liked)


async def _serving(url: str, run_id: RunId) -> None:
    """A trial, a run that goes on, and one that has failed."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        runs, versions = Runs(pool), ModelVersions(pool)
        version = await versions.of_run(run_id)
        assert version is not None
        await versions.start_canary(version.id, share=0.2)
        await runs.start(run_id)
        values = {"loss": 2.0, "learning_rate": 1e-3, "tokens_per_s": 50.0}
        progress = {"of_steps": 4.0, "eta_s": 120.0}
        metrics = [("sft", 1, values | progress)]
        await runs.tell(run_id, stage="sft", note="Halfway.", metrics=metrics)
        recipe = Recipe(kind="promote", parameters={})
        failed = await runs.queue(recipe, workspace_id=version.workspace_id, by=None, place={})
        await runs.end(failed, "failed", failure="There is none.")


def test_runs_are_compared_by_what_tells_them_apart(
    parley: Parley, database_url: str, tmp_path: Path
) -> None:
    first, second = asyncio.run(_two_runs(database_url, tmp_path))
    lines = parley("runs", "compare", str(first), str(second)).out.splitlines()
    wide = CELL_WIDTH
    cells = {
        line[:NAME_WIDTH].strip(): [
            line[start : start + wide].strip() for start in (NAME_WIDTH, NAME_WIDTH + wide)
        ]
        for line in lines
    }
    assert cells["outcome"] == ["candidate", "rejected"]
    assert cells["base"] == ["smollm2", "smollm2"]
    assert cells["code"] == ["c0ffee", "c0ffee-dirty"]
    assert cells["seed"] == ["17", "18"]
    assert cells["recipe learning_rate"] == ["0.001", "0.0002"]
    assert cells["recipe lora.r"] == ["16", "8"]
    assert "recipe max_length" not in cells, "what is the same tells nothing apart"
    assert cells["sft: tokens/s"] == ["150", "250"]
    assert cells["sft: last loss"] == ["1.0000", "1.5000"]
    assert cells["sft: log_likelihood"] == [
        "-3.000 -> -1.000 (+1.500 to +2.500)",
        "-3.000 -> -2.000 (+0.500 to +1.500)",
    ]
    assert cells["gate: answer F1"] == ["live 0.100 -> 0.400", "live 0.100 -> 0.050"]
    assert cells["gate: reasons"][1].endswith("…"), "a long cell is cut"
    whole = json.loads(parley("runs", "compare", str(first), str(second), "--json").out)
    assert whole[1]["gate: reasons"].endswith("beyond doubt.")


async def _two_runs(url: str, home: Path) -> list[RunId]:
    """Two trainings that ended, with plans as the worker writes them."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        workspace_id = await _workspace(pool)
        return [await _ended_run(pool, home, workspace_id, number=number) for number in range(2)]


async def _ended_run(pool: Pool, home: Path, workspace_id: WorkspaceId, *, number: int) -> RunId:
    rate, r = ((1e-3, 16), (2e-4, 8))[number]
    code, new, outcome = (("c0ffee", 0.4, "candidate"), ("c0ffee-dirty", 0.05, "rejected"))[number]
    runs = Runs(pool)
    asked = Recipe(kind="train", parameters={})
    run_id = await runs.queue(asked, workspace_id=workspace_id, by=None, place={})
    recipe = {"kind": "sft", "learning_rate": rate, "lora": {"r": r}, "max_length": 1024}
    plan = {"recipe": {**recipe, "seed": 17 + number}, "base": "/models/smollm2", "code": code}
    folder = home / "runs" / str(run_id)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    steps: list[tuple[str, int, Mapping[str, float]]] = [
        (
            "sft",
            step,
            {"loss": 2.0 / step + number / 2, "tokens_per_s": 50.0 + 100.0 * (number + each)},
        )
        for step, each in ((1, 0.5), (2, 1.5))
    ]
    await runs.tell(run_id, stage="sft", metrics=steps)
    low = 1.5 - number
    metrics = {
        "held_out_log_likelihood_before": -3.0,
        "held_out_log_likelihood": -1.0 - number,
        "held_out_log_likelihood_gain": 2.0 - number,
        "held_out_log_likelihood_gain_low": low,
        "held_out_log_likelihood_gain_high": low + 1,
    }
    result = {
        "version": f"v{number + 1}-x",
        "outcome": outcome,
        "reasons": ["Nothing is better than the live model beyond doubt."]
        if number
        else ["Better."],
        "stages": {"sft": {"rows": 40, "metrics": metrics}},
        "gate": {"figures": {"candidate": {"answer F1": new}, "live": {"answer F1": 0.1}}},
    }
    await runs.end(run_id, "succeeded", result=result)
    return run_id


def test_the_ledger_names_the_next_step_where_nothing_is_known(parley: Parley) -> None:
    for unknown in (str(uuid4()), "v9", "nonsense"):
        told = parley("ledger", unknown, code=2)
        assert unknown in told.err and "parley versions" in told.err


async def _workspace(pool: Pool) -> WorkspaceId:
    async with pool.connection() as connection:
        found = await connection.execute("SELECT id FROM workspaces")
        ((workspace_id,),) = await found.fetchall()
        return WorkspaceId(workspace_id)


async def _sign_of_life(url: str, queue: str) -> None:
    """As a worker of the queue gives one, once."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO queue_workers (id, queue) VALUES (%s, %s)", [uuid4(), queue]
            )
        assert await workers_of(pool, queue=queue)


async def _made(url: str, run_id: RunId) -> object:
    """Pretend to be the worker: a step, a row of the corrected answer, a version."""
    async with open_pool(url, settings=DatabaseSettings()) as pool:
        runs = Runs(pool)
        run = await runs.get(run_id)
        assert run is not None
        async with pool.connection() as connection:
            found = await connection.execute("SELECT answer_id FROM corrections")
            ((answer_id,),) = await found.fetchall()
        row = RunRow(
            row_id="ab" * 16, kind="sft", split="train", basis="correction", answer_ids=[answer_id]
        )
        await runs.learn_from(run_id, snapshot_sha256="1" * 64, rows=[row])
        await runs.tell(run_id, stage="sft", metrics=[("sft", 1, {"loss": 2.0})])
        await ModelVersions(pool).add(
            workspace_id=run.workspace_id,
            number=1,
            name="v1-00c0ffee",
            run_id=run_id,
            parent_id=None,
            directory=Path("/models/one"),
            sha256="0",
            snapshot_sha256="1" * 64,
            recipe={},
            gate={"outcome": "candidate", "reasons": ["Better."]},
            status="candidate",
        )
        return answer_id
