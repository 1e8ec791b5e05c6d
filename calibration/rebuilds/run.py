"""Builds anew with other calibration images, and measures all builds side by side."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.calibration.artefact import Recipe, load_float, write_quantized
from icnet_deploy.calibration.calibrate import calibrate_and_keep
from icnet_deploy.calibration.ladder.methods import settled
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.calibration.rebuilds.draws import Chosen, Measured
from icnet_deploy.calibration.rebuilds.options import ROUNDS
from icnet_deploy.calibration.rebuilds.report import rebuilds_page, rebuilds_text
from icnet_deploy.calibration.rebuilds.result import Build, Rebuilt
from icnet_deploy.errors import CheckFailed
from icnet_deploy.evaluation.confidence.differences import differences
from icnet_deploy.evaluation.score import Protocol, Score
from icnet_deploy.files import scratch_folder, write_json, write_text
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import read_onnx_metadata
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

_SCHEMA = 1
_TIMED = 3  # images

_TIME = (
    "one image at a time, from a uint8 image in memory to a uint8 label map in memory, wall clock; "
    f"float32 and all builds in turn, after {WARMUP} warm-up runs each; without decoding"
)


def run(args: argparse.Namespace, chosen: Chosen, first: Mapping[str, Path]) -> None:
    """Builds, measures, and shows what came out.

    Args:
        args: of `icnet quantize`.
        chosen: the images; some are measured on.
        first: placement -> the artefact of the first draw, which is there already.

    Raises:
        CheckFailed: a build fails the check of `write_quantized`.
        DatasetError: no measured image has a labelled pixel.
    """
    assert chosen.measured is not None
    result = _facts(args, chosen, chosen.measured)
    with scratch_folder() as folder:
        others = range(1, len(chosen.sets))
        builds = [first, *(_build(args, chosen, each, first, folder) for each in others)]
        for placement in first:
            files = {
                seed: each[placement] for seed, each in zip(chosen.draws.seeds, builds, strict=True)
            }
            rebuilt, protocol = _measure(args, chosen.measured, placement, files)
            result.setdefault("protocol", protocol.to_dict())
            result.setdefault("placements", []).append(rebuilt.to_dict())
    if args.json:
        write_json(args.json, result)
    if args.report:
        write_text(args.report, rebuilds_page(result))
    print(rebuilds_text(result))  # last: its reader may close the pipe


def _build(
    args: argparse.Namespace,
    chosen: Chosen,
    index: int,
    placements: Iterable[str],
    folder: Path,
) -> dict[str, Path]:
    """Builds once more as `icnet quantize --seed` would; placement -> the artefact."""
    seed, images = chosen.draws.seeds[index], chosen.sets[index]
    print(f"build {index + 1} of {len(chosen.sets)}, seed {seed}")
    model, metadata, _ = load_float(args.model)
    kept, parent = folder / f"{seed}.calibration.json", artefact_sha256(args.model)
    calibration = calibrate_and_keep(kept, model, images, parent)
    checked = chosen.checked(index)
    files = {placement: folder / f"{seed}-{placement}.onnx" for placement in placements}
    for placement, out in files.items():
        try:
            asked = Recipe(calibration, placement, args.method, args.exclude)
            recipe = settled(asked, model, metadata, images)
            write_quantized(args.model, out, recipe, checked.images(), checked.words)
        except CheckFailed as error:
            raise CheckFailed(
                f"the build of seed {chosen.draws.seeds[0]} is written; the build of seed {seed}, "
                f"to compare it with, fails: {error}"
            ) from error
    return files


def _measure(
    args: argparse.Namespace, measured: Measured, placement: str, files: Mapping[int, Path]
) -> tuple[Rebuilt, Protocol]:
    """Labels every image with float32 and all builds side by side, and times them in turn.

    Args:
        args: of `icnet quantize`.
        measured: the images.
        placement: of all builds.
        files: seed -> the artefact.
    """
    runtime, names = cpu_runtime(placement), measured.dataset.label_set.names
    paths = [args.model, *files.values()]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(Predictor.open(path, runtime, "cpu", cached=False))
            for path in paths
        ]
        scores = [Score.of(measured.dataset, each.metadata) for each in opened]
        alike = _score(measured, opened, scores, f"{placement} on {runtime}")
        latencies = _time(measured, opened, args.rounds or ROUNDS, f"{placement}, latency")
    reference = scores[0]
    reference.require_truth()
    pixels = alike[:, 0, 0]
    builds = []
    for number, (seed, path) in enumerate(files.items(), 1):
        found = differences(
            scores[number].images_counted,
            reference.images_counted,
            names,
            alike=list(zip(alike[:, 0, number].tolist(), pixels.tolist(), strict=True)),
        )
        method = opened[number].metadata.tools["ranges"]
        builds.append(Build(seed, artefact_sha256(path), method, found, latencies[number]))
    between = alike[:, 1:, 1:].sum(axis=0)
    rebuilt = Rebuilt(placement, runtime, builds, between, int(pixels.sum()), latencies[0])
    return rebuilt, reference.protocol()


def _score(
    measured: Measured, opened: Sequence[Predictor], scores: Sequence[Score], words: str
) -> npt.NDArray[np.int64]:
    """Adds every image to each score.

    Args:
        measured: the images.
        opened: float32, and then the builds.
        scores: of each.
        words: what a progress bar calls it.

    Returns:
        int64, n x M x M: of each image the pixels that two of the M label alike.
    """
    alike = np.zeros((len(measured.dataset), len(opened), len(opened)), np.int64)
    shown = tqdm(measured.dataset, desc=words, unit="image", disable=None)
    for index, sample in enumerate(shown):
        maps = [each.predict(sample.image).labels for each in opened]
        if not measured.dataset.labelled:
            sample = replace(sample, labels=maps[0])
        for score, labels in zip(scores, maps, strict=True):
            score.add(sample, labels)
        for i, j in product(range(len(maps)), repeat=2):
            alike[index, i, j] = np.count_nonzero(maps[i] == maps[j])
    return alike


def _time(
    measured: Measured, opened: Sequence[Predictor], rounds: int, words: str
) -> list[dict[str, Any]]:
    """`timing.summary` of each, timed in turn on the first images."""
    images = [sample.image for sample in measured.dataset.first(_TIMED)]
    subjects = []
    for number, predictor in enumerate(opened):
        label = lambda image, one=predictor: one.predict(image).timings_ms  # noqa: E731
        subjects.append(Subject({"name": str(number), "runtime": predictor.runtime}, label))
    rows = measure(subjects, images, rounds, name=words)
    return [summary(row.stages["total"]) for row in rows]


def _facts(args: argparse.Namespace, chosen: Chosen, measured: Measured) -> dict[str, Any]:
    """What the result says of all builds."""
    return {
        "schema": _SCHEMA,
        "kind": "rebuilds",
        "versions": versions(),
        "machine": machine(),
        "artefact": args.model.name,
        "sha256": artefact_sha256(args.model),
        "weights_sha256": read_onnx_metadata(args.model).weights_sha256,
        "ranges": args.method,
        "count": len(chosen.sets[0]),
        "draws": [
            {"seed": seed, "images": list(images.hashes)}
            for seed, images in zip(chosen.draws.seeds, chosen.sets, strict=True)
        ],
        "shared_percent": round(100 * chosen.draws.shared(), 3),
        "measured": {
            "words": str(measured),
            "labelled": measured.dataset.labelled,
            "names": [image.name for image, _ in measured.dataset.files],
        },
        "time": _TIME,
        "rounds": args.rounds or ROUNDS,
    }
