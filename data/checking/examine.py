"""What is in a data set and what is wrong with it: every image and label file is read once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnet_deploy.command import error_words
from icnet_deploy.data.dataset import Dataset, Sample
from icnet_deploy.data.own.label_files import LabelReader, palette_slip
from icnet_deploy.data.teacher import Teacher, least_level
from icnet_deploy.errors import IcnetError
from icnet_deploy.labels import IGNORE

Size = tuple[int, int]

_SHOWN = 5  # files to look at, of a kind
_SURE = (0.25, 0.5, 0.75, 0.9)  # confidences of which the shares are told
_MUCH = 0.1  # a share of ignored pixels from which on a file is worth a look


class File(NamedTuple):
    """What one image and its labels show.

    Attributes:
        name: the sample's.
        size: (height, width) in pixels.
        pixels: of each class, int64, C.
        ignored: how many pixels are not counted.
        group: the image's.
        hashes: of what it shows; see `Sample.content_hashes`.
    """

    name: str
    size: Size
    pixels: npt.NDArray[np.int64]
    ignored: int
    group: str
    hashes: tuple[str, ...]

    @property
    def ignored_share(self) -> float:
        """The share of its pixels that are not counted, 0..1."""
        return self.ignored / max(1, self.size[0] * self.size[1])


@dataclass
class Part:
    """A split, as far as it was read.

    Attributes:
        split: its name.
        classes: the names of its classes.
        grouping: by what rule images belong together, in words.
        files: what could be read.
        problems: what is wrong, a sentence each.
        notes: what is not wrong, and worth to know.
    """

    split: str
    classes: tuple[str, ...]
    grouping: str = Dataset.grouping
    files: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sizes(self) -> list[tuple[Size, int]]:
        """Each size, and how many images have it; the most frequent first."""
        return Counter(file.size for file in self.files).most_common()

    def groups(self) -> int:
        """How many groups the images are of."""
        return len({file.group for file in self.files})

    def pixels(self) -> npt.NDArray[np.int64]:
        """Of each class, int64, C."""
        zero = np.zeros(len(self.classes), np.int64)
        return np.asarray(sum((file.pixels for file in self.files), zero))

    def shares(self) -> npt.NDArray[np.float64]:
        """Of each class, of all pixels that count, 0..1, float64, C."""
        pixels = self.pixels()
        return np.asarray(pixels / max(1, int(pixels.sum())))

    def images(self) -> npt.NDArray[np.int64]:
        """How many images show each class, int64, C."""
        zero = np.zeros(len(self.classes), np.int64)
        return np.asarray(sum((file.pixels > 0 for file in self.files), zero))

    def ignored_share(self) -> float:
        """The share of all pixels that are not counted, 0..1."""
        every = sum(file.size[0] * file.size[1] for file in self.files)
        return sum(file.ignored for file in self.files) / max(1, every)

    def worst(self) -> dict[str, list[tuple[str, str]]]:
        """What is worth a look: why -> (name, what it has), and the last entry says of how many."""
        ignored = sorted(
            (file for file in self.files if file.ignored_share >= _MUCH),
            key=lambda file: -file.ignored_share,
        )
        single = [file for file in self.files if np.count_nonzero(file.pixels) == 1]
        usual = self.sizes()[0][0] if self.files else (0, 0)
        other = [file for file in self.files if file.size != usual]
        kinds = {
            "most ignored": [(f.name, f"{100 * f.ignored_share:.1f} % ignored") for f in ignored],
            "one class only": [
                (f.name, self.classes[int(np.flatnonzero(f.pixels)[0])]) for f in single
            ],
            f"not {size_words(usual)}": [(f.name, size_words(f.size)) for f in other],
        }
        return {
            why: [
                *every[:_SHOWN],
                *([("...", f"{len(every) - _SHOWN} more")] if len(every) > _SHOWN else []),
            ]
            for why, every in kinds.items()
            if every
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        rows = zip(self.classes, self.pixels(), self.shares(), self.images(), strict=True)
        return {
            "images": len(self.files),
            "sizes": {size_words(size): count for size, count in self.sizes()},
            "groups": self.groups(),
            "grouping": self.grouping,
            "ignored_percent": round(100 * self.ignored_share(), 6),
            "classes": {
                name: {
                    "pixels": int(pixels),
                    "percent": round(100 * float(share), 6),
                    "images": int(images),
                }
                for name, pixels, share, images in rows
            },
            "look_at": {
                why: [{"name": name, "what": what} for name, what in each]
                for why, each in self.worst().items()
            },
            "problems": self.problems,
            "notes": self.notes,
        }


def size_words(size: Size) -> str:
    """HEIGHTxWIDTH."""
    return f"{size[0]}x{size[1]}"


def read_part(part: Part, dataset: Dataset, read_one: Callable[[], object]) -> None:
    """Reads every image of a split with its labels.

    Args:
        part: takes what is found.
        dataset: the split.
        read_one: is called after each image.
    """
    sure = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            counts = np.bincount(sample.labels.ravel(), minlength=256)
            if dataset.teacher is not None:
                sure += _of_teacher(dataset.teacher, dataset.files[index][0], sample)
            part.files.append(
                File(
                    sample.name,
                    (sample.labels.shape[0], sample.labels.shape[1]),
                    counts[: len(part.classes)].astype(np.int64),
                    int(counts[IGNORE]),
                    sample.group or sample.name,
                    sample.content_hashes(),
                )
            )
        except IcnetError as error:
            part.problems.append(str(error))
        except Exception as error:  # of the user's own code
            part.problems.append(f"image {index} of {part.split} fails: {error_words(error)}")
        read_one()
    part.notes += _palette_slips(dataset)
    if dataset.teacher is not None:
        part.notes.append(f"{dataset.teacher.note(part.split)}{_sure_words(sure)}")
    missing = [name for name, n in zip(part.classes, part.images(), strict=True) if not n]
    if part.files and missing:
        part.notes.append(f"{part.split} has no pixel of {', '.join(missing)}")
    if missing and missing == list(part.classes[1:]) and part.ignored_share():
        part.notes.append(
            f"{part.split} shows only {part.classes[0]}, and all other pixels are ignored: if the "
            "masks are black and white, write the second class as 1, as 255 is always ignored"
        )


def _of_teacher(teacher: Teacher, image: Path, sample: Sample) -> npt.NDArray[np.int64]:
    """How many pixels have each confidence, int64, 256; raises as `Teacher.labels`."""
    size = sample.labels.shape
    if teacher.person:
        teacher.labels(image, size)
    counts = np.bincount(teacher.confidence(image, size).ravel(), minlength=256)
    return counts.astype(np.int64)


def _sure_words(sure: npt.NDArray[np.int64]) -> str:
    """The shares of the pixels that have a confidence of so much or more."""
    if not sure.sum():
        return ""
    shares = {share: sure[least_level(share) :].sum() / sure.sum() for share in _SURE}
    words = (
        f"{100 * float(part):.1f} % of the pixels from {share:g}" for share, part in shares.items()
    )
    return f". Its confidence: {', '.join(words)}"


def _palette_slips(dataset: Dataset) -> Iterator[str]:
    """Looks at a few label files: what is strange about one is so about all."""
    reader = dataset.read_labels
    if not isinstance(reader, LabelReader):
        return
    for _, path in dataset.first(_SHOWN).files:
        with suppress(IcnetError):
            if slip := palette_slip(path, reader.classes):
                yield slip


def tell_twins(parts: Sequence[Part]) -> None:
    """Tells each split which images it shares with another, or has twice."""
    seen: dict[str, dict[str, tuple[Part, str]]] = defaultdict(dict)
    for part in parts:
        for file in part.files:
            others = {key: one for digest in file.hashes for key, one in seen[digest].items()}
            for before, name in others.values():
                here, there = f"{part.split}/{file.name}", f"{before.split}/{name}"
                if before is part:
                    part.notes.append(f"{here} shows the same as {there}")
                else:
                    part.problems.append(
                        f"{here} shows the same as {there}: a network trained on one of these "
                        "splits scores too well on the other"
                    )
            for digest in file.hashes:
                seen[digest].setdefault(part.split, (part, file.name))


@dataclass
class Check:
    """What was found of a data set.

    Attributes:
        dataset: the name of its layout.
        data: its folder.
        label_set: the name of its classes.
        parts: its splits.
    """

    dataset: str
    data: str
    label_set: str
    parts: list[Part]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes; splits that a person labelled may have others."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.classes))

    def problems(self) -> list[str]:
        """All that is wrong."""
        return list(self._each("problems"))

    def notes(self) -> list[str]:
        """What is not wrong, and worth to know."""
        return list(self._each("notes"))

    def _each(self, kind: str) -> Iterator[str]:
        return (text for part in self.parts for text in getattr(part, kind))

    def to_dict(self) -> Mapping[str, Any]:
        """The JSON form."""
        return {
            "schema": 1,
            "kind": "dataset-check",
            "dataset": self.dataset,
            "data": self.data,
            "label_set": self.label_set,
            "splits": {part.split: part.to_dict() for part in self.parts},
            "problems": self.problems(),
        }
