"""A folder of one's own: `images/SPLIT/**` and `labels/SPLIT/**`, and its `classes.json`."""

from dataclasses import replace
from os.path import isdir
from pathlib import Path

from icnet_deploy.data.dataset import Dataset, Incomplete, listed
from icnet_deploy.data.groups import alone, asked
from icnet_deploy.data.own.classes import FILE, Classes, classes_of, person_of
from icnet_deploy.data.own.label_files import LabelReader
from icnet_deploy.data.own.split_files import SplitFiles
from icnet_deploy.data.teacher import Teacher
from icnet_deploy.labels import LabelSet

NAME = "folder"
"""What the layout is called on the command line."""

BY_ITSELF = "each image by itself"
"""How images are grouped where nothing says which belong together."""

_TAUGHT = f"{NAME}, labels of a network"
"""What a data set is called, in a score's protocol, too, whose labels are a teacher's."""

_LAYOUT = (
    "images/SPLIT/ and labels/SPLIT/, in which an image and its labels have the same path except "
    "for the suffix"
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

    Where there is `confidence/SPLIT/**`, the labels are a teacher's (`Dataset.teacher`). Where
    there is `person/SPLIT/**` besides, the samples' labels are the person's, in the classes of
    `person.json`.

    Args:
        root: the folder.
        split: `train`, `val`, ...
        label_set, label_values: see `classes_of`.

    Raises:
        DatasetError: there is no image of that split; or nothing says which classes it has, or
            those of a person's labels.
        Incomplete: an image, its labels or its confidence are missing, or are there twice.
        LabelSetError: what is said of its classes contradicts itself.
        InputError: a folder cannot be read, or `group_by` is no regular expression; a person's
            labels are there without a teacher's confidence, or `person.json` without those.
    """
    classes = classes_of(root, label_set, label_values)
    found = SplitFiles.of(root, split)
    shown, class_map = person_of(root, classes) if found.person else (classes, None)
    there, by = splits(root), classes.group_by
    others = f"; it has the split{'s' * (len(there) > 1)} {', '.join(there)}" if there else ""
    try:
        dataset = listed(
            NAME,
            root,
            split,
            shown.label_set,
            list(found.files),
            LabelReader(shown),
            f"{_LAYOUT}{others}",
            alone if by is None else asked(by, f"the group_by of {FILE},"),
            grouping=BY_ITSELF if by is None else by_pattern(by),
            named_below=root / "images" / split,
            problems=found.problems,
        )
    except Incomplete as error:
        error.rest = _taught(replace(error.rest, class_map=class_map), found, classes)
        raise
    return _taught(replace(dataset, class_map=class_map), found, classes)


def _taught(dataset: Dataset, found: SplitFiles, classes: Classes) -> Dataset:
    """The data set with its teacher, if it has one."""
    if not found.taught:
        return dataset
    teacher = Teacher(classes.label_set, found.taught, LabelReader(classes), found.person)
    name = dataset.name if found.person else _TAUGHT
    return replace(dataset, teacher=teacher, name=name)


def by_pattern(pattern: str) -> str:
    """How images are grouped by a regular expression, in words."""
    return f"by what {pattern} finds in their names"


def splits(root: Path) -> list[str]:
    """The splits that a folder has images of, by name."""
    folder = root / "images"
    if not isdir(folder):
        return []
    return sorted(p.name for p in folder.iterdir() if isdir(p) and not p.name.startswith("."))
