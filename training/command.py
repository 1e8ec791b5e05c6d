"""`icnet train`."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from os.path import exists
from pathlib import Path

from icnet_deploy.command import command, count, parser, size
from icnet_deploy.data import Dataset, open_dataset
from icnet_deploy.data.dataset import Incomplete, parted
from icnet_deploy.data.mapping import load_class_map
from icnet_deploy.data.options import DATASET_HELP, add_exif_option, add_label_options
from icnet_deploy.data.own.folder import NAME as FOLDER
from icnet_deploy.errors import DatasetError, InputError, require
from icnet_deploy.files import require_place
from icnet_deploy.labels import CITYSCAPES, LABEL_SETS, LabelSet, load_label_set

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
        "Train a network, ICNet if none other is configured, and write a checkpoint. Several data "
        "sets are mixed:\ngive --dataset and --data once for each, in the order of the "
        "configuration's shares.",
        "icnet train --dataset camvid --data camvid --dataset scenes --data scenes \\\n"
        "    --config camvid -o icnet.safetensors\n"
        "  icnet train --dataset folder --data farm --init icnet.safetensors -o farm.safetensors\n"
        "  icnet train --dataset folder --data taught --min-confidence 0.55 --weigh-confidence \\\n"
        "    -o taught.safetensors",
    )
    add_sets_options(p, required=True)
    p.add_argument(
        "--validate",
        default="val",
        metavar="SPLIT",
        help="score on this split of every data set that has it, as it trains; 'left-out' for what "
        "--leave-out leaves out, 'none' for none (default: %(default)s)",
    )
    p.add_argument(
        "--validate-every", type=count, default=500, metavar="STEPS", help="(default: %(default)s)"
    )
    p.add_argument(
        "--validate-images", type=count, metavar="N", help="of each data set (default: all)"
    )
    _add_settings(p)
    p.add_argument(
        "--label-set",
        metavar="NAME|FILE.json",
        help=f"the network's classes, and those of a --dataset folder without classes.json: "
        f"{', '.join(LABEL_SETS)}, or a file (default: {CITYSCAPES.name} for "
        f"{', '.join(_STREETS)}, else the first data set's, or those that a class map gives it)",
    )
    p.add_argument("-o", "--out", required=True, type=Path, help="the checkpoint, .safetensors")
    p.add_argument("--run", type=Path, help="folder of the run's state (default: OUT with .run)")
    p.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="a checkpoint to start from, or `shipped`; where its classes are others, all of it is "
        "kept but the classifiers",
    )
    p.add_argument(
        "--init-backbone",
        type=Path,
        metavar="FILE",
        help="an ImageNet checkpoint of torchvision or timm, .pth or .safetensors: a new network's "
        "backbone begins with what fits of it, pruned to its width; not with --init",
    )
    p.add_argument("--devices", type=count, default=1, help="GPUs, or processes, a machine")
    p.add_argument("--nodes", type=count, default=1, help="machines; one command on each")
    p.add_argument("--workers", type=int, metavar="N", help="loading processes a device")
    p.add_argument("--resume", action="store_true", help="go on from the run's last state")
    return p


def _add_settings(p: argparse.ArgumentParser) -> None:
    """Adds how it is trained: a configuration, and what is set otherwise."""
    p.add_argument(
        "--config", default="camvid", help="a shipped name, or a TOML file (default: camvid)"
    )
    p.add_argument("--steps", type=count, help="optimizer steps, in place of the configuration's")
    p.add_argument("--batch", type=count, help="images a step")
    p.add_argument("--crop", type=size, help="HEIGHTxWIDTH of the crops")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="of a --dataset folder that a teacher labelled (with confidence/SPLIT): ignore its "
        "labels where its confidence is below P, a share of 255, 0 to 1 (default: the "
        "configuration's, else 0)",
    )
    p.add_argument(
        "--weigh-confidence",
        action="store_true",
        default=None,
        help="of such a folder: weigh the loss of each pixel that the teacher decides by its "
        "confidence",
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
            f"{len(args.dataset)} --dataset but {len(args.data)} --data: give one of each a set"
        )
    require_place(args.out, ".safetensors")
    require(purpose, "train", *packages)


def _init(given: Path | None) -> Path | None:
    """The checkpoint to start from."""
    if given != Path(_SHIPPED) or exists(given):
        return given
    from icnet_deploy.networks.checkpoint import SHIPPED

    return SHIPPED


def add_sets_options(p: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds what is trained on: data sets, their splits, and what their labels mean."""
    p.add_argument(
        "--dataset",
        action="append",
        required=required,
        default=None if required else [],
        metavar="NAME",
        help=f"{DATASET_HELP}; may be repeated",
    )
    p.add_argument(
        "--data",
        action="append",
        required=required,
        default=None if required else [],
        type=Path,
        metavar="DIR",
        help="its folder",
    )
    p.add_argument(
        "--split", default="train", help="of every data set, e.g. train+val (default: %(default)s)"
    )
    p.add_argument(
        "--leave-out",
        metavar="REGEX",
        help="do not train on images in whose file names REGEX finds something, e.g. "
        "'^(0001TP|0006R0)_' for two drives; with a / it is searched in their paths",
    )
    add_label_options(p, label_set=False)
    add_exif_option(p)


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
                    f"--leave-out {args.leave_out} leaves out all {len(dataset)} images of "
                    f"{dataset.called} {dataset.split}; expected one that leaves some to train on"
                )
        if not any(those for _, those in parts):
            raise InputError(
                f"--leave-out {args.leave_out} finds nothing in the name of any image to train "
                f"on, e.g. {whole[0].below(whole[0].files[0][0])}: correct it, or leave it out"
            )
    names = label_set.names
    if args.class_map is not None and all(each.own_classes.names == names for each in sets):
        raise InputError(
            f"--class-map {args.class_map}: each data set has the network's classes, those of "
            f"{label_set.name}: leave it out"
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
            print(f"{folder} has no labelled split {args.validate!r}: it is not scored")
            continue
        yield number, dataset


def _left_out(args: argparse.Namespace, label_set: LabelSet) -> Iterator[tuple[int, Dataset]]:
    """What is not trained on, to score on it, with the number of the split that it is of."""
    if args.leave_out is None:
        raise InputError(
            f"--validate {_LEFT_OUT} scores what is not trained on: say what, with --leave-out "
            "REGEX"
        )
    for number, dataset in enumerate(_whole_sets(args, label_set), 1):
        those = parted(dataset, args.leave_out, "--leave-out")[1]
        if those:
            yield number, those
