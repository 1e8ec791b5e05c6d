"""How a uint8 image becomes the network's input; it travels in the checkpoint and in the graph."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnet_deploy.documents import NUMBER, TEXT, list_of, take
from icnet_deploy.errors import ModelError

_THREE = list_of(NUMBER, length=3)


@dataclass(frozen=True)
class Preprocessing:
    """`(channel - mean) * scale`, channel by channel.

    Attributes:
        mean: three numbers in 0..255, in the order of `channels`.
        scale: three factors, in the order of `channels`.
        channels: `rgb` or `bgr`, the order that the network takes.
    """

    mean: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"

    def __post_init__(self) -> None:
        shaped = self.channels in ("rgb", "bgr") and len(self.mean) == len(self.scale) == 3
        if not shaped or not torch.tensor([*self.mean, *self.scale]).isfinite().all():
            raise ModelError(
                "preprocessing is three means, three scales, all finite as float32, and the "
                f"channels 'rgb' or 'bgr'; got {self}"
            )

    def tensor(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 N x H x W x 3 or H x W x 3, RGB, to float32 N x 3 x H x W, normalised."""
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        return self.normalise(pixels[None] if pixels.ndim == 3 else pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 N x H x W x 3, RGB, to float32 N x 3 x H x W, normalised.

        The first operator is the cast to float: TensorRT refuses a uint8 input that feeds
        anything else.
        """
        x = pixels.to(torch.float32).permute(0, 3, 1, 2)
        if self.channels == "bgr":
            x = x.flip(1)
        mean = torch.tensor(self.mean, device=x.device).view(1, 3, 1, 1)
        scale = torch.tensor(self.scale, device=x.device).view(1, 3, 1, 1)
        return (x - mean) * scale

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocessing:
        """Reads the value that `to_dict` wrote; raises ModelError for anything else."""
        try:
            known = take(value, {"mean": _THREE, "scale": _THREE, "channels": TEXT})
        except ValueError as error:
            raise ModelError(f"the checkpoint's preprocessing cannot be read: {error}") from error
        return cls(tuple(known["mean"]), tuple(known["scale"]), known["channels"])


STREET = Preprocessing((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
"""ImageNet's means and deviations, usual for nets that are trained from scratch or from it."""

CAFFE = Preprocessing((103.939, 116.779, 123.68), channels="bgr")
"""What the authors' released networks were trained with: BGR minus the means, no division."""
