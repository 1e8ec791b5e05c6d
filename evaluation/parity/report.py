"""The result of `icnet parity`, for the screen, as JSON and as HTML."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np

from icnet_deploy.data import Sample
from icnet_deploy.evaluation.pairing import ROUNDED
from icnet_deploy.evaluation.parity.comparison import FLIP, TIE, Comparison
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
from icnet_deploy.evaluation.reference import Answer
from icnet_deploy.evaluation.score import UInt8, size_text
from icnet_deploy.report.html import Html, page, tag
from icnet_deploy.report.tables import Table, facts, number, signed, where
from icnet_deploy.runtime.machine import machine, versions

SCHEMA = 1
"""Of the JSON result; raised when a reader of today could misunderstand it."""

PICTURES = 12
"""Sets of pictures in a report: about 0.4 MB each."""

# Blue-green against orange-red: told apart with every common colour blindness, and on grey.
_COLOURS = {TIE: (0, 200, 255), FLIP: (255, 90, 0)}


class Failure(NamedTuple):
    """What has a row without numbers: a file, or a file on a runtime, that cannot be compared.

    Attributes:
        name, precision, runtime, size: as a table shows them; a dash for what is not known.
        reason: why, in words.
    """

    name: str
    precision: str
    runtime: str
    size: str
    reason: str

    def __str__(self) -> str:
        where = "" if self.runtime == "-" else f" on {self.runtime}"
        return f"{self.name}{where}: {self.reason}"


def verdict_table(
    rows: Sequence[Comparison], left_out: Sequence[str] = (), failures: Sequence[Failure] = ()
) -> str:
    """The table for the screen, what is wrong with any row, and how they were scored.

    Args:
        rows: what was compared.
        left_out: a sentence for each file and runtime that was not.
        failures: what could not be.
    """
    header = [
        "artefact", "precision", "runtime", "size", "mIoU %", "points", "worst class", "points",
        "agree %", "ties", "flips", "small %", "points", "verdict",
    ]  # fmt: skip
    cells = [
        [
            row.name,
            row.metadata.precision,
            row.runtime,
            size_text(row.metadata.size),
            *_numbers(row),
            "past budget" if row.breaches() else "within",
        ]
        for row in rows
    ]
    cells += [[f.name, f.precision, f.runtime, f.size, *["-"] * 9, "failed"] for f in failures]
    lines = [
        Table(header, cells, left=4).text(),
        "",
        *(f"past budget: {row}: {'; '.join(row.breaches())}" for row in rows if row.breaches()),
        *(f"failed: {failure}" for failure in failures),
        *(f"not compared: {sentence}" for sentence in left_out),
    ]
    return "\n".join(lines + (_how(rows) if rows else []))


def _how(rows: Sequence[Comparison]) -> list[str]:
    protocol = rows[0].score.protocol()
    budgets = {row.metadata.precision: row.budget for row in rows}
    rounded = [
        f"{ROUNDED}: every float16 value rounded, as a GPU does; CPUs compute such files in float32"
    ]
    return [
        "points: the difference from the PyTorch model, float32 on the CPU, at the same size",
        "small: accuracy on the regions below 3,000 pixels",
        *(rounded if any(row.runtime == ROUNDED for row in rows) else []),
        *(f"budget of {precision}: {budget}" for precision, budget in budgets.items()),
        f"{protocol.images} images of {protocol.dataset} {protocol.split}, label sizes "
        f"{', '.join(protocol.label_sizes)}, label {protocol.ignored} ignored; {protocol.mapping}",
    ]


def to_dict(rows: Sequence[Comparison], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON result of at least one row, all of one checkpoint."""
    protocol = rows[0].score.protocol().to_dict()
    del protocol["model_size"], protocol["logits_resize"]  # these are each row's own
    references = {row.key: row.reference for row in rows}
    return {
        "schema": SCHEMA,
        "kind": "parity",
        "versions": versions(),
        "machine": machine(),
        "protocol": protocol,
        "budgets": {row.metadata.precision: row.budget.to_dict() for row in rows},
        "references": [
            {
                "weights_sha256": rows[0].metadata.weights_sha256,
                "size": None if size is None else list(size),
                "head": head,
                "score": score.to_dict(),
                "protocol": score.protocol().to_dict(),
            }
            for (size, head), score in references.items()
        ],
        "rows": [row.to_dict() for row in rows],
        "left_out": list(left_out),
    }


def offer_difference(
    row: Comparison, sample: Sample, answer: Answer, marks: UInt8, labels: UInt8
) -> None:
    """Shows a row's gallery an image, which ranks by how many of its pixels differ.

    Args:
        row: what is compared.
        sample: the image.
        answer: the reference's.
        marks: the image's `difference_map`.
        labels: the artefact's label map, uint8 H x W.
    """
    ties, flips = int(np.count_nonzero(marks == TIE)), int(np.count_nonzero(marks == FLIP))

    def draw() -> Exhibit:
        label_set = row.score.label_set
        share = 100 * (ties + flips) / marks.size
        return Exhibit(
            f"{sample.name} · {row}",
            f"Pixels that differ: {ties + flips:,} of {marks.size:,} ({share:.4f} %). "
            f"Ties: {ties:,}. Real flips: {flips:,}.",
            (
                photo("Input", sample.image),
                overlay(
                    "Reference: PyTorch, over the input", sample.image, answer.labels, label_set
                ),
                label_picture("The artefact's labels", labels, label_set),
                marks_picture("Differences: ties and real flips", sample.image, marks, _COLOURS),
            ),
        )

    row.gallery.offer(ties + flips, draw)


