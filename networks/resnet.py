"""The trunk that ICNet and PSPNet share: a ResNet50 with a deep stem, and its layers' channels.

A released layer's name is a module's path without its dots: `conv2_1._1x1_reduce` is the released
`conv2_1_1x1_reduce`, so weights map one to one.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from icnet_deploy.networks.backbone import BackbonePart, resnet_parts
from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.layers import (
    Bottleneck,
    ConvBN,
    MatrixPyramidPooling,
    PyramidPooling,
)
from icnet_deploy.precisions import PRECISIONS

_STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}
"""Of each stage, how many bottlenecks, and their inner channels at full width; four times as many
leave them."""

_WIDEST = 16
"""Times the uncompressed net: beyond it a width is a mistake, and takes all memory."""

BLOCKS = tuple(f"conv{s}_{i}" for s, (n, _) in _STAGES.items() for i in range(1, n + 1))
"""The bottlenecks' names, in order."""


class ChannelCounts:
    """How many channels each layer has: what the width gives, or what a pruned net says.

    Args:
        width: 1.0 is the uncompressed net.
        channels: released layer name -> channels of its output, where the width does not say it.
    """

    def __init__(self, width: float, channels: Mapping[str, int] | None) -> None:
        self._width, self._wanted = width, dict(channels or {})
        self._counts: dict[str, int] = {}
        self.pruned: dict[str, int] = {}

    def __call__(self, layer: str, full: int) -> int:
        """The channels of a layer that has `full` in the uncompressed net."""
        usual = max(8, round(full * self._width))
        count = self._wanted.get(layer, usual)
        if type(count) is not int or count < 1:
            raise ValueError(f"channels of {layer}: a whole number from 1 on; got {count!r}")
        if count != usual:
            self.pruned[layer] = count
        self._counts[layer] = count
        return count

    def summed(self, *layers: str) -> None:
        """Says that these layers' outputs are summed.

        Raises:
            ValueError: their channels differ.
        """
        counts = [self._counts[layer] for layer in layers]
        if len(set(counts)) > 1:
            raise ValueError(f"the outputs of {', '.join(layers)} are summed; got {counts}")

    def check_all_used(self) -> None:
        """Raises ValueError where `channels` speaks of a layer that was not built."""
        unknown = sorted(set(self._wanted) - set(self._counts))
        if unknown:
            raise ValueError(f"channels of layers that the network has; got {', '.join(unknown)}")


class ResNet50(SegmentationNetwork):
    """The stem, the bottlenecks, pyramid pooling and the 1x1 after it; a network adds its heads.

    Args:
        num_classes, width: of the network.
        count: the channels of its layers.
        strides: stage (3, 4 or 5) -> stride of its first bottleneck; 1 where it is left out.
        dilations: the same for the dilation of all its bottlenecks' 3x3.
    """

    def __init__(
        self,
        num_classes: int,
        width: float,
        count: ChannelCounts,
        strides: Mapping[int, int],
        dilations: Mapping[int, int],
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is a whole number from 1 on; got {num_classes}")
        if type(width) not in (int, float) or not 0 < width <= _WIDEST:
            raise ValueError(f"width is a number above 0 and up to {_WIDEST}; got {width!r}")
        self.num_classes, self.width = num_classes, width
        self.channels: dict[str, int] = {}
        c = count
        self.conv1_1_3x3_s2 = ConvBN(3, c("conv1_1_3x3_s2", 64), 3, stride=2)
        self.conv1_2_3x3 = ConvBN(self.conv1_1_3x3_s2.cout, c("conv1_2_3x3", 64), 3)
        self.conv1_3_3x3 = ConvBN(self.conv1_2_3x3.cout, c("conv1_3_3x3", 128), 3)
        self.pool1_3x3_s2 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        cin = self.conv1_3_3x3.cout
        for stage, (blocks, mid) in _STAGES.items():
            for i in range(1, blocks + 1):
                name, proj = f"conv{stage}_{i}", i == 1
                block = Bottleneck(
                    cin,
                    c(f"{name}_1x1_reduce", mid),
                    c(f"{name}_3x3", mid),
                    c(f"{name}_1x1_increase", 4 * mid),
                    strides.get(stage, 1) if i == 1 else 1,
                    dilations.get(stage, 1),
                    proj,
                )
                if proj:
                    c(f"{name}_1x1_proj", 4 * mid)
                shortcut = f"{name}_1x1_proj" if proj else f"conv{stage}_1_1x1_increase"
                c.summed(shortcut, f"{name}_1x1_increase")
                setattr(self, name, block)
                cin = block.cout
        self.conv5_3_pool = PyramidPooling()
        self.conv5_4_k1 = ConvBN(cin, c("conv5_4_k1", 512), 1)

    def _finish(self, count: ChannelCounts) -> None:
        """Once every layer is built: He initialisation from the fan-in, as the released
        definition's `msra` fillers."""
        count.check_all_used()
        self.channels = count.pruned
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def image_convolutions(self) -> list[nn.Conv2d]:
        """The stem's first."""
        return [self.conv1_1_3x3_s2.conv]

    def backbone(self) -> Sequence[BackbonePart]:
        """The stem and the bottlenecks, which a ResNet50 of other libraries has, too."""
        return resnet_parts(BLOCKS)

    def for_free_size(self) -> Self:
        """A copy whose pyramid is written as matrix products."""
        twin = copy.deepcopy(self)
        twin.conv5_3_pool = MatrixPyramidPooling()
        return twin

    def layer_of(self, kernel: str) -> str:
        """The released name: `conv2_1_3x3` of `conv2_1._3x3.conv.weight`."""
        return kernel.removesuffix(".conv.weight").replace(".", "")

    def tie_margins(self, largest: float) -> Mapping[int, float]:
        """Those of the precisions as they stand, for which ICNet's logits were measured."""
        return {row.bits: row.tie_margin for row in PRECISIONS.values()}

    def _stem(self, image: Tensor) -> Tensor:
        x = self.conv1_3_3x3(self.conv1_2_3x3(self.conv1_1_3x3_s2(image)))
        y: Tensor = self.pool1_3x3_s2(x)
        return y

    def _run(self, blocks: Iterable[str], x: Tensor) -> Tensor:
        for name in blocks:
            x = getattr(self, name)(x)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv5_4_k1(self.conv5_3_pool(x))
        return y
