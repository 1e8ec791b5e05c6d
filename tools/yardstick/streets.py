"""The held-out streets: which frames, whose labels, and at which sizes they are scored.

At what size a frame of another camera looks like one of Cityscapes' is a matter of focal lengths,
in pixels, by which a lane at some distance is wide. Cityscapes' is 2262 at 1024x2048.

KITTI's is 721 at 375x1242: 1.57 times as large a frame is like Cityscapes' at 512x1024, and 3.14
times as large like it at 1024x2048.

CamVid's is not published, and its pixels are not square. Its camera stored 16:9 pictures as 960x720
(DVCPRO HD): round signs in them are 3/4 as wide as high. Its lens sees 58 degrees across at its
widest, which is a focal length of 577 in a picture of 360x640 and so of 433 across and 577 down in
the frames of 360x480. That makes 2.6 times across and 1.96 down for 512x1024. If the lens was not
at its widest, these sizes are somewhat too large.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icnet_deploy.data import Dataset, open_dataset
from icnet_deploy.data.dataset import images_in, listed, parted
from icnet_deploy.data.groups import named
from icnet_deploy.errors import DatasetError
from icnet_deploy.images import UInt8, read_grey
from icnet_deploy.labels import CITYSCAPES, IGNORE, LabelSet

Size = tuple[int, int]

DRIVES = "^(0001TP|0006R0|Seq05VD)_"
"""CamVid's drives that are held out, in the names of its frames."""

ROADS = "uu_"
"""KITTI's urban roads without lane markings, in the names of its frames."""

CONFIDENCE = 140
"""Of 255: where the teacher is less sure, its label is not counted."""

TRUSTED = (
    *("road", "sidewalk", "building", "vegetation", "sky", "car", "person"),
    "traffic sign",
)
"""The classes of which the teacher's word is taken; the pixels of its others are not counted."""

SIZES: Mapping[str, Mapping[str, Size]] = {
    "camvid": {
        "360x480": (360, 480),
        "720x960": (720, 960),
        "512x1024": (704, 1248),
        "1024x2048": (1408, 2496),
    },
    "kitti": {"512x1024": (608, 1984), "1024x2048": (1152, 3840)},
}
"""Street -> the size that is deployed -> (height, width) of its frames there, multiples of 32.

The first two are those at which CamVid's frames are scored everywhere, stored as they are.
"""

DEPLOYED = tuple(dict.fromkeys(size for sizes in SIZES.values() for size in sizes))
"""The sizes that are deployed."""


@dataclass(frozen=True)
class _TeachersLabels:
    """Reads a teacher's labels, Cityscapes' trainIds, where it is sure and trusted."""

    label_set: LabelSet

    def __call__(self, path: Path) -> UInt8:
        table = np.full(256, IGNORE, np.uint8)
        for index, name in enumerate(self.label_set.names):
            table[CITYSCAPES.names.index(name)] = index
        labels = table[read_grey(path)]
        sure = read_grey(path.parent.parent / "confidence" / path.name)
        if sure.shape != labels.shape:
            raise DatasetError(f"{path} and its confidence are of different sizes")
        labels[sure < CONFIDENCE] = IGNORE
        return np.asarray(labels)


def camvid(root: Path, drives: str) -> Dataset:
    """The held-out drives among CamVid's training frames, labelled by people, in 11 classes.

    Args:
        root: its folder.
        drives: a regular expression that finds something in the names of their frames.

    Raises:
        DatasetError: the folder holds none.
        InputError: it is no regular expression.
    """
    return _held_out(open_dataset("camvid", root, "train"), drives, root)


def kitti(root: Path, frames: str) -> Dataset:
    """The held-out frames of KITTI's roads, labelled by a teacher: the classes of `TRUSTED`.

    Args:
        root: a folder of `image/`, `label/` and `confidence/`, files of the same names.
        frames: a regular expression that finds something in their names.

    Raises:
        DatasetError: the folder holds none, or their labels or confidences are missing.
        InputError: it is no regular expression.
    """
    colours = tuple(CITYSCAPES.palette[CITYSCAPES.names.index(name)] for name in TRUSTED)
    label_set = LabelSet("trusted", TRUSTED, colours)
    files = [(i, root / "label" / f"{i.stem}.png") for i in images_in(root / "image")]
    layout = "image/, label/ and confidence/"
    whole = listed(
        "kitti",
        root,
        "roads",
        label_set,
        files,
        _TeachersLabels(label_set),
        layout,
        named("^([^_]+)_"),
    )
    return _held_out(whole, frames, root)


def _held_out(dataset: Dataset, pattern: str, root: Path) -> Dataset:
    found = parted(dataset, pattern, "--held-out")[1]
    if not found:
        raise DatasetError(
            f"{pattern} finds nothing in the names of the {len(dataset)} frames of {root}; "
            f"expected what finds those to score, the first being {dataset.files[0][0].name}"
        )
    return found
