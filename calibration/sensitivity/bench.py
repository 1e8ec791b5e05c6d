"""What quantizing some blocks costs: the 8-bit graph against float32 on the same runtime."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.calibration.placements.registry import cpu_runtime
from icnet_deploy.data import ConfusionMatrix, Dataset
from icnet_deploy.evaluation.budgets import Measured
from icnet_deploy.evaluation.score import Score
from icnet_deploy.metadata import write_artefact
from icnet_deploy.runtime.predictor import Predictor

if TYPE_CHECKING:
    from icnet_deploy.calibration.calibrate import Calibration

UInt8 = npt.NDArray[np.uint8]
Tick = Callable[[], object]
"""Is called when an image is done."""

METHOD = "percentile"
"""How ranges are chosen: as `icnet quantize` does it."""


@dataclass(frozen=True)
class Cost:
    """How far a graph is from float32.

    Attributes:
        miou_points: mIoU minus float32's, in points (hundredths).
        class_points: class name -> IoU minus float32's, in points; classes that occur.
        changed: the share of all pixels whose label is not float32's, 0..1.
    """

    miou_points: float
    class_points: dict[str, float]
    changed: float

    @property
    def worst_class(self) -> str:
        """The class that falls most."""
        return min(self.class_points, key=lambda name: self.class_points[name])

    def measured(self) -> Measured:
        """As a budget wants it."""
        return Measured(1 - self.changed, self.miou_points, self.class_points)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "miou_difference_points": round(self.miou_points, 4),
            "class_difference_points": {n: round(p, 4) for n, p in self.class_points.items()},
            "worst_class": self.worst_class,
            "worst_class_difference_points": round(self.class_points[self.worst_class], 4),
            "labels_changed_percent": round(100 * self.changed, 4),
        }


class Bench:
    """Scores 8-bit graphs of one float32 file on one data set.

    The float32 graph runs once; its label maps are kept packed, about 1 % of their size.

    Args:
        source: the float32 file.
        calibration: of that file.
        placement: a key of `PLACEMENTS`.
        dataset: labelled images, none of which was calibrated on.
        folder: where the graphs are written; the caller removes it.
        tick: is called after each image.

    Attributes:
        runtime: the one that the placement is for and that a CPU has.
        score: of the float32 graph.

    Raises:
        ModelError: the file is no float32 artefact of one size.
        UnavailableError: the placement's runtime is missing.
        DatasetError: no image has a labelled pixel.
    """

    def __init__(
        self,
        source: Path,
        calibration: Calibration,
        placement: str,
        dataset: Dataset,
        folder: Path,
        tick: Tick,
    ) -> None:
        from icnet_deploy.calibration.artefact import load_float

        self._model, metadata, size = load_float(source)
        self._ranges = calibration.ranges(METHOD)
        self._metadata = replace(
            metadata,
            precision=placement,
            parent_sha256=calibration.parent_sha256,
            calibration_images=calibration.images,
        )
        self._dataset, self._folder = dataset, folder
        self.runtime = cpu_runtime(placement)
        self.score = Score(dataset, metadata.label_set, size, metadata.head)
        self._wanted: list[bytes] = []
        with self._open(source) as predictor:
            for sample in dataset:
                labels = predictor.predict(sample.image).labels
                self.score.add(sample, labels)
                self._wanted.append(zlib.compress(labels.tobytes(), 1))
                tick()
        self.score.require_truth()

    def write(self, in_float: Collection[str]) -> Path:
        """Writes the 8-bit graph with these modules in float; returns its file."""
        from icnet_deploy.calibration.quantize import quantize

        result = quantize(self._model, self._ranges, self._metadata.precision, in_float)
        path = self._folder / f"{len(list(self._folder.iterdir()))}.onnx"
        write_artefact(path, result.SerializeToString(), self._metadata)
        return path

    def cost(self, path: Path, tick: Tick) -> Cost:
        """Scores a graph that `write` wrote; `tick` is called after each image."""
        confusion = ConfusionMatrix(len(self._dataset.label_set))
        changed = pixels = 0
        with self._open(path) as predictor:
            for sample, packed in zip(self._dataset, self._wanted, strict=True):
                labels = predictor.predict(sample.image).labels
                wanted = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(labels.shape)
                changed += int(np.count_nonzero(labels != wanted))
                pixels += labels.size
                confusion.add(self.score.mapped(labels), sample.labels)
                tick()
        return self._cost(confusion, changed / pixels)

    def _open(self, path: Path) -> Predictor:
        return Predictor.open(path, self.runtime, "cpu", cached=False)

    def _cost(self, confusion: ConfusionMatrix, changed: float) -> Cost:
        points = 100 * (confusion.iou() - self.score.confusion.iou())
        names = self._dataset.label_set.names
        return Cost(
            100 * (confusion.miou() - self.score.confusion.miou()),
            {n: float(p) for n, p in zip(names, points, strict=True) if not np.isnan(p)},
            changed,
        )
