"""From a float32 graph and images to a `Calibration`, which is kept in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from icnet_deploy.calibration.equalize import Factors, equalized, factors_of
from icnet_deploy.calibration.graph import Graph, plain
from icnet_deploy.calibration.histogram import TensorStatistics
from icnet_deploy.calibration.placements.reach import slopes_of
from icnet_deploy.calibration.placements.registry import PLACEMENTS
from icnet_deploy.calibration.ranges import METHOD, METHODS, Ranges, set_ranges
from icnet_deploy.calibration.selection import CalibrationSet
from icnet_deploy.documents import (
    OBJECT,
    POSITIVE,
    SHA256,
    Schema,
    list_of,
    object_of,
    one_of,
    sealed,
)
from icnet_deploy.errors import ImageError, InputError, require
from icnet_deploy.files import write_text
from icnet_deploy.images import UInt8

_NEWEST = 1
_SCHEMA = Schema(
    "a calibration that `icnet quantize` kept",
    {
        "kind": one_of("calibration"),
        "parent_sha256": SHA256,
        "images": list_of(SHA256),
        "factors": object_of(list_of(POSITIVE)),
        "tensors": object_of(OBJECT),
        "methods": object_of(one_of(*METHODS)),
    },
    optional=("methods",),
    newest=_NEWEST,
    sealed=True,
    most_bytes=64 << 20,
)
_FOR_FACTORS = 16


@dataclass(frozen=True)
class Calibration:
    """What the calibration images said about a graph. It serves every method and placement.

    Attributes:
        parent_sha256: of the float32 ONNX file.
        images: content hashes of the images, in order.
        factors: the scaling that the statistics are taken after.
        statistics: tensor name -> what it did.
        methods: placement -> the method, one of `METHODS`, that its ranges were last taken by.
    """

    parent_sha256: str
    images: tuple[str, ...]
    factors: Factors
    statistics: Mapping[str, TensorStatistics]
    methods: Mapping[str, str] = field(default_factory=dict)

    def ranges(self, method: str = METHOD) -> Ranges:
        """The ranges by one of `METHODS`; InputError for another."""
        return set_ranges(self.statistics, method, self.factors)

    def method(self, placement: str) -> str:
        """The method of a placement."""
        return self.methods.get(placement, METHOD)

    def taken_by(self, methods: Mapping[str, str]) -> Calibration:
        """The same, with the methods of some placements."""
        return replace(self, methods={**self.methods, **methods})

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the ranges by its methods are in it to be read, not read back."""
        ranges = {
            placement: self.ranges(self.method(placement)).tensors for placement in PLACEMENTS
        }
        return sealed(
            {
                "kind": "calibration",
                "schema": _NEWEST,
                "parent_sha256": self.parent_sha256,
                "images": list(self.images),
                "factors": {k: [float(f"{f:.9g}") for f in v] for k, v in self.factors.items()},
                "methods": dict(self.methods),
                "tensors": {
                    name: {
                        **{
                            key: list(placement.span(ranges[key][name]))
                            for key, placement in PLACEMENTS.items()
                        },
                        **values.to_dict(),
                    }
                    for name, values in self.statistics.items()
                },
            }
        )

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Reads the JSON form.

        Raises:
            InputError: it is none, was changed, or contradicts itself.
        """
        known = _SCHEMA.read(path)
        images = tuple(known["images"])
        statistics = {
            name: TensorStatistics.from_dict(value, f"{name} in {path}")
            for name, value in known["tensors"].items()
        }
        # An image with an EXIF orientation has two hashes.
        counted = {each.images for each in statistics.values()}
        if len(set(images)) < len(images) or len(counted) != 1 or max(counted) > len(images):
            raise InputError(
                f"{path} contradicts itself: its tensors and its images do not match; remove it, "
                "and quantize again"
            )
        factors = {name: np.array(v, np.float64) for name, v in known["factors"].items()}
        methods = known.get("methods", {})
        return cls(known["parent_sha256"], images, factors, statistics, methods)


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
    model, few = plain(model), images.first(_FOR_FACTORS)
    factors = factors_of(model, collect(model, _shown(few, "equalize")))
    statistics = collect(equalized(model, factors), _shown(images, "calibrate"))
    return Calibration(parent_sha256, images.hashes, factors, statistics)


def _shown(images: CalibrationSet, what: str) -> Iterator[UInt8]:
    yield from tqdm(images, total=len(images), desc=what, unit="image", disable=None)


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Writes the JSON form, a line a tensor, whole or not at all (OutputError)."""
    value = calibration.to_dict()
    tensors = value.pop("tensors")
    head = json.dumps(value, allow_nan=False)[:-1]
    lines = ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in tensors.items()
    )
    write_text(path, f'{head}, "tensors": {{\n{lines}\n}}}}\n')


