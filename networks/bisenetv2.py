"""BiSeNet V2, from its paper (Yu et al., arXiv 2004.02147).

Two branches read the image. The detail branch is wide and shallow, and ends at an eighth of the
image's size; the semantic branch is narrow and deep, and ends at a 32nd. Each gates the other, and
their sum is classified. The sizes in comments are those of an image of 512x1024.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.layers import ConvBN, resize

_DETAIL = (64, 64, 128)
"""Channels of the detail branch's stages at width 1."""

_SEMANTIC = (64, 128)
"""Channels of the semantic branch's last two stages at width 1; of the stages before them `ratio`
says how many."""

_REPEATS = (2, 2, 4)
"""Gather-and-expansion layers of the semantic branch's stages; the first of each halves."""

_GUIDANCE = 128
"""Channels inside the heads that only training needs, at width 1."""

_UPSAMPLING = "half-pixel"
"""Within the network, and of its logits."""

_WIDEST = 16
"""Times the paper's network: beyond it a width is a mistake, and takes all memory."""


class BiSeNetV2(SegmentationNetwork):
    """The bilateral network with guided aggregation.

    The gather-and-expansion layer is the paper's, whose 3x3 convolution gathers and expands at
    once. Ports that are widely used expand in the depthwise convolution after it instead, which
    leaves a third of the semantic branch's multiplications.

    The paper leaves open, and chosen here are: how wide the classifier and the heads of the booster
    are inside; that images lie at half-pixel centres where they are resized; and that the average
    pool of the aggregation counts the zeros around the image.

    Args:
        num_classes: classes of the output.
        width: of every layer; the paper's alpha. 1 is its base network, 2 its large one's width.
        depth: gather-and-expansion layers a stage, times the base network's; the paper's d.
        ratio: channels of the stem and of the first semantic stage, to those of the detail branch's
            stages; the paper's lambda.
        expansion: channels inside a gather-and-expansion layer, to those of its input; the paper's
            epsilon.
        head_channels: channels inside the classifier at width 1; the paper's C_t, which it leaves
            open.
        guidance: build the training-only heads on the semantic branch's stages, the paper's
            booster: on the stem, and after each stage.
    """

    upsampling = _UPSAMPLING

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        depth: int = 1,
        ratio: float = 0.25,
        expansion: int = 6,
        head_channels: int = 256,
        guidance: bool = False,
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("ratio", ratio)):
            if type(number) not in (int, float) or not 0 < number <= _WIDEST:
                raise ValueError(f"{name} is a number above 0 and up to {_WIDEST}; got {number!r}")
        counts = {
            "num_classes": num_classes,
            "depth": depth,
            "expansion": expansion,
            "head_channels": head_channels,
        }
        for name, count in counts.items():
            if type(count) is not int or count < 1:
                raise ValueError(f"{name} is a whole number from 1 on; got {count!r}")
        self.num_classes, self.width, self.depth, self.ratio = num_classes, width, depth, ratio
        self.expansion, self.head_channels, self.guidance = expansion, head_channels, guidance
        first, second, detail = (_scaled(full, width) for full in _DETAIL)
        self.detail1 = _Stage(3, first, 2)  # 256x512
        self.detail2 = _Stage(first, second, 3)  # 128x256
        self.detail3 = _Stage(second, detail, 3)  # 64x128
        stem = _scaled(_DETAIL[0], ratio * width)
        self.stem = _Stem(stem)  # 128x256
        ends = (_scaled(_DETAIL[2], ratio * width), *(_scaled(n, width) for n in _SEMANTIC))
        starts = (stem, *ends[:-1])
        self.semantic3, self.semantic4, self.semantic5 = (  # 64x128, 32x64, 16x32
            _gathers(cin, cout, repeats * depth, expansion)
            for cin, cout, repeats in zip(starts, ends, _REPEATS, strict=True)
        )
        self.context = _Context(ends[-1])
        self.aggregation = _Aggregation(detail, ends[-1])
        self.classifier = _classifier(detail, _scaled(head_channels, width), num_classes)
        if guidance:
            inner = _scaled(_GUIDANCE, width)
            self.guide2, self.guide3, self.guide4, self.guide5 = (
                _classifier(cin, inner, num_classes) for cin in (stem, *ends)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @property
    def stride(self) -> int | None:
        """8: the detail branch's."""
        return 8

    def image_convolutions(self) -> list[nn.Conv2d]:
        """The first of either branch."""
        return [self.detail1.first.conv, self.stem.first.conv]

    def heads(self, image: Tensor) -> list[Tensor]:
        """Logits of every head that was built, the one that is deployed first.

        Args:
            image: float, N x 3 x H x W, as the checkpoint's preprocessing leaves it; sides >= 64.

        Returns:
            Float, N x C x h x w each, with h = ceil(H / 8); with guidance four more, of the
            semantic branch at 1/4, 1/8, 1/16 and 1/32.
        """
        detail = self.detail3(self.detail2(self.detail1(image)))
        semantic2 = self.stem(image)
        semantic3 = self.semantic3(semantic2)
        semantic4 = self.semantic4(semantic3)
        semantic5 = self.semantic5(semantic4)
        fused = self.aggregation(detail, self.context(semantic5))
        logits = [self.classifier(fused)]
        if self.guidance:
            guides = (self.guide2, self.guide3, self.guide4, self.guide5)
            stages = (semantic2, semantic3, semantic4, semantic5)
            logits += [guide(stage) for guide, stage in zip(guides, stages, strict=True)]
        return logits


def _scaled(full: int, factor: float) -> int:
    """The channels of a layer that has `full` at a factor of 1."""
    return max(2, round(full * factor))


def _depthwise(channels: int, stride: int = 1) -> ConvBN:
    return ConvBN(channels, channels, 3, stride, relu=False, groups=channels)


def _classifier(cin: int, inner: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(ConvBN(cin, inner, 3), nn.Conv2d(inner, num_classes, 1))


class _Stage(nn.Module):
    """A stage of the detail branch: so many 3x3 convolutions, of which the first halves."""

    def __init__(self, cin: int, cout: int, convolutions: int) -> None:
        super().__init__()
        self.first = ConvBN(cin, cout, 3, stride=2)
        self.rest = nn.Sequential(*(ConvBN(cout, cout, 3) for _ in range(convolutions - 1)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rest(self.first(x))
        return y


class _Stem(nn.Module):
    """To a quarter of the image's size: by convolutions and by a pool, side by side."""

    def __init__(self, cout: int) -> None:
        super().__init__()
        self.first = ConvBN(3, cout, 3, stride=2)
        inner = max(1, cout // 2)
        self.convolved = nn.Sequential(ConvBN(cout, inner, 1), ConvBN(inner, cout, 3, stride=2))
        self.pooled = nn.MaxPool2d(3, 2, padding=1)
        self.fused = ConvBN(2 * cout, cout, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        y: Tensor = self.fused(torch.cat([self.convolved(x), self.pooled(x)], 1))
        return y


def _gathers(cin: int, cout: int, count: int, expansion: int) -> nn.Sequential:
    """A stage of the semantic branch; its first layer halves."""
    rest = (_Gather(cout, cout, 1, expansion) for _ in range(count - 1))
    return nn.Sequential(_Gather(cin, cout, 2, expansion), *rest)


class _Gather(nn.Module):
    """The gather-and-expansion layer: a 3x3 that expands, depthwise 3x3, a 1x1 back, a shortcut.

    Where it halves, two depthwise convolutions stand for the one, and a separable one is the
    shortcut.
    """

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = cin * expansion
        halving = [_depthwise(inner, stride)] if stride > 1 else []
        self.layers = nn.Sequential(
            ConvBN(cin, inner, 3),
            *halving,
            _depthwise(inner),
            ConvBN(inner, cout, 1, relu=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            separable = (_depthwise(cin, stride), ConvBN(cin, cout, 1, relu=False))
            self.shortcut = nn.Sequential(*separable)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x), inplace=True)


class _Context(nn.Module):
    """The context embedding block: the mean over the image, convolved, is added to every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.mean = ConvBN(channels, channels, 1)
        self.fused = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(self.norm(x.mean((2, 3), keepdim=True)))
        y: Tensor = self.fused(x + mean)
        return y


class _Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch, at both sizes, gated by the other's sigmoid.

    Args:
        detail: channels of the detail branch, and of the result.
        semantic: channels of the semantic branch.
    """

    def __init__(self, detail: int, semantic: int) -> None:
        super().__init__()
        self.detail_kept = nn.Sequential(_depthwise(detail), nn.Conv2d(detail, detail, 1))
        self.detail_halved = ConvBN(detail, detail, 3, stride=2, relu=False)
        self.detail_pooled = nn.AvgPool2d(3, 2, padding=1)
        self.semantic_grown = ConvBN(semantic, detail, 3, relu=False)
        self.semantic_kept = nn.Sequential(_depthwise(semantic), nn.Conv2d(semantic, detail, 1))
        self.fused = ConvBN(detail, detail, 3, relu=False)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        size = (detail.shape[2], detail.shape[3])
        fine = self.detail_kept(detail)
        fine = fine * torch.sigmoid(resize(self.semantic_grown(semantic), size, _UPSAMPLING))
        coarse = self.detail_pooled(self.detail_halved(detail))
        coarse = coarse * torch.sigmoid(self.semantic_kept(semantic))
        y: Tensor = self.fused(fine + resize(coarse, size, _UPSAMPLING))
        return y
