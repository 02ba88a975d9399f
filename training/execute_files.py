"""What a run's process leaves, and how it ends; known to the worker, which imports no torch.

Each stage leaves a `RESULT` as well, in its own folder.
"""

from typing import Final

EXIT_FAILED: Final = 3
EXIT_DISK_FULL: Final = 4
EXIT_STOPPED: Final = 130
RESULT: Final = "result.json"
FAILURE: Final = "failure.json"
GATE: Final = "gate.json"
EVENTS: Final = "events.jsonl"
LOG: Final = "log"
