"""What `icnet evaluate --against` shows of two models, on the screen and as HTML."""

import numpy as np

from icnet_deploy.data import Sample
from icnet_deploy.evaluation.confidence.differences import (
    FEWEST_GROUPS,
    FEWEST_IMAGES,
    FEWEST_PIXELS,
    Interval,
)
from icnet_deploy.evaluation.evaluate.compared import Compared
from icnet_deploy.evaluation.evaluate.plot import FEW, bin_words
from icnet_deploy.evaluation.evaluate.report import (
    SMALL,
    exhibits_part,
    model_words,
    protocol_lines,
    protocol_words,
    regions_part,
    time_words,
)
from icnet_deploy.evaluation.evaluate.result import names
from icnet_deploy.evaluation.interval_plot import difference_plot
from icnet_deploy.evaluation.pictures import Exhibit, Gallery, label_picture, marks_picture
from icnet_deploy.evaluation.score import UInt8
from icnet_deploy.labels import IGNORE, LabelSet
from icnet_deploy.report.html import Html, figures, page, tag
from icnet_deploy.report.tables import Table, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

# Told apart with every common colour blindness, and on grey.
_FIRST, _SECOND = 1, 2
_ALONE = {_FIRST: (0, 200, 255), _SECOND: (255, 90, 0)}

_MEASURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "small_region_accuracy": f"accuracy on {SMALL}",
}


def comparison_text(compared: Compared) -> str:
    """Two models' scores, as the screen shows them; the first line says how sure they are."""
    protocol = compared.first["protocol"]
    a, b = names(compared.models)
    lines = [
        f"{compared.basis()}\n",
        f"A  {model_words(compared.first, a)}",
        f"B  {model_words(compared.second, b)}",
        f"on {protocol['dataset']} {protocol['split']}, {protocol['images']} images\n",
        _classes(compared, "IoU %").text(),
        "",
        _summary(compared).text(),
        *(f"\n{note}" for note in _notes(compared)),
        "",
        _regions(compared, "A %", "B %", "A - B").text(),
        *protocol_lines(compared.models),
        *(
            f"\ntime {letter}  {time_words(model)}"
            for letter, model in zip("AB", compared.models, strict=True)
        ),
    ]
    return "\n".join(lines)


def _with_interval(value: float | None, interval: Interval | None) -> str:
    """A difference, with its interval if there is one."""
    if interval is None:
        return signed(value, 2)
    low, high = signed(interval.low, 2), signed(interval.high, 2)
    return f"{signed(interval.value, 2)} [{low}, {high}]"


def _classes(compared: Compared, what: str) -> Table:
    """Class, IoU of both, difference."""
    a, b = compared.scores("iou_percent")
    plain, hardly = compared.plain_classes(), compared.hardly_seen()
    intervals = compared.differences.classes if compared.differences else {}
    rows = [
        [
            name + (" (few)" if name in hardly else ""),
            number(a[name]),
            number(b[name]),
            _with_interval(plain[name], intervals.get(name)),
        ]
        for name in a
    ]
    return Table([what, "A", "B", "A - B, points"], rows)


def _summary(compared: Compared) -> Table:
    """Measure, value of both, difference: the few numbers that a reader came for."""
    intervals = compared.measures()
    rows = []
    for key, words in _MEASURES.items():
        both = compared.scores(f"{key}_percent")
        rows.append([f"{words} %", *map(number, both)])
        seen = compared.over_seen_classes() if key == "miou" else None
        if seen is not None:
            rows[-1].append(signed(compared.plain(key), 2))
            rows.append(["mIoU % without classes marked (few)", *map(number, seen)])
        rows[-1].append(_with_interval(compared.plain(key), intervals[key]))
    return Table(["", "A", "B", "A - B, points"], rows)


def _regions(compared: Compared, *columns: str) -> Table:
    """Sizes, number of regions, accuracy of both, difference."""
    a, b = compared.scores("regions")
    rows = [
        [
            bin_words(one),
            f"{one['regions']:,}" + (" (few)" if one["regions"] < FEW else ""),
            number(left["accuracy_percent"]),
            number(right["accuracy_percent"]),
            signed(one["points"], 2),
        ]
        for one, left, right in zip(compared.regions(), a, b, strict=True)
    ]
    return Table(["region size, pixels", "regions", *columns], rows)


