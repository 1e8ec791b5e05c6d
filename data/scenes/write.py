"""Writes drawn scenes in the layout of Cityscapes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from icnet_deploy.data.scenes.scene import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder
from icnet_deploy.images import write_image, write_labels
from icnet_deploy.labels import CITYSCAPES


def write_scenes(
    out: str | Path,
    count: int,
    size: tuple[int, int] = (1024, 2048),
    seed: int = 0,
    split: str = "val",
    progress: bool = True,
) -> list[Path]:
    """Draws `count` scenes into `out/leftImg8bit/SPLIT/scenes` and `out/gtFine/SPLIT/scenes`.

    Args:
        out: the data set's folder.
        count: how many, at least 1.
        size: (height, width) in pixels, each at least 64.
        seed: two seeds share no scene.
        split: `train`, `val` or `test`.
        progress: show a bar on stderr.

    Returns:
        The images' paths.

    Raises:
        InputError: `count` or `seed` is out of range.
        OutputError: the folder cannot be written.
    """
    if count < 1 or seed < 0:
        raise InputError(f"count is at least 1 and seed at least 0; got {count} and {seed}")
    out = Path(out)
    images = make_folder(out / "leftImg8bit" / split / "scenes")
    labels = make_folder(out / "gtFine" / split / "scenes")
    table = np.frombuffer(CITYSCAPES.train_to_label_ids(), np.uint8)
    written = []
    for index in tqdm(range(count), "scenes", unit="scene", disable=not progress, file=sys.stderr):
        scene = draw_scene((seed, index), size)
        name = f"scenes_{index:06}_000019"
        # The labels first: an image without labels would make the data set unreadable.
        write_labels(labels / f"{name}_gtFine_labelIds.png", table[scene.labels])
        write_image(images / f"{name}_leftImg8bit.png", scene.image)
        written.append(images / f"{name}_leftImg8bit.png")
    return written
