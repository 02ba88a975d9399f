"""Runs side by side: what went into each, how each stage went, what the gate measured. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from storage.runs import Metric, StoredRun

NAME_WIDTH: Final = 34
CELL_WIDTH: Final = 36
"""Characters of a column; longer cells are cut, and `--json` has them whole."""
_PARTS: Final = ("_before", "_gain", "_low", "_high")


def comparison(
    runs: Sequence[tuple[StoredRun, Sequence[Metric], Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """What tells runs apart, by name, one mapping for each run.

    Args:
        runs: each with what it told of its steps, and its plan as training wrote it down (empty
            where it is not at hand).
    """
    recipes = [_recipe(run, plan) for run, _, plan in runs]
    differing = _differing(recipes)
    columns = []
    for (run, metrics, plan), recipe in zip(runs, recipes, strict=True):
        column = {
            **_origin(run, plan),
            **_seeds(recipe),
            **{f"recipe {name}": recipe[name] for name in differing if name in recipe},
            **_steps(metrics),
            **_measures(run),
            **_gate(run),
        }
        columns.append(column)
    return columns


def table(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """The comparison as lines of a table."""
    return [
        f"{name[: NAME_WIDTH - 1]:<{NAME_WIDTH}}"
        + "".join(f"{_cell(column.get(name)):<{CELL_WIDTH}}" for column in columns).rstrip()
        for name in dict.fromkeys(key for column in columns for key in column)
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = " ".join(str(value).split())
    return text if len(text) < CELL_WIDTH else f"{text[: CELL_WIDTH - 2]}…"


def _origin(run: StoredRun, plan: Mapping[str, Any]) -> dict[str, Any]:
    base = str(plan.get("base") or run.result.get("base") or "")
    code = str(run.result.get("code") or plan.get("code") or "")
    return {
        "version": run.result.get("version"),
        "status": run.status,
        "outcome": run.result.get("outcome") or run.failure,
        "snapshot": run.snapshot_sha256 and run.snapshot_sha256[:12],
        "base": base.rpartition("/")[2] or None,
        "code": code.removesuffix("-dirty")[:16] + "-dirty" * code.endswith("-dirty") or None,
    }


def _recipe(run: StoredRun, plan: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recipe, flat: `sft.lora.r`; as it was asked for where no plan is at hand."""
    recipe = plan.get("recipe") or run.parameters.get("recipe") or {}
    if isinstance(recipe, str):
        return {"kind": recipe}
    return _flat(recipe, "")


def _flat(value: Mapping[str, Any], above: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if name == "stages":
            for stage in inner:
                found |= _flat(stage, f"{stage.get('kind')}.")
        elif isinstance(inner, Mapping):
            found |= _flat(inner, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = inner
    return found


def _differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    return [
        name
        for name in names
        if not _is_seed(name) and len({repr(recipe.get(name)) for recipe in recipes}) > 1
    ]


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "seed"


def _seeds(recipe: Mapping[str, Any]) -> dict[str, Any]:
    seeds = dict.fromkeys(str(value) for name, value in recipe.items() if _is_seed(name))
    return {"seed": ", ".join(seeds)} if seeds else {}


def _steps(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Each stage's steps, last loss and mean speed."""
    found: dict[str, Any] = {}
    for stage in dict.fromkeys(metric.stage for metric in metrics):
        told = [each.values for each in metrics if each.stage == stage]
        losses = [values["loss"] for values in told if "loss" in values]
        speeds = [values["tokens_per_s"] for values in told if "tokens_per_s" in values]
        if losses:
            found[f"{stage}: steps"] = len(losses)
            found[f"{stage}: last loss"] = f"{losses[-1]:.4f}"
        if speeds:
            found[f"{stage}: tokens/s"] = f"{statistics.fmean(speeds):.0f}"
    return found


def _measures(run: StoredRun) -> dict[str, Any]:
    """Each stage's held-out measures: before -> after (interval of what was gained)."""
    found: dict[str, Any] = {}
    for stage, told in run.result.get("stages", {}).items():
        if told.get("left_out"):
            found[f"{stage}: left out"] = told["left_out"]
        if "rows" in told:
            found[f"{stage}: rows"] = told["rows"]
        metrics = told.get("metrics", {})
        for name, value in metrics.items():
            if not name.startswith("held_out_") or name.endswith(_PARTS):
                continue
            before = metrics.get(f"{name}_before")
            start = f"{before:.3f} -> " if before is not None else ""
            gain = metrics.get(f"{name}_gain_low"), metrics.get(f"{name}_gain_high")
            gained = f" ({gain[0]:+.3f} to {gain[1]:+.3f})" if None not in gain else ""
            found[f"{stage}: {name.removeprefix('held_out_')}"] = f"{start}{value:.3f}{gained}"
    return found


def _gate(run: StoredRun) -> dict[str, Any]:
    """What the gate measured: the candidate, against the model that was live."""
    figures = run.result.get("gate", {}).get("figures", {})
    ours, theirs = figures.get("candidate", {}), figures.get("live", {})
    found: dict[str, Any] = {
        f"gate: {name}": f"live {_figure(theirs.get(name))} -> {_figure(ours.get(name))}"
        for name in dict.fromkeys([*theirs, *ours])
    }
    reasons = " ".join(run.result.get("reasons", ()))
    return found | ({"gate: reasons": reasons} if reasons else {})


def _figure(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "-"
