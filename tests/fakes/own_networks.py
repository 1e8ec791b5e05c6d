"""Networks that the product does not know of until they are registered, as a user's would be."""

from torch import nn

from icnet_deploy.networks.base import SegmentationNetwork
from icnet_deploy.networks.registry import register


class Plain(SegmentationNetwork):
    """Three convolutions; it says nothing of what reads the image."""

    upsampling = "half-pixel"
    min_side = 32

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.last = nn.Conv2d(32, num_classes, 1)

    @property
    def stride(self):
        return 4

    def heads(self, image):
        return [self.last(self.second(self.norm(self.first(image)).relu()).relu())]


class Whole(Plain):
    """The same, which brings its logits to the image's size by itself."""

    upsampling = "none"

    @property
    def stride(self):
        return 1

    def heads(self, image):
        [logits] = super().heads(image)
        return [nn.functional.interpolate(logits, image.shape[2:], mode="nearest")]


register("test-plain", Plain)
register("test-whole", Whole)
