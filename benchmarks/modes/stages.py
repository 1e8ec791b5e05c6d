"""`icnet benchmark stages`: where the time of one image goes, from its file to the result files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from icnet_deploy.benchmarks.arguments import mode_parser, pictures, run_mode, runs_of
from icnet_deploy.benchmarks.measurement import Measurement
from icnet_deploy.benchmarks.measurement_tables import how, p90
from icnet_deploy.benchmarks.modes.operators import PROFILED, profile
from icnet_deploy.benchmarks.subjects import open_artefact
from icnet_deploy.command import command, count
from icnet_deploy.drawing import with_legend
from icnet_deploy.evaluation.pairing import Run
from icnet_deploy.images import read_image, resize_image, write_image
from icnet_deploy.report.tables import Table, number
from icnet_deploy.runtime.predict.command import write_results
from icnet_deploy.runtime.predict.inputs import Item, find_items
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import WARMUP, Subject, measure, summary

STAGES = ("decode", "preprocess", "inference", "label_map", "draw", "encode")
"""What `icnet predict` does with an image file, in order."""


def one_by_one(predictor: Predictor, item: Item) -> dict[str, float]:
    """Takes one image from its file to the result files of `icnet predict`, a stage at a time.

    Returns:
        Stage -> milliseconds, and their sum, `total`.

    Raises:
        ImageError: the file cannot be read. BackendError: the runtime failed.
    """
    start = time.perf_counter()
    image = read_image(item.path)
    decoded = time.perf_counter()
    prediction = predictor.predict(image)
    labelled = time.perf_counter()
    overlay = with_legend(prediction.overlay(), prediction.labels, prediction.label_set)
    drawn = time.perf_counter()
    write_results(item, prediction, overlay)
    encoded = time.perf_counter()
    stages = {
        "decode": 1e3 * (decoded - start),
        **{name: prediction.timings_ms[name] for name in ("preprocess", "inference", "label_map")},
        "draw": 1e3 * (drawn - labelled),
        "encode": 1e3 * (encoded - drawn),
    }
    return stages | {"total": sum(stages.values())}


def _measure(arguments: argparse.Namespace) -> list[Measurement]:
    runs = runs_of(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="icnet-stages-")))
        items, size = _files(arguments, folder)
        opened = [stack.enter_context(open_artefact(each, arguments.threads)) for each in runs]
        subjects = [
            Subject(each.facts, partial(one_by_one, each.predictor), "files-to-files")
            for each in opened
        ]
        rows = measure(subjects, items, arguments.rounds, lead_in=0, name="stages")
        setting = {"size": list(size), "batch": 1, "warmup": WARMUP, "rounds": arguments.rounds}
        setting["format"] = ", ".join(sorted({item.path.suffix[1:] for item in items}))
        return [
            Measurement(
                "stages",
                row.subject.scope,
                row.subject.facts,
                setting,
                _values(row.stages) | _operators(arguments, run, one.predictor, items[0]),
            )
            for run, one, row in zip(runs, opened, rows, strict=True)
        ]


def _files(arguments: argparse.Namespace, folder: Path) -> tuple[list[Item], tuple[int, ...]]:
    """The images as files, whose results go beside them into a folder that is thrown away."""
    if arguments.image:
        paths = arguments.image
        size = read_image(paths[0]).shape[:2]
    else:
        images = pictures(arguments)
        paths = [folder / f"scene_{n}.{arguments.format}" for n in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            write_image(path, image)
        size = images[0].shape[:2]
    results = folder / "results"
    results.mkdir()
    return find_items([str(path) for path in paths], results), size


def _values(samples: dict[str, list[float]]) -> dict[str, Any]:
    whole = sum(samples["total"])
    shares = {f"{s}_percent": round(100 * sum(samples[s]) / whole, 2) for s in STAGES}
    return {stage: summary(samples[stage]) for stage in (*STAGES, "total")} | shares


def _operators(
    arguments: argparse.Namespace, run: Run, predictor: Predictor, item: Item
) -> dict[str, Any]:
    """The slowest operators, where they were asked for and the runtime tells them."""
    if not arguments.layers or predictor.runtime not in PROFILED or predictor.device != "cpu":
        return {}
    image = read_image(item.path)
    if predictor.size is not None:
        image = resize_image(image, predictor.size)
    place = run._replace(runtime=predictor.runtime, device=predictor.device)
    operators = profile(place, image, arguments.threads)
    return {
        "operators": [one.to_dict() for one in operators[: arguments.layers]],
        "operators_sum_ms": round(sum(one.median_ms for one in operators), 3),
        "operators_count": len(operators),
    }


def _text(layers: int | None, measured: Sequence[Measurement]) -> str:
    parts = []
    for each in measured:
        row, values = each.subject, each.values
        parts.append(f"{row['name']} ({row['precision']}) on {row['runtime']}, {row['device']}")
        rows = [
            [
                stage.replace("_", " "),
                *(number(values[stage]["median_ms"], 1), p90(values[stage])),
                number(values.get(f"{stage}_percent", 100.0), 1),
            ]
            for stage in (*STAGES, "total")
        ]
        parts.append(Table(["stage", "median ms", "p90 ms", "share %"], rows).text())
        if layers:
            parts.append(_operators_text(values, row["runtime"]))
        parts.append("")
    setting = measured[0].setting
    notes = [
        f"{setting['rounds']} images each ({setting['format']}), in turn, after {WARMUP} warm-up "
        "images; one stage after the other, nothing overlaps",
        "the files are in the system's memory; shares are of the sum over all images",
    ]
    return "\n".join([*parts, *how(measured, notes)])


def _operators_text(values: dict[str, Any], runtime: str) -> str:
    if "operators" not in values:
        return f"operators: the profile of {runtime} is not read here"
    rows = [
        [
            *(o["name"], o["kind"], o["implementation"] or "-"),
            *(number(o["median_ms"], 2), number(o["share_percent"], 1)),
        ]
        for o in values["operators"]
    ]
    title = (
        f"\nthe {len(rows)} slowest of {values['operators_count']} operators, by {runtime}'s own "
        f"profile, in runs of their own ({values['operators_sum_ms']:.1f} ms in all)"
    )
    header = ["operator", "kind", "implementation", "median ms", "share %"]
    return f"{title}\n{Table(header, rows, left=3).text()}"


def _parser() -> argparse.ArgumentParser:
    parser = mode_parser(
        "stages",
        "Takes images from their files to the result files of `icnet predict`, a stage at a time,\n"
        "and tells each stage's share; with --layers also the network's slowest operators.",
        "icnet benchmark stages icnet-int8.onnx --runtime openvino --layers 10",
    )
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="(default: 20)")
    parser.add_argument(
        "--layers",
        type=count,
        metavar="N",
        help="tell the N slowest operators, too, by the runtime's own profile",
    )
    parser.add_argument(
        "--format", choices=("png", "jpg"), default="png", help="of drawn scenes (default: png)"
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `icnet benchmark stages`; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_mode(arguments, _measure, partial(_text, arguments.layers))
