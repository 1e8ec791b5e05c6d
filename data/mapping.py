"""How the classes of one label set answer for those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.documents import TEXT, Kind, Schema, list_of, object_of
from icnet_deploy.errors import LabelSetError
from icnet_deploy.labels import (
    CAMVID,
    CITYSCAPES,
    IGNORE,
    LABEL_SETS,
    LabelSet,
    label_set_of,
    load_label_set,
)

_CAMVID_IN_CITYSCAPES: tuple[tuple[str, ...], ...] = (
    ("sky",),
    ("building",),
    ("pole",),
    ("road",),
    ("sidewalk",),
    ("vegetation",),
    ("traffic sign",),
    ("fence",),
    ("car",),
    ("person",),
    ("rider", "bicycle"),
)
"""For each CamVid class the Cityscapes classes that it covers."""

_RELATIONS = {(CITYSCAPES.names, CAMVID.names): _CAMVID_IN_CITYSCAPES}
"""(names of a model's classes, of a data set's) -> for each class of the data set those of the
model that it covers. Where all names of the data set's classes are among the model's, in whatever
order, no row is needed."""

_TRAINED = "trained"

_SHOWN = 8
"""Classes that a message names at most."""

Table = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassMap:
    """A user's own rule of which classes stand for which.

    Attributes:
        source: the label set that is mapped.
        target: the label set that it is mapped into.
        answers: for each class of `source` the index of the one of `target` that it stands for;
            `IGNORE` for none.
        unlisted: the classes of `source` that the file does not list and `target` does not have:
            they stand for none.
        others: for each class of `source` those of `target` in which it may lie as well: training
            counts them, a score does not. Empty: none has any.
    """

    source: LabelSet
    target: LabelSet
    answers: tuple[int, ...]
    unlisted: tuple[str, ...] = ()
    others: tuple[tuple[int, ...], ...] = ()

    def table(self) -> Table:
        """From an index of `source` to one of `target`: uint8, 256 entries, 255 for none."""
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self.source)] = self.answers
        return table

    def unanswered(self) -> list[str]:
        """The classes of `target` that none of `source` stands for."""
        return [n for i, n in enumerate(self.target.names) if i not in self.answers]

    def within(self, index: int) -> tuple[int, ...]:
        """The classes of `source` that may lie in a class of `target`."""
        return tuple(c for c in range(len(self.source)) if index in self._all(c))

    def then(self, other: ClassMap) -> ClassMap:
        """The map into the classes of another, whose `source` has the classes of this `target`."""
        places = []
        for index in range(len(self.source)):
            every = [place for middle in self._all(index) for place in other._all(middle)]
            places.append([*dict.fromkeys(every)])
        table = other.table()
        answers = tuple(int(table[answer]) for answer in self.answers)
        pairs = zip(places, answers, strict=True)
        others = tuple(tuple(p for p in place if p != answer) for place, answer in pairs)
        return ClassMap(self.source, other.target, answers, self.unlisted, others)

    def _all(self, index: int) -> tuple[int, ...]:
        """The classes of `target` in which one of `source` may lie."""
        answer = self.answers[index]
        first = () if answer == IGNORE else (answer,)
        return (*first, *(self.others[index] if self.others else ()))

    def __str__(self) -> str:
        """What stands for what: `truck, car: car; sky: none`."""
        names = self.source.names
        sources = [
            (name, [n for n, answer in zip(names, self.answers, strict=True) if answer == index])
            for index, name in [*enumerate(self.target.names), (IGNORE, "none")]
        ]
        return "; ".join(f"{', '.join(each)}: {name}" for name, each in sources if each)


_TEXTS = list_of(TEXT)
_SET = Kind(lambda value: isinstance(value, dict | str), "a label set, or the name or file of one")
ANSWERS = object_of(
    Kind(
        lambda value: (
            value is None or isinstance(value, str) or (bool(value) and _TEXTS.fits(value))
        ),
        "a class, null, or a list of classes",
    )
)
"""What `classes` of a class map holds."""

_CLASS_MAP = Schema(
    "a class map: a JSON object with 'from' and 'to' (label sets, or the names or files of them) "
    "and 'classes', an object: a class of 'from' to the one of 'to' that it stands for, or null",
    {"from": _SET, "to": _SET, "classes": ANSWERS},
    closed=True,
    error=LabelSetError,
)


def load_class_map(path: Path) -> ClassMap:
    """Reads a class map, `{"from": SET, "to": SET, "classes": {"truck": "car", "sky": null}}`.

    A SET is the name of a label set, the path of its file, from this file's folder on, or the set
    itself. A class of `from` that is not listed stands for the one of the same name, if there is
    one, and else for none. Of one that may lie in several, `{"terrain": ["tree", "pavement"]}`,
    training counts all, and a score the first.

    Raises:
        LabelSetError: the file is none, or names a class that there is not.
    """
    known = _CLASS_MAP.read(path)
    source, target = (_set_of(known[name], path) for name in ("from", "to"))
    return class_map_of(source, target, known["classes"], str(path))


def class_map_of(
    source: LabelSet,
    target: LabelSet,
    listed: Mapping[str, str | Sequence[str] | None],
    where: str,
    sides: tuple[str, str] = ("its 'from'", "its 'to'"),
) -> ClassMap:
    """The class map of what a file lists; see `load_class_map`.

    Args:
        source, target: its label sets.
        listed: what stands under `classes`; `ANSWERS`.
        where: the file, for messages.
        sides: what the file calls the two label sets, for messages.

    Raises:
        LabelSetError: it names a class that there is not.
    """
    answers = {name: _listed(value) for name, value in listed.items()}
    named = [name for each in answers.values() for name in each]
    for side, names, label_set in ((sides[0], answers, source), (sides[1], named, target)):
        wrong = sorted(set(names) - set(label_set.names))
        if wrong:
            raise LabelSetError(
                f"{where} names the class{'es' * (len(wrong) > 1)} {', '.join(map(repr, wrong))}, "
                f"which {side}, {label_set.name}, does not have; it has "
                f"{', '.join(label_set.names)}"
            )
    index = {name: i for i, name in enumerate(target.names)}
    own = {name: [name] for name in source.names if name in index}
    places = [
        [index[n] for n in dict.fromkeys(answers.get(name, own.get(name, [])))]
        for name in source.names
    ]
    return ClassMap(
        source,
        target,
        tuple(next(iter(each), IGNORE) for each in places),
        tuple(n for n in source.names if n not in answers and n not in own),
        tuple(tuple(each[1:]) for each in places) if any(each[1:] for each in places) else (),
    )


def _listed(value: str | Sequence[str] | None) -> Sequence[str]:
    if value is None:
        return ()
    return [value] if isinstance(value, str) else value


def _set_of(value: Any, path: Path) -> LabelSet:
    if isinstance(value, str) and value not in LABEL_SETS:
        return load_label_set(path.parent / value)
    return label_set_of(value, str(path))


def prediction_table(model: LabelSet, data: LabelSet, class_map: ClassMap | None = None) -> Table:
    """A table from a predicted class to the class of the data set that it stands for.

    Args:
        model: the label set of the predictions.
        data: the label set of the ground truth.
        class_map: a user's own rule; see `Dataset.class_map`.

    Returns:
        uint8, 256 entries; 255 for a predicted class that stands for none, which a score counts
        as wrong wherever the truth is known.

    Raises:
        LabelSetError: it is not known how the one answers for the other.
    """
    table = np.full(256, IGNORE, np.uint8)
    for index, classes in enumerate(_covered(model, data, class_map, "scored")):
        table[list(classes)] = index
    return table


def target_table(
    model: LabelSet, data: LabelSet, class_map: ClassMap | None = None
) -> tuple[Table, list[tuple[int, ...]]]:
    """A table from the data set's labels to training targets, and the merged targets it uses.

    A class of the data set that covers several of the model's (CamVid's bicyclist is a rider and
    a bicycle) becomes a merged target: index C + i stands for "any of `merged[i]`", and the loss
    takes the sum of their probabilities. One that covers none is ignored.

    Returns:
        uint8, 256 entries, and the list of merged classes.

    Raises:
        LabelSetError: it is not known how to train the one on the other.
    """
    covered = _covered(model, data, class_map, _TRAINED)
    merged = [classes for classes in covered if len(classes) > 1]
    table = np.full(256, IGNORE, np.uint8)
    table[: len(data)] = [_target(classes, len(model), merged) for classes in covered]
    return table, merged


def decision_table(
    model: LabelSet,
    person: tuple[LabelSet, ClassMap | None],
    teacher: tuple[LabelSet, ClassMap | None],
) -> tuple[Table, list[tuple[int, ...]]]:
    """A table from a person's label and a teacher's to a training target.

    Where the person named a class, the teacher decides inside it only: the target is those of the
    model's classes that both labels cover, or, where there is none, those that the person's covers.
    Where the person named no class, the target is what the teacher's label covers.

    Args:
        model: the label set of the network that is trained.
        person, teacher: the label set of each one's labels, and its class map; see
            `Dataset.class_map`.

    Returns:
        uint8, 256 x 256, by the person's label and the teacher's, of which 255 is none, and the
        list of merged classes; see `target_table`.

    Raises:
        LabelSetError: it is not known how to train the model on the labels of one of them.
    """
    of_person, of_teacher = (_covered(model, *each, _TRAINED) for each in (person, teacher))
    table = np.full((256, 256), IGNORE, np.uint8)
    merged: list[tuple[int, ...]] = []
    for row, named in [*enumerate(of_person), (IGNORE, None)]:
        for column, seen in [*enumerate(of_teacher), (IGNORE, ())]:
            both = seen if named is None else tuple(c for c in named if c in seen) or named
            if len(both) > 1 and both not in merged:
                merged.append(both)
            table[row, column] = _target(both, len(model), merged)
    return table, merged


def _target(classes: tuple[int, ...], count: int, merged: list[tuple[int, ...]]) -> int:
    """The training target that stands for any of these of `count` classes."""
    if len(classes) > 1:
        return count + merged.index(classes)
    return classes[0] if classes else IGNORE


def _covered(
    model: LabelSet, data: LabelSet, class_map: ClassMap | None, purpose: str
) -> list[tuple[int, ...]]:
    """For each class of the data set the indices of the model's classes that it covers."""
    if class_map is not None and data.names == class_map.target.names:
        if model.names == class_map.source.names:
            if purpose == _TRAINED:
                return [class_map.within(index) for index in range(len(data))]
            answers = class_map.answers
            return [
                tuple(c for c, answer in enumerate(answers) if answer == index)
                for index in range(len(data))
            ]
        if model.names != data.names:
            raise LabelSetError(
                f"the class map is from {class_map.source.name!r} to {class_map.target.name!r}; "
                f"the model's label set {model.name!r} ({len(model)} classes) is neither: give a "
                "class map from the model's classes to the data set's"
            )
    if model.names == data.names:
        return [(index,) for index in range(len(model))]
    if relation := _RELATIONS.get((model.names, data.names)):
        return [tuple(map(model.names.index, names)) for names in relation]
    if unknown := [name for name in data.names if name not in model.names]:
        shown = ", ".join(unknown[:_SHOWN]) + ", ..." * (len(unknown) > _SHOWN)
        raise LabelSetError(
            f"a model of the label set {model.name!r} ({len(model)} classes) cannot be {purpose} "
            f"on {data.name!r} ({len(data)} classes): it has no class {shown}; give --class-map "
            "FILE, which says which class stands for which"
            + ", or give the network the classes of the data set with --label-set"
            * (purpose == _TRAINED)
        )
    return [(model.names.index(name),) for name in data.names]
