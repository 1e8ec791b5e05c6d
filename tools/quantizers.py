"""`python -m tools.quantizers`: quantizers and range methods against one another.

Every one is given the same float32 file and the same calibration images, and is scored on the same
images of another split, on the runtime that its placement is for. NNCF's pins are not ours: it
runs in an environment of its own, whose interpreter `--nncf` names.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.command import command, count
from icnet_deploy.command import parser as make_parser
from icnet_deploy.data import Dataset, Sample, open_dataset
from icnet_deploy.data.options import add_data_options
from icnet_deploy.errors import InputError, UnavailableError
from icnet_deploy.evaluation.score import Score, Size, percent
from icnet_deploy.files import write_json
from icnet_deploy.images import resize_image
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.runtime.backends.base import Backend
from icnet_deploy.runtime.backends.registry import open_backend
from icnet_deploy.runtime.labelmap import label_map
from icnet_deploy.runtime.machine import machine
from icnet_deploy.timing import interleave

if TYPE_CHECKING:
    import onnx

    from icnet_deploy.calibration import CalibrationSet

SCHEMA = 1

UInt8 = npt.NDArray[np.uint8]
Key = tuple[str, str, str]
"""Quantizer, method of its ranges, placement."""

_RUNTIMES = {"int8": "openvino", "int8-ort": "onnxruntime"}
_METHODS = ("percentile", "mse", "entropy", "minmax")
_ORT_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PLAIN = ("ONNX Runtime", "minmax")  # what times are told against

_NNCF = """
import sys, numpy as np, onnx, nncf
model, images, out = sys.argv[1:]
data = nncf.Dataset(list(np.load(images)), lambda image: {"image": image[None]})
onnx.save(nncf.quantize(onnx.load(model), data, subset_size=len(np.load(images))), out)
"""


@dataclass
class _Candidate:
    """One quantized file, and how it did."""

    quantizer: str
    method: str
    placement: str
    backend: Backend
    score: Score
    megabytes: float
    alike: int = 0
    pixels: int = 0

    @property
    def name(self) -> str:
        """Unlike every other's."""
        return f"{self.quantizer}, {self.method}, {self.placement}"


def _ours(
    source: onnx.ModelProto, parent: str, images: CalibrationSet, folder: Path
) -> dict[Key, Path]:
    """Our files, of every method, from one calibration."""
    import onnx

    from icnet_deploy.calibration.calibrate import calibrate
    from icnet_deploy.calibration.quantize import quantize

    found = calibrate(source, images, parent)
    files = {}
    for placement in _RUNTIMES:
        for method in _METHODS:
            path = folder / f"ours-{method}-{placement}.onnx"
            onnx.save(quantize(source, found.ranges(method), placement), path)
            files["icnet-deploy", method, placement] = path
    return files


