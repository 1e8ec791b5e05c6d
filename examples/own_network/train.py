"""`python train.py NAME --data DIR -o NAME.pth`: trains a network, in plain PyTorch.

Nothing here is the kit's: it stands for the training that you have.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import my_networks
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
"""What `--preprocessing imagenet` is: 0..1, minus the mean, by the deviation."""


def load_split(folder: Path, split: str) -> list[tuple[Tensor, Tensor]]:
    """Every image of a split, float 3 x H x W, and its labels, int64 H x W."""
    pairs = []
    for file in sorted((folder / "images" / split).glob("*.png")):
        image = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
        labels = np.array(Image.open(folder / "labels" / split / file.name))
        pairs.append(((image - MEAN) / DEVIATION, torch.from_numpy(labels).long()))
    return pairs


def logits_of(answer: Any) -> Tensor:
    """torchvision answers with a dict, transformers with an object, most others with a tensor."""
    return (
        answer["out"]
        if isinstance(answer, dict) and "out" in answer
        else (answer.logits if hasattr(answer, "logits") else answer)
    )


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy at the labels' size; of one channel, of its sigmoid."""
    if logits.shape[2:] != labels.shape[1:]:
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    if logits.shape[1] > 1:
        return F.cross_entropy(logits, labels, ignore_index=255)
    known = labels != 255
    return F.binary_cross_entropy_with_logits(logits[:, 0][known], labels[known].float())


def train(network: nn.Module, pairs: list[tuple[Tensor, Tensor]], steps: int, batch: int) -> None:
    """Trains a network on images drawn with a seed, half of them mirrored."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = np.random.default_rng(0)
    bar = tqdm(range(steps), "training", unit="step")
    for _ in bar:
        chosen = [pairs[i] for i in generator.integers(len(pairs), size=batch)]
        turned = [
            (p.flip(-1) for p in pair) if generator.random() < 0.5 else pair for pair in chosen
        ]
        images, labels = (torch.stack(parts) for parts in zip(*turned, strict=True))
        loss = loss_of(logits_of(network.train()(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    # Some batch norms follow slowly (torchvision's MobileNet by 1 % a step): after so few steps
    # their running statistics are not yet those of the weights.
    images = torch.stack([image for image, _ in pairs])
    torch.optim.swa_utils.update_bn(images.split(batch), network)


def classes_in_map(network: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> int:
    """How many classes a network gives to more than 1 % of the pixels of these images.

    A file that is compared with a network that knows one class alone is compared in nothing.
    """
    counts = torch.zeros(256)
    with torch.no_grad():
        for image, _ in pairs:
            logits = logits_of(network.eval()(image[None]))
            labels = logits.argmax(1) if logits.shape[1] > 1 else (logits > 0).long()
            counts += torch.bincount(labels.flatten(), minlength=256)
    return int((counts > counts.sum() / 100).sum())


def main() -> None:
    """Trains one network and writes its state dict."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("name", help="a function of my_networks.py")
    p.add_argument("--data", type=Path, required=True, help="a folder that streets.py wrote")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-o", "--out", type=Path, required=True, help="the .pth file")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    network = getattr(my_networks, args.name)()
    train(network, load_split(args.data, "train"), args.steps, args.batch)
    count = classes_in_map(network, load_split(args.data, "val"))
    print(f"{args.out}: its own map has {count} classes on more than 1 % of the pixels")
    kept = {"state_dict": network.state_dict(), "steps": args.steps, "classes_in_map": count}
    torch.save(kept, args.out)


if __name__ == "__main__":
    main()
