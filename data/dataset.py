"""What a data set is: labelled images, decoded when they are asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os.path import isdir, isfile
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.groups import GroupOf, asked, finds, folder
from icnet_deploy.data.mapping import ClassMap
from icnet_deploy.data.teacher import Teacher
from icnet_deploy.errors import DatasetError, ImageError
from icnet_deploy.files import real_path
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile
from icnet_deploy.labels import IGNORE, LabelSet

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        name: the image's name, unique in its data set.
        image: uint8 H x W x 3, RGB, 0..255.
        labels: uint8 H x W, indices of the data set's label set; 255 is ignored.
        other: the same image with EXIF's orientation treated the other way, where it has one.
        group: what the image belongs to, a drive or a patient; empty: it stands alone.
        weights: uint8 H x W, how much each label counts in training, 255 in full; None: all do.
    """

    name: str
    image: UInt8
    labels: UInt8
    other: UInt8 | None = None
    group: str = ""
    weights: UInt8 | None = None

    def content_hashes(self) -> tuple[str, ...]:
        """The content hash of the image, and of the same image turned otherwise by EXIF."""
        images = (self.image,) if self.other is None else (self.image, self.other)
        return tuple(content_hash(image) for image in images)


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """A list of labelled images that are decoded when asked for.

    Attributes:
        name: `cityscapes`, `camvid`, ...
        split: `train`, `val`, ...
        label_set: the classes that `Sample.labels` speaks of.
        files: (image file, label file) pairs, by the numbers in their names; see `by_numbers`.
        read_labels: decodes a label file into indices of `label_set`, with 255 for ignored.
        exif: of images that have an EXIF orientation: "apply" if masks were drawn on the turned
            picture, "ignore" if on the stored pixels; None if that is not known.
        root: the folder that it was read from, if it was.
        group_of: how its reader tells the group of an image.
        group_by: a regular expression that the user gave for it instead; see `groups.asked`.
        grouping: by what rule images belong together, in words.
        named_below: a folder; a sample is called by its path below it, without the suffix. None: by
            its file's name, without the suffix.
        class_map: how a network's classes answer for those of `label_set`; None: by their names,
            or as `mapping` knows.
        teacher: what a network says of the images, where it labelled them. Its labels are those of
            the samples, or `label_set` and `class_map` are a person's; see `Teacher.person`.
        labelled: whether anything is known of what the images show.
    """

    labelled: ClassVar[bool] = True

    name: str
    split: str
    label_set: LabelSet
    files: tuple[tuple[Path, Path], ...]
    read_labels: Callable[[Path], UInt8]
    exif: str | None = field(default=None, kw_only=True)
    root: Path | None = field(default=None, kw_only=True)
    group_of: GroupOf = field(default=folder, kw_only=True)
    group_by: str | None = field(default=None, kw_only=True)
    grouping: str = field(default="as the layout tells them", kw_only=True)
    named_below: Path | None = field(default=None, kw_only=True)
    class_map: ClassMap | None = field(default=None, kw_only=True)
    teacher: Teacher | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def called(self) -> str:
        """What it is called where several are named: one of the user's own, by its folder."""
        own = self.named_below is not None and self.root is not None
        return real_path(self.root).name if own and self.root else self.name

    @property
    def own_classes(self) -> LabelSet:
        """The classes that a network is trained for: a teacher's, where there is one."""
        return self.label_set if self.teacher is None else self.teacher.label_set

    @property
    def turn(self) -> bool:
        """Whether images are turned as EXIF says, as unlabelled ones are."""
        return self.exif != "ignore"

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Decodes one sample.

        Raises:
            DatasetError: the label file is missing, not a label map, or of another size; or the
                image has an EXIF orientation of which `exif` says nothing.
            ImageError: the image cannot be decoded.
        """
        image_file, label_file = self.files[index]
        opened = open_image(image_file, self.exif)
        self._require_size(opened, label_file)
        image = opened.rgb(self.turn)
        try:
            labels = self.read_labels(label_file)
        except ImageError as error:
            raise DatasetError(f"labels of {image_file.name}: {error}") from error
        _require_label_map(labels, label_file)
        if labels.shape != image.shape[:2]:
            raise self._other_size(opened, label_file, labels.shape)
        highest = int(labels[labels != IGNORE].max(initial=0))
        if highest >= len(self.label_set):
            raise DatasetError(
                f"{label_file} holds the label {highest}; {self.label_set.name} has "
                f"{len(self.label_set)} classes"
            )
        other = opened.rgb(not self.turn) if opened.orientation != 1 else None
        return Sample(self.name_of(image_file), image, labels, other, self.group(image_file))

    def name_of(self, image: Path) -> str:
        """What the sample of one of the image files is called."""
        if self.named_below is not None and image.is_relative_to(self.named_below):
            return image.relative_to(self.named_below).with_suffix("").as_posix()
        return image.stem.removesuffix("_leftImg8bit")

    def groups(self) -> tuple[str, ...]:
        """The group of each image, in their order: a drive, a patient, a scene. Decodes nothing.

        Raises:
            InputError: `group_by` is no regular expression, or finds nothing in a file's name.
        """
        return tuple(self.group(image) for image, _ in self.files)

    def group(self, image: Path) -> str:
        """The group of one of the image files; raises as `groups`."""
        return (self.group_of if self.group_by is None else asked(self.group_by))(self.below(image))

    def below(self, image: Path) -> PurePosixPath:
        """The path of an image file below the data set's folder."""
        if self.root is not None and image.is_relative_to(self.root):
            return PurePosixPath(*image.relative_to(self.root).parts)
        return PurePosixPath(image.parent.name, image.name)

    def _require_size(self, image: ImageFile, label_file: Path) -> None:
        """Compares sizes before a pixel is decoded."""
        try:
            size = ImageFile(label_file).size()
        except ImageError:
            return  # its reader says what is wrong, or reads what is no image
        if size != image.size(self.turn):
            raise self._other_size(image, label_file, size)

    def _other_size(
        self, image: ImageFile, label_file: Path, size: tuple[int, ...]
    ) -> DatasetError:
        own, hint = image.size(self.turn), ""
        if size == image.size(not self.turn):
            other = "ignore" if self.turn else "apply"
            hint = f" as --exif {self.exif} reads it: give --exif {other}, which fits its mask"
        return DatasetError(
            f"{label_file} is {_size(size)}, its image {image.path.name} is {_size(own)}{hint}"
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def first(self, count: int | None) -> Dataset:
        """The same data set cut to `count` images spread evenly over it (None: all of them)."""
        if count is None or count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return replace(self, files=tuple(self.files[i] for i in chosen))


def parted(dataset: Dataset, pattern: str, source: str) -> tuple[Dataset, Dataset]:
    """A data set without some of its images, and of these alone; the split of both says so.

    Args:
        dataset: of files.
        pattern: a regular expression that finds something in the names of these images, or with a
            `/` in their paths below the data set's folder.
        source: where it stands, for the messages.

    Raises:
        InputError: it is no regular expression.
    """
    finds_in = finds(pattern, source)
    found = [finds_in(dataset.below(image)) for image, _ in dataset.files]
    rest, those = (
        replace(
            dataset,
            files=tuple(p for p, one in zip(dataset.files, found, strict=True) if one == wanted),
            split=f"{dataset.split} {word} {pattern}",
        )
        for word, wanted in (("without", False), ("of", True))
    )
    return rest, those


def open_image(path: Path, exif: str | None) -> ImageFile:
    """Opens an image that has a mask, without decoding it.

    Args:
        path: the image.
        exif: how masks were drawn; see `Dataset.exif`.

    Raises:
        DatasetError: the image has an EXIF orientation, and `exif` is None.
        ImageError: it is not an image.
    """
    image = ImageFile(path)
    if image.orientation != 1 and exif is None:
        raise DatasetError(
            f"{path} has the EXIF orientation {image.orientation}, and nothing says how its mask "
            "was drawn: give --exif apply (on the turned image) or --exif ignore (on the pixels as "
            "they are stored)"
        )
    return image


def content_hash(image: UInt8) -> str:
    """SHA-256 of an image's size and pixels, whatever file or format it came from.

    Args:
        image: uint8 H x W x 3, RGB.
    """
    header = f"{image.shape[0]}x{image.shape[1]}:".encode()
    return hashlib.sha256(header + np.ascontiguousarray(image).tobytes()).hexdigest()


def content_hashes(image: ImageFile) -> tuple[str, ...]:
    """The content hash of an image as it is shown and, where EXIF turns it, as it is stored.

    Raises:
        ImageError: it cannot be decoded.
    """
    ways = (True,) if image.orientation == 1 else (True, False)
    return tuple(content_hash(image.rgb(turn)) for turn in ways)


class Incomplete(DatasetError):
    """A folder in which images, labels or both are missing.

    Args:
        message: the first of them, and how many there are.
        problems: each of them, in words.
        rest: the data set of what is whole.
    """

    def __init__(self, message: str, problems: Sequence[str], rest: Dataset) -> None:
        super().__init__(message)
        self.problems, self.rest = tuple(problems), rest


def listed(
    name: str,
    root: Path,
    split: str,
    label_set: LabelSet,
    files: list[tuple[Path, Path]],
    read_labels: Callable[[Path], UInt8],
    layout: str,
    group_of: GroupOf = folder,
    *,
    grouping: str | None = None,
    named_below: Path | None = None,
    problems: Sequence[str] = (),
) -> Dataset:
    """The data set of files that a reader has found.

    Args:
        name: what the data set is called.
        root: its folder.
        split: of it.
        label_set: the classes that `read_labels` gives.
        files: (image file, label file) pairs.
        read_labels: see `Dataset.read_labels`.
        layout: what should be in the folder, in words.
        group_of: see `Dataset.group_of`; without it the images of a folder are one group.
        grouping, named_below: see `Dataset`.
        problems: what is wrong with other files, in words, each with the file's path.

    Raises:
        DatasetError: there is no file.
        Incomplete: a label file is missing, or there are problems.
    """
    if not files and not problems:
        raise DatasetError(
            f"{root} holds no {name} images of the split {split!r}; expected {layout}"
        )
    in_order = sorted(files, key=lambda pair: by_numbers(pair[0]))
    without = [(image, label) for image, label in in_order if not isfile(label)]
    absent = set(without)
    dataset = Dataset(
        name,
        split,
        label_set,
        tuple(pair for pair in in_order if pair not in absent),
        read_labels,
        root=root,
        group_of=group_of,
        grouping=grouping or Dataset.grouping,
        named_below=named_below,
    )
    every = [*problems, *(f"{image} has no labels: {label} is missing" for image, label in without)]
    if without:
        raise Incomplete(
            f"{len(without)} of {len(files)} {name} images have no labels; first: {without[0][1]}",
            every,
            dataset,
        )
    if every:
        more = f" (and {len(every) - 1} other problems)" if len(every) > 1 else ""
        raise Incomplete(f"{every[0]}{more}", every, dataset)
    return dataset


def by_numbers(path: Path) -> list[str | int]:
    """Puts frame2 before frame10: the images of a drive follow each other in time."""
    text = path.as_posix()
    parts = re.split(r"(\d+)", text)
    return [*(int(part) if index % 2 else part for index, part in enumerate(parts)), text]


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, by name; none where there is no folder."""
    if not isdir(folder):
        return []
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and isfile(p)
    )


def _require_label_map(labels: object, label_file: Path) -> None:
    """Refuses what a reader of the user's own may return in place of a label map."""
    if isinstance(labels, np.ndarray) and labels.dtype == np.uint8 and labels.ndim == 2:
        return
    got = type(labels).__name__
    if isinstance(labels, np.ndarray):
        got = f"{labels.dtype} {_size(labels.shape)}"
    raise DatasetError(
        f"the labels of {label_file} are read as {got}; expected uint8, height x width"
    )


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
