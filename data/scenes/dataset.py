"""Labelled scenes that are drawn when they are asked for: a data set that needs no disk."""

from __future__ import annotations

from dataclasses import dataclass

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.data.scenes import draw_scene
from icnet_deploy.images import read_grey
from icnet_deploy.labels import CITYSCAPES

SEED = 90_000
"""Of no training scene: `docs/weights.md` names the seeds of those."""


@dataclass(frozen=True)
class DrawnScenes(Dataset):
    """Scenes of one seed.

    Attributes:
        total: how many.
        size: (height, width) in pixels.
    """

    total: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < self.total:
            raise IndexError(index)
        scene = draw_scene((SEED, index), self.size)
        return Sample(f"scene_{index:03}", scene.image, scene.labels)


def drawn_scenes(count: int, size: tuple[int, int]) -> DrawnScenes:
    """So many scenes of (height, width) pixels, always the same ones."""
    return DrawnScenes("scenes", f"drawn with seed {SEED}", CITYSCAPES, (), read_grey, count, size)
