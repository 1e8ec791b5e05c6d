"""A ResNet-50 of plain `torch.nn`, with the names that torchvision and others give its tensors.

Strides and dilations are those of the kit's networks, which its names and shapes do not show.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from icnet_deploy.networks.layers import halved, resize

STAGES = ((1, 3), (2, 4), (4, 6), (8, 3))
"""Inner channels, in times the first stage's, and bottlenecks."""


def stem_of(kind, cout):
    """The stem's modules by name, in their order; `cout` channels leave it, half as many before."""
    inner = cout // 2
    first = nn.Conv2d(3, inner, 3, 2, 1, bias=False)
    second = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
    third = nn.Conv2d(inner, cout, 3, 1, 1, bias=False)
    norms = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner), nn.BatchNorm2d(cout)
    if kind == "7x7":
        return {"conv1": nn.Conv2d(3, cout, 7, 2, 3, bias=False), "bn1": norms[2]}
    relu = nn.ReLU()
    inside = [first, norms[0], relu, second, norms[1], relu, third]
    if kind == "timm":
        return {"conv1": nn.Sequential(*inside), "bn1": norms[2]}
    if kind == "mmsegmentation":
        return {"stem": nn.Sequential(*inside, norms[2])}
    layers = zip((first, second, third), norms, strict=True)  # semseg
    pairs = enumerate(layers, 1)
    return {name: m for i, (c, b) in pairs for name, m in ((f"conv{i}", c), (f"bn{i}", b))}


class Block(nn.Module):
    def __init__(self, cin, mid, stride, dilation, first, pooled):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, mid, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, 4 * mid, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * mid)
        projection = [nn.Conv2d(cin, 4 * mid, 1, stride, bias=False), nn.BatchNorm2d(4 * mid)]
        pool = [nn.Identity()] if pooled else []
        self.downsample = nn.Sequential(*pool, *projection) if first else nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(self.downsample(x) + y)


class PlainResNet(nn.Module):
    """A classifier of ten classes.

    Args:
        base: inner channels of the first stage; 64 in the real one.
        stem: `7x7`, or whose three 3x3 convolutions: `timm`, `mmsegmentation` or `semseg`.
        cout: channels after the stem; None: `base`, or twice that of semseg's.
        pooled: whether its projections stand behind a pool, as in timm's resnet50d.
        depths: bottlenecks a stage.
    """

    def __init__(self, base=8, stem="7x7", cout=None, pooled=False, depths=(3, 4, 6, 3)):
        super().__init__()
        cin = cout or (2 * base if stem == "semseg" else base)
        modules = stem_of(stem, cin)
        self.before = list(modules)
        for name, module in modules.items():
            self.add_module(name, module)
        strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
        for stage, depth in enumerate(depths):
            mid = base * STAGES[stage][0]
            blocks = []
            for i in range(depth):
                stride = strides[stage] if i == 0 else 1
                blocks.append(Block(cin, mid, stride, dilations[stage], i == 0, pooled))
                cin = 4 * mid
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(cin, 10)

    def stages(self, x, halve):
        """Features of the last stage, from those after the stem; ICNet halves after conv3_1."""
        x = self.layer2[0](self.layer1(x))
        x = resize(x, halved(x.shape[2:])) if halve else x
        return self.layer4(self.layer3(self.layer2[1:](x)))

    def features(self, image, halve):
        """Features of the last stage, of an image; ICNet looks at it at half its size."""
        x = resize(image, halved(image.shape[2:])) if halve else image
        for name in self.before:
            x = getattr(self, name)(x)
            x = F.relu(x) if name.startswith(("bn", "stem")) else x
        return self.stages(F.max_pool2d(x, 3, 2, 1, ceil_mode=True), halve)
