"""Large images: overlapping tiles of the model's size, whose logits are averaged.

The weight of a tile falls linearly to those of its edges that lie inside the image, so that the
label map has no seams. An average of logits has its largest where all of them have theirs: only the
pixels that the tiles label differently are interpolated and averaged, and only of the tiles that
reach the next rows are the logits kept.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import InputError
from icnet_deploy.images import check_image, pad_image
from icnet_deploy.labels import IGNORE
from icnet_deploy.metadata import ArtefactMetadata
from icnet_deploy.runtime.answer import Prediction
from icnet_deploy.runtime.backends.base import Array, Backend
from icnet_deploy.runtime.confidence import shares_of
from icnet_deploy.runtime.contract import Size
from icnet_deploy.runtime.grid import Float32, axes, blocks
from icnet_deploy.runtime.labelmap import label_map
from icnet_deploy.runtime.prediction import Serving

UInt8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]
Float64 = npt.NDArray[np.float64]

OVERLAP = 0.25
"""By how much of a tile's side neighbours overlap at least, where nothing else is asked for."""

MOST_OVERLAP = 0.75
"""A pixel is then in 16 tiles or more, and the image takes as many times as long."""

_VALUES = 1 << 18
"""Logits of all classes that are averaged at once: 2 MiB."""


def check_tiles(metadata: ArtefactMetadata, overlap: float) -> Size:
    """The size of a model's tiles, (height, width) in pixels.

    Raises:
        InputError: the model takes an image of any size, or gives no logits; or the overlap is
            none.
    """
    if metadata.size is None:
        raise InputError(
            "this model takes images of any size as a whole: leave out the tiles, or export it "
            "at a fixed size (`icnet export --size HxW` without --dynamic-size)"
        )
    if metadata.head != "logits":
        raise InputError(
            "tiles need a model with the head logits, but this model has the head "
            f"{metadata.head!r}: export it with --head logits, and name that file, not its folder"
        )
    if not 0 <= overlap <= MOST_OVERLAP:
        raise InputError(
            f"the overlap is {overlap}, expected 0 to {MOST_OVERLAP}, a share of a tile's side"
        )
    return metadata.size


def starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin on one axis, evenly spread over it.

    Args:
        side: of the image, in pixels.
        tile: the tile's, in pixels.
        overlap: by how much of its side neighbours overlap at least, 0 to 0.75.
    """
    if side <= tile:
        return [0]
    step = tile - int(overlap * tile)
    count = -(-(side - tile) // step) + 1
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


@dataclass(frozen=True)
class _Tile:
    """A tile that was run.

    Attributes:
        top, left: its place in the image.
        labels: uint8, h x w, its own label map, of what of it is image.
        logits: float, C x h x w, on its grid.
        size: (height, width) of the model.
        upsampling: the network's rule.
        weights: of its rows and of its columns, whole numbers from 1 on.
    """

    top: int
    left: int
    labels: UInt8
    logits: Array
    size: Size
    upsampling: str
    weights: tuple[Index, Index]

    @property
    def bottom(self) -> int:
        return self.top + int(self.labels.shape[0])

    @property
    def right(self) -> int:
        return self.left + int(self.labels.shape[1])

    def at(self, y: Index, x: Index) -> Float32:
        """Its logits, C x n, at n pixels of the tile, by the network's rule."""
        rows, columns = axes(self.logits.shape[1:], self.size, self.upsampling)
        top, left = rows.cell[y], columns.cell[x]
        down, across = rows.weight[y], columns.weight[x]

        def side(column: Index) -> Float32:
            near, far = self.logits[:, top, column], self.logits[:, top + rows.step, column]
            return np.asarray(near * (1 - down) + far * down, np.float32)

        return side(left) * (1 - across) + side(left + columns.step) * across


def predict_tiles(
    serving: Serving,
    backend: Backend,
    image: Any,
    overlap: float,
    progress: bool = False,
    confidence: bool = False,
) -> Prediction:
    """Labels an image of any size at its own scale; see `Predictor.predict_tiles`.

    Args:
        serving: what is done with the model.
        backend: the model.
        image: uint8, H x W x 3, RGB.
        overlap: see `starts`.
        progress: show a bar where it takes more than a second and stderr is a terminal.
        confidence: see `Predictor.predict`; of the averaged logits.
    """
    size = check_tiles(serving.metadata, overlap)
    held = serving.hold(backend, check_image(image))
    if all(own <= tile for own, tile in zip(held.size, size, strict=True)):
        return serving.finish(backend, [serving.prepare(held)], confidence=confidence)[0]
    from tqdm import tqdm

    rows, columns = map(starts, held.size, size, (overlap, overlap))
    timings = {"preprocess": held.milliseconds, "inference": 0.0, "label_map": 0.0}
    labels = np.full(held.size, IGNORE, np.uint8)
    shares = np.empty(held.size, np.float32) if confidence else None
    reaching: list[_Tile] = []
    with tqdm(
        total=len(rows) * len(columns),
        unit="tile",
        delay=1,
        leave=False,
        disable=None if progress else True,
    ) as bar:
        for top, end in pairwise((*rows, held.size[0])):
            for left in columns:
                reaching.append(_run(serving, backend, held.image, (top, left), timings))
                bar.update()
            start = time.perf_counter()
            _join(labels[top:end], top, reaching)
            joined = time.perf_counter()
            timings["label_map"] += (joined - start) * 1e3
            if shares is not None:
                _share(shares[top:end], top, reaching)
                passed = (time.perf_counter() - joined) * 1e3
                timings["confidence"] = timings.get("confidence", 0.0) + passed
            reaching = [tile for tile in reaching if tile.bottom > end]
    timings["total"] = sum(timings.values())

    def again(image: UInt8) -> Float32:
        """For whom the confidence is asked later."""
        backend = serving.open_backend()
        return predict_tiles(serving, backend, image, overlap, confidence=True).confidence

    answered = again if shares is None else shares
    return Prediction(labels, serving.metadata.label_set, timings, held.image, answered)


