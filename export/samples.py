"""The images that an export is measured and checked on, loaded when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.images import read_image, resize_image

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]

_TOGETHER = 2  # images a batch: enough to prove the batch axis, and no more memory than that
_DRAWN = 2


class Samples(Sequence[list[UInt8]]):
    """Batches of at most two images of one size, uint8 H x W x 3, RGB, resized as `Predictor` does.

    Two drawn scenes for each size; then the images, at the first size. However many there are, one
    batch is in memory at a time.

    Args:
        sizes: each (height, width) in pixels that the graph is run at.
        images: files.

    Raises:
        ImageError: a file is not an image; all are read once, before the long work.
    """

    def __init__(self, sizes: Sequence[Size], images: Sequence[Path] = ()) -> None:
        for path in images:
            read_image(path)
        self._batches: list[tuple[Size, tuple[int | Path, ...]]] = [
            (size, tuple(range(_DRAWN))) for size in sizes
        ]
        for start in range(0, len(images), _TOGETHER):
            self._batches.append((sizes[0], tuple(images[start : start + _TOGETHER])))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[UInt8]:  # type: ignore[override]
        size, sources = self._batches[index]
        return [_load(source, size) for source in sources]

    def __iter__(self) -> Iterator[list[UInt8]]:
        return (self[index] for index in range(len(self)))


def _load(source: int | Path, size: Size) -> UInt8:
    if isinstance(source, int):
        return draw_scene((0, source), size).image
    return resize_image(read_image(source), size)
