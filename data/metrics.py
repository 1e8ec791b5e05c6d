"""Scores: the confusion matrix and what is read off it, and accuracy by the size of regions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import DatasetError
from icnet_deploy.labels import IGNORE

UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]


def _check(prediction: UInt8, target: UInt8) -> None:
    if prediction.shape != target.shape or prediction.dtype != np.uint8 or target.dtype != np.uint8:
        raise DatasetError(
            "a prediction and its ground truth are uint8 of one shape; got "
            f"{prediction.dtype} {prediction.shape} and {target.dtype} {target.shape}"
        )


@dataclass
class ConfusionMatrix:
    """Counts of pixels by true class (rows) and predicted class (columns).

    Attributes:
        classes: C, the number of classes.
        counts: int64, C x (C + 1); the last column counts predictions that are no class of the
            data set, which are wrong. Pixels whose truth is 255 are not counted.
    """

    classes: int
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, prediction: UInt8, target: UInt8) -> None:
        """Counts one label map.

        Args:
            prediction: uint8 of any shape; values from C on are wrong wherever the truth is known.
            target: uint8 of the same shape, 0..C-1, or 255 where the truth is not known.

        Raises:
            DatasetError: shapes or dtypes differ, or a truth lies between C and 254.
        """
        _check(prediction, target)
        width = self.classes + 1
        # One table look-up and one bincount: the fastest exact way in NumPy.
        code = np.minimum(target, self.classes).astype(np.int32) * width
        code += np.minimum(prediction, self.classes)
        counts = np.bincount(code.ravel(), minlength=width * width).reshape(width, width)
        unknown = int(np.count_nonzero(target == IGNORE))
        if int(counts[self.classes].sum()) != unknown:
            raise DatasetError(
                f"the ground truth holds labels from {self.classes} to 254; it has "
                f"{self.classes} classes and 255 for ignored"
            )
        self.counts += counts[: self.classes]

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        self.counts += other.counts
        return self

    def iou(self) -> Float:
        """Intersection over union a class, 0..1, float64 of C; NaN for a class that nowhere occurs.

        Sums run over all images, as in the Cityscapes and Pascal VOC evaluations.
        """
        hit = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(1) + self.counts[:, : self.classes].sum(0) - hit
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(union > 0, hit / union, np.nan))

    def miou(self) -> float:
        """Mean of `iou()` over the classes that occur, 0..1; NaN if none does."""
        iou = self.iou()
        known = iou[~np.isnan(iou)]
        return float(known.mean()) if known.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right, 0..1; NaN if none was counted."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts[:, : self.classes]) / total) if total else float("nan")


@dataclass
class RegionAccuracy:
    """Accuracy by the size of the true regions (the ICNet paper's figure 7).

    A region is a 4-connected set of pixels of one true class; its accuracy is the share of its
    pixels that are right; a bin's accuracy is the mean over its regions.

    Attributes:
        bin_pixels: the width of a bin, in pixels.
        limit: regions of this many pixels or more share the last bin.
        smallest: regions below this many pixels are left out: they are single-pixel noise.
    """

    bin_pixels: int = 3000
    limit: int = 120_000
    smallest: int = 16
    regions: npt.NDArray[np.int64] = field(init=False)
    total: Float = field(init=False)

    def __post_init__(self) -> None:
        bins = self.limit // self.bin_pixels + 1
        self.regions = np.zeros(bins, np.int64)
        self.total = np.zeros(bins, np.float64)

    def add(self, prediction: UInt8, target: UInt8) -> None:
        """Counts the regions of one label map, uint8 H x W each; 255 in `target` is ignored."""
        import cv2

        _check(prediction, target)
        right = prediction == target
        for value in np.flatnonzero(np.bincount(target.ravel(), minlength=256)[:IGNORE]):
            mask = cv2.inRange(target, int(value), int(value))
            # A class fills a small part of most street scenes: within its box the work is a third.
            x, y, width, height = cv2.boundingRect(mask)
            box = np.s_[y : y + height, x : x + width]
            count, found = cv2.connectedComponents(mask[box], connectivity=4, ltype=cv2.CV_32S)
            marks = 2 * np.asarray(found) + right[box]
            pixels = np.bincount(marks.ravel(), minlength=2 * count).reshape(count, 2)[1:]
            sizes, hits = pixels.sum(axis=1), pixels[:, 1]
            keep = sizes >= self.smallest
            where = np.minimum(sizes[keep], self.limit) // self.bin_pixels
            np.add.at(self.regions, where, 1)
            np.add.at(self.total, where, hits[keep] / sizes[keep])

    def __iadd__(self, other: RegionAccuracy) -> RegionAccuracy:
        self.regions += other.regions
        self.total += other.total
        return self

    def rule(self) -> str:
        """What counts as a region, and the bins, in words."""
        return (
            f"4-connected, of {self.smallest} pixels or more; bins of {self.bin_pixels:,} pixels "
            f"up to {self.limit:,}, then one for all larger ones"
        )

    def accuracy(self) -> Float:
        """Mean accuracy a bin, 0..1, float64; NaN where a bin holds no region."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(self.regions > 0, self.total / self.regions, np.nan))

    def small(self) -> float:
        """Mean accuracy of the regions below `bin_pixels` pixels, 0..1; NaN if there are none."""
        return float(self.accuracy()[0])
