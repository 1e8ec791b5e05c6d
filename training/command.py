"""`icnet train`."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from os.path import exists
from pathlib import Path

from icnet_deploy.command import Goal, command, count, options, parser, size
from icnet_deploy.data import Dataset, open_dataset
from icnet_deploy.data.dataset import Incomplete, parted
from icnet_deploy.data.mapping import load_class_map
from icnet_deploy.data.own.folder import NAME as FOLDER
from icnet_deploy.errors import DatasetError, InputError, require
from icnet_deploy.files import require_place
from icnet_deploy.labels import CITYSCAPES, LABEL_SETS, LabelSet, load_label_set
from icnet_deploy.training.options import (
    TRAINING,
    add_config_options,
    add_run_options,
    add_sets_options,
)

_STREETS = ("cityscapes", "camvid", "scenes")
"""Data sets that a network of Cityscapes' classes is trained on, if no other classes are named."""

PACKAGES = ("torch", "safetensors", "pytorch_lightning", "tensorboard", "matplotlib")
"""What a run needs, the picture at its end included."""

_LEFT_OUT = "left-out"
"""Stands for the images of --leave-out, among the splits to score on."""

_SHIPPED = "shipped"
"""Stands for the checkpoint that comes with the product."""


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "icnet train",
        "Train a network on one or more data sets, and write a checkpoint.",
        "icnet train --dataset folder --data fields --init shipped -o fields.safetensors",
    )
    add_sets_options(
        p,
        required=True,
        description="To mix several data sets, give --dataset and --data once for each, in the "
        "order of the shares in the configuration.",
    )
    _add_network(p)
    add_config_options(p, "the configuration of the training")
    _add_settings(p)
    _add_validation(p)
    add_run_options(p, "the last state of the run")
    group = options(p, Goal.RUN)
    group.add_argument(
        "--devices",
        type=count,
        default=1,
        metavar="N",
        help="GPUs on each machine; on CPUs, processes (default: %(default)s)",
    )
    group.add_argument(
        "--nodes",
        type=count,
        default=1,
        metavar="N",
        help="machines; start the same command on each (default: %(default)s)",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that load images, for each device (default: 6 for a GPU, none for a CPU)",
    )
    return p


def _add_network(p: argparse.ArgumentParser) -> None:
    """Adds what network is trained, and from what it starts."""
    group = options(p, "to choose the network")
    group.add_argument(
        "--label-set",
        metavar="NAME|FILE.json",
        help="the classes of the network, and of a --dataset folder without classes.json: "
        f"{', '.join(LABEL_SETS)}, or a file (default: {CITYSCAPES.name} for "
        f"{', '.join(_STREETS)}; else the classes of the first data set, or of the class map)",
    )
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from this checkpoint, or from `shipped`; only the classifiers are new if it "
        "has other classes",
    )
    group.add_argument(
        "--init-backbone",
        type=Path,
        metavar="FILE",
        help="start the backbone of a new network from this ImageNet checkpoint of torchvision or "
        "timm, .pth or .safetensors, pruned to the network's width; not with --init",
    )


def _add_settings(p: argparse.ArgumentParser) -> None:
    """Adds what is set otherwise than the configuration has it."""
    group = options(p, TRAINING)
    group.add_argument("--batch", type=count, metavar="N", help="images in each step")
    group.add_argument(
        "--crop", type=size, metavar="HEIGHTxWIDTH", help="the size of the crops in pixels"
    )
    group.add_argument("--seed", type=int, metavar="N", help="the random seed")
    group.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="ignore a teacher's labels where its confidence is below P, a share of 255 from 0 to "
        "1; for a --dataset folder with confidence/SPLIT (default: the configuration's, else 0)",
    )
    group.add_argument(
        "--weigh-confidence",
        action="store_true",
        default=None,
        help="multiply the loss of each pixel that the teacher labels by its confidence; for such "
        "a folder",
    )


