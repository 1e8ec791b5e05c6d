"""Small networks of one's own, and what opens them."""

import dataclasses
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from icnet_deploy.labels import LabelSet
from icnet_deploy.networks.own.opened import adapt
from icnet_deploy.networks.own.request import NetworkRequest

COLOURS = [(i, 255 - i, 7 * i % 256) for i in range(9)]


def classes(count):
    return LabelSet("own", tuple(f"c{i}" for i in range(count)), tuple(COLOURS[:count]))


REQUEST = NetworkRequest("nets:net", label_set=classes(3), preprocessing="imagenet")


def opened(module, size=None, **said):
    """`adapt`, with what is said of the network."""
    return adapt(module, dataclasses.replace(REQUEST, **said), size)


class Net(nn.Module):
    """Convolutions of stride 2, and what `end` makes of (logits, image)."""

    def __init__(self, end=lambda logits, image: logits, steps=2, classes=3):
        super().__init__()
        torch.manual_seed(0)
        widths = [3, *[8] * steps]
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, classes, 1)
        self.end = end

    def forward(self, image):
        x = image
        for step in self.steps:
            x = step(x).relu()
        return self.end(self.head(self.norm(x)), image)


def up(aligned=None, **more):
    """The last resize, to the image's size."""

    def end(logits, image):
        how = {"mode": "bilinear", "align_corners": aligned} | more
        return F.interpolate(logits, image.shape[2:], **how)

    return end


def answers(network, size=(128, 160)):
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        return image, network(image)


def multiple_of(multiple, end=lambda z, x: z):
    def check(logits, image):
        assert not any(side % multiple for side in image.shape[2:]), f"not by {multiple}"
        return end(logits, image)

    return check
