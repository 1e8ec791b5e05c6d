"""What a tensor did on the calibration images: its extremes, a histogram, its channels' means.

A histogram's range is not known before the last image, and a second pass over the images would
double the work. So the range is a power of two that doubles when a value passes it, and then each
two bins become one: the counts are those of a histogram that had the last range from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.documents import (
    COUNT,
    FROM_ONE,
    FROM_ZERO,
    NUMBER,
    Schema,
    list_of,
    object_with,
    one_of,
)
from icnet_deploy.errors import BackendError, InputError

BINS = 8192
"""Bins of a histogram: 8 or more for each step of an 8-bit grid."""

_HALF = BINS // 2
_QUARTER = BINS // 4
_SMALLEST = 2.0**-20  # the range of a tensor that is zero everywhere
_ROUNDED = 1e-6  # what the JSON form's 7 digits may move a value by

_HISTOGRAM = {
    "limit": FROM_ZERO,
    "bins": one_of(BINS),
    "first": COUNT,
    "counts": list_of(COUNT),
}
_SCHEMA = Schema(
    "the statistics of a tensor",
    {
        "minimum": NUMBER,
        "maximum": NUMBER,
        "images": FROM_ONE,
        "channel_means": list_of(NUMBER),
        "channel_highest": list_of(FROM_ZERO),
        "histogram": object_with(_HISTOGRAM),
        "below_zero": FROM_ZERO,
    },
    optional=("below_zero",),  # earlier releases weighed all values alike
)

Array = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]


@dataclass
class TensorStatistics:
    """The values of one tensor over all images so far.

    Attributes:
        channels: C.
        minimum, maximum: over all values.
        limit: the histogram spans -limit to limit; a power of two.
        counts: int64 of `BINS`; how many values lie in each bin.
        total: float64 of C; the sum of each channel's values.
        highest: float64 of C; the largest absolute value of each channel.
        images: how many were added.
        below_zero: what the squared error of a value below zero is worth, where that of one above
            is worth 1: an activation behind the tensor may make it smaller.
    """

    channels: int
    minimum: float = np.inf
    maximum: float = -np.inf
    limit: float = _SMALLEST
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    total: Float = field(default_factory=lambda: np.zeros(0))
    highest: Float = field(default_factory=lambda: np.zeros(0))
    images: int = 0
    below_zero: float = 1.0

    def __post_init__(self) -> None:
        if not self.total.size:
            self.total, self.highest = np.zeros(self.channels), np.zeros(self.channels)

    def add(self, values: Array, axis: int = 1) -> None:
        """Counts one image's values.

        Args:
            values: float32, of any shape with C along `axis`, e.g. 1 x C x H x W.
            axis: along which the channels lie.

        Raises:
            BackendError: a value is not finite.
        """
        planes = np.moveaxis(values, axis, 0).reshape(self.channels, -1)
        lowest, highest = planes.min(axis=1), planes.max(axis=1)
        low, high = float(lowest.min()), float(highest.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise BackendError("the float32 graph computes values that are not finite")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        while max(-low, high) >= self.limit:
            self._double()
        places = (planes * np.float32(_HALF / self.limit) + np.float32(_HALF)).astype(np.int64)
        self.counts += np.bincount(places.ravel(), minlength=BINS)[:BINS]
        self.total += planes.sum(axis=1, dtype=np.float64) / planes.shape[1]
        np.maximum(self.highest, np.maximum(-lowest, highest), out=self.highest)
        self.images += 1

    def _double(self) -> None:
        pairs = self.counts.reshape(_HALF, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[_QUARTER : _QUARTER + _HALF] = pairs
        self.limit *= 2

    def means(self) -> Float:
        """The mean of each channel, float64 of C."""
        return np.asarray(self.total / max(self.images, 1))

    def bins(self) -> tuple[Float, Float]:
        """The middles of the bins that hold something, and the share of all values in each."""
        used = np.flatnonzero(self.counts)
        width = self.limit / _HALF
        middles = (used - _HALF + 0.5) * width
        # The bin from zero on holds the zeros of a ReLU, most of all its values.
        middles[used == _HALF] = 0.0
        return np.clip(middles, self.minimum, self.maximum), self.counts[used] / self.counts.sum()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; of the histogram, the part that holds something."""
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1])) if used.size else (0, -1)
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "images": self.images,
            "below_zero": self.below_zero,
            "channel_means": [float(f"{v:.7g}") for v in self.means()],
            "channel_highest": [float(f"{v:.7g}") for v in self.highest],
            "histogram": {
                "limit": self.limit,
                "bins": BINS,
                "first": first,
                "counts": self.counts[first : last + 1].tolist(),
            },
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str) -> TensorStatistics:
        """Reads the JSON form; InputError if it is none, or contradicts itself.

        Args:
            value: the JSON form.
            where: it is from, for the message.
        """
        known = _SCHEMA.fit(value, where)
        stored = known["histogram"]
        first, occupied, limit = stored["first"], stored["counts"], float(stored["limit"])
        means = np.array(known["channel_means"], np.float64)
        highest = np.array(known["channel_highest"], np.float64)
        minimum, maximum, images = (known[name] for name in ("minimum", "maximum", "images"))
        total = sum(occupied)
        sound = (
            minimum <= maximum
            and max(-minimum, maximum) < limit
            and limit >= _SMALLEST
            and np.frexp(limit)[0] == 0.5  # a power of two
            and first + len(occupied) <= BINS
            and means.size == highest.size > 0
            and 0 < total < 2**63
            and total % (images * means.size) == 0
            and bool((np.abs(means) <= highest * (1 + _ROUNDED) + _ROUNDED).all())
            and bool(np.isclose(highest.max(), max(-minimum, maximum), rtol=_ROUNDED))
        )
        if not sound:
            raise InputError(
                f"the statistics of {where} contradict each other: remove the file, and quantize "
                "again"
            )
        counts = np.zeros(BINS, np.int64)
        counts[first : first + len(occupied)] = occupied
        return cls(
            channels=means.size,
            minimum=minimum,
            maximum=maximum,
            limit=limit,
            counts=counts,
            total=means * images,
            highest=highest,
            images=images,
            below_zero=float(known.get("below_zero", 1.0)),
        )
