"""What commands ask of a data set, in the same words."""

import argparse
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from icnet_deploy.command import Goal, count, options
from icnet_deploy.data import DATASETS, Dataset, open_dataset
from icnet_deploy.data.mapping import ClassMap
from icnet_deploy.data.own.classes import FILE, LABEL_VALUES, PERSON
from icnet_deploy.data.own.folder import NAME as FOLDER
from icnet_deploy.data.photos import photos
from icnet_deploy.errors import InputError
from icnet_deploy.labels import LABEL_SETS, load_label_set

SPLIT = "val"
"""The part of a data set that is scored, unless another is asked for."""

OF_LABELS = ("label_values", "class_map")
"""The options that speak of a data set's labels only."""


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
    add_dataset_options(parser, required)
    group = options(parser, Goal.IMAGES)
    if images:
        group.add_argument(
            "--images",
            metavar="DIR",
            type=Path,
            help="use the photos below DIR, which need no labels, in place of a data set",
        )
    group.add_argument(
        "--split", metavar="NAME", help=f"which part of the data set (default: {SPLIT})"
    )
    group.add_argument(
        "--limit",
        type=count,
        metavar="N",
        help="use only N images, spread evenly over the split (default: all)",
    )
    add_group_option(parser)
    add_label_options(parser)
    add_exif_option(parser)


def add_group_option(parser: argparse._ActionsContainer) -> None:
    """Adds which images belong together."""
    options(parser, Goal.IMAGES).add_argument(
        "--group-by",
        metavar="REGEX",
        help="put images into one group (a drive, a patient) if REGEX, or its first (...), "
        "matches the same text in their file names; a REGEX with a / is searched in paths "
        "(default: the groups of the layout; in a folder, each image alone)",
    )


def add_dataset_options(parser: argparse._ActionsContainer, required: bool = False) -> None:
    """Adds which data set, and where it is."""
    add_dataset_option(parser, required)
    options(parser, Goal.IMAGES).add_argument(
        "--data", required=required, metavar="DIR", type=Path, help="the data set's folder"
    )


def dataset_help() -> str:
    """What `--dataset` takes: the layouts that are known now."""
    return (
        f"how the folder is laid out: {', '.join(DATASETS)}; or PACKAGE.MODULE:OPENER, a function "
        "of your own that opens it"
    )


def add_dataset_option(
    parser: argparse._ActionsContainer, required: bool = False, default: str | None = None
) -> None:
    """Adds how the folder is laid out, or what opens it."""
    # No `choices`: an unknown name is answered by the code that knows the names, in one line.
    options(parser, Goal.IMAGES).add_argument(
        "--dataset",
        required=required,
        default=default,
        metavar="NAME",
        help=f"{dataset_help()}{f' (default: {default})' if default else ''}",
    )


def add_label_options(parser: argparse._ActionsContainer, label_set: bool = True) -> None:
    """Adds what the labels of a data set mean.

    Args:
        parser: of the command.
        label_set: also which classes a folder has; False where the command has that option.
    """
    group = options(parser, Goal.LABELS)
    if label_set:
        group.add_argument(
            "--label-set",
            metavar="NAME|FILE.json",
            help=f"the classes ({', '.join(LABEL_SETS)}, or a file) of a network of your own, or "
            "of --dataset folder if it has no classes.json",
        )
    group.add_argument(
        "--label-values",
        choices=LABEL_VALUES,
        help="what the label files of --dataset folder hold: class indices from 0, or the "
        "label_ids of the label set (default: ids if a label set of your own has them, else "
        "indices)",
    )
    group.add_argument(
        "--class-map",
        type=Path,
        metavar="FILE.json",
        help="the file that says which class of one label set stands for which class of another: "
        '{"from": SET, "to": SET, "classes": {"truck": "car", "sky": null}}; null: no class',
    )


def add_exif_option(parser: argparse._ActionsContainer) -> None:
    """Adds what is to be made of a data set's images that have an EXIF orientation."""
    options(parser, Goal.LABELS).add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="how people drew the masks of images with an EXIF orientation: apply: on the turned "
        "image; ignore: on the stored pixels (default: such images are refused)",
    )


