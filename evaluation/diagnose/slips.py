"""How a network is read, and the usual ways of reading it wrongly, each undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.metadata import FITS, UPSAMPLINGS

if TYPE_CHECKING:
    from icnet_deploy.networks.preprocessing import Preprocessing

_Three = tuple[float, float, float]
_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_FULL = 255.0  # the largest value of a channel: what lies between 0..255 and 0..1


class Kind(StrEnum):
    """What of a reading is changed."""

    INPUT = "input"
    LABELS = "labels"
    UPSAMPLING = "upsampling"


@dataclass(frozen=True)
class Reading:
    """How an image becomes a network's input, and how its logits become classes of a data set.

    Attributes:
        preprocessing: what the network's input is taken for.
        upsampling: by which rule of `metadata.UPSAMPLINGS` logits become pixels.
        table: for each index of the network the class of the data set that it stands for; 255:
            none.
    """

    preprocessing: Preprocessing
    upsampling: str
    table: bytes


@dataclass(frozen=True)
class Slip:
    """One way in which a reading may be wrong, undone.

    Attributes:
        name: what is changed, as a table has it.
        kind: what of it.
        cause: what is so if this scores better: a clause.
        reading: the other one.
    """

    name: str
    kind: Kind
    cause: str
    reading: Reading


@dataclass(frozen=True)
class Setting:
    """What decides which slips there can be.

    Attributes:
        classes: of the network.
        scored: the classes of the data set.
        resized: whether its logits have another size than its input.
        fitted: whether an image has another shape than the network's input.
    """

    classes: LabelSet
    scored: LabelSet
    resized: bool
    fitted: bool


def slips_of(reading: Reading, setting: Setting) -> list[Slip]:
    """The slips that may have led to a reading, each with another reading in its place.

    Two that come to the same are one: the first.
    """
    made: dict[Reading, Slip] = {}
    for slip in _all(reading, setting):
        made.setdefault(_rounded(slip.reading), slip)
    made.pop(_rounded(reading), None)
    return list(made.values())


def _all(reading: Reading, setting: Setting) -> Iterator[Slip]:
    for name, (cause, preprocessing) in _inputs(reading.preprocessing, setting.fitted).items():
        yield Slip(name, Kind.INPUT, cause, replace(reading, preprocessing=preprocessing))
    for name, (cause, table) in _tables(reading.table, setting).items():
        yield Slip(name, Kind.LABELS, cause, replace(reading, table=table))
    for rule in UPSAMPLINGS if setting.resized else ():
        if rule not in ("none", reading.upsampling):
            cause = f"the network's upsampling is {rule}"
            name = f"upsampling: {rule}"
            yield Slip(name, Kind.UPSAMPLING, cause, replace(reading, upsampling=rule))


_Inputs = dict[str, tuple[str, "Preprocessing"]]


def _inputs(now: Preprocessing, fitted: bool) -> _Inputs:
    """Name -> what is so, and the preprocessing."""
    other = "bgr" if now.channels == "rgb" else "rgb"
    inputs = _channels(now, other) | _ranges(now) | _left_out(now) | _twice(now)
    inputs |= _named(now)
    if fitted:
        fit = next(each for each in FITS if each != now.fit)
        how = {
            "stretch": "stretched to its size, in another shape",
            "letterbox": "in their own shape, with a border",
        }[fit]
        cause = f"the network was trained on images {how}"
        inputs[f"fit: {fit}"] = (cause, replace(now, fit=fit))
    return inputs


def _channels(now: Preprocessing, other: str) -> _Inputs:
    turned = replace(now, mean=_turned(now.mean), scale=_turned(now.scale))
    order = other.upper()
    return {
        f"channels: {other}": (
            f"the network expects {order}",
            replace(now, channels=other),
        ),
        f"channels: {other}, mean and scale turned": (
            f"the network expects {order}, with mean and scale in the order {now.channels.upper()}",
            replace(turned, channels=other),
        ),
        "mean and scale turned": (
            f"mean and scale are in the order {order}, but the channels are not",
            turned,
        ),
    }


def _ranges(now: Preprocessing) -> _Inputs:
    """0..1 in place of 0..255, in mean and scale or in the scale alone."""
    small, large = _times(now.scale, 1 / _FULL), _times(now.scale, _FULL)
    both: _Inputs = {
        "mean * 255, scale / 255": (
            "mean and scale are for channels in 0..1, but the channels are in 0..255",
            replace(now, mean=_times(now.mean, _FULL), scale=small),
        ),
        "mean / 255, scale * 255": (
            "the network expects channels in 0..255 with the mean and scale for 0..1",
            replace(now, mean=_times(now.mean, 1 / _FULL), scale=large),
        ),
    }
    return (both if any(now.mean) else {}) | {
        "scale / 255": (
            "the network expects 0..1 but gets 0..255: values 255 times larger",
            replace(now, scale=small),
        ),
        "scale * 255": (
            "the network expects 0..255 but gets 0..1: values 255 times smaller",
            replace(now, scale=large),
        ),
    }


def _left_out(now: Preprocessing) -> _Inputs:
    """What a network does not want, or does by itself."""
    unit = (1 / _FULL,) * 3
    return {
        "mean: 0": (
            "the network expects no subtracted mean (it may subtract one itself)",
            replace(now, mean=_ZERO),
        ),
        "scale: 1": (
            "the network expects 0..255, not divided by a deviation",
            replace(now, scale=_ONE),
        ),
        "scale: 1/255": (
            "the network expects 0..1, not divided by a deviation",
            replace(now, scale=unit),
        ),
        "mean: 0, scale: 1": (
            "the network expects 0..255 unchanged (it may normalise them itself)",
            replace(now, mean=_ZERO, scale=_ONE),
        ),
    }


def _twice(now: Preprocessing) -> _Inputs:
    """What was done twice in training; deviations are of channels in 0..1, as is usual."""
    again = _times(now.scale, _FULL)
    both = tuple(m + m / s if s else m for m, s in zip(now.mean, again, strict=True))
    squared = tuple(s * t for s, t in zip(now.scale, again, strict=True))
    return {
        "mean twice": (
            "training subtracted the mean twice",
            replace(now, mean=_times(now.mean, 2.0)),
        ),
        "scale twice": (
            "training divided by the deviation twice",
            replace(now, scale=_three(squared)),
        ),
        "mean and scale twice": (
            "training normalised the images twice",
            replace(now, mean=_three(both), scale=_three(squared)),
        ),
    }


def _named(now: Preprocessing) -> _Inputs:
    """Those that have a name; and their numbers in the order of channels that is said."""
    from icnet_deploy.networks.preprocessing import PREPROCESSINGS

    inputs: _Inputs = {}
    for name, whole in PREPROCESSINGS.items():
        cause = f"the network was trained with the preprocessing {name!r}"
        inputs[f"preprocessing: {name}"] = cause, replace(whole, fit=now.fit)
        if whole.channels != now.channels:
            numbers = replace(whole, mean=_turned(whole.mean), scale=_turned(whole.scale))
            here = replace(numbers, channels=now.channels, fit=now.fit)
            words = f"{cause}, but with channels in the order {now.channels.upper()}"
            inputs[f"mean and scale of {name}"] = words, here
    return inputs


_Tables = dict[str, tuple[str, bytes]]


def _tables(now: bytes, setting: Setting) -> _Tables:
    """Name -> what is so, and the table: indices shifted by one, and label ids for indices.

    A label file that holds what the reader does not expect is the same, seen from the other side,
    as a network that answers so: the truth stays as it was read, and the answers change.
    """
    data, own = setting.scored, setting.classes
    tables: _Tables = {}  # ids first: where they count from 1, they are a shift by one, too
    if data.label_ids is not None:
        index = _inverse(data.label_ids)
        tables["labels: the files hold indices"] = (
            "the label files hold indices, but are read as label ids (or the network answers "
            "with ids)",
            _data_side(now, index),
        )
        tables["labels: the files hold ids"] = (
            "the label files hold label ids, but are read as indices",
            _data_side(now, {i: k for k, i in index.items() if k < len(data)}),
        )
    tables |= _shifted(now, data.names)
    if own.names != data.names:
        tables["network: indices one up"] = (
            "the network's first class is the second of its label set, and so on",
            now[1:] + now[:1],
        )
        tables["network: indices one down"] = (
            "the network's first class is the last of its label set",
            now[-1:] + now[:-1],
        )
    if own.label_ids is not None:
        index = _inverse(own.label_ids)
        answers = bytes(now[index[k]] if k in index else IGNORE for k in range(len(now)))
        tables["network: ids"] = "the network answers with label ids, not with indices", answers
    return tables


def _shifted(now: bytes, names: tuple[str, ...]) -> _Tables:
    count = len(names)
    first, second = names[0], names[min(1, count - 1)]
    return {
        "labels: one up": (
            f"where the network answers {first!r}, the truth is {second!r}, and so on: the label "
            "files count classes from 1, or the first class of the label set should be its last",
            _data_side(now, {k: (k + 1) % count for k in range(count)}),
        ),
        "labels: one down": (
            f"where the network answers {second!r}, the truth is {first!r}, and so on: the "
            "network's first class (a background) is the last of the label set",
            _data_side(now, {k: (k - 1) % count for k in range(count)}),
        ),
    }


def _data_side(now: bytes, stands_for: Mapping[int, int]) -> bytes:
    """The table where each class of the data set stands for another, or for none."""
    return bytes(IGNORE if k == IGNORE else stands_for.get(k, IGNORE) for k in now)


def _inverse(ids: tuple[int, ...]) -> dict[int, int]:
    return {number: index for index, number in enumerate(ids)}


def _turned(values: _Three) -> _Three:
    first, second, third = values
    return third, second, first


def _times(values: _Three, factor: float) -> _Three:
    return _three([value * factor for value in values])


def _three(values: tuple[float, ...] | list[float]) -> _Three:
    first, second, third = values
    return first, second, third


def _rounded(reading: Reading) -> Reading:
    """What is equal for readings that are the same but for rounding."""
    old = reading.preprocessing
    mean, scale = (
        _three([float(f"{value:.9g}") for value in values]) for values in (old.mean, old.scale)
    )
    return replace(reading, preprocessing=replace(old, mean=mean, scale=scale))
