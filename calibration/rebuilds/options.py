"""What is asked of rebuilds, and refused before any work."""

import argparse
from collections.abc import Sequence

from icnet_deploy.calibration.ladder.options import ROUNDS as LADDER_ROUNDS
from icnet_deploy.calibration.ladder.options import has_budget
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.command import Goal, check_outputs, count, options
from icnet_deploy.errors import InputError
from icnet_deploy.runtime.backends.registry import check_available

IMAGES = 40
"""Images that builds are measured on, unless another number is asked for."""

ROUNDS = 20
"""Of timing, unless another number is asked for."""

_FEWEST = 2


def add_rebuild_options(parser: argparse.ArgumentParser) -> None:
    """Adds how often is built, and how the builds are measured and shown."""
    group = options(parser, "to compare several builds")
    group.add_argument(
        "--rebuilds",
        type=count,
        metavar="K",
        help="build K times, each on the images that another seed draws (SEED, SEED+1, ...), and "
        "say how much labels, mIoU and latency differ between builds; the first build is written",
    )
    group.add_argument(
        "--rebuild-images",
        type=count,
        metavar="N",
        help="measure the builds on N images that no build is calibrated on: of the split val; "
        "without it, of --held-out; without that, of images that no build draws (default: "
        f"{IMAGES}, or all if there are fewer)",
    )
    options(parser, Goal.IMAGES).add_argument(
        "--group-by",
        metavar="REGEX",
        help="with a limit or --rebuilds: which of the measured images belong together, as in "
        "`icnet evaluate --group-by`",
    )
    options(parser, Goal.RUN).add_argument(
        "--rounds",
        type=count,
        metavar="N",
        help="with a limit or --rebuilds: measure the inference time in N rounds (default: "
        f"{LADDER_ROUNDS} with a limit, {ROUNDS} with --rebuilds)",
    )


_WITH_A_LIMIT = ("group_by", "rounds", "json")
"""Options that go with rebuilds, and with a limit, too."""


def check_rebuilds(arguments: argparse.Namespace, placements: Sequence[str]) -> None:
    """Finds before the long work what would stop it.

    Raises:
        InputError: an option of rebuilds is given without `--rebuilds`, or that is 1.
        MissingPackage: the runtime that a placement is for is not installed.
        OutputError: a file cannot be written.
    """
    names = ["rebuild_images", "report", *(() if has_budget(arguments) else _WITH_A_LIMIT)]
    given = [name for name in names if getattr(arguments, name) is not None]
    if arguments.rebuilds is None:
        if given:
            or_limit = " or a limit" if given[0] in _WITH_A_LIMIT else ""
            raise InputError(
                f"--{given[0].replace('_', '-')} needs --rebuilds{or_limit}: give "
                "--rebuilds K, or leave it out"
            )
        return
    if arguments.rebuilds < _FEWEST:
        raise InputError(
            f"--rebuilds {arguments.rebuilds}: one build cannot differ from another; give at least "
            f"{_FEWEST}"
        )
    for placement in placements:
        check_available(cpu_runtime(placement), "cpu")
    check_outputs(arguments)