def parity_page(rows: Sequence[Comparison], left_out: Sequence[str] = ()) -> str:
    """The whole report as one HTML document.

    At most `PICTURES` images are shown, the worst of every row before any second one.

    Args:
        rows: of the table.
        left_out: a sentence for each file and runtime that was not compared.
    """
    failed, count = sum(bool(row.breaches()) for row in rows), len(rows)
    verdict = f"{failed} of {count} past budget" if failed else f"all {count} within budget"
    return page(
        "Parity with the PyTorch model",
        tag("p", badge(verdict, good=not failed)),
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
            f"{protocol.images} images of {protocol.dataset} {protocol.split}. The reference is "
            "the PyTorch network in float32 on the CPU.",
        ),
        tag("h2", "Verdicts"),
        _summary(rows),
        *_breaches(rows),
        *(tag("p", f"Not compared: {sentence}") for sentence in left_out),
        tag("h2", "What the columns mean"),
        *_meanings(rows),
        tag("h2", "IoU a class"),
        _classes(rows),
        *_exhibits(rows, shown),
        *_protocols(rows),
    ]


def badge(text: str, good: bool) -> Html:
    """A verdict in its colour."""
    return tag("span", text, class_="badge good" if good else "badge bad")


def _summary(rows: Sequence[Comparison]) -> Html:
    header = ["Artefact", "Runtime", "Verdict", "Precision", "Size", "mIoU %", "points"]
    header += ["Worst class", "points", "Agree %", "Ties", "Real flips"]
    header += ["Small regions %", "points"]
    cells = [
        [
            row.name,
            row.runtime,
            badge("past budget" if row.breaches() else "within", good=not row.breaches()),
            row.metadata.precision,
            size_text(row.metadata.size, "the image's"),
            *_numbers(row, ","),
        ]
        for row in rows
    ]
    return Table(header, cells, left=5).html()


def _numbers(row: Comparison, grouping: str = "") -> list[str]:
    """The cells of mIoU to small regions; `grouping` is what parts thousands."""
    name, points = row.worst_class()
    return [
        number(100 * row.score.confusion.miou()),
        signed(row.miou_points()),
        name if float(signed(points)) else "-",
        signed(points),
        number(100 * row.agreement(), 4),
        f"{row.ties:{grouping}}",
        f"{row.flips:{grouping}}",
        number(100 * row.score.regions.small()),
        signed(row.small_region_points(), 2),
    ]


def _breaches(rows: Sequence[Comparison]) -> list[Html]:
    return [
        tag("p", tag("strong", f"{row}: "), "; ".join(row.breaches()), ".")
        for row in rows
        if row.breaches()
    ]


def _meanings(rows: Sequence[Comparison]) -> list[Html]:
    margins = {row.metadata.precision: row.budget.tie_margin for row in rows}
    ties = ", ".join(f"{margin:g} for {precision}" for precision, margin in margins.items())
    text = (
        "Points are hundredths: the difference from the reference at the same size. That of the "
        "mIoU is the mean over the classes that occur in the truth. A pixel whose label differs is "
        "a tie where the reference's own two best logits are within a margin that the arithmetic "
        f"explains ({ties}), and a real flip elsewhere. Small regions are connected areas of one "
        "true class below 3,000 pixels: the mean share of their pixels that is right."
    )
    if any(row.runtime == ROUNDED for row in rows):
        text += (
            f" The runtime '{ROUNDED}' is ONNX Runtime with every float16 value rounded, as on a "
            "GPU; CPUs compute such files in float32."
        )
    budgets = [
        [
            precision,
            "-" if budget.agreement is None else f"{100 * budget.agreement:g}",
            f"{budget.miou_points:g}",
            "-" if budget.class_points is None else f"{budget.class_points:g}",
        ]
        for precision, budget in {row.metadata.precision: row.budget for row in rows}.items()
    ]
    header = ["Budget of", "Agree %, at least", "mIoU points, at most", "A class's, at most"]
    return [tag("p", text, class_="quiet"), Table(header, budgets).html()]


def _classes(rows: Sequence[Comparison]) -> Html:
    """IoU of the references, and every row's differences, class by class."""
    references = {row.key: row.reference for row in rows}
    several = len({size for size, _ in references}) < len(references)
    header = ["Class"]
    for size, head in references:
        of_head = f", {head} head" if several else ""
        header.append(f"Reference, {size_text(size, 'image size')}{of_head}")
    header += map(str, rows)
    columns = [score.confusion.iou() for score in references.values()]
    points = [row.class_points() for row in rows]
    body = [
        [
            name,
            *(number(100 * column[i]) for column in columns),
            *(signed(of.get(name)) for of in points),
        ]
        for i, name in enumerate(rows[0].score.dataset.label_set.names)
    ]
    means = [number(100 * score.confusion.miou()) for score in references.values()]
    body.append(["mean", *means, *(signed(row.miou_points()) for row in rows)])
    return Table(header, body).html()


def _exhibits(rows: Sequence[Comparison], shown: Sequence[Exhibit]) -> list[Html]:
    if not shown:
        return []
    names = {TIE: "tie", FLIP: "real flip"}
    chips = [(names[mark], colour) for mark, colour in _COLOURS.items()]
    return [
        tag("h2", "Where they differ most"),
        tag(
            "p",
            "Difference maps mark every pixel whose label differs; where there are few, each is "
            "drawn larger than it is.",
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
