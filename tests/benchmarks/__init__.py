"""Benchmarks: `python -m tests.benchmarks <name> [--short] [--json]` prints reached against target.

A benchmark is a module here with `def run(*, short: bool) -> Iterable[Row]`; `short` keeps every
path and shrinks every number, for CI, which looks at errors and not at times. Rows are told on
standard error as they come, and make a table at the end.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: what, how much, and what is asked.

    Attributes:
        ok: whether the target is met; None where nothing is asked.
    """

    what: str
    reached: str
    target: str = ""
    ok: bool | None = None
