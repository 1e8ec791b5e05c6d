"""Readers of labelled street scenes: Cityscapes, CamVid in its two forms, generated scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.errors import DatasetError, ImageError
from icnet_deploy.images import IMAGE_SUFFIXES, ImageFile, read_colours, read_grey
from icnet_deploy.labels import CAMVID, CITYSCAPES, IGNORE, LabelSet

UInt8 = npt.NDArray[np.uint8]

EXIF = ("apply", "ignore")
"""How masks may have been drawn: on the picture turned as EXIF says, or on the stored pixels."""


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        name: the image's name, unique in its data set.
        image: uint8 H x W x 3, RGB, 0..255.
        labels: uint8 H x W, indices of the data set's label set; 255 is ignored.
        other: the same image with EXIF's orientation treated the other way, where it has one.
    """

    name: str
    image: UInt8
    labels: UInt8
    other: UInt8 | None = None

    def content_hashes(self) -> tuple[str, ...]:
        """The content hash of the image, and of the same image turned otherwise by EXIF."""
        images = (self.image,) if self.other is None else (self.image, self.other)
        return tuple(content_hash(image) for image in images)


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """A list of labelled images that are decoded when asked for.

    Attributes:
        name: `cityscapes`, `camvid` or `scenes`.
        split: `train`, `val`, ...
        label_set: the classes that `Sample.labels` speaks of.
        files: (image file, label file) pairs, sorted by name.
        read_labels: decodes a label file into indices of `label_set`, with 255 for ignored.
        exif: of images that have an EXIF orientation: "apply" if masks were drawn on the turned
            picture, "ignore" if on the stored pixels; None if that is not known.
    """

    name: str
    split: str
    label_set: LabelSet
    files: tuple[tuple[Path, Path], ...]
    read_labels: Callable[[Path], UInt8]
    exif: str | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def turn(self) -> bool:
        """Whether images are turned as EXIF says, as unlabelled ones are."""
        return self.exif != "ignore"

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Decodes one sample.

        Raises:
            DatasetError: the label file is missing, not a label map, or of another size; or the
                image has an EXIF orientation of which `exif` says nothing.
            ImageError: the image cannot be decoded.
        """
        image_file, label_file = self.files[index]
        opened = open_image(image_file, self.exif)
        self._require_size(opened, label_file)
        image = opened.rgb(self.turn)
        try:
            labels = self.read_labels(label_file)
        except ImageError as error:
            raise DatasetError(f"labels of {image_file.name}: {error}") from error
        if labels.shape != image.shape[:2]:
            raise self._other_size(opened, label_file, labels.shape)
        highest = int(labels[labels != IGNORE].max(initial=0))
        if highest >= len(self.label_set):
            raise DatasetError(
                f"{label_file} holds the label {highest}; {self.label_set.name} has "
                f"{len(self.label_set)} classes"
            )
        other = opened.rgb(not self.turn) if opened.orientation != 1 else None
        return Sample(image_file.stem.removesuffix("_leftImg8bit"), image, labels, other)

    def _require_size(self, image: ImageFile, label_file: Path) -> None:
        """Compares sizes before a pixel is decoded."""
        try:
            size = ImageFile(label_file).size()
        except ImageError:
            return  # its reader says what is wrong, or reads what is no image
        if size != image.size(self.turn):
            raise self._other_size(image, label_file, size)

    def _other_size(
        self, image: ImageFile, label_file: Path, size: tuple[int, ...]
    ) -> DatasetError:
        own, hint = image.size(self.turn), ""
        if size == image.size(not self.turn):
            other = "ignore" if self.turn else "apply"
            hint = f" as --exif {self.exif} reads it: its mask was drawn for --exif {other}"
        return DatasetError(
            f"{label_file} is {_size(size)}, its image {image.path.name} is {_size(own)}{hint}"
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def first(self, count: int | None) -> Dataset:
        """The same data set cut to `count` images spread evenly over it (None: all of them)."""
        if count is None or count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return Dataset(
            self.name,
            self.split,
            self.label_set,
            tuple(self.files[i] for i in chosen),
            self.read_labels,
            exif=self.exif,
        )


def open_image(path: Path, exif: str | None) -> ImageFile:
    """Opens an image that has a mask, without decoding it.

    Args:
        path: the image.
        exif: how masks were drawn; see `Dataset.exif`.

    Raises:
        DatasetError: the image has an EXIF orientation, and `exif` is None.
        ImageError: it is not an image.
    """
    image = ImageFile(path)
    if image.orientation != 1 and exif is None:
        raise DatasetError(
            f"{path} has the EXIF orientation {image.orientation}; expected 1, or to be told how "
            "its mask was drawn: give --exif apply (on the picture turned as EXIF says) or --exif "
            "ignore (on the pixels as they are stored)"
        )
    return image


def content_hash(image: UInt8) -> str:
    """SHA-256 of an image's size and pixels, whatever file or format it came from.

    Args:
        image: uint8 H x W x 3, RGB.
    """
    header = f"{image.shape[0]}x{image.shape[1]}:".encode()
    return hashlib.sha256(header + np.ascontiguousarray(image).tobytes()).hexdigest()


def content_hashes(image: ImageFile) -> tuple[str, ...]:
    """The content hash of an image as it is shown and, where EXIF turns it, as it is stored.

    Raises:
        ImageError: it cannot be decoded.
    """
    ways = (True,) if image.orientation == 1 else (True, False)
    return tuple(content_hash(image.rgb(turn)) for turn in ways)


def open_dataset(
    name: str, root: str | Path, split: str = "val", exif: str | None = None
) -> Dataset:
    """Opens a data set by its name.

    Args:
        name: `cityscapes`, `camvid`, or `scenes` (what `icnet scenes` draws).
        root: its folder.
        split: `train`, `val` or `test`.
        exif: what to make of images with an EXIF orientation; see `Dataset.exif`.

    Raises:
        DatasetError: the name is unknown, or the folder holds no labelled images of that split.
    """
    root = Path(root)
    if exif not in (None, *EXIF):
        raise DatasetError(f"exif is {' or '.join(EXIF)}; got {exif!r}")
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if not root.is_dir():
        raise DatasetError(f"the data set's folder {root} does not exist")
    return replace(DATASETS[name](root, split), exif=exif)


def _cityscapes(name: str, root: Path, split: str) -> Dataset:
    """`leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`."""
    suffix = "_leftImg8bit.png"
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{suffix}"))
    files = []
    for image in images:
        base = image.name.removesuffix(suffix)
        label = root / "gtFine" / split / image.parent.name / f"{base}_gtFine_labelIds.png"
        files.append((image, label))
    return _dataset(
        name,
        root,
        split,
        CITYSCAPES,
        files,
        _label_ids,
        "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and "
        "gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png",
    )


def _camvid(root: Path, split: str) -> Dataset:
    """The three layouts in which CamVid travels.

    `SPLIT/` + `SPLITannot/`: 480x360, indices (SegNet's). `SPLIT/` + `SPLIT_labels/`: 960x720,
    colours. `701_StillsRaw_full/` + `LabeledApproved_full/`: the original, colours, with the
    names of a split, one a line, in `SPLIT.txt` (or the split `all`).
    """
    if (root / f"{split}annot").is_dir():
        files = [(i, _annotation(root / f"{split}annot", i)) for i in _images(root / split)]
        reader: Callable[[Path], UInt8] = _camvid_indices
    else:
        reader = _camvid_colours
        folder, labels = root / split, root / f"{split}_labels"
        if not labels.is_dir() and (root / "701_StillsRaw_full").is_dir():
            folder, labels = root / "701_StillsRaw_full", root / "LabeledApproved_full"
        files = [(i, labels / f"{i.stem}_L.png") for i in _images(folder)]
        if folder.name == "701_StillsRaw_full" and split != "all":
            wanted = _camvid_split(root, split)
            files = [pair for pair in files if pair[0].stem in wanted]
            absent = sorted(wanted - {image.stem for image, _ in files})
            if absent:  # a score over the rest would pass for one over the split
                raise DatasetError(
                    f"{root / split}.txt names {len(wanted)} images, {folder} lacks "
                    f"{len(absent)} of them; first: {absent[0]}"
                )
    return _dataset(
        "camvid",
        root,
        split,
        CAMVID,
        files,
        reader,
        "SPLIT/ and SPLITannot/, SPLIT/ and SPLIT_labels/, or 701_StillsRaw_full/, "
        "LabeledApproved_full/ and SPLIT.txt",
    )


def _camvid_split(root: Path, split: str) -> set[str]:
    path = root / f"{split}.txt"
    if not path.is_file():
        raise DatasetError(
            f"{root} is the original CamVid, which has no splits of its own: write the names of "
            f"the split's images, one a line, into {path}, or ask for --split all"
        )
    lines = path.read_text(encoding="utf-8", errors="replace").split()
    return {Path(line).stem.removesuffix("_L") for line in lines}


def _dataset(
    name: str,
    root: Path,
    split: str,
    label_set: LabelSet,
    files: list[tuple[Path, Path]],
    read_labels: Callable[[Path], UInt8],
    layout: str,
) -> Dataset:
    if not files:
        raise DatasetError(
            f"{root} holds no {name} images of the split {split!r}; expected {layout}"
        )
    missing = [label for _, label in files if not label.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(files)} {name} images have no labels; first: {missing[0]}"
        )
    return Dataset(name, split, label_set, tuple(files), read_labels)


def _annotation(folder: Path, image: Path) -> Path:
    """The label file of an image: of its name, or, where a photo is a JPEG, a PNG's."""
    same, png = folder / image.name, folder / f"{image.stem}.png"
    return same if same.is_file() or not png.is_file() else png


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _inverse(label_ids: Sequence[int]) -> UInt8:
    table = np.full(256, IGNORE, np.uint8)
    table[list(label_ids)] = np.arange(len(label_ids), dtype=np.uint8)
    return table


_TRAIN_IDS = _inverse(CITYSCAPES.label_ids or ())


def _label_ids(path: Path) -> UInt8:
    return np.asarray(_TRAIN_IDS[read_grey(path)])


def _camvid_indices(path: Path) -> UInt8:
    labels = read_grey(path)
    highest = int(labels[labels != IGNORE].max(initial=0))
    if highest > len(CAMVID):  # 11 itself is "unlabelled"
        raise DatasetError(f"{path} holds {highest}; CamVid's indices are 0 to 11")
    return np.where(labels >= len(CAMVID), np.uint8(IGNORE), labels)


# The 32 colours of the original, grouped into 11 classes as SegNet's authors did; black and every
# colour that is not listed is ignored.
_CAMVID_COLOURS = {
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


def _camvid_colours(path: Path) -> UInt8:
    rgb = read_colours(path).astype(np.uint32)
    code = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    colours, where = np.unique(code, return_inverse=True)
    index = {int(c, 16): CAMVID.names.index(n) for n, cs in _CAMVID_COLOURS.items() for c in cs}
    table = np.array([index.get(int(c), IGNORE) for c in colours], np.uint8)
    return np.asarray(table[where].reshape(code.shape))


DATASETS: dict[str, Callable[[Path, str], Dataset]] = {
    "cityscapes": lambda root, split: _cityscapes("cityscapes", root, split),
    "camvid": _camvid,
    "scenes": lambda root, split: _cityscapes("scenes", root, split),
}
