"""Cityscapes' layout and its label ids; drawn scenes are written in it, too."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icnet_deploy.data.dataset import Dataset, UInt8, listed
from icnet_deploy.data.groups import GroupOf, named
from icnet_deploy.images import read_grey
from icnet_deploy.labels import CITYSCAPES, IGNORE

_SEQUENCE = named(r"^(.+_\d+)_\d+_leftImg8bit\.")  # CITY_SEQUENCE of CITY_SEQUENCE_FRAME


def read(name: str, root: Path, split: str, group_of: GroupOf = _SEQUENCE) -> Dataset:
    """Reads `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, and their label ids below `gtFine/`.

    Args:
        name: `cityscapes`, or that of another data set in this layout.
        root: its folder.
        split: a folder in each of the two.
        group_of: how the group of an image is told.

    Raises:
        DatasetError: there is no image of that split, or one has no labels.
    """
    suffix = "_leftImg8bit.png"
    images = sorted((root / "leftImg8bit" / split).glob(f"[!.]*/[!.]*{suffix}"))
    files = []
    for image in images:
        base = image.name.removesuffix(suffix)
        label = root / "gtFine" / split / image.parent.name / f"{base}_gtFine_labelIds.png"
        files.append((image, label))
    return listed(
        name,
        root,
        split,
        CITYSCAPES,
        files,
        _label_ids,
        "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and "
        "gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png",
        group_of,
    )


def _inverse(label_ids: Sequence[int]) -> UInt8:
    table = np.full(256, IGNORE, np.uint8)
    table[list(label_ids)] = np.arange(len(label_ids), dtype=np.uint8)
    return table


_TRAIN_IDS = _inverse(CITYSCAPES.label_ids or ())


def _label_ids(path: Path) -> UInt8:
    return np.asarray(_TRAIN_IDS[read_grey(path)])