def _notes(compared: Compared) -> list[str]:
    """What a reader must know to read the numbers: sentences."""
    notes = []
    alike = compared.alike_percent()
    if alike is not None:
        notes.append(
            f"A and B label {alike.value:.2f} % of all pixels alike [{alike.low:.2f}, "
            f"{alike.high:.2f}]."
        )
    if compared.differences is not None:
        notes.append(
            "The interval in brackets holds the true difference in "
            f"{100 * compared.differences.level:g} of 100 cases. The intervals of the classes do "
            "so all together."
        )
    hardly = compared.hardly_seen()
    if hardly:
        notes.append(
            f"The images show too little of the classes marked (few): {', '.join(hardly)}. A class "
            f"needs at least {FEWEST_IMAGES} images ({FEWEST_IMAGES} groups, if there are "
            f"{FEWEST_GROUPS} groups or more) and {FEWEST_PIXELS:,} pixels."
        )
    if compared.differences is not None and compared.differences.left_out:
        notes.append(
            "The difference of mIoU with an interval leaves out "
            f"{', '.join(compared.differences.left_out)}."
        )
    return [*notes, *_unlike_means(compared)]


def _unlike_means(compared: Compared) -> list[str]:
    """A warning where the two mean IoUs run over different classes."""
    a, b = compared.scores("iou_percent")
    only = [name for name in a if (a[name] is None) != (b[name] is None)]
    if not only:
        return []
    return [
        f"{', '.join(only)}: in no ground truth, and predicted by only one model. So each mIoU is "
        "the mean over different classes. Over the classes that both have, mIoU differs by "
        f"{signed(compared.over_common_classes(), 2)} points."
    ]


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
                marks_picture("Where only one model is right", sample.image, marks, _ALONE),
                label_picture("Prediction of A", first, label_set),
                label_picture("Prediction of B", second, label_set),
            ),
        )

    gallery.offer(abs(a - b), draw)


def compare_page(compared: Compared, gallery: Gallery, label_set: LabelSet | None) -> str:
    """The comparison of two models as one HTML document.

    Args:
        compared: both, and their differences.
        gallery: the images on which the two differ most; empty for recorded results.
        label_set: of the data set, if the gallery holds any.
    """
    a, b = names(compared.models)
    protocol, intervals = compared.first["protocol"], compared.measures()
    return page(
        f"{a} against {b} on {protocol['dataset']} {protocol['split']}",
        tag("p", f"{_sentence(compared.basis())}."),
        tag("p", f"A: {model_words(compared.first, a)}"),
        tag("p", f"B: {model_words(compared.second, b)}"),
        tag("p", f"{protocol['images']} images, {protocol['data_label_set']}. Differences: A - B."),
        figures(
            {
                f"{words}, points": _with_interval(compared.plain(key), intervals[key])
                for key, words in _MEASURES.items()
            }
        ),
        tag("h2", "Scores"),
        _summary(compared).html(),
        [tag("p", note) for note in _notes(compared)],
        tag("h2", "IoU of each class"),
        _plot(compared),
        _classes(compared, "Class").html(),
        regions_part(compared.models),
        _regions(compared, "A, %", "B, %", "A - B, points").html(),
        exhibits_part(
            "The images on which they differ most",
            label_set,
            [("only A is right", _ALONE[_FIRST]), ("only B is right", _ALONE[_SECOND])],
            gallery,
        ),
        tag("h2", "Protocol"),
        facts(
            {
                **protocol_words(compared.models),
                "time of A": time_words(compared.first),
                "time of B": time_words(compared.second),
            }
        ),
        where(machine() | versions()),
    )


def _plot(compared: Compared) -> list[Html]:
    """The differences of the classes with their intervals."""
    if compared.differences is None:
        return []
    plot = difference_plot(compared.differences, title="A - B, with its interval")
    return [tag("div", plot, class_="scroll")]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
