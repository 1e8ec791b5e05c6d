"""What a network labels under each reading of it: counts of pixels, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import NotFinite
from icnet_deploy.evaluation.confidence.counts import Counts, ImageCounts
from icnet_deploy.evaluation.diagnose.slips import Reading
from icnet_deploy.evaluation.score import Size
from icnet_deploy.images import Fitted, Fitting, UInt8, resize_labels, unfit_labels
from icnet_deploy.labels import IGNORE
from icnet_deploy.runtime import label_map

if TYPE_CHECKING:
    from icnet_deploy.networks.checkpoint import Checkpoint
    from icnet_deploy.networks.preprocessing import Preprocessing

Float32 = npt.NDArray[np.float32]
_Seen = tuple["Preprocessing", str]
"""What a label map depends on: the preprocessing, and the rule of upsampling."""


class _Image(NamedTuple):
    """What is kept of an image besides the counts."""

    name: str
    group: str


class Runs:
    """Runs a network on images and counts; what was run once is not run again.

    Of each image, preprocessing and rule of upsampling it keeps how many pixels of each true class
    got each index, so that another meaning of the indices costs nothing.

    Args:
        checkpoint: the network, its classes and what is said of it.
        dataset: labelled images.
        size: (height, width) of the network's input; None: each image's own.

    Attributes:
        dataset: see above.
        resized: whether logits of another size than the network's input were seen.
        fitted: whether an image of another shape than the input was seen.
    """

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, size: Size | None) -> None:
        self.dataset = dataset
        self.resized = self.fitted = False
        self._checkpoint, self._size = checkpoint, size
        self._images: dict[int, _Image] = {}
        self._counts: dict[_Seen, dict[int, Counts]] = {}

    def run(self, readings: Iterable[Reading], images: Sequence[int], words: str) -> None:
        """Counts on these images, by their numbers in the data set, what is not counted yet."""
        wanted: dict[Preprocessing, dict[str, None]] = {}
        for reading in readings:
            wanted.setdefault(reading.preprocessing, {})[reading.upsampling] = None
        lacking = [
            (index, preprocessing, rules)
            for index in images
            for preprocessing, each in wanted.items()
            if (rules := [r for r in each if index not in self._of(preprocessing, r)])
        ]
        sample: Sample | None = None
        before = None
        for index, preprocessing, rules in tqdm(lacking, words, unit="run", disable=None):
            if index != before or sample is None:
                sample, before = self.dataset[index], index
                self._images[index] = _Image(sample.name, sample.group or sample.name)
            for rule, counts in self._count(sample, preprocessing, rules).items():
                self._of(preprocessing, rule)[index] = counts

    def counts(self, reading: Reading, images: Sequence[int]) -> list[ImageCounts]:
        """What of each image is right, and what it was labelled, in the data set's classes."""
        found = self._of(reading.preprocessing, reading.upsampling)
        return [_read(found[index], reading.table, *self._images[index]) for index in images]

    def _of(self, preprocessing: Preprocessing, rule: str) -> dict[int, Counts]:
        return self._counts.setdefault((preprocessing, rule), {})

    def _count(
        self, sample: Sample, preprocessing: Preprocessing, rules: Sequence[str]
    ) -> dict[str, Counts]:
        """Rule -> counts, int64 D x (C + 1): the last column is of what has no finite logits."""
        import torch

        own = sample.labels.shape[0], sample.labels.shape[1]
        network = self._checkpoint.network
        fitting = Fitting(
            preprocessing.fit, preprocessing.border, network.min_side, network.side_multiple
        )
        fitted = fitting.apply(sample.image, self._size)
        if self._size is not None:
            self.fitted |= own[0] * self._size[1] != own[1] * self._size[0]
        with torch.inference_mode():
            output = network(preprocessing.tensor(fitted.pixels))
            logits: Float32 = np.asarray(output[0].numpy())
        counted = {}
        for rule in rules:
            try:
                boxed = preprocessing.fit == "letterbox"
                labels = self._labels(logits, fitted, own, rule, boxed)
            except NotFinite:
                labels = np.full(own, IGNORE, np.uint8)
            counted[rule] = self._table(sample.labels, labels)
        return counted

    def _labels(self, logits: Float32, fitted: Fitted, own: Size, rule: str, boxed: bool) -> UInt8:
        """The label map of an image at its own size; one with a border is made at the input's."""
        grid = (logits.shape[1], logits.shape[2])
        size = (fitted.pixels.shape[0], fitted.pixels.shape[1])
        at = size if boxed else own
        self.resized |= grid != size
        made = label_map(logits, grid if rule == "none" else at, upsampling=rule)
        labels = resize_labels(made, at)
        return unfit_labels(labels, fitted.content, own) if boxed else labels

    def _table(self, truth: UInt8, labels: UInt8) -> Counts:
        classes, indices = len(self.dataset.label_set), len(self._checkpoint.label_set) + 1
        known = truth != IGNORE
        code = truth[known].astype(np.int64) * indices + np.minimum(labels[known], indices - 1)
        counts = np.bincount(code, minlength=classes * indices)
        return np.asarray(counts.reshape(classes, indices), np.int64)


def _read(counts: npt.NDArray[np.int64], table: bytes, name: str, group: str) -> ImageCounts:
    """Counts of indices, as counts of the classes that they stand for."""
    classes = len(counts)
    whole = np.zeros((classes, classes), np.int64)
    for index, stands_for in enumerate(table):
        if stands_for != IGNORE:
            whole[:, stands_for] += counts[:, index]
    return ImageCounts(
        name, group, np.diagonal(whole).copy(), counts.sum(axis=1), whole.sum(axis=0), 0, 0.0
    )
