"""The run of `icnet sensitivity`: 8-bit graphs against float32 on the same runtime."""

import argparse
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.calibration.artefact import load_float, write_quantized
from icnet_deploy.calibration.calibrate import (
    Calibration,
    calibrate,
    load_calibration,
    save_calibration,
)
from icnet_deploy.calibration.content import require_content
from icnet_deploy.calibration.graph import Graph
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.calibration.quantize import quantize
from icnet_deploy.calibration.selection import FEWEST, choose, stratified
from icnet_deploy.calibration.sensitivity.report import (
    cost_plot,
    sensitivity_page,
    sensitivity_text,
    trade_off_plot,
)
from icnet_deploy.calibration.sensitivity.search import (
    Attempt,
    Block,
    Cost,
    blocks_of,
    modules_of,
    search,
)
from icnet_deploy.data import ConfusionMatrix, Dataset, open_dataset
from icnet_deploy.data.options import open_data
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.score import Score, refuse_calibration_images
from icnet_deploy.files import sha256, write_json, write_text
from icnet_deploy.images import resize_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import write_artefact
from icnet_deploy.report.svg import alone as as_file
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

_SCHEMA = 1
_METHOD = "percentile"  # how ranges are chosen: as `icnet quantize` does it
_CALIBRATED = 32  # images, and they are drawn as `icnet quantize` draws them
_CHECKED = 8
_TIMED = 3  # images

_TIME = (
    f"inference of one image, wall clock, in turn, after {WARMUP} runs each: input and output in "
    "memory; decoding, resizing and the label map are not in it"
)


class _Bench:
    """Scores 8-bit graphs of one float32 file on one data set.

    The float32 graph runs once; its label maps are kept packed, about 1 % of their size.

    Args:
        source: the float32 file.
        calibration: of that file.
        placement: a key of `PLACEMENTS`.
        dataset: labelled images, none of which was calibrated on.
        folder: where the graphs are written; the caller removes it.

    Attributes:
        metadata, size: of the float32 file.
        dataset: see above.
        runtime: the one that the placement is for and that a CPU has.
        blocks, kept: of the network, in the graph's order, and those that stay in float by default.
        score: of the float32 graph.

    Raises:
        ModelError: the file is no float32 artefact of one size.
        UnavailableError: the placement's runtime is missing.
        DatasetError: no image has a labelled pixel.
    """

    def __init__(
        self,
        source: Path,
        calibration: Calibration,
        placement: str,
        dataset: Dataset,
        folder: Path,
    ) -> None:
        self._model, self.metadata, self.size = load_float(source)
        self._ranges = calibration.ranges(_METHOD)
        self._written = replace(
            self.metadata,
            precision=placement,
            parent_sha256=calibration.parent_sha256,
            calibration_images=calibration.images,
        )
        self.dataset, self._folder = dataset, folder
        self.runtime = cpu_runtime(placement)
        graph = Graph(self._model)
        layers = [graph.layer(node) for node in graph.convolutions()]
        self.blocks = blocks_of(layers, graph.float_layers(), self.metadata.network)
        self.kept = [block for block in self.blocks if block.kept]
        self.score = Score(dataset, self.metadata.label_set, self.size, self.metadata.head)
        self._wanted: list[bytes] = []
        with self._open(source) as predictor:
            for sample in tqdm(dataset, desc="float32", unit="image", disable=None):
                labels = predictor.predict(sample.image).labels
                self.score.add(sample, labels)
                self._wanted.append(zlib.compress(labels.tobytes(), 1))
        self.score.require_truth()

    def cost(self, in_float: Iterable[Block], words: str) -> tuple[Path, Cost]:
        """Writes and scores the 8-bit graph with these blocks in float; `words` say which it is."""
        content = quantize(
            self._model, self._ranges, self._written.precision, modules_of(in_float)
        ).SerializeToString()
        path = self._folder / f"{len(list(self._folder.iterdir()))}.onnx"
        write_artefact(path, content, self._written)
        confusion = ConfusionMatrix(len(self.dataset.label_set))
        changed = pixels = 0
        shown = tqdm(self.dataset, desc=words, unit="image", disable=None)
        with self._open(path) as predictor:
            for sample, packed in zip(shown, self._wanted, strict=True):
                labels = predictor.predict(sample.image).labels
                wanted = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(labels.shape)
                changed += int(np.count_nonzero(labels != wanted))
                pixels += labels.size
                confusion.add(self.score.mapped(labels), sample.labels)
        names = self.dataset.label_set.names
        return path, Cost.of(confusion, self.score.confusion, names, 1 - changed / pixels)

    def _open(self, path: Path) -> Predictor:
        return Predictor.open(path, self.runtime, "cpu", cached=False)


