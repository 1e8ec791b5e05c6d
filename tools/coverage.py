"""`python -m tools.coverage`: how often the intervals of scores cover the true difference.

A world is a set of real images with the counts of two models, so that its true differences are
known. Images are drawn from it with replacement, as if somebody had gone out and taken them, and
the share of draws is counted in which an interval holds the world's difference.
"""

import argparse
import lzma
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.command import command, count, parser
from icnet_deploy.documents import parse
from icnet_deploy.errors import CheckFailed
from icnet_deploy.evaluation.confidence.counts import ImageCounts
from icnet_deploy.evaluation.confidence.differences import (
    FEWEST_GROUPS,
    LEVEL,
    Differences,
    Interval,
    differences,
)
from icnet_deploy.evaluation.verify.looks import Looks
from icnet_deploy.files import write_json
from icnet_deploy.report.tables import Table, number
from icnet_deploy.runtime.machine import machine, versions

COUNTS = Path("docs/evidence/coverage/camvid-counts.json.xz")
SIZES = (10, 20, 50, 100)
FRAMES = 101
"""Of a drive: as many as CamVid's validation split has."""

_LOOKS = Looks()

_SCHEMA = 1
_NAIVE = "mIoU, frames taken for independent"
_ENOUGH = 50  # independent groups from which on the level is kept
_KEPT = 93.0, 97.0  # percent
_TOGETHER = "all classes"
_JUDGED = "mIoU", _TOGETHER
_MOST_TOGETHER = 99.0  # what holds for each of several at once is on the safe side
_WIDENED = 90.0
_DRIVE = 80.0


@dataclass(frozen=True)
class Case:
    """What is drawn.

    Attributes:
        world: a name of `worlds`.
        images: how many are drawn.
        correlation: of each number from one image to the next; None: each is a group of its own.
        looks: look at the first few, at more and at all of them, as `icnet verify` does: the
            intervals of all looks must hold.
    """

    world: str
    images: int
    correlation: float | None = None
    looks: bool = False

    def __str__(self) -> str:
        if self.looks:
            counts = ", ".join(map(str, _LOOKS.counts))
            return f"{self.world}, all looks at {counts} independent images"
        if self.correlation is None:
            return f"{self.world}, {self.images} independent images"
        frames = f"one drive of {self.images} frames"
        return f"{self.world}, {frames} that correlate by {self.correlation:g}"

    def least(self, name: str) -> float:
        """The least that a coverage must be, in percent."""
        if self.looks:  # what INT8 is judged by keeps the level, though the first look is at few
            return 100 * LEVEL if name in _JUDGED else _WIDENED
        if self.correlation is not None:
            return _DRIVE
        return _KEPT[0] if self.images >= _ENOUGH else _WIDENED

    def most(self, name: str) -> float:
        """The most that one may be: beyond, intervals are wider than they need be."""
        if self.looks or self.correlation is not None or self.images < _ENOUGH:
            return 100.0
        return _MOST_TOGETHER if name == _TOGETHER else _KEPT[1]


def cases() -> list[Case]:
    """Every world by every number of images and by looks, and drives."""
    independent = [Case(world, images) for world in worlds() for images in SIZES]
    drives = [Case(world, FRAMES, by) for world in ("all", "val") for by in (0.5, 0.8, 0.9)]
    looks = [Case(world, _LOOKS.counts[-1], looks=True) for world in worlds()]
    return independent + looks + drives


@dataclass(frozen=True)
class _Counts:
    """Two models' counts of the same images.

    Attributes:
        ours, theirs: INT8's and float32's.
        alike: of each image the pixels that both label alike, and all.
        classes: their names.
    """

    ours: Sequence[ImageCounts]
    theirs: Sequence[ImageCounts]
    alike: Sequence[tuple[int, int]]
    classes: Sequence[str]

    def compared(
        self,
        chosen: npt.NDArray[np.intp],
        groups: Sequence[str],
        seed: int,
        level: float = LEVEL,
    ) -> Differences:
        """The differences on some of the images, as if they were of these groups."""

        def named(counts: Sequence[ImageCounts]) -> list[ImageCounts]:
            return [
                replace(counts[i], name=str(place), group=group)
                for place, (i, group) in enumerate(zip(chosen, groups, strict=True))
            ]

        alike = [self.alike[i] for i in chosen]
        ours, theirs = named(self.ours), named(self.theirs)
        return differences(ours, theirs, self.classes, alike=alike, level=level, seed=seed)


@cache
def read_counts(path: Path = COUNTS) -> _Counts:
    """Reads the counts that are kept in the repository."""
    value = parse(lzma.decompress(path.read_bytes()))
    ours, theirs = (
        [ImageCounts.from_dict(one) for one in value[name]] for name in ("ours", "theirs")
    )
    return _Counts(ours, theirs, [(a, b) for a, b in value["alike"]], value["classes"])


@cache
def worlds() -> Mapping[str, npt.NDArray[np.intp]]:
    """Name -> its images, by their place among the counts.

    `all` and `val` have every class on many images. In the others one class is on three or five
    images only, among all those that lack it.
    """
    counts = read_counts()

    def rare(name: str, images: int, seed: int) -> npt.NDArray[np.intp]:
        own = counts.classes.index(name)
        shown = np.array([one.truth[own] > 0 for one in counts.ours])
        some = np.random.default_rng(seed).choice(np.flatnonzero(shown), images, replace=False)
        return np.concatenate([np.flatnonzero(~shown), some])

    total = len(counts.ours)
    return {
        "all": np.arange(total),
        "val": np.arange(FRAMES),
        "fence on 3": rare("fence", 3, 1),
        "bicyclist on 5": rare("bicyclist", 5, 2),
    }


