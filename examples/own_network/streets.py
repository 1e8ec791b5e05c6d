"""Drawn street scenes as a folder of one's own, in place of photos that somebody labelled.

    DIR/classes.json
    DIR/images/SPLIT/*.png    colours
    DIR/labels/SPLIT/*.png    the index of a class, or 255: not known

This is the layout of `--dataset folder`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.labels import CITYSCAPES

STREETS: Mapping[str, Sequence[str]] = {
    "road": ["road"],
    "ground": ["sidewalk", "terrain"],
    "building": ["building", "wall", "fence"],
    "pole": ["pole", "traffic light", "traffic sign"],
    "plant": ["vegetation"],
    "sky": ["sky"],
    "vehicle": ["car", "truck", "bus", "train", "motorcycle", "bicycle"],
    "person": ["person", "rider"],
}
"""Eight classes, and which of the drawn ones each is."""

ROAD: Mapping[str, Sequence[str]] = {
    "other": [name for names in STREETS.values() for name in names if name != "road"],
    "road": ["road"],
}
"""Two classes, for a network of one channel."""

SPLITS = {"train": 1, "val": 2}
"""Split -> the seed that its scenes are drawn with."""


def write_streets(
    folder: Path,
    classes: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    size: tuple[int, int],
) -> Path:
    """Draws scenes and writes them.

    Args:
        folder: the data set's.
        classes: name -> the drawn classes that it is.
        counts: split -> how many scenes.
        size: (height, width) of an image, in pixels.

    Returns:
        The label set's file, `folder/classes.json`.
    """
    table = np.full(256, 255, np.uint8)
    for index, names in enumerate(classes.values()):
        table[[CITYSCAPES.names.index(name) for name in names]] = index
    for split, count in counts.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in tqdm(range(count), f"{folder.name} {split}", unit="scene"):
            scene = draw_scene((SPLITS[split], number), size)
            name = f"{split}/{number:04}.png"
            Image.fromarray(scene.image).save(folder / "images" / name)
            Image.fromarray(table[scene.labels]).save(folder / "labels" / name)
    palette = [
        list(CITYSCAPES.palette[CITYSCAPES.names.index(names[0])]) for names in classes.values()
    ]
    file = folder / "classes.json"
    label_set = {"name": folder.name, "names": list(classes), "palette": palette}
    file.write_text(json.dumps(label_set, indent=2))
    return file
