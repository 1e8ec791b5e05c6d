"""The result of `icnet parity` as HTML."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np

from icnet_deploy.data import Sample
from icnet_deploy.evaluation.answer import Answer
from icnet_deploy.evaluation.confidence.differences import Interval
from icnet_deploy.evaluation.interval_plot import difference_plot
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.evaluation.parity.comparison import FLIP, TIE, Comparison
from icnet_deploy.evaluation.parity.report import (
    columns,
    error_of,
    headline,
    notes,
    numbers,
    sentences,
    unlabelled,
)
from icnet_deploy.evaluation.pictures import (
    Exhibit,
    class_legend,
    exhibit,
    label_picture,
    legend,
    marks_picture,
    overlay,
    photo,
)
from icnet_deploy.evaluation.score import UInt8, size_text
from icnet_deploy.evaluation.verdicts import Verdict, limit_words
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.tables import Table, facts, number, where
from icnet_deploy.runtime.machine import machine, versions

PICTURES = 12
"""Sets of pictures in a report: about 0.4 MB each."""

# Blue-green against orange-red: told apart with every common colour blindness, and on grey.
_COLOURS = {TIE: (0, 200, 255), FLIP: (255, 90, 0)}


def difference_exhibit(
    row: Comparison, sample: Sample, answer: Answer, marks: UInt8, labels: UInt8
) -> Exhibit:
    """Draws where a row differs from the reference on an image.

    Args:
        row: what is compared.
        sample: the image.
        answer: the reference's.
        marks: the image's `difference_map`.
        labels: the artefact's label map, uint8 H x W.
    """
    ties, flips = int(np.count_nonzero(marks == TIE)), int(np.count_nonzero(marks == FLIP))
    label_set = row.score.label_set
    share = 100 * (ties + flips) / marks.size
    return Exhibit(
        f"{sample.name} · {row}",
        f"Pixels that differ: {ties + flips:,} of {marks.size:,} ({share:.4f} %). "
        f"Ties: {ties:,}. Real flips: {flips:,}.",
        (
            photo("Input", sample.image),
            overlay(_reference(row), sample.image, answer.labels, label_set),
            label_picture("Label map of the artefact", labels, label_set),
            marks_picture("Differences: ties and real flips", sample.image, marks, _COLOURS),
        ),
    )


def _reference(row: Comparison) -> str:
    runtime = "PyTorch" if row.origin.kind == "pytorch" else "ONNX Runtime"
    return f"Label map of the reference ({runtime}), over the input"


def parity_page(rows: Sequence[Comparison], left_out: Sequence[str] = ()) -> str:
    """The whole report as one HTML document.

    At most `PICTURES` images are shown, the worst of every row before any second one.

    Args:
        rows: of the table.
        left_out: a sentence for each file and runtime that was not compared.
    """
    return page(
        "Parity with the PyTorch model"
        if rows[0].origin.kind == "pytorch"
        else f"Parity with {rows[0].origin.name}",
        tag("p", _badges([row.judgement().verdict for row in rows])),
        tag("p", headline(rows)),
        parity_sections(rows, left_out),
        where(machine() | versions()),
    )


def parity_sections(rows: Sequence[Comparison], left_out: Sequence[str]) -> list[Html]:
    """What `parity_page` shows, from the protocol's first words to the artefacts' hashes."""
    protocol = rows[0].score.protocol()
    turns = chain.from_iterable(zip_longest(*(row.gallery.exhibits() for row in rows)))
    shown = [one for one in turns if one is not None][:PICTURES]
    return [
        tag(
            "p",
            f"{protocol.images} images of {protocol.dataset} {protocol.split}."
            if rows[0].score.dataset.labelled
            else f"{unlabelled(protocol)}. {_no_labels(rows[0])}",
            f" The reference is {_network(rows[0])}.",
        ),
        *(tag("p", f"Note: {note}.") for note in notes(rows)),
        tag("h2", "Verdicts"),
        tag("p", _VERDICTS.format(level=100 * rows[0].level, error=error_of(rows))),
        _summary(rows),
        *(
            tag("p", tag("strong", f"{r}: "), sentence, ".")
            for r in rows
            for sentence in sentences(r)
        ),
        *(tag("p", f"Not compared: {sentence}") for sentence in left_out),
        tag("h2", "What the columns mean"),
        *_meanings(rows),
        tag("h2", "The differences and their limits"),
        _pixels(rows),
        *map(_plot, rows),
        tag("h2", "IoU of each class"),
        _classes(rows),
        *_exhibits(rows, shown),
        *_protocols(rows),
    ]


def _network(row: Comparison) -> str:
    if row.origin.kind == "pytorch":
        return "the PyTorch network in float32 on the CPU"
    return str(row.origin)


def badge(text: str, verdict: Verdict) -> Html:
    """A verdict in its colour."""
    return tag("span", text, class_=f"badge {verdict}")


def _badges(verdicts: Sequence[Verdict]) -> list[Html]:
    """How many there are of each verdict, the worst first."""
    counts = {verdict: verdicts.count(verdict) for verdict in Verdict}
    return [
        tag("span", badge(f"{count} of {len(verdicts)} {verdict}", verdict), " ")
        for verdict, count in counts.items()
        if count
    ]


_VERDICTS = (
    "Each difference has an interval, in brackets. It holds the true difference in {level:g} % of "
    "cases. A row is within its budget if every interval is inside its limit. It is past its "
    "budget if one interval lies wholly beyond its limit. Else it is undecided: an interval "
    "contains a limit, or the images show too little of a class. More images may decide it. "
    "Errors: {error}."
)


def _no_labels(row: Comparison) -> str:
    words = (
        "The images have no labels, so the reference's own label map is the truth, and the "
        "reference has 100 % everywhere. Points say how far the artefact is from that"
    )
    if row.ties_are_right:
        return (
            f"{words}. Where the reference's two best logits are a tie, both labels are right, so "
            "only real flips are losses."
        )
    return f"{words}. The budgets do not limit them: budgets are for labels that people drew."


def _summary(rows: Sequence[Comparison]) -> Html:
    header = ["Artefact", "Runtime", "Verdict", "Precision", "Size"]
    header += [_title(name) for name in columns(rows[0].score.dataset.labelled)]
    cells = [
        [
            row.name,
            row.runtime,
            badge(row.judgement().verdict, row.judgement().verdict),
            row.metadata.precision,
            size_text(row.metadata.size, "the image's"),
            *numbers(row, ","),
        ]
        for row in rows
    ]
    return Table(header, cells, left=5).html()


def _title(name: str) -> str:
    return name if name.startswith("mIoU") else f"{name[0].upper()}{name[1:]}"


def _pixels(rows: Sequence[Comparison]) -> Html:
    """What share of the pixels is alike, and of those that differ what share is of which kind."""
    header = ["Pixels, %", "Alike", "Ties", "Real flips"]
    cells = [[str(row), *map(_percent, row.pixel_percent().values())] for row in rows]
    return Table(header, cells).html()


def _percent(share: Interval) -> str:
    low, high = number(share.low, 4), number(share.high, 4)
    return f"{number(share.value, 4)} [{low}, {high}]"


def _plot(row: Comparison) -> Html:
    """The differences of a row against its limits; a sentence where there is none."""
    if row.ties + row.flips == 0:
        return tag("p", f"{row} labels every pixel as the reference does.")
    plot = difference_plot(row.differences(), row.budget, str(row))
    return tag("div", plot, class_="scroll")


def _meanings(rows: Sequence[Comparison]) -> list[Html]:
    margins = {row.metadata.precision: row.budget.tie_margin for row in rows}
    ties = ", ".join(f"{margin:g} for {precision}" for precision, margin in margins.items())
    text = (
        "Points: the difference from the reference at the same size, in hundredths. mIoU points: "
        "the mean over the classes that the images show enough of; the other classes are marked "
        "(few). Ties: pixels whose label differs, where the reference's two best logits are closer "
        f"than rounding explains ({ties}). Flips: all other pixels whose label differs. Small "
        "points: the difference in accuracy on regions below 3,000 pixels, which is the mean share "
        "of right pixels in each connected region of one true class."
    )
    if any(row.runtime == ROUNDED for row in rows):
        text += (
            f" The runtime '{ROUNDED}' is ONNX Runtime with every float16 value rounded, as on a "
            "GPU; CPUs run such files in float32."
        )
    budgets = [
        [
            precision,
            "-" if budget.agreement is None else f"at least {100 * budget.agreement:g} %",
            _limit(budget.miou_points, budget.miou_rises),
            _limit(budget.class_points, budget.class_rises),
        ]
        for precision, budget in {row.metadata.precision: row.budget for row in rows}.items()
    ]
    table = Table(["Budget of", "Pixels alike", "mIoU", "Any class"], budgets, left=4)
    return [tag("p", text, class_="quiet"), table.html()]


def _limit(points: float | None, rises: bool) -> str:
    return "-" if points is None else limit_words(points, rises)


def _classes(rows: Sequence[Comparison]) -> Html:
    """IoU of the references, and every row's differences, class by class."""
    labelled = rows[0].score.dataset.labelled  # else each of its classes has 100 %
    references = {row.key: row.reference for row in rows} if labelled else {}
    several = len({size for size, _ in references}) < len(references)
    header = ["Class"]
    for size, head in references:
        of_head = f", {head} head" if several else ""
        header.append(f"Reference, {size_text(size, 'image size')}{of_head}")
    header += [f"{row}, points" for row in rows]
    columns = [score.confusion.iou() for score in references.values()]
    differences = [row.differences() for row in rows]
    hardly = {n for of in differences for n, seen in of.seen.items() if not seen.enough()}
    body = [
        [
            name + (" (few)" if name in hardly else ""),
            *(number(100 * column[i]) for column in columns),
            *(of.classes[name].text() if name in of.classes else "-" for of in differences),
        ]
        for i, name in enumerate(rows[0].score.dataset.label_set.names)
    ]
    means = [number(100 * score.confusion.miou()) for score in references.values()]
    body.append(["mIoU", *means, *(of.miou.text() for of in differences)])
    return Table(header, body).html()


def _exhibits(rows: Sequence[Comparison], shown: Sequence[Exhibit]) -> list[Html]:
    if not shown:
        return []
    names = {TIE: "tie", FLIP: "real flip"}
    chips = [(names[mark], colour) for mark, colour in _COLOURS.items()]
    return [
        tag("h2", "The images that differ most"),
        tag(
            "p",
            "The last picture marks every pixel whose label differs. If few pixels differ, each "
            "mark is larger than its pixel.",
            class_="quiet",
        ),
        legend(chips),
        class_legend(rows[0].score.label_set),
        *(exhibit(one) for one in shown),
    ]


def _protocols(rows: Sequence[Comparison]) -> list[Html]:
    protocols = [row.score.protocol().to_words() for row in rows]
    words = {
        name: "; ".join(dict.fromkeys(protocol[name] for protocol in protocols))
        for name in protocols[0]
    }
    files = {str(row): f"SHA-256 {row.sha256}" for row in rows}
    return [tag("h2", "Protocol"), facts(words), tag("h2", "Artefacts"), facts(files)]
