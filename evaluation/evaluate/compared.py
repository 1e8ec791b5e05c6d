"""Two models' scores side by side: every difference is the first minus the second."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.confidence.differences import Differences, Interval, differences
from icnet_deploy.evaluation.evaluate.result import SCHEMA, Result, image_counts, names
from icnet_deploy.evaluation.score import OF_THE_MODEL, Protocol, require_same_protocol

_MEASURES = ("miou", "pixel_accuracy", "small_region_accuracy")


@dataclass(frozen=True)
class Compared:
    """Two results of the same images.

    Attributes:
        first, second: what `icnet evaluate --json` writes of each.
        differences: with their intervals; None if one of the two was recorded before results kept
            the counts of each image.
    """

    first: Result
    second: Result
    differences: Differences | None

    @property
    def models(self) -> tuple[Result, Result]:
        """Both results."""
        return self.first, self.second

    def basis(self) -> str:
        """What the intervals rest on, or why there are none."""
        if self.differences is not None:
            return self.differences.basis()
        old = [
            name
            for name, one in zip(names(self.models), self.models, strict=True)
            if "images" not in one
        ]
        return (
            f"no intervals: {' and '.join(old)} has no counts of each image, as a result of "
            "version 0.1; score it again to get intervals"
        )

    def scores(self, key: str) -> tuple[Any, Any]:
        """What both scored, by a name of `Score.to_dict`."""
        return self.first["score"][key], self.second["score"][key]

    def measures(self) -> dict[str, Interval | None]:
        """`miou`, `pixel_accuracy` and `small_region_accuracy` -> the interval, if there is one."""
        d = self.differences
        values = (d.miou, d.pixel_accuracy, d.small_regions) if d else (None, None, None)
        return dict(zip(_MEASURES, values, strict=True))

    def plain(self, measure: str) -> float | None:
        """The difference of what both scored by a name of `measures`, in points."""
        return _minus(*self.scores(f"{measure}_percent"))

    def plain_classes(self) -> dict[str, float | None]:
        """Class -> the difference of the two IoUs, in points; None where one has none."""
        a, b = self.scores("iou_percent")
        return {name: _minus(iou, b[name]) for name, iou in a.items()}

    def over_common_classes(self) -> float | None:
        """The difference of mIoU over the classes that have an IoU in both, in points."""
        common = [value for value in self.plain_classes().values() if value is not None]
        return round(statistics.fmean(common), 6) if common else None

    def over_seen_classes(self) -> tuple[float, float] | None:
        """The mIoUs that the interval compares, in percent, where they are others than scored.

        They run over the classes that were seen enough.
        """
        if self.differences is None:
            return None
        mean = [n for n in self.differences.classes if n not in self.differences.left_out]
        both = self.scores("iou_percent")
        if all({name for name in one if one[name] is not None} == set(mean) for one in both):
            return None
        a, b = (statistics.fmean(one[name] for name in mean) for one in both)
        return a, b

    def hardly_seen(self) -> list[str]:
        """The classes of which too little was seen to say anything."""
        seen = self.differences.seen if self.differences else {}
        return [name for name, one in seen.items() if not one.enough()]

    def alike_percent(self) -> Interval | None:
        """The share of all pixels that both label alike, in percent, if that was counted."""
        share = self.differences.alike if self.differences else None
        if share is None:
            return None
        return replace(share, value=100 * share.value, low=100 * share.low, high=100 * share.high)

    def regions(self) -> list[dict[str, Any]]:
        """The difference in each bin of the sizes of regions, in points."""
        a, b = self.scores("regions")
        return [
            {
                **{key: one[key] for key in ("from_pixels", "to_pixels", "regions")},
                "points": _minus(one["accuracy_percent"], other["accuracy_percent"]),
            }
            for one, other in zip(a, b, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: both results, and the differences.

        Each is an object, as `Interval.to_dict` writes it; what no interval is known of, such as
        the accuracy by the size of regions, stands in both results. Without the counts of each
        image all are plain numbers. A class without an IoU in one of the two has none as a
        difference, nor has, with intervals, one of no truth.
        """
        d = self.differences
        points: dict[str, Any] = {
            f"{measure}_points": _json(interval) if d else self.plain(measure)
            for measure, interval in self.measures().items()
        }
        plain = self.plain_classes()
        if d is None:
            points["miou_points_over_common_classes"] = self.over_common_classes()
            points["regions"] = self.regions()
        return {
            "schema": SCHEMA,
            "kind": "compare",
            "basis": self.basis(),
            "models": [dict(one) for one in self.models],
            "difference": {
                **points,
                "miou_left_out": list(d.left_out) if d else [],
                "iou_points": {n: _json(d.classes.get(n)) for n in plain} if d else plain,
                "hardly_seen": self.hardly_seen(),
                "pixels_alike_percent": _json(self.alike_percent()),
            },
        }


def compare(
    first: Result, second: Result, alike: Sequence[tuple[int, int]] | None = None
) -> Compared:
    """Sets one score against another.

    Args:
        first, second: of the same images, scored the same way.
        alike: of each image how many pixels both label alike, and how many there are.

    Raises:
        InputError: they were scored in unlike ways, or on unlike images, or their images are
            grouped in unlike ways.
    """
    left, right = (Protocol.from_dict(result["protocol"]) for result in (first, second))
    require_same_protocol(left, right, but=OF_THE_MODEL)
    a, b = first["score"], second["score"]
    classes = list(a["iou_percent"])
    if _sizes(a) != _sizes(b) or classes != list(b["iou_percent"]):
        raise InputError(
            "the two results have different regions or classes, so the ground truths differ: score "
            "both models on the same images"
        )
    ours, theirs = image_counts(first), image_counts(second)
    if ours is None or theirs is None:
        return Compared(first, second, None)
    for one, other in zip(ours, theirs, strict=True):
        if (one.name, one.group) != (other.name, other.group):
            raise InputError(
                f"the results differ in their images: one has {one.name} (group {one.group}) where "
                f"the other has {other.name} (group {other.group}): score both models on the same "
                "files, with the same --group-by"
            )
    return Compared(first, second, differences(ours, theirs, classes, alike=alike))


def _sizes(score: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [(one["from_pixels"], one["regions"]) for one in score["regions"]]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else round(a - b, 6)


def _json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.to_dict()
