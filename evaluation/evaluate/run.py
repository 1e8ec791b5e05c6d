"""Scores models on a data set, one or two at a time, and saves what they predict."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.evaluation.evaluate.compare import SCHEMA
from icnet_deploy.evaluation.model import Model
from icnet_deploy.evaluation.score import (
    OF_THE_MODEL,
    Score,
    UInt8,
    refuse_calibration_images,
    require_same_protocol,
)
from icnet_deploy.images import write_labels
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.runtime.machine import machine, versions

TIME_SCOPE = (
    "median wall time an image: resizing, network and label map, images one by one, without "
    "decoding and scoring; no warm-up run, so a measure of this run and no benchmark"
)

Look = Callable[[Sample, list[UInt8]], None]
"""Is shown a sample with each model's label map in the data set's classes, 255 for none."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found of one model.

    Attributes:
        model: what was scored.
        score: how well it did.
        seconds: an image, median; see `TIME_SCOPE`.
    """

    model: Model
    score: Score
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The JSON result."""
        return {
            "schema": SCHEMA,
            "kind": "evaluate",
            "versions": versions(),
            "machine": machine(),
            "model": str(self.model.path),
            "sha256": artefact_sha256(self.model.path),
            "network": self.model.network,
            "runtime": self.model.runtime,
            "device": self.model.device,
            "protocol": self.score.protocol().to_dict(),
            "score": self.score.to_dict(),
            "time": {"milliseconds": round(1e3 * self.seconds, 3), "scope": TIME_SCOPE},
        }


def evaluate(
    models: Sequence[Model], dataset: Dataset, look: Look = lambda sample, labels: None
) -> list[Evaluation]:
    """Scores models on a data set, image by image: each image goes through all of them in turn.

    Args:
        models: see `open_model`.
        dataset: labelled images. A split without labels gives a score that has no truth.
        look: for reports, and to save the predictions.

    Raises:
        InputError: an image was used for calibration, the classes do not fit, or two models
            would be scored in unlike ways.
    """
    refuse_calibration_images(dataset, {str(m.path): m.calibration_images for m in models})
    scores = [Score(dataset, model.label_set, model.size, model.head) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for sample in tqdm(dataset, desc="evaluate", unit="image", disable=None):
        mapped = []
        for model, score, spent in zip(models, scores, seconds, strict=True):
            start = time.perf_counter()
            labels = model.label(sample.image)
            spent.append(time.perf_counter() - start)
            mapped.append(score.add(sample, labels))
        for score in scores[1:]:  # at the first image, not after the last
            require_same_protocol(scores[0].protocol(), score.protocol(), but=OF_THE_MODEL)
        look(sample, mapped)
    return [
        Evaluation(model, score, statistics.median(spent))
        for model, score, spent in zip(models, scores, seconds, strict=True)
    ]


def save_prediction(folder: Path, label_set: LabelSet, name: str, labels: UInt8) -> None:
    """Writes a label map as the authors of a data set take it.

    For classes with label ids (Cityscapes) `NAME_pred_labelIds.png`, which the authors'
    evaluation finds by its start; otherwise `NAME_pred.png`, of the data set's own indices.

    Args:
        folder: where to.
        label_set: of the data set.
        name: of the image.
        labels: uint8 H x W of its classes; 255, for none of them, becomes label id 0, unlabelled.
    """
    if label_set.label_ids is None:
        write_labels(folder / f"{name}_pred.png", labels)
        return
    table = np.frombuffer(label_set.train_to_label_ids(), np.uint8)
    write_labels(folder / f"{name}_pred_labelIds.png", table[labels])
