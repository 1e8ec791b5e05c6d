"""What `icnet evaluate` finds of a model, fresh or recorded."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from icnet_deploy.data import Dataset, Sample
from icnet_deploy.documents import (
    COUNT,
    FROM_ZERO,
    OBJECT,
    PERCENT,
    TEXT,
    Schema,
    list_of,
    object_of,
    object_with,
    one_of,
    or_null,
)
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.model import Model
from icnet_deploy.evaluation.score import (
    OF_THE_MODEL,
    Protocol,
    Score,
    UInt8,
    refuse_calibration_images,
    require_same_protocol,
)
from icnet_deploy.images import write_labels
from icnet_deploy.integrity import artefact_sha256
from icnet_deploy.labels import LabelSet
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 2
"""Of the JSON result; raised when a reader of today could misunderstand it."""

_TIME_SCOPE = (
    "median time per image for resizing, network and label map, without decoding and scoring; "
    "images one by one, without a warm-up run, so this is not a benchmark"
)

Result = Mapping[str, Any]
"""What `icnet evaluate --json` writes."""

_Look = Callable[[Sample, list[UInt8]], None]
"""Is shown a sample with each model's label map in the data set's classes, 255 for none."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found of one model.

    Attributes:
        model: what was scored.
        score: how well it did.
        seconds: an image, median; see `_TIME_SCOPE`.
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
            "sha256": self.model.sha256 or artefact_sha256(self.model.path),
            "network": self.model.metadata.network,
            "runtime": self.model.runtime,
            "device": self.model.device,
            "notes": list(self.model.notes),
            "protocol": self.score.protocol().to_dict(),
            "score": self.score.to_dict(),
            "images": [one.to_dict() for one in self.score.images_counted],
            "time": {"milliseconds": round(1e3 * self.seconds, 3), "scope": _TIME_SCOPE},
        }


class Evaluations(NamedTuple):
    """What `evaluate` found.

    Attributes:
        models: an evaluation each.
        alike: of each image how many pixels the first two label alike, and how many there are;
            None for one model.
    """

    models: list[Evaluation]
    alike: list[tuple[int, int]] | None