def calibrate_and_keep(
    path: Path, model: onnx.ModelProto, images: CalibrationSet, parent_sha256: str
) -> Calibration:
    """Calibrates and writes the JSON form; what it returns is rounded as in the file.

    So whoever finds the file quantizes to the same bytes. Raises as `calibrate` and
    `save_calibration`.
    """
    save_calibration(path, calibrate(model, images, parent_sha256))
    return Calibration.read(path)


def load_calibration(
    path: Path,
    model: onnx.ModelProto,
    parent_sha256: str,
    images: CalibrationSet | None = None,
) -> Calibration | None:
    """Reads it back if it is of this graph and of these images.

    None if it is not, if it is broken, or if it lacks a tensor, does not know what an activation
    makes of one, or scales channels that may not be: earlier releases knew fewer operators.

    Args:
        path: its file, which need not be there.
        model: the float32 graph.
        parent_sha256: of the graph's file.
        images: the calibration set; None for whichever it was.
    """
    try:
        calibration = Calibration.read(path)
    except InputError:
        return None
    same = images is None or calibration.images == images.hashes
    if not same or calibration.parent_sha256 != parent_sha256:
        return None
    try:
        scaled = equalized(plain(model), calibration.factors)
    except ValueError:  # factors of channels that only the earlier release scaled
        return None
    graph, known = Graph(scaled), calibration.statistics
    for name in _tensors_of(scaled):
        if name not in known or not np.isclose(known[name].below_zero, _below_zero(graph, name)):
            return None
    return calibration


def _below_zero(graph: Graph, tensor: str) -> float:
    """What is left of the square of a small change of values below zero behind their reader.

    That is the mean of its squared slopes: of a PReLU those of its channels, of a LeakyReLU its
    own, of a hard swish that of (2 x + 3) / 6 from -3 to 0. Else 1.
    """
    reader = graph.only_reader(tensor)
    if reader is None:
        return 1.0
    if reader.op_type == "HardSwish":
        return 1 / 12
    if reader.op_type == "LeakyRelu":
        return float(next((a.f for a in reader.attribute if a.name == "alpha"), 0.01)) ** 2
    slopes = slopes_of(graph, reader)
    return 1.0 if slopes is None else float(np.square(slopes, dtype=np.float64).mean())


def _tensors_of(model: onnx.ModelProto) -> list[str]:
    """The tensors that a placement puts a pair on, in the graph's order."""
    # the inputs' means are wanted even where the range is another tensor's
    wanted = {one.data for one in Graph(model).weighted()}
    for placement in PLACEMENTS.values():
        arranged = onnx.ModelProto()
        arranged.CopyFrom(model)
        placement.arrange(arranged)
        graph = Graph(arranged)
        weighted = [one for one in graph.weighted() if placement.takes(one)]
        pairs = placement.pairs(graph, weighted)
        # with other layers in float a pair may have the range that is its own
        wanted |= {one.data for one in weighted} | pairs.readers.keys()
        wanted |= set(pairs.ranged_as.values()) | pairs.spare
    return [name for node in model.graph.node for name in node.output if name in wanted]


def collect(
    model: onnx.ModelProto,
    images: Iterable[UInt8],
) -> dict[str, TensorStatistics]:
    """Takes the statistics of every tensor that may be quantized, in one pass.

    One image and its activations are in memory at a time.

    Args:
        model: a float32 graph of a fixed size.
        images: uint8 H x W x 3, RGB, of the graph's size.

    Returns:
        Tensor name -> what it did.

    Raises:
        ImageError: there is no image.
        MissingPackage: ONNX Runtime is not installed.
        BackendError: the graph computes values that are not finite.
    """
    names, graph = _tensors_of(model), Graph(model)
    axes = [graph.channel_axis(name) for name in names]
    left = [_below_zero(graph, name) for name in names]
    session = open_session(model, names)
    statistics: dict[str, TensorStatistics] = {}
    for image in images:
        values = session.run(names, {"image": image[None]})
        for name, value, axis, below in zip(names, values, axes, left, strict=True):
            if name not in statistics:
                statistics[name] = TensorStatistics(value.shape[axis], below_zero=below)
            statistics[name].add(value, axis)
    if not statistics:
        raise ImageError("there is no image to calibrate on: give at least one")
    return statistics


def open_session(model: onnx.ModelProto, tensors: Iterable[str] = ()) -> Any:
    """A session of ONNX Runtime on the CPU that can return these tensors besides the outputs."""
    require("calibration", "cpu", "onnxruntime")
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {value.name for value in shown.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in have
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
