"""`icnet sensitivity`: what quantizing each block costs, and the fewest to keep in float."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.sensitivity.bench import METHOD, Bench, Cost
from icnet_deploy.calibration.sensitivity.blocks import Block, blocks_of, in_float
from icnet_deploy.calibration.sensitivity.report import (
    cost_plot,
    sensitivity_page,
    sensitivity_text,
    trade_off_plot,
)
from icnet_deploy.calibration.sensitivity.search import Found, search
from icnet_deploy.command import add_output_options, check_outputs, command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, open_dataset
from icnet_deploy.data.options import add_data_options, open_data
from icnet_deploy.errors import CheckFailed, InputError, OutputError, require
from icnet_deploy.evaluation.budgets import Budget, add_budget_options, chosen_budgets
from icnet_deploy.evaluation.score import refuse_calibration_images
from icnet_deploy.files import make_folder, sha256, write_json, write_text
from icnet_deploy.images import resize_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.report.svg import alone
from icnet_deploy.runtime.backends.registry import check_available
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

if TYPE_CHECKING:
    from icnet_deploy.calibration.calibrate import Calibration

SCHEMA = 1

_CALIBRATED = 32  # images, and they are drawn as `icnet quantize` draws them
_CHECKED = 8
_TIMED = 3  # images

_TIME = (
    f"inference of one image, wall clock, in turn, after {WARMUP} runs each: input and output in "
    "memory; decoding, resizing and the label map are not in it"
)


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
    _check(args)
    dataset = open_data(args)
    calibration = _calibration(args)
    refuse_calibration_images(dataset, {str(_cache(args)): calibration.images})
    budget = chosen_budgets(args)[args.placement] if _searches(args) else None
    blocks = _blocks(args.model)
    with TemporaryDirectory(prefix="icnet-sensitivity-") as name:
        folder = Path(name)
        bench, alone, together = _sensitivity(args, calibration, dataset, blocks, folder)
        found = None
        if budget is not None:
            found = _search(bench, blocks, alone, together, budget, dataset)
        result = _result(args, calibration, bench, alone, together[1])
        if found is not None:
            result["search"] = _timed(found, args, dataset)
    print(sensitivity_text(result))
    _write(args, result)
    if found is not None:
        _finish(args, found, calibration, blocks, dataset)
    return 0


def _searches(args: argparse.Namespace) -> bool:
    given = (args.max_miou_drop, args.max_class_drop, args.out)
    return any(option is not None for option in given)


def _check(args: argparse.Namespace) -> None:
    """Finds before the long work what would stop it."""
    require("icnet sensitivity", "export", "onnx")
    check_available(cpu_runtime(args.placement), "cpu")
    if args.trade_off is not None and not _searches(args):
        raise InputError("--trade-off draws a search: give --max-miou-drop or --max-class-drop")
    check_outputs(args)
    for path in (args.plot, args.trade_off, args.out, _cache(args)):
        if path is not None:
            make_folder(path.parent)
            if path.is_dir():
                raise OutputError(f"cannot write the file {path}: a folder of that name is there")
    if args.out is not None:
        if args.out.suffix != ".onnx":
            raise InputError(f"-o {args.out}: name a file that ends in .onnx")
        if args.out.resolve() == args.model.resolve():
            raise InputError(f"-o {args.out} is the file that is quantized: name another")


def _cache(args: argparse.Namespace) -> Path:
    default = args.model.parent / f"{args.model.stem}.calibration.json"
    return Path(args.calibration or default)


def _calibration(args: argparse.Namespace) -> Calibration:
    """What `icnet quantize` kept of this file, else made now as it makes it."""
    from icnet_deploy.calibration import choose, stratified
    from icnet_deploy.calibration.artefact import load_float
    from icnet_deploy.calibration.calibrate import calibrate, read_calibration, save_calibration
    from icnet_deploy.calibration.content import require_content
    from icnet_deploy.calibration.selection import FEWEST

    model, _, size = load_float(args.model)
    parent, cache = artefact_sha256(args.model), _cache(args)

    with suppress(OSError, ValueError):
        if (found := read_calibration(cache)).parent_sha256 == parent:
            return found
    if args.calibration is not None and cache.exists():
        raise InputError(
            f"{cache} is no calibration of {args.model}: name the one that `icnet quantize` kept "
            "of it, or a file that is not there to have it made"
        )
    train = open_dataset(args.dataset, args.data, "train", args.exif)
    images = choose(stratified(train, _CALIBRATED), size, exif=args.exif)
    if note := require_content(images.files, images, FEWEST):
        print(f"note: {note}")
    made = calibrate(model, images, parent)
    save_calibration(cache, made, METHOD)
    return read_calibration(cache)  # rounded as in the file, so that the next run finds the same


def _blocks(model: Path) -> list[Block]:
    import onnx

    from icnet_deploy.calibration.graph import Graph

    graph = Graph(onnx.load(model))
    layers = [graph.layer(node) for node in graph.convolutions()]
    return blocks_of(layers, graph.float_layers())


def _sensitivity(
    args: argparse.Namespace,
    calibration: Calibration,
    dataset: Dataset,
    blocks: Sequence[Block],
    folder: Path,
) -> tuple[Bench, dict[Block, Cost], tuple[Path, Cost]]:
    """What each block costs alone, and all together as `icnet quantize` would write it."""
    alone: dict[Block, Cost] = {}
    total = (len(blocks) + 2) * len(dataset)
    with tqdm(total=total, desc="float32", unit="image", disable=None) as bar:
        bench = Bench(args.model, calibration, args.placement, dataset, folder, bar.update)
        for block in blocks:
            bar.set_description(block.name)
            path = bench.write(in_float(other for other in blocks if other is not block))
            alone[block] = bench.cost(path, bar.update)
            path.unlink()
        bar.set_description("all others")
        path = bench.write(in_float(block for block in blocks if block.kept))
        return bench, alone, (path, bench.cost(path, bar.update))


def _search(
    bench: Bench,
    blocks: Sequence[Block],
    alone: dict[Block, Cost],
    together: tuple[Path, Cost],
    budget: Budget,
    dataset: Dataset,
) -> Found:
    always = [block for block in blocks if block.kept]

    def attempt(chosen: Sequence[Block]) -> tuple[Path, Cost]:
        if not chosen:
            return together
        words = f"search, {len(chosen)} in float"
        with tqdm(total=len(dataset), desc=words, unit="image", disable=None) as bar:
            path = bench.write(in_float([*always, *chosen]))
            return path, bench.cost(path, bar.update)

    return search([block for block in blocks if not block.kept], alone, budget, attempt)


def _timed(found: Found, args: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """Times float32 and every graph that was tried; the JSON form of the search."""
    runtime = cpu_runtime(args.placement)
    paths = [args.model, *(attempt.path for attempt in found.attempts)]
    images = [sample.image for sample in dataset.first(_TIMED)]
    with ExitStack() as stack:
        subjects = []
        for path in paths:
            opened = stack.enter_context(Predictor.open(path, runtime, "cpu"))
            label = lambda image, one=opened: one.predict(image).timings_ms  # noqa: E731
            subjects.append(Subject({"name": path.stem, "runtime": runtime}, label))
        rows = measure(subjects, images, args.rounds)
    times = [summary(row.stages["inference"]) for row in rows]
    for attempt, time in zip(found.attempts, times[1:], strict=True):
        attempt.time = time
    return {
        "budget": found.budget.to_dict(),
        "time": _TIME,
        "float32": times[0],
        "attempts": [attempt.to_dict() for attempt in found.attempts],
        "best": found.attempts.index(found.best),
    }


def _result(
    args: argparse.Namespace,
    calibration: Calibration,
    bench: Bench,
    alone: dict[Block, Cost],
    together: Cost,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "sensitivity",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "weights_sha256": read_onnx_metadata(args.model).weights_sha256,
        "placement": args.placement,
        "runtime": bench.runtime,
        "ranges": METHOD,
        "calibration_images": list(calibration.images),
        "protocol": bench.score.protocol().to_dict(),
        "float32": bench.score.to_dict(),
        "blocks": [
            {
                "name": block.name,
                "modules": list(block.modules),
                "convolutions": block.convolutions,
                "kept": block.kept,
                **cost.to_dict(),
            }
            for block, cost in alone.items()
        ],
        "together": {
            "convolutions": sum(block.convolutions for block in alone if not block.kept),
            **together.to_dict(),
        },
        "search": None,
    }


def _write(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        write_json(args.json, result)
    if args.report:
        write_text(args.report, sensitivity_page(result))
    if args.plot:
        write_text(args.plot, alone(cost_plot(result)))
    if args.trade_off:
        write_text(args.trade_off, alone(trade_off_plot(result["search"])))


def _finish(
    args: argparse.Namespace,
    found: Found,
    calibration: Calibration,
    blocks: Sequence[Block],
    dataset: Dataset,
) -> None:
    """Writes what was found, or says that nothing was."""
    best = found.best
    if not best.met:
        breaches = "; ".join(found.budget.breaches(best.cost.measured()))
        raise CheckFailed(
            f"no graph meets the budget; nearest is the one with {best.name} in float: {breaches}. "
            "Calibrate on more images, widen the budget, or use fp16"
        )
    if args.out is None:
        return
    from icnet_deploy.calibration.artefact import load_float, write_quantized

    _, _, size = load_float(args.model)
    kept = in_float([*(block for block in blocks if block.kept), *best.in_float])
    checked = (resize_image(sample.image, size) for sample in dataset.first(_CHECKED))
    write_quantized(args.model, args.out, calibration, args.placement, METHOD, kept, checked)
    print(f"{args.out}: SHA-256 {sha256(args.out)[:16]}..., in float: {', '.join(kept)}")
