"""How far builds are from float32 and from one another, as numbers and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.evaluation.confidence.differences import Differences

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """Where a number lies over all builds, or over all pairs of them.

    Attributes:
        lowest, median, highest: of them.
    """

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Reads it off the number of each build."""
        return cls(min(values), float(np.median(values)), max(values))

    @property
    def range(self) -> float:
        """How far the number moves at most from one build to another."""
        return self.highest - self.lowest

    def to_dict(self) -> dict[str, float]:
        """The JSON form."""
        parts = {"lowest": self.lowest, "median": self.median, "highest": self.highest}
        return {name: round(value, 6) for name, value in (parts | {"range": self.range}).items()}


@dataclass(frozen=True)
class Build:
    """What was measured of one build.

    Attributes:
        seed: of the draw of its calibration images.
        sha256: of the artefact.
        ranges: the method, one of `METHODS`, that they were taken by.
        differences: from float32, on the same runtime.
        latency: `timing.summary` of its times.
    """

    seed: int
    sha256: str
    ranges: str
    differences: Differences
    latency: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        d = self.differences
        return {
            "seed": self.seed,
            "sha256": self.sha256,
            "ranges": self.ranges,
            "basis": d.basis(),
            "miou_difference_points": d.miou.to_dict(),
            "iou_difference_points": {k: each.to_dict() for k, each in d.classes.items()},
            "pixel_accuracy_difference_points": d.pixel_accuracy.to_dict(),
            "small_region_difference_points": d.small_regions and d.small_regions.to_dict(),
            "agreement": d.alike and d.alike.to_dict(),
            "latency": dict(self.latency),
        }


@dataclass(frozen=True)
class Rebuilt:
    """All builds in one placement.

    Attributes:
        placement: a key of `PLACEMENTS`.
        runtime: the one that the placement is for and that a CPU has.
        builds: two or more.
        alike: int64, K x K: pixels to which two builds give the same label.
        pixels: of all images.
        latency: `timing.summary` of float32 on the same runtime.
    """

    placement: str
    runtime: str
    builds: Sequence[Build]
    alike: Counts
    pixels: int
    latency: Mapping[str, Any]

    def pairs_alike(self) -> Spread:
        """The share of pixels that two builds label alike, 0..1, over all pairs."""
        pairs = combinations(range(len(self.builds)), 2)
        return Spread.of([float(self.alike[pair] / self.pixels) for pair in pairs])

    def miou(self) -> Spread:
        """The difference of mIoU from float32, in points."""
        return Spread.of([each.differences.miou.value for each in self.builds])

    def classes(self) -> dict[str, Spread]:
        """Class -> the difference of its IoU from float32, in points; what moves most is first."""
        names = self.builds[0].differences.classes
        spreads = {
            name: Spread.of([each.differences.classes[name].value for each in self.builds])
            for name in names
        }
        return dict(sorted(spreads.items(), key=lambda item: -item[1].range))

    def enough(self, name: str) -> bool:
        """Whether a class was seen on enough to say anything about it."""
        return self.builds[0].differences.seen[name].enough()

    def milliseconds(self) -> Spread:
        """The median time of an image."""
        return Spread.of([each.latency["median_ms"] for each in self.builds])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "placement": self.placement,
            "runtime": self.runtime,
            "float32": {"latency": dict(self.latency)},
            "builds": [each.to_dict() for each in self.builds],
            "alike_by_pair": [
                {
                    "seeds": [self.builds[i].seed, self.builds[j].seed],
                    "share": round(float(self.alike[i, j] / self.pixels), 9),
                }
                for i, j in combinations(range(len(self.builds)), 2)
            ],
            "spread": {
                "alike": self.pairs_alike().to_dict(),
                "miou_points": self.miou().to_dict(),
                "iou_points": {k: each.to_dict() for k, each in self.classes().items()},
                "latency_ms": self.milliseconds().to_dict(),
            },
            "seen_too_little": [name for name in self.classes() if not self.enough(name)],
        }
