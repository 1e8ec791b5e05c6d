"""`python -m tools.tiles`: what tiles cost against the whole image, and whether their seams show.

One network labels drawn scenes as a whole, in tiles of several sizes and overlaps, and resized to
the size of a tile.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from icnet_deploy.calibration.sensitivity.report import points_text
from icnet_deploy.command import command, count, parser, size
from icnet_deploy.data import Dataset
from icnet_deploy.data.scenes.dataset import SEED, drawn_scenes
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.confidence.differences import differences
from icnet_deploy.evaluation.score import Score, percent
from icnet_deploy.files import write_json
from icnet_deploy.images import UInt8
from icnet_deploy.report.tables import Table, number
from icnet_deploy.runtime.machine import machine, versions
from icnet_deploy.runtime.predictor import Predictor
from icnet_deploy.runtime.tiles import check_tiles, starts

Size = tuple[int, int]

OVERLAPS = (0.0, 0.125, 0.25, 0.5)

_SCHEMA = 1


@dataclass
class _Way:
    """One way to label an image of a size with a model, against the whole image's.

    Attributes:
        predictor: the model.
        tile: (height, width) of its tiles.
        overlaps: the shares that were asked for and give the same tiles; none: the image is
            resized to one tile.
        rows, columns: where tiles begin.
        image: (height, width) of the images.
        score: against the truth.
        alike: pixels labelled as the whole image is, and pixels: where tiles overlap (0), elsewhere
            (1).
        changes: neighbours with different labels on both sides of a tile's edge: here, of the whole
            image, and all.
    """

    predictor: Predictor
    tile: Size
    overlaps: tuple[float, ...]
    rows: list[int]
    columns: list[int]
    image: Size
    score: Score
    alike: list[tuple[int, int]] = field(default_factory=list)
    zones: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    changes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))

    def labels(self, image: UInt8) -> UInt8:
        """The label map of an image."""
        if not self.overlaps:
            return np.asarray(self.predictor.predict(image).labels)
        return np.asarray(self.predictor.predict_tiles(image, self.overlaps[0]).labels)

    def compare(self, labels: UInt8, whole: UInt8) -> None:
        """Counts where they are alike, and where labels change at the tiles' edges."""
        same = labels == whole
        self.alike.append((int(same.sum()), same.size))
        if not self.overlaps:
            return
        often = [
            np.sum([(first <= at) & (at < first + side) for first in where], axis=0)
            for where, side, at in zip(
                (self.rows, self.columns), self.tile, map(np.arange, self.image), strict=True
            )
        ]
        shared = np.outer(*often) > 1
        for zone, mask in enumerate((shared, ~shared)):
            self.zones[zone] += same[mask].sum(), mask.sum()
        for axis, where in enumerate((self.rows, self.columns)):
            inner = {*where, *(first + self.tile[axis] for first in where)}
            edges = sorted(at for at in inner if 0 < at < self.image[axis])
            found, wanted = (
                np.take(each, edges, axis) != np.take(each, np.array(edges, int) - 1, axis)
                for each in (labels, whole)
            )
            self.changes += found.sum(), wanted.sum(), found.size

    def row(self, whole: Score) -> dict[str, Any]:
        """What is recorded of it."""
        names = whole.dataset.label_set.names
        found = differences(
            self.score.images_counted, whole.images_counted, names, alike=self.alike
        )
        shared, elsewhere = (percent(same / n) if n else None for same, n in self.zones.tolist())
        here, there, pairs = self.changes.tolist()
        side, begins = self.tile[0], self.rows
        real = None if len(begins) < 2 else percent(1 - (begins[1] - begins[0]) / side)
        return {
            "tile": list(self.tile),
            "overlaps_asked_percent": [percent(each) for each in self.overlaps],
            "overlap_percent": real,
            "tiles": len(self.rows) * len(self.columns) if self.overlaps else 0,
            "alike_percent": percent(sum(s for s, _ in self.alike) / sum(n for _, n in self.alike)),
            "alike_in_overlaps_percent": shared,
            "alike_elsewhere_percent": elsewhere,
            "changes_at_edges_percent": percent(here / pairs) if pairs else None,
            "whole_changes_at_edges_percent": percent(there / pairs) if pairs else None,
            "miou_percent": self.score.to_dict()["miou_percent"],
            "miou_difference_points": found.miou.to_dict(),
        }


