"""A module that knows nothing of this product, as a `SegmentationNetwork`."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.own.resizes import Resizes


class Adapted(SegmentationNetwork):
    """A PyTorch module whose answer, whatever form it has, is logits.

    Args:
        module: takes float N x 3 x H x W; answers with a tensor, a tuple or list (the first is the
            logits), a mapping (`out` or `logits`, or it holds one tensor alone), or an object with
            `logits`.
        described: what `description` gives.
        num_classes: how many classes there are; two for one channel of logits.
        threshold: of one channel of logits, the probability from which on a pixel is of the second
            class; None: it has several.
        upsampling, stride, min_side, side_multiple: as of a `SegmentationNetwork`.
        left_out: which of its resizes is its last upsampling and is not done, counted from 0; None:
            all are done.
    """

    def __init__(
        self,
        module: nn.Module,
        described: Mapping[str, Any],
        num_classes: int,
        threshold: float | None = None,
        *,
        upsampling: str = "half-pixel",
        stride: int | None = None,
        min_side: int = 64,
        side_multiple: int = 1,
        left_out: int | None = None,
    ) -> None:
        super().__init__()
        self.module, self.num_classes, self.threshold = module, num_classes, threshold
        self.upsampling, self.min_side, self.side_multiple = upsampling, min_side, side_multiple
        self._described, self._stride, self._left_out = dict(described), stride, left_out

    @property
    def stride(self) -> int | None:
        """As it was found."""
        return self._stride

    def description(self, guidance: bool | None = None) -> dict[str, Any]:
        """Where it comes from: its factory and the arguments; nothing builds it from that alone."""
        return dict(self._described)

    def heads(self, image: Tensor) -> list[Tensor]:
        """The logits, float N x C x h x w; see `SegmentationNetwork.heads`."""
        with nullcontext() if self._left_out is None else Resizes(self._left_out):
            logits = logits_of(self.module(image))
        if self.threshold is not None:
            shift = math.log(self.threshold / (1 - self.threshold))
            second = logits - shift if shift else logits
            logits = torch.cat([torch.zeros_like(logits), second], dim=1)
        return [logits]

    def blocks(self) -> dict[str, list[str]]:
        """The parts of the module itself; see `SegmentationNetwork.blocks`."""
        return {
            name: [f"module.{name}"]
            for name, child in self.module.named_children()
            if any(isinstance(part, nn.Conv2d) for part in child.modules())
        }


def logits_of(answer: Any) -> Tensor:
    """The logits in what a network answers.

    Raises:
        ValueError: there are none in it.
    """
    if isinstance(answer, Tensor):
        return answer
    if hasattr(answer, "logits"):
        return logits_of(answer.logits)
    if isinstance(answer, Mapping):
        named = [answer[name] for name in ("out", "logits") if name in answer]
        tensors = [value for value in answer.values() if isinstance(value, Tensor)]
        if not named and len(tensors) != 1:
            raise ValueError(f"a dict of {', '.join(map(str, answer))}, without 'out'")
        return logits_of((named or tensors)[0])
    if isinstance(answer, (tuple, list)) and answer:
        return logits_of(answer[0])
    raise ValueError(f"a value of {type(answer).__name__}")
