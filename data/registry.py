"""The data sets by name: a reader each, which is all that a new one needs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from icnet_deploy.data import camvid, cityscapes
from icnet_deploy.data.dataset import Dataset
from icnet_deploy.data.groups import alone
from icnet_deploy.errors import DatasetError

DATASETS: dict[str, Callable[[Path, str], Dataset]] = {
    "cityscapes": partial(cityscapes.read, "cityscapes"),
    "camvid": camvid.read,
    "scenes": partial(cityscapes.read, "scenes", group_of=alone),
}
"""Name -> what reads a split (`train`, `val`, ...) of a folder, or raises DatasetError."""

EXIF = ("apply", "ignore")
"""How masks may have been drawn: on the picture turned as EXIF says, or on the stored pixels."""


def open_dataset(
    name: str,
    root: str | Path,
    split: str = "val",
    exif: str | None = None,
    group_by: str | None = None,
) -> Dataset:
    """Opens a data set by its name.

    Args:
        name: one of `DATASETS`; `scenes` is what `icnet scenes` draws.
        root: its folder.
        split: `train`, `val` or `test`.
        exif: what to make of images with an EXIF orientation; see `Dataset.exif`.
        group_by: which images belong together, where the reader's own rule is not wanted; see
            `Dataset.group_by`.

    Raises:
        DatasetError: the name is unknown, or the folder holds no labelled images of that split.
        InputError: `group_by` is no regular expression, or finds nothing in a file's name.
    """
    root = Path(root)
    if exif not in (None, *EXIF):
        raise DatasetError(f"exif is {' or '.join(EXIF)}; got {exif!r}")
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if not root.is_dir():
        raise DatasetError(f"the data set's folder {root} does not exist")
    dataset = replace(DATASETS[name](root, split), exif=exif, group_by=group_by)
    dataset.groups()  # a pattern that does not fit is found now, not after the first model ran
    return dataset
