"""Which version answers a workspace: tried on a share, promoted, rolled back.

The engine swaps an alias in one step and drops no request; the database says what is meant. Where
a run does it, the engine is told first and the database after it: whatever a crash leaves half done
is done again by asking once more. Which version a run means is settled before, and written down:
asked again, it means the same one.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.client import EngineClient
from engine.errors import EngineError
from storage.identity import MemberId, WorkspaceId
from storage.model_versions import ModelVersion, ModelVersions, is_version, live_alias
from storage.notices import NewNotice
from training.errors import TrainingError

logger = logging.getLogger(__name__)

UNUSED_S: Final = 600.0
"""After which a version that answers nobody leaves the engine; a turn that chose it has ended."""
BASE: Final = "base"
"""What a rollback calls the model that answers where no version is live."""
LIVE: Final = "live"
"""The engine's name for that model."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A version that answers everybody now, and the one that did before; None = the base."""

    version: ModelVersion
    before: ModelVersion | None

    def told(self) -> dict[str, Any]:
        """As a run's result."""
        return {"version": self.version.name, "before": _name(self.before)}


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Which version is taken back, by name.

    Attributes:
        tried: whether it is only tried; its trial ends then.
        to: the version that answers in place of a live one; None = the base.
    """

    version: str
    tried: bool
    to: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSwitch:
    """Changes what answers a workspace. All of it may raise StorageUnavailable and EngineError."""

    versions: ModelVersions
    engine: EngineClient

    async def try_out(self, version: ModelVersion, *, share: float) -> bool:
        """Let a candidate answer a share of the workspace's threads.

        An engine that is away costs the trial some time and not the run that made the version:
        `load_serving` loads it later, and until then the live model answers.

        Returns:
            False where it is no candidate any more: somebody promoted it, or took it back, before.
        """
        if not await self.versions.start_canary(version.id, share=share):
            return False
        try:
            await self._load(version)
        except EngineError as error:
            logger.warning("loaded later: %s", error, extra={"action": "canary_not_loaded"})
        logger.info("canary started", extra={"action": "canary_started", "model": version.name})
        return True

    async def promote(
        self, workspace_id: WorkspaceId, name: str | None, *, by: MemberId | None
    ) -> Promotion:
        """Let a version answer the whole workspace.

        Args:
            name: of the version; None = the one that is tried, else the newest candidate. A version
                about which the gate could not decide answers only where it is named.

        Raises:
            TrainingError: there is none that may answer.
        """
        version = await self._chosen(workspace_id, name)
        before = (await self.versions.serving(workspace_id)).live
        await self._load(version)
        await self.engine.alias(live_alias(workspace_id), version.name)
        await self.versions.promote(version.id, by=by)
        promotion = Promotion(version=version, before=before)
        _log(promotion)
        return promotion

    async def promote_tried(self, promotion: Promotion, *, notice: NewNotice | None) -> bool:
        """Let a tried version answer the whole workspace, unless its trial has ended meanwhile.

        Here the database comes before the engine, because it alone knows whether the trial goes on;
        what a crash leaves half done, `load_serving` does.

        Args:
            notice: left with the promotion, because no run does it again after a crash.

        Returns:
            False where it is not tried any more: somebody took it back, or promoted it, before.
        """
        version = promotion.version
        await self._load(version)
        if not await self.versions.promote(version.id, by=None, was="canary", notice=notice):
            return False
        await self.engine.alias(live_alias(version.workspace_id), version.name)
        _log(promotion)
        return True

    async def to_promote(self, workspace_id: WorkspaceId) -> str:
        """Name of the version that a promotion without a name means now.

        Raises:
            TrainingError: there is none that may answer.
        """
        return (await self._chosen(workspace_id, None)).name

    async def to_roll_back(self, workspace_id: WorkspaceId, *, to: str | None) -> Rollback:
        """What a rollback means now: the end of a trial, or else another version in place of live.

        Args:
            to: name of the version that shall answer in place of the live one, or of the base
                model: `base`, or as the engine lists it, which ends a trial where none is live.
                None = where a version is tried, its end, else the last version that was live
                before and whose model is still there.

        Raises:
            TrainingError: no version answers this workspace, or nothing is called `to`.
        """
        serving = await self.versions.serving(workspace_id)
        tried, live = serving.canary, serving.live
        if tried is not None and (to is None or (live is None and await self._means_base(to))):
            return Rollback(version=tried.name, tried=True)
        if live is None and tried is not None:
            raise TrainingError(
                "No version answers everybody yet: one is only tried.",
                advice="`rollback` without a name ends its trial; `promote` lets one answer.",
            )
        if live is None:
            raise TrainingError("No trained version answers this workspace: nothing to take back.")
        before = await (self._before(live) if to is None else self._meant(live, to))
        if before is not None and before.id == live.id:
            raise TrainingError(f"{to} is live.")
        return Rollback(version=live.name, tried=False, to=_name(before))

    async def roll_back(
        self, workspace_id: WorkspaceId, rollback: Rollback, *, by: MemberId | None, why: str
    ) -> Mapping[str, Any]:
        """Take a version out of service, once however often it is asked; returns what to tell.

        Raises:
            TrainingError: it does not answer any more, for another reason.
        """
        version = await self._named(workspace_id, rollback.version)
        if version.status != "rolled_back":
            if rollback.tried:
                ended = await self.end_trial(version, by=by, why=why)
            else:
                ended = await self._replace(version, rollback.to, by=by, why=why)
            if not ended:
                what = "tried" if rollback.tried else "live"
                raise TrainingError(f"{version.name} is not {what} any more; look again.")
        serving = await self.versions.serving(workspace_id)
        told = {"version": version.name, "now": _name(serving.live), "why": why}
        return told | ({"still_tried": serving.canary.name} if serving.canary else {})

    async def _replace(
        self, version: ModelVersion, to: str | None, *, by: MemberId | None, why: str
    ) -> bool:
        """Let another version answer in place of the live one; False where it is not live.

        Turns that chose it may still be under way: `unload_unused` frees it later.
        """
        before = await self._named(version.workspace_id, to) if to is not None else None
        alias = live_alias(version.workspace_id)
        if before is not None:
            await self._load(before)
            await self.engine.alias(alias, before.name)
        elif (base := await self._base()) is not None:
            await self.engine.alias(alias, base)
        replaced = await self.versions.roll_back(
            version.id, was="live", to=before.id if before else None, by=by, why=why
        )
        if replaced:
            logger.info("rolled back", extra={"action": "rolled_back", "model": version.name})
        return replaced

    async def end_trial(
        self,
        version: ModelVersion,
        *,
        by: MemberId | None,
        why: str,
        notice: NewNotice | None = None,
    ) -> bool:
        """Take a tried version out of service.

        Turns that chose it may still be under way: `unload_unused` frees it later.

        Args:
            notice: left with it, as for `promote_tried`.

        Returns:
            False where it is not tried any more: somebody promoted it, or took it back, before.
        """
        ended = await self.versions.roll_back(
            version.id, was="canary", to=None, by=by, why=why, notice=notice
        )
        if ended:
            logger.info("trial ended", extra={"action": "rolled_back", "model": version.name})
        return ended

    async def load_serving(self) -> None:
        """Load every version that answers anybody into an engine that does not know it.

        A version that cannot be loaded is logged, and keeps none of the others from it; until it
        can be, the model of the settings answers its workspace.
        """
        roots = {model.name: model.root for model in await self.engine.models()}
        for version in await self.versions.serving_everywhere():
            alias = live_alias(version.workspace_id)
            try:
                if version.name not in roots:
                    await self._load(version)
                if version.status == "live" and roots.get(alias) != version.name:
                    await self.engine.alias(alias, version.name)
            except EngineError as error:
                logger.error(
                    "%s is not served: %s",
                    version.name,
                    error,
                    extra={"action": "version_missing", "model": version.name},
                )

    async def unload_unused(self) -> None:
        """Free the memory of versions that have answered nobody for some time.

        Such are those that were replaced, rolled back, whose trial ended, or whose workspace is
        gone.
        """
        models = await self.engine.models()
        loaded = [each.name for each in models if each.name == each.root and is_version(each.name)]
        for version in await self.versions.unused(loaded, for_s=UNUSED_S):
            await self._unload(version.name)
        for name in loaded:
            if not await self.versions.named(name):
                await self._unload(name)

    async def _chosen(self, workspace_id: WorkspaceId, name: str | None) -> ModelVersion:
        if name is not None:
            return await self._named(workspace_id, name)
        versions = await self.versions.list(workspace_id)
        ready = [each for each in versions if each.status in ("canary", "candidate")]
        ready.sort(key=lambda each: (each.status == "canary", each.number), reverse=True)
        if not ready:
            raise TrainingError(
                "There is no candidate to promote.",
                advice="Train one, or name a version: `parley versions` lists them.",
            )
        return ready[0]

    async def _meant(self, live: ModelVersion, to: str) -> ModelVersion | None:
        """What a rollback of the live version names; None = the base model."""
        if await self._means_base(to):
            return None
        return await self._named(live.workspace_id, to, also=(BASE,))

    async def _means_base(self, to: str) -> bool:
        return to == BASE or to == await self._base()

    async def _base(self) -> str | None:
        """The base model's own name; None where the engine has none."""
        models = await self.engine.models()
        return next((model.root for model in models if model.name == LIVE), None)

    async def _named(
        self, workspace_id: WorkspaceId, name: str, *, also: Sequence[str] = ()
    ) -> ModelVersion:
        """A version that may answer, by the engine's name or as `v7`.

        Args:
            also: what could be named besides versions, for who named nothing of either.
        """
        versions = await self.versions.list(workspace_id)
        found = next((each for each in versions if name in (each.name, f"v{each.number}")), None)
        if found is None:
            known = ", ".join([*(f"v{each.number}" for each in versions), *also]) or "none"
            raise TrainingError(f"There is no version {name!r}; there are: {known}.")
        if found.status == "rejected":
            raise TrainingError(
                f"The gate rejected {name}.", advice="`parley versions` shows its reasons."
            )
        return found

    async def _before(self, version: ModelVersion) -> ModelVersion | None:
        """The version that answered before, of those whose model is still there."""
        retired = [
            each
            for each in await self.versions.list(version.workspace_id)
            if each.status == "retired" and _is_there(each)
        ]
        return max(retired, key=lambda each: each.status_at, default=None)

    async def _load(self, version: ModelVersion) -> None:
        known = {model.name for model in await self.engine.models()}
        if version.name not in known:
            await self.engine.load(version.name, f"ctranslate2:{version.directory}")

    async def _unload(self, name: str) -> None:
        """Free a version's memory; one that cannot be freed now harms nobody."""
        try:
            await self.engine.unload(name)
        except EngineError as error:
            logger.warning("not unloaded: %s", error, extra={"action": "unload_failed"})


def _is_there(version: ModelVersion) -> bool:
    """Whether nobody has removed a version's model."""
    return Path(version.directory).is_dir()


def _log(promotion: Promotion) -> None:
    version, before = promotion.version, promotion.before
    if before is not None and before.id != version.id:
        logger.info("retired", extra={"action": "version_retired", "model": before.name})
    logger.info("promoted", extra={"action": "version_promoted", "model": version.name})


def _name(version: ModelVersion | None) -> str | None:
    return version.name if version is not None else None
