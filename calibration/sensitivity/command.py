"""`icnet sensitivity`: what quantizing each block costs, and the fewest to keep in float."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.command import Goal, check_outputs, command, count, options
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data.options import SPLIT, add_data_options
from icnet_deploy.errors import InputError, require
from icnet_deploy.evaluation.budgets import (
    add_budget_options,
    add_undecided_option,
    chosen_budgets,
)
from icnet_deploy.evaluation.pairing import ROUNDED
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
        "Score what each block of a float32 ONNX file costs in 8 bits, and search the fewest "
        "blocks to keep in float.",
        "icnet sensitivity icnet.onnx --dataset camvid --data CamVid --placement int8 "
        "--max-miou-drop 0.1 --max-class-drop 0.5 -o icnet-int8.onnx",
    )
    p.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a float32 file of a fixed size; with --layers also an INT8 or FP16 file",
    )
    add_data_options(p, images=True)
    group = options(p, "to choose how blocks are quantized")
    group.add_argument(
        "--placement",
        choices=tuple(PLACEMENTS),
        help="the placement of the 8-bit graphs; they run on the runtime that it is for",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="the file of the ranges, which `icnet quantize` wrote; if it is not there, it is made "
        "from the split train (default: MODEL.calibration.json)",
    )
    _add_search_options(p)
    _add_layers_options(p)
    _add_result_options(p)
    return p


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    group = options(
        parser,
        Goal.LIMITS,
        "With a limit or -o, the fewest blocks to keep in float are searched on half of the "
        "images, and proved on the other half. If no graph keeps the limits, the exit code is 1.",
    )
    add_budget_options(parser)
    add_undecided_option(parser)
    group.add_argument(
        "--proof-split",
        metavar="NAME",
        help="prove the search on this split, and search on all images of --split (default: search "
        "on half of the groups of --split, or on half of each group if there are few)",
    )
    options(parser, Goal.RUN).add_argument(
        "--rounds",
        type=count,
        metavar="N",
        help=f"measure the inference time in N rounds (default: {_ROUNDS})",
    )


def _add_layers_options(parser: argparse.ArgumentParser) -> None:
    layers = options(
        parser,
        "to find the block that goes wrong",
        "--layers compares the output of each block with float32's, in one run. It shows the block "
        "that adds the most noise first. It reads no labels. A float32 MODEL is compared as its "
        "8-bit graph (--placement) or on another runtime (--runtime).",
    )
    layers.add_argument(
        "--layers",
        action="store_true",
        help="compare the outputs of blocks, in place of scoring them; --limit is then "
        f"{_IMAGES} by default",
    )
    layers.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.onnx",
        help="the float32 file that MODEL was made from (default: the one in MODEL's folder)",
    )
    layers.add_argument(
        "--runtime",
        metavar="NAME",
        help="run MODEL on this runtime (default: the one that its precision is for; for FP16 "
        f"{ROUNDED}, which rounds every value as a GPU does)",
    )
    layers.add_argument("--device", choices=DEVICES, help="run MODEL on this device (default: cpu)")


def _add_result_options(parser: argparse.ArgumentParser) -> None:
    group = options(parser, Goal.RESULTS)
    group.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write the graph that the search finds"
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML report in one file"
    )
    group.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw what each block costs, or with --layers its noise, as SVG",
    )
    group.add_argument(
        "--trade-off",
        type=Path,
        metavar="FILE",
        help="draw time against mIoU of each graph that the search tries, as SVG",
    )


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
                f"{option} is for the scores of blocks or the search, and --layers does neither: "
                f"leave out {option} or --layers"
            )
    if args.undecided == "fail":
        raise InputError("--undecided fail is for a proof, and --layers makes none: leave it out")


def _check(args: argparse.Namespace, searches: bool) -> None:
    """Finds before the long work what would stop it."""
    for option in ("reference", "runtime", "device"):
        if (value := getattr(args, option)) is not None:
            raise InputError(f"--{option} {value} needs --layers: give --layers, or leave it out")
    if args.images is not None:
        raise InputError(
            f"--images {args.images} has no labels, and the score of a block needs labels: give "
            "--dataset and --data, or --layers to compare outputs"
        )
    if args.placement is None:
        raise InputError(
            f"nothing says how blocks are quantized: give --placement {' or '.join(PLACEMENTS)}"
        )
    check_available(cpu_runtime(args.placement), "cpu")
    for option, given in (("--trade-off", args.trade_off), ("--proof-split", args.proof_split)):
        if given is not None and not searches:
            raise InputError(
                f"{option} needs a search: give --max-miou-drop or --max-class-drop, or leave it "
                "out"
            )
    if args.proof_split == (args.split or SPLIT):
        raise InputError(
            f"--proof-split {args.proof_split} is the split of the search: name another, or leave "
            "it out to search on one half of the split and prove on the other"
        )
    if args.out is not None:
        if kind_of(args.out) != "onnx":
            raise InputError(f"-o {args.out}: name a file that ends in .onnx")
        if real_path(args.out) == real_path(args.model):
            raise InputError(f"-o {args.out} would replace MODEL: name another file")
