"""`python -m tools.quantizers`: quantizers and range methods against one another.

Every one is given the same float32 file and the same calibration images, and is scored on the same
images of another split, on the runtime that its placement is for. NNCF's pins are not ours: it
runs in an environment of its own, whose interpreter `--nncf` names.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.calibration import CalibrationSet, choose, stratified
from icnet_deploy.calibration.placements.registry import PLACEMENTS, cpu_runtime
from icnet_deploy.calibration.ranges import METHODS
from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.calibration.sensitivity.search import Cost
from icnet_deploy.command import command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Sample
from icnet_deploy.data.options import add_data_options, open_data, open_split
from icnet_deploy.errors import InputError, UnavailableError
from icnet_deploy.evaluation.score import Score, percent
from icnet_deploy.files import write_json
from icnet_deploy.images import Fitting, UInt8
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.processes import run_tool
from icnet_deploy.report.tables import Table
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.registry import open_backend
from icnet_deploy.runtime.machine import machine
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.timing import interleave

if TYPE_CHECKING:
    import onnx

Key = tuple[str, str, str]
"""Quantizer, method of its ranges, placement."""

_SCHEMA = 2
_ORT_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PLAIN = ("ONNX Runtime", "minmax")  # what times are compared with

_HEADER = (
    "placement",
    "quantizer",
    "ranges",
    "mIoU, points",
    "lowest class",
    "labels alike %",
    "time",
)

_NNCF = """
import sys, numpy as np, onnx, nncf
model, images, out = sys.argv[1:]
data = nncf.Dataset(list(np.load(images)), lambda image: {"image": image[None]})
onnx.save(nncf.quantize(onnx.load(model), data, subset_size=len(np.load(images))), out)
"""


@dataclass
class _Candidate:
    """One quantized file, and how it did; `alike` as `Cost.of` takes it."""

    key: Key
    backend: Backend
    score: Score
    megabytes: float
    alike: list[tuple[int, int]] = field(default_factory=list)


def _ours(
    source: onnx.ModelProto, parent: str, images: CalibrationSet, folder: Path
) -> dict[Key, Path]:
    """Our files, of every method, from one calibration."""
    import onnx

    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.calibration.quantize import quantize

    calibration = calibrate(source, images, parent)
    files = {}
    for placement in PLACEMENTS:
        for method in METHODS:
            path = folder / f"ours-{method}-{placement}.onnx"
            onnx.save(quantize(source, calibration.ranges(method), placement), path)
            files["icnet-deploy", method, placement] = path
    return files


def _onnx_runtime(model: Path, images: UInt8, folder: Path) -> dict[Key, Path]:
    """ONNX Runtime's own quantizer with the settings that each placement needs."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = ({"image": image[None]} for image in images)

        def get_next(self) -> dict[str, UInt8] | None:
            return next(self.feeds, None)

    symmetric = {
        "activation_type": q.QuantType.QInt8,
        "op_types_to_quantize": ["Conv"],
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    }
    asymmetric = {
        "activation_type": q.QuantType.QUInt8,
        "op_types_to_quantize": ["Conv", "Add", "Relu", "AveragePool"],
    }
    files = {}
    for placement, row in PLACEMENTS.items():
        options: dict[str, Any] = symmetric if row.symmetric else asymmetric
        for method, name in _ORT_METHODS.items():
            path = folder / f"ort-{method}-{placement}.onnx"
            q.quantize_static(
                model,
                path,
                Reader(),
                quant_format=q.QuantFormat.QDQ,
                per_channel=True,
                weight_type=q.QuantType.QInt8,
                calibrate_method=getattr(q.CalibrationMethod, name),
                **options,
            )
            files["ONNX Runtime", method, placement] = path
    return files


