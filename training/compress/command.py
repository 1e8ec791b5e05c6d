"""`icnet compress`: prunes a checkpoint's network, step by step, fine-tuning after each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.command import add_exif_option, command, count, parser
from icnet_deploy.data import DATASETS, open_dataset
from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder, sha256
from icnet_deploy.training.command import PACKAGES, check_request

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint
    from icnet_deploy.networks.registry import Network
    from icnet_deploy.training.config import TrainConfig

Tune = Callable[[Path, Path, Path, bool], object]
"""Trains the network of a checkpoint: (init, out, run's folder, whether to resume)."""


def compress(
    origin: Path,
    keep: Sequence[float],
    out: Path,
    run: Path,
    tune: Tune | None = None,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
) -> tuple[Checkpoint, Checkpoint]:
    """Prunes to each share in turn, and writes the last network to `out`.

    Args:
        origin: the checkpoint to compress.
        keep: shares of its channels, above 0, each less than the one before.
        out: the checkpoint to write.
        run: a folder for each step's two checkpoints, `pruned` and `tuned`, and its training run.
        tune: fine-tunes a step's network; None only prunes.
        settings: what `tune` writes as its configuration; a tuned checkpoint of other settings is
            not taken for this run's.
        resume: take over from `run` what was made from the same files with the same settings.

    Returns:
        The origin and the result.

    Raises:
        InputError: the shares do not fall.
        ModelError: the checkpoint cannot be read.
    """
    from icnet_deploy.networks.checkpoint import load_checkpoint, save_checkpoint
    from icnet_deploy.training.compress.prune import prune

    if any(b >= a for a, b in zip((1.0, *keep), keep, strict=False)) or keep[-1] <= 0:
        raise InputError(
            f"--keep takes shares below 1 and above 0, each less than the last; got {list(keep)}"
        )
    first = last = load_checkpoint(origin)
    for step, share in enumerate(keep, 1):
        folder = make_folder(run / f"keep-{share:g}")
        pruned, tuned = folder / "pruned.safetensors", folder / "tuned.safetensors"
        history = {
            "keep": list(keep[:step]),
            "from_sha256": last.sha256,
            "parent_sha256": first.sha256,
            "parent": first.info,
        }
        made = resume and _info(pruned).get("compression") == history
        if not made:
            network = prune(last.network, share, first.network)
            info = {"compression": history}
            save_checkpoint(pruned, network, first.label_set, first.preprocessing, info)
        last = load_checkpoint(pruned)
        if tune is not None:
            done = _info(tuned) if made else {}
            if done.get("started_from") != last.sha256 or done.get("config") != settings:
                tune(pruned, tuned, folder, made and (folder / "last.ckpt").is_file())
            last = load_checkpoint(tuned)
    info = last.info | {"compression": history}
    # What was tuned is in float16 already; what was only pruned keeps its origin's values.
    save_checkpoint(
        out, last.network, last.label_set, last.preprocessing, info, half=tune is not None
    )
    return first, load_checkpoint(out)


def _info(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its making; nothing where there is none."""
    from icnet_deploy.networks.checkpoint import load_checkpoint

    return load_checkpoint(path).info if path.is_file() else {}


def _tuner(args: argparse.Namespace) -> tuple[Tune, dict[str, Any]]:
    """Fine-tuning as the command's arguments have it, and its settings as a checkpoint has them."""
    from icnet_deploy.networks.checkpoint import load_checkpoint
    from icnet_deploy.training.config import load_config
    from icnet_deploy.training.train import train

    config: TrainConfig = load_config(args.config).override(steps=args.steps)
    sets = [
        open_dataset(name, folder, split, args.exif)
        for name, folder in zip(args.dataset, args.data, strict=True)
        for split in args.split.split("+")
    ]
    label_set = load_checkpoint(args.checkpoint).label_set

    def tune(init: Path, out: Path, run: Path, resume: bool) -> object:
        print(f"fine-tuning {init}" + " (resumed)" * resume, flush=True)
        return train(sets, label_set, config, out, run, resume, init)

    return tune, json.loads(json.dumps(asdict(config)))


def _table(before: Network, after: Network) -> str:
    """Each group of channels before and after, and what the networks take."""
    from icnet_deploy.networks.registry import cost
    from icnet_deploy.training.compress.prune import channel_groups

    rows = []
    for a, b in zip(channel_groups(before), channel_groups(after), strict=True):
        more = f" + {len(a.layers) - 1} summed with it" if len(a.layers) > 1 else ""
        rows.append((a.layers[0] + more, str(a.channels), str(b.channels)))
    old, new = cost(before), cost(after)
    rows.append(("parameters, M", f"{old.parameters / 1e6:.2f}", f"{new.parameters / 1e6:.2f}"))
    rows.append(("GMAC at 1025x2049", f"{old.macs / 1e9:.1f}", f"{new.macs / 1e9:.1f}"))
    return "\n".join(f"{what:<42}{a:>8}{b:>8}" for what, a, b in rows)


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "icnet compress",
        "Prune a checkpoint's network and fine-tune it, share by share: the filters of least L1 "
        "norm go, layers whose outputs are summed lose the same ones, and channels stay multiples "
        "of 8. Without --dataset it only prunes, and most of the accuracy is lost.",
        "icnet compress icnet.safetensors --keep 0.75 0.5 --dataset camvid --data camvid \\\n"
        "    --config camvid --steps 2000 -o half.safetensors",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .safetensors file")
    p.add_argument(
        "--keep",
        type=float,
        nargs="+",
        default=[0.75, 0.5],
        metavar="SHARE",
        help="of CHECKPOINT's channels, after each step (default: 0.75 0.5, as in the paper)",
    )
    p.add_argument("--dataset", action="append", default=[], choices=sorted(DATASETS))
    p.add_argument("--data", action="append", default=[], type=Path, help="its folder")
    p.add_argument("--split", default="train", help="of every data set (default: %(default)s)")
    add_exif_option(p)
    p.add_argument(
        "--config",
        default="camvid",
        help="of the fine-tuning: a name, or a TOML file (default: "
        "%(default)s); the checkpoint decides what network it is",
    )
    p.add_argument("--steps", type=count, help="of each fine-tuning, in place of the config's")
    p.add_argument("-o", "--out", required=True, type=Path, help="the checkpoint, .safetensors")
    p.add_argument("--run", type=Path, help="folder of the steps' state (default: OUT with .run)")
    p.add_argument("--resume", action="store_true", help="go on with what the run's folder holds")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compresses a checkpoint; exit code 0 done, 2 the request was wrong."""
    args = _parser().parse_args(argv)
    packages = PACKAGES if args.dataset else ("torch", "safetensors")
    check_request(args, packages, "compression")
    tune, settings = _tuner(args) if args.dataset else (None, None)
    run = args.run or args.out.with_suffix(".run")
    first, last = compress(args.checkpoint, args.keep, args.out, run, tune, settings, args.resume)
    print(_table(first.network, last.network))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(args.out)[:16]}...")
    if tune is None:
        print("pruned only: its accuracy must be regained, by --dataset or `icnet train --init`")
    return 0
