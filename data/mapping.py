"""How the classes of one label set answer for those of another."""

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import LabelSetError
from icnet_deploy.labels import CAMVID, CITYSCAPES, IGNORE, LabelSet

_CAMVID_IN_CITYSCAPES: tuple[tuple[str, ...], ...] = (
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

_RELATIONS = {(CITYSCAPES.names, CAMVID.names): _CAMVID_IN_CITYSCAPES}
"""(names of a model's classes, of a data set's) -> for each class of the data set those of the
model that it covers. Label sets of the same names need no row."""

Table = npt.NDArray[np.uint8]


def prediction_table(model: LabelSet, data: LabelSet) -> Table:
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
    for index, classes in enumerate(_covered(model, data, "scored")):
        table[list(classes)] = index
    return table


def target_table(model: LabelSet, data: LabelSet) -> tuple[Table, list[tuple[int, ...]]]:
    """A table from the data set's labels to training targets, and the merged targets it uses.

    A class of the data set that covers several of the model's (CamVid's bicyclist is a rider and
    a bicycle) becomes a merged target: index C + i stands for "any of `merged[i]`", and the loss
    takes the sum of their probabilities.

    Returns:
        uint8, 256 entries, and the list of merged classes.

    Raises:
        LabelSetError: it is not known how to train the one on the other.
    """
    covered = _covered(model, data, "trained")
    merged = [classes for classes in covered if len(classes) > 1]
    table = np.full(256, IGNORE, np.uint8)
    for index, classes in enumerate(covered):
        several = len(classes) > 1
        table[index] = len(model) + merged.index(classes) if several else classes[0]
    return table, merged


def _covered(model: LabelSet, data: LabelSet, purpose: str) -> list[tuple[int, ...]]:
    """For each class of the data set the indices of the model's classes that it covers."""
    if model.names == data.names:
        return [(index,) for index in range(len(model))]
    if (relation := _RELATIONS.get((model.names, data.names))) is None:
        raise LabelSetError(
            f"a model of the label set {model.name!r} ({len(model)} classes) cannot be {purpose} "
            f"on {data.name!r} ({len(data)} classes)"
        )
    return [tuple(map(model.names.index, names)) for names in relation]
