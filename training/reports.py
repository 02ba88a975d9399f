"""What is told of a run, a judgement, a promotion and a rollback: one message each. Pure."""

from collections.abc import Mapping
from typing import Any

from storage.model_versions import ModelVersion


def made(
    result: Mapping[str, Any],
    *,
    learnt: int,
    tried: float | None,
    instead: ModelVersion | None = None,
) -> str:
    """A training that ended well.

    Args:
        learnt: ratings that it learnt from.
        tried: share of the threads that the new version answers now; None = somebody promoted it,
            or took it back, before.
        instead: the version whose trial ended with that.
    """
    left_out = "".join(f" {each}" for each in _left_out(result))
    version = result.get("version")
    if version is None:
        return f"The run made a reward model; it answers nobody.{left_out}"
    return f"{learnt} of your ratings made {version}{_outcome(result, tried, instead)}{left_out}"


def judged(
    result: Mapping[str, Any], *, tried: float | None, instead: ModelVersion | None = None
) -> str:
    """A version on which the gate could not decide before, and about which it was asked again."""
    return f"The gate looked at {result['version']} again{_outcome(result, tried, instead)}"


def _outcome(result: Mapping[str, Any], tried: float | None, instead: ModelVersion | None) -> str:
    """How a sentence about a version ends, by what the gate says of it."""
    reasons = " ".join(result.get("reasons", ()))
    if result["outcome"] == "no decision":
        number = result["version"].partition("-")[0]
        return f", on which there is no decision: {reasons} Ask again with `parley judge {number}`."
    if result["outcome"] != "candidate":
        return f", which will answer nobody: {reasons}"
    if tried is None:
        return f". {reasons}{_won(result)} Somebody promoted it, or took it back, already."
    replaced = f", instead of v{instead.number}," if instead else ","
    what = (
        f"It answers {tried:.0%} of the threads from now on{replaced} until votes tell"
        if tried
        else "It waits for somebody to promote it"
    )
    return f". {reasons}{_won(result)} {what}."


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage that had nothing to learn from."""
    return [
        f"The stage {kind} was left out: {stage['left_out']}"
        for kind, stage in result.get("stages", {}).items()
        if "left_out" in stage
    ]


def no_room(advice: str) -> str:
    """A run that waits for an administrator of the machine."""
    return f"The run waits, because the disk is full. {advice}"


def cancelled() -> str:
    """A run that somebody ended."""
    return "The run was cancelled."


def failed(failure: str, advice: str | None) -> str:
    """A run that could not succeed, and what to do."""
    return f"The run failed: {failure}" + (f" {advice}" if advice else "")


def promoted(version: ModelVersion, *, before: ModelVersion | None, votes: int, by: str) -> str:
    """A version that answers everybody now.

    Args:
        votes: ratings that it learnt from; 0 = not known any more.
        by: who promoted it, or what did.
    """
    name = f"v{version.number}"
    start = f"Your {votes} votes made {name}" if votes else f"{name} answers everybody now"
    previous = f"v{before.number}" if before is not None else "the base model"
    again = before is not None and before.id == version.id
    replaced = "" if again else f" It replaces {previous}."
    return f"{start}; {_compared(version.gate)}promoted by {by}.{replaced}"


def better(version: ModelVersion, *, votes: int, doubt: str | None = None) -> str:
    """A tried version that waits for an administrator's word.

    Args:
        doubt: why it is not promoted by itself, where it otherwise would be.
    """
    told = (
        f"People like v{version.number} better ({votes} live votes). An administrator may promote "
        f"it now: `promote v{version.number}`."
    )
    return f"{told} It is not promoted by itself: {doubt}." if doubt else told


def rolled_back(told: Mapping[str, Any]) -> str:
    """A version that was taken out of service."""
    now = told.get("now") or "the base model"
    text = f"{told['version']} answers nobody any more: {told['why']}. {now} answers again."
    if told.get("still_tried"):
        text += f" {told['still_tried']} is still tried on some threads; `rollback` ends that."
    return text


def _won(result: Mapping[str, Any]) -> str:
    rate = result.get("gate", {}).get("evidence", {}).get("win_rate")
    return f" Win rate {_percent(rate)}." if rate else ""


def _compared(gate: Mapping[str, Any]) -> str:
    """Against the model before it: the win rate, or else the gate's first reason."""
    rate = gate.get("evidence", {}).get("win_rate")
    if rate:
        return f"win rate {_percent(rate)}; "
    reasons = gate.get("reasons") or ()
    return f"{reasons[0][:1].lower()}{reasons[0][1:].rstrip('.')}; " if reasons else ""


def _percent(rate: Mapping[str, float]) -> str:
    value, low, high = (100 * rate[key] for key in ("value", "low", "high"))
    return f"{value:.0f} % ({low:.0f} to {high:.0f})"
