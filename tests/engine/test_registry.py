"""What the engine serves, and what it remembers of that when it starts again."""

import asyncio
import json
from pathlib import Path

from engine.metrics import Metrics
from engine.registry import LIVE, STATE_FILE, Registry
from engine.scheduler import Scheduler
from engine.settings import EngineSettings

TIMEOUT_S = 60.0


async def test_a_change_while_models_are_loaded_forgets_none_of_them(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """The training worker asks for its workspaces' aliases as soon as the engine listens."""
    (tmp_path / "tiny").symlink_to(tiny_model_dir)
    kept = {"models": {"loaded": "ctranslate2:tiny"}, "aliases": {LIVE: "loaded"}}
    (tmp_path / STATE_FILE).write_text(json.dumps(kept))
    metrics = Metrics()
    registry = Registry(
        settings=EngineSettings(
            models={"first": "ctranslate2:tiny"}, live="first", embedder="ctranslate2:tiny"
        ),
        models_dir=tmp_path,
        scheduler=Scheduler(
            lanes=1, max_batch_size=1, batch_wait_s=0.0, max_queue=1, metrics=metrics
        ),
        metrics=metrics,
    )
    async with asyncio.timeout(TIMEOUT_S):
        starting = asyncio.create_task(registry.start())
        while "first" not in registry.names:  # noqa: ASYNC110 - no event tells of one model
            await asyncio.sleep(0.001)
        await registry.alias("theirs", "first")
        await starting
    try:
        told = json.loads((tmp_path / STATE_FILE).read_text())
        assert set(told["models"]) == {"first", "loaded", "tiny"}
        assert told["aliases"][LIVE] == "loaded" and told["aliases"]["theirs"] == "first"
    finally:
        await registry.close()
