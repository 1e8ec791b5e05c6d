"""A data set that the user's own code opens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.command import error_words, import_named
from icnet_deploy.data.dataset import Dataset
from icnet_deploy.errors import DatasetError, IcnetError, InputError

_OPTION = "--dataset"


@dataclass(frozen=True)
class _OwnLabels:
    """Calls a function that reads labels, and says of its errors whose they are."""

    read_labels: Callable[[Path], npt.NDArray[np.uint8]]
    name: str

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        try:
            return self.read_labels(path)
        except IcnetError:
            raise
        except Exception as error:  # whatever the user's code does
            raise DatasetError(
                f"the read_labels of {_OPTION} {self.name} fails for {path}: {error_words(error)}"
            ) from error


def open_own(name: str, root: Path, split: str) -> Dataset:
    """Has a data set opened by code of the user's own.

    Args:
        name: `PACKAGE.MODULE:OPENER`, a function of (root, split) that returns a `Dataset`; see
            `import_named`.
        root: the data set's folder, or file.
        split: `train`, `val`, ...

    Raises:
        InputError: there is no such function, it fails, or returns something else.
        DatasetError: it returns an empty data set, or raises this itself.
    """
    opener = import_named(name, _OPTION)
    try:
        dataset = opener(root, split)
    except IcnetError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise InputError(
            f"{_OPTION} {name} fails for the folder {root} and the split {split!r}: "
            f"{error_words(error)}"
        ) from error
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{_OPTION} {name} returned {type(dataset).__name__}; expected a function of (root, "
            "split) that returns an icnet_deploy.data.Dataset"
        )
    wrong = [file for pair in dataset.files for file in pair if not isinstance(file, Path)]
    if wrong:
        raise InputError(
            f"{_OPTION} {name} returned a data set with {wrong[0]!r} in its files; expected "
            "pairs of pathlib.Path, an image file and its label file"
        )
    if not len(dataset):
        raise DatasetError(
            f"{_OPTION} {name} found no image of the split {split!r} in the folder {root}"
        )
    return replace(dataset, read_labels=_OwnLabels(dataset.read_labels, name))
