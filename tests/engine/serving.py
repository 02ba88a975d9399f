"""A real `engine serve` process for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

START_TIMEOUT_S = 60.0
POLL_S = 0.02


class EngineProcess:
    """`python -m engine serve` on a free port; a context manager that ends it with SIGTERM."""

    def __init__(
        self, *, home: Path, models: dict[str, str], live: str, embedder: str, **settings: object
    ) -> None:
        values: dict[str, object] = {
            "models": json.dumps(models),
            "live": live,
            "embedder": embedder,
            "port": 0,
            "admin_token": "the-admin-token",
            **settings,
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
            "PARLEY_HOME": str(home),
            **{f"PARLEY_ENGINE__{name.upper()}": str(value) for name, value in values.items()},
        }
        self.log = home / "engine.log"

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine", "serve"],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.log.read_text()
        self.wait_for(lambda: httpx.get(f"{self.url}/healthz").json()["status"] != "loading")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process with a signal; return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(START_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def wait_for(self, condition: object) -> None:
        """Poll until a condition holds."""
        assert callable(condition)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(POLL_S)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples over its labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        samples = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in samples)
