"""What is asked of the ladder, and refused before any work."""

import argparse
from collections.abc import Sequence

from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.command import Goal, check_outputs, options
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
    options(
        parser,
        Goal.LIMITS,
        "With a limit, further steps (--effort) are tried until the artefact keeps it on labelled "
        "images of the split val: a step is chosen on half of them, and proved on the other half.",
    )
    add_budget_options(parser)
    options(parser, Goal.LIMITS).add_argument(
        "--effort",
        choices=RUNGS,
        help="the last step that is tried: ranges: ranges, equalization and bias correction; "
        "rounding: also learned rounding of weights; smoothing: also SmoothQuant behind "
        "LayerNorms; float: also the fewest blocks in float that keep the limits (default: "
        f"{RUNGS[-1]} with a limit, else {RUNGS[0]})",
    )
    add_undecided_option(parser)


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
                f"--effort {RUNGS[-1]} keeps blocks in float until a budget is met: also give "
                f"--max-miou-drop or --max-class-drop, or choose {', '.join(RUNGS[:-1])}"
            )
        if arguments.undecided != "pass":
            raise InputError(
                f"--undecided {arguments.undecided} needs a budget: give --max-miou-drop or "
                "--max-class-drop, or leave it out"
            )
    elif arguments.images is not None:
        raise InputError(
            f"a budget needs labelled images, and --images {arguments.images} has no labels: give "
            "--dataset with a split val, or leave out --max-miou-drop and the other limits"
        )
    if arguments.rebuilds is not None and (has_budget(arguments) or len(rungs_of(arguments)) > 1):
        raise InputError(
            "--rebuilds does not go with a budget or --effort: leave out either these or --rebuilds"
        )
    if has_budget(arguments):
        for placement in placements:
            check_available(cpu_runtime(placement), "cpu")
        check_outputs(arguments)
