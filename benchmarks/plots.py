"""Measured times drawn: the ICNet paper's figure 1, and every sample of what ran in turn.

The mIoU of what was timed is that of results of `icnet evaluate`, `parity` and `verify`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icnet_deploy.benchmarks.measurement import SCOPES, Measurement
from icnet_deploy.benchmarks.measurement_tables import device_words, median_ms, who
from icnet_deploy.documents import (
    BOOL,
    COUNT,
    OBJECT,
    PERCENT,
    TEXT,
    Schema,
    list_of,
    object_with,
    one_of,
    or_null,
)
from icnet_deploy.errors import InputError
from icnet_deploy.evaluation.score import OF_THE_MODEL, Protocol, require_same_protocol
from icnet_deploy.files import write_text
from icnet_deploy.report import svg
from icnet_deploy.report.html import Html, tag

PLOT = "to plot speed against mIoU"
"""The goal of the options that name results with mIoU."""

_SCORE = object_with({"miou_percent": PERCENT})
_SCORED = {"sha256": TEXT, "runtime": TEXT, "score": _SCORE, "protocol": OBJECT}
_RESULT_ROW = object_with({"artefact": TEXT, "precision": or_null(TEXT), **_SCORED})
_REFERENCE = object_with(
    {
        "weights_sha256": TEXT,
        "score": _SCORE,
        "size": or_null(list_of(COUNT, 2)),
        "head": TEXT,
    }
)
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "evaluate": {"model": TEXT, **_SCORED},
    "parity": {"rows": list_of(_RESULT_ROW), "references": list_of(_REFERENCE)},
    "verify": {"parity": OBJECT},
}
"""Kind of result -> what it holds."""

_ALL = {name: kind for fields in _KINDS.values() for name, kind in fields.items()}
_RESULT = Schema(
    "a JSON result with mIoU, from icnet evaluate, icnet parity or icnet verify",
    {"kind": one_of(*_KINDS), "precision": or_null(TEXT), "labelled": BOOL, **_ALL},
    optional=("precision", "labelled", *_ALL),
)

# How logits were resized is the model's head, which is its own affair, too.
_MAY_DIFFER = (*OF_THE_MODEL, "logits_resize")


@dataclass(frozen=True)
class KnownScore:
    """What a file scored.

    Attributes:
        name: of the file.
        sha256: of the file: an artefact, or a checkpoint.
        runtime: what ran it.
        precision: of an artefact; None of a checkpoint.
        miou_percent: 0..100.
        protocol: how it was scored.
    """

    name: str
    sha256: str
    runtime: str
    precision: str | None
    miou_percent: float
    protocol: Protocol


def read_scores(paths: Sequence[Path]) -> list[KnownScore]:
    """Reads result files.

    Raises:
        InputError: a file is none of these, or was made without labels, or two scores are of
            different protocols, whose points must not stand in one picture.
    """
    known = [score for path in paths for score in _scores(_RESULT.read(path), str(path))]
    for each in known[1:]:
        require_same_protocol(known[0].protocol, each.protocol, but=_MAY_DIFFER)
    return known


def find_score(measured: Measurement, scores: Sequence[KnownScore]) -> KnownScore | None:
    """The score of what was measured: of that file on that runtime; else of that file on any, or
    of a file of that name and precision (one that was exported again).
    """
    subject = measured.subject
    nearest = [*(s for s in scores if s.runtime == subject.get("runtime")), *scores]
    name = (subject.get("file"), subject.get("precision"))
    same_file = [each for each in nearest if each.sha256 == subject.get("sha256")]
    same_name = [each for each in nearest if (each.name, each.precision) == name]
    return next(iter([*same_file, *same_name]), None)


def protocol_line(score: KnownScore) -> str:
    """What was scored, in words."""
    return "{dataset} {split}, {images} images".format(**score.protocol.to_dict())


def _scores(result: Mapping[str, Any], where: str) -> list[KnownScore]:
    kind = result["kind"]
    replace(_RESULT, fields=_KINDS[kind], optional=()).fit(result, where)
    if kind == "verify":
        return _scores(_RESULT.fit(result["parity"], where), where)
    if not result.get("labelled", True):
        raise InputError(
            f"{where} was made without labels, so its mIoU compares with the reference only; "
            "expected a result with labels: give icnet parity --dataset and --data"
        )
    if kind == "evaluate":
        return [_score(Path(result["model"]).name, result, result["protocol"], where)]
    scores = [_score(row["artefact"], row, row["protocol"], where) for row in result["rows"]]
    # The checkpoints that the artefacts were compared with, each scored as its artefacts were.
    for reference in result["references"]:
        kind = (reference["size"], reference["head"])
        like = [row for row in result["rows"] if (row.get("size"), row.get("head")) == kind]
        if like:
            row = {**reference, "sha256": reference["weights_sha256"], "runtime": "pytorch"}
            scores.append(_score("checkpoint", row, like[0]["protocol"], where))
    return scores


def _score(
    name: str, row: Mapping[str, Any], protocol: Mapping[str, Any], where: str
) -> KnownScore:
    return KnownScore(
        name,
        row["sha256"],
        row["runtime"],
        row.get("precision"),
        row["score"]["miou_percent"],
        Protocol.from_dict(protocol, where),
    )


_REAL_TIME = 30
"""Frames a second, from which on the paper calls a network real-time."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 736, 34, 370  # in units of the viewBox, as all that follow
_RADIUS, _LINE, _LETTER = 5, 15, 6.9  # the last: the mean width of a letter, of a wide font

