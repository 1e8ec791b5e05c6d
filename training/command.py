"""`icnet train`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.command import command, count, parser, size
from icnet_deploy.data import DATASETS, open_dataset
from icnet_deploy.errors import InputError, MissingPackage
from icnet_deploy.labels import CITYSCAPES, LABEL_SETS, load_label_set

__all__ = ["main"]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Trains ICNet on one or several data sets and writes a checkpoint."""
    p = parser(
        "icnet train",
        "Train ICNet and write a checkpoint. Several data sets are mixed: give --dataset and "
        "--data once for each, in the order of the configuration's shares.",
        "icnet train --dataset camvid --data camvid --dataset scenes --data scenes \\\n"
        "    --config street -o icnet.safetensors",
    )
    p.add_argument("--dataset", action="append", required=True, choices=sorted(DATASETS))
    p.add_argument("--data", action="append", required=True, type=Path, help="its folder")
    p.add_argument("--split", default="train", help="of every data set (default: %(default)s)")
    p.add_argument(
        "--config", default="camvid", help="a shipped name, or a TOML file (default: camvid)"
    )
    p.add_argument("--steps", type=count, help="optimizer steps, in place of the configuration's")
    p.add_argument("--batch", type=count, help="images a step")
    p.add_argument("--crop", type=size, help="HEIGHTxWIDTH of the crops")
    p.add_argument("--seed", type=int)
    p.add_argument(
        "--label-set", default=CITYSCAPES.name, help="cityscapes, camvid, or a JSON file"
    )
    p.add_argument("-o", "--out", required=True, type=Path, help="the checkpoint, .safetensors")
    p.add_argument("--run", type=Path, help="folder of the run's state (default: OUT with .run)")
    p.add_argument("--init", type=Path, metavar="FILE", help="a checkpoint to start from")
    p.add_argument("--resume", action="store_true", help="go on from the run's last state")
    args = p.parse_args(argv)
    if len(args.dataset) != len(args.data):
        raise InputError(
            f"{len(args.dataset)} --dataset but {len(args.data)} --data: give one of each a set"
        )
    if args.out.suffix != ".safetensors":
        raise InputError(f"a checkpoint's name ends in .safetensors; got {args.out}")
    for package in ("torch", "safetensors", "pytorch_lightning"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package, extra="train", purpose="training")
    from icnet_deploy.training.config import load_config
    from icnet_deploy.training.train import train

    config = load_config(args.config).override(
        steps=args.steps, batch=args.batch, crop=args.crop, seed=args.seed
    )
    sets = [open_dataset(n, d, args.split) for n, d in zip(args.dataset, args.data, strict=True)]
    name = args.label_set
    label_set = LABEL_SETS[name] if name in LABEL_SETS else load_label_set(name)
    run = args.run or args.out.with_suffix(".run")
    info = train(sets, label_set, config, args.out, run, args.resume, args.init)
    print(f"{args.out}: {info['steps']} steps in {info['minutes']} minutes")
    return 0
