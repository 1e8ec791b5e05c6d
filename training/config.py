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


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        width: 1.0 is the uncompressed net, 0.5 the released one.
        stages: `sub124`, `sub24` or `sub4`.
        steps: optimizer steps.
        batch: images a step.
        crop: (height, width) of the crops; sides of 32k + 1 are the net's natural sizes.
        resize: (least, most) factor by which images are resized before cropping.
        rate: the highest learning rate of the one-cycle schedule.
        weight_decay: AdamW's, on convolution weights only.
        guidance: weights of the losses at 1/4, 1/8 and 1/16.
        class_weights: classes are weighed by (1 / log(1.02 + share)) to this power; the formula is
            ENet's (arXiv 1606.02147), whose power is 1. 0 weighs all alike.
        shares: how often each data set is drawn from, in the order given; empty: by size.
        scales: a factor for each data set that its images are resized by besides `resize`, so
            that things in sets of different resolution are of like size; empty: 1 for all.
        precision: Lightning's `32-true` or `bf16-mixed`.
        seed: of the initial weights, the order and the augmentation.
    """

    width: float = 0.5
    stages: str = "sub124"
    steps: int = 2500
    batch: int = 8
    crop: tuple[int, int] = (353, 481)
    resize: tuple[float, float] = (0.8, 1.8)
    rate: float = 1.5e-3
    weight_decay: float = 1e-4
    guidance: tuple[float, float, float] = (1.0, 0.4, 0.4)
    class_weights: float = 0.5
    shares: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    precision: str = "32-true"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise InputError(
                f"training needs steps >= 1 and a batch of 2 or more (batch norm); got "
                f"{self.steps} and {self.batch}"
            )
        if len(self.crop) != 2 or min(self.crop) < 64:
            raise InputError(f"crop is (height, width), each at least 64; got {self.crop}")
        if len(self.resize) != 2 or not 0 < self.resize[0] <= self.resize[1]:
            raise InputError(f"resize is (least, most) with 0 < least <= most; got {self.resize}")

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