def evaluate(
    models: Sequence[Model], dataset: Dataset, look: _Look = lambda sample, labels: None
) -> Evaluations:
    """Scores models on a data set, image by image: each image goes through all of them in turn.

    Args:
        models: see `open_model`.
        dataset: labelled images. A split without labels gives a score that has no truth.
        look: for reports, and to save the predictions.

    Raises:
        InputError: an image was used for calibration, the classes do not fit, or two models
            would be scored in unlike ways.
    """
    calibrated = {str(model.path): model.metadata.calibration_images for model in models}
    refuse_calibration_images(dataset, calibrated)
    scores = [Score.of(dataset, model.metadata) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    alike: list[tuple[int, int]] = []
    for sample in tqdm(dataset, desc="evaluate", unit="image", disable=None):
        mapped = []
        for model, score, spent in zip(models, scores, seconds, strict=True):
            start = time.perf_counter()
            labels = model.label(sample.image)
            spent.append(time.perf_counter() - start)
            mapped.append(score.add(sample, labels))
        for score in scores[1:]:  # at the first image, not after the last
            require_same_protocol(scores[0].protocol(), score.protocol(), but=OF_THE_MODEL)
        if len(mapped) > 1:
            same = int(np.count_nonzero(mapped[0] == mapped[1]))
            alike.append((same, mapped[0].size))
        look(sample, mapped)
    evaluations = [
        Evaluation(model, score, statistics.median(spent))
        for model, score, spent in zip(models, scores, seconds, strict=True)
    ]
    return Evaluations(evaluations, alike or None)


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


_SHARE = or_null(PERCENT)
_REGION = {"from_pixels": COUNT, "to_pixels": or_null(COUNT), "regions": COUNT}
SCORE = object_with(
    {
        **dict.fromkeys(("miou_percent", "pixel_accuracy_percent"), _SHARE),
        "small_region_accuracy_percent": _SHARE,
        "iou_percent": object_of(_SHARE),
        "regions": list_of(object_with({**_REGION, "accuracy_percent": _SHARE})),
    }
)
"""What `Score.to_dict` gives."""

_RESULT = Schema(
    "a result that this version's `icnet evaluate --json` writes",
    {
        "schema": COUNT,
        "kind": one_of("evaluate"),
        **dict.fromkeys(("versions", "machine"), OBJECT),
        **dict.fromkeys(("model", "sha256"), TEXT),
        "network": OBJECT,
        **dict.fromkeys(("runtime", "device"), TEXT),
        "protocol": OBJECT,
        "score": SCORE,
        "images": list_of(OBJECT),
        "notes": list_of(TEXT),
        "time": object_with({"milliseconds": FROM_ZERO, "scope": TEXT}),
    },
    optional=("versions", "machine", "sha256", "network", "images", "notes"),
    newest=SCHEMA,
    most_bytes=64 << 20,
)

_COMPARISON = Schema(
    "a comparison of two models",
    {"kind": one_of("compare"), "models": list_of(object_with({"model": TEXT}))},
    most_bytes=2 * _RESULT.most_bytes,
)


def read_result(path: Path) -> dict[str, Any]:
    """Reads what `icnet evaluate --json` wrote.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    try:
        result = _RESULT.read(path)
    except InputError:
        _refuse_comparison(path)
        raise
    Protocol.from_dict(result["protocol"], str(path))
    image_counts(result, str(path))
    return result


def _refuse_comparison(path: Path) -> None:
    """InputError for the result of two models, of which each alone could be read."""
    try:
        models = _COMPARISON.read(path)["models"]
    except InputError:
        return
    both = " and ".join(model["model"] for model in models)
    raise InputError(
        f"{path} compares {both}, as `icnet evaluate --against` writes it; expected the result of "
        "one model: score one with `icnet evaluate MODEL --json FILE`, and give that file"
    )


def image_counts(result: Result, where: str = "the result") -> list[ImageCounts] | None:
    """The counts of each image of a result; None if it was recorded before they were kept.

    Raises:
        InputError: they are none, or not of its images and classes.
    """
    if "images" not in result:
        return None
    counts = [ImageCounts.from_dict(one, f"an image of {where}") for one in result["images"]]
    images, classes = result["protocol"]["images"], len(result["score"]["iou_percent"])
    shapes = {a.shape for one in counts for a in (one.right, one.truth, one.predicted)}
    if len(counts) != images or shapes != {(classes,)}:
        raise InputError(
            f"{where} has counts of {len(counts)} images that do not fit its protocol and "
            f"score; expected {images} images of {classes} classes: score the model again"
        )
    union = np.sum([one.truth + one.predicted - one.right for one in counts], 0)
    for (name, iou), pixels in zip(result["score"]["iou_percent"].items(), union, strict=True):
        if (iou is None) != (pixels == 0):
            raise InputError(
                f"{where} counts {pixels} pixels of {name}, but states the IoU "
                f"{'unknown' if iou is None else iou}: score the model again"
            )
    return counts


def require_same_data(result: Result, dataset: Dataset) -> None:
    """Refuses before any model runs to score on other data than a recorded result's.

    Raises:
        InputError: data set, split or number of images differ.
    """
    then = tuple(result["protocol"][key] for key in ("dataset", "split", "images"))
    now = (dataset.name, dataset.split, len(dataset))
    if then != now:
        raise InputError(
            f"{result['model']} was scored on {_data(*then)}, but now you ask for {_data(*now)}: "
            "give the same --dataset, --split and --limit"
        )


def _data(name: str, split: str, images: int) -> str:
    return f"{images} images of {name} {split}"


def names(results: Sequence[Result]) -> list[str]:
    """What a reader calls each result: its file, and as much more as tells it from the others."""
    files = [(Path(result["model"]).name, result) for result in results]
    tries = (
        [name for name, _ in files],
        [str(result["model"]) for result in results],
        [f"{name} at {_size(result)}" for name, result in files],
        [f"{name} ({result['runtime']}, {result['device']})" for name, result in files],
    )
    for named in tries:
        if len(set(named)) == len(named):
            return named
    return [f"{name} ({order})" for name, order in zip(tries[-1], ("first", "second"), strict=True)]


def _size(result: Result) -> str:
    size = str(result["protocol"]["model_size"])
    return "each image's size" if size == "image" else size
