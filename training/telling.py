"""Writes notices of runs and versions for the chats, each with a picture of what was measured."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.model_versions import ModelVersion
from storage.notices import About, NewNotice
from storage.pool import Pool
from storage.runs import RunId, Runs, StoredRun
from training import pictures, reports
from training.serving import Promotion

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Telling:
    """Words for the place of a run; all of it may raise StorageUnavailable, safe to repeat."""

    pool: Pool

    async def made(
        self,
        run: StoredRun,
        version: ModelVersion,
        result: Mapping[str, Any],
        *,
        share: float | None,
        instead: ModelVersion | None = None,
    ) -> NewNotice:
        """A training that made a version, and the share of the threads that it answers now."""
        learnt = await Runs(self.pool).ratings_behind(run.id)
        text = reports.made(result, learnt=learnt, tried=share, instead=instead)
        return await self._pictured(run, text, version, about="ended")

    async def judged(
        self,
        run: StoredRun,
        version: ModelVersion,
        result: Mapping[str, Any],
        *,
        share: float | None,
        instead: ModelVersion | None = None,
    ) -> NewNotice:
        """A version about which the gate was asked again."""
        text = reports.judged(result, tried=share, instead=instead)
        return await self._pictured(run, text, version, about="ended")

    async def promotion(self, run: StoredRun, promoted: Promotion, *, by: str) -> NewNotice:
        """A version that answers everybody: how many ratings made it, and how it compares."""
        version = promoted.version
        votes = await Runs(self.pool).ratings_behind(version.run_id) if version.run_id else 0
        text = reports.promoted(version, before=promoted.before, votes=votes, by=by)
        return await self._pictured(run, text, version, about="promoted", learnt=version.run_id)

    def trial(self, run: StoredRun, text: str, *, about: About) -> NewNotice:
        """What live votes say of the version that a run made, for where that was asked for."""
        return NewNotice(run=run, text=text, about=about, learnt=run.id)

    async def _pictured(
        self,
        run: StoredRun,
        text: str,
        version: ModelVersion,
        *,
        about: About,
        learnt: RunId | None = None,
    ) -> NewNotice:
        """A notice with what the gate measured, where there is anybody to look at it."""
        picture = None
        if version.gate.get("figures") and (run.place or learnt):
            try:
                picture = await pictures.gate(f"v{version.number}", version.gate)
            except Exception:  # whatever it is: what was carried out does not hang on a picture
                logger.exception("no picture", extra={"action": "picture_failed"})
        return NewNotice(run=run, text=text, about=about, picture=picture, learnt=learnt)
