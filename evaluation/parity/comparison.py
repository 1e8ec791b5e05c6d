"""One artefact on one runtime against the reference: what is counted, and what is read off it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.errors import ModelError
from icnet_deploy.evaluation.budgets import Budget, Measured
from icnet_deploy.evaluation.pictures import Gallery
from icnet_deploy.evaluation.reference import Answer, Reference, answer_of
from icnet_deploy.evaluation.score import (
    Score,
    Size,
    UInt8,
    percent,
    require_same_protocol,
    size_text,
)
from icnet_deploy.metadata import ArtefactMetadata

Float64 = npt.NDArray[np.float64]
Key = tuple[Size | None, str]
"""(model size, head): what a label map depends on besides the network and the image."""

AGREES, TIE, FLIP = 0, 1, 2


def difference_map(answer: Answer, labels: UInt8, tie_margin: float) -> UInt8:
    """Where an artefact's labels differ from the reference's, and whether it could be expected.

    Args:
        answer: the reference's.
        labels: the artefact's, uint8 H x W.
        tie_margin: in logits; see `icnet_deploy.evaluation.budgets`.

    Returns:
        uint8 H x W: `AGREES`, `TIE` or `FLIP`.
    """
    marks = np.full(labels.shape, AGREES, np.uint8)
    rows, cols = np.nonzero(labels != answer.labels)
    if len(rows):
        tied = answer.margins(rows, cols) <= tie_margin
        marks[rows, cols] = np.where(tied, TIE, FLIP)
    return marks


class References:
    """The reference's answers and scores, worked out once for each size, head and image.

    Args:
        reference: at any size.
        keys: each (model size, head) that artefacts will be compared at.
        dataset: what is scored.

    Attributes:
        scores: (model size, head) -> the score so far.
        tie_margins: bits of a precision -> what the network takes for a tie, in logits; known from
            the first image on, whose largest logit it may depend on.
    """

    def __init__(self, reference: Reference, keys: set[Key], dataset: Dataset) -> None:
        self.tie_margins: Mapping[int, float] = {}
        self._reference = reference
        self._sizes = {size: reference.at(size) for size, _ in keys}
        self.scores = {
            key: Score(dataset, reference.label_set, *key, reference.upsampling) for key in keys
        }

    def answers(self, sample: Sample) -> dict[Key, Answer]:
        """Answers one image for every key, and adds the answers to the scores."""
        image_size = (sample.image.shape[0], sample.image.shape[1])
        logits = {size: at.logits(sample.image) for size, at in self._sizes.items()}
        if not self.tie_margins:
            largest = max(float(np.abs(each).max()) for each in logits.values())
            self.tie_margins = self._reference.tie_margins(largest)
        answers: dict[Key, Answer] = {}
        made: dict[tuple[Size | None, Size | None], Answer] = {}
        for (size, head), score in self.scores.items():
            # The heads agree where nothing is resized.
            resized_from = size if head == "labels" and size != image_size else None
            if (size, resized_from) not in made:
                made[size, resized_from] = answer_of(
                    logits[size], image_size, resized_from, self._reference.upsampling
                )
            answers[size, head] = made[size, resized_from]
            score.add(sample, answers[size, head].labels)
        return answers


@dataclass
class Comparison:
    """A row of the parity table while images are added to it.

    Attributes:
        artefact: the file.
        name: what a table calls it.
        sha256: of the file.
        metadata: what it says of itself.
        runtime, device: what ran it.
        score: of the artefact.
        reference: of the reference at the same size and head, read when all images are in.
        budget: what it is held to.
        gallery: the images on which it differs most from the reference.
        pixels, ties, flips: counts so far; ties and flips are the pixels that differ.
    """

    artefact: Path
    name: str
    sha256: str
    metadata: ArtefactMetadata
    runtime: str
    device: str
    score: Score
    reference: Score
    budget: Budget
    gallery: Gallery = field(default_factory=lambda: Gallery(0))
    pixels: int = field(init=False, default=0)
    ties: int = field(init=False, default=0)
    flips: int = field(init=False, default=0)

    def __str__(self) -> str:
        return f"{self.name} on {self.runtime}"

    @property
    def key(self) -> Key:
        """Which of the reference's answers this artefact is held to."""
        return self.metadata.size, self.metadata.head

    def add(self, sample: Sample, answer: Answer, labels: UInt8) -> UInt8:
        """Counts one image; returns its `difference_map`.

        Raises:
            ModelError: the labels' size is not the image's.
        """
        if labels.shape != answer.labels.shape:
            raise ModelError(
                f"{self.artefact} on {self.runtime} gave labels of shape {labels.shape} for an "
                f"image of {size_text(sample.image.shape[:2])}"
            )
        marks = difference_map(answer, labels, self.budget.tie_margin)
        counts = np.bincount(marks.ravel(), minlength=3)
        self.pixels += marks.size
        self.ties += int(counts[TIE])
        self.flips += int(counts[FLIP])
        self.score.add(sample, labels)
        return marks

    def agreement(self) -> float:
        """Share of all pixels, labelled or not, at which artefact and reference agree, 0..1."""
        return 1 - (self.ties + self.flips) / self.pixels

    def class_points(self) -> dict[str, float]:
        """Class -> difference of its IoU from the reference's, in points.

        Of the classes that occur in the truth: one that does not has an IoU of 0 as soon as a
        single pixel is given it, and none at all otherwise.
        """
        require_same_protocol(self.score.protocol(), self.reference.protocol())
        points: Float64 = 100 * (self.score.confusion.iou() - self.reference.confusion.iou())
        occurs = self.reference.confusion.counts.sum(axis=1) > 0
        names = self.score.dataset.label_set.names
        return {names[i]: float(points[i]) for i in np.flatnonzero(occurs)}

    def miou_points(self) -> float:
        """Mean of `class_points`: the difference of mIoU over the classes of the truth."""
        return float(np.mean(list(self.class_points().values())))

    def worst_class(self) -> tuple[str, float]:
        """The class whose IoU differs most, and by how many points."""
        return max(self.class_points().items(), key=lambda item: abs(item[1]))

    def small_region_points(self) -> float:
        """Difference of the accuracy on small regions, in points; NaN if there are none."""
        return 100 * (self.score.regions.small() - self.reference.regions.small())

    def breaches(self) -> list[str]:
        """Every limit of its budget that it passes, in words."""
        measured = Measured(self.agreement(), self.miou_points(), self.class_points())
        return self.budget.breaches(measured)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the row."""
        name, points = self.worst_class()
        size = self.metadata.size
        breaches = self.breaches()
        return {
            "artefact": str(self.artefact),
            "sha256": self.sha256,
            "size": None if size is None else list(size),
            "head": self.metadata.head,
            "precision": self.metadata.precision,
            "runtime": self.runtime,
            "device": self.device,
            "verdict": "fail" if breaches else "pass",
            "breaches": breaches,
            "miou_difference_points": round(self.miou_points(), 6),
            "worst_class": {"name": name, "points": round(points, 6)},
            "iou_difference_points": {k: round(v, 6) for k, v in self.class_points().items()},
            "agreeing_percent": percent(self.agreement()),
            "pixels": self.pixels,
            "differing_pixels": self.ties + self.flips,
            "ties": self.ties,
            "flips": self.flips,
            "tie_margin": self.budget.tie_margin,
            "small_region_difference_points": percent(self.small_region_points() / 100),
            "score": self.score.to_dict(),
            "protocol": self.score.protocol().to_dict(),
        }
