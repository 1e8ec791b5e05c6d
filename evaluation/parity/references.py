"""The reference's answers and scores, worked out once for each size, head and image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.documents import FROM_ZERO, OBJECT, Schema
from icnet_deploy.evaluation.answer import Answer
from icnet_deploy.evaluation.image_score import ImageScore
from icnet_deploy.evaluation.kept import Journal, Kept
from icnet_deploy.evaluation.reference import Inferred, Reference
from icnet_deploy.evaluation.score import Score, Size, UInt8

Key = tuple[Size | None, str]
"""(model size, head): what a label map depends on besides the network and the image."""


@dataclass(frozen=True)
class ScoredAnswer:
    """What is kept of an answer.

    Attributes:
        score: of its label map.
        largest: the largest size of a logit.
    """

    score: ImageScore
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"score": self.score.to_dict(), "largest": self.largest}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], classes: int) -> ScoredAnswer:
        """Reads the JSON form of an answer to an image of a data set of so many classes."""
        fields = _SCORED.fit(value, "an answer")
        return cls(ImageScore.from_dict(fields["score"], classes), float(fields["largest"]))


_SCORED = Schema("what is kept of a reference's answer", {"score": OBJECT, "largest": FROM_ZERO})


def truth(sample: Sample, answer: Answer, score: Score) -> Sample:
    """The image with what it is scored by: the reference's own map where it has no labels."""
    return sample if score.dataset.labelled else replace(sample, labels=answer.labels)


class Answers:
    """The reference's answers to one image, each worked out when it is first asked for.

    Args:
        sizes: model size -> the reference at it.
        image: uint8 H x W x 3, RGB.
    """

    def __init__(self, sizes: Mapping[Size | None, Reference], image: UInt8) -> None:
        self._sizes, self._image = sizes, image
        self._inferred: dict[Size | None, Inferred] = {}
        self._made: dict[Key, Answer] = {}

    def __getitem__(self, key: Key) -> Answer:
        size, head = key
        reference, image_size = self._sizes[size], (self._image.shape[0], self._image.shape[1])
        made = size, head if reference.heads_differ(image_size) else ""
        if made not in self._made:
            self._made[made] = reference.finish(self._infer(size), image_size, head)
        return self._made[made]

    def largest(self, size: Size | None) -> float:
        """The largest size of a logit of the network at a size."""
        return float(np.abs(self._infer(size).logits).max())

    def _infer(self, size: Size | None) -> Inferred:
        if size not in self._inferred:
            self._inferred[size] = self._sizes[size].infer(self._image)
        return self._inferred[size]


class References:
    """The reference at every size and head that artefacts are compared at.

    Args:
        reference: at any size.
        keys: each (model size, head) that artefacts will be compared at.
        dataset: what is scored.
        kept: holds the scores of images that were answered before.

    Attributes:
        origin: what it is.
        scores: (model size, head) -> the score so far.
        tie_margins: bits of a precision -> what the network takes for a tie, in logits; known from
            the first image on, whose largest logit it may depend on.
    """

    def __init__(
        self, reference: Reference, keys: set[Key], dataset: Dataset, kept: Kept | None = None
    ) -> None:
        kept = kept or Kept()
        self.tie_margins: Mapping[int, float] = {}
        self.origin = reference.network.origin
        self._reference = reference
        self._sizes = {size: reference.at(size) for size, _ in keys}
        self.scores = {
            key: Score(dataset, reference.label_set, *key, reference.upsampling, reference.fit)
            for key in keys
        }
        read = partial(ScoredAnswer.from_dict, classes=len(dataset.label_set))
        self._journals: dict[Key, Journal[ScoredAnswer]] = {
            key: kept.journal(read, kind="reference", at=key, **self.scored_on()) for key in keys
        }

    def scored_on(self) -> dict[str, Any]:
        """The network and the data set, but its images: a part of what a journal is named by."""
        dataset = next(iter(self.scores.values())).dataset
        on = {
            "network": self._reference.network.identity,
            "data": [dataset.name, dataset.split, dataset.exif],
            "label_set": dataset.label_set.to_dict(),
        }
        return on if dataset.class_map is None else {**on, "class_map": str(dataset.class_map)}

    def answers(self, sample: Sample) -> Answers:
        """Its answers to an image."""
        return Answers(self._sizes, sample.image)

    def add(self, sample: Sample, image: str = "") -> Answers:
        """Adds its answers to an image to the scores; works out those that are not kept.

        Args:
            sample: the image and its truth.
            image: its `image_key`.
        """
        answers = self.answers(sample)
        largest = 0.0
        for key, score in self.scores.items():
            one = self._journals[key].get(image)
            if one is None:
                answer = answers[key]
                counted = score.count(truth(sample, answer, score), answer.labels)
                one = ScoredAnswer(counted, answers.largest(key[0]))
                self._journals[key].add(image, one)
            score.take(sample, one.score)
            largest = max(largest, one.largest)
        if not self.tie_margins:
            self.tie_margins = self._reference.tie_margins(largest)
        return answers
