"""How the pixels of an image lie on the coarse grid of a network's logits, axis by axis."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import NotFinite
from icnet_deploy.metadata import UPSAMPLINGS

Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Axis:
    """How the pixels of one axis lie on the grid.

    Attributes:
        cells: how many cells the grid has here, at least 1.
        cell: the cell of each pixel, ascending.
        weight: each pixel's weight of its cell's far corner, float32 in [0, 1].
        first: the first pixel of each cell, and after the last one the number of pixels.
        count: how many pixels each cell has, 0 or more.
        step: from a cell's near corner to its far one: 1, or 0 on a grid of one point.
    """

    cells: int
    cell: Index
    weight: Float32
    first: Index
    count: Index
    step: int

    def part(self, start: int, stop: int) -> "Axis":
        """That of the cells from `start` to before `stop`, as if they were the whole grid."""
        low, high = int(self.first[start]), int(self.first[stop])
        return Axis(
            stop - start,
            self.cell[low:high] - start,
            self.weight[low:high],
            self.first[start : stop + 1] - low,
            self.count[start:stop],
            self.step,
        )


def axes(grid: tuple[int, int], size: tuple[int, int], upsampling: str) -> tuple[Axis, Axis]:
    """The rows' axis and the columns'.

    Args:
        grid: (rows, columns) of logits.
        size: (height, width) of the image in pixels.
        upsampling: of `metadata.UPSAMPLINGS`.

    Raises:
        ValueError: there is no such rule, or it is `none` and the grid has another size.
    """
    return _axis(grid[0], size[0], upsampling), _axis(grid[1], size[1], upsampling)


@lru_cache(maxsize=16)
def _axis(grid: int, pixels: int, upsampling: str) -> Axis:
    """Divides in whole numbers: a float32 scale would be off by up to 1e-4 of a cell."""
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"unknown upsampling {upsampling!r}; known: {', '.join(UPSAMPLINGS)}")
    if upsampling == "none" and grid != pixels:
        raise ValueError(
            f"with upsampling 'none' each logit is one pixel, but a side has {grid} logits and "
            f"{pixels} pixels: make the label map at the size of the logits, and resize it"
        )
    cells = max(grid - 1, 1)
    pixel = np.arange(pixels, dtype=np.intp)
    if upsampling == "half-pixel":  # (pixel + 1/2) * grid / pixels - 1/2, the edges repeated
        last = 2 * pixels
        position = np.clip((2 * pixel + 1) * grid - pixels, 0, last * (grid - 1))
    else:
        last = max(pixels - 1, 1)
        position = pixel * (grid - 1)
    cell = np.minimum(position // last, cells - 1)  # the last pixel belongs to the last cell
    weight = ((position - cell * last) / last).astype(np.float32)
    first = np.searchsorted(cell, np.arange(cells + 1))
    return Axis(cells, cell, weight, first, np.diff(first), min(grid - 1, 1))


def interpolated(logits: npt.NDArray[Any], rows: Axis, columns: Axis, block: slice) -> Float32:
    """Some rows of pixels: between rows first, then between columns, in float32.

    Args:
        logits: float, ... x h x w: of one class, or of several.
        rows, columns: of `axes`.
        block: which rows of pixels.

    Returns:
        float32, ... x rows of the block x W.
    """
    cell, weight = rows.cell[block], rows.weight[block, None]
    near, far = (
        np.ascontiguousarray(logits[..., at, :], np.float32) for at in (cell, cell + rows.step)
    )
    lines = near * (1 - weight) + far * weight
    blend = lines.take(columns.cell, axis=-1)
    blend *= 1 - columns.weight
    far = lines.take(columns.cell + columns.step, axis=-1)
    far *= columns.weight
    blend += far
    return blend


def blocks(rows: int, values: int, most: int) -> Iterator[slice]:
    """Cuts rows into blocks of at most `most` values, one row at least; each has `values`."""
    step = max(1, most // max(1, values))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def refuse_not_finite(values: npt.NDArray[Any]) -> None:
    """Looks at both ends of some logits: NaN is either's, and no array of truth values is made.

    Raises:
        NotFinite: one is infinite as float32, or not a number.
    """
    with np.errstate(over="ignore"):
        ends = np.array([values.min(), values.max()]).astype(np.float32)
    if not np.isfinite(ends).all():
        raise NotFinite