def _run(
    serving: Serving, backend: Backend, image: UInt8, corner: Size, timings: dict[str, float]
) -> _Tile:
    """Runs one tile, and adds its milliseconds; what of it is no image has the border's colour."""
    start = time.perf_counter()
    top, left = corner
    size, rule = serving.metadata.size, serving.metadata.upsampling
    assert size is not None
    cut = image[top : top + size[0], left : left + size[1]]
    pixels = pad_image(cut, size, serving.fitting.border)
    prepared = time.perf_counter()
    (logits,), milliseconds = serving.answer(backend, [pixels])
    answered = time.perf_counter()
    labels = label_map(logits, size, serving.threads, upsampling=rule)
    ends = zip(corner, cut.shape, image.shape, strict=False)
    height, width = (
        _weights(length, first > 0, first + length < side) for first, length, side in ends
    )
    timings["preprocess"] += (prepared - start) * 1e3
    timings["inference"] += milliseconds
    timings["label_map"] += (time.perf_counter() - answered) * 1e3
    own = labels[: cut.shape[0], : cut.shape[1]]
    # A copy: the runtime may use its memory for the next tile.
    return _Tile(top, left, own, logits.copy(), size, rule, (height, width))


def _weights(length: int, before: bool, after: bool) -> Index:
    """How far each pixel of an axis is from the nearer of the edges that have a neighbour.

    In whole numbers, so that what all tiles agree on is exactly that of each.
    """
    up = np.arange(1, length + 1)
    weights = np.full(length, length)
    if before:
        weights = np.minimum(weights, up)
    if after:
        weights = np.minimum(weights, up[::-1])
    return weights


def _join(band: UInt8, top: int, tiles: Sequence[_Tile]) -> None:
    """Fills a band of rows of the label map, which holds `IGNORE`, from the tiles that reach it."""
    mixed = np.zeros(band.shape, bool)
    for tile in tiles:
        first, last = max(tile.top, top), min(tile.bottom, top + len(band))
        part = slice(first - top, last - top), slice(tile.left, tile.right)
        own, there = tile.labels[first - tile.top : last - tile.top], band[part]
        empty = there == IGNORE
        mixed[part] |= (own != there) & ~empty
        np.copyto(there, own, where=empty)
    rows, columns = np.nonzero(mixed)
    for some in blocks(len(rows), len(tiles[0].logits), _VALUES):
        y, x = rows[some], columns[some]
        total, _ = _weighted(tiles, y + top, x)
        band[y, x] = total.argmax(axis=0)


def _share(band: Float32, top: int, tiles: Sequence[_Tile]) -> None:
    """Fills a band of rows of the confidence from the tiles that reach it."""
    height, width = band.shape
    flat = band.reshape(-1)
    for some in blocks(height * width, len(tiles[0].logits), _VALUES):
        y, x = np.divmod(np.arange(some.start, some.stop), width)
        total, weight = _weighted(tiles, y + top, x)
        flat[some] = shares_of(total / weight)


def _weighted(tiles: Sequence[_Tile], y: Index, x: Index) -> tuple[Float64, Index]:
    """At n pixels of the image the sum of the tiles' logits, C x n, and that of their weights.

    The latter is the same for all classes, so that the largest sum is the largest average.
    """
    total = np.zeros((len(tiles[0].logits), len(y)))
    weights = np.zeros(len(y), np.intp)
    for tile in tiles:
        inside = (tile.top <= y) & (y < tile.bottom) & (tile.left <= x) & (x < tile.right)
        here = np.flatnonzero(inside)
        if len(here):
            row, column = y[here] - tile.top, x[here] - tile.left
            weight = tile.weights[0][row] * tile.weights[1][column]
            weights[here] += weight
            total[:, here] += tile.at(row, column) * weight.astype(np.float64)
    return total, weights
