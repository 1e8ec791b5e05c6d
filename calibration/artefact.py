"""Writes 8-bit artefacts of a float32 one: metadata, a check against their origin, whole or not."""

import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import onnx

from icnet_deploy._version import __version__
from icnet_deploy.calibration.agreement import (
    EXACT,
    Agreement,
    agreements,
    other_runtimes,
)
from icnet_deploy.calibration.calibrate import Calibration
from icnet_deploy.calibration.graph import plain
from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.calibration.quantize import Int8, quantize
from icnet_deploy.calibration.ranges import METHOD, Ranges
from icnet_deploy.errors import CheckFailed, ModelError
from icnet_deploy.images import UInt8
from icnet_deploy.integrity import require_finite_graph
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata, write_artefact

_LEAST_AGREEMENT = 0.95
"""A file whose labels differ more from the float32 graph's than this share is nonsense."""


class Compared(NamedTuple):
    """What methods came to on some of the images that ranges were taken from.

    Attributes:
        images: how many.
        alike: method -> the share of the float32 graph's labels that its graph has, 0..1.
    """

    images: int
    alike: Mapping[str, float]

    def __str__(self) -> str:
        """E.g. "labels alike on 24 calibration images: percentile 98.945 %, mse 99.105 %"."""
        each = ", ".join(f"{method} {100 * share:.3f} %" for method, share in self.alike.items())
        return f"labels alike on {self.images} calibration images: {each}"


@dataclass(frozen=True)
class Recipe:
    """How an 8-bit graph is made of a float32 one.

    Attributes:
        calibration: of the float32 graph; its ranges are those of the 8-bit one.
        placement: a key of `PLACEMENTS`.
        method: one of `METHODS`: how ranges are chosen; `AUTO` until `settled`.
        exclude: what stays in float; None for those of the placement.
        learned: constant -> the places of its weights, as `quantize` takes them; None: the nearest.
        smoothing: the strength at which the factors of the calibration were smoothed; None: they
            are as `calibrate` chose them.
        compared: what the method was chosen by; None: it was asked for.
    """

    calibration: Calibration
    placement: str
    method: str = METHOD
    exclude: Collection[str] | None = None
    learned: Mapping[str, Int8] | None = None
    smoothing: float | None = None
    compared: Compared | None = None

    @cached_property
    def ranges(self) -> Ranges:
        """Of the 8-bit graph's tensors."""
        return self.calibration.ranges(self.method)

    def graph(
        self, model: onnx.ModelProto, exclude: Collection[str] | None = None
    ) -> onnx.ModelProto:
        """The 8-bit graph; raises as `quantize` does.

        Args:
            model: the float32 graph; it is not changed.
            exclude: what stays in float in place of the recipe's `exclude`.
        """
        exclude = self.exclude if exclude is None else exclude
        return quantize(model, self.ranges, self.placement, exclude, self.learned)

    def metadata(self, origin: ArtefactMetadata) -> ArtefactMetadata:
        """Those of the 8-bit artefact, given the float32 file's."""
        made_by = {
            "icnet-deploy": __version__,
            "onnx": version("onnx"),
            "onnxruntime": version("onnxruntime"),
            "python": platform.python_version(),
            "ranges": self.method,
        }
        if self.compared is not None:
            made_by["ranges_chosen_by"] = str(self.compared)
        if self.learned is not None:
            made_by["rounding"] = "learned"
        if self.smoothing is not None:
            made_by["smoothing"] = f"{self.smoothing:g}"
        if self.exclude:
            made_by["float"] = ", ".join(self.exclude)
        return replace(
            origin,
            precision=self.placement,
            parent_sha256=self.calibration.parent_sha256,
            calibration_images=self.calibration.images,
            tools={**origin.tools, **made_by},
        )


def load_float(path: Path) -> tuple[onnx.ModelProto, ArtefactMetadata, tuple[int, int]]:
    """Reads what is to be quantized: its graph as `plain` has it, its metadata and its size.

    Raises:
        ModelError: it is no float32 ONNX file of `icnet export` or `icnet adopt`, takes any size,
            or holds a number that is not finite.
    """
    metadata = read_onnx_metadata(path)
    if metadata.precision != "fp32":
        raise ModelError(
            f"{path} is {metadata.precision}; expected a float32 file: name one that `icnet "
            "export` or `icnet adopt` wrote with --precision fp32"
        )
    if metadata.size is None:
        raise ModelError(
            f"{path} takes images of any size, and an 8-bit graph has one size: make a float32 "
            "file of that size (`icnet export --size` without --dynamic-size, or `icnet adopt "
            "--size`)"
        )
    model = onnx.load(path)
    require_finite_graph(model.SerializeToString(), str(path), "export the network again")
    return plain(model), metadata, metadata.size


def write_quantized(
    source: Path,
    out: Path,
    recipe: Recipe,
    checked_on: Iterable[UInt8],
    where: str = "images that it was not calibrated on",
) -> list[Agreement]:
    """Writes one artefact; a file that is nonsense is not kept.

    Args:
        source: the float32 file.
        out: the file to write.
        recipe: how it is made of that file.
        checked_on: images, uint8 H x W x 3, of the graph's size, that it was not calibrated on.
        where: what they are, in words.

    Returns:
        The share of labels that agree with the float32 file's, for each runtime of the CPU that is
        installed.

    Raises:
        CheckFailed: it is below `_LEAST_AGREEMENT` on ONNX Runtime, or on the one that the
            placement is for before others.
        OutputError: the file cannot be written.
    """
    model, metadata, _ = load_float(source)
    result = recipe.graph(model)
    result.producer_name, result.producer_version = "icnet-deploy", __version__
    # Before a file of it exists, so that whatever stops this, no unchecked file is left.
    found = agreements(model, result, checked_on, metadata, other_runtimes())
    for one in found:
        if one.runtime in (EXACT, cpu_runtime(recipe.placement)):
            _require(one, f"the {recipe.placement} graph", f"{source} on {where}")
    write_artefact(out, result.SerializeToString(), recipe.metadata(metadata))
    return found


def _require(one: Agreement, graph: str, where: str) -> None:
    """Raises CheckFailed where a runtime gives too few of the labels."""
    if one.share >= _LEAST_AGREEMENT:
        return
    advice = "calibrate on more images, like those that the model will see"
    if one.runtime != EXACT:  # which came before, and had enough
        advice = f"{one.error or 'it computes a layer wrongly'}; keep that layer in float (--float)"
    raise CheckFailed(
        f"{graph} on {one.runtime} gives {one.share:.2%} of the labels of {where}; expected at "
        f"least {_LEAST_AGREEMENT:.0%}: {advice}. No artefact was written"
    )
