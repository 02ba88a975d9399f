"""What snapshots still hold of people who are forgotten: found by who rated, and deleted.

Why a snapshot loses all its rows and not that person's alone: without some of them it would no
longer be what its hash says. The manifest stays, so that it can be told what a model was made of.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedback import datasets
from storage.identity import MemberId
from storage.members import Members
from storage.pool import Pool

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ForgottenRows:
    """Deletes the rows of snapshots that rest on ratings of somebody who is forgotten.

    Attributes:
        directory: of the snapshots; it need not exist.
    """

    pool: Pool
    directory: Path
    _voters: dict[tuple[Path, int], frozenset[MemberId] | None] = field(
        default_factory=dict, init=False
    )
    """Of each snapshot as it was last changed (ns), so that none is read at every look."""

    async def sweep(self) -> int:
        """Delete what is to go; returns how many snapshots lost their rows.

        Every step is one snapshot, read line by line, so that a sweep can be left at any time; one
        that was killed is gone on with by the next. What a kill left of a snapshot that was being
        written goes as well. A snapshot that does not say who rated loses its rows, too: nobody
        could tell whose they are, and no run takes it.

        Raises:
            StorageUnavailable: nothing was deleted; safe to repeat.
        """
        await asyncio.to_thread(datasets.remove_leftovers, self.directory)
        await self._look()
        rated = {each for voters in self._voters.values() for each in voters or ()}
        known = await Members(self.pool).known(rated)
        deleted = 0
        for (folder, _), voters in self._voters.items():
            if voters is None or not voters <= known:
                with _logged(folder):
                    await asyncio.to_thread(datasets.remove_rows, folder)
                    deleted += 1
                    logger.info("rows were deleted", extra=_about(folder, "rows_deleted"))
        return deleted

    async def _look(self) -> None:
        """Find out who rated what the snapshots hold."""
        seen = self._voters
        self._voters = {}
        for folder in await asyncio.to_thread(datasets.with_rows, self.directory):
            with _logged(folder):
                key = (folder, folder.stat().st_mtime_ns)
                if key not in seen:
                    seen[key] = await asyncio.to_thread(datasets.voters_of, folder)
                self._voters[key] = seen[key]


@contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Log what the disk refuses of one snapshot; it keeps no other one's rows from going."""
    try:
        yield
    except OSError as error:
        logger.warning(
            "rows were not deleted: %s", error.strerror, extra=_about(folder, "rows_not_deleted")
        )


def _about(folder: Path, action: str) -> dict[str, Any]:
    return {"action": action, "snapshot": folder.name}
