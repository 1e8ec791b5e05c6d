"""How many pixels lie from logit to logit, measured by running the network without numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

Size = tuple[int, int]

_LARGE = (4097, 8193)
"""Here one number alone gives a grid; at small sizes several may."""

ANY_SIZE: Sequence[Size] = tuple((64 + i, 80 + i) for i in range(16))
"""Sizes whose sides have every remainder of 32, for a graph that takes any."""


def stride_of(network: nn.Module, sizes: Sequence[Size]) -> int | None:
    """The s with which a network's logits are ceil(H / s) x ceil(W / s) at all these sizes.

    Args:
        network: float N x 3 x H x W to N x C x h x w; it is copied, not changed.
        sizes: (height, width) in pixels.

    Returns:
        None if there is no such whole number, as of PSPNet, whose pool rounds up: 1024 pixels are
        65 times 16 there, 1025 are, too.
    """
    twin = copy.deepcopy(network).to("meta").eval()

    def grid(size: Size) -> Size:
        with torch.no_grad():
            logits = twin(torch.empty(1, 3, *size, device="meta"))
        return int(logits.shape[2]), int(logits.shape[3])

    stride = round((_LARGE[0] - 1) / max(1, grid(_LARGE)[0] - 1))
    for size in (_LARGE, *sizes):
        if grid(size) != (-(-size[0] // stride), -(-size[1] // stride)):
            return None
    return stride
