"""What is told of a run, a promotion and a rollback: one message each, in words. Pure."""

from collections.abc import Mapping
from typing import Any


def made(result: Mapping[str, Any], *, learnt: int, tried: float) -> str:
    """A training that ended well.

    Args:
        learnt: ratings that it learnt from.
        tried: share of the threads that the new version answers now.
    """
    version = result.get("version")
    if version is None:
        return "The run made a reward model; it answers nobody."
    reasons = " ".join(result.get("reasons", ()))
    if result["outcome"] != "candidate":
        return f"{learnt} of your ratings made {version}, which will answer nobody: {reasons}"
    what = (
        f"It answers {tried:.0%} of the threads from now on, until votes tell"
        if tried
        else "It waits for somebody to promote it"
    )
    return f"{learnt} of your ratings made {version}. {reasons}{_won(result)} {what}."


def failed(failure: str, advice: str | None) -> str:
    """A run that could not succeed, and what to do."""
    return f"The run failed: {failure}" + (f" {advice}" if advice else "")


def promoted(told: Mapping[str, Any], *, by: str) -> str:
    """A version that answers everybody now."""
    before = told.get("before") or "the base model"
    return f"{told['version']} answers everybody now, in place of {before}; promoted by {by}."


def rolled_back(told: Mapping[str, Any]) -> str:
    """A version that was taken out of service."""
    now = told.get("now") or "the base model"
    return f"{told['version']} answers nobody any more: {told['why']}. {now} answers again."


def _won(result: Mapping[str, Any]) -> str:
    rate = result.get("gate", {}).get("evidence", {}).get("win_rate")
    if not rate:
        return ""
    return f" Win rate {rate['value']:.0%} ({rate['low']:.0%} to {rate['high']:.0%})."
