"""From clicks to a ranking and its picture."""

from dataclasses import replace
from io import BytesIO

from PIL import Image

from feedback import Feedback, picture
from feedback.rankings import MIN_VOTES, leaderboard
from storage.conversations import Conversations
from storage.curations import Curation, Curations
from storage.pool import Pool
from storage.ratings import Winner
from tests.feedback.conftest import Answers, compared
from tests.feedback.test_curations import FAY, curated, word
from tests.feedback.test_rankings import battle
from tests.storage.conftest import Team

WINNERS: tuple[Winner, ...] = ("left", "right")


async def test_votes_of_a_channel_become_its_ranking(
    feedback: Feedback, answered: Answers, team: Team
) -> None:
    for number in range(MIN_VOTES + 2):
        asked = await answered(team.general, "good@1", "bad@1")
        left = number % 2
        await compared(
            feedback,
            team.general,
            asked,
            "left" if left == 0 else "right",
            shown_order=(left, 1 - left),
        )
    everywhere = await feedback.ranking(workspace_id=team.general.workspace_id)
    here = await feedback.ranking(
        workspace_id=team.general.workspace_id, channel_id=team.general.channel_id
    )
    assert everywhere == here
    assert [(model.model, model.wins) for model in here.models] == [
        ("good@1", MIN_VOTES + 2),
        ("bad@1", 0),
    ]
    assert here.models[0].rank == 1
    elsewhere = await feedback.ranking(
        workspace_id=team.general.workspace_id, channel_id=team.secret.channel_id
    )
    assert elsewhere.models == () and not elsewhere.enough


async def test_an_answer_that_names_its_model_does_not_count(
    feedback: Feedback, answered: Answers, conversations: Conversations, team: Team
) -> None:
    asked = await answered(team.general, "good@1")
    leaking = await conversations.save_answer(
        asked.message_id,
        audience=team.general,
        text="As SmolLM I say October.",
        found=True,
        finish_reason="stop",
        model="smollm2@1",
        prompt_sha256="ab",
        prompt_tokens=1,
        completion_tokens=1,
        timings_ms={},
        sources=(),
        current=False,
        prompt=[],
        params={},
    )
    comparison_id = await feedback.open_comparison(
        message_id=asked.message_id,
        audience=team.general,
        answers=(asked.answers[0], leaking),
        shown_order=(0, 1),
    )
    await feedback.compare(comparison_id=comparison_id, audience=team.general, winner="right")
    board = await feedback.ranking(workspace_id=team.general.workspace_id)
    assert board.votes == 0 and board.excluded == {"the answer named its model": 1}


async def test_the_picture_shows_models_whatever_their_names() -> None:
    odd = r"$\frac{1}$ & <model>"
    battles = [battle(odd, "b", winner) for winner in WINNERS for _ in range(MIN_VOTES)]
    board = leaderboard(battles, max_weight=100)
    image = Image.open(BytesIO(await picture(board, title=r"$\frac{1}$ of <team>")))
    assert image.format == "PNG" and image.width >= 1000


async def test_a_curators_choice_counts_before_a_members(
    feedback: Feedback, answered: Answers, team: Team, pool: Pool
) -> None:
    asked = await answered(team.general, "good@1", "bad@1")
    comparison_id = await compared(feedback, team.general, asked, "right")
    curations = Curations(pool)

    async def wins(*said: Curation) -> dict[str, int]:
        record = curated(comparison_id, *said)
        await curations.keep([replace(record, kind="comparison")])
        board = await feedback.ranking(workspace_id=team.general.workspace_id)
        return {model.model: model.wins for model in board.models}

    assert await wins() == {"good@1": 0, "bad@1": 1}
    assert await wins(word(winner="left")) == {"good@1": 1, "bad@1": 0}
    assert await wins(word(winner="left"), word(FAY, status="discarded")) == {}
    assert await wins() == {"good@1": 0, "bad@1": 1}
