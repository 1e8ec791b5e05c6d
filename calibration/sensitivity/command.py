"""`icnet sensitivity`: what quantizing each block costs, and the fewest to keep in float."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.command import add_output_options, check_outputs, command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import SPLIT, add_data_options
from icnet_deploy.errors import InputError, require
from icnet_deploy.evaluation.budgets import (
    add_budget_options,
    add_undecided_option,
    chosen_budgets,
)
from icnet_deploy.files import real_path
from icnet_deploy.runtime.auto.folder import kind_of
from icnet_deploy.runtime.backends.registry import DEVICES, check_available

_SEARCHES = ("max_miou_drop", "max_miou_change", "max_class_drop", "max_class_change", "out")
"""The options that ask for a search."""

_ROUNDS = 10
_IMAGES = 8  # of --layers


def _parser() -> argparse.ArgumentParser:
    p = make_parser(
        "icnet sensitivity",
        "Quantizes each block of a float32 ONNX file alone, all others in float, and scores it\n"
        "against float32 on the runtime that the placement is for. With a budget or -o it then\n"
        "searches the fewest blocks to keep in float on half of the images, proves what it found\n"
        "on the others, and exits with 1 if no graph keeps the budget. With --layers it says\n"
        "where an artefact leaves float32's path.",
        "icnet sensitivity icnet.onnx --dataset camvid --data CamVid --placement int8 "
        "--max-miou-drop 0.1 --max-class-drop 0.5 -o icnet-int8.onnx",
    )
    p.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a float32 file of a fixed size; with --layers an INT8 or FP16 file, too",
    )
    add_data_options(p, images=True)
    p.add_argument("--placement", choices=tuple(PLACEMENTS), help="of the 8-bit graphs of MODEL")
    p.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="ranges that `icnet quantize` kept of MODEL; they are made from the split train and "
        "kept there if there are none (default: MODEL.calibration.json)",
    )
    _add_layers_options(p)
    add_budget_options(p)
    add_undecided_option(p)
    p.add_argument(
        "--proof-split",
        metavar="NAME",
        help="prove what the search finds on this split, and let it see all of --split (default: "
        "it sees half of the groups of --split, or of each where they are few)",
    )
    p.add_argument("--rounds", type=count, metavar="N", help=f"of timing (default: {_ROUNDS})")
    add_output_options(p)
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the blocks' costs as SVG")
    p.add_argument("--trade-off", type=Path, metavar="FILE", help="draw time against mIoU as SVG")
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="write what the search found")
    return p


def _add_layers_options(parser: argparse.ArgumentParser) -> None:
    layers = parser.add_argument_group(
        "layers",
        "With --layers the output of each block is compared with float32's on the runtime itself, "
        "in one run, the block first that adds the most noise. MODEL is an INT8 or FP16 file, or "
        "one of float32: with --placement its 8-bit graph is compared, with --runtime that "
        "runtime. "
        f"Labels are not read, and --limit is {_IMAGES} unless it is given. For example: "
        "icnet sensitivity icnet-int8.onnx --layers --images photos",
    )
    layers.add_argument("--layers", action="store_true", help="compare the outputs of blocks")
    layers.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.onnx",
        help="the float32 file that MODEL was made from (default: found in MODEL's folder)",
    )
    layers.add_argument(
        "--runtime",
        metavar="NAME",
        help="where MODEL runs (default: the one that it is for; of a float16 file 'rounded', with "
        "every value rounded as on a GPU)",
    )
    layers.add_argument("--device", choices=DEVICES, help="(default: cpu)")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet sensitivity`; exit code 0 done, 1 no graph keeps the budget, 2 wrong request."""
    args = _parser().parse_args(argv)
    searches = any(getattr(args, name) is not None for name in _SEARCHES)
    require("icnet sensitivity", "export", "onnx")
    if args.layers:
        _check_layers(args)
        check_outputs(args, "plot")
        from icnet_deploy.calibration.sensitivity.layers_run import run_layers

        args.limit = args.limit or _IMAGES
        run_layers(args)
        return 0
    cache = args.calibration or args.model.parent / f"{args.model.stem}.calibration.json"
    _check(args, searches)
    args.calibration = cache
    check_outputs(args, "plot", "trade_off", "out", "calibration")
    args.rounds = args.rounds or _ROUNDS
    from icnet_deploy.calibration.sensitivity.run import run

    run(args, cache, chosen_budgets(args)[args.placement] if searches else None)
    return 0


def _check_layers(args: argparse.Namespace) -> None:
    """Refuses what does not go with --layers, which scores and searches nothing."""
    for name in (*_SEARCHES, "trade_off", "proof_split", "rounds"):
        if getattr(args, name) is not None:
            option = "-o" if name == "out" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} is for the costs of blocks and the search, and --layers compares their "
                "outputs in one run: leave one of the two out"
            )
    if args.undecided == "fail":
        raise InputError("--undecided is for a proof, and --layers has none: leave it out")


def _check(args: argparse.Namespace, searches: bool) -> None:
    """Finds before the long work what would stop it."""
    for option in ("reference", "runtime", "device"):
        if (value := getattr(args, option)) is not None:
            raise InputError(f"--{option} {value} is for --layers: give that, or leave it out")
    if args.images is not None:
        raise InputError(
            f"--images {args.images}: photos have no labels, and blocks are scored against labels: "
            "give --dataset and --data, or --layers to compare their outputs"
        )
    if args.placement is None:
        raise InputError(
            f"nothing says how blocks are quantized: give --placement {' or '.join(PLACEMENTS)}"
        )
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
    if args.out is not None:
        if kind_of(args.out) != "onnx":
            raise InputError(f"-o {args.out}: name a file that ends in .onnx")
        if real_path(args.out) == real_path(args.model):
            raise InputError(f"-o {args.out} is the file that is quantized: name another")
