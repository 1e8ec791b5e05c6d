"""How a labeller is scored on a data set, and what makes two scores comparable."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.data import (
    ConfusionMatrix,
    Dataset,
    RegionAccuracy,
    Sample,
    prediction_table,
)
from icnet_deploy.documents import COUNT, TEXT, Schema, list_of
from icnet_deploy.errors import DatasetError, InputError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.image_score import ImageScore
from icnet_deploy.labels import IGNORE, LabelSet, check_labels
from icnet_deploy.metadata import FITS, UPSAMPLINGS, ArtefactMetadata

UInt8 = npt.NDArray[np.uint8]
Size = tuple[int, int]
Labeller = Callable[[UInt8], UInt8]
"""From uint8 H x W x 3, RGB, to a label map, uint8 H x W, of the model's classes."""


_RESIZES = {
    "stretch": "bilinear, as uint8, to the model's size",
    "letterbox": "bilinear, as uint8, in its own shape as large as the model's size allows, with a "
    "border right and below, which is not scored",
}
_BILINEAR = {"aligned-corners": "aligned corners", "half-pixel": "half-pixel centres"}
_EXIF = {
    None: "not given",
    "apply": "images are turned as it says, and so were drawn their masks",
    "ignore": "images are not turned: their masks were drawn on the stored pixels",
}


_NO_LABELS = "there are no labels: the truth is the reference's own label map"


_PLAINLY = {
    Dataset.grouping: "by the layout of the data set",
    _EXIF["apply"]: "images are turned; their masks were drawn on the turned images",
}
"""What is recorded -> what a person reads: recorded values stay, so that old scores compare."""


@dataclass(frozen=True)
class Protocol:
    """Everything about a score that is not the model: two scores that differ here differ in kind.

    Attributes:
        dataset: its name.
        split: the part of it.
        images: how many images were scored.
        label_sizes: each HEIGHTxWIDTH that the ground truth has, sorted.
        model_size: HEIGHTxWIDTH of the network's input, or `image` for each image's own.
        image_resize: how images came to the model's size, in words.
        logits_resize: how logits became a label map, in words.
        label_resize: how the ground truth was resized, in words.
        model_label_set: the classes that were predicted.
        data_label_set: the classes that were scored.
        mapping: how the ones answer for the others, in words.
        ignored: the label whose pixels are not counted.
        regions: what counts as a region, and the bins, in words.
        images_sha256: of all images and truths that were scored, in order.
        exif: what was made of images with an EXIF orientation, in words; not given: such images
            are refused.
        groups: by what rule images belong together, in words.
    """

    dataset: str
    split: str
    images: int
    label_sizes: tuple[str, ...]
    model_size: str
    model_label_set: str
    data_label_set: str
    mapping: str
    logits_resize: str
    image_resize: str = _RESIZES["stretch"]
    label_resize: str = "not resized: scored at the ground truth's own size"
    ignored: int = IGNORE
    regions: str = RegionAccuracy().rule()
    images_sha256: str = "not recorded"
    exif: str = _EXIF[None]
    groups: str = Dataset.grouping

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**dataclasses.asdict(self), "label_sizes": list(self.label_sizes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "the protocol") -> Protocol:
        """Reads the JSON form; InputError, by the name `where`, if it is none.

        Fields may be younger than a result.
        """
        fields = _PROTOCOL.fit(value, where)
        return cls(**fields | {"label_sizes": tuple(fields["label_sizes"])})

    def to_words(self) -> dict[str, str]:
        """Name -> value, as a person reads them."""
        values = {**self.to_dict(), "label_sizes": ", ".join(self.label_sizes)}
        words = {name.replace("_", " "): str(value) for name, value in values.items()}
        return {name: _PLAINLY.get(value, value) for name, value in words.items()}


_PROTOCOL = Schema(
    "a score's protocol as `icnet evaluate --json` writes it",
    {
        **dict.fromkeys((f.name for f in dataclasses.fields(Protocol)), TEXT),
        "images": COUNT,
        "label_sizes": list_of(TEXT),
        "ignored": COUNT,
    },
    optional=[f.name for f in dataclasses.fields(Protocol) if f.default is not MISSING],
)

OF_THE_MODEL = ("model_size", "model_label_set", "mapping")
"""The fields of a protocol that two different models may differ in, where the reader is told."""


def require_same_protocol(a: Protocol, b: Protocol, but: Collection[str] = ()) -> None:
    """Allows two scores to be compared.

    Args:
        a, b: how they were taken.
        but: the fields that may differ.

    Raises:
        InputError: their protocols differ; it names what does.
    """
    left, right = a.to_dict(), b.to_dict()
    differences = [
        f"{k}: {left[k]} and {right[k]}" for k in left if left[k] != right[k] and k not in but
    ]
    if differences:
        raise InputError(
            f"scores of different protocols cannot be compared ({'; '.join(differences)}): "
            "score both models the same way"
        )