def _onnx_runtime(model: Path, images: UInt8, folder: Path) -> dict[Key, Path]:
    """ONNX Runtime's own quantizer with the settings that each placement needs."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, UInt8] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image[None]}

    settings: dict[str, dict[str, Any]] = {
        "int8": {
            "activation_type": q.QuantType.QInt8,
            "op_types_to_quantize": ["Conv"],
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        },
        "int8-ort": {
            "activation_type": q.QuantType.QUInt8,
            "op_types_to_quantize": ["Conv", "Add", "Relu", "AveragePool"],
        },
    }
    files = {}
    for placement, options in settings.items():
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
    done = subprocess.run(
        [python, "-c", _NNCF, model, folder / "images.npy", out],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(
            f"NNCF failed in {python} ({last}): name an environment's interpreter that has nncf, "
            "onnx and onnxruntime"
        )
    return {("NNCF", "its default", placement): out for placement in _RUNTIMES}


def _measure(
    candidates: Sequence[_Candidate],
    reference: Backend,
    score: Score,
    dataset: Dataset,
    size: Size,
) -> None:
    """Scores all on each image before the next is decoded."""

    def labels(backend: Backend, sample: Sample) -> UInt8:
        image = resize_image(sample.image, size)
        answer = backend.run({"image": image[None]})["logits"]
        height, width = sample.labels.shape
        return np.asarray(label_map(answer, (height, width))[0])

    for sample in tqdm(dataset, desc="score", unit="image", disable=None):
        wanted = labels(reference, sample)
        score.add(sample, wanted)
        for candidate in candidates:
            found = labels(candidate.backend, sample)
            candidate.score.add(sample, found)
            candidate.alike += int((found == wanted).sum())
            candidate.pixels += wanted.size


def _times(
    candidates: Sequence[_Candidate], image: UInt8, rounds: int
) -> Mapping[str, Sequence[float]]:
    """Processor time of a run on one thread, in turn."""

    def turn(backend: Backend) -> Callable[[], float]:
        def run() -> float:
            start = time.process_time()
            backend.run({"image": image[None]})
            return time.process_time() - start

        run()  # warm
        return run

    samples, _ = interleave({c.name: turn(c.backend) for c in candidates}, rounds)
    return samples


def _row(
    candidate: _Candidate, reference: Score, times: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    difference = 100 * (candidate.score.confusion.iou() - reference.confusion.iou())
    names = reference.dataset.label_set.names
    known = {n: float(d) for n, d in zip(names, difference, strict=True) if not np.isnan(d)}
    lowest = min(known, key=lambda name: known[name])
    miou = 100 * (candidate.score.confusion.miou() - reference.confusion.miou())
    plain = f"{_PLAIN[0]}, {_PLAIN[1]}, {candidate.placement}"
    return {
        "quantizer": candidate.quantizer,
        "ranges": candidate.method,
        "placement": candidate.placement,
        "runtime": _RUNTIMES[candidate.placement],
        "miou_difference_points": round(miou, 4),
        "class_difference_points": {n: round(d, 4) for n, d in known.items()},
        "lowest_class": lowest,
        "alike_percent": percent(candidate.alike / candidate.pixels),
        "megabytes": candidate.megabytes,
        "cpu_ms_median": round(1e3 * float(np.median(times[candidate.name])), 2),
        "time_to_plain": round(
            float(np.median(times[candidate.name]) / np.median(times[plain])), 3
        ),
    }


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The table of recorded results."""
    header = ["placement", "quantizer", "ranges", "mIoU, points", "lowest class", "labels alike %"]
    lines = [[*header, "time"], ["---"] * (len(header) + 1)]
    for result in results:
        if result["kind"] != "quantizers":
            continue
        for row in result["rows"]:
            lowest = row["lowest_class"]
            lines.append(
                [
                    f"{row['placement']} on {row['runtime']}",
                    row["quantizer"],
                    row["ranges"],
                    f"{row['miou_difference_points']:+.2f}",
                    f"{row['class_difference_points'][lowest]:+.2f} {lowest}",
                    f"{row['alike_percent']:.2f}",
                    f"{row['time_to_plain']:.2f}",
                ]
            )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
    from icnet_deploy.calibration import choose, stratified
    from icnet_deploy.calibration.artefact import load_float

    source, metadata, size = load_float(args.model)
    if metadata.head != "logits":
        raise InputError(f"{args.model} has the head {metadata.head!r}: export it with `logits`")
    dataset = open_dataset(args.dataset, args.data, args.split, args.exif).first(args.limit)
    train = open_dataset(args.dataset, args.data, "train", args.exif)
    chosen = choose(stratified(train, args.calibration), size, exif=args.exif)
    images = np.stack(list(chosen))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = _ours(source, artefact_sha256(args.model), chosen, folder)
        files |= _onnx_runtime(args.model, images, folder)
        if args.nncf:
            files |= _nncf(args.nncf, args.model, images, folder)

        def score() -> Score:
            return Score(dataset, metadata.label_set, size)

        candidates = [
            _Candidate(
                *key,
                open_backend(_RUNTIMES[key[2]], path, "cpu", 1, cached=False),
                score(),
                round(path.stat().st_size / 1e6, 1),
            )
            for key, path in sorted(files.items(), key=lambda item: item[0][2])
        ]
        reference, wanted = open_backend("onnxruntime", args.model, "cpu", 1), score()
        _measure(candidates, reference, wanted, dataset, size)
        times = _times(candidates, images[0], args.rounds)
    write_json(
        args.json,
        {
            "schema": SCHEMA,
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
