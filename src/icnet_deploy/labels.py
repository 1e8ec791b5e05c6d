"""Label sets: the names and colours of the classes.

Cityscapes' 19 evaluated classes and their colours are those of the data set's authors (Cordts et
al., 2016); CamVid's 11 those of SegNet's form of it (Badrinarayanan et al., 2015); Pascal VOC's 21
and their colours those of its development kit (Everingham et al., 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icnet_deploy.documents import TEXT, WHOLE, Kind, Schema, list_of, or_null
from icnet_deploy.errors import BackendError, LabelSetError, NotFinite

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IGNORE = 255
"""The label that no loss and no score counts."""

_LONGEST = 200
"""Characters of a name, at most: pictures and tables show it whole."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a model or of a data set, in the order of their indices.

    Attributes:
        name: a short name, e.g. `cityscapes`.
        names: C class names, no two alike; class `i` is `names[i]`. These and `name` are 1 to 200
            characters that can be printed, in one line.
        palette: C colours, each (red, green, blue) in 0..255.
        label_ids: C ids in 0..255 that an evaluation server expects, or None where labels are
            written as they are (Cityscapes: trainId 0, road, is labelId 7).

    Raises:
        LabelSetError: one of them is none of that.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    label_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for value, what in ((self.names, "names"), (self.palette, "colours")):
            if not isinstance(value, list | tuple):
                raise LabelSetError(f"a label set's {what} are {value!r:.60}; expected a tuple")
        _require_names("a label set's name", self.name)
        _require_names(f"a class of the label set {self.name!r}", *self.names)
        count = len(self.names)
        ids = range(count) if self.label_ids is None else self.label_ids
        colours = [
            colour
            for colour in self.palette
            if not isinstance(colour, list | tuple)
            or len(colour) != 3
            or not all(map(_is_byte, colour))
        ]
        problems = {
            f"has {count} classes, expected 1 to {IGNORE - 1}": not 1 <= count < IGNORE,
            "names a class twice": len(set(self.names)) != count,
            f"has {count} names but {len(self.palette)} colours": len(self.palette) != count,
            f"has colours that are not three numbers in 0..255: {colours}": bool(colours),
            f"has {count} names but {len(ids)} label ids": len(ids) != count,
            "has a label id outside 0..255": not all(map(_is_byte, ids)),
        }
        for problem, there in problems.items():
            if there:
                raise LabelSetError(f"label set {self.name!r} {problem}")

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that `load_label_set` reads and artefact metadata carries."""
        value: dict[str, Any] = {
            "name": self.name,
            "names": list(self.names),
            "palette": [list(colour) for colour in self.palette],
        }
        if self.label_ids is not None:
            value["label_ids"] = list(self.label_ids)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LabelSet:
        """Builds a label set from its JSON form.

        Raises:
            LabelSetError: a field is missing, of a wrong type, or contradicts another.
        """
        known = _SCHEMA.fit(value, "the label set")
        ids = known.get("label_ids")
        return cls(
            name=known["name"],
            names=tuple(known["names"]),
            palette=tuple((red, green, blue) for red, green, blue in known["palette"]),
            label_ids=None if ids is None else tuple(ids),
        )

    def train_to_label_ids(self) -> bytes:
        """A table of 256 bytes from a class index to its label id; what is no class becomes 0.

        Use it with `numpy.frombuffer(table, numpy.uint8)[labels]`.
        """
        ids = range(len(self)) if self.label_ids is None else self.label_ids
        return bytes(ids) + bytes(256 - len(self))


def _require_names(what: str, *names: object) -> None:
    """Each is text that a picture, a table and a file can show: no control characters, no halves of
    a character (surrogates), no book."""
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST or not name.isprintable():
            shown = ascii(name)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise LabelSetError(
                f"{what} is {shown}; expected 1 to {_LONGEST} characters that can be printed: "
                "give it another name"
            )


def _is_byte(value: object) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) <= 255


_SCHEMA = Schema(
    "a label set: a JSON object with 'name', 'names' (one a class), 'palette' (one "
    "[red, green, blue] a class) and optionally 'label_ids'",
    {
        "name": TEXT,
        "names": list_of(TEXT),
        "palette": list_of(list_of(WHOLE, 3)),
        "label_ids": or_null(list_of(WHOLE)),
    },
    optional=("label_ids",),
    error=LabelSetError,
)


_OWN = replace(
    _SCHEMA,
    what=f"{_SCHEMA.what}; without 'palette' the classes get colours",
    optional=("palette", "label_ids"),
)
_NAMED = Kind(lambda value: isinstance(value, dict | str), "a label set, or the name of one")
_CLASSES = Schema(_OWN.what, {"label_set": _NAMED}, optional=("label_set",), error=LabelSetError)


def load_label_set(name: str | Path) -> LabelSet:
    """A label set by its name, of `LABEL_SETS`, or a user's own from a JSON file.

    Args:
        name: `cityscapes`, `camvid`, `voc`, or the path of a file: a label set (`LabelSet.to_dict`;
            `palette` may be left out) or an object whose `label_set` is one, as `classes.json`.

    Raises:
        LabelSetError: there is no such name or file, or it is not a label set.
    """
    if str(name) in LABEL_SETS:
        return LABEL_SETS[str(name)]
    path = Path(name)
    if not exists(path) and path.suffix != ".json":
        raise LabelSetError(
            f"there is no label set {str(name)!r}; expected {', '.join(LABEL_SETS)}, or a JSON file"
        )
    inner = _CLASSES.read(path).get("label_set")
    return label_set_of(_OWN.read(path) if inner is None else inner, str(path))


def label_set_of(value: str | Mapping[str, Any], where: str) -> LabelSet:
    """A label set that a user's file names, or holds.

    Args:
        value: a name of `LABEL_SETS`, or the form of `LabelSet.to_dict`; without `palette` each
            class gets a colour of Pascal VOC's.
        where: it stands, for the message.

    Raises:
        LabelSetError: it is neither.
    """
    if not isinstance(value, str):
        known = _OWN.fit(value, f"the label set in {where}")
        palette = [_colour(index) for index in range(len(known["names"]))]
        return LabelSet.from_dict({"palette": palette, **known})
    if value not in LABEL_SETS:
        raise LabelSetError(
            f"{where} names the label set {value!r}; expected {', '.join(LABEL_SETS)}, or an "
            "object with 'name' and 'names'"
        )
    return LABEL_SETS[value]


def _colour(index: int) -> list[int]:
    """Pascal VOC's colour of an index: its bits, three in turn, from each colour's highest on."""
    return [
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for channel in range(3)
    ]


def check_labels(labels: npt.NDArray[np.uint8], label_set: LabelSet) -> None:
    """Refuses a network's label map that holds what is no class.

    Whoever reads one that a graph has made calls it: nothing else says that the network failed, or
    that the label set is another network's.

    Args:
        labels: uint8, of any shape.
        label_set: the network's classes.

    Raises:
        NotFinite: it holds 255, which a graph writes where its logits are not finite.
        BackendError: it holds another value that is not below the number of classes.
    """
    largest = int(labels.max(initial=0))
    if largest == IGNORE:
        raise NotFinite
    if largest >= len(label_set):
        raise BackendError(
            f"the network's label map holds {largest}, and the label set {label_set.name!r} has "
            f"the classes 0 to {len(label_set) - 1}: the label set is another network's, or the "
            "logits are not numbers (a file of version 0.1.0 then writes the number of classes); "
            "export the network again"
        )


def _label_set(name: str, *rows: tuple[str, tuple[int, int, int], int | None]) -> LabelSet:
    ids = tuple(i for _, _, i in rows if i is not None)
    return LabelSet(
        name, tuple(r[0] for r in rows), tuple(r[1] for r in rows), ids if ids else None
    )


CITYSCAPES = _label_set(
    "cityscapes",
    ("road", (128, 64, 128), 7),
    ("sidewalk", (244, 35, 232), 8),
    ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12),
    ("fence", (190, 153, 153), 13),
    ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19),
    ("traffic sign", (220, 220, 0), 20),
    ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22),
    ("sky", (70, 130, 180), 23),
    ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25),
    ("car", (0, 0, 142), 26),
    ("truck", (0, 0, 70), 27),
    ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31),
    ("motorcycle", (0, 0, 230), 32),
    ("bicycle", (119, 11, 32), 33),
)

CAMVID = _label_set(
    "camvid",
    ("sky", (128, 128, 128), None),
    ("building", (128, 0, 0), None),
    ("pole", (192, 192, 128), None),
    ("road", (128, 64, 128), None),
    ("pavement", (0, 0, 192), None),
    ("tree", (128, 128, 0), None),
    ("sign/symbol", (192, 128, 128), None),
    ("fence", (64, 64, 128), None),
    ("car", (64, 0, 128), None),
    ("pedestrian", (64, 64, 0), None),
    ("bicyclist", (0, 128, 192), None),
)

# fmt: off
_VOC_NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
]
# fmt: on
VOC = label_set_of({"name": "voc", "names": _VOC_NAMES}, "this module")

LABEL_SETS: Mapping[str, LabelSet] = {s.name: s for s in (CITYSCAPES, CAMVID, VOC)}
