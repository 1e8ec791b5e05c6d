"""The options that `icnet train` and `icnet compress` have in common."""

import argparse
from pathlib import Path

from icnet_deploy.command import Goal, count, options
from icnet_deploy.data.options import add_exif_option, add_label_options, dataset_help

TRAINING = "to choose how it trains"
"""The title of the options that set a training."""


def add_config_options(p: argparse.ArgumentParser, what: str) -> None:
    """Adds the settings of a training: a configuration, and for how long.

    Args:
        p: of the command.
        what: the configuration is, in words.
    """
    group = options(p, TRAINING)
    group.add_argument(
        "--config",
        default="camvid",
        metavar="NAME|FILE.toml",
        help=f"{what}: a shipped name, or a file (default: %(default)s)",
    )
    group.add_argument(
        "--steps", type=count, metavar="N", help="optimizer steps (default: the configuration's)"
    )


def add_run_options(p: argparse.ArgumentParser, state: str) -> None:
    """Adds where results and the state of a run go, and whether one is continued.

    Args:
        p: of the command.
        state: it continues from, in words.
    """
    options(p, Goal.RESULTS).add_argument(
        "-o",
        "--out",
        required=True,
        type=Path,
        metavar="FILE.safetensors",
        help="the checkpoint to write",
    )
    group = options(p, Goal.RUN)
    group.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="the folder that keeps the state of the run (default: OUT with the suffix .run)",
    )
    group.add_argument("--resume", action="store_true", help=f"continue from {state}")


def add_sets_options(
    p: argparse.ArgumentParser, required: bool = False, description: str | None = None
) -> None:
    """Adds what is trained on: data sets, their splits, and what their labels mean."""
    group = options(p, Goal.IMAGES, description)
    group.add_argument(
        "--dataset",
        action="append",
        required=required,
        default=None if required else [],
        metavar="NAME",
        help=f"{dataset_help()}; may be repeated",
    )
    group.add_argument(
        "--data",
        action="append",
        required=required,
        default=None if required else [],
        type=Path,
        metavar="DIR",
        help="the data set's folder; may be repeated",
    )
    group.add_argument(
        "--split",
        default="train",
        metavar="NAME",
        help="train on this split of every data set, or on several, e.g. train+val (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--leave-out",
        metavar="REGEX",
        help="do not train on the images whose file names match REGEX, e.g. '^(0001TP|0006R0)_' "
        "for two drives; a REGEX with a / is searched in paths",
    )
    add_label_options(p, label_set=False)
    add_exif_option(p)
