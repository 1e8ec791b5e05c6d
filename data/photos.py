"""A folder of photos as a data set: images without labels, which most users have."""

from collections.abc import Callable
from os.path import isdir
from pathlib import Path
from typing import ClassVar

import numpy as np

from icnet_deploy.data.dataset import Dataset, Sample, by_numbers, open_image
from icnet_deploy.errors import DatasetError
from icnet_deploy.files import find_files, real_path, results_among, why_no_folder
from icnet_deploy.images import IMAGE_SUFFIXES, read_grey
from icnet_deploy.labels import CITYSCAPES, IGNORE


class Photos(Dataset):
    """Images of which no label is known: those of every sample are 255.

    Its label set is the one of Cityscapes until `dataclasses.replace` gives it a model's. A sample
    is called by its path below the folder, and is turned as EXIF says. By default the photos of a
    folder are one group.
    """

    labelled: ClassVar[bool] = False

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Decodes one photo; raises ImageError if it cannot be decoded."""
        path, _ = self.files[index]
        opened = open_image(path, self.exif)
        image = opened.rgb(self.turn)
        return Sample(
            self.below(path).as_posix(),
            image,
            np.full(image.shape[:2], IGNORE, np.uint8),
            opened.rgb(not self.turn) if opened.orientation != 1 else None,
            self.group(path),
        )


def photos(
    folder: Path, group_by: str | None = None, tell: Callable[[str], None] = lambda text: None
) -> Photos:
    """Every image below a folder, in the order of the numbers in their names.

    Args:
        folder: linked sub-folders are searched, too.
        group_by: which photos belong together; see `Dataset.group_by`. None: those of a folder.
        tell: is told in words what was left out, if anything was.

    Raises:
        DatasetError: there is no such folder, or no image of yours in it.
        InputError: `group_by` is no regular expression, or finds nothing in a file's name.
    """
    files = image_files(folder, tell)
    name = real_path(folder).name
    pairs = tuple((file, file) for file in sorted(files, key=by_numbers))
    found = Photos(
        "photos",
        name,
        CITYSCAPES,
        pairs,
        read_grey,
        exif="apply",
        root=folder,
        group_by=group_by,
    )
    found.groups()  # as in `open_dataset`
    return found


def image_files(folder: Path, tell: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Every image below a folder, linked sub-folders included, sorted; none that predict wrote.

    Args:
        folder: to be searched.
        tell: is told in words what was left out, if anything was.

    Raises:
        DatasetError: there is no such folder, or no image of yours in it.
    """
    if not isdir(folder):
        named = f"the folder of images {str(folder)!r}"
        raise DatasetError(f"{named} {why_no_folder(folder)}")
    listing = find_files(folder, IMAGE_SUFFIXES)
    if not listing.files:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if left_out := listing.says_left_out():
        tell(f"{folder}: {len(listing.files)} images; {left_out}")
    results = results_among(listing.files, folder)
    if not results:
        return list(listing.files)
    if len(results) == len(listing.files):
        raise DatasetError(
            f"{folder} holds only images that `icnet predict` wrote: name the folder of the photos"
        )
    tell(f"note: {folder}: {len(results)} images are left out, which `icnet predict` wrote there")
    return [file for file in listing.files if file not in results]
