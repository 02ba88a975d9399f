"""What administrators do from a chat: models, channel settings, training, status; and forget-me.

No chat SDK: a surface says who acts (`Actor`), and shows what comes back. Every verb checks the
actor itself, so that no surface can forget to, and leaves one row in `audit`. `forget` is the one
verb that everybody may use, on themselves.

Why training is only queued here: whoever executes runs needs torch, and no bot may import it. A run
waits in the database until a training worker takes it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bots.channel_settings import (
    ChannelSettings,
    WorkspaceSettings,
    load,
    load_workspace,
    save,
    save_workspace,
)
from bots.errors import BotsError
from bots.training_status import TrainingStatus, training_status
from engine.client import EngineClient, ModelInfo
from engine.errors import EngineError, ModelNotFound
from storage import audit
from storage.documents import Documents
from storage.identity import Audience, ChannelId, MemberId, WorkspaceId
from storage.members import Forgotten, forget
from storage.model_versions import is_elsewhere
from storage.places import Places
from storage.pool import Pool
from storage.runs import Recipe, RunId, Runs

logger = logging.getLogger(__name__)


class AdministrationError(BotsError):
    """An administrator's verb cannot be carried out; the text is for the person."""


class NotAdministrator(AdministrationError):
    """Somebody who does not administer the workspace used a verb for those who do."""

    def __init__(self) -> None:
        super().__init__(
            "Only administrators of this workspace may do that; the settings of Parley can name "
            "further ones."
        )


class NoChannel(AdministrationError):
    """A verb about a channel was used where there is none."""

    def __init__(self) -> None:
        super().__init__("This belongs to a channel: please use it in the channel that it is for.")


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who uses a verb.

    Attributes:
        audience: with the member, and the channel where the verb was used in one.
        administers: what platform and settings say at this moment; ask them anew for every verb.
    """

    audience: Audience
    administers: bool

    @property
    def member_id(self) -> MemberId:
        """The acting person; a surface that does not know people has no administrators."""
        if self.audience.member_id is None:
            raise NotAdministrator
        return self.audience.member_id


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The models that may answer, and the channel's own choice; None = the workspace's."""

    models: Sequence[ModelInfo]
    chosen: str | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """How the parts are.

    Attributes:
        models: empty when the engine does not answer, and `engine_trouble` says why then.
        documents: by their status, those that are readable in the actor's place.
        training: the workspace's own versions and its runs.
    """

    models: Sequence[ModelInfo]
    engine_trouble: str | None
    documents: Mapping[str, int]
    training: TrainingStatus


