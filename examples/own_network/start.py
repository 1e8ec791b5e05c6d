"""`python start.py DIR`: all that a first try needs, where nothing of your own is at hand.

It draws a data set, trains a small U-Net on it and writes

    DIR/street/        drawn scenes with labels, splits train and val: the data set
    DIR/classes.json   the names of its eight classes
    DIR/mynets.py      the network, a function `build`
    DIR/net.pth        its weights
    DIR/photos/        some drawn scenes without labels
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from mynets import build
from PIL import Image
from streets import STREETS, write_streets
from torch import nn
from tqdm import tqdm

from icnet_deploy.data import Dataset
from icnet_deploy.data.registry import open_dataset
from icnet_deploy.data.scenes import draw_scene

SIZE = (64, 128)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what is called `imagenet`


def train(network: nn.Module, dataset: Dataset, steps: int, batch: int = 4) -> None:
    """Trains a network in place, and leaves it in inference mode."""
    rng = np.random.default_rng(0)
    samples = [dataset[index] for index in range(len(dataset))]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    loss_of = nn.CrossEntropyLoss(ignore_index=255)
    for _ in tqdm(range(steps), "training", unit="step"):
        chosen = [samples[index] for index in rng.integers(0, len(samples), batch)]
        images = torch.from_numpy(np.stack([each.image for each in chosen])) / 255
        images = (images - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
        labels = torch.from_numpy(np.stack([each.labels for each in chosen])).long()
        loss = loss_of(network(images.permute(0, 3, 1, 2)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


def main() -> None:
    """Writes everything and says what it wrote."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=Path, metavar="DIR")
    p.add_argument(
        "--steps", type=int, default=100, help="steps of training (default: %(default)s)"
    )
    p.add_argument("--train", type=int, default=32, help="scenes to train on (%(default)s)")
    p.add_argument("--val", type=int, default=16, help="scenes to score on (%(default)s)")
    args = p.parse_args()
    street, photos = args.out / "street", args.out / "photos"
    classes = write_streets(street, STREETS, {"train": args.train, "val": args.val}, SIZE)
    shutil.copy(classes, args.out / "classes.json")
    shutil.copy(Path(__file__).with_name("mynets.py"), args.out / "mynets.py")
    photos.mkdir(exist_ok=True)
    for number in range(3):
        Image.fromarray(draw_scene((3, number), SIZE).image).save(photos / f"{number}.jpg")
    torch.manual_seed(0)
    network = build(len(STREETS))
    train(network, open_dataset("folder", street, "train"), args.steps)
    torch.save(network.state_dict(), args.out / "net.pth")
    print(f"{args.out} holds street/, classes.json, mynets.py, net.pth and photos/")


if __name__ == "__main__":
    main()
