"""Watches versions that are tried: better ones are promoted, worse ones taken back.

The votes of both models are weighed again at every look; the test stays honest however often one
looks (`training.sequential`).
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from engine.errors import EngineError
from storage.errors import StorageUnavailable
from storage.model_versions import ModelVersion, is_version
from storage.notices import Notices
from storage.pool import Pool
from storage.runs import RunId, Runs, StoredRun
from storage.settings import TrainingSettings
from training import reports
from training.errors import TrainingError
from training.sequential import Arm, Standing, Vote, standing
from training.serving import ModelSwitch, Promotion
from training.steered import steered
from training.telling import Telling

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30.0
DOUBT_AGAIN_S: Final = 3600.0
"""After which a doubt is looked into again: that reads all ratings of a workspace."""


@dataclass(frozen=True, kw_only=True)
class CanaryWatch:
    """Looks at the versions that are tried."""

    pool: Pool
    switch: ModelSwitch
    settings: TrainingSettings
    _doubts: dict[RunId, tuple[float, str]] = field(default_factory=dict, init=False, repr=False)
    """Since when which doubt about a run stands."""

    async def watch(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look_around()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look_around(self) -> None:
        """Keep in the engine what serves, and look at every version that is tried.

        What fails for one workspace is logged, and keeps none of the others from theirs.
        """
        with _logged():
            await self.switch.load_serving()
            await self.switch.unload_unused()
        with _logged():
            for version in await self.switch.versions.serving_everywhere():
                if version.status == "canary":
                    with _logged(model=version.name):
                        await self.look(version)

    async def look(self, version: ModelVersion) -> Standing:
        """Weigh the votes that came since a version is tried, and act on them.

        Raises:
            StorageUnavailable, EngineError: safe to repeat.
            TrainingError: what made the version could not be looked through.
        """
        versions = self.switch.versions
        live = (await versions.serving(version.workspace_id)).live
        votes = [
            Vote(arm=arm, good=each.value > 0, thread=each.thread_id, voter=each.member_id)
            for each in await versions.votes(version.workspace_id, since=version.status_at)
            if (arm := _arm(each.model, tried=version, live=live)) is not None
        ]
        now = standing(votes)
        if now.verdict == "undecided":
            return now
        telling = Telling(pool=self.pool)
        run = await Runs(self.pool).get(version.run_id) if version.run_id is not None else None
        if now.verdict == "worse":
            why = f"people like its answers less ({now.votes} votes)"
            told = {"version": version.name, "now": live.name if live else None, "why": why}
            text = reports.rolled_back(told)
            notice = telling.trial(run, text, about="rolled back") if run else None
            await self.switch.end_trial(version, by=None, why=why, notice=notice)
            return now
        doubt = await self._doubt(run)
        if self.settings.promote == "auto" and doubt is None:
            promotion, by = Promotion(version=version, before=live), f"{now.votes} live votes"
            notice = await telling.promotion(run, promotion, by=by) if run else None
            await self.switch.promote_tried(promotion, notice=notice)
        elif run is not None:
            text = reports.better(version, votes=now.votes, doubt=doubt)
            await Notices(self.pool).add(telling.trial(run, text, about="better"))
        return now

    async def _doubt(self, run: StoredRun | None) -> str | None:
        """Why a version of this run must not be promoted by itself, where it otherwise would be."""
        if run is None or self.settings.promote != "auto":
            return None
        since, doubt = self._doubts.get(run.id, (0.0, None))
        if doubt is None or monotonic() - since >= DOUBT_AGAIN_S:
            doubt = await steered(self.pool, run)
            if doubt is not None:
                self._doubts[run.id] = monotonic(), doubt
        return doubt


def _arm(model: str, *, tried: ModelVersion, live: ModelVersion | None) -> Arm | None:
    """Whose an answer is by its model's name; None = of neither of the two.

    Where no version is live, all that no version wrote is the base model's: which one that is, the
    assistant's settings and the engine's alias `live` decide, and both may change meanwhile.
    """
    if model == tried.name:
        return "candidate"
    of_live = model == live.name if live is not None else not is_version(model)
    return "live" if of_live else None


@contextmanager
def _logged(**extra: str) -> Iterator[None]:
    """Log what fails; what nobody foresaw, with where it did."""
    try:
        yield
    except Exception as error:  # the watch must outlive whatever one workspace's look does
        expected = isinstance(error, StorageUnavailable | EngineError | TrainingError)
        extra |= {"action": "canary_unwatched"}
        logger.warning("not looked: %s", error, extra=extra, exc_info=not expected)
