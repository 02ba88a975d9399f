"""Settings of a channel."""

import pytest
from pydantic import ValidationError

from bots.channel_settings import (
    ChannelSettings,
    load,
    load_workspace,
    save,
    save_workspace,
)
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


async def test_a_channel_follows_its_workspace_where_it_set_nothing_else(pool: Pool) -> None:
    identities = Identities(pool=pool, keys=Keys(fernet_keys=(KEY,)))
    here = await identities.resolve(platform="slack", workspace="T1", channel="C1", member="U1")
    assert here.channel_id is not None and here.member_id is not None
    places = Places(pool)

    async def change(**values: object) -> None:
        assert here.member_id is not None
        now = await load_workspace(places, here.workspace_id)
        wanted = now.model_copy(update=values)
        await save_workspace(places, here.workspace_id, wanted, by=here.member_id)

    await change(answer_in="inline", model="large", consent_to_train=True)
    settings = await load(places, here.channel_id)
    assert (settings.answer_in, settings.model) == ("inline", "large")
    own = settings.model_copy(update={"answer_when": "always", "model": None})
    await save(places, here.channel_id, own, by=here.member_id)
    await change(answer_in="thread", model="small")
    settings = await load(places, here.channel_id)
    assert (settings.answer_in, settings.answer_when, settings.model) == ("thread", "always", None)
    assert settings.consent_to_train is None


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
