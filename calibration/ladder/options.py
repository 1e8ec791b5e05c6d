"""What is asked of the ladder, and refused before any work."""

import argparse
from collections.abc import Sequence

from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.command import check_outputs
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.budgets import add_budget_options, add_undecided_option
from icnet_deploy.runtime.backends.registry import check_available

RUNGS = ("ranges", "rounding", "smoothing", "float")
"""In the order in which they are tried."""

ROUNDS = 10
"""Of timing, unless another number is asked for."""

_LIMITS = ("max_miou_drop", "max_miou_change", "max_class_drop", "max_class_change")


def add_ladder_options(parser: argparse.ArgumentParser) -> None:
    """Adds how far accuracy may fall, and what may be done about it."""
    group = parser.add_argument_group(
        "ladder", "with a budget: rung after rung, until one keeps it on labelled held-out images"
    )
    add_budget_options(group)
    group.add_argument(
        "--effort",
        choices=RUNGS,
        help="the last rung: ranges, equalization and bias correction; learned rounding besides; "
        "smoothing of what a LayerNorm makes; the fewest blocks in float that keep the budget "
        f"(default: {RUNGS[-1]} with a budget, else {RUNGS[0]}; without a budget each rung up to "
        "it is taken, and float, which needs one, is refused)",
    )
    add_undecided_option(group)


def has_budget(arguments: argparse.Namespace) -> bool:
    """Whether a limit was asked for."""
    return any(getattr(arguments, name) is not None for name in _LIMITS)


def rungs_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The rungs that may be tried, in order."""
    last = arguments.effort or (RUNGS[-1] if has_budget(arguments) else RUNGS[0])
    return RUNGS[: RUNGS.index(last) + 1]


def check_ladder(arguments: argparse.Namespace, placements: Sequence[str]) -> None:
    """Finds before the long work what would stop it.

    Raises:
        InputError: a budget is asked for without labels to prove it on, or beside rebuilds; or
            blocks in float without a budget.
        MissingPackage: the runtime that a placement is for is not installed.
        OutputError: a file cannot be written.
    """
    if not has_budget(arguments):
        if RUNGS[-1] in rungs_of(arguments):
            raise InputError(
                f"--effort {RUNGS[-1]} puts blocks back into float until a budget is kept: give "
                "--max-miou-drop or --max-class-drop, too, or a lower rung"
            )
        if arguments.undecided != "pass":
            raise InputError(
                f"--undecided {arguments.undecided} is of a budget: give --max-miou-drop or "
                "--max-class-drop, too, or leave it out"
            )
    elif arguments.images is not None:
        raise InputError(
            f"a budget is proved on labelled images, and --images {arguments.images} has no "
            "labels: give --dataset with a split val, or leave the budget out"
        )
    if arguments.rebuilds is not None and (has_budget(arguments) or len(rungs_of(arguments)) > 1):
        raise InputError(
            "--rebuilds builds with ranges alone: leave out the budget and --effort, or --rebuilds"
        )
    if has_budget(arguments):
        for placement in placements:
            check_available(cpu_runtime(placement), "cpu")
        check_outputs(arguments)
