"""The child: read one file under limits and write records as JSON lines.

Records: `{"record": "block", …fields of Block}`, `progress`, `ocr` (text recognition began), and at
the end exactly one of `end`, `rejected` (with `reason`) or `malformed` (a reader failed; with
`detail`).
"""

import argparse
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

from storage.errors import DocumentRejected
from storage.parsing.blocks import Block, ParseLimits
from storage.parsing.extracted import extracted_blocks
from storage.parsing.reading import Reading, Source
from storage.parsing.supervisor import TOO_MUCH_MEMORY

PR_SET_PDEATHSIG = 1
NICENESS = 10


def main() -> int:
    """Parse the arguments, confine this process, and write the records to stdout."""
    parser = argparse.ArgumentParser(prog="python -m storage.parsing", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", required=True, help="the name that the owner gave the file")
    parser.add_argument("--limits", default="{}", help="fields of ParseLimits as JSON")
    parser.add_argument("--parent", type=int, help="process id whose death ends this process")
    args = parser.parse_args()
    limits = ParseLimits(**json.loads(args.limits))
    confine(limits, parent=args.parent)
    reading = Reading(limits=limits, report=write_record)
    try:
        for block in extracted_blocks(reading.read(Source(args.path, args.name)), limits):
            write_block(block)
    except DocumentRejected as error:
        write_record(record="rejected", reason=error.reason)
    except MemoryError:
        write_record(record="rejected", reason=TOO_MUCH_MEMORY)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # a reader met bytes that its library did not expect
        reason = f"The file is damaged or malformed: {reading.format_label} reading failed."
        detail = "".join(traceback.format_exception(error, limit=-8))
        write_record(record="malformed", reason=reason, detail=detail[:20_000])
    else:
        write_record(record="end")
    sys.stdout.flush()
    os._exit(0)  # native libraries may crash in their finalisers on hostile files


def confine(limits: ParseLimits, *, parent: int | None) -> None:
    """Bound memory, CPU time and file sizes, go to the back of the queue, die with the parent."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        sys.exit(1)  # it died before the line above
    resource.setrlimit(
        resource.RLIMIT_AS,
        (limits.memory_bytes, max(limits.memory_bytes, limits.ocr_memory_bytes)),
    )
    cpu_s = int(limits.timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, int(2 * limits.ocr_timeout_s) + cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.max_expanded_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)


def write_block(block: Block) -> None:
    """Write one block; fields at their defaults too, so that the parent needs no rules."""
    write_record(
        record="block",
        kind=block.kind,
        text=block.text,
        page=block.page,
        level=block.level,
        offset=block.offset,
    )


def write_record(**record: object) -> None:
    """Write one JSON line and send it at once when somebody waits for progress."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    if record["record"] != "block":
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
