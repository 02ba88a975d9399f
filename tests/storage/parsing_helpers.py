"""What the tests of parsing share: a file through the real child, and the children there are."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.errors import DocumentRejected
from storage.parsing import Block, ParseLimits, Progress, parse

CHECKOUT = Path(__file__).resolve().parents[2]
EVALUATION_DATA = Path(os.environ.get("PARLEY_EVAL_DATA", CHECKOUT.parent / "shared" / "data"))
DOCUMENTS = EVALUATION_DATA / "documents"

needs_documents = pytest.mark.skipif(
    not DOCUMENTS.is_dir(), reason=f"no evaluation documents at {DOCUMENTS} (PARLEY_EVAL_DATA)"
)


@dataclass
class Outcome:
    """All that parsing one file gave."""

    blocks: list[Block]
    progress: list[Progress]
    reason: str | None

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks)

    def of(self, kind: str) -> list[str]:
        return [block.text for block in self.blocks if block.kind == kind]


async def outcome_of(
    path: Path, *, name: str | None = None, limits: ParseLimits | None = None
) -> Outcome:
    """Parse a file to its end, whatever that is."""
    outcome = Outcome([], [], None)
    try:
        async for block in parse(
            path,
            name=name or path.name,
            limits=limits or ParseLimits(),
            on_progress=outcome.progress.append,
        ):
            outcome.blocks.append(block)
    except DocumentRejected as error:
        outcome.reason = error.reason
    return outcome


async def outcome_of_bytes(
    folder: Path, name: str, data: bytes, *, limits: ParseLimits | None = None
) -> Outcome:
    """Parse bytes under a name."""
    path = folder / "upload"
    path.write_bytes(data)
    return await outcome_of(path, name=name, limits=limits)


def children_reading(path: Path) -> list[Path]:
    """Folders in /proc of the running children that read a file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if b"storage.parsing" in arguments and os.fsencode(path) in arguments:
                found.append(process)
    return found
