"""Two scores side by side: the same for models scored in this run and for recorded results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icnet_deploy.data import Dataset
from icnet_deploy.documents import (
    COUNT,
    OBJECT,
    PERCENT,
    TEXT,
    list_of,
    object_of,
    one_of,
    or_null,
    read,
    take,
)
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.evaluate.plot import Curve
from icnet_deploy.evaluation.score import OF_THE_MODEL, Protocol, require_same_protocol

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""

Result = Mapping[str, Any]
"""What `icnet evaluate --json` writes."""

_RESULT = {
    "kind": one_of("evaluate"),
    "schema": one_of(SCHEMA),
    **dict.fromkeys(("model", "runtime", "device"), TEXT),
    **dict.fromkeys(("protocol", "score"), OBJECT),
}
_SCORE = {
    "miou_percent": or_null(PERCENT),
    "iou_percent": object_of(or_null(PERCENT)),
    "pixel_accuracy_percent": or_null(PERCENT),
    "small_region_accuracy_percent": or_null(PERCENT),
    "regions": list_of(OBJECT),
}
_REGION = {
    "from_pixels": COUNT,
    "to_pixels": or_null(COUNT),
    "regions": COUNT,
    "accuracy_percent": or_null(PERCENT),
}


def read_result(path: Path) -> dict[str, Any]:
    """Reads what `icnet evaluate --json` wrote.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    try:
        value = read(path)
        known = take(value, _RESULT)
        Protocol.from_dict(known["protocol"])
        for region in take(known["score"], _SCORE)["regions"]:
            take(region, _REGION)
    except OSError as error:
        raise InputError(f"cannot read the recorded result {path}: {error}") from error
    except ValueError as error:
        raise InputError(
            f"{path} is no result that this version's `icnet evaluate --json` writes: {error}"
        ) from error
    return dict(value)


def require_same_data(result: Result, dataset: Dataset) -> None:
    """Refuses before any model runs to score on other data than a recorded result's.

    Raises:
        InputError: data set, split or number of images differ.
    """
    then = tuple(result["protocol"][key] for key in ("dataset", "split", "images"))
    now = (dataset.name, dataset.split, len(dataset))
    if then != now:
        raise InputError(
            f"{result['model']} was scored on {_data(*then)}, this would be {_data(*now)}: give "
            "the same --dataset, --split and --limit"
        )


def _data(name: str, split: str, images: int) -> str:
    return f"{images} images of {name} {split}"


def compare(first: Result, second: Result) -> dict[str, Any]:
    """Sets one score against another; every difference is the first minus the second, in points.

    Returns:
        A JSON value: both results, and the differences. A class without an IoU in one of the two
        has none as a difference.

    Raises:
        InputError: they were scored in unlike ways, or on unlike images.
    """
    left, right = (Protocol.from_dict(result["protocol"]) for result in (first, second))
    require_same_protocol(left, right, but=OF_THE_MODEL)
    a, b = first["score"], second["score"]
    if _sizes(a) != _sizes(b) or list(a["iou_percent"]) != list(b["iou_percent"]):
        raise InputError(
            "the two results count other regions or classes, so they are of different ground "
            "truths: score both models on the same images"
        )
    points = {name: _minus(iou, b["iou_percent"][name]) for name, iou in a["iou_percent"].items()}
    common = [value for value in points.values() if value is not None]
    return {
        "schema": SCHEMA,
        "kind": "compare",
        "models": [dict(first), dict(second)],
        "difference": {
            "miou_points": _minus(a["miou_percent"], b["miou_percent"]),
            "miou_points_over_common_classes": round(statistics.fmean(common), 6)
            if common
            else None,
            "iou_points": points,
            "pixel_accuracy_points": _minus(
                a["pixel_accuracy_percent"], b["pixel_accuracy_percent"]
            ),
            "small_region_accuracy_points": _minus(
                a["small_region_accuracy_percent"], b["small_region_accuracy_percent"]
            ),
            "regions": [
                {
                    **{key: one[key] for key in ("from_pixels", "to_pixels", "regions")},
                    "points": _minus(one["accuracy_percent"], other["accuracy_percent"]),
                }
                for one, other in zip(a["regions"], b["regions"], strict=True)
            ],
        },
    }


def _sizes(score: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [(one["from_pixels"], one["regions"]) for one in score["regions"]]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else round(a - b, 6)


def names(results: Sequence[Result]) -> list[str]:
    """What a reader calls each result: its file, and as much more as tells it from the others."""
    steps: list[Callable[[Result], str]] = [
        lambda r: Path(r["model"]).name,
        lambda r: str(r["model"]),
        lambda r: f"{Path(r['model']).name} at {_size(r)}",
        lambda r: f"{Path(r['model']).name} ({r['runtime']}, {r['device']})",
    ]
    for step in steps:
        found = [step(result) for result in results]
        if len(set(found)) == len(found):
            return found
    return [f"{name} ({order})" for name, order in zip(found, ("first", "second"), strict=True)]


def _size(result: Result) -> str:
    size = str(result["protocol"]["model_size"])
    return "each image's size" if size == "image" else size


def curves(results: Sequence[Result]) -> list[Curve]:
    """What `region_plot` draws of results."""
    shown = zip(names(results), results, strict=True)
    return [Curve(name, result["score"]["regions"]) for name, result in shown]
