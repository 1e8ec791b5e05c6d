"""ICNet, layer by layer as its authors published it (Zhao et al., arXiv 1704.08545).

A module's path without its dots is the released layer's name. The numbers in comments are sizes at
the net's natural 1025x2049; at any other size each part is upsampled to the size of what it is
fused with.
"""

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from icnet_deploy.networks.layers import Bottleneck, ConvBN, halved, resize
from icnet_deploy.networks.resnet import BLOCKS, ChannelCounts, ResNet50

Stages = Literal["sub4", "sub24", "sub124"]
_STAGES: tuple[Stages, ...] = ("sub4", "sub24", "sub124")

_SPLIT = BLOCKS.index("conv3_1") + 1
"""The medium and the low branch share the bottlenecks before it."""


class ICNet(ResNet50):
    """The cascade: low, medium and high resolution branches, fused twice.

    Args:
        num_classes: classes of the output.
        width: 1.0 is the uncompressed net, 0.5 the released one.
        stages: `sub124` is ICNet; `sub24` leaves out the high branch, `sub4` the medium one too
            (the paper's table 3).
        guidance: build the training-only heads of the coarser stages.
        channels: released layer name -> channels of its output, for a pruned net: where it is not
            what `width` gives.
    """

    conv3_1: Bottleneck

    def __init__(
        self,
        num_classes: int,
        width: float = 0.5,
        stages: Stages = "sub124",
        guidance: bool = False,
        channels: Mapping[str, int] | None = None,
    ) -> None:
        if stages not in _STAGES:
            raise ValueError(f"stages is one of {', '.join(_STAGES)}; got {stages!r}")
        c = ChannelCounts(width, channels)
        # The stem sees the half image (513x1025); conv2 is at 129x257, conv3_1 at 65x129, the rest
        # at 33x65, on conv3_1 halved.
        super().__init__(num_classes, width, c, strides={3: 2}, dilations={4: 2, 5: 4})
        self.stages, self.guidance = stages, guidance
        low = fused = self.conv5_4_k1.cout
        if stages != "sub4":  # cascade feature fusion 24, at 65x129
            medium = self.conv3_1.cout
            self.conv_sub4 = ConvBN(low, c("conv_sub4", 256), 3, dilation=2, relu=False)
            self.conv3_1_sub2_proj = ConvBN(medium, c("conv3_1_sub2_proj", 256), 1, relu=False)
            c.summed("conv_sub4", "conv3_1_sub2_proj")
            fused = self.conv_sub4.cout
        if stages == "sub124":  # high branch, and fusion 12, at 129x257
            self.conv1_sub1 = ConvBN(3, c("conv1_sub1", 64), 3, stride=2)
            self.conv2_sub1 = ConvBN(self.conv1_sub1.cout, c("conv2_sub1", 64), 3, stride=2)
            self.conv3_sub1 = ConvBN(self.conv2_sub1.cout, c("conv3_sub1", 128), 3, stride=2)
            high = self.conv3_sub1.cout
            self.conv_sub2 = ConvBN(fused, c("conv_sub2", 256), 3, dilation=2, relu=False)
            self.conv3_sub1_proj = ConvBN(high, c("conv3_sub1_proj", 256), 1, relu=False)
            c.summed("conv_sub2", "conv3_sub1_proj")
            self.conv6_cls = nn.Conv2d(self.conv_sub2.cout, num_classes, 1)
        if stages == "sub24" or (guidance and stages == "sub124"):
            self.conv6_sub2 = nn.Conv2d(fused, num_classes, 1)
        if stages == "sub4" or guidance:
            self.conv6_sub4 = nn.Conv2d(low, num_classes, 1)
        self._finish(c)

    @property
    def stride(self) -> int | None:
        """4 of `sub124`, 8 of `sub24`; None of `sub4`, whose pool rounds up."""
        return {"sub124": 4, "sub24": 8}.get(self.stages)

    def image_convolutions(self) -> list[nn.Conv2d]:
        """The stem's first, on the halved image, and the high branch's."""
        high = [self.conv1_sub1.conv] if self.stages == "sub124" else []
        return [*super().image_convolutions(), *high]

    def heads(self, image: Tensor) -> list[Tensor]:
        """Logits of every head that was built, the finest first: the inputs of label guidance.

        Args:
            image: float, N x 3 x H x W, as the checkpoint's preprocessing leaves it; sides >= 64.

        Returns:
            Float, N x C x h x w each; of the finest h = ceil(H / 4) for `sub124`, while `sub24` and
            `sub4` end at the sizes of their fusion, about H / 8 and H / 16.
        """
        height, width = image.shape[2:]
        half = resize(image, halved((height, width)))  # 513x1025
        medium = self._run(BLOCKS[:_SPLIT], self._stem(half))  # 65x129
        # Weights and computation are shared up to here; the low branch takes conv3_1, halved.
        low = self._run(BLOCKS[_SPLIT:], resize(medium, halved(_size(medium))))  # 33x65
        low = resize(self._pooled(low), _size(medium))  # 65x129
        logits = [self.conv6_sub4(low)] if hasattr(self, "conv6_sub4") else []
        if self.stages == "sub4":
            return logits
        fused = F.relu(self.conv3_1_sub2_proj(medium) + self.conv_sub4(low), inplace=True)
        if self.stages == "sub24":
            fused = resize(fused, ((height + 7) // 8, (width + 7) // 8))
            return [self.conv6_sub2(fused), *logits]
        high = self.conv3_sub1(self.conv2_sub1(self.conv1_sub1(image)))  # 129x257
        fused = resize(fused, _size(high))
        if hasattr(self, "conv6_sub2"):
            logits.insert(0, self.conv6_sub2(fused))
        fused = F.relu(self.conv3_sub1_proj(high) + self.conv_sub2(fused), inplace=True)
        fused = resize(fused, ((height + 3) // 4, (width + 3) // 4))  # 257x513
        return [self.conv6_cls(fused), *logits]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]
