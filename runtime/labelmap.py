"""From logits on a coarse grid to the label map at any size, without the dense tensor of logits.

Bilinear interpolation takes convex combinations. Where one class wins at all four corners of a
cell of the grid it wins everywhere inside, so only the pixels of cells whose corners disagree are
interpolated. Ties go to the lowest class index, as `argmax` has it; that carries over, too: where
an inner pixel ties class k with a lower j, j ties k at each corner of weight, and would have won
there.

native/labelmap.c is the fast way, where installation could compile it. NumPy serves where it could
not, and says what the compiled way must return, to the byte. docs/label-map.md tells more.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import NotFinite
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.runtime.cores import usable_cores

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
_NATIVE = Path(__file__).with_name("native")
_Run = Callable[["_Job", int, ctypes.c_int], int]

# Large enough that NumPy's own overhead vanishes, small enough for a core's cache (and for any
# memory: a few MiB besides the label map). The best of the powers of two measured, flat around.
_CELLS = 8192
_ROWS = 32

# Past this share of mixed cells, or this many pixels a cell, the dense way is the faster one.
_MIXED_SHARE = 0.5
_CELL_PIXELS = 400

# Threads beyond this many wait for memory; fewer pixels than this are not worth waking one for.
_MOST_THREADS = 8
_THREAD_PIXELS = 1 << 18


@dataclass(frozen=True)
class _Axis:
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


@lru_cache(maxsize=16)
def _axis(grid: int, pixels: int, upsampling: str) -> _Axis:
    """Divides in whole numbers: a float32 scale would be off by up to 1e-4 of a cell.

    Raises:
        ValueError: there is no such rule, or the grid has another size than the rule needs.
    """
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"unknown upsampling {upsampling!r}; known: {', '.join(UPSAMPLINGS)}")
    if upsampling == "none" and grid != pixels:
        raise ValueError(
            f"the network's logits are not upsampled, so that {grid} of them are no {pixels} "
            "pixels: make the label map at their own size, and resize it"
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
    return _Axis(cells, cell, weight, first, np.diff(first), min(grid - 1, 1))


def label_map(
    logits: npt.NDArray[Any],
    size: tuple[int, int],
    threads: int | None = None,
    *,
    upsampling: str = UPSAMPLINGS[0],
) -> UInt8:
    """The class of largest logit at every pixel, the logits interpolated bilinearly.

    Several threads may call it at once.

    Args:
        logits: float, C x h x w or N x C x h x w, 1 <= C <= 255, finite as float32. Float32 is read
            where it lies, channels first or last; other types are copied to it.
        size: (height, width) of the label map in pixels, each at least 1.
        threads: how many threads the compiled way uses: 1 is the calling one alone. None: as many
            as the process may use cores, at most 8, and fewer for a small label map.
        upsampling: where the logits lie in the label map: `aligned-corners`, the centres of both
            ones' corners on one another; `half-pixel`, their edges (PyTorch's
            `align_corners=False`), the outermost logits repeated; `none`, each is a pixel.

    Returns:
        uint8, H x W or N x H x W, in 0..C-1. What `label_map_dense` returns, save where float32
        rounding makes a tie of two classes that exact arithmetic tells apart.

    Raises:
        NotFinite: a logit is infinite or not a number, be it the largest at its point or not, and
            be there a pixel beside it or, in a label map smaller than the grid, none.
        ValueError: the logits have another shape, `threads` is below 1, there is no such rule, or
            it is `none` and `size` is not the grid's. `NotFinite` is one, too.
    """
    return _label_map(logits, size, threads, upsampling, _compiled()[0])


def _label_map(
    logits: npt.NDArray[Any],
    size: tuple[int, int],
    threads: int | None,
    upsampling: str,
    run: _Run | None,
) -> UInt8:
    """As `label_map`, by the compiled function, or without one by NumPy."""
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, or None, got {threads}")
    if logits.ndim != 4:
        labels = np.empty(size, np.uint8)
        _label(_checked(logits), labels, threads, upsampling, run)
        return labels
    batch = np.empty((len(logits), *size), np.uint8)
    for one, labels in zip(logits, batch, strict=True):
        _label(_checked(one), labels, threads, upsampling, run)
    return batch


def kind() -> tuple[str, str]:
    """Which way `label_map` goes in this process: ("compiled" or "numpy", a sentence why)."""
    run, why = _compiled()
    return ("numpy" if run is None else "compiled"), why


def label_map_dense(
    logits: npt.NDArray[Any], size: tuple[int, int], *, upsampling: str = UPSAMPLINGS[0]
) -> UInt8:
    """As `label_map`, by interpolating every class at every pixel, a few rows at a time.

    The plain statement of what `label_map` must return, and without a compiler the faster way
    where most cells are mixed. It raises what `label_map` does.
    """
    if logits.ndim == 4:
        return np.stack([label_map_dense(one, size, upsampling=upsampling) for one in logits])
    values = np.ascontiguousarray(_checked(logits))
    axes = _axes(values, size, upsampling)
    _refuse_not_finite(values)
    return _dense(values, *axes)


def _axes(values: Float32, size: tuple[int, int], upsampling: str) -> tuple[_Axis, _Axis]:
    """Rows, and columns."""
    _, height, width = values.shape
    return _axis(height, size[0], upsampling), _axis(width, size[1], upsampling)


def _checked(logits: npt.NDArray[Any]) -> Float32:
    """Float32 in the order of memory that it has."""
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[0] > 255:
        raise ValueError(f"expected logits C x h x w with C <= 255, got shape {logits.shape}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused where it is read
        return logits.astype(np.float32, copy=False)


def _refuse_not_finite(values: Float32) -> None:
    """Both ends of the values: NaN is either's, and no array is made of as many truth values."""
    if not np.isfinite([values.min(), values.max()]).all():
        raise NotFinite


