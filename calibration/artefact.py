"""Writes 8-bit artefacts of a float32 one: metadata, a check against their origin, whole or not."""

import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from icnet_deploy._version import __version__
from icnet_deploy.calibration.calibrate import Calibration, open_session
from icnet_deploy.calibration.graph import plain
from icnet_deploy.calibration.quantize import Int8, quantize
from icnet_deploy.calibration.ranges import Ranges
from icnet_deploy.errors import CheckFailed, ImageError, ModelError
from icnet_deploy.images import UInt8
from icnet_deploy.integrity import require_finite_graph
from icnet_deploy.labels import check_labels
from icnet_deploy.metadata import ArtefactMetadata, read_onnx_metadata, write_artefact
from icnet_deploy.runtime.labelmap import label_map

METHOD = "percentile"
"""How ranges are chosen, unless another way is asked for; a key of `METHODS`."""

_LEAST_AGREEMENT = 0.95
"""A file whose labels differ more from the float32 graph's than this share is nonsense."""


@dataclass(frozen=True)
class Recipe:
    """How an 8-bit graph is made of a float32 one.

    Attributes:
        calibration: of the float32 graph; its ranges are those of the 8-bit one.
        placement: a key of `PLACEMENTS`.
        method: one of `METHODS`: how ranges are chosen.
        exclude: what stays in float; None for `Graph.float_layers`.
        learned: constant -> the places of its weights, as `quantize` takes them; None: the nearest.
        smoothing: the strength at which the factors of the calibration were smoothed; None: they
            are as `calibrate` chose them.
    """

    calibration: Calibration
    placement: str
    method: str = METHOD
    exclude: Collection[str] | None = None
    learned: Mapping[str, Int8] | None = None
    smoothing: float | None = None

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
        ModelError: it is no float32 ONNX file of `icnet export`, takes any size, or holds a number
            that is not finite.
    """
    metadata = read_onnx_metadata(path)
    if metadata.precision != "fp32":
        raise ModelError(
            f"{path} is {metadata.precision}; ranges are taken from a float32 graph: name the file "
            "that `icnet export --precision fp32` wrote"
        )
    if metadata.size is None:
        raise ModelError(
            f"{path} takes images of any size; an 8-bit graph has one: export it with --size and "
            "without --dynamic-size, then quantize that"
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
) -> float:
    """Writes one artefact; a file that is nonsense is not kept.

    Args:
        source: the float32 file.
        out: the file to write.
        recipe: how it is made of that file.
        checked_on: images, uint8 H x W x 3, of the graph's size, that it was not calibrated on.
        where: what they are, in words.

    Returns:
        The share of labels that agree with the float32 file's, 0..1.

    Raises:
        CheckFailed: it is below `_LEAST_AGREEMENT`.
        OutputError: the file cannot be written.
    """
    model, metadata, _ = load_float(source)
    result = recipe.graph(model)
    result.producer_name, result.producer_version = "icnet-deploy", __version__
    # Before a file of it exists, so that whatever stops this, no unchecked file is left.
    share = agreement(model, result, checked_on, metadata)
    if not share >= _LEAST_AGREEMENT:
        raise CheckFailed(
            f"only {share:.2%} of the labels of the {recipe.placement} graph are those of "
            f"{source}, on {where}; at least {_LEAST_AGREEMENT:.0%} must be: calibrate on images "
            "like those that the model will see, and more of them. No file was written"
        )
    write_artefact(out, result.SerializeToString(), recipe.metadata(metadata))
    return share


def agreement(
    a: onnx.ModelProto, b: onnx.ModelProto, images: Iterable[UInt8], metadata: ArtefactMetadata
) -> float:
    """The share of pixels to which two graphs give the same label on ONNX Runtime, 0..1.

    Args:
        a, b: graphs with the same input and head.
        images: uint8 H x W x 3, RGB, of the graphs' size.
        metadata: of both, as far as it says how their answer becomes labels.

    Raises:
        ImageError: there is no image.
        NotFinite: logits of one of the graphs are infinite or not numbers.
        BackendError: a label map of one of them holds what is no class.
    """
    sessions = [open_session(model) for model in (a, b)]
    head = a.graph.output[0].name
    same = total = 0
    for image in images:
        first, second = (
            _labels(s.run([head], {"image": image[None]})[0], image, metadata) for s in sessions
        )
        same += int((first == second).sum())
        total += first.size
    if not total:
        raise ImageError("there is no image to compare the graphs on: give at least one")
    return same / total


def _labels(answer: npt.NDArray[Any], image: UInt8, metadata: ArtefactMetadata) -> npt.NDArray[Any]:
    if answer.dtype == np.uint8:
        check_labels(answer, metadata.label_set)
        return answer
    return label_map(answer, (image.shape[0], image.shape[1]), upsampling=metadata.upsampling)
