"""What a teacher, a network, says of the images of a data set, and how sure it is of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.mapping import ClassMap
from icnet_deploy.errors import DatasetError
from icnet_deploy.images import ImageFile
from icnet_deploy.labels import IGNORE, LabelSet

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Teacher:
    """A network's labels for a data set, with a confidence for each pixel.

    Attributes:
        label_set: the classes that it tells apart.
        files: of each image file its label file and its confidence file.
        read_labels: decodes a label file into indices of `label_set`, with 255 for ignored.
        person: whether `Dataset.labels` are a person's; else they are these.
        class_map: how a network's classes answer for those of `label_set`; None: by their names,
            or as `mapping` knows.
    """

    label_set: LabelSet
    files: Mapping[Path, tuple[Path, Path]] = field(hash=False)
    read_labels: Callable[[Path], UInt8]
    person: bool = False
    class_map: ClassMap | None = None

    def note(self, whose: str) -> str:
        """What a person should know of a score on these images.

        Args:
            whose: what the data set and its split are called.
        """
        if self.person:
            return (
                f"{whose}: scored on the labels of a person; the labels of a network beside them "
                "are for training"
            )
        return (
            f"{whose}: a network made the labels, so a score says how far two networks agree, not "
            "how right one is"
        )

    def labels(self, image: Path, size: tuple[int, ...]) -> UInt8:
        """Its labels for an image.

        Args:
            image: the image's file.
            size: (height, width) of the image.

        Returns:
            uint8 H x W, indices of `label_set`; 255 is ignored.

        Raises:
            DatasetError: the file is of another size, or holds what is no class.
            ImageError: it cannot be decoded.
        """
        path = self.files[image][0]
        labels = self.read_labels(path)
        _require_size(path, labels, image, size)
        highest = int(labels[labels != IGNORE].max(initial=0))
        if highest >= len(self.label_set):
            raise DatasetError(
                f"{path} holds the label {highest}; {self.label_set.name} has "
                f"{len(self.label_set)} classes"
            )
        return labels

    def confidence(self, image: Path, size: tuple[int, ...]) -> UInt8:
        """How sure it is of each label for an image.

        Args:
            image: the image's file.
            size: (height, width) of the image.

        Returns:
            uint8 H x W, 0 (a guess) to 255 (sure).

        Raises:
            DatasetError: the file is of another size, or is not grey of 8 bits.
            ImageError: it cannot be decoded.
        """
        path = self.files[image][1]
        file = ImageFile(path)
        if file.header.depth != 8 or file.header.colours != "grey":
            kinds = {
                "palette": "has a palette",
                "grey": f"has {file.header.depth} bits for each pixel",
            }
            kind = kinds.get(file.header.colours, "is in colours")
            raise DatasetError(
                f"the confidence {path} {kind}; expected grey of 8 bits, 0 to 255: convert it"
            )
        confidence = file.indices()
        _require_size(path, confidence, image, size)
        return confidence


def least_level(share: float) -> int:
    """The least value of a confidence file, 0 to 255, that reaches a share of 255, 0 to 1."""
    return math.ceil(255 * share - 1e-9)


def _require_size(path: Path, values: UInt8, image: Path, size: tuple[int, ...]) -> None:
    if values.shape != tuple(size):
        own, other = ("x".join(map(str, each)) for each in (values.shape, size))
        raise DatasetError(f"{path} is {own}, its image {image.name} is {other}")
