"""One run of a network on noise, and what it gave."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from icnet_deploy.networks.own.adapted import logits_of
from icnet_deploy.networks.own.resizes import Resizes

Size = tuple[int, int]
"""(height, width) in pixels."""

_WEAK = 1e-2
"""Of the largest logit: a spread below it says nothing of how exact the logits are."""


class Refused(Exception):
    """A network does not take an image; the text says what it did instead."""


class NoLogits(Refused):
    """Its answer is of another kind than logits, which no other size will change."""


@dataclass(frozen=True)
class Run:
    """What a network gave.

    Attributes:
        size: (height, width) of the image.
        logits: float, N x C x h x w.
        resizes: what happened on the way.
    """

    size: Size
    logits: Tensor
    resizes: Resizes

    @property
    def grid(self) -> Size:
        """(height, width) of the logits."""
        return self.logits.shape[2], self.logits.shape[3]

    @property
    def squashed(self) -> str | None:
        """`sigmoid` or `softmax` where the answer is that of the logits, or resized of it."""
        low, high = (float(extreme) for extreme in self.logits.aminmax())
        between = 0 <= low <= high <= 1
        made = (
            kind
            for kind, seen in self.resizes.squashed
            if seen.gave(self.logits) or (between and seen.channels == self.logits.shape[1])
        )
        return next(made, None)


def run_on_noise(module: nn.Module, size: Size, left_out: int | None = None, batch: int = 1) -> Run:
    """Runs a network on noise, the same each time.

    Args:
        module: float32, on the CPU, or on `meta`, where it is run without numbers.
        size: (height, width) of the images.
        left_out: which of its resizes is not done; see `Resizes`.
        batch: how many images there are.

    Raises:
        Refused: it raises an error, or its answer is no logits.
    """
    tensors = next(iter(module.state_dict().values()), None)
    if tensors is not None and tensors.is_meta:
        image = torch.empty((batch, 3, *size), device="meta")
    else:
        image = torch.stack([_noise(size, seed) for seed in range(batch)])
    with torch.no_grad(), Resizes(left_out) as resizes:
        try:
            answer = module(image)
        except Exception as error:
            raise Refused(f"it raised {type(error).__name__}: {error}") from error
    try:
        logits = logits_of(answer)
    except ValueError as error:
        raise NoLogits(f"it returned {error}") from error
    shape = tuple(logits.shape)
    if not logits.is_floating_point():
        raise NoLogits(f"it returned {logits.dtype} of {shape}, which are not logits")
    if len(shape) != 4 or shape[0] != batch:
        raise NoLogits(f"it returned a tensor of {shape}, which is not N x C x h x w")
    if shape[1:3] == size and shape[3] != size[1]:
        raise NoLogits(
            f"it returned a tensor of {shape}, whose channels are last: permute(0, 3, 1, 2) puts "
            "them where they are expected"
        )
    if shape[2] > size[0] or shape[3] > size[1]:
        raise Refused(f"its logits are {shape[2]}x{shape[3]}, larger than the image")
    if 0 in shape:
        raise Refused(f"its logits are empty, {shape}")
    return Run(size, logits, resizes)


def _noise(size: Size, seed: int) -> Tensor:
    return torch.randn((3, *size), generator=torch.Generator().manual_seed(seed))


def are_equal(one: Tensor, other: Tensor, share: float) -> bool:
    """Whether two answers differ by no more than this share of their spread."""
    spread = max(float(other.std()), _WEAK * float(other.abs().max()))
    return float((one - other).abs().max()) <= share * spread
