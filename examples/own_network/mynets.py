"""A small U-Net in plain PyTorch, in place of the network that you bring."""

import torch
from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with batch norm."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Images, float N x 3 x H x W, to logits, N x classes x H x W; sides are multiples of 8."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(map(_block, [3, *channels[:-1]], channels))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2)
            for a, b in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.join = nn.ModuleList(_block(2 * each, each) for each in channels[-2::-1])
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        skips = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.classifier(x)


def build(classes: int = 8) -> nn.Module:
    """The network, as `--network mynets:build` calls it."""
    return UNet(classes)
