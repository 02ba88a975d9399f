"""A rated answer is read with everything that made it, page by page."""

from dataclasses import replace

from feedback import Feedback
from storage.documents import Documents
from storage.identity import AnswerId
from storage.members import Members
from storage.places import Places
from storage.pool import Pool
from storage.rated import Rated
from tests.feedback.conftest import Answers, compared
from tests.feedback.test_deletion import source
from tests.storage.conftest import Puts, Team


async def test_a_rated_answer_comes_with_its_provenance(
    feedback: Feedback, answered: Answers, team: Team, put: Puts, pool: Pool, documents: Documents
) -> None:
    assert team.general.member_id is not None and team.general.channel_id is not None
    bob = replace(team.general, member_id=team.bob.member_id)
    await Members(pool).set_consent(team.general.member_id, True)
    await Places(pool).save_channel_settings(
        team.general.channel_id, {"consent_to_train": True}, by=team.general.member_id
    )
    plan = await put("plan.md", "The launch is in October.", team.general)
    (answer,) = (await answered(team.general, sources=[source(plan)])).answers
    await answered(team.general)  # nobody rates it
    await feedback.vote(answer_id=answer, audience=team.general, value=1)
    await feedback.vote(
        answer_id=answer, audience=bob, value=-1, reasons=["wrong"], comment="November!"
    )
    await feedback.correct(answer_id=answer, audience=bob, text="In November.")
    await feedback.need_human(answer_id=answer, audience=bob)
    (found,) = await Rated(pool).answers(workspace_id=team.general.workspace_id, limit=10)
    assert (found.id, found.channel_id) == (answer, team.general.channel_id)
    assert (found.question, found.model) == ("When is the launch?", "m@1")
    assert found.prompt == ({"role": "user", "content": "The launch is in October. When?"},)
    assert [(each.document, each.readers, each.cited) for each in found.sources] == [
        ("plan.md", "open channel", True)
    ]
    assert [(each.voter, each.value, each.consent) for each in found.votes] == [
        (team.general.member_id, 1, True),
        (team.bob.member_id, -1, False),
    ]
    assert (found.votes[1].reasons, found.votes[1].comment) == (("wrong",), "November!")
    assert [(each.text, each.consent) for each in found.corrections] == [("In November.", False)]
    assert found.called_for_help and found.open
    await documents.delete(plan.id, audience=team.general)
    (found,) = await Rated(pool).answers_of([answer])
    assert found.prompt is None and found.sources == ()


async def test_records_are_read_page_by_page_and_only_of_one_workspace(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    given: list[AnswerId] = []
    for _ in range(5):
        given += (await answered(team.general)).answers
        await feedback.vote(answer_id=given[-1], audience=team.general, value=1)
    rated, workspace_id = Rated(pool), team.general.workspace_id
    pages = [await rated.answers(workspace_id=workspace_id, limit=2)]
    while len(pages[-1]) == 2:
        pages.append(
            await rated.answers(workspace_id=workspace_id, after=pages[-1][-1].id, limit=2)
        )
    assert [each.id for page in pages for each in page] == sorted(given)
    asked = await answered(team.general, "a@1", "b@1")
    comparison_id = await compared(feedback, team.general, asked, shown_order=(1, 0))
    assert await rated.comparisons(workspace_id=workspace_id, limit=5) == []
    await feedback.compare(comparison_id=comparison_id, audience=team.general, winner="tie")
    (found,) = await rated.comparisons(workspace_id=workspace_id, limit=5)
    assert (found.left.model, found.right.model) == ("b@1", "a@1")
    assert [each.winner for each in found.judgements] == ["tie"]
