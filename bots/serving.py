"""Which model answers a workspace that has trained one: its live version, or the one being tried.

A thread keeps its model: the share of a tried version is a share of the threads, so nobody sees two
models take turns in one conversation.
"""

import hashlib
import logging
from dataclasses import dataclass

from engine.client import EngineClient
from storage.identity import ThreadId, WorkspaceId
from storage.model_versions import ModelVersion, ModelVersions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServingModels:
    """Chooses among the versions of a workspace."""

    versions: ModelVersions
    engine: EngineClient

    async def model(self, workspace_id: WorkspaceId, thread_id: ThreadId | None) -> str | None:
        """The version that answers; None for the model that the settings name.

        Args:
            thread_id: decides whether the tried version answers; None = it does not.

        Raises:
            StorageUnavailable: safe to retry.
            EngineUnavailable: nobody answers.
        """
        serving = await self.versions.serving(workspace_id)
        tried = serving.canary
        tries = tried is not None and thread_id is not None and in_share(thread_id, tried)
        chosen = tried if tries else serving.live
        if chosen is None or await self._is_loaded(chosen):
            return chosen.name if chosen is not None else None
        logger.warning(
            "%s is not loaded; the model of the settings answers instead",
            chosen.name,
            extra={"action": "version_missing", "model": chosen.name},
        )
        return None

    async def _is_loaded(self, version: ModelVersion) -> bool:
        return any(model.name == version.name for model in await self.engine.models())


def in_share(thread_id: ThreadId, version: ModelVersion) -> bool:
    """Whether a thread is among those that a tried version answers, always the same for both."""
    digest = hashlib.sha256(thread_id.bytes + version.id.bytes).digest()
    return int.from_bytes(digest[:8], "big") < version.share * 2**64
