"""Label guidance: cross-entropy at every head (Zhao et al., arXiv 1704.08545, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from icnet_deploy.labels import IGNORE


def label_guidance(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of the heads' losses, each a float scalar; a weight a head."""
    total = torch.zeros_like(losses[0])
    for loss, weight in zip(losses, weights, strict=False):
        total = total + weight * loss
    return total


def head_losses(
    heads: Sequence[Tensor],
    target: Tensor,
    class_weights: Tensor | None = None,
    merged: Sequence[tuple[int, ...]] = (),
    hard_pixels: float = 1.0,
    share: Callable[[Tensor], Tensor] = lambda weight: weight,
) -> list[Tensor]:
    """The cross-entropy of every head.

    Labels are brought to each head's size by nearest neighbour at aligned corners, as the logits
    are: averaging them would make classes that are not there.

    Args:
        heads: float N x C x h x w each, the finest first.
        target: int64 N x H x W; 0..C-1, C + i for "any of `merged[i]`", 255 ignored.
        class_weights: float, C + len(merged), or None.
        merged: sets of classes whose probabilities are summed.
        hard_pixels: the share of each image's labelled pixels that counts, 0..1: those of the
            largest loss (online hard example mining, Shrivastava et al., arXiv 1604.03540).
        share: from this process's sum of weights to the one to divide by, where several processes
            share a batch: the mean over all of them, so that their averaged gradients are those
            of the whole batch.

    Returns:
        A float scalar a head, the mean over the pixels that count; 0 where every pixel is ignored.
    """
    losses = []
    for logits in heads:
        # Half precision is too coarse for sums over many pixels.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_p = F.log_softmax(logits.to(dtype), dim=1)
        groups = [torch.logsumexp(log_p[:, list(m)], dim=1, keepdim=True) for m in merged]
        log_p = torch.cat([log_p, *groups], dim=1) if groups else log_p
        small = nearest_labels(target, (logits.shape[2], logits.shape[3]))
        known = small != IGNORE
        index = small.where(known, 0)
        loss = -log_p.gather(1, index[:, None])[:, 0]
        weight = known.to(dtype) if class_weights is None else class_weights[index] * known
        if hard_pixels < 1:
            weight = weight * _hardest((loss * weight).detach(), known, hard_pixels)
        # Not 0 / 0 where nothing is known, and still part of the graph: every process of several
        # must have a gradient for every parameter.
        losses.append((loss * weight).sum() / share(weight.sum().detach()).clamp(min=1e-6))
    return losses


def _hardest(loss: Tensor, known: Tensor, part: float) -> Tensor:
    """Float N x h x w, 1 at the `part` of each image's known pixels that have the largest loss."""
    keep = torch.zeros_like(loss)
    for image, (values, mask) in enumerate(zip(loss, known, strict=True)):
        count = int(part * int(mask.sum()))
        if count:
            flat = values.masked_fill(~mask, -1).flatten()
            keep[image].view(-1)[flat.topk(count, sorted=False).indices] = 1
    return keep


def nearest_labels(target: Tensor, size: tuple[int, int]) -> Tensor:
    """int64 N x H x W to N x h x w: the label nearest to each corner-aligned position."""
    rows, cols = (
        torch.linspace(0, full - 1, part, device=target.device).round().long()
        for full, part in zip(target.shape[1:], size, strict=True)
    )
    return target[:, rows[:, None], cols]
