"""What is kept of each image that is scored: all that intervals are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import ConfusionMatrix, RegionAccuracy
from icnet_deploy.documents import COUNT, FROM_ZERO, TEXT, Schema, list_of

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageCounts:
    """One image's counts of one model.

    Attributes:
        name: of the image.
        group: what it belongs to: a drive, a patient, a scene; see `Dataset.groups`.
        right: int64 of C, pixels of each class that are right.
        truth: int64 of C, pixels of each class in the truth.
        predicted: int64 of C, pixels that are given each class, where the truth is known.
        small_regions: how many regions are small.
        small_right: the sum of their accuracies, each 0..1.
    """

    name: str
    group: str
    right: Counts
    truth: Counts
    predicted: Counts
    small_regions: int
    small_right: float

    @classmethod
    def of(
        cls, name: str, group: str, confusion: ConfusionMatrix, regions: RegionAccuracy
    ) -> ImageCounts:
        """Reads them off the matrix and the regions of one image."""
        classes = confusion.classes
        return cls(
            name=name,
            group=group,
            right=np.diagonal(confusion.counts).copy(),
            truth=confusion.counts.sum(axis=1),
            predicted=confusion.counts[:, :classes].sum(axis=0),
            small_regions=int(regions.regions[0]),
            small_right=float(regions.total[0]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "name": self.name,
            "group": self.group,
            "right": self.right.tolist(),
            "truth": self.truth.tolist(),
            "predicted": self.predicted.tolist(),
            "small_regions": self.small_regions,
            "small_right": self.small_right,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "an image's counts") -> ImageCounts:
        """Reads the JSON form; InputError, by the name `where`, if it is none."""
        fields = _SCHEMA.fit(value, where)
        arrays = {key: np.array(fields[key], np.int64) for key in ("right", "truth", "predicted")}
        return cls(**fields | arrays)


_SCHEMA = Schema(
    "an image's counts as `icnet evaluate --json` writes them",
    {
        **dict.fromkeys(("name", "group"), TEXT),
        **dict.fromkeys(("right", "truth", "predicted"), list_of(COUNT)),
        "small_regions": COUNT,
        "small_right": FROM_ZERO,
    },
)
