"""The HTML reports of `icnet evaluate`: of one model, and of two against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icnet_deploy.data import Sample
from icnet_deploy.evaluation.evaluate.compare import Result, curves, names
from icnet_deploy.evaluation.evaluate.plot import FEW, region_plot
from icnet_deploy.evaluation.evaluate.text import (
    SMALL,
    difference_rows,
    model_words,
    protocol_words,
    region_rows,
    summary_rows,
    time_words,
    unlike_means,
)
from icnet_deploy.evaluation.score import Protocol, Score, percent
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.parts import (
    class_legend,
    exhibit,
    facts,
    figures,
    legend,
    table,
    where,
)
from icnet_deploy.report.pictures import (
    Colour,
    Exhibit,
    Gallery,
    label_picture,
    marks_picture,
    photo,
)
from icnet_deploy.report.tables import number, signed
from icnet_deploy.runtime.machine import machine, versions

UInt8 = npt.NDArray[np.uint8]

_WRONG = 1
_COLOUR = (255, 90, 0)
# Told apart with every common colour blindness, and on grey.
_FIRST, _SECOND = 1, 2
_ALONE = {_FIRST: (0, 200, 255), _SECOND: (255, 90, 0)}


def offer_errors(gallery: Gallery, label_set: LabelSet, sample: Sample, mapped: UInt8) -> None:
    """Shows the gallery an image, which ranks by the share of its labelled pixels that are wrong.

    Args:
        gallery: keeps the worst.
        label_set: of the data set.
        sample: the image and its truth.
        mapped: uint8 H x W, the prediction in the data set's classes; 255 for none of them.
    """
    known = sample.labels != IGNORE
    wrong = known & (mapped != sample.labels)
    share = int(np.count_nonzero(wrong)) / max(1, int(np.count_nonzero(known)))

    def draw() -> Exhibit:
        marks = np.where(wrong, np.uint8(_WRONG), np.uint8(0))
        return Exhibit(
            sample.name,
            f"{100 * share:.2f} % of its {np.count_nonzero(known):,} labelled pixels are wrong.",
            (
                photo("Input", sample.image),
                label_picture("Ground truth", sample.labels, label_set),
                label_picture("Prediction", mapped, label_set),
                marks_picture("Errors", sample.image, marks, {_WRONG: _COLOUR}),
            ),
        )

    gallery.offer(float(share), draw)


def offer_contrast(
    gallery: Gallery, label_set: LabelSet, sample: Sample, first: UInt8, second: UInt8
) -> None:
    """Shows the gallery an image, which ranks by how far two models' shares of errors differ.

    Args:
        gallery: keeps those that differ most.
        label_set: of the data set.
        sample: the image and its truth.
        first, second: uint8 H x W, the predictions in the data set's classes; 255 for none.
    """
    known = sample.labels != IGNORE
    right = [known & (mapped == sample.labels) for mapped in (first, second)]
    a, b = (int(np.count_nonzero(r)) / max(1, int(np.count_nonzero(known))) for r in right)

    def draw() -> Exhibit:
        marks = np.zeros(known.shape, np.uint8)
        marks[right[0] & ~right[1]] = _FIRST
        marks[right[1] & ~right[0]] = _SECOND
        return Exhibit(
            sample.name,
            f"Right pixels: A {100 * a:.2f} %, B {100 * b:.2f} %, difference "
            f"{100 * (a - b):+.2f} points.",
            (
                label_picture("Ground truth", sample.labels, label_set),
                marks_picture("Where one alone is right", sample.image, marks, _ALONE),
                label_picture("Prediction of A", first, label_set),
                label_picture("Prediction of B", second, label_set),
            ),
        )

    gallery.offer(abs(a - b), draw)


def evaluate_page(result: Result, score: Score, gallery: Gallery) -> str:
    """One model's report as one HTML document.

    Args:
        result: its JSON result.
        score: the same score, with its counts.
        gallery: the images on which it did worst.
    """
    protocol, told = result["protocol"], result["score"]
    return page(
        f"{Path(result['model']).name} on {protocol['dataset']} {protocol['split']}",
        tag("p", model_words(result), class_="quiet"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}."),
        figures(
            {
                "mIoU, %": number(told["miou_percent"]),
                "right pixels, %": number(told["pixel_accuracy_percent"]),
                f"right in {SMALL}, %": number(told["small_region_accuracy_percent"]),
            }
        ),
        tag("h2", "IoU a class"),
        _classes(score),
        _regions([result]),
        _exhibits(
            "The worst images",
            score.dataset.label_set,
            [("wrong", _COLOUR)],
            gallery,
        ),
        tag("h2", "Protocol"),
        facts({**protocol_words([result]), "time": time_words(result)}),
        where(machine() | versions()),
    )


def compare_page(result: Mapping[str, Any], gallery: Gallery, label_set: LabelSet | None) -> str:
    """The comparison of two models as one HTML document.

    Args:
        result: what `compare` returned.
        gallery: the images on which the two differ most; empty for recorded results.
        label_set: of the data set, if the gallery holds any.
    """
    models = result["models"]
    first, second = names(models)
    protocol = models[0]["protocol"]
    points = result["difference"]
    return page(
        f"{first} against {second} on {protocol['dataset']} {protocol['split']}",
        tag("p", f"A: {model_words(models[0], first)}"),
        tag("p", f"B: {model_words(models[1], second)}"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}. Differences: A - B."),
        figures(
            {
                "mIoU, points": signed(points["miou_points"], 2),
                "right pixels, points": signed(points["pixel_accuracy_points"], 2),
                f"right in {SMALL}, points": signed(points["small_region_accuracy_points"], 2),
            }
        ),
        tag("h2", "Scores"),
        table(["", "A", "B", "A - B"], summary_rows(result)),
        [tag("p", note) for note in unlike_means(result)],
        tag("h2", "IoU a class"),
        table(["Class", "A, %", "B, %", "A - B, points"], difference_rows(result)),
        _regions(models),
        table(
            ["Pixels of a region", "Regions", "A, %", "B, %", "A - B, points"], region_rows(result)
        ),
        _exhibits(
            "The images on which they differ most",
            label_set,
            [("only A is right", _ALONE[_FIRST]), ("only B is right", _ALONE[_SECOND])],
            gallery,
        ),
        tag("h2", "Protocol"),
        facts(
            {
                **protocol_words(models),
                "time of A": time_words(models[0]),
                "time of B": time_words(models[1]),
            }
        ),
        where(machine() | versions()),
    )


def _classes(score: Score) -> Html:
    counts = score.confusion.counts
    shares = counts.sum(axis=1) / max(1, int(counts.sum()))
    cells = [
        [name, number(percent(iou)), number(percent(share))]
        for name, iou, share in zip(
            score.dataset.label_set.names, score.confusion.iou(), shares, strict=True
        )
    ]
    return table(["Class", "IoU %", "Share of the labelled pixels, %"], cells)


def _regions(results: Sequence[Result]) -> list[Html]:
    rule = Protocol.from_dict(results[0]["protocol"]).regions
    return [
        tag("h2", "Accuracy by the size of regions"),
        tag(
            "p",
            "For each connected region of one true class, the share of its pixels that is right; "
            f"averaged over the regions of a size ({rule}). Figure 7 of the ICNet paper. A bin of "
            f"fewer than {FEW} regions is drawn faint.",
            class_="quiet",
        ),
        tag("div", region_plot(*curves(results)), class_="scroll"),
    ]


def _exhibits(
    title: str, label_set: LabelSet | None, marks: list[tuple[str, Colour]], gallery: Gallery
) -> list[Html]:
    shown = gallery.exhibits()
    if not shown or label_set is None:
        return []
    return [
        tag("h2", title),
        class_legend(label_set),
        legend([*marks, ("not labelled, or no class of the data set", (0, 0, 0))]),
        *(exhibit(one) for one in shown),
    ]
