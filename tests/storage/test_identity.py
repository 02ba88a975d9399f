"""Platform ids become ours, people stay unreadable, and audiences read only their own."""

import asyncio
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from storage.errors import KeysInvalid
from storage.identity import Audience, ChannelId, Identities, Keys, MemberId, WorkspaceId
from storage.pool import Pool
from tests.feedback.conftest import rows


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.load(home=tmp_path, secret=None)


async def test_a_channel_is_closed_until_it_is_known_to_be_open(pool: Pool, keys: Keys) -> None:
    identities = Identities(pool=pool, keys=keys)
    found = []
    for known in (None, True, None, False):
        await identities.resolve(
            platform="slack", workspace="T1", channel="C1", channel_open=known, member="U1"
        )
        found += await rows(pool, "SELECT open FROM channels")
    assert found == [(False,), (True,), (True,), (False,)]


async def test_the_same_people_and_places_are_found_again(pool: Pool, keys: Keys) -> None:
    identities = Identities(pool=pool, keys=keys)
    names: dict[str, Any] = {"platform": "web", "workspace": "T1", "channel": "C1", "member": "U1"}
    everyone = await asyncio.gather(*(identities.resolve(**names) for _ in range(6)))
    assert len(set(everyone)) == 1
    elsewhere = await identities.resolve(**{**names, "workspace": "T2"})
    assert elsewhere.member_id != everyone[0].member_id


async def test_no_platform_id_and_no_name_is_readable_in_the_database(
    pool: Pool, keys: Keys
) -> None:
    identities = Identities(pool=pool, keys=keys)
    await identities.resolve(
        platform="web", workspace="T1", member="U-secret", display_name="Ada Lovelace"
    )
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT members::text FROM members")).fetchone()
        kept = await (
            await connection.execute(
                "SELECT platform_id_encrypted, display_name_encrypted FROM members"
            )
        ).fetchone()
    assert row is not None and kept is not None
    readable = bytes.fromhex(row[0].split('"\\\\x')[1].split('"')[0]) + row[0].encode()
    assert b"U-secret" not in readable and b"Ada" not in readable
    assert [keys.decrypt(value) for value in kept] == ["U-secret", "Ada Lovelace"]


async def test_a_person_is_recognised_after_the_keys_were_rotated(pool: Pool) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    names: dict[str, Any] = {"platform": "web", "workspace": "T1", "member": "U1"}
    before = await Identities(pool=pool, keys=Keys(fernet_keys=(old,))).resolve(**names)
    rotated = Keys.load(home=Path("unused"), secret=SecretStr(f"{new},{old}"))
    after = await Identities(pool=pool, keys=rotated).resolve(**names)
    assert before == after


def test_the_key_file_is_private_and_stays(tmp_path: Path) -> None:
    first = Keys.load(home=tmp_path, secret=None)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert Keys.load(home=tmp_path, secret=None).decrypt(first.encrypt("x")) == "x"


def test_a_bad_key_names_its_place_and_not_itself(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("not-a-key")
    with pytest.raises(KeysInvalid, match=str(tmp_path / "keys")) as caught:
        Keys.load(home=tmp_path, secret=None)
    assert "not-a-key" not in str(caught.value)


def test_a_persons_own_documents_are_readable_in_direct_messages_only() -> None:
    workspace, channel, member = WorkspaceId(uuid4()), ChannelId(uuid4()), MemberId(uuid4())
    in_channel = Audience(workspace_id=workspace, channel_id=channel, member_id=member)
    direct = Audience(workspace_id=workspace, member_id=member)
    assert in_channel.scope_ids == (workspace, channel)
    assert direct.scope_ids == (workspace, member)
    assert Audience(workspace_id=workspace).scope_ids == (workspace,)


async def test_further_channels_are_read_but_own_no_conversation_and_are_never_made(
    pool: Pool, keys: Keys
) -> None:
    identities = Identities(pool=pool, keys=keys)
    here: dict[str, Any] = {"platform": "web", "workspace": "T1"}
    parent = (await identities.resolve(**here, channel="C1")).channel_id
    elsewhere = await identities.resolve(platform="web", workspace="T2", channel="C2")
    thread = await identities.resolve(**here, channel="C1.1", also=("C1", "C2", "unknown"))
    assert thread.also == (parent,)
    assert thread.scope_ids == (thread.workspace_id, parent, thread.channel_id)
    assert thread.place_id == thread.channel_id
    assert elsewhere.channel_id not in thread.scope_ids
    unknown = await identities.resolve(**here, member="U1", also=("unknown",))
    assert unknown.also == () and unknown.place_id == unknown.member_id
