"""The settings of a training run, read from a TOML file and overridden on the command line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from icnet_deploy.errors import InputError

__all__ = ["CONFIGS", "TrainConfig", "load_config"]

CONFIGS = Path(__file__).parent / "configs"
"""The shipped configurations, `NAME.toml`."""

_CHOICES = {
    "architecture": ("icnet", "pspnet"),
    "stages": ("sub124", "sub24", "sub4"),
    "downsampling": (8, 16, 32),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("one-cycle", "poly"),
    "preprocessing": ("street", "caffe"),
    "precision": ("32-true", "bf16-mixed", "16-mixed", "64-true"),
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        architecture: `icnet`, or `pspnet` for the paper's baseline.
        width: 1.0 is the uncompressed net, 0.5 the released one.
        stages: of an ICNet: `sub124`, `sub24` or `sub4`.
        downsampling: of a PSPNet: 8, 16 or 32.
        preprocessing: `street` (ImageNet's means and deviations, RGB) or `caffe` (BGR minus the
            released net's means, no division).
        steps: optimizer steps.
        batch: images a step, over all processes.
        crop: (height, width) of the crops; sides of 32k + 1 are the net's natural sizes.
        resize: (least, most) factor by which images are resized before cropping.
        colour: strength of the changes of colour, blur and noise; 0 for none, as in the paper.
        optimizer: `sgd` (the paper's) or `adamw`.
        momentum: SGD's.
        schedule: `poly` (the paper's: rate x (1 - step / steps) ** power) or `one-cycle`, which
            rises over the first 15 % of the steps and falls along a cosine.
        power: of `poly`.
        rate: the first learning rate of `poly`, the highest of `one-cycle`.
        weight_decay: on convolution kernels only, not on batch norm and biases.
        guidance: weights of the losses, the finest head's first. For an ICNet those at 1/4, 1/8
            and 1/16. The paper (arXiv 1704.08545) gives its auxiliary losses 0.4, as PSPNet's
            does (arXiv 1612.01105): the default. Published ports of ICNet take 1, 0.4 and 0.16.
        class_weights: classes are weighed by (1 / log(1.02 + share)) to this power; the formula is
            ENet's (arXiv 1606.02147), whose power is 1. 0 weighs all alike.
        hard_pixels: the share of an image's labelled pixels on which the loss is taken: those
            with the largest loss (online hard example mining, arXiv 1604.03540, by pixel). 1: all.
        average: decay of the moving average of the weights that is scored and saved, a step; 0
            takes the weights themselves.
        shares: how often each data set is drawn from, in the order given; empty: by size.
        scales: a factor for each data set that its images are resized by besides `resize`, so
            that things in sets of different resolution are of like size; empty: 1 for all.
        size: (height, width) that images are resized to when the network is scored while it
            trains; empty: each image's own.
        precision: Lightning's `32-true`, `bf16-mixed` or `16-mixed`; `64-true` to compare runs
            beyond float32's noise.
        seed: of the initial weights, the order and the augmentation.
    """

    architecture: str = "icnet"
    width: float = 0.5
    stages: str = "sub124"
    downsampling: int = 8
    preprocessing: str = "street"
    steps: int = 2500
    batch: int = 8
    crop: tuple[int, int] = (353, 481)
    resize: tuple[float, float] = (0.8, 1.8)
    colour: float = 1.0
    optimizer: str = "adamw"
    momentum: float = 0.9
    schedule: str = "one-cycle"
    power: float = 0.9
    rate: float = 1.5e-3
    weight_decay: float = 1e-4
    guidance: tuple[float, ...] = (1.0, 0.4, 0.4)
    class_weights: float = 0.5
    hard_pixels: float = 1.0
    average: float = 0.0
    shares: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    precision: str = "32-true"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is one of {', '.join(map(str, known))}; got {getattr(self, name)!r}"
                )
        if self.steps < 1 or self.batch < 2:
            raise InputError(
                f"training needs steps >= 1 and a batch of 2 or more (batch norm); got "
                f"{self.steps} and {self.batch}"
            )
        if len(self.crop) != 2 or min(self.crop) < 64:
            raise InputError(f"crop is (height, width), each at least 64; got {self.crop}")
        if len(self.resize) != 2 or not 0 < self.resize[0] <= self.resize[1]:
            raise InputError(f"resize is (least, most) with 0 < least <= most; got {self.resize}")
        if self.size and (len(self.size) != 2 or min(self.size) < 64):
            raise InputError(f"size is (height, width), each at least 64; got {self.size}")
        if not 0 < self.hard_pixels <= 1:
            raise InputError(f"hard_pixels is a share, above 0 and up to 1; got {self.hard_pixels}")
        if not 0 <= self.average < 1:
            raise InputError(f"average is a decay, from 0 to below 1; got {self.average}")
        if not self.guidance or min(self.guidance) < 0:
            raise InputError(f"guidance is a weight of 0 or more a head; got {self.guidance}")

    def override(self, **changes: Any) -> TrainConfig:
        """A copy with the given settings changed; None leaves a setting as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


def load_config(name: str) -> TrainConfig:
    """Reads a shipped configuration by its name, or a TOML file by its path.

    Raises:
        InputError: there is none, it is not TOML, or it holds an unknown setting.
    """
    path = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise InputError(f"there is no configuration {name!r}; shipped: {shipped}, or a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    known = {f.name for f in fields(TrainConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{path}: unknown settings {unknown}; known: {sorted(known)}")
    try:
        return TrainConfig().override(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        )
    except TypeError as error:
        raise InputError(f"{path}: a setting is of a wrong type: {error}") from error
