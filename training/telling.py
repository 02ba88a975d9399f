"""Leaves notices of runs and versions for the chats, each with a picture of what was measured."""

import logging
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from storage.model_versions import ModelVersion
from storage.notices import About, Notices
from storage.pool import Pool
from storage.runs import RunId, Runs, StoredRun
from training import pictures, reports
from training.serving import Promotion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Telling:
    """Tells the place of a run; all of it may raise StorageUnavailable, safe to repeat."""

    pool: Pool

    async def of(
        self,
        run: StoredRun,
        text: str,
        *,
        about: About = "ended",
        title: str = "",
        gate: Mapping[str, Any] | None = None,
        learnt: RunId | None = None,
    ) -> None:
        """Leave one notice; see `Notices.add`.

        Args:
            gate: what the gate measured, for a picture under `title`.
        """
        picture = None
        if gate and gate.get("figures") and (run.place or learnt):
            try:
                picture = await pictures.gate(title, gate)
            except (TimeoutError, BrokenProcessPool):
                logger.warning("no picture was drawn", extra={"action": "picture_failed"})
        await Notices(self.pool).add(run, text, about=about, picture=picture, learnt=learnt)

    async def promotion(self, run: StoredRun, promoted: Promotion, *, by: str) -> None:
        """Tell that a version answers everybody: how many ratings made it, and how it compares."""
        version = promoted.version
        votes = await Runs(self.pool).ratings_behind(version.run_id) if version.run_id else 0
        await self.of(
            run,
            reports.promoted(version, before=promoted.before, votes=votes, by=by),
            about="promoted",
            title=f"v{version.number}",
            gate=version.gate,
            learnt=version.run_id,
        )

    async def trial(self, version: ModelVersion, text: str, *, about: About) -> None:
        """Tell what live votes say of a version, where its training was asked for."""
        run = await Runs(self.pool).get(version.run_id) if version.run_id is not None else None
        if run is not None:
            await self.of(run, text, about=about, learnt=run.id)