def _truth(world: str, kept: Sequence[str]) -> Callable[[Differences], dict[str, bool]]:
    """Tells which intervals hold a world's own differences, with mIoU over these classes."""
    counts, images = read_counts(), worlds()[world]
    whole = counts.compared(images, [str(i) for i in range(len(images))], 0)
    miou = float(np.mean([whole.classes[name].value for name in kept]))

    def held(found: Differences) -> dict[str, bool]:
        decided = [name for name in found.classes if found.seen[name].enough()]
        return {
            "mIoU": _in(found.miou, miou),
            _TOGETHER: all(_in(found.classes[name], whole.classes[name].value) for name in decided),
            "pixels right": _in(found.pixel_accuracy, whole.pixel_accuracy.value),
            "small regions": _in(found.small_regions, _value(whole.small_regions)),
            "pixels alike": _in(found.alike, _value(whole.alike)),
        }

    return held


def _value(interval: Interval | None) -> float:
    return float("nan") if interval is None else interval.value


def _in(interval: Interval | None, value: float) -> bool:
    return interval is not None and interval.low <= value <= interval.high


def coverage(case: Case, draws: int, seed: int = 0) -> dict[str, float]:
    """How often each interval holds the true difference.

    Args:
        case: what is drawn.
        draws: how often.
        seed: of the draws.

    Returns:
        What -> percent. Besides the intervals, `_NAIVE`, of a drive only.
    """
    random = np.random.default_rng(seed)
    counts, images = read_counts(), worlds()[case.world]
    truths: dict[tuple[str, ...], Callable[[Differences], dict[str, bool]]] = {}
    hits: list[dict[str, bool]] = []
    looks = _LOOKS.counts if case.looks else (case.images,)
    level = _LOOKS.level if case.looks else LEVEL

    def held(found: Differences) -> dict[str, bool]:
        kept = tuple(name for name in found.classes if name not in found.left_out)
        if kept not in truths:
            truths[kept] = _truth(case.world, kept)
        return truths[kept](found)

    for draw in range(draws):
        chosen = images[random.integers(0, len(images), case.images)]
        groups = [str(i) for i in range(case.images)]
        if case.correlation is not None:
            # A frame is the one before it, or another: every number then correlates by that.
            other = random.random(case.images) >= case.correlation
            other[0] = True
            chosen, groups = chosen[np.cumsum(other) - 1], ["drive"] * case.images
        each = [
            held(counts.compared(chosen[:count], groups[:count], draw, level)) for count in looks
        ]
        hits.append({name: all(one[name] for one in each) for name in each[0]})
        if case.correlation is not None:
            naive = counts.compared(chosen, [str(i) for i in range(case.images)], draw)
            hits[-1][_NAIVE] = held(naive)["mIoU"]
    return {name: 100 * float(np.mean([one[name] for one in hits])) for name in hits[0]}


def faults(case: Case, found: Mapping[str, float], slack: float = 0.0) -> list[str]:
    """What is covered too seldom or too often, in words; `slack` is allowed to chance, percent."""
    bounds = {name: (case.least(name), case.most(name)) for name in found if name != _NAIVE}
    return [
        f"{case}: {name} is held in {found[name]:.1f} % of draws, expected {least:g} to {most:g}"
        for name, (least, most) in bounds.items()
        if not least - slack <= found[name] <= most + slack
    ]


def _table(result: Mapping[str, Any]) -> Table:
    """Each case by each interval."""
    drawn = result["cases"]
    names = list(dict.fromkeys(name for one in drawn for name in one["percent"]))
    rows = [[one["drawn"], *(number(one["percent"].get(k), 1) for k in names)] for one in drawn]
    return Table(["drawn", *names], rows)


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of a recorded result, for a page: by what is drawn, over all worlds."""
    shares: dict[str, list[float]] = {}
    naive: dict[str, list[float]] = {}
    for result in results:
        for one in result["cases"] if result["kind"] == "coverage" else ():
            drawn = one["drawn"].split(", ", 1)[1]
            for name, percent in one["percent"].items():
                (naive if name == _NAIVE else shares).setdefault(drawn, []).append(percent)

    def ends(percents: Sequence[float]) -> str:
        return f"{min(percents):.0f} to {max(percents):.0f}" if percents else "-"

    rows = [[drawn, ends(shares[drawn]), ends(naive.get(drawn, []))] for drawn in shares]
    return Table(["drawn", "intervals that hold the truth, %", f"{_NAIVE}, %"], rows).markdown()


def _parser() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.coverage",
        "Measures how often the intervals hold the true difference, on counts of real images.",
        "python -m tools.coverage --draws 2000 -o benchmarks/results/coverage-camvid.json",
    )
    p.add_argument("--draws", type=count, default=2000, help="draws of each case (default: 2000)")
    p.add_argument(
        "--jobs",
        type=count,
        default=os.cpu_count() or 1,
        help="processes that work at the same time (default: one for each core)",
    )
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="write the result as JSON")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    chosen = cases()
    with ProcessPoolExecutor(args.jobs) as pool:
        measured = pool.map(partial(coverage, draws=args.draws), chosen)
        found = list(tqdm(measured, "cases", len(chosen), unit="case", disable=None))
    result = {
        "schema": _SCHEMA,
        "kind": "coverage",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "machine": machine(),
        "level_percent": 100 * LEVEL,
        "fewest_groups": FEWEST_GROUPS,
        "draws": args.draws,
        "counts": str(COUNTS),
        "cases": [
            {"drawn": str(case), "percent": {k: round(v, 2) for k, v in one.items()}}
            for case, one in zip(chosen, found, strict=True)
        ],
    }
    print(_table(result).text())
    if args.out:
        write_json(args.out, result)
    wrong = [fault for case, one in zip(chosen, found, strict=True) for fault in faults(case, one)]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
