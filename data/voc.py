"""Pascal VOC's layout: images, palette labels of 21 classes, and lists of names."""

from os.path import isdir, isfile
from pathlib import Path

from icnet_deploy.data.dataset import Dataset, images_in, listed
from icnet_deploy.data.groups import alone
from icnet_deploy.data.own.classes import Classes
from icnet_deploy.data.own.folder import BY_ITSELF
from icnet_deploy.data.own.label_files import LabelReader
from icnet_deploy.errors import DatasetError
from icnet_deploy.files import read_file
from icnet_deploy.labels import VOC

NAME = "voc"
"""What the layout is called on the command line."""

_LISTS = Path("ImageSets/Segmentation")
_LAYOUT = "JPEGImages/NAME.jpg, SegmentationClass/NAME.png and ImageSets/Segmentation/SPLIT.txt"
_CLASSES = Classes(VOC, ignored_colours=((224, 224, 192),), source=NAME)  # the objects' borders


def read(root: Path, split: str) -> Dataset:
    """Reads `JPEGImages/` and `SegmentationClass/` by the names in `ImageSets/Segmentation/`.

    Args:
        root: `VOC2012`, `VOCdevkit`, or the folder that holds that.
        split: `train`, `val`, `trainval`: the name of a list.

    Raises:
        DatasetError: there is no such list, it is empty, or several data sets are below the folder.
        Incomplete: an image of the list or its labels are missing.
    """
    base = _base(root)
    path = base / _LISTS / f"{split}.txt"
    if not isfile(path):
        there = splits(root)
        raise DatasetError(
            f"{base} holds no {NAME} images of the split {split!r}; expected {_LAYOUT}"
            + (f"; it has the lists {', '.join(there)}" if there else "")
        )
    names = dict.fromkeys(read_file(path).decode("utf-8-sig", "replace").split())
    images = {image.stem: image for image in images_in(base / "JPEGImages")}
    labels = base / "SegmentationClass"
    absent = [name for name in names if name not in images]
    return listed(
        NAME,
        base,
        split,
        VOC,
        [(images[name], labels / f"{name}.png") for name in names if name in images],
        LabelReader(_CLASSES),
        _LAYOUT,
        alone,
        grouping=BY_ITSELF,
        problems=[f"{path} names {name}, which has no image in JPEGImages" for name in absent],
    )


def splits(root: Path) -> list[str]:
    """The names of the lists; `trainval`, which holds two others, only where it is alone."""
    names = sorted(path.stem for path in (_base(root) / _LISTS).glob("[!.]*.txt"))
    return [name for name in names if name != "trainval"] or names


def _base(root: Path) -> Path:
    """The folder that holds `ImageSets`: the one that was named, or the one below it."""
    if isdir(root / _LISTS):
        return root
    below = [*root.glob("VOC2*"), *root.glob("VOCdevkit/VOC2*")]
    found = sorted(folder for folder in below if isdir(folder / _LISTS))
    if len(found) > 1:
        raise DatasetError(
            f"{root} holds {len(found)} data sets, {', '.join(f.name for f in found)}: name the "
            "folder of one"
        )
    return found[0] if found else root