def _label(
    values: Float32, labels: UInt8, threads: int | None, upsampling: str, run: _Run | None
) -> None:
    """Fills the label map of one image."""
    height, width = labels.shape
    rows, columns = _axes(values, (height, width), upsampling)
    if run is None:
        labels[:] = _numpy(np.ascontiguousarray(values), rows, columns)
        return
    if threads is None:
        threads = min(usable_cores(), _MOST_THREADS, max(1, labels.size // _THREAD_PIXELS))
    _share(run, _job(values, labels, rows, columns), height, threads)


class _Job(ctypes.Structure):
    """labelmap.c's Job."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("logits", "row_weight", "column_weight")),
        *((name, ctypes.c_void_p) for name in ("row_first", "column_first", "labels")),
        *((name, ctypes.c_ssize_t) for name in ("classes", "h", "w", "height", "width")),
        *((name, ctypes.c_ssize_t) for name in ("class_step", "row_step", "column_step")),
    ]
    arrays: tuple[npt.NDArray[Any], ...]  # that they live as long as what points into them


def _job(values: Float32, labels: UInt8, rows: _Axis, columns: _Axis) -> _Job:
    if any(stride % values.itemsize for stride in values.strides) or not values.flags.aligned:
        values = np.ascontiguousarray(values)
    arrays = (values, rows.weight, columns.weight, rows.first, columns.first, labels)
    steps = (stride // values.itemsize for stride in values.strides)
    job = _Job(*(array.ctypes.data for array in arrays), *values.shape, *labels.shape, *steps)
    job.arrays = arrays
    return job


def _share(run: _Run, job: _Job, height: int, threads: int) -> None:
    """Threads take bands of rows until none is left.

    The calling thread works, too, and waits for no thread that has not begun by then: the others
    may be busy with somebody else's label map, or their processor with another process.
    """
    bands = 1 if threads == 1 else 4 * threads
    band = max(1, -(-height // bands))
    taken = ctypes.c_int(0)
    helpers = [_pool().submit(run, job, band, taken) for _ in range(threads - 1)]
    codes = [run(job, band, taken)]
    codes += [helper.result() for helper in helpers if not helper.cancel()]
    if 2 in codes:
        raise NotFinite
    if any(codes):
        raise MemoryError("no memory for the label map's working arrays")


@cache
def _pool() -> ThreadPoolExecutor:
    """Starts a thread when one is first needed, and keeps it."""
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="label-map")


if hasattr(os, "register_at_fork"):  # a forked child has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _compiled(folder: Path = _NATIVE) -> tuple[_Run | None, str]:
    """labelmap.c's function, or None, and why. Looked for once."""
    for path in filter(Path.is_file, (folder / f"labelmap{end}" for end in EXTENSION_SUFFIXES)):
        return _load(path)
    return None, (
        "labelmap.c is not compiled: no C compiler worked when icnet-deploy was installed; "
        "install one (such as gcc), then icnet-deploy again"
    )


def _load(path: Path) -> tuple[_Run | None, str]:
    try:
        # The number rises with what is passed or promised: an older build is then not called.
        run = ctypes.CDLL(str(path.absolute())).icnet_label_bands_3
    except (OSError, AttributeError) as error:
        return None, f"{path.name} does not load ({error}): install icnet-deploy again"
    run.argtypes = [ctypes.POINTER(_Job), ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_int)]
    run.restype = ctypes.c_int
    return run, f"labelmap.c, compiled at installation, is loaded from {path}"


def _numpy(values: Float32, rows: _Axis, columns: _Axis) -> UInt8:
    _refuse_not_finite(values)
    corner = _argmax(values)
    labels = _spread(corner, rows, columns)
    mixed = _mixed(corner, rows, columns)
    largest = int(rows.count.max()) * int(columns.count.max())
    if mixed.any() and (mixed.mean() > _MIXED_SHARE or largest > _CELL_PIXELS):
        dense = _dense(values, rows, columns)
        np.copyto(labels, dense, where=_spread(mixed, rows, columns))
        return labels
    cell_rows, cell_columns = np.nonzero(mixed)
    for start in range(0, len(cell_rows), _CELLS):
        chunk = slice(start, start + _CELLS)
        _fill_cells(labels, values, rows, columns, cell_rows[chunk], cell_columns[chunk])
    return labels


def _argmax(values: Float32) -> UInt8:
    """The lowest index of the maximum over axis 0, faster than `argmax` where that axis is slow."""
    best = values[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(values)):
        labels[values[index] > best] = index
        np.maximum(best, values[index], out=best)
    return labels


def _mixed(corner: UInt8, rows: _Axis, columns: _Axis) -> npt.NDArray[np.bool_]:
    """Which cells have corners of different classes: rows.cells x columns.cells."""
    near, far = corner[: rows.cells], corner[rows.step :]
    left, right = slice(0, columns.cells), slice(columns.step, None)
    first = near[:, left]
    others = (near[:, right], far[:, left], far[:, right])
    differs: npt.NDArray[np.bool_] = np.logical_or.reduce([first != other for other in others])
    return differs


def _spread(corner: npt.NDArray[Any], rows: _Axis, columns: _Axis) -> npt.NDArray[Any]:
    """Gives every pixel what stands at its cell's near corner."""
    return corner[: rows.cells].take(columns.cell, axis=1).take(rows.cell, axis=0)


def _fill_cells(
    labels: UInt8, values: Float32, rows: _Axis, columns: _Axis, cell_row: Index, cell_column: Index
) -> None:
    """Works out the pixels of some cells, given by row and column, and writes them to `labels`.

    All cells' pixels of one offset (dy, dx) at a time: arrays of C x (number of cells).
    """
    width = values.shape[2]
    flat = values.reshape(len(values), -1)
    at = cell_row * width + cell_column
    corners = [
        flat.take(at + dy * width + dx, axis=1) for dy in (0, rows.step) for dx in (0, columns.step)
    ]
    first_y, count_y = rows.first[cell_row], rows.count[cell_row]
    first_x, count_x = columns.first[cell_column], columns.count[cell_column]
    for dy in range(int(count_y.max(initial=0))):
        near_left, near_right, far_left, far_right = corners
        y = first_y + dy
        weight = rows.weight.take(y, mode="clip")
        left = near_left * (1 - weight) + far_left * weight
        right = near_right * (1 - weight) + far_right * weight
        for dx in range(int(count_x.max(initial=0))):
            here = np.flatnonzero((dy < count_y) & (dx < count_x))
            if not len(here):
                continue
            x = first_x[here] + dx
            weight = columns.weight[x]
            if len(here) == len(cell_row):
                blend = left * (1 - weight) + right * weight
            else:
                blend = left.take(here, axis=1) * (1 - weight) + right.take(here, axis=1) * weight
            labels[y[here], x] = _argmax(blend)


def _dense(values: Float32, rows: _Axis, columns: _Axis) -> UInt8:
    labels = np.empty((len(rows.cell), len(columns.cell)), np.uint8)
    for start in range(0, len(rows.cell), _ROWS):
        block = slice(start, start + _ROWS)
        cell, weight = rows.cell[block], rows.weight[block, None]
        best = None
        for index, plane in enumerate(values):
            lines = plane[cell] * (1 - weight) + plane[cell + rows.step] * weight
            blend = lines.take(columns.cell, axis=1) * (1 - columns.weight)
            blend += lines.take(columns.cell + columns.step, axis=1) * columns.weight
            if best is None:
                best = blend
                labels[block] = 0
            else:
                labels[block][blend > best] = index
                np.maximum(best, blend, out=best)
    return labels
