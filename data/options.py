"""What `icnet evaluate` and `icnet parity` ask in the same words."""

import argparse
from pathlib import Path

from icnet_deploy.command import add_exif_option, count
from icnet_deploy.data import DATASETS, Dataset, open_dataset


def add_data_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds what is scored on."""
    # No `choices`: an unknown name is answered by the code that knows the names, in one line.
    parser.add_argument(
        "--dataset", required=required, metavar="NAME", help=f"{', '.join(DATASETS)}: the layout"
    )
    parser.add_argument("--data", required=required, metavar="DIR", type=Path, help="its folder")
    parser.add_argument("--split", default="val", help="which part of it (default: val)")
    parser.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help="score N images, spread evenly over the split (default: all)",
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="which images belong together (a drive, a patient): those in whose file names it "
        "finds the same, by its first (...) if it has one; with a / it is searched in their paths "
        "(default: as the layout has it, e.g. CITY_SEQUENCE of Cityscapes)",
    )
    add_exif_option(parser)


def open_data(arguments: argparse.Namespace) -> Dataset:
    """Opens the data set that was asked for; raises as `open_dataset`."""
    dataset = open_dataset(
        arguments.dataset, arguments.data, arguments.split, arguments.exif, arguments.group_by
    )
    return dataset.first(arguments.limit)