def run(args: argparse.Namespace, cache: Path, budget: Budget | None) -> None:
    """Does what was asked for.

    Args:
        args: of `icnet sensitivity`.
        cache: where ranges are kept.
        budget: of a search; None: each block is scored, and none is searched.

    Raises:
        CheckFailed: no graph meets the budget.
    """
    dataset = open_data(args)
    calibration = _calibration(args, cache)
    refuse_calibration_images(dataset, {str(cache): calibration.images})
    with TemporaryDirectory(prefix="icnet-sensitivity-") as folder:
        bench = _Bench(args.model, calibration, args.placement, dataset, Path(folder))
        alone: dict[Block, Cost] = {}
        for number, block in enumerate(bench.blocks, 1):
            words = f"{block.name} ({number} of {len(bench.blocks)})"
            path, alone[block] = bench.cost((b for b in bench.blocks if b is not block), words)
            path.unlink()
        together = bench.cost(bench.kept, "all others")
        result = _result(args, calibration, bench, alone, together[1])
        best = None
        if budget is not None:
            result["search"], best = _search(args, bench, alone, together, budget)
    print(sensitivity_text(result))
    if args.json:
        write_json(args.json, result)
    if args.report:
        write_text(args.report, sensitivity_page(result))
    if args.plot:
        write_text(args.plot, as_file(cost_plot(result)))
    if args.trade_off:
        write_text(args.trade_off, as_file(trade_off_plot(result["search"])))
    if budget is not None and best is not None:
        _finish(args, bench, budget, best, calibration)


def _calibration(args: argparse.Namespace, cache: Path) -> Calibration:
    """What `icnet quantize` kept of this file, else made now as it makes it."""
    model, _, size = load_float(args.model)
    parent = artefact_sha256(args.model)
    kept = load_calibration(cache, parent)
    if kept is not None:
        return kept
    if args.calibration is not None and cache.exists():
        raise InputError(
            f"{cache} is no calibration of {args.model}: name the one that `icnet quantize` kept "
            "of it, or a file that is not there to have it made"
        )
    train = open_dataset(args.dataset, args.data, "train", args.exif)
    images = choose(stratified(train, _CALIBRATED), size, exif=args.exif)
    if note := require_content(images.files, images, FEWEST):
        print(f"note: {note}")
    save_calibration(cache, calibrate(model, images, parent), _METHOD)
    return Calibration.read(cache)  # rounded as in the file, so that the next run finds the same


def _search(
    args: argparse.Namespace,
    bench: _Bench,
    alone: Mapping[Block, Cost],
    together: tuple[Path, Cost],
    budget: Budget,
) -> tuple[dict[str, Any], Attempt]:
    """Searches, and times float32 and every graph that was tried; its JSON form, and the best."""

    def attempt(chosen: Sequence[Block]) -> tuple[Path, Cost]:
        if not chosen:
            return together
        return bench.cost([*bench.kept, *chosen], f"search, {len(chosen)} in float")

    attempts, best = search(alone, budget, attempt)
    paths = [args.model, *(each.path for each in attempts)]
    images = [sample.image for sample in bench.dataset.first(_TIMED)]
    with ExitStack() as stack:
        subjects = []
        for path in paths:
            opened = stack.enter_context(Predictor.open(path, bench.runtime, "cpu"))
            label = lambda image, one=opened: one.predict(image).timings_ms  # noqa: E731
            subjects.append(Subject({"name": path.stem, "runtime": bench.runtime}, label))
        rows = measure(subjects, images, args.rounds)
    times = [summary(row.stages["inference"]) for row in rows]
    return {
        "budget": budget.to_dict(),
        "time": _TIME,
        "float32": times[0],
        "attempts": [
            {
                "in_float": [block.name for block in each.in_float],
                "met": each.met,
                **each.cost.to_dict(),
                "inference": time,
            }
            for each, time in zip(attempts, times[1:], strict=True)
        ],
        "best": attempts.index(best),
    }, best


def _result(
    args: argparse.Namespace,
    calibration: Calibration,
    bench: _Bench,
    alone: Mapping[Block, Cost],
    together: Cost,
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "kind": "sensitivity",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "weights_sha256": bench.metadata.weights_sha256,
        "placement": args.placement,
        "runtime": bench.runtime,
        "ranges": _METHOD,
        "calibration_images": list(calibration.images),
        "protocol": bench.score.protocol().to_dict(),
        "float32": bench.score.to_dict(),
        "blocks": [{**asdict(block), **cost.to_dict()} for block, cost in alone.items()],
        "together": {
            "convolutions": sum(block.convolutions for block in alone if not block.kept),
            **together.to_dict(),
        },
        "search": None,
    }


def _finish(
    args: argparse.Namespace,
    bench: _Bench,
    budget: Budget,
    best: Attempt,
    calibration: Calibration,
) -> None:
    """Writes what was found, or says that nothing was."""
    if not best.met:
        raise CheckFailed(
            f"no graph meets the budget; nearest is the one with {best.name} in float: "
            f"{'; '.join(budget.breaches(best.cost))}. Calibrate on more images, widen the "
            "budget, or use fp16"
        )
    if args.out is None:
        return
    kept = modules_of([*bench.kept, *best.in_float])
    checked = (resize_image(s.image, bench.size) for s in bench.dataset.first(_CHECKED))
    write_quantized(args.model, args.out, calibration, args.placement, _METHOD, kept, checked)
    print(f"{args.out}: SHA-256 {sha256(args.out)[:16]}..., in float: {', '.join(kept)}")
