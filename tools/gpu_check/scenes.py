"""The scenes that the steps look at: drawn, which takes OpenCV, or carried here in a file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import InputError
from icnet_deploy.files import replacing
from icnet_deploy.images import read_grey
from icnet_deploy.labels import CITYSCAPES

CARRIED = "scenes.npz"
"""The file beside the artefacts."""


@dataclass(frozen=True)
class _Carried(Dataset):
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.samples[index]


def has_opencv() -> bool:
    """Whether scenes can be drawn, and regions be counted."""
    try:
        return find_spec("cv2") is not None
    except ImportError:  # an import hook that forbids it
        return False


def scenes(count: int, size: tuple[int, int], folder: Path | None) -> Dataset:
    """So many of the always same scenes, of (height, width) pixels.

    Raises:
        InputError: they cannot be drawn, and `folder` does not hold them.
    """
    if has_opencv():
        from icnet_deploy.data.scenes.dataset import drawn_scenes

        return drawn_scenes(count, size)
    path = folder / CARRIED if folder else None
    if path is None or not path.is_file():
        raise InputError(
            "scenes are drawn with OpenCV, which is not installed: where it is, `python "
            f"tools/gpu_check/command.py --artefacts FOLDER --draw` writes FOLDER/{CARRIED}; bring "
            "that along"
        )
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    if images.shape[1:3] != size or len(images) < count:
        raise InputError(
            f"{path} holds {len(images)} of {images.shape[1]}x{images.shape[2]}: {count} of "
            f"{size[0]}x{size[1]} are wanted; see --images, --size and --draw"
        )
    pairs = enumerate(zip(images[:count], labels[:count], strict=True))
    samples = tuple(Sample(f"scene_{i:03}", image, truth) for i, (image, truth) in pairs)
    return _Carried("scenes", "carried", CITYSCAPES, (), read_grey, samples)


def write_scenes(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Draws them into `folder`, for a machine without OpenCV."""
    samples = list(scenes(count, size, None))
    path = folder / CARRIED
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.stack([sample.image for sample in samples]),
            labels=np.stack([sample.labels for sample in samples]),
        )
    return path
