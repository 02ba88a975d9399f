"""Settings, installations, deliveries and runs are kept, and say who changed them."""

import asyncio
from uuid import uuid4

import pytest

from storage import audit
from storage.conversations import Conversations
from storage.deliveries import Deliveries, Posted
from storage.documents import Documents
from storage.errors import PlaceNotFound
from storage.identity import ChannelId, Keys, MessageId
from storage.installations import Installations
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, Runs
from tests.storage.conftest import Team


async def test_settings_belong_to_their_place_and_changes_are_audited(
    pool: Pool, team: Team
) -> None:
    places = Places(pool)
    assert team.general.channel_id and team.secret.channel_id and team.general.member_id
    channel, ada = team.general.channel_id, team.general.member_id
    workspace = team.general.workspace_id
    assert await places.settings_around(channel) == ({}, {})
    await places.save_channel_settings(channel, {"model": "m", "humans": ["U1"]}, by=ada)
    await places.save_channel_settings(channel, {"model": None, "humans": ["U1"]}, by=ada)
    await places.save_workspace_settings(workspace, {"consent_to_train": True}, by=ada)
    consent = {"consent_to_train": True}
    assert await places.settings_around(channel) == (consent, {"model": None, "humans": ["U1"]})
    assert await places.settings_around(team.secret.channel_id) == (consent, {})
    assert await places.workspace_settings(workspace) == {"consent_to_train": True}
    entries = await audit.entries(pool, workspace_id=workspace, limit=9)
    assert [(e.member_id, e.action, e.subject_id, e.details) for e in entries] == [
        (ada, "settings_changed", workspace, {"consent_to_train": True}),
        (ada, "settings_changed", channel, {"model": None}),
        (ada, "settings_changed", channel, {"model": "…", "humans": "…"}),
    ]
    with pytest.raises(PlaceNotFound):
        await places.settings_around(ChannelId(uuid4()))
    with pytest.raises(PlaceNotFound):
        await places.save_channel_settings(ChannelId(uuid4()), {}, by=ada)


async def test_tokens_are_kept_encrypted_until_their_workspace_goes(pool: Pool, keys: Keys) -> None:
    installations = Installations(pool=pool, keys=keys)
    assert await installations.find("slack", "T1") is None
    await installations.save("slack", "T1", {"bot_token": "xoxb-secret"}, workspace="T1")
    await installations.save("slack", "T1", {"bot_token": "xoxb-rotated"}, workspace="T1")
    await installations.save("slack", "T1:U1", {"user_token": "xoxp"}, workspace="T1")
    await installations.save("slack", "T2", {"bot_token": "xoxb-other"}, workspace="T2")
    assert await installations.find("slack", "T1") == {"bot_token": "xoxb-rotated"}
    async with pool.connection() as connection:
        stored = await connection.execute("SELECT payload_encrypted FROM installations")
        assert not any(b"xox" in row[0] for row in await stored.fetchall())
    assert await installations.delete_one("slack", "T1:U1")
    assert not await installations.delete_one("slack", "T1:U1")
    assert await installations.delete("slack", "T1") == 1
    assert await installations.find("slack", "T1") is None
    assert await installations.find("slack", "T2") == {"bot_token": "xoxb-other"}


async def test_an_oauth_state_counts_once_and_not_for_long(pool: Pool, keys: Keys) -> None:
    installations = Installations(pool=pool, keys=keys)
    state = await installations.issue_state(60)
    used = await asyncio.gather(*(installations.consume_state(state) for _ in range(4)))
    assert sorted(used) == [False, False, False, True]
    assert not await installations.consume_state("made up")
    assert not await installations.consume_state(await installations.issue_state(-1))


async def test_what_was_posted_is_found_again_by_question_and_by_message(
    pool: Pool, keys: Keys, team: Team
) -> None:
    deliveries = Deliveries(pool)
    message_id, _ = await Conversations(pool=pool, keys=keys).accept_question(
        audience=team.general,
        thread_ref="thread",
        message_ref="1",
        text="When?",
        author_id=None,
        surface="chat",
        place={},
    )
    assert await deliveries.get(message_id) == []
    for part, ref in ((1, "C1:b"), (0, "C1:a"), (0, "C1:c")):
        await deliveries.put(message_id, part=part, ref=ref)
    await deliveries.finish(message_id)
    await deliveries.put(message_id, part=0, ref="C1:d")
    assert await deliveries.get(message_id) == [
        Posted(part=0, ref="C1:d", finished=False),
        Posted(part=1, ref="C1:b", finished=True),
    ]
    assert await deliveries.find_by_ref("C1:b", audience=team.general) == message_id
    assert await deliveries.find_by_ref("C1:b", audience=team.secret) is None
    assert await deliveries.find_by_ref("C1:a", audience=team.general) is None
    await deliveries.remove(message_id, part=1)
    assert [posted.part for posted in await deliveries.get(message_id)] == [0]
    await deliveries.put(MessageId(uuid4()), part=0, ref="of a forgotten question")


async def test_a_run_is_queued_with_its_job_and_its_audit(pool: Pool, team: Team) -> None:
    runs = Runs(pool)
    assert team.general.member_id is not None
    workspace = team.general.workspace_id
    recipe = Recipe(kind="train", parameters={"method": "sft"})
    run_id = await runs.queue(
        recipe, workspace_id=workspace, by=team.general.member_id, place={"channel": "C1"}
    )
    (run,) = await runs.list(workspace, limit=5)
    assert (run.id, run.kind, run.parameters) == (run_id, "train", {"method": "sft"})
    assert (run.status, run.place) == ("queued", {"channel": "C1"})
    (entry,) = await audit.entries(pool, workspace_id=workspace, limit=5)
    assert (entry.action, entry.subject_id) == ("train_queued", run_id)
    async with pool.connection() as connection:
        jobs = await connection.execute(
            "SELECT queue_name, task_name, args FROM procrastinate_jobs"
        )
        assert await jobs.fetchall() == [("training", "run", {"run_id": str(run_id)})]


async def test_a_document_remembers_where_it_came_from(documents: Documents, team: Team) -> None:
    origin = {"permalink": "https://team.slack.com/files/U1/F1/plan.md"}
    document = await documents.add("plan.md", b"one", audience=team.general, origin=origin)
    assert document.origin == origin
    assert (await documents.add("plan.md", b"two", audience=team.general)).origin == origin
    other = await documents.add("plan.md", b"two", audience=team.general, origin={"permalink": "x"})
    assert other.origin == {"permalink": "x"}
