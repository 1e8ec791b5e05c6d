"""The files of a split of a folder: which image, label and confidence files belong together."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from os.path import exists, isdir, isfile
from pathlib import Path

from icnet_deploy.data.own.classes import PERSON
from icnet_deploy.errors import InputError
from icnet_deploy.files import find_files
from icnet_deploy.images import IMAGE_SUFFIXES

KINDS = ("images", "labels", "confidence", "person")
"""The folders of a data set's folder in which each split has a folder of its own."""


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split.

    Attributes:
        files: (image file, label file) pairs; the label file may not be there. Where a person drew
            labels beside a teacher's, it is the person's.
        problems: what is wrong with others: two of one name, a link that leads nowhere, no labels
            or confidence of a teacher.
        unpaired: label and confidence files that belong to no image.
        left_out: files of which the suffix is no image's, and folders that were not searched.
        taught: where a teacher labelled the images, of each its label and its confidence file.
        person: whether a person drew labels beside a teacher's.
    """

    files: tuple[tuple[Path, Path], ...]
    problems: tuple[str, ...]
    unpaired: tuple[Path, ...]
    left_out: tuple[Path, ...]
    taught: dict[Path, tuple[Path, Path]] = field(default_factory=dict)
    person: bool = False

    @classmethod
    def of(cls, root: Path, split: str) -> SplitFiles:
        """Searches the folders of `KINDS` for a split.

        Raises:
            InputError: a person's labels are there without a teacher's confidence, or `person.json`
                without those; or a folder cannot be read.
        """
        found = {kind: _Files.of(root / kind / split) for kind in KINDS}
        images, labels, confidence, person = (found[kind] for kind in KINDS)
        _require_whole(root, split, confidence, person)
        files, taught, problems = [], {}, []
        for key, image in images.by_key.items():
            label = labels.get(key)
            if confidence.there:
                taught[image] = label, confidence.get(key)
                if missing := [*_missing(image, taught[image], person.there)]:
                    problems += missing
                    continue
            files.append((image, person.get(key) if person.there else label))
        every = list(found.values())
        return cls(
            tuple(files),
            (*(text for each in every for text in each.problems), *problems),
            tuple(
                file
                for each in every
                for key, file in each.by_key.items()
                if key not in images.by_key
            ),
            tuple(path for each in every for path in each.left_out),
            taught,
            person.there,
        )


def _missing(image: Path, taught: tuple[Path, Path], person: bool) -> Iterator[str]:
    """What a teacher did not say of an image; where there is no person, its labels are `files`'."""
    label, confidence = taught
    if person and not isfile(label):
        yield f"{image} has no labels of the teacher: {label} is missing"
    if not isfile(confidence):
        yield f"{image} has no confidence: {confidence} is missing"


def _require_whole(root: Path, split: str, confidence: _Files, person: _Files) -> None:
    if person.there and not confidence.there:
        raise InputError(
            f"there is {person.folder}, but no {confidence.folder}: person/ is for images that a "
            "teacher also labelled, with a confidence; without a teacher, put the labels of the "
            f"person into {root / 'labels' / split}"
        )
    if isfile(root / PERSON) and not isdir(root / "person"):
        raise InputError(
            f"there is {root / PERSON}, but no {root / 'person'} with the labels that it "
            f"describes: put them into {person.folder}, or remove the file"
        )


@dataclass(frozen=True)
class _Files:
    """The image files below a folder, by their paths without suffix; none where it is not there.

    A name that one system writes with a letter and its accent, and another as one sign, is one.
    """

    folder: Path
    by_key: dict[str, Path]
    problems: tuple[str, ...] = ()
    left_out: tuple[Path, ...] = ()
    there: bool = False

    @classmethod
    def of(cls, folder: Path) -> _Files:
        by_key: dict[str, Path] = {}
        if not isdir(folder):
            return cls(folder, by_key)
        found = find_files(folder, IMAGE_SUFFIXES)
        problems = []
        for file in found.files:
            name = file.relative_to(folder).with_suffix("").as_posix()
            first = by_key.setdefault(unicodedata.normalize("NFC", name), file)
            if first != file:
                problems.append(f"{file} and {first.name} have the same name: give each its own")
        broken = [file for file in found.left_out if file.is_symlink() and not exists(file)]
        problems += [f"{file} is a link to a file that is not there" for file in broken]
        others = (file for file in found.left_out if file not in broken)
        return cls(folder, by_key, tuple(problems), tuple(others), True)

    def get(self, key: str) -> Path:
        """The file of an image; the one that is expected, if it is not there."""
        return self.by_key.get(key) or self.folder / f"{key}.png"
