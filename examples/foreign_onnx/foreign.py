"""`python foreign.py FILE.onnx`: writes an ONNX file that knows nothing of this product.

It stands for the file that you have: a small network, trained for some seconds on drawn street
scenes, exported by PyTorch with its label map inside (an ArgMax behind the last upsampling).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from icnet_deploy.data.scenes import draw_scene

CLASSES = 19
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
"""What `--preprocessing imagenet` is: 0..1, minus the mean, by the deviation."""


class Small(nn.Module):
    """Logits of a quarter of the image's size; for the file, their label map at its size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 24, stride=2)
        self.down = nn.Sequential(block(24, 48, stride=2), block(48, 48))
        self.wide = nn.Sequential(block(48, 48, stride=2), block(48, 48, dilation=2))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 48, 1), nn.Hardsigmoid())
        self.fuse = block(96, 48)
        self.classifier = nn.Conv2d(48, CLASSES, 1)
        self.maps = False

    def forward(self, image: Tensor) -> Tensor:
        high = self.down(self.stem(image))
        low = self.wide(high)
        low = F.interpolate(low * self.gate(low), scale_factor=2.0, mode="nearest")
        logits = self.classifier(self.fuse(torch.cat([high, low], 1)))
        logits = F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)
        return logits.argmax(1) if self.maps else logits


def block(inside: int, out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, out, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def scenes(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images, float N x 3 x H x W as the network expects them, and labels, int64 N x H x W."""
    drawn = [draw_scene((1, index), size) for index in tqdm(range(count), "drawing", unit="scene")]
    images = torch.from_numpy(np.stack([one.image for one in drawn])).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(np.stack([one.labels for one in drawn])).long()
    return (images - MEAN) / DEVIATION, labels


def train(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> None:
    """Trains a network on batches of eight, half of them mirrored."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in tqdm(range(steps), "training", unit="step"):
        chosen = torch.randint(len(images), (min(8, len(images)),))
        flip = [-1] * int(torch.rand(()) < 0.5)
        batch, truth = images[chosen].flip(flip), labels[chosen].flip(flip)
        loss = F.cross_entropy(network(batch), truth, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    """Trains and writes the file."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=Path, metavar="FILE.onnx")
    p.add_argument(
        "--size", default="64x128", help="HEIGHTxWIDTH of the scenes (default: %(default)s)"
    )
    p.add_argument(
        "--scenes", type=int, default=24, help="scenes to train on (default: %(default)s)"
    )
    p.add_argument(
        "--steps", type=int, default=120, help="steps of training (default: %(default)s)"
    )
    args = p.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.manual_seed(0)
    network = Small()
    train(network, *scenes(args.scenes, (height, width)), args.steps)
    network.eval().maps = True
    args.out.parent.mkdir(parents=True, exist_ok=True)
    example = (torch.zeros(1, 3, height, width),)
    names = {"input_names": ["input"], "output_names": ["classes"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is an old exporter; many files are of it
        torch.onnx.export(network, example, args.out, dynamo=False, opset_version=11, **names)


if __name__ == "__main__":
    main()
