"""The data sets by name: a reader each, which is all that a new one needs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from os.path import exists, isdir
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import camvid, cityscapes, voc
from icnet_deploy.data.dataset import Dataset, Incomplete
from icnet_deploy.data.groups import alone
from icnet_deploy.data.mapping import ClassMap, load_class_map
from icnet_deploy.data.own import folder
from icnet_deploy.data.own.classes import LABEL_VALUES
from icnet_deploy.data.own.opener import open_own
from icnet_deploy.data.teacher import Teacher
from icnet_deploy.errors import DatasetError, LabelSetError
from icnet_deploy.files import why_no_folder
from icnet_deploy.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]

DATASETS: dict[str, Callable[[Path, str], Dataset]] = {
    "cityscapes": partial(cityscapes.read, "cityscapes"),
    "camvid": camvid.read,
    "scenes": partial(cityscapes.read, "scenes", group_of=alone),
    voc.NAME: voc.read,
    folder.NAME: folder.read,
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
    *,
    label_set: LabelSet | str | Path | None = None,
    label_values: str | None = None,
    class_map: str | Path | None = None,
) -> Dataset:
    """Opens a data set by its name.

    Args:
        name: one of `DATASETS`, or `PACKAGE.MODULE:OPENER`, a function of one's own that takes
            (root, split) and returns a `Dataset`; `scenes` is what `icnet scenes` draws.
        root: its folder.
        split: `train`, `val` or `test`.
        exif: what to make of images with an EXIF orientation; see `Dataset.exif`.
        group_by: which images belong together, where the reader's own rule is not wanted; see
            `Dataset.group_by`.
        label_set: the classes of a `folder` that has no `classes.json`: a label set, the name of
            one, or a file. The other layouts know theirs.
        label_values: `indices` or `ids`: what the label files of a `folder` hold.
        class_map: a file that says which classes stand for which; see `load_class_map`. Labels of
            its `from` are read as those of its `to`.

    Raises:
        DatasetError: the name is unknown, or the folder holds no labelled images of that split.
        InputError: `group_by` is no regular expression, or finds nothing in a file's name; or a
            function of one's own fails.
        LabelSetError: the data set's classes are neither of those of the class map; what is said
            of a folder's classes contradicts itself.
    """
    root = Path(root)
    if Path(split).is_absolute() or ".." in Path(split).parts:
        raise DatasetError(
            f"the split {split!r} is outside of {root}: give the name of one, e.g. val"
        )
    if exif not in (None, *EXIF):
        raise DatasetError(f"exif is {' or '.join(EXIF)}; got {exif!r}")
    if label_values not in (None, *LABEL_VALUES):
        raise DatasetError(f"label values are {' or '.join(LABEL_VALUES)}; got {label_values!r}")
    if label_values is not None and name != folder.NAME:
        raise DatasetError(
            f"--label-values {label_values} is for --dataset {folder.NAME}; the label files of "
            f"{name} are known: leave it out"
        )
    known = None if class_map is None else load_class_map(Path(class_map))
    try:
        dataset = _read(name, root, split, label_set, label_values)
    except Incomplete as error:
        error.rest = _as_asked(error.rest, exif, group_by, known)
        raise
    except OSError as error:  # a path of it that is too long, or a folder that nobody may read
        why = error.strerror or error
        raise DatasetError(f"cannot read the split {split!r} of {root}: {why}") from error
    dataset = _as_asked(dataset, exif, group_by, known)
    dataset.groups()  # a pattern that does not fit is found now, not after the first model ran
    return dataset


def _as_asked(
    dataset: Dataset, exif: str | None, group_by: str | None, class_map: ClassMap | None
) -> Dataset:
    """The data set of a reader, with what the user says of it."""
    if exif is not None:
        dataset = replace(dataset, exif=exif)
    if group_by is not None:
        dataset = replace(dataset, group_by=group_by, grouping=folder.by_pattern(group_by))
    return dataset if class_map is None else _mapped(dataset, class_map)


def _read(
    name: str,
    root: Path,
    split: str,
    label_set: LabelSet | str | Path | None,
    label_values: str | None,
) -> Dataset:
    own = ":" in name
    if name not in DATASETS and not own:
        raise DatasetError(
            f"unknown data set {name!r}; known: {', '.join(DATASETS)}, and PACKAGE.MODULE:OPENER "
            "for code of your own"
        )
    if not (exists(root) if own else isdir(root)):
        raise DatasetError(f"the data set's folder {root} {why_no_folder(root)}")
    if own:
        return open_own(name, root, split)
    if name == folder.NAME:
        return folder.read(root, split, label_set, label_values)
    return DATASETS[name](root, split)


@dataclass(frozen=True)
class _MappedLabels:
    """Reads labels in the classes of a class map's `to`."""

    read_labels: Callable[[Path], UInt8]
    class_map: ClassMap

    def __call__(self, path: Path) -> UInt8:
        return np.asarray(self.class_map.table()[self.read_labels(path)])


def _mapped(dataset: Dataset, class_map: ClassMap) -> Dataset:
    """The data set with labels of the class map's `to`, and networks of its `from` mapped."""
    source, target = class_map.source, class_map.target
    if dataset.teacher is not None and dataset.teacher.person:
        return _mapped_beside_person(dataset, dataset.teacher, class_map)
    if dataset.label_set.names not in (source.names, target.names):
        raise LabelSetError(
            f"the class map is from {source.name!r} to {target.name!r}; {dataset.name}'s classes, "
            f"{', '.join(dataset.label_set.names)}, are those of neither: give another class map"
        )
    teacher = dataset.teacher
    if dataset.label_set.names != source.names:
        if teacher is not None:
            teacher = replace(teacher, class_map=class_map)
        return replace(dataset, class_map=class_map, teacher=teacher)
    if type(dataset).__getitem__ is not Dataset.__getitem__:
        raise LabelSetError(
            f"the class map is from {source.name!r}, the classes of {dataset.name}, but "
            f"{type(dataset).__name__} reads its labels itself: let it return labels of "
            f"{target.name!r}"
        )
    labels = _MappedLabels(dataset.read_labels, class_map)
    if teacher is not None:
        teacher = replace(teacher, read_labels=labels, label_set=target, class_map=class_map)
    return replace(
        dataset, read_labels=labels, label_set=target, class_map=class_map, teacher=teacher
    )


def _mapped_beside_person(dataset: Dataset, teacher: Teacher, class_map: ClassMap) -> Dataset:
    """The same where a person's labels stand beside a teacher's: each has classes of its own."""
    ours, theirs, target = teacher.label_set, dataset.label_set, class_map.target
    if target.names == ours.names and dataset.class_map is not None:
        through = class_map.then(dataset.class_map)
        return replace(dataset, class_map=through, teacher=replace(teacher, class_map=class_map))
    if target.names == theirs.names:
        return replace(dataset, class_map=class_map)
    raise LabelSetError(
        f"the class map is from {class_map.source.name!r} to {target.name!r}; {dataset.called} has "
        f"labels of a network in {ours.name!r} and of a person in {theirs.name!r}: give a class "
        "map to one of these two"
    )
