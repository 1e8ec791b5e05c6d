"""Label files as they come: class indices or ids, with a palette or without, or colours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.own.classes import FILE, Classes
from icnet_deploy.errors import DatasetError
from icnet_deploy.images import ImageFile
from icnet_deploy.labels import IGNORE

UInt8 = npt.NDArray[np.uint8]

_UNKNOWN = IGNORE - 1  # of what is neither a class nor ignored: a label set has 254 classes at most
_SHOWN = 5  # values or colours that a message names


@dataclass(frozen=True)
class LabelReader:
    """Reads label files of any kind into indices of a label set.

    What a file is decides how it is read: a grey one, and one with a palette, holds a value a pixel
    (the palette's colours say nothing); one with three channels holds the classes' colours.

    Attributes:
        classes: what values and colours mean.
    """

    classes: Classes

    def __call__(self, path: Path) -> UInt8:
        """Decodes a file.

        Returns:
            uint8 H x W, indices of the label set; 255 is ignored.

        Raises:
            ImageError: it cannot be decoded, or is of a format that changes values, such as JPEG.
            DatasetError: it holds what is neither a class nor ignored; two classes have one colour.
        """
        file = ImageFile(path)
        code: npt.NDArray[np.unsignedinteger[Any]]
        in_colours = file.header.colours == "colour"
        if in_colours:
            code = _code(file.colours())
            labels = np.asarray(_of_colours(self.classes)[code])
        else:
            code = file.indices()
            labels = np.asarray(_of_values(self.classes)[code])
        unknown = labels == _UNKNOWN
        if unknown.any():
            values, counts = np.unique(code[unknown], return_counts=True)
            told = _colours_told if in_colours else _values_told
            order = np.argsort(-counts, kind="stable")
            found = [(int(values[i]), int(counts[i])) for i in order]
            raise DatasetError(f"{path} holds {told(self.classes, found, code)}")
        return labels


def palette_slip(path: Path, classes: Classes) -> str:
    """Whether a palette's colours are the classes', but say other classes than its indices.

    A tool that makes files smaller may number a palette anew; nothing but its colours shows it.

    Args:
        path: a label file that can be read.
        classes: what its values mean; where they are ids, nothing is said.

    Returns:
        What is strange, in words; "" if nothing is.
    """
    file, palette = ImageFile(path), classes.label_set.palette
    if file.header.colours == "colour" or classes.values == "ids":
        return ""
    pairs = np.stack([_code(file.colours()), _of_values(classes)[file.indices()]], axis=-1)
    drawn = [(int(code), int(index)) for code, index in np.unique(pairs.reshape(-1, 2), axis=0)]
    known = {_number(colour): index for index, colour in enumerate(palette)}
    shown = [(known.get(code), index) for code, index in drawn if index < len(palette)]
    if any(colour is None for colour, _ in shown):
        return ""
    names = classes.label_set.names
    for colour, index in shown:
        if colour is not None and colour != index and palette[index] != palette[colour]:
            return (
                f"{path}: its palette draws {names[index]} in the colour of {names[colour]}: if "
                "the colours are right and the indices are wrong, convert it to RGB"
            )
    return ""


def _code(rgb: UInt8) -> npt.NDArray[np.uint32]:
    wide = rgb.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


@lru_cache(maxsize=4)
def _of_values(classes: Classes) -> UInt8:
    """From a sample to an index, 256 entries."""
    table = np.full(256, _UNKNOWN, np.uint8)
    if classes.values == "ids":
        table[0] = IGNORE  # no class, in the data sets whose ids begin with 1
    table[[IGNORE, *classes.ignored]] = IGNORE
    table[list(classes.of_classes())] = np.arange(len(classes.label_set), dtype=np.uint8)
    return table


@lru_cache(maxsize=4)
def _of_colours(classes: Classes) -> UInt8:
    """From a colour, as a number of 24 bits, to an index."""
    palette, names = classes.label_set.palette, classes.label_set.names
    for index, colour in enumerate(palette):
        if (first := palette.index(colour)) != index:
            raise DatasetError(
                f"{classes.source}: {names[first]} and {names[index]} have the same "
                f"colour, {list(colour)}: give each its own"
            )
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    table[[_number(colour) for colour in classes.ignored_colours]] = IGNORE
    table[[_number(colour) for colour in palette]] = np.arange(len(palette), dtype=np.uint8)
    return table


def _number(colour: Sequence[int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _values_told(
    classes: Classes, found: list[tuple[int, int]], code: npt.NDArray[np.unsignedinteger[Any]]
) -> str:
    """Which values are unknown, what was expected, and which slip that looks like."""
    known, label_set = classes.of_classes(), classes.label_set
    of = set(np.unique(code).tolist()) - {IGNORE, *classes.ignored}
    if classes.values == "ids":
        expected = f"a label id of {label_set.name} ({_numbers(known)})"
        looks = of <= set(range(len(known)))
        hint = "if these are indices, give --label-values indices"
    else:
        expected = f"an index of {label_set.name}, 0 to {len(known) - 1}"
        looks = label_set.label_ids is not None and of <= {0, *label_set.label_ids}
        hint = "if these are label ids, give --label-values ids"
        if not looks and max(of) == len(known):
            looks = True
            hint = (
                "if its values are 1 too large (the first class is 1), give the label set the "
                '"label_ids" 1, 2, ... and --label-values ids'
            )
    usual = f'list it under "ignore" in {FILE} if it is no class'
    return f"{_list('the value', found, str)}; expected {expected}: {hint if looks else usual}"


def _colours_told(
    classes: Classes, found: list[tuple[int, int]], code: npt.NDArray[np.unsignedinteger[Any]]
) -> str:
    """Which colours are unknown, and which slip that looks like."""
    colours = [(number >> 16, number >> 8 & 255, number & 255) for number, _ in found]
    if all(red == green == blue for red, green, blue in colours):
        hint = "if these are class indices, write them in one channel, not in three"
    elif len(found) > 4 * len(classes.label_set) + 20:
        hint = (
            "so many colours come from a lossy format, smooth edges or a resize: make the labels "
            "again without these"
        )
    else:
        hint = f'list it under "ignore" in {FILE} if it is no class'

    def words(number: int) -> str:
        return str([number >> 16, number >> 8 & 255, number & 255])

    name = classes.label_set.name
    return f"{_list('the colour', found, words)}; no class of {name} has this colour: {hint}"


def _list(one: str, found: list[tuple[int, int]], words: Callable[[int], str]) -> str:
    parts = [f"{words(v)} ({n:,} pixel{'s' * (n != 1)})" for v, n in found[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} others" if len(found) > _SHOWN else ""
    return f"{one}{'s' * (len(found) > 1)} {', '.join(parts)}{more}"


def _numbers(values: Sequence[int]) -> str:
    """1 to 150, or 7, 8, 11, ..."""
    if list(values) == list(range(values[0], values[0] + len(values))):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
