"""Versions of a workspace's model: what the gate's outcomes become."""

import pytest

from storage import audit
from storage.model_versions import GateStatus, ModelVersions
from storage.pool import Pool
from tests.storage.test_runs import a_workspace, version


@pytest.mark.parametrize("outcome", ["candidate", "rejected", "undecided"])
async def test_an_undecided_version_gets_the_outcome_of_another_look(
    pool: Pool, outcome: GateStatus
) -> None:
    versions, workspace = ModelVersions(pool), await a_workspace(pool)
    made = await version(pool, workspace, status="undecided", gate={"outcome": "no decision"})
    assert made.status == "undecided"
    gate = {"outcome": outcome, "reasons": ["The judge answered."]}
    assert await versions.judged(made.id, status=outcome, gate=gate)
    judged = await versions.get(made.id)
    assert judged is not None
    assert (judged.status, judged.gate) == (outcome, gate)
    (noted, _) = await audit.entries(pool, workspace_id=workspace, limit=2)
    assert (noted.action, noted.subject_id) == (f"version_{outcome}", made.id)


async def test_what_somebody_promoted_meanwhile_is_not_judged_again(pool: Pool) -> None:
    versions, workspace = ModelVersions(pool), await a_workspace(pool)
    made = await version(pool, workspace, status="undecided")
    await versions.promote(made.id, by=None)
    assert not await versions.judged(made.id, status="rejected", gate={"outcome": "rejected"})
    kept = await versions.get(made.id)
    assert kept is not None
    assert (kept.status, kept.gate) == ("live", made.gate)


async def test_what_somebody_decided_about_meanwhile_is_not_tried(pool: Pool) -> None:
    versions, workspace = ModelVersions(pool), await a_workspace(pool)
    tried, live, back = [await version(pool, workspace) for _ in range(3)]
    assert await versions.start_canary(back.id, share=0.5)
    assert await versions.roll_back(back.id, was="canary", to=None, by=None, why="asked")
    assert await versions.promote(live.id, by=None)
    assert await versions.start_canary(tried.id, share=0.5)
    for decided in (live, back):
        assert not await versions.start_canary(decided.id, share=0.5)
    serving = await versions.serving(workspace)
    assert serving.live and serving.canary
    assert (serving.live.id, serving.canary.id) == (live.id, tried.id)
