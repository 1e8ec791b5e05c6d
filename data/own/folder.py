"""A folder of one's own: `images/SPLIT/**` and `labels/SPLIT/**`, and its `classes.json`."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from icnet_deploy.data.dataset import Dataset, listed
from icnet_deploy.data.groups import alone, asked
from icnet_deploy.data.own.classes import FILE, classes_of
from icnet_deploy.data.own.label_files import LabelReader
from icnet_deploy.files import find_files
from icnet_deploy.images import IMAGE_SUFFIXES
from icnet_deploy.labels import LabelSet

NAME = "folder"
"""What the layout is called on the command line."""

BY_ITSELF = "each image by itself"
"""How images are grouped where nothing says which belong together."""

_LAYOUT = (
    "images/SPLIT/ and labels/SPLIT/, in which an image and its labels have the same path but for "
    "the suffix"
)


def read(
    root: Path,
    split: str,
    label_set: LabelSet | str | Path | None = None,
    label_values: str | None = None,
) -> Dataset:
    """Reads `images/SPLIT/**` and `labels/SPLIT/**`: the same path, suffixes may differ.

    Labels are read as `LabelReader` says. Each image is a group of its own, if `classes.json` has
    no `group_by`.

    Args:
        root: the folder.
        split: `train`, `val`, ...
        label_set, label_values: see `classes_of`.

    Raises:
        DatasetError: there is no image of that split; or nothing says which classes it has.
        Incomplete: an image or its labels are missing, or are there twice.
        LabelSetError: what is said of its classes contradicts itself.
        InputError: a folder cannot be read, or `group_by` is no regular expression.
    """
    classes = classes_of(root, label_set, label_values)
    pairs = Pairs.of(root, split)
    there, by = splits(root), classes.group_by
    others = f"; it has the split{'s' * (len(there) > 1)} {', '.join(there)}" if there else ""
    return listed(
        NAME,
        root,
        split,
        classes.label_set,
        list(pairs.files),
        LabelReader(classes),
        f"{_LAYOUT}{others}",
        alone if by is None else asked(by, f"the group_by of {FILE},"),
        grouping=BY_ITSELF if by is None else by_pattern(by),
        named_below=root / "images" / split,
        problems=pairs.problems,
    )


def by_pattern(pattern: str) -> str:
    """How images are grouped by a regular expression, in words."""
    return f"by what {pattern} finds in their names"


def splits(root: Path) -> list[str]:
    """The splits that a folder has images of, by name."""
    folder = root / "images"
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


@dataclass(frozen=True)
class Pairs:
    """The files of a split.

    Attributes:
        files: (image file, label file) pairs; the label file may not be there.
        problems: what is wrong with others: two of one name, a link that leads nowhere.
        unpaired: label files that belong to no image.
        left_out: files of which the suffix is no image's, and folders that were not searched.
    """

    files: tuple[tuple[Path, Path], ...]
    problems: tuple[str, ...]
    unpaired: tuple[Path, ...]
    left_out: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path, split: str) -> Pairs:
        """Searches `images/SPLIT` and `labels/SPLIT` of a folder; raises InputError."""
        images, labels = _Files.of(root / "images" / split), _Files.of(root / "labels" / split)
        return cls(
            tuple(
                (image, labels.by_key.get(key) or labels.folder / f"{key}.png")
                for key, image in images.by_key.items()
            ),
            (*images.problems, *labels.problems),
            tuple(file for key, file in labels.by_key.items() if key not in images.by_key),
            (*images.left_out, *labels.left_out),
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

    @classmethod
    def of(cls, folder: Path) -> _Files:
        by_key: dict[str, Path] = {}
        if not folder.is_dir():
            return cls(folder, by_key)
        found = find_files(folder, IMAGE_SUFFIXES)
        problems = []
        for file in found.files:
            name = file.relative_to(folder).with_suffix("").as_posix()
            first = by_key.setdefault(unicodedata.normalize("NFC", name), file)
            if first != file:
                problems.append(f"{file} has the name of {first.name}: give each its own")
        broken = [file for file in found.left_out if file.is_symlink() and not file.exists()]
        problems += [f"{file} is a link to a file that is not there" for file in broken]
        others = (file for file in found.left_out if file not in broken)
        return cls(folder, by_key, tuple(problems), tuple(others))
