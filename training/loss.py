"""Label guidance: cross-entropy at every head (Zhao et al., arXiv 1704.08545, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from icnet_deploy.labels import IGNORE

__all__ = ["label_guidance"]


def label_guidance(
    heads: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    class_weights: Tensor | None = None,
    merged: Sequence[tuple[int, ...]] = (),
) -> Tensor:
    """The weighted sum of the heads' cross-entropies.

    Labels are brought to each head's size by nearest neighbour at aligned corners, as the logits
    are: averaging them would make classes that are not there.

    Args:
        heads: float N x C x h x w each, the finest first.
        target: int64 N x H x W; 0..C-1, C + i for "any of `merged[i]`", 255 ignored.
        weights: a weight a head.
        class_weights: float, C + len(merged), or None.
        merged: sets of classes whose probabilities are summed.

    Returns:
        A float scalar; 0 where every pixel is ignored.
    """
    total = heads[0].new_zeros(())
    for logits, weight in zip(heads, weights, strict=False):
        log_p = F.log_softmax(logits.float(), dim=1)
        groups = [torch.logsumexp(log_p[:, list(m)], dim=1, keepdim=True) for m in merged]
        log_p = torch.cat([log_p, *groups], dim=1) if groups else log_p
        small = nearest_labels(target, (logits.shape[2], logits.shape[3]))
        if bool((small != IGNORE).any()):
            loss = F.nll_loss(log_p, small, weight=class_weights, ignore_index=IGNORE)
            total = total + weight * loss
    return total


def nearest_labels(target: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 N x H x W to N x h x w: the label nearest to each corner-aligned position."""
    rows, cols = (
        torch.linspace(0, full - 1, part, device=target.device).round().long()
        for full, part in zip(target.shape[1:], size, strict=True)
    )
    return target[:, rows[:, None], cols]
