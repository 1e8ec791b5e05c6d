"""`python -m tools.soak`: whether memory, threads and open files stay level over many predictions.

The images have ever other sizes, as those of a server have. 500 times on the way the process is
looked at, and an image is labelled that stays the same, whose labels must stay the same, too.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.command import command, count, parser
from icnet_deploy.errors import CheckFailed, InputError
from icnet_deploy.files import sha256, write_json
from icnet_deploy.runtime.backends.registry import RUNTIMES
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.runtime.predictor import Predictor

_SCHEMA = 1
_LEAST, _MOST = 64, 512
"""Pixels of a side of the images."""

_BLOCKS, _T = 20, 2.101
"""Blocks of samples, and the 97.5th percentile of Student's t with 18 degrees of freedom: those of
a line through the means of so many blocks."""

_WARM = 0.1
"""The share of the predictions before the first block: memory grows until each size was seen."""


@dataclass(frozen=True)
class Sample:
    """The process after some predictions.

    Attributes:
        predictions: how many.
        resident_bytes: memory that it holds.
        threads: how many it has.
        files: descriptors that are open.
    """

    predictions: int
    resident_bytes: int
    threads: int
    files: int

    @classmethod
    def now(cls, predictions: int) -> "Sample":
        """What the system says of this process."""
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        threads, files = (len(os.listdir(f"/proc/self/{what}")) for what in ("task", "fd"))
        return cls(predictions, pages * os.sysconf("SC_PAGE_SIZE"), threads, files)


@dataclass(frozen=True)
class Slope:
    """By how much something grows in 100,000 predictions, with its 95 % interval."""

    value: float
    low: float
    high: float


def slope(predictions: Sequence[int], values: Sequence[float]) -> Slope:
    """A line through the means of 20 blocks of samples, by least squares.

    Samples that follow each other are alike; the means of blocks hardly are, so that the interval
    is Student's with 18 degrees of freedom.

    Args:
        predictions: of each sample, ascending; at least 40.
        values: of each sample.
    """
    x, y = (
        np.array([part.mean() for part in np.array_split(np.asarray(of, np.float64), _BLOCKS)])
        for of in (predictions, values)
    )
    x = (x - x.mean()) / 1e5
    rise = float(x @ (y - y.mean()) / (x @ x))
    rest = y - y.mean() - rise * x
    error = math.sqrt(float(rest @ rest) / (_BLOCKS - 2) / float(x @ x))
    return Slope(rise, rise - _T * error, rise + _T * error)


def soak(predictor: Predictor, predictions: int, every: int, seed: int) -> list[Sample]:
    """Labels noise of random sizes, and one image again and again.

    The sides are drawn evenly by their logarithm: as many from 64 to 128 as from 256 to 512.

    Raises:
        CheckFailed: that image has other labels than at first.
    """
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (_MOST, _MOST, 3), dtype=np.uint8)
    same = np.ascontiguousarray(noise[:256, :384])
    first = predictor.predict(same).labels
    samples = []
    for done in tqdm(range(1, predictions + 1), desc="soak", unit="image", disable=None):
        drawn = rng.uniform(math.log2(_LEAST), math.log2(_MOST + 1), 2)
        height, width = np.exp2(drawn).astype(int)
        predictor.predict(np.ascontiguousarray(noise[:height, :width]))
        if done % every == 0:
            if not np.array_equal(predictor.predict(same).labels, first):
                raise CheckFailed(
                    f"after {done} predictions the labels of an image differ from its first ones"
                )
            samples.append(Sample.now(done))
    return samples


def result(samples: Sequence[Sample]) -> dict[str, Any]:
    """The slopes behind the first tenth, and the first and last of what is counted whole."""
    later = [one for one in samples if one.predictions > _WARM * samples[-1].predictions]
    at = [one.predictions for one in later]
    memory = slope(at, [one.resident_bytes / 2**20 for one in later])
    return {
        "predictions": samples[-1].predictions,
        "mib_in_100000": asdict(memory),
        "threads_in_100000": asdict(slope(at, [one.threads for one in later])),
        "files_in_100000": asdict(slope(at, [one.files for one in later])),
        "first": asdict(later[0]),
        "last": asdict(later[-1]),
        "most_resident_bytes": max(one.resident_bytes for one in samples),
        "samples": [[*asdict(one).values()] for one in samples],
    }


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.soak",
        "Predicts many images of changing sizes, and fails if memory, threads or open files grow.",
        "python -m tools.soak icnet-any.onnx --runtime openvino --json soak-openvino.json",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file of a free size")
    p.add_argument("--runtime", choices=[*RUNTIMES], default="onnxruntime")
    p.add_argument(
        "--predictions", type=count, default=100_000, metavar="N", help="(default: 100000)"
    )
    p.add_argument(
        "--most",
        type=float,
        default=16.0,
        metavar="MIB",
        help="how much memory may grow in 100,000 predictions (default: 16)",
    )
    p.add_argument("--threads", type=count, metavar="N", help="of the runtime (default: all)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the sizes (default: 0)")
    p.add_argument("--json", type=Path, metavar="FILE", help="where to record it")
    return p


def require_level(found: dict[str, Any], most: float) -> None:
    """CheckFailed if memory surely grows by more MiB in 100,000 predictions, or anything else."""
    memory = found["mib_in_100000"]
    if memory["low"] > most:
        raise CheckFailed(
            f"memory grows by {memory['value']:.1f} MiB (at least {memory['low']:.1f}) in 100,000 "
            f"predictions; expected at most {most:g}"
        )
    for what in ("threads", "files"):
        if found["last"][what] > found["first"][what]:
            raise CheckFailed(
                f"the process has {found['last'][what]} {what}; it had {found['first'][what]} "
                f"after {found['first']['predictions']} predictions"
            )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _arguments().parse_args(argv)
    if args.predictions < 100:
        raise InputError(
            f"--predictions {args.predictions} is too few for a slope: give 100 or more"
        )
    every = max(1, args.predictions // 500)
    with Predictor.open(args.model, args.runtime, "cpu", args.threads) as predictor:
        samples = soak(predictor, args.predictions, every, args.seed)
    found = result(samples)
    if args.json:
        about = {
            "schema": _SCHEMA,
            "kind": "soak",
            "date": datetime.now(UTC).date().isoformat(),
            "versions": versions(),
            "machine": machine(),
            "model": args.model.name,
            "sha256": sha256(args.model),
            "runtime": args.runtime,
            "sides": [_LEAST, _MOST],
            "threads": args.threads,
        }
        write_json(args.json, about | found)
    memory = found["mib_in_100000"]
    print(
        f"{found['predictions']} predictions on {args.runtime}: memory grows by "
        f"{memory['value']:+.2f} MiB [{memory['low']:+.2f}, {memory['high']:+.2f}] in 100,000; "
        f"{found['last']['threads']} threads, {found['last']['files']} open files, at first "
        f"{found['first']['threads']} and {found['first']['files']}"
    )
    require_level(found, args.most)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
