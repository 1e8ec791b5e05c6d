"""A data set that the user's own code opens."""

from pathlib import Path

from icnet_deploy.command import error_words, import_named
from icnet_deploy.data.dataset import Dataset
from icnet_deploy.errors import DatasetError, IcnetError, InputError

_OPTION = "--dataset"


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
    except Exception as error:  # whatever the user's code does
        raise InputError(
            f"{_OPTION} {name} fails for the folder {root} and the split {split!r}: "
            f"{error_words(error)}"
        ) from error
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{_OPTION} {name} returned {type(dataset).__name__}; expected a function of (root, "
            "split) that returns an icnet_deploy.data.Dataset"
        )
    if not len(dataset):
        raise DatasetError(
            f"{_OPTION} {name} found no image of the split {split!r} in the folder {root}"
        )
    return dataset
