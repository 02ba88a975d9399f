"""Settings of a channel."""

import pytest
from pydantic import ValidationError

from bots.channel_settings import ChannelSettings, load, save
from storage.audit import entries
from storage.identity import Identities, Keys
from storage.places import Places
from storage.pool import Pool

KEY = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa="


async def test_settings_come_back_as_they_were_saved_and_leave_a_trace(pool: Pool) -> None:
    identities = Identities(pool=pool, keys=Keys(fernet_keys=(KEY,)))
    audience = await identities.resolve(platform="slack", workspace="T1", channel="C1", member="U1")
    assert audience.channel_id is not None
    assert audience.member_id is not None
    places = Places(pool)
    assert await load(places, audience.channel_id) == ChannelSettings()
    settings = ChannelSettings(
        answer_when="always", who="everyone", humans=("U2", "S3"), comparison_share=0.25
    )
    await save(places, audience.channel_id, settings, by=audience.member_id)
    assert await load(places, audience.channel_id) == settings
    noted = await entries(pool, workspace_id=audience.workspace_id, limit=10)
    assert [(entry.action, entry.member_id) for entry in noted] == [
        ("settings_changed", audience.member_id)
    ]


async def test_one_person_alone_has_the_defaults(pool: Pool) -> None:
    assert await load(Places(pool), None) == ChannelSettings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"humans": ["U1> <!channel"]},
        {"comparison_share": 1.5},
        {"answer_when": "never"},
        {"enbled": True},
        {"model": ""},
    ],
)
def test_what_no_channel_may_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ChannelSettings.model_validate(wrong)
