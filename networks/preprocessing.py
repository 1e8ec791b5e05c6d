"""How a uint8 image becomes the network's input; it travels in the checkpoint and in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnet_deploy.documents import NUMBER, TEXT, Schema, list_of, one_of, take
from icnet_deploy.errors import ModelError
from icnet_deploy.metadata import FITS

_THREE = list_of(NUMBER, length=3)
_FIELDS = {"mean": _THREE, "scale": _THREE, "channels": TEXT, "fit": one_of(*FITS)}
_FILE = Schema(
    "a preprocessing: a JSON object with 'mean' and 'scale' (three numbers each, of channels in "
    "0..255), 'channels' ('rgb' or 'bgr') and optionally 'fit' ('stretch' or 'letterbox')",
    _FIELDS,
    optional=("fit",),
    closed=True,
    error=ModelError,
)


@dataclass(frozen=True)
class Preprocessing:
    """`(channel - mean) * scale`, channel by channel.

    Attributes:
        mean: three numbers in 0..255, in the order of `channels`.
        scale: three factors, in the order of `channels`.
        channels: `rgb` or `bgr`, the order that the network takes.
        fit: what becomes of an image of another size than the network's, of `metadata.FITS`.
    """

    mean: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"
    fit: str = FITS[0]

    def __post_init__(self) -> None:
        shaped = self.channels in ("rgb", "bgr") and len(self.mean) == len(self.scale) == 3
        shaped = shaped and self.fit in FITS
        numbers = [*map(float, (*self.mean, *self.scale))] if shaped else []
        if not shaped or not torch.tensor(numbers).isfinite().all():
            raise ModelError(
                "preprocessing is three means, three scales, all finite as float32, the "
                f"channels 'rgb' or 'bgr', and the fit {' or '.join(FITS)}; got {self}"
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
        mean = torch.tensor([*map(float, self.mean)], device=x.device).view(1, 3, 1, 1)
        scale = torch.tensor([*map(float, self.scale)], device=x.device).view(1, 3, 1, 1)
        return (x - mean) * scale

    @property
    def border(self) -> tuple[float, float, float]:
        """The colour of a letterbox's border, RGB in 0..255: the mean, which becomes zero."""
        red, green, blue = self.mean if self.channels == "rgb" else self.mean[::-1]
        return red, green, blue

    def to_dict(self) -> dict[str, Any]:
        """The JSON form. A `stretch` is left out, as in the files of version 0.1."""
        value = asdict(self)
        return value if self.fit != FITS[0] else {k: v for k, v in value.items() if k != "fit"}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocessing:
        """Reads the value that `to_dict` wrote; raises ModelError for anything else."""
        try:
            known = take(value, _FIELDS, optional=("fit",))
        except ValueError as error:
            raise ModelError(f"the preprocessing cannot be read: {error}") from error
        three = {name: tuple(known[name]) for name in ("mean", "scale")}
        return cls(**known | three)


STREET = Preprocessing((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
"""ImageNet's means and deviations, usual for nets that are trained from scratch or from it."""

CAFFE = Preprocessing((103.939, 116.779, 123.68), channels="bgr")
"""What the authors' released networks were trained with: BGR minus the means, no division."""

_UNIT = Preprocessing((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_SYMMETRIC = Preprocessing((127.5, 127.5, 127.5), (1 / 127.5, 1 / 127.5, 1 / 127.5))

PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "imagenet": STREET,
    "street": STREET,
    "caffe": CAFFE,
    "unit": _UNIT,
    "symmetric": _SYMMETRIC,
}
"""By name: `imagenet` is 0..1, minus the mean, by the deviation; `unit` 0..1; `symmetric` -1..1."""


def load_preprocessing(name: str) -> Preprocessing:
    """A preprocessing by its name, or from a JSON file with the keys of `to_dict`, and `fit`.

    Raises:
        ModelError: there is no such name or file, or it is no preprocessing.
    """
    if name in PREPROCESSINGS:
        return PREPROCESSINGS[name]
    if not name.endswith(".json"):
        known = ", ".join(PREPROCESSINGS)
        raise ModelError(f"there is no preprocessing {name!r}; expected {known}, or a .json file")
    return Preprocessing.from_dict(_FILE.read(Path(name)))
