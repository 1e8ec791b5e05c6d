"""`icnet benchmark latency`: artefacts timed in turn, from an image in memory to its label map."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.benchmarks.machine import machine, versions
from icnet_deploy.benchmarks.pairing import ROUNDED, Pair, open_pair, pair
from icnet_deploy.benchmarks.tables import text_table
from icnet_deploy.benchmarks.timing import interleave, summary
from icnet_deploy.command import command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import sha256, write_json
from icnet_deploy.images import read_image

__all__ = ["SCHEMA", "Latency", "main", "markdown", "measure"]

SCHEMA = 1

UInt8 = npt.NDArray[np.uint8]

WARMUP = 3
"""Runs before the first that is timed: runtimes plan their memory in the first two."""

SCOPE = (
    "one image at a time, uint8 image in memory to uint8 label map in memory: checking and "
    "resizing the image, copies, inference, label map; decoding is not in it"
)

_STAGES = ("preprocess", "inference", "label_map", "total")


@dataclass(frozen=True)
class Latency:
    """One artefact on one runtime.

    Attributes:
        name: the file's name.
        path: the file.
        runtime, device: what ran it.
        precision: as the artefact says.
        stages: stage -> seconds a run, in the order taken; see `Prediction.timings_ms`.
    """

    name: str
    path: Path
    runtime: str
    device: str
    precision: str
    stages: dict[str, list[float]]

    def median_ms(self, stage: str = "total") -> float:
        """The median of one stage in milliseconds."""
        return float(np.median(self.stages[stage])) * 1e3

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; percentiles are of the raw samples, which it holds."""
        return {
            "artefact": self.name,
            "sha256": sha256(self.path),
            "runtime": self.runtime,
            "device": self.device,
            "precision": self.precision,
            "stages": {name: summary(samples) for name, samples in self.stages.items()},
        }


def measure(pairs: Sequence[Pair], images: Sequence[UInt8], rounds: int = 20) -> list[Latency]:
    """Times every pair in turn, A B A B, so that a drift of the machine meets them all.

    Args:
        pairs: a file, and the runtime that is to run it.
        images: uint8 H x W x 3, RGB, taken in turn; the same ones for every pair.
        rounds: samples of each.

    Raises:
        CheckFailed: a model failed as it ran.
        ModelError, InputError, UnavailableError: as `Predictor.from_onnx`.
    """
    with ExitStack() as stack:
        predictors = [stack.enter_context(open_pair(each)) for each in pairs]
        rows = [
            Latency(
                each.path.name,
                each.path,
                predictor.runtime,
                predictor.device,
                predictor.metadata.precision,
                {stage: [] for stage in _STAGES},
            )
            for each, predictor in zip(pairs, predictors, strict=True)
        ]
        for predictor in predictors:
            for number in range(WARMUP):
                predictor.predict(images[number % len(images)])

        def turn(index: int) -> float:
            row, predictor = rows[index], predictors[index]
            image = images[len(row.stages["total"]) % len(images)]
            timings = predictor.predict(image).timings_ms
            for stage in _STAGES:
                row.stages[stage].append(timings[stage] / 1e3)
            return timings["total"] / 1e3

        def after(_: str) -> None:
            bar.update()

        turns = {str(i): (lambda i=i: turn(i)) for i in range(len(rows))}
        with tqdm(total=rounds * len(rows), desc="latency", unit="run", disable=None) as bar:
            _, failures = interleave(turns, rounds, after)
    if failures:
        index, why = next(iter(failures.items()))
        raise CheckFailed(f"{rows[int(index)].path} on {rows[int(index)].runtime}: {why}")
    return rows


def _print(rows: Sequence[Latency]) -> None:
    cells = [
        [
            row.name,
            row.precision,
            f"{row.runtime}, {row.device}",
            *(f"{row.median_ms(stage):.1f}" for stage in _STAGES),
            *(f"{1e3 * np.percentile(row.stages['total'], q):.1f}" for q in (90, 99)),
            f"{row.median_ms() / rows[0].median_ms():.2f}",
        ]
        for row in rows
    ]
    heads = ["artefact", "precision", "on", "preprocess", "inference", "label map", "total"]
    print(text_table([*heads, "p90", "p99", "to the first"], cells))
    print(f"\nmedians in ms, {len(rows[0].stages['total'])} runs each, in turn\nscope: {SCOPE}")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Recorded results as Markdown tables: medians of the stages, a percentile, the ratio."""
    return "\n".join(_table(each) for each in results if each["kind"] == "latency")


def _table(result: dict[str, Any]) -> str:
    heads = ["artefact", "precision", "on", "inference", "label map", "total", "p90", "ratio"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    first = result["results"][0]["stages"]["total"]["median_ms"]
    for row in result["results"]:
        stages = {name: told["median_ms"] for name, told in row["stages"].items()}
        cells = [row["artefact"], row["precision"], f"{row['runtime']}, {row['device']}"]
        cells += [f"{stages[name]:.1f}" for name in ("inference", "label_map", "total")]
        cells += [f"{row['stages']['total']['p90_ms']:.1f}", f"{stages['total'] / first:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    size, told = "x".join(map(str, result["image_size"])), result["machine"]
    runs = result["results"][0]["stages"]["total"]["runs"]
    return "\n".join(lines) + (
        f"\n\n{size}, batch 1, {told['cpu']}, {told['cores']} cores; medians in ms of {runs} runs "
        "each, in turn,\nand the ratio to the first. "
        f"Scope: {result['scope']}.\n"
    )


def _images(arguments: argparse.Namespace) -> list[UInt8]:
    if arguments.image:
        return [read_image(path) for path in arguments.image]
    from icnet_deploy.data.scenes import draw_scene

    return [draw_scene((7, number), arguments.size).image for number in range(3)]


def _parser() -> argparse.ArgumentParser:
    from icnet_deploy.command import size

    parser = make_parser(
        "icnet benchmark latency",
        "Times artefacts in turn, A B A B, on every runtime, one image at a time.\n"
        f"Scope: {SCOPE}.",
        "icnet benchmark latency icnet.onnx icnet-int8.onnx --runtime openvino --json latency.json",
    )
    parser.add_argument("artefacts", nargs="+", type=Path, metavar="ARTEFACT")
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="may be repeated (default: those installed that the artefact is meant for)",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="(default: 20)")
    parser.add_argument(
        "--image", type=Path, action="append", metavar="FILE", help="(default: drawn scenes)"
    )
    parser.add_argument(
        "--size", type=size, default=(1024, 2048), help="of drawn scenes (default: 1024x2048)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark latency`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    missing = [str(path) for path in arguments.artefacts if not path.is_file()]
    if missing:
        raise InputError(f"there is no {', '.join(missing)}")
    pairing = pair(arguments.artefacts, arguments.runtime, arguments.device)
    pairs = [each for each in pairing.pairs if each.runtime != ROUNDED]  # a stand-in, not a runtime
    if not pairs:
        raise next(iter(pairing.without.values()))
    images = _images(arguments)
    rows = measure(pairs, images, arguments.rounds)
    _print(rows)
    if arguments.json:
        result = {
            "schema": SCHEMA,
            "kind": "latency",
            "versions": versions(),
            "machine": machine(),
            "scope": SCOPE,
            "image_size": list(images[0].shape[:2]),
            "warmup": WARMUP,
            "results": [row.to_dict() for row in rows],
        }
        write_json(arguments.json, result)
    return 0
