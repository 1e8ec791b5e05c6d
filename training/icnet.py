"""ICNet, layer by layer as its authors published it (Zhao et al., arXiv 1704.08545).

A released layer's name is a module's path without its dots: `conv2_1._1x1_reduce` is the released
`conv2_1_1x1_reduce`, so weights map one to one. The numbers in comments are sizes at the net's
natural 1025x2049; at any other size each part is upsampled to the size of what it is fused with.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STAGES", "ICNet", "Stages", "resize"]

Stages = Literal["sub4", "sub24", "sub124"]
STAGES: tuple[Stages, ...] = ("sub4", "sub24", "sub124")
BN_EPS = 1e-5
POOL_BINS = (1, 2, 3, 6)
LOW_BLOCKS = (
    {f"conv3_{i}": (512, 128, 512, 1) for i in (2, 3, 4)}
    | {f"conv4_{i}": (512 if i == 1 else 1024, 256, 1024, 2) for i in range(1, 7)}
    | {f"conv5_{i}": (1024 if i == 1 else 2048, 512, 2048, 4) for i in (1, 2, 3)}
)
"""The low branch's bottlenecks: channels in, middle and out at full width, and dilation."""


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners, the only resize in the net."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """(n - 1) // 2 + 1 a side: 1025 -> 513, 1024 -> 512."""
    return (size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, and ReLU unless `relu=False`."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=BN_EPS, momentum=0.05)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; a stride sits on the first 1x1, as the authors have it."""

    def __init__(
        self, cin: int, mid: int, cout: int, stride: int = 1, dilation: int = 1, proj: bool = False
    ) -> None:
        super().__init__()
        self._1x1_reduce = ConvBN(cin, mid, 1, stride)
        self._3x3 = ConvBN(mid, mid, 3, dilation=dilation)
        self._1x1_increase = ConvBN(mid, cout, 1, relu=False)
        self._1x1_proj = ConvBN(cin, cout, 1, stride, relu=False) if proj else None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self._1x1_proj is None else self._1x1_proj(x)
        return F.relu(skip + self._1x1_increase(self._3x3(self._1x1_reduce(x))), inplace=True)


def pool_windows(side: int) -> list[tuple[int, int]]:
    """(kernel, stride) along one side for 1, 2, 3 and 6 bins; every window fits and all are alike.

    At 33 and 65 these are the authors' fixed windows: the stride for 3 bins is twice that for 6.
    A side below 6 has as many bins as pixels.
    """
    windows = []
    for bins in POOL_BINS:
        bins = min(bins, side)
        stride = max(1, 2 * (side // 6) if bins == 3 else side // bins)
        windows.append((side - stride * (bins - 1), stride))
    return windows


class PyramidPooling(nn.Module):
    """Average pools to 1, 2, 3 and 6 bins, each upsampled back and summed with the input."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        total = x
        for (kh, sh), (kw, sw) in zip(pool_windows(height), pool_windows(width), strict=True):
            pooled = F.avg_pool2d(x, (kh, kw), (sh, sw))
            total = total + resize(pooled, (height, width))
        return total


class ICNet(nn.Module):
    """The cascade: low, medium and high resolution branches, fused twice.

    Args:
        num_classes: classes of the output.
        width: 1.0 is the uncompressed net, 0.5 the released one.
        stages: `sub124` is ICNet; `sub24` leaves out the high branch, `sub4` the medium one too
            (the paper's table 3).
        guidance: build the training-only heads of the coarser stages.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 0.5,
        stages: Stages = "sub124",
        guidance: bool = False,
    ) -> None:
        super().__init__()
        if stages not in STAGES:
            raise ValueError(f"stages is one of {', '.join(STAGES)}; got {stages!r}")
        if num_classes < 1 or width <= 0:
            raise ValueError(f"num_classes >= 1 and width > 0; got {num_classes} and {width}")
        self.num_classes, self.width, self.stages = num_classes, width, stages

        def c(channels: int) -> int:
            """Channels at this width, from the uncompressed net's."""
            return max(8, round(channels * width))

        # Stem on the half image (513x1025).
        self.conv1_1_3x3_s2 = ConvBN(3, c(64), 3, stride=2)  # 257x513
        self.conv1_2_3x3 = ConvBN(c(64), c(64), 3)
        self.conv1_3_3x3 = ConvBN(c(64), c(128), 3)
        self.pool1_3x3_s2 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)  # 129x257
        self.conv2_1 = Bottleneck(c(128), c(64), c(256), proj=True)
        self.conv2_2 = Bottleneck(c(256), c(64), c(256))
        self.conv2_3 = Bottleneck(c(256), c(64), c(256))
        self.conv3_1 = Bottleneck(c(256), c(128), c(512), stride=2, proj=True)  # 65x129
        # Low branch (33x65); its input is conv3_1, halved: weights and computation are shared.
        for name, (cin, mid, cout, dilation) in LOW_BLOCKS.items():
            block = Bottleneck(c(cin), c(mid), c(cout), dilation=dilation, proj=cin != cout)
            setattr(self, name, block)
        self.conv5_3_pool = PyramidPooling()
        self.conv5_4_k1 = ConvBN(c(2048), c(512), 1)

        if stages != "sub4":  # cascade feature fusion 24, at 65x129
            self.conv_sub4 = ConvBN(c(512), c(256), 3, dilation=2, relu=False)
            self.conv3_1_sub2_proj = ConvBN(c(512), c(256), 1, relu=False)
        if stages == "sub124":  # high branch, and fusion 12, at 129x257
            self.conv1_sub1 = ConvBN(3, c(64), 3, stride=2)
            self.conv2_sub1 = ConvBN(c(64), c(64), 3, stride=2)
            self.conv3_sub1 = ConvBN(c(64), c(128), 3, stride=2)
            self.conv_sub2 = ConvBN(c(256), c(256), 3, dilation=2, relu=False)
            self.conv3_sub1_proj = ConvBN(c(128), c(256), 1, relu=False)
            self.conv6_cls = nn.Conv2d(c(256), num_classes, 1)
        if stages == "sub24" or (guidance and stages == "sub124"):
            self.conv6_sub2 = nn.Conv2d(c(256), num_classes, 1)
        if stages == "sub4" or guidance:
            self.conv6_sub4 = nn.Conv2d(c(512), num_classes, 1)
        self._init_weights()

    def _init_weights(self) -> None:
        """He initialisation from the fan-in, as the released definition's `msra` fillers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the finest stage.

        Args:
            image: float, N x 3 x H x W, as the checkpoint's preprocessing leaves it; sides >= 64.

        Returns:
            Float, N x C x h x w with h = ceil(H / 4) for `sub124`; the stages `sub24` and `sub4`
            end at the sizes of their fusion, about H / 8 and H / 16.
        """
        return self.heads(image)[0]

    def heads(self, image: Tensor) -> list[Tensor]:
        """Logits of every head that was built, the finest first: the inputs of label guidance."""
        height, width = image.shape[2:]
        medium = self._medium(resize(image, halved((height, width))))
        low = self._low(resize(medium, halved(_size(medium))))
        low = resize(low, _size(medium))  # 65x129
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

    def _medium(self, half: Tensor) -> Tensor:
        """The half image (513x1025) to conv3_1 (65x129)."""
        x = self.conv1_3_3x3(self.conv1_2_3x3(self.conv1_1_3x3_s2(half)))
        x = self.pool1_3x3_s2(x)
        y: Tensor = self.conv3_1(self.conv2_3(self.conv2_2(self.conv2_1(x))))
        return y

    def _low(self, x: Tensor) -> Tensor:
        """Halved conv3_1 (33x65) to conv5_4_k1, at the same size."""
        for name in LOW_BLOCKS:
            x = getattr(self, name)(x)
        y: Tensor = self.conv5_4_k1(self.conv5_3_pool(x))
        return y


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]