def _nncf(python: Path, model: Path, images: UInt8, folder: Path) -> dict[Key, Path]:
    """NNCF's file, which is tried in both places."""
    np.save(folder / "images.npy", images)
    out = folder / "nncf.onnx"
    done = run_tool(
        [str(each) for each in (python, "-c", _NNCF, model, folder / "images.npy", out)]
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(
            f"NNCF failed in {python} ({last}): name an environment's interpreter that has nncf, "
            "onnx and onnxruntime"
        )
    return {("NNCF", "its default", placement): out for placement in PLACEMENTS}


def _measure(
    candidates: Sequence[_Candidate],
    reference: Backend,
    score: Score,
    samples: Sequence[Sample],
    metadata: ArtefactMetadata,
) -> None:
    """Scores all on each image before the next is decoded."""

    def labels(backend: Backend, sample: Sample) -> UInt8:
        return np.asarray(Predictor(backend, metadata).predict(sample.image).labels)

    for sample in tqdm(samples, desc="score", unit="image", disable=None):
        wanted = labels(reference, sample)
        score.add(sample, wanted)
        for candidate in candidates:
            answer = labels(candidate.backend, sample)
            candidate.score.add(sample, answer)
            candidate.alike.append((int((answer == wanted).sum()), wanted.size))


def _times(candidates: Sequence[_Candidate], image: UInt8, rounds: int) -> dict[Key, float]:
    """Processor time of a run on one thread, taken in turn, in seconds: the median."""

    def turn(backend: Backend) -> Callable[[], float]:
        def run() -> float:
            start = time.process_time()
            backend.run({"image": image[None]})
            return time.process_time() - start

        run()  # warm
        return run

    turns = {str(index): turn(one.backend) for index, one in enumerate(candidates)}
    samples = interleave(turns, rounds)[0].values()
    return {c.key: float(np.median(s)) for c, s in zip(candidates, samples, strict=True)}


def _row(candidate: _Candidate, reference: Score, times: Mapping[Key, float]) -> dict[str, Any]:
    quantizer, method, placement = candidate.key
    ours, exact = candidate.score.images_counted, reference.images_counted
    cost = Cost.of(ours, exact, reference.dataset.label_set.names, candidate.alike)
    found = cost.differences
    return {
        "quantizer": quantizer,
        "ranges": method,
        "placement": placement,
        "runtime": cpu_runtime(placement),
        "miou_difference_points": found.miou.to_dict(),
        "class_difference_points": {n: one.to_dict() for n, one in found.classes.items()},
        "lowest_class": cost.worst_class,
        "alike_percent": percent(cost.agreement),
        "megabytes": candidate.megabytes,
        "cpu_ms_median": round(1e3 * times[candidate.key], 2),
        "time_to_plain": round(times[candidate.key] / times[(*_PLAIN, placement)], 3),
    }


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The table of recorded results."""
    rows = [
        [
            f"{row['placement']} on {row['runtime']}",
            row["quantizer"],
            row["ranges"],
            points_text(row["miou_difference_points"]),
            f"{points_text(row['class_difference_points'][row['lowest_class']])} "
            f"{row['lowest_class']}",
            f"{row['alike_percent']:.2f}",
            f"{row['time_to_plain']:.2f}",
        ]
        for result in results
        if result["kind"] == "quantizers"
        for row in result["rows"]
    ]
    return Table(_HEADER, rows).markdown()


def _arguments() -> argparse.ArgumentParser:
    p = make_parser(
        "python -m tools.quantizers",
        "Compare quantizers and range methods on one float32 file with the head `logits`.",
        "python -m tools.quantizers icnet.onnx --dataset camvid --data CamVid",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="a float32 file of `icnet export`")
    add_data_options(p)
    p.add_argument("--calibration", type=count, default=32, metavar="N", help="images of train")
    p.add_argument("--nncf", type=Path, metavar="PYTHON", help="an interpreter that has nncf")
    p.add_argument("--rounds", type=count, default=11, metavar="N", help="of the timing")
    p.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to record it")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns its exit code."""
    args = _arguments().parse_args(argv)
    from icnet_deploy.calibration.artefact import load_float

    source, metadata, size = load_float(args.model)
    if metadata.head != "logits":
        raise InputError(f"{args.model} has the head {metadata.head!r}: export it with `logits`")
    dataset = open_data(args)
    train = open_split(args, "train")
    fitting = Fitting.of(metadata)
    chosen = choose(stratified(train, args.calibration), size, exif=args.exif, fitting=fitting)
    images = np.stack(list(chosen))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = _ours(source, artefact_sha256(args.model), chosen, folder)
        files |= _onnx_runtime(args.model, images, folder)
        if args.nncf:
            files |= _nncf(args.nncf, args.model, images, folder)

        def score() -> Score:
            return Score.of(dataset, metadata)

        candidates = [
            _Candidate(
                key,
                open_backend(cpu_runtime(key[2]), path, "cpu", 1, cached=False),
                score(),
                round(path.stat().st_size / 1e6, 1),
            )
            for key, path in sorted(files.items(), key=lambda item: item[0][2])
        ]
        reference, wanted = open_backend("onnxruntime", args.model, "cpu", 1), score()
        _measure(candidates, reference, wanted, dataset, metadata)
        times = _times(candidates, images[0], args.rounds)
    write_json(
        args.json,
        {
            "schema": _SCHEMA,
            "kind": "quantizers",
            "model_sha256": artefact_sha256(args.model),
            "weights_sha256": metadata.weights_sha256,
            "calibration_images": len(images),
            "protocol": wanted.protocol().to_dict(),
            "float32": wanted.to_dict(),
            "time": "processor time of one run on one thread, median, in turn",
            "machine": machine(),
            "rows": [_row(c, wanted, times) for c in candidates],
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
