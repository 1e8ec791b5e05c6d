"""`icnet evaluate`: the score of one model on one data set, with how it was taken."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from icnet_deploy.benchmarks.evaluate_report import evaluate_page, offer_errors
from icnet_deploy.benchmarks.machine import machine, versions
from icnet_deploy.benchmarks.models import Model, open_model
from icnet_deploy.benchmarks.options import (
    add_data_options,
    add_output_options,
    check_outputs,
    open_data,
)
from icnet_deploy.benchmarks.pictures import Gallery
from icnet_deploy.benchmarks.scoring import (
    Score,
    UInt8,
    percent,
    refuse_calibration_images,
    score_dataset,
)
from icnet_deploy.benchmarks.tables import number, text_table
from icnet_deploy.command import command, size
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, Sample
from icnet_deploy.files import write_json, write_text

__all__ = ["SCHEMA", "Evaluation", "evaluate", "main"]

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""

TIME_SCOPE = (
    "median wall time an image: resizing, network and label map, images one by one, without "
    "decoding and scoring; no warm-up run, so a measure of this run and no benchmark"
)

_PICTURES = 6  # sets of pictures in a report: about 0.4 MB each


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        model: what was scored.
        score: how well it did.
        seconds: an image, median; see `TIME_SCOPE`.
        gallery: the images on which it did worst.
    """

    model: Model
    score: Score
    seconds: float
    gallery: Gallery

    def to_dict(self) -> dict[str, Any]:
        """The JSON result."""
        return {
            "schema": SCHEMA,
            "kind": "evaluate",
            "versions": versions(),
            "machine": machine(),
            "model": str(self.model.path),
            "runtime": self.model.runtime,
            "device": self.model.device,
            "protocol": self.score.protocol().to_dict(),
            "score": self.score.to_dict(),
            "time": {"milliseconds": round(1e3 * self.seconds, 3), "scope": TIME_SCOPE},
        }


def evaluate(model: Model, dataset: Dataset, pictures: int = 0) -> Evaluation:
    """Scores a model on a data set, image by image.

    Args:
        model: see `open_model`.
        dataset: labelled images.
        pictures: how many of the worst images to draw for a report.

    Raises:
        InputError: an image was used for calibration, or the classes do not fit.
    """
    refuse_calibration_images(dataset, {str(model.path): model.calibration_images})
    score = Score(dataset, model.label_set, model.size, model.head)
    gallery = Gallery(pictures)
    seconds: list[float] = []

    def label(image: UInt8) -> UInt8:
        start = time.perf_counter()
        labels = model.label(image)
        seconds.append(time.perf_counter() - start)
        return labels

    def look(sample: Sample, mapped: UInt8) -> None:
        offer_errors(gallery, dataset.label_set, sample, mapped)

    samples = tqdm(dataset, desc="evaluate", unit="image", disable=None)
    score_dataset(score, samples, label, look)
    return Evaluation(model, score, statistics.median(seconds), gallery)


def _print(result: Evaluation) -> None:
    score, protocol = result.score, result.score.protocol()
    print(
        f"{result.model.path.name} ({result.model.runtime}, {result.model.device}) on "
        f"{protocol.dataset} {protocol.split}, {protocol.images} images\n"
    )
    names = score.dataset.label_set.names
    rows = [
        [name, number(percent(iou))] for name, iou in zip(names, score.confusion.iou(), strict=True)
    ]
    rows.append(["mIoU", number(percent(score.confusion.miou()))])
    print(text_table(["class", "IoU %"], rows))
    small = f"regions below {score.regions.bin_pixels:,} pixels"
    print()
    print(f"{'pixel accuracy':<26} {number(percent(score.confusion.pixel_accuracy()))} %")
    print(f"{small:<26} {number(percent(score.regions.small()))} %")
    print("\nprotocol")
    for name, words in protocol.to_words().items():
        print(f"  {name:<16} {words}")
    print(f"\ntime {1e3 * result.seconds:.1f} ms ({TIME_SCOPE})")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "icnet evaluate",
        "Scores a model on labelled images: mIoU, IoU a class, accuracy by the size of regions.",
        "icnet evaluate icnet.onnx --dataset camvid --data CamVid --split val --report score.html",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a checkpoint (.safetensors), ONNX file or engine"
    )
    add_data_options(parser)
    parser.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="a checkpoint's input size (default: each image's own)",
    )
    parser.add_argument(
        "--runtime", default="auto", metavar="NAME", help="auto, onnxruntime or openvino"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    add_output_options(parser)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet evaluate`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    dataset = open_data(arguments)
    check_outputs(arguments)
    opened = open_model(arguments.model, arguments.size, arguments.runtime, arguments.device)
    with opened as model:
        result = evaluate(model, dataset, _PICTURES if arguments.report else 0)
    _print(result)
    if arguments.json:
        write_json(arguments.json, result.to_dict())
    if arguments.report:
        name = f"{model.path.name} ({model.runtime}, {model.device})"
        time_words = f"{1e3 * result.seconds:.1f} ms ({TIME_SCOPE})"
        write_text(arguments.report, evaluate_page(name, result.score, result.gallery, time_words))
    return 0
