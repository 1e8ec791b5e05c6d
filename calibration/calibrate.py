"""From a float32 graph and images to a `Calibration`, which is kept in `calibration.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from icnet_deploy.calibration.collect import collect
from icnet_deploy.calibration.equalize import Factors, equalized, factors_of
from icnet_deploy.calibration.histogram import TensorStatistics
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.ranges import Ranges, set_ranges
from icnet_deploy.calibration.selection import CalibrationSet
from icnet_deploy.documents import (
    NUMBER,
    OBJECT,
    SHA256,
    Kind,
    check_seal,
    list_of,
    object_of,
    one_of,
    read,
    sealed,
    take,
)
from icnet_deploy.files import write_text

UInt8 = npt.NDArray[np.uint8]

SCHEMA = 1

_POSITIVE = Kind(lambda value: NUMBER.fits(value) and value > 0, "a finite number above 0")
_FIELDS = {
    "kind": one_of("calibration"),
    "schema": one_of(SCHEMA),
    "parent_sha256": SHA256,
    "images": list_of(SHA256),
    "factors": object_of(list_of(_POSITIVE)),
    "tensors": object_of(OBJECT),
}
_FOR_FACTORS = 16


@dataclass(frozen=True)
class Calibration:
    """What the calibration images said about a graph. It serves every method and placement.

    Attributes:
        parent_sha256: of the float32 ONNX file.
        images: content hashes of the images, in order.
        factors: the scaling that the statistics are taken after.
        statistics: tensor name -> what it did.
    """

    parent_sha256: str
    images: tuple[str, ...]
    factors: Factors
    statistics: Mapping[str, TensorStatistics]

    def ranges(self, method: str = "percentile") -> Ranges:
        """The ranges by one of `METHODS`; InputError for another."""
        return set_ranges(self.statistics, method, self.factors)

    def to_dict(self, method: str) -> dict[str, Any]:
        """The JSON form; the ranges by `method` are in it to be read, not read back."""
        ranges = self.ranges(method).tensors
        return sealed(
            {
                "kind": "calibration",
                "schema": SCHEMA,
                "parent_sha256": self.parent_sha256,
                "images": list(self.images),
                "factors": {k: [float(f"{f:.9g}") for f in v] for k, v in self.factors.items()},
                "ranges_by": method,
                "tensors": {
                    name: {
                        **{key: list(p.span(ranges[name])) for key, p in PLACEMENTS.items()},
                        **found.to_dict(),
                    }
                    for name, found in self.statistics.items()
                },
            }
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Calibration:
        """Reads the JSON form; ValueError if it is none, was changed, or contradicts itself."""
        known = take(value, _FIELDS)
        check_seal(value)
        images = tuple(known["images"])
        found = {name: TensorStatistics.from_dict(v) for name, v in known["tensors"].items()}
        if not images or len(set(images)) < len(images) or not found:
            raise ValueError("it is of no image, of one twice, or of no tensor")
        # An image with an EXIF orientation has two hashes.
        counted = {each.images for each in found.values()}
        if len(counted) > 1 or max(counted) > len(images):
            raise ValueError(f"a tensor's statistics are not of its {len(images)} images")
        factors = {name: np.array(v, np.float64) for name, v in known["factors"].items()}
        return cls(known["parent_sha256"], images, factors, found)


def calibrate(model: onnx.ModelProto, images: CalibrationSet, parent_sha256: str) -> Calibration:
    """Chooses the factors on up to 16 of the images, then takes the statistics of all of them.

    One image is in memory at a time. Shows progress.

    Args:
        model: a float32 graph of the images' size.
        images: the calibration set.
        parent_sha256: of the graph's file.

    Raises:
        ImageError: an image can no longer be read.
        BackendError: the graph computes values that are not finite.
        MissingPackage: ONNX Runtime is not installed.
    """
    few = images.first(_FOR_FACTORS)
    factors = factors_of(model, collect(model, _shown(few, "equalize")))
    statistics = collect(equalized(model, factors), _shown(images, "calibrate"))
    return Calibration(parent_sha256, images.hashes, factors, statistics)


def _shown(images: CalibrationSet, what: str) -> Iterator[UInt8]:
    yield from tqdm(images, total=len(images), desc=what, unit="image", disable=None)


def save_calibration(path: Path, calibration: Calibration, method: str) -> None:
    """Writes the JSON form, a line a tensor, whole or not at all (OutputError)."""
    value = calibration.to_dict(method)
    tensors = value.pop("tensors")
    head = json.dumps(value, allow_nan=False)[:-1]
    lines = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in tensors.items()
    )
    write_text(path, f'{head}, "tensors": {{\n{lines}\n}}}}\n')


def read_calibration(path: Path) -> Calibration:
    """Reads the JSON form; OSError or ValueError if it cannot be."""
    return Calibration.from_dict(read(path))


def load_calibration(path: Path, parent_sha256: str, images: CalibrationSet) -> Calibration | None:
    """Reads it back if it is of this graph and of these images; None if not, or if it is broken."""
    try:
        found = read_calibration(path)
    except (OSError, ValueError):
        return None
    same = found.parent_sha256 == parent_sha256 and found.images == images.hashes
    return found if same else None
