"""`icnet sensitivity`: what quantizing each block costs, and the fewest to keep in float."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.command import add_output_options, check_outputs, command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import SPLIT, add_data_options
from icnet_deploy.errors import InputError, OutputError, require
from icnet_deploy.evaluation.budgets import (
    add_budget_options,
    add_undecided_option,
    chosen_budgets,
)
from icnet_deploy.files import make_folder
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.backends.registry import check_available

_SEARCHES = ("max_miou_drop", "max_miou_change", "max_class_drop", "max_class_change", "out")
"""The options that ask for a search."""


def _parser() -> argparse.ArgumentParser:
    p = make_parser(
        "icnet sensitivity",
        "Quantizes each block of a float32 ONNX file alone, all others in float, and scores it\n"
        "against float32 on the runtime that the placement is for. With a budget or -o it then\n"
        "searches the fewest blocks to keep in float on half of the images, proves what it found\n"
        "on the others, and exits with 1 if no graph keeps the budget.",
        "icnet sensitivity icnet.onnx --dataset camvid --data CamVid --placement int8 "
        "--max-miou-drop 0.1 --max-class-drop 0.5 -o icnet-int8.onnx",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="a float32 file of a fixed size")
    add_data_options(p)
    p.add_argument("--placement", required=True, choices=tuple(PLACEMENTS))
    p.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="ranges that `icnet quantize` kept of MODEL; they are made from the split train and "
        "kept there if there are none (default: MODEL.calibration.json)",
    )
    add_budget_options(p)
    add_undecided_option(p)
    p.add_argument(
        "--proof-split",
        metavar="NAME",
        help="prove what the search finds on this split, and let it see all of --split (default: "
        "it sees half of the groups of --split, or of each where they are few)",
    )
    p.add_argument("--rounds", type=count, default=10, metavar="N", help="of timing (default: 10)")
    add_output_options(p)
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the blocks' costs as SVG")
    p.add_argument("--trade-off", type=Path, metavar="FILE", help="draw time against mIoU as SVG")
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="write what the search found")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet sensitivity`; exit code 0 done, 1 no graph keeps the budget, 2 wrong request."""
    args = _parser().parse_args(argv)
    cache = args.calibration or args.model.parent / f"{args.model.stem}.calibration.json"
    searches = any(getattr(args, name) is not None for name in _SEARCHES)
    _check(args, cache, searches)
    from icnet_deploy.calibration.sensitivity.run import run

    run(args, cache, chosen_budgets(args)[args.placement] if searches else None)
    return 0


def _check(args: argparse.Namespace, cache: Path, searches: bool) -> None:
    """Finds before the long work what would stop it."""
    require("icnet sensitivity", "export", "onnx")
    check_available(cpu_runtime(args.placement), "cpu")
    for option, given, what in (
        ("--trade-off", args.trade_off, "draws"),
        ("--proof-split", args.proof_split, "proves"),
    ):
        if given is not None and not searches:
            raise InputError(
                f"{option} {what} a search: give --max-miou-drop or --max-class-drop, or leave it "
                "out"
            )
    if args.proof_split == (args.split or SPLIT):
        raise InputError(
            f"--proof-split {args.proof_split} is the split that the search sees: name another, or "
            "leave it out to have the split parted"
        )
    check_outputs(args)
    for path in (args.plot, args.trade_off, args.out, cache):
        if path is not None:
            make_folder(path.parent)
            if path.is_dir():
                raise OutputError(f"cannot write the file {path}: a folder of that name is there")
    if args.out is not None:
        if kind_of(args.out) != "onnx":
            raise InputError(f"-o {args.out}: name a file that ends in .onnx")
        if args.out.resolve() == args.model.resolve():
            raise InputError(f"-o {args.out} is the file that is quantized: name another")
