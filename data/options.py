"""What `icnet evaluate` and `icnet parity` ask in the same words."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from icnet_deploy.command import add_exif_option, count
from icnet_deploy.data import DATASETS, Dataset, open_dataset
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import InputError

SPLIT = "val"
"""The part of a data set that is scored, unless another is asked for."""


def add_data_options(
    parser: argparse.ArgumentParser, required: bool = True, images: bool = False
) -> None:
    """Adds what is scored on.

    Args:
        parser: of the command.
        required: argparse asks for a data set.
        images: photos without labels may be named in its place; `open_data` asks for either.
    """
    required = required and not images
    # No `choices`: an unknown name is answered by the code that knows the names, in one line.
    parser.add_argument(
        "--dataset", required=required, metavar="NAME", help=f"{', '.join(DATASETS)}: the layout"
    )
    parser.add_argument("--data", required=required, metavar="DIR", type=Path, help="its folder")
    if images:
        parser.add_argument(
            "--images",
            metavar="DIR",
            type=Path,
            help="photos without labels, in place of a data set: every image below DIR",
        )
    parser.add_argument("--split", metavar="NAME", help=f"which part of it (default: {SPLIT})")
    parser.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help="score N images, spread evenly over the split (default: all)",
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="which images belong together (a drive, a patient): those in whose file names REGEX "
        "finds the same text, or its first (...) does; with a / it is searched in their paths "
        "(default: as the layout has it, e.g. CITY_SEQUENCE of Cityscapes)",
    )
    add_exif_option(parser)


def open_data(arguments: argparse.Namespace) -> Dataset:
    """Opens the data set, or the photos, that were asked for.

    Raises:
        InputError: neither was asked for, or both; a folder is not there, or holds no image; or
            `--group-by` does not fit.
    """
    folder: Path | None = getattr(arguments, "images", None)
    if folder is not None:
        return _photos(folder, arguments).first(arguments.limit)
    for given, lacks in (("dataset", "data"), ("data", "dataset")):
        if getattr(arguments, lacks) is None and getattr(arguments, given) is not None:
            raise InputError(
                f"--{given} {getattr(arguments, given)} says half of what is looked at; expected "
                "both --dataset NAME, the layout, and --data DIR, its folder"
            )
    if arguments.dataset is None:
        photos_too = ", or --images DIR for photos without labels"
        raise InputError(
            "nothing says which images to look at: give --dataset NAME --data DIR"
            f"{photos_too if hasattr(arguments, 'images') else ''}"
        )
    split = arguments.split or SPLIT
    dataset = open_dataset(
        arguments.dataset, arguments.data, split, arguments.exif, arguments.group_by
    )
    return dataset.first(arguments.limit)


def refuse_data_options(arguments: argparse.Namespace, options: Iterable[str], why: str) -> None:
    """Refuses what is said of the images of a data set where there is none.

    Args:
        arguments: of a command.
        options: that speak of a data set, as `arguments` has them.
        why: there is none, in words.

    Raises:
        InputError: one of them is given.
    """
    for name in options:
        given = getattr(arguments, name)
        if given is not None:
            option = f"--{name.replace('_', '-')} {given}"
            raise InputError(f"{option} is for the images of a data set; {why}: leave it out")


def _photos(folder: Path, arguments: argparse.Namespace) -> Dataset:
    if arguments.dataset is not None or arguments.data is not None:
        raise InputError(
            f"--images {folder} is given beside --dataset or --data: give the photos without "
            "labels, or the data set, not both"
        )
    refuse_data_options(arguments, ("split",), "--images takes every photo below its folder")
    refuse_data_options(arguments, ("exif",), "those of --images are turned as EXIF says")
    return photos(folder, arguments.group_by, lambda text: print(text, file=sys.stderr))