def _add_validation(p: argparse.ArgumentParser) -> None:
    """Adds what is scored on as it trains."""
    group = options(p, "to score the network as it trains")
    group.add_argument(
        "--validate",
        default="val",
        metavar="SPLIT",
        help="score on this split of every data set that has it; 'left-out': on the images of "
        "--leave-out; 'none': do not score (default: %(default)s)",
    )
    group.add_argument(
        "--validate-every",
        type=count,
        default=500,
        metavar="STEPS",
        help="score after so many steps (default: %(default)s)",
    )
    group.add_argument(
        "--validate-images",
        type=count,
        metavar="N",
        help="score on N images of each data set (default: all)",
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Trains ICNet on one or several data sets and writes a checkpoint."""
    args = _parser().parse_args(argv)
    check_request(args, PACKAGES, "training")
    from icnet_deploy.training.config import load_config
    from icnet_deploy.training.train import Machines, train

    config = load_config(args.config).override(
        steps=args.steps,
        batch=args.batch,
        crop=args.crop,
        seed=args.seed,
        min_confidence=args.min_confidence,
        weigh_confidence=args.weigh_confidence,
    )
    label_set = _label_set(args)
    info = train(
        open_sets(args, label_set),
        label_set,
        config,
        args.out,
        args.run or args.out.with_suffix(".run"),
        args.resume,
        _init(args.init),
        _validation(args, label_set),
        min(args.validate_every, config.steps),
        Machines(args.devices, args.nodes, args.workers),
        backbone=args.init_backbone,
    )
    if info is not None:
        print(f"{args.out}: {info['steps']} steps in {info['minutes']} minutes")
    return 0


def check_request(args: argparse.Namespace, packages: Sequence[str], purpose: str) -> None:
    """Finds what is wrong with a request for a checkpoint before the long work.

    Raises:
        InputError: as many `--data` as `--dataset` are wanted, and a checkpoint's name.
        OutputError: the checkpoint cannot be written there.
        MissingPackage: one of `packages` is not installed.
    """
    if len(args.dataset) != len(args.data):
        raise InputError(
            f"{len(args.dataset)} --dataset but {len(args.data)} --data: give both for each set"
        )
    require_place(args.out, ".safetensors")
    require(purpose, "train", *packages)


def _init(given: Path | None) -> Path | None:
    """The checkpoint to start from."""
    if given != Path(_SHIPPED) or exists(given):
        return given
    from icnet_deploy.networks.checkpoint import SHIPPED

    return SHIPPED


def open_sets(args: argparse.Namespace, label_set: LabelSet) -> list[Dataset]:
    """The data sets to train on, each split of each by itself, in the order of the request.

    Args:
        args: of `add_sets_options`.
        label_set: the network's classes, and those of a folder that names none.

    Raises:
        InputError: as `open_dataset`; or no data set needs the class map.
    """
    whole = _whole_sets(args, label_set)
    sets = whole
    if args.leave_out is not None:
        parts = [parted(dataset, args.leave_out, "--leave-out") for dataset in whole]
        sets = [rest for rest, _ in parts]
        for dataset, (rest, those) in zip(whole, parts, strict=True):
            if those and not rest:
                raise InputError(
                    f"--leave-out {args.leave_out} matches all {len(dataset)} images of "
                    f"{dataset.called} {dataset.split}: give one that leaves some to train on"
                )
        if not any(those for _, those in parts):
            raise InputError(
                f"--leave-out {args.leave_out} matches no name of a training image, e.g. "
                f"{whole[0].below(whole[0].files[0][0])}: correct it, or leave it out"
            )
    names = label_set.names
    if args.class_map is not None and all(each.own_classes.names == names for each in sets):
        raise InputError(
            f"--class-map {args.class_map} is not needed, as each data set has the classes of the "
            f"network, those of {label_set.name}: leave it out"
        )
    return sets


def _whole_sets(args: argparse.Namespace, label_set: LabelSet) -> list[Dataset]:
    """What is asked for, with what is left out."""
    return [
        _open(args, name, folder, split, label_set)
        for name, folder in zip(args.dataset, args.data, strict=True)
        for split in args.split.split("+")
    ]


def _open(
    args: argparse.Namespace, name: str, folder: Path, split: str, label_set: LabelSet
) -> Dataset:
    """A split of a data set; with the class map, if its classes are not the network's."""
    said = getattr(args, "label_set", None) or label_set
    # Where several are mixed, the others know what their label files hold.
    values = args.label_values if name == FOLDER or FOLDER not in args.dataset else None
    opened = partial(
        open_dataset, name, folder, split, args.exif, label_set=said, label_values=values
    )
    dataset = opened()
    if args.class_map is None or dataset.own_classes.names == label_set.names:
        return dataset
    return opened(class_map=args.class_map)


def _label_set(args: argparse.Namespace) -> LabelSet:
    """The network's classes; where nobody names them, and they are not the usual, it says them."""
    if args.label_set is not None:
        return load_label_set(args.label_set)
    if all(name in _STREETS for name in args.dataset) and args.class_map is None:
        return CITYSCAPES
    split = args.split.split("+")[0]
    known = open_dataset(
        args.dataset[0], args.data[0], split, args.exif, label_values=args.label_values
    ).own_classes
    where = str(args.data[0])
    if args.class_map is not None:  # the data set's are of one of its sides
        rule, where = load_class_map(args.class_map), str(args.class_map)
        known = rule.source if known.names == rule.target.names else rule.target
    print(f"the network has the {len(known)} classes of {where}: {', '.join(known.names)}")
    return known


def _validation(args: argparse.Namespace, label_set: LabelSet) -> list[tuple[str, Dataset]]:
    """The data sets to score on, by the names that their scores go by.

    It says of which a network drew the labels.
    """
    if args.validate == "none":
        return []
    found: dict[str, Dataset] = {}
    scored = _left_out if args.validate == _LEFT_OUT else _of_split
    for number, dataset in scored(args, label_set):
        key = f"{dataset.called}-{number}" if dataset.called in found else dataset.called
        found[key] = dataset.first(args.validate_images)
        if dataset.teacher is not None:
            print(f"note: {dataset.teacher.note(f'{key} {dataset.split}')}")
    return list(found.items())


def _of_split(args: argparse.Namespace, label_set: LabelSet) -> Iterator[tuple[int, Dataset]]:
    """The split to score on of every data set that has it, with the data set's number."""
    for number, (name, folder) in enumerate(zip(args.dataset, args.data, strict=True), 1):
        try:
            dataset = _open(args, name, folder, args.validate, label_set)
        except DatasetError as error:
            if isinstance(error, Incomplete) and len(error.rest):
                raise  # a score over the rest would pass for one over the split
            print(f"{folder} has no labelled split {args.validate!r}, so it is not scored")
            continue
        yield number, dataset


def _left_out(args: argparse.Namespace, label_set: LabelSet) -> Iterator[tuple[int, Dataset]]:
    """What is not trained on, to score on it, with the number of the split that it is of."""
    if args.leave_out is None:
        raise InputError(
            f"--validate {_LEFT_OUT} needs --leave-out REGEX also, which names the images to score"
        )
    for number, dataset in enumerate(_whole_sets(args, label_set), 1):
        those = parted(dataset, args.leave_out, "--leave-out")[1]
        if those:
            yield number, those
