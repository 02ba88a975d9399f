"""The leaderboard as a picture, for chats and the web page.

Drawn in a process of its own, which ends with it: matplotlib would add some 60 MB to a process that
serves people, for good.
"""

import io

from feedback.own_process import in_own_process
from feedback.rankings import MIN_VOTES, Leaderboard

DRAW_S = 60.0
WIDTH_INCHES = 8.0
ROW_INCHES = 0.5
DPI = 150
MODELS_DRAWN = 12
NAME_CHARACTERS = 40


async def picture(leaderboard: Leaderboard, *, title: str) -> bytes:
    """A PNG of the ranked models: win rates with their intervals, best on top.

    Raises:
        TimeoutError: it took longer than `DRAW_S`.
    """
    return await in_own_process(DRAW_S, draw, leaderboard, title)


def draw(leaderboard: Leaderboard, title: str) -> bytes:
    """The same in this process."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    ranked = [(each, each.win_rate) for each in leaderboard.models if each.win_rate is not None]
    ranked = ranked[:MODELS_DRAWN]
    height = 1.6 + ROW_INCHES * max(1, len(ranked))
    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, height), layout="constrained")
    for row, (model, rate) in enumerate(ranked):
        axes.plot([100 * rate.low, 100 * rate.high], [row, row], color="#4477aa", linewidth=3)
        axes.plot(100 * rate.value, row, "o", color="#223355", markersize=8)
        axes.annotate(
            f"{100 * rate.value:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f}),"
            f" {model.votes} votes",
            (100 * rate.value, row),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.axvline(50, color="#999999", linewidth=1, linestyle=":")
    # Names are no formulas, whatever signs are in them.
    names = [_name(model.model) for model, _ in ranked]
    axes.set_yticks(range(len(ranked)), names, parse_math=False)
    axes.set_ylim(len(ranked) - 0.4, -0.7)
    axes.set_xlim(0, 100)
    axes.set_xlabel("preferred to an average model, in percent, with 95 % intervals")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", parse_math=False)
    if not ranked:
        needed = f"Not enough votes yet: a model is ranked from {MIN_VOTES} votes on."
        axes.text(50, 0, needed, ha="center", va="center")
        axes.set_ylim(0.5, -0.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    pyplot.close(figure)
    return buffer.getvalue()


def _name(model: str) -> str:
    return model if len(model) <= NAME_CHARACTERS else model[: NAME_CHARACTERS - 1] + "…"