@dataclass(frozen=True, kw_only=True)
class Administration:
    """The verbs.

    Attributes:
        files_dir: where the bytes of documents lie.
    """

    pool: Pool
    engine: EngineClient
    documents: Documents
    places: Places
    runs: Runs
    files_dir: Path

    async def models(self, actor: Actor) -> ModelChoice:
        """The models that the engine can answer with, and the channel's choice.

        Raises:
            NotAdministrator: the actor is none.
            EngineUnavailable: nobody knows the models now.
        """
        await self._note(actor, "models_listed")
        channel = actor.audience.channel_id
        chosen = (await load(self.places, channel)).model if channel is not None else None
        return ModelChoice(
            models=await answering_models(self.engine, actor.audience.workspace_id), chosen=chosen
        )

    async def set_model(self, actor: Actor, name: str | None) -> None:
        """Let a channel's questions be answered by `name`; None = by the workspace's model.

        Raises:
            NotAdministrator, NoChannel: not this actor, not here.
            ModelNotFound: the engine serves no such model.
            EngineUnavailable: nobody knows the models now.
        """
        channel = self._channel(actor)
        if name is not None:
            known = [
                model.name
                for model in await answering_models(self.engine, actor.audience.workspace_id)
            ]
            if name not in known:
                raise ModelNotFound(name, known=known)
        settings = await load(self.places, channel)
        if name is None:
            name = (await load_workspace(self.places, actor.audience.workspace_id)).model
        await self.save_settings(actor, settings.model_copy(update={"model": name}))

    async def settings(self, actor: Actor) -> ChannelSettings:
        """The channel's settings.

        Raises:
            NotAdministrator, NoChannel: not this actor, not here.
        """
        channel = self._channel(actor)
        await self._note(actor, "settings_read")
        return await load(self.places, channel)

    async def save_settings(self, actor: Actor, settings: ChannelSettings) -> None:
        """Replace the channel's settings; storage notes it in the audit.

        Raises:
            NotAdministrator, NoChannel: not this actor, not here.
        """
        await save(self.places, self._channel(actor), settings, by=actor.member_id)

    async def workspace_settings(self, actor: Actor) -> WorkspaceSettings:
        """The workspace's settings.

        Raises:
            NotAdministrator: the actor is none.
        """
        await self._note(actor, "settings_read")
        return await load_workspace(self.places, actor.audience.workspace_id)

    async def save_workspace_settings(self, actor: Actor, settings: WorkspaceSettings) -> None:
        """Replace the workspace's settings; storage notes it in the audit.

        Raises:
            NotAdministrator: the actor is none.
        """
        self._require(actor)
        workspace = actor.audience.workspace_id
        await save_workspace(self.places, workspace, settings, by=actor.member_id)

    async def queue(self, actor: Actor, recipe: Recipe, *, place: Mapping[str, str]) -> RunId:
        """Queue a run, which waits until a training worker takes it; storage notes it in the audit.

        Args:
            place: where to report, as the surface will want to be told.

        Raises:
            NotAdministrator: the actor is none.
        """
        self._require(actor)
        return await self.runs.queue(
            recipe,
            workspace_id=actor.audience.workspace_id,
            by=actor.member_id,
            place=place,
        )

    async def status(self, actor: Actor) -> Status:
        """How engine, documents, versions and runs are; what is down is part of the answer.

        Raises:
            NotAdministrator: the actor is none.
        """
        await self._note(actor, "status_read")
        models: Sequence[ModelInfo] = ()
        trouble = None
        try:
            models = await answering_models(self.engine, actor.audience.workspace_id)
        except EngineError as error:
            trouble = str(error)
        counts: dict[str, int] = {}
        for document in await self.documents.list(audience=actor.audience):
            counts[document.status] = counts.get(document.status, 0) + 1
        return Status(
            models=models,
            engine_trouble=trouble,
            documents=counts,
            training=await training_status(self.pool, actor.audience.workspace_id),
        )

    async def forget(self, audience: Audience, *, also: Sequence[MemberId] = ()) -> Forgotten:
        """Delete what is stored of the acting person, who alone may ask for it; for good.

        Args:
            also: the same person in further workspaces.

        Raises:
            ValueError: the audience names nobody.
            StorageUnavailable: not everything was deleted; safe to retry.
        """
        if audience.member_id is None:
            raise ValueError("only a person can be forgotten")
        forgotten = await forget(self.pool, audience.member_id, files_dir=self.files_dir)
        for member_id in also:
            if member_id != audience.member_id:
                forgotten += await forget(self.pool, member_id, files_dir=self.files_dir)
        return forgotten

    def _require(self, actor: Actor) -> None:
        if not actor.administers:
            logger.warning("an administrator's verb was refused", extra={"action": "admin_refused"})
            raise NotAdministrator

    def _channel(self, actor: Actor) -> ChannelId:
        self._require(actor)
        if actor.audience.channel_id is None:
            raise NoChannel
        return actor.audience.channel_id

    async def _note(self, actor: Actor, action: str) -> None:
        """Check, and note in the audit what changes nothing itself."""
        self._require(actor)
        await audit.record(
            self.pool,
            workspace_id=actor.audience.workspace_id,
            member_id=actor.member_id,
            action=action,
            subject_id=actor.audience.channel_id or actor.audience.workspace_id,
            details={},
        )


async def answering_models(engine: EngineClient, workspace_id: WorkspaceId) -> list[ModelInfo]:
    """What may answer a workspace: no embedder, and no version that others' ratings made.

    Raises:
        EngineUnavailable: nobody answers.
    """
    models = await engine.models()
    embedders = {model.root for model in models if model.name == "embedder"}
    return [
        model
        for model in models
        if model.root not in embedders and not is_elsewhere(model.name, workspace_id)
    ]
