"""From logits on a coarse grid to the label map at any size, without the dense tensor of logits.

Bilinear interpolation takes convex combinations. Where one class wins at all four corners of a
cell of the grid it wins everywhere inside, so only the pixels of cells whose corners disagree are
interpolated. Ties go to the lowest class index, as `argmax` has it; that carries over, too: where
an inner pixel ties class k with a lower j, j ties k at each corner of weight, and would have won
there.

native/labelmap.c is the fast way, where installation could compile it. NumPy serves where it could
not, and says what the compiled way must return, to the byte. docs/deploy.md tells more.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import NotFinite
from icnet_deploy.metadata import UPSAMPLINGS
from icnet_deploy.runtime.ahead import helped
from icnet_deploy.runtime.cores import usable_cores
from icnet_deploy.runtime.grid import (
    Axis,
    Float32,
    Index,
    axes,
    blocks,
    interpolated,
    refuse_not_finite,
)

UInt8 = npt.NDArray[np.uint8]
_NATIVE = Path(__file__).with_name("native")
_Run = Callable[["_Job", int, ctypes.c_int], int]
_Where = tuple[Axis, Axis]

# Large enough that NumPy's own overhead vanishes, small enough for a core's cache: values of one
# class in a block of rows. Of all classes of some cells: as many as let logits, label map and
# working arrays stay below 1.5 times the logits, within these bounds; flat around the larger.
_PLANE = 1 << 14
_VALUES = (1 << 12, 1 << 17)
_SMALL_PLANE = 1000

# Logits that cannot be read where they lie are copied as float32 a band of the grid at a time: of
# so many bytes, or of this share of the logits if that is more.
_BAND_BYTES = 1 << 19
_BAND_SHARE = 1 / 8

# Past this share of mixed cells, or this many pixels a cell, the dense way is the faster one.
_MIXED_SHARE = 0.5
_CELL_PIXELS = 400

# Threads beyond this many wait for memory; fewer pixels than this are not worth waking one for, and
# fewer bytes of logits not the working memory of one (0.5 KiB a class).
_MOST_THREADS = 8
_THREAD_PIXELS = 1 << 18
_THREAD_BYTES = 1 << 20


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
            where it lies, channels first or last; other types are copied to it, a band of the grid
            at a time.
        size: (height, width) of the label map in pixels, each at least 1.
        threads: how many threads the compiled way uses: 1 is the calling one alone. None: as many
            as the process may use cores, at most 8, and fewer for a small label map or few logits.
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
        _label(logits, labels, threads, upsampling, run)
        return labels
    batch = np.empty((len(logits), *size), np.uint8)
    for one, labels in zip(logits, batch, strict=True):
        _label(one, labels, threads, upsampling, run)
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
    _check_shape(logits)
    rows, columns = axes(logits.shape[1:], size, upsampling)
    refuse_not_finite(logits)
    labels = np.empty(size, np.uint8)
    for block in blocks(size[0], size[1], _PLANE):
        labels[block] = _dense(logits, rows, columns, block)
    return labels


def _check_shape(logits: npt.NDArray[Any]) -> None:
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[0] > 255:
        raise ValueError(f"expected logits C x h x w with C <= 255, got shape {logits.shape}")


def _label(
    logits: npt.NDArray[Any],
    labels: UInt8,
    threads: int | None,
    upsampling: str,
    run: _Run | None,
) -> None:
    """Fills the label map of one image."""
    _check_shape(logits)
    rows, columns = axes(logits.shape[1:], labels.shape, upsampling)
    where = None if logits.shape[1:] == labels.shape else (rows, columns)
    if threads is None:
        enough = min(labels.size // _THREAD_PIXELS, logits.nbytes // _THREAD_BYTES)
        threads = min(usable_cores(), _MOST_THREADS, max(1, enough))
    if _is_read_in_place(logits, run):
        _fill(logits, labels, where, threads, run)
        return
    for lines, pixels, part in _bands(logits, where):
        with np.errstate(over="ignore"):  # what becomes infinite is refused where it is read
            values = np.ascontiguousarray(logits[:, lines], np.float32)
        if pixels.start == pixels.stop:
            refuse_not_finite(values)
        else:
            _fill(values, labels[pixels], part, threads, run)
        del values  # before there is the next band's


def _is_read_in_place(logits: npt.NDArray[Any], run: _Run | None) -> bool:
    if logits.dtype != np.float32 or not logits.flags.aligned:
        return False
    if run is None:
        return logits.flags.c_contiguous
    return not any(stride % logits.itemsize for stride in logits.strides)


def _bands(
    logits: npt.NDArray[Any], where: _Where | None
) -> Iterator[tuple[slice, slice, _Where | None]]:
    """Bands of the grid: its rows, those of the label map's pixels, and how these lie on those."""
    _, height, width = logits.shape
    most = max(_BAND_BYTES, int(logits.nbytes * _BAND_SHARE)) // np.dtype(np.float32).itemsize
    if where is None:
        for lines in blocks(height, len(logits) * width, most):
            yield lines, lines, None
        return
    rows, columns = where
    for cells in blocks(rows.cells, len(logits) * width, most):
        lines = slice(cells.start, cells.stop + rows.step)
        pixels = slice(int(rows.first[cells.start]), int(rows.first[cells.stop]))
        yield lines, pixels, (rows.part(cells.start, cells.stop), columns)