_SPAN = 5.0
"""The least mIoU from the lower to the upper edge: noise of 0.02 points must not fill a plot."""

_ROW, _STRIP, _BOX = 58, 9, 7  # of samples: a subject's height, half of its cloud's and its box's


class Point(NamedTuple):
    """A subject in the plot.

    Attributes:
        label: what stands beside it.
        rate: frames a second, from the median of its latency.
        miou: percent.
        partial: its scope is less than from image to labels.
        words: all about it, when pointed at.
    """

    label: str
    rate: float
    miou: float
    partial: bool
    words: str


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def points(
    measured: Sequence[Measurement], scores: Sequence[KnownScore]
) -> tuple[list[Point], list[str]]:
    """What is drawn, and a sentence for each that is not, or whose score is another file's."""
    drawn, notes = [], []
    for each in measured:
        if each.kind != "latency":
            continue
        score = find_score(each, scores)
        where = who(each)
        if score is None:
            notes.append(f"Not drawn, because no result gives its mIoU: {where}.")
            continue
        if score.sha256 != each.subject.get("sha256"):
            notes.append(
                f"{where}: the mIoU is of another file with this name and precision "
                f"(SHA-256 {score.sha256[:12]}...)."
            )
        median = median_ms(each)
        words = (
            f"{where}: {1e3 / median:.1f} frames a second ({median:.1f} ms), mIoU "
            f"{score.miou_percent:.2f} % ({protocol_line(score)}, on {score.runtime}); "
            f"{each.scope}: {SCOPES[each.scope]}"
        )
        runtime = each.subject.get("runtime")
        label = each.name if not runtime or runtime in each.name else f"{each.name}, {runtime}"
        rate, partial = 1e3 / median, each.scope != "image-to-labels"
        drawn.append(Point(label, rate, score.miou_percent, partial, words))
    return drawn, notes


def speed_plot(drawn: Sequence[Point], scored: str) -> Html:
    """Frames a second against mIoU.

    Args:
        drawn: at least one.
        scored: what the mIoU is of, in words.
    """
    fastest = svg.nice_above(1.05 * max(_REAL_TIME, *(each.rate for each in drawn)))
    low, high = _reach([each.miou for each in drawn])
    x, y = svg.Scale(0, fastest, _LEFT, _RIGHT), svg.Scale(low, high, _BOTTOM, _TOP)
    ticks = [[(value, f"{value:g}") for value in scale.ticks()] for scale in (x, y)]
    words = "frames a second, from the median latency; hollow: covers less than a label map"
    parts = [
        *svg.y_axis(y, ticks[1], _LEFT, _RIGHT, zero=low),
        svg.text(f"mIoU %, {scored}", _LEFT - 40, _TOP - 16, "start"),
        *svg.x_axis(x, ticks[0], _BOTTOM, words),
        svg.upright(x(_REAL_TIME), _TOP, _BOTTOM, "limit"),
        svg.text("real time", x(_REAL_TIME) - 6, _TOP + 14, "end"),
        *_labels(drawn, [(x(each.rate), y(each.miou)) for each in drawn]),
    ]
    for each in drawn:
        kind = "hollow" if each.partial else "first rim"
        dot = tag("circle", cx=x(each.rate), cy=y(each.miou), r=_RADIUS, class_=kind)
        parts.append(svg.hover(each.words, dot))
    return svg.drawing("frames a second against mIoU", (svg.WIDTH, _BOTTOM + 54), parts)


def write_plot(path: Path, measured: Sequence[Measurement], scores: Sequence[KnownScore]) -> None:
    """Writes the plot as a file of its own, light or dark as its reader's screen is.

    Raises:
        InputError: no score is of what was timed.
        OutputError: the file cannot be written.
    """
    drawn, notes = points(measured, scores)
    if not drawn:
        raise InputError(f"--plot {path} would be empty: {' '.join(notes)}")
    write_text(path, svg.alone(speed_plot(drawn, protocol_line(scores[0]))))
    for note in notes:
        print(note)


