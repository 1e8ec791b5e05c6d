"""How the classes of one label set answer for those of another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import LabelSetError
from icnet_deploy.labels import CAMVID, CITYSCAPES, IGNORE, LabelSet

CAMVID_TO_CITYSCAPES: tuple[tuple[str, ...], ...] = (
    ("sky",),
    ("building",),
    ("pole",),
    ("road",),
    ("sidewalk",),
    ("vegetation",),
    ("traffic sign",),
    ("fence",),
    ("car",),
    ("person",),
    ("rider", "bicycle"),
)
"""For each CamVid class the Cityscapes classes that it covers."""


def prediction_table(model: LabelSet, data: LabelSet) -> npt.NDArray[np.uint8]:
    """A table from a predicted class to the class of the data set that it stands for.

    Args:
        model: the label set of the predictions.
        data: the label set of the ground truth.

    Returns:
        uint8, 256 entries; 255 for a predicted class that stands for none, which a score counts
        as wrong wherever the truth is known.

    Raises:
        LabelSetError: it is not known how the one answers for the other.
    """
    table = np.full(256, IGNORE, np.uint8)
    if model.names == data.names:
        table[: len(model)] = np.arange(len(model))
    elif model.names == CITYSCAPES.names and data.names == CAMVID.names:
        for index, names in enumerate(CAMVID_TO_CITYSCAPES):
            table[[CITYSCAPES.names.index(n) for n in names]] = index
    else:
        raise LabelSetError(
            f"a model of the label set {model.name!r} ({len(model)} classes) cannot be scored on "
            f"{data.name!r} ({len(data)} classes)"
        )
    return table
