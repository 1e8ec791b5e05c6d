"""What `icnet evaluate` shows of one model, on the screen and as HTML."""

from collections.abc import Sequence

import numpy as np

from icnet_deploy.data import RegionAccuracy, Sample
from icnet_deploy.evaluation.evaluate.plot import FEW, region_plot
from icnet_deploy.evaluation.evaluate.result import Result, names
from icnet_deploy.evaluation.pictures import (
    Colour,
    Exhibit,
    Gallery,
    class_legend,
    exhibit,
    label_picture,
    legend,
    marks_picture,
    photo,
)
from icnet_deploy.evaluation.score import Protocol, Score, UInt8, percent
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.report.html import Html, figures, page, tag
from icnet_deploy.report.tables import Table, facts, number, where
from icnet_deploy.runtime.machine import machine, versions

_WRONG = 1
_COLOUR = (255, 90, 0)

SMALL = f"regions below {RegionAccuracy.bin_pixels:,} pixels"
"""What a reader calls small regions."""


def score_text(result: Result) -> str:
    """One model's score, as the screen shows it."""
    protocol, score = result["protocol"], result["score"]
    rows = [[name, number(iou)] for name, iou in score["iou_percent"].items()]
    rows.append(["mIoU", number(score["miou_percent"])])
    return "\n".join(
        [
            f"{model_words(result)} on {protocol['dataset']} {protocol['split']}, "
            f"{protocol['images']} images\n",
            Table(["class", "IoU %"], rows).text(),
            "",
            f"{'pixel accuracy':<38} {number(score['pixel_accuracy_percent'])} %",
            f"{f'accuracy on {SMALL}':<38} {number(score['small_region_accuracy_percent'])} %",
            *protocol_lines([result]),
            f"\ntime {time_words(result)}",
            *(f"note: {note}" for note in result.get("notes", ())),
        ]
    )


def model_words(result: Result, name: str | None = None) -> str:
    """A model's file or name, how its network was built, and what ran it."""
    from icnet_deploy.networks.blocks import words

    network = words(result.get("network", {}))
    name = name or names([result])[0]
    ran = f"{result['runtime']}, {result['device']}"
    return f"{name} ({network}; {ran})" if network else f"{name} ({ran})"


def protocol_words(results: Sequence[Result]) -> dict[str, str]:
    """The protocol as a reader reads it; where two differ, both."""
    protocols = [Protocol.from_dict(result["protocol"]).to_words() for result in results]
    words = {}
    for name in protocols[0]:
        values = [protocol[name] for protocol in protocols]
        both = "; ".join(f"{letter}: {value}" for letter, value in zip("AB", values, strict=False))
        words[name] = values[0] if len(set(values)) == 1 else both
    return words


def protocol_lines(results: Sequence[Result]) -> list[str]:
    """The protocol as the screen shows it."""
    words = protocol_words(results)
    return ["\nprotocol", *(f"  {name:<16} {value}" for name, value in words.items())]


def time_words(result: Result) -> str:
    """How long an image took, with what that covers."""
    return f"{result['time']['milliseconds']:.1f} ms ({result['time']['scope']})"


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


def evaluate_page(result: Result, score: Score, gallery: Gallery) -> str:
    """One model's report as one HTML document.

    Args:
        result: its JSON result.
        score: the same score, with its counts.
        gallery: the images on which it did worst.
    """
    protocol, shares = result["protocol"], result["score"]
    return page(
        f"{names([result])[0]} on {protocol['dataset']} {protocol['split']}",
        tag("p", model_words(result), class_="quiet"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}."),
        *(tag("p", f"Note: {note}.", class_="quiet") for note in result.get("notes", ())),
        figures(
            {
                "mIoU, %": number(shares["miou_percent"]),
                "pixel accuracy, %": number(shares["pixel_accuracy_percent"]),
                f"accuracy on {SMALL}, %": number(shares["small_region_accuracy_percent"]),
            }
        ),
        tag("h2", "IoU of each class"),
        _classes(score),
        regions_part([result]),
        exhibits_part(
            "The worst images",
            score.dataset.label_set,
            [("wrong", _COLOUR)],
            gallery,
        ),
        tag("h2", "Protocol"),
        facts({**protocol_words([result]), "time": time_words(result)}),
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
    return Table(["Class", "IoU %", "Share of the labelled pixels, %"], cells).html()


def regions_part(results: Sequence[Result]) -> list[Html]:
    """What a page shows of accuracy by the size of regions, of one result or two."""
    rule = Protocol.from_dict(results[0]["protocol"]).regions
    return [
        tag("h2", "Accuracy by the size of regions"),
        tag(
            "p",
            "The share of right pixels in each connected region of one true class, averaged over "
            f"the regions of a size ({rule}), as in figure 7 of the ICNet paper. A bin of fewer "
            f"than {FEW} regions is drawn faint.",
            class_="quiet",
        ),
        tag("div", plot_of(results), class_="scroll"),
    ]


def plot_of(results: Sequence[Result]) -> Html:
    """Accuracy by the size of regions, of one result or two."""
    bins = [result["score"]["regions"] for result in results]
    return region_plot(dict(zip(names(results), bins, strict=True)))


def exhibits_part(
    title: str, label_set: LabelSet | None, marks: list[tuple[str, Colour]], gallery: Gallery
) -> list[Html]:
    """The pictures of a page, with what their colours mean; nothing if there are none."""
    shown = gallery.exhibits()
    if not shown or label_set is None:
        return []
    return [
        tag("h2", title),
        class_legend(label_set),
        legend([*marks, ("no label, or no class of the data set", (0, 0, 0))]),
        *(exhibit(one) for one in shown),
    ]
