"""How sure a network is of each pixel: the softmax share of the class that the label map names.

Nothing of it is kept or worked out until somebody asks. Rows of pixels are worked on a few at a
time, so that it takes a few MiB beside the logits and the answer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import InputError
from icnet_deploy.metadata import UPSAMPLINGS, ArtefactMetadata
from icnet_deploy.runtime.grid import Float32, axes, blocks, interpolated, refuse_not_finite

_VALUES = 1 << 18
"""Values of all classes that are worked on at once, unless one row of pixels has more: 1 MiB."""


def require_logits(metadata: ArtefactMetadata) -> None:
    """Refuses a model of whose label maps nothing tells how sure they are.

    Raises:
        InputError: its head is `labels`.
    """
    if metadata.head != "logits":
        raise InputError(
            "this model has the head 'labels': it gives classes, but no confidence; export the "
            "network with --head logits"
        )


def confidence_map(
    logits: npt.NDArray[Any], size: tuple[int, int], *, upsampling: str = UPSAMPLINGS[0]
) -> Float32:
    """The softmax share of the class that `label_map` names, at every pixel.

    The logits are interpolated as `label_map` does it, and the share of the largest is
    1 / sum(exp(v - v_max)), which does not overflow. Where classes tie, each has the same.

    Args:
        logits: float, C x h x w, 1 <= C <= 255, finite as float32, of any order in memory.
        size: (height, width) in pixels.
        upsampling: see `label_map`.

    Returns:
        float32, H x W, from 1 / C to 1.

    Raises:
        NotFinite: a logit is infinite or not a number.
        ValueError: there is no such rule, or it is `none` and `size` is not the grid's.
    """
    refuse_not_finite(logits)
    rows, columns = axes((logits.shape[1], logits.shape[2]), size, upsampling)
    upsampled = logits.shape[1:] != tuple(size)
    shares = np.empty(size, np.float32)
    for block in blocks(size[0], len(logits) * size[1], _VALUES):
        if upsampled:
            values = interpolated(logits, rows, columns, block)
        else:
            values = logits[:, block].astype(np.float32)
        shares[block] = shares_of(values)
        del values  # before there are the next ones
    return shares


def shares_of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The softmax share of the largest of logits, float, C x ...; the array is used up."""
    values -= values.max(axis=0)
    np.exp(values, out=values)
    return np.asarray(1 / values.sum(axis=0))


def unfit_shares(shares: Float32, content: tuple[int, int], size: tuple[int, int]) -> Float32:
    """Cuts off a border and resizes the rest by nearest neighbour, as `images.unfit_labels`."""
    import cv2

    inside = shares[: content[0], : content[1]]
    if inside.shape == tuple(size):
        return np.ascontiguousarray(inside)
    resized = cv2.resize(inside, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.float32)
