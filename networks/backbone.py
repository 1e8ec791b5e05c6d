"""What image classifiers' checkpoints call the parts of a backbone.

The names are those of the files; each kind of file is a layout. Shapes are not in here: a part fits
where they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_Layers = Mapping[str, tuple[str, str]]
"""The network's layer -> what a file calls its convolution, and its batch norm."""

_STEM = ("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3")

_STEMS = (
    # timm's resnet50c, resnet50d, resnet50s and resnet50t
    (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")),
    # mmsegmentation's ResNetV1c and ResNetV1d
    (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7")),
    # semseg's, with which PSPNet's authors began; one 7x7 `conv1` has no `conv2` beside it
    (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
)

_BOTTLENECK: _Layers = {
    "_1x1_reduce": ("conv1", "bn1"),
    "_3x3": ("conv2", "bn2"),
    "_1x1_increase": ("conv3", "bn3"),
}

_PROJECTIONS: Sequence[_Layers] = (
    {"_1x1_proj": ("downsample.0", "downsample.1")},
    {"_1x1_proj": ("downsample.1", "downsample.2")},  # behind an average pool, as in resnet50d
)


@dataclass(frozen=True)
class BackbonePart:
    """A part of a network's backbone: all of it is taken from a file, or nothing.

    Attributes:
        name: what messages call it.
        layouts: the network's tensors -> the file's, for each kind of file.
    """

    name: str
    layouts: tuple[Mapping[str, str], ...]


def resnet_parts(blocks: Sequence[str]) -> list[BackbonePart]:
    """A stem of three 3x3 convolutions, and bottlenecks.

    Args:
        blocks: the bottlenecks' names in the network, `convS_I` each: bottleneck I (1, 2, ...) of
            stage S (2, 3, ...). Files call it `layer{S - 1}.{I - 1}`.
    """
    stems = tuple(_layout(dict(zip(_STEM, stem, strict=True))) for stem in _STEMS)
    return [BackbonePart("stem", stems), *map(_bottleneck, blocks)]


def _bottleneck(block: str) -> BackbonePart:
    stage, index = (int(number) for number in block.removeprefix("conv").split("_"))
    theirs = f"layer{stage - 1}.{index - 1}"
    kinds = _PROJECTIONS if index == 1 else ({},)
    layouts = tuple(_layout({**_BOTTLENECK, **kind}, f"{block}.", f"{theirs}.") for kind in kinds)
    return BackbonePart(block, layouts)


def _layout(layers: _Layers, ours: str = "", theirs: str = "") -> Mapping[str, str]:
    """The tensors of these layers, each a `ConvBN`, below a prefix on either side."""
    tensors = {}
    for layer, (convolution, norm) in layers.items():
        tensors[f"{ours}{layer}.conv.weight"] = f"{theirs}{convolution}.weight"
        for value in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{ours}{layer}.bn.{value}"] = f"{theirs}{norm}.{value}"
    return tensors
