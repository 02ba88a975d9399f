"""What people set for a channel and for their workspace: when to answer, whom, how, by which model.

The same for every chat platform; storage keeps it as JSON and does not look inside. A channel keeps
only what it sets otherwise than its workspace, so that a workspace's change reaches every channel
that did not decide for itself.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.identity import ChannelId, MemberId, WorkspaceId
from storage.places import Places

MAX_HUMANS = 20
"""People and groups that one click may call."""

PlatformId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")]
"""Of a person or group. Nothing else: a surface writes it into a mention."""

CONSENT_CHOICES: Final[Mapping[str, bool | None]] = {"workspace": None, "yes": True, "no": False}
"""Of a channel's consent, by their names in a form."""


def consent_choice(consent: bool | None) -> str:
    """The name of a channel's consent in a form."""
    return next(name for name, value in CONSENT_CHOICES.items() if value is consent)


class ChannelSettings(BaseModel):
    """The settings of one channel; the defaults suit a channel that nobody has set up.

    Attributes:
        enabled: whether anything is answered here.
        answer_when: every question, or only those that mention the assistant.
        follow_ups: whether a thread that the assistant speaks in needs no further mention.
        who: "members" of the workspace, or "everyone": guests and people of other companies too.
        answer_bots: whether other bots are answered.
        ephemeral: whether only the asker sees the answer, and may share it.
        humans: the platform's ids of people and groups to call when a person is needed.
        comparison_share: of the questions that become comparisons, 0 to 1.
        consent_to_train: whether what is rated here may train models, if its author agrees too;
            None = as the workspace decides.
        answer_in: whether a question opens a thread of its own, where the platform leaves that to
            us.
        roles: the platform's ids of roles that may ask here; empty for everybody.
        model: model or alias that answers here; None for the one that answers everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    answer_when: Literal["mention", "always"] = "mention"
    follow_ups: bool = True
    who: Literal["members", "everyone"] = "members"
    answer_bots: bool = False
    ephemeral: bool = False
    humans: Annotated[tuple[PlatformId, ...], Field(max_length=MAX_HUMANS)] = ()
    comparison_share: float = Field(0.0, ge=0, le=1)
    consent_to_train: bool | None = None
    answer_in: Literal["thread", "inline"] = "thread"
    roles: Annotated[tuple[PlatformId, ...], Field(max_length=MAX_HUMANS)] = ()
    model: str | None = Field(None, min_length=1, max_length=200)


class WorkspaceSettings(BaseModel):
    """The settings of a workspace: its consent, and what holds in channels that set nothing else.

    Attributes:
        consent_to_train: as in `ChannelSettings`, for every channel that does not decide itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer_when: Literal["mention", "always"] = "mention"
    comparison_share: float = Field(0.0, ge=0, le=1)
    consent_to_train: bool = False
    answer_in: Literal["thread", "inline"] = "thread"
    model: str | None = Field(None, min_length=1, max_length=200)

    def inherited(self) -> ChannelSettings:
        """The settings of a channel that nobody has set up."""
        return ChannelSettings.model_validate(self.model_dump(exclude={"consent_to_train"}))


async def load(places: Places, channel_id: ChannelId | None) -> ChannelSettings:
    """The settings of a channel; the defaults for None, which is a conversation of one person.

    Raises:
        StorageUnavailable: safe to retry.
    """
    if channel_id is None:
        return ChannelSettings()
    workspace, own = await places.settings_around(channel_id)
    return ChannelSettings.model_validate(_inherited(workspace) | own)


async def save(
    places: Places, channel_id: ChannelId, settings: ChannelSettings, *, by: MemberId
) -> None:
    """Replace the settings of a channel; storage notes in the audit who did it.

    Raises:
        StorageUnavailable: safe to retry.
    """
    workspace, _ = await places.settings_around(channel_id)
    inherited = _inherited(workspace)
    wanted = settings.model_dump(mode="json")
    own = {key: value for key, value in wanted.items() if value != inherited[key]}
    await places.save_channel_settings(channel_id, own, by=by)


async def load_workspace(places: Places, workspace_id: WorkspaceId) -> WorkspaceSettings:
    """The settings of a workspace.

    Raises:
        StorageUnavailable: safe to retry.
    """
    return WorkspaceSettings.model_validate(await places.workspace_settings(workspace_id))


async def save_workspace(
    places: Places, workspace_id: WorkspaceId, settings: WorkspaceSettings, *, by: MemberId
) -> None:
    """Replace the settings of a workspace; storage notes in the audit who did it.

    Raises:
        StorageUnavailable: safe to retry.
    """
    await places.save_workspace_settings(workspace_id, settings.model_dump(mode="json"), by=by)


def _inherited(workspace: dict[str, Any]) -> dict[str, Any]:
    return WorkspaceSettings.model_validate(workspace).inherited().model_dump(mode="json")
