"""`icnet train`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.command import add_exif_option, command, count, parser, size
from icnet_deploy.data import DATASETS, Dataset, open_dataset
from icnet_deploy.data.dataset import Incomplete
from icnet_deploy.data.mapping import target_table
from icnet_deploy.data.options import add_label_options
from icnet_deploy.data.own.folder import NAME as FOLDER
from icnet_deploy.errors import DatasetError, InputError, LabelSetError, require
from icnet_deploy.labels import CITYSCAPES, LABEL_SETS, LabelSet, load_label_set

PACKAGES = ("torch", "safetensors", "pytorch_lightning", "tensorboard", "matplotlib")
"""What a run needs, the picture at its end included."""


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "icnet train",
        "Train ICNet and write a checkpoint. Several data sets are mixed: give --dataset and "
        "--data once for each, in the order of the configuration's shares.",
        "icnet train --dataset camvid --data camvid --dataset scenes --data scenes \\\n"
        "    --config street -o icnet.safetensors",
    )
    add_sets_options(p, required=True)
    p.add_argument(
        "--split", default="train", help="of every data set, e.g. train+val (default: %(default)s)"
    )
    add_exif_option(p)
    p.add_argument(
        "--validate",
        default="val",
        metavar="SPLIT",
        help="score on this split of every data set that has it, as it trains; 'none' for none "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--validate-every", type=count, default=500, metavar="STEPS", help="(default: %(default)s)"
    )
    p.add_argument(
        "--validate-images", type=count, metavar="N", help="of each data set (default: all)"
    )
    p.add_argument(
        "--config", default="camvid", help="a shipped name, or a TOML file (default: camvid)"
    )
    p.add_argument("--steps", type=count, help="optimizer steps, in place of the configuration's")
    p.add_argument("--batch", type=count, help="images a step")
    p.add_argument("--crop", type=size, help="HEIGHTxWIDTH of the crops")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--label-set",
        metavar="NAME|FILE.json",
        help=f"the network's classes, and those of a --dataset folder without classes.json: "
        f"{', '.join(LABEL_SETS)}, or a file (default: cityscapes where that can be trained on the "
        "data sets, else the first one's)",
    )
    p.add_argument("-o", "--out", required=True, type=Path, help="the checkpoint, .safetensors")
    p.add_argument("--run", type=Path, help="folder of the run's state (default: OUT with .run)")
    p.add_argument("--init", type=Path, metavar="FILE", help="a checkpoint to start from")
    p.add_argument("--devices", type=count, default=1, help="GPUs, or processes, a machine")
    p.add_argument("--nodes", type=count, default=1, help="machines; one command on each")
    p.add_argument("--workers", type=int, metavar="N", help="loading processes a device")
    p.add_argument("--resume", action="store_true", help="go on from the run's last state")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Trains ICNet on one or several data sets and writes a checkpoint."""
    args = _parser().parse_args(argv)
    check_request(args, PACKAGES, "training")
    from icnet_deploy.training.config import load_config
    from icnet_deploy.training.train import Machines, train

    config = load_config(args.config).override(
        steps=args.steps, batch=args.batch, crop=args.crop, seed=args.seed
    )
    sets = open_sets(args)
    info = train(
        sets,
        _label_set(args, sets),
        config,
        args.out,
        args.run or args.out.with_suffix(".run"),
        args.resume,
        args.init,
        _validation(args),
        min(args.validate_every, config.steps),
        Machines(args.devices, args.nodes, args.workers),
    )
    if info is not None:
        print(f"{args.out}: {info['steps']} steps in {info['minutes']} minutes")
    return 0


def check_request(args: argparse.Namespace, packages: Sequence[str], purpose: str) -> None:
    """Finds what is wrong with a request for a checkpoint before the long work.

    Raises:
        InputError: as many `--data` as `--dataset` are wanted, and a checkpoint's name.
        MissingPackage: one of `packages` is not installed.
    """
    if len(args.dataset) != len(args.data):
        raise InputError(
            f"{len(args.dataset)} --dataset but {len(args.data)} --data: give one of each a set"
        )
    if args.out.suffix != ".safetensors":
        raise InputError(f"a checkpoint's name ends in .safetensors; got {args.out}")
    require(purpose, "train", *packages)


def add_sets_options(p: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds which data sets are trained on, each with its folder."""
    p.add_argument(
        "--dataset",
        action="append",
        required=required,
        default=None if required else [],
        metavar="NAME",
        help=f"{', '.join(DATASETS)}: the layout; or PACKAGE.MODULE:OPENER, a function of your own "
        "that opens it; may be repeated",
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
    add_label_options(p, label_set=False)


def open_sets(args: argparse.Namespace) -> list[Dataset]:
    """The data sets to train on, each split of each by itself, in the order of the request."""
    return [
        _open(args, name, folder, split)
        for name, folder in zip(args.dataset, args.data, strict=True)
        for split in args.split.split("+")
    ]


def _open(args: argparse.Namespace, name: str, folder: Path, split: str) -> Dataset:
    return open_dataset(
        name,
        folder,
        split,
        args.exif,
        label_set=getattr(args, "label_set", None),
        label_values=args.label_values if name == FOLDER else None,
        class_map=args.class_map,
    )


def _label_set(args: argparse.Namespace, sets: Sequence[Dataset]) -> LabelSet:
    """The network's classes."""
    if args.label_set is not None:
        return load_label_set(args.label_set)
    try:
        for dataset in sets:
            target_table(CITYSCAPES, dataset.label_set, dataset.class_map)
    except LabelSetError:
        return sets[0].label_set
    return CITYSCAPES


def _validation(args: argparse.Namespace) -> list[tuple[str, Dataset]]:
    """The data sets to score on, by the names that their scores go by."""
    if args.validate == "none":
        return []
    found: dict[str, Dataset] = {}
    for number, (name, folder) in enumerate(zip(args.dataset, args.data, strict=True), 1):
        try:
            dataset = _open(args, name, folder, args.validate)
        except DatasetError as error:
            if isinstance(error, Incomplete) and len(error.rest):
                raise  # a score over the rest would pass for one over the split
            print(f"{folder} has no labelled split {args.validate!r}: it is not scored")
            continue
        key = dataset.name
        found[f"{key}-{number}" if key in found else key] = dataset.first(args.validate_images)
    return list(found.items())
