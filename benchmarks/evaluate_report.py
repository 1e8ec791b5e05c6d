"""The HTML report of `icnet evaluate`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icnet_deploy.benchmarks.pictures import (
    Exhibit,
    Gallery,
    label_picture,
    marks_picture,
    photo,
)
from icnet_deploy.benchmarks.plot import region_plot
from icnet_deploy.benchmarks.report import (
    class_legend,
    exhibit,
    facts,
    figures,
    legend,
    table,
    where,
)
from icnet_deploy.benchmarks.scoring import Score, percent
from icnet_deploy.benchmarks.tables import number
from icnet_deploy.benchmarks.templates import Html, page, tag
from icnet_deploy.data import Sample
from icnet_deploy.labels import IGNORE, LabelSet

__all__ = ["evaluate_page", "offer_errors"]

UInt8 = npt.NDArray[np.uint8]

_WRONG = 1
_COLOUR = (255, 90, 0)


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


def evaluate_page(name: str, score: Score, gallery: Gallery, time: str) -> str:
    """The whole report as one HTML document.

    Args:
        name: the model and what ran it.
        score: its score.
        gallery: the images on which it did worst.
        time: how long an image took, with the scope, in words.
    """
    protocol = score.protocol()
    small = f"right in regions below {score.regions.bin_pixels:,} pixels, %"
    return page(
        f"{name} on {protocol.dataset} {protocol.split}",
        tag("p", f"{protocol.images} images, {protocol.data_label_set}."),
        figures(
            {
                "mIoU, %": number(percent(score.confusion.miou())),
                "right pixels, %": number(percent(score.confusion.pixel_accuracy())),
                small: number(percent(score.regions.small())),
            }
        ),
        tag("h2", "IoU a class"),
        _classes(score),
        tag("h2", "Accuracy by the size of regions"),
        tag(
            "p",
            "For each connected region of one true class, the share of its pixels that is right; "
            f"averaged over the regions of a size, in bins of {score.regions.bin_pixels:,} pixels "
            "(figure 7 of the ICNet paper).",
            class_="quiet",
        ),
        region_plot(score.regions),
        _exhibits(score, gallery),
        tag("h2", "Protocol"),
        facts({**protocol.to_words(), "time": time}),
        where(),
    )


def _classes(score: Score) -> Html:
    counts = score.confusion.counts
    shares = counts.sum(axis=1) / max(1, int(counts.sum()))
    names = score.dataset.label_set.names
    cells = [
        [name, number(percent(iou)), number(percent(share))]
        for name, iou, share in zip(names, score.confusion.iou(), shares, strict=True)
    ]
    return table(["Class", "IoU %", "Share of the labelled pixels, %"], cells)


def _exhibits(score: Score, gallery: Gallery) -> list[Html]:
    shown = gallery.exhibits()
    if not shown:
        return []
    return [
        tag("h2", "The worst images"),
        class_legend(score.dataset.label_set),
        legend([("wrong", _COLOUR), ("not labelled, or no class of the data set", (0, 0, 0))]),
        *(exhibit(one) for one in shown),
    ]
