"""Crops that show rare classes: where an image has them, and pasting them onto another crop."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Sample

UInt8 = npt.NDArray[np.uint8]
Places = Mapping[int, npt.NDArray[np.uint16]]
"""Target -> the cells of a coarse grid that show it, by their numbers, row by row; see `places`."""

_RAREST = 10
"""By how much a class is drawn more often than one that is just rare, at most."""

_CELLS = 96
"""Of the grid along an image's longer side, at most."""

_PIXELS = 8
"""Of a class, that a cell must have: fewer are the frayed edge of something else."""


def rare_targets(shares: npt.NDArray[np.float64], most: float) -> dict[int, float]:
    """The targets that have a smaller share of the pixels than `most`, each with 1 / its share.

    None has more than `_RAREST` / `most`: what is on ten images of thousands, or is a teacher's
    mistake, would else be all that is drawn where an image has it.
    """
    rare = np.flatnonzero((shares > 0) & (shares < most))
    return {int(i): 1 / max(float(shares[i]), most / _RAREST) for i in rare}


def places(labels: UInt8, targets: Collection[int]) -> Places:
    """Where an image shows some targets.

    Args:
        labels: uint8 H x W.
        targets: those that are looked for.
    """
    import cv2

    cell = _cell(labels)
    rows, columns = (-(-side // cell) for side in labels.shape)
    there = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    size = (columns * cell, rows * cell)
    found = {}
    for target in sorted(set(targets) & set(there.tolist())):
        mask = np.zeros(size[::-1], np.float32)
        mask[: labels.shape[0], : labels.shape[1]] = labels == target
        shares = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)
        cells = np.flatnonzero(np.asarray(shares) * cell * cell > _PIXELS - 0.5)
        if len(cells):
            found[target] = cells.astype(np.uint16)
    return found


def _cell(labels: UInt8) -> int:
    """The side of a cell of an image's grid, in pixels."""
    longest: int = max(labels.shape)
    return max(8, -(-longest // _CELLS))


def aim_at(
    labels: UInt8, where: Places, weights: Mapping[int, float], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Draws a pixel of a rare class.

    Args:
        labels: uint8 H x W.
        where: `places` of them.
        weights: how often each target is drawn, of those that are there.
        rng: the source of randomness.

    Returns:
        Its (row, column); None where the image has none.
    """
    if not where:
        return None
    targets = list(where)
    chances = np.array([weights[target] for target in targets])
    target = targets[int(rng.choice(len(targets), p=chances / chances.sum()))]
    cell = _cell(labels)
    row, column = divmod(int(rng.choice(where[target])), -(-labels.shape[1] // cell))
    inside = labels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
    pixels = np.argwhere(inside == target)
    down, right = pixels[int(rng.integers(len(pixels)))].tolist()
    return row * cell + down, column * cell + right


def mixed(onto: Sample, of: Sample, targets: Collection[int], rng: np.random.Generator) -> Sample:
    """Pastes rare classes of one crop onto another of its size.

    Of those that it shows half are drawn, and one at least, as in ClassMix (Olsson et al., arXiv
    2007.07936). Their labels and weights come along.

    Args:
        onto: the crop that keeps all else.
        of: where they are taken from.
        targets: the rare ones.
        rng: the source of randomness.
    """
    there = np.flatnonzero(np.bincount(of.labels.ravel(), minlength=256))
    rare = sorted(set(targets) & set(there.tolist()))
    if not rare:
        return onto
    chosen = rng.permutation(rare)[: (len(rare) + 1) // 2]
    mask = np.isin(of.labels, chosen)
    weights = onto.weights
    if weights is not None and of.weights is not None:
        weights = np.where(mask, of.weights, weights)
    return replace(
        onto,
        image=np.where(mask[..., None], of.image, onto.image),
        labels=np.where(mask, of.labels, onto.labels),
        weights=weights,
    )
