"""How far an artefact may be from the reference, by its precision, and what an interval says of it.

Of a float a rise is as much a fault as a fall: it must be the same model, so its budget bounds
both. Of INT8 it bounds what is lost: a rise is shown, and fails nothing, unless
`--max-...-change` says so.

A pixel whose label differs is a tie where the reference itself could hardly tell: its two best
logits are within a margin, which is what each arithmetic does to a logit. The network states it
(`tie_margins`); those of ICNet are the ones of `precisions`:
- float32: two correct runs of ICNet differ by 2e-4 in the logits; 1e-3 leaves room for sums in
  another order on other processors.
- float16: 11 bits of mantissa; logits of 16 to 32 are 0.016 apart, and some roundings add up.
- INT8: one step of an 8-bit grid over -32..32, the range of ICNet's logits, is 0.25.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from icnet_deploy.command import Goal, number_type, options
from icnet_deploy.documents import PERCENT
from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.evaluation.confidence.differences import Differences
from icnet_deploy.evaluation.verdicts import (
    Judgement,
    Verdict,
    judge,
    judge_alike,
    limit_words,
    loss,
)
from icnet_deploy.precisions import PRECISIONS

_ROUNDING = 1e-9  # a difference of exactly the budget is within it


@dataclass(frozen=True)
class Measured:
    """What a budget is held against.

    Attributes:
        agreement: share of all pixels whose labels agree, 0..1.
        miou_points: difference of mIoU from the reference, in points (hundredths).
        class_points: class name -> difference of its IoU, in points.
    """

    agreement: float
    miou_points: float
    class_points: dict[str, float]


@dataclass(frozen=True)
class Budget:
    """What is allowed.

    Attributes:
        tie_margin: the reference's two best logits within this are a tie.
        miou_points: how far mIoU may fall, in points, or None: it is not held.
        class_points: how far one class's IoU may fall, in points, or None.
        agreement: least share of pixels that agree, 0..1, or None.
        miou_rises, class_rises: whether a rise is held to the same limit as a fall.
    """

    tie_margin: float
    miou_points: float | None
    class_points: float | None = None
    agreement: float | None = None
    miou_rises: bool = True
    class_rises: bool = True

    @property
    def both_ways(self) -> bool:
        """Whether a rise is held to one of its limits."""
        miou = self.miou_points is not None and self.miou_rises
        return miou or (self.class_points is not None and self.class_rises)

    def judge(self, differences: Differences) -> Judgement:
        """Holds every difference to its limit."""
        n = differences.images
        findings = []
        if self.agreement is not None and differences.alike is not None:
            findings.append(judge_alike(differences.alike, self.agreement, n))
        if self.miou_points is not None:
            points, both = self.miou_points, self.miou_rises
            findings.append(judge("mIoU", differences.miou, points, both, n))
        if self.class_points is not None:
            for name, interval in differences.classes.items():
                points, both = self.class_points, self.class_rises
                findings.append(judge(name, interval, points, both, n, differences.seen[name]))
        return Judgement(tuple(findings))

    def breaches(self, measured: Measured) -> list[str]:
        """Every limit that is passed, in words; none if the artefact is within its budget."""
        breaches = []  # each written so that NaN is a breach, too
        if self.agreement is not None and not measured.agreement >= self.agreement - _ROUNDING:
            breaches.append(
                f"{100 * measured.agreement:.4f} % of pixels agree; the limit is at least "
                f"{100 * self.agreement:g} %"
            )
        if self.miou_points is not None and not (
            loss(measured.miou_points, self.miou_rises) <= self.miou_points + _ROUNDING
        ):
            breaches.append(
                f"mIoU differs by {measured.miou_points:+.4f} points; the limit is "
                f"{self.miou_points:g}"
            )
        if self.class_points is not None:
            breaches += [
                f"IoU of {name} differs by {points:+.3f} points; the limit is {self.class_points:g}"
                for name, points in measured.class_points.items()
                if not loss(points, self.class_rises) <= self.class_points + _ROUNDING
            ]
        return breaches

    def __str__(self) -> str:
        limits = []
        if self.miou_points is not None:
            limits.append(f"mIoU {limit_words(self.miou_points, self.miou_rises)}")
        if self.class_points is not None:
            limits.append(f"each class {limit_words(self.class_points, self.class_rises)}")
        if self.agreement is not None:
            limits.append(f"at least {100 * self.agreement:g} % of pixels alike")
        return ", ".join(limits)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


BUDGETS = {
    name: Budget(
        row.tie_margin,
        row.miou_points,
        row.class_points,
        row.agreement,
        miou_rises=not row.calibrated,
        class_rises=not row.calibrated,
    )
    for name, row in PRECISIONS.items()
}
"""Precision -> budget."""


def budget_for(precision: str, budgets: Mapping[str, Budget] = BUDGETS) -> Budget:
    """The budget of a precision; ModelError for one that has none."""
    if precision not in budgets:
        raise ModelError(
            f"no parity budget for the precision {precision!r}; known: {', '.join(budgets)}"
        )
    return budgets[precision]


def add_budget_options(parser: argparse._ActionsContainer) -> None:
    """Adds what INT8 is allowed: a choice, where the budgets of floats follow from arithmetic."""
    calibrated = next(row for row in PRECISIONS.values() if row.calibrated)
    group = options(parser, Goal.LIMITS)
    for name, what, default in (
        ("miou", "mIoU", calibrated.miou_points),
        ("class", "the IoU of any class", calibrated.class_points),
    ):
        limits = group.add_mutually_exclusive_group()
        limits.add_argument(
            f"--max-{name}-drop",
            type=number_type(PERCENT),
            metavar="POINTS",
            help=f"how many points {what} of an INT8 artefact may fall; a rise is no fault "
            f"(default: {default:g})",
        )
        limits.add_argument(
            f"--max-{name}-change",
            type=number_type(PERCENT),
            metavar="POINTS",
            help=f"how many points {what} of an INT8 artefact may fall or rise",
        )


def chosen_budgets(arguments: argparse.Namespace) -> dict[str, Budget]:
    """`BUDGETS` with the limits of INT8 that were asked for."""
    given: dict[str, Any] = {}
    for name in ("miou", "class"):
        for kind in ("drop", "change"):
            points = getattr(arguments, f"max_{name}_{kind}")
            if points is not None:
                given |= {f"{name}_points": points, f"{name}_rises": kind == "change"}
    return {
        name: replace(budget, **given) if PRECISIONS[name].calibrated else budget
        for name, budget in BUDGETS.items()
    }


def add_undecided_option(parser: argparse._ActionsContainer) -> None:
    """Adds what becomes of a verdict that the images do not decide."""
    options(parser, Goal.LIMITS).add_argument(
        "--undecided",
        choices=("pass", "fail"),
        default="pass",
        help="the exit code if the images do not decide a verdict: pass: 0; fail: 1, as for a "
        "verdict past a limit (default: pass)",
    )


def require_verdicts(verdicts: Mapping[str, Verdict], arguments: argparse.Namespace) -> None:
    """Fails a command for what is past its budget, and for what is undecided if that was asked.

    Args:
        verdicts: what was judged -> its verdict.
        arguments: of `add_undecided_option`.

    Raises:
        CheckFailed: one fails; it names each.
    """
    said = {Verdict.PAST: "past their budget"}
    if arguments.undecided == "fail":
        said[Verdict.UNDECIDED] = "undecided (--undecided fail)"
    failed = {kind: [name for name, v in verdicts.items() if v is kind] for kind in said}
    reasons = [
        f"{len(names)} of {len(verdicts)} are {said[kind]}: {', '.join(names)}"
        for kind, names in failed.items()
        if names
    ]
    if reasons:
        raise CheckFailed("; ".join(reasons))
