"""CamVid in its three layouts: indices, colours a split, and the original's 32 colours."""

from collections.abc import Callable
from os.path import isdir, isfile
from pathlib import Path

import numpy as np

from icnet_deploy.data.dataset import Dataset, UInt8, images_in, listed
from icnet_deploy.data.groups import named
from icnet_deploy.errors import DatasetError
from icnet_deploy.files import read_file
from icnet_deploy.images import ImageFile, read_grey
from icnet_deploy.labels import CAMVID, IGNORE

_DRIVE = named("^([^_]+)_")  # 0016E5_07959.png is a frame of the drive 0016E5


def read(root: Path, split: str) -> Dataset:
    """Reads any of the three layouts in which CamVid travels.

    `SPLIT/` + `SPLITannot/`: 480x360, indices (SegNet's). `SPLIT/` + `SPLIT_labels/`: 960x720,
    colours. `701_StillsRaw_full/` + `LabeledApproved_full/`: the original, colours, with the
    names of a split, one a line, in `SPLIT.txt` (or the split `all`).

    Raises:
        DatasetError: there is no image of that split, or one has no labels.
    """
    if isdir(root / f"{split}annot"):
        files = [(i, _annotation(root / f"{split}annot", i)) for i in images_in(root / split)]
        reader: Callable[[Path], UInt8] = _indices
    else:
        reader = _colours
        folder, labels = root / split, root / f"{split}_labels"
        if not isdir(labels) and isdir(root / "701_StillsRaw_full"):
            folder, labels = root / "701_StillsRaw_full", root / "LabeledApproved_full"
        files = [(i, labels / f"{i.stem}_L.png") for i in images_in(folder)]
        if folder.name == "701_StillsRaw_full" and split != "all":
            wanted = _named_in(root, split)
            files = [pair for pair in files if pair[0].stem in wanted]
            absent = sorted(wanted - {image.stem for image, _ in files})
            if absent:  # a score over the rest would pass for one over the split
                raise DatasetError(
                    f"{root / split}.txt names {len(wanted)} images, and {len(absent)} of them are "
                    f"not in {folder}; first: {absent[0]}"
                )
    return listed(
        "camvid",
        root,
        split,
        CAMVID,
        files,
        reader,
        "SPLIT/ and SPLITannot/, SPLIT/ and SPLIT_labels/, or 701_StillsRaw_full/, "
        "LabeledApproved_full/ and SPLIT.txt",
        group_of=_DRIVE,
    )


def _named_in(root: Path, split: str) -> set[str]:
    path = root / f"{split}.txt"
    if not isfile(path):
        raise DatasetError(
            f"{root} is the original CamVid, which has no splits of its own: write the names of "
            f"the split's images, one on each line, into {path}, or give --split all"
        )
    lines = read_file(path).decode("utf-8-sig", "replace").split()
    return {Path(line).stem.removesuffix("_L") for line in lines}


def _annotation(folder: Path, image: Path) -> Path:
    """The label file of an image: of its name, or, where a photo is a JPEG, a PNG's."""
    same, png = folder / image.name, folder / f"{image.stem}.png"
    return same if isfile(same) or not isfile(png) else png


def _indices(path: Path) -> UInt8:
    labels = read_grey(path)
    highest = int(labels[labels != IGNORE].max(initial=0))
    if highest > len(CAMVID):  # 11 itself is "unlabelled"
        raise DatasetError(f"{path} holds {highest}; CamVid's indices are 0 to 11")
    return np.where(labels >= len(CAMVID), np.uint8(IGNORE), labels)


# The 32 colours of the original, grouped into 11 classes as SegNet's authors did; black and every
# colour that is not listed is ignored.
_COLOURS = {
    "sky": ["808080"],
    "building": ["800000", "c00080", "008040", "400040", "40c000"],  # archway bridge tunnel wall
    "pole": ["c0c080", "000040"],  # column pole, traffic cone
    "road": ["804080", "8000c0", "c00040"],  # two kinds of lane marking
    "pavement": ["0000c0", "40c080", "8080c0"],  # parking block, road shoulder
    "tree": ["808000", "c0c000"],  # other vegetation
    "sign/symbol": ["c08080", "808040", "004040"],  # text, traffic light
    "fence": ["404080"],
    "car": ["400080", "4080c0", "c080c0", "c04080", "804040"],  # SUV, truck or bus, train, other
    "pedestrian": ["404000", "c08040", "4000c0", "408040"],  # child, cart, animal
    "bicyclist": ["0080c0", "c000c0"],  # motorcycle or scooter
}


def _colours(path: Path) -> UInt8:
    rgb = ImageFile(path).colours().astype(np.uint32)
    code = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    colours, where = np.unique(code, return_inverse=True)
    index = {int(c, 16): CAMVID.names.index(n) for n, cs in _COLOURS.items() for c in cs}
    table = np.array([index.get(int(c), IGNORE) for c in colours], np.uint8)
    return np.asarray(table[where].reshape(code.shape))
