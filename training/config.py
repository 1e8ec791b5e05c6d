"""The settings of a training run, read from a TOML file and overridden on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from os.path import isfile
from pathlib import Path
from typing import Any

from icnet_deploy.documents import BOOL, Kind, Schema, one_of
from icnet_deploy.errors import InputError
from icnet_deploy.training.appearance import Appearance
from icnet_deploy.training.kinds import numbers

CONFIGS = Path(__file__).parent / "configs"
"""The shipped configurations, `NAME.toml`."""


_KINDS: Mapping[str, Kind] = {
    "preprocessing": one_of("street", "imagenet", "caffe", "unit", "symmetric"),
    "optimizer": one_of("adamw", "sgd"),
    "schedule": one_of("one-cycle", "poly"),
    "precision": one_of("32-true", "bf16-mixed", "16-mixed", "64-true"),
    "steps": numbers("a whole number of 1 or more", lambda x: x >= 1, None, Integral),
    "batch": numbers(
        "a whole number of 2 or more, which batch norm needs", lambda x: x >= 2, None, Integral
    ),
    "crop": numbers(
        "(height, width), whole numbers of at least 64", lambda *x: min(x) >= 64, (2,), Integral
    ),
    "resize": numbers(
        "(least, most) with 0 < least <= most", lambda least, most: 0 < least <= most, (2,)
    ),
    "colour": numbers("a strength from 0 to 10", lambda x: 0 <= x <= 10),
    "appearance": Kind(
        lambda value: value is None or isinstance(value, Appearance),
        "a table of changes, [appearance]",
    ),
    "momentum": numbers("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "power": numbers("a number of 0 or more", lambda x: x >= 0),
    "rate": numbers("a number above 0 and up to 1000", lambda x: 0 < x <= 1000),
    "weight_decay": numbers("a number from 0 to 1000", lambda x: 0 <= x <= 1000),
    "guidance": numbers(
        "a weight of 0 or more a head, not all 0", lambda *x: min(x, default=-1) >= 0 < max(x), ()
    ),
    "class_weights": numbers("a power from 0 to 10", lambda x: 0 <= x <= 10),
    "hard_pixels": numbers("a share, above 0 and up to 1", lambda x: 0 < x <= 1),
    "average": numbers("a decay, from 0 to below 1", lambda x: 0 <= x < 1),
    "shares": numbers(
        "a share of 0 or more a data set, not all 0, or empty",
        lambda *x: min(x, default=0) >= 0 < max(x, default=1),
        (),
    ),
    "scales": numbers(
        "a factor above 0 a data set, or empty", lambda *x: min(x, default=1) > 0, ()
    ),
    "pixel_aspects": numbers(
        "a width from 0.1 to 10 a data set, or empty",
        lambda *x: min(x, default=1) >= 0.1 and max(x, default=1) <= 10,
        (),
    ),
    "rare": numbers("a share from 0 to 1", lambda x: 0 <= x <= 1),
    "rare_crops": numbers("a chance from 0 to 1", lambda x: 0 <= x <= 1),
    "class_mix": numbers("a chance from 0 to 1", lambda x: 0 <= x <= 1),
    "size": numbers(
        "(height, width), whole numbers of at least 64, or empty",
        lambda *x: min(x, default=64) >= 64,
        (0, 2),
        Integral,
    ),
    "min_confidence": numbers("a share of 255, from 0 to 1", lambda x: 0 <= x <= 1),
    "weigh_confidence": BOOL,
    "seed": numbers(
        "a whole number from 0 to 4294967295", lambda x: 0 <= x < 2**32, None, Integral
    ),
}
"""Setting -> what it may be; what a network may be is its own to say."""

_ANY = Kind(lambda value: True, "anything")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. InputError for a setting of a wrong type, out of range or not finite.

    Attributes:
        network: what is trained: its `architecture`, and its constructor's arguments. In a file
            they stand beside the other settings; for an ICNet, which is meant where there is no
            architecture, they are `width` (1.0 is the uncompressed net, 0.5 the released one) and
            `stages`.
        preprocessing: of a new network: `street` or `imagenet` (ImageNet's means and deviations,
            RGB), `caffe` (BGR minus the released net's means, no division), `unit` (0..1) or
            `symmetric` (-1..1).
        steps: optimizer steps.
        batch: images a step, over all processes.
        crop: (height, width) of the crops; sides of 32k + 1 are the net's natural sizes.
        resize: (least, most) factor by which images are resized before cropping.
        colour: strength of the changes of colour, blur and noise; 0 for none, as in the paper. That
            of `appearance` is multiplied by it.
        appearance: in place of the slight changes of colour stronger ones, and shadow, haze, JPEG
            and erasing; in a file a table, `[appearance]`, whose settings `Appearance` explains.
            None: the slight ones.
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
        pixel_aspects: how much wider than high a pixel of each data set is, which the crops undo;
            empty: 1 for all. CamVid's frames of 960x720 and 480x360 hold 16:9: there it is 1.333.
        rare: a class is rare that has a smaller share of the labelled pixels than this.
        rare_crops: the chance that a crop is cut where its image shows a rare class; of those that
            it shows one is drawn, as often as it is rare: 1 / its share, at most 10 / `rare`.
        class_mix: the chance that half of the rare classes of a second such crop are pasted onto a
            crop (ClassMix, arXiv 2007.07936).
        size: (height, width) that images are resized to when the network is scored while it
            trains; empty: each image's own.
        min_confidence: where a teacher labelled the data (`data.teacher`), the share of 255 that
            its confidence must reach at a pixel, or its label is not used.
        weigh_confidence: the loss of a pixel that a teacher decides is weighed by its confidence;
            all others count in full.
        precision: Lightning's `32-true`, `bf16-mixed` or `16-mixed`; `64-true` to compare runs
            beyond float32's noise.
        seed: of the initial weights, the order and the augmentation.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: str = "street"
    steps: int = 2500
    batch: int = 8
    crop: tuple[int, int] = (353, 481)
    resize: tuple[float, float] = (0.8, 1.8)
    colour: float = 1.0
    appearance: Appearance | None = None
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
    pixel_aspects: tuple[float, ...] = ()
    rare: float = 0.02
    rare_crops: float = 0.0
    class_mix: float = 0.0
    size: tuple[int, ...] = ()
    min_confidence: float = 0.0
    weigh_confidence: bool = False
    precision: str = "32-true"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if not kind.fits(value := getattr(self, name)):
                raise InputError(f"{name} is {kind.words}; got {value!r}")

    def override(self, **changes: Any) -> TrainConfig:
        """A copy with the given settings changed; None leaves a setting as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def settings(self) -> dict[str, Any]:
        """All settings by the names that they have in a file."""
        trained = asdict(self)
        return {**trained.pop("network"), **trained}


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is set otherwise than before, in words; what was not set before is no change."""
    return [
        f"{name}: {before[name]} before, {value} now"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def load_config(name: str) -> TrainConfig:
    """Reads a shipped configuration by its name, or a TOML file by its path. Needs torch.

    Raises:
        InputError: there is none, it is not TOML, or it holds an unknown setting or a wrong value.
    """
    from icnet_deploy.networks.registry import completed, settings_of_networks

    path = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    if not isfile(path):
        shipped = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise InputError(f"there is no configuration {name!r}; shipped: {shipped}, or a .toml file")
    known = dict.fromkeys((*_KINDS, *settings_of_networks()), _ANY)
    schema = Schema("TOML with the settings of a training", known, optional=known, closed=True)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in schema.read(path).items()}
    trained: dict[str, Any] = {name: values.pop(name) for name in _KINDS if name in values}
    try:
        if isinstance(table := trained.get("appearance"), dict):
            trained["appearance"] = Appearance.of(table)
        return TrainConfig(network=completed(values), **trained)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
