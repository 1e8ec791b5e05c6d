"""A module that knows nothing of this product, as a `SegmentationNetwork`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icnet_deploy.networks.base import SegmentationNetwork


class Adapted(SegmentationNetwork):
    """A PyTorch module whose answer, whatever form it has, is logits.

    Args:
        module: takes float N x 3 x H x W; answers with a tensor, a tuple or list (the first is the
            logits), a mapping (`out`), or an object with `logits`.
        described: what `description` gives.
        num_classes: how many classes there are; two for one channel of logits.
        threshold: of one channel of logits, where the second class begins; None: it has several.
    """

    def __init__(
        self,
        module: nn.Module,
        described: Mapping[str, Any],
        num_classes: int,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.module, self.num_classes = module, num_classes
        self.threshold = threshold
        self._described = dict(described)
        self._stride: int | None = None

    @property
    def stride(self) -> int | None:
        """As it was found, or said."""
        return self._stride

    def description(self, guidance: bool | None = None) -> dict[str, Any]:
        """Where it comes from: its factory and the arguments; nothing builds it from that alone."""
        return dict(self._described)

    def heads(self, image: Tensor) -> list[Tensor]:
        """The logits, float N x C x h x w; see `SegmentationNetwork.heads`."""
        logits = logits_of(self.module(image))
        if self.threshold is not None:
            shift = math.log(self.threshold / (1 - self.threshold))
            logits = torch.cat([torch.zeros_like(logits), logits - shift], dim=1)
        return [logits]


def logits_of(answer: Any) -> Tensor:
    """The logits in what a network answers."""
    if isinstance(answer, Tensor):
        return answer
    if hasattr(answer, "logits"):
        return logits_of(answer.logits)
    if isinstance(answer, Mapping):
        return logits_of(answer["out"])
    return logits_of(answer[0])
