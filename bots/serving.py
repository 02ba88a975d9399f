"""Which model answers a workspace that has trained one: its live version, or the one being tried.

A thread keeps its model: the share of a tried version is a share of the threads, so nobody sees two
models take turns in one conversation.
"""

import hashlib
import logging
from dataclasses import dataclass

from engine.client import EngineClient
from storage.identity import ThreadId, WorkspaceId
from storage.model_versions import ModelVersion, ModelVersions, is_elsewhere

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServingModels:
    """Chooses among the versions of a workspace."""

    versions: ModelVersions
    engine: EngineClient

    async def model(
        self, workspace_id: WorkspaceId, thread_id: ThreadId | None, *, named: str | None = None
    ) -> str | None:
        """The version that answers; None for the model that the settings name.

        A version that the engine does not know, such as one that was taken back, is left out: the
        next in line answers.

        Args:
            thread_id: decides whether the tried version answers; None = it does not.
            named: version that somebody chose for the place; comes before all others.

        Raises:
            StorageUnavailable: safe to retry.
            EngineUnavailable: nobody answers.
        """
        serving = await self.versions.serving(workspace_id)
        tried = serving.canary
        tries = tried is not None and thread_id is not None and in_share(thread_id, tried)
        in_line = [tried if tries else None, serving.live]
        names = [named, *(each.name for each in in_line if each is not None)]
        wanted = [name for name in names if name is not None]
        if not wanted:
            return None
        loaded = {model.name for model in await self.engine.models()}
        for name in wanted:
            if name in loaded and not is_elsewhere(name, workspace_id):
                return name
            logger.warning(
                "%s is not loaded; another model answers instead",
                name,
                extra={"action": "version_missing", "model": name},
            )
        return None


def in_share(thread_id: ThreadId, version: ModelVersion) -> bool:
    """Whether a thread is among those that a tried version answers, always the same for both."""
    digest = hashlib.sha256(thread_id.bytes + version.id.bytes).digest()
    return int.from_bytes(digest[:8], "big") < version.share * 2**64
