"""Whether images show anything: ranges that were taken from next to nothing fit no other picture.

A picture counts as one by three measures on a small version of it, none of which hangs on how
bright it is: a night frame of 12 grey levels shows as much as a sunny one.
- It has more than one colour.
- Its large parts differ by more than noise would let them: the variance of the means of 16 x 16
  blocks against that within the blocks, times a block's pixels. Of noise that is 1 to 2, of 1,135
  photos of streets 21 and more.
- It has edges: the steepest hundredth of its pixels against its spread. Of smooth gradients up to
  0.2, of photos 0.8 and more, of blurred ones 0.28.
Two pictures are the same if little but noise tells them apart: 0.02 of their spread, where photos
of one crossroads seconds apart differ by 0.09.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import InputError
from icnet_deploy.images import UInt8

Float32 = npt.NDArray[np.float32]

_SIDE, _BLOCKS = 128, 16
_COMPARED = 64  # side of what is compared
_LEAST_SPREAD = 0.25  # grey levels
_LEAST_STRUCTURE = 6.0
_LEAST_EDGE = 0.25
_LEAST_DIFFERENCE = 0.05
_NAMED = 5  # in a message


def nothing_in(image: UInt8) -> str:
    """What an image shows instead of something, in words; empty if it shows something.

    Args:
        image: uint8 H x W x 3, each side at least 16.
    """
    small = _small(image, _SIDE)
    spread = float(np.sqrt(small.var((0, 1)).mean()))
    if spread < _LEAST_SPREAD:
        return "one colour"
    if _structure(small) < _LEAST_STRUCTURE:
        return "noise"
    down, right = np.diff(small, axis=0)[:, :-1], np.diff(small, axis=1)[:-1]
    steps = np.sqrt(np.square(down).mean(-1) + np.square(right).mean(-1))
    if np.quantile(steps, 0.99) < _LEAST_EDGE * spread:
        return "no edges"
    return ""


def require_content(files: Sequence[Path], images: Iterable[UInt8], fewest: int) -> str:
    """Refuses images to calibrate on that hold almost nothing.

    Args:
        files: what they are called.
        images: uint8 H x W x 3, in the same order.
        fewest: how many must show something, each something else; half of them must, too.

    Returns:
        A sentence that names those that show nothing; empty if all show something.

    Raises:
        InputError: too few show something.
    """
    empty: list[str] = []
    shown: list[tuple[Path, Float32]] = []
    for file, image in zip(files, images, strict=True):
        why = nothing_in(image)
        if not why:
            vector = _vector(image)
            why = next(
                (f"the same as {other.name}" for other, seen in shown if _is_same(vector, seen)), ""
            )
            shown += [] if why else [(file, vector)]
        if why:
            empty.append(f"{file.name} ({why})")
    if not empty:
        return ""
    more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
    named = f"{', '.join(empty[:_NAMED])}{more}"
    if len(shown) < max(fewest, len(files) / 2):
        raise InputError(
            f"{len(empty)} of {len(files)} images show almost nothing, or nothing new: {named}. "
            f"Expected at least {fewest} images, and half of all, that show something, since the "
            "ranges of empty images fit no others: calibrate on images like those that the model "
            "will see"
        )
    return f"{len(empty)} of {len(files)} images show almost nothing, or nothing new: {named}"


def _small(image: UInt8, side: int) -> Float32:
    """An image made smaller, each value the mean of an area: noise fades, and is not rounded."""
    size = (min(image.shape[1], side), min(image.shape[0], side))
    small = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _structure(small: Float32) -> float:
    """How much more blocks differ than their pixels' differences explain: 1 of noise."""
    height, width = (side // _BLOCKS for side in small.shape[:2])
    cut = small[: height * _BLOCKS, : width * _BLOCKS]
    blocks = cut.reshape(_BLOCKS, height, _BLOCKS, width, 3).astype(np.float64)
    means = blocks.mean((1, 3), keepdims=True)
    within = np.square(blocks - means).mean()
    between = means.var((0, 2)).mean()
    return float(height * width * between / max(within, 1e-9))


def _vector(image: UInt8) -> Float32:
    """What is compared: without brightness and contrast."""
    small = cv2.resize(_small(image, _SIDE), (_COMPARED, _COMPARED), interpolation=cv2.INTER_AREA)
    flat = small.ravel() - small.mean()
    return np.asarray(flat / np.sqrt(np.square(flat).mean()), np.float32)


def _is_same(a: Float32, b: Float32) -> bool:
    return bool(np.sqrt(np.square(a - b).mean()) < _LEAST_DIFFERENCE)
