"""`icnet compress`: prunes a checkpoint's network, step by step, fine-tuning after each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.command import command, options, parser
from icnet_deploy.documents import as_read
from icnet_deploy.files import sha256
from icnet_deploy.report.tables import Table
from icnet_deploy.training.command import PACKAGES, check_request, open_sets
from icnet_deploy.training.options import add_config_options, add_run_options, add_sets_options

if TYPE_CHECKING:
    from icnet_deploy.networks.base import SegmentationNetwork
    from icnet_deploy.training.compress.prune import Tune


def _tuner(args: argparse.Namespace) -> tuple[Tune, dict[str, Any]]:
    """Fine-tuning as the command's arguments have it, and its settings as a checkpoint has them."""
    from icnet_deploy.networks.checkpoint import load_checkpoint
    from icnet_deploy.training.config import load_config
    from icnet_deploy.training.train import train

    config = load_config(args.config).override(steps=args.steps)
    label_set = load_checkpoint(args.checkpoint).label_set
    sets = open_sets(args, label_set)

    def tune(init: Path, out: Path, run: Path, resume: bool) -> object:
        print(f"fine-tuning {init}" + " (resumed)" * resume, flush=True)
        return train(sets, label_set, config, out, run, resume, init)

    return tune, as_read(config.settings())


def _table(before: SegmentationNetwork, after: SegmentationNetwork) -> Table:
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
    return Table(("channels of", "before", "after"), rows)


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "icnet compress",
        "Prune the network of a checkpoint step by step, and fine-tune it after each step.",
        "icnet compress icnet.safetensors --keep 0.75 0.5 --dataset camvid --data camvid \\\n"
        "    --config camvid --steps 2000 -o half.safetensors",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the .safetensors file")
    options(p, "to choose how much to prune").add_argument(
        "--keep",
        type=float,
        nargs="+",
        default=[0.75, 0.5],
        metavar="SHARE",
        help="the share of CHECKPOINT's channels to keep after each step, below 1; the filters "
        "with the smallest L1 norm are removed, and every layer keeps a multiple of 8 channels "
        "(default: 0.75 0.5, as in the paper)",
    )
    add_sets_options(
        p,
        description="The data sets of the fine-tuning. Without --dataset, the network is only "
        "pruned, and most of its accuracy is lost.",
    )
    add_config_options(p, "the configuration of each fine-tuning, except for its network")
    add_run_options(p, "the last state in the run's folder")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compresses a checkpoint; exit code 0 done, 2 the request was wrong."""
    args = _parser().parse_args(argv)
    packages = PACKAGES if args.dataset else ("torch", "safetensors")
    check_request(args, packages, "compression")
    from icnet_deploy.training.compress.prune import compress

    tune, settings = _tuner(args) if args.dataset else (None, None)
    run = args.run or args.out.with_suffix(".run")
    first, last = compress(args.checkpoint, args.keep, args.out, run, tune, settings, args.resume)
    print(_table(first.network, last.network).text())
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(args.out)[:16]}...")
    if tune is None:
        print("pruned only, and not accurate: fine-tune it with --dataset or `icnet train --init`")
    return 0
