"""What is asked of rebuilds, and refused before any work."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.calibration.ladder.options import has_budget
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.command import check_outputs, count
from icnet_deploy.errors import InputError
from icnet_deploy.runtime.backends.registry import check_available

IMAGES = 40
"""Images that builds are measured on, unless another number is asked for."""

ROUNDS = 20
"""Of timing, unless another number is asked for."""

_FEWEST = 2


def add_rebuild_options(parser: argparse.ArgumentParser) -> None:
    """Adds how often is built, and how the builds are measured and shown."""
    group = parser.add_argument_group(
        "rebuilds", "what a user sees who draws other calibration images and builds again"
    )
    group.add_argument(
        "--rebuilds",
        type=count,
        metavar="K",
        help="build K times, with the images of the seeds SEED, SEED+1, ..., and tell how far "
        "labels, mIoU and latency move from one build to the next; what is written is the first",
    )
    group.add_argument(
        "--rebuild-images",
        type=count,
        metavar="N",
        help="measure them on N images that none was calibrated on: of the data set's val split, "
        "else of --held-out, else of those that are kept back from all draws "
        f"(default: {IMAGES}, or as many as there are)",
    )
    group.add_argument(
        "--group-by",
        metavar="REGEX",
        help="which of these images, or of those that a budget is proved on, belong together, as "
        "icnet evaluate has it",
    )
    group.add_argument(
        "--rounds",
        type=count,
        metavar="N",
        help=f"of timing them in turn (default: {ROUNDS}; of the ladder, 10)",
    )
    group.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result, of the ladder, too, as JSON"
    )
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="write a self-contained HTML report"
    )


def check_rebuilds(arguments: argparse.Namespace, placements: Sequence[str]) -> None:
    """Finds before the long work what would stop it.

    Raises:
        InputError: an option of rebuilds is given without `--rebuilds`, or that is 1.
        MissingPackage: the runtime that a placement is for is not installed.
        OutputError: a file cannot be written.
    """
    options = ["rebuild_images", "report"]
    if not has_budget(arguments):
        options += ["group_by", "rounds", "json"]
    given = [name for name in options if getattr(arguments, name) is not None]
    if arguments.rebuilds is None:
        if given:
            raise InputError(
                f"--{given[0].replace('_', '-')} is of rebuilds: give --rebuilds K, too, or leave "
                "it out"
            )
        return
    if arguments.rebuilds < _FEWEST:
        raise InputError(
            f"--rebuilds {arguments.rebuilds}: one build differs from no other; give {_FEWEST} or "
            "more"
        )
    for placement in placements:
        check_available(cpu_runtime(placement), "cpu")
    check_outputs(arguments)