def _labels(drawn: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[Html]:
    """Each label at the nearest free place by its point, with a leader where that is far.

    From right to left, and each begins above or below its point: so no label lies where a leader
    of a later one has to pass.
    """
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    for each, (x, y) in sorted(zip(drawn, places, strict=True), key=lambda pair: pair[1])[::-1]:
        box, leader = _free_place(x, y, _LETTER * len(each.label), taken)
        taken.append(box)
        if leader is not None:
            taken.append(leader)
            end = box.bottom if box.bottom < y else box.top
            yield svg.upright(x, y, end, "thin")
        yield svg.text(each.label, box.left, box.bottom - 4, "start", "name")


def _free_place(
    x: float, y: float, width: float, taken: Sequence[_Box]
) -> tuple[_Box, _Box | None]:
    """The first place by a point where neither label nor leader meets anything; else the label."""
    second = None
    for left, top, far in _around(x, y, width):
        box = _Box(left, top, left + width, top + _LINE)
        if box.left < _LEFT or box.right > _RIGHT or box.top < _TOP or box.bottom > _BOTTOM:
            continue
        if any(other.meets(box) for other in taken):
            continue
        # An upright line from the point's rim to the label above or below it.
        rim = y - _RADIUS - 0.5, y + _RADIUS + 0.5
        top, bottom = (box.bottom, rim[0]) if box.bottom < y else (rim[1], box.top)
        leader = _Box(x - 1, top, x + 1, bottom) if far else None
        if leader is None or not any(other.meets(leader) for other in taken):
            return box, leader
        second = second or (box, leader)
    return second or (_Box(x, y, x + width, y + _LINE), None)  # too wide, or the plot is full


def _around(x: float, y: float, width: float) -> Iterator[tuple[float, float, bool]]:
    """The upper left corners that a label may take, the nearest first, and whether that is far."""
    yield x + _RADIUS + 4, y - _LINE / 2, False
    for start in (x - _RADIUS, x - width / 2, x - width + _RADIUS):
        left = max(_LEFT, min(start, _RIGHT - width))
        for distance in range(24):
            yield left, y - _RADIUS - 3 - (distance + 1) * _LINE, distance > 0
            yield left, y + _RADIUS + 3 + distance * _LINE, distance > 0


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper edge: round numbers around all values, `_SPAN` apart or more."""
    middle, half = (min(values) + max(values)) / 2, (max(values) - min(values)) / 2
    half = max(half * 1.15, _SPAN / 2)
    step = svg.nice_step(2 * half)
    low = math.floor((middle - half) / step) * step
    return max(0.0, low), min(100.0, math.ceil((middle + half) / step) * step)


def sample_plot(rows: Sequence[Measurement]) -> Html:
    """The pooled totals of each row on one logarithmic axis of milliseconds.

    A box from the lower to the upper quartile, whiskers to p10 and p90, a line at the median, and
    every sample, from the first above to the last below.

    Args:
        rows: latencies, at least one.
    """
    samples = [np.asarray(row.values["total"]["samples_ms"]) for row in rows]
    everything = np.concatenate(samples)
    low, high = max(float(everything.min()) / 1.06, 1e-3), float(everything.max()) * 1.06
    x = svg.Scale(low, high, 12, 740, logarithmic=True)
    top, ticks = 14, x.ticks()
    bottom = top + _ROW * len(rows)
    words = "ms a run, logarithmic; box: quartiles, whiskers: p10 to p90, line: median"
    parts = [svg.upright(x(tick), top, bottom) for tick in ticks]
    parts += svg.x_axis(x, [(tick, f"{tick:g}") for tick in ticks], bottom, words)
    for row, taken in zip(rows, samples, strict=True):
        name = f"{row.name}, {device_words(row)}"
        parts.append(svg.text(name, x.start + 4, top + 14, "start", "name"))
        p10, q1, median, q3, p90 = np.percentile(taken, [10, 25, 50, 75, 90]).tolist()
        words = f"{name}: median {median:.2f} ms, p10 {p10:.2f}, p90 {p90:.2f}, {len(taken)} runs"
        y = top + 36
        box = [
            svg.across(y, x(p10), x(p90), "quiet"),
            svg.bar((x(q1), x(q3)), (y - _BOX, y + _BOX), "first faint"),
            svg.upright(x(median), y - _BOX - 2, y + _BOX + 2, "strong"),
        ]
        # In the order taken, so that a drift is seen as a slant.
        places = np.linspace(-_STRIP, _STRIP, 2 * len(taken) + 1)[1::2]
        cloud = [
            tag("circle", cx=x(value), cy=round(y + place, 1), r=1.8, class_="first pale")
            for value, place in zip(taken.tolist(), places.tolist(), strict=True)
        ]
        parts.append(svg.hover(words, box, cloud))
        top += _ROW
    return svg.drawing("time of every run", (svg.WIDTH, bottom + 48), parts)
