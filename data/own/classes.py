"""What the labels of a folder mean: its `classes.json`, or the label set that was named."""

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.data.mapping import ANSWERS, ClassMap, class_map_of
from icnet_deploy.documents import TEXT, Kind, Schema, list_of, one_of, or_null
from icnet_deploy.errors import DatasetError, LabelSetError
from icnet_deploy.labels import IGNORE, LABEL_SETS, LabelSet, label_set_of, load_label_set

Colour = tuple[int, int, int]

FILE = "classes.json"
"""The name of the file in a folder that says what its labels mean."""

PERSON = "person.json"
"""The name of the file in a folder that says what the labels mean that a person drew, where those
beside them are a network's."""

LABEL_VALUES = ("indices", "ids")
"""What the samples of label files may be: a class's index, from 0, or its label id."""

_PERSON_EXAMPLE = '{"label_set": "camvid", "classes": {"truck": "car", "bus": "car"}}'
_EXAMPLE = '{"label_set": {"name": "fields", "names": ["soil", "crop", "weed"]}, "ignore": [255]}'


@dataclass(frozen=True)
class Classes:
    """What the labels of a data set mean.

    Attributes:
        label_set: its classes.
        values: what the samples of a label file are, of `LABEL_VALUES`.
        ignored: samples that are no class and are not counted; 255 is always one.
        ignored_colours: colours, red, green, blue, that are no class and are not counted.
        group_by: a regular expression that says which images belong together; None: each image is
            a group of its own.
        source: where that stands, for messages.

    Raises:
        LabelSetError: what is ignored is a class, or ids are wanted of a set that has none.
    """

    label_set: LabelSet
    values: str = LABEL_VALUES[0]
    ignored: tuple[int, ...] = ()
    ignored_colours: tuple[Colour, ...] = ()
    group_by: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        known = self.label_set
        if self.values == "ids" and known.label_ids is None:
            raise LabelSetError(
                f"label values are ids, but the label set {known.name!r} has no label_ids: add one "
                "for each class, or give --label-values indices"
            )
        if len(set(self.of_classes())) != len(known):
            raise LabelSetError(f"{self.source or known.name}: two classes have the same label id")
        for value in {IGNORE, *self.ignored} & set(self.of_classes()):
            why = "which is always ignored" if value == IGNORE else "which `ignore` lists"
            raise LabelSetError(
                f"{self.source or known.name}: the value {value}, {why}, is also the class "
                f"{known.names[self.of_classes().index(value)]}: give the class another value"
            )
        for colour in set(self.ignored_colours) & set(known.palette):
            raise LabelSetError(
                f"{self.source or known.name}: the colour {list(colour)}, which `ignore` lists, is "
                f"also the class {known.names[known.palette.index(colour)]}"
            )

    def of_classes(self) -> tuple[int, ...]:
        """The sample of a label file that stands for each class."""
        ids = self.label_set.label_ids if self.values == "ids" else None
        return tuple(range(len(self.label_set))) if ids is None else ids


def _is_ignored(value: object) -> bool:
    return (type(value) is int and 0 <= value <= 255) or (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


_SCHEMA = Schema(
    f"a {FILE}: a JSON object with 'label_set' (a label set, or the name of one), and optionally "
    "'ignore' (a list of values and [red, green, blue] colours), 'group_by' (a regular "
    f"expression) and 'label_values' ({' or '.join(LABEL_VALUES)})",
    {
        "label_set": Kind(lambda value: isinstance(value, dict | str), "a label set, or a name"),
        "ignore": list_of(
            Kind(_is_ignored, "a value from 0 to 255, or a colour of three such values")
        ),
        "group_by": or_null(TEXT),
        "label_values": one_of(*LABEL_VALUES),
    },
    optional=("ignore", "group_by", "label_values"),
    closed=True,
    error=DatasetError,
)
_PERSON = Schema(
    f"a {PERSON}: a JSON object with 'label_set' (the person's label set, or the name of one) and "
    f"'classes' (an object: a class of {FILE} to the person's class that it lies in, a list of "
    "them, or null), and optionally 'ignore' and 'label_values'",
    {
        **{name: kind for name, kind in _SCHEMA.fields.items() if name != "group_by"},
        "classes": ANSWERS,
    },
    optional=("ignore", "label_values"),
    closed=True,
    error=DatasetError,
)
_WRAPPED = Schema(
    _SCHEMA.what,
    {"label_set": Kind(lambda value: True, "")},
    optional=("label_set",),
    error=DatasetError,
)


def classes_of(
    folder: Path, label_set: LabelSet | str | Path | None, label_values: str | None = None
) -> Classes:
    """What the labels of a folder mean.

    Args:
        folder: what its `classes.json` says comes first.
        label_set: its classes where there is none: a set, the name of one, or a file such as that.
        label_values: of `LABEL_VALUES`; None: what the file says, else `ids` where a file holds the
            label set and it has label ids, else `indices`.

    Raises:
        DatasetError: neither says it, or the file is none.
        LabelSetError: the label set contradicts itself, or what is said of it.
    """
    path = folder / FILE
    if isfile(path):
        return _read(path, label_values)
    if label_set is None:
        raise DatasetError(
            f"the classes of {folder} are not known: write {path}, e.g. {_EXAMPLE}, or give "
            f"--label-set {'|'.join(LABEL_SETS)}|FILE.json"
        )
    if not isinstance(label_set, LabelSet):
        if str(label_set) not in LABEL_SETS and isfile(Path(label_set)):
            return _read(Path(label_set), label_values)
        label_set = load_label_set(label_set)
    known = label_set in LABEL_SETS.values()
    return Classes(label_set, label_values or _usual(label_set, known), source=label_set.name)


def _usual(label_set: LabelSet, by_name: bool) -> str:
    return "indices" if by_name or label_set.label_ids is None else "ids"


def _read(path: Path, label_values: str | None) -> Classes:
    if "label_set" not in _WRAPPED.read(path):  # the label set alone
        label_set = load_label_set(path)
        return Classes(label_set, label_values or _usual(label_set, False), source=str(path))
    return _classes(_SCHEMA.read(path), path, label_values)


def person_of(folder: Path, classes: Classes) -> tuple[Classes, ClassMap]:
    """What the labels mean that a person drew for a folder whose other labels are a network's.

    Args:
        folder: with a `person.json`.
        classes: the folder's own.

    Returns:
        The person's classes, and which of the folder's lie in them.

    Raises:
        DatasetError: there is no such file, or it is none.
        LabelSetError: it names a class that there is not, or contradicts itself.
    """
    path = folder / PERSON
    if not isfile(path):
        raise DatasetError(
            f"{folder / 'person'} needs {path}, which says what its labels mean: write it, e.g. "
            f"{_PERSON_EXAMPLE}"
        )
    known = _PERSON.read(path)
    person = _classes(known, path, None)
    sides = (f"the folder's {FILE}", "its 'label_set'")
    ours, theirs = classes.label_set, person.label_set
    return person, class_map_of(ours, theirs, known["classes"], str(path), sides)


def _classes(known: Mapping[str, Any], path: Path, label_values: str | None) -> Classes:
    label_set = label_set_of(known["label_set"], str(path))
    ignored = known.get("ignore", [])
    return Classes(
        label_set,
        label_values
        or known.get("label_values")
        or _usual(label_set, isinstance(known["label_set"], str)),
        tuple(value for value in ignored if not isinstance(value, list)),
        tuple((value[0], value[1], value[2]) for value in ignored if isinstance(value, list)),
        known.get("group_by"),
        str(path),
    )
