"""Training targets: which class, or which several, a pixel is trained to be, and how surely."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.data.mapping import decision_table, target_table
from icnet_deploy.data.teacher import Teacher, least_level
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.training.config import TrainConfig

UInt8 = npt.NDArray[np.uint8]

_FULL = 255
"""The weight of a pixel that counts in full."""


class Targets:
    """From a data set's labels to the targets of a network.

    A teacher's label is used where its confidence is `TrainConfig.min_confidence` or more. Beside a
    person's labels it decides inside them; see `decision_table`.

    Args:
        dataset: whose samples are trained on.
        label_set: the network's classes.
        config: how to train.

    Attributes:
        merged: the merged targets that its labels need; see `target_table`.

    Raises:
        LabelSetError: it is not known how to train the network on its labels.
    """

    def __init__(self, dataset: Dataset, label_set: LabelSet, config: TrainConfig) -> None:
        self._dataset, self._classes = dataset, len(label_set)
        self._least = least_level(config.min_confidence)
        self._weigh = config.weigh_confidence
        shown, teacher = (dataset.label_set, dataset.class_map), dataset.teacher
        if teacher is not None and teacher.person:
            said = (teacher.label_set, teacher.class_map)
            self._table, self.merged = decision_table(label_set, shown, said)
        else:
            self._table, self.merged = target_table(label_set, *shown)

    def number(self, merged: Sequence[tuple[int, ...]]) -> None:
        """Numbers the merged targets as all data sets of a mix do."""
        table = self._table.copy()
        for index, group in enumerate(self.merged):
            table[self._table == self._classes + index] = self._classes + merged.index(group)
        self._table, self.merged = table, list(merged)

    def read(self, index: int) -> Sample:
        """A sample of the data set with targets for labels, and weights where pixels are weighed.

        Raises:
            DatasetError, ImageError: as the data set's own samples; or what a teacher says of the
                image cannot be read.
        """
        sample, teacher = self._dataset[index], self._dataset.teacher
        weights: UInt8 | None
        if teacher is None:
            targets = self._table[sample.labels]
            # Of these all pixels count alike, which takes no memory.
            weights = np.broadcast_to(np.uint8(_FULL), targets.shape) if self._weigh else None
        else:
            image = self._dataset.files[index][0]
            targets, weights = self._taught(sample.labels, teacher, image)
        return Sample(sample.name, sample.image, targets, weights=weights)

    def _taught(self, labels: UInt8, teacher: Teacher, image: Path) -> tuple[UInt8, UInt8 | None]:
        """Targets where a teacher decides, and its confidence where it did."""
        confidence = teacher.confidence(image, labels.shape)
        sure = confidence >= self._least
        if teacher.person:
            said = np.where(sure, teacher.labels(image, labels.shape), IGNORE)
            targets, alone = self._table[labels, said], self._table[labels, IGNORE]
            decided = targets != alone
        else:
            targets, decided = self._table[np.where(sure, labels, IGNORE)], sure
        if not self._weigh:
            return targets, None
        weights = np.where(decided, confidence, np.uint8(_FULL))
        targets[weights == 0] = IGNORE
        return targets, weights

    def left_out(self) -> list[str]:
        """The classes of the data set that no class of the network stands for."""
        table = self._table if self._table.ndim == 1 else self._table[:, IGNORE]
        return [n for i, n in enumerate(self._dataset.label_set.names) if table[i] == IGNORE]

    def note(self, counts: npt.NDArray[np.float64]) -> str:
        """What a teacher's labels come to; "" where there is none, and none is asked for.

        Args:
            counts: float64, 256, how often each target is on the images that were looked at.
        """
        teacher, whose = self._dataset.teacher, f"{self._dataset.called} {self._dataset.split}"
        if teacher is None:
            asked = self._weigh or self._least
            return f"note: {whose} has no confidences, so its labels count in full" if asked else ""
        share = 100 * counts / max(counts.sum(), 1e-9)
        one = share[: self._classes].sum()
        several, ignored = share[self._classes : IGNORE].sum(), share[IGNORE]
        how = (
            "a person's labels, and a network's inside them"
            if teacher.person
            else "a network's labels"
        )
        return (
            f"note: {whose} has {how}: {one:.1f} % of the pixels are learned as one class, "
            f"{several:.1f} % as one of several, {ignored:.1f} % are ignored"
        )