def _fill(
    values: Float32, labels: UInt8, where: _Where | None, threads: int, run: _Run | None
) -> None:
    """As `_label`, of logits that are read where they lie; `where` is None if each is a pixel."""
    if run is None:
        _numpy(values, labels, where)
    else:
        _share(run, _job(values, labels, where), len(labels), threads)


class _Job(ctypes.Structure):
    """labelmap.c's Job."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("logits", "row_weight", "column_weight")),
        *((name, ctypes.c_void_p) for name in ("row_first", "column_first", "labels")),
        *((name, ctypes.c_ssize_t) for name in ("classes", "h", "w", "height", "width")),
        *((name, ctypes.c_ssize_t) for name in ("class_step", "row_step", "column_step")),
    ]
    arrays: tuple[npt.NDArray[Any] | None, ...]  # that they live as long as what points into them


def _job(values: Float32, labels: UInt8, where: _Where | None) -> _Job:
    lines: list[npt.NDArray[Any] | None] = [None] * 4
    if where is not None:
        rows, columns = where
        lines = [rows.weight, columns.weight, rows.first, columns.first]
    arrays = (values, *lines, labels)
    addresses = (None if array is None else array.ctypes.data for array in arrays)
    steps = (stride // values.itemsize for stride in values.strides)
    job = _Job(*addresses, *values.shape, *labels.shape, *steps)
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
    codes = helped(lambda: run(job, band, taken), threads - 1, _pool)
    if 2 in codes:
        raise NotFinite
    if any(codes):
        raise MemoryError("not enough memory for the working arrays of the label map")


@cache
def _pool() -> ThreadPoolExecutor:
    """Starts a thread when one is first needed, and keeps it."""
    return ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="label-map")


if hasattr(os, "register_at_fork"):  # a forked child has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _compiled(folder: Path = _NATIVE) -> tuple[_Run | None, str]:
    """labelmap.c's function, or None, and why. Looked for once."""
    for path in filter(isfile, (folder / f"labelmap{end}" for end in EXTENSION_SUFFIXES)):
        return _load(path)
    return None, (
        "labelmap.c is not compiled, because no C compiler worked when icnet-deploy was "
        "installed: install a compiler (such as gcc), then install icnet-deploy again"
    )