def _ways(predictor: Predictor, scenes: Dataset, image: Size) -> list[_Way]:
    """Tiles of each overlap that differ, and the image resized."""
    tile = check_tiles(predictor.metadata, 0)
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]] = {}
    for overlap in OVERLAPS:
        rows, columns = (
            tuple(starts(side, own, overlap)) for side, own in zip(image, tile, strict=True)
        )
        places[rows, columns] = (*places.get((rows, columns), ()), overlap)
    ways = [((), ([0], [0])), *((asked, (list(r), list(c))) for (r, c), asked in places.items())]
    return [
        _Way(predictor, tile, asked, rows, columns, image, Score.of(scenes, predictor.metadata))
        for asked, (rows, columns) in ways
    ]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of recorded results."""
    header = [
        "tiles",
        "overlap %: requested, actual",
        "tiles an image",
        "same labels in overlaps %",
        "same labels elsewhere %",
        "label changes at tile edges %: tiles, whole image",
        "mIoU difference, points",
    ]
    rows = []
    for result in results:
        if result["kind"] != "tiles":
            continue
        for row in result["rows"]:
            tile = "x".join(map(str, row["tile"]))
            asked = ", ".join(f"{each:g}" for each in row["overlaps_asked_percent"])
            cells = (
                [tile, f"{asked}; {round(row['overlap_percent'], 1):g}", str(row["tiles"])]
                if row["tiles"]
                else [f"none: resized to {tile}", "-", "1"]
            )
            edges = (row["changes_at_edges_percent"], row["whole_changes_at_edges_percent"])
            rows.append(
                [
                    *cells,
                    number(row["alike_in_overlaps_percent"]),
                    number(
                        row["alike_elsewhere_percent"] if row["tiles"] else row["alike_percent"]
                    ),
                    ", ".join(map(number, edges)) if row["tiles"] else "-",
                    points_text(row["miou_difference_points"]),
                ]
            )
    return Table(header, rows, left=2).markdown()


def _arguments() -> argparse.ArgumentParser:
    p = parser(
        "python -m tools.tiles",
        "Compares labels in tiles with labels of the whole image, on drawn scenes.",
        "python -m tools.tiles free.onnx tile-512x1024.onnx --json tiles-scenes.json",
    )
    p.add_argument("whole", metavar="WHOLE", help="an ONNX file of free size, or of the scenes'")
    p.add_argument("tiled", nargs="+", metavar="TILED", help="the same network at a tile's size")
    p.add_argument("--count", type=count, default=20, metavar="N", help="scenes (default: 20)")
    p.add_argument(
        "--size", type=size, default=(1024, 2048), metavar="HxW", help="(default: 1024x2048)"
    )
    p.add_argument("--runtime", default="auto", metavar="NAME")
    p.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to record it")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns its exit code."""
    args = _arguments().parse_args(argv)
    scenes = drawn_scenes(args.count, args.size)
    with ExitStack() as stack:
        whole, *tiled = (
            stack.enter_context(Predictor.open(path, args.runtime, "cpu", cached=False))
            for path in (args.whole, *args.tiled)
        )
        if {p.metadata.weights_sha256 for p in tiled} != {whole.metadata.weights_sha256}:
            raise InputError("the files have different weights: give files of one network")
        if whole.size not in (None, args.size):
            raise InputError(
                f"{args.whole} takes images of {whole.size}, the scenes are {args.size}: set --size"
            )
        score = Score.of(scenes, whole.metadata)
        ways = [way for each in tiled for way in _ways(each, scenes, args.size)]
        for sample in tqdm(scenes, desc="tiles", unit="image", disable=None):
            wanted = np.asarray(whole.predict(sample.image).labels)
            score.add(sample, wanted)
            for way in ways:
                labels = way.labels(sample.image)
                way.score.add(sample, labels)
                way.compare(labels, wanted)
        write_json(
            args.json,
            {
                "schema": _SCHEMA,
                "kind": "tiles",
                "date": datetime.now(UTC).date().isoformat(),
                "images": f"{args.count} drawn scenes, seed {SEED}",
                "image_size": list(args.size),
                "weights_sha256": whole.metadata.weights_sha256,
                "precision": whole.metadata.precision,
                "runtime": whole.runtime,
                "whole_miou_percent": score.to_dict()["miou_percent"],
                "rows": [way.row(score) for way in ways],
                "machine": machine(),
                "versions": versions(),
            },
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
