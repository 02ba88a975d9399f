"""Runs that are queued by themselves."""

from typing import Any

from feedback import Feedback
from storage.members import Members
from storage.places import Places
from storage.pool import Pool
from storage.runs import Runs
from storage.settings import TrainingSettings
from tests.feedback.conftest import Answers, answered, conversations
from tests.storage.conftest import Team, keys, team
from training.schedule import queue_due

__all__ = ["answered", "conversations", "keys", "team"]


async def test_a_training_is_due_after_new_ratings_or_hours_but_never_twice(
    pool: Pool, team: Team, answered: Answers
) -> None:
    runs, feedback = Runs(pool), Feedback(pool)
    audience = team.general
    assert audience.member_id is not None
    await Members(pool).set_consent(audience.member_id, True)
    await Places(pool).save_workspace_settings(
        audience.workspace_id, {"consent_to_train": True}, by=audience.member_id
    )

    async def due(**when: Any) -> int:
        return len(await runs.due(**({"every_new_ratings": None, "every_hours": None} | when)))

    assert await due(every_new_ratings=1, every_hours=1) == 0
    for _ in range(2):
        (answer,) = (await answered(audience)).answers
        await feedback.vote(answer_id=answer, audience=audience, value=1)
    assert await due() == 0
    assert (await due(every_new_ratings=3), await due(every_new_ratings=2)) == (0, 1)
    assert await due(every_hours=1) == 1

    settings = TrainingSettings(every_new_ratings=2)
    assert await queue_due(runs, settings) == 1
    assert await queue_due(runs, settings) == 0
    (run,) = await runs.list(audience.workspace_id, limit=5)
    assert (run.kind, run.parameters, run.member_id) == ("train", {"recipe": "sft"}, None)
    await runs.end(run.id, "succeeded")
    assert (await due(every_new_ratings=1), await due(every_hours=1)) == (0, 0)
