"""One artefact on one runtime against the reference: what is counted, and what is read off it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icnet_deploy.data import Sample
from icnet_deploy.documents import COUNT, OBJECT, Schema
from icnet_deploy.errors import ModelError
from icnet_deploy.evaluation.answer import Answer
from icnet_deploy.evaluation.budgets import Budget
from icnet_deploy.evaluation.confidence.differences import (
    LEVEL,
    Differences,
    Interval,
    differences,
    share,
)
from icnet_deploy.evaluation.float_network import Origin
from icnet_deploy.evaluation.image_score import ImageScore
from icnet_deploy.evaluation.kept import Journal
from icnet_deploy.evaluation.parity.references import Key, truth
from icnet_deploy.evaluation.pictures import Gallery
from icnet_deploy.evaluation.score import (
    Score,
    UInt8,
    percent,
    require_same_protocol,
    size_text,
)
from icnet_deploy.evaluation.verdicts import Judgement, Verdict, loss
from icnet_deploy.metadata import ArtefactMetadata

AGREES, TIE, FLIP = 0, 1, 2

_SHOWN = 0.01  # the share of the pixels from which on a class is one that a map shows


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


class PixelCounts(NamedTuple):
    """How the labels of one image differ from the reference's.

    Attributes:
        pixels: of the image, labelled or not.
        ties, flips: those that differ; see `difference_map`.
    """

    pixels: int
    ties: int
    flips: int

    @property
    def differing(self) -> int:
        """Those that differ."""
        return self.ties + self.flips

    @property
    def alike(self) -> int:
        """Those that do not."""
        return self.pixels - self.differing


class Compared(NamedTuple):
    """All that a row is made of, of one image.

    Attributes:
        score: of the artefact's labels.
        pixels: how they differ from the reference's.
    """

    score: ImageScore
    pixels: PixelCounts

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"score": self.score.to_dict(), **self.pixels._asdict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], classes: int) -> "Compared":
        """Reads the JSON form of an image of a data set of so many classes."""
        fields = _COMPARED.fit(value, "an image")
        return cls(ImageScore.from_dict(fields.pop("score"), classes), PixelCounts(**fields))


_COMPARED = Schema(
    "what is kept of an image that was compared",
    {"score": OBJECT, **dict.fromkeys(PixelCounts._fields, COUNT)},
)


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
        origin: what the reference is.
        ties_are_right: where the reference could hardly tell, its own label counts as the
            artefact's: for images without labels that are held to the limits of labelled ones.
        gallery: the images on which it differs most from the reference.
        level: of the intervals on which its verdict rests.
        journal: what is kept of each image.
        pixel_counts: of each image so far.
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
    origin: Origin = field(default_factory=Origin)
    ties_are_right: bool = False
    gallery: Gallery = field(default_factory=lambda: Gallery(0))
    level: float = LEVEL
    journal: Journal[Compared] = field(default_factory=Journal.of_nothing)
    pixel_counts: list[PixelCounts] = field(init=False, default_factory=list)
    _known: dict[tuple[int, float], Differences] = field(init=False, default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} on {self.runtime}"

    @property
    def key(self) -> Key:
        """Which of the reference's answers this artefact is held to."""
        return self.metadata.size, self.metadata.head

    def count(self, sample: Sample, answer: Answer, labels: UInt8) -> tuple[Compared, UInt8]:
        """Compares one image; adds nothing.

        Args:
            sample: the image and its truth.
            answer: the reference's.
            labels: the artefact's, uint8 H x W.

        Returns:
            What `take` adds, and the image's `difference_map`.

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
        pixels = PixelCounts(marks.size, int(counts[TIE]), int(counts[FLIP]))
        if self.ties_are_right:
            labels = np.where(marks == TIE, answer.labels, labels)
        score = self.score.count(truth(sample, answer, self.score), labels)
        return Compared(score, pixels), marks

    def take(self, sample: Sample, one: Compared) -> None:
        """Adds what `count` gave for an image, now or in an earlier run."""
        self.score.take(sample, one.score)
        self.pixel_counts.append(one.pixels)

    def add(self, sample: Sample, answer: Answer, labels: UInt8) -> UInt8:
        """Counts one image and takes it; returns its `difference_map`, and raises as `count`."""
        one, marks = self.count(sample, answer, labels)
        self.take(sample, one)
        return marks

    @property
    def pixels(self) -> int:
        """How many pixels were compared."""
        return sum(one.pixels for one in self.pixel_counts)

    @property
    def ties(self) -> int:
        """How many of them differ where the reference could hardly tell."""
        return sum(one.ties for one in self.pixel_counts)

    @property
    def flips(self) -> int:
        """How many of them differ elsewhere."""
        return sum(one.flips for one in self.pixel_counts)

    def shown(self) -> int:
        """How many classes the reference's own map shows on more than 1 % of the pixels."""
        counts = self.reference.confusion.counts
        return int(np.count_nonzero(counts.sum(axis=0) > _SHOWN * counts.sum()))

    def agreement(self) -> float:
        """Share of all pixels, labelled or not, at which artefact and reference agree, 0..1."""
        return 1 - (self.ties + self.flips) / self.pixels

    def differences(self, level: float | None = None) -> Differences:
        """How its scores differ from the reference's on the images so far, each with an interval.

        Args:
            level: of the intervals; None for the row's own.

        Raises:
            InputError: the two were scored on other images, or otherwise.
            DatasetError: no pixel of the truth is labelled.
        """
        key = (self.score.images, self.level if level is None else level)
        if key not in self._known:
            require_same_protocol(self.score.protocol(), self.reference.protocol())
            self.score.require_truth()
            self._known[key] = differences(
                self.score.images_counted,
                self.reference.images_counted,
                self.score.dataset.label_set.names,
                alike=[(one.alike, one.pixels) for one in self.pixel_counts],
                level=key[1],
            )
        return self._known[key]

    def pixel_percent(self) -> dict[str, Interval]:
        """What share of the pixels is `alike`, `ties` and `flips`, in percent each."""
        groups = [one.group for one in self.score.images_counted]
        return {
            kind: share(
                [(getattr(one, kind), one.pixels) for one in self.pixel_counts],
                groups,
                level=self.level,
            )
            for kind in ("alike", "ties", "flips")
        }

    def judgement(self) -> Judgement:
        """What its budget says of these differences."""
        return self.budget.judge(self.differences())

    def breaches(self) -> list[str]:
        """Every limit of its budget that it is past, in words."""
        return [str(finding) for finding in self.judgement().of(Verdict.PAST)]

    def miou_points(self) -> float:
        """The difference of mIoU, in points; see `Differences.miou`."""
        return self.differences().miou.value

    def worst_class(self) -> tuple[str, Interval]:
        """The class that lost most, one that is past its limit first, and its difference.

        Of the classes that were seen enough, if any was; where a rise counts as much as a fall, the
        one that changed most.
        """
        known = self.differences()
        past = {finding.what for finding in self.judgement().of(Verdict.PAST)}
        seen = {name for name in known.classes if known.seen[name].enough()}
        classes = known.classes.items()
        return max(
            [item for item in classes if item[0] in seen] or classes,
            key=lambda item: (item[0] in past, loss(item[1].value, self.budget.class_rises)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the row."""
        name, worst = self.worst_class()
        size, known, judgement = self.metadata.size, self.differences(), self.judgement()
        small, alike, shares = known.small_regions, known.alike, self.pixel_percent()
        return {
            "artefact": str(self.artefact),
            "sha256": self.sha256,
            "size": None if size is None else list(size),
            "head": self.metadata.head,
            "precision": self.metadata.precision,
            "runtime": self.runtime,
            "device": self.device,
            "verdict": str(judgement.verdict),
            "findings": judgement.to_dict(),
            "more_images": judgement.more_images(),
            "miou_difference_points": known.miou.to_dict(),
            "not_in_miou": list(known.left_out),
            "worst_class": {"name": name, "points": worst.to_dict()},
            "iou_difference_points": {k: v.to_dict() for k, v in known.classes.items()},
            "pixel_accuracy_difference_points": known.pixel_accuracy.to_dict(),
            "agreeing_percent": percent(self.agreement()),
            "agreement": alike and alike.to_dict(),
            "pixels": self.pixels,
            "differing_pixels": self.ties + self.flips,
            "ties": self.ties,
            "ties_percent": shares["ties"].to_dict(),
            "flips": self.flips,
            "flips_percent": shares["flips"].to_dict(),
            "tie_margin": self.budget.tie_margin,
            "small_region_difference_points": small and small.to_dict(),
            "score": self.score.to_dict(),
            "protocol": self.score.protocol().to_dict(),
            "images": [one.to_dict() for one in self.score.images_counted],
        }
