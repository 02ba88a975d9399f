"""`parley train`, `runs`, `versions` and `ledger` as an operator types them."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import pytest

from bots.__main__ import main
from storage.model_versions import ModelVersions
from storage.pool import open_pool
from storage.runs import RunId, RunRow, Runs
from storage.settings import DatabaseSettings
from tests.bots.test_feedback_console import _rate


def test_a_run_is_queued_listed_followed_back_to_its_answers_and_cancelled(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PARLEY_DATABASE__URL", database_url)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    asyncio.run(_rate(database_url))

    def run(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code
        return capsys.readouterr().out

    assert main(["train", "--json"]) == 0
    queued = capsys.readouterr()
    assert "No training worker runs" in queued.err
    run_id = json.loads(queued.out)["run_id"]
    answer_id = asyncio.run(_made(database_url, RunId(UUID(run_id))))

    (listed,) = json.loads(run("runs", "list", "--json"))
    assert (listed["id"], listed["parameters"]) == (run_id, {"recipe": "sft"})
    assert "v1" in run("versions")
    (version,) = json.loads(run("versions", "--json"))
    for known in (run_id, answer_id, "ab" * 16, version["id"]):
        found = json.loads(run("ledger", str(known), "--json"))
        assert found["answers"][0]["answer_id"] == str(answer_id)
        assert found["answers"][0]["corrections"]
        assert [each["row_id"] for each in found["rows"]] == ["ab" * 16]
        assert [each["run_id"] for each in found["runs"]] == [run_id]
        assert [each["name"] for each in found["versions"]] == ["v1"]
    assert "In November" not in run("ledger", run_id)
    assert "last loss" in run("runs", "compare", run_id, run_id)
    image = tmp_path / "curves.png"
    run("runs", "picture", str(image), run_id)
    assert image.read_bytes().startswith(b"\x89PNG")
    assert "ends after" in run("runs", "cancel", run_id)
    assert "cancelled" in run("runs", "watch", run_id, code=1)
    assert main(["train", "--recipe", "nonsense.toml"]) == 2
    assert "sft, dpo" in capsys.readouterr().err


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
            name="v1",
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
