"""`python -m tests.benchmarks <name>...`: run benchmarks and print their tables."""

import argparse
import importlib
import json
import pkgutil
import sys
from dataclasses import asdict
from types import ModuleType

import tests.benchmarks
from tests.benchmarks import Row

_MARKS = {True: "yes", False: "NO", None: ""}


def main() -> int:
    """Exit code 1 when a full run misses a target; a short run judges nothing."""
    modules = _modules()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(modules))
    parser.add_argument("--short", action="store_true", help="small numbers, no judgement")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(modules))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(modules)}")
    rows: list[Row] = []
    for name in args.names or modules:
        found = []
        for row in modules[name].run(short=args.short):
            print(f"{name}: {row.what}: {row.reached}", file=sys.stderr, flush=True)
            found.append(row)
        rows += found
        if not args.json:
            _print(name, found)
    if args.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    return int(not args.short and any(row.ok is False for row in rows))


def _modules() -> dict[str, ModuleType]:
    """Modules with a `run`, by name; the others are helpers."""
    found = {
        info.name: importlib.import_module(f"tests.benchmarks.{info.name}")
        for info in pkgutil.iter_modules(tests.benchmarks.__path__)
        if info.name != "__main__"
    }
    return {name: module for name, module in found.items() if hasattr(module, "run")}


def _print(name: str, rows: list[Row]) -> None:
    table = [(name, "reached", "target", "ok")]
    table += [(row.what, row.reached, row.target, _MARKS[row.ok]) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for number, line in enumerate(table):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
