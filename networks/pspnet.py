"""PSPNet50 as the ICNet paper takes it for its baseline (Zhao et al., arXiv 1704.08545, section 4).

PSPNet (Zhao et al., arXiv 1612.01105) joins its pooled features, reduced by a 1x1 each, with the
features themselves, and follows them with a 3x3. Here the pooled features are summed with them as
they are, and the convolution that follows is a 1x1: the low branch of ICNet on the whole image.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from icnet_deploy.networks.layers import Bottleneck, ConvBN
from icnet_deploy.networks.resnet import BLOCKS, ChannelCounts, ResNet50

_GEOMETRY: dict[int, tuple[dict[int, int], dict[int, int]]] = {
    8: ({3: 2}, {4: 2, 5: 4}),
    16: ({3: 2, 4: 2}, {5: 2}),
    32: ({3: 2, 4: 2, 5: 2}, {}),
}
"""Strides and dilations by stage: a dilation stands where a stride was taken out."""

_AUXILIARY = BLOCKS.index("conv4_6") + 1


class PSPNet(ResNet50):
    """A dilated ResNet50 on the whole image, pyramid pooling, one classifier.

    Args:
        num_classes: classes of the output.
        width: 1.0 is the uncompressed net; the paper's baseline has 0.5.
        downsampling: of the features: 8, 16 or 32 (the paper's table 1).
        guidance: build the training-only head on `conv4_6`, a 3x3 and a classifier, as PSPNet
            trains with it (arXiv 1612.01105, section 4, at a weight of 0.4).
        channels: released layer name -> channels of its output, for a pruned net: where it is not
            what `width` gives.
    """

    conv4_6: Bottleneck

    def __init__(
        self,
        num_classes: int,
        width: float = 0.5,
        downsampling: Literal[8, 16, 32] = 8,
        guidance: bool = False,
        channels: Mapping[str, int] | None = None,
    ) -> None:
        if downsampling not in _GEOMETRY:
            raise ValueError(f"downsampling is one of {tuple(_GEOMETRY)}; got {downsampling!r}")
        c = ChannelCounts(width, channels)
        super().__init__(num_classes, width, c, *_GEOMETRY[downsampling])
        self.downsampling, self.guidance = downsampling, guidance
        self.conv6 = nn.Conv2d(self.conv5_4_k1.cout, num_classes, 1)
        if guidance:
            self.conv4_6_aux = ConvBN(self.conv4_6.cout, c("conv4_6_aux", 256), 3)
            self.conv6_aux = nn.Conv2d(self.conv4_6_aux.cout, num_classes, 1)
        self._finish(c)

    def heads(self, image: Tensor) -> list[Tensor]:
        """Logits of every head that was built, the main one first.

        Args:
            image: float, N x 3 x H x W, as the checkpoint's preprocessing leaves it; sides >= 64.

        Returns:
            Float, N x C x h x w each, with h about H / downsampling.
        """
        x = self._run(BLOCKS[:_AUXILIARY], self._stem(image))
        logits = [self.conv6(self._pooled(self._run(BLOCKS[_AUXILIARY:], x)))]
        if self.guidance:
            logits.append(self.conv6_aux(self.conv4_6_aux(x)))
        return logits
