"""What each rung of the ladder gained and cost, as text and as JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icnet_deploy.calibration.ladder.climb import Step
from icnet_deploy.calibration.sensitivity.bench import TIME
from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.verdicts import Judgement, Verdict
from icnet_deploy.report.tables import Table, number

_HEADER = [
    "step",
    "mIoU, points",
    "class that falls most",
    "labels alike %",
    "gained: mIoU, points",
    "gained: labels alike, points",
    "proof: mIoU",
    "verdict",
    "s",
    "ms",
    "to float32",
    "to the step before",
]


def placement_json(
    budget: Budget,
    steps: Sequence[Step],
    taken: Step | None,
    times: Sequence[Mapping[str, Any]],
    enough: Callable[[Judgement], bool],
) -> dict[str, Any]:
    """The JSON form of a climb.

    Args:
        budget: that was to be kept.
        steps: the rungs that were tried.
        taken: the one whose graph is written; None: none is.
        times: of float32, and of each step.
        enough: whether a judgement is enough to stop at.
    """
    rungs = [
        {
            "rung": step.rung,
            "in_float": [block.name for block in step.attempt.in_float],
            "met": step.attempt.met,
            "kept": _kept(step, enough),
            **step.attempt.cost.to_dict(),
            "gain": step.gain and step.gain.to_dict(),
            "tried": len(step.tried.attempts),
            "proof": step.proof and step.proof.to_dict(step.tried.attempts),
            "seconds": round(step.seconds, 1),
            "inference": dict(time),
            "inference_to_the_rung_before": _ratio(time, times[number - 1]) if number > 1 else None,
        }
        for number, (step, time) in enumerate(zip(steps, times[1:], strict=True), 1)
    ]
    return {
        "budget": budget.to_dict(),
        "limits": str(budget),
        "time": TIME,
        "float32_inference": dict(times[0]),
        "rungs": rungs,
        "taken": None if taken is None else taken.rung,
    }


def _ratio(time: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Of the medians."""
    return round(float(time["median_ms"] / other["median_ms"]), 4)


def _kept(step: Step, enough: Callable[[Judgement], bool]) -> bool:
    return step.proof is not None and enough(step.proof.last.judgement)


def step_text(step: Step, enough: Callable[[Judgement], bool]) -> str:
    """A line that says what came of a rung."""
    cost = step.attempt.cost.to_dict()
    words = f"{step.rung}: mIoU {points_text(cost['miou_difference_points'])} points"
    names = ", ".join(block.name for block in step.attempt.in_float)
    words += f" with {names} in float" if names else ""
    if step.gain is not None:
        words += f", {step.gain.miou.text(2)} against the step before"
    if step.proof is None:
        return f"{words}; past the budget, so not proved ({step.seconds:.0f} s)"
    proved = str(step.proof.verdict)
    if _kept(step, enough):
        unsure = step.proof.verdict is Verdict.UNDECIDED
        proved = "the budget is kept" + (", but classes are undecided" if unsure else "")
    return f"{words}; proof: {proved} ({step.seconds:.0f} s)"


def ladder_text(climbed: Mapping[str, Any]) -> str:
    """What came of one placement, for the terminal: a table, and the findings that decide."""
    lines = [
        f"{climbed['placement']} on {climbed['runtime']}, budget: {climbed['limits']}",
        _table(climbed).text(),
    ]
    taken = next((one for one in climbed["rungs"] if one["rung"] == climbed["taken"]), None)
    if taken is None:
        lines.append("no step keeps the budget")
    else:
        proof = taken["proof"]
        lines.append(f"chosen: {taken['rung']}; proof: {proof['verdict']}; {proof['basis']}")
        if taken["in_float"]:
            lines.append(f"in float to keep the budget: {', '.join(taken['in_float'])}")
        unsure = [
            f"{one['what']} {points_text(one['difference'])} ({one['why']})"
            for one in proof["trials"][-1]["findings"]
            if one["verdict"] == Verdict.UNDECIDED
        ]
        lines += [f"undecided: {'; '.join(unsure)}"] if unsure else []
    if len(climbed["rungs"]) > 1:
        lines.append("gained: compared with the step before, on the same images")
    lines.append(f"s: how long the step took, with its proof; ms: {climbed['time']}")
    return "\n".join(lines)


def _table(climbed: Mapping[str, Any]) -> Table:
    reference = climbed["float32_inference"]["median_ms"]
    rows = [
        [
            one["rung"],
            points_text(one["miou_difference_points"]),
            f"{points_text(one['worst_class_difference_points'])} {one['worst_class']}",
            number(100 - one["labels_changed_percent"]["value"]),
            *_gained(one["gain"]),
            *_proved(one["proof"]),
            number(one["seconds"], 0),
            number(one["inference"]["median_ms"], 1),
            number(one["inference"]["median_ms"] / reference),
            "" if (to := one["inference_to_the_rung_before"]) is None else number(to),
        ]
        for one in climbed["rungs"]
    ]
    return Table(_HEADER, rows)


def _gained(gain: Mapping[str, Any] | None) -> tuple[str, str]:
    """Of mIoU and of the labels alike; nothing of the first rung."""
    if gain is None:
        return "", ""
    return points_text(gain["miou_points"]), points_text(gain["labels_alike_points"])


def _proved(proof: Mapping[str, Any] | None) -> tuple[str, str]:
    """mIoU of the graph that was proved last, and the verdict."""
    if proof is None:
        return "", "not proved"
    return points_text(proof["trials"][-1]["miou_difference_points"]), proof["verdict"]