def open_data(arguments: argparse.Namespace) -> Dataset:
    """Opens the data set, or the photos, that were asked for.

    Raises:
        InputError: neither was asked for, or both; a folder is not there, or holds no image; or
            an option does not fit.
    """
    folder: Path | None = getattr(arguments, "images", None)
    if folder is not None:
        return _photos(folder, arguments).first(arguments.limit)
    for given, lacks in (("dataset", "data"), ("data", "dataset")):
        if getattr(arguments, lacks) is None and getattr(arguments, given) is not None:
            raise InputError(
                f"--{given} {getattr(arguments, given)} needs --{lacks} also: give --dataset NAME, "
                "the layout, and --data DIR, its folder"
            )
    if arguments.dataset is None:
        photos_too = ", or --images DIR for photos without labels"
        raise InputError(
            "no images are given: give --dataset NAME --data DIR"
            f"{photos_too if hasattr(arguments, 'images') else ''}"
        )
    dataset = open_split(arguments, arguments.split or SPLIT)
    if dataset.teacher is not None:
        _say(f"note: {dataset.teacher.note(f'{dataset.called} {dataset.split}')}")
    return dataset.first(arguments.limit)


def open_split(arguments: argparse.Namespace, split: str) -> Dataset:
    """Opens a split of the data set that was asked for, with all that was said of it.

    Args:
        arguments: with `dataset`, `data`, `exif`, and what `add_label_options` adds.
        split: its name.

    Raises:
        InputError: as `open_dataset`; or `--label-set` is for no one.
    """
    dataset = open_dataset(
        arguments.dataset,
        arguments.data,
        split,
        arguments.exif,
        getattr(arguments, "group_by", None),
        label_set=arguments.label_set,
        label_values=arguments.label_values,
        class_map=arguments.class_map,
    )
    check_labels_asked(dataset, arguments)
    return dataset


def check_labels_asked(dataset: Dataset, arguments: argparse.Namespace) -> None:
    """Says on stderr what of the options on labels is not used, or leaves classes out.

    Args:
        dataset: what was opened.
        arguments: that asked for it.

    Raises:
        InputError: `--label-set` is for no one.
    """
    _check_label_set(dataset, arguments)
    if dataset.class_map is not None:
        _say_class_map(arguments.class_map or arguments.data / PERSON, dataset.class_map)


def _check_label_set(dataset: Dataset, arguments: argparse.Namespace) -> None:
    """Refuses a `--label-set` that nothing takes; a folder's classes.json comes before it."""
    models = ("network", "reference")  # of which the option speaks, too
    if arguments.label_set is None or any(getattr(arguments, m, None) for m in models):
        return
    known = dataset.label_set
    class_map = dataset.class_map
    if load_label_set(arguments.label_set).names in (
        known.names,
        *([class_map.source.names] if class_map else []),
    ):
        return
    if arguments.dataset != FOLDER:
        raise InputError(
            f"--label-set {arguments.label_set} is not for {arguments.dataset}, whose classes are "
            f"those of {known.name}: leave it out"
        )
    said = f"note: --label-set {arguments.label_set} is not used"
    print(f"{said}, as {arguments.data / FILE} names the classes", file=sys.stderr)


@cache
def _say(text: str) -> None:
    """Says it once, on stderr."""
    print(text, file=sys.stderr)


@cache
def _say_class_map(path: Path, class_map: ClassMap) -> None:
    """Says once which classes stand for none, or have none that stand for them."""
    source, target = class_map.source.name, class_map.target.name
    if class_map.unlisted:
        print(
            f"note: {path} does not list {', '.join(class_map.unlisted)} of {source}, and {target} "
            "has no class of that name, so they stand for no class",
            file=sys.stderr,
        )
    if missing := class_map.unanswered():
        print(
            f"note: in {path}, no class of {source} stands for {', '.join(missing)} of {target}",
            file=sys.stderr,
        )


def refuse_data_options(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuses what is said of the images of a data set where there is none.

    Args:
        arguments: of a command.
        names: of options that speak of a data set, as `arguments` has them.
        why: there is none, in words.

    Raises:
        InputError: one of them is given.
    """
    for name in names:
        given = getattr(arguments, name)
        if given is not None:
            option = f"--{name.replace('_', '-')} {given}"
            raise InputError(f"{option} is for a data set, but {why}: leave it out")


def _photos(folder: Path, arguments: argparse.Namespace) -> Dataset:
    if arguments.dataset is not None or arguments.data is not None:
        raise InputError(
            f"--images {folder} and a data set are both given: give either --images, or --dataset "
            "and --data"
        )
    refuse_data_options(arguments, ("split",), "--images takes every photo below its folder")
    refuse_data_options(arguments, OF_LABELS, "the photos of --images have no labels")
    refuse_data_options(arguments, ("exif",), "the photos of --images are turned as EXIF says")
    return photos(folder, arguments.group_by, lambda text: print(text, file=sys.stderr))