def _load(path: Path) -> tuple[_Run | None, str]:
    try:
        # The number rises with what is passed or promised: an older build is then not called.
        run = ctypes.CDLL(str(path.absolute())).icnet_label_bands_4
    except (OSError, AttributeError) as error:
        return None, f"{path.name} does not load ({error}): install icnet-deploy again"
    run.argtypes = [ctypes.POINTER(_Job), ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_int)]
    run.restype = ctypes.c_int
    return run, f"loaded from {path}"


def _numpy(values: Float32, labels: UInt8, where: _Where | None) -> None:
    """As the compiled function, to the byte, in a few MiB of memory."""
    corner = labels if where is None else np.empty(values.shape[1:], np.uint8)
    height, width = corner.shape
    for block in blocks(height, width, _PLANE):
        part = values[:, block]
        refuse_not_finite(part)
        corner[block] = _argmax(part)
    if where is None:
        return
    rows, columns = where
    mixed = _mixed(corner, rows, columns)
    dense = mixed.any() and (mixed.mean() > _MIXED_SHARE or labels.size > _CELL_PIXELS * mixed.size)
    height, width = labels.shape
    for block in blocks(height, width, _PLANE):
        labels[block] = _spread(corner, rows, columns, block)
        if dense:
            there = _spread(mixed, rows, columns, block)
            if there.any():
                np.copyto(labels[block], _dense(values, rows, columns, block), where=there)
    if dense:
        return
    cell_rows, cell_columns = np.nonzero(mixed)
    spare = (values.nbytes // 2 - labels.nbytes) // 64  # 9 arrays of 4 bytes, and small ones
    most = min(max(spare, _VALUES[0]), _VALUES[1])
    for chunk in blocks(len(cell_rows), len(values), most):
        _fill_cells(labels, values, rows, columns, cell_rows[chunk], cell_columns[chunk])


def _argmax(values: Float32) -> UInt8:
    """The lowest index of the maximum over axis 0, faster than `argmax` where planes are large."""
    if values[0].size < _SMALL_PLANE:
        return np.asarray(values.argmax(axis=0), np.uint8)
    best = values[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(values)):
        labels[values[index] > best] = index
        np.maximum(best, values[index], out=best)
    return labels


def _mixed(corner: UInt8, rows: Axis, columns: Axis) -> npt.NDArray[np.bool_]:
    """Which cells have corners of different classes: rows.cells x columns.cells."""
    near, far = corner[: rows.cells], corner[rows.step :]
    left, right = slice(0, columns.cells), slice(columns.step, None)
    first = near[:, left]
    others = (near[:, right], far[:, left], far[:, right])
    differs: npt.NDArray[np.bool_] = np.logical_or.reduce([first != other for other in others])
    return differs


def _spread(corner: npt.NDArray[Any], rows: Axis, columns: Axis, block: slice) -> npt.NDArray[Any]:
    """Gives the pixels of a block of rows what stands at their cell's near corner."""
    return corner[rows.cell[block]].take(columns.cell, axis=1)


def _fill_cells(
    labels: UInt8, values: Float32, rows: Axis, columns: Axis, cell_row: Index, cell_column: Index
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
        left, right = near_left * (1 - weight), near_right * (1 - weight)
        left += far_left * weight
        right += far_right * weight
        for dx in range(int(count_x.max(initial=0))):
            here = np.flatnonzero((dy < count_y) & (dx < count_x))
            if not len(here):
                continue
            x = first_x[here] + dx
            weight = columns.weight[x]
            every = len(here) == len(cell_row)
            blend = (left if every else left.take(here, axis=1)) * (1 - weight)
            blend += (right if every else right.take(here, axis=1)) * weight
            labels[y[here], x] = _argmax(blend)


def _dense(values: npt.NDArray[Any], rows: Axis, columns: Axis, block: slice) -> UInt8:
    """A block of rows of the label map, every class interpolated at every pixel."""
    best = interpolated(values[0], rows, columns, block)
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(values)):
        blend = interpolated(values[index], rows, columns, block)
        labels[blend > best] = index
        np.maximum(best, blend, out=best)
        del blend  # before there is the next one
    return labels