@dataclass
class Score:
    """The running score of one model on one data set.

    Attributes:
        dataset: where the samples come from.
        label_set: the model's classes.
        model_size: (height, width) of the network's input, or None for each image's own.
        head: `logits`, or `labels` for a model whose graph makes the label map.
        upsampling: by which rule of `metadata.UPSAMPLINGS` its logits become pixels.
        fit: what becomes of an image of another size than the model's, of `metadata.FITS`.
        confusion, regions: the counts so far, in the classes of the data set.
        images_counted: what intervals are made of: a value for each image, in order.

    Raises:
        LabelSetError: the model's classes cannot answer for those of the data set.
    """

    dataset: Dataset
    label_set: LabelSet
    model_size: Size | None
    head: str = "logits"
    upsampling: str = UPSAMPLINGS[0]
    fit: str = FITS[0]
    confusion: ConfusionMatrix = field(init=False)
    regions: RegionAccuracy = field(init=False, default_factory=RegionAccuracy)
    images_counted: list[ImageCounts] = field(init=False, default_factory=list)

    @classmethod
    def of(cls, dataset: Dataset, metadata: ArtefactMetadata) -> Score:
        """An empty score of an artefact; raises as the class."""
        rules = metadata.upsampling, metadata.fit
        return cls(dataset, metadata.label_set, metadata.size, metadata.head, *rules)

    def __post_init__(self) -> None:
        self.confusion = ConfusionMatrix(len(self.dataset.label_set))
        data, class_map = self.dataset.label_set, self.dataset.class_map
        self._table = prediction_table(self.label_set, data, class_map)
        self._label_sizes: set[Size] = set()
        self._seen = hashlib.sha256()
        self._group_of: dict[bytes, str] = {}  # by what an image shows

    def mapped(self, labels: UInt8) -> UInt8:
        """The predicted classes in the data set's terms; 255 for one that stands for none.

        Raises:
            BackendError: a label is none of the model's classes (see `check_labels`).
        """
        check_labels(labels, self.label_set)
        return np.asarray(self._table[labels])

    def count(self, sample: Sample, labels: UInt8) -> ImageScore:
        """What `add` would add for one label map; adds nothing, and raises as `add`."""
        return _counted(self.mapped(labels), sample.labels, self.confusion.classes)

    def take(self, sample: Sample, one: ImageScore) -> None:
        """Adds what was counted of one image, now or in an earlier run.

        Args:
            sample: the image and its truth.
            one: what `count` gave for that image.
        """
        name = sample.name
        self.confusion += one.confusion
        self.regions += one.regions
        image = np.ascontiguousarray(sample.image)
        # One image under two names is one image, and so of one group.
        shown = hashlib.blake2b(image.data, digest_size=16).digest()
        group = self._group_of.setdefault(shown, sample.group or name)
        self.images_counted.append(ImageCounts.of(name, group, one.confusion, one.regions))
        self._label_sizes.add((sample.labels.shape[0], sample.labels.shape[1]))
        self._seen.update(image.data)
        self._seen.update(np.ascontiguousarray(sample.labels).data)

    def add(self, sample: Sample, labels: UInt8) -> UInt8:
        """Counts one label map.

        Args:
            sample: the image and its truth.
            labels: uint8 H x W, of the model's classes, at the truth's size.

        Returns:
            The label map in the data set's classes, as it was counted.

        Raises:
            DatasetError: the label map has another size than the truth.
            BackendError: a label is none of the model's classes.
        """
        mapped = self.mapped(labels)
        self.take(sample, _counted(mapped, sample.labels, self.confusion.classes))
        return mapped

    @property
    def images(self) -> int:
        """How many images were added."""
        return len(self.images_counted)

    def protocol(self) -> Protocol:
        """How the images so far were scored."""
        model, data = self.label_set, self.dataset.label_set
        mapping, class_map = "class by class", self.dataset.class_map
        if class_map is not None:
            mapping = f"by a class map from {class_map.source.name}: {class_map}"
        elif model.names != data.names:
            mapping = (
                f"predicted {model.name} classes stand for the {data.name} class that covers "
                "them; one that none covers counts as wrong"
            )
        return Protocol(
            dataset=self.dataset.name,
            split=self.dataset.split,
            images=self.images,
            label_sizes=tuple(size_text(size) for size in sorted(self._label_sizes)),
            model_size=size_text(self.model_size),
            model_label_set=f"{model.name}, {len(model)} classes",
            data_label_set=f"{data.name}, {len(data)} classes",
            mapping=mapping,
            logits_resize=self._logits_resize(),
            image_resize=_RESIZES[self.fit],
            regions=self.regions.rule(),
            images_sha256=self._seen.hexdigest(),
            exif=_EXIF[self.dataset.exif],
            groups=self.dataset.grouping,
            label_resize=Protocol.label_resize if self.dataset.labelled else _NO_LABELS,
        )

    def _logits_resize(self) -> str:
        """The heads differ only where the model's size is not the ground truth's."""
        cut = ", its border cut off," if self.fit == "letterbox" else ""
        nearest = f"the label map{cut} by nearest neighbour to the ground truth's size"
        if self.upsampling == "none":
            return f"not resized: argmax, then {nearest}"
        bilinear = f"bilinear with {_BILINEAR[self.upsampling]}"
        own_size = self.model_size is None or self._label_sizes == {self.model_size}
        if self.fit != "letterbox" and (self.head == "logits" or own_size):
            return f"{bilinear} to the ground truth's size, then argmax"
        return f"{bilinear} to the model's size, argmax, then {nearest}"

    def has_truth(self) -> bool:
        """Whether a single pixel of the images so far was labelled."""
        return bool(self.confusion.counts.any())

    def require_truth(self) -> None:
        """Refuses to read a score off images without a single labelled pixel (DatasetError)."""
        if not self.has_truth():
            raise DatasetError(
                f"none of the {self.images} {self.dataset.name} images has a labelled pixel: "
                "there is nothing to score (does the split have public labels?)"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; null for a class that does not occur, and only bins that hold regions."""
        names = self.dataset.label_set.names
        accuracy = self.regions.accuracy()
        width = self.regions.bin_pixels
        return {
            "miou_percent": percent(self.confusion.miou()),
            "iou_percent": {
                name: percent(iou) for name, iou in zip(names, self.confusion.iou(), strict=True)
            },
            "pixel_accuracy_percent": percent(self.confusion.pixel_accuracy()),
            "small_region_accuracy_percent": percent(self.regions.small()),
            "regions": [
                {
                    "from_pixels": index * width,
                    "to_pixels": (index + 1) * width if index + 1 < len(accuracy) else None,
                    "regions": int(self.regions.regions[index]),
                    "accuracy_percent": percent(value),
                }
                for index, value in enumerate(accuracy)
                if self.regions.regions[index]
            ],
        }


def _counted(mapped: UInt8, truth: UInt8, classes: int) -> ImageScore:
    one = ImageScore(ConfusionMatrix(classes), RegionAccuracy())
    one.confusion.add(mapped, truth)
    one.regions.add(mapped, truth)
    return one


def score_dataset(
    score: Score,
    samples: Collection[Sample],
    labeller: Labeller,
    look: Callable[[Sample, UInt8], None] = lambda sample, mapped: None,
) -> None:
    """Labels every sample and adds it to the score, one image in memory at a time.

    Args:
        score: what is added to.
        samples: a data set, or one with a progress bar around it.
        labeller: the model.
        look: is shown each sample with its label map in the data set's classes.
    """
    for sample in samples:
        look(sample, score.add(sample, labeller(sample.image)))
    score.require_truth()


def refuse_calibration_images(
    samples: Iterable[Sample], calibrated: Mapping[str, Collection[str]]
) -> None:
    """Refuses to score a model on images that its INT8 ranges were fitted to.

    Done before any model runs: it costs a second decoding, only where there is something to find.

    Args:
        samples: what is to be scored.
        calibrated: artefact -> content hashes of its calibration images.

    Raises:
        InputError: an image is among them; it names the image and the artefact.
    """
    owners = {digest: name for name, digests in calibrated.items() for digest in digests}
    if not owners:
        return
    # A bar only where it takes a while: one image beside another bar does not.
    what = "calibration images?"
    for sample in tqdm(samples, what, unit="image", delay=1, disable=None, leave=False):
        owner = next((owners[h] for h in sample.content_hashes() if h in owners), None)
        if owner is not None:
            raise InputError(
                f"the image {sample.name} was used to calibrate {owner}, so a score on it would "
                "flatter that artefact: score on another split, or calibrate on other images"
            )


def percent(share: float) -> float | None:
    """A share in 0..1 as percent, to 1e-6; None for NaN, which JSON does not have."""
    return None if np.isnan(share) else round(100 * float(share), 6)


def size_text(size: Size | None, any_size: str = "image") -> str:
    """(1024, 2048) as `1024x2048`; `any_size` for None, which is each image's own."""
    return any_size if size is None else f"{size[0]}x{size[1]}"
