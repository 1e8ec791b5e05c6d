"""What `icnet evaluate` shows, on the screen and as HTML: one model, or two against each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icnet_deploy.data import RegionAccuracy, Sample
from icnet_deploy.evaluation.evaluate.plot import FEW, bin_words, region_plot
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
from icnet_deploy.report.tables import Table, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

_WRONG = 1
_COLOUR = (255, 90, 0)
# Told apart with every common colour blindness, and on grey.
_FIRST, _SECOND = 1, 2
_ALONE = {_FIRST: (0, 200, 255), _SECOND: (255, 90, 0)}

_SMALL = f"regions below {RegionAccuracy.bin_pixels:,} pixels"


def score_text(result: Result) -> str:
    """One model's score, as the screen shows it."""
    protocol, score = result["protocol"], result["score"]
    rows = [[name, number(iou)] for name, iou in score["iou_percent"].items()]
    rows.append(["mIoU", number(score["miou_percent"])])
    return "\n".join(
        [
            f"{_model_words(result)} on {protocol['dataset']} {protocol['split']}, "
            f"{protocol['images']} images\n",
            Table(["class", "IoU %"], rows).text(),
            "",
            f"{'pixel accuracy':<26} {number(score['pixel_accuracy_percent'])} %",
            f"{_SMALL:<26} {number(score['small_region_accuracy_percent'])} %",
            *_protocol_lines([result]),
            f"\ntime {_time_words(result)}",
        ]
    )


def comparison_text(result: Mapping[str, Any]) -> str:
    """Two models' scores, as the screen shows them."""
    models = result["models"]
    protocol = models[0]["protocol"]
    first, second = names(models)
    lines = [
        f"A  {_model_words(models[0], first)}",
        f"B  {_model_words(models[1], second)}",
        f"on {protocol['dataset']} {protocol['split']}, {protocol['images']} images\n",
        Table(["IoU %", "A", "B", "A - B"], _difference_rows(result)).text(),
        "",
        _summary(result).text(),
        *(f"\n{note}" for note in _unlike_means(result)),
        "",
        Table(
            ["pixels of a region", "regions", "A %", "B %", "A - B"], _region_rows(result)
        ).text(),
        *_protocol_lines(models),
        *(
            f"\ntime {letter}  {_time_words(model)}"
            for letter, model in zip("AB", models, strict=True)
        ),
    ]
    return "\n".join(lines)


def _model_words(result: Result, name: str | None = None) -> str:
    """A model's file or name, how its network was built, and what ran it."""
    from icnet_deploy.networks.blocks import words

    network = words(result.get("network", {}))
    name = name or names([result])[0]
    ran = f"{result['runtime']}, {result['device']}"
    return f"{name} ({network}; {ran})" if network else f"{name} ({ran})"


def _difference_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Class, IoU of both, difference."""
    a, b = (model["score"]["iou_percent"] for model in result["models"])
    points = result["difference"]["iou_points"]
    return [[name, number(a[name]), number(b[name]), signed(points[name], 2)] for name in a]


def _summary(result: Mapping[str, Any]) -> Table:
    """Measure, value of both, difference: the few numbers that a reader came for."""
    a, b = (model["score"] for model in result["models"])
    measures = {
        "mIoU %": "miou",
        "pixel accuracy %": "pixel_accuracy",
        f"{_SMALL}, right %": "small_region_accuracy",
    }
    rows = [
        [
            words,
            number(a[f"{key}_percent"]),
            number(b[f"{key}_percent"]),
            signed(result["difference"][f"{key}_points"], 2),
        ]
        for words, key in measures.items()
    ]
    return Table(["", "A", "B", "A - B"], rows)


def _region_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Sizes, number of regions, accuracy of both, difference."""
    a, b = (model["score"]["regions"] for model in result["models"])
    return [
        [
            bin_words(one),
            f"{one['regions']:,}" + (" (few)" if one["regions"] < FEW else ""),
            number(left["accuracy_percent"]),
            number(right["accuracy_percent"]),
            signed(one["points"], 2),
        ]
        for one, left, right in zip(result["difference"]["regions"], a, b, strict=True)
    ]


def _unlike_means(result: Mapping[str, Any]) -> list[str]:
    """A warning where the two mean IoUs run over different classes."""
    a, b = (model["score"]["iou_percent"] for model in result["models"])
    only = [name for name in a if (a[name] is None) != (b[name] is None)]
    if not only:
        return []
    return [
        f"{', '.join(only)}: in no ground truth, and predicted by one of the two only, so that "
        "the two means run over different classes. Over the classes of both, mIoU differs by "
        f"{signed(result['difference']['miou_points_over_common_classes'], 2)} points."
    ]


def _protocol_words(results: Sequence[Result]) -> dict[str, str]:
    """The protocol as a reader reads it; where two differ, both."""
    protocols = [Protocol.from_dict(result["protocol"]).to_words() for result in results]
    words = {}
    for name in protocols[0]:
        values = [protocol[name] for protocol in protocols]
        both = "; ".join(f"{letter}: {value}" for letter, value in zip("AB", values, strict=False))
        words[name] = values[0] if len(set(values)) == 1 else both
    return words


def _protocol_lines(results: Sequence[Result]) -> list[str]:
    words = _protocol_words(results)
    return ["\nprotocol", *(f"  {name:<16} {value}" for name, value in words.items())]


def _time_words(result: Result) -> str:
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
    protocol, shares = result["protocol"], result["score"]
    return page(
        f"{names([result])[0]} on {protocol['dataset']} {protocol['split']}",
        tag("p", _model_words(result), class_="quiet"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}."),
        figures(
            {
                "mIoU, %": number(shares["miou_percent"]),
                "right pixels, %": number(shares["pixel_accuracy_percent"]),
                f"right in {_SMALL}, %": number(shares["small_region_accuracy_percent"]),
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
        facts({**_protocol_words([result]), "time": _time_words(result)}),
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
        tag("p", f"A: {_model_words(models[0], first)}"),
        tag("p", f"B: {_model_words(models[1], second)}"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}. Differences: A - B."),
        figures(
            {
                "mIoU, points": signed(points["miou_points"], 2),
                "right pixels, points": signed(points["pixel_accuracy_points"], 2),
                f"right in {_SMALL}, points": signed(points["small_region_accuracy_points"], 2),
            }
        ),
        tag("h2", "Scores"),
        _summary(result).html(),
        [tag("p", note) for note in _unlike_means(result)],
        tag("h2", "IoU a class"),
        Table(["Class", "A, %", "B, %", "A - B, points"], _difference_rows(result)).html(),
        _regions(models),
        Table(
            ["Pixels of a region", "Regions", "A, %", "B, %", "A - B, points"], _region_rows(result)
        ).html(),
        _exhibits(
            "The images on which they differ most",
            label_set,
            [("only A is right", _ALONE[_FIRST]), ("only B is right", _ALONE[_SECOND])],
            gallery,
        ),
        tag("h2", "Protocol"),
        facts(
            {
                **_protocol_words(models),
                "time of A": _time_words(models[0]),
                "time of B": _time_words(models[1]),
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
    return Table(["Class", "IoU %", "Share of the labelled pixels, %"], cells).html()


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
        tag("div", plot_of(results), class_="scroll"),
    ]


def plot_of(results: Sequence[Result]) -> Html:
    """Accuracy by the size of regions, of one result or two."""
    bins = [result["score"]["regions"] for result in results]
    return region_plot(dict(zip(names(results), bins, strict=True)))


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
