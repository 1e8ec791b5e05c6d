"""What one image adds to a score, small enough to be kept in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from icnet_deploy.data import ConfusionMatrix, RegionAccuracy
from icnet_deploy.documents import COUNT, FROM_ZERO, Schema, list_of
from icnet_deploy.errors import InputError


@dataclass(frozen=True)
class ImageScore:
    """One image's counts of one model, all that its score is made of.

    Attributes:
        confusion: its pixels, by class.
        regions: its regions, by size.
    """

    confusion: ConfusionMatrix
    regions: RegionAccuracy

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, which says the same to the last bit."""
        return {
            "confusion": self.confusion.counts.tolist(),
            "regions": self.regions.regions.tolist(),
            "region_accuracies": self.regions.total.tolist(),
        }

    @classmethod
    def from_dict(
        cls, value: Mapping[str, Any], classes: int, where: str = "an image's score"
    ) -> ImageScore:
        """Reads the JSON form.

        Args:
            value: what `to_dict` gave.
            classes: C, the number of classes of the data set.
            where: it is from, for messages.

        Raises:
            InputError: it is none, or of another number of classes or bins.
        """
        fields = _SCHEMA.fit(value, where)
        one = cls(ConfusionMatrix(classes), RegionAccuracy())
        parts = (
            (one.confusion.counts, fields["confusion"]),
            (one.regions.regions, fields["regions"]),
            (one.regions.total, fields["region_accuracies"]),
        )
        for into, kept in parts:
            try:
                array = np.array(kept, into.dtype)
            except (ValueError, OverflowError):  # rows of unlike lengths, counts beyond 64 bits
                array = np.empty(0, into.dtype)
            if array.shape != into.shape:
                raise InputError(
                    f"{where} has another number of classes or region sizes; expected "
                    f"{classes} classes and {len(one.regions.regions)} sizes: make it again"
                )
            into[...] = array
        return one


_SCHEMA = Schema(
    "what one image adds to a score",
    {
        "confusion": list_of(list_of(COUNT)),
        "regions": list_of(COUNT),
        "region_accuracies": list_of(FROM_ZERO),
    },
)
