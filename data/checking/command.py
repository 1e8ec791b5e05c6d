"""`icnet dataset check`: what is in a data set, and all that is wrong with it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from os.path import exists, isdir
from pathlib import Path

from tqdm import tqdm

from icnet_deploy.command import Goal, check_outputs, command, options
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, open_dataset, voc
from icnet_deploy.data.checking.examine import Check, Part, read_part, tell_twins
from icnet_deploy.data.checking.report import check_page, check_text
from icnet_deploy.data.dataset import Incomplete
from icnet_deploy.data.options import (
    add_dataset_option,
    add_exif_option,
    add_group_option,
    add_label_options,
    check_labels_asked,
)
from icnet_deploy.data.own import folder
from icnet_deploy.data.own.classes import classes_of
from icnet_deploy.data.own.split_files import KINDS, SplitFiles
from icnet_deploy.errors import CheckFailed, DatasetError, InputError
from icnet_deploy.files import why_no_folder, write_json, write_text

_EXAMPLE = "icnet dataset check fields --report fields.html"
_TRIED = ("train", "val", "test")  # where a layout does not list its splits


def _usage() -> str:
    return (
        "usage: icnet dataset check DIR ...\n\n"
        "Checks labelled images before you use them.\n\n"
        "  icnet dataset check --help   its options\n\n"
        f"example:\n  {_EXAMPLE}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet dataset check",
        "Read every image of a data set with its labels, count what is there, and list the "
        "problems; the exit code is 1 if there are any.",
        _EXAMPLE,
    )
    parser.add_argument("data", type=Path, metavar="DIR", help="the data set's folder")
    add_dataset_option(parser, default=folder.NAME)
    options(parser, Goal.IMAGES).add_argument(
        "--split",
        action="append",
        metavar="NAME",
        help="check only this part of the data set; may be repeated (default: all parts)",
    )
    add_group_option(parser)
    add_label_options(parser)
    add_exif_option(parser)
    group = options(parser, Goal.RESULTS)
    group.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML report in one file"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet dataset`; exit code 0 nothing is wrong, 1 something is, 2 a wrong request."""
    rest = list(sys.argv[1:] if argv is None else argv)
    if not rest:
        print(_usage(), end="", file=sys.stderr)
        raise InputError(f"icnet dataset needs a command: check, e.g. {_EXAMPLE}")
    if rest[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    if rest[0] != "check":
        raise InputError(f"icnet dataset has no command {rest[0]!r}; known: check, e.g. {_EXAMPLE}")
    arguments = _parser().parse_args(rest[1:])
    check_outputs(arguments)
    check = _check(arguments)
    problems = check.problems()
    if arguments.json:
        write_json(arguments.json, check.to_dict())
    if arguments.report:
        write_text(arguments.report, check_page(check))
    print(check_text(check))  # last: its reader may close the pipe
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise CheckFailed(f"{arguments.data} has {count}; first: {problems[0]}")
    return 0


def _check(arguments: argparse.Namespace) -> Check:
    opened = list(_opened(arguments))
    parts = [part for part, _ in opened]
    total = sum(len(dataset) for _, dataset in opened if dataset is not None)
    with tqdm(total=total, desc="check", unit="image", disable=None) as bar:
        for part, dataset in opened:
            if dataset is not None:
                read_part(part, dataset, bar.update)
    tell_twins(parts)
    names = dict.fromkeys(dataset.label_set.name for _, dataset in opened if dataset is not None)
    return Check(arguments.dataset, str(arguments.data), " and ".join(names), parts)


def _opened(arguments: argparse.Namespace) -> Iterator[tuple[Part, Dataset | None]]:
    """Each split, with what is wrong with its files; None for one that cannot be opened at all."""
    root: Path = arguments.data
    if not exists(root):
        raise DatasetError(f"the data set's folder {root} {why_no_folder(root)}")
    if arguments.dataset == folder.NAME:  # what is said of the classes is no split's
        classes_of(root, arguments.label_set, arguments.label_values)
    asked: list[str] | None = arguments.split
    listed = asked or _listed(arguments.dataset, root)
    error: InputError | None = None
    opened: list[tuple[Part, Dataset | None]] = []
    for split in listed or _TRIED:
        try:
            opened.append(_open(arguments, split))
        except InputError as why:
            error = error or why
            if asked:
                raise
            if listed:
                opened.append((Part(split, (), problems=[str(why)]), None))
    if error is not None and all(dataset is None for _, dataset in opened):
        raise error
    first = next(dataset for _, dataset in opened if dataset is not None)
    check_labels_asked(first, arguments)
    for part, dataset in opened:
        if dataset is not None and dataset.own_classes.names != first.own_classes.names:
            part.problems.append(f"{part.split} has other classes than the splits listed above it")
    yield from opened


def _listed(name: str, root: Path) -> list[str]:
    """The splits that a layout lists, as far as it does."""
    if name == folder.NAME:
        below = (path.name for kind in KINDS for path in (root / kind).glob("[!.]*/"))
        return sorted({*folder.splits(root), *below})
    return voc.splits(root) if name == voc.NAME else []


def _open(arguments: argparse.Namespace, split: str) -> tuple[Part, Dataset]:
    problems: list[str] = []
    try:
        dataset = open_dataset(
            arguments.dataset,
            arguments.data,
            split,
            arguments.exif,
            arguments.group_by,
            label_set=arguments.label_set,
            label_values=arguments.label_values,
            class_map=arguments.class_map,
        )
    except Incomplete as error:
        dataset = error.rest
        problems += error.problems
    part = Part(split, dataset.label_set.names, dataset.grouping, problems=problems)
    if arguments.dataset == folder.NAME:
        found = SplitFiles.of(arguments.data, split)
        part.problems += [
            f"{path} has no image: add it, or remove the file" for path in found.unpaired
        ]
        part.notes += [f"{path} is left out: {_why_left_out(path)}" for path in found.left_out]
    return part, dataset


def _why_left_out(path: Path) -> str:
    if isdir(path):
        return "the folder is hidden, cannot be read, or is a link to a folder above it"
    return "it is not an image"
