"""`icnet sensitivity`: what quantizing each block costs, and the fewest to keep in float."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.command import add_output_options, check_outputs, command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import add_data_options
from icnet_deploy.errors import InputError, OutputError, require
from icnet_deploy.evaluation.budgets import add_budget_options, chosen_budgets
from icnet_deploy.files import make_folder
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.backends.registry import check_available


def _parser() -> argparse.ArgumentParser:
    p = make_parser(
        "icnet sensitivity",
        "Quantizes each block of a float32 ONNX file alone, all others in float, and scores it\n"
        "against float32 on the runtime that the placement is for. With a budget or -o it then\n"
        "searches the fewest blocks to keep in float, and exits with 1 if none suffice.\n"
        "Prove what it finds on images that it was not searched on: icnet verify.",
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
    p.add_argument("--rounds", type=count, default=10, metavar="N", help="of timing (default: 10)")
    add_output_options(p)
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the blocks' costs as SVG")
    p.add_argument("--trade-off", type=Path, metavar="FILE", help="draw time against mIoU as SVG")
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="write what the search found")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet sensitivity`; exit code 0 done, 1 no graph meets the budget, 2 wrong request."""
    args = _parser().parse_args(argv)
    cache = args.calibration or args.model.parent / f"{args.model.stem}.calibration.json"
    asked = (args.max_miou_drop, args.max_class_drop, args.out)
    searches = any(option is not None for option in asked)
    _check(args, cache, searches)
    from icnet_deploy.calibration.sensitivity.run import run

    run(args, cache, chosen_budgets(args)[args.placement] if searches else None)
    return 0


def _check(args: argparse.Namespace, cache: Path, searches: bool) -> None:
    """Finds before the long work what would stop it."""
    require("icnet sensitivity", "export", "onnx")
    check_available(cpu_runtime(args.placement), "cpu")
    if args.trade_off is not None and not searches:
        raise InputError("--trade-off draws a search: give --max-miou-drop or --max-class-drop")
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
