"""Drawn scenes as a data set: drawn when asked for, or written as Cityscapes (`icnet scenes`)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from icnet_deploy.command import command, count, parser, size
from icnet_deploy.data import Dataset, Sample
from icnet_deploy.data.scenes.scene import draw_scene
from icnet_deploy.errors import InputError
from icnet_deploy.files import make_folder, require_folder_name
from icnet_deploy.images import read_grey, write_image, write_labels
from icnet_deploy.labels import CITYSCAPES

SEED = 90_000
"""Of no training scene: `docs/weights.md` names the seeds of those."""

DRAWN = f"drawn with seed {SEED}"
"""The split of scenes that are drawn where no data set is named."""


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
        name = _name(index)
        return Sample(name, scene.image, scene.labels, group=name)

    def groups(self) -> tuple[str, ...]:
        """Each scene is a group of its own."""
        return tuple(map(_name, range(self.total)))


class _UnlabelledScenes(DrawnScenes):
    """The same without labels: for a network of other classes than they are drawn of."""

    labelled: ClassVar[bool] = False


def _name(index: int) -> str:
    return f"scene_{index:03}"


def drawn_scenes(count: int, size: tuple[int, int], labelled: bool = True) -> DrawnScenes:
    """So many scenes of (height, width) pixels, always the same ones, with their labels or not."""
    kind = DrawnScenes if labelled else _UnlabelledScenes
    return kind("scenes", DRAWN, CITYSCAPES, (), read_grey, count, size)


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


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Draws labelled street scenes into a folder."""
    p = parser(
        "icnet scenes",
        "Draw labelled street scenes of all 19 Cityscapes classes, in the layout of Cityscapes.",
        "icnet scenes scenes --count 20 --size 1024x2048 --seed 7",
    )
    p.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    p.add_argument(
        "--count",
        type=count,
        default=20,
        metavar="N",
        help="how many scenes to draw (default: %(default)s)",
    )
    p.add_argument(
        "--size",
        type=size,
        default=(1024, 2048),
        metavar="HEIGHTxWIDTH",
        help="their size in pixels (default: 1024x2048)",
    )
    p.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the random seed; two seeds never draw the same scene (default: %(default)s)",
    )
    p.add_argument(
        "--split",
        default="val",
        choices=("train", "val", "test"),
        help="the split to write (default: %(default)s)",
    )
    args = p.parse_args(argv)
    require_folder_name(args.out, "")
    written = write_scenes(args.out, args.count, args.size, args.seed, args.split)
    height, width = args.size
    print(f"{len(written)} scenes of {height}x{width} in {written[0].parent}")
    print(f"read them with: --dataset scenes --data {args.out} --split {args.split}")
    return 0
