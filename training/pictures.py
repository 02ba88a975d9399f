"""Pictures of runs: their curves, and what the gate measured. For chats and the terminal.

Drawn in a process of its own, as the leaderboard is: matplotlib would stay in the worker for good.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from feedback.own_process import in_own_process
from storage.runs import Metric
from training.errors import process_errors

DRAW_S: Final = 60.0
_FAILED: Final = "The picture could not be drawn"
WIDTH_INCHES: Final = 8.0
DPI: Final = 120
_SHOWN: Final = ("answer F1", "contains", "preference accuracy", "citations", "refusals")


async def curves(runs: Mapping[str, Sequence[Metric]]) -> bytes:
    """A PNG of the losses and learning rates of some runs, by name, one colour each.

    Raises:
        TrainingError: it took longer than `DRAW_S`, or more memory than there is.
    """
    with process_errors(_FAILED):
        return await in_own_process(DRAW_S, draw_curves, dict(runs))


async def gate(name: str, report: Mapping[str, Any]) -> bytes:
    """A PNG of what the gate measured of a version and of the model that was live.

    Raises:
        TrainingError: likewise.
    """
    with process_errors(_FAILED):
        return await in_own_process(DRAW_S, draw_gate, name, dict(report))


def draw_curves(runs: Mapping[str, Sequence[Metric]]) -> bytes:
    """`curves` in this process."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (losses, rates) = pyplot.subplots(
        2, 1, figsize=(WIDTH_INCHES, 5), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    for name, metrics in runs.items():
        begins = 0.0
        drawn: list[tuple[float, float, float]] = []
        for stage in dict.fromkeys(metric.stage for metric in metrics):
            steps = [each for each in metrics if each.stage == stage and "loss" in each.values]
            drawn += [
                (begins + each.step, each.values["loss"], each.values.get("learning_rate", 0.0))
                for each in sorted(steps, key=lambda each: each.step)
            ]
            begins = drawn[-1][0] if drawn else begins
            if drawn:
                losses.annotate(stage, (drawn[-1][0], drawn[-1][1]), fontsize=8, parse_math=False)
        losses.plot([each[0] for each in drawn], [each[1] for each in drawn], label=name)
        rates.plot([each[0] for each in drawn], [each[2] for each in drawn])
    losses.set_ylabel("loss")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("step")
    if any(runs.values()):
        losses.legend(frameon=False, fontsize=8)
    return _png(figure)


def draw_gate(name: str, report: Mapping[str, Any]) -> bytes:
    """`gate` in this process."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figures = report.get("figures", {})
    ours, theirs = figures.get("candidate", {}), figures.get("live", {})
    shown = [metric for metric in _SHOWN if metric in ours and metric in theirs]
    figure, axes = pyplot.subplots(
        figsize=(WIDTH_INCHES, 1.6 + 0.6 * max(1, len(shown))), layout="constrained"
    )
    for row, metric in enumerate(shown):
        axes.plot([theirs[metric], ours[metric]], [row, row], color="#bbbbbb", zorder=1)
        axes.plot(theirs[metric], row, "o", color="#999999", label="live" if row == 0 else None)
        axes.plot(ours[metric], row, "o", color="#4477aa", label=name if row == 0 else None)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(shown) - 0.4, -0.7)
    axes.set_title(
        f"{name}: {report.get('outcome', '')}", loc="left", fontweight="bold", parse_math=False
    )
    if shown:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure)


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    for axes in figure.axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    pyplot.close(figure)
    return buffer.getvalue()
